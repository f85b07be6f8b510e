package main

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/engine/frame/frametest"
	"ticketgate/tools/rig"
)

func init() {
	tests[2] = test{"bad-frame table: the right close code, TCP closed, nothing of it at the backend", badFrames}
}

// Raw sockets: what a client sends here is bytes, and what it gets is looked at as bytes.

// socket is an open WebSocket whose frames are made by hand.
type socket struct {
	net.Conn
	r     *bufio.Reader
	packs bool // it sends compressed messages
}

// open gets a ticket and opens a raw socket at node i.
func (c *cluster) open(ctx context.Context, i int, q request) (*socket, error) {
	t, err := c.issue(ctx, i, q)
	if err != nil {
		return nil, err
	}
	if c.packs {
		return dialPacked(ctx, c.nodes[i].Gate, t)
	}
	if c.dial == nil {
		return dialRaw(ctx, c.nodes[i].Gate, t)
	}
	conn, err := c.dial(ctx, c.nodes[i].Gate)
	if err != nil {
		return nil, err
	}
	return upgraded(conn, t)
}

func dialRaw(ctx context.Context, gate string, t *rig.Ticket) (*socket, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", gate)
	if err != nil {
		return nil, err
	}
	return upgraded(conn, t)
}

// upgraded redeems t on conn, which it closes if that fails.
func upgraded(conn net.Conn, t *rig.Ticket) (*socket, error) {
	s := &socket{Conn: conn, r: bufio.NewReader(conn)}
	if err := s.upgrade(t); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return s, nil
}

func (s *socket) upgrade(t *rig.Ticket) error {
	if err := s.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := s.Write([]byte(rig.Head("gate.test", t.Path(), t.Secret()))); err != nil {
		return err
	}
	if err := s.switched(); err != nil {
		return err
	}
	return s.SetDeadline(time.Time{})
}

// switched wants a 101.
func (s *socket) switched() error {
	a, err := http.ReadResponse(s.r, nil)
	if err != nil {
		return err
	}
	if a.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("upgrade: %w", statusError(a.StatusCode))
	}
	return nil
}

// statusError is the status of an answer that was not wanted.
type statusError int

// Error implements error.
func (s statusError) Error() string { return fmt.Sprintf("%d %s", int(s), http.StatusText(int(s))) }

// received is a frame from the gate.
type received struct {
	op      frame.Op
	fin     bool
	payload []byte
}

// code is that of a close frame, 0 if its body is empty.
func (f *received) code() frame.Code {
	if len(f.payload) < 2 {
		return 0
	}
	return frame.Code(binary.BigEndian.Uint16(f.payload))
}

// read reads one frame and takes its mask off.
func (s *socket) read() (*received, error) {
	h, err := s.readHead()
	if err != nil {
		return nil, err
	}
	f := &received{h.Op, h.Fin, make([]byte, h.Len)}
	_, err = io.ReadFull(s.r, f.payload)
	frame.Mask(f.payload, h.Mask, 0) // of a server's frame, nothing
	if err == nil && h.Rsv == frame.RSV1 && s.packs {
		f.payload, err = unpack(f.payload)
	}
	return f, err
}

// readHead reads the head of a frame.
func (s *socket) readHead() (frame.Header, error) {
	for have := 2; ; have++ {
		b, err := s.r.Peek(have)
		if err != nil {
			return frame.Header{}, err
		}
		h, n, err := frame.Parse(b)
		if n > 0 && err == nil {
			_, err = s.r.Discard(n)
		}
		if n > 0 || err != nil {
			return h, err
		}
	}
}

// rawBackend is a WebSocket server that counts what it is sent and sends nothing but the 101.
type rawBackend struct {
	ln   net.Listener
	data atomic.Int64 // payload bytes of data frames
}

func startRawBackend() (*rawBackend, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &rawBackend{ln: ln}
	go b.serve() // ends with close
	return b, nil
}

func (b *rawBackend) url() string { return "ws://" + b.ln.Addr().String() + "/" }

func (b *rawBackend) serve() {
	for {
		c, err := b.ln.Accept()
		if err != nil {
			return
		}
		go b.count(c)
	}
}

func (b *rawBackend) count(c net.Conn) {
	defer c.Close()
	s, err := acceptRaw(c)
	if err != nil {
		return
	}
	for {
		f, err := s.read()
		if err != nil {
			return
		}
		if !f.op.Control() {
			b.data.Add(int64(len(f.payload)))
		}
	}
}

// acceptRaw reads an upgrade request on c and answers 101.
func acceptRaw(c net.Conn) (*socket, error) {
	s := &socket{Conn: c, r: bufio.NewReader(c)}
	q, err := http.ReadRequest(s.r)
	if err != nil {
		return nil, err
	}
	sum := sha1.Sum([]byte(q.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, err = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	return s, err
}

// wholeBefore are the rows whose bad frame comes behind a good message, which does reach the backend: its payload bytes.
var wholeBefore = map[string]int64{
	"unmasked second frame":                             1 + 1,
	"continuation behind a whole message":               1,
	"continuation behind the last fragment":             1 + 1,
	"continuation in the same write as a whole message": 1,
	"second message bad, the first ended well":          3,
}

const (
	closeWithin = 100 * time.Millisecond // a close frame after the offence
	goneWithin  = time.Second            // the end of the connection
)

// badFrames sends every row of the table through a relay and looks at both ends.
func badFrames(ctx context.Context, x *exam) error {
	b, err := startRawBackend()
	if err != nil {
		return err
	}
	defer b.ln.Close()
	c, err := start(ctx, x, clusterOptions{memory: true, backend: b.url()})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "the node did not stop") }()
	var slowest, gone time.Duration
	right := 0
	for i, row := range frametest.Bad {
		got, err := c.offend(ctx, &row, fmt.Sprintf("c%d", i))
		if err != nil {
			x.want(false, "%s: %v", row.Name, err)
			continue
		}
		slowest, gone = max(slowest, got.closed), max(gone, got.gone)
		x.want(got.code == row.Code, "%s: closed with %d, want %d", row.Name, got.code, row.Code)
		x.wantTime(got.closed <= closeWithin, "%s: close frame after %v", row.Name, got.closed)
		x.wantTime(got.gone <= goneWithin, "%s: TCP open for %v", row.Name, got.gone)
		if got.code == row.Code {
			right++
		}
	}
	var good int64
	for _, n := range wholeBefore {
		good += n
	}
	bad := b.data.Load() - good
	x.figure("%d rows: right code %d, slowest close frame %v, slowest end of TCP %v, bytes of bad messages at the backend %d (of good ones before them %d)",
		len(frametest.Bad), right, slowest, gone, bad, good)
	x.want(len(frametest.Bad) >= 120, "the table has %d rows, want at least 120", len(frametest.Bad))
	x.want(bad == 0, "%d bytes of bad messages reached the backend", bad)
	return nil
}

// offence is how a bad client was treated.
type offence struct {
	code         frame.Code
	closed, gone time.Duration // after the last byte was sent
}

func (c *cluster) offend(ctx context.Context, row *frametest.Case, client string) (*offence, error) {
	s, err := c.open(ctx, 0, request{Stream: "relay", Client: client})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	for _, w := range row.Wire {
		if _, err := s.Write(w); err != nil {
			break // it was closed before it had said everything
		}
	}
	sent := time.Now()
	var o offence
	for {
		f, err := s.read()
		switch {
		case err == nil && f.op == frame.Close:
			o.code, o.closed = f.code(), time.Since(sent)
		case err == nil:
		case errors.Is(err, io.EOF) || strings.Contains(err.Error(), "reset"):
			o.gone = time.Since(sent)
			if o.closed == 0 {
				return nil, errors.New("no close frame")
			}
			return &o, nil
		default:
			return nil, err
		}
	}
}
