package load

import (
	"testing"
	"time"
)

// failing is a starter whose operations fail at once.
type failing struct{ q *queue }

func (f *failing) begin(time.Duration)  { f.q.failed(f) }
func (f *failing) since() time.Duration { return 0 }
func (f *failing) hangUp()              {}

// What fails at once is not begun again at once in a closed loop; with a schedule it is begun when it is due.
func TestFailuresRest(t *testing.T) {
	now := time.Hour
	w := newWorker(t, func() time.Duration { return now })
	w.job.Lanes, w.start = 2, now
	q := queue{w: w, more: func() bool { return true }}
	q.make = func() starter { return &failing{&q} }
	for _, c := range []struct {
		after time.Duration
		begun uint64
	}{{0, 3}, {0, 3}, {failPause - 1, 3}, {1, 5}, {failPause, 7}} { // two in a row, and whose turn it was already
		now += c.after
		next := q.tick(now)
		for next <= now {
			next = q.tick(now)
		}
		if w.Begun != c.begun || q.busy != 0 || next > now+failPause {
			t.Errorf("after %v: %d begun, want %d; %d busy, next in %v", c.after, w.Begun, c.begun, q.busy, next-now)
		}
	}
	if q.giveUp(); len(w.errors) > 0 {
		t.Errorf("%v: nothing is under way", w.errors)
	}
	w.start = now
	q = queue{w: w, more: q.more, make: q.make, pacer: newPacer(schedule(t, "1000", time.Second), 0, 1, nil)}
	before := w.Begun
	for range 10 {
		q.tick(now)
		now += time.Millisecond
	}
	if n := w.Begun - before; n != 10 {
		t.Errorf("%d of 10 were begun", n)
	}
}

// stuck is a starter that does not end.
type stuck struct{ due time.Duration }

func (s *stuck) begin(due time.Duration) { s.due = due }

func (s *stuck) since() time.Duration { return s.due }

func (s *stuck) hangUp() {}

// What waits for a lane begins late, whenever it was noticed that it is due.
func TestQueueBehind(t *testing.T) {
	now := time.Hour
	w := newWorker(t, func() time.Duration { return now })
	w.start, w.job.Lanes, w.job.For = now, 1, time.Second
	s := &stuck{}
	q := &queue{w: w, pacer: newPacer(schedule(t, "1000", 400*time.Millisecond), 0, 1, nil), more: func() bool { return true }, make: func() starter { return s }}
	for ; now < w.start+50*time.Millisecond; now += time.Millisecond {
		q.tick(now)
	}
	if w.Due != 50 || w.Begun != 1 || w.Late != 0 || s.due != w.start {
		t.Errorf("with one lane that is busy: %+v", w.Counts)
	}
	q.ended(s)
	q.tick(now)
	if h := w.hists.of(histSchedule); w.Begun != 2 || w.Late != 1 || h.TotalCount() != 2 || time.Duration(h.Max()) < 48*time.Millisecond {
		t.Errorf("when it was free: %+v, behind up to %v", w.Counts, time.Duration(h.Max()))
	}
	q.giveUp()
	q.drop()
	if w.errors[classNothing] != 1 || w.errors[classSlow] != w.Due-w.Begun || w.hists.of(histOperation).TotalCount() != int64(w.Due-1) {
		t.Errorf("at the end: %v of %+v", w.errors, w.Counts)
	}
}
