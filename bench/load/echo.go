package load

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"ticketgate/bench"
)

// echoLabelled is the length from which on messages are labelled, in bytes.
const echoLabelled = 2 * labelSize

// An echoing sends messages that differ in their labels, and checks every answer.
type echoing struct {
	crowd
	send     []byte
	want     []byte // an answer, as a server that does not fragment sends it
	payload  []byte // of want
	burst    []byte // send as often as a socket has messages under way
	labelled bool
	latency  *hdrhistogram.Histogram
}

func newEcho(w *worker) *echoing {
	payload := bytes.Repeat([]byte("ticketgate load "), w.job.Size/16+1)[:w.job.Size]
	e := &echoing{crowd: crowd{w: w}, send: bench.AppendFrame(nil, bench.OpText, payload), want: bench.AppendUnmasked(nil, bench.OpText, payload), labelled: w.job.Size >= echoLabelled}
	e.payload = e.want[len(e.want)-len(payload):]
	e.latency = w.hists.of(histOperation)
	e.burst = bytes.Repeat(e.send, max(w.job.InFlight, 1))
	return e
}

// put labels the message number i of burst, masked as all of it is.
func (e *echoing) put(i int, m *label) {
	end := (i + 1) * len(e.send)
	at := e.burst[end-len(e.payload) : end]
	key := uint64(binary.LittleEndian.Uint32(e.burst[end-len(e.payload)-4:]))
	m.put(at, m.sent)
	for half := at[:labelSize]; len(half) > 0; half = half[8:] {
		binary.LittleEndian.PutUint64(half, binary.LittleEndian.Uint64(half)^(key|key<<32))
	}
	m.sent++
}

// expect makes want and payload the next answer of m.
func (e *echoing) expect(m *label) {
	if e.labelled {
		m.put(e.payload, m.next)
	}
}

func (e *echoing) socket() bench.Handler { return &echoSocket{e: e} }

type echoSocket struct {
	e     *echoing
	conn  *bench.Conn
	due   []time.Duration  // of the messages without an answer
	one   [1]time.Duration // room for due, where it suffices
	place int
	label label
	part  int // bytes of an answer that comes in fragments; -1: none does
}

// Opened implements bench.Handler.
func (s *echoSocket) Opened(c *bench.Conn) {
	s.conn, s.part, s.due, s.label = c, -1, s.one[:0], s.e.label()
	s.e.join(s)
}

func (s *echoSocket) waiting() []time.Duration { return s.due }
func (s *echoSocket) move(place int)           { s.place = place }

func (s *echoSocket) write(due time.Duration, n int) {
	for i := range n {
		s.due = append(s.due, due)
		if s.e.labelled {
			s.e.put(i, &s.label)
		}
	}
	s.e.wrote(n)
	s.conn.Write(s.e.burst[:n*len(s.e.send)])
}

// Data implements bench.Handler.
func (s *echoSocket) Data(c *bench.Conn, b []byte) int {
	e := s.e
	used, answers := 0, 0
	for {
		e.expect(&s.label)
		for s.part < 0 && answers < len(s.due) && bytes.HasPrefix(b[used:], e.want) {
			used += len(e.want)
			answers++
			s.label.next++
			e.expect(&s.label)
		}
		if used == len(b) {
			break
		}
		f, n, err := bench.ParseFrame(b[used:])
		if err == nil && n > 0 {
			var whole bool
			if whole, err = s.other(c, f, answers < len(s.due)); whole {
				answers++
				s.label.next++
			}
		}
		used += n
		if err != nil {
			s.answered(answers)
			e.w.Received += uint64(used)
			c.Close()
			e.leave(s.place, err)
			return used
		}
		if n == 0 {
			break
		}
	}
	e.w.Received += uint64(used)
	s.answered(answers)
	return used
}

// other takes a frame that is not a whole answer, and says whether it completes one. awaited: one is to come.
func (s *echoSocket) other(c *bench.Conn, f bench.Frame, awaited bool) (whole bool, err error) {
	e := s.e
	switch {
	case f.Op == bench.OpPing:
		e.w.Pings++
		bench.Pong(c, f)
		return false, nil
	case f.Op == bench.OpClose:
		return false, bench.Closed(f)
	case f.Op >= bench.OpClose:
		return false, nil
	case !awaited || (f.Op == bench.OpContinuation) != (s.part >= 0):
		return false, bench.ErrEcho
	}
	at := max(s.part, 0)
	end := at + len(f.Payload)
	if end > len(e.payload) || !bytes.Equal(f.Payload, e.payload[at:end]) || f.Fin && end < len(e.payload) {
		return false, bench.ErrEcho
	}
	if s.part = end; f.Fin {
		s.part = -1
	}
	return f.Fin, nil
}

// answered counts n answers, which come in the order of the messages.
func (s *echoSocket) answered(n int) {
	if n == 0 {
		return
	}
	e := s.e
	now := e.w.loop.Now()
	for i := 0; i < n; {
		same := 1
		for i+same < n && s.due[i+same] == s.due[i] {
			same++
		}
		record(e.latency, now-s.due[i], uint64(same))
		i += same
	}
	s.due = s.due[:copy(s.due, s.due[n:])]
	e.heard(s, n, now)
}

// Closed implements bench.Handler.
func (s *echoSocket) Closed(_ *bench.Conn, err error) { s.e.leave(s.place, err) }
