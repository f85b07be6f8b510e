package handshake_test

import (
	"strings"
	"testing"

	"ticketgate/handshake"
	"ticketgate/limiter"
)

// perRig is a rig whose plan "free" has limits.
func perRig(t *testing.T, limits map[string]limiter.Options) *rig {
	return start(t, func(g *rig, o *handshake.Options) {
		p := o.Policy()
		p.Plans["free"] = g.plan("free", limits)
		o.Name = "gw-1"
	})
}

// TestConnectionsPerList: a slot is taken from the client at the stream, and GET /v1/limits tells of each stream.
func TestConnectionsPerList(t *testing.T) {
	g := perRig(t, map[string]limiter.Options{"connections": {Count: ptr(1), Per: "client,stream"}})
	ask := func(stream, client string) answer {
		body := `{"stream":"` + stream + `","client":"` + client + `"}`
		if stream == "quotes" {
			body = `{"stream":"quotes","client":"` + client + `","params":{"symbol":"ACME"}}`
		}
		return g.do(call{method: "POST", path: "/v1/tickets", key: g.key, body: body})
	}
	for _, c := range []struct{ stream, client string }{{"chat", "ann"}, {"quotes", "ann"}, {"chat", "bob"}} {
		if a := ask(c.stream, c.client); a.StatusCode != 201 {
			t.Errorf("%v: %d %s", c, a.StatusCode, a.body)
		}
	}
	ask("chat", "ann").wantProblem(t, 429, "connection-limit", "")
	a := g.do(call{method: "GET", path: "/v1/limits?client=bob", key: g.key})
	want := `{"name":"connections","per":["client","stream"],"configured":1,"streams":{"chat":{"used":1,"remaining":0},"quotes":{"used":0,"remaining":1}}}`
	if !strings.Contains(string(a.body), want) {
		t.Errorf("%s\nwant %s in it", a.body, want)
	}
}

// TestTicketsPer: which requests share the bucket of tickets.
func TestTicketsPer(t *testing.T) {
	for per, same := range map[limiter.Per]bool{"client": false, "key": true, "ip": true, "stream": true, "plan": true, "node": true, "client,ip": false, "ip,plan": true} {
		g := perRig(t, map[string]limiter.Options{"tickets": {Rate: rate("1/1hour"), Per: per}})
		g.issue("ann")
		a := g.do(call{method: "POST", path: "/v1/tickets", key: g.key, body: `{"stream":"chat","client":"bob"}`})
		if (a.StatusCode == 429) != same {
			t.Errorf("per %s: %d %s", per, a.StatusCode, a.body)
		}
		a = g.do(call{method: "GET", path: "/v1/limits?client=ann", key: g.key})
		if !strings.Contains(string(a.body), `"used":1,"remaining":0`) {
			t.Errorf("per %s: no use is told: %s", per, a.body)
		}
	}
}
