package limiter_test

import (
	"errors"
	"net/netip"
	"testing"

	"ticketgate/limiter"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// TestPerWhom: which sockets share a bucket under each per. Every row is the same limit of one message; the second socket's
// message is refused exactly if it shares the first one's bucket.
func TestPerWhom(t *testing.T) {
	ann := limiter.Who{Client: "ann", Key: "k1", Addr: addr("192.0.2.1"), Stream: "chat", Node: "gw-1"}
	with := func(change func(w *limiter.Who)) limiter.Who {
		w := ann
		change(&w)
		return w
	}
	bob := func(w *limiter.Who) { w.Client = "bob" }
	quotes := func(w *limiter.Who) { w.Stream = "quotes" }
	key := func(w *limiter.Who) { w.Key = "k2" }
	elsewhere := func(a string) func(*limiter.Who) { return func(w *limiter.Who) { w.Addr = addr(a) } }
	node := func(w *limiter.Who) { w.Node = "gw-2" }
	for _, c := range []struct {
		per    string
		change func(*limiter.Who)
		shares bool
	}{
		{"connection", func(*limiter.Who) {}, false},
		{"client", quotes, true}, {"client", key, true}, {"client", bob, false},
		{"key", bob, true}, {"key", key, false},
		{"stream", bob, true}, {"stream", quotes, false},
		{"plan", bob, true}, {"plan", quotes, true},
		{"node", bob, true}, {"node", node, false},
		{"ip", bob, true}, {"ip", elsewhere("192.0.2.2"), false}, {"ip", elsewhere("::ffff:192.0.2.1"), true},
		{"[client, stream]", key, true}, {"[client, stream]", quotes, false}, {"[client, stream]", bob, false},
		{"[stream, client]", key, true},
		{"[key, ip, node]", bob, true}, {"[key, ip, node]", elsewhere("192.0.2.9"), false}, {"[key, ip, node]", node, false},
	} {
		p := plan(t, "messages-in: { rate: 1/1minute, when_exceeded: close, per: "+c.per+" }")
		tb, clk := newTable(8)
		var first, second limiter.Row
		for row, w := range map[*limiter.Row]limiter.Who{&first: ann, &second: with(c.change)} {
			if err := p.Bind(row, tb, w); err != nil {
				t.Fatal(err)
			}
		}
		p.Message(&first, tb, limiter.In, true, 1, clk.Now())
		if v := p.Message(&second, tb, limiter.In, true, 1, clk.Now()); (v.Action == limiter.Close) != c.shares {
			t.Errorf("per %s, %+v: %s; shares the bucket: want %v", c.per, with(c.change), say(v), c.shares)
		}
		p.Unbind(&first, tb)
		p.Unbind(&second, tb)
		if s := stats(tb); s.Held != 0 {
			t.Errorf("per %s: %d buckets stay held", c.per, s.Held)
		}
	}
}

// TestPerIPIsPerHousehold: of IPv6 the /64 counts, as a provider gives one to each line.
func TestPerIPIsPerHousehold(t *testing.T) {
	name := func(a string) string {
		n, ok := limiter.PerIP.Name(&limiter.Who{Addr: addr(a)})
		if !ok {
			t.Errorf("%s has no name", a)
		}
		return n
	}
	if name("2001:db8:1:2::1") != name("2001:db8:1:2:ffff:ffff:ffff:ffff") {
		t.Error("two addresses of one /64 have two buckets")
	}
	if name("2001:db8:1:2::1") == name("2001:db8:1:3::1") {
		t.Error("two /64 share a bucket")
	}
	if name("::1") == name("0.0.0.1") || name("::1") == name("192.0.2.1") {
		t.Error("an IPv6 and an IPv4 address share a bucket")
	}
}

// TestNamesOfListsDiffer: what two names are joined to says where one ends.
func TestNamesOfListsDiffer(t *testing.T) {
	per := limiter.Per("client,stream")
	seen := map[string]limiter.Who{}
	for _, w := range []limiter.Who{
		{Client: "a", Stream: "bc"}, {Client: "ab", Stream: "c"}, {Client: "a,b", Stream: "c"}, {Client: "a", Stream: "b,c"},
		{Client: "\x00\x00\x00\x01a", Stream: "bc"}, {Client: "abc", Stream: "abc"},
	} {
		n, ok := per.Name(&w)
		if was, again := seen[n]; !ok || again {
			t.Errorf("%+v and %+v: %q, %v", w, was, n, ok)
		}
		seen[n] = w
	}
}

func TestWhoHasNoSuchName(t *testing.T) {
	whole := limiter.Who{Client: "ann", Key: "k", Addr: addr("192.0.2.1"), Stream: "chat", Node: "gw-1"}
	for per, w := range map[string]limiter.Who{
		"client": {Key: "k"}, "key": {Client: "ann"}, "ip": {Client: "ann"}, "stream": {Client: "ann"}, "node": {Client: "ann"},
		"[client, ip]": {Client: "ann"}, "[client, stream]": {Stream: "chat"},
	} {
		p := plan(t, "bytes-in: { rate: 1/1minute }\nmessages-in: { rate: 1/1minute, per: "+per+" }")
		tb, _ := newTable(4)
		var r limiter.Row
		if err := p.Bind(&r, tb, w); !errors.Is(err, limiter.ErrNoName) || r != (limiter.Row{}) || stats(tb).Held != 0 {
			t.Errorf("per %s of %+v: %v, row %v", per, w, err, r)
		}
		if err := p.Bind(&r, tb, whole); err != nil {
			t.Errorf("per %s: %v", per, err)
		}
	}
}
