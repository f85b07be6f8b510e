package redis_test

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

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
	name  string
	start func(t testing.TB, options ...redistest.Option) (redis.Options, []*redistest.Server, *redistest.Cluster)
}

var sites = []site{
	{"single", func(t testing.TB, options ...redistest.Option) (redis.Options, []*redistest.Server, *redistest.Cluster) {
		server := redistest.Start(t, options...)
		return redis.Options{URL: server.URL()}, []*redistest.Server{server}, nil
	}},
	{"sentinel", func(t testing.TB, options ...redistest.Option) (redis.Options, []*redistest.Server, *redistest.Cluster) {
		r := redistest.StartSentinel(t, options...)
		return sentinelOptions(r), r.Servers, nil
	}},
	{"cluster", func(t testing.TB, options ...redistest.Option) (redis.Options, []*redistest.Server, *redistest.Cluster) {
		c := redistest.StartCluster(t, options...)
		return redis.Options{Addresses: c.Addrs()[:2]}, c.Servers, c
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
			o, servers, cluster := site.start(t, redistest.WithTLS(certs), redistest.WithACL(rules(t)))
			o.TLS, o.Timeout = certs.Client, 5*time.Second
			if o.URL == "" {
				o.User, o.Password = redistest.User, redistest.Password
			}
			storetest.Run(t, func(t *testing.T) storetest.Harness {
				o := o
				o.Prefix = "tg:" + t.Name() + ":"
				var store ticket.Store = ready(t, openAt(t, o))
				if cluster != nil {
					store = translate(t, store.(*redis.Store), cluster)
				}
				return storetest.Harness{Store: store, Advance: func(t testing.TB, d time.Duration) { pass(t, clock, d) }}
			})
			o.Prefix = "tg:"
			s := ready(t, openAt(t, o))
			listenAt(t, s, "revoked").want(t, "up true")
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

// A translator is a store whose epoch is that of the shard with the list of nodes, as the suite wants: each shard has another.
type translator struct {
	*redis.Store
	epochs map[ticket.Shard]ticket.Epoch
}

func translate(t testing.TB, s *redis.Store, c *redistest.Cluster) *translator {
	t.Helper()
	out := &translator{s, make(map[ticket.Shard]ticket.Epoch)}
	for _, shard := range s.Topology().Shards {
		out.epochs[shard] = epochAt(t, c.Primary(int(shard)))
	}
	if len(out.epochs) != 3 {
		t.Fatalf("shards %v, want three", s.Topology().Shards)
	}
	return out
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

func (s *translator) own(u ticket.Subject, e ticket.Epoch) ticket.Epoch {
	top := s.Topology()
	if e == s.epochs[top.Shards[top.Nodes]] {
		return s.epochs[top.Of(u)]
	}
	return e
}

func (s *translator) Issue(ctx context.Context, r *ticket.IssueRequest) (ticket.IssueAnswer, error) {
	own := *r
	own.Epoch = s.own(r.Subject, r.Epoch)
	return s.Store.Issue(ctx, &own)
}

func (s *translator) Redeem(ctx context.Context, rs []ticket.RedeemRequest, as []ticket.RedeemAnswer) {
	rs = slices.Clone(rs)
	for i := range rs {
		rs[i].Epoch = s.own(rs[i].Held.Subject, rs[i].Epoch)
	}
	s.Store.Redeem(ctx, rs, as)
}
