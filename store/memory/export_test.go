package memory

import "unsafe"

// What a ticket and a subject cost, beside 4 bytes of an index each.
const (
	RecordSize  = unsafe.Sizeof(record{})
	BlockSize   = unsafe.Sizeof(block{})
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
		t.tickets.clean()
		t.setBait()
		u.Tickets += t.tickets.rows.Len() - 1
		u.Blocks += t.tickets.grants.Len()
		u.Accounts += t.accounts.rows.Len() - 1
		u.Held += t.accounts.more.Len()
		u.Made += int(t.tickets.rows.Made() + t.tickets.grants.Made() + t.accounts.rows.Made() + t.accounts.more.Made())
		t.mu.Unlock()
	}
	return u
}
