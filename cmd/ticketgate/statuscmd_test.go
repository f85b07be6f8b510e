package main

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
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"ticketgate/internal/admin"
	"ticketgate/internal/config"
	"ticketgate/internal/porttest"
)

const statusYAML = `
version: 1
node: { name: gw-test }
listen:
  handshake: { address: "127.0.0.1:0" }
  gate: { address: "127.0.0.1:0", public_url: "ws://gate.test", admit: { connections: 5000 } }
  admin: { address: "%s", token: "${file:token}" }
drain: { over: 0s, grace: 0s }
`

// running is a gateway of this process, and its configuration's file. Its admin address asks for the token "open sesame".
func running(t *testing.T, address string) (*gateway, string) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "token", "open sesame\n")
	file := write(t, dir, "t.yaml", fmt.Sprintf(statusYAML, address))
	c, err := config.Load(file, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err := newGateway(c, slog.New(slog.DiscardHandler), extras{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	serving, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- g.run(ctx, func() { close(serving) }) }()
	<-serving
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return g, file
}

// TestStatus: what is printed of a gateway that is ready, and of one that drains.
func TestStatus(t *testing.T) {
	g, file := running(t, porttest.Free(t))
	stranger, err := net.Dial("tcp", g.gateAddrs[0].String()) // who shows no ticket is no connection
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	loops := fmt.Sprintf(`loop  connections  busy +queue +batched\n(\d+ +\d +\d+%% +0 B +(yes|no)\n){%d}\z`, g.engine.Loops())
	const memory = `lease   \d+\.\d s  mode strict  nodes 1  tickets spent by the store \([a-z, ]+\)\nissue   open  shard 0 epoch [0-9a-f]{8} registered\nmemory  calm  [0-9.]+ ([KMGT]i)?B of [0-9.]+ ([KMGT]i)?B\ntls     off\n`
	table := func(state string) *regexp.Regexp {
		return regexp.MustCompile(`\Anode gw-test  ` + state + `  up \d+s  connections 0/5000  store memory ok  version \d+\.\d+\.\d+\n` + memory + loops)
	}
	got := ticketgate(t, "", nil, "status", "--config", file)
	if got.code != exitOK || got.errors != "" || !table("ready").MatchString(got.out) {
		t.Errorf("%+v", got)
	}
	var s admin.Status
	got = ticketgate(t, "", nil, "status", "--config", file, "-o", "json")
	if err := json.Unmarshal([]byte(got.out), &s); err != nil || got.code != exitOK || got.errors != "" || !s.Ready || s.Node != "gw-test" ||
		s.Version != version || s.Store.Kind != "memory" || len(s.Loops) != g.engine.Loops() || s.TLS.Mode != admin.TLSOff || s.Connections.Limit != 5000 {
		t.Errorf("%v: %+v", err, got)
	}

	for deadline := time.Now().Add(10 * time.Second); s.Memory.Limit == 0 || s.Memory.Used == 0; { // the watch looks when the gateway runs
		got = ticketgate(t, "", nil, "status", "--config", file, "-o", "json")
		if err := json.Unmarshal([]byte(got.out), &s); err != nil || time.Now().After(deadline) {
			t.Fatalf("no memory: %v: %+v", err, got)
		}
	}

	g.draining.Store(true)
	const why = "ticketgate: status: node gw-test is not ready: draining\n"
	got = ticketgate(t, "", nil, "status", "--config", file)
	if got.code != exitFailed || got.errors != why || !table("not ready: draining").MatchString(got.out) {
		t.Errorf("draining: %+v", got)
	}
	got = ticketgate(t, "", nil, "status", "--config", file, "-o", "json")
	if err := json.Unmarshal([]byte(got.out), &s); err != nil || got.code != exitFailed || got.errors != why || s.Ready || !s.Draining || s.Reason != "draining" {
		t.Errorf("draining: %v: %+v", err, got)
	}
}

// TestStatusToken: the configuration's, a file's, none, and wrong ones.
func TestStatusToken(t *testing.T) {
	address := porttest.Free(t)
	_, file := running(t, address)
	dir, url := t.TempDir(), "http://"+address
	right, wrong := write(t, dir, "right", "open sesame\r\n"), write(t, dir, "wrong", "open barley\n")
	asks := url + " (--admin) asks for the admin token: --token-file FILE\n"
	const travels = ": want the admin token, one line of ASCII: it travels in a header\n"
	for _, c := range []struct {
		name string
		args []string
		code int
		err  string // the end
	}{
		{"a file's", []string{"--admin", url, "--token-file", right}, exitOK, ""},
		{"a slash too many", []string{"--admin", url + "/", "--token-file", right}, exitOK, ""},
		{"a file's over the configuration's", []string{"--config", file, "--token-file", wrong}, exitFailed, " does not take the admin token of " + wrong + "\n"},
		{"none", []string{"--admin", url}, exitFailed, asks},
		{"wrong", []string{"--admin", url, "--token-file", wrong}, exitFailed, url + " (--admin) does not take the admin token of " + wrong + "\n"},
		{"no file", []string{"--admin", url, "--token-file", dir + "/none"}, exitFailed, "read the admin token: open " + dir + "/none: no such file or directory\n"},
		{"no file's name", []string{"--admin", url, "--token-file", ""}, exitFailed, "read the admin token: open : no such file or directory\n"},
		{"empty", []string{"--admin", url, "--token-file", write(t, dir, "empty", "\n")}, exitFailed, dir + "/empty" + travels},
		{"two lines", []string{"--admin", url, "--token-file", write(t, dir, "two", "open\nsesame\n")}, exitFailed, dir + "/two" + travels},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ticketgate(t, "", nil, append([]string{"status"}, c.args...)...)
			if got.code != c.code || !strings.HasSuffix(got.errors, c.err) || (got.errors == "") != (c.err == "") || (got.out == "") != (c.code != exitOK) {
				t.Errorf("%+v, want %d, %q", got, c.code, c.err)
			}
			if strings.Contains(got.errors, "sesame") || strings.Contains(got.errors, "barley") {
				t.Error("the token is shown")
			}
		})
	}
	got := ticketgate(t, "", []string{"TICKETGATE_LISTEN__ADMIN__TOKEN=open bar\tley"}, "status", "--config", file)
	if got.code != exitFailed || got.errors != "ticketgate: status: listen.admin.token"+travels {
		t.Errorf("a tab in it: %+v", got)
	}
}

// TestStatusPlaces: the ways to write a listener are ways to find it.
func TestStatusPlaces(t *testing.T) {
	_, port, err := net.SplitHostPort(porttest.Free(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, listens := range []string{":" + port, "0.0.0.0:" + port, "[::]:" + port, "unix:" + filepath.Join(t.TempDir(), "admin")} {
		t.Run(listens, func(t *testing.T) {
			_, file := running(t, listens)
			if got := ticketgate(t, "", nil, "status", "--config", file); got.code != exitOK || got.errors != "" {
				t.Errorf("%+v", got)
			}
			if strings.HasPrefix(listens, "unix:") {
				token := filepath.Join(filepath.Dir(file), "token")
				if got := ticketgate(t, "", nil, "status", "--admin", listens, "--token-file", token); got.code != exitOK || got.errors != "" {
					t.Errorf("%+v", got)
				}
			}
		})
	}
}

// TestStatusUnreachable: the error says what was tried, who said so, and what to do.
func TestStatusUnreachable(t *testing.T) {
	dir, free := t.TempDir(), porttest.Free(t)
	write(t, dir, "token", "x")
	file := write(t, dir, "t.yaml", fmt.Sprintf(statusYAML, free))
	port0 := write(t, dir, "port0.yaml", serveYAML)
	plain := write(t, dir, "plain.yaml", "version: 1\nlisten: { gate: { public_url: ws://gate.test } }\n")
	rude, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hung := make(chan struct{})
	go func() {
		defer close(hung)
		for {
			c, err := rude.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1)) // a reset would be another error
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = rude.Close()
		<-hung
	})
	const refused = ": connect: connection refused; "
	for _, c := range []struct {
		name    string
		environ []string
		args    []string
		tried   string
		why     string
	}{
		{"flag", nil, []string{"--admin", "http://" + free}, "http://" + free + " (--admin)", ": dial tcp " + free + refused},
		{"file", nil, []string{"--config", file}, free + " (listen.admin.address, " + file + ":7:21)", ": dial tcp " + free + refused},
		{"variable", []string{"TICKETGATE_LISTEN__ADMIN__ADDRESS=" + free}, []string{"--config", plain},
			free + " (listen.admin.address, environment variable TICKETGATE_LISTEN__ADMIN__ADDRESS)", refused},
		{"unix socket", nil, []string{"--admin", "unix:" + dir + "/none"}, "unix:" + dir + "/none (--admin)",
			": dial unix " + dir + "/none: connect: no such file or directory; "},
		{"hangs up", nil, []string{"--admin", "http://" + rude.Addr().String()}, rude.Addr().String() + " (--admin)", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ticketgate(t, "", c.environ, append([]string{"status"}, c.args...)...)
			const what = "is the gateway running, and this its admin address? --admin URL asks at another\n"
			if got.code != exitUnreachable || got.out != "" || !strings.Contains(got.errors, "status: no answer from ") || !strings.Contains(got.errors, c.tried) ||
				!strings.Contains(got.errors, c.why) || !strings.HasSuffix(got.errors, what) || strings.Contains(got.errors, "/v1/status") {
				t.Errorf("%+v, want %s%s", got, c.tried, c.why)
			}
		})
	}
	got := ticketgate(t, "", nil, "status", "--config", port0)
	want := "ticketgate: status: the port of 127.0.0.1:0 (listen.admin.address, " + port0 + ":7:21) is not known: say where the gateway's log says it is, --admin URL\n"
	if got.code != exitUnreachable || got.out != "" || got.errors != want {
		t.Errorf("%+v, want %q", got, want)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	at, err := adminFlag("status", "http://"+silent.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var coded *exitError
	if _, err := at.ask(t.Context(), "/v1/status", 20*time.Millisecond); !errors.As(err, &coded) || coded.code != exitUnreachable || !strings.Contains(err.Error(), "Client.Timeout") {
		t.Errorf("nobody answers: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var b bytes.Buffer
	if code := run(ctx, &env{args: []string{"status", "--admin", "http://" + free}, stdout: &b, stderr: &b}); code != exitInterrupted || b.Len() != 0 {
		t.Errorf("interrupted: exit %d, prints %q", code, b.String())
	}
}

func TestStatusUsage(t *testing.T) {
	dir := t.TempDir()
	bad := write(t, dir, "bad.yaml", "version: 1\nlisten: { gate: { public_url: ws://a } }\nstor: {}\n")
	const form = "--admin: want an admin address, such as http://127.0.0.1:8082 or unix:/run/ticketgate/admin.sock\n"
	for _, c := range []struct {
		args []string
		code int
		err  string
	}{
		{[]string{"-o", "xml"}, exitUsage, "ticketgate: status: -o xml: want table or json\n"},
		{[]string{"now"}, exitUsage, "ticketgate: unknown command \"now\" for \"ticketgate status\"\nsee: ticketgate status --help\n"},
		{[]string{"--config", bad, "--admin", "http://127.0.0.1:1"}, exitUsage, "none of the others can be"},
		{[]string{"--admin", ""}, exitUsage, form},
		{[]string{"--admin", "127.0.0.1:8082"}, exitUsage, form},
		{[]string{"--admin", "ws://127.0.0.1:8082"}, exitUsage, form},
		{[]string{"--admin", "http://"}, exitUsage, form},
		{[]string{"--admin", "http://127.0.0.1:1/?a"}, exitUsage, form},
		{[]string{"--admin", "http://me:secret@127.0.0.1:1"}, exitUsage, form},
		{[]string{"--admin", "unix:here"}, exitUsage, form},
		{[]string{"--config", bad}, exitConfig, bad + ":3:1: unknown key \"stor\" at the top level; did you mean \"store\"?\n1 problem\nsay it with --admin URL, "},
		{[]string{"--config", dir + "/none"}, exitConfig, dir + "/none: cannot be read: no such file or directory\n1 problem\nsay it with --admin URL, "},
	} {
		got := ticketgate(t, "", nil, append([]string{"status"}, c.args...)...)
		if got.code != c.code || got.out != "" || !strings.Contains(got.errors, c.err) || strings.Contains(got.errors, "secret") {
			t.Errorf("%q: %+v, want %d, %q", c.args, got, c.code, c.err)
		}
	}
}

// peer answers every request with text, as it is.
func peer(t *testing.T, text string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, err = io.WriteString(c, text)
		if err := errors.Join(err, c.Close()); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestStatusHostile: what claims to be a gateway can make the terminal do nothing.
func TestStatusHostile(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
	// ESC as JSON writes it, DEL, CSI of one character, CSI of one byte, a turn of direction, a tag that nobody sees.
	const bad = "\\u001b[2Jx\\nx\x7fx\u009bx\x9bx\u202ex\U000e0041x"
	hostile := ok + `{"version":"` + bad + `","node":"` + bad + `",` + "\r" + `"ready":false,"reason":"` + bad + `","store":{"kind":"` + bad + `"},"memory":{"state":"` +
		bad + `"},"tls":{"mode":"` + bad + `","reason":"` + bad + `"},"loops":[{"loop":0}]}`
	for _, c := range []struct {
		name, text string
		args       []string
		out, err   string // parts
	}{
		{"table", hostile, nil, `node \u001b[2Jx\u000ax\u007fx\u009bx` + "\ufffd" + `x\u202ex\udb40\udc41x  not ready: \u001b[2J`, `is not ready: \u001b[2J`},
		{"json", hostile, []string{"-o", "json"}, `"node":"\u001b[2Jx\nx\u007fx\u009bx` + "\ufffd" + `x\u202ex\udb40\udc41x","ready":false`, `is not ready: \u001b[2J`},
		{"status", "HTTP/1.1 500 \x1b[2J\r\nConnection: close\r\n\r\n", nil, "", `(--admin) answers 500 \u001b[2J`},
		{"not HTTP", "\x1b[2J\r\n\r\n", nil, "", "malformed HTTP"},
		{"not JSON", ok + "\x1b[2J", []string{"-o", "json"}, "", "answers is no status; is it the admin address of a gateway?"},
		{"another's JSON", ok + `{"ready":true}`, []string{"-o", "json"}, "", "answers is no status"},
		{"endless", ok + `{"version":"1","node":"` + strings.Repeat("x", answerMax) + `","ready":true}`, nil, "", "answers is no status"},
		{"not there", "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n", nil, "", "has no /v1/status; is it the admin address"},
		{"elsewhere", "HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:1/\r\nConnection: close\r\n\r\n", nil, "", "answers 307 Go"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ticketgate(t, "", nil, append([]string{"status", "--admin", peer(t, c.text)}, c.args...)...)
			want := exitFailed
			if c.name == "not HTTP" {
				want = exitUnreachable
			}
			if got.code != want || !strings.Contains(got.out, c.out) || (got.out == "") != (c.out == "") || !strings.Contains(got.errors, c.err) {
				t.Errorf("%d\n%s%s", got.code, got.out, got.errors)
			}
			for _, r := range got.out + got.errors {
				if r != '\n' && !unicode.IsPrint(r) {
					t.Errorf("the terminal gets %U", r)
				}
			}
		})
	}
}

// TestStatusAsItCame: what a gateway writes is passed on byte for byte.
func TestStatusAsItCame(t *testing.T) {
	const text = `{"version":"9","node":"gw-9","ready":true,"later":{"a":[1.50,"\u003c"]},"loops":[]}`
	url := peer(t, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"+text+"\n")
	if got := ticketgate(t, "", nil, "status", "--admin", url, "-o", "json"); got.code != exitOK || got.out != text+"\n" || got.errors != "" {
		t.Errorf("%+v", got)
	}
}

// TestStatusTable: what people read, of a node that has seen better days.
func TestStatusTable(t *testing.T) {
	url := peer(t, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"+`{"version":"0.1.0","node":"gw-1","ready":false,"reason":"ticket store does not answer",
		"uptime_seconds":3725,"draining":false,"connections":{"used":12,"limit":1000000},"store":{"kind":"redis","up":false},
		"cluster":{"mode":"available","authority":"store","authority_reason":"so it is","incarnation":"00000000000000ff","lease_seconds":0,"failures":3,
		"failure":"no \u001b answer","grace":true,"issue":"the lease is over","excess":12,"epochs":[{"shard":0,"epoch":"0badcafe","registered":true},{"shard":5461,"epoch":"00000001","registered":false}],
		"nodes":[{"node":"gw-1","incarnation":"00000000000000ff","state":"alive","lease_seconds":0.5},{"node":"gw-2","incarnation":"0000000000000001","state":"dead","lease_seconds":-60}]},
		"memory":{"state":"refuse","used_bytes":1288490189,"limit_bytes":2147483648},
		"tls":{"mode":"process","reason":"no such module","kernel_connections":2,"process_connections":10},
		"loops":[{"loop":0,"connections":5,"busy_ratio":0.256,"queue_bytes":2048,"batched":true},{"loop":1,"connections":12345,"busy_ratio":1,"queue_bytes":0,"batched":false}]}`)
	const want = `node gw-1  not ready: ticket store does not answer  up 1h2m5s  connections 12/1000000  store redis down  version 0.1.0
lease   0.0 s  mode available  nodes 1  tickets spent by the store (so it is)  renewals failed 3: no \u001b answer  grace: the store may have lost nodes
issue   the lease is over  shard 0 epoch 0badcafe registered  shard 5461 epoch 00000001 not registered  limits may be exceeded by 12
memory  refuse  1.2 GiB of 2.0 GiB
tls     process  connections: kernel 2, process 10  (no such module)  see: ticketgate doctor --explain ktls
loop  connections  busy  queue    batched
0     5            26%   2.0 KiB  yes
1     12345        100%  0 B      no
`
	got := ticketgate(t, "", nil, "status", "--admin", url)
	if got.code != exitFailed || got.out != want || got.errors != "ticketgate: status: node gw-1 is not ready: ticket store does not answer\n" {
		t.Errorf("%d\n%s%s\nwant\n%s", got.code, got.out, got.errors, want)
	}
}

// TestStatusStdout: who cannot print has not said that all is well.
func TestStatusStdout(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	url := peer(t, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"+`{"version":"9","node":"gw-9","ready":true}`)
	for _, output := range []string{"table", "json"} {
		var errs bytes.Buffer
		code := run(t.Context(), &env{args: []string{"status", "--admin", url, "-o", output}, stdout: full, stderr: &errs})
		if code != exitFailed || !strings.Contains(errs.String(), "no space left on device") {
			t.Errorf("%s: exit %d, %s", output, code, errs.String())
		}
	}
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1 << 10: "1.0 KiB", 1536: "1.5 KiB", 5 << 20: "5.0 MiB", 7 << 30: "7.0 GiB", 3 << 40: "3.0 TiB", 5000 << 40: "5000.0 TiB", -1: "-1 B",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}
