package node_test

import (
	"context"
	"crypto/rand"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"ticketgate/store/node"
	"ticketgate/ticket"
)

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
		got := w.store.redeemed()
		slices.Sort(got)
		if want := []int{1, 1, 1, 1, 1, 255, 256, 300}; !slices.Equal(got, want) {
			t.Errorf("round trips of %v, want %v", got, want)
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
				before := len(w.store.redeemed())
				w.node.Redeem(&ticket.Batch{Reqs: qs, Done: func(b *ticket.Batch) { done <- b }})
				w.wantResults(<-done, ticket.RedeemUnsent)
				if len(w.store.redeemed()) != before {
					t.Errorf("the store was asked: %v", w.store.redeemed())
				}
			})
		})
	}
}

func TestBoundInFlight(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		w.store.set(func() { w.store.lag = 100 * time.Millisecond })
		var qs [2][]ticket.RedeemRequest
		for i := range ticket.Subject(4096) { // many subjects: the model is slow with a large one
			qs[0], qs[1] = append(qs[0], w.tickets(i, 1)...), append(qs[1], w.tickets(i, 1)...)
		}
		first, second := w.batch(qs[0]...), w.batch(qs[1]...) // two senders: which is first is open
		synctest.Wait()
		over := w.batch(qs[0][0])
		synctest.Wait()
		select {
		case b := <-over:
			w.wantResults(b, ticket.RedeemUnsent)
		default:
			t.Fatal("8,193 redemptions are under way")
		}
		w.wantResults(<-first, ticket.RedeemOK)
		w.wantResults(<-second, ticket.RedeemOK)
		w.wantResults(<-w.batch(qs[0][0]), ticket.RedeemUnknown) // room again
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
			if len(w.store.asserted()) == 0 {
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
			w.pass(heartbeat - 50*time.Millisecond)
			w.store.set(func() { w.store.lag = 100 * time.Millisecond })
			done := w.batch(qs...)
			synctest.Wait()
			w.enter(ticket.RenewRequest{Incarnation: 9, Enter: true, Former: []ticket.Incarnation{w.node.Incarnation()}})
			w.pass(60 * time.Millisecond) // the heartbeat
			if w.lost.Load() != 1 {
				t.Fatal("the life has not ended")
			}
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
			w.shards.failover(0)
			if _, a, err := w.issue(1, ticket.NoLimit); err != nil || a.Result != ticket.IssueEpoch {
				t.Fatalf("issue: %+v, %v", a, err)
			}
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

func TestIssueLearnsTheEpoch(t *testing.T) {
	inBubbleOf(t, split(1, 8192), nil, func(w *world) {
		w.node.Start(w.Context())
		const s = ticket.Subject(9000) // not on the shard that keeps the list of nodes
		old := w.node.Epoch(s)
		w.shards.failover(8192)
		if _, a, err := w.issue(s, ticket.NoLimit); err != nil || a.Result != ticket.IssueEpoch {
			t.Fatalf("issue: %+v, %v", a, err)
		}
		if w.node.Epoch(s) == old {
			t.Fatal("the epoch was not learned before the answer")
		}
		if _, a, err := w.issue(s, ticket.NoLimit); err != nil || a.Result != ticket.IssueOK {
			t.Fatalf("issue under the new epoch: %+v, %v", a, err)
		}
	})
}

// nearStore is fickle as a store in this process.
type nearStore struct{ *fickle }

func (nearStore) Near() {}

// TestRedeemNow: a store in this process answers on the spot, with all that is checked otherwise; another does not.
func TestRedeemNow(t *testing.T) {
	inBubble(t, func(w *world) {
		w.node.Start(w.Context())
		b := &ticket.Batch{Reqs: w.tickets(1, 1)}
		if w.node.RedeemNow(b) || len(w.store.redeemed()) != 0 {
			t.Error("a store that may be far away was asked")
		}
	})
	near := func(t *testing.T, test func(w *world, now func(qs ...ticket.RedeemRequest) *ticket.Batch)) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, split(1, 8192), nil)
			w.node = node.New(node.Options{Store: nearStore{w.store}, Name: "gw-1", Heartbeat: heartbeat, Lease: lease, Timeout: timeout, First: true,
				Clock: w.clock, Rand: rand.Reader, Counts: w.counts, Subjects: w.counts.subjects()})
			test(w, func(qs ...ticket.RedeemRequest) *ticket.Batch {
				b := w.count(qs...)
				b.Done = func(*ticket.Batch) { t.Error("Done was called") }
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
		b = now(append(w.tickets(1, 1), ticket.RedeemRequest{Epoch: 77, Held: ticket.Held{Subject: 1}})...)
		if r := [2]ticket.RedeemResult{b.Answers[0].Result, b.Answers[1].Result}; r != [2]ticket.RedeemResult{ticket.RedeemOK, ticket.RedeemEpoch} {
			t.Errorf("a ticket beside one of another epoch: %v", r)
		}
		if all := w.store.redeemed(); all[len(all)-1] != 1 {
			t.Errorf("the store was asked for %d", all[len(all)-1])
		}
		late := w.tickets(1, 1)
		w.store.set(func() { w.store.lag = timeout + 1 })
		w.wantResults(now(late...), ticket.RedeemDoubt)
	})
}

// TestOneShardIsNotAll: a shard that has another history does not keep tickets of the others waiting.
func TestOneShardIsNotAll(t *testing.T) {
	inBubbleOf(t, split(1, 8192), nil, func(w *world) {
		w.node.Start(w.Context())
		w.wantResults(<-w.batch(w.tickets(9000, 1)...), ticket.RedeemOK) // so that there is something to tell
		qs := append(w.tickets(1, 1), w.tickets(9000, 1)...)
		w.store.set(func() { w.store.deaf = true })
		w.shards.failover(8192)
		w.pass(heartbeat)
		w.wantReady(node.ErrNotRegistered)
		qs = append(qs, ticket.RedeemRequest{Ticket: ticket.Hash{1}, Epoch: w.node.Epoch(9000), Held: ticket.Held{Subject: 9000}})
		b := <-w.batch(qs...)
		var got []ticket.RedeemResult
		for _, a := range b.Answers {
			got = append(got, a.Result)
		}
		if want := []ticket.RedeemResult{ticket.RedeemOK, ticket.RedeemEpoch, ticket.RedeemUnsent}; !slices.Equal(got, want) {
			t.Errorf("results %v, want %v", got, want)
		}
	})
}
