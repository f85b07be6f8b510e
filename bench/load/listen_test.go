package load

import (
	"io"
	"testing"
	"time"

	"ticketgate/bench"
)

// A socket that has heard less of a feed than the others has lost messages; what may be on its way is not lost.
func TestHearing(t *testing.T) {
	w := newWorker(t, func() time.Duration { return time.Minute })
	w.job.For = time.Second
	h := &hearing{w: w, running: true}
	ears := make([]*ear, 4)
	for i := range ears {
		ears[i] = h.socket().(*ear)
		ears[i].Opened(nil)
	}
	text := func(at time.Time) []byte {
		return bench.AppendUnmasked(nil, bench.OpText, []byte(at.Format(`{"time":"2006-01-02T15:04:05.999999999Z07:00"}`)))
	}
	for n, e := range map[int]*ear{100: ears[0], 97: ears[1], 40: ears[2]} {
		for range n {
			e.Data(nil, text(time.Now().Add(-time.Millisecond)))
		}
	}
	h.worst = 0 // 100 a second: 2 and one for the 10 ms that a worker may be behind
	ears[3].Closed(nil, io.EOF)
	h.giveUp()
	if w.Done != 237 || w.Lost != 1 || w.Ahead != 0 || w.errors[classMissed] != 57 || len(h.ears) != 3 {
		t.Errorf("%+v, errors %v, %d ears", w.Counts, w.errors, len(h.ears))
	}
	h.worst = time.Second // as many as a second has may be on their way
	if h.giveUp(); w.errors[classMissed] != 57 {
		t.Errorf("behind a second: %v", w.errors)
	}
	if ears[0].Data(nil, text(time.Now().Add(time.Hour))); w.Ahead != 1 {
		t.Errorf("%d messages came from the future", w.Ahead)
	}
}
