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
	w.fail(classOf(err), 1)
}

// quiet is the handler of a socket that only answers pings. All sockets share one: it knows nothing of its socket.
type quiet struct {
	w     *worker
	heard func(f bench.Frame, now time.Duration) // takes messages; nil: nobody wants them
}

// Opened implements bench.Handler.
func (q *quiet) Opened(*bench.Conn) {}

// Data implements bench.Handler.
func (q *quiet) Data(c *bench.Conn, b []byte) int {
	used := 0
	var now time.Duration
	for {
		f, n, err := bench.ParseFrame(b[used:])
		switch {
		case err != nil:
		case n == 0:
			q.w.Received += uint64(used)
			return used
		case f.Op == bench.OpPing:
			q.w.Pings++
			bench.Pong(c, f)
		case f.Op == bench.OpClose:
			err = bench.Closed(f)
		case f.Op < bench.OpClose && q.heard != nil:
			if now == 0 {
				now = q.w.loop.Now()
			}
			q.heard(f, now)
		}
		if err != nil {
			c.Close()
			q.w.lost(err)
			return len(b)
		}
		used += n
	}
}

// Closed implements bench.Handler.
func (q *quiet) Closed(_ *bench.Conn, err error) { q.w.lost(err) }

// hearing counts the messages of a feed. Where they begin with {"time":"...", as those of the built-in clock do, their delay
// is measured: on the wall clock, so server and client have to agree about it.
type hearing struct {
	w       *worker
	all     *quiet // one handler for all sockets
	running bool
	last    []byte    // the text of the last time that was read
	at      time.Time // and what it says
}

func (h *hearing) socket() bench.Handler {
	return h.all
}

func (h *hearing) begin(time.Duration) error {
	h.running = true
	return nil
}

func (h *hearing) tick(time.Duration) time.Duration { return far }
func (h *hearing) finish()                          { h.running = false }
func (h *hearing) idle() bool                       { return true }
func (h *hearing) giveUp()                          {}

var stampStart = []byte(`{"time":"`)

func (h *hearing) heard(f bench.Frame, _ time.Duration) {
	if !h.running || !f.Fin {
		return
	}
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
	record(h.w.hists.of(histOperation), time.Since(h.at), 1)
}
