package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"
)

// ErrEcho is an answer that is not the message that was sent.
var ErrEcho = errors.New("bench: the echo differs from the message")

// An Echo sends the same message over many sockets, each with a number of messages in flight, and checks, counts and
// times every answer. It is a closed loop: a socket sends again when an answer came, so a rate it shows is the highest
// that server and client reach together, and its latencies are those of saturation.
type Echo struct {
	Messages uint64 // answers
	Latency  Hist
	Err      error // the first failure of any socket

	loop      *Loop
	send      []byte // as many messages as are in flight, as they are on the wire
	each      int    // bytes of one of them
	want      []byte // the answer to one
	websocket bool
	sockets   []*echoSocket
	running   bool
	waiting   int // messages that are not answered yet
}

// NewEcho returns an Echo of payload in WebSocket text frames, or, if bare, of the same masked frames to a server that
// returns bytes as they are.
func NewEcho(l *Loop, payload []byte, inFlight int, bare bool) *Echo {
	frame := AppendFrame(nil, opText, payload)
	e := &Echo{loop: l, send: bytes.Repeat(frame, inFlight), each: len(frame), want: frame, websocket: !bare}
	if !bare {
		e.want = unmasked(opText, payload)
	}
	return e
}

// Socket returns the Handler of one more socket. It counts in Ready when it is open.
func (e *Echo) Socket() Handler {
	return &echoSocket{echo: e, sent: make([]time.Duration, e.inFlight())}
}

// Ready says how many sockets are open.
func (e *Echo) Ready() int { return len(e.sockets) }

// Start sends the first messages of every open socket.
func (e *Echo) Start() {
	e.running = true
	for _, s := range e.sockets {
		s.more(e.inFlight(), e.loop.Now())
	}
}

// Stop sends no more. Idle says when all answers are there; only then may Start be called again.
func (e *Echo) Stop() { e.running = false }

// Idle says that no answer is missing, or that none is to be hoped for.
func (e *Echo) Idle() bool { return e.waiting == 0 || e.Err != nil }

// Close closes all sockets.
func (e *Echo) Close() {
	for _, s := range e.sockets {
		s.conn.Close()
	}
	e.sockets = nil
}

func (e *Echo) inFlight() int { return len(e.send) / e.each }

func (e *Echo) fail(err error) {
	if e.Err == nil {
		e.Err = err
	}
}

type echoSocket struct {
	echo *Echo
	conn *Conn
	sent []time.Duration // when each message in flight was written, a ring
	next int             // the oldest of them
}

// Opened implements Handler.
func (s *echoSocket) Opened(c *Conn) {
	s.conn = c
	s.echo.sockets = append(s.echo.sockets, s)
}

// Data implements Handler.
func (s *echoSocket) Data(c *Conn, b []byte) int {
	e := s.echo
	n, used := 0, 0
	for len(b)-used >= len(e.want) && bytes.Equal(b[used:used+len(e.want)], e.want) {
		used += len(e.want)
		n++
	}
	if n > 0 {
		s.answered(n)
		return used
	}
	return s.other(c, b)
}

// answered counts n answers and sends as many messages again, in one write.
func (s *echoSocket) answered(n int) {
	e, now := s.echo, s.echo.loop.Now()
	if n > e.waiting {
		e.fail(ErrEcho) // more answers than messages
		return
	}
	e.Messages += uint64(n)
	e.waiting -= n
	for i := range n {
		e.Latency.Record(now - s.sent[(s.next+i)%len(s.sent)])
	}
	if e.running {
		s.more(n, now)
		return
	}
	s.next = (s.next + n) % len(s.sent)
}

// more sends n messages in the places of the n oldest.
func (s *echoSocket) more(n int, now time.Duration) {
	e := s.echo
	n = min(n, len(s.sent))
	for range n {
		s.sent[s.next] = now
		s.next = (s.next + 1) % len(s.sent)
	}
	e.waiting += n
	s.conn.Write(e.send[:n*e.each])
}

// other takes what does not begin with a whole answer: a part of one, or a control frame.
func (s *echoSocket) other(c *Conn, b []byte) int {
	e := s.echo
	if n := min(len(b), len(e.want)); bytes.Equal(b[:n], e.want[:n]) {
		return 0
	}
	if !e.websocket {
		e.fail(ErrEcho)
		return len(b)
	}
	f, n, err := ParseFrame(b)
	switch {
	case err != nil:
		e.fail(err)
		return len(b)
	case n > 0 && f.Op < opClose:
		e.fail(ErrEcho)
	case n > 0:
		if cl := answerControl(c, f); cl != nil {
			e.fail(cl)
		}
	}
	return n
}

// Closed implements Handler. During an Echo no server has a reason to close.
func (s *echoSocket) Closed(_ *Conn, err error) {
	if err == io.EOF {
		err = fmt.Errorf("bench: socket closed: %w", io.ErrUnexpectedEOF)
	}
	s.echo.fail(err)
	s.echo.drop(s)
}

func (e *Echo) drop(s *echoSocket) {
	for i, o := range e.sockets {
		if o == s {
			e.sockets = append(e.sockets[:i], e.sockets[i+1:]...)
			return
		}
	}
}
