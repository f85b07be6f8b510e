package engine

import (
	"context"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// A newcomer that finds all slots of its subject taken may be given that of an open socket, where the plan says so. In the order
// of this file:
//
//	Victim    any goroutine   asks each loop for the socket that would have to go
//	Evict     any goroutine   has one of them closed, and waits until its slot is free
//	seat      loop            an open socket of such a plan is found by its subject from then on
//	vacate    loop            the descriptor is closed: who waits is told
const (
	evictLinger = time.Second // what a victim has not taken then of the close frame, and what was before it, is cut off
	idlestLooks = 4096        // sockets of a subject that a loop looks at for the idlest, those opened first: about 0.2 ms
)

// A Victim is a socket that would have to go.
type Victim struct {
	ID  reactor.ID
	Ago time.Duration // since it was opened; or, of the idlest, since its last message, pings not counted
}

// Victim returns the open socket of u that was opened first, or the idlest one: that whose last message, in either direction, is
// the longest ago; of the 4,096 on each loop that were opened first, if there are more. Only sockets of plans that evict are looked
// at. Loops that have not answered when ctx ends are left out. Any goroutine but a loop's may call it.
func (e *Engine) Victim(ctx context.Context, u ticket.Subject, idlest bool) (best Victim, ok bool) {
	got := make(chan Victim, len(e.workers))
	for i, w := range e.workers {
		e.Do(i, func(*reactor.Loop) { got <- w.victim(u, idlest) })
	}
	for range e.workers {
		select {
		case v := <-got:
			if v.ID != 0 && (best.ID == 0 || v.Ago > best.Ago) {
				best = v
			}
		case <-ctx.Done():
			return best, best.ID != 0
		}
	}
	return best, best.ID != 0
}

// victim is the loop's own; ID 0: there is none.
func (w *worker) victim(u ticket.Subject, idlest bool) (best Victim) {
	if w.seats == nil {
		return best
	}
	now := tickOf(w.l.Now())
	looks := idlestLooks
	if !idlest {
		looks = 1
	}
	w.seats.each(u, looks, func(id reactor.ID) bool {
		s := w.e.rows.At(id.Slot())
		since := s.opened
		if idlest {
			since = s.last
		}
		if ago := now.since(since); best.ID == 0 || ago > best.Ago {
			best = Victim{id, ago}
		}
		return true
	})
	return best
}

// Eviction is how an Evict ended.
type Eviction uint8

// The ends of Evict.
const (
	EvictGone  Eviction = iota + 1 // no such socket is open, and nothing was done: its slot is free, or soon will be
	EvictTaken                     // it is being closed for another newcomer
	EvictLate                      // it was too late, and nothing was done
	EvictDone                      // closed with 4409: its slot is not counted any more
	EvictDoubt                     // ctx has ended: it may be closed yet
)

// Evict closes socket id, if it is open and has a slot of u, with 4409; one that does not take the close frame within a second gets
// RST. It returns when the slot is free on this node (the store has to be told), or with ctx. The socket is not touched any more after
// by, on the engine's clock. id may be anything. Any goroutine but a loop's may call it.
func (e *Engine) Evict(ctx context.Context, id reactor.ID, u ticket.Subject, by mono.Time) Eviction {
	if id.Loop() >= len(e.workers) {
		return EvictGone
	}
	got := make(chan Eviction, 1)
	e.Do(id.Loop(), func(*reactor.Loop) { e.workers[id.Loop()].evict(id, u, by, got) })
	select {
	case v := <-got:
		return v
	case <-ctx.Done():
		return EvictDoubt
	}
}

// evict answers in got, now or once id is closed.
func (w *worker) evict(id reactor.ID, u ticket.Subject, by mono.Time, got chan<- Eviction) {
	switch _, taken := w.evicted[id]; {
	case taken:
		got <- EvictTaken
		return
	case w.seats == nil || w.seats.find(id) == 0:
		got <- EvictGone
		return
	case w.l.Now() > by:
		got <- EvictLate
		return
	}
	s := w.e.rows.At(id.Slot())
	if s.subject != u || s.state != stateOpen || w.lost(s) {
		got <- EvictGone
		return
	}
	if w.evicted == nil {
		w.evicted = map[reactor.ID]chan<- Eviction{}
	}
	w.evicted[id] = got
	w.lastWord(id, s, End{By: ByGateway, Code: frame.CloseReplaced, Reason: frame.CloseReplaced.Reason()})
	w.l.EndWithin(id, evictLinger)
	w.parted(id)
}

// seat has an open socket found by its subject, if its plan may ask for that.
func (w *worker) seat(id reactor.ID, s *session) {
	if !w.plan(s).Connections.Full.Evicts() {
		return
	}
	if w.seats == nil {
		w.seats = newSeats()
	}
	w.seats.enter(id, s.subject)
}

// unseat undoes seat.
func (w *worker) unseat(id reactor.ID, s *session) {
	if w.seats != nil && w.plan(s).Connections.Full.Evicts() {
		w.seats.leave(id)
	}
}

// vacate tells who waits for the slot of an evicted socket that it is free.
func (w *worker) vacate(id reactor.ID) {
	if got := w.evicted[id]; got != nil {
		got <- EvictDone // has room for it
		delete(w.evicted, id)
	}
}
