package node_test

import (
	"context"
	"crypto/rand"
	"errors"
	"runtime"
	"testing"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/store/memory"
	"ticketgate/store/node"
	"ticketgate/store/redis"
	"ticketgate/store/redistest"
	"ticketgate/ticket"
)

// onReal is a node on a store that is really there.
func onReal(t *testing.T, store ticket.Store) *world {
	w := &world{T: t, clock: mono.System, store: &fickle{Store: store}, counts: &counts{of: map[ticket.Subject]ticket.Held{}}}
	w.node = node.New(node.Options{
		Store: store, Name: "gw-1", Heartbeat: heartbeat, Lease: lease, Timeout: timeout, First: true, Clock: mono.System, Rand: rand.Reader,
		Counts: w.counts, Subjects: w.counts.subjects(), OnLeaseLost: func() { w.lost.Add(1) },
	})
	return w
}

// TestRedisLosesEverything: a real server is killed and comes back empty. The node keeps its life, opens nothing meanwhile,
// tells the counts of its open sockets before it admits anyone, and issues nothing while other nodes may not have done so.
func TestRedisLosesEverything(t *testing.T) {
	server := redistest.Start(t)
	store, err := redis.New(redis.Options{URL: server.URL(), Prefix: "tg:"})
	if err != nil {
		t.Fatal(err)
	}
	w := onReal(t, store)
	w.node.Start(w.Context())
	w.comesBack(0)
	qs := w.tickets(1, 2)
	w.wantResults(<-w.batch(qs[0]), ticket.RedeemOK)
	life, epoch := w.node.Incarnation(), w.node.Epoch(1)

	server.Kill()
	for range 20 {
		b := <-w.batch(qs[1])
		if r := b.Answers[0].Result; r != ticket.RedeemDoubt && r != ticket.RedeemUnsent {
			t.Fatalf("redeem without a server: %d", r)
		}
		w.counts.change(1, -1) // the engine refused it
		w.node.Touch(1)
	}
	server.Restart()
	t.Logf("ready %v after the restart", w.comesBack(epoch))
	if w.node.Incarnation() != life || w.lost.Load() != 0 {
		t.Errorf("incarnation %x then %x, lost %d", life, w.node.Incarnation(), w.lost.Load())
	}
	w.wantUsed(1, 1) // the socket that is open
	w.wantResults(<-w.batch(qs[1]), ticket.RedeemEpoch)
	w.counts.change(1, -1)
	if _, a, err := w.issue(1, ticket.NoLimit); !errors.Is(err, node.ErrIssueClosed) || !w.node.Status().Grace {
		t.Errorf("issue in the grace: %+v, %v", a, err)
	}
	w.counts.change(1, -1) // and now the socket closes
	w.node.Touch(1)
	if err := w.node.Close(context.Background()); err != nil {
		t.Error(err)
	}
	w.wantUsed(1, 0)
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

// comesBack waits until the node is ready under another epoch than old.
func (w *world) comesBack(old ticket.Epoch) time.Duration {
	w.Helper()
	start := time.Now()
	for w.node.Epoch(1) == old || w.node.Ready() != nil { // in this order: each is of its own moment
		if time.Since(start) > 10*time.Second {
			w.Fatalf("not ready: %v", w.node.Ready())
		}
		runtime.Gosched()
	}
	return time.Since(start)
}

// TestRedisIsTold: the slot is free at the server when Tell returns, without the keeper.
func TestRedisIsTold(t *testing.T) {
	store, err := redis.New(redis.Options{URL: redistest.Start(t).URL(), Prefix: "tg:", Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	w := onReal(t, store)
	w.node.Start(w.Context())
	w.comesBack(0)
	w.wantResults(<-w.batch(w.tickets(1, 1)...), ticket.RedeemOK)
	if _, a, err := w.issue(1, 1); err != nil || a.Result != ticket.IssueFull || len(a.Counted) != 1 || a.Counted[0] != w.node.Incarnation() {
		t.Errorf("issue: %+v, %v", a, err)
	}
	w.counts.change(1, -1)
	if err := w.node.Tell(w.Context(), 1); err != nil {
		t.Error(err)
	}
	if _, a, err := w.issue(1, 1); err != nil || a.Result != ticket.IssueOK {
		t.Errorf("issue: %+v, %v", a, err)
	}
	if err := errors.Join(w.node.Close(context.Background()), store.Close()); err != nil {
		t.Error(err)
	}
}

// TestMemory: a store in this process has nobody to wait for.
func TestMemory(t *testing.T) {
	store, err := memory.New(memory.Options{Clock: mono.System, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	w := onReal(t, store)
	w.node.Start(w.Context())
	w.wantReady(nil)
	qs := w.tickets(1, 2)
	b := w.count(qs...)
	if !w.node.RedeemNow(b) {
		t.Fatal("not answered")
	}
	w.wantResults(b, ticket.RedeemOK)
	w.wantUsed(1, 2)
	w.counts.change(1, -1)
	w.node.Touch(1)
	if err := w.node.Close(w.Context()); err != nil {
		t.Error(err)
	}
	w.wantUsed(1, 1)
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}
