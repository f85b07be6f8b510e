// Package memory is a ticket store inside one process, for dev and tests: exact, and gone on exit.
//
// All state of a subject lies in one of 16 stripes, under the stripe's lock, as it lies under one tag in Redis, and outside
// of the heap (internal/offheap):
//
//	subject ──> stripe ─┬─ tickets by hash, and in the order of their expiry     about 230 bytes each, until they are spent
//	                    └─ accounts by subject: reservations, held sockets       52 bytes each
package memory

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/internal/offheap"
	"ticketgate/store/model"
	"ticketgate/ticket"
)

// Options configure a Store. Clock and Rand are required.
type Options struct {
	Clock   mono.Clock
	Rand    io.Reader // draws the epoch; read once, by New
	Tickets int       // unused tickets not yet expired, 0 for 2,097,152. Over it Issue fails with ErrUnavailable
}

const (
	stripeBits     = 4
	stripeCount    = 1 << stripeBits
	golden         = 0x9e3779b97f4a7c15 // Fibonacci hashing
	ticketsDefault = 1 << 21
	ticketsMax     = offheap.MaxRows - 2 // all may be in one stripe, with its bait
)

var errFull = fmt.Errorf("%w: no room for another ticket", ticket.ErrUnavailable)

var errClosed = fmt.Errorf("%w: closed", ticket.ErrUnavailable)

// A Store implements ticket.Store. Any goroutine may use it; calls never wait and ignore their contexts.
type Store struct {
	clock   mono.Clock
	start   mono.Time
	wall    time.Time // at start: the store's clock never steps
	epoch   ticket.Epoch
	room    atomic.Int64 // tickets that may still be put
	closed  atomic.Bool
	notes   notes
	stripes [stripeCount]stripe

	nodesLock sync.Mutex
	nodes     *model.Nodes
}

var _ ticket.NearStore = (*Store)(nil)

// Near implements ticket.NearStore.
func (*Store) Near() {}

// New returns an empty store of a new random epoch. It fails only if o.Rand does.
func New(o Options) (*Store, error) {
	var b [4]byte
	if _, err := io.ReadFull(o.Rand, b[:]); err != nil {
		return nil, fmt.Errorf("memory store: random source: %w", err)
	}
	if o.Tickets < 0 || o.Tickets > ticketsMax {
		return nil, fmt.Errorf("memory store: Tickets must be 0 to %d", ticketsMax)
	}
	if o.Tickets == 0 {
		o.Tickets = ticketsDefault
	}
	s := &Store{clock: o.Clock, start: o.Clock.Now(), wall: o.Clock.Wall(), epoch: max(1, ticket.Epoch(binary.BigEndian.Uint32(b[:])))}
	s.room.Store(int64(o.Tickets))
	s.nodes = model.NewNodes(s.epoch) // nobody was here before: its views are never young
	for i := range s.stripes {
		s.stripes[i].init(&s.room)
	}
	return s, nil
}

// locked returns the stripe of u, locked and swept up to now.
func (s *Store) locked(u ticket.Subject) (*stripe, mono.Time) {
	t := &s.stripes[uint64(u)*golden>>(64-stripeBits)]
	t.mu.Lock()
	now := s.clock.Now()
	t.sweep(now)
	return t, now
}

// seen is the only shard, which has one epoch for life.
func (s *Store) seen() ticket.ShardEpoch { return ticket.ShardEpoch{Epoch: s.epoch} }

// Topology implements ticket.Store.
func (*Store) Topology() *ticket.Topology { return ticket.One }

// Ask implements ticket.Store.
func (s *Store) Ask(_ context.Context, shard ticket.Shard) (ticket.ShardEpoch, error) {
	switch {
	case s.closed.Load():
		return ticket.ShardEpoch{}, errClosed
	case shard != ticket.One.Shards[0]:
		return ticket.ShardEpoch{}, fmt.Errorf("%w: no shard %d", ticket.ErrUnavailable, shard)
	}
	return s.seen(), nil
}

// Issue implements ticket.Store.
func (s *Store) Issue(_ context.Context, r *ticket.IssueRequest) (ticket.IssueAnswer, error) {
	if s.closed.Load() {
		return ticket.IssueAnswer{}, errClosed
	}
	if r.Epoch != s.epoch {
		return ticket.IssueAnswer{Result: ticket.IssueEpoch, Seen: s.seen()}, nil
	}
	t, now := s.locked(r.Subject)
	defer t.mu.Unlock()
	a, err := t.issue(r, now)
	if err == nil {
		a.Seen = s.seen()
	}
	return a, err
}

// Redeem implements ticket.Store.
func (s *Store) Redeem(_ context.Context, rs []ticket.RedeemRequest, as []ticket.RedeemAnswer) {
	closed := s.closed.Load()
	for i := range rs {
		r := &rs[i]
		switch {
		case closed:
			as[i] = ticket.RedeemAnswer{Result: ticket.RedeemUnsent}
		case r.Epoch != s.epoch:
			as[i] = ticket.RedeemAnswer{Result: ticket.RedeemEpoch, Seen: s.seen()}
		default:
			t, now := s.locked(r.Held.Subject)
			as[i] = t.redeem(r, now)
			t.mu.Unlock()
			as[i].Seen = s.seen()
		}
	}
}

// Assert implements ticket.Store.
func (s *Store) Assert(_ context.Context, rs []ticket.Assertion, as []ticket.AssertAnswer) {
	closed := s.closed.Load()
	for i := range rs {
		r := &rs[i]
		switch {
		case closed:
			as[i] = ticket.AssertAnswer{}
		case r.Epoch != s.epoch:
			as[i] = ticket.AssertAnswer{Seen: s.seen()}
		default:
			t, now := s.locked(r.Subject)
			t.settled(r.Subject, r.Spent, now)
			as[i] = ticket.AssertAnswer{OK: t.assert(&r.Held, now), Seen: s.seen()}
			t.mu.Unlock()
		}
	}
}

// Revoke implements ticket.Store.
func (s *Store) Revoke(_ context.Context, r *ticket.RevokeRequest) (bool, error) {
	if s.closed.Load() {
		return false, errClosed
	}
	t, now := s.locked(r.Subject)
	defer t.mu.Unlock()
	return t.revoke(r, now), nil
}

// Used implements ticket.Store.
func (s *Store) Used(_ context.Context, u ticket.Subject, dead []ticket.Incarnation) (uint32, error) {
	if s.closed.Load() {
		return 0, errClosed
	}
	t, _ := s.locked(u)
	defer t.mu.Unlock()
	if i := t.accounts.find(u); i != 0 {
		return t.accounts.used(t.accounts.rows.At(i), dead), nil
	}
	return 0, nil
}

// Renew implements ticket.Store.
func (s *Store) Renew(_ context.Context, r *ticket.RenewRequest) (ticket.View, error) {
	if s.closed.Load() {
		return ticket.View{}, errClosed
	}
	s.nodesLock.Lock()
	defer s.nodesLock.Unlock()
	now := s.wall.Add(s.clock.Now().Sub(s.start))
	return s.nodes.Renew(s.seen(), false, r, now)
}

// Close implements ticket.Store: every later call is ErrUnavailable, and nothing was started that would have to end.
func (s *Store) Close() error {
	s.closed.Store(true)
	return nil
}
