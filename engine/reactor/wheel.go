package reactor

import (
	"math"
	"math/bits"
	"time"

	"ticketgate/internal/mono"
)

// Timers. A socket has one link in its loop's wheel and two deadlines: due (Arm, the handler's; while it closes, CloseWithin's) and inner (a write stall or
// the end of lingering, ours). Deadlines are ticks of 20 ms since the reactor began, rounded up, so nothing fires early.
//
//	cur ──── slot cur+1 ──── ... ──── slot cur+4095      a link stands at or before the earlier deadline of its row
//
// The kernel's timer is set to the next slot that is not empty, so that a loop with nothing due sleeps: a wake costs the
// process much more than what it is for (about 0.7 ms, nearly all of it the Go runtime's monitor, which it rouses).
//
// Moving a deadline later only stores it: when the slot comes round, a row that is not due is linked again where it
// belongs. So a busy socket that re-arms with every message pays one store, and one relink a deadline that has passed.
const (
	tickLength = 20 * time.Millisecond
	wheelSlots = 4096              // 82 s a turn; later deadlines are looked at once a turn
	firing     = wheelSlots        // the list of the slot that is being emptied
	fireBatch  = 64                // rows looked at before the sockets get their turn again
	farGrid    = 64                // slots between those that far deadlines wait in: 1.28 s, so that they wake the loop together
	behind     = 256               // ticks that cur may lie back before it is moved up
	horizon    = math.MaxInt32 / 2 // 248 days in ticks; ticks wrap, so no deadline lies further ahead
)

type wheel struct {
	heads [wheelSlots + 1]int32   // first slot of each list + 1; 0: empty
	some  [wheelSlots / 64]uint64 // bit i: list i is not empty
	count int                     // linked rows
	cur   uint32                  // no list of this tick or an earlier one has rows
}

// next is the first tick behind cur whose list is not empty.
func (w *wheel) next() (tick uint32, ok bool) {
	start := (w.cur + 1) % wheelSlots
	for i := range uint32(len(w.some) + 1) { // the word it begins in is looked at twice: its upper part, and last its lower
		word := (start/64 + i) % uint32(len(w.some))
		set := w.some[word]
		switch i {
		case 0:
			set &= ^uint64(0) << (start % 64)
		case uint32(len(w.some)):
			set &= 1<<(start%64) - 1
		}
		if set != 0 {
			list := word*64 + uint32(bits.TrailingZeros64(set))
			return w.cur + 1 + (list-start)%wheelSlots, true
		}
	}
	return 0, false
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

// Move is Arm for a moment that will seldom be put off again: id does not even stay in the list of the earlier one, which would
// be looked at for nothing. On the loop only.
func (l *Loop) Move(id ID, at mono.Time) {
	if r := l.active(id); r != nil {
		slot := id.Slot()
		l.unlink(slot, r)
		r.due = l.tickAt(at)
		l.link(slot, r, r.earliest())
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

// link puts the row in front of the list of tick, and sees to it that the loop wakes for it. prev is the slot before it, or
// the list's number below zero.
func (l *Loop) link(slot uint32, r *row, tick uint32) {
	w := &l.wheel
	l.catchUp()
	if ahead := int32(tick - w.cur); ahead < 1 {
		tick = w.cur + 1
	} else if ahead >= wheelSlots {
		tick = (w.cur + wheelSlots - 1) / farGrid * farGrid
	}
	list := int32(tick % wheelSlots)
	r.next, r.prev = w.heads[list], ^list
	if r.next != 0 {
		l.rows.At(uint32(r.next - 1)).prev = int32(slot)
	}
	w.heads[list] = int32(slot) + 1
	w.some[list/64] |= 1 << (list % 64)
	r.flags |= flagLinked
	w.count++
	l.wakeAt(tick)
}

func (l *Loop) unlink(slot uint32, r *row) {
	if r.flags&flagLinked == 0 {
		return
	}
	w := &l.wheel
	if r.prev < 0 {
		list := ^r.prev
		if w.heads[list] = r.next; r.next == 0 && list != firing {
			w.some[list/64] &^= 1 << (list % 64)
		}
	} else {
		l.rows.At(uint32(r.prev)).next = r.next
	}
	if r.next != 0 {
		l.rows.At(uint32(r.next - 1)).prev = r.prev
	}
	r.flags &^= flagLinked
	w.count--
}

// catchUp moves cur to now, if it lies far back and nothing is due: the lists reach only so far.
func (l *Loop) catchUp() {
	w, now := &l.wheel, uint32(l.ticks())
	switch {
	case w.count == 0 && w.heads[firing] == 0:
		w.cur = now
		return
	case now-w.cur <= behind || passed(now, w.cur):
		return
	}
	if next, ok := w.next(); !ok || !passed(next, now) {
		w.cur = now
	}
}

// wakeAt sets the kernel's timer to tick, unless it is set to an earlier one.
func (l *Loop) wakeAt(tick uint32) {
	if l.alarmed && passed(l.alarm, tick) {
		return
	}
	l.alarmed, l.alarm = true, tick
	l.sys.alarm(max(l.timeOf(tick).Sub(l.Now()), 0))
}

// timeOf is the moment of tick, which lies less than 497 days from now.
func (l *Loop) timeOf(tick uint32) mono.Time {
	here := l.ticks()
	return l.r.base.Add(time.Duration(here+int64(int32(tick-uint32(here)))) * tickLength)
}

// onTick does what has fallen due. The clock decides, not the timer.
func (l *Loop) onTick() {
	l.begin()
	l.alarmed = false
	l.fire()
	if l.acceptAt != 0 && passed(l.acceptAt, uint32(l.ticks())) {
		l.resumeAccept()
	}
	l.settle()
	l.nextAlarm()
}

// nextAlarm sets the kernel's timer for what comes next, or turns it off.
func (l *Loop) nextAlarm() {
	if next, ok := l.wheel.next(); ok {
		l.wakeAt(next)
	}
	if l.acceptAt != 0 {
		l.wakeAt(l.acceptAt)
	}
	if !l.alarmed {
		l.sys.alarm(-1)
		l.health.rest()
	}
}

// fire empties the lists up to now, fireBatch rows at most; the rest follows after the sockets had their turn.
func (l *Loop) fire() {
	w, now := &l.wheel, uint32(l.ticks())
	l.batch.open = true // what they write goes out together
	defer func() {
		l.batch.open = false
		l.submit()
	}()
	for n := 0; ; {
		for ; w.heads[firing] != 0; n++ {
			if n == fireBatch {
				l.wake()
				return
			}
			slot := uint32(w.heads[firing] - 1)
			l.visit(slot, l.rows.At(slot), now)
			l.flushDirty()
		}
		next, ok := w.next()
		if !ok || !passed(next, now) {
			return
		}
		w.cur = next
		l.take(int32(next % wheelSlots))
	}
}

// take makes list the firing one.
func (l *Loop) take(list int32) {
	w := &l.wheel
	w.some[list/64] &^= 1 << (list % 64)
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
	switch {
	case !due:
	case r.state == stateOpen || r.state == stateDialing:
		l.stat.timers.Add(1)
		l.call(opTimer, id, r, nil)
	case r.state == stateClosing:
		l.sever(id, r)
	}
}
