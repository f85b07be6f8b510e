package engine

import (
	"math/bits"

	"ticketgate/engine/reactor"
	"ticketgate/internal/offheap"
	"ticketgate/ticket"
)

// seats are a loop's open sockets whose plan says that one of them may have to go for a newcomer, by subject, in the order in
// which they were opened. Sockets of other plans are not in it and pay for one look at a bit. A socket has 28 bytes of it, and a subject
// as many, outside of the heap:
//
//	bySubject ──> group: first ──> seat ──> seat <── last
//	byID ────────────────────────────────────^
//
// Only its loop uses it.
type seats struct {
	bySubject, byID *offheap.Index
	groups          *offheap.Rows[group]
	rows            *offheap.Rows[seat]
}

// group is a subject that has a seat.
type group struct {
	next        uint32 // in its chain of bySubject
	first, last uint32
	_           uint32
	subject     uint64
}

// seat is an open socket.
type seat struct {
	next          uint32 // in its chain of byID
	group         uint32
	before, after uint32 // of the group: opened earlier, and later
	id            uint64
}

func newSeats() *seats {
	return &seats{bySubject: offheap.NewIndex(), byID: offheap.NewIndex(), groups: offheap.NewRows[group](), rows: offheap.NewRows[seat]()}
}

// Both are nothing that somebody outside can aim: a subject is a keyed hash, and descriptors are the kernel's.
func seatHash(v uint64) uint64 { return bits.Reverse64(v * 0x9e3779b97f4a7c15) }

// enter gives id, which has been opened last, a seat; false, none: there is no room, and it will not have to go.
func (t *seats) enter(id reactor.ID, u ticket.Subject) bool {
	i, r := t.rows.Get()
	if r == nil {
		return false
	}
	k, g := t.group(u)
	if g == nil {
		if k, g = t.groups.Get(); g == nil {
			t.rows.Put(i)
			return false
		}
		g.subject = uint64(u)
		t.bySubject.Enter(k, seatHash(uint64(u)), &g.next, t.ofGroup)
	}
	r.id, r.group, r.before = uint64(id), k, g.last
	if g.last != 0 {
		t.rows.At(g.last).after = i
	} else {
		g.first = i
	}
	g.last = i
	t.byID.Enter(i, seatHash(uint64(id)), &r.next, t.ofSeat)
	return true
}

// leave takes the seat of id away, if it has one.
func (t *seats) leave(id reactor.ID) {
	i := t.find(id)
	if i == 0 {
		return
	}
	r := t.rows.At(i)
	g := t.groups.At(r.group)
	if r.before != 0 {
		t.rows.At(r.before).after = r.after
	} else {
		g.first = r.after
	}
	if r.after != 0 {
		t.rows.At(r.after).before = r.before
	} else {
		g.last = r.before
	}
	if g.first == 0 {
		t.bySubject.Leave(r.group, seatHash(g.subject), t.ofGroup)
		t.groups.Put(r.group)
	}
	t.byID.Leave(i, seatHash(uint64(id)), t.ofSeat)
	t.rows.Put(i)
}

// find returns the number of id's seat, 0 for none. id may be anything.
func (t *seats) find(id reactor.ID) uint32 {
	i := *t.byID.First(seatHash(uint64(id)))
	for i != 0 && t.rows.At(i).id != uint64(id) {
		i = t.rows.At(i).next
	}
	return i
}

func (t *seats) group(u ticket.Subject) (uint32, *group) {
	for i := *t.bySubject.First(seatHash(uint64(u))); i != 0; {
		g := t.groups.At(i)
		if g.subject == uint64(u) {
			return i, g
		}
		i = g.next
	}
	return 0, nil
}

// each calls f for the sockets of u in the order of opening, at most limit of them, until it returns false.
func (t *seats) each(u ticket.Subject, limit int, f func(reactor.ID) bool) {
	_, g := t.group(u)
	if g == nil {
		return
	}
	for i := g.first; i != 0 && limit > 0; limit-- {
		r := t.rows.At(i)
		if !f(reactor.ID(r.id)) {
			return
		}
		i = r.after
	}
}

// of a row, for the indexes.
func (t *seats) ofGroup(i uint32) (hash uint64, next *uint32) {
	g := t.groups.At(i)
	return seatHash(g.subject), &g.next
}

func (t *seats) ofSeat(i uint32) (hash uint64, next *uint32) {
	r := t.rows.At(i)
	return seatHash(r.id), &r.next
}
