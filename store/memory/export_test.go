package memory

import (
	"unsafe"

	"ticketgate/store/unused"
)

// What a ticket and a subject cost, beside 4 bytes of an index each.
const (
	RecordSize  = unsafe.Sizeof(unused.Ticket{})
	BlockSize   = uintptr(unused.BlockBytes)
	AccountSize = unsafe.Sizeof(account{})
	HeldSize    = unsafe.Sizeof(held{})
)

// Use is how many rows of each kind are in use, without those of the stripes themselves; and how many were ever made.
type Use struct {
	Tickets, Blocks, Accounts, Held int
	Made                            int
}

// Use adds up all stripes.
func (s *Store) Use() (u Use) {
	for i := range s.stripes {
		t := &s.stripes[i]
		t.mu.Lock()
		t.tickets.Clean()
		t.setBait()
		held := t.tickets.Usage()
		u.Tickets += held.Tickets - 1
		u.Blocks += held.Blocks
		u.Accounts += t.accounts.rows.Len() - 1
		u.Held += t.accounts.more.Len()
		u.Made += held.Made + int(t.accounts.rows.Made()+t.accounts.more.Made())
		t.mu.Unlock()
	}
	return u
}
