package redis_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ticketgate/store/redis"
	"ticketgate/store/redistest"
	"ticketgate/ticket"
)

// keysOf are n keys that nothing else uses, each of another subject.
func keysOf(round string, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("tg:{%04x}:n:%s:%d", (i*7919)%ticket.Tags, round, i)
	}
	return keys
}

// A ledger compares what the store said of each command with how often it ran.
type ledger struct {
	ok, unsent, doubt atomic.Int64
}

// note checks one outcome against the number of times that the command ran. Lost: what ran may be gone.
func (l *ledger) note(t testing.TB, key string, o redis.Outcome, ran int64, lost bool) {
	t.Helper()
	switch {
	case o.Err == nil:
		l.ok.Add(1)
		if o.N != 1 || ran != 1 && !lost || ran > 1 {
			t.Errorf("%s: answered %d, and ran %d times", key, o.N, ran)
		}
	case o.Sent:
		l.doubt.Add(1)
		if ran > 1 {
			t.Errorf("%s: in doubt (%v), and ran %d times", key, o.Err, ran)
		}
	default:
		l.unsent.Add(1)
		if ran != 0 {
			t.Errorf("%s: said to be unsent (%v), and ran %d times", key, o.Err, ran)
		}
	}
}

func (l *ledger) String() string {
	return fmt.Sprintf("%d answered, %d unsent, %d in doubt", l.ok.Load(), l.unsent.Load(), l.doubt.Load())
}

// ranAt is how often the commands of keys ran, as a server knows.
func ranAt(t testing.TB, server *redistest.Server, keys []string) []int64 {
	t.Helper()
	ran := make([]int64, len(keys))
	at := 0
	for part := range slices.Chunk(keys, 1000) {
		commands := make([][]string, len(part))
		for i, key := range part {
			commands[i] = []string{"GET", key}
		}
		answers, err := server.DoAll(commands...)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range answers {
			if v != nil {
				if _, err := fmt.Sscan(fmt.Sprint(v), &ran[at]); err != nil {
					t.Fatalf("%s: %v", keys[at], v)
				}
			}
			at++
		}
	}
	return ran
}

// TestDroppedConnection: of a pipeline that is cut, each command is answered, in doubt or unsent, and that is true.
func TestDroppedConnection(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	s := openAt(t, redis.Options{URL: "redis://" + proxy.Addr(), Prefix: "tg:", Timeout: 5 * time.Second})
	ready(t, s)
	var l ledger
	mixed := 0
	for round := range 30 {
		keys := keysOf(fmt.Sprint(round), 200)
		eventually(t, "the store is back", func() bool {
			return s.Count(context.Background(), fmt.Sprintf("tg:{0000}:n:probe:%d", round))[0].Err == nil
		})
		proxy.CutAfter(rand.IntN(200*4 + 40)) // ":1\r\n" each
		outcomes := make([][]redis.Outcome, 4)
		var wg sync.WaitGroup
		for i := range outcomes { // more batches than lanes
			wg.Go(func() { outcomes[i] = s.Count(context.Background(), keys[i*50:(i+1)*50]...) })
		}
		wg.Wait()
		proxy.CutAfter(-1)
		eventually(t, "the store is back", func() bool {
			return s.Count(context.Background(), fmt.Sprintf("tg:{0000}:n:again:%d", round))[0].Err == nil
		})
		ran, answered, failed := ranAt(t, server, keys), 0, 0
		for i, key := range keys {
			o := outcomes[i/50][i%50]
			l.note(t, key, o, ran[i], false)
			if o.Err == nil {
				answered++
			} else {
				failed++
			}
		}
		if answered > 0 && failed > 0 {
			mixed++
		}
	}
	t.Logf("%v; %d of 30 rounds were cut in the middle", &l, mixed)
	if mixed < 10 || l.doubt.Load() == 0 {
		t.Error("too few pipelines were cut in the middle: this shows nothing")
	}
}

// TestRefusedConnection: at a server that takes no connections everything is known to be unsent, at once.
func TestRefusedConnection(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	s := openAt(t, redis.Options{URL: "redis://" + proxy.Addr(), Prefix: "tg:"})
	ready(t, s)
	proxy.Refuse(true)
	proxy.Cut()
	eventually(t, "the store notices", func() bool { return !s.Stats().Up })
	keys := keysOf("refused", 100)
	for i, o := range s.Count(context.Background(), keys...) {
		if o.Err == nil || o.Sent {
			t.Errorf("%s: %v, sent %v, want unsent", keys[i], o.Err, o.Sent)
		}
	}
	proxy.Refuse(false)
	ready(t, s)
	var l ledger
	for i, o := range s.Count(context.Background(), keys...) {
		l.note(t, keys[i], o, 1, false)
	}
}

// TestBounded: 5,000 callers of a server that hangs. Goroutines and queues stay as they are; who finds no room goes at once.
func TestBounded(t *testing.T) {
	server := redistest.Start(t)
	s := quick(t, server)
	ready(t, s)
	before := runtime.NumGoroutine()
	server.Pause()
	var wg sync.WaitGroup
	var unsent, doubt atomic.Int64
	for i := range 5000 {
		wg.Go(func() {
			o := s.Count(context.Background(), fmt.Sprintf("tg:{%04x}:n:bounded", i))[0]
			switch {
			case o.Err == nil:
				t.Errorf("a server that hangs answers %d", o.N)
			case o.Sent:
				doubt.Add(1)
			default:
				unsent.Add(1)
			}
		})
	}
	wg.Wait()
	if doubt.Load() > redis.InFlight {
		t.Errorf("%d in doubt, and %d may be in flight", doubt.Load(), redis.InFlight)
	}
	if now := runtime.NumGoroutine(); now > before+16 {
		t.Errorf("%d goroutines, %d before", now, before)
	}
	t.Logf("%d unsent, %d in doubt", unsent.Load(), doubt.Load())
	server.Continue()
	ready(t, s)
}

// TestRenewalBesideAFlood: what hangs so long that the breaker opens delays a renewal, and does not lose it.
func TestRenewalBesideAFlood(t *testing.T) {
	server := redistest.Start(t)
	s := quick(t, server)
	ready(t, s)
	if o, _ := s.CountRenewed(context.Background(), "tg:{nodes}:n", 0); o.Err != nil {
		t.Fatal(o.Err)
	}
	server.Pause()
	for len(s.Count(context.Background(), "tg:{0001}:n:flood")) > 0 && s.Stats().Up { // each waits for 200 ms
	}
	done := make(chan redis.Outcome, 1)
	go func() {
		o, _ := s.CountRenewed(context.Background(), "tg:{nodes}:n", 0)
		done <- o
	}()
	var flood sync.WaitGroup
	for i := range 300 {
		flood.Go(func() { s.Count(context.Background(), fmt.Sprintf("tg:{%04x}:n:flood", i)) })
	}
	flood.Wait()
	server.Continue()
	if o := <-done; o.Err != nil || o.N != 2 {
		t.Errorf("renewal: %d, %v", o.N, o.Err)
	}
}

// TestBreaker: while a server hangs, nothing is sent but a probe, and nobody waits.
func TestBreaker(t *testing.T) {
	server := redistest.Start(t)
	s := quick(t, server)
	ready(t, s)
	server.Pause()
	var calls, waited int
	for ; calls < 2000 && waited <= 20; calls++ {
		if o := s.Count(context.Background(), "tg:{0001}:n:breaker")[0]; strings.Contains(fmt.Sprint(o.Err), "timed out") {
			waited++
		}
	}
	if waited > 20 {
		t.Errorf("%d of %d calls waited for a server that hangs", waited, calls)
	}
	server.Continue()
	ready(t, s)
}

// TestVet: servers that are unfit are not used, and the reason stands in the log.
func TestVet(t *testing.T) {
	const good = "redis_version:7.0.15\r\nredis_mode:standalone\r\nrole:master\r\nconnected_slaves:0\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\ncluster_enabled:0\r\nloading:0\r\n"
	for _, c := range []struct {
		change, to string
		cluster    bool
		want       string
	}{
		{"", "", false, ""},
		{"7.0.15", "8.2.1", false, ""},
		{"cluster_enabled:0", "cluster_enabled:1", true, ""},
		{"maxmemory:0\r\n", "maxmemory:100\r\n", false, ""},
		{"noeviction", "allkeys-lru", false, ""}, // warned of
		{"7.0.15", "6.2.19", false, "7.0 or later"},
		{"7.0.15", "", false, "7.0 or later"},
		{"standalone", "sentinel", false, "it is a sentinel"},
		{"cluster_enabled:0", "cluster_enabled:1", false, "is a node of a Redis Cluster"},
		{"", "", true, "no node of a Redis Cluster"},
		{"role:master", "role:slave", false, "replica"},
		{"loading:0", "loading:1", false, "loading"},
		{"maxmemory:0\r\nmaxmemory_policy:noeviction", "maxmemory:1\r\nmaxmemory_policy:volatile-lru", false, "volatile-lru"},
	} {
		err := redis.Vet(strings.Replace(good, c.change, c.to, 1), c.cluster)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %q: %v, want %q", c.to, c.change, err, c.want)
		}
	}
}
