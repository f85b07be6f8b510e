package node_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ticketgate/store/node"
	"ticketgate/ticket"
)

const (
	heartbeat = 10 * time.Second
	lease     = 45 * time.Second
	timeout   = 200 * time.Millisecond
	usable    = lease - lease/500 - 2*time.Second
)

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
