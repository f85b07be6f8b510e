package bench_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"ticketgate/bench"
)

const patience = 20 * time.Second // for what takes milliseconds: only a fault waits so long

// serve runs handle for each connection to a new listener until the test ends.
func serve(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{handle: handle, open: make(map[net.Conn]bool)}
	s.running.Go(func() { s.accept(l) })
	t.Cleanup(func() {
		l.Close()
		s.hangUp()
		s.running.Wait()
	})
	return l.Addr().String()
}

type server struct {
	handle  func(net.Conn)
	running sync.WaitGroup
	mu      sync.Mutex
	open    map[net.Conn]bool // nil: ended
}

func (s *server) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		ended := s.open == nil
		if !ended {
			s.open[c] = true
		}
		s.mu.Unlock()
		if ended {
			c.Close()
			return
		}
		s.running.Go(func() {
			s.handle(c)
			s.mu.Lock()
			delete(s.open, c)
			s.mu.Unlock()
			c.Close()
		})
	}
}

func (s *server) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		c.Close()
	}
	s.open = nil
}

// newLoop returns a loop that is closed when the test ends.
func newLoop(t *testing.T, o bench.Options) *bench.Loop {
	t.Helper()
	l, err := bench.NewLoop(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func target(t *testing.T, address string) *bench.Target {
	t.Helper()
	to, err := bench.NewTarget(address)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func runUntil(t *testing.T, l *bench.Loop, done func() bool) {
	t.Helper()
	if err := l.RunUntil(t.Context(), patience, done); err != nil {
		t.Fatal(err)
	}
}

// echoServer answers WebSocket messages with themselves, through a library that is not ours.
func echoServer(seen *atomic.Int64) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := ws.Upgrade(c); err != nil {
			return
		}
		for {
			b, op, err := wsutil.ReadClientData(c)
			if err != nil {
				return
			}
			seen.Add(1) // before the answer, which may end the test
			if wsutil.WriteServerMessage(c, op, b) != nil {
				return
			}
		}
	}
}

func dialEcho(t *testing.T, l *bench.Loop, address string, e *bench.Echo, sockets int) {
	t.Helper()
	head := bench.AppendUpgrade(nil, address, []byte("/t/x"), nil)
	for range sockets {
		if _, err := l.Dial(target(t, address), &bench.Upgrade{Head: head, Then: e.Socket()}); err != nil {
			t.Fatal(err)
		}
	}
	runUntil(t, l, func() bool { return e.Ready() == sockets || e.Err != nil })
}

func TestEcho(t *testing.T) {
	for _, c := range []struct{ sockets, size, inFlight, messages int }{{1, 0, 1, 200}, {20, 32, 1, 500}, {5, 126, 16, 500}, {3, 70000, 2, 20}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			var seen atomic.Int64
			address := serve(t, echoServer(&seen))
			l := newLoop(t, bench.Options{})
			e := bench.NewEcho(l, []byte("another message"), 3, false)
			dialEcho(t, l, address, e, c.sockets)
			e.Say([]byte(strings.Repeat("x", c.size)), c.inFlight)
			for range 2 { // a second start goes on where the first one stopped
				before := e.Messages
				e.Start()
				runUntil(t, l, func() bool { return e.Messages >= before+uint64(c.messages) || e.Err != nil })
				e.Stop()
				runUntil(t, l, e.Idle)
			}
			if e.Err != nil || e.Latency.Count() != e.Messages || e.Latency.Max() <= 0 {
				t.Errorf("%d messages, %d latencies, longest %v, %v", e.Messages, e.Latency.Count(), e.Latency.Max(), e.Err)
			}
			if e.Messages%uint64(c.inFlight) != 0 {
				t.Errorf("%d messages are not whole writes of %d", e.Messages, c.inFlight)
			}
			if got := seen.Load(); got != int64(e.Messages) {
				t.Errorf("the server answered %d, the client counts %d", got, e.Messages)
			}
			if l.Open() != c.sockets {
				t.Errorf("%d sockets open", l.Open())
			}
			e.Close()
			if l.Open() != 0 {
				t.Errorf("%d sockets open after Close", l.Open())
			}
		})
	}
}

// slowWriter sends every byte alone.
type slowWriter struct{ net.Conn }

func (s slowWriter) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := s.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// The 101, pings and answers arrive in pieces.
func TestEchoInPieces(t *testing.T) {
	var seen, pongs atomic.Int64
	address := serve(t, func(c net.Conn) {
		s := slowWriter{c}
		if _, err := ws.Upgrade(s); err != nil {
			return
		}
		for {
			f, err := readFrame(s)
			if err != nil {
				return
			}
			if f.Header.OpCode == ws.OpPong {
				if string(f.Payload) != "there?" {
					return
				}
				pongs.Add(1)
				continue
			}
			seen.Add(1)
			answer := append(ws.MustCompileFrame(ws.NewPingFrame([]byte("there?"))), ws.MustCompileFrame(ws.NewTextFrame(f.Payload))...)
			if _, err := s.Write(answer); err != nil {
				return
			}
		}
	})
	l := newLoop(t, bench.Options{})
	e := bench.NewEcho(l, []byte(strings.Repeat("piece", 60)), 2, false)
	dialEcho(t, l, address, e, 3)
	e.Start()
	runUntil(t, l, func() bool { return e.Messages >= 50 || e.Err != nil })
	e.Stop()
	runUntil(t, l, func() bool { return e.Idle() && pongs.Load() == seen.Load() })
	if e.Err != nil || seen.Load() != int64(e.Messages) {
		t.Errorf("%d messages, %d seen, %v", e.Messages, seen.Load(), e.Err)
	}
}

// A relay may pass an answer on in fragments, also empty ones, with control frames between them.
func TestEchoInFragments(t *testing.T) {
	address := serve(t, func(c net.Conn) {
		if _, err := ws.Upgrade(c); err != nil {
			return
		}
		for {
			b, _, err := wsutil.ReadClientData(c)
			if err != nil {
				return
			}
			half := len(b) / 2
			for _, f := range []ws.Frame{
				ws.NewFrame(ws.OpText, false, b[:half]), ws.NewPingFrame(nil), ws.NewFrame(ws.OpContinuation, false, nil),
				ws.NewFrame(ws.OpContinuation, false, b[half:]), ws.NewFrame(ws.OpContinuation, true, nil),
			} {
				if ws.WriteFrame(c, f) != nil {
					return
				}
			}
		}
	})
	l := newLoop(t, bench.Options{})
	e := bench.NewEcho(l, []byte("a message in fragments"), 4, false)
	dialEcho(t, l, address, e, 2)
	e.Start()
	runUntil(t, l, func() bool { return e.Messages >= 40 || e.Err != nil })
	e.Stop()
	runUntil(t, l, e.Idle)
	if e.Err != nil || e.Messages%4 != 0 {
		t.Errorf("%d messages, %v", e.Messages, e.Err)
	}
}

// A server that does wrong ends the measurement with an error that says what it did.
func TestEchoFailures(t *testing.T) {
	upgraded := func(then func(net.Conn)) func(net.Conn) {
		return func(c net.Conn) {
			if _, err := ws.Upgrade(c); err != nil {
				return
			}
			if _, _, err := wsutil.ReadClientData(c); err == nil {
				then(c)
			}
		}
	}
	raw := func(answer string) func(net.Conn) {
		return func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, answer)
			}
		}
	}
	write := func(b []byte) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = c.Write(b)
			_, _ = io.Copy(io.Discard, c)
		}
	}
	for _, c := range []struct {
		name   string
		server func(net.Conn)
		want   func(error) bool
	}{
		{"close frame", upgraded(write(ws.MustCompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(4429, "limit:messages-in"))))), func(err error) bool {
			var cl *bench.CloseError
			return errors.As(err, &cl) && cl.Code == 4429 && cl.Reason == "limit:messages-in"
		}},
		{"close frame without a code", upgraded(write([]byte{0x88, 0})), func(err error) bool {
			var cl *bench.CloseError
			return errors.As(err, &cl) && cl.Code == 1005
		}},
		{"end of the connection", upgraded(func(net.Conn) {}), is(io.ErrUnexpectedEOF)},
		{"reset", upgraded(func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }), is(syscall.ECONNRESET)},
		{"another message", upgraded(write(ws.MustCompileFrame(ws.NewTextFrame([]byte("hellO"))))), is(bench.ErrEcho)},
		{"one answer too many", upgraded(write([]byte("\x81\x05hello\x81\x05hello"))), is(bench.ErrEcho)},
		{"another message behind a ping", upgraded(write([]byte("\x89\x00\x81\x05hellO"))), is(bench.ErrEcho)},
		{"the end of an answer is another", upgraded(write([]byte("\x81\x05hel\x81\x00"))), is(bench.ErrEcho)},
		{"binary message", upgraded(write([]byte("\x82\x05hello"))), is(bench.ErrEcho)},
		{"fragments that end early", upgraded(write([]byte("\x01\x02he\x80\x02ll"))), is(bench.ErrEcho)},
		{"fragments that go on", upgraded(write([]byte("\x01\x05hello\x80\x01o"))), is(bench.ErrEcho)},
		{"a message within another", upgraded(write([]byte("\x01\x02he\x81\x05hello"))), is(bench.ErrEcho)},
		{"a continuation of nothing", upgraded(write([]byte("\x80\x05hello"))), is(bench.ErrEcho)},
		{"masked frame", upgraded(write(bench.AppendFrame(nil, 1, []byte("other")))), is(bench.ErrMasked)},
		{"401", raw("HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nnope"), func(err error) bool {
			var s *bench.StatusError
			return errors.As(err, &s) && s.Status == 401 && s.Body == "nope"
		}},
		{"wrong accept", raw("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: no\r\n\r\n"), is(bench.ErrAccept)},
		{"not HTTP", raw("SSH-2.0-server\r\n\r\n"), is(bench.ErrHead)},
		{"nothing", raw(""), is(io.ErrUnexpectedEOF)},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLoop(t, bench.Options{})
			address := serve(t, c.server)
			e := bench.NewEcho(l, []byte("hello"), 1, false)
			t.Cleanup(e.Close)
			dialEcho(t, l, address, e, 1)
			e.Start()
			runUntil(t, l, func() bool { return e.Err != nil })
			if !c.want(e.Err) {
				t.Errorf("%v", e.Err)
			}
			if !e.Idle() {
				t.Error("waits for an answer that cannot come")
			}
		})
	}
}

func is(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }

// The loop and the handlers of an echo allocate nothing once everything is open.
func TestEchoAllocates(t *testing.T) {
	address := serve(t, func(c net.Conn) {
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
	})
	l := newLoop(t, bench.Options{})
	e := bench.NewEcho(l, []byte("hello"), 4, true)
	for range 4 {
		if _, err := l.Dial(target(t, address), e.Socket()); err != nil {
			t.Fatal(err)
		}
	}
	runUntil(t, l, func() bool { return e.Ready() == 4 })
	e.Start()
	var until uint64
	done := func() bool { return e.Messages >= until || e.Err != nil }
	n := testing.AllocsPerRun(10, func() {
		until = e.Messages + 1000
		if err := l.RunUntil(context.Background(), patience, done); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 || e.Err != nil {
		t.Errorf("%v allocations in 1,000 messages, %v", n, e.Err)
	}
}

func TestDial(t *testing.T) {
	closedPort := func() string {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}()
	l := newLoop(t, bench.Options{})
	e := bench.NewEcho(l, []byte("x"), 1, true)
	if _, err := l.Dial(target(t, closedPort), e.Socket()); err != nil {
		t.Fatal(err)
	}
	runUntil(t, l, func() bool { return e.Err != nil })
	if !errors.Is(e.Err, syscall.ECONNREFUSED) || l.Open() != 0 {
		t.Errorf("%v, %d open", e.Err, l.Open())
	}
	for _, bad := range []string{"", "127.0.0.1", "[::1]:80", "localhost:80"} {
		if _, err := bench.NewTarget(bad); err == nil {
			t.Errorf("target %q is taken", bad)
		}
	}
	if _, err := bench.NewLoop(bench.Options{Sources: []netip.Addr{netip.IPv6Loopback()}}); err == nil {
		t.Error("an IPv6 source is taken")
	}
}

// Sources are used in turn.
func TestSources(t *testing.T) {
	var mu sync.Mutex
	from := make(map[string]int)
	address := serve(t, func(c net.Conn) {
		mu.Lock()
		from[c.RemoteAddr().(*net.TCPAddr).IP.String()]++
		mu.Unlock()
		_, _ = c.Write([]byte("x"))
		_, _ = io.Copy(io.Discard, c)
	})
	l := newLoop(t, bench.Options{Sources: []netip.Addr{netip.MustParseAddr("127.0.1.1"), netip.MustParseAddr("127.0.1.2")}})
	count := &counter{}
	for range 10 {
		if _, err := l.Dial(target(t, address), count); err != nil {
			t.Fatal(err)
		}
	}
	runUntil(t, l, func() bool { return count.bytes == 10 })
	mu.Lock()
	defer mu.Unlock()
	if from["127.0.1.1"] != 5 || from["127.0.1.2"] != 5 {
		t.Errorf("%v", from)
	}
}

// counter is a Handler that counts bytes and ends.
type counter struct {
	bytes int
	ends  []error
}

func (k *counter) Opened(*bench.Conn)               {}
func (k *counter) Data(_ *bench.Conn, b []byte) int { k.bytes += len(b); return len(b) }
func (k *counter) Closed(_ *bench.Conn, err error)  { k.ends = append(k.ends, err) }

// flood is a Handler that writes size bytes at once and reads them back.
type flood struct {
	counter
	size int
}

func (f *flood) Opened(c *bench.Conn) {
	b := make([]byte, f.size/2)
	c.Write(b)
	c.Write(b)
}

// Half of it is more than a socket's buffers hold. What the kernel does not take is sent later, and the last bytes before the end of a connection are not lost.
func TestWriteMoreThanTheKernelTakes(t *testing.T) {
	const size = 16 << 20
	address := serve(t, func(c net.Conn) {
		_, _ = io.CopyN(c, c, size)
	})
	l := newLoop(t, bench.Options{})
	f := &flood{size: size}
	if _, err := l.Dial(target(t, address), f); err != nil {
		t.Fatal(err)
	}
	runUntil(t, l, func() bool { return len(f.ends) > 0 })
	if f.bytes != size || f.ends[0] != io.EOF || len(f.ends) != 1 {
		t.Errorf("%d of %d bytes came back, %v", f.bytes, size, f.ends)
	}
}

// hoarder is a Handler that never uses a byte.
type hoarder struct{ counter }

func (h *hoarder) Data(*bench.Conn, []byte) int { return 0 }

func TestLeftoverIsBounded(t *testing.T) {
	address := serve(t, func(c net.Conn) {
		for b := make([]byte, 64<<10); ; {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	})
	l := newLoop(t, bench.Options{})
	h := &hoarder{}
	if _, err := l.Dial(target(t, address), h); err != nil {
		t.Fatal(err)
	}
	runUntil(t, l, func() bool { return len(h.ends) > 0 })
	if !errors.Is(h.ends[0], bench.ErrLeftover) || l.Open() != 0 {
		t.Errorf("%v, %d open", h.ends[0], l.Open())
	}
}

// rival is a Handler that closes its other half when it gets a byte, and dials anew: on the descriptor that is just free.
type rival struct {
	counter
	l     *bench.Loop
	to    *bench.Target
	conn  *bench.Conn
	other *rival
	heir  *heir
}

func (r *rival) Opened(c *bench.Conn) { r.conn = c }

func (r *rival) Data(_ *bench.Conn, b []byte) int {
	r.bytes += len(b)
	r.other.conn.Close()
	if _, err := r.l.Dial(r.to, r.heir); err != nil {
		r.ends = append(r.ends, err)
	}
	return len(b)
}

// heir is a Handler that notes the wake in which it was opened.
type heir struct {
	counter
	wake, opened int
}

func (h *heir) Opened(*bench.Conn) { h.opened = h.wake }

// An event of a socket that was closed earlier in the same wake does not reach the new one with its number.
func TestReusedDescriptor(t *testing.T) {
	accepted := make(chan net.Conn, 3)
	address := serve(t, func(c net.Conn) {
		accepted <- c
		_, _ = io.Copy(io.Discard, c)
	})
	l := newLoop(t, bench.Options{})
	h := &heir{wake: 1}
	a := &rival{l: l, to: target(t, address), heir: h}
	b := &rival{l: l, to: a.to, heir: h, other: a}
	a.other = b
	for _, r := range []*rival{a, b} {
		if _, err := l.Dial(r.to, r); err != nil {
			t.Fatal(err)
		}
	}
	runUntil(t, l, func() bool { return a.conn != nil && b.conn != nil })
	for range 2 { // both bytes are there before the loop looks
		if _, err := (<-accepted).Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	runUntil(t, l, func() bool {
		if a.bytes+b.bytes > 0 {
			h.wake++
		}
		return h.opened > 0
	})
	if a.bytes+b.bytes != 1 || h.opened < 2 || h.bytes != 0 || len(a.ends)+len(b.ends)+len(h.ends) != 0 {
		t.Errorf("%d and %d bytes, opened in wake %d, %v %v %v", a.bytes, b.bytes, h.opened, a.ends, b.ends, h.ends)
	}
}

func TestRunEnds(t *testing.T) {
	now := time.Duration(0)
	l := newLoop(t, bench.Options{Now: func() time.Duration { now += time.Millisecond; return now }})
	if err := l.RunUntil(t.Context(), 5*time.Millisecond, func() bool { return false }); !errors.Is(err, bench.ErrTimeout) {
		t.Errorf("timeout: %v", err)
	}
	if err := l.RunFor(t.Context(), 5*time.Millisecond); err != nil {
		t.Errorf("RunFor: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.RunFor(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A frontEnd issues tickets that its gate takes once each.
type frontEnd struct {
	api, gate string
	mu        sync.Mutex
	issued    int
	unused    map[string]string // path to secret
	opened    int
	polite    int // close frames with 1000
	pongs     int
	clients   map[string]int
}

func newFrontEnd(t *testing.T, perConnection int) *frontEnd {
	f := &frontEnd{unused: make(map[string]string), clients: make(map[string]int)}
	f.gate = serve(t, f.open)
	s := httptest.NewServer(f.tickets(perConnection))
	t.Cleanup(s.Close)
	f.api = s.Listener.Addr().String()
	return f
}

func (f *frontEnd) tickets(perConnection int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		f.mu.Lock()
		defer f.mu.Unlock()
		if err != nil || r.Method != "POST" || r.URL.Path != "/v1/tickets" || r.Header.Get("X-API-Key") != "tgk_k" {
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		f.issued++
		f.clients[string(body)]++
		path, secret := fmt.Sprintf("/t/%d", f.issued), fmt.Sprintf("tgs_%d", f.issued)
		f.unused[path] = secret
		if f.issued%perConnection == 0 {
			w.Header().Set("Connection", "close")
		}
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"id":"tkt_1","url":"ws://%s%s","protocols":["ticketgate.v1",%q]}`, f.gate, path, secret)
	})
}

func (f *frontEnd) open(c net.Conn) {
	var path, secret string
	u := ws.Upgrader{
		OnRequest: func(uri []byte) error { path = string(uri); return nil },
		Protocol: func(p []byte) bool {
			if strings.HasPrefix(string(p), "tgs_") {
				secret = string(p)
			}
			return false
		},
		OnBeforeUpgrade: func() (ws.HandshakeHeader, error) { return nil, f.redeem(path, secret) },
	}
	if _, err := u.Upgrade(c); err != nil {
		return
	}
	if _, err := c.Write(ws.MustCompileFrame(ws.NewPingFrame(nil))); err != nil {
		return
	}
	for {
		fr, err := readFrame(c)
		if err != nil {
			return
		}
		if f.frame(fr) {
			_, _ = c.Write(ws.MustCompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(1000, ""))))
			return
		}
	}
}

func (f *frontEnd) redeem(path, secret string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if secret == "" || f.unused[path] != secret {
		return ws.RejectConnectionError(ws.RejectionStatus(401))
	}
	delete(f.unused, path)
	f.opened++
	return nil
}

// frame counts fr and says whether it closes.
func (f *frontEnd) frame(fr ws.Frame) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch fr.Header.OpCode {
	case ws.OpPong:
		f.pongs++
	case ws.OpClose:
		if code, _ := ws.ParseCloseFrameData(fr.Payload); code == 1000 {
			f.polite++
		}
		return true
	}
	return false
}

func TestAdmissions(t *testing.T) {
	l := newLoop(t, bench.Options{})
	f := newFrontEnd(t, 7)
	a := &bench.Admissions{
		Loop: l, API: target(t, f.api), Gate: target(t, f.gate), Host: f.gate, Max: 100,
		Mint: bench.NewMint(f.api, "tgk_k", "echo", 10),
	}
	a.Start(8)
	runUntil(t, l, a.Idle)
	f.mu.Lock()
	defer f.mu.Unlock()
	if a.Err != nil || a.Done != 100 || a.Latency.Count() != 100 || f.issued != 100 || f.opened != 100 || f.polite != 100 || len(f.unused) != 0 {
		t.Errorf("done %d, latencies %d, issued %d, opened %d, closed %d, %v", a.Done, a.Latency.Count(), f.issued, f.opened, f.polite, a.Err)
	}
	if len(f.clients) != 10 {
		t.Errorf("%d clients, want 10", len(f.clients))
	}
	if l.Open() != 0 {
		t.Errorf("%d connections are left", l.Open())
	}
}

func TestAdmissionsKept(t *testing.T) {
	l := newLoop(t, bench.Options{})
	f := newFrontEnd(t, 1000)
	a := &bench.Admissions{
		Loop: l, API: target(t, f.api), Gate: target(t, f.gate), Host: f.gate, Max: 30, Keep: true,
		Mint: bench.NewMint(f.api, "tgk_k", "echo", 10),
	}
	a.Start(4)
	runUntil(t, l, a.Idle)
	a.Max = 50
	a.Start(4)
	runUntil(t, l, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return a.Idle() && f.pongs == 50
	})
	if a.Err != nil || a.Done != 50 || a.Lost != 0 || a.Pings != 50 || l.Open() != 50 {
		t.Errorf("done %d, lost %d, %d pings, open %d, %v", a.Done, a.Lost, a.Pings, l.Open(), a.Err)
	}
	a.HangUp()
	if l.Open() != 0 || a.Lost != 0 {
		t.Errorf("after HangUp %d are open, %d lost", l.Open(), a.Lost)
	}
	a.HangUp() // nothing is left to close
}

// A kept socket can have a Handler of its own.
func TestAdmissionsThen(t *testing.T) {
	var seen atomic.Int64
	address := serve(t, echoServer(&seen))
	l := newLoop(t, bench.Options{})
	e := bench.NewEcho(l, []byte("hello"), 2, false)
	head := bench.AppendUpgrade(nil, address, []byte("/t/x"), nil)
	a := &bench.Admissions{Loop: l, Gate: target(t, address), Heads: [][]byte{head, head, head}, Keep: true, Then: e.Socket}
	a.Start(2)
	runUntil(t, l, a.Idle)
	if a.Err != nil || a.Done != 3 || e.Ready() != 3 {
		t.Fatalf("done %d, ready %d, %v", a.Done, e.Ready(), a.Err)
	}
	e.Start()
	runUntil(t, l, func() bool { return e.Messages >= 30 || e.Err != nil })
	a.HangUp()
	if l.Open() != 3 || e.Err != nil {
		t.Errorf("%d are open, %v", l.Open(), e.Err)
	}
}

// mute is a Handler that hears nothing after it has deafened its socket.
type mute struct {
	opened, heard int
	err           error
}

func (m *mute) Opened(c *bench.Conn)               { m.opened++; m.err = c.Deafen() }
func (m *mute) Data(_ *bench.Conn, b []byte) int   { m.heard++; return len(b) }
func (m *mute) Closed(_ *bench.Conn, reason error) { m.heard++; m.err = reason }

func TestDeafen(t *testing.T) {
	said := make(chan struct{})
	address := serve(t, func(c net.Conn) {
		_, _ = c.Write([]byte("hello"))
		_ = c.Close()
		close(said)
	})
	l, m := newLoop(t, bench.Options{}), new(mute)
	if _, err := l.Dial(target(t, address), m); err != nil {
		t.Fatal(err)
	}
	<-said // so that the bytes and the end are in the same event as the connection
	runUntil(t, l, func() bool { return m.opened > 0 })
	if err := l.RunFor(t.Context(), 10*time.Millisecond); err != nil || *m != (mute{opened: 1}) || l.Open() != 1 {
		t.Errorf("%v, %+v, %d open", err, m, l.Open())
	}
}

func TestPostsAndHeads(t *testing.T) {
	l := newLoop(t, bench.Options{})
	f := newFrontEnd(t, 7)
	var heads [][]byte
	p := &bench.Posts{
		Loop: l, To: target(t, f.api), Mint: bench.NewMint(f.api, "tgk_k", "echo", 10), Max: 40,
		Keep: func(k bench.Ticket) { heads = append(heads, bench.AppendUpgrade(nil, f.gate, k.Path, k.Secret)) },
	}
	p.Start(3)
	runUntil(t, l, p.Idle)
	if p.Err != nil || p.Done != 40 || p.Latency.Count() != 40 || len(heads) != 40 || p.Bytes < 50 {
		t.Fatalf("done %d, latencies %d, %d heads, %d bytes, %v", p.Done, p.Latency.Count(), len(heads), p.Bytes, p.Err)
	}
	a := &bench.Admissions{Loop: l, Gate: target(t, f.gate), Heads: heads}
	a.Start(5)
	runUntil(t, l, a.Idle)
	if a.Err != nil || a.Done != 40 {
		t.Fatalf("done %d, %v", a.Done, a.Err)
	}
	a.Again(heads[:1])
	a.Start(5)
	runUntil(t, l, a.Idle)
	var refused *bench.StatusError
	if !errors.As(a.Err, &refused) || refused.Status != 401 || a.Done != 40 {
		t.Errorf("a spent ticket: done %d, %v", a.Done, a.Err)
	}
}

func TestRefusedTickets(t *testing.T) {
	l := newLoop(t, bench.Options{})
	f := newFrontEnd(t, 1000)
	mint := bench.NewMint(f.api, "tgk_wrong", "echo", 10)
	p := &bench.Posts{Loop: l, To: target(t, f.api), Mint: mint}
	p.Start(3)
	a := &bench.Admissions{Loop: l, API: target(t, f.api), Gate: target(t, f.gate), Host: f.gate, Mint: mint}
	a.Start(3)
	runUntil(t, l, func() bool { return p.Idle() && a.Idle() })
	for _, err := range []error{p.Err, a.Err} {
		var refused *bench.StatusError
		if !errors.As(err, &refused) || refused.Status != 400 {
			t.Errorf("%v", err)
		}
	}
	if p.Done != 0 || a.Done != 0 {
		t.Errorf("%d and %d done", p.Done, a.Done)
	}
}

// A gate that ends the connection without a close frame has not closed it well.
func TestAdmissionsCut(t *testing.T) {
	l := newLoop(t, bench.Options{})
	address := serve(t, func(c net.Conn) {
		if _, err := ws.Upgrade(c); err == nil {
			_, _ = readFrame(c)
		}
	})
	a := &bench.Admissions{Loop: l, Gate: target(t, address), Heads: [][]byte{bench.AppendUpgrade(nil, address, []byte("/t/x"), nil)}}
	a.Start(1)
	runUntil(t, l, a.Idle)
	if !errors.Is(a.Err, io.ErrUnexpectedEOF) || a.Done != 0 {
		t.Errorf("done %d, %v", a.Done, a.Err)
	}
}

// host is a Handler that answers with what it got, once for each connection.
type host struct {
	counter
	all *[]*host
}

func (h *host) Opened(*bench.Conn) { *h.all = append(*h.all, h) }
func (h *host) Data(c *bench.Conn, b []byte) int {
	c.Write(b)
	return h.counter.Data(c, b)
}

// guest is a Handler that sends text and hears what comes back.
type guest struct {
	counter
	conn  *bench.Conn
	text  string
	heard string
}

func (g *guest) Opened(c *bench.Conn) {
	g.conn = c
	c.Write([]byte(g.text))
}

func (g *guest) Data(c *bench.Conn, b []byte) int {
	g.heard += string(b)
	return g.counter.Data(c, b)
}

// freePort is an address on which nobody listens now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A loop that listens serves others and itself, each connection with a handler of its own.
func TestListen(t *testing.T) {
	l := newLoop(t, bench.Options{})
	address := freePort(t)
	var hosts []*host
	if err := l.Listen(address, func() bench.Handler { return &host{all: &hosts} }); err != nil {
		t.Fatal(err)
	}
	const many = 600 // more than one wake brings
	guests := make([]*guest, many)
	bytes := 0
	for i := range guests {
		guests[i] = &guest{text: fmt.Sprintf("guest %d", i)}
		bytes += len(guests[i].text)
		if _, err := l.Dial(target(t, address), guests[i]); err != nil {
			t.Fatal(err)
		}
	}
	heard := func() (n int) {
		for _, g := range guests {
			n += g.bytes
		}
		return n
	}
	runUntil(t, l, func() bool { return heard() == bytes })
	if len(hosts) != many || l.Open() != 2*many {
		t.Errorf("%d connections were accepted, %d sockets are open", len(hosts), l.Open())
	}
	for _, g := range guests {
		if g.heard != g.text {
			t.Errorf("%q came back as %q", g.text, g.heard)
		}
		g.conn.Close()
	}
	ended := func() (n int) {
		for _, h := range hosts {
			n += len(h.ends)
		}
		return n
	}
	runUntil(t, l, func() bool { return ended() == many })
	if l.Open() != 0 || hosts[0].ends[0] != io.EOF {
		t.Errorf("%d are open, %v", l.Open(), hosts[0].ends)
	}
	if err := l.Listen(address, nil); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("twice on one address: %v", err)
	}
	for _, bad := range []string{"", "localhost:80", "[::1]:0"} {
		if err := l.Listen(bad, nil); err == nil {
			t.Errorf("%q is listened on", bad)
		}
	}
}

// Whoever comes to a loop that has not dialled is heard: the first socket of a server is its own door.
func TestListenAlone(t *testing.T) {
	l, err := bench.NewLoop(bench.Options{})
	if err != nil {
		t.Fatal(err)
	}
	address := freePort(t)
	var hosts []*host
	if err := l.Listen(address, func() bench.Handler { return &host{all: &hosts} }); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	func() {
		defer func() {
			if p := recover(); p != nil {
				t.Errorf("the loop panics: %v", p)
			}
		}()
		runUntil(t, l, func() bool { return len(hosts) == 1 })
	}()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp4", address); !errors.Is(err, syscall.ECONNREFUSED) { // Close has freed the port
		t.Errorf("%v, %v", c, err)
	}
	again, err := net.Listen("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// Turn handles what is there, and does not wait for more when it must not.
func TestTurn(t *testing.T) {
	address := serve(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	l := newLoop(t, bench.Options{})
	g := &guest{text: "hello"}
	if _, err := l.Dial(target(t, address), g); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); g.heard != "hello"; {
		if err := l.Turn(-time.Hour); err != nil {
			t.Fatal(err)
		}
		if time.Since(start) > patience {
			t.Fatalf("heard %q", g.heard)
		}
	}
	start := time.Now()
	if err := l.Turn(time.Hour); err != nil || time.Since(start) > patience { // longestWait at most
		t.Errorf("a turn of %v, %v", time.Since(start), err)
	}
}

// The peer of a socket that is reset hears of it, unlike that of one that is closed.
func TestReset(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*bench.Conn)
		want error
	}{"close": {(*bench.Conn).Close, nil}, "reset": {(*bench.Conn).Reset, syscall.ECONNRESET}} {
		t.Run(name, func(t *testing.T) {
			ends := make(chan error, 1)
			address := serve(t, func(c net.Conn) {
				_, err := io.Copy(c, c)
				ends <- err
			})
			l := newLoop(t, bench.Options{})
			g := &guest{text: "hello"}
			if _, err := l.Dial(target(t, address), g); err != nil {
				t.Fatal(err)
			}
			runUntil(t, l, func() bool { return g.heard == "hello" })
			c.end(g.conn)
			if l.Open() != 0 || len(g.ends) != 0 {
				t.Errorf("%d open; the handler was told %v", l.Open(), g.ends)
			}
			select {
			case err := <-ends:
				if !errors.Is(err, c.want) {
					t.Errorf("the peer hears %v, want %v", err, c.want)
				}
			case <-time.After(patience):
				t.Error("the peer hears nothing")
			}
		})
	}
}
