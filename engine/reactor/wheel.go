package reactor

import (
	"math"
	"time"

	"ticketgate/internal/mono"
)

// Timers. A socket has one link in its loop's wheel and two deadlines: due (Arm, the handler's) and inner (a write stall or
// the end of lingering, ours). Deadlines are ticks of 20 ms since the reactor began, rounded up, so nothing fires early.
//
//	cur ──── slot cur+1 ──── ... ──── slot cur+4095      a link stands at or before the earlier deadline of its row
//
// Moving a deadline later only stores it: when the slot comes round, a row that is not due is linked again where it
// belongs. So a busy socket that re-arms with every message pays one store, and one relink a deadline that has passed.
const (
	tickLength = 20 * time.Millisecond
	wheelSlots = 4096              // 82 s a turn; later deadlines are looked at once a turn
	firing     = wheelSlots        // the list of the slot that is being emptied
	fireBatch  = 8192              // rows looked at before the sockets get their turn again
	horizon    = math.MaxInt32 / 2 // 248 days in ticks; ticks wrap, so no deadline lies further ahead
)

type wheel struct {
	heads [wheelSlots + 1]int32 // first slot of each list + 1; 0: empty
	count int                   // linked rows
	cur   uint32                // the tick whose list was taken last
}

func passed(tick, now uint32) bool { return int32(tick-now) <= 0 }

// tickAt is the first tick at or after t, but no later than the horizon; never 0, which is "no deadline".
func (l *Loop) tickAt(t mono.Time) uint32 {
	wait := t.Sub(l.r.base)
	n := int64(wait / tickLength)
	if wait%tickLength > 0 {
		n++
	}
	here := l.ticks()
	return max(uint32(min(max(n, here), here+horizon)), 1)
}

// ticks is how many whole ticks have passed since the reactor began. The wheel keeps the low 32 bits.
func (l *Loop) ticks() int64 { return int64(l.Now().Sub(l.r.base) / tickLength) }

// Arm sets the one timer of id: Timer is called once at or up to 2 ticks (40 ms) after at. It replaces what was armed.
// On the loop only.
func (l *Loop) Arm(id ID, at mono.Time) {
	if r := l.active(id); r != nil {
		l.setTimer(id.Slot(), r, &r.due, l.tickAt(at))
	}
}

// Disarm takes the timer back. On the loop only.
func (l *Loop) Disarm(id ID) {
	if r := l.active(id); r != nil {
		l.clearTimer(id.Slot(), r, &r.due)
	}
}

// setTimer stores tick in field, which is &r.due or &r.inner, and moves the link if it stands too late.
func (l *Loop) setTimer(slot uint32, r *row, field *uint32, tick uint32) {
	before := r.earliest()
	*field = tick
	if r.flags&flagLinked != 0 && passed(before, tick) {
		return // its list comes round first and will move it
	}
	l.startTicks()
	l.unlink(slot, r)
	l.link(slot, r, tick)
}

func (l *Loop) clearTimer(slot uint32, r *row, field *uint32) {
	*field = 0
	if r.earliest() == 0 {
		l.unlink(slot, r)
	}
}

// earliest is the nearer of the row's two deadlines, or 0.
func (r *row) earliest() uint32 {
	if r.due == 0 || r.inner != 0 && passed(r.inner, r.due) {
		return r.inner
	}
	return r.due
}

// link puts the row in front of the list of tick. prev is the slot before it, or the list's number below zero.
func (l *Loop) link(slot uint32, r *row, tick uint32) {
	w := &l.wheel
	if ahead := int32(tick - w.cur); ahead < 1 {
		tick = w.cur + 1
	} else if ahead >= wheelSlots {
		tick = w.cur + wheelSlots - 1
	}
	list := int32(tick % wheelSlots)
	r.next, r.prev = w.heads[list], ^list
	if r.next != 0 {
		l.rows.At(uint32(r.next - 1)).prev = int32(slot)
	}
	w.heads[list] = int32(slot) + 1
	r.flags |= flagLinked
	w.count++
}

func (l *Loop) unlink(slot uint32, r *row) {
	if r.flags&flagLinked == 0 {
		return
	}
	if r.prev < 0 {
		l.wheel.heads[^r.prev] = r.next
	} else {
		l.rows.At(uint32(r.prev)).next = r.next
	}
	if r.next != 0 {
		l.rows.At(uint32(r.next - 1)).prev = r.prev
	}
	r.flags &^= flagLinked
	l.wheel.count--
}

// startTicks turns the tick on; an idle loop has none, so that an idle process sleeps.
func (l *Loop) startTicks() {
	if l.ticking {
		return
	}
	l.ticking = true
	l.wheel.cur = uint32(l.ticks()) // nothing was linked while it stood still
	l.sys.tick(true)
}

// stopTicks turns the tick off when nothing needs it.
func (l *Loop) stopTicks() {
	if l.wheel.count > 0 || l.acceptAt != 0 || l.o.Tick != nil && l.live > 0 {
		return
	}
	l.ticking = false
	l.health.rest()
	l.sys.tick(false)
}

// onTick does what has fallen due. The clock decides, not the number of ticks that were delivered.
func (l *Loop) onTick() {
	l.now = 0
	before := l.wheel.cur
	l.fire()
	if l.acceptAt != 0 && passed(l.acceptAt, uint32(l.ticks())) {
		l.resumeAccept()
	}
	if l.o.Tick != nil && l.wheel.cur != before {
		l.callTick()
	}
	l.settle()
	l.stopTicks()
}

// fire empties the lists up to now, fireBatch rows at most; the rest follows after the sockets had their turn.
func (l *Loop) fire() {
	if !l.ticking {
		return
	}
	w, now := &l.wheel, uint32(l.ticks())
	if now-w.cur > wheelSlots && !passed(now, w.cur) {
		w.cur = now - wheelSlots // the process stood still for more than a turn: every list once is enough
	}
	for n := 0; ; {
		for ; w.heads[firing] != 0; n++ {
			if n == fireBatch {
				l.wake()
				return
			}
			slot := uint32(w.heads[firing] - 1)
			l.visit(slot, l.rows.At(slot), now)
		}
		if passed(now, w.cur) {
			return
		}
		w.cur++
		l.take(int32(w.cur % wheelSlots))
	}
}

// take makes list the firing one.
func (l *Loop) take(list int32) {
	w := &l.wheel
	if w.heads[firing], w.heads[list] = w.heads[list], 0; w.heads[firing] != 0 {
		l.rows.At(uint32(w.heads[firing] - 1)).prev = ^int32(firing)
	}
}

// visit links a row of the firing list again where it belongs and fires what has passed.
func (l *Loop) visit(slot uint32, r *row, now uint32) {
	l.unlink(slot, r)
	inner := r.inner != 0 && passed(r.inner, now)
	if inner {
		r.inner = 0
	}
	due := r.due != 0 && passed(r.due, now)
	if due {
		r.due = 0
	}
	if next := r.earliest(); next != 0 {
		l.link(slot, r, next)
	}
	id := ID(r.id.Load())
	if inner {
		l.overdue(id, r)
	}
	if due && (r.state == stateOpen || r.state == stateDialing) {
		l.stat.timers.Add(1)
		l.call(opTimer, id, r, nil)
	}
}
