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

// Bursts up to burstLent bytes are lent to the loop, which sends up to burstsMost of them with one call: they stay in the processor's
// caches, and none is copied.
const (
	burstLent  = 32 << 10
	burstsMost = 8
)

// An echoing sends messages that differ in their labels, and checks every answer.
type echoing struct {
	crowd
	send     []byte
	want     []byte   // an answer, as a server that does not fragment sends it
	payload  []byte   // of want
	bursts   [][]byte // each is send as often as a socket has messages under way; more than one where they are lent to the loop
	labelled bool
	latency  *hdrhistogram.Histogram
}

func newEcho(w *worker) *echoing {
	payload := bytes.Repeat([]byte("ticketgate load "), w.job.Size/16+1)[:w.job.Size]
	e := &echoing{crowd: crowd{w: w}, send: bench.AppendFrame(nil, bench.OpText, payload), want: bench.AppendUnmasked(nil, bench.OpText, payload), labelled: w.job.Size >= echoLabelled}
	e.payload = e.want[len(e.want)-len(payload):]
	e.latency = w.hists.of(histOperation)
	for len(e.bursts) == 0 || len(e.bursts) < burstsMost && len(e.bursts[0]) <= burstLent {
		e.bursts = append(e.bursts, bytes.Repeat(e.send, max(w.job.InFlight, 1)))
	}
	return e
}

// free is a burst that the loop does not have. Bursts that are longer are not lent, and there is one.
func (e *echoing) free() []byte {
	l := e.w.loop
	if l.Lent() == len(e.bursts) {
		l.Flush()
	}
	return e.bursts[l.Lent()]
}

// put labels the message number i of burst, masked as all of it is.
func (e *echoing) put(burst []byte, i int, m *label) {
	end := (i + 1) * len(e.send)
	at := burst[end-len(e.payload) : end]
	key := uint64(binary.LittleEndian.Uint32(burst[end-len(e.payload)-4:]))
	key |= key << 32
	binary.LittleEndian.PutUint64(at, m.id^key)
	binary.LittleEndian.PutUint64(at[labelSize/2:], hexDigits(m.sent)^key)
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
	e := s.e
	burst := e.free()
	for i := range n {
		s.due = append(s.due, due)
		if e.labelled {
			e.put(burst, i, &s.label)
		}
	}
	e.wrote(n)
	if burst = burst[:n*len(e.send)]; len(e.bursts) > 1 {
		s.conn.WriteLent(burst)
	} else {
		s.conn.Write(burst)
	}
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
