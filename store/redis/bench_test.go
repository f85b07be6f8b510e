package redis_test

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"ticketgate/store/redis"
	"ticketgate/store/redistest"
	"ticketgate/ticket"
)

// bench is a store on a server of its own, whose time in scripts is reported.
type bench struct {
	*redis.Store
	c     rueidis.Client
	epoch ticket.Epoch
}

func benchStore(b *testing.B) *bench {
	server := redistest.Start(b)
	s := &bench{Store: open(b, server, "tg:"), c: raw(b, server)}
	v, _ := answers(b, s.Store)
	s.epoch = v.Seen.Epoch
	return s
}

// start begins the measurement.
func (s *bench) start(b *testing.B) {
	if err := s.c.Do(context.Background(), s.c.B().ConfigResetstat().Build()).Error(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
}

var perCall = regexp.MustCompile(`cmdstat_evalsha:calls=\d+,usec=\d+,usec_per_call=([0-9.]+)`)

// end reports how long the server was in each script.
func (s *bench) end(b *testing.B) {
	b.StopTimer()
	text, err := s.c.Do(context.Background(), s.c.B().Info().Section("commandstats").Build()).ToString()
	found := perCall.FindStringSubmatch(text)
	if err != nil || found == nil {
		b.Fatalf("INFO commandstats: %q, %v", text, err)
	}
	us, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(us, "script-µs/op")
}

// share calls f for each batch of size of n on four goroutines, as a node's loops do.
func share(n, size int, f func(from, to int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for from := int(next.Add(int64(size))) - size; from < n; from = int(next.Add(int64(size))) - size {
				f(from, min(from+size, n))
			}
		})
	}
	wg.Wait()
}

func (s *bench) issueAll(b *testing.B, n int) []ticket.RedeemRequest {
	qs := make([]ticket.RedeemRequest, n)
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 64 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				r := fresh(s.epoch)
				r.Life = time.Hour
				if a, err := s.Issue(context.Background(), r); err != nil || a.Result != ticket.IssueOK {
					b.Errorf("issue: %+v, %v", a, err)
					return
				}
				qs[i] = redeemOf(r)
			}
		})
	}
	wg.Wait()
	return qs
}

// BenchmarkIssue issues from 64 goroutines at once.
func BenchmarkIssue(b *testing.B) {
	s := benchStore(b)
	s.start(b)
	s.issueAll(b, b.N)
	s.end(b)
}

// BenchmarkRedeem spends tickets in batches; issuing them is not measured.
func BenchmarkRedeem(b *testing.B) {
	for _, size := range []int{1, 64, 256} {
		b.Run(fmt.Sprint("batch=", size), func(b *testing.B) {
			s := benchStore(b)
			qs := s.issueAll(b, b.N)
			as := make([]ticket.RedeemAnswer, b.N)
			s.start(b)
			share(b.N, size, func(from, to int) { s.Redeem(context.Background(), qs[from:to], as[from:to]) })
			s.end(b)
			for i := range as {
				if as[i].Result != ticket.RedeemOK {
					b.Fatalf("redeem: %+v", as[i])
				}
			}
		})
	}
}

// BenchmarkAssert is 100,000 clients opening and closing, in batches.
func BenchmarkAssert(b *testing.B) {
	const size = 256
	s := benchStore(b)
	rs, as := make([]ticket.Assertion, b.N), make([]ticket.AssertAnswer, b.N)
	for i := range rs {
		rs[i] = ticket.Assertion{Epoch: s.epoch, Held: ticket.Held{Subject: ticket.Subject(i % 100_000), Incarnation: me, Count: uint32(i & 1), Number: uint64(i + 1)}}
	}
	s.start(b)
	share(b.N, size, func(from, to int) { s.Assert(context.Background(), rs[from:to], as[from:to]) })
	s.end(b)
	for i := range as {
		if !as[i].OK {
			b.Fatalf("assert: %+v", as[i])
		}
	}
}

// BenchmarkRenew is one heartbeat among so many nodes, each of which has registered three shards.
func BenchmarkRenew(b *testing.B) {
	for _, nodes := range []int{1, 10, 100} {
		b.Run(fmt.Sprint("nodes=", nodes), func(b *testing.B) {
			s := benchStore(b)
			on := []ticket.ShardEpoch{{Shard: 0, Epoch: 1}, {Shard: 5461, Epoch: 2}, {Shard: 10923, Epoch: 3}}
			renew := func(i, n int) {
				_, err := s.Renew(context.Background(), &ticket.RenewRequest{Incarnation: ticket.Incarnation(1 + i), Name: "gw-" + strconv.Itoa(i),
					Lease: time.Hour, Number: uint64(n), Acked: uint64(n) - 1, Enter: n == 1, Registered: on, Topology: 1})
				if err != nil {
					b.Fatal(err)
				}
			}
			for i := range nodes {
				renew(i, 1)
			}
			s.start(b)
			for i := range b.N {
				renew(i%nodes, 2+i/nodes)
			}
			s.end(b)
		})
	}
}

// TestBytes pins what docs/memory.md tells of Redis 7.0; other versions and allocators differ a little.
func TestBytes(t *testing.T) {
	server := redistest.Start(t)
	s, c := quick(t, server), raw(t, server)
	v, _ := answers(t, s)
	const prefix = "tg:{002a}:"
	usage := func(key string) int64 {
		t.Helper()
		n, err := c.Do(t.Context(), c.B().MemoryUsage().Key(prefix+key).Build()).AsInt64()
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		return n
	}
	want := func(what string, got, most int64) {
		t.Helper()
		t.Logf("%s: %d bytes", what, got)
		if got > most || got < most*8/10 {
			t.Errorf("%s takes %d bytes, want %d at most and not much less", what, got, most)
		}
	}
	var rs []*ticket.IssueRequest
	for range 2 {
		r := fresh(v.Seen.Epoch)
		r.Subject, r.Grant = 42, make([]byte, 150)
		if a, err := s.Issue(t.Context(), r); err != nil || a.Result != ticket.IssueOK {
			t.Fatalf("issue: %+v, %v", a, err)
		}
		rs = append(rs, r)
		if len(rs) == 1 {
			want("a ticket", usage(fmt.Sprintf("t:%x", r.Ticket)), 340)
			want("reservations of a client with one", usage("r:000000000000002a"), 150)
		}
	}
	want("reservations of a client with two", usage("r:000000000000002a"), 185)
	as := make([]ticket.RedeemAnswer, 1)
	s.Redeem(t.Context(), []ticket.RedeemRequest{redeemOf(rs[0])}, as)
	want("a client with sockets at one node", usage("h:000000000000002a"), 150)
}
