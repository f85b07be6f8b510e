package redis_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ticketgate/store/redis"
	"ticketgate/store/redistest"
	"ticketgate/ticket"
)

// A load counts under new keys all the time, from several goroutines.
type load struct {
	store *redis.Store
	stop  chan struct{}
	work  sync.WaitGroup
	good  atomic.Int64 // answers, ever

	mu       sync.Mutex
	keys     []string
	outcomes []redis.Outcome
	slowest  time.Duration
}

func startLoad(s *redis.Store, name string, tags []uint16) *load {
	l := &load{store: s, stop: make(chan struct{})}
	for g := range 4 {
		l.work.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-l.stop:
					return
				default:
				}
				if !l.once(fmt.Sprintf("tg:{%04x}:n:%s:%d:%d", tags[i%len(tags)], name, g, i)) {
					<-time.After(time.Millisecond) // or refusals, a microsecond each, keep the machine busy
				}
			}
		})
	}
	return l
}

// once reports whether it was answered.
func (l *load) once(key string) bool {
	start := time.Now()
	o := l.store.Count(context.Background(), key)[0]
	took := time.Since(start)
	l.mu.Lock()
	defer l.mu.Unlock()
	if o.Err == nil {
		l.good.Add(1)
	}
	l.keys, l.outcomes, l.slowest = append(l.keys, key), append(l.outcomes, o), max(l.slowest, took)
	return o.Err == nil
}

// answered waits for n more answers.
func (l *load) answered(t testing.TB, n int64) {
	t.Helper()
	want := l.good.Load() + n
	eventually(t, fmt.Sprint(n, " more answers"), func() bool { return l.good.Load() >= want })
}

// end stops the load and compares its outcomes with what the servers have. What ran on one that failed may be lost.
func (l *load) end(t testing.TB, serverOf func(key string) *redistest.Server) {
	t.Helper()
	close(l.stop)
	l.work.Wait()
	byServer := make(map[*redistest.Server][]int)
	for i, key := range l.keys {
		s := serverOf(key)
		byServer[s] = append(byServer[s], i)
	}
	var sum ledger
	for server, places := range byServer {
		keys := make([]string, len(places))
		for i, at := range places {
			keys[i] = l.keys[at]
		}
		ran := ranAt(t, server, keys)
		for i, at := range places {
			sum.note(t, l.keys[at], l.outcomes[at], ran[i], true)
		}
	}
	t.Logf("%v; the slowest took %v", &sum, l.slowest)
	if l.slowest > 5*time.Second {
		t.Errorf("a call took %v", l.slowest)
	}
}

// someTags are shard tags in many slots.
func someTags() []uint16 {
	tags := make([]uint16, 64)
	for i := range tags {
		tags[i] = uint16(i * 251)
	}
	return tags
}

func TestSentinelFailover(t *testing.T) {
	r := redistest.StartSentinel(t)
	o := sentinelOptions(r)
	o.Prefix = "tg:"
	s := openAt(t, o)
	ready(t, s)
	top := s.Topology()
	if top != ticket.One || !slices.Equal(s.Addresses(), []string{r.Primary().Addr()}) {
		t.Errorf("topology %+v, primaries %v", top, s.Addresses())
	}
	before, err := s.EpochOf(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}

	t.Run("planned", func(t *testing.T) {
		l := startLoad(s, "planned", someTags())
		l.answered(t, 200)
		now := r.Failover()
		eventually(t, "the store at the new primary", func() bool { return slices.Equal(s.Addresses(), []string{now.Addr()}) })
		l.answered(t, 200)
		l.end(t, func(string) *redistest.Server { return now })
		after, err := s.EpochOf(context.Background(), 0)
		if err != nil || after == before || after != epochAt(t, now) {
			t.Errorf("epoch %08x after %08x, %v", after, before, err)
		}
	})

	t.Run("killed", func(t *testing.T) {
		l := startLoad(s, "killed", someTags())
		l.answered(t, 200)
		old := r.Primary()
		old.Kill()
		now := r.Follows(old)
		l.answered(t, 200)
		l.end(t, func(string) *redistest.Server { return now })
		if got := s.Addresses(); !slices.Equal(got, []string{now.Addr()}) {
			t.Errorf("primaries %v, want %s", got, now.Addr())
		}
		old.Restart()
	})

	// A sentinel that has missed everything, here one of another primary by the same name, is not believed.
	t.Run("old sentinel", func(t *testing.T) {
		other := redistest.StartSentinel(t)
		o := o
		o.Addresses = append(other.Addrs()[:1:1], r.Addrs()...)
		s := openAt(t, o)
		ready(t, s)
		if got := s.Addresses(); !slices.Equal(got, []string{r.Primary().Addr()}) {
			t.Errorf("primaries %v, want %s, not %s", got, r.Primary().Addr(), other.Primary().Addr())
		}
	})

	t.Run("sentinels gone", func(t *testing.T) {
		for _, s := range r.Sentinels {
			s.Pause()
		}
		var l ledger
		keys := keysOf("alone", 50)
		outcomes := s.Count(context.Background(), keys...)
		for _, s := range r.Sentinels {
			s.Continue()
		}
		for i, o := range outcomes {
			if o.Err != nil {
				t.Errorf("without sentinels: %v", o.Err)
			}
			l.note(t, keys[i], o, 1, false)
		}
	})
}

// TestAcknowledged: a renewal's WAIT is about its own write, and counts the replicas that have it.
func TestAcknowledged(t *testing.T) {
	r := redistest.StartSentinel(t)
	o := sentinelOptions(r)
	o.Prefix = "tg:"
	s := openAt(t, o)
	ready(t, s)
	eventually(t, "two replicas", func() bool {
		o, acked := s.CountRenewed(context.Background(), "tg:{nodes}:n", 2)
		return o.Err == nil && acked == 2
	})
	if o, acked := s.CountRenewed(context.Background(), "tg:{nodes}:n", 0); o.Err != nil || acked != 0 {
		t.Errorf("nobody was to be asked: %d, %v", acked, o.Err)
	}
	replica := r.Servers[1]
	replica.Pause()
	start := time.Now()
	o1, acked := s.CountRenewed(context.Background(), "tg:{nodes}:n", 2)
	if took := time.Since(start); o1.Err != nil || acked != 1 || took > 2*redis.RenewalTime {
		t.Errorf("with one replica that hangs: %d replicas, %v, after %v", acked, o1.Err, took)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if o, acked := s.CountRenewed(ctx, "tg:{nodes}:n", 2); acked > 1 || o.Err == nil && o.N != o1.N+1 {
		t.Errorf("with 300 ms: %d replicas, %+v", acked, o)
	}
	replica.Continue()
	eventually(t, "two replicas", func() bool {
		o, acked := s.CountRenewed(context.Background(), "tg:{nodes}:n", 2)
		return o.Err == nil && acked == 2
	})
}

func TestClusterFailover(t *testing.T) {
	c := redistest.StartCluster(t)
	s := openAt(t, redis.Options{Addresses: c.Addrs()[4:5], Prefix: "tg:"}) // a replica knows, too
	ready(t, s)
	top := s.Topology()
	if len(top.Shards) != 3 || !slices.IsSorted(top.Shards) || top.Shards[0] != 0 {
		t.Fatalf("shards %v", top.Shards)
	}
	for tag := range ticket.Tags {
		key := fmt.Sprintf("tg:{%04x}:x", tag)
		shard := top.Of(ticket.Subject(tag))
		if next := top.Find(shard) + 1; redis.SlotOf(key) < int(shard) || next < 3 && redis.SlotOf(key) >= int(top.Shards[next]) {
			t.Fatalf("tag %04x, slot %d, is at shard %d of %v", tag, redis.SlotOf(key), shard, top.Shards)
		}
	}
	if shard := top.Shards[top.Nodes]; redis.SlotOf("tg:{nodes}:x") < int(shard) {
		t.Errorf("the list of nodes is at shard %d", shard)
	}
	epochs := func() map[ticket.Shard]ticket.Epoch {
		out := make(map[ticket.Shard]ticket.Epoch)
		for _, shard := range top.Shards {
			eventually(t, "an epoch", func() bool {
				e, err := s.EpochOf(context.Background(), shard)
				out[shard] = e
				return err == nil
			})
			if want := epochAt(t, c.Primary(int(shard))); out[shard] != want {
				t.Errorf("epoch of shard %d: %08x, want %08x", shard, out[shard], want)
			}
		}
		return out
	}
	before := epochs()
	owners := func() func(string) *redistest.Server {
		of := make(map[int]*redistest.Server)
		for _, shard := range top.Shards {
			of[int(shard)] = c.Primary(int(shard))
		}
		return func(key string) *redistest.Server {
			best := 0
			for _, shard := range top.Shards {
				if int(shard) <= redis.SlotOf(key) {
					best = int(shard)
				}
			}
			return of[best]
		}
	}

	t.Run("planned", func(t *testing.T) {
		l := startLoad(s, "planned", someTags())
		l.answered(t, 200)
		now := c.Failover(0)
		eventually(t, "the store at the new primary", func() bool { return slices.Contains(s.Addresses(), now.Addr()) && s.Stats().Up })
		l.answered(t, 200)
		l.end(t, owners())
	})

	t.Run("killed", func(t *testing.T) {
		l := startLoad(s, "killed", someTags())
		l.answered(t, 200)
		old := c.Primary(0)
		old.Kill()
		now := c.Follows(0, old)
		eventually(t, "the store at the new primary", func() bool { return slices.Contains(s.Addresses(), now.Addr()) && s.Stats().Up })
		l.answered(t, 200)
		l.end(t, owners())
		old.Restart()
	})

	if now := s.Topology(); now.ID != top.ID || !slices.Equal(now.Shards, top.Shards) {
		t.Errorf("shards %v (%x), %v (%x) before", now.Shards, now.ID, top.Shards, top.ID)
	}
	after := epochs()
	if after[0] == before[0] || after[top.Shards[2]] != before[top.Shards[2]] {
		t.Errorf("epochs %v, before %v", after, before)
	}

	t.Run("one hangs", func(t *testing.T) {
		hangs := c.Primary(0)
		hangs.Pause() // for less than the two seconds after which the others replace it
		tags := map[bool][]uint16{}
		for tag := range uint16(ticket.Tags) {
			own := top.Of(ticket.Subject(tag)) == 0
			tags[own] = append(tags[own], tag)
		}
		// One batch for all shards: each command has its own fate.
		mixed := s.Count(context.Background(), fmt.Sprintf("tg:{%04x}:n:mixed", tags[true][0]), fmt.Sprintf("tg:{%04x}:n:mixed", tags[false][0]))
		own, others := startLoad(s, "hangs", tags[true]), startLoad(s, "others", tags[false])
		timer := time.NewTimer(700 * time.Millisecond)
		others.answered(t, 100)
		<-timer.C
		close(own.stop)
		close(others.stop)
		own.work.Wait()
		others.work.Wait()
		hangs.Continue()
		if mixed[0].Err == nil || mixed[1].Err != nil {
			t.Errorf("one batch: %+v", mixed)
		}
		for i, o := range others.outcomes {
			if o.Err != nil {
				t.Fatalf("another shard, %s: %v", others.keys[i], o.Err)
			}
		}
		if n := own.good.Load(); n > 0 || len(own.keys) == 0 {
			t.Errorf("the shard that hangs has answered %d of %d", n, len(own.keys))
		}
		t.Logf("%d calls of other shards, %d of its own", len(others.keys), len(own.keys))
	})
}
