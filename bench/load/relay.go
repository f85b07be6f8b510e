package load

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"time"

	"ticketgate/bench"
	"ticketgate/internal/mono"
)

// A relayed message tells the time: when it was due, and behind it, filled in by the backend, when it arrived there. Both
// workers read the same clock of the same machine, so each way has its own latency:
//
//	'c' 16 hex digits 'b' 16 hex digits '.' ...
//
// Where there is room, the first 16 bytes behind them are a label.
const (
	stampDigits = 16
	stampClient = 1
	stampServer = 2 + stampDigits
	stampsEnd   = stampServer + stampDigits
)

// RelaySizeMin is the shortest message of relay, in bytes.
const RelaySizeMin = stampsEnd

func putStamp(b []byte, t time.Duration) {
	var raw [8]byte
	for i := range raw {
		raw[i] = byte(t >> (56 - 8*i))
	}
	hex.Encode(b, raw[:])
}

func stampOf(b []byte) (time.Duration, bool) {
	var raw [8]byte
	if _, err := hex.Decode(raw[:], b[:stampDigits]); err != nil {
		return 0, false
	}
	var t time.Duration
	for _, c := range raw {
		t = t<<8 | time.Duration(c)
	}
	return t, true
}

// relaying is the clients of relay.
type relaying struct {
	crowd
	payload []byte
	frame   []byte
}

func newRelay(w *worker) *relaying {
	p := bytes.Repeat([]byte{'.'}, max(w.job.Size, stampsEnd))
	p[0], p[stampServer-1] = 'c', 'b'
	return &relaying{crowd: crowd{w: w}, payload: p}
}

// put labels the payload with the message of m, if it has room.
func (r *relaying) put(m *label, message uint32) {
	if len(r.payload) >= stampsEnd+labelSize {
		m.put(r.payload[stampsEnd:], message)
	}
}

func (r *relaying) socket() bench.Handler { return &relaySocket{r: r} }

type relaySocket struct {
	r     *relaying
	conn  *bench.Conn
	place int
	label label
	due   []time.Duration  // of the messages without an answer
	one   [1]time.Duration // room for due, where it suffices
}

// Opened implements bench.Handler.
func (s *relaySocket) Opened(c *bench.Conn) {
	s.conn, s.due, s.label = c, s.one[:0], s.r.label()
	s.r.join(s)
}

func (s *relaySocket) waiting() []time.Duration { return s.due }
func (s *relaySocket) move(place int)           { s.place = place }

func (s *relaySocket) write(due time.Duration, n int) {
	r := s.r
	putStamp(r.payload[stampClient:], due)
	putStamp(r.payload[stampServer:], 0)
	r.wrote(n)
	for range n {
		r.put(&s.label, s.label.sent)
		s.label.sent++
		r.frame = bench.AppendFrame(r.frame[:0], bench.OpText, r.payload)
		s.due = append(s.due, due)
		s.conn.Write(r.frame)
	}
}

// Data implements bench.Handler.
func (s *relaySocket) Data(c *bench.Conn, b []byte) int {
	used := 0
	for {
		f, n, err := bench.ParseFrame(b[used:])
		switch {
		case err != nil:
		case n == 0:
			s.r.w.Received += uint64(used)
			return used
		case f.Op == bench.OpPing:
			s.r.w.Pings++
			bench.Pong(c, f)
		case f.Op == bench.OpClose:
			err = bench.Closed(f)
		case f.Op < bench.OpClose:
			err = s.answer(f)
		}
		if err != nil {
			c.Close()
			s.r.leave(s.place, err)
			return len(b)
		}
		used += n
	}
}

func (s *relaySocket) answer(f bench.Frame) error {
	r := s.r
	p := f.Payload
	r.put(&s.label, s.label.next)
	if len(s.due) == 0 || !f.Fin || len(p) != len(r.payload) || p[0] != 'c' || p[stampServer-1] != 'b' || !bytes.Equal(p[stampsEnd:], r.payload[stampsEnd:]) {
		return bench.ErrEcho
	}
	due, ok := stampOf(p[stampClient:])
	there, ok2 := stampOf(p[stampServer:])
	if !ok || !ok2 || there == 0 || due != s.due[0] { // answers come in the order of the messages
		return bench.ErrEcho
	}
	now := r.w.loop.Now()
	s.due = s.due[:copy(s.due, s.due[1:])]
	s.label.next++
	record(r.w.hists.of(histOperation), now-due, 1)
	record(r.w.hists.of(histIn), there-due, 1)
	record(r.w.hists.of(histOut), now-there, 1)
	r.heard(s, 1, now)
	return nil
}

// Closed implements bench.Handler.
func (s *relaySocket) Closed(_ *bench.Conn, err error) { s.r.leave(s.place, err) }

// unused says that nobody listens on address. The backends, which share it, would else share it with another run's too, unnoticed.
func unused(address string) error {
	l, err := net.Listen("tcp4", address)
	if err != nil {
		return fmt.Errorf("--backend: %w", err)
	}
	return l.Close()
}

// serving is one of the backends of relay: it fills in when a message arrived and sends it back.
type serving struct{ w *worker }

func newBackend(w *worker) (*serving, error) {
	s := &serving{w}
	return s, w.loop.Listen(w.job.Listen, true, func() bench.Handler { return &servedSocket{w: w} })
}

func (s *serving) socket() bench.Handler            { return nil }
func (s *serving) begin(time.Duration) error        { return nil }
func (s *serving) tick(time.Duration) time.Duration { return far }
func (s *serving) finish()                          {}
func (s *serving) giveUp()                          {}

// idle: it is told to stop when all clients have ended.
func (s *serving) idle() bool { return true }

// servedSocket is a relay's connection to the backend.
type servedSocket struct {
	w    *worker
	open bool
	out  []byte
}

// Opened implements bench.Handler.
func (s *servedSocket) Opened(*bench.Conn) {}

// Data implements bench.Handler.
func (s *servedSocket) Data(c *bench.Conn, b []byte) int {
	if !s.open {
		answer, n, err := bench.AppendAnswer(nil, b)
		if err != nil {
			s.w.fail(s.w.class(err), 1)
			c.Close()
			return len(b)
		}
		if n > 0 {
			s.open = true
			s.w.Opened++
			c.Write(answer)
		}
		return n
	}
	now := time.Duration(mono.System.Now())
	used := 0
	s.out = s.out[:0]
	for {
		f, n, err := bench.ParseMasked(b[used:])
		if err != nil {
			s.w.fail(s.w.class(err), 1)
			c.Close()
			return len(b)
		}
		if n == 0 {
			break
		}
		used += n
		switch {
		case f.Op == bench.OpClose:
			c.Write(bench.AppendUnmasked(s.out, bench.OpClose, f.Payload))
			c.Close()
			return len(b)
		case f.Op == bench.OpPing:
			s.out = bench.AppendUnmasked(s.out, bench.OpPong, f.Payload)
		case f.Op < bench.OpClose:
			if f.Fin && len(f.Payload) >= stampsEnd && f.Payload[stampServer-1] == 'b' {
				putStamp(f.Payload[stampServer:], now)
			}
			s.out = bench.AppendAs(s.out, f)
			s.w.Done++
		}
	}
	s.w.Received += uint64(used)
	if len(s.out) > 0 {
		c.Write(s.out)
	}
	if cap(s.out) > 256<<10 {
		s.out = nil
	}
	return used
}

// Closed implements bench.Handler. A client that went takes its backend connection with it; one that there was no descriptor for is
// missed by a client.
func (s *servedSocket) Closed(_ *bench.Conn, err error) {
	if classOf(err) == classFiles {
		s.w.fail(s.w.class(err), 1)
	}
}
