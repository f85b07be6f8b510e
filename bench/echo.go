package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"
)

// ErrEcho is an answer that is not the message that was sent, or one that nothing was sent for.
var ErrEcho = errors.New("bench: the echo differs from the message")

// An Echo sends the same message over many sockets, a number of times in each write, and checks, counts and times every
// answer. A socket writes again when all answers to its last write are here: so every write has the same number of
// messages, and a rate that it shows is the highest that server and client reach together. Its latencies are those of
// saturation.
type Echo struct {
	Messages uint64 // answers
	Latency  Hist
	Err      error // the first failure of any socket

	loop      *Loop
	payload   []byte
	send      []byte // one write
	want      []byte // the answers to it
	each      int    // bytes of one answer
	perWrite  int
	websocket bool
	sockets   []*echoSocket
	running   bool
	waiting   int // messages that are not answered yet
}

// NewEcho returns an Echo of payload in WebSocket text frames, perWrite of them in each write; or, if bare, of the same
// masked frames to a server that returns bytes as they are.
func NewEcho(l *Loop, payload []byte, perWrite int, bare bool) *Echo {
	e := &Echo{loop: l, websocket: !bare}
	e.Say(payload, perWrite)
	return e
}

// Say sets another payload and number of messages in a write. It may be called while the Echo is idle.
func (e *Echo) Say(payload []byte, perWrite int) {
	frame := AppendFrame(nil, OpText, payload)
	answer := frame
	if e.websocket {
		answer = AppendUnmasked(nil, OpText, payload)
	}
	e.payload, e.each, e.perWrite = payload, len(answer), perWrite
	e.send, e.want = bytes.Repeat(frame, perWrite), bytes.Repeat(answer, perWrite)
}

// Socket returns the Handler of one more socket. It counts in Ready when it is open.
func (e *Echo) Socket() Handler { return &echoSocket{echo: e} }

// Loop returns the loop of the sockets.
func (e *Echo) Loop() *Loop { return e.loop }

// Ready says how many sockets are open.
func (e *Echo) Ready() int { return len(e.sockets) }

// Start sends the first messages of every open socket.
func (e *Echo) Start() {
	e.running = true
	now := e.loop.Now()
	for _, s := range e.sockets {
		s.write(now)
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

func (e *Echo) fail(err error) {
	if e.Err == nil {
		e.Err = err
	}
}

type echoSocket struct {
	echo *Echo
	conn *Conn
	sent time.Duration // when the messages under way were written
	busy bool          // there are some
	got  int           // bytes of their answers that are here
	part int           // payload bytes of an answer that comes in fragments
	torn bool          // one does
}

// Opened implements Handler.
func (s *echoSocket) Opened(c *Conn) {
	s.conn = c
	s.echo.sockets = append(s.echo.sockets, s)
}

func (s *echoSocket) write(now time.Duration) {
	s.sent, s.busy, s.got = now, true, 0
	s.echo.waiting += s.echo.perWrite
	s.conn.Write(s.echo.send)
}

// Data implements Handler.
func (s *echoSocket) Data(c *Conn, b []byte) int {
	e, before, used := s.echo, s.echo.Messages, 0
	for used < len(b) && e.Err == nil {
		n := s.expected(b[used:])
		if n == 0 {
			n = s.other(c, b[used:])
		}
		if n == 0 {
			break
		}
		used += n
	}
	if n := e.Messages - before; n > 0 {
		now := e.loop.Now()
		e.Latency.RecordN(now-s.sent, n)
		if !s.busy && e.running {
			s.write(now) // not before all of b is looked at: an answer too many is not one to this
		}
	}
	if e.Err != nil {
		return len(b)
	}
	return used
}

// expected takes what b has of the very bytes that are due, also a part of an answer. It answers 0 if b begins otherwise.
func (s *echoSocket) expected(b []byte) int {
	e := s.echo
	if !s.busy || s.torn {
		return 0
	}
	due := e.want[s.got:]
	n := min(len(b), len(due))
	if !bytes.Equal(b[:n], due[:n]) {
		// Something stands between two answers: take those before it.
		n = (e.each - s.got%e.each) % e.each
		for n+e.each <= min(len(b), len(due)) && bytes.Equal(b[n:n+e.each], due[n:n+e.each]) {
			n += e.each
		}
		if n > len(b) || !bytes.Equal(b[:n], due[:n]) {
			e.fail(ErrEcho)
			return 0
		}
	}
	s.answered(n)
	return n
}

// answered counts n bytes of answers.
func (s *echoSocket) answered(n int) {
	e := s.echo
	whole := (s.got%e.each + n) / e.each
	s.got += n
	s.busy = s.got < len(e.want)
	e.Messages += uint64(whole)
	e.waiting -= whole
}

// other takes one frame that is not the very bytes that are due: a control frame, or a part of an answer that comes in
// fragments. It answers 0 until it is whole.
func (s *echoSocket) other(c *Conn, b []byte) int {
	e := s.echo
	if !e.websocket {
		e.fail(ErrEcho)
		return 0
	}
	f, n, err := ParseFrame(b)
	switch {
	case err != nil:
		e.fail(err)
	case n > 0 && f.Op < OpClose:
		s.fragment(f)
	case n > 0:
		if cl := answerControl(c, f); cl != nil {
			e.fail(cl)
		}
	}
	return n
}

// fragment takes one frame of an answer that comes in several.
func (s *echoSocket) fragment(f Frame) {
	e, op := s.echo, byte(OpText)
	if s.torn {
		op = OpContinuation
	}
	end := s.part + len(f.Payload)
	if !s.busy || f.Op != op || end > len(e.payload) || !bytes.Equal(f.Payload, e.payload[s.part:end]) || f.Fin && end < len(e.payload) {
		e.fail(ErrEcho)
		return
	}
	s.part, s.torn = end, true
	if f.Fin {
		s.part, s.torn = 0, false
		s.answered(e.each)
	}
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
