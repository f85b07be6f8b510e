package node_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"ticketgate/store/node"
	"ticketgate/ticket"
)

// on is what another node has registered.
func on(s ticket.Shard, e ticket.Epoch) []ticket.ShardEpoch {
	return []ticket.ShardEpoch{{Shard: s, Epoch: e}}
}

// TestIssueWaitsForAll: a slot of a shard is given away only when everybody who lives has told what he holds there.
func TestIssueWaitsForAll(t *testing.T) {
	for _, c := range []struct {
		name  string
		other func(epoch ticket.Epoch) ticket.RenewRequest
		open  bool
	}{
		{"registered the same", func(e ticket.Epoch) ticket.RenewRequest {
			return ticket.RenewRequest{Topology: 1, Registered: on(8192, e)}
		}, true},
		{"holds nothing there", func(ticket.Epoch) ticket.RenewRequest { return ticket.RenewRequest{Topology: 1} }, true},
		{"holds nothing at all, and sees other shards", func(ticket.Epoch) ticket.RenewRequest { return ticket.RenewRequest{Topology: 2} }, true},
		{"has not told", func(ticket.Epoch) ticket.RenewRequest {
			return ticket.RenewRequest{Topology: 1, Registered: on(8192, 0)}
		}, false},
		{"sees other shards", func(e ticket.Epoch) ticket.RenewRequest {
			return ticket.RenewRequest{Topology: 2, Registered: on(8192, e)}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubbleOf(t, split(1, 8192), nil, func(w *world) {
				w.node.Start(w.Context())
				r := c.other(w.node.Epoch(9000))
				r.Incarnation, r.Name, r.Enter = 9, "gw-2", true
				w.enter(r)
				w.pass(heartbeat)
				if c.open {
					w.tickets(9000, 1)
					return
				}
				w.wantClosed(9000)
				if r.Topology == 1 {
					w.tickets(1, 1) // the other shard
				}
				w.wantResults(<-w.batch(w.spare(9000)), ticket.RedeemOK) // what was issued before is good
				before := len(w.store.renewed())
				w.pass(2 * quick)
				if n := len(w.store.renewed()) - before; n < 2 || n > 4 {
					t.Errorf("%d renewals in %v while issue is closed", n, 2*quick)
				}
				r.Number, r.Topology, r.Registered = 2, 1, on(8192, w.node.Epoch(9000))
				w.enter(r)
				w.pass(quick)
				w.tickets(9000, 1)
			})
		})
	}
}

// spare puts a ticket of s into the store past the node.
func (w *world) spare(s ticket.Subject) ticket.RedeemRequest {
	w.Helper()
	r := ticket.IssueRequest{Ticket: ticket.Hash{7}, Subject: s, Limit: ticket.NoLimit, Outstanding: 9, Life: time.Hour, Grant: []byte("g"),
		Epoch: w.node.Epoch(s)}
	if a, err := w.shards.Issue(w.Context(), &r); err != nil || a.Result != ticket.IssueOK {
		w.Fatalf("issue: %+v, %v", a, err)
	}
	return ticket.RedeemRequest{Ticket: r.Ticket, Epoch: r.Epoch, Held: ticket.Held{Subject: s}}
}

// TestCrashedNodesSlots are free a lease after its last renewal, and not later by a heartbeat.
func TestCrashedNodesSlots(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		w.enter(ticket.RenewRequest{Incarnation: 9, Enter: true, Topology: 1, Registered: on(0, w.node.Epoch(1))})
		w.hold(9, 1, 1)
		if _, a, err := w.issue(1, 1); err != nil || a.Result != ticket.IssueFull {
			t.Fatalf("issue: %+v, %v", a, err)
		}
		w.pass(lease - time.Millisecond)
		if _, a, _ := w.issue(1, 1); a.Result != ticket.IssueFull {
			t.Fatalf("issue: %+v", a)
		}
		w.pass(500 * time.Millisecond)
		if _, a, err := w.issue(1, 1); err != nil || a.Result != ticket.IssueOK {
			t.Fatalf("issue after %v: %+v, %v", lease, a, err)
		}
	})
}

// hold has another incarnation hold slots.
func (w *world) hold(i ticket.Incarnation, s ticket.Subject, n uint32) {
	w.Helper()
	a := make([]ticket.AssertAnswer, 1)
	w.shards.Assert(w.Context(), []ticket.Assertion{{Epoch: w.node.Epoch(s), Held: ticket.Held{Subject: s, Incarnation: i, Count: n, Number: 1}}}, a)
	if !a[0].OK {
		w.Fatal("not asserted")
	}
}

// TestUnlisted: who is counted, and not in a list that was asked for after that, will never come back.
func TestUnlisted(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		w.hold(99, 1, 1)
		full := func(why string) {
			t.Helper()
			if _, a, err := w.issue(1, 1); err != nil || a.Result != ticket.IssueFull {
				t.Fatalf("%s: %+v, %v", why, a, err)
			}
			w.pass(2 * quick)
		}
		full("the list is young: entries may be missing")
		full("still young")
		w.pass(grace)
		if _, a, err := w.issue(1, 1); err != nil || a.Result != ticket.IssueOK {
			t.Fatalf("issue: %+v, %v", a, err)
		}
		if !slices.Contains(w.node.Dead(), 99) {
			t.Errorf("dead: %x", w.node.Dead())
		}
	})
}

// TestYoung: an empty store may have lost nodes that are cut off from it. Whoever knows that it is new says so, of the history that
// he sees first.
func TestYoung(t *testing.T) {
	for _, first := range []bool{false, true} {
		inBubbleOf(t, ticket.One, func(o *node.Options) { o.First = first }, func(w *world) {
			w.node.Start(w.Context())
			w.wantReady(nil)
			if first {
				w.tickets(1, 1)
				w.store.set(func() { w.store.Store = newShards(ticket.One) })
				w.enter(ticket.RenewRequest{Incarnation: 9, Enter: true})
				w.pass(heartbeat)
			}
			w.wantClosed(1)
			w.pass(lease - heartbeat)
			w.wantClosed(1)
			w.pass(3 * heartbeat)
			w.tickets(1, 1)
		})
	}
	inBubbleOf(t, ticket.One, func(o *node.Options) { o.First, o.Available = false, true }, func(w *world) {
		w.node.Start(w.Context())
		w.tickets(1, 1)
	})
}

// TestGrace: after a failover the list may lack nodes that hold slots.
func TestGrace(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		w.pass(grace) // it is not young any more
		w.shards.failover(0)
		w.pass(heartbeat)
		w.wantReady(nil)
		w.wantClosed(1)
		w.pass(grace)
		w.tickets(1, 1)
	})
}

// TestFormerEpoch: an old primary that goes on serving is not believed again.
func TestFormerEpoch(t *testing.T) {
	inBubbleOf(t, split(1, 8192), nil, func(w *world) {
		w.node.Start(w.Context())
		old := w.shards.failover(8192)
		w.pass(heartbeat)
		w.wantReady(nil)
		epoch := w.node.Epoch(9000)
		if epoch == old.Self.Epoch {
			t.Fatal("the new epoch was not noticed within a heartbeat")
		}
		w.shards.set(func() { w.shards.at[8192] = old })
		if _, a, err := w.issue(9000, 1); err != nil || a.Result != ticket.IssueEpoch {
			t.Fatalf("issue: %+v, %v", a, err)
		}
		w.pass(3 * heartbeat)
		if w.node.Epoch(9000) != epoch {
			t.Error("back to a former epoch")
		}
	})
}

// TestToldBeforeRegistered: under a new epoch the renewal names the old one until every count is acknowledged, also of the zeros.
func TestToldBeforeRegistered(t *testing.T) {
	inBubbleOf(t, split(1, 8192), nil, func(w *world) {
		w.node.Start(w.Context())
		w.wantResults(<-w.batch(w.tickets(9000, 2)...), ticket.RedeemOK)
		w.wantResults(<-w.batch(w.tickets(9001, 1)...), ticket.RedeemOK)
		w.counts.change(9001, -1)
		w.node.Touch(9001)
		w.pass(0)
		old := w.node.Epoch(9000)
		w.store.set(func() { w.store.deaf, w.store.asserts = true, nil })
		w.shards.failover(8192)
		w.pass(heartbeat)
		w.pass(quick)
		last := w.store.last().Registered
		if i := slices.IndexFunc(last, func(e ticket.ShardEpoch) bool { return e.Shard == 8192 }); i < 0 || last[i].Epoch != old {
			t.Errorf("registered while nothing is acknowledged: %v, want epoch %d", last, old)
		}
		w.store.set(func() { w.store.deaf = false })
		w.pass(heartbeat)
		w.wantReady(nil)
		got := map[ticket.Subject]uint32{}
		for _, a := range w.store.asserted() {
			got[a.Subject] = a.Count
		}
		if n, ok := got[9001]; !ok || n != 0 || got[9000] != 2 {
			t.Errorf("told %v, want the zero too", got)
		}
	})
}

// TestAdrift: who cannot tell a shard its counts for a lease keeps issue closed for all, and so gives his life up.
func TestAdrift(t *testing.T) {
	inBubbleOf(t, split(1, 8192), nil, func(w *world) {
		w.node.Start(w.Context())
		w.wantResults(<-w.batch(w.tickets(9000, 1)...), ticket.RedeemOK)
		w.store.set(func() { w.store.deaf = true })
		w.shards.failover(8192)
		w.pass(heartbeat)
		w.pass(lease - heartbeat)
		if w.lost.Load() != 0 {
			t.Fatal("given up early")
		}
		w.pass(heartbeat)
		if w.lost.Load() != 1 {
			t.Errorf("lost %d times", w.lost.Load())
		}
	})
}

// TestEnteredAgain: the list has lost us, and perhaps what it knew of our counts.
func TestEnteredAgain(t *testing.T) {
	inBubbleOf(t, split(1, 8192), nil, func(w *world) {
		w.node.Start(w.Context())
		w.wantResults(<-w.batch(w.tickets(9000, 1)...), ticket.RedeemOK)
		life := w.node.Incarnation()
		w.store.set(func() { w.store.deaf, w.store.asserts = true, nil })
		w.shards.set(func() { w.shards.at[0] = primary(0) })
		w.pass(heartbeat)
		w.pass(quick)
		w.wantReady(node.ErrNotRegistered)
		for _, e := range w.store.last().Registered {
			if e.Shard == 8192 && e.Epoch != 0 {
				t.Errorf("registered %v before it is told again", e)
			}
		}
		w.store.set(func() { w.store.deaf = false })
		w.pass(heartbeat)
		w.wantReady(nil)
		if w.node.Incarnation() != life || !slices.ContainsFunc(w.store.asserted(), func(a ticket.Assertion) bool { return a.Subject == 9000 }) {
			t.Errorf("life %x then %x, asserted %v", life, w.node.Incarnation(), w.store.asserted())
		}
	})
}

// TestTagsMove: who gains tags is told their subjects before anything is redeemed there.
func TestTagsMove(t *testing.T) {
	inBubbleOf(t, split(1, 8192), nil, func(w *world) {
		w.node.Start(w.Context())
		w.wantResults(<-w.batch(w.tickets(1000, 1)...), ticket.RedeemOK)
		w.store.set(func() { w.store.deaf = true })
		w.shards.set(func() {
			next := split(1, 8192)
			for tag := range uint16(2000) {
				next.Tags[tag] = 1
			}
			w.shards.top = next
		})
		w.pass(heartbeat)
		w.wantReady(node.ErrNotRegistered)
		w.wantClosed(1000)
		w.tickets(5000, 1) // what has not moved
		w.store.set(func() { w.store.deaf = false })
		w.pass(heartbeat)
		w.wantReady(nil)
		w.wantUsed(1000, 1)
		w.shards.set(func() { w.shards.top = split(2, 8192) })
		w.pass(heartbeat)
		w.wantReady(nil)
		if last := w.store.last(); last.Topology != 2 {
			t.Errorf("renewed under topology %d", last.Topology)
		}
	})
}

// TestAvailable: sockets outlive their lease, are told in the next life, and keep nobody from issuing meanwhile.
func TestAvailable(t *testing.T) {
	inBubbleOf(t, ticket.One, func(o *node.Options) { o.Available = true }, func(w *world) {
		w.node.Start(w.Context())
		w.wantResults(<-w.batch(w.tickets(1, 2)...), ticket.RedeemOK)
		w.store.set(func() { w.store.down = true })
		w.pass(lease)
		if got := w.node.Status().Excess; got != 2 {
			t.Errorf("excess of %d, want 2", got)
		}
		w.store.set(func() { w.store.down, w.store.deaf, w.store.renews = false, true, nil })
		w.pass(2 * quick)
		for _, r := range w.store.renewed() {
			if len(r.Registered) != 0 {
				t.Errorf("registered %v before it is told", r.Registered)
			}
		}
		w.store.set(func() { w.store.deaf = false })
		w.pass(heartbeat)
		w.wantReady(nil)
		w.wantUsed(1, 2)
		if got := w.node.Status().Excess; got != 0 {
			t.Errorf("excess of %d, want 0", got)
		}
	})
}

// TestStrictNewLife: what a former life leaves closes issue until it is told.
func TestStrictNewLife(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		w.wantResults(<-w.batch(w.tickets(1, 2)...), ticket.RedeemOK)
		w.store.set(func() { w.store.down = true })
		w.pass(lease)
		w.store.set(func() { w.store.down, w.store.deaf, w.store.renews = false, true, nil })
		w.pass(2 * quick)
		w.wantClosed(1)
		if last := w.store.last().Registered; !slices.Equal(last, on(0, 0)) {
			t.Errorf("registered %v, want shard 0 under no epoch", last)
		}
	})
}

// TestTell: whoever waits for a slot that was given back has it when Tell returns nil, and nothing else is.
func TestTell(t *testing.T) {
	inBubble(t, func(w *world) {
		if err := w.node.Tell(w.Context(), 1); !errors.Is(err, ticket.ErrUnavailable) {
			t.Errorf("before the node is entered: %v", err)
		}
		w.node.Start(w.Context())
		qs := w.tickets(1, 2)
		w.wantResults(<-w.batch(qs...), ticket.RedeemOK)
		w.counts.change(1, -1)
		w.wantUsed(1, 2)
		if err := w.node.Tell(w.Context(), 1); err != nil {
			t.Error(err)
		}
		w.wantUsed(1, 1)
		if err := w.node.Tell(w.Context(), 2); err != nil {
			t.Errorf("a subject that nobody has: %v", err)
		}
		w.counts.change(1, -1)
		w.store.set(func() { w.store.down = true })
		if err := w.node.Tell(w.Context(), 1); !errors.Is(err, ticket.ErrUnavailable) {
			t.Errorf("without an answer: %v", err)
		}
		w.pass(lease)
		before := len(w.store.asserted())
		w.store.set(func() { w.store.down = false })
		if err := w.node.Tell(w.Context(), 1); !errors.Is(err, ticket.ErrUnavailable) {
			t.Errorf("without a lease: %v", err)
		}
		if n := len(w.store.asserted()); n != before {
			t.Errorf("%d asserts of a life that is over", n-before)
		}
	})
}
