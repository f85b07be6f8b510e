package memory

import (
	"encoding/binary"
	"slices"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/internal/offheap"
	"ticketgate/ticket"
)

// tickets are those of a stripe that are unused, by hash and in the order in which they expire:
//
//	oldest ⇄ ticket ⇄ ticket ⇄ ... ⇄ newest
//
// Tickets of one store live equally long, so a new one is the newest; another life is sorted in from that end.
type tickets struct {
	rows           *offheap.Rows[record]
	index          *offheap.Index
	oldest, newest uint32
	grants         *offheap.Rows[block]
	loose          uint32 // the grant of the ticket that was dropped last
}

// A record is a ticket that can be spent: 96 bytes, 4 in the index, and its grant.
type record struct {
	next         uint32 // in its chain
	older, newer uint32
	account      uint32 // counts it in reserved
	grant        uint32 // its first block
	size         uint32 // of the grant
	more         uint32 // ms by which the reservation outlives the ticket
	hash         ticket.Hash
	secret       ticket.SecretHash
	owner        [11]byte  // of its SHA-256
	expired      bool      // only its reservation is left
	expiry       mono.Time // of the ticket, then of the reservation
}

// A block is a part of a grant.
type block struct {
	next uint32
	data [60]byte
}

func newTickets() tickets {
	return tickets{rows: offheap.NewRows[record](), index: offheap.NewIndex(), grants: offheap.NewRows[block]()}
}

func ticketHash(h *ticket.Hash) uint64 { return binary.LittleEndian.Uint64(h[:]) } // keyed: nobody outside aims it

// of is for the index.
func (t *tickets) of(i uint32) (hash uint64, next *uint32) {
	u := t.rows.At(i)
	return ticketHash(&u.hash), &u.next
}

// find returns the number of the ticket, or 0. not is passed over.
func (t *tickets) find(h *ticket.Hash, not uint32) uint32 {
	i := *t.index.First(ticketHash(h))
	for i != 0 && (i == not || t.rows.At(i).hash != *h) {
		i = t.rows.At(i).next
	}
	return i
}

// put copies u, and grant with it, and returns its number; 0: there is no room.
func (t *tickets) put(u *record, grant []byte) uint32 {
	i, row := t.rows.Get()
	if i == 0 {
		return 0
	}
	*row = *u
	if !t.putGrant(row, grant) {
		t.freeGrant(row.grant)
		t.rows.Put(i)
		return 0
	}
	t.index.Enter(i, ticketHash(&u.hash), &row.next, t.of)
	t.sort(i, row)
	return i
}

// sort links row i, which is in no place yet, in front of all that expire later.
func (t *tickets) sort(i uint32, row *record) {
	row.older, row.newer = t.newest, 0
	for row.older != 0 && t.rows.At(row.older).expiry > row.expiry {
		row.older, row.newer = t.rows.At(row.older).older, row.older
	}
	*t.newerOf(row.older), *t.olderOf(row.newer) = i, i
}

// retain keeps of ticket i, which has expired, its reservation.
func (t *tickets) retain(i uint32) {
	row := t.rows.At(i)
	t.freeGrant(row.grant)
	row.grant, row.size = 0, 0
	row.expired, row.expiry, row.more = true, row.expiry.Add(time.Duration(row.more)*time.Millisecond), 0
	t.unlink(row)
	t.sort(i, row)
}

// unlink takes a row out of the order of expiry.
func (t *tickets) unlink(row *record) {
	*t.newerOf(row.older), *t.olderOf(row.newer) = row.newer, row.older
}

// newerOf is the link behind i, olderOf the one in front of it; 0 stands for the ends.
func (t *tickets) newerOf(i uint32) *uint32 {
	if i == 0 {
		return &t.oldest
	}
	return &t.rows.At(i).newer
}

func (t *tickets) olderOf(i uint32) *uint32 {
	if i == 0 {
		return &t.newest
	}
	return &t.rows.At(i).older
}

// drop forgets ticket i. Its grant goes with the next or in clean: how long that takes says how long the grant is, and no
// refusal may tell that.
func (t *tickets) drop(i uint32) {
	row := t.rows.At(i)
	t.index.Leave(i, ticketHash(&row.hash), t.of)
	t.unlink(row)
	t.clean()
	t.loose = row.grant
	t.rows.Put(i)
}

// clean gives back what drop has left.
func (t *tickets) clean() {
	t.freeGrant(t.loose)
	t.loose = 0
}

// putGrant keeps a copy of b as row's grant, as far as there is room.
func (t *tickets) putGrant(row *record, b []byte) bool {
	row.grant, row.size = 0, uint32(len(b))
	for link := &row.grant; len(b) > 0; {
		i, c := t.grants.Get()
		if i == 0 {
			return false
		}
		*link, link = i, &c.next
		b = b[copy(c.data[:], b):]
	}
	return true
}

// appendGrant appends row's grant to dst.
func (t *tickets) appendGrant(dst []byte, row *record) []byte {
	left := int(row.size)
	for i := row.grant; i != 0; i = t.grants.At(i).next {
		c := t.grants.At(i)
		dst = append(dst, c.data[:min(left, len(c.data))]...)
		left -= len(c.data)
	}
	return dst
}

// freeGrant gives back the blocks from i on.
func (t *tickets) freeGrant(i uint32) {
	for i != 0 {
		next := t.grants.At(i).next
		t.grants.Put(i)
		i = next
	}
}

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
