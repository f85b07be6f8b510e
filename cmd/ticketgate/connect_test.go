package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"ticketgate/handshake/auth"
	"ticketgate/internal/config"
)

// trial is a running gateway with a key for each plan.
type trial struct {
	url  string
	gate string
	keys map[string]string // by plan
	back *httptest.Server  // of stream "relay": says what it is told to
}

const trialYAML = `
version: 1
listen:
  handshake: { address: "127.0.0.1:0" }
  gate: { address: "127.0.0.1:0", public_url: "ws://set.by.the.test", per_address: { exempt: [127.0.0.0/8, "::1/128"] } }
  admin: { address: "127.0.0.1:0" }
products:
  all: { streams: [clock, dead, echo, quiet, relay, symbols], plans: [few, free] }
plans:
  free:
  few:
    limits:
      connections: { count: 1, per: client }
      messages-in: { rate: 1/1day, per: connection }
streams:
  clock: { feed: clock }
  dead: { backend: dead }
  echo: { backend: echo }
  quiet: { feed: hourly }
  relay: { backend: relay }
  symbols: { backend: echo, params: { symbol: "[A-Z]+" } }
backends:
  dead: { targets: ["ws://127.0.0.1:1/"] }
  echo: { kind: echo }
  relay: { targets: ["TARGET"] }
feeds:
  clock: { kind: clock, every: 10ms }
  hourly: { kind: clock, every: 1h }
drain: { over: 0s, grace: 0s }
`

// startTrial runs a gateway in this process until the test ends.
func startTrial(t *testing.T) *trial {
	t.Helper()
	tr := &trial{keys: map[string]string{}, back: httptest.NewServer(http.HandlerFunc(obey))}
	t.Cleanup(tr.back.Close)
	target := "ws" + strings.TrimPrefix(tr.back.URL, "http")
	c, err := config.Load(write(t, t.TempDir(), "t.yaml", strings.Replace(trialYAML, "TARGET", target, 1)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Listen.Gate.PublicURL = "" // the gate's own address, which the system chooses
	keys, err := auth.ParseRing(ring)
	if err != nil {
		t.Fatal(err)
	}
	for _, plan := range []string{"free", "few"} {
		key, record, err := auth.Generate(rand.Reader, plan, keys)
		if err != nil {
			t.Fatal(err)
		}
		record.Client, record.Product, record.Plan = plan, "all", plan
		c.Keys, tr.keys[plan] = append(c.Keys, record), key
	}
	g, err := newGateway(c, slog.New(slog.DiscardHandler), extras{keyRing: keys})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	serving := make(chan struct{})
	go func() { ended <- g.run(ctx, func() { close(serving) }) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the gateway ended with %v", err)
		}
	})
	<-serving
	tr.url, tr.gate = "http://"+g.handshakeAddr.String(), "http://"+g.gateAddrs[0].String()
	return tr
}

// obey is the backend: "die" drops the connection, some words are closes, the rest comes back.
func obey(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	closes := map[string]websocket.StatusCode{"going": 1001, "fault": 1011, "app": 4321}
	for {
		kind, b, err := c.Read(r.Context())
		switch code, ok := closes[string(b)]; {
		case err != nil || string(b) == "die":
			return
		case ok:
			_ = c.Close(code, "as told")
			return
		}
		if c.Write(r.Context(), kind, b) != nil {
			return
		}
	}
}

func TestConnect(t *testing.T) {
	tr := startTrial(t)
	free, few := "--key="+tr.keys["free"], "--key="+tr.keys["few"]
	for _, c := range []struct {
		name     string
		args     []string
		stdin    string
		code     int
		out, err string // as in TestExitCodes
	}{
		{"echo", []string{"echo", free}, "one\ntwo\n", exitOK, "=one\ntwo\n", "closed 1000 \"\"   normal end\n"},
		{"no last line end", []string{"echo", free}, "one", exitOK, "=one\n", "(30s, single use)  connected in "},
		{"plan and slots", []string{"echo", free}, "x\n", exitOK, "=x\n", " plan=free  slots "},
		{"param", []string{"symbols", free, "--param", "symbol=ACME"}, "x\n", exitOK, "=x\n", "1000"},
		{"protocol", []string{"echo", free, "--protocol", "chat.v1"}, "x\n", exitOK, "=x\n", "1000"},
		{"ticket only", []string{"echo", free, "--ticket-only"}, "", exitOK, `"protocols":["ticketgate.v1","tgs_`, ""},

		{"limit", []string{"echo", few}, "one\ntwo\n", exitFailed, "=one\n", "closed 4429 \"limit:messages-in\"   the limit \"messages-in\" was exceeded: wait before reconnecting\n"},
		{"too big", []string{"echo", free}, strings.Repeat("x", 70_000) + "\n", exitFailed, "", "closed 1009 "},
		{"not UTF-8", []string{"echo", free}, "\xff\n", exitFailed, "", "a text message was not UTF-8"},
		{"may not send", []string{"quiet", free}, "x\n", exitFailed, "", "closed 1003 \"\"   this stream takes no messages of this kind from clients\n"},
		{"dead backend", []string{"dead", free}, "", exitFailed, "", ": 502 Backend refused or unreachable"},

		{"unknown stream", []string{"nope", free}, "", exitFailed, "", "connect: no ticket: 404 No such stream"},
		{"wrong key", []string{"echo", free + "x"}, "", exitFailed, "", "connect: no ticket: 401 Credential missing or not valid"},
		{"no scope", []string{"echo", free, "--client", "bob"}, "", exitFailed, "", "403 Scope missing"},
		{"bad param", []string{"symbols", free, "--param", "symbol=acme"}, "", exitFailed, "", "400 Invalid request: params"},
		{"missing param", []string{"echo", free, "--param", "x=y"}, "", exitFailed, "", "400 Invalid request: params"},
		{"gate's address", []string{"echo", free, "--url", tr.gate}, "", exitFailed, "", "405 "},
		{"no gateway", []string{"echo", free, "--url", tr.back.URL}, "", exitFailed, "", "=ticketgate: connect: no ticket: 426 Upgrade Required\n"},

		{"no stream", []string{free}, "", exitUsage, "", "accepts 1 arg(s), received 0"},
		{"no key", []string{"echo"}, "", exitUsage, "", "no API key: give --key, or set TICKETGATE_KEY"},
		{"key with a line end", []string{"echo", "--key", "tgk_a\nb"}, "", exitUsage, "", "=ticketgate: connect: this is no API key: it has a space, a line end or another character that no key has\n"},
		{"param without value", []string{"echo", free, "--param", "x"}, "", exitUsage, "", `--param "x": want NAME=VALUE`},
		{"no time", []string{"echo", free, "--timeout", "0s"}, "", exitUsage, "", "--timeout 0s: want more than 0"},
		{"url without scheme", []string{"echo", free, "--url", "127.0.0.1:8080"}, "", exitUsage, "", `--url "127.0.0.1:8080": want the handshake address, such as http://127.0.0.1:8080`},
		{"url of another scheme", []string{"echo", free, "--url", "ws://127.0.0.1"}, "", exitUsage, "", `--url "ws://127.0.0.1": want`},
		{"url without host", []string{"echo", free, "--url", "http:///x"}, "", exitUsage, "", `--url "http:///x": want`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ticketgate(t, c.stdin, []string{"TICKETGATE_URL=" + tr.url}, append([]string{"connect"}, c.args...)...)
			if got.code != c.code {
				t.Errorf("exit %d, want %d", got.code, c.code)
			}
			alike(t, "stdout", got.out, c.out)
			alike(t, "stderr", got.errors, c.err)
			for _, secret := range []string{tr.keys["free"], "/t/", "tgs_"} {
				if strings.Contains(got.errors, secret) {
					t.Errorf("stderr shows the secret %q: %q", secret, got.errors)
				}
			}
		})
	}
}

// TestConnectKey: the key may come from the environment, and a flag is over it.
func TestConnectKey(t *testing.T) {
	tr := startTrial(t)
	environ := []string{"TICKETGATE_URL=http://127.0.0.1:1", "TICKETGATE_KEY=" + tr.keys["free"]}
	if got := ticketgate(t, "x\n", environ, "connect", "echo", "--url", tr.url+"/"); got.code != exitOK || got.out != "x\n" {
		t.Errorf("with a key from the environment: %+v", got)
	}
	environ[0] = "TICKETGATE_URL=" + tr.url
	if got := ticketgate(t, "x\n", environ, "connect", "echo", "--key", "tgk_x_y"); got.code != exitFailed || !strings.Contains(got.errors, "401") {
		t.Errorf("with another key in the flag: %+v", got)
	}
}

// talker is a connect that is still running.
type talker struct {
	t      *testing.T
	in     *os.File
	out    *lines
	stop   context.CancelFunc
	ended  chan int
	errors bytes.Buffer // to be read once it has ended
}

// lines hands out what is written, a line a read.
type lines struct{ c chan string }

func (l *lines) Write(b []byte) (int, error) {
	l.c <- string(b)
	return len(b), nil
}

func startConnect(t *testing.T, tr *trial, interactive bool, args ...string) *talker {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	k := &talker{t: t, in: w, out: &lines{make(chan string, 1000)}, stop: stop, ended: make(chan int, 1)}
	e := &env{args: append([]string{"connect"}, args...), environ: []string{"TICKETGATE_URL=" + tr.url}, stdin: r, stdout: k.out,
		stderr: &k.errors, interactive: interactive}
	go func() { k.ended <- run(ctx, e) }()
	t.Cleanup(func() {
		_ = w.Close()
		stop()
		_ = r.Close()
	})
	return k
}

func (k *talker) say(text string) {
	k.t.Helper()
	if _, err := io.WriteString(k.in, text); err != nil {
		k.t.Fatal(err)
	}
}

// TestConnectBackend: how the backend ends is told in words.
func TestConnectBackend(t *testing.T) {
	tr := startTrial(t)
	for word, want := range map[string]string{
		"die":   "closed 4502 \"backend\"   the backend was lost or broke the protocol: reconnect with backoff\n",
		"going": "closed 1001 \"as told\"   the other side is going away: reconnect\n",
		"fault": "closed 1011 \"as told\"   a fault in the gateway or the backend: reconnect with backoff\n",
		"app":   "closed 4321 \"as told\"   a code of the application's own\n",
	} {
		k := startConnect(t, tr, false, "relay", "--key", tr.keys["free"])
		k.say("hello\n")
		if got := <-k.out.c; got != "hello\n" {
			t.Errorf("the backend answers %q", got)
		}
		k.say(word + "\n")
		if code := <-k.ended; code != exitFailed || !strings.Contains(k.errors.String(), want) {
			t.Errorf("%s: exit %d, prints %q, want %q", word, code, k.errors.String(), want)
		}
	}
}

// TestConnectTerminal: a person sees who speaks and how long it took.
func TestConnectTerminal(t *testing.T) {
	tr := startTrial(t)
	k := startConnect(t, tr, true, "echo", "--key", tr.keys["free"])
	k.say("hello\n")
	if got := <-k.out.c; !strings.HasPrefix(got, "< hello\t(") || !strings.HasSuffix(got, " ms)\n") {
		t.Errorf("a terminal shows %q", got)
	}
	k.stop()
	if code := <-k.ended; code != exitInterrupted {
		t.Errorf("exit %d after an interrupt", code)
	}
	if text := k.errors.String(); strings.Contains(text, "lost") || strings.Contains(text, "ticketgate:") {
		t.Errorf("an interrupt is told as a fault: %q", text)
	}
}

// TestConnectListens: without a line of input it listens on, and a full plan refuses the next one in words.
func TestConnectListens(t *testing.T) {
	tr := startTrial(t)
	first := startConnect(t, tr, false, "clock", "--key", tr.keys["few"])
	if err := first.in.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got := <-first.out.c; !strings.HasPrefix(got, `{"time":"`) {
			t.Errorf("the clock says %q", got)
		}
	}
	second := ticketgate(t, "", []string{"TICKETGATE_URL=" + tr.url}, "connect", "clock", "--key", tr.keys["few"])
	if second.code != exitFailed || !strings.Contains(second.errors, `429 Too many open connections: limit "connections" of plan "few" is 1; try again in `) {
		t.Errorf("with a full plan: %+v", second)
	}
	first.stop()
	if code := <-first.ended; code != exitInterrupted {
		t.Errorf("exit %d after an interrupt", code)
	}
}

// TestConnectUnreachable: nobody there is 4, a redirection is not followed, and a stranger's answer is told as one.
func TestConnectUnreachable(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/html/v1/tickets":
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, "<html>")
		case "/empty/v1/tickets":
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, "{}")
		case "/away/v1/tickets":
			w.Header().Set("Location", "/html/v1/tickets")
			w.WriteHeader(http.StatusTemporaryRedirect)
		case "/gone/v1/tickets":
			w.WriteHeader(http.StatusCreated)
			_ = json.NewEncoder(w).Encode(map[string]any{"id": "tkt_1", "url": "ws://" + nobody + "/t/hidden"})
		case "/bad/v1/tickets":
			w.WriteHeader(http.StatusCreated)
			_ = json.NewEncoder(w).Encode(map[string]any{"id": "tkt_1", "url": "ws://%zz/t/hidden"})
		case "/plain/v1/tickets":
			w.WriteHeader(http.StatusCreated)
			_ = json.NewEncoder(w).Encode(map[string]any{"id": "tkt_1", "url": "ws" + "://" + r.Host + "/t/hidden"})
		case "/hangs/v1/tickets":
			_, _ = io.Copy(io.Discard, r.Body) // the server looks for the end of the connection only then
			<-r.Context().Done()
		default:
			http.Error(w, "no", http.StatusTeapot)
		}
	}))
	defer stranger.Close()
	for _, c := range []struct {
		url  string
		code int
		err  string
	}{
		{"http://" + nobody, exitUnreachable, "connect: no answer from http://" + nobody + "/v1/tickets: dial tcp " + nobody + ": connect: connection refused; is the gateway running, and --url its handshake address?"},
		{stranger.URL + "/hangs", exitUnreachable, "context deadline exceeded; is the gateway running"},
		{stranger.URL + "/html", exitFailed, "is not a ticket; is --url the handshake address of a gateway?"},
		{stranger.URL + "/empty", exitFailed, "is not a ticket; is --url the handshake address of a gateway?"},
		{stranger.URL + "/away", exitFailed, "connect: no ticket: 307 Temporary Redirect"},
		{stranger.URL + "/gone", exitUnreachable, "connect: cannot open a socket at " + nobody + ": dial tcp"},
		{stranger.URL + "/bad", exitFailed, "connect: ticket tkt_1 has no URL that can be opened"},
		{stranger.URL + "/plain", exitFailed, "connect: the gate refused ticket tkt_1: 418 I'm a teapot"},
	} {
		got := ticketgate(t, "", nil, "connect", "echo", "--key", "k", "--timeout", "300ms", "--url", c.url)
		if got.code != c.code || !strings.Contains(got.errors, c.err) || strings.Contains(got.errors, "hidden") {
			t.Errorf("%s: %+v, want %d, %q", c.url, got, c.code, c.err)
		}
	}
}

// TestConnectInterruptedEarly: an interrupt is 130 whatever it interrupts.
func TestConnectInterruptedEarly(t *testing.T) {
	asked := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(asked)
		<-r.Context().Done()
	}))
	defer silent.Close()
	k := startConnect(t, &trial{url: silent.URL}, false, "echo", "--key", "k")
	<-asked
	k.stop()
	if code := <-k.ended; code != exitInterrupted || k.errors.Len() != 0 {
		t.Errorf("exit %d, prints %q", code, k.errors.String())
	}
}

// TestConnectInput: an input that cannot be read is a failure, not a goodbye.
func TestConnectInput(t *testing.T) {
	tr := startTrial(t)
	for name, stdin := range map[string]io.Reader{
		"connect: standard input: a line of more than ": strings.NewReader(strings.Repeat("x", lineBytes+1)),
		"connect: standard input: broken disk":          broken{},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), &env{args: []string{"connect", "echo", "--url", tr.url, "--key", tr.keys["free"]}, stdin: stdin, stdout: &out, stderr: &errs})
		if code != exitFailed || !strings.Contains(errs.String(), name) || out.Len() != 0 {
			t.Errorf("exit %d, prints %q, want %q", code, errs.String(), name)
		}
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("broken disk") }
