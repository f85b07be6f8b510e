package bench

import (
	"bytes"
	"fmt"
	"io"
	"time"
)

// An Audience is sockets that hear what a server tells all of them: messages with "time":"<RFC 3339>" in them, as those of the
// gateway's clock are. Others, such as a protocol's own, are read over.
type Audience struct {
	Messages uint64
	Latency  Hist // from the time that a message tells to its arrival: both by this machine's clock
	Err      error

	loop  *Loop
	wall  func() time.Time
	hello []byte // a frame; nil: none
	ready int
	heard []byte // the time that was told last
	at    time.Time
}

// NewAudience returns an Audience whose sockets begin by sending hello as a text message, unless it is empty.
func NewAudience(l *Loop, hello []byte, wall func() time.Time) *Audience {
	a := &Audience{loop: l, wall: wall}
	if len(hello) > 0 {
		a.hello = AppendFrame(nil, OpText, hello)
	}
	return a
}

// Socket returns the Handler of one more socket.
func (a *Audience) Socket() Handler { return &listener{a} }

// Loop returns the loop of the sockets.
func (a *Audience) Loop() *Loop { return a.loop }

// Ready says how many sockets are open.
func (a *Audience) Ready() int { return a.ready }

var timeKey = []byte(`"time":"`)

// hear counts the messages in text: some protocols have several in one frame.
func (a *Audience) hear(text []byte) error {
	for {
		i := bytes.Index(text, timeKey)
		if i < 0 {
			return nil
		}
		text = text[i+len(timeKey):]
		n := bytes.IndexByte(text, '"')
		if n < 0 {
			return fmt.Errorf("bench: a time without an end: %.60q", text)
		}
		if told := text[:n]; !bytes.Equal(told, a.heard) {
			at, err := time.Parse(time.RFC3339Nano, string(told))
			if err != nil {
				return fmt.Errorf("bench: %w", err)
			}
			a.heard, a.at = append(a.heard[:0], told...), at
		}
		a.Messages++
		a.Latency.Record(max(a.wall().Sub(a.at), 0))
		text = text[n:]
	}
}

type listener struct{ audience *Audience }

// Opened implements Handler.
func (s *listener) Opened(c *Conn) {
	s.audience.ready++
	if s.audience.hello != nil {
		c.Write(s.audience.hello)
	}
}

// Data implements Handler.
func (s *listener) Data(c *Conn, b []byte) int {
	f, n, err := ParseFrame(b)
	switch {
	case err != nil || n == 0:
	case f.Op < OpClose:
		err = s.audience.hear(f.Payload)
	default:
		if cl := answerControl(c, f); cl != nil {
			err = cl
		}
	}
	if err != nil {
		s.fail(err)
		return len(b)
	}
	return n
}

// Closed implements Handler. Nobody has a reason to close a socket that only listens.
func (s *listener) Closed(_ *Conn, err error) {
	if err == io.EOF {
		err = fmt.Errorf("bench: socket closed: %w", io.ErrUnexpectedEOF)
	}
	s.fail(err)
}

func (s *listener) fail(err error) {
	if s.audience.Err == nil {
		s.audience.Err = err
	}
}
