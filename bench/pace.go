package bench

import (
	"bytes"
	"fmt"
	"io"
	"time"
)

// A Pace sends messages at a fixed rate over all its sockets in turn, whatever the answers do: an open loop. A latency runs
// from the moment at which a message was due, so that a client or server that falls behind shows it.
type Pace struct {
	Messages uint64 // answers
	Latency  Hist
	Err      error // the first failure of any socket

	loop    *Loop
	send    []byte
	want    []byte
	every   time.Duration
	sockets []*paceSocket
	turn    int // the next of them
	due     time.Duration
}

// NewPace returns a Pace of payload in WebSocket text frames, rate of them a second.
func NewPace(l *Loop, payload []byte, rate int) *Pace {
	return &Pace{loop: l, send: AppendFrame(nil, OpText, payload), want: AppendUnmasked(nil, OpText, payload), every: time.Second / time.Duration(rate)}
}

// Socket returns the Handler of one more socket.
func (p *Pace) Socket() Handler { return &paceSocket{pace: p} }

// Loop returns the loop of the sockets.
func (p *Pace) Loop() *Loop { return p.loop }

// Ready says how many sockets are open.
func (p *Pace) Ready() int { return len(p.sockets) }

// Resume begins a schedule at now: the first message is due at once. Messages that Tick missed before it are not made up for.
func (p *Pace) Resume() { p.due = p.loop.Now() }

// Next says how long it is until a message is due; 0: one is.
func (p *Pace) Next() time.Duration { return max(p.due-p.loop.Now(), 0) }

// Tick sends what is due. It must be called whenever Next has passed, as long as messages are wanted.
func (p *Pace) Tick() {
	for now := p.loop.Now(); p.due <= now && len(p.sockets) > 0 && p.Err == nil; p.due += p.every {
		s := p.sockets[p.turn%len(p.sockets)]
		p.turn++
		s.write(p.due)
	}
}

// Idle says that no answer is missing, or that none is to be hoped for.
func (p *Pace) Idle() bool {
	for _, s := range p.sockets {
		if len(s.sent) > 0 {
			return p.Err != nil
		}
	}
	return true
}

func (p *Pace) fail(err error) {
	if p.Err == nil {
		p.Err = err
	}
}

type paceSocket struct {
	pace *Pace
	conn *Conn
	sent []time.Duration // when the messages without an answer were due: one, unless the server is behind by a turn
}

// Opened implements Handler.
func (s *paceSocket) Opened(c *Conn) {
	s.conn = c
	s.pace.sockets = append(s.pace.sockets, s)
}

func (s *paceSocket) write(due time.Duration) {
	s.sent = append(s.sent, due)
	s.conn.Write(s.pace.send)
}

// Data implements Handler.
func (s *paceSocket) Data(c *Conn, b []byte) int {
	p := s.pace
	if len(s.sent) > 0 && bytes.HasPrefix(b, p.want) {
		p.Latency.Record(p.loop.Now() - s.sent[0])
		p.Messages++
		s.sent = append(s.sent[:0], s.sent[1:]...)
		return len(p.want)
	}
	f, n, err := ParseFrame(b)
	switch {
	case err != nil:
		p.fail(err)
	case n > 0 && f.Op < OpClose:
		p.fail(ErrEcho)
	case n > 0:
		if cl := answerControl(c, f); cl != nil {
			p.fail(cl)
		}
	}
	if p.Err != nil {
		return len(b)
	}
	return n
}

// Closed implements Handler. While messages are paced no server has a reason to close.
func (s *paceSocket) Closed(_ *Conn, err error) {
	if err == io.EOF {
		err = fmt.Errorf("bench: socket closed: %w", io.ErrUnexpectedEOF)
	}
	s.pace.fail(err)
}
