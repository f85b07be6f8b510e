package limiter_test

import (
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"ticketgate/limiter"
)

func options(t testing.TB, text string) map[string]limiter.Options {
	t.Helper()
	var limits map[string]limiter.Options
	if err := yaml.UnmarshalWithOptions([]byte(text), &limits, yaml.Strict()); err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return limits
}

func plan(t testing.TB, text string) *limiter.Plan {
	t.Helper()
	p, problems := limiter.Compile("free", options(t, text), limiter.Defaults{Window: "token-bucket", Scope: "node", StoreDown: "local"})
	if len(problems) > 0 {
		t.Fatalf("%s\n%v", text, problems)
	}
	return p
}

func TestCompile(t *testing.T) {
	p := plan(t, `
tickets:      { rate: 10/1minute, burst: 20, per: key, hard: false }
connections:  { count: 2, per: [key], when_full: reject }
messages-in:  { rate: 3/1minute, per: client, when_exceeded: close }
messages-out: { rate: 5/1minute, per: [client], when_exceeded: drop-newest }
bytes-in:     { rate: 1MiB/1second, burst: 256KiB, when_exceeded: pause, hard: true, store_down: deny }
bytes-out:    { rate: 65536/1second, burst: 1000, per: key, hard: false }
calls-hourly: { counts: messages-in, rate: 1000/1hour, per: key, window: token-bucket, scope: node }
`)
	if p.Name != "free" || p.Connections != (limiter.Connections{Count: 2, Per: limiter.PerKey}) {
		t.Errorf("plan %q, connections %+v", p.Name, p.Connections)
	}
	if k := p.Tickets; k.Rate != (limiter.Rate{N: 10, Per: time.Minute}) || k.Burst != 20 || k.Per != limiter.PerKey || k.Hard || k.Meter != limiter.NewMeter(k.Rate, 20) {
		t.Errorf("tickets %+v", k)
	}
	want := []limiter.Limit{
		{Name: "bytes-in", Counts: limiter.BytesIn, Per: limiter.PerConnection, Rate: limiter.Rate{N: 1 << 20, Per: time.Second, Bytes: true}, Burst: 256 << 10, Action: limiter.Pause, Down: limiter.DownDeny},
		{Name: "bytes-out", Counts: limiter.BytesOut, Per: limiter.PerKey, Rate: limiter.Rate{N: 65536, Per: time.Second, Bytes: true}, Burst: 1000, Action: limiter.Warn},
		{Name: "calls-hourly", Counts: limiter.MessagesIn, Per: limiter.PerKey, Rate: limiter.Rate{N: 1000, Per: time.Hour}, Burst: 1000, Action: limiter.Close},
		{Name: "messages-in", Counts: limiter.MessagesIn, Per: limiter.PerClient, Rate: limiter.Rate{N: 3, Per: time.Minute}, Burst: 3, Action: limiter.Close},
		{Name: "messages-out", Counts: limiter.MessagesOut, Per: limiter.PerClient, Rate: limiter.Rate{N: 5, Per: time.Minute}, Burst: 5, Action: limiter.Drop},
	}
	got := p.Limits()
	if len(got) != len(want) {
		t.Fatalf("%d limits, want %d", len(got), len(want))
	}
	for i, w := range want {
		w.Index, w.Reason, w.Meter = i, "limit:"+w.Name, limiter.NewMeter(w.Rate, w.Burst)
		if got[i] != w {
			t.Errorf("limit %d is\n%+v, want\n%+v", i, got[i], w)
		}
	}
}

func TestDefaults(t *testing.T) {
	for _, text := range []string{"{}", "messages-in: { rate: 3/1minute }"} {
		p := plan(t, text)
		if p.Connections != (limiter.Connections{Count: 10, Per: limiter.PerClient}) {
			t.Errorf("%s: connections %+v, want 10 per client", text, p.Connections)
		}
		want := limiter.Tickets{Rate: limiter.Rate{N: 60, Per: time.Minute}, Burst: 60, Per: limiter.PerClient, Hard: true}
		want.Meter = limiter.NewMeter(want.Rate, 60)
		if p.Tickets != want {
			t.Errorf("%s: tickets %+v, want %+v", text, p.Tickets, want)
		}
	}
	if l := plan(t, "messages-in: { rate: 3/1minute }").Limits()[0]; l.Action != limiter.Close || l.Per != limiter.PerConnection || l.Burst != 3 {
		t.Errorf("messages-in with nothing but a rate: %+v", l)
	}
	if p := plan(t, "tickets: { rate: 5/1second, when_exceeded: warn }"); p.Tickets.Hard {
		t.Error("tickets with when_exceeded: warn are hard")
	}
}

// problems: each entry is one mistake; says must be in its message, and at is where.
var problems = []struct{ text, at, says string }{
	{"connections: { count: 0 }", "connections.count", "0 never means unlimited"},
	{"connections: { count: -1 }", "connections.count", "1 to 10000000"},
	{"connections: { count: 10000001 }", "connections.count", "1 to 10000000"},
	{"connections: { per: client }", "connections", "no count"},
	{"connections: { count: 2, per: ip }", "connections.per", "cannot be per ip"},
	{"connections: { count: 2, per: connection }", "connections.per", "does not exist yet when the ticket is issued; use one of client, key, stream, plan, or a list of them"},
	{"connections: { count: 2, per: [client, ip] }", "connections.per", "cannot be per ip: the address is not known when the ticket is issued"},
	{"connections: { count: 2, per: node }", "connections.per", "listen.gate.admit.connections bounds a node"},
	{"connections: { count: 2, per: clients }", "connections.per", `did you mean "client"?`},
	{"connections: { count: 2, when_full: evict-youngest }", "connections.when_full", `use one of evict-idlest, evict-oldest, reject, warn`},
	{"connections: { count: 2, when_full: rejekt }", "connections.when_full", `did you mean "reject"?`},
	{"connections: { count: 2, rate: 3/1minute }", "connections.rate", `rate does not apply to "connections"`},
	{"connections: { count: 2, hard: false }", "connections.hard", "does not apply"},
	{"connections: { count: 2, scope: node }", "connections.scope", "does not apply"},
	{"connections: { count: 2, window: token-bucket }", "connections.window", "does not apply"},
	{"connections: { count: 2, store_down: allow }", "connections.store_down", "does not apply"},
	{"tickets: { per: client }", "tickets", "no rate"},
	{"tickets: { rate: 3/1minute, per: connection }", "tickets.per", "cannot be per connection: a connection does not exist yet when the ticket is issued; use one of client, key, ip, stream, plan, node"},
	{"tickets: { rate: 3/1minute, count: 3 }", "tickets.count", "does not apply"},
	{"tickets: { rate: 3/1minute, store_down: allow }", "tickets.store_down", `tickets fail closed while the store is down, since a ticket needs it as well; use "deny"`},
	{"tickets: { rate: 3/1minute, when_exceeded: pause }", "tickets.when_exceeded", `use "warn"`},
	{"tickets: { rate: 1KiB/1minute }", "tickets.rate", "is a size"},
	{"messages-in: { per: client }", "messages-in", "no rate"},
	{"messages-in: { rate: 1KiB/1minute }", "messages-in.rate", "is a size"},
	{"messages-in: { rate: 1/1week, burst: 53 }", "messages-in.burst", "at most 52 with rate 1/1week"},
	{"messages-in: { rate: 3/1minute, per: [client, strem] }", "messages-in.per", `unknown value "strem"; did you mean "stream"?; use one of connection, client, key, ip, stream, plan, node, or a list of them`},
	{"messages-in: { rate: 3/1minute, per: [client, key, client] }", "messages-in.per", `"client" stands twice in the list`},
	{"messages-in: { rate: 3/1minute, per: [client, connection] }", "messages-in.per", "so per: connection says the same"},
	{"messages-in: { rate: 3/1minute, per: conection }", "messages-in.per", `did you mean "connection"?`},
	{"messages-in: { rate: 3/1minute, when_exceeded: delay, max_delay: 61s }", "messages-in.max_delay", "1m1s is out of range: 1ms to 1m0s"},
	{"messages-in: { rate: 3/1minute, when_exceeded: delay, max_delay: 1us }", "messages-in.max_delay", "out of range"},
	{"messages-in: { rate: 3/1minute, when_exceeded: clos }", "messages-in.when_exceeded", `did you mean "close"?`},
	{"messages-in: { rate: 3/1minute, when_exceeded: explode }", "messages-in.when_exceeded", `unknown value "explode"; use one of close, delay, drop-newest, drop-oldest, pause, warn`},
	{"messages-in: { rate: 3/1minute, max_delay: 250ms }", "messages-in.max_delay", "max_delay is for when_exceeded: delay"},
	{"messages-in: { rate: 3/1minute, when_exceeded: close, hard: false }", "messages-in.hard", "contradicts when_exceeded: close"},
	{"messages-in: { rate: 3/1minute, when_exceeded: warn, hard: true }", "messages-in.hard", "contradicts when_exceeded: warn"},
	{"messages-in: { rate: 3/1minute, window: fixed }", "messages-in.window", "a connection is gone when its socket is; use per: client, or window: token-bucket"},
	{"messages-in: { rate: 3/1minute, window: fixed, per: client, burst: 3 }", "messages-in.burst", "a fixed window has no burst"},
	{"messages-in: { rate: 3/1minute, scope: cluster, per: node }", "messages-in.scope", "use per: plan for all nodes together"},
	{"messages-in: { rate: 3/1minute, scope: cluster, per: [client, node] }", "messages-in.scope", "which scope: cluster contradicts"},
	{"messages-in: { rate: 3/1minute, window: sliding }", "messages-in.window", `unknown value "sliding"`},
	{"messages-in: { rate: 3/1minute, scope: cluster }", "messages-in.scope", "a connection lives on one node"},
	{"messages-in: { rate: 3/1minute, store_down: maybe }", "messages-in.store_down", "use one of local, deny, allow"},
	{"messages-in: { rate: 3/1minute, count: 5 }", "messages-in.count", "does not apply"},
	{"messages-in: { rate: 3/1minute, when_full: reject }", "messages-in.when_full", "does not apply"},
	{"messages-in: { rate: 3/1minute, counts: bytes-in }", "messages-in.counts", "counts itself"},
	{"messages_in: { rate: 3/1minute }", "messages_in", `unknown key "messages_in" under plans.free.limits; did you mean "messages-in"?`},
	{"calls: { rate: 3/1minute }", "calls", `a limit of your own says what it counts`},
	{"calls: { rate: 3/1minute, counts: tickets }", "calls.counts", "use one of messages-in, messages-out, bytes-in, bytes-out"},
	{"calls: { counts: messages-in }", "calls", "no rate"},
	{"Calls Daily: { rate: 3/1minute, counts: messages-in }", "Calls Daily", "at most 40 of a-z"},
	{strings.Repeat("a", 41) + ": { rate: 3/1minute, counts: messages-in }", strings.Repeat("a", 41), "at most 40 of a-z"},
	{"a: &l { rate: 3/1minute, counts: bytes-in }\nb: *l\nc: *l\nd: *l\ne: *l\nf: *l\ng: *l\nh: *l\ni: *l", "", "9 limits on messages and bytes; a plan may have 8"},
}

func TestCompileSaysWhatIsWrong(t *testing.T) {
	for _, c := range problems {
		p, got := limiter.Compile("free", options(t, c.text), limiter.Defaults{})
		if p != nil || len(got) != 1 {
			t.Errorf("%s: plan %v, problems %v; want exactly one", c.text, p, got)
			continue
		}
		path := "plans.free.limits"
		if c.at != "" {
			path += "." + c.at
		}
		if strings.Join(got[0].Path, ".") != path || !strings.Contains(got[0].Msg, c.says) {
			t.Errorf("%s:\n%s: %s\nwant %s: ...%s", c.text, strings.Join(got[0].Path, "."), got[0].Msg, path, c.says)
		}
	}
}

func TestCompileReportsAllAtOnce(t *testing.T) {
	zero := limiter.Size(0)
	limits := options(t, `
connections: { count: 0, per: ip, when_full: evict }
messages-in: { rate: 3/1minute, per: nodes, window: fixed, scope: cluster }
`)
	limits["bytes-in"] = limiter.Options{Rate: &limiter.Rate{}, MaxDelay: -1}
	limits["bytes-out"] = limiter.Options{Rate: &limiter.Rate{N: 1, Per: time.Second}, Burst: &zero}
	_, got := limiter.Compile("free", limits, limiter.Defaults{Window: "fix", Scope: "clusters", StoreDown: "perhaps"})
	want := []string{
		"limit_defaults.window", "limit_defaults.scope", "limit_defaults.store_down",
		"plans.free.limits.bytes-in.max_delay", "plans.free.limits.bytes-in.rate", "plans.free.limits.bytes-out.burst",
		"plans.free.limits.connections.when_full", "plans.free.limits.connections.per", "plans.free.limits.connections.count",
		"plans.free.limits.messages-in.per", "plans.free.limits.messages-in.window",
	}
	var at []string
	for _, p := range got {
		at = append(at, strings.Join(p.Path, "."))
	}
	if strings.Join(at, "\n") != strings.Join(want, "\n") {
		t.Errorf("problems at\n%s\nwant\n%s", strings.Join(at, "\n"), strings.Join(want, "\n"))
	}
}

func TestOptionsRefuseWhatIsNoRate(t *testing.T) {
	for _, text := range []string{
		"a: { rate: 3/1minut }", "a: { rate: 5 }", "a: { burst: 0 }", "a: { burst: -1 }", "a: { burst: 2KB }", "a: { burst: 1.5 }",
		"a: { per: { x: y } }", "a: { per: [[client]] }", "a: { per: [] }", "a: { count: many }", "a: { max_delay: soon }", "a: { rates: 3/1minute }",
	} {
		var limits map[string]limiter.Options
		if err := yaml.UnmarshalWithOptions([]byte(text), &limits, yaml.Strict()); err == nil {
			t.Errorf("%s is accepted as %+v", text, limits["a"])
		}
	}
}

// TestDefaultsAreForWhomTheyFit: limit_defaults holds for limits that can be so, and never makes a limit wrong.
func TestDefaultsAreForWhomTheyFit(t *testing.T) {
	text := `
tickets:     { rate: 3/1minute }
messages-in: { rate: 3/1minute }
bytes-in:    { rate: 3/1minute, per: client }
bytes-out:   { rate: 3/1minute, per: node }
a: { counts: bytes-in, rate: 3/1minute, per: client, burst: 4 }
b: { counts: bytes-in, rate: 3/1minute, per: client, window: token-bucket, scope: node, store_down: allow }
c: { counts: bytes-in, rate: 3/1minute, when_exceeded: delay }
d: { counts: bytes-in, rate: 3/1minute, when_exceeded: delay, max_delay: 250ms }
`
	p, problems := limiter.Compile("free", options(t, text), limiter.Defaults{Window: "fixed", Scope: "cluster", StoreDown: "deny"})
	if problems != nil {
		t.Fatal(problems)
	}
	if k := &p.Tickets; !k.Fixed || !k.Cluster {
		t.Errorf("tickets: %+v", k)
	}
	for name, want := range map[string]limiter.Limit{
		"messages-in": {Down: limiter.DownDeny}, "bytes-in": {Fixed: true, Cluster: true, Down: limiter.DownDeny},
		"bytes-out": {Fixed: true, Down: limiter.DownDeny}, "a": {Cluster: true, Down: limiter.DownDeny}, "b": {Down: limiter.DownAllow},
		"c": {Down: limiter.DownDeny, MaxDelay: time.Second}, "d": {Down: limiter.DownDeny, MaxDelay: 250 * time.Millisecond},
	} {
		l := limitOf(t, p, name)
		if l.Fixed != want.Fixed || l.Cluster != want.Cluster || l.Down != want.Down || l.MaxDelay != want.MaxDelay {
			t.Errorf("%s: fixed %v, cluster %v, down %v, max_delay %v", name, l.Fixed, l.Cluster, l.Down, l.MaxDelay)
		}
	}
}
