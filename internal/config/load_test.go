package config_test

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"ticketgate/internal/certs"
	"ticketgate/internal/config"
	"ticketgate/internal/unit"
)

var update = flag.Bool("update", false, "write the messages that the tests get into testdata")

// hunter is a value that must not show in any message.
const hunter = "hunter2"

// environments are those of the files in testdata/problems that need one.
var environments = map[string][]string{
	"templates.yaml":    {"NODE=Gateway One", "HUNTER=" + hunter, "TTL=1h", "YES=yes", "LONG=" + hunter + strings.Repeat("x", 100), "OPEN=(" + hunter},
	"compile.yaml":      {"HUNTER=" + hunter},
	"listen-empty.yaml": {"HUNTER=" + hunter},
	"limits.yaml":       {"RATE=" + hunter, "WINDOW=fixed"},
	"environment.yaml": {
		"TICKETGATE_STOER__URL=x", "TICKETGATE_STORE__URLL=x", "TICKETGATE_STORE__URL__HOST=x", "TICKETGATE_LISTEN=[",
		"TICKETGATE_STREAMS__MY_CHAT__FEED=x", "TICKETGATE_STREAMS__NEW__FEED=x", "TICKETGATE_FEEDS__CLOCK__EVERY=often",
		"TICKETGATE_LISTEN__GATE__PROXY_PROTOCOL__REQUIRED=true", "TICKETGATE_KEY=tgk_a_b", "TICKETGATE_URL=http://a", "TICKETGATE_DRAIN__OVER=2h", "HOME=/root",
	},
}

// TestProblems compares every message with testdata/problems/NAME.want. "-update" writes them.
func TestProblems(t *testing.T) {
	files, err := filepath.Glob("testdata/problems/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			c, err := config.Load(file, environments[filepath.Base(file)], nil)
			var problems *config.Problems
			if c != nil || !errors.As(err, &problems) {
				t.Fatalf("Load answers %v, %v; want problems", c, err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".want", err.Error()+"\n")
			if strings.Contains(err.Error(), hunter) {
				t.Error("a message shows what ${...} stands for")
			}
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestMissingFile(t *testing.T) {
	_, err := config.Load("testdata/nowhere.yaml", nil, nil)
	want := "testdata/nowhere.yaml: cannot be read: no such file or directory\n1 problem"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestBytes: a byte order mark is no part of the first key, and what is not UTF-8 is not read as something else.
func TestBytes(t *testing.T) {
	const text = "version: 1\nlisten: { gate: { public_url: ws://a } }\n"
	if _, err := config.LoadText("a.yaml", "\ufeff"+text, nil); err != nil {
		t.Errorf("with a byte order mark: %v", err)
	}
	for broken, place := range map[string]string{"\xff\xfe": "1:1", text + "# \u00fc \xe9\n": "3:5", "\ufeff\xc0": "1:1"} {
		_, err := config.LoadText("a.yaml", broken, nil)
		if err == nil || err.Error() != "a.yaml:"+place+": not text in UTF-8\n1 problem" {
			t.Errorf("%q: %v", broken, err)
		}
	}
	_, err := config.LoadText("a.yaml", text, []string{"TICKETGATE_LISTEN__GATE__ORIGINS=[\xff]"})
	if want := "environment variable TICKETGATE_LISTEN__GATE__ORIGINS: not text in UTF-8\n1 problem"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestTooLong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "long.yaml")
	if err := os.WriteFile(file, make([]byte, 1<<20+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(file, nil, nil); err == nil || !strings.Contains(err.Error(), "longer than 1048576 bytes") {
		t.Errorf("got %v", err)
	}
}

func mustLoad(t *testing.T, file string, env []string, flags map[string]string) *config.Config {
	t.Helper()
	c, err := config.Load(file, env, flags)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFull(t *testing.T) {
	c := mustLoad(t, "testdata/good/full.yaml", []string{"REDIS_URL=redis://10.0.0.5:6379/0"}, nil)
	for _, check := range []struct {
		what      string
		got, want any
	}{
		{"node.name", c.Node.Name, "gw-1"},
		{"gate.address", c.Listen.Gate.Address, config.Addresses{"[::1]:9443", "unix:/run/ticketgate/gate.sock"}},
		{"gate.proxy_protocol", c.Listen.Gate.ProxyProtocol, config.ProxyProtocol{From: []string{"10.0.0.0/8", "2001:db8::/32", "unix"}, Required: false}},
		{"gate.origins", c.Listen.Gate.Origins, []string{"https://app.example.com", "http://localhost:3000", "none"}},
		{"gate.deadlines", [2]time.Duration{c.Listen.Gate.Deadlines.Head, c.Listen.Gate.Deadlines.Admit}, [2]time.Duration{4 * time.Second, 8 * time.Second}},
		{"gate.deadlines.tls", c.Listen.Gate.Deadlines.TLS, 3 * time.Second},
		{"gate.tls", c.Listen.Gate.TLS, "main"},
		{"tls.main", tlsOptions(c, "main"), certs.Options{
			Pairs: []certs.Pair{
				{Cert: "testdata/good/rt.pem", Key: "testdata/good/rt.pem"}, {Cert: "testdata/good/eu.crt", Key: "testdata/good/eu.key"},
			},
			MinVersion: tls.VersionTLS13, ClientAuth: certs.Optional, ClientCA: "testdata/good/rt.pem",
		}},
		{"tls.plain", tlsOptions(c, "plain"), certs.Options{
			Pairs: []certs.Pair{{Cert: "testdata/good/eu.crt", Key: "testdata/good/eu.key"}}, MinVersion: tls.VersionTLS12,
		}},
		{"admin.socket", c.Listen.Admin.Socket, "/run/ticketgate/admin.sock"},
		{"admin.token", c.Listen.Admin.Token.Reveal(), "not-a-real-token"},
		{"store.url", c.Store.URL.Reveal(), "redis://10.0.0.5:6379/0"},
		{"websocket.max_message", c.WebSocket.MaxMessage, unit.Size(1 << 20)},
		{"websocket.idle", time.Duration(c.WebSocket.Idle), 10 * time.Minute},
		{"websocket.control", c.WebSocket.Control.String(), "10/1second"},
		{"memory.outbound", c.Memory.Outbound.Of(1 << 30), unit.Size(64 << 20)},
		{"memory.refuse_at", c.Memory.RefuseAt.Of(1000), unit.Size(800)},
		{"memory.cut_at", c.Memory.CutAt.Of(1000), unit.Size(900)},
		{"admit.rate", c.Listen.Gate.Admit.Rate.String(), "500/1second"},
		{"per_address", fmt.Sprint(c.Listen.Gate.PerAddress), "{10/1second 20 32 [10.0.0.0/8 2001:db8::/32]}"},
		{"tickets.bind_ip", c.Tickets.BindIP, true},
		{"products", c.Products["market-data"].Streams, []string{"chat", "ticks", "echo"}},
		{"backend may send", c.Streams["chat"].ClientMaySend, true},
		{"told not to send", c.Streams["echo"].ClientMaySend, false},
		{"told to send", c.Streams["ticks"].ClientMaySend, true},
		{"format", c.Streams["chat"].Format, "raw"},
		{"param", c.Streams["ticks"].Params["symbol"].MatchString("ACME"), true},
		{"param is anchored", c.Streams["ticks"].Params["symbol"].MatchString("xACMEx"), false},
		{"dial_timeout", c.Backends["chat-pool"].Health.DialTimeout, 2 * time.Second},
		{"dial_timeout's default", c.Backends["mirror"].Health.DialTimeout, 3 * time.Second},
		{"feeds.every", c.Feeds["clock"].Every, 250 * time.Millisecond},
		{"feeds.pad", c.Feeds["clock"].Pad, unit.Size(1 << 10)},
		{"metrics", c.Telemetry.Metrics, false},
		{"keys", len(c.Keys), 1},
		{"key's scopes", c.Keys[0].Scopes, []string{"delegate", "stream:chat"}},
		{"key's end", c.Keys[0].Expires.UTC(), time.Date(2030, 1, 31, 0, 0, 0, 0, time.UTC)},
	} {
		if !reflect.DeepEqual(check.got, check.want) {
			t.Errorf("%s: got %v, want %v", check.what, check.got, check.want)
		}
	}
	if c.Plans["free"].Compiled == nil {
		t.Error("plan free is not compiled")
	}
}

func tlsOptions(c *config.Config, name string) certs.Options {
	t := c.TLS[name]
	return t.Options()
}

func TestLeast(t *testing.T) {
	c := mustLoad(t, "testdata/good/least.yaml", nil, nil)
	if c.Node.Name == "" {
		t.Error("the node has no name")
	}
	c.Node.Name = ""
	want := config.Default()
	want.Listen.Gate.PublicURL = "ws://10.0.0.5:8081"
	if got, want := fmt.Sprintf("%+v", bare(c)), fmt.Sprintf("%+v", bare(want)); got != want {
		t.Errorf("got\n%s\nwant the defaults\n%s", got, want)
	}
}

func TestLayers(t *testing.T) {
	const file = "testdata/good/full.yaml"
	env := []string{
		"REDIS_URL=redis://10.0.0.5/0", "OTHER=1m",
		"TICKETGATE_NODE__NAME=gw-2", "TICKETGATE_TICKETS__TTL=10s", "TICKETGATE_DRAIN__GRACE=${env:OTHER}",
		"TICKETGATE_LISTEN__GATE__ORIGINS=[none]", "TICKETGATE_PLANS__FREE__LIMITS__MESSAGES_IN__RATE=9/1minute",
		"TICKETGATE_STREAMS__CHAT__BACKEND=mirror", "TICKETGATE_KEY=tgk_a_b",
	}
	c := mustLoad(t, file, env, map[string]string{"tickets.ttl": "15s", "log.level": "warn"})
	for _, check := range []struct{ path, got, want, origin string }{
		{"node.name", c.Node.Name, "gw-2", "environment variable TICKETGATE_NODE__NAME"},
		{"tickets.ttl", c.Tickets.TTL.String(), "15s", "flag tickets.ttl"},
		{"log.level", c.Log.Level, "warn", "flag log.level"},
		{"drain.grace", c.Drain.Grace.String(), "1m0s", "environment variable TICKETGATE_DRAIN__GRACE"},
		{"drain.over", c.Drain.Over.String(), "1m0s", file + ":51:16"},
		{"listen.gate.origins", strings.Join(c.Listen.Gate.Origins, " "), "none", "environment variable TICKETGATE_LISTEN__GATE__ORIGINS"},
		{"streams.chat.backend", c.Streams["chat"].Backend, "mirror", "environment variable TICKETGATE_STREAMS__CHAT__BACKEND"},
		{"backends.mirror.health.dial_timeout", c.Backends["mirror"].Health.DialTimeout.String(), "3s", "default"},
	} {
		if check.got != check.want || c.Origin(check.path) != check.origin {
			t.Errorf("%s is %q from %q, want %q from %q", check.path, check.got, c.Origin(check.path), check.want, check.origin)
		}
	}
	if rate := c.Plans["free"].Limits["messages-in"].Rate; rate.N != 9 {
		t.Errorf("the environment's rate is %v, want 9/1minute", rate)
	}
}

func TestFlagProblem(t *testing.T) {
	_, err := config.Load("testdata/good/least.yaml", nil, map[string]string{"log.level": "loud", "log.levl": "x"})
	want := "flag log.level: log.level: \"loud\" is not known; want debug, info, warn, error\n" +
		"flag log.levl: unknown key \"levl\" under log; did you mean \"level\"?\n2 problems"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestDev(t *testing.T) {
	c := config.Dev(8080)
	got := []string{c.Listen.Handshake.Address, c.Listen.Gate.Address[0], c.Listen.Admin.Address, c.Listen.Gate.PublicURL}
	want := []string{"127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:8082", "ws://127.0.0.1:8081"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("dev listens on %v, want %v", got, want)
	}
	origins := []string{"none", "http://127.0.0.1:8080", "http://localhost:8080"}
	if !reflect.DeepEqual(c.Listen.Gate.Origins, origins) {
		t.Errorf("origins are %v, want %v", c.Listen.Gate.Origins, origins)
	}
	if c.Drain.Over != 0 || c.Drain.Grace != 0 || c.Store.Kind != "memory" || c.WebSocket.MaxMessage != 64<<10 {
		t.Errorf("drain %+v, store %v, message %v", c.Drain, c.Store.Kind, c.WebSocket.MaxMessage)
	}
	if got := fmt.Sprint(c.Listen.Gate.PerAddress.Exempt); got != "[127.0.0.0/8 ::1/128]" {
		t.Errorf("exempt are %s, want loopback", got)
	}
	if c.Plans["dev"].Compiled == nil || !c.Streams["echo"].ClientMaySend || c.Streams["clock"].ClientMaySend {
		t.Errorf("plan %+v, streams %+v", c.Plans["dev"], c.Streams)
	}
	free := config.Dev(0)
	if free.Listen.Gate.Address[0] != "127.0.0.1:0" || free.Listen.Gate.PublicURL != "" || len(free.Listen.Gate.Origins) != 1 {
		t.Errorf("with base 0: %+v", free.Listen)
	}
}

// bare is c without where its values are from, and without the difference between an empty and no map.
func bare(c *config.Config) config.Config {
	clean := config.Default()
	clean.Node, clean.Listen, clean.Store, clean.Cluster = c.Node, c.Listen, c.Store, c.Cluster
	clean.WebSocket, clean.Memory, clean.Tickets, clean.LimitDefaults = c.WebSocket, c.Memory, c.Tickets, c.LimitDefaults
	clean.Drain, clean.Log, clean.Telemetry = c.Drain, c.Log, c.Telemetry
	return *clean
}

// TestGateAddress: an address is written as one or as a list, in the file as in the environment.
func TestGateAddress(t *testing.T) {
	for _, c := range []struct {
		text string
		want config.Addresses
	}{
		{":9443", config.Addresses{":9443"}},
		{"[::1]:0", config.Addresses{"[::1]:0"}},
		{"unix:/run/a b.sock", config.Addresses{"unix:/run/a b.sock"}},
		{`["[::1]:9443", "0.0.0.0:9443"]`, config.Addresses{"[::1]:9443", "0.0.0.0:9443"}},
	} {
		env := []string{"TICKETGATE_LISTEN__GATE__ADDRESS=" + c.text}
		loaded, err := config.LoadText("a.yaml", "version: 1\nlisten: { gate: { public_url: ws://a } }\n", env)
		if err != nil || !reflect.DeepEqual(loaded.Listen.Gate.Address, c.want) {
			t.Errorf("%s: %+v, %v", c.text, loaded, err)
		}
	}
}

func TestProxyPolicy(t *testing.T) {
	for _, c := range []struct {
		from     []string
		required bool
		want     string
	}{
		{nil, true, "{[] false false}"},
		{[]string{"unix"}, true, "{[] true true}"},
		{[]string{"10.0.0.0/8", "::/0"}, false, "{[10.0.0.0/8 ::/0] false false}"},
	} {
		p := config.ProxyProtocol{From: c.from, Required: c.required}
		if got := fmt.Sprint(p.Policy()); got != c.want {
			t.Errorf("%+v is %s, want %s", p, got, c.want)
		}
	}
}

func TestSlowConsumer(t *testing.T) {
	const text = `version: 1
listen: { gate: { public_url: ws://a } }
streams: { a: { feed: c }, b: { feed: c, slow_consumer: { then: latest-only } }, d: { feed: c, slow_consumer: { queue: 64KiB, then: drop-oldest } } }
feeds: { c: { kind: clock } }
`
	c, err := config.LoadText("a.yaml", text, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]config.SlowConsumer{
		"a": {Then: "close"}, "b": {Then: "latest-only"}, "d": {Queue: 64 << 10, Then: "drop-oldest"},
	} {
		if got := c.Streams[name].SlowConsumer; got != want {
			t.Errorf("stream %s: %+v, want %+v", name, got, want)
		}
	}
}
