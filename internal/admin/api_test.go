package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/internal/admin"
	"ticketgate/revoke"
	"ticketgate/ticket"
)

// control notes what it is told, and answers as the test says.
type control struct {
	mu      sync.Mutex
	did     []string
	told    bool
	err     error
	list    []engine.Connection
	next    uint32
	barring []revoke.Revocation
	filter  engine.Filter
	from    uint32
	most    int
	revoked revoke.Revocation
}

func (c *control) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.did = append(c.did, fmt.Sprintf(format, args...))
}

var noon = time.UnixMilli(1_800_000_000_000).UTC()

func (c *control) Now() time.Time { return noon }

func (c *control) Revoke(_ context.Context, r *revoke.Revocation) (bool, error) {
	r.ID, r.At = "rev_1", noon
	if r.Until.IsZero() {
		r.Until = noon.Add(time.Hour)
	}
	if err := errors.Join(c.err, r.Check()); err != nil {
		return false, err
	}
	c.revoked = *r
	c.note("revoke %+v lift=%v spare=%v code=%d over=%v barred=%v %q", r.What, r.Lift, r.Spare, r.Code, r.Over, !r.Barred.IsZero(), r.Reason)
	return c.told, nil
}

func (c *control) Count(context.Context, engine.Selector) (int, error) { return 7, c.err }

func (c *control) Close(_ context.Context, sel engine.Selector, code uint16, _ time.Duration) (int, error) {
	c.note("close %s %d", sel.Conn, code)
	return len(c.list), c.err
}

func (c *control) Connections(_ context.Context, f *engine.Filter, from uint32, most int) ([]engine.Connection, uint32, error) {
	c.filter, c.from, c.most = *f, from, most
	return c.list, c.next, c.err
}

func (c *control) Mine(conn string) bool { return strings.HasPrefix(conn, "c_0mine") }

func (c *control) Clients(context.Context) (map[string]int, bool, error) {
	return map[string]int{"ann": 1, "bob": 3, "cy": 3}, false, c.err
}

func (c *control) Barring(revoke.Selector) []revoke.Revocation { return c.barring }

func (c *control) Keys() []admin.Key {
	return []admin.Key{{ID: "web", Plan: "free"}, {ID: "app", Plan: "gold"}, {ID: "old", Revoked: true}}
}

func (c *control) Ticket(_ context.Context, id string) (string, error) {
	if strings.HasSuffix(id, "x") {
		return "", c.err
	}
	return "unused", c.err
}

// desk is an admin server over TCP and over a unix socket.
type desk struct {
	t   *testing.T
	c   *control
	log *bytes.Buffer
	url string
	tcp *http.Client
	own *http.Client // over the socket
}

// lockedWriter is a log for several goroutines.
type lockedWriter struct {
	mu sync.Mutex
	b  *bytes.Buffer
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func newDesk(t *testing.T, token string) *desk {
	t.Helper()
	path := filepath.Join(t.TempDir(), "admin.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{t: t, c: &control{told: true}, log: new(bytes.Buffer), tcp: &http.Client{}}
	d.own = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	s, err := admin.New(admin.Options{Address: "127.0.0.1:0", Socket: ln, Token: token, Base: "https://rt.example.com", Control: d.c, Ready: func() error { return nil },
		Node: &admin.Node{Name: "gw-1"}, Log: slog.New(slog.NewJSONHandler(&lockedWriter{b: d.log}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve() }()
	d.url = "http://" + s.Addr().String()
	t.Cleanup(func() {
		d.tcp.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := errors.Join(s.Shutdown(ctx), <-ended); err != nil {
			t.Error(err)
		}
	})
	return d
}

// ask sends one request. header is the media type, or "Bearer ...".
func (d *desk) ask(client *http.Client, method, path, body string, header ...string) (int, string, http.Header) {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), method, d.url+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range header {
		if strings.HasPrefix(h, "Bearer ") {
			r.Header.Set("Authorization", h)
		} else {
			r.Header.Set("Content-Type", h)
		}
	}
	a, err := client.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return a.StatusCode, string(text), a.Header
}

func (d *desk) problem(status int, text string, h http.Header, want int, kind, detail string) {
	d.t.Helper()
	var p struct {
		Type, Title, Detail, Instance string
		Status                        int
		RequestID                     string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(text), &p); err != nil || status != want || p.Status != want || p.Type != "https://rt.example.com/problems/"+kind ||
		h.Get("Content-Type") != "application/problem+json" || !strings.HasPrefix(p.RequestID, "req_") || p.Instance != "urn:ticketgate:request:"+p.RequestID || !strings.Contains(p.Detail, detail) {
		d.t.Errorf("%d %s, want %d %s with %q", status, text, want, kind, detail)
	}
}

// TestWhoMay: who may look, and who may change anything.
func TestWhoMay(t *testing.T) {
	const read, change = "/v1/clients", "/v1/clients/ann:disconnect"
	for _, c := range []struct {
		name        string
		token, sent string
		socket      bool
		read, write int
	}{
		{"loopback without a token", "", "", false, 200, 403},
		{"loopback, a token that nobody asked for", "", "Bearer x", false, 200, 403},
		{"the token is missing", "right", "", false, 401, 401},
		{"another token", "right", "Bearer wrong", false, 401, 401},
		{"the token", "right", "Bearer right", false, 200, 200},
		{"the gateway's own user over the socket", "right", "", true, 200, 200},
		{"and without any token", "", "", true, 200, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(t, c.token)
			client, header := d.tcp, []string{c.sent}
			if c.socket {
				client = d.own
			}
			if c.sent == "" {
				header = nil
			}
			if status, text, h := d.ask(client, "GET", read, "", header...); status != c.read {
				t.Errorf("read: %d %s", status, text)
			} else if status == 401 {
				d.problem(status, text, h, 401, "unauthenticated", "")
			}
			status, text, h := d.ask(client, "POST", change, "{}", header...)
			switch c.write {
			case 200:
				if status != 200 || len(d.c.did) != 1 {
					t.Errorf("change: %d %s, did %v", status, text, d.c.did)
				}
				return
			case 401:
				d.problem(status, text, h, 401, "unauthenticated", "")
			default:
				d.problem(status, text, h, 403, "forbidden", "reading only")
			}
			if len(d.c.did) != 0 {
				t.Errorf("did %v", d.c.did)
			}
		})
	}
}

// TestNothingIsChangedByGet: no path that changes something does so for GET or HEAD, whoever asks.
func TestNothingIsChangedByGet(t *testing.T) {
	d := newDesk(t, "")
	d.c.list = []engine.Connection{{ID: "c_0mine001"}}
	for _, path := range []string{"/v1/clients/ann:disconnect", "/v1/clients/ann:block", "/v1/clients/ann:unblock", "/v1/connections:disconnect", "/v1/connections/c_0mine001",
		"/v1/keys/app", "/v1/tickets/tkt_1", "/v1/connections/c_0mine001?code=4403", "/v1/keys/app?reason=x"} {
		for _, method := range []string{"GET", "HEAD", "OPTIONS", "TRACE"} {
			d.ask(d.own, method, path, "")
		}
	}
	if len(d.c.did) != 0 || strings.Contains(d.log.String(), `"status":200`) {
		t.Errorf("did %v\n%s", d.c.did, d.log)
	}
	status, text, h := d.ask(d.own, "GET", "/v1/connections:disconnect", "")
	if d.problem(status, text, h, 405, "method-not-allowed", "POST"); h.Get("Allow") != "POST" {
		t.Errorf("allowed: %q", h.Get("Allow"))
	}
	status, text, h = d.ask(d.own, "PUT", "/v1/keys/app", "")
	if d.problem(status, text, h, 405, "method-not-allowed", "DELETE, GET, HEAD"); h.Get("Allow") != "DELETE, GET, HEAD" {
		t.Errorf("allowed: %q", h.Get("Allow"))
	}
}

var someTicket = ticket.PublicID(noon, 1, ticket.Hash{1})

// TestChanges: what each request does.
func TestChanges(t *testing.T) {
	const none = "{Key: Client: Stream: Plan: Ticket: Conn:}"
	ann := strings.Replace(none, "Client:", "Client:ann", 1)
	for _, c := range []struct {
		method, path, body string
		status             int
		did                string
	}{
		{"POST", "/v1/clients/ann:disconnect", "", 200, "revoke " + ann + ` lift=false spare=false code=4403 over=0s barred=false ""`},
		{"POST", "/v1/clients/ann:disconnect", `{"code":1012,"over":"30s","reason":"moving"}`, 200, "revoke " + ann + ` lift=false spare=true code=1012 over=30s barred=false "moving"`},
		{"POST", "/v1/clients/ann:disconnect", `{"dry_run":true}`, 200, ""},
		{"POST", "/v1/clients/a%2Fb:c:disconnect", "", 200, "revoke " + strings.Replace(none, "Client:", "Client:a/b:c", 1) + ` lift=false spare=false code=4403 over=0s barred=false ""`},
		{"POST", "/v1/clients/ann:block", `{"for":"1h","reason":"abuse"}`, 200, "revoke " + ann + ` lift=false spare=false code=4403 over=0s barred=true "abuse"`},
		{"POST", "/v1/clients/ann:block", `{"for":"1h"}`, 400, ""},
		{"POST", "/v1/clients/ann:block", `{"reason":"abuse"}`, 400, ""},
		{"POST", "/v1/clients/ann:block", `{"for":"9000h","reason":"abuse"}`, 400, ""},
		{"POST", "/v1/clients/ann:block", `{"for":"1h","reason":"a\nb"}`, 400, ""},
		{"POST", "/v1/clients/ann:block", `{"for":3600,"reason":"abuse"}`, 400, ""},
		{"POST", "/v1/clients/ann:unblock", "", 404, ""},
		{"POST", "/v1/clients/ann:explode", "", 404, ""},
		{"POST", "/v1/clients/ann", "", 404, ""},
		{"POST", "/v1/clients/" + strings.Repeat("a", 300) + ":disconnect", "", 400, ""},
		{"POST", "/v1/connections:disconnect", `{"selector":{"stream":"chat","plan":"free"},"over":"1m"}`, 200,
			"revoke {Key: Client: Stream:chat Plan:free Ticket: Conn:} lift=false spare=false code=4403 over=1m0s barred=false \"\""},
		{"POST", "/v1/connections:disconnect", `{"selector":{}}`, 400, ""},
		{"POST", "/v1/connections:disconnect", "", 400, ""},
		{"POST", "/v1/connections:disconnect", `{"selector":{"client":"ann"},"code":1006}`, 400, ""},
		{"POST", "/v1/connections:disconnect", `{"selector":{"client":"ann"},"over":"-1s"}`, 400, ""},
		{"POST", "/v1/connections:disconnect", `{"selector":{"client":"ann"},"over":"48h"}`, 400, ""},
		{"POST", "/v1/connections:disconnect", `{"selector":{"ticket":"tkt_1"}}`, 400, ""},
		{"POST", "/v1/connections:disconnect", `{"selector":{"connection":"x"}}`, 400, ""},
		{"POST", "/v1/connections:disconnect", `{"selector":{"clients":"ann"}}`, 400, ""},
		{"POST", "/v1/connections:disconnect", `{"selector":{"client":"ann"}} {}`, 400, ""},
		{"POST", "/v1/connections:disconnect", `{"selector":{"client":7}}`, 400, ""},
		{"POST", "/v1/connections:disconnect", `{`, 400, ""},
		{"POST", "/v1/connections:disconnect", `{"reason":"` + strings.Repeat("x", 17<<10) + `"}`, 413, ""},
		{"DELETE", "/v1/connections/c_0mine001", "", 404, "close c_0mine001 4403"},
		{"DELETE", "/v1/connections/c_0mine001?code=4001", "", 404, "close c_0mine001 4001"},
		{"DELETE", "/v1/connections/c_0mine001?code=999", "", 400, ""},
		{"DELETE", "/v1/connections/c_0other01", "", 200, "revoke {Key: Client: Stream: Plan: Ticket: Conn:c_0other01} lift=false spare=true code=4403 over=0s barred=false \"\""},
		{"DELETE", "/v1/connections/1", "", 404, ""},
		{"DELETE", "/v1/keys/app?reason=leaked", "", 200, "revoke {Key:app Client: Stream: Plan: Ticket: Conn:} lift=false spare=false code=4403 over=0s barred=true \"leaked\""},
		{"DELETE", "/v1/keys/old", "", 200, ""},
		{"DELETE", "/v1/keys/nobody", "", 404, ""},
		{"DELETE", "/v1/keys/app?why=leaked", "", 400, ""},
		{"DELETE", "/v1/tickets/" + someTicket, "", 200, "revoke {Key: Client: Stream: Plan: Ticket:" + someTicket + " Conn:} lift=false spare=false code=4403 over=0s barred=false \"\""},
		{"DELETE", "/v1/tickets/tkt_x", "", 404, ""},
		{"DELETE", "/v1/nothing", "", 404, ""},
	} {
		d := newDesk(t, "")
		status, text, h := d.ask(d.own, c.method, c.path, c.body)
		if status != c.status || strings.Join(d.c.did, "|") != c.did {
			t.Errorf("%s %.60s %.80s: %d %s\ndid  %s\nwant %s", c.method, c.path, c.body, status, text, d.c.did, c.did)
		}
		if status >= 400 && h.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %.60s: %s", c.method, c.path, h.Get("Content-Type"))
		}
	}
}

// TestUnblock: what bars is lifted, and the lift is known for as long as what it lifts.
func TestUnblock(t *testing.T) {
	d := newDesk(t, "")
	d.c.barring = []revoke.Revocation{{Barred: noon.Add(time.Hour), Until: noon.Add(13 * time.Hour)}, {Barred: noon.Add(2 * time.Hour), Until: noon.Add(14 * time.Hour), Reason: "second"}}
	if status, text, _ := d.ask(d.own, "GET", "/v1/clients/ann", ""); status != 200 || !strings.Contains(text, `"blocked":{"until":"2027-01-15T10:00:00Z","reason":"second"}`) {
		t.Errorf("%d %s", status, text)
	}
	d.c.told = false
	status, text, _ := d.ask(d.own, "POST", "/v1/clients/ann:unblock", `{"reason":"sorry"}`)
	if r := &d.c.revoked; status != 202 || !strings.Contains(text, `"cluster":"pending"`) || !r.Lift || r.What.Client != "ann" || !r.Until.Equal(noon.Add(14*time.Hour)) {
		t.Errorf("%d %s, %+v", status, text, r)
	}
}

// TestTrouble: what goes wrong behind it is a problem with its own status.
func TestTrouble(t *testing.T) {
	for err, want := range map[error]int{revoke.ErrFull: 503, ticket.ErrUnavailable: 503, context.DeadlineExceeded: 503} {
		d := newDesk(t, "")
		d.c.err = err
		for _, path := range []string{"GET /v1/connections", "GET /v1/clients", "GET /v1/clients/ann", "GET /v1/tickets/tkt_1", "POST /v1/clients/ann:disconnect", "DELETE /v1/keys/app", "DELETE /v1/connections/c_0mine001"} {
			method, path, _ := strings.Cut(path, " ")
			if status, text, h := d.ask(d.own, method, path, ""); status != want || h.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%v: %s %s: %d %s", err, method, path, status, text)
			}
		}
	}
}

// TestLists: pages, filters, and what is wrong with them.
func TestLists(t *testing.T) {
	d := newDesk(t, "")
	d.c.list = []engine.Connection{{ID: "c_0mine001", Client: "ann", Key: "app", Stream: "chat", Plan: "free", Peer: netip.MustParseAddr("203.0.113.9"), Opened: time.Now().Add(-90 * time.Second), Idle: 30 * time.Second, Queue: 5}}
	d.c.next = 77
	status, text, _ := d.ask(d.tcp, "GET", "/v1/connections?client=ann&key=app&stream=chat&plan=free&ip=203.0.113.0/24&age=1m&queue=4&limit=5&cursor=10", "")
	for _, want := range []string{`"node":"gw-1"`, `"id":"c_0mine001","client":"ann","key":"app","stream":"chat","plan":"free","ip":"203.0.113.9"`, `"age_seconds":90,"idle_seconds":30,"queue_bytes":5`, `"next":"25"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%d %s: no %s", status, text, want)
		}
	}
	want := engine.Filter{Selector: engine.Selector{Client: "ann", Key: "app", Stream: "chat", Plan: "free"}, Peer: netip.MustParsePrefix("203.0.113.0/24"), Age: time.Minute, Queue: 4}
	if d.c.filter != want || d.c.from != 36 || d.c.most != 5 {
		t.Errorf("asked for %+v from %d, %d", d.c.filter, d.c.from, d.c.most)
	}
	for _, query := range []string{"?ip=x", "?age=x", "?age=-1s", "?queue=x", "?queue=-1", "?limit=0", "?limit=1001", "?cursor=*", "?clients=a", "?client=a&client=b"} {
		if status, text, h := d.ask(d.tcp, "GET", "/v1/connections"+query, ""); status != 400 {
			d.problem(status, text, h, 400, "invalid-request", "query")
		}
	}
	if _, text, _ := d.ask(d.tcp, "GET", "/v1/clients?limit=2", ""); text != `{"node":"gw-1","clients":[{"client":"bob","connections":3},{"client":"cy","connections":3}],"total":3,"partial":true}`+"\n" {
		t.Errorf("clients: %s", text)
	}
	if status, _, _ := d.ask(d.tcp, "GET", "/v1/clients?sort=name", ""); status != 400 {
		t.Errorf("sorted by name: %d", status)
	}
	if _, text, _ := d.ask(d.tcp, "GET", "/v1/keys", ""); !strings.HasPrefix(text, `{"keys":[{"id":"app"`) || strings.Contains(text, "hash") {
		t.Errorf("keys: %s", text)
	}
	if status, text, _ := d.ask(d.tcp, "GET", "/v1/connections/c_0mine001", ""); status != 200 || !strings.Contains(text, `"client":"ann"`) {
		t.Errorf("%d %s", status, text)
	}
	if status, text, _ := d.ask(d.tcp, "GET", "/v1/tickets/tkt_1", ""); status != 200 || text != `{"id":"tkt_1","state":"unused"}`+"\n" {
		t.Errorf("%d %s", status, text)
	}
	if status, _, _ := d.ask(d.tcp, "GET", "/v1/tickets/tkt_x", ""); status != 404 {
		t.Errorf("no ticket: %d", status)
	}
}

// TestOneLineAChange: a change is one line of the log, whatever is in the names; who was not allowed is told too, and looking is not.
func TestOneLineAChange(t *testing.T) {
	d := newDesk(t, "")
	d.ask(d.own, "GET", "/v1/clients", "")
	d.ask(d.own, "POST", "/v1/clients/eve%0A%7B%22level%22%3A%22ERROR%22%7D%1B%5B2J:disconnect", `{"reason":"why not"}`)
	d.ask(d.tcp, "DELETE", "/v1/keys/app", "")
	lines := strings.Split(strings.TrimSuffix(d.log.String(), "\n"), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines: %s", len(lines), d.log)
	}
	for i, want := range []map[string]any{
		{"msg": "admin change", "method": "POST", "client": "eve\n{\"level\":\"ERROR\"}\x1b[2J", "status": 200.0, "outcome": "done", "reason": "why not", "revocation": "rev_1", "connections": 7.0, "cluster_told": true},
		{"msg": "admin change", "method": "DELETE", "path": "/v1/keys/app", "status": 403.0},
	} {
		var got map[string]any
		if err := json.Unmarshal([]byte(lines[i]), &got); err != nil {
			t.Fatal(err)
		}
		for name, v := range want {
			if got[name] != v {
				t.Errorf("line %d: %s is %v, want %v", i, name, got[name], v)
			}
		}
		if by, _ := got["by"].(string); i == 0 && !strings.HasPrefix(by, "uid ") || i == 1 && !strings.HasPrefix(by, "127.0.0.1:") {
			t.Errorf("by %q", by)
		}
		if strings.ContainsAny(lines[i], "\x1b\r") {
			t.Errorf("control characters: %q", lines[i])
		}
	}
}
