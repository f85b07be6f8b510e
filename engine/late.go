package engine

import (
	"time"

	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/internal/mono"
	"ticketgate/limiter"
)

// Messages that a limit lets wait, in the order of this file:
//
//	allowLate  a whole message from the client: on to the stream, or into the queue
//	lateOut    a message to the client: what the stream writes of it goes into the queue
//	lates      the socket's timer: those whose time has come go on
//	dropLate   the end of the socket: those that wait are lost, and what they took of shared limits is put back
//
// Delay: paid for, and goes on at its moment. Hold: asked again at its moment. In both cases its source is stopped, so one waits and
// what was on its way already: the client is not read, a stream is told with SentHold and then Drained. DropOldest: the source
// goes on, and of what waits the newest lateKept stay.
//
// A queue keeps order: while one waits, those behind it do too, and are not asked for before it has gone.
//
// The wheel counts in 20 ms, so a message goes on up to 40 ms after its moment. The one behind it is asked for as of that moment, and
// not of now (lateQueue.due): else a bucket that is full again sooner would lose what came in meanwhile, and a limit of
// 100/second with a burst of 1 would let 30 go on. What waits for the answer of a bank is woken by it (bankAnswered).

const (
	lateKept = 8        // messages that wait under drop-oldest, at most
	lateRoom = 64 << 10 // and bytes of them; one may be longer
	lateMost = 256      // messages that wait of a source that was told to stop; a run on its way has 64
)

// askEvery is how often a message asks again that waits for an answer of the store: as long as it has waited, within these.
const (
	askSoonest = 2 * time.Millisecond
	askLatest  = 50 * time.Millisecond
)

// late is what waits of one socket, by limiter.Direction.
type late [2]lateQueue

type lateQueue struct {
	first, last uint32 // numbers in worker.lateMessages, 0: none
	count       uint32
	bytes       int64 // that are held for them
	at          tick  // when the first is looked at, or a source that was stopped goes on; 0: neither
	stopped     bool  // the source was told to stop
	asked       bool  // the first waits for a bank's answer

	due mono.Time // of the last message that waited its time
}

// lateMessage is one that waits.
type lateMessage struct {
	next   uint32
	hold   uint32 // index+1 into worker.holds: of a client its payload, to a client its frames
	since  tick
	size   int64
	due    mono.Time // paid: when it goes on
	op     frame.Op
	paid   bool
	open   bool  // to a client: its last frame is not here yet
	waited uint8 // of limiter.Verdict
	limit  uint8 // Limit.Index of what makes it wait
}

// queue returns what waits of s in direction d, nil: nothing, and nobody was stopped.
func (w *worker) queue(s *session, d limiter.Direction) *lateQueue {
	if s.flow == 0 {
		return nil
	}
	n := w.flows.At(s.flow).late
	if n == 0 {
		return nil
	}
	return &w.late.At(n)[d]
}

// waits reports whether a message of s waits in direction d: then those behind it have to.
func (w *worker) waits(s *session, d limiter.Direction) bool {
	q := w.queue(s, d)
	return q != nil && q.first != 0
}

// makeQueue is queue for one that is to be used.
func (w *worker) makeQueue(s *session, d limiter.Direction) *lateQueue {
	f := w.flow(s)
	if f.late == 0 {
		f.late, _ = w.late.Get()
	}
	return &w.late.At(f.late)[d]
}

// lateAt is when something that waits is due, 0 if nothing is.
func (w *worker) lateAt(s *session) tick {
	if s.flow == 0 {
		return 0
	}
	n := w.flows.At(s.flow).late
	if n == 0 {
		return 0
	}
	l := w.late.At(n)
	switch in, out := l[limiter.In].at, l[limiter.Out].at; {
	case in == 0:
		return out
	case out == 0:
		return in
	default:
		return in.sooner(out)
	}
}

// allowLate asks the limits for a whole message from the client, and reports whether it may pass now.
func (w *worker) allowLate(id reactor.ID, s *session, plan *limiter.Plan, ev *frame.Event) bool {
	if q := w.queue(s, limiter.In); q != nil && q.first != 0 {
		if m := w.enqueue(id, s, limiter.In, plan, w.lateMessages.At(q.last).limit); m != nil {
			m.op, m.size = ev.Op, ev.FrameLen
			w.fill(id, s, q, m, ev.Payload)
		}
		return false
	}
	if w.passes(s, limiter.In, true, ev.FrameLen) {
		w.count(s, limiter.In, true, ev.FrameLen)
		return true
	}
	v := w.askLate(s, plan, limiter.In, ev.FrameLen)
	plan.Tally(w.stats.limits[s.plan], limiter.In, true, v)
	switch v.Action {
	case limiter.Close:
		w.end(id, s, frame.CloseLimit, v.Limit.Reason, ByGateway)
		return false
	case limiter.Drop:
		w.notice(id, s, v)
		return false
	case limiter.Delay, limiter.Hold, limiter.DropOldest:
		q := w.makeQueue(s, limiter.In)
		m := w.enqueue(id, s, limiter.In, plan, uint8(v.Limit.Index))
		m.op, m.size = ev.Op, ev.FrameLen
		if w.wait(id, q, m, &v); v.Action != limiter.DropOldest {
			q.stopped = true
			w.pause(id, s, pauseLimit)
		}
		w.fill(id, s, q, m, ev.Payload)
		if s.state == stateOpen {
			w.rearm(id, s)
		}
		return false
	case limiter.Pause:
		w.pauseFor(id, s, v.Wait)
	}
	w.count(s, limiter.In, true, ev.FrameLen)
	return true
}

// lateOut puts a message to the client, as it begins, behind those that wait. What the stream writes next is part of it.
func (w *worker) lateOut(id reactor.ID, s *session, plan *limiter.Plan, n int64, v *limiter.Verdict) Outbound {
	q := w.makeQueue(s, limiter.Out)
	var limit uint8
	if v != nil {
		limit = uint8(v.Limit.Index)
	} else {
		limit = w.lateMessages.At(q.last).limit
	}
	m := w.enqueue(id, s, limiter.Out, plan, limit)
	if m == nil {
		return Outbound{Sent: SentGone}
	}
	m.size, m.open = n, true
	s.flags |= flagLate
	if v != nil {
		w.wait(id, q, m, v)
		q.stopped = v.Action != limiter.DropOldest
		w.rearm(id, s)
	}
	if q.stopped {
		return Outbound{Sent: SentHold, Wait: max(q.at.since(tickOf(w.l.Now())), 0)}
	}
	return Outbound{Sent: SentOK}
}

// stopOut notes that a stream was told to stop for d although nothing waits.
func (w *worker) stopOut(id reactor.ID, s *session, d time.Duration) {
	q := w.makeQueue(s, limiter.Out)
	q.stopped, q.at = true, tickAt(w.l.Now()).after(d)
	w.rearm(id, s)
}

// writeLate takes whole frames of the message that lateOut has begun.
func (w *worker) writeLate(id reactor.ID, s *session, frames []byte) Sent {
	q := w.queue(s, limiter.Out)
	m := w.lateMessages.At(q.last)
	for rest := frames; len(rest) > 0; {
		h, n, err := frame.Parse(rest)
		if err != nil || n == 0 || int64(len(rest)-n) < h.Len {
			break // a bug of the stream: it stays open, and nothing of it is sent
		}
		rest = rest[n+int(h.Len):]
		m.open = !h.Fin
	}
	if !m.open {
		s.flags &^= flagLate
	}
	w.fill(id, s, q, m, frames)
	if s.state != stateOpen {
		return SentGone
	}
	return SentOK
}

// enqueue appends a message of direction d that waits because of a limit. Under drop-oldest the first goes if there are too many;
// a source that was told to stop and does not is ended: then it returns nil.
func (w *worker) enqueue(id reactor.ID, s *session, d limiter.Direction, plan *limiter.Plan, limit uint8) *lateMessage {
	q := w.makeQueue(s, d)
	switch {
	case q.stopped && q.count >= lateMost:
		l := &plan.Limits()[limit]
		w.stats.limits[s.plan][limit].Refuse.Add(1)
		w.end(id, s, frame.CloseLimit, l.Reason, ByGateway)
		return nil
	case !q.stopped && q.first != 0 && (q.count >= lateKept || q.bytes >= lateRoom):
		w.dropOldest(id, s, d, plan)
	}
	i, m := w.lateMessages.Get()
	m.since, m.limit = tickOf(w.l.Now()), limit
	if q.last == 0 {
		q.first = i
	} else {
		before := w.lateMessages.At(q.last)
		before.next, before.open = i, false
	}
	q.last = i
	q.count++
	return m
}

// dropOldest loses the first message that waits.
func (w *worker) dropOldest(id reactor.ID, s *session, d limiter.Direction, plan *limiter.Plan) {
	q := w.queue(s, d)
	limit := w.lateMessages.At(q.first).limit
	w.stats.limits[s.plan][limit].Refuse.Add(1)
	w.shift(q)
	dropped := flagDropLate
	if d == limiter.Out {
		dropped = flagDropOut
	}
	if s.flags&dropped == 0 { // one notice for a run of them
		s.flags |= dropped
		w.notice(id, s, limiter.Verdict{Limit: &plan.Limits()[limit], Wait: q.at.since(tickOf(w.l.Now()))})
	}
}

// fill appends b to what is held of m, if the node has room for it.
func (w *worker) fill(id reactor.ID, s *session, q *lateQueue, m *lateMessage, b []byte) {
	had := int64(0)
	if m.hold == 0 {
		m.hold = w.holds.begin()
	} else {
		had = w.holds.charge(m.hold)
	}
	w.holds.add(m.hold, b)
	more := w.holds.charge(m.hold) - had
	q.bytes += more
	if w.e.held.Add(more) > w.e.holdMax.Load() {
		w.end(id, s, frame.CloseOverloaded, "", ByGateway)
	}
}

// shift takes the first message out of q and frees it.
func (w *worker) shift(q *lateQueue) {
	i := q.first
	m := w.lateMessages.At(i)
	if q.first = m.next; q.first == 0 {
		q.last = 0
	}
	q.count--
	if m.hold != 0 {
		n := w.holds.charge(m.hold)
		q.bytes -= n
		w.e.held.Add(-n)
		w.holds.end(m.hold)
	}
	w.lateMessages.Put(i)
}

// catchUp is how long after the moment of the message in front one is still asked for as of that moment: two ticks of the wheel
// and what else a busy loop may be late.
const catchUp = 100 * time.Millisecond

// askLate asks the limits for a message of direction d. One whose moment lies in the past already, but after that of the message
// in front, goes on.
func (w *worker) askLate(s *session, plan *limiter.Plan, d limiter.Direction, n int64) limiter.Verdict {
	now, q := w.l.Now(), w.queue(s, d)
	if q == nil || q.due == 0 || now.Sub(q.due) > catchUp {
		return plan.Message(&w.flow(s).limits, w.e.o.Table, d, true, n, now)
	}
	v := plan.Message(&w.flow(s).limits, w.e.o.Table, d, true, n, q.due)
	if v.Action == limiter.Delay {
		if due := q.due.Add(v.Wait); due <= now {
			q.due = due
			v.Action, v.Wait = limiter.Warn, 0 // it has been late, and is counted so
		} else {
			v.Wait = due.Sub(now)
		}
	}
	return v
}

// wait notes what v says of m, the first of q.
func (w *worker) wait(id reactor.ID, q *lateQueue, m *lateMessage, v *limiter.Verdict) {
	now := tickAt(w.l.Now())
	d := v.Wait
	if q.asked = v.Action == limiter.Hold && v.Asked(); q.asked {
		d = max(d, min(now.since(m.since), askLatest), askSoonest)
		w.askers = append(w.askers, id)
		w.hasAskers.Store(true)
	}
	q.at = now.after(d)
	m.waited |= v.Waited()
	m.limit = uint8(v.Limit.Index)
	if v.Action == limiter.Delay {
		m.paid, m.due = true, w.l.Now().Add(v.Wait)
		q.at = tickAt(m.due)
	}
}

// Answered says that a bank has answered purses of the node: what waits for that asks again. Any goroutine but a loop's may
// call it.
func (e *Engine) Answered() {
	for i, w := range e.workers {
		if w.hasAskers.Swap(false) {
			e.r.Post(i, reactor.Work{Op: opAnswered})
		}
	}
}

// bankAnswered has all ask again that wait for the bank.
func (w *worker) bankAnswered() {
	all := w.askers
	w.askers, w.askersSpare = w.askersSpare[:0], all
	now := tickOf(w.l.Now())
	for _, id := range all {
		s := w.e.rows.At(id.Slot())
		if !w.l.Alive(id) || s.state != stateOpen {
			continue
		}
		for d := limiter.In; d <= limiter.Out; d++ {
			if q := w.queue(s, d); q != nil && q.asked {
				q.at = now
			}
		}
		if w.lates(id, s, now); s.state == stateOpen {
			w.rearm(id, s)
		}
	}
}

// lates sends on what has waited long enough, in both directions.
func (w *worker) lates(id reactor.ID, s *session, now tick) {
	for d := limiter.In; d <= limiter.Out && s.state == stateOpen; d++ {
		q := w.queue(s, d)
		if q == nil || q.at == 0 || !q.at.passed(now) {
			continue
		}
		if w.lateGo(id, s, q, d, now); s.state == stateOpen && q.first == 0 {
			w.goOn(id, s, q, d)
		}
	}
}

// lateGo lets messages of q go on, as many as may.
func (w *worker) lateGo(id reactor.ID, s *session, q *lateQueue, d limiter.Direction, now tick) {
	for q.first != 0 {
		m := w.lateMessages.At(q.first)
		switch {
		case m.open: // its stream is still at it
			q.at = now.after(askSoonest)
			return
		case m.paid && m.due > w.l.Now():
			q.at = tickAt(m.due)
			return
		case !m.paid && !w.askAgain(id, s, q, m, d, now):
			if s.state != stateOpen {
				return
			}
			if q.first != 0 && w.lateMessages.At(q.first) == m {
				return // it waits on
			}
			continue // it was dropped
		}
		if m.paid {
			q.due = m.due
		}
		w.deliverLate(id, s, m, d)
		if s.state != stateOpen {
			return
		}
		w.shift(q)
	}
}

// askAgain asks the limits for m, which has waited, and reports whether it may go on.
func (w *worker) askAgain(id reactor.ID, s *session, q *lateQueue, m *lateMessage, d limiter.Direction, now tick) bool {
	plan := w.plan(s)
	v := w.askLate(s, plan, d, m.size)
	if v.Action == limiter.Hold && v.Limit.Action == limiter.Delay && !v.Asked() && now.since(m.since)+v.Wait > v.Limit.MaxDelay {
		w.stats.limits[s.plan][v.Limit.Index].Refuse.Add(1)
		w.end(id, s, frame.CloseLimit, v.Limit.Reason, ByGateway)
		return false
	}
	switch v.Action {
	case limiter.Hold, limiter.DropOldest, limiter.Delay:
		w.wait(id, q, m, &v)
		plan.Tally(w.stats.limits[s.plan], d, true, v)
		return false
	}
	v.Again(m.waited)
	plan.Tally(w.stats.limits[s.plan], d, true, v)
	switch v.Action {
	case limiter.Close:
		w.end(id, s, frame.CloseLimit, v.Limit.Reason, ByGateway)
		return false
	case limiter.Drop:
		w.shift(q)
		w.notice(id, s, v)
		return false
	case limiter.Pause:
		if d == limiter.In {
			w.pauseFor(id, s, v.Wait)
		}
	}
	return true
}

// deliverLate hands m to the stream, or to the client.
func (w *worker) deliverLate(id reactor.ID, s *session, m *lateMessage, d limiter.Direction) {
	var b []byte
	if m.hold != 0 {
		b = w.holds.all[m.hold-1]
	}
	w.stats.streams[s.stream].count(d, true, m.size)
	s.last = tickOf(w.l.Now())
	if d == limiter.Out {
		s.flags &^= flagDropOut
		if err := w.l.Write(id, b); err != nil {
			w.slow(id, s, err)
		}
		return
	}
	s.flags &^= flagDropLate
	w.found = frame.Event{Kind: frame.KindData, Op: m.op, First: true, Last: true, Head: true, Tail: true, Fin: true,
		FrameLen: m.size, Payload: b}
	w.entry(s).Stream.Receive(Conn{w, id}, &w.found)
}

// goOn lets a source that was told to stop go on: nothing waits any more.
func (w *worker) goOn(id reactor.ID, s *session, q *lateQueue, d limiter.Direction) {
	stopped := q.stopped
	q.at, q.stopped, q.asked = 0, false, false
	switch {
	case !stopped:
	case d == limiter.In:
		if w.flow(s).resume == 0 {
			w.resume(id, s, pauseLimit)
		}
	case !w.l.Blocked(id): // else the reactor says so
		w.entry(s).Stream.Drained(Conn{w, id})
	}
}

// dropQueues gives the record of what waits back if nothing does.
func (w *worker) dropQueues(f *flow) {
	if f.late == 0 {
		return
	}
	if l := w.late.At(f.late); l[0].first|l[1].first == 0 && !l[0].stopped && !l[1].stopped {
		w.late.Put(f.late)
		f.late = 0
	}
}

// dropLate loses what waits of s, and puts back what it took of limits. The buckets are still held.
func (w *worker) dropLate(s *session) {
	s.flags &^= flagLate
	f := w.flows.At(s.flow)
	if f.late == 0 {
		return
	}
	for d := range w.late.At(f.late) {
		q := &w.late.At(f.late)[d]
		for q.first != 0 {
			if m := w.lateMessages.At(q.first); m.paid {
				w.plan(s).Refund(&f.limits, w.e.o.Table, limiter.Direction(d), m.size)
			}
			w.shift(q)
		}
	}
	w.late.Put(f.late)
	f.late = 0
}

// lateBytes is how much is held of what waits.
func (w *worker) lateBytes(s *session) (n int64) {
	for d := limiter.In; d <= limiter.Out; d++ {
		if q := w.queue(s, d); q != nil {
			n += q.bytes
		}
	}
	return n
}

// Held reports whether a limit has told the stream to stop (SentHold) and not yet to go on (Drained).
func (c Conn) Held() bool {
	s := c.row()
	if s == nil {
		return false
	}
	q := c.w.queue(s, limiter.Out)
	return q != nil && q.stopped
}
