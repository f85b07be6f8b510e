package node

import (
	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// Own is a node's own tickets.
type Own struct{ own *own }

// NewOwn has no ticket.
func NewOwn() Own { return Own{newOwn()} }

// Put is what Issue does with a ticket of life 1.
func (o Own) Put(r *ticket.IssueRequest, expiry mono.Time) bool {
	o.own.room.Add(-1)
	return o.own.put(r, 1, expiry)
}

// Spend spends one of a life.
func (o Own) Spend(q *ticket.RedeemRequest, life uint32, now mono.Time, dst []byte) (ticket.RedeemResult, []byte) {
	return o.own.spend(q, life, now, dst)
}

// Sweep is what the keeper does.
func (o Own) Sweep(now mono.Time) (n int) {
	o.own.sweep(1, now, func(ticket.Subject, ticket.Hash) { n++ })
	return n
}

// Room is how many more there may be.
func (o Own) Room() int64 { return o.own.room.Load() }

// OwnTickets is Room of none.
const OwnTickets = ownTickets
