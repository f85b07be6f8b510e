package memory

import (
	"slices"

	"ticketgate/internal/offheap"
	"ticketgate/ticket"
)

// accounts are the subjects of a stripe, and those of them that are empty in a queue, the longest empty first.
type accounts struct {
	rows        *offheap.Rows[account]
	index       *offheap.Index
	more        *offheap.Rows[held]
	first, last uint32 // of the queue
}

// An account is what counts on one subject: 48 bytes, and 4 in the index.
type account struct {
	next     uint32 // in its chain
	reserved uint32 // unused tickets
	subject  ticket.Subject
	waits    uint32 // who comes next in the queue, itself for nobody; 0: it is not in the queue
	since    uint32 // when it was last seen empty, seconds of the store's clock
	held     held   // of the first incarnation; further ones lie in accounts.more
}

// held is how many sockets one incarnation holds; without an incarnation it is none.
type held struct {
	more        uint32 // number of the next
	count       uint32
	incarnation ticket.Incarnation
	number      uint64
}

func newAccounts() accounts {
	return accounts{rows: offheap.NewRows[account](), index: offheap.NewIndex(), more: offheap.NewRows[held]()}
}

// accountHash leaves out the bits that have picked the stripe.
func accountHash(s ticket.Subject) uint64 { return uint64(s) * golden >> 28 }

// of is for the index.
func (t *accounts) of(i uint32) (hash uint64, next *uint32) {
	a := t.rows.At(i)
	return accountHash(a.subject), &a.next
}

// find returns the number of the account of s, or 0.
func (t *accounts) find(s ticket.Subject) uint32 {
	i := *t.index.First(accountHash(s))
	for i != 0 && t.rows.At(i).subject != s {
		i = t.rows.At(i).next
	}
	return i
}

// open returns the account of s, which it makes if need be. 0: there is no room.
func (t *accounts) open(s ticket.Subject) uint32 {
	i := t.find(s)
	if i != 0 {
		return i
	}
	i, a := t.rows.Get()
	if i != 0 {
		a.subject = s
		t.index.Enter(i, accountHash(s), &a.next, t.of)
	}
	return i
}

// close forgets account i, which is not in the queue.
func (t *accounts) close(i uint32) {
	a := t.rows.At(i)
	t.index.Leave(i, accountHash(a.subject), t.of)
	for more := a.held.more; more != 0; {
		next := t.more.At(more).more
		t.more.Put(more)
		more = next
	}
	t.rows.Put(i)
}

// enqueue puts account i at the end of the queue, unless it is there.
func (t *accounts) enqueue(i uint32) {
	a := t.rows.At(i)
	if a.waits != 0 {
		return
	}
	a.waits = i
	if t.last != 0 {
		t.rows.At(t.last).waits = i
	} else {
		t.first = i
	}
	t.last = i
}

// dequeue takes the first out of the queue.
func (t *accounts) dequeue() {
	a := t.rows.At(t.first)
	if a.waits == t.first {
		t.first, t.last = 0, 0
	} else {
		t.first = a.waits
	}
	a.waits = 0
}

// empty tells whether nothing counts on a.
func (t *accounts) empty(a *account) bool {
	if a.reserved != 0 {
		return false
	}
	for h := &a.held; ; h = t.more.At(h.more) {
		if h.count > 0 {
			return false
		}
		if h.more == 0 {
			return true
		}
	}
}

// used counts reservations and held sockets, leaving out the dead.
func (t *accounts) used(a *account, dead []ticket.Incarnation) uint32 {
	n := a.reserved
	for h := &a.held; ; h = t.more.At(h.more) {
		if !slices.Contains(dead, h.incarnation) {
			n += h.count
		}
		if h.more == 0 {
			return n
		}
	}
}

// counted are the incarnations that hold something.
func (t *accounts) counted(a *account) (out []ticket.Incarnation) {
	for h := &a.held; ; h = t.more.At(h.more) {
		if h.count > 0 {
			out = append(out, h.incarnation)
		}
		if h.more == 0 {
			slices.Sort(out)
			return out
		}
	}
}

// bury takes the rows of dead incarnations out.
func (t *accounts) bury(a *account, dead []ticket.Incarnation) {
	if len(dead) == 0 {
		return
	}
	for h := &a.held; h.more != 0; {
		if more := t.more.At(h.more); slices.Contains(dead, more.incarnation) {
			old := h.more
			h.more = more.more
			t.more.Put(old)
			continue
		}
		h = t.more.At(h.more)
	}
	if slices.Contains(dead, a.held.incarnation) {
		a.held = held{more: a.held.more}
	}
}

// heldBy returns the row of incarnation i in a, made if need be; nil: there is no room.
func (t *accounts) heldBy(a *account, i ticket.Incarnation) *held {
	h, free := &a.held, (*held)(nil)
	for {
		switch h.incarnation {
		case i:
			return h
		case 0:
			free = h
		}
		if h.more == 0 {
			break
		}
		h = t.more.At(h.more)
	}
	if free == nil {
		h.more, free = t.more.Get()
	}
	if free != nil {
		free.incarnation = i
	}
	return free
}
