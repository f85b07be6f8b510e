package handshake_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ticketgate/handshake"
	"ticketgate/ticket"
)

func TestIssue(t *testing.T) {
	g := start(t, nil)
	g.node.number.Store(0xfedc)
	a := g.do(call{key: g.key, body: `{"stream":"quotes","params":{"symbol":"ACME"},"client":"user-42",` +
		`"protocols":["chat.v2"],"origin":"https://app.example.com"}`})
	if a.StatusCode != 201 {
		t.Fatalf("status %d: %s", a.StatusCode, a.body)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
		"X-Content-Type-Options": "nosniff", "RateLimit-Policy": `"tickets";q=10;w=60`, "RateLimit": `"tickets";r=9;t=6`,
		"Server": "",
	} {
		if got := strings.Join(a.Header[http.CanonicalHeaderKey(name)], "|"); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	want := regexp.MustCompile(`^\{"id":"(tkt_[0-9A-Z]{49})","url":"ws://127\.0\.0\.1:8081/t/([\w-]{68})",` +
		`"protocols":\["ticketgate\.v1","chat\.v2","(tgs_[\w-]{43})"\],"expires_in":30,` +
		`"session_expires_at":"([^"]+)","plan":"free","connections":\{"used":1,"limit":2\}\}$`)
	m := want.FindSubmatch(a.body)
	if m == nil {
		t.Fatalf("body %s", a.body)
	}
	id, locator, secret := string(m[1]), m[2], m[3]
	end, err := time.Parse(time.RFC3339, string(m[4]))
	if err != nil || end.After(noon.Add(12*time.Hour)) || end.Before(noon.Add(12*time.Hour-72*time.Minute)) {
		t.Errorf("session ends %v, want up to 10 %% less than 12 h from %v", end, noon)
	}

	check := g.ring.NewChecker()
	l, err := check.Check(locator, noon, g.node)
	g.must(err)
	if l.Node != 0xfedc || l.Subject != g.ring.Subject("client", "user-42") || int64(l.Expiry) != noon.Add(30*time.Second).Unix() {
		t.Errorf("locator %+v", l)
	}
	hash, _ := check.SecretHash(secret)
	got := make([]ticket.RedeemAnswer, 1)
	g.store.Redeem(context.Background(), []ticket.RedeemRequest{{Ticket: check.Hash(&l), Secret: hash, Epoch: l.Epoch,
		Held: ticket.Held{Subject: l.Subject, Incarnation: 1, Count: 1, Number: 1}}}, got)
	if got[0].Result != ticket.RedeemOK {
		t.Fatalf("redeem: %v", got[0].Result)
	}
	c, err := ticket.ParseClaims(got[0].Grant)
	g.must(err)
	if c.ID != id || c.Client != "user-42" || c.Key != "app" || c.Product != "market-data" || c.Plan != "free" || c.Stream != "quotes" ||
		!slices.Equal(c.Params, []ticket.Param{{Name: "symbol", Value: "ACME"}}) || !slices.Equal(c.Protocols, []string{"chat.v2"}) ||
		c.Origin != "https://app.example.com" || c.Addr.IsValid() || !c.IssuedAt.Equal(noon) || c.Limit != 2 {
		t.Errorf("claims %+v", c)
	}
	if n := g.stats().Issued[handshake.Issued{Stream: "quotes", Plan: "free"}]; n != 1 {
		t.Errorf("%d issued", n)
	}
}

func TestBoundToTheAddress(t *testing.T) {
	var grant []byte
	g := start(t, func(g *rig, o *handshake.Options) {
		o.BindIP = true
		o.Node = &spy{g.node, &grant}
	})
	g.issue("u")
	if c, err := ticket.ParseClaims(grant); err != nil || c.Addr.String() != "127.0.0.1" {
		t.Errorf("bound to %v, %v", c.Addr, err)
	}
}

// spy keeps the last grant.
type spy struct {
	*node
	grant *[]byte
}

func (s *spy) Issue(ctx context.Context, r *ticket.IssueRequest) (ticket.IssueAnswer, error) {
	*s.grant = bytes.Clone(r.Grant)
	return s.node.Issue(ctx, r)
}

// Every refusal that a well-formed request can get: one row a problem.
func TestRefusals(t *testing.T) {
	const echo = "zq9marker" // sent wherever there is room for it, and never to come back
	chat := `{"stream":"chat"}`
	down, lost := ticket.ErrUnavailable, ticket.ErrLeaseLost
	closed := fmt.Errorf("node 10.9.8.7 has not registered: %w", ticket.ErrUnavailable)
	odd := errors.New("redis 10.9.8.7:6379 says no")
	type row struct {
		name   string
		call   call
		set    func(*rig)
		status int
		kind   string
		reason string
		detail string // part of it
	}
	rows := []row{
		{"no credential", call{body: chat}, nil, 401, "unauthenticated", "credential", ""},
		{"basic credential", call{body: chat, header: http.Header{"Authorization": {"Basic " + echo}}}, nil, 401, "unauthenticated", "credential", ""},
		{"malformed key", call{key: "tgk_" + echo, body: chat}, nil, 401, "unauthenticated", "key", ""},
		{"another kind of bearer", call{body: chat, header: http.Header{"Authorization": {"Bearer a.b.c"}}}, nil, 401, "unauthenticated", "key", ""},
		{"expired key", call{key: "OLD", body: chat}, nil, 401, "unauthenticated", "expired", ""},
		{"key from elsewhere", call{key: "AFAR", body: chat}, nil, 403, "forbidden", "address", ""},
		{"two keys", call{body: chat, header: http.Header{"X-Api-Key": {"a", "a"}}}, nil, 400, "invalid-request", "two-credentials", ""},
		{"two credentials", call{key: "KEY", body: chat, header: http.Header{"Authorization": {"Bearer " + echo}}}, nil, 400, "invalid-request", "two-credentials", ""},
		{"key and another scheme", call{key: "KEY", body: chat, header: http.Header{"Authorization": {"Basic KEY"}}}, nil, 400, "invalid-request", "two-credentials", ""},
		{"no body", call{key: "KEY", header: http.Header{"Content-Type": {"application/json"}}}, nil, 400, "invalid-request", "body", "body: want an object"},
		{"no media type", call{key: "KEY"}, nil, 415, "unsupported-media-type", "media-type", ""},
		{"a form", call{key: "KEY", body: chat, header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}}, nil, 415, "unsupported-media-type", "media-type", ""},
		{"coded content", call{key: "KEY", body: chat, header: http.Header{"Content-Encoding": {"gzip"}}}, nil, 415, "unsupported-media-type", "media-type", ""},
		{"a query", call{method: "POST", path: "/v1/tickets?key=" + echo, key: "KEY", body: chat}, nil, 400, "invalid-request", "query", ""},
		{"bad JSON", call{key: "KEY", body: `{"stream":"` + echo}, nil, 400, "invalid-request", "body", "not JSON"},
		{"no delegate scope", call{key: "GOLD", body: `{"stream":"chat","client":"` + echo + `"}`}, nil, 403, "forbidden", "scope", ""},
		{"unknown stream", call{key: "KEY", body: `{"stream":"` + echo + `"}`}, nil, 404, "unknown-stream", "unknown-stream", ""},
		{"stream of no product", call{key: "KEY", body: `{"stream":"secret"}`}, nil, 403, "forbidden", "stream", ""},
		{"stream outside the scopes", call{key: "GOLD", body: `{"stream":"quotes","params":{"symbol":"A"}}`}, nil, 403, "forbidden", "stream", ""},
		{"plan of no product", call{key: "LOST", body: chat}, nil, 403, "forbidden", "plan", ""},
		{"missing param", call{key: "KEY", body: `{"stream":"quotes"}`}, nil, 400, "invalid-request", "params", "params.symbol: missing"},
		{"param off its pattern", call{key: "KEY", body: `{"stream":"quotes","params":{"symbol":"` + echo + `"}}`}, nil, 400, "invalid-request", "params", "params.symbol"},
		{"pattern and newline", call{key: "KEY", body: `{"stream":"quotes","params":{"symbol":"A\n"}}`}, nil, 400, "invalid-request", "params", "params.symbol"},
		{"param that is none", call{key: "KEY", body: `{"stream":"quotes","params":{"symbol":"A","` + echo + `":"1"}}`}, nil, 400, "invalid-request", "params", "does not have"},
		{"resume of a relay", call{key: "KEY", body: `{"stream":"chat","resume":"` + echo + `"}`}, nil, 400, "invalid-request", "params", "resume"},
		{"no such path", call{method: "GET", path: "/v1/" + echo}, nil, 404, "not-found", "route", ""},
		{"below a ticket", call{method: "DELETE", path: "/v1/tickets/a/b"}, nil, 404, "not-found", "route", ""},
		{"wrong method", call{method: "GET", path: "/v1/tickets"}, nil, 405, "method-not-allowed", "method", "POST"},
		{"change of a ticket", call{method: "PUT", path: "/v1/tickets/tkt_1"}, nil, 405, "method-not-allowed", "method", "DELETE"},
		{"state of no ticket", call{method: "GET", path: "/v1/tickets/tkt_1", key: "KEY"}, nil, 404, "not-found", "unknown-ticket", ""},
		{"no such ticket", call{method: "DELETE", path: "/v1/tickets/tkt_" + echo, key: "KEY"}, nil, 404, "not-found", "unknown-ticket", ""},
		{"limits of another", call{method: "GET", path: "/v1/limits?client=" + echo, key: "GOLD"}, nil, 403, "forbidden", "scope", ""},
		{"limits with a strange query", call{method: "GET", path: "/v1/limits?clients=" + echo, key: "KEY"}, nil, 400, "invalid-request", "query", ""},
		{"a page of another origin", call{method: "OPTIONS", path: "/v1/tickets", header: http.Header{"Origin": {"https://" + echo + ".com"},
			"Access-Control-Request-Method": {"POST"}}}, nil, 403, "forbidden", "origin", ""},
		{"draining", call{key: "KEY", body: chat}, func(g *rig) { g.draining.Store(true) }, 503, "draining", "draining", ""},
		{"not ready", call{method: "GET", path: "/readyz"}, func(g *rig) { g.node.err.Store(&odd) }, 503, "overloaded", "not-ready", "joined"},
		{"store away", call{method: "GET", path: "/readyz"}, func(g *rig) { g.node.err.Store(&down) }, 503, "overloaded", "not-ready", "store"},
		{"lease lost", call{method: "GET", path: "/readyz"}, func(g *rig) { g.node.err.Store(&lost) }, 503, "overloaded", "not-ready", "lease"},
		{"short of memory", call{key: "KEY", body: chat}, func(g *rig) { g.short.Store(true) }, 503, "overloaded", "memory", ""},
		{"short of memory is not ready", call{method: "GET", path: "/readyz"}, func(g *rig) { g.short.Store(true) }, 503, "overloaded", "memory", ""},
		{"draining is not ready", call{method: "GET", path: "/readyz"}, func(g *rig) { g.draining.Store(true) }, 503, "draining", "draining", ""},
		{"store down", call{key: "KEY", body: chat}, func(g *rig) { g.store.fault.Store(&down) }, 503, "store-unavailable", "store", ""},
		{"issue closed", call{key: "KEY", body: chat}, func(g *rig) { g.store.fault.Store(&closed) }, 503, "store-unavailable", "store", ""},
		{"store at odds", call{key: "KEY", body: chat}, func(g *rig) { g.store.fault.Store(&odd) }, 503, "store-unavailable", "store", ""},
		{"store down for limits", call{method: "GET", path: "/v1/limits", key: "KEY"}, func(g *rig) { g.store.fault.Store(&down) }, 503, "store-unavailable", "store", ""},
		{"store down for revoke", call{method: "DELETE", path: "/v1/tickets/ID", key: "KEY"}, func(g *rig) { g.store.fault.Store(&down) }, 503, "store-unavailable", "store", ""},
		{"epoch unknown", call{key: "KEY", body: chat}, func(g *rig) { g.node.epoch.Store(0) }, 503, "store-unavailable", "store", ""},
		{"epoch of the past", call{key: "KEY", body: chat}, func(g *rig) { g.node.epoch.Add(1) }, 503, "store-unavailable", "store", ""},
		{"ticket drawn twice", call{key: "KEY", body: chat}, func(g *rig) { g.store.answer.Store(&ticket.IssueAnswer{Result: ticket.IssueDuplicate}) }, 503, "overloaded", "random", ""},
		{"random source fails", call{key: "KEY", body: chat}, func(g *rig) { g.rnd.dry() }, 503, "overloaded", "random", ""},
		{"panic", call{method: "GET", path: "/panic"}, nil, 500, "fault", "fault", ""},
	}
	seen := map[string]bool{}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			g := start(t, nil)
			id := g.issue("someone")["id"].(string)
			if r.set != nil {
				r.set(g)
			}
			keys := strings.NewReplacer("KEY", g.key, "GOLD", g.gold, "LOST", g.lost, "OLD", g.expired, "AFAR", g.afar)
			r.call.key, r.call.path = keys.Replace(r.call.key), strings.Replace(r.call.path, "ID", id, 1)
			for _, v := range r.call.header {
				v[0] = keys.Replace(v[0])
			}
			a := g.do(r.call)
			a.wantProblem(t, r.status, r.kind, r.detail)
			if strings.Contains(string(a.body), echo) || strings.Contains(fmt.Sprint(a.Header), echo) || strings.Contains(string(a.body), "10.9.8.7") {
				t.Errorf("echoed: %v %s", a.Header, a.body)
			}
			if n := g.stats().Rejected[r.reason]; n != 1 {
				t.Errorf("reason %s counted %d times: %v", r.reason, n, g.stats().Rejected)
			}
			if !strings.Contains(g.log.String(), a.json(t)["request_id"].(string)) {
				t.Errorf("no log line has the id of %s", a.body)
			}
		})
		seen[r.reason] = true
	}
}

// wantProblem checks an answer against RFC 9457 and the API's own rules.
func (a answer) wantProblem(t *testing.T, status int, kind, detail string) {
	t.Helper()
	m := a.json(t)
	if a.StatusCode != status || m["type"] != "http://127.0.0.1:8081/problems/"+kind || m["status"] != float64(status) || m["title"] == "" {
		t.Fatalf("want %d %s, have %d %s", status, kind, a.StatusCode, a.body)
	}
	id, _ := m["request_id"].(string)
	if !regexp.MustCompile(`^req_[0-9A-HJKMNP-TV-Z]{26}$`).MatchString(id) || m["instance"] != "urn:ticketgate:request:"+id {
		t.Errorf("id %q, instance %v", id, m["instance"])
	}
	if d, _ := m["detail"].(string); !strings.Contains(d, detail) {
		t.Errorf("detail %q, want %q in it", d, detail)
	}
	h := a.Header
	if h.Get("Content-Type") != "application/problem+json" || h.Get("Cache-Control") != "no-store" || h.Get("Referrer-Policy") != "no-referrer" ||
		h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Server") != "" || h.Get("Date") == "" {
		t.Errorf("header %v", h)
	}
	if (status == 401) != (h.Get("WWW-Authenticate") != "") || (status == 405) != (h.Get("Allow") != "") {
		t.Errorf("header %v", h)
	}
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if retry := status == 503 || status == 429; retry != (err == nil) || status == 503 && (seconds < 1 || seconds > 5) {
		t.Errorf("Retry-After %q", h.Get("Retry-After"))
	}
	if ms, _ := m["retry_after_ms"].(float64); ms != float64(seconds)*1000 {
		t.Errorf("retry_after_ms %v, Retry-After %d", ms, seconds)
	}
}

// What is wrong with a credential does not show, neither in the body nor in a header.
func TestRefusedCredentialsLookTheSame(t *testing.T) {
	g := start(t, nil)
	id := regexp.MustCompile(`req_[0-9A-Z]{26}|Date: [^\r]*`)
	var first string
	for _, key := range []string{
		"", "tgk_", "nonsense", "tgk_nobody" + g.key[len("tgk_app"):], g.key[:len(g.key)-2] + "AA", g.key[:8] + "A" + g.key[9:], g.expired,
	} {
		w := g.dial()
		w.send("POST /v1/tickets HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + "X-API-Key: " + key + "\r\n\r\n")
		var b strings.Builder
		_, err := w.r.WriteTo(&b)
		g.must(err)
		got := id.ReplaceAllString(b.String(), "")
		if first == "" {
			first = got
		}
		if got != first || !strings.HasPrefix(got, "HTTP/1.1 401 ") {
			t.Errorf("key %q:\n%s\nwant\n%s", key, got, first)
		}
	}
}

// A pattern that nobody anchored does not let more through than it says.
func TestPatternsMatchTheWholeValue(t *testing.T) {
	g := start(t, func(_ *rig, o *handshake.Options) {
		p := *o.Policy()
		p.Streams = map[string]handshake.Stream{"quotes": {Params: map[string]*regexp.Regexp{"symbol": regexp.MustCompile("[A-Z]{1,6}")}}}
		o.Policy = func() *handshake.Policy { return &p }
	})
	for value, status := range map[string]int{"ACME": 201, "ACME.>": 400, "*ACME": 400, "ACMEACME": 400, "": 400} {
		if a := g.do(call{key: g.key, body: `{"stream":"quotes","params":{"symbol":"` + value + `"}}`}); a.StatusCode != status {
			t.Errorf("%q: %d %s", value, a.StatusCode, a.body)
		}
	}
}

func TestCarriers(t *testing.T) {
	g := start(t, func(_ *rig, o *handshake.Options) { o.KeyHeader = "X-IBM-Client-Id" })
	for _, h := range []http.Header{
		{"X-Ibm-Client-Id": {g.key}}, {"Authorization": {"Bearer " + g.key}}, {"Authorization": {"bearer  " + g.key}},
		{"X-Ibm-Client-Id": {g.key}, "Authorization": {"Bearer " + g.key}},
	} {
		if a := g.do(call{body: `{"stream":"chat","client":"` + fmt.Sprint(len(h), len(h["Authorization"])) + `"}`, header: h}); a.StatusCode != 201 {
			t.Errorf("%v: %d %s", h, a.StatusCode, a.body)
		}
	}
	if a := g.do(call{key: g.key, body: `{"stream":"chat"}`}); a.StatusCode != 401 {
		t.Errorf("the usual header counts beside the configured one: %d", a.StatusCode)
	}
}

func TestConnectionLimit(t *testing.T) {
	g := start(t, nil)
	first := g.issue("u")
	if used := g.issue("u")["connections"].(map[string]any)["used"]; used != float64(2) {
		t.Errorf("used %v", used)
	}
	full := call{key: g.key, body: `{"stream":"chat","client":"u"}`}
	a := g.do(full)
	a.wantProblem(t, 429, "connection-limit", `limit "connections" of plan "free" is 2`)
	if h := a.Header; h.Get("RateLimit-Policy") != `"connections";q=2;qu="concurrent-requests", "tickets";q=10;w=60` ||
		h.Get("RateLimit") != `"connections";r=0;t=5` || a.json(t)["limit"] != "connections" {
		t.Errorf("%v %s", h, a.body)
	}
	a.retryNotBefore(t)
	g.issue("another") // a limit of one client is not that of another

	del := call{method: "DELETE", path: "/v1/tickets/" + first["id"].(string), key: g.gold}
	g.do(del).wantProblem(t, 404, "not-found", "") // not the one who asked for it
	del.key = g.key
	if a := g.do(del); a.StatusCode != 204 || len(a.body) > 0 {
		t.Errorf("revoke: %d %s", a.StatusCode, a.body)
	}
	g.do(del).wantProblem(t, 404, "not-found", "")
	g.issue("u")
}

// retryNotBefore compares Retry-After with the t of RateLimit.
func (a answer) retryNotBefore(t *testing.T) {
	t.Helper()
	_, text, _ := strings.Cut(a.Header.Get("RateLimit"), ";t=")
	reset, err1 := strconv.Atoi(text)
	retry, err2 := strconv.Atoi(a.Header.Get("Retry-After"))
	if err1 != nil || err2 != nil || retry < reset {
		t.Errorf("RateLimit %q, Retry-After %q", a.Header.Get("RateLimit"), a.Header.Get("Retry-After"))
	}
}

func TestTicketRate(t *testing.T) {
	g := start(t, nil)
	ask := call{key: g.key, body: `{"stream":"quotes","params":{"symbol":"AB"},"client":"u"}`}
	for range 10 { // refused by the store from the third on, and counted all the same
		g.do(ask)
	}
	a := g.do(ask)
	a.wantProblem(t, 429, "rate-limited", `limit "tickets" of plan "free" is 10 per 1 minute`)
	if a.Header.Get("RateLimit") != `"tickets";r=0;t=6` || a.json(t)["limit"] != "tickets" {
		t.Errorf("%v %s", a.Header, a.body)
	}
	a.retryNotBefore(t)
	spread := map[string]bool{}
	for range 40 {
		spread[g.do(ask).Header.Get("Retry-After")] = true
	}
	if len(spread) < 2 || !spread["6"] || !spread["7"] {
		t.Errorf("all come back together: %v", spread)
	}
	seconds, err := strconv.Atoi(a.Header.Get("Retry-After"))
	g.must(err)
	g.clock.Advance(time.Duration(seconds) * time.Second)
	if a := g.do(ask); a.json(t)["type"] == "http://127.0.0.1:8081/problems/rate-limited" {
		t.Errorf("refused again after Retry-After: %s", a.body)
	}
	g.issue("another")
}

func TestSoftTicketRateCountsAndIssues(t *testing.T) {
	g := start(t, nil)
	for range 5 {
		if a := g.do(call{key: g.gold, body: `{"stream":"chat"}`}); a.StatusCode != 201 || a.Header.Get("RateLimit-Policy") != `"tickets";q=100;w=3600` {
			t.Fatalf("%d %v", a.StatusCode, a.Header)
		}
	}
	d := g.stats().Decisions
	if d[handshake.Decision{Limit: "tickets", Plan: "gold", Decision: "allow"}] != 3 || d[handshake.Decision{Limit: "tickets", Plan: "gold", Decision: "soft"}] != 2 {
		t.Errorf("%v", d)
	}
}

func TestOutstandingTickets(t *testing.T) {
	g := start(t, func(_ *rig, o *handshake.Options) { o.Outstanding = 1 })
	g.issue("u")
	a := g.do(call{key: g.key, body: `{"stream":"chat","client":"u"}`})
	a.wantProblem(t, 429, "rate-limited", "")
	seconds, err := strconv.Atoi(a.Header.Get("Retry-After"))
	g.must(err)
	if seconds < 30 {
		t.Errorf("Retry-After %d s, but the ticket lives 30 s", seconds)
	}
	g.clock.Advance(time.Duration(seconds) * time.Second)
	g.issue("u")
}

// When the node learns of the store's new epoch between two tries, the second one succeeds.
func TestIssueFollowsTheEpoch(t *testing.T) {
	g := start(t, nil)
	right := g.node.epoch.Load()
	g.node.epoch.Store(right + 1)
	g.node.next.Store(right)
	g.issue("u")
	if n := g.store.issues.Load(); n != 2 {
		t.Errorf("%d calls, want one under each epoch", n)
	}
	if s := ticket.Subject(g.node.asked.Load()); s != g.ring.Subject("client", "u") {
		t.Errorf("asked for the epoch of %x", s)
	}
	g.node.next.Store(0)
	g.node.epoch.Store(0)
	if a := g.do(call{key: g.key, body: wanted}); a.StatusCode != 503 || g.store.issues.Load() != 2 {
		t.Errorf("%d, and %d calls of the store under no epoch", a.StatusCode, g.store.issues.Load()-2)
	}
}

func TestSecretsStayOutOfTheLog(t *testing.T) {
	g := start(t, nil)
	m := g.issue("u")
	down := ticket.ErrUnavailable
	g.store.fault.Store(&down)
	g.do(call{key: g.key, body: `{"stream":"chat","client":"u"}`})
	g.do(call{key: g.key[:len(g.key)-1] + "A", body: `{"stream":"chat"}`})
	w := g.dial()
	w.send("POST /v1/tickets HTTP/1.1\r\nHost: a b\r\nX-API-Key: " + g.key + "\r\n\r\n")
	w.read()
	log := g.log.String()
	if !strings.Contains(log, "reason=head") || !strings.Contains(log, "reason=key") || !strings.Contains(log, "reason=store") {
		t.Fatalf("log:\n%s", log)
	}
	protocols := m["protocols"].([]any)
	_, locator, _ := strings.Cut(m["url"].(string), "/t/")
	for _, secret := range []string{g.key[8:30], locator[20:40], protocols[len(protocols)-1].(string)[4:30]} {
		if strings.Contains(log, secret) {
			t.Errorf("%q in the log:\n%s", secret, log)
		}
	}
}
