package node_test

import (
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
	"ticketgate/store/memory"
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
		all := slices.Collect(maps.Keys(c.of))
		c.mu.Unlock()
		for _, s := range all {
			if !yield(s) {
				return
			}
		}
	}
}

// fickle is a memory store behind a line that can be cut, be slow, and lead to another store.
type fickle struct {
	ticket.Store
	mu      sync.Mutex
	down    bool          // every call fails at once, without happening
	deaf    bool          // asserts fail after they happened
	lag     time.Duration // of redeems, after they happened
	slow    time.Duration // of renewals, before they happen
	redeems []int         // sizes of round trips
	asserts []ticket.Held
	renews  []ticket.RenewRequest
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

func (f *fickle) Issue(ctx context.Context, r *ticket.IssueRequest) (ticket.IssueAnswer, error) {
	s, down := f.state()
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

func (f *fickle) Assert(ctx context.Context, hs []ticket.Held) error {
	s, down := f.state()
	if down {
		return ticket.ErrUnavailable
	}
	err := s.Assert(ctx, hs)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asserts = append(f.asserts, hs...)
	if f.deaf {
		return ticket.ErrUnavailable
	}
	return err
}

func (f *fickle) Renew(ctx context.Context, r *ticket.RenewRequest) (ticket.View, error) {
	s, down := f.state()
	if down {
		return ticket.View{}, ticket.ErrUnavailable
	}
	var slow time.Duration
	f.set(func() { f.renews = append(f.renews, *r); slow = f.slow })
	if slow > 0 {
		<-time.After(slow)
	}
	return s.Renew(ctx, r)
}

// world is a node in a bubble.
type world struct {
	*testing.T
	clock  mono.Clock
	store  *fickle
	counts *counts
	node   *node.Node
	lost   atomic.Int32
}

func memoryStore(t *testing.T, clock mono.Clock) ticket.Store {
	s, err := memory.New(memory.Options{Clock: clock, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// inBubble runs test with a node that has not started, and closes it after.
func inBubble(t *testing.T, test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		test(w)
		if err := w.node.Close(context.Background()); err != nil && !errors.Is(err, ticket.ErrUnavailable) {
			t.Errorf("close: %v", err)
		}
	})
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, clock: bubbleClock{time.Now()}, counts: &counts{of: map[ticket.Subject]ticket.Held{}}}
	w.store = &fickle{Store: memoryStore(t, w.clock)}
	w.node = node.New(node.Options{
		Store: w.store, Name: "gw-1", Heartbeat: heartbeat, Lease: lease, Timeout: timeout, Clock: w.clock, Rand: rand.Reader,
		Counts: w.counts, Subjects: w.counts.subjects(), Former: []ticket.Incarnation{7}, OnLeaseLost: func() { w.lost.Add(1) },
	})
	return w
}

// pass lets d pass and everything due happen.
func (w *world) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// tickets issues n tickets of s.
func (w *world) tickets(s ticket.Subject, n int) []ticket.RedeemRequest {
	w.Helper()
	var out []ticket.RedeemRequest
	for range n {
		var h ticket.Hash
		if _, err := rand.Read(h[:]); err != nil {
			w.Fatal(err)
		}
		a, err := w.node.Store().Issue(w.Context(), &ticket.IssueRequest{Ticket: h, Subject: s, Limit: ticket.NoLimit,
			Outstanding: 1 << 20, Life: time.Hour, Grant: []byte("g"), Epoch: w.node.Epoch()})
		if err != nil || a.Result != ticket.IssueOK {
			w.Fatalf("issue: %+v, %v", a, err)
		}
		out = append(out, ticket.RedeemRequest{Ticket: h, Epoch: w.node.Epoch(), Held: ticket.Held{Subject: s}})
	}
	return out
}

// batch counts each redemption, as the engine does, and hands them over; the channel gives the batch back.
func (w *world) batch(qs ...ticket.RedeemRequest) <-chan *ticket.Batch {
	done := make(chan *ticket.Batch, 1)
	b := &ticket.Batch{Done: func(b *ticket.Batch) { done <- b }}
	for _, q := range qs {
		h := w.counts.change(q.Held.Subject, 1)
		q.Held.Count, q.Held.Number = h.Count, h.Number
		b.Reqs = append(b.Reqs, q)
	}
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
	store, _ := w.store.state()
	w.store.set(func() { w.store.Store = ignoresContext{store, timeout + 1} })
	for range 4 {
		w.batch(w.tickets(2, 1)...)
		synctest.Wait()
	}
}
