package handshake_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ticketgate/handshake"
	"ticketgate/ticket"
)

func TestStreamsOfTheCaller(t *testing.T) {
	g := start(t, nil)
	for _, c := range []struct{ key, want string }{
		{g.key, `{"plan":"free","streams":[{"name":"chat","params":{}},{"name":"quotes","params":{"symbol":"^[A-Z]{1,6}$"}}]}`},
		{g.gold, `{"plan":"gold","streams":[{"name":"chat","params":{}}]}`},
	} {
		if a := g.do(call{method: "GET", path: "/v1/streams", key: c.key}); a.StatusCode != 200 || string(a.body) != c.want {
			t.Errorf("%d %s, want %s", a.StatusCode, a.body, c.want)
		}
	}
}

func TestLimitsOfTheCaller(t *testing.T) {
	g := start(t, nil)
	g.issue("user+42")
	g.issue("user+42")
	g.clock.Advance(2 * time.Second)
	a := g.do(call{method: "GET", path: "/v1/limits?client=user%2B42", key: g.key})
	want := `{"client":"user+42","plan":"free","limits":[{"name":"connections","per":"client","configured":2,"used":2,"remaining":0},` +
		`{"name":"tickets","per":"client","configured":"10/1minute","burst":10,"used":2,"remaining":8,"resets_in":4},` +
		`{"name":"bytes-in","per":"connection","configured":"1MiB/1second","burst":1048576},` +
		`{"name":"messages-in","per":"client","configured":"3/1minute","burst":3,"used":0,"remaining":3,"resets_in":0}]}`
	if a.StatusCode != 200 || string(a.body) != want {
		t.Errorf("%d %s\nwant %s", a.StatusCode, a.body, want)
	}
	if a := g.do(call{method: "GET", path: "/v1/limits", key: g.gold}); a.json(t)["client"] != "client-of-gold" {
		t.Errorf("%s", a.body)
	}
	for _, query := range []string{"client=", "client=a&client=b", "client=a+b", "client=%0A", "client=%FF", "client=" + strings.Repeat("a", 129)} {
		g.do(call{method: "GET", path: "/v1/limits?" + query, key: g.key}).wantProblem(t, 400, "invalid-request", "")
	}
}

func TestHealth(t *testing.T) {
	g := start(t, nil)
	for path, want := range map[string]string{"/healthz": `{"status":"ok"}`, "/readyz?probe=1": `{"status":"ready"}`} {
		if a := g.do(call{method: "GET", path: path}); a.StatusCode != 200 || string(a.body) != want {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.body)
		}
	}
	if a := g.do(call{method: "HEAD", path: "/healthz"}); a.StatusCode != 200 || len(a.body) > 0 || a.ContentLength != 15 {
		t.Errorf("HEAD: %d %q, length %d", a.StatusCode, a.body, a.ContentLength)
	}
	g.draining.Store(true)
	if a := g.do(call{method: "GET", path: "/healthz"}); a.StatusCode != 200 {
		t.Errorf("a draining process is alive: %d", a.StatusCode)
	}
}

func TestFurtherPaths(t *testing.T) {
	g := start(t, nil)
	for _, c := range []struct {
		path   string
		status int
	}{{"/demo/", 200}, {"/demo/a/b.js", 200}, {"/demo", 404}, {"/demos/", 404}, {"/panic/", 404}, {"/", 404}} {
		if a := g.do(call{method: "GET", path: c.path}); a.StatusCode != c.status {
			t.Errorf("%s: %d, want %d", c.path, a.StatusCode, c.status)
		}
	}
}

func TestCORS(t *testing.T) {
	g := start(t, nil)
	const page = "https://app.example.com"
	pre := g.do(call{method: "OPTIONS", path: "/v1/tickets", header: http.Header{"Origin": {page}, "Access-Control-Request-Method": {"POST"}}})
	if h := pre.Header; pre.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != page || h.Get("Access-Control-Allow-Methods") != "POST" ||
		!strings.Contains(h.Get("Access-Control-Allow-Headers"), "X-API-Key") || h.Get("Vary") != "Origin" || h.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("preflight: %d %v", pre.StatusCode, h)
	}
	for _, c := range []struct{ origin, want string }{
		{page, page}, {"", ""}, {"null", ""}, {"https://app.example.com.evil.com", ""}, {"https://evil-app.example.com", ""},
		{"http://app.example.com", ""}, {"https://app.example.com:8443", ""}, {"HTTPS://APP.EXAMPLE.COM", ""}, {page + ".", ""}, {"*", ""},
	} {
		header := http.Header{}
		if c.origin != "" {
			header.Set("Origin", c.origin)
		}
		a := g.do(call{key: g.key, body: `{"stream":"chat","client":"` + c.origin + `-"}`, header: header})
		if got := a.Header.Get("Access-Control-Allow-Origin"); got != c.want || a.StatusCode != 201 {
			t.Errorf("origin %q: %d, %q", c.origin, a.StatusCode, got)
		}
	}
	if a := g.do(call{method: "OPTIONS", path: "/v1/limits"}); a.StatusCode != 204 || a.Header.Get("Allow") != "GET, HEAD, OPTIONS" {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
}

// Refusals that the next request on the connection would meet as well end it; the others do not.
func TestWhichRefusalsEndTheConnection(t *testing.T) {
	g := start(t, nil)
	down := ticket.ErrUnavailable
	for _, c := range []struct {
		text   string
		status int
		ends   bool
	}{
		{"GET /v1/nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404, false},
		{"GET /v1/tickets HTTP/1.1\r\nHost: a\r\n\r\n", 405, false},
		{"GET /v1/streams HTTP/1.1\r\nHost: a\r\n\r\n", 401, false},
		{g.post(`{"stream":1}`), 400, false},
		{strings.Replace(g.post(wanted), "application/json", "text/plain", 1), 415, true},
		{g.post(`{"stream":"secret"}`), 403, true},
		{"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n", 500, true},
		{g.post(wanted), 503, true},
	} {
		if c.status == 503 {
			g.store.fault.Store(&down)
		}
		w := g.dial()
		w.send(c.text)
		if a := w.read(); a.StatusCode != c.status || a.Close != c.ends {
			t.Errorf("%d, close %v; want %d, %v", a.StatusCode, a.Close, c.status, c.ends)
		}
		g.must(w.Close())
	}
}

func TestPanicEndsOneRequest(t *testing.T) {
	g := start(t, nil)
	a := g.do(call{method: "GET", path: "/panic"})
	a.wantProblem(t, 500, "fault", "")
	log := g.log.String()
	if !strings.Contains(log, "fault in a request") || !strings.Contains(log, "type=") || !strings.Contains(log, "server.go") {
		t.Errorf("the fault is not in the log: %s", log)
	}
	if strings.Contains(log, "injected") {
		t.Error("the log quotes the panic, which may quote a client")
	}
	g.issue("u")
}

func TestTooManyConnections(t *testing.T) {
	g := start(t, func(_ *rig, o *handshake.Options) { o.Connections = 1 })
	first := g.dial()
	first.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
	if a := first.read(); a.StatusCode != 200 {
		t.Fatalf("%d", a.StatusCode)
	}
	second := g.dial()
	second.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
	second.read().wantProblem(t, 503, "overloaded", "")
	second.closed()
	g.must(first.Close())
}

// listener fails as it is told before it accepts.
type listener struct {
	net.Listener
	fail []error
}

func (l *listener) Accept() (net.Conn, error) {
	if len(l.fail) == 0 {
		return l.Listener.Accept()
	}
	err := l.fail[0]
	l.fail = l.fail[1:]
	return nil, &net.OpError{Op: "accept", Err: err}
}

// Serve survives what ends fasthttp's own loop.
func TestAcceptOutlivesAShortage(t *testing.T) {
	g := start(t, func(_ *rig, o *handshake.Options) {})
	s, err := handshake.New(g.options())
	g.must(err)
	_, err = s.Listen()
	g.must(err)
	s.SetListener(&listener{s.Listener(), []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED, syscall.ENOBUFS}})
	done := make(chan error)
	go func() { done <- s.Serve() }()
	g.addr = s.Listener().Addr().String()
	if a := g.do(call{method: "GET", path: "/healthz"}); a.StatusCode != 200 {
		t.Errorf("%d", a.StatusCode)
	}
	var stats handshake.Stats
	s.Stats(&stats)
	if stats.AcceptErrors != 4 {
		t.Errorf("%d accept errors", stats.AcceptErrors)
	}
	g.must(s.Shutdown(context.Background()))
	g.must(<-done)
}

func TestServeEndsWhenNothingCanBeAccepted(t *testing.T) {
	g := start(t, nil)
	s, err := handshake.New(g.options())
	g.must(err)
	_, err = s.Listen()
	g.must(err)
	s.SetListener(&listener{s.Listener(), []error{syscall.EINVAL}})
	if err := s.Serve(); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("%v", err)
	}
	g.must(s.Shutdown(context.Background()))
}

func TestShutdown(t *testing.T) {
	g := start(t, func(g *rig, o *handshake.Options) {
		g.store.wait = make(chan struct{})
		o.IdleTimeout, o.ReadTimeout = time.Hour, time.Hour // it is not they that end the idle ones
	})
	release := sync.OnceFunc(func() { close(g.store.wait) })
	defer release()
	idle, silent, busy := g.dial(), g.dial(), g.dial()
	idle.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
	idle.read()
	busy.send(g.post(`{"stream":"chat"}`))
	for g.stats().Decisions[handshake.Decision{Limit: "tickets", Plan: "free", Decision: "allow"}] == 0 {
		g.do(call{method: "GET", path: "/healthz"}) // until busy's request is about to reach the store
	}
	done := make(chan error)
	go func() { done <- g.Shutdown(context.Background()) }()
	idle.closed()
	silent.closed()
	release()
	if a := busy.read(); a.StatusCode != 201 || a.Header.Get("Connection") != "close" && !a.Close {
		t.Errorf("the request under way: %d %v", a.StatusCode, a.Header)
	}
	busy.closed()
	g.must(<-done)
	if c, err := net.Dial("tcp", g.addr); err == nil {
		_ = c.Close()
		t.Error("still listening")
	}
}

func TestShutdownCutsWhatLastsTooLong(t *testing.T) {
	g := start(t, nil)
	w := g.dial()
	w.send("GET /healthz HTTP/1.1\r\n")
	for g.stats().Connections == 0 {
		g.do(call{method: "GET", path: "/healthz"})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := g.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	// Where its first bytes had not been looked at, it is told that no more are waited for.
	if answer, err := io.ReadAll(w.r); len(answer) > 0 && !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") {
		t.Errorf("half a head is answered %.60q, %v", answer, err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	g := start(t, nil)
	for name, change := range map[string]func(*handshake.Options){
		"no scheme":      func(o *handshake.Options) { o.GateURL = "rt.example.com" },
		"http":           func(o *handshake.Options) { o.GateURL = "https://rt.example.com" },
		"slash":          func(o *handshake.Options) { o.GateURL = "wss://rt.example.com/" },
		"short life":     func(o *handshake.Options) { o.TTL = time.Second },
		"long life":      func(o *handshake.Options) { o.TTL = time.Hour },
		"outstanding":    func(o *handshake.Options) { o.Outstanding = -1 },
		"key header":     func(o *handshake.Options) { o.KeyHeader = "X API" },
		"no node":        func(o *handshake.Options) { o.Node = nil },
		"no randomness":  func(o *handshake.Options) { g.rnd.dry(); o.Rand = g.rnd },
		"no connections": func(o *handshake.Options) { o.Connections = -1 },
	} {
		o := g.options()
		change(&o)
		if _, err := handshake.New(o); err == nil {
			t.Errorf("%s passes", name)
		}
	}
	s, err := handshake.New(func() handshake.Options {
		o := g.options()
		o.Rand = strings.NewReader(strings.Repeat("r", 40))
		o.Address = "127.0.0.1:x"
		return o
	}())
	g.must(err)
	if _, err := s.Listen(); err == nil {
		t.Error("listens on a port x")
	}
}
