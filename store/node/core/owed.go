package core

import (
	"sync"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// OwedMax is how many tickets the store may be owed at once: those spent here whose assert it has not acknowledged.
const OwedMax = 1 << 16

// namedMax is how many of one subject are named in one assert.
const namedMax = 256

// owed are tickets that this node has spent itself (authority node), and for which the store keeps reservations until an assert that
// names them is acknowledged. Of those that opened a socket there is a time by which that has to be: after it the reservation may have
// ended, so that others have the slot, and the socket is overdue.
//
//	Spend ──> due by a time ──acknowledged──> (gone)
//	             │ the time
//	             v
//	          overdue, until a lease later: every loop has seen it by then; (gone) once acknowledged
//
// Any goroutine may call its methods; 72 bytes a ticket, and about as much in the two maps.
type owed struct {
	mu    sync.Mutex
	rows  []debt // number 0 is nobody's
	free  uint32 // the first of those that are free, each naming the next
	live  int
	of    map[ticket.Subject]uint32 // the latest of each
	at    map[ticket.Hash]uint32
	due   queue            // in the order of their times
	late  queue            // the overdue
	fresh []ticket.Subject // not marked yet
	told  []ticket.Subject // taken from fresh

}

// A debt is one ticket.
type debt struct {
	hash         ticket.Hash
	subject      ticket.Subject
	by           mono.Time // 0: no socket depends on it
	next, prev   uint32    // of the subject
	newer, older uint32    // in its queue
	queue        uint8     // in which it is
	acknowledged bool      // waits in late only
}

// A queue is linked through debts. 0 is its end.
type queue struct{ oldest, newest uint32 }

const (
	inNone = iota
	inDue
	inLate
)

func (o *owed) init() {
	o.of, o.at = map[ticket.Subject]uint32{}, map[ticket.Hash]uint32{}
	o.rows = make([]debt, 1)
}

// add owes the store h; false: there is no room, or h is owed already.
func (o *owed) add(u ticket.Subject, h ticket.Hash, by mono.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.live == OwedMax || o.at[h] != 0 {
		return false
	}
	i := o.free
	if i != 0 {
		o.free = o.rows[i].next
	} else {
		i = uint32(len(o.rows))
		o.rows = append(o.rows, debt{})
	}
	o.live++
	next := o.of[u]
	o.rows[i] = debt{hash: h, subject: u, by: by, next: next}
	if next != 0 {
		o.rows[next].prev = i
	}
	o.fresh = append(o.fresh, u)
	o.of[u], o.at[h] = i, i
	if by != 0 {
		o.push(&o.due, inDue, i)
	}
	return true
}

// push puts i at the end of q, or before those that are due later: goroutines read the clock before they come here.
func (o *owed) push(q *queue, name uint8, i uint32) {
	r := &o.rows[i]
	r.queue, r.older, r.newer = name, q.newest, 0
	for r.older != 0 && o.rows[r.older].by > r.by {
		r.older, r.newer = o.rows[r.older].older, r.older
	}
	*o.newerOf(q, r.older), *o.olderOf(q, r.newer) = i, i
}

func (o *owed) newerOf(q *queue, i uint32) *uint32 {
	if i == 0 {
		return &q.oldest
	}
	return &o.rows[i].newer
}

func (o *owed) olderOf(q *queue, i uint32) *uint32 {
	if i == 0 {
		return &q.newest
	}
	return &o.rows[i].older
}

// pull takes i out of its queue.
func (o *owed) pull(i uint32) {
	r := &o.rows[i]
	q := &o.due
	switch r.queue {
	case inNone:
		return
	case inLate:
		q = &o.late
	}
	*o.newerOf(q, r.older), *o.olderOf(q, r.newer) = r.newer, r.older
	r.queue = inNone
}

// drop forgets i, which is in no queue.
func (o *owed) drop(i uint32) {
	r := &o.rows[i]
	if r.prev != 0 {
		o.rows[r.prev].next = r.next
	} else if r.next != 0 {
		o.of[r.subject] = r.next
	} else {
		delete(o.of, r.subject)
	}
	if r.next != 0 {
		o.rows[r.next].prev = r.prev
	}
	delete(o.at, r.hash)
	*r = debt{next: o.free}
	o.free = i
	o.live--
}

// names are those of u that an assert names.
func (o *owed) names(u ticket.Subject) (out []ticket.Hash) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := o.of[u]; i != 0 && len(out) < namedMax; i = o.rows[i].next {
		if !o.rows[i].acknowledged {
			out = append(out, o.rows[i].hash)
		}
	}
	return out
}

// acknowledge forgets what an assert of u has named. It reports whether there is more of u to be named.
func (o *owed) acknowledge(u ticket.Subject, spent []ticket.Hash) (more bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, h := range spent {
		i := o.at[h]
		switch {
		case i == 0:
		case o.rows[i].queue == inLate: // too late
			o.rows[i].acknowledged = true
		default:
			o.pull(i)
			o.drop(i)
		}
	}
	for i := o.of[u]; i != 0; i = o.rows[i].next {
		if !o.rows[i].acknowledged {
			return true
		}
	}
	return false
}

// owes tells whether h opened a socket and the store has not acknowledged that in time, or not yet.
func (o *owed) owes(h ticket.Hash) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := o.at[h]
	return i != 0 && o.rows[i].by != 0
}

// pass has those become overdue whose time has come at now, which it appends to dst, and after lease more forgets that a socket hung
// on them.
func (o *owed) pass(now mono.Time, lease time.Duration, dst []ticket.Hash) []ticket.Hash {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := o.due.oldest; i != 0 && o.rows[i].by <= now; i = o.due.oldest {
		o.pull(i)
		o.push(&o.late, inLate, i)
		dst = append(dst, o.rows[i].hash)
	}
	for i := o.late.oldest; i != 0 && o.rows[i].by.Add(lease) <= now; i = o.late.oldest {
		o.pull(i)
		if o.rows[i].by = 0; o.rows[i].acknowledged {
			o.drop(i)
		}
	}
	return dst
}

// next is when pass has something to do.
func (o *owed) next(lease time.Duration) mono.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	next := never
	if i := o.due.oldest; i != 0 {
		next = o.rows[i].by
	}
	if i := o.late.oldest; i != 0 {
		next = min(next, o.rows[i].by.Add(lease))
	}
	return next
}

// forget forgets all: what they were asserted for is over.
func (o *owed) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.of)
	clear(o.at)
	o.rows, o.free, o.live, o.due, o.late = o.rows[:1], 0, 0, queue{}, queue{}
	o.fresh = o.fresh[:0]
}

// taken are the subjects that were given debts since the last call, valid until the next.
func (o *owed) taken() []ticket.Subject {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.told, o.fresh = o.fresh, o.told[:0]
	return o.told
}

// Spend notes that ticket h of u was spent here, without asking the store, and opens a socket: its reservation is the store's until an
// assert that counts the socket has been acknowledged. u is counted before. If that has not happened at by, which is not later
// than the end of the reservation, the socket must be closed; by is 0 where sockets are kept. false: nothing was noted, because the store is owed
// 65,536 already; no socket opens. Any goroutine may call it, and has Work called then.
func (m *Core) Spend(now mono.Time, u ticket.Subject, h ticket.Hash) (by mono.Time, ok bool) {
	if !m.o.Available && !m.without(GuardUnasserted) {
		by = now.Add(m.span())
	}
	return by, m.owed.add(u, h, by)
}

// Settle notes that ticket h of u will never open a socket, so that its reservation can go. Any goroutine may call it, and has Work
// called then.
func (m *Core) Settle(u ticket.Subject, h ticket.Hash) {
	if m.Owed() < OwedMax/2 { // else it goes by itself; the room is for sockets
		m.owed.add(u, h, 0)
	}
}

// Owes tells whether a socket that was opened with ticket h is not known to the store, or was not in time. Any goroutine may call it.
func (m *Core) Owes(h ticket.Hash) bool { return m.owed.owes(h) }

// Owed is how many tickets that were spent here the store has not acknowledged. Any goroutine may call it.
func (m *Core) Owed() int {
	m.owed.mu.Lock()
	defer m.owed.mu.Unlock()
	return m.owed.live
}

// overdue has the sockets closed that the store was not told of in time, and marks what has been spent.
func (m *Core) overdue(now mono.Time) {
	m.late = m.owed.pass(now, m.o.Lease, m.late[:0])
	if len(m.late) > 0 {
		m.o.Overdue(m.late)
	}
	for _, u := range m.owed.taken() {
		m.touch(u, 0)
	}
}
