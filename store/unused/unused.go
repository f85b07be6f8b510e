// Package unused is tables of tickets that can be spent, outside of the heap: about 230 bytes each.
//
//	hash ── index ──> Ticket ──> its grant, in blocks of 60 bytes
//	oldest ⇄ ticket ⇄ ticket ⇄ ... ⇄ newest
//
// Tickets of one table live equally long, so a new one is the newest; another life is sorted in from that end. store/memory keeps
// all tickets so, and store/node those that it spends itself.
package unused

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
	"unsafe"

	"ticketgate/internal/mono"
	"ticketgate/internal/offheap"
	"ticketgate/ticket"
)

// OwnerOf is what a table keeps of who may revoke a ticket.
func OwnerOf(name string) (owner [11]byte) {
	sum := sha256.Sum256([]byte(name))
	copy(owner[:], sum[:])
	return owner
}

// A Table is unused tickets by hash and in the order in which they expire. Not for concurrent use.
type Table struct {
	rows           *offheap.Rows[Ticket]
	index          *offheap.Index
	oldest, newest uint32
	grants         *offheap.Rows[block]
	loose          uint32 // the grant of the ticket that was dropped last
}

// A Ticket can be spent: 96 bytes, 4 in the index, and its grant. Hash is not changed while it is in a table.
type Ticket struct {
	next         uint32 // in its chain
	older, newer uint32
	Account      uint32 // whose it is, as the table's owner numbers them
	grant        uint32 // its first block
	size         uint32 // of the grant
	More         uint32 // ms by which the reservation outlives the ticket
	Hash         ticket.Hash
	Secret       ticket.SecretHash
	Owner        [11]byte  // OwnerOf who may revoke it
	Expired      bool      // only its reservation is left
	Expiry       mono.Time // of the ticket, then of the reservation
}

// BlockBytes is what each 60 bytes of a grant cost.
const BlockBytes = int(unsafe.Sizeof(block{}))

// A block is a part of a grant.
type block struct {
	next uint32
	data [60]byte
}

// New returns an empty Table. Its memory goes when nobody has it any more.
func New() Table {
	return Table{rows: offheap.NewRows[Ticket](), index: offheap.NewIndex(), grants: offheap.NewRows[block]()}
}

func ticketHash(h *ticket.Hash) uint64 { return binary.LittleEndian.Uint64(h[:]) } // keyed: nobody outside aims it

// of is for the index.
func (t *Table) of(i uint32) (hash uint64, next *uint32) {
	u := t.rows.At(i)
	return ticketHash(&u.Hash), &u.next
}

// Find returns the number of the ticket, or 0. not is passed over.
func (t *Table) Find(h *ticket.Hash, not uint32) uint32 {
	i := *t.index.First(ticketHash(h))
	for i != 0 && (i == not || t.rows.At(i).Hash != *h) {
		i = t.rows.At(i).next
	}
	return i
}

// Put copies u, and grant with it, and returns its number; 0: there is no room.
func (t *Table) Put(u *Ticket, grant []byte) uint32 {
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
	t.index.Enter(i, ticketHash(&u.Hash), &row.next, t.of)
	t.sort(i, row)
	return i
}

// sort links row i, which is in no place yet, in front of all that expire later.
func (t *Table) sort(i uint32, row *Ticket) {
	row.older, row.newer = t.newest, 0
	for row.older != 0 && t.rows.At(row.older).Expiry > row.Expiry {
		row.older, row.newer = t.rows.At(row.older).older, row.older
	}
	*t.newerOf(row.older), *t.olderOf(row.newer) = i, i
}

// Retain keeps of ticket i, which has expired, its reservation.
func (t *Table) Retain(i uint32) {
	row := t.rows.At(i)
	t.freeGrant(row.grant)
	row.grant, row.size = 0, 0
	row.Expired, row.Expiry, row.More = true, row.Expiry.Add(time.Duration(row.More)*time.Millisecond), 0
	t.unlink(row)
	t.sort(i, row)
}

// unlink takes a row out of the order of expiry.
func (t *Table) unlink(row *Ticket) {
	*t.newerOf(row.older), *t.olderOf(row.newer) = row.newer, row.older
}

// newerOf is the link behind i, olderOf the one in front of it; 0 stands for the ends.
func (t *Table) newerOf(i uint32) *uint32 {
	if i == 0 {
		return &t.oldest
	}
	return &t.rows.At(i).newer
}

func (t *Table) olderOf(i uint32) *uint32 {
	if i == 0 {
		return &t.newest
	}
	return &t.rows.At(i).older
}

// Drop forgets ticket i. Its grant goes with the next or in clean: how long that takes says how long the grant is, and no
// refusal may tell that.
func (t *Table) Drop(i uint32) {
	row := t.rows.At(i)
	t.index.Leave(i, ticketHash(&row.Hash), t.of)
	t.unlink(row)
	t.Clean()
	t.loose = row.grant
	t.rows.Put(i)
}

// Clean gives back what drop has left.
func (t *Table) Clean() {
	t.freeGrant(t.loose)
	t.loose = 0
}

// putGrant keeps a copy of b as row's grant, as far as there is room.
func (t *Table) putGrant(row *Ticket, b []byte) bool {
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

// AppendGrant appends row's grant to dst.
func (t *Table) AppendGrant(dst []byte, row *Ticket) []byte {
	left := int(row.size)
	for i := row.grant; i != 0; i = t.grants.At(i).next {
		c := t.grants.At(i)
		dst = append(dst, c.data[:min(left, len(c.data))]...)
		left -= len(c.data)
	}
	return dst
}

// freeGrant gives back the blocks from i on.
func (t *Table) freeGrant(i uint32) {
	for i != 0 {
		next := t.grants.At(i).next
		t.grants.Put(i)
		i = next
	}
}

// At is ticket i. The pointer is good until i is dropped.
func (t *Table) At(i uint32) *Ticket { return t.rows.At(i) }

// Oldest is the ticket, or reservation, that expires first; 0: there is none.
func (t *Table) Oldest() uint32 { return t.oldest }

// Size is how many bytes the grant of u has.
func (u *Ticket) Size() int { return int(u.size) }

// Usage is what a table holds.
type Usage struct {
	Tickets, Blocks int
	Made            int // numbers of both that were ever handed out
}

// Usage tells what t holds; grants that Drop has left behind have to be cleaned before.
func (t *Table) Usage() Usage {
	return Usage{t.rows.Len(), t.grants.Len(), int(t.rows.Made() + t.grants.Made())}
}
