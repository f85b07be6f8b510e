package memory

import (
	"context"
	"sync"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

var _ ticket.Looker = (*Store)(nil)

// notesMax is how many tickets that were taken back are remembered; of more, the first are forgotten.
const notesMax = 1 << 16

// notes are tickets that their owners have taken back, the oldest first.
type notes struct {
	mu    sync.Mutex
	by    map[ticket.Hash]note
	order []ticket.Hash
}

type note struct {
	subject ticket.Subject
	owner   string
	until   mono.Time
}

// Look implements ticket.Looker.
func (s *Store) Look(_ context.Context, u ticket.Subject, h ticket.Hash, owner string) (l ticket.Look, err error) {
	if s.closed.Load() {
		return l, errClosed
	}
	t, now := s.locked(u)
	defer t.mu.Unlock()
	if i := t.tickets.Find(&h, t.bait); i != 0 {
		if r := t.tickets.At(i); !r.Expired && t.accounts.rows.At(r.Account).subject == u {
			l.Grant = t.tickets.AppendGrant(make([]byte, 0, r.Size()), r)
		}
	}
	s.notes.mu.Lock()
	defer s.notes.mu.Unlock()
	n, ok := s.notes.by[h]
	l.Revoked = ok && n.subject == u && n.until > now && (owner == "" || owner == n.owner)
	return l, nil
}

// Note implements ticket.Looker.
func (s *Store) Note(_ context.Context, u ticket.Subject, h ticket.Hash, owner string, life time.Duration) error {
	n, now := &s.notes, s.clock.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.by == nil {
		n.by = map[ticket.Hash]note{}
	}
	over := 0
	for over < len(n.order) && (n.by[n.order[over]].until <= now || len(n.order)-over >= notesMax) {
		delete(n.by, n.order[over])
		over++
	}
	n.order = append(n.order[over:], h)
	n.by[h] = note{u, owner, now.Add(life)}
	return nil
}
