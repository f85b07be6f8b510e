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

const (
	heartbeat = 10 * time.Second
	lease     = 45 * time.Second
	timeout   = 200 * time.Millisecond
	usable    = lease - lease/500 - 2*time.Second
)

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

func TestRedeems(t *testing.T) {
	inBubble(t, func(w *world) {
		w.wantReady(node.ErrNotEntered)
		w.node.Start(w.Context())
		w.wantReady(nil)
		qs := w.tickets(1, 3)
		b := <-w.batch(qs...)
		w.wantResults(b, ticket.RedeemOK)
		if got := b.Reqs[0].Held.Incarnation; got != w.node.Incarnation() || got == 0 {
			t.Errorf("incarnation in the request: %x, of the node: %x", got, w.node.Incarnation())
		}
		w.wantUsed(1, 3)
		w.wantResults(<-w.batch(qs...), ticket.RedeemUnknown)
		if d := time.Until(w.node.StoreTime()); d.Abs() > time.Millisecond {
			t.Errorf("the store's time is %v away from a store in this process", d)
		}
	})
}

func TestLoopsShareRoundTrips(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		w.store.set(func() { w.store.lag = 50 * time.Millisecond })
		var waits []<-chan *ticket.Batch
		for range 4 { // one each for the senders, who are busy from then on
			waits = append(waits, w.batch(w.tickets(1, 1)...))
			synctest.Wait()
		}
		for _, n := range []int{100, 100, 56, 1, 300, 255} {
			waits = append(waits, w.batch(w.tickets(1, n)...))
		}
		for _, done := range waits {
			w.wantResults(<-done, ticket.RedeemOK)
		}
		slices.Sort(w.store.redeems)
		if want := []int{1, 1, 1, 1, 1, 255, 256, 300}; !slices.Equal(w.store.redeems, want) {
			t.Errorf("round trips of %v, want %v", w.store.redeems, want)
		}
	})
}

func TestUnsent(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(w *world)
	}{
		{"no lease", func(w *world) { w.store.set(func() { w.store.down = true }); w.pass(lease) }},
		{"all senders busy until the timeout", (*world).keepSendersBusy},
		{"closed", func(w *world) { _ = w.node.Close(w.Context()) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				w.node.Start(w.Context())
				qs := w.tickets(1, 2)
				c.spoil(w)
				done := make(chan *ticket.Batch, 1)
				before := len(w.store.redeems)
				w.node.Redeem(&ticket.Batch{Reqs: qs, Done: func(b *ticket.Batch) { done <- b }})
				w.wantResults(<-done, ticket.RedeemUnsent)
				if len(w.store.redeems) != before {
					t.Errorf("the store was asked: %v", w.store.redeems)
				}
			})
		})
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

func TestBoundInFlight(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		w.store.set(func() { w.store.lag = 100 * time.Millisecond })
		qs := w.tickets(1, 4096)
		first, second := w.batch(qs...), w.batch(w.tickets(2, 4096)...) // two senders: which is first is open
		synctest.Wait()
		over := w.batch(qs[0])
		synctest.Wait()
		select {
		case b := <-over:
			w.wantResults(b, ticket.RedeemUnsent)
		default:
			t.Fatal("8,193 redemptions are under way")
		}
		w.wantResults(<-first, ticket.RedeemOK)
		w.wantResults(<-second, ticket.RedeemOK)
		w.wantResults(<-w.batch(qs[0]), ticket.RedeemUnknown) // room again
	})
}

// TestAnswerInDoubt: an ok that cannot be trusted opens nothing, and the count is put right.
func TestAnswerInDoubt(t *testing.T) {
	t.Run("after the timeout", func(t *testing.T) {
		inBubble(t, func(w *world) {
			w.node.Start(w.Context())
			qs := w.tickets(1, 2)
			w.store.set(func() { w.store.lag = 201 * time.Millisecond })
			start := time.Now()
			b := <-w.batch(qs...)
			if took := time.Since(start); took != timeout {
				t.Errorf("answered after %v, want %v", took, timeout)
			}
			w.wantResults(b, ticket.RedeemDoubt)
			w.wantUsed(1, 2) // spent: the store counts them
			w.pass(0)
			if len(w.store.asserts) == 0 {
				t.Errorf("nothing was asserted after a doubt")
			}
			w.counts.change(1, -1)
			w.counts.change(1, -1)
			w.node.Touch(1)
			w.pass(0)
			w.wantUsed(1, 0)
		})
	})
	t.Run("answered late all the same", func(t *testing.T) {
		inBubble(t, func(w *world) {
			w.node.Start(w.Context())
			qs := w.tickets(1, 1)
			w.store.set(func() { w.store.Store = ignoresContext{w.store.Store, timeout + 1} })
			w.wantResults(<-w.batch(qs...), ticket.RedeemDoubt)
		})
	})
	t.Run("slow but in time is no doubt", func(t *testing.T) {
		inBubble(t, func(w *world) {
			w.node.Start(w.Context())
			qs := w.tickets(1, 1)
			w.store.set(func() { w.store.lag = timeout - 1 })
			w.wantResults(<-w.batch(qs...), ticket.RedeemOK)
		})
	})
	t.Run("another life meanwhile", func(t *testing.T) {
		inBubble(t, func(w *world) {
			w.node.Start(w.Context())
			qs := w.tickets(1, 1)
			w.store.set(func() { w.store.lag = 100 * time.Millisecond })
			done := w.batch(qs...)
			synctest.Wait()
			store, _ := w.store.state()
			buried := ticket.RenewRequest{Incarnation: 9, Lease: lease, Former: []ticket.Incarnation{w.node.Incarnation()}}
			if _, err := store.Renew(w.Context(), &buried); err != nil {
				t.Fatal(err)
			}
			w.node.Learn(w.Context())
			w.wantReady(nil) // the new life is able to redeem: what is in doubt is the old one's answer
			w.wantResults(<-done, ticket.RedeemDoubt)
		})
	})
	t.Run("another epoch meanwhile", func(t *testing.T) {
		inBubble(t, func(w *world) {
			w.node.Start(w.Context())
			qs := w.tickets(1, 1)
			w.store.set(func() { w.store.lag = 100 * time.Millisecond })
			done := w.batch(qs...)
			synctest.Wait()
			w.store.set(func() { w.store.Store = memoryStore(t, w.clock) })
			w.node.Learn(w.Context())
			w.wantResults(<-done, ticket.RedeemDoubt)
		})
	})
}

// ignoresContext answers redeems after lag, whatever the deadline.
type ignoresContext struct {
	ticket.Store
	lag time.Duration
}

func (s ignoresContext) Redeem(ctx context.Context, rs []ticket.RedeemRequest, as []ticket.RedeemAnswer) {
	s.Store.Redeem(ctx, rs, as)
	<-time.After(s.lag)
}

// TestLifeOverWhileAsked: the answer arrives in another life, or after the end of the lease by our clock.
func TestLifeOverWhileAsked(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		qs := w.tickets(1, 1)
		w.store.set(func() { w.store.down = true })
		w.pass(usable - 50*time.Millisecond)
		w.wantReady(node.ErrStoreAway)
		if w.lost.Load() != 0 {
			t.Fatal("the lease ended early")
		}
		store, _ := w.store.state()
		w.store.set(func() {
			w.store.Store = redeemsOnly{ignoresContext{store, 100 * time.Millisecond}}
			w.store.down = false
		})
		b := <-w.batch(qs...)
		w.wantResults(b, ticket.RedeemDoubt)
		if w.lost.Load() != 1 {
			t.Fatalf("lease lost %d times, want once", w.lost.Load())
		}
	})
}

// redeemsOnly is a line over which nothing but redeems pass.
type redeemsOnly struct{ ticket.Store }

func (redeemsOnly) Renew(context.Context, *ticket.RenewRequest) (ticket.View, error) {
	return ticket.View{}, ticket.ErrUnavailable
}

func TestOutageShorterThanTheLease(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		life := w.node.Incarnation()
		w.store.set(func() { w.store.down = true })
		w.pass(heartbeat + 500*time.Millisecond)
		w.wantReady(node.ErrStoreAway)
		w.pass(30*time.Second - heartbeat)
		if !w.node.Leased(w.clock.Now()) || w.lost.Load() != 0 || w.node.Incarnation() != life {
			t.Fatal("the lease did not outlast 30 s without the store")
		}
		w.store.set(func() { w.store.down = false })
		w.pass(250 * time.Millisecond)
		w.wantReady(nil)
		if w.node.Incarnation() != life {
			t.Error("another incarnation after a short outage")
		}
	})
}

func TestLeaseLost(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		w.counts.change(5, 3)
		life := w.node.Incarnation()
		w.store.set(func() { w.store.down = true })
		w.pass(usable - time.Millisecond)
		if w.lost.Load() != 0 || !w.node.Leased(w.clock.Now()) {
			t.Fatal("the lease ended early")
		}
		w.pass(time.Millisecond)
		if w.lost.Load() != 1 || w.node.Leased(w.clock.Now()) {
			t.Fatalf("at the end of the lease: lost %d times", w.lost.Load())
		}
		w.pass(time.Minute)
		if w.lost.Load() != 1 {
			t.Fatalf("one lease was lost %d times", w.lost.Load())
		}
		w.store.set(func() { w.store.down = false })
		w.pass(250 * time.Millisecond)
		w.wantReady(nil)
		if w.node.Incarnation() == life || !slices.Contains(w.node.Dead(), life) {
			t.Errorf("life %x after %x, dead %x", w.node.Incarnation(), life, w.node.Dead())
		}
		w.wantUsed(5, 3) // what is still open counts under the new life
	})
}

// TestLeaseCountsFromTheSending: the store may have counted from the moment it was asked.
func TestLeaseCountsFromTheSending(t *testing.T) {
	inBubble(t, func(w *world) {
		w.store.set(func() { w.store.slow = 150 * time.Millisecond })
		sent := w.clock.Now()
		w.node.Start(w.Context())
		if w.node.Leased(sent.Add(usable)) || !w.node.Leased(sent.Add(usable-1)) {
			t.Errorf("the lease does not end %v after the renewal was sent", usable)
		}
	})
}

// TestStoreBuriesUs: the store's word counts even while our clock says that the lease holds.
func TestStoreBuriesUs(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		life := w.node.Incarnation()
		store, _ := w.store.state()
		if _, err := store.Renew(w.Context(), &ticket.RenewRequest{Incarnation: 9, Lease: lease, Former: []ticket.Incarnation{life}}); err != nil {
			t.Fatal(err)
		}
		w.pass(heartbeat)
		if w.lost.Load() != 1 || w.node.Incarnation() == life {
			t.Fatalf("lost %d times, life %x then %x", w.lost.Load(), life, w.node.Incarnation())
		}
		w.wantReady(nil)
	})
}

func TestNameGivenUpAfterALease(t *testing.T) {
	inBubble(t, func(w *world) {
		w.store.set(func() { w.store.down = true })
		w.node.Start(w.Context())
		first := w.node.Incarnation()
		w.pass(lease - time.Second)
		if first == 0 || w.node.Incarnation() != first {
			t.Fatalf("incarnation %x, then %x", first, w.node.Incarnation())
		}
		w.pass(2 * time.Second)
		if w.node.Incarnation() == first {
			t.Error("still the name that the store may have buried")
		}
		if w.lost.Load() != 0 {
			t.Error("a lease that was never had was lost")
		}
	})
}

func TestFormerLivesAreNamedOnEntry(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		w.pass(heartbeat)
		if len(w.store.renews) != 2 || !slices.Equal(w.store.renews[0].Former, []ticket.Incarnation{7}) || w.store.renews[1].Former != nil {
			t.Errorf("renewals: %+v", w.store.renews)
		}
		if !slices.Equal(w.node.Dead(), []ticket.Incarnation{7}) {
			t.Errorf("dead: %x", w.node.Dead())
		}
	})
}

// TestAssertedUntilUnderstood: without an acknowledgement the count goes again at each heartbeat, and is read again then.
func TestAssertedUntilUnderstood(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		w.store.set(func() { w.store.deaf = true })
		w.counts.change(1, 2)
		w.node.Touch(1)
		w.pass(0)
		w.counts.change(1, 1) // nobody touches: the heartbeat finds it
		w.pass(heartbeat)
		w.store.set(func() { w.store.deaf = false })
		w.pass(heartbeat)
		w.pass(heartbeat)
		var got []uint32
		for _, h := range w.store.asserts {
			got = append(got, h.Count)
		}
		if want := []uint32{2, 3, 3}; !slices.Equal(got, want) { // at once, and two heartbeats, the last understood
			t.Errorf("asserted %v, want %v", got, want)
		}
		w.wantUsed(1, 3)
	})
}

// TestChangedWhileAsserted: an acknowledgement of an older reading is not the end.
func TestChangedWhileAsserted(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		store, _ := w.store.state()
		changes := &changesWhile{Store: store, counts: w.counts}
		w.store.set(func() { w.store.Store = changes })
		w.counts.change(1, 5)
		w.node.Touch(1)
		w.pass(0)
		w.wantUsed(1, 5)
		w.pass(heartbeat)
		w.wantUsed(1, 4)
		w.pass(heartbeat)
		if len(w.store.asserts) != 2 {
			t.Errorf("asserted %d times, want 2", len(w.store.asserts))
		}
	})
}

// changesWhile lets a socket close while the first assert is on its way.
type changesWhile struct {
	ticket.Store
	counts *counts
	once   sync.Once
}

func (c *changesWhile) Assert(ctx context.Context, hs []ticket.Held) error {
	c.once.Do(func() { c.counts.change(1, -1) })
	return c.Store.Assert(ctx, hs)
}

func TestManyTouches(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		for s := range ticket.Subject(1000) {
			w.counts.change(s, 1)
			w.node.Touch(s)
			w.node.Touch(s)
		}
		w.node.Touch(5000) // nothing is known of it
		w.pass(0)
		for s := range ticket.Subject(1000) {
			w.wantUsed(s, 1)
		}
		w.wantUsed(5000, 0)
	})
}

// TestStoreForgets: a store of another epoch is told all counts before a ticket of it is made.
func TestStoreForgets(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		for s := range ticket.Subject(300) {
			w.counts.change(s, 2)
		}
		old := w.node.Epoch()
		w.store.set(func() { w.store.Store = memoryStore(t, w.clock); w.store.deaf = true })
		a, err := w.node.Store().Issue(w.Context(), &ticket.IssueRequest{Ticket: ticket.Hash{1}, Limit: 9, Outstanding: 9, Life: time.Hour, Epoch: old})
		if err != nil || a.Result != ticket.IssueEpoch {
			t.Fatalf("issue: %+v, %v", a, err)
		}
		if w.node.Epoch() != old {
			t.Fatal("the new epoch is used before the counts are known to have arrived")
		}
		w.wantReady(node.ErrNotRegistered)
		w.store.set(func() { w.store.deaf = false })
		w.pass(250 * time.Millisecond)
		w.wantReady(nil)
		if w.node.Epoch() == old {
			t.Fatal("the epoch was not learned")
		}
		for s := range ticket.Subject(300) {
			w.wantUsed(s, 2)
		}
		w.wantResults(<-w.batch(w.tickets(1, 1)...), ticket.RedeemOK)
	})
}

func TestIssueLearnsTheEpoch(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		old := w.node.Epoch()
		w.store.set(func() { w.store.Store = memoryStore(t, w.clock) })
		r := &ticket.IssueRequest{Ticket: ticket.Hash{1}, Limit: 9, Outstanding: 9, Life: time.Hour, Epoch: old}
		if a, err := w.node.Store().Issue(w.Context(), r); err != nil || a.Result != ticket.IssueEpoch {
			t.Fatalf("issue: %+v, %v", a, err)
		}
		if r.Epoch = w.node.Epoch(); r.Epoch == old {
			t.Fatal("the epoch was not learned before the answer")
		}
		if a, err := w.node.Store().Issue(w.Context(), r); err != nil || a.Result != ticket.IssueOK {
			t.Fatalf("issue under the new epoch: %+v, %v", a, err)
		}
	})
}

func TestCloseTellsWhatWasReleased(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		w.wantResults(<-w.batch(w.tickets(1, 1)...), ticket.RedeemOK)
		w.store.set(func() { w.store.down = true })
		w.counts.change(1, -1)
		w.node.Touch(1)
		w.pass(0)
		w.store.set(func() { w.store.down = false })
		if err := w.node.Close(w.Context()); err != nil {
			t.Fatal(err)
		}
		w.wantUsed(1, 0)
	})
}

func TestBrokenRandomSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		n := node.New(node.Options{Store: w.store, Heartbeat: heartbeat, Lease: lease, Timeout: timeout, Clock: w.clock,
			Rand: brokenRandom{}, Counts: w.counts, Subjects: w.counts.subjects()})
		n.Start(t.Context())
		w.pass(time.Second)
		if err := n.Ready(); err == nil || n.Incarnation() != 0 {
			t.Errorf("ready: %v, incarnation %x", err, n.Incarnation())
		}
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

type brokenRandom struct{}

func (brokenRandom) Read([]byte) (int, error) { return 0, errors.New("broken") }

// nearStore is fickle as a store in this process.
type nearStore struct{ *fickle }

func (nearStore) Near() {}

// TestRedeemNow: a store in this process answers on the spot, with all that is checked otherwise; another does not.
func TestRedeemNow(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		b := &ticket.Batch{Reqs: w.tickets(1, 1)}
		if w.node.RedeemNow(b) || len(w.store.redeems) != 0 {
			t.Error("a store that may be far away was asked")
		}
	})
	near := func(t *testing.T, test func(w *world, now func(qs ...ticket.RedeemRequest) *ticket.Batch)) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.node = node.New(node.Options{Store: nearStore{w.store}, Name: "gw-1", Heartbeat: heartbeat, Lease: lease, Timeout: timeout,
				Clock: w.clock, Rand: rand.Reader, Counts: w.counts, Subjects: w.counts.subjects()})
			test(w, func(qs ...ticket.RedeemRequest) *ticket.Batch {
				b := &ticket.Batch{Reqs: qs, Done: func(*ticket.Batch) { t.Error("Done was called") }}
				if !w.node.RedeemNow(b) {
					t.Fatal("not answered")
				}
				return b
			})
			if err := w.node.Close(context.Background()); err != nil {
				t.Error(err)
			}
			if w.node.RedeemNow(&ticket.Batch{}) {
				t.Error("answered after Close")
			}
		})
	}
	near(t, func(w *world, now func(qs ...ticket.RedeemRequest) *ticket.Batch) {
		w.wantResults(now(ticket.RedeemRequest{Held: ticket.Held{Subject: 1}}), ticket.RedeemUnsent) // not entered
		w.node.Start(w.Context())
		qs := w.tickets(1, 3)
		b := now(qs...)
		w.wantResults(b, ticket.RedeemOK)
		if got := b.Reqs[0].Held.Incarnation; got != w.node.Incarnation() || got == 0 {
			t.Errorf("incarnation in the request: %x, of the node: %x", got, w.node.Incarnation())
		}
		w.wantResults(now(qs...), ticket.RedeemUnknown)
		late := w.tickets(1, 1)
		w.store.set(func() { w.store.lag = timeout + 1 })
		w.wantResults(now(late...), ticket.RedeemDoubt)
	})
}
