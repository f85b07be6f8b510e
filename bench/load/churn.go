package load

import (
	"time"

	"ticketgate/bench"
)

// churning opens sockets and ends each at a moment of its own choice: politely, by FIN or by RST; after the 101, in the middle
// of a message, or right behind the upgrade request. What a server leaks by that shows in its memory and in its counts.
type churning struct {
	w       *worker
	o       *opener
	closing []*churned // whose close frame has no answer yet
}

// Ends of a socket, each as likely as the others.
const (
	endPolite = iota // close frame, and the server's
	endFIN           // without a close frame
	endRST
	endMidFrame // FIN within a message
	endEarly    // RST right behind the upgrade request, without waiting for the 101
	ends
)

func newChurning(w *worker) (*churning, error) {
	c := &churning{w: w}
	var err error
	if c.o, err = newOpener(w, 0, c.handler); err != nil {
		return nil, err
	}
	c.o.early = func() bool { return w.rnd.IntN(ends) == endEarly }
	c.o.gone = c.over
	c.o.stop = true // until the run
	return c, nil
}

func (c *churning) socket() bench.Handler { return nil }
func (c *churning) handler() bench.Handler {
	return &churned{c: c, end: c.w.rnd.IntN(endEarly), due: c.o.due}
}

func (c *churning) begin(time.Duration) error {
	c.o.stop = false
	c.o.pacer = c.w.pacer()
	return nil
}

func (c *churning) tick(now time.Duration) time.Duration { return c.o.tick(now) }

func (c *churning) finish() {
	c.o.stop = true
	c.o.drop()
}

func (c *churning) idle() bool { return c.o.busy == 0 && len(c.closing) == 0 }

func (c *churning) giveUp() {
	c.o.giveUp()
	for _, s := range c.closing {
		c.w.unanswered(classNothing, s.due)
	}
}

// A churned is a socket that will end soon.
type churned struct {
	c   *churning
	end int
	due time.Duration
	bye bool // the server's close frame is here

	place int // in closing
	conn  *bench.Conn
	wait  wait // for the server's close frame
}

// half is the beginning of a message of 100 bytes.
var half = bench.AppendFrame(nil, bench.OpText, make([]byte, 100))[:40]

// Opened implements bench.Handler.
func (s *churned) Opened(conn *bench.Conn) {
	c := s.c
	switch s.end {
	case endPolite:
		s.place, s.conn, s.wait.expired = len(c.closing), conn, s.late
		c.closing = append(c.closing, s)
		c.w.waits.begin(&s.wait, c.w.loop.Now())
		conn.Write(bench.PoliteClose)
		return
	case endMidFrame:
		conn.Write(half)
		conn.Close()
	case endRST:
		conn.Reset()
	default:
		conn.Close()
	}
	c.over(s.due)
}

// over counts a cycle that is over.
func (c *churning) over(due time.Duration) {
	c.w.Done++
	record(c.w.hists.of(histOperation), c.w.loop.Now()-due, 1)
}

// Data implements bench.Handler.
func (s *churned) Data(conn *bench.Conn, b []byte) int {
	f, n, err := bench.ParseFrame(b)
	switch {
	case err != nil:
	case n > 0 && f.Op == bench.OpClose && bench.Closed(f).Code == 1000:
		s.bye = true
	case n > 0 && f.Op == bench.OpClose:
		err = bench.Closed(f)
	}
	if err != nil {
		conn.Close()
		s.over(err)
	}
	return n
}

// Closed implements bench.Handler.
func (s *churned) Closed(_ *bench.Conn, err error) {
	if s.bye {
		err = nil
	}
	s.over(err)
}

// late gives up a server that does not answer a close frame.
func (s *churned) late() {
	s.conn.Close()
	s.over(errLate)
}

func (s *churned) move(place int) { s.place = place }

func (s *churned) over(err error) {
	c := s.c
	s.wait.end()
	c.closing = drop(c.closing, s.place)
	if err != nil {
		c.w.failed(err, s.due)
		return
	}
	c.over(s.due)
}
