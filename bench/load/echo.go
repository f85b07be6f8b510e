package load

import (
	"bytes"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"ticketgate/bench"
)

// An echoing sends one message over and over and checks every answer. With a schedule each message has its moment and its
// latency runs from there, over the sockets in turn, whatever the answers do; without, every socket keeps InFlight messages
// under way.
type echoing struct {
	w       *worker
	send    []byte
	want    []byte // an answer, as a server that does not fragment sends it
	burst   []byte // send as often as a socket has messages under way
	payload []byte
	pacer   *pacer
	sockets []*echoSocket
	turn    int
	missing int // answers
	running bool
	latency *hdrhistogram.Histogram
}

func newEcho(w *worker) *echoing {
	payload := bytes.Repeat([]byte("ticketgate load "), w.job.Size/16+1)[:w.job.Size]
	e := &echoing{w: w, payload: payload, send: bench.AppendFrame(nil, bench.OpText, payload), want: bench.AppendUnmasked(nil, bench.OpText, payload)}
	e.latency = w.hists.of(histOperation)
	e.burst = bytes.Repeat(e.send, max(w.job.InFlight, 1))
	return e
}

func (e *echoing) socket() bench.Handler { return &echoSocket{e: e} }

func (e *echoing) begin(now time.Duration) error {
	e.running = true
	if e.w.job.Schedule != nil {
		e.pacer = newPacer(*e.w.job.Schedule, e.w.job.Index, e.w.job.Share, e.w.rnd)
		return nil
	}
	for _, s := range e.sockets {
		s.write(now, e.w.job.InFlight)
	}
	return nil
}

func (e *echoing) tick(now time.Duration) time.Duration {
	if e.pacer == nil {
		return far
	}
	return e.w.due(e.pacer, now, e.one)
}

// one sends the message that was due at due.
func (e *echoing) one(due time.Duration) {
	if len(e.sockets) == 0 {
		e.w.fail(classSlow, 1)
		return
	}
	e.turn++
	e.sockets[e.turn%len(e.sockets)].write(due, 1)
}

func (e *echoing) finish() { e.running = false }

func (e *echoing) idle() bool {
	if e.missing == 0 {
		return true
	}
	return len(e.sockets) == 0
}

type echoSocket struct {
	e     *echoing
	conn  *bench.Conn
	due   []time.Duration // of the messages without an answer
	place int             // among e.sockets
	part  int             // bytes of an answer that comes in fragments; -1: none does
}

// Opened implements bench.Handler.
func (s *echoSocket) Opened(c *bench.Conn) {
	e := s.e
	s.conn, s.place, s.part = c, len(e.sockets), -1
	e.sockets = append(e.sockets, s)
	if e.running && e.pacer == nil { // one that was opened again
		s.write(e.w.loop.Now(), e.w.job.InFlight)
	}
}

// write sends n messages that were due at due.
func (s *echoSocket) write(due time.Duration, n int) {
	e := s.e
	for range n {
		s.due = append(s.due, due)
	}
	e.missing += n
	e.w.Begun += uint64(n)
	if e.pacer == nil {
		e.w.Due += uint64(n)
	}
	s.conn.Write(e.burst[:n*len(e.send)])
}

// Data implements bench.Handler.
func (s *echoSocket) Data(c *bench.Conn, b []byte) int {
	e := s.e
	used, answers := 0, 0
	for {
		for s.part < 0 && answers < len(s.due) && bytes.HasPrefix(b[used:], e.want) {
			used += len(e.want)
			answers++
		}
		if used == len(b) {
			break
		}
		f, n, err := bench.ParseFrame(b[used:])
		if err == nil && n > 0 {
			var whole bool
			if whole, err = s.other(c, f, answers < len(s.due)); whole {
				answers++
			}
		}
		used += n
		if err != nil {
			s.answered(answers)
			e.w.Received += uint64(used)
			c.Close()
			s.ended(err)
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
	e.missing -= n
	e.w.Done += uint64(n)
	if e.running && e.pacer == nil {
		s.write(now, n)
	}
}

// Closed implements bench.Handler.
func (s *echoSocket) Closed(_ *bench.Conn, err error) { s.ended(err) }

// ended counts the end, and the answers that will not come.
func (s *echoSocket) ended(err error) {
	e := s.e
	last := len(e.sockets) - 1
	e.sockets[s.place] = e.sockets[last]
	e.sockets[s.place].place = s.place
	e.sockets[last] = nil
	e.sockets = e.sockets[:last]
	e.missing -= len(s.due)
	e.w.fail(classOf(err), uint64(max(len(s.due), 1)))
	s.due = nil
}
