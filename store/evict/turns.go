package evict

import (
	"context"
	"sync"

	"ticketgate/ticket"
)

// turns lets one newcomer of a subject at a time have something evicted, and so many of all subjects.
type turns struct {
	mu      sync.Mutex
	lines   map[ticket.Subject]*line
	waiting int           // in all lines, those whose turn it is included
	hands   chan struct{} // whose turn it is
}

// A line are the newcomers of one subject.
type line struct {
	turn chan struct{} // held by whose turn it is
	n    int
}

func (t *turns) init() {
	t.lines, t.hands = map[ticket.Subject]*line{}, make(chan struct{}, inHand)
}

// take waits for a turn, to be given back. waited says that others had theirs meanwhile, so that everything may have changed. false:
// too many wait already, or ctx has ended.
func (t *turns) take(ctx context.Context, u ticket.Subject) (waited, ok bool) {
	l := t.enter(u)
	if l == nil {
		return false, false
	}
	for _, c := range [...]chan struct{}{l.turn, t.hands} {
		select {
		case c <- struct{}{}:
			continue
		default:
			waited = true
		}
		select {
		case c <- struct{}{}:
		case <-ctx.Done():
			if c == t.hands {
				<-l.turn
			}
			t.leave(u)
			return waited, false
		}
	}
	return waited, true
}

// give gives a turn back.
func (t *turns) give(u ticket.Subject) {
	<-t.hands
	t.mu.Lock()
	l := t.lines[u]
	t.mu.Unlock()
	<-l.turn
	t.leave(u)
}

// enter joins the line of u; nil: it is full.
func (t *turns) enter(u ticket.Subject) *line {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lines[u]
	if l == nil {
		l = &line{turn: make(chan struct{}, 1)}
	}
	if t.waiting >= waitMax || l.n >= lineMax {
		return nil
	}
	t.lines[u] = l
	l.n++
	t.waiting++
	return l
}

func (t *turns) leave(u ticket.Subject) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lines[u]
	l.n--
	t.waiting--
	if l.n == 0 {
		delete(t.lines, u)
	}
}
