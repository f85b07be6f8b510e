package config_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"testing/fstest"

	"ticketgate/internal/config"
	"ticketgate/internal/unit"
)

// loadWith is the smallest configuration with one value set.
func loadWith(path, value string) (*config.Config, error) {
	return config.Load("testdata/good/least.yaml", nil, map[string]string{path: value})
}

// TestForms tries single values: good ones load, bad ones are the one problem.
func TestForms(t *testing.T) {
	for _, c := range []struct {
		path      string
		good, bad []string
	}{
		{
			path: "listen.gate.address",
			good: []string{":9", "0.0.0.0:65535", "127.0.0.1:0", "[::]:1", "[fe80::1%eth0]:1"},
			bad:  []string{"", ":", "8080", ":65536", ":080", ":-1", ":http", "localhost:1", "::1:1", "[::1]", "127.0.0.1", "1.2.3:1", "a:b:1"},
		},
		{
			path: "listen.handshake.cors.origins",
			good: []string{
				"[]", `["https://a.example"]`, `["http://127.0.0.1:8080"]`, `["https://[::1]:8443"]`, `["http://a:443"]`,
				`["https://xn--bcher-kva.example"]`,
			},
			bad: []string{
				"[none]", `["null"]`, `["*"]`, `["https://*"]`, `["https://A.example"]`, `["https://a.example/"]`, `["https://a@b"]`,
				`["https://a:443"]`, `["http://a:80"]`, `["https://a:0443"]`, `["https://a:65536"]`, `["https://"]`, `["ws://a"]`, `["a.example"]`,
				`["https://bücher.example"]`, `["https://a "]`, `["https://a\nb"]`, `[""]`, "none",
			},
		},
		{path: "listen.gate.origins", good: []string{"[none]", "[]", `[none, "https://a.example"]`}, bad: []string{"none", `["None"]`}},
		{
			path: "listen.gate.public_url",
			good: []string{"ws://a", "wss://a.example:8443", "ws://[::1]:1"},
			bad:  []string{"", "http://a", "wss://", "wss://a/", "wss://a/b", "wss://a?b", "wss://u@a", "wss://a:0", "wss://a:65536", "WSS://a", "wss://A"},
		},
		{
			path: "store.prefix",
			good: []string{"tg:", "a", strings.Repeat("a", 32)},
			bad:  []string{"", "{a}", "a b", strings.Repeat("a", 33), "é"},
		},
		{path: "memory.limit", good: []string{"auto", "64MiB", "1TiB"}, bad: []string{"0", "63MiB", "Auto", "80%"}},
		{path: "node.name", good: []string{"a", "gw-1.eu", strings.Repeat("a", 63)}, bad: []string{"", "-a", "a-", "A", "a_b", "a b", strings.Repeat("a", 64)}},
		{path: "websocket.idle", good: []string{"off", "100ms", "24h"}, bad: []string{"0s", "99ms", "24h1s", "on"}},
		{path: "drain.over", good: []string{"0s", "0", "1h"}, bad: []string{"-1ns", "1h1ns", "off"}},
		{path: "tickets.ttl", good: []string{"5s", "120s", "2m"}, bad: []string{"4.999s", "121s", "30"}},
		{path: "tickets.outstanding", good: []string{"1", "1000"}, bad: []string{"0", "1001", "1.0", "0x1", "1_0", "+", ""}},
		{path: "telemetry.metrics", good: []string{"true", "false"}, bad: []string{"True", "1", "yes", ""}},
	} {
		for _, value := range c.good {
			if _, err := loadWith(c.path, value); err != nil {
				t.Errorf("%s: %q is refused: %v", c.path, value, err)
			}
		}
		for _, value := range c.bad {
			_, err := loadWith(c.path, value)
			if err == nil || !strings.HasPrefix(err.Error(), "flag "+c.path+": "+c.path) || !strings.HasSuffix(err.Error(), "\n1 problem") {
				t.Errorf("%s: %q: got %v, want one problem", c.path, value, err)
			}
		}
	}
}

func TestStoreURL(t *testing.T) {
	for url, good := range map[string]bool{
		"redis://10.0.0.5": true, "rediss://user:hunter2@redis_1:6379/0": true, "redis://[::1]:6379": true,
		"http://a": false, "redis://": false, "redis:a": false, "a": false, "redis://a:b": false, "redis://a:hunter2@": false,
		"redis://%zz:hunter2@a": false,
	} {
		_, err := config.Load("testdata/good/full.yaml", []string{"REDIS_URL=" + url}, nil)
		if (err == nil) != good {
			t.Errorf("%q: %v", url, err)
		}
		if err != nil && (strings.Contains(err.Error(), hunter) || !strings.Contains(err.Error(), "full.yaml:19:28: store.url: ")) {
			t.Errorf("%q: the message is %v", url, err)
		}
	}
}

// TestPattern: what merely contains a match is refused, whatever the pattern's own anchors and alternatives are.
func TestPattern(t *testing.T) {
	for _, c := range []struct{ pattern, yes, no string }{
		{`^[A-Z]{1,6}$`, "ACME", "ACME\n"},
		{`[A-Z]{1,6}`, "ACME", "xACME"},
		{`a|b`, "b", "ab"},
		{`(?m)^a$`, "a", "b\na\nb"},
		{``, "", "a"},
	} {
		var p config.Pattern
		if err := p.UnmarshalText([]byte(c.pattern)); err != nil {
			t.Errorf("%q: %v", c.pattern, err)
		} else if !p.MatchString(c.yes) || p.MatchString(c.no) {
			t.Errorf("%q takes %q: %t, takes %q: %t", c.pattern, c.yes, p.MatchString(c.yes), c.no, p.MatchString(c.no))
		}
	}
	for _, bad := range []string{"(", "a)(b", `\1`, "(?=a)", "a{1001}", strings.Repeat("a", 1025)} {
		var p config.Pattern
		if err := p.UnmarshalText([]byte(bad)); err == nil || p.Regexp != nil {
			t.Errorf("%.20q is taken as %v", bad, p)
		}
	}
}

// TestSecret: no way of printing shows it.
func TestSecret(t *testing.T) {
	c := mustLoad(t, "testdata/good/full.yaml", []string{"REDIS_URL=redis://:" + hunter + "@10.0.0.5"}, nil)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("store", "url", c.Store.URL, "config", c)
	text, err := c.Store.URL.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%v %+v %#v %s %q %x %d %s %s", c.Store.URL, c, c.Store, &c.Store.URL, c.Store.URL, c.Store.URL, c.Store.URL, log.String(), text)
	if strings.Contains(all, hunter) || strings.Contains(all, fmt.Sprintf("%x", hunter)) || !strings.Contains(all, "(secret)") {
		t.Errorf("printed: %s", all)
	}
	if got := fmt.Sprint(config.Secret{}); got != "(none)" {
		t.Errorf("no secret is printed as %s", got)
	}
}

func TestMemoryLimit(t *testing.T) {
	host := func(files ...string) fstest.MapFS {
		fs := fstest.MapFS{}
		for i := 0; i < len(files); i += 2 {
			fs[files[i]] = &fstest.MapFile{Data: []byte(files[i+1])}
		}
		return fs
	}
	const meminfo = "MemTotal:       24550124 kB\nMemFree:  1 kB\n"
	const total = 24550124 * 1024
	for _, c := range []struct {
		what, limit string
		host        fstest.MapFS
		want        unit.Size
	}{
		{"a size", "2GiB", host("proc/meminfo", meminfo), 2 << 30},
		{"the host's", "auto", host("proc/meminfo", meminfo), total},
		{"no limit in the group", "auto", host("proc/meminfo", meminfo, "proc/self/cgroup", "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max", "max\n"), total},
		{"the group's", "auto", host("proc/meminfo", meminfo, "proc/self/cgroup", "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max", "1048576000\n"), 1048576000},
		{"the group above", "auto", host("proc/meminfo", meminfo, "proc/self/cgroup", "1:name=x:/z\n0::/a/b\n", "sys/fs/cgroup/a/memory.max", "5000000\n"), 5000000},
		{"more than the host has", "auto", host("proc/meminfo", meminfo, "proc/self/cgroup", "0::/a\n", "sys/fs/cgroup/a/memory.max", "99999999999999\n"), total},
		{"outside of groups", "auto", host("proc/meminfo", meminfo, "proc/self/cgroup", "0::/../x\n"), total},
		{"nothing known", "auto", host(), math.MaxInt64},
		{"nonsense", "auto", host("proc/meminfo", "MemTotal: lots kB\n", "proc/self/cgroup", "0::\n"), math.MaxInt64},
	} {
		if got := config.MemoryLimit(c.limit, c.host); got != c.want {
			t.Errorf("%s: got %v, want %v", c.what, got, c.want)
		}
	}
}
