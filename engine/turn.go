package engine

import (
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/limiter"
)

// turn is the run of messages of one socket that one callback brings: a read with sixteen frames, say. What is the same for
// all of them is looked up once, limits are asked once, and counters are written once, at its end.
type turn struct {
	id    reactor.ID // 0: no turn is under way
	s     *session
	entry *StreamEntry
	plan  *limiter.Plan

	runner Runner // that of entry, in a turn of messages from the client

	// What the plan wants to see of messages from the client.
	messages, bytes, whole bool

	inflated int // bytes of compressed messages, with what else inflating them has cost

	runs [2]limiter.Run // by limiter.Direction
	wait [2]pending     // counted at the end
}

// pending are messages that passed and are not in the stream's counters yet.
type pending struct {
	messages uint64
	bytes    int64
}

// runFrom is how many messages a read must bring for their limits to be asked once for all.
const runFrom = 2

// begin begins a turn of s with in, which r is to read.
func (w *worker) begin(id reactor.ID, s *session, r *frame.Reader, in []byte) *turn {
	t := &w.turn
	w.endTurn() // of a callback that panicked
	p := w.e.policy.Load()
	t.inflated = 0
	t.id, t.s, t.entry, t.plan = id, s, &p.streams[s.stream], p.plans[s.plan]
	t.runner = t.entry.runner
	t.messages, t.bytes, t.whole = t.plan.Sees(limiter.In)
	if !t.messages && !t.bytes {
		return t
	}
	if n, bytes := w.reader(s).Count(in, turnFrames+runMax); n >= runFrom && s.flags&flagDropIn == 0 && !w.waits(s, limiter.In) {
		t.runs[limiter.In].Begin(t.plan, &w.flow(s).limits, w.e.o.Table, limiter.In, n, bytes, w.l.Now())
		if t.plan.Private(limiter.Out) && !w.waits(s, limiter.Out) { // an echo answers as much; of a bucket that others share no more is taken than is sure
			t.runs[limiter.Out].Begin(t.plan, &w.flow(s).limits, w.e.o.Table, limiter.Out, n, bytes, w.l.Now())
		}
	}
	return t
}

// expect begins a turn of s in which its stream brings n messages with bytes in all to the client.
func (w *worker) expect(id reactor.ID, s *session, n, bytes int64) {
	if w.turn.id != 0 || n < runFrom || w.waits(s, limiter.Out) {
		return
	}
	t := &w.turn
	p := w.e.policy.Load()
	t.id, t.s, t.entry, t.plan = id, s, &p.streams[s.stream], p.plans[s.plan]
	t.runs[limiter.Out].Begin(t.plan, &w.flow(s).limits, w.e.o.Table, limiter.Out, n, bytes, w.l.Now())
}

// endTurn gives back what the limits had in store for the turn and was not used, and counts what passed.
func (w *worker) endTurn() {
	t := &w.turn
	if t.id == 0 {
		return
	}
	t.id = 0
	ds := w.stats.limits[t.s.plan]
	for d := range t.runs {
		t.runs[d].End(ds)
		if n := &t.wait[d]; n.messages|uint64(n.bytes) != 0 {
			w.stats.streams[t.s.stream].add(limiter.Direction(d), n.messages, uint64(n.bytes))
			*n = pending{}
		}
	}
}

// passes uses up one frame of the turn's run, if s has one with room for it. In a run that is too short the rest is asked
// for one by one.
func (w *worker) passes(s *session, d limiter.Direction, first bool, n int64) bool {
	t := &w.turn
	r := &t.runs[d]
	if t.s != s || t.id == 0 || !r.On() {
		return false
	}
	if r.Pass(first, n) {
		return true
	}
	r.End(w.stats.limits[s.plan])
	return false
}

// count counts a frame of s, the first of its message or not, that has passed.
func (w *worker) count(s *session, d limiter.Direction, first bool, n int64) {
	t := &w.turn
	if t.s != s || t.id == 0 {
		w.stats.streams[s.stream].count(d, first, n)
		return
	}
	p := &t.wait[d]
	p.bytes += n
	if first {
		p.messages++
	}
}
