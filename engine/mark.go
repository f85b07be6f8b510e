package engine

import (
	"encoding/binary"
	"time"

	"ticketgate/ticket"
)

// mark says which ticket an open socket is from, in the 4 bytes that its row has left:
//
//	18 bits of the ticket's hash | 14 bits: its age when the socket opened, in steps of 16 ms, plus ageShift
//
// With the subject, which the row has too, the hash finds the socket of one ticket: among a client's 1,000 sockets another is taken for
// it once in 260 times that somebody asks for one ticket. From the age follows when it was issued, however long ago that was.
type mark uint32

const (
	markBits = 14
	ageUnit  = 16 * time.Millisecond // so 14 bits are 262 s: a ticket's 120 s and an admission's time have room
	ageShift = 4 * time.Second       // by which a ticket may be dated ahead of its time
)

func markOf(h ticket.Hash) mark { return mark(binary.BigEndian.Uint32(h[:])) &^ (1<<markBits - 1) }

// age notes how old the ticket is.
func (m *mark) age(d time.Duration) {
	n := min(max((d+ageShift)/ageUnit, 0), 1<<markBits-1)
	*m = *m&^(1<<markBits-1) | mark(n)
}

// issued is when the ticket was issued, for a socket that opened at opened; up to 16 ms too late.
func (m mark) issued(opened time.Time) time.Time {
	return opened.Add(ageShift - time.Duration(m&(1<<markBits-1))*ageUnit)
}

// is tells whether the ticket with hash h may be the one.
func (m mark) is(h ticket.Hash) bool { return m&^(1<<markBits-1) == markOf(h) }
