package node_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"ticketgate/internal/mono"
	"ticketgate/store/model"
	"ticketgate/store/node"
	"ticketgate/ticket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubbleClock is the clock of a synctest bubble.
type bubbleClock struct{ start time.Time }

func (c bubbleClock) Now() mono.Time  { return mono.Time(time.Since(c.start) + time.Second) }
func (c bubbleClock) Wall() time.Time { return time.Now() }

// counts stands in for limiter.Count.
type counts struct {
	mu sync.Mutex
	of map[ticket.Subject]ticket.Held
}

func (c *counts) Held(s ticket.Subject) (uint32, uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, ok := c.of[s]
	return h.Count, h.Number, ok
}

// change adds by to the count of s.
func (c *counts) change(s ticket.Subject, by int) ticket.Held {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.of[s]
	h.Subject, h.Count, h.Number = s, uint32(int(h.Count)+by), h.Number+1
	c.of[s] = h
	return h
}

func (c *counts) subjects() iter.Seq[ticket.Subject] {
	return func(yield func(ticket.Subject) bool) {
		c.mu.Lock()
		all := slices.Sorted(maps.Keys(c.of))
		c.mu.Unlock()
		for _, s := range all {
			if !yield(s) {
				return
			}
		}
	}
}

// shards is a store of several primaries of model, each with its epoch, behind lines that do not fail.
type shards struct {
	mu   sync.Mutex
	top  *ticket.Topology
	at   map[ticket.Shard]*model.Primary
	acks int // replicas that have what is written
}

var epochs atomic.Uint32

func primary(s ticket.Shard) *model.Primary {
	return &model.Primary{Self: ticket.ShardEpoch{Shard: s, Epoch: ticket.Epoch(epochs.Add(1))}, State: model.NewState()}
}

func newShards(top *ticket.Topology) *shards {
	s := &shards{top: top, at: map[ticket.Shard]*model.Primary{}, acks: 1}
	for _, name := range top.Shards {
		s.at[name] = primary(name)
	}
	return s
}

// split is two shards, each with half of the tags, the second of them from the given tag on.
func split(id uint64, second uint16) *ticket.Topology {
	t := &ticket.Topology{ID: id, Shards: []ticket.Shard{0, ticket.Shard(second)}, Tags: make([]uint16, ticket.Tags)}
	for tag := second; tag < ticket.Tags; tag++ {
		t.Tags[tag] = 1
	}
	return t
}

func (s *shards) Topology() *ticket.Topology {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.top
}

// of locks, and returns the primary that keeps u.
func (s *shards) of(u ticket.Subject) (*model.Primary, func()) {
	s.mu.Lock()
	return s.at[s.top.Of(u)], s.mu.Unlock
}

func (s *shards) Ask(_ context.Context, name ticket.Shard) (ticket.ShardEpoch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.at[name]
	if p == nil {
		return ticket.ShardEpoch{}, ticket.ErrUnavailable
	}
	return p.Self, nil
}

func (s *shards) Issue(_ context.Context, r *ticket.IssueRequest) (ticket.IssueAnswer, error) {
	p, unlock := s.of(r.Subject)
	defer unlock()
	return p.Issue(r, time.Now()), nil
}

func (s *shards) Redeem(_ context.Context, rs []ticket.RedeemRequest, as []ticket.RedeemAnswer) {
	for i := range rs {
		p, unlock := s.of(rs[i].Held.Subject)
		as[i] = p.Redeem(&rs[i], time.Now())
		unlock()
	}
}

func (s *shards) Assert(_ context.Context, rs []ticket.Assertion, as []ticket.AssertAnswer) {
	for i := range rs {
		p, unlock := s.of(rs[i].Subject)
		as[i] = p.Assert(&rs[i], time.Now())
		unlock()
	}
}

func (s *shards) Revoke(_ context.Context, r *ticket.RevokeRequest) (bool, error) {
	p, unlock := s.of(r.Subject)
	defer unlock()
	return p.Revoke(r, time.Now()), nil
}

func (s *shards) Used(_ context.Context, u ticket.Subject, dead []ticket.Incarnation) (uint32, error) {
	p, unlock := s.of(u)
	defer unlock()
	return p.Used(u, dead, time.Now()), nil
}

func (s *shards) Renew(_ context.Context, r *ticket.RenewRequest) (ticket.View, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.at[s.top.Shards[s.top.Nodes]].Renew(r, time.Now())
	v.Acks = min(s.acks, r.Replicas)
	return v, err
}

func (s *shards) Close() error { return nil }

// failover gives a shard another history, with all that was written, and returns the old primary.
func (s *shards) failover(name ticket.Shard) *model.Primary {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, p := s.at[name], primary(name)
	p.Self.Prev, p.State = old.Self.Epoch, old.State.Clone()
	s.at[name] = p
	return old
}

func (s *shards) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// fickle is a store behind a line that can be cut, be slow, and lead to another store.
type fickle struct {
	ticket.Store
	mu       sync.Mutex
	down     bool          // every call fails at once, without happening
	deaf     bool          // asserts get no answer after they happened
	lag      time.Duration // of redeems, after they happened
	slow     time.Duration // of renewals, before they happen
	deadline func()        // is called in each assert, after it happened
	redeems  []int         // sizes of round trips
	asserts  []ticket.Assertion
	batches  []int // sizes of asserts
	renews   []ticket.RenewRequest
	issues   []ticket.IssueRequest
}

func (f *fickle) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fickle) state() (ticket.Store, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Store, f.down
}

func (f *fickle) renewed() []ticket.RenewRequest { return read(f, &f.renews) }
func (f *fickle) asserted() []ticket.Assertion   { return read(f, &f.asserts) }
func (f *fickle) issued() []ticket.IssueRequest  { return read(f, &f.issues) }
func (f *fickle) redeemed() []int                { return read(f, &f.redeems) }
func (f *fickle) batched() []int                 { return read(f, &f.batches) }

// last is the latest renewal.
func (f *fickle) last() ticket.RenewRequest {
	all := f.renewed()
	return all[len(all)-1]
}

func read[T any](f *fickle, s *[]T) []T {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(*s)
}

func (f *fickle) Topology() *ticket.Topology {
	s, _ := f.state()
	return s.Topology()
}

func (f *fickle) Ask(ctx context.Context, name ticket.Shard) (ticket.ShardEpoch, error) {
	s, down := f.state()
	if down {
		return ticket.ShardEpoch{}, ticket.ErrUnavailable
	}
	return s.Ask(ctx, name)
}

func (f *fickle) Issue(ctx context.Context, r *ticket.IssueRequest) (ticket.IssueAnswer, error) {
	s, down := f.state()
	f.set(func() { f.issues = append(f.issues, *r) })
	if down {
		return ticket.IssueAnswer{}, ticket.ErrUnavailable
	}
	return s.Issue(ctx, r)
}

func (f *fickle) Redeem(ctx context.Context, rs []ticket.RedeemRequest, as []ticket.RedeemAnswer) {
	s, down := f.state()
	var lag time.Duration
	f.set(func() { f.redeems = append(f.redeems, len(rs)); lag = f.lag })
	if down {
		for i := range as {
			as[i] = ticket.RedeemAnswer{Result: ticket.RedeemDoubt}
		}
		return
	}
	s.Redeem(ctx, rs, as)
	if lag == 0 {
		return
	}
	select {
	case <-ctx.Done():
		for i := range as {
			as[i] = ticket.RedeemAnswer{Result: ticket.RedeemDoubt}
		}
	case <-time.After(lag):
	}
}

func (f *fickle) Assert(ctx context.Context, rs []ticket.Assertion, as []ticket.AssertAnswer) {
	s, down := f.state()
	if down {
		return
	}
	s.Assert(ctx, rs, as)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asserts = append(f.asserts, rs...)
	f.batches = append(f.batches, len(rs))
	if f.deaf {
		clear(as)
	}
	if f.deadline != nil {
		f.deadline()
	}
}

func (f *fickle) Renew(ctx context.Context, r *ticket.RenewRequest) (ticket.View, error) {
	s, down := f.state()
	var slow time.Duration
	f.set(func() { f.renews = append(f.renews, *r); slow = f.slow })
	if down {
		return ticket.View{}, ticket.ErrUnavailable
	}
	if slow > 0 {
		<-time.After(slow)
	}
	return s.Renew(ctx, r)
}

// world is a node in a bubble.
type world struct {
	*testing.T
	clock  mono.Clock
	shards *shards // behind store, at first
	store  *fickle
	counts *counts
	node   *node.Node
	lost   atomic.Int32
}

// inBubble runs test with a node that has not started, and closes it after.
func inBubble(t *testing.T, test func(w *world)) { inBubbleOf(t, ticket.One, nil, test) }

// inBubbleOf is inBubble with a store of several shards, and other options.
func inBubbleOf(t *testing.T, top *ticket.Topology, options func(*node.Options), test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, top, options)
		test(w)
		if err := w.node.Close(context.Background()); err != nil && w.node.Ready() == nil {
			t.Errorf("close: %v", err)
		}
	})
}

func newWorld(t *testing.T, top *ticket.Topology, options func(*node.Options)) *world {
	w := &world{T: t, clock: bubbleClock{time.Now()}, counts: &counts{of: map[ticket.Subject]ticket.Held{}}, shards: newShards(top)}
	w.store = &fickle{Store: w.shards}
	o := node.Options{
		Store: w.store, Name: "gw-1", Heartbeat: heartbeat, Lease: lease, Timeout: timeout, First: true, Clock: w.clock, Rand: rand.Reader,
		Counts: w.counts, Subjects: w.counts.subjects(), Former: []ticket.Incarnation{7}, OnLeaseLost: func() { w.lost.Add(1) },
	}
	if options != nil {
		options(&o)
	}
	w.node = node.New(o)
	return w
}

// pass lets d pass and everything due happen.
func (w *world) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// issue asks for a ticket of s.
func (w *world) issue(s ticket.Subject, limit uint32) (ticket.RedeemRequest, ticket.IssueAnswer, error) {
	var h ticket.Hash
	if _, err := rand.Read(h[:]); err != nil {
		w.Fatal(err)
	}
	r := ticket.IssueRequest{Ticket: h, Subject: s, Limit: limit, Outstanding: 1 << 20, Life: time.Hour, Grant: []byte("g"),
		Epoch: w.node.Epoch(s)}
	a, err := w.node.Issue(w.Context(), &r)
	return ticket.RedeemRequest{Ticket: h, Epoch: r.Epoch, Held: ticket.Held{Subject: s}}, a, err
}

// tickets issues n tickets of s.
func (w *world) tickets(s ticket.Subject, n int) []ticket.RedeemRequest {
	w.Helper()
	var out []ticket.RedeemRequest
	for range n {
		q, a, err := w.issue(s, ticket.NoLimit)
		if err != nil || a.Result != ticket.IssueOK {
			w.Fatalf("issue: %+v, %v", a, err)
		}
		out = append(out, q)
	}
	return out
}

// wantClosed wants issue to be closed for s.
func (w *world) wantClosed(s ticket.Subject) {
	w.Helper()
	before := len(w.store.issued())
	_, a, err := w.issue(s, ticket.NoLimit)
	if !errors.Is(err, node.ErrIssueClosed) || !errors.Is(err, ticket.ErrUnavailable) || len(w.store.issued()) != before {
		w.Fatalf("issue: %+v, %v, want %v", a, err, node.ErrIssueClosed)
	}
}

// enter puts another node into the list, or prolongs its lease.
func (w *world) enter(r ticket.RenewRequest) ticket.View {
	w.Helper()
	store, _ := w.store.state()
	r.Lease, r.Number = cmp.Or(r.Lease, lease), cmp.Or(r.Number, 1)
	v, err := store.Renew(w.Context(), &r)
	if err != nil || len(v.Old) > 0 {
		w.Fatalf("another node: %+v, %v", v, err)
	}
	return v
}

// count counts each redemption, as the engine does.
func (w *world) count(qs ...ticket.RedeemRequest) *ticket.Batch {
	b := &ticket.Batch{}
	for _, q := range qs {
		h := w.counts.change(q.Held.Subject, 1)
		q.Held.Count, q.Held.Number = h.Count, h.Number
		b.Reqs = append(b.Reqs, q)
	}
	return b
}

// batch hands qs over; the channel gives the batch back.
func (w *world) batch(qs ...ticket.RedeemRequest) <-chan *ticket.Batch {
	done := make(chan *ticket.Batch, 1)
	b := w.count(qs...)
	b.Done = func(b *ticket.Batch) { done <- b }
	w.node.Redeem(b)
	return done
}

func (w *world) wantResults(b *ticket.Batch, want ticket.RedeemResult) {
	w.Helper()
	if len(b.Answers) != len(b.Reqs) {
		w.Fatalf("%d answers to %d requests", len(b.Answers), len(b.Reqs))
	}
	for i, a := range b.Answers {
		if a.Result != want || (a.Grant != nil) != (want == ticket.RedeemOK) {
			w.Fatalf("answer %d: %d %q, want %d", i, a.Result, a.Grant, want)
		}
	}
}

func (w *world) wantReady(want error) {
	w.Helper()
	if err := w.node.Ready(); !errors.Is(err, want) {
		w.Fatalf("ready: %v, want %v", err, want)
	}
}

func (w *world) wantUsed(s ticket.Subject, want uint32) {
	w.Helper()
	store, _ := w.store.state()
	if got, err := store.Used(w.Context(), s, w.node.Dead()); err != nil || got != want {
		w.Fatalf("used: %d, %v, want %d", got, err, want)
	}
}

// keepSendersBusy leaves each sender with a store that does not answer in time.
func (w *world) keepSendersBusy() {
	var qs [4][]ticket.RedeemRequest
	for i := range qs {
		qs[i] = w.tickets(2, 1)
	}
	store, _ := w.store.state()
	w.store.set(func() { w.store.Store = ignoresContext{store, timeout + 1} })
	for i := range qs {
		w.batch(qs[i]...)
		synctest.Wait()
	}
}
