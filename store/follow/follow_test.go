package follow_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"ticketgate/internal/mono"
	"ticketgate/revoke"
	"ticketgate/store/follow"
	"ticketgate/store/memory"
	"ticketgate/store/redis"
	"ticketgate/store/redistest"
	"ticketgate/ticket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is one node's side.
type node struct {
	*follow.Follower
	set     *revoke.Set
	changed atomic.Int64
}

func follower(log revoke.Log, now func() time.Time, clock mono.Clock) *node {
	n := &node{set: revoke.NewSet()}
	n.Follower = follow.New(follow.Options{Log: log, Set: n.set, Changed: func() { n.changed.Add(1) }, Now: now, Clock: clock})
	return n
}

// running is a node on a Redis server, running until the test ends.
func running(t *testing.T, server *redistest.Server) *node {
	t.Helper()
	n := stopped(t, server)
	n.Start(t.Context())
	return n
}

func stopped(t *testing.T, server *redistest.Server) *node {
	t.Helper()
	s, err := redis.New(redis.Options{URL: server.URL(), Prefix: "tg:", Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	n := follower(s.Revocations(), time.Now, mono.System)
	t.Cleanup(func() {
		n.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func revocation(id string) *revoke.Revocation {
	now := time.Now().Truncate(time.Millisecond)
	return &revoke.Revocation{ID: id, At: now, What: revoke.Selector{Client: "client " + id}, Code: 4403, Until: now.Add(time.Hour)}
}

// until waits for what goroutines and processes bring about.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(30 * time.Second); !is(); <-tick.C {
		if time.Now().After(limit) {
			t.Fatal("it does not happen: " + what)
		}
	}
}

func (n *node) knows(ids ...string) bool {
	for _, id := range ids {
		if !n.set.Redeem(&ticket.Claims{Client: "client " + id, IssuedAt: time.Now().Add(-time.Minute)}, time.Now()) {
			return false
		}
	}
	return true
}

func (n *node) publish(t *testing.T, id string, told bool) {
	t.Helper()
	got, err := n.Publish(t.Context(), revocation(id))
	if err != nil || got != told || !n.knows(id) {
		t.Errorf("publish %s: told %v, %v, known %v; want told %v", id, got, err, n.knows(id), told)
	}
}

func (n *node) stats() (s follow.Stats) {
	n.Stats(&s)
	return s
}

// TestNodesTellEachOther: what one publishes the others know; what was published before a node came, it knows when it has started.
func TestNodesTellEachOther(t *testing.T) {
	server := redistest.Start(t)
	a, b := running(t, server), running(t, server)
	a.publish(t, "one", true)
	b.publish(t, "two", true)
	until(t, "each knows both", func() bool { return a.knows("one", "two") && b.knows("one", "two") })
	late := stopped(t, server)
	if late.Ready() == nil || late.knows("one") {
		t.Error("a node that has not read is ready")
	}
	late.Start(t.Context())
	if !late.knows("one", "two") || late.Ready() != nil || late.changed.Load() == 0 {
		t.Errorf("a node that has just started: ready %v", late.Ready())
	}
	until(t, "it watches", func() bool { return late.stats().Watched })
	if s := late.stats(); s.Known != 2 || s.Waiting != 0 || s.Lag < 0 {
		t.Errorf("%+v", s)
	}
}

// TestOutage: what is revoked while the store stands still counts where it was said, and everywhere once the store is back.
func TestOutage(t *testing.T) {
	server := redistest.Start(t)
	a, b := running(t, server), running(t, server)
	server.Pause()
	a.publish(t, "during", false)
	if s := a.stats(); s.Waiting != 1 {
		t.Errorf("%d wait, want 1", s.Waiting)
	}
	server.Continue()
	until(t, "the other hears of it", func() bool { return b.knows("during") && a.stats().Waiting == 0 })
	a.publish(t, "after", true)
	until(t, "and of the next", func() bool { return b.knows("after") })
}

// TestDataLost: a store that lost everything is told again what is in force, by whoever knows it, so that a node that comes later
// knows it as well.
func TestDataLost(t *testing.T) {
	server := redistest.Start(t)
	a, b := running(t, server), running(t, server)
	var all []string
	for i := range 250 {
		id := fmt.Sprint("r", i)
		all = append(all, id)
		a.publish(t, id, true)
	}
	until(t, "both know all", func() bool { return b.knows(all...) })
	server.Kill()
	b.publish(t, "while it was gone", false)
	all = append(all, "while it was gone")
	server.Restart()
	until(t, "each knows all", func() bool { return a.knows(all...) && a.stats().Waiting == 0 && b.stats().Waiting == 0 })
	var late *node
	until(t, "a node that comes later knows all", func() bool {
		if late == nil {
			late = running(t, server)
		}
		return late.knows(all...)
	})
}

// TestManyAtOnce: 10,000 revocations, from two nodes at once, are known to both.
func TestManyAtOnce(t *testing.T) {
	const n = 5000
	server := redistest.Start(t)
	a, b := running(t, server), running(t, server)
	done := make(chan error, 2)
	for k, node := range []*node{a, b} {
		go func() {
			for i := range n {
				if _, err := node.Publish(t.Context(), revocation(fmt.Sprint(k, "-", i))); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	if err := errors.Join(<-done, <-done); err != nil {
		t.Fatal(err)
	}
	until(t, "both know all", func() bool { return a.set.Len() == 2*n && b.set.Len() == 2*n })
	until(t, "the log has all", func() bool { return a.stats().Waiting+b.stats().Waiting == 0 })
}

// TestRefused: what breaks a rule counts nowhere.
func TestRefused(t *testing.T) {
	n := follower(memory.NewRevocations(mono.System), time.Now, mono.System)
	defer n.Close()
	if _, err := n.Publish(t.Context(), &revoke.Revocation{ID: "x", At: time.Now(), Until: time.Now().Add(time.Hour)}); err == nil || n.set.Len() != 0 {
		t.Errorf("an empty selector: %v", err)
	}
}

// broken is a log whose server answers nothing, or something odd, on demand.
type broken struct {
	revoke.Log
	down  atomic.Bool
	odd   atomic.Bool
	reads atomic.Int64
}

func (b *broken) Read(ctx context.Context, p revoke.Place, most int) (revoke.Page, error) {
	b.reads.Add(1)
	if b.down.Load() {
		return revoke.Page{}, ticket.ErrUnavailable
	}
	page, err := b.Log.Read(ctx, p, most)
	if b.odd.Load() {
		page.Texts = append([][]byte{[]byte(`{"v":9}`)}, page.Texts...)
	}
	return page, err
}

func (b *broken) Publish(ctx context.Context, rs []revoke.Revocation) error {
	if b.down.Load() {
		return ticket.ErrUnavailable
	}
	return b.Log.Publish(ctx, rs)
}

func (b *broken) Watch(ctx context.Context, changed func()) error {
	if b.down.Load() {
		return ticket.ErrUnavailable
	}
	return b.Log.Watch(ctx, changed)
}

// bubble is time in a synctest bubble, as a clock.
type bubble struct{ start time.Time }

func (b bubble) Now() mono.Time  { return mono.Time(1 + time.Since(b.start)) }
func (b bubble) Wall() time.Time { return time.Now() }

// TestStale: a node that cannot read the log for 10 s lets nobody in, and does again as soon as it can; what it cannot read of the log
// does not keep it from the rest.
func TestStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := bubble{time.Now()}
		log := &broken{Log: memory.NewRevocations(clock)}
		log.down.Store(true)
		n := follower(log, time.Now, clock)
		n.Start(t.Context())
		defer n.Close()
		if err := n.Ready(); !errors.Is(err, follow.ErrUnread) {
			t.Errorf("before it was read: %v", err)
		}
		log.odd.Store(true)
		log.down.Store(false)
		pass(time.Second)
		n.publish(t, "one", true)
		if n.Ready() != nil {
			t.Error(n.Ready())
		}
		log.down.Store(true)
		pass(9 * time.Second)
		if n.Ready() != nil {
			t.Errorf("away for 9 s: %v", n.Ready())
		}
		pass(2 * time.Second)
		if err := n.Ready(); !errors.Is(err, follow.ErrStale) {
			t.Errorf("away for 11 s: %v", err)
		}
		n.publish(t, "two", false)
		log.down.Store(false)
		pass(300 * time.Millisecond)
		if s := n.stats(); n.Ready() != nil || s.Waiting != 0 {
			t.Errorf("back for 300 ms: %v, %+v", n.Ready(), s)
		}
	})
}

// TestQuiet: with nothing to do, a watched log is read once a second.
func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := bubble{time.Now()}
		log := &broken{Log: memory.NewRevocations(clock)}
		n := follower(log, time.Now, clock)
		n.Start(t.Context())
		defer n.Close()
		pass(time.Second)
		before := log.reads.Load()
		pass(100 * time.Second)
		if reads := log.reads.Load() - before; reads < 99 || reads > 101 {
			t.Errorf("%d reads in 100 s", reads)
		}
	})
}

// TestExpires: what is over is forgotten, here too.
func TestExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := bubble{time.Now()}
		n := follower(memory.NewRevocations(clock), time.Now, clock)
		n.Start(t.Context())
		defer n.Close()
		n.publish(t, "one", true)
		pass(62 * time.Minute)
		if n.set.Len() != 0 {
			t.Error("it is still known")
		}
	})
}

// pass lets d pass in a bubble, and everything that is due happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
