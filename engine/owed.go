package engine

import (
	"slices"

	"ticketgate/engine/reactor"
	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// An owed socket was opened by an Owner that has not told the store of it when it opened. Until that has happened the socket's slot
// is a reservation, which ends; the socket ends before. The list is a loop's, in the order of the times. Those that the store knows
// by now are taken out when there are twice as many as at the last time, and when their time comes.
//
//	opened ──> owed ──time──> still owed: lost, as with its life (life.go)
//	                     └──> known to the store: (nothing)
type owed struct {
	id   reactor.ID
	by   mono.Time
	hash ticket.Hash
}

// owedAt is the length at which the list is looked through for the first time.
const owedAt = 64

// strayLife is the life of a socket that is lost although its node's life goes on: no node comes to have it.
const strayLife = ^uint8(0)

// owe notes the sockets of b that are not known to the store.
func (w *worker) owe(b *ticket.Batch) {
	if b.By == 0 || w.e.o.Life == nil {
		return
	}
	for i := range b.Answers {
		if b.Answers[i].Result == ticket.RedeemOK {
			w.owed = append(w.owed, owed{reactor.ID(b.IDs[i]), b.By, b.Reqs[i].Ticket})
		}
	}
	if len(w.owed) >= w.owedAt {
		w.owed = slices.DeleteFunc(w.owed, func(o owed) bool { return !w.l.Alive(o.id) || !w.e.owner.Owes(o.hash) })
		w.owedAt = max(owedAt, 2*len(w.owed))
	}
}

// stray makes those lost whose time has come at now, before anything is done for them, and reports whether there are any.
func (w *worker) stray(now mono.Time) (lost bool) {
	n := 0
	for ; n < len(w.owed) && w.owed[n].by <= now; n++ {
		o := &w.owed[n]
		if s := w.e.rows.At(o.id.Slot()); w.l.Alive(o.id) && s.life != 0 && w.e.owner.Owes(o.hash) {
			s.life = strayLife
			lost = true
		}
	}
	w.owed = slices.Delete(w.owed, 0, n)
	return lost
}
