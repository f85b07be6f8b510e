package node

import (
	"context"
	"sync"

	"ticketgate/ticket"
)

// assertMax is how many counts one call to the store carries.
const assertMax = 256

// dirty is the set of subjects whose count the store may not know. A subject leaves it when an acknowledged assert carried
// what is still the latest reading. Any goroutine may use it.
//
//	Touch ──> soon ──sent──> told ──acknowledged, and still the latest──> (gone)
//	           ^               │
//	           └── heartbeat ──┘  no answer, or changed meanwhile
type dirty struct {
	mu   sync.Mutex
	set  map[ticket.Subject]dirtState
	soon []ticket.Subject // those in state soon, once each
	wake chan struct{}
}

type dirtState uint8

const (
	soon dirtState = iota + 1
	told
)

func (d *dirty) init() {
	d.set, d.wake = make(map[ticket.Subject]dirtState), make(chan struct{}, 1)
}

func (d *dirty) signal() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// add puts s among those to be sent next.
func (d *dirty) add(s ticket.Subject) {
	d.mu.Lock()
	d.put(s)
	d.mu.Unlock()
	d.signal()
}

// all puts everything that is left among those to be sent next.
func (d *dirty) all() {
	d.mu.Lock()
	for s := range d.set {
		d.put(s)
	}
	left := len(d.set)
	d.mu.Unlock()
	if left > 0 {
		d.signal()
	}
}

func (d *dirty) put(s ticket.Subject) {
	if d.set[s] != soon {
		d.set[s] = soon
		d.soon = append(d.soon, s)
	}
}

// take moves up to assertMax subjects from soon to told and appends them to dst.
func (d *dirty) take(dst []ticket.Subject) []ticket.Subject {
	d.mu.Lock()
	defer d.mu.Unlock()
	from := max(0, len(d.soon)-assertMax)
	for _, s := range d.soon[from:] {
		d.set[s] = told
		dst = append(dst, s)
	}
	d.soon = d.soon[:from]
	return dst
}

// clean removes s unless it was touched since it was taken.
func (d *dirty) clean(s ticket.Subject) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.set[s] == told {
		delete(d.set, s)
	}
}

// Touch says that the held count of s changed: a socket closed, or a redemption ended in doubt. It is asserted soon, and
// again at each heartbeat until the store has acknowledged the latest reading. Any goroutine may call it; it does not wait.
func (n *Node) Touch(s ticket.Subject) { n.dirty.add(s) }

func (n *Node) asserting() {
	for {
		select {
		case <-n.quit:
			return
		case <-n.dirty.wake:
		}
		if err := n.flush(context.Background()); err != nil {
			n.o.Log.Debug("counts not asserted, the next heartbeat does", "node", n.o.Name, "reason", err)
		}
	}
}

// flush asserts what is soon, up to the first error.
func (n *Node) flush(ctx context.Context) error {
	var subjects []ticket.Subject
	var held []ticket.Held
	for {
		l := n.life.Load()
		if !l.leased(n.o.Clock.Now()) {
			return nil // the next life asserts everything
		}
		subjects = n.dirty.take(subjects[:0])
		if len(subjects) == 0 {
			return nil
		}
		held = n.read(held[:0], subjects, l.incarnation)
		if err := n.tell(ctx, held); err != nil {
			return err
		}
	}
}

// read appends the present readings of subjects. A subject without one is clean: it has been zero for longer than a lease.
func (n *Node) read(dst []ticket.Held, subjects []ticket.Subject, i ticket.Incarnation) []ticket.Held {
	for _, s := range subjects {
		count, number, ok := n.o.Counts.Held(s)
		if !ok {
			n.dirty.clean(s)
			continue
		}
		dst = append(dst, ticket.Held{Subject: s, Incarnation: i, Count: count, Number: number})
	}
	return dst
}

// tell asserts held and forgets which of them are still the latest.
func (n *Node) tell(ctx context.Context, held []ticket.Held) error {
	ctx, cancel := context.WithTimeout(ctx, n.o.Timeout)
	defer cancel()
	if err := n.o.Store.Assert(ctx, held); err != nil {
		return err
	}
	for _, h := range held {
		if _, number, _ := n.o.Counts.Held(h.Subject); number == h.Number {
			n.dirty.clean(h.Subject)
		}
	}
	return nil
}

// assertAll tells the store of all subjects, before the first redemption of a life or of a store's history.
func (n *Node) assertAll(i ticket.Incarnation) error {
	var subjects []ticket.Subject
	var failed error
	send := func() {
		failed = n.tell(context.Background(), n.read(nil, subjects, i))
		subjects = subjects[:0]
	}
	for s := range n.o.Subjects {
		if subjects = append(subjects, s); len(subjects) == assertMax {
			send()
		}
		if failed != nil {
			return failed
		}
	}
	if len(subjects) > 0 {
		send()
	}
	return failed
}
