package handshake_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"ticketgate/handshake"
	"ticketgate/handshake/auth"
	"ticketgate/revoke"
	"ticketgate/ticket"
)

// takenBack is a revoke.Set as the front end sees it.
type takenBack struct {
	*revoke.Set
	g *rig
}

func (b takenBack) Key(id string) bool          { return b.Set.Key(id, b.g.clock.Wall()) }
func (b takenBack) Issue(c *ticket.Claims) bool { return b.Set.Issue(c, b.g.clock.Wall()) }

func (b takenBack) TakenBack(ctx context.Context, u ticket.Subject, h ticket.Hash, owner string) error {
	b.g.noted = fmt.Sprintf("%x of %s", h, owner)
	return b.g.memory.Note(ctx, u, h, owner, time.Minute)
}

func (b takenBack) State(_ context.Context, id, owner string) (string, error) {
	if b.g.store.fault.Load() != nil {
		return "", *b.g.store.fault.Load()
	}
	if owner != "app" || strings.HasSuffix(id, "x") {
		return "", nil
	}
	return "spent", nil
}

// TestTicketState: whose ticket it is learns what became of it, and nobody else that there was one.
func TestTicketState(t *testing.T) {
	g, _ := revoking(t, nil)
	id := g.issue("ann")["id"].(string)
	ask := call{method: "GET", path: "/v1/tickets/" + id, key: g.key}
	if a := g.do(ask); a.StatusCode != 200 || string(a.body) != `{"id":"`+id+`","state":"spent"}` {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	ask.key = g.gold
	g.do(ask).wantProblem(t, 404, "not-found", "")
	ask.key, ask.path = g.key, ask.path+"x"
	g.do(ask).wantProblem(t, 404, "not-found", "")
	g.do(call{method: "GET", path: "/v1/tickets/" + id}).wantProblem(t, 401, "unauthenticated", "")
	if a := g.do(call{method: "OPTIONS", path: "/v1/tickets/" + id}); a.Header.Get("Allow") != "DELETE, GET, HEAD, OPTIONS" {
		t.Errorf("allowed: %q", a.Header.Get("Allow"))
	}
	if a := g.do(call{method: "DELETE", path: "/v1/tickets/" + id, key: g.key}); a.StatusCode != 204 || !strings.HasSuffix(g.noted, " of app") {
		t.Errorf("revoke: %d, noted %q", a.StatusCode, g.noted)
	}
	down := ticket.ErrUnavailable
	g.store.fault.Store(&down)
	ask.path = "/v1/tickets/" + id
	g.do(ask).wantProblem(t, 503, "store-unavailable", "")
}

// revoking starts a front end that knows what the returned Set does, and keeps the last grant.
func revoking(t *testing.T, grant *[]byte) (*rig, *revoke.Set) {
	set := revoke.NewSet()
	return start(t, func(g *rig, o *handshake.Options) {
		o.Revoked = takenBack{set, g}
		if grant != nil {
			o.Node = &spy{g.node, grant}
		}
	}), set
}

func (g *rig) revoke(s *revoke.Set, what revoke.Selector, barred time.Time) {
	g.t.Helper()
	now := g.clock.Wall()
	if a := s.Add(&revoke.Revocation{ID: "rev_" + now.String(), At: now, What: what, Barred: barred, Code: 4403, Until: revoke.Forever}, true, now); a != revoke.New {
		g.t.Fatalf("add: %d", a)
	}
}

// TestRevokedKey: a revoked key gets what an unknown one gets, on every path.
func TestRevokedKey(t *testing.T) {
	g, set := revoking(t, nil)
	g.revoke(set, revoke.Selector{Key: "app"}, revoke.Forever)
	for _, c := range []call{{body: `{"stream":"chat"}`}, {method: "GET", path: "/v1/streams"}, {method: "GET", path: "/v1/limits"}, {method: "DELETE", path: "/v1/tickets/tkt_x"}} {
		c.key = "tgk_nobody" + g.key[len("tgk_app"):]
		unknown := g.do(c)
		c.key = g.key
		a := g.do(c)
		a.wantProblem(t, 401, "unauthenticated", "")
		id := a.json(t)["request_id"].(string)
		if got, want := strings.ReplaceAll(string(a.body), id, ""), strings.ReplaceAll(string(unknown.body), unknown.json(t)["request_id"].(string), ""); got != want {
			t.Errorf("%s %s: %s, want %s", c.method, c.path, got, want)
		}
	}
	if n := g.stats().Rejected["revoked"]; n != 4 {
		t.Errorf("%d counted as revoked, want 4", n)
	}
	if a := g.do(call{key: g.gold, body: `{"stream":"chat"}`}); a.StatusCode != 201 {
		t.Errorf("another key: %d %s", a.StatusCode, a.body)
	}
}

// TestBlockedClient: who is blocked gets no ticket, whoever asks for one, until the block is over.
func TestBlockedClient(t *testing.T) {
	g, set := revoking(t, nil)
	g.revoke(set, revoke.Selector{Client: "eve"}, g.clock.Wall().Add(time.Minute))
	ask := call{key: g.key, body: `{"stream":"chat","client":"eve"}`}
	a := g.do(ask)
	a.wantProblem(t, 403, "forbidden", "blocked")
	if strings.Contains(string(a.body), "eve") || g.stats().Rejected["blocked"] != 1 {
		t.Errorf("%s, %v", a.body, g.stats().Rejected)
	}
	g.issue("adam")
	g.clock.Advance(time.Minute)
	if a := g.do(ask); a.StatusCode != 201 {
		t.Errorf("the block is over: %d %s", a.StatusCode, a.body)
	}
}

// TestTicketAfterRevocation: a client that was disconnected may come again at once, with a ticket that is not one of those meant.
func TestTicketAfterRevocation(t *testing.T) {
	var grant []byte
	g, set := revoking(t, &grant)
	g.issue("ann")
	before, _ := ticket.ParseClaims(grant)
	g.revoke(set, revoke.Selector{Client: "ann"}, time.Time{})
	g.clock.Advance(time.Millisecond)
	g.issue("ann")
	after, err := ticket.ParseClaims(grant)
	g.must(err)
	if now := g.clock.Wall(); !set.Redeem(&before, now) || set.Redeem(&after, now) {
		t.Errorf("issued before: revoked %v; issued after, dated %v: revoked %v", set.Redeem(&before, now), after.IssuedAt, set.Redeem(&after, now))
	}
}

// TestSessionEndsWithItsKey: a socket does not outlive the key that asked for it.
func TestSessionEndsWithItsKey(t *testing.T) {
	for _, c := range []struct {
		left time.Duration // of the key
		want time.Duration // of the session, at most
	}{{time.Hour, time.Hour}, {10 * time.Second, 10 * time.Second}, {100 * time.Hour, 12 * time.Hour}} {
		var grant []byte
		var key string
		g := start(t, func(g *rig, o *handshake.Options) {
			o.Node = &spy{g.node, &grant}
			p := *o.Policy()
			ring, err := auth.ParseRing(hashRing)
			g.must(err)
			text, rec, err := auth.Generate(g.rnd, "brief", ring)
			g.must(err)
			ends := noon.Add(c.left)
			rec.Product, rec.Plan, rec.Expires = "market-data", "free", &ends
			keys, problems := auth.NewKeys([]auth.Record{rec}, ring)
			if problems != nil {
				t.Fatal(problems)
			}
			key, p.Keys = text, keys
			o.Policy = func() *handshake.Policy { return &p }
		})
		a := g.do(call{key: key, body: `{"stream":"chat"}`})
		if a.StatusCode != 201 {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		claims, err := ticket.ParseClaims(grant)
		g.must(err)
		got, told := claims.SessionEnd.Sub(noon), a.json(t)["session_expires_at"]
		if got > c.want || got < c.want*85/100 || c.left < time.Hour*12 && got != c.left || told != claims.SessionEnd.Format(time.RFC3339) {
			t.Errorf("a key that has %v left: a session of %v, told %v", c.left, got, told)
		}
	}
}
