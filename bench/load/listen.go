package load

import (
	"bytes"
	"time"

	"ticketgate/bench"
)

// holding keeps sockets open and answers pings: what connect is about.
type holding struct{ all *quiet } // one handler for all sockets

func (h *holding) socket() bench.Handler            { return h.all }
func (h *holding) begin(time.Duration) error        { return nil }
func (h *holding) tick(time.Duration) time.Duration { return far }
func (h *holding) finish()                          {}
func (h *holding) idle() bool                       { return true }
func (h *holding) giveUp()                          {}

// lost counts a socket that should have stayed.
func (w *worker) lost(err error) {
	w.Lost++
	w.fail(w.class(err), 1)
}

// quiet is the handler of a socket that only answers pings. All sockets share one: it knows nothing of its socket.
type quiet struct{ w *worker }

// Opened implements bench.Handler.
func (q *quiet) Opened(*bench.Conn) {}

// Data implements bench.Handler.
func (q *quiet) Data(c *bench.Conn, b []byte) int {
	used, err := q.w.hear(c, b, func(bench.Frame, time.Duration) {})
	if err != nil {
		c.Close()
		q.w.lost(err)
	}
	return used
}

// Closed implements bench.Handler.
func (q *quiet) Closed(_ *bench.Conn, err error) { q.w.lost(err) }

// hear answers pings and hands on messages.
func (w *worker) hear(c *bench.Conn, b []byte, message func(f bench.Frame, now time.Duration)) (used int, err error) {
	var now time.Duration
	for {
		f, n, err := bench.ParseFrame(b[used:])
		switch {
		case err != nil:
		case n == 0:
			w.Received += uint64(used)
			return used, nil
		case f.Op == bench.OpPing:
			w.Pings++
			bench.Pong(c, f)
		case f.Op == bench.OpClose:
			err = bench.Closed(f)
		case f.Op < bench.OpClose:
			if now == 0 {
				now = w.loop.Now()
			}
			message(f, now)
		}
		if err != nil {
			return len(b), err
		}
		used += n
	}
}

// classMissed is a message of a feed that other sockets have heard and this one has not.
const classMissed = "missed"

// hearing counts the messages of a feed. Where they begin with {"time":"...", as those of the built-in clock do, their delay
// is measured: on the wall clock, so server and client have to agree about it. All sockets of a feed hear the same: one that has
// heard less than the others has lost what it has not.
type hearing struct {
	w       *worker
	ears    []*ear
	running bool
	worst   time.Duration // delay
	last    []byte        // the text of the last time that was read
	at      time.Time     // and what it says
}

// An ear is the handler of one socket.
type ear struct {
	h     *hearing
	place int
	heard uint64 // in the run
}

// Opened implements bench.Handler.
func (e *ear) Opened(*bench.Conn) {
	e.place = len(e.h.ears)
	e.h.ears = append(e.h.ears, e)
}

// Data implements bench.Handler.
func (e *ear) Data(c *bench.Conn, b []byte) int {
	used, err := e.h.w.hear(c, b, e.message)
	if err != nil {
		c.Close()
		e.leave(err)
	}
	return used
}

// Closed implements bench.Handler.
func (e *ear) Closed(_ *bench.Conn, err error) { e.leave(err) }

func (e *ear) move(place int) { e.place = place }

func (e *ear) leave(err error) {
	h := e.h
	h.ears = drop(h.ears, e.place)
	h.w.lost(err)
}

func (h *hearing) socket() bench.Handler { return &ear{h: h} }

func (h *hearing) begin(time.Duration) error {
	h.running = true
	return nil
}

func (h *hearing) tick(time.Duration) time.Duration { return far }
func (h *hearing) finish()                          { h.running = false }
func (h *hearing) idle() bool                       { return true }

// giveUp counts what ears have missed: what they are behind the one that heard most, and that cannot be on its way. A message under way at
// the start and one at the end are in one ear's count and not in another's; a delayed feed has more of them.
func (h *hearing) giveUp() {
	var most uint64
	for _, e := range h.ears {
		most = max(most, e.heard)
	}
	under := 2 + uint64(float64(most)*(h.worst+lateAfter).Seconds()/h.w.job.For.Seconds())
	for _, e := range h.ears {
		if behind := most - e.heard; behind > under {
			h.w.fail(classMissed, behind-under)
		}
	}
}

var stampStart = []byte(`{"time":"`)

func (e *ear) message(f bench.Frame, _ time.Duration) {
	h := e.h
	if !h.running || !f.Fin {
		return
	}
	e.heard++
	h.w.Begun++
	h.w.Due++
	h.w.Done++
	rest, ok := bytes.CutPrefix(f.Payload, stampStart)
	if !ok {
		return
	}
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		return
	}
	if !bytes.Equal(rest[:end], h.last) { // every message comes once a socket
		at, err := time.Parse(time.RFC3339Nano, string(rest[:end]))
		if err != nil {
			return
		}
		h.last, h.at = append(h.last[:0], rest[:end]...), at
	}
	delay := time.Since(h.at)
	if delay < 0 { // the clocks differ, and so all delays are wrong
		h.w.Ahead++
	}
	h.worst = max(h.worst, delay)
	record(h.w.hists.of(histOperation), delay, 1)
}
