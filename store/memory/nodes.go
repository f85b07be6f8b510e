package memory

import (
	"sync"

	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// nodes knows which incarnations live.
type nodes struct {
	mu    sync.Mutex
	lease map[ticket.Incarnation]mono.Time // end of the lease
	dead  map[ticket.Incarnation]mono.Time // since when
}

func (n *nodes) init() {
	n.lease = make(map[ticket.Incarnation]mono.Time)
	n.dead = make(map[ticket.Incarnation]mono.Time)
}

// renew first ends whose lease has ended, then enters or prolongs the caller.
func (n *nodes) renew(r *ticket.RenewRequest, now mono.Time) (ticket.View, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sweep(now)
	for _, f := range r.Former {
		n.end(f, now)
	}
	if _, ended := n.dead[r.Incarnation]; ended {
		return ticket.View{}, ticket.ErrLeaseLost
	}
	n.lease[r.Incarnation] = now.Add(r.Lease)
	return n.view(), nil
}

func (n *nodes) sweep(now mono.Time) {
	for i, end := range n.lease {
		if end <= now {
			n.end(i, now)
		}
	}
	for i, since := range n.dead {
		if now.Sub(since) >= deadKept {
			delete(n.dead, i)
		}
	}
}

func (n *nodes) end(i ticket.Incarnation, now mono.Time) {
	delete(n.lease, i)
	if _, known := n.dead[i]; !known {
		n.dead[i] = now
	}
}

func (n *nodes) view() ticket.View {
	var v ticket.View
	for i := range n.lease {
		v.Alive = append(v.Alive, i)
	}
	for i := range n.dead {
		v.Dead = append(v.Dead, i)
	}
	return v
}
