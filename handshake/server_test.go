package handshake_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"go.uber.org/goleak"

	"ticketgate/handshake"
	"ticketgate/handshake/auth"
	"ticketgate/internal/mono"
	"ticketgate/limiter"
	"ticketgate/store/memory"
	"ticketgate/ticket"
)

func TestMain(m *testing.M) {
	// fasthttp keeps one goroutine a process for the Date header, which nothing can end.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// source is a random source that a test can repeat, or break.
type source struct {
	mu     sync.Mutex
	r      *rand.ChaCha8
	broken bool
}

func (s *source) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return 0, errors.New("no entropy")
	}
	return s.r.Read(p)
}

func (s *source) dry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = true
}

// node is the store and what the front end knows of the cluster.
type node struct {
	*store
	epoch  atomic.Uint32
	asked  atomic.Uint64 // whose epoch was asked for last
	next   atomic.Uint32 // what epoch becomes when it is asked for once more
	clock  mono.Clock
	number atomic.Uint32 // of the node in locators
	err    atomic.Pointer[error]
}

func (n *node) Epoch(s ticket.Subject) ticket.Epoch {
	n.asked.Store(uint64(s))
	e := n.epoch.Load()
	if next := n.next.Load(); next != 0 {
		n.epoch.Store(next)
	}
	return ticket.Epoch(e)
}
func (n *node) Number() uint16       { return uint16(n.number.Load()) }
func (n *node) StoreTime() time.Time { return n.clock.Wall() }
func (n *node) Ready() error {
	if err := n.err.Load(); err != nil {
		return *err
	}
	return nil
}

// store is the real one in memory, unless a fault is set.
type store struct {
	ticket.Store
	fault  atomic.Pointer[error]
	answer atomic.Pointer[ticket.IssueAnswer]
	issues atomic.Int32  // calls
	wait   chan struct{} // if not nil, Issue waits until it is closed
}

func (s *store) Issue(ctx context.Context, r *ticket.IssueRequest) (ticket.IssueAnswer, error) {
	s.issues.Add(1)
	if s.wait != nil {
		<-s.wait
	}
	if err := s.fault.Load(); err != nil {
		return ticket.IssueAnswer{}, *err
	}
	if a := s.answer.Load(); a != nil {
		return *a, nil
	}
	return s.Store.Issue(ctx, r)
}

func (s *store) Revoke(ctx context.Context, r *ticket.RevokeRequest) (bool, error) {
	if err := s.fault.Load(); err != nil {
		return false, *err
	}
	return s.Store.Revoke(ctx, r)
}

func (s *store) Used(ctx context.Context, u ticket.Subject, dead []ticket.Incarnation) (uint32, error) {
	if err := s.fault.Load(); err != nil {
		return 0, *err
	}
	return s.Store.Used(ctx, u, dead)
}

// syncBuffer collects log lines of many goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// rig is a running front end and all around it.
type rig struct {
	*handshake.Server
	t        testing.TB
	addr     string
	key      string // of plan free, client app, scope delegate
	gold     string // of plan gold, for chat only, no scope
	lost     string // of a plan that its product does not have
	expired  string
	afar     string // only from 192.0.2.0/24
	clock    *mono.Manual
	rnd      *source
	node     *node
	store    *store
	memory   *memory.Store // inside it
	noted    string        // a ticket that was taken back
	ring     *ticket.KeyRing
	log      *syncBuffer
	draining atomic.Bool
	short    atomic.Bool
	done     chan error
	made     handshake.Options
}

// options are those the rig's server was made of.
func (g *rig) options() handshake.Options { return g.made }

const keyOfBytes = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=" // 32 times "A"

// start runs a front end on a free loopback port until the test ends. change may be nil.
func start(t testing.TB, change func(*rig, *handshake.Options)) *rig {
	t.Helper()
	g := &rig{t: t, clock: mono.NewManual(noon), rnd: &source{r: rand.NewChaCha8([32]byte{1})}, log: new(syncBuffer), done: make(chan error, 1)}
	kept, err := memory.New(memory.Options{Clock: g.clock, Rand: g.rnd})
	g.must(err)
	view, err := kept.Renew(context.Background(), &ticket.RenewRequest{Incarnation: 1, Name: "test", Lease: 45 * time.Second, Number: 1, Enter: true, Topology: ticket.One.ID})
	g.must(err)
	g.store, g.memory = &store{Store: kept}, kept
	g.node = &node{store: g.store, clock: g.clock}
	g.node.epoch.Store(uint32(view.Seen.Epoch))
	g.ring, err = ticket.ParseKeyRing("a:" + keyOfBytes)
	g.must(err)
	policy := g.policy()
	o := handshake.Options{
		Address: "127.0.0.1:0", GateURL: "ws://127.0.0.1:8081",
		Keys: g.ring, Node: g.node, Clock: g.clock, Rand: g.rnd,
		Log:      slog.New(slog.NewTextHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Policy:   func() *handshake.Policy { return policy },
		Messages: limiter.NewTable(64, 1, g.clock),
		Draining: g.draining.Load, Overloaded: g.short.Load,
		Extra: map[string]handshake.Handler{
			"/demo/": func(ctx *fasthttp.RequestCtx) { ctx.SetBodyString("demo") },
			"/panic": func(*fasthttp.RequestCtx) { panic("injected") },
		},
	}
	if change != nil {
		change(g, &o)
	}
	g.made = o
	g.Server, err = handshake.New(o)
	g.must(err)
	addr, err := g.Listen()
	g.must(err)
	g.addr = addr.String()
	go func() { g.done <- g.Serve() }()
	t.Cleanup(g.end)
	return g
}

func (g *rig) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *rig) end() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := g.Shutdown(ctx); err != nil {
		g.t.Errorf("shutdown: %v", err)
	}
	if err := <-g.done; err != nil {
		g.t.Errorf("serve: %v", err)
	}
	g.must(g.store.Store.Close())
}

// hashRing hashes keys.
var hashRing = "h:" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{'h'}, 32))

func (g *rig) policy() *handshake.Policy {
	ring, err := auth.ParseRing(hashRing)
	g.must(err)
	past := noon.Add(-time.Hour)
	var recs []auth.Record
	add := func(id, plan string, change func(*auth.Record)) string {
		text, rec, err := auth.Generate(g.rnd, id, ring)
		g.must(err)
		rec.Product, rec.Plan, rec.Client = "market-data", plan, "client-of-"+id
		if change != nil {
			change(&rec)
		}
		recs = append(recs, rec)
		return text
	}
	g.key = add("app", "free", func(r *auth.Record) { r.Scopes = []string{auth.ScopeDelegate} })
	g.gold = add("gold", "gold", func(r *auth.Record) { r.Scopes = []string{"stream:chat"} })
	g.lost = add("lost", "silver", nil)
	g.expired = add("old", "free", func(r *auth.Record) { r.Expires = &past })
	g.afar = add("afar", "free", func(r *auth.Record) { r.IP = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} })
	keys, problems := auth.NewKeys(recs, ring)
	if problems != nil {
		g.t.Fatal(problems)
	}
	return &handshake.Policy{
		Streams: map[string]handshake.Stream{
			"chat":   {},
			"quotes": {Params: map[string]*regexp.Regexp{"symbol": regexp.MustCompile("^[A-Z]{1,6}$")}},
			"secret": {},
		},
		Plans: map[string]*limiter.Plan{
			"free": g.plan("free", map[string]limiter.Options{
				"connections": {Count: ptr(2)},
				"tickets":     {Rate: rate("10/1minute"), Per: limiter.PerClient},
				"messages-in": {Rate: rate("3/1minute"), Per: limiter.PerClient},
				"bytes-in":    {Rate: rate("1MiB/1second"), Per: limiter.PerConnection},
			}),
			"gold": g.plan("gold", map[string]limiter.Options{
				"connections": {Count: ptr(50), Per: limiter.PerKey},
				"tickets":     {Rate: rate("100/1hour"), Burst: ptr(limiter.Size(3)), Per: limiter.PerKey, Hard: ptr(false)},
			}),
			"silver": g.plan("silver", nil),
		},
		Products:    map[string]handshake.Product{"market-data": {Streams: []string{"quotes", "chat"}, Plans: []string{"free", "gold"}}},
		Keys:        keys,
		CORSOrigins: []string{"https://app.example.com"},
	}
}

func (g *rig) plan(name string, limits map[string]limiter.Options) *limiter.Plan {
	p, problems := limiter.Compile(name, limits, limiter.Defaults{})
	if problems != nil {
		g.t.Fatal(problems)
	}
	return p
}

// call is one request and its answer over a connection of its own.
type call struct {
	method, path, key, body string
	header                  http.Header
}

type answer struct {
	*http.Response
	body []byte
}

func (g *rig) do(c call) answer {
	g.t.Helper()
	if c.method == "" {
		c.method, c.path = "POST", "/v1/tickets"
	}
	req, err := http.NewRequest(c.method, "http://"+g.addr+c.path, strings.NewReader(c.body))
	g.must(err)
	if c.body == "" {
		req.Body = http.NoBody
	} else {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		req.Header.Set("X-API-Key", c.key)
	}
	for k, v := range c.header {
		req.Header[k] = v
	}
	req.Close = true
	res, err := http.DefaultTransport.RoundTrip(req)
	g.must(err)
	body, err := io.ReadAll(res.Body)
	g.must(err)
	g.must(res.Body.Close())
	return answer{res, body}
}

// issue asks for a ticket for client and wants it.
func (g *rig) issue(client string) map[string]any {
	g.t.Helper()
	a := g.do(call{key: g.key, body: `{"stream":"chat","client":"` + client + `"}`})
	if a.StatusCode != 201 {
		g.t.Fatalf("status %d: %s", a.StatusCode, a.body)
	}
	return a.json(g.t)
}

func (a answer) json(t testing.TB) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(a.body, &m); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return m
}

// wire is a connection on which a test writes bytes.
type wire struct {
	*net.TCPConn
	t testing.TB
	r *bufio.Reader
}

func (g *rig) dial() *wire {
	g.t.Helper()
	c, err := net.Dial("tcp", g.addr)
	g.must(err)
	g.must(c.SetDeadline(time.Now().Add(20 * time.Second)))
	g.t.Cleanup(func() { _ = c.Close() })
	return &wire{c.(*net.TCPConn), g.t, bufio.NewReader(c)}
}

func (w *wire) send(s string) {
	w.t.Helper()
	if _, err := io.WriteString(w.TCPConn, s); err != nil {
		w.t.Fatal(err)
	}
}

// read reads one answer.
func (w *wire) read() answer {
	w.t.Helper()
	res, err := http.ReadResponse(w.r, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{res, body}
}

// closed wants the end and nothing before it.
func (w *wire) closed() {
	w.t.Helper()
	if rest, err := io.ReadAll(w.r); err != nil || len(rest) > 0 {
		w.t.Fatalf("after the answer: %.200q, %v", rest, err)
	}
}

func ptr[T any](v T) *T { return &v }

func rate(s string) *limiter.Rate {
	r, err := limiter.ParseRate(s)
	if err != nil {
		panic(err)
	}
	return &r
}

func (g *rig) stats() *handshake.Stats {
	var s handshake.Stats
	g.Stats(&s)
	return &s
}

// post is a whole request for a ticket as bytes.
func (g *rig) post(body string) string {
	return fmt.Sprintf("POST /v1/tickets HTTP/1.1\r\nHost: a\r\nX-API-Key: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		g.key, len(body), body)
}
