package relay_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/feed/feedtest"
	"ticketgate/feed/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long any step of a test on real sockets may take.
const patience = time.Minute

func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// realGate is a gate on loopback whose relay talks to backend, an address.
func realGate(t testing.TB, backend string) *feedtest.Gate {
	t.Helper()
	r, err := relay.New(options(func(o *relay.Options) { o.Targets = []string{"ws://" + backend + "/"} }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	o := feedtest.Options{Stream: r, Handlers: []reactor.Handler{r.Handler()}, Loops: 2}
	return feedtest.New(t, o, func(e *engine.Engine) {
		if err := r.Bind(e); err != nil {
			t.Fatal(err)
		}
	})
}

// serve runs a backend that hands every WebSocket to f.
func serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func viaGorilla(t testing.TB, f func(*gorilla.Conn)) string {
	up := gorilla.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024}
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			t.Errorf("backend: %v", err)
			return
		}
		defer func() { _ = c.Close() }()
		f(c)
	})
}

func viaCoder(t testing.TB, f func(context.Context, *coder.Conn)) string {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := coder.Accept(w, r, &coder.AcceptOptions{CompressionMode: coder.CompressionDisabled})
		if err != nil {
			t.Errorf("backend: %v", err)
			return
		}
		defer func() { _ = c.CloseNow() }()
		c.SetReadLimit(1 << 20)
		f(r.Context(), c)
	})
}

func gorillaEcho(c *gorilla.Conn) {
	for {
		kind, b, err := c.ReadMessage()
		if err != nil || c.WriteMessage(kind, b) != nil {
			return
		}
	}
}

func coderEcho(ctx context.Context, c *coder.Conn) {
	for {
		kind, b, err := c.Read(ctx)
		if err != nil || c.Write(ctx, kind, b) != nil {
			return
		}
	}
}

// dial opens a client through the gate. Its writes are cut at random where chop is not nil.
func dial(t testing.TB, g *feedtest.Gate, chop *rand.Rand) *coder.Conn {
	t.Helper()
	if chop == nil {
		return g.Dial(t)
	}
	return g.Dial(t, func(c net.Conn) net.Conn { return &chopped{Conn: c, rnd: chop} })
}

// chopped is a connection whose writes leave in pieces.
type chopped struct {
	net.Conn
	rnd  *rand.Rand
	open atomic.Bool // the upgrade request has gone: by a goroutine of the HTTP client
}

func (c *chopped) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		piece := b
		if c.open.Load() {
			piece = b[:min(len(b), 1+c.rnd.IntN(9000)>>c.rnd.IntN(14))]
		}
		m, err := c.Conn.Write(piece)
		n += m
		if err != nil {
			return n, err
		}
		b = b[m:]
	}
	c.open.Store(true)
	return n, nil
}

func TestRealBackends(t *testing.T) {
	for _, backend := range []struct {
		name string
		addr func() string
	}{
		{"gorilla", func() string { return viaGorilla(t, gorillaEcho) }},
		{"coder", func() string { return viaCoder(t, coderEcho) }},
	} {
		t.Run(backend.name, func(t *testing.T) {
			g := realGate(t, backend.addr())
			c := dial(t, g, rand.New(rand.NewPCG(1, 2)))
			ctx := deadline(t)
			for _, size := range []int{0, 1, 125, 126, 127, 1000, 4095, 0xffff, 64 << 10} {
				for _, kind := range []coder.MessageType{coder.MessageText, coder.MessageBinary} {
					sent := bytes.Repeat([]byte{'a' + byte(size%26)}, size)
					if err := c.Write(ctx, kind, sent); err != nil {
						t.Fatal(err)
					}
					gotKind, got, err := c.Read(ctx)
					if err != nil || gotKind != kind || !bytes.Equal(got, sent) {
						t.Fatalf("%v of %d bytes came back as %v of %d (%v)", kind, size, gotKind, len(got), err)
					}
				}
			}
			// Fragments: each Write of the writer is a frame.
			w, err := c.Writer(ctx, coder.MessageBinary)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 10 {
				if _, err := w.Write(bytes.Repeat([]byte{byte(i)}, 5000)); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if _, got, err := c.Read(ctx); err != nil || len(got) != 50_000 || got[0] != 0 || got[49_999] != 9 {
				t.Fatalf("%d bytes came back (%v), want 50000", len(got), err)
			}
			if err := c.Close(coder.StatusNormalClosure, "bye"); err != nil {
				t.Errorf("close handshake: %v", err)
			}
		})
	}
}

// TestRealCloseCodes: each library understands what the other side of the gateway said.
func TestRealCloseCodes(t *testing.T) {
	for _, code := range []int{1000, 1001, 1003, 1007, 1008, 1009, 1011, 3000, 4000} {
		heard := make(chan error, 1)
		g := realGate(t, viaGorilla(t, func(c *gorilla.Conn) {
			_, _, err := c.ReadMessage()
			heard <- err
		}))
		c := dial(t, g, nil)
		if err := c.Close(coder.StatusCode(code), "why"); err != nil {
			t.Errorf("%d from the client: %v", code, err)
		}
		select {
		case err := <-heard:
			if !gorilla.IsCloseError(err, code) || !strings.Contains(err.Error(), "why") {
				t.Errorf("%d from the client: backend heard %v", code, err)
			}
		case <-deadline(t).Done():
			t.Errorf("%d from the client: backend heard nothing", code)
		}

		g = realGate(t, viaGorilla(t, func(c *gorilla.Conn) {
			_ = c.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(code, "because"), time.Now().Add(patience))
			_, _, err := c.ReadMessage()
			heard <- err
		}))
		c = dial(t, g, nil)
		_, _, err := c.Read(deadline(t))
		var end coder.CloseError
		if !errors.As(err, &end) || int(end.Code) != code || end.Reason != "because" {
			t.Errorf("%d from the backend: client heard %v", code, err)
		}
		if err := <-heard; !gorilla.IsCloseError(err, code) {
			t.Errorf("%d from the backend: the answer was %v", code, err)
		}
	}
}

func TestRealBackendKilled(t *testing.T) {
	for _, rst := range []bool{false, true} {
		g := realGate(t, viaGorilla(t, func(c *gorilla.Conn) {
			_, _, _ = c.ReadMessage()
			if rst {
				_ = c.NetConn().(*net.TCPConn).SetLinger(0)
			}
		}))
		c := dial(t, g, nil)
		ctx := deadline(t)
		if err := c.Write(ctx, coder.MessageText, []byte("die")); err != nil {
			t.Fatal(err)
		}
		_, _, err := c.Read(ctx)
		var end coder.CloseError
		if !errors.As(err, &end) || end.Code != 4502 || end.Reason != "backend" {
			t.Errorf("RST %v: client heard %v, want 4502", rst, err)
		}
	}
}

// TestRealRefusals: a port where nobody listens, and a backend that is no WebSocket server.
func TestRealRefusals(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	forbids := serve(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) })
	for _, addr := range []string{free, forbids} {
		g := realGate(t, addr)
		target, secret := g.Ticket(t)
		_, res, err := coder.Dial(deadline(t), "ws://"+g.Addr+target, &coder.DialOptions{
			HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
			HTTPHeader: http.Header{"Ticketgate-Secret": {secret}}})
		if err == nil || res == nil || res.StatusCode != http.StatusBadGateway {
			t.Errorf("client heard %v (%v), want 502", res, err)
		}
	}
}

// TestRealSlowClientStallsTheBackend: the backend's writes block, and the gateway's memory stands still.
func TestRealSlowClientStallsTheBackend(t *testing.T) {
	type stall struct {
		sent int
		err  error
	}
	stalled := make(chan stall, 1)
	g := realGate(t, viaGorilla(t, func(c *gorilla.Conn) {
		block := bytes.Repeat([]byte("x"), 60_000)
		var s stall
		for s.err == nil && s.sent < 1<<30 {
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			if s.err = c.WriteMessage(gorilla.BinaryMessage, block); s.err == nil {
				s.sent += len(block)
			}
		}
		stalled <- s
	}))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	dial(t, g, nil) // and never reads
	select {
	case s := <-stalled:
		var timeout net.Error
		if !errors.As(s.err, &timeout) || !timeout.Timeout() {
			t.Errorf("the backend sent %d bytes and then %v, want its write to block", s.sent, s.err)
		}
	case <-deadline(t).Done():
		t.Fatal("the backend has not stalled")
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2<<20 {
		t.Errorf("the heap grew by %d bytes while one client did not read", grown)
	}
}

// payload is a message that says whose it is: socket, number, random bytes, and a checksum over all.
func payload(rnd *rand.Rand, socket, number uint32) []byte {
	size := 8 + rnd.IntN(64<<10-8-sha256.Size+1)
	b := make([]byte, size+sha256.Size)
	binary.BigEndian.PutUint32(b, socket)
	binary.BigEndian.PutUint32(b[4:], number)
	for i := 8; i < size; i++ {
		b[i] = byte(rnd.Uint32())
	}
	sum := sha256.Sum256(b[:size])
	copy(b[size:], sum[:])
	return b
}

// TestNoCrossTalk: 100 sockets on two loops with random sizes, fragments and cuts, while others come and are cut off.
func TestNoCrossTalk(t *testing.T) {
	const sockets, messages, aborts = 100, 4, 40
	g := realGate(t, viaCoder(t, coderEcho))
	var all sync.WaitGroup
	fail := make(chan error, sockets+aborts)
	for i := range uint32(sockets) {
		rnd := rand.New(rand.NewPCG(uint64(i), 7))
		c := dial(t, g, rand.New(rand.NewPCG(uint64(i), 8)))
		all.Go(func() { fail <- converse(t, c, rnd, i, messages) })
	}
	all.Go(func() {
		for i := range aborts {
			c := dial(t, g, nil)
			_ = c.Write(deadline(t), coder.MessageBinary, bytes.Repeat([]byte{0xee}, 1000*i))
			_ = c.CloseNow()
		}
	})
	all.Wait()
	close(fail)
	for err := range fail {
		if err != nil {
			t.Error(err)
		}
	}
}

// converse sends messages, some in fragments, and expects each back unchanged and in order.
func converse(t *testing.T, c *coder.Conn, rnd *rand.Rand, socket uint32, messages int) error {
	ctx := deadline(t)
	for n := range uint32(messages) {
		sent := payload(rnd, socket, n)
		w, err := c.Writer(ctx, coder.MessageBinary)
		if err != nil {
			return err
		}
		for rest := sent; len(rest) > 0; {
			piece := rest[:1+rnd.IntN(len(rest))]
			if _, err := w.Write(piece); err != nil {
				return err
			}
			rest = rest[len(piece):]
		}
		if err := w.Close(); err != nil {
			return err
		}
		_, got, err := c.Read(ctx)
		if err != nil {
			return fmt.Errorf("socket %d, message %d: %w", socket, n, err)
		}
		if !bytes.Equal(got, sent) {
			return fmt.Errorf("socket %d, message %d: %d bytes came back altered, of %d", socket, n, len(got), len(sent))
		}
	}
	return c.Close(coder.StatusNormalClosure, "")
}

// TestLongFramesDoNotAllocate counts the process's allocations while long frames go back and forth.
func TestLongFramesDoNotAllocate(t *testing.T) {
	const size, rounds = 40 << 10, 200
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	g := realGate(t, ln.Addr().String())
	client, backend := rawPair(t, g, ln)
	header := frame.Header{Fin: true, Op: frame.Binary, Len: size}
	down := append(frame.Append(nil, header), make([]byte, size)...)
	header.Masked, header.Mask = true, [4]byte{1, 2, 3, 4}
	up := append(frame.Append(nil, header), make([]byte, size)...)
	buf := make([]byte, size)
	round := func() {
		move(t, client, backend, up, len(up), buf)
		move(t, backend, client, down, size, buf)
	}
	for range 20 {
		round()
	}
	if n := testing.AllocsPerRun(rounds, round); n > 0 {
		t.Errorf("%v allocations a round, want 0", n)
	}
}

// rawPair opens a pair on bare connections.
func rawPair(t *testing.T, g *feedtest.Gate, ln net.Listener) (client, backend net.Conn) {
	t.Helper()
	client, err := net.Dial("tcp", g.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	target, secret := g.Ticket(t)
	fmt.Fprintf(client, "GET %s HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nTicketgate-Secret: %s\r\n\r\n", target, secret)
	if backend, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { backend.Close() })
	for _, c := range []net.Conn{client, backend} {
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintf(backend, "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", acceptFor(t, head(t, backend)))
	head(t, client)
	return client, backend
}

// head reads an HTTP head, byte by byte so that nothing behind it is taken.
func head(t *testing.T, c net.Conn) string {
	t.Helper()
	var b []byte
	for one := make([]byte, 1); !bytes.HasSuffix(b, []byte("\r\n\r\n")); b = append(b, one[0]) {
		if _, err := io.ReadFull(c, one); err != nil {
			t.Fatalf("head %q: %v", b, err)
		}
	}
	return string(b)
}

// move sends wire from one end and takes at least n bytes at the other: a long frame may arrive as several.
func move(t *testing.T, from, to net.Conn, wire []byte, n int, buf []byte) {
	if _, err := from.Write(wire); err != nil {
		t.Fatal(err)
	}
	for got := 0; got < n; {
		m, err := to.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got += m
	}
}
