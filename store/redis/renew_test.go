package redis_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"ticketgate/store/redis"
	"ticketgate/store/redistest"
	"ticketgate/ticket"
)

// renewal is me's next. Its numbers go on over all stores, so that the last acknowledged one is that before.
func renewal() *ticket.RenewRequest {
	n := renewals.Add(1)
	return &ticket.RenewRequest{Incarnation: me, Name: "gw-1", Lease: time.Hour, Number: n, Acked: n - 1, Enter: n == 1}
}

func renewed(t *testing.T, s *redis.Store, r *ticket.RenewRequest) ticket.View {
	t.Helper()
	v, err := s.Renew(t.Context(), r)
	if err != nil {
		t.Fatalf("renew: %v", err)
	}
	return v
}

func do(t *testing.T, c rueidis.Client, words ...string) string {
	t.Helper()
	m, err := c.Do(t.Context(), c.B().Arbitrary(words...).Build()).ToMessage()
	if err != nil {
		t.Fatalf("%v: %v", words, err)
	}
	text, _ := m.ToString() // "" if it is a number
	return text
}

// atOnce lets replicas follow at once; they wait for each other else, for 5 s.
var atOnce = redistest.Args("--repl-diskless-sync-delay", "0")

// replicaOf starts a replica and returns when it follows.
func replicaOf(t *testing.T, server *redistest.Server, options ...redistest.Option) *redistest.Server {
	t.Helper()
	host, port, err := net.SplitHostPort(server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	r := redistest.Start(t, append(options, redistest.Args("--replicaof", host, port))...)
	follows(t, server)
	return r
}

// follows returns when one replica has all that its primary has.
func follows(t *testing.T, server *redistest.Server) {
	t.Helper()
	c := raw(t, server)
	write := c.B().Set().Key("nobody:reads").Value("1").Build()
	for _, r := range c.DoMulti(t.Context(), write, c.B().Wait().Numreplicas(1).Timeout(20_000).Build())[1:] {
		if n, err := r.AsInt64(); err != nil || n != 1 {
			t.Fatalf("%d replicas follow, %v", n, err)
		}
	}
}

// TestReplica: a renewal tells how many have it; a replica answers nobody; and when it is promoted, it says after whom.
func TestReplica(t *testing.T) {
	server := redistest.Start(t, atOnce)
	replica := replicaOf(t, server)
	s, r := quick(t, server), quick(t, replica)
	first, _ := answers(t, s)
	q := renewal()
	q.Replicas = 1
	if v := renewed(t, s, q); v.Acks != 1 || v.Seen != first.Seen || v.Seen.Prev != 0 {
		t.Errorf("%+v, want one replica to have it", v)
	}
	kept := fresh(first.Seen.Epoch)
	if a, err := s.Issue(t.Context(), kept); err != nil || a.Result != ticket.IssueOK {
		t.Fatalf("issue: %+v, %v", a, err)
	}
	if seen, err := r.Ask(t.Context(), 0); !errors.Is(err, ticket.ErrUnavailable) {
		t.Errorf("a replica was asked: %+v, %v", seen, err)
	}
	if v, err := r.Renew(t.Context(), renewal()); !errors.Is(err, ticket.ErrUnavailable) {
		t.Errorf("a replica renewed: %+v, %v", v, err)
	}
	renewals.Add(^uint64(0)) // it was not acknowledged

	replica.Pause()
	q = renewal()
	q.Replicas = 1
	start := time.Now()
	if v := renewed(t, s, q); v.Acks != 0 || time.Since(start) < redis.RenewalTime/2 {
		t.Errorf("%+v after %v, want that the replica does not have it", v, time.Since(start))
	}
	replica.Continue()
	follows(t, server)
	server.Kill()
	do(t, raw(t, replica), "REPLICAOF", "NO", "ONE")
	v, _ := answers(t, r)
	if v.Seen.Epoch == first.Seen.Epoch || v.Seen.Prev != first.Seen.Epoch || !v.Grace || len(v.Nodes) != 1 {
		t.Errorf("promoted: %+v, want a grace after %x", v, first.Seen.Epoch)
	}
	as := make([]ticket.RedeemAnswer, 1)
	r.Redeem(t.Context(), []ticket.RedeemRequest{redeemOf(kept)}, as)
	if as[0].Result != ticket.RedeemEpoch || as[0].Seen != v.Seen {
		t.Errorf("redeem: %+v, want another epoch, seen %+v", as[0], v.Seen)
	}
	if seen, err := r.Ask(t.Context(), 0); err != nil || seen != v.Seen {
		t.Errorf("ask: %+v, %v, want %+v", seen, err, v.Seen)
	}
}

// TestGraceAfterLoss: only a server that has written everything to its own disk, and has no replica that could have less, ends
// a grace before its time.
func TestGraceAfterLoss(t *testing.T) {
	t.Run("promoted", func(t *testing.T) {
		server := redistest.Start(t, redistest.WithAOF(), atOnce)
		replica := replicaOf(t, server, redistest.WithAOF())
		answers(t, quick(t, server))
		follows(t, server)
		server.Kill()
		do(t, raw(t, replica), "REPLICAOF", "NO", "ONE")
		s := quick(t, replica)
		answers(t, s)
		if v := renewed(t, s, renewal()); !v.Grace {
			t.Errorf("%+v: no grace at a former replica", v)
		}
	})
	t.Run("has a replica", func(t *testing.T) {
		server := redistest.Start(t, redistest.WithAOF(), atOnce)
		replicaOf(t, server)
		s := quick(t, server)
		answers(t, s)
		follows(t, server)
		server.Kill()
		server.Restart()
		follows(t, server)
		answers(t, s)
		if v := renewed(t, s, renewal()); !v.Grace {
			t.Errorf("%+v: no grace at a server with a replica", v)
		}
	})
	t.Run("alone", func(t *testing.T) {
		server := redistest.Start(t, redistest.WithAOF(), atOnce)
		s := quick(t, server)
		answers(t, s)
		server.Kill()
		server.Restart()
		answers(t, s)
		if v := renewed(t, s, renewal()); v.Grace || len(v.Nodes) != 1 {
			t.Errorf("%+v: a grace though nothing was lost", v)
		}
	})
}

// TestRenewAtHungServer: a renewal is given up in time, with replicas or without, and the next one passes.
func TestRenewAtHungServer(t *testing.T) {
	server := redistest.Start(t)
	s := quick(t, server)
	for i, replicas := range []int{0, 1, 1} {
		answers(t, s)
		if i == 2 { // now on a connection that has been there
			q := renewal()
			q.Replicas = replicas
			renewed(t, s, q)
		}
		server.Pause()
		q := renewal()
		q.Replicas = replicas
		start := time.Now()
		if v, err := s.Renew(t.Context(), q); !errors.Is(err, ticket.ErrUnavailable) {
			t.Errorf("%d replicas, hung: %+v, %v", replicas, v, err)
		}
		if took := time.Since(start); took > slack*(redis.RenewalTime+time.Second) {
			t.Errorf("%d replicas: given up after %v", replicas, took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if v, err := s.Renew(ctx, renewal()); !errors.Is(err, ticket.ErrUnavailable) {
			t.Errorf("%d replicas, cancelled: %+v, %v", replicas, v, err)
		}
		server.Continue()
	}
	answers(t, s)
}

// TestCrowded: the list of incarnations is bounded.
func TestCrowded(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server, "tg:")
	all := &ticket.RenewRequest{Incarnation: 1, Lease: time.Hour, Number: 1, Enter: true}
	for i := range ticket.Incarnation(4095) {
		all.Former = append(all.Former, 100+i)
	}
	if v := renewed(t, s, all); len(v.Nodes) != 4096 {
		t.Fatalf("%d in the list", len(v.Nodes))
	}
	one := &ticket.RenewRequest{Incarnation: 2, Lease: time.Hour, Number: 1, Enter: true}
	if v, err := s.Renew(t.Context(), one); !errors.Is(err, ticket.ErrUnavailable) || !strings.Contains(err.Error(), "restarted") {
		t.Errorf("one more: %+v, %v", v, err)
	}
	all.Number++
	renewed(t, s, all)
}

// TestManyHolders: an answer to a refused issue is bounded, whoever has been counting.
func TestManyHolders(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server, "tg:")
	v, _ := answers(t, s)
	rs := make([]ticket.Assertion, 1003)
	for i := range rs {
		rs[i] = ticket.Assertion{Epoch: v.Seen.Epoch, Held: ticket.Held{Subject: 7, Incarnation: ticket.Incarnation(i + 1), Count: 1, Number: 1}}
	}
	s.Assert(t.Context(), rs, make([]ticket.AssertAnswer, len(rs)))
	r := fresh(v.Seen.Epoch)
	r.Subject, r.Limit = 7, 1000
	a, err := s.Issue(t.Context(), r)
	if err != nil || a.Result != ticket.IssueFull || a.Used != 1003 || len(a.Counted) != 1000 {
		t.Errorf("issue: result %d, used %d, %d counted, %v", a.Result, a.Used, len(a.Counted), err)
	}
}

// TestForeignEntries: what others wrote under our keys is an error, not a view.
func TestForeignEntries(t *testing.T) {
	server := redistest.Start(t)
	s, c := open(t, server, "tg:"), raw(t, server)
	renewed(t, s, &ticket.RenewRequest{Incarnation: 1, Lease: time.Hour, Number: 1, Enter: true})
	good := do(t, c, "HGET", "tg:{nodes}:entries", "0000000000000001")
	for name, entry := range map[string]string{
		"empty": "", "short": good[:40], "no count": good[:61] + "zzzz" + good[65:], "registered more than there is": good[:61] + "0009",
		"letters in its number": good[:20] + "x" + good[21:], "letters in its end": good[:5] + "x" + good[6:],
	} {
		do(t, c, "HSET", "tg:{nodes}:entries", "00000000000000ff", entry)
		if v, err := s.Renew(t.Context(), &ticket.RenewRequest{Incarnation: 2, Lease: time.Hour, Number: 1, Enter: true}); !errors.Is(err, ticket.ErrUnavailable) {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
		do(t, c, "HDEL", "tg:{nodes}:entries", "0000000000000002")
	}
	do(t, c, "HDEL", "tg:{nodes}:entries", "00000000000000ff")
	do(t, c, "HSET", "tg:{nodes}:entries", "node", good)
	if v, err := s.Renew(t.Context(), &ticket.RenewRequest{Incarnation: 2, Lease: time.Hour, Number: 1, Enter: true}); !errors.Is(err, ticket.ErrUnavailable) {
		t.Errorf("no incarnation: %+v, %v", v, err)
	}
}

// everything calls each script once, on each of its ways that touches a key.
func everything(t *testing.T, s *redis.Store) {
	t.Helper()
	ctx := t.Context()
	seen, err := s.Ask(ctx, 0)
	if err != nil {
		t.Fatalf("ask: %v", err)
	}
	for i := range 2 {
		q := renewal()
		q.Registered, q.Former, q.Replicas = []ticket.ShardEpoch{{Epoch: seen.Epoch}}, []ticket.Incarnation{0xdd}, i
		q.Acked, q.Enter = 0, true
		renewed(t, s, q)
	}
	var all []*ticket.IssueRequest
	for range 3 {
		r := fresh(seen.Epoch)
		r.Dead, r.Reserve, r.Subject = []ticket.Incarnation{0xdd}, time.Hour, 0x4321
		if a, err := s.Issue(ctx, r); err != nil || a.Result != ticket.IssueOK {
			t.Fatalf("issue: %+v, %v", a, err)
		}
		all = append(all, r)
	}
	rs := make([]ticket.RedeemAnswer, 1)
	s.Redeem(ctx, []ticket.RedeemRequest{redeemOf(all[0])}, rs)
	if rs[0].Result != ticket.RedeemOK {
		t.Errorf("redeem: %+v", rs[0])
	}
	full := fresh(seen.Epoch)
	full.Subject, full.Limit = 0x4321, 1
	if a, err := s.Issue(ctx, full); err != nil || a.Result != ticket.IssueFull || len(a.Counted) != 1 {
		t.Errorf("issue: %+v, %v", a, err)
	}
	as := make([]ticket.AssertAnswer, 1)
	s.Assert(ctx, []ticket.Assertion{{Held: ticket.Held{Subject: 0x4321, Incarnation: me, Number: 2}, Epoch: seen.Epoch, Spent: []ticket.Hash{all[1].Ticket}}}, as)
	if !as[0].OK {
		t.Errorf("assert: %+v", as[0])
	}
	if used, err := s.Used(ctx, 0x4321, []ticket.Incarnation{3}); err != nil || used != 1 {
		t.Errorf("used: %d, %v", used, err)
	}
	if ok, err := s.Revoke(ctx, &ticket.RevokeRequest{Ticket: all[2].Ticket, Subject: 0x4321, Owner: "key-1"}); err != nil || !ok {
		t.Errorf("revoke: %v, %v", ok, err)
	}
}

// TestClusterMode: a server in cluster mode refuses a script that touches a key which it did not name, or two slots.
func TestClusterMode(t *testing.T) {
	server := redistest.Start(t, redistest.Args("--cluster-enabled", "yes"))
	c := raw(t, server)
	do(t, c, "CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	for start := time.Now(); !strings.Contains(do(t, c, "CLUSTER", "INFO"), "cluster_state:ok"); runtime.Gosched() {
		if time.Since(start) > 20*time.Second {
			t.Fatal("the cluster does not come up")
		}
	}
	everything(t, ready(t, openAt(t, redis.Options{Addresses: []string{server.Addr()}, Prefix: "tg:"})))
}
