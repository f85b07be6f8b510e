package handshake_test

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ticketgate/handshake"
	"ticketgate/limiter"
	"ticketgate/store/memory"
	"ticketgate/ticket"
)

// faultyBank is a memory bank that can be away.
type faultyBank struct {
	*memory.Bank
	down atomic.Bool
}

func (b *faultyBank) Lease(ctx context.Context, asks []limiter.Ask, answers []limiter.Grant) error {
	if b.down.Load() {
		return ticket.ErrUnavailable
	}
	return b.Bank.Lease(ctx, asks, answers)
}

// bankRigs are two nodes with one bank, whose plan "free" has limits. Each has a store of its own, so only the bank joins them.
func bankRigs(t *testing.T, limits map[string]limiter.Options) (a, b *rig, bank *faultyBank) {
	bank = new(faultyBank)
	nodes := []*rig{nil, nil}
	var keys *ticket.KeyRing
	for i, name := range []string{"gw-1", "gw-2"} {
		nodes[i] = start(t, func(g *rig, o *handshake.Options) {
			o.Policy().Plans["free"] = g.plan("free", limits)
			if keys == nil {
				keys, bank.Bank = o.Keys, memory.NewBank(g.clock, 0)
			}
			o.Keys, o.Name, o.Bank = keys, name, bank
		})
	}
	return nodes[0], nodes[1], bank
}

func (g *rig) tickets(client string) answer {
	return g.do(call{method: "POST", path: "/v1/tickets", key: g.key, body: `{"stream":"chat","client":"` + client + `"}`})
}

// TestTicketsOverTheCluster: two nodes issue no more than one limit allows, and say what is left of it.
func TestTicketsOverTheCluster(t *testing.T) {
	a, b, bank := bankRigs(t, map[string]limiter.Options{"connections": {Count: ptr(50)}, "tickets": {Rate: rate("3/1minute"), Scope: "cluster"}})
	for i, g := range []*rig{a, b, a} {
		q := g.tickets("ann")
		if want := `"tickets";r=` + string(rune('2'-i)) + ";t="; q.StatusCode != 201 || !strings.HasPrefix(q.Header.Get("RateLimit"), want) ||
			q.Header.Get("RateLimit-Policy") != `"tickets";q=3;w=60` {
			t.Errorf("ticket %d: %d, %q, %q", i, q.StatusCode, q.Header.Get("RateLimit"), q.Header.Get("RateLimit-Policy"))
		}
	}
	for _, g := range []*rig{a, b} {
		q := g.tickets("ann")
		q.wantProblem(t, 429, "rate-limited", "")
		if q.Header.Get("RateLimit") != `"tickets";r=0;t=20` || q.Header.Get("Retry-After") == "" {
			t.Errorf("%q, Retry-After %q", q.Header.Get("RateLimit"), q.Header.Get("Retry-After"))
		}
	}
	if q := b.tickets("bob"); q.StatusCode != 201 {
		t.Errorf("another client: %d", q.StatusCode)
	}
	l := b.do(call{method: "GET", path: "/v1/limits?client=ann", key: b.key})
	want := `{"name":"tickets","per":"client","configured":"3/1minute","burst":3,"scope":"cluster","store_down":"deny","used":3,"remaining":0,"resets_in":20}`
	if !strings.Contains(string(l.body), want) {
		t.Errorf("%s\nwant %s in it", l.body, want)
	}
	bank.down.Store(true)
	q := a.tickets("carl")
	q.wantProblem(t, 503, "store-unavailable", "")
	if q.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

// TestDailyTickets: a quota of the calendar, of each node or of both, with the moment at which it begins anew.
func TestDailyTickets(t *testing.T) {
	for _, scope := range []string{"node", "cluster"} {
		a, b, _ := bankRigs(t, map[string]limiter.Options{"connections": {Count: ptr(50)}, "tickets": {Rate: rate("2/1day"), Window: "fixed", Scope: scope}})
		for range 2 {
			if q := a.tickets("ann"); q.StatusCode != 201 {
				t.Fatalf("%d %s", q.StatusCode, q.body)
			}
		}
		a.tickets("ann").wantProblem(t, 429, "rate-limited", "")
		if q := b.tickets("ann"); (q.StatusCode == 201) != (scope == "node") {
			t.Errorf("scope %s: the other node answers %d", scope, q.StatusCode)
		}
		now := a.clock.Wall()
		left := limiter.WindowStart(now, 24*time.Hour).Add(24 * time.Hour).Sub(now)
		a.clock.Advance(left - time.Second)
		a.tickets("ann").wantProblem(t, 429, "rate-limited", "")
		a.clock.Advance(time.Second)
		if q := a.tickets("ann"); q.StatusCode != 201 || !strings.HasSuffix(q.Header.Get("RateLimit"), `r=1;t=86400`) {
			t.Errorf("scope %s, the next day: %d, %q", scope, q.StatusCode, q.Header.Get("RateLimit"))
		}
	}
}

// TestSoftTicketsOverTheCluster: what only warns is issued, unless the store is down.
func TestSoftTicketsOverTheCluster(t *testing.T) {
	a, b, bank := bankRigs(t, map[string]limiter.Options{"connections": {Count: ptr(50)}, "tickets": {Rate: rate("1/1hour"), Scope: "cluster", Hard: ptr(false)}})
	for _, g := range []*rig{a, b, b} {
		if q := g.tickets("ann"); q.StatusCode != 201 {
			t.Errorf("%d %s", q.StatusCode, q.body)
		}
	}
	var s handshake.Stats
	if b.Stats(&s); s.Decisions[handshake.Decision{Limit: "tickets", Plan: "free", Decision: "soft"}] != 2 {
		t.Errorf("%v", s.Decisions)
	}
	bank.down.Store(true)
	a.tickets("ann").wantProblem(t, 503, "store-unavailable", "")
}

// TestLimitsOfTheCluster: GET /v1/limits tells the cluster's figures of limits on messages, and of the store's trouble.
func TestLimitsOfTheCluster(t *testing.T) {
	a, b, bank := bankRigs(t, map[string]limiter.Options{
		"connections": {Count: ptr(50)},
		"bytes-in":    {Rate: rate("1MiB/1second"), Per: limiter.PerIP, Scope: "cluster"},
		"calls-daily": {Counts: "messages-in", Rate: rate("1000/1day"), Window: "fixed", Per: limiter.PerKey, Scope: "cluster", StoreDown: "allow"},
		"messages-in": {Rate: rate("20/1second"), Per: "client,stream", Scope: "cluster", StoreDown: "deny"},
	})
	plan := a.made.Policy().Plans["free"]
	for _, l := range plan.Limits() {
		who := &limiter.Who{Client: "ann", Key: "app", Stream: "chat"}
		name, _ := l.Per.Name(who)
		s := limiter.Bucket(a.made.Keys.Subject, "free", l.Name, l.Per, name, l.Home("gw-1"))
		var g [1]limiter.Grant
		if err := bank.Lease(t.Context(), []limiter.Ask{{Bucket: s, Terms: l.Terms(), Want: 5}}, g[:]); err != nil {
			t.Fatal(err)
		}
	}
	q := b.do(call{method: "GET", path: "/v1/limits?client=ann", key: b.key})
	now := b.clock.Wall()
	for _, want := range []string{
		`{"name":"bytes-in","per":"ip","configured":"1MiB/1second","burst":1048576,"scope":"cluster","store_down":"local"}`,
		`{"name":"calls-daily","per":"key","configured":"1000/1day","burst":1000,"window":"fixed","scope":"cluster","store_down":"allow","used":5,"remaining":995,"resets_in":` +
			strconv.Itoa(int(limiter.WindowStart(now, 24*time.Hour).Add(24*time.Hour).Sub(now)/time.Second)) + `}`,
		`{"name":"messages-in","per":["client","stream"],"configured":"20/1second","burst":20,"scope":"cluster","store_down":"deny",` +
			`"streams":{"chat":{"used":5,"remaining":15,"resets_in":0},"quotes":{"used":0,"remaining":20,"resets_in":0}}}`,
	} {
		if !strings.Contains(string(q.body), want) {
			t.Errorf("%s\nwant %s in it", q.body, want)
		}
	}
	bank.down.Store(true)
	q = b.do(call{method: "GET", path: "/v1/limits?client=ann", key: b.key})
	if q.StatusCode != 200 || strings.Count(string(q.body), `"degraded":true`) != 2 || !strings.Contains(string(q.body), `"store_down":"allow","degraded":true}`) {
		t.Errorf("with the store down: %d %s", q.StatusCode, q.body)
	}
}
