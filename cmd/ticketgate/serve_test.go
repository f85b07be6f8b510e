package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"ticketgate/engine/frame"
	"ticketgate/internal/config"
)

const serveYAML = `
version: 1
node: { name: gw-test }
listen:
  handshake: { address: "127.0.0.1:0" }
  gate: { address: "127.0.0.1:0", public_url: "ws://gate.test", per_address: { exempt: [127.0.0.0/8, "::1/128"] } }
  admin: { address: "127.0.0.1:0" }
drain: { over: 0s, grace: 0s }
`

// TestServe: it says where it listens, answers there, and ends with 0 when it is told to.
func TestServe(t *testing.T) {
	file := write(t, t.TempDir(), "t.yaml", serveYAML)
	r, w := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, &env{args: []string{"serve", "--config", file}, stdin: strings.NewReader(""), stdout: io.Discard, stderr: w})
		_ = w.Close()
	}()
	defer stop()
	log := bufio.NewScanner(r)
	var line struct{ Msg, Node, Handshake, Gate, Admin, Store, Version string }
	if !log.Scan() || json.Unmarshal(log.Bytes(), &line) != nil {
		t.Fatalf("the first line of the log is %q", log.Text())
	}
	if line.Msg != "serving" || line.Node != "gw-test" || line.Store != "memory" || line.Version != version {
		t.Errorf("the log says %+v", line)
	}
	for address, want := range map[string]int{
		line.Handshake + "/healthz": http.StatusOK, line.Admin + "/readyz": http.StatusOK, line.Gate + "/nope": http.StatusNotFound,
	} {
		if got := status(t, "http://"+address); got != want {
			t.Errorf("%s answers %d, want %d", address, got, want)
		}
	}
	stop()
	if !log.Scan() || !strings.Contains(log.Text(), `"draining"`) {
		t.Errorf("after a signal the log says %q", log.Text())
	}
	if log.Scan() {
		t.Errorf("then it says %q", log.Text())
	}
	if code := <-ended; code != exitOK {
		t.Errorf("exit %d", code)
	}
}

func status(t *testing.T, address string) int {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	a, err := client.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	return a.StatusCode
}

// TestServeRefused: what cannot be served ends at once, with where and what to do.
func TestServeRefused(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	dir := t.TempDir()
	file := write(t, dir, "t.yaml", serveYAML)
	hint := ": bind: address already in use; is another gateway running? stop it, or change the address in " + file + "\n"
	for _, listener := range []string{"handshake", "gate", "admin"} {
		set := "TICKETGATE_LISTEN__" + strings.ToUpper(listener) + "__ADDRESS=" + busy.Addr().String()
		got := ticketgate(t, "", []string{set}, "serve", "--config", file)
		if got.code != exitFailed || got.out != "" || !strings.HasSuffix(got.errors, hint) || !strings.Contains(got.errors, busy.Addr().String()) {
			t.Errorf("%s: %+v", listener, got)
		}
		if !strings.HasPrefix(got.errors, "ticketgate: listen."+listener+".address: ") {
			t.Errorf("%s: the message does not begin with the key: %q", listener, got.errors)
		}
	}
	for _, c := range []struct {
		args []string
		code int
		err  string
	}{
		{[]string{"--config", dir + "/none.yaml"}, exitConfig, dir + "/none.yaml: cannot be read: no such file or directory\n1 problem\n"},
		{[]string{"--config", dir}, exitConfig, dir + ": cannot be read: is a directory\n1 problem\n"},
		{[]string{"--config", ""}, exitConfig, ": cannot be read: no such file or directory\n1 problem\n"},
		{[]string{"--config"}, exitUsage, "ticketgate: flag needs an argument: --config\nsee: ticketgate serve --help\n"},
		{[]string{file}, exitUsage, "ticketgate: unknown command \"" + file + "\" for \"ticketgate serve\"\nsee: ticketgate serve --help\n"},
	} {
		if got := ticketgate(t, "", nil, append([]string{"serve"}, c.args...)...); got.code != c.code || got.errors != c.err || got.out != "" {
			t.Errorf("%q: %+v, want %d, %q", c.args, got, c.code, c.err)
		}
	}
}

func TestNewLog(t *testing.T) {
	for _, c := range []struct {
		format, level, want string
	}{
		{"json", "info", `"msg":"news"`},
		{"auto", "info", `"msg":"news"`},
		{"text", "debug", "msg=news"},
		{"text", "warn", ""},
		{"json", "error", ""},
	} {
		var b bytes.Buffer
		newLog(&b, config.Log{Format: c.format, Level: c.level}).Log(context.Background(), slog.LevelInfo, "news")
		if (c.want == "") != (b.Len() == 0) || !strings.Contains(b.String(), c.want) {
			t.Errorf("%s, %s: %q, want %q", c.format, c.level, b.String(), c.want)
		}
	}
}

// TestExplain: every close code of the gateway has words of its own, and the words carry the name that the reason gives.
func TestExplain(t *testing.T) {
	seen := map[string]frame.Code{}
	for _, code := range []frame.Code{
		frame.CloseNormal, frame.CloseGoingAway, frame.CloseProtocol, frame.CloseUnsupported, frame.CloseInvalid, frame.ClosePolicy,
		frame.CloseTooBig, frame.CloseFault, frame.CloseDrain, frame.CloseOverloaded, frame.CloseExpired, frame.CloseRevoked,
		frame.CloseIdle, frame.CloseReplaced, frame.CloseLimit, frame.CloseSlow, frame.CloseBackend, frame.CloseBackendTimeout,
		frame.CloseNoStatus, frame.CloseAbnormal, 4000, 3999,
	} {
		text := explain(code, "")
		if other, ok := seen[text]; ok || text == "" {
			t.Errorf("%d is explained as %q, and so is %d", code, text, other)
		}
		seen[text] = code
	}
	for _, c := range []struct {
		code         frame.Code
		reason, want string
	}{
		{frame.ClosePolicy, "guard:json.depth", "a guard refused this message: json.depth"},
		{frame.CloseLimit, "limit:bytes-in", `the limit "bytes-in" was exceeded: wait before reconnecting`},
		{0, "", "closed without a code"},
	} {
		if got := explain(c.code, c.reason); got != c.want {
			t.Errorf("%d %q is explained as %q, want %q", c.code, c.reason, got, c.want)
		}
	}
}

// TestDemoFiles: each file has its type and the policy, and nothing else is served.
func TestDemoFiles(t *testing.T) {
	page, err := demo("tgk_dev_x", []string{"clock", "echo"}, "ws://127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path   string
		status int
		kind   string
		has    string
	}{
		{"/demo/", 200, "text/html; charset=utf-8", "<title>ticketgate demo</title>"},
		{"/demo/index.html", 200, "text/html; charset=utf-8", "demo.js"},
		{"/demo/demo.js", 200, "text/javascript; charset=utf-8", "use strict"},
		{"/demo/style.css", 200, "text/css; charset=utf-8", "color-scheme"},
		{"/demo/config.json", 200, "application/json", `{"key":"tgk_dev_x","streams":["clock","echo"]}`},
		{"/demo/nope", 404, "text/plain; charset=utf-8", "try /demo/"},
		{"/demo/.", 404, "text/plain; charset=utf-8", "try /demo/"},
	} {
		var ctx fasthttp.RequestCtx
		ctx.Request.SetRequestURI(c.path)
		ctx.Request.URI().DisablePathNormalizing = true
		page(&ctx)
		a := &ctx.Response
		if a.StatusCode() != c.status || string(a.Header.ContentType()) != c.kind || !strings.Contains(string(a.Body()), c.has) {
			t.Errorf("%s: %d %s %q", c.path, a.StatusCode(), a.Header.ContentType(), a.Body())
		}
		policy := string(a.Header.Peek("Content-Security-Policy"))
		if c.status == 200 && (!strings.HasPrefix(policy, "default-src 'none'; script-src 'self'") || !strings.Contains(policy, "connect-src 'self' ws://127.0.0.1:9;")) {
			t.Errorf("%s: policy %q", c.path, policy)
		}
	}
}
