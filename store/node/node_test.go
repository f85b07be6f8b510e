package node_test

import (
	"context"
	"errors"
	"slices"
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
	grace     = lease + 5*time.Second
	quick     = 700 * time.Millisecond // within it a failed renewal is repeated, and a closed issue looked at
)

// redeemsOnly is a line over which nothing but redeems pass.
type redeemsOnly struct{ ticket.Store }

func (redeemsOnly) Renew(context.Context, *ticket.RenewRequest) (ticket.View, error) {
	return ticket.View{}, ticket.ErrUnavailable
}

func TestOutageShorterThanTheLease(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		life, generation := w.node.Incarnation(), w.node.Life(w.clock.Now())
		w.store.set(func() { w.store.down = true })
		w.pass(heartbeat + 2*quick)
		w.wantReady(node.ErrStoreAway)
		w.pass(30*time.Second - heartbeat)
		if w.node.Life(w.clock.Now()) != generation || generation == 0 || w.lost.Load() != 0 || w.node.Incarnation() != life {
			t.Fatal("the lease did not outlast 30 s without the store")
		}
		w.store.set(func() { w.store.down = false })
		w.pass(quick)
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
		life, generation := w.node.Incarnation(), w.node.Life(w.clock.Now())
		w.store.set(func() { w.store.down = true })
		w.pass(usable - time.Millisecond)
		if w.lost.Load() != 0 || w.node.Life(w.clock.Now()) != generation {
			t.Fatal("the lease ended early")
		}
		if w.node.Life(w.clock.Now().Add(time.Millisecond)) != 0 {
			t.Fatal("a loop that asks before the node's own timer is told that the lease holds")
		}
		w.pass(time.Millisecond)
		if w.lost.Load() != 1 || w.node.Life(w.clock.Now()) != 0 {
			t.Fatalf("at the end of the lease: lost %d times", w.lost.Load())
		}
		if s := w.node.Status(); s.Lease != 0 || s.Excess != 3 || s.Closed == nil {
			t.Errorf("status without a lease: %+v", s)
		}
		w.pass(time.Minute)
		if w.lost.Load() != 1 {
			t.Fatalf("one lease was lost %d times", w.lost.Load())
		}
		w.store.set(func() { w.store.down = false })
		w.pass(2 * quick)
		w.wantReady(nil)
		if w.node.Incarnation() == life || !slices.Contains(w.node.Dead(), life) {
			t.Errorf("life %x after %x, dead %x", w.node.Incarnation(), life, w.node.Dead())
		}
		if g := w.node.Life(w.clock.Now()); g <= generation {
			t.Errorf("generation %d after %d", g, generation)
		}
		if s := w.node.Status(); s.Excess != 0 || s.Closed != nil {
			t.Errorf("status with all told: %+v", s)
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
		w.store.set(func() { w.store.down = true })
		last := sent
		if len(w.store.renewed()) > 1 { // the epoch was registered by a second one
			last = sent.Add(150 * time.Millisecond)
		}
		if w.node.Life(last.Add(usable)) != 0 || w.node.Life(last.Add(usable-1)) == 0 {
			t.Errorf("the lease does not end %v after the renewal was sent", usable)
		}
	})
}

// TestStoreBuriesUs: the store's word counts even while our clock says that the lease holds.
func TestStoreBuriesUs(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		life := w.node.Incarnation()
		w.enter(ticket.RenewRequest{Incarnation: 9, Enter: true, Former: []ticket.Incarnation{life}})
		w.pass(heartbeat)
		if w.lost.Load() != 1 || w.node.Incarnation() == life {
			t.Fatalf("lost %d times, life %x then %x", w.lost.Load(), life, w.node.Incarnation())
		}
		w.pass(quick)
		w.wantReady(nil)
	})
}

func TestNameGivenUpAfterALease(t *testing.T) {
	inBubble(t, func(w *world) {
		w.store.set(func() { w.store.down = true })
		w.node.Start(w.Context())
		first := w.node.Incarnation()
		w.pass(usable - time.Second)
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
		for i, r := range w.store.renewed() {
			if first := i == 0; slices.Equal(r.Former, []ticket.Incarnation{7}) != first || r.Enter != first {
				t.Errorf("renewal %d: %+v", i, r)
			}
			if r.Number != uint64(i+1) || r.Acked != uint64(i) {
				t.Errorf("renewal %d has number %d, acknowledged %d", i, r.Number, r.Acked)
			}
		}
		if !slices.Equal(w.node.Dead(), []ticket.Incarnation{7}) {
			t.Errorf("dead: %x", w.node.Dead())
		}
	})
}

// TestLeaves: a node that is closed is dead at once for the others; nobody waits for the end of its lease.
func TestLeaves(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		life := w.node.Incarnation()
		if err := w.node.Close(w.Context()); err != nil {
			t.Fatal(err)
		}
		v := w.enter(ticket.RenewRequest{Incarnation: 9, Enter: true})
		if i := slices.IndexFunc(v.Nodes, func(n ticket.NodeView) bool { return n.Incarnation == life }); i < 0 || !v.Nodes[i].Dead {
			t.Errorf("after the close the list has %+v", v.Nodes)
		}
	})
}

// TestWrittenDownFirst: the store hears of no incarnation that the state directory has not got.
func TestWrittenDownFirst(t *testing.T) {
	var w *world
	broken := errors.New("disk full")
	var written []ticket.Incarnation
	inBubbleOf(t, ticket.One, func(o *node.Options) {
		o.OnLife = func(i ticket.Incarnation) error {
			w.store.mu.Lock()
			defer w.store.mu.Unlock()
			if len(w.store.renews) > 0 {
				t.Error("the store knows it already")
			}
			written = append(written, i)
			return broken
		}
	}, func(world *world) {
		w = world
		w.node.Start(w.Context())
		w.pass(3 * quick)
		if len(written) == 0 || len(w.store.renewed()) != 0 || !errors.Is(w.node.Status().Why, broken) {
			t.Errorf("written %x, sent %v, status %+v", written, w.store.renewed(), w.node.Status())
		}
		w.store.set(func() { broken = nil })
		w.pass(quick)
		w.wantReady(nil)
		if last := written[len(written)-1]; last != w.node.Incarnation() {
			t.Errorf("written %x, lives as %x", last, w.node.Incarnation())
		}
	})
}

// TestNotBelieved: without its replicas a primary may have been replaced, and its word is none.
func TestNotBelieved(t *testing.T) {
	inBubbleOf(t, ticket.One, func(o *node.Options) { o.Replicas = 1 }, func(w *world) {
		w.node.Start(w.Context())
		w.wantReady(nil)
		w.shards.set(func() { w.shards.acks = 0 })
		w.pass(usable)
		if w.lost.Load() != 1 {
			t.Fatalf("lost %d times", w.lost.Load())
		}
		w.shards.set(func() { w.shards.acks = 1 })
		w.pass(2 * quick)
		w.wantReady(nil)
	})
}

// TestAssertedUntilUnderstood: without an acknowledgement the count goes again, at growing distances, and is read again then.
func TestAssertedUntilUnderstood(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		w.store.set(func() { w.store.deaf = true })
		w.counts.change(1, 2)
		w.node.Touch(1)
		w.pass(0)
		w.counts.change(1, 1) // nobody touches: the repetition finds it
		w.pass(500 * time.Millisecond)
		w.pass(900 * time.Millisecond)
		w.store.set(func() { w.store.deaf = false })
		w.pass(2 * heartbeat)
		var got []uint32
		for _, h := range w.store.asserted() {
			got = append(got, h.Count)
		}
		if want := []uint32{2, 3, 3, 3}; !slices.Equal(got, want) { // at once, after 0.4, 0.8 and 1.6 s
			t.Errorf("asserted %v, want %v", got, want)
		}
		w.wantUsed(1, 3)
	})
}

// TestChangedWhileAsserted: an acknowledgement of an older reading is not the end.
func TestChangedWhileAsserted(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		once := true
		w.store.set(func() {
			w.store.deadline = func() {
				if once {
					w.counts.change(1, -1)
				}
				once = false
			}
		})
		w.counts.change(1, 5)
		w.node.Touch(1)
		w.pass(0)
		w.wantUsed(1, 4)
		if len(w.store.asserted()) != 2 {
			t.Errorf("asserted %d times, want 2", len(w.store.asserted()))
		}
	})
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
		if slices.Max(w.store.batched()) > 256 {
			t.Errorf("batches of %v", w.store.batched())
		}
	})
}

// TestStoreForgets: a store that lost everything is told all counts before a ticket is redeemed, and issue stays closed for a
// grace, because other nodes may hold slots in it.
func TestStoreForgets(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		for s := range ticket.Subject(300) {
			w.counts.change(s, 2)
		}
		old, life := w.node.Epoch(1), w.node.Incarnation()
		w.store.set(func() { w.store.Store = newShards(ticket.One); w.store.deaf = true })
		_, a, err := w.issue(1, ticket.NoLimit)
		if err != nil || a.Result != ticket.IssueEpoch {
			t.Fatalf("issue: %+v, %v", a, err)
		}
		if w.node.Epoch(1) == old {
			t.Fatal("tickets of the former epoch are still good")
		}
		w.wantReady(node.ErrNotRegistered)
		w.store.set(func() { w.store.deaf = false })
		w.pass(2 * time.Second)
		w.wantReady(nil)
		for s := range ticket.Subject(300) {
			w.wantUsed(s, 2)
		}
		w.wantClosed(1)
		if s := w.node.Status(); !s.Grace || s.Closed == nil {
			t.Errorf("status: %+v", s)
		}
		w.pass(grace)
		if w.node.Incarnation() != life || w.lost.Load() != 0 {
			t.Errorf("life %x, then %x", life, w.node.Incarnation())
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

func TestCloseWithoutAStore(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		w.counts.change(1, 1)
		w.node.Touch(1)
		w.store.set(func() { w.store.down = true })
		if err := w.node.Close(w.Context()); err == nil {
			t.Error("nothing is said of the slot that stays taken")
		}
		w.node.Start(w.Context()) // returns
	})
}

func TestBrokenRandomSource(t *testing.T) {
	inBubbleOf(t, ticket.One, func(o *node.Options) { o.Rand = brokenRandom{} }, func(w *world) {
		w.node.Start(w.Context())
		w.pass(time.Second)
		if err := w.node.Ready(); err == nil || w.node.Incarnation() != 0 || len(w.store.renewed()) > 0 {
			t.Errorf("ready: %v, incarnation %x", err, w.node.Incarnation())
		}
	})
}

type brokenRandom struct{}

func (brokenRandom) Read([]byte) (int, error) { return 0, errors.New("broken") }

// TestLifeCosts: each loop asks at each callback.
func TestLifeCosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, split(1, 8192), nil)
		w.node.Start(w.Context())
		now, epoch := w.clock.Now(), w.node.Epoch(9000)
		if epoch == 0 || w.node.Life(now) != 1 {
			t.Errorf("epoch %d, life %d", epoch, w.node.Life(now))
		}
		var _ ticket.Epochs = w.node
		if n := testing.AllocsPerRun(100, func() { w.node.Life(now); w.node.Epoch(9000); w.node.Epoch(1) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
		if err := w.node.Close(w.Context()); err != nil {
			t.Error(err)
		}
	})
}
