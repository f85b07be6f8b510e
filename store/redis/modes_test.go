package redis_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ticketgate/revoke"
	"ticketgate/store/model"
	"ticketgate/store/redis"
	"ticketgate/store/redistest"
	"ticketgate/store/storetest"
	"ticketgate/ticket"
)

// rules are what docs/cluster.md says that the gateways' user may do.
func rules(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/cluster.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "user ticketgate on >"); ok {
			_, rest, _ = strings.Cut(strings.TrimSpace(rest), " ")
			return rest
		}
	}
	t.Fatal("docs/cluster.md has no line with the user's rules")
	return ""
}

// A site is one way of running Redis.
type site struct {
	name string
	// start returns the servers, too, and who the primaries are, by the shards of the store.
	start func(t testing.TB, options ...redistest.Option) (redis.Options, []*redistest.Server, func(ticket.Shard) *redistest.Server)
}

var sites = []site{
	{"single", func(t testing.TB, options ...redistest.Option) (redis.Options, []*redistest.Server, func(ticket.Shard) *redistest.Server) {
		server := redistest.Start(t, options...)
		return redis.Options{URL: server.URL()}, []*redistest.Server{server}, func(ticket.Shard) *redistest.Server { return server }
	}},
	{"sentinel", func(t testing.TB, options ...redistest.Option) (redis.Options, []*redistest.Server, func(ticket.Shard) *redistest.Server) {
		r := redistest.StartSentinel(t, options...)
		return sentinelOptions(r), r.Servers, func(ticket.Shard) *redistest.Server { return r.Primary() }
	}},
	{"cluster", func(t testing.TB, options ...redistest.Option) (redis.Options, []*redistest.Server, func(ticket.Shard) *redistest.Server) {
		c := redistest.StartCluster(t, options...)
		return redis.Options{Addresses: c.Addrs()[:2]}, c.Servers, func(s ticket.Shard) *redistest.Server { return c.Primary(int(s)) }
	}},
}

func sentinelOptions(r *redistest.Replicated) redis.Options {
	return redis.Options{Addresses: r.Addrs(), Sentinel: redis.Sentinel{Master: redistest.Master}}
}

// openAt returns a store of what o names.
func openAt(t testing.TB, o redis.Options) *redis.Store {
	t.Helper()
	s, err := redis.New(o)
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, s)
	return s
}

// TestEverywhere: the same store, whichever way Redis is run, with TLS and as a user who may do no more than needed.
func TestEverywhere(t *testing.T) {
	clock := raw(t, redistest.Start(t))     // the servers' clocks are this host's
	used := map[string]bool{"asking": true} // that one TestSlotMoves needs
	for _, site := range sites {
		t.Run(site.name, func(t *testing.T) {
			certs := redistest.NewCerts(t)
			o, servers, primary := site.start(t, redistest.WithTLS(certs), redistest.WithACL(rules(t)))
			o.TLS, o.Timeout = certs.Client, 5*time.Second
			if o.URL == "" {
				o.User, o.Password = redistest.User, redistest.Password
			}
			opened := 0
			storetest.Run(t, func(t *testing.T) storetest.Harness {
				opened++
				o := o
				o.Prefix = fmt.Sprintf("tg:%d:", opened)
				store := joined(t, ready(t, openAt(t, o)), primary)
				shifted := time.Duration(0)
				return storetest.Harness{
					Store: store,
					Model: &model.Primary{State: model.NewState()},
					Walks: 10, // TestStore makes more
					Now:   func(t testing.TB) time.Time { return serverTime(t, clock).Add(shifted) },
					Advance: func(t testing.TB, d time.Duration) {
						if d < time.Second {
							pass(t, clock, d)
							return
						}
						for shard := range store.epochs {
							if _, err := primary(shard).Do("EVAL", shiftLua, "0", o.Prefix, strconv.FormatInt(d.Milliseconds(), 10)); err != nil {
								t.Fatal(err)
							}
						}
						shifted += d
					},
				}
			})
			o.Prefix = "tg:"
			s := ready(t, openAt(t, o))
			listenAt(t, s, "revoked").want(t, "up true")
			if err := s.Revocations().Publish(t.Context(), []revoke.Revocation{revocation("everywhere")}); err != nil {
				t.Errorf("publish: %v", err)
			}
			if page, err := s.Revocations().Read(t.Context(), revoke.Place{}, 10); err != nil || len(page.Texts) != 1 {
				t.Errorf("read: %+v, %v", page, err)
			}
			l := listenAt(t, s, "evict:1")
			l.want(t, "up true")
			if err := s.Publish(context.Background(), []ticket.Message{{Channel: "evict:1", Payload: []byte("it")}}); err != nil {
				t.Error(err)
			}
			l.want(t, "it")
			if o, _ := s.CountRenewed(context.Background(), "tg:{nodes}:n", 1); o.Err == nil || !strings.Contains(o.Err.Error(), "can't run this command") {
				t.Errorf("a script that does what the user may not: %+v", o)
			}
			note(t, used, servers)
		})
	}
	for _, rule := range strings.Fields(rules(t)) {
		if command, ok := strings.CutPrefix(rule, "+"); ok && !used[command] {
			t.Errorf("the user may run %s, which nothing needs", command)
		}
	}
}

// note adds the commands that were run to used.
func note(t *testing.T, used map[string]bool, servers []*redistest.Server) {
	t.Helper()
	for _, server := range servers {
		text, err := server.Do("INFO", "commandstats")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text.(string)) {
			if name, _, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":"); ok {
				used[name] = true
			}
		}
	}
}

// ready waits until every shard answers.
func ready(t testing.TB, s *redis.Store) *redis.Store {
	t.Helper()
	eventually(t, "all shards answer", func() bool { return s.Stats().Up })
	return s
}

// eventually asks every 5 ms.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(60 * time.Second); !is(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// A oneShard is a store of which all shards pass for the one that keeps the list of nodes, as the suite wants.
type oneShard struct {
	*redis.Store
	topology *ticket.Topology
	epochs   map[ticket.Shard]ticket.Epoch
	seen     ticket.ShardEpoch // of the one
}

func joined(t testing.TB, s *redis.Store, primary func(ticket.Shard) *redistest.Server) *oneShard {
	t.Helper()
	out := &oneShard{Store: s, epochs: make(map[ticket.Shard]ticket.Epoch)}
	top := s.Topology()
	for _, shard := range top.Shards {
		out.epochs[shard] = epochAt(t, primary(shard))
	}
	one := top.Shards[top.Nodes]
	out.topology = &ticket.Topology{ID: 1, Shards: []ticket.Shard{one}}
	var err error
	if out.seen, err = s.Ask(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	return out
}

// own is the epoch of the shard that keeps u, if e is that of the one.
func (s *oneShard) own(u ticket.Subject, e ticket.Epoch) ticket.Epoch {
	if e == s.seen.Epoch {
		return s.epochs[s.Store.Topology().Of(u)]
	}
	return e
}

// joint is what an answer has seen, if that is what it had to see.
func (s *oneShard) joint(u ticket.Subject, seen ticket.ShardEpoch) ticket.ShardEpoch {
	if shard := s.Store.Topology().Of(u); seen.Shard == shard && seen.Epoch == s.epochs[shard] {
		return s.seen
	}
	return seen
}

func (s *oneShard) Topology() *ticket.Topology { return s.topology }

func (s *oneShard) Issue(ctx context.Context, r *ticket.IssueRequest) (ticket.IssueAnswer, error) {
	own := *r
	own.Epoch = s.own(r.Subject, r.Epoch)
	a, err := s.Store.Issue(ctx, &own)
	a.Seen = s.joint(r.Subject, a.Seen)
	return a, err
}

func (s *oneShard) Redeem(ctx context.Context, rs []ticket.RedeemRequest, as []ticket.RedeemAnswer) {
	rs = slices.Clone(rs)
	for i := range rs {
		rs[i].Epoch = s.own(rs[i].Held.Subject, rs[i].Epoch)
	}
	s.Store.Redeem(ctx, rs, as)
	for i := range as {
		as[i].Seen = s.joint(rs[i].Held.Subject, as[i].Seen)
	}
}

func (s *oneShard) Assert(ctx context.Context, rs []ticket.Assertion, as []ticket.AssertAnswer) {
	rs = slices.Clone(rs)
	for i := range rs {
		rs[i].Epoch = s.own(rs[i].Subject, rs[i].Epoch)
	}
	s.Store.Assert(ctx, rs, as)
	for i := range as {
		as[i].Seen = s.joint(rs[i].Subject, as[i].Seen)
	}
}

// epochAt is the server's epoch as its administrator sees it.
func epochAt(t testing.TB, server *redistest.Server) ticket.Epoch {
	t.Helper()
	info, err := server.Do("INFO", "replication")
	if err != nil {
		t.Fatal(err)
	}
	_, id, _ := strings.Cut(info.(string), "master_replid:")
	n, err := strconv.ParseUint(id[:8], 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	return ticket.Epoch(n)
}
