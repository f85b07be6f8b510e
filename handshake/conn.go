package handshake

import (
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// A conn stands between the socket and fasthttp and gives it one complete, canonical request at a time, so that fasthttp
// never waits for a client and never sees a byte behind a request: an answer leaves before the next request is looked at.
//
//	idle ──first byte──> head ──> body ──> fasthttp reads, the handler answers ──> idle
//	  └─ IdleTimeout       └──────┴─ a fault, or too slow: one refusal, then closed
//
// What one holds at worst, for a peer that did not log in: in 36 KiB, out 33 KiB, and once its request is complete 17 KiB
// and 4 KiB of fasthttp's. With all 4,096 connections at their worst that is 360 MiB. An idle one keeps
// fasthttp's and 4 KiB.
const inMax = headMax + bodyMax + 4<<10 // one request, its last chunk still coded, and the start of the next

const (
	inFirst   = 2 << 10                // the heads of most clients fit
	inHead    = headMax + 2<<10        // every head fits, and shows that it is too long
	lingerFor = 500 * time.Millisecond // how long a refused client may take to read why
	lingerMax = 256 << 10              // how much it may still send meanwhile, thrown away unread
)

type conn struct {
	net.Conn
	s     *Server
	since time.Time // accepted

	// Owned by the connection's goroutine.
	in       []byte // from the socket, not yet handed on
	out      []byte // canonical, not yet read by fasthttp
	given    int    // bytes of out that have been read
	requests int
	refused  bool

	// Any goroutine.
	idle atomic.Bool // between requests: Shutdown may end it
}

// Read gives fasthttp the request, and looks for the next one when that has been read.
func (c *conn) Read(p []byte) (int, error) {
	if c.given == len(c.out) {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.out[c.given:])
	c.given += n
	return n, nil
}

// SetReadDeadline does nothing: next keeps the deadlines of reading.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// next waits for a request until it is complete in out. io.EOF: there is none, and what had to be said has been said.
func (c *conn) next() error {
	if c.refused {
		return io.EOF
	}
	if err := c.await(); err != nil {
		return io.EOF
	}
	var h head
	n, err := c.head(&h)
	if err != nil {
		return c.end(err)
	}
	body, rest, err := c.body(&h, n)
	if err != nil {
		return c.end(err)
	}
	c.out = append(h.appendCanonical(c.out[:0], c.in, n, len(body)), body...)
	c.given = 0
	c.in = append(c.in[:0], c.in[rest:]...)
	c.requests++
	return nil
}

// await waits for a first byte.
func (c *conn) await() error {
	limit := c.since.Add(c.s.o.ReadTimeout)
	if c.requests > 0 {
		limit = time.Now().Add(c.s.o.IdleTimeout)
	}
	if err := c.Conn.SetReadDeadline(limit); err != nil {
		return err
	}
	if len(c.in) == 0 && cap(c.in)+cap(c.out) > 2*inFirst {
		c.in, c.out, c.given = nil, nil, 0 // one large request must not stay resident
	}
	c.idle.Store(true) // before the look at stopping, which Shutdown sets before it looks at idle
	defer c.idle.Store(false)
	if c.s.stopping.Load() {
		return net.ErrClosed
	}
	if len(c.in) > 0 {
		return nil
	}
	return c.fill()
}

// fill reads what is there.
func (c *conn) fill() error {
	if len(c.in) == cap(c.in) {
		size := min(max(2*cap(c.in), inFirst), inMax)
		if cap(c.in) < inHead && size >= headMax {
			size = inHead // who only sends a head gets no room for a body
		}
		grown := make([]byte, len(c.in), size)
		copy(grown, c.in)
		c.in = grown
	}
	n, err := c.Conn.Read(c.in[len(c.in):cap(c.in)])
	c.in = c.in[:len(c.in)+n]
	if n > 0 {
		return nil
	}
	return err
}

// A stop is a Reason on its way up.
type stop Reason

func (s stop) Error() string { return refusals[s].label }

// head reads until the head is complete, for ReadTimeout from its first byte; that of the first request from accept on.
func (c *conn) head(h *head) (n int, err error) {
	if c.requests > 0 {
		if err := c.Conn.SetReadDeadline(time.Now().Add(c.s.o.ReadTimeout)); err != nil {
			return 0, err
		}
	}
	for {
		n, no := h.feed(c.in)
		if no != none {
			return 0, stop(no)
		}
		if n > 0 {
			return n, nil
		}
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
}

// body reads until the body of the request with the head of n bytes is complete, for BodyTimeout. The next request begins
// at in[rest].
func (c *conn) body(h *head, n int) (body []byte, rest int, err error) {
	if !h.chunked && len(c.in) >= n+h.length {
		return c.in[n : n+h.length], n + h.length, nil
	}
	if err := c.Conn.SetReadDeadline(time.Now().Add(c.s.o.BodyTimeout)); err != nil {
		return nil, 0, err
	}
	if h.waits() {
		if err := c.say("HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return nil, 0, err
		}
	}
	if h.chunked {
		return c.chunked(n)
	}
	for len(c.in) < n+h.length {
		if err := c.fill(); err != nil {
			return nil, 0, err
		}
	}
	return c.in[n : n+h.length], n + h.length, nil
}

func (c *conn) chunked(n int) (body []byte, rest int, err error) {
	k := chunks{n, n, n}
	for {
		done, no := k.feed(c.in)
		if no != none {
			return nil, 0, stop(no)
		}
		if done {
			return c.in[k.first:k.out], k.in, nil
		}
		if len(c.in) == inMax {
			c.in = k.pack(c.in)
		}
		if err := c.fill(); err != nil {
			return nil, 0, err
		}
	}
}

// end answers a fault. A client that is gone, or sent nothing for too long, gets no answer.
func (c *conn) end(err error) error {
	var no stop
	switch {
	case errors.As(err, &no):
		c.refuse(&problem{reason: Reason(no)})
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.refuse(&problem{reason: tooSlow})
	}
	return io.EOF
}

// refuse answers without fasthttp, and leaves nothing to be read.
func (c *conn) refuse(p *problem) {
	c.refused = true
	id := c.s.newID()
	body := p.append(nil, c.s.base, id)
	r := &refusals[p.reason]
	text := append(make([]byte, 0, 1024), "HTTP/1.1 "...)
	text = strconv.AppendInt(text, int64(r.status), 10)
	text = append(append(append(text, ' '), fasthttp.StatusMessage(r.status)...), "\r\n"...)
	for _, f := range headers {
		text = append(append(append(append(text, f[0]...), ": "...), f[1]...), "\r\n"...)
	}
	text = append(fasthttp.AppendHTTPDate(append(text, "Date: "...), c.s.o.Clock.Wall()), "\r\n"...)
	text = append(text, "Connection: close\r\nContent-Type: "+problemType+"\r\n"...)
	if p.retry > 0 {
		text = append(strconv.AppendInt(append(text, "Retry-After: "...), int64(p.retry), 10), "\r\n"...)
	}
	text = strconv.AppendInt(append(text, "Content-Length: "...), int64(len(body)), 10)
	text = append(append(text, "\r\n\r\n"...), body...)
	c.s.count(id, p.reason, "")
	_ = c.say(string(text)) // a client that does not read its answer has none
}

// say writes text itself; fasthttp has nothing waiting then, for it flushes before it reads.
func (c *conn) say(text string) error {
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.s.o.WriteTimeout)); err != nil {
		return err
	}
	_, err := io.WriteString(c.Conn, text)
	return err
}

// Close ends the connection. Closing a socket with unread bytes resets it, and the reset can overtake the answer (RFC 9112
// section 9.6): then the bytes are thrown away first, for a while.
func (c *conn) Close() error {
	if c.refused || len(c.in) > 0 {
		c.linger()
	}
	return c.Conn.Close()
}

func (c *conn) linger() {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	if c.Conn.SetReadDeadline(time.Now().Add(lingerFor)) == nil {
		_, _ = io.CopyN(io.Discard, c.Conn, lingerMax) // ends by any error, and none matters
	}
}
