package memory

import (
	"context"
	"slices"
	"sync"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/revoke"
)

// Revocations is a log in this process. Several followers may follow it.
type Revocations struct {
	now func() time.Time

	mu      sync.Mutex
	last    uint64
	entries []entry // in order
	ids     map[string]bool
	changed chan struct{} // closed when there are more
}

type entry struct {
	seq   uint64
	id    string
	text  []byte
	until time.Time
}

// NewRevocations returns an empty log. The clock's wall time is the store's.
func NewRevocations(clock mono.Clock) *Revocations {
	return &Revocations{now: clock.Wall, ids: map[string]bool{}, changed: make(chan struct{})}
}

var _ revoke.Log = (*Revocations)(nil)

// Publish implements revoke.Log.
func (l *Revocations) Publish(_ context.Context, rs []revoke.Revocation) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trim()
	added := false
	defer func() {
		if added {
			close(l.changed)
			l.changed = make(chan struct{})
		}
	}()
	for i := range rs {
		r := &rs[i]
		if l.ids[r.ID] {
			continue
		}
		if len(l.entries) >= revoke.Max {
			return revoke.ErrFull
		}
		l.last++
		l.ids[r.ID], added = true, true
		l.entries = append(l.entries, entry{l.last, r.ID, revoke.AppendText(nil, r), r.Until})
	}
	return nil
}

// trim drops what may be forgotten.
func (l *Revocations) trim() {
	now := l.now()
	l.entries = slices.DeleteFunc(l.entries, func(e entry) bool {
		over := !e.until.After(now)
		if over {
			delete(l.ids, e.id)
		}
		return over
	})
}

// Read implements revoke.Log.
func (l *Revocations) Read(_ context.Context, p revoke.Place, most int) (page revoke.Page, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	const history = "memory"
	if p.History != history {
		p, page.Reset = revoke.Place{History: history}, true
	}
	page.Next = p
	for _, e := range l.entries {
		switch {
		case e.seq <= p.Seq:
		case len(page.Texts) == most:
			page.More = true
			return page, nil
		default:
			page.Texts, page.Next.Seq = append(page.Texts, e.text), e.seq
		}
	}
	return page, nil
}

// Watch implements revoke.Log.
func (l *Revocations) Watch(ctx context.Context, changed func()) error {
	for {
		l.mu.Lock()
		next := l.changed
		l.mu.Unlock()
		changed()
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
