package upgrade_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"ticketgate/engine/upgrade"
	"ticketgate/engine/upgrade/upgradetest"
)

// verdict is the status that a gate without plain routes gives raw; 0: more bytes are needed.
func verdict(raw []byte, s *upgrade.Scan, r *upgrade.Request) (status, n int, p *upgrade.Problem) {
	n, p = upgrade.Parse(raw, s, r)
	switch {
	case p != nil:
		return p.Status, n, p
	case n == 0:
		return 0, 0, nil
	case !r.Upgrade:
		return upgrade.ErrNotUpgrade.Status, n, nil
	}
	return 101, n, nil
}

func tables() map[string][]upgradetest.Head {
	return map[string][]upgradetest.Head{"upgrades": upgradetest.Upgrades, "smuggling": upgradetest.Smuggling, "targets": upgradetest.Targets}
}

func TestTables(t *testing.T) {
	for table, least := range map[string]int{"upgrades": 60, "smuggling": 80, "targets": 60} {
		rows := tables()[table]
		if len(rows) < least {
			t.Errorf("%s: %d rows, want %d", table, len(rows), least)
		}
		seen := map[string]bool{}
		for _, c := range rows {
			if seen[c.Name] {
				t.Errorf("%s: two rows are called %q", table, c.Name)
			}
			seen[c.Name] = true
			var r upgrade.Request
			status, n, p := verdict([]byte(c.Raw), &upgrade.Scan{}, &r)
			if status != c.Status {
				t.Errorf("%s: %s: status %d (%v), want %d", table, c.Name, status, p, c.Status)
			}
			if p == nil && n != len(c.Raw) {
				t.Errorf("%s: %s: head of %d bytes, want %d", table, c.Name, n, len(c.Raw))
			}
			if p != nil && n != 0 {
				t.Errorf("%s: %s: %d bytes beside a problem", table, c.Name, n)
			}
		}
	}
}

// Any header line that is good in a handshake is not what a table's bad rows are bad for.
func TestSmugglingForOtherRequests(t *testing.T) {
	for _, c := range upgradetest.SmugglingFor("GET /healthz HTTP/1.1", "Host: a") {
		if status, _, _ := verdict([]byte(c.Raw), &upgrade.Scan{}, &upgrade.Request{}); status != c.Status {
			t.Errorf("%s: status %d, want %d", c.Name, status, c.Status)
		}
	}
}

// The verdict, its problem and the request do not depend on how the bytes came; and it never comes later than with the
// byte that made it.
func TestAnySplit(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, rows := range tables() {
		for _, c := range rows {
			checkSplits(t, []byte(c.Raw), random)
		}
	}
}

func checkSplits(t *testing.T, raw []byte, random *rand.Rand) {
	t.Helper()
	var once upgrade.Request
	n, p := upgrade.Parse(raw, &upgrade.Scan{}, &once)
	for _, longest := range []int{1, 7, 300} {
		var r upgrade.Request
		var s upgrade.Scan
		var gotN int
		var gotP *upgrade.Problem
		for end := 0; end < len(raw) && gotN == 0 && gotP == nil; {
			end = min(len(raw), end+1+random.IntN(longest))
			// The bytes may move between calls, and the Request is another socket's in between.
			r = upgrade.Request{Host: []byte("of another socket"), Upgrade: true}
			gotN, gotP = upgrade.Parse(bytes.Clone(raw[:end]), &s, &r)
		}
		if gotN != n || gotP != p {
			t.Fatalf("%.200q in pieces of up to %d bytes: %d %v, at once %d %v", raw, longest, gotN, gotP, n, p)
		}
		if p == nil && n > 0 && describe(&r) != describe(&once) {
			t.Fatalf("%.200q in pieces of up to %d bytes:\n%s\nat once\n%s", raw, longest, describe(&r), describe(&once))
		}
	}
}

func describe(r *upgrade.Request) string {
	out := fmt.Sprintf("%q %q %q %q %q %q %v %q %q %v", r.Method, r.Target, r.Path, r.Query, r.Host, r.Origin, r.HasOrigin, r.Key, r.Secret, r.Upgrade)
	for name, value := range r.Headers {
		out += fmt.Sprintf("\n%q %q", name, value)
	}
	for p := range r.Protocols {
		out += fmt.Sprintf("\nprotocol %q", p)
	}
	for e := range r.Extensions {
		out += fmt.Sprintf("\nextensions %q", e)
	}
	return out
}

// A head that comes byte by byte costs a bounded number of looks at each byte. Everything that has been seen is spoiled
// before each call, but for the bytes that may be looked at again: the line under way when it ends (to judge it), and all
// of them when the head ends (to fill the Request). If Parse looked at any other byte again, it would refuse the NULs.
func TestDribbledHeadIsLinear(t *testing.T) {
	for _, raw := range []string{upgradetest.Browser, upgradetest.Handshake("Cookie: " + strings.Repeat("c", 16000))} {
		var s upgrade.Scan
		var r upgrade.Request
		spoiled := make([]byte, 0, len(raw))
		line := 0
		for i := range len(raw) - 1 {
			if raw[i] == '\n' {
				copy(spoiled[line:], raw[line:i])
			}
			spoiled = append(spoiled, raw[i])
			if i > 0 && raw[i] == '\n' {
				spoiled[i-1] = '\r'
			}
			if n, p := upgrade.Parse(spoiled, &s, &r); n != 0 || p != nil {
				t.Fatalf("byte %d: %d %v", i, n, p)
			}
			if raw[i] == '\n' {
				line = i + 1
			}
			for j := range spoiled {
				spoiled[j] = 0
			}
			if raw[i] == '\r' { // its LF is still to come
				spoiled[i] = '\r'
			}
		}
		if n, p := upgrade.Parse([]byte(raw), &s, &r); n != len(raw) || p != nil {
			t.Fatalf("whole: %d %v", n, p)
		}
	}
}

// What is wrong is said before the head is whole.
func TestRefusesEarly(t *testing.T) {
	for _, c := range []struct {
		name, raw string
		want      *upgrade.Problem
	}{
		{"not a method", "{", upgrade.ErrRequestLine},
		{"TLS", "\x16", upgrade.ErrRequestLine},
		{"empty line first", "\r", upgrade.ErrRequestLine},
		{"method too long", strings.Repeat("A", 33), upgrade.ErrMethodUnknown},
		{"control character in the target", "GET /\x00", upgrade.ErrControl},
		{"target too long", "GET /" + strings.Repeat("a", 8020), upgrade.ErrTarget},
		{"HTTP/2", "PRI * HTTP/2.0\r\n", upgrade.ErrVersion},
		{"method", "POST / HTTP/1.1\r\n", upgrade.ErrMethod},
		{"target", "GET /../ HTTP/1.1\r\n", upgrade.ErrCanonical},
		{"bare CR", "GET / HTTP/1.1\r\nX: a\rb", upgrade.ErrControl},
		{"bare LF", "GET / HTTP/1.1\r\nX: a\n", upgrade.ErrControl},
		{"control character in a value", "GET / HTTP/1.1\r\nX: a\x01", upgrade.ErrControl},
		{"folded line", "GET / HTTP/1.1\r\nX: a\r\n b\r\n", upgrade.ErrField},
		{"body", "GET / HTTP/1.1\r\nContent-Length: 1\r\n", upgrade.ErrBody},
		{"chunks", "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", upgrade.ErrBody},
		{"chunks twice", "GET / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n", upgrade.ErrField},
		{"another coding", "GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n", upgrade.ErrCoding},
		{"Host", "GET / HTTP/1.1\r\nHost: a@b\r\n", upgrade.ErrHost},
		{"repeated", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n", upgrade.ErrRepeated},
		{"size", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 16<<10), upgrade.ErrHeadSize},
		{"lines", "GET / HTTP/1.1\r\n" + strings.Repeat("X: x\r\n", 101), upgrade.ErrHeadLines},
	} {
		var s upgrade.Scan
		var r upgrade.Request
		if n, p := upgrade.Parse([]byte(c.raw), &s, &r); n != 0 || p != c.want {
			t.Errorf("%s: %d %v, want %v", c.name, n, p, c.want)
		}
		s, r = upgrade.Scan{}, upgrade.Request{}
		if n, p := upgrade.Parse([]byte(c.raw[:len(c.raw)-1]), &s, &r); n != 0 || p != nil && len(c.raw) < 100 {
			t.Errorf("%s: a byte earlier: %d %v, want nothing yet", c.name, n, p)
		}
	}
}

func TestRequest(t *testing.T) {
	raw := upgradetest.Join("GET /t/abc?x=1 HTTP/1.1", "Host: rt.example.com:9443", "upgrade: x, WebSocket", "Connection: keep-alive, upgrade",
		"Sec-WebSocket-Key:  "+upgradetest.Key+" \t", "Sec-WebSocket-Version: 13", "Origin: https://app.example.com", "Cookie: a=1", "Cookie: b=2", "Empty:",
		"Sec-WebSocket-Protocol: chat ,tgs_secret, ticketgate.v1", "Sec-WebSocket-Protocol: last", "Sec-WebSocket-Extensions: a;b=1", "Sec-WebSocket-Extensions: c")
	const pipelined = "GET / HTTP/1.1\r\n\r\n"
	var r upgrade.Request
	n, p := upgrade.Parse([]byte(raw+pipelined), &upgrade.Scan{}, &r)
	if p != nil || n != len(raw) {
		t.Fatalf("%d %v, want %d", n, p, len(raw))
	}
	for name, c := range map[string]struct{ got, want any }{
		"Method":     {string(r.Method), "GET"},
		"Target":     {string(r.Target), "/t/abc?x=1"},
		"Path":       {string(r.Path), "/t/abc"},
		"Query":      {string(r.Query), "x=1"},
		"Host":       {string(r.Host), "rt.example.com:9443"},
		"Origin":     {string(r.Origin), "https://app.example.com"},
		"HasOrigin":  {r.HasOrigin, true},
		"Key":        {string(r.Key), upgradetest.Key},
		"Secret":     {string(r.Secret), "tgs_secret"},
		"Upgrade":    {r.Upgrade, true},
		"Protocols":  {collect(r.Protocols), "chat|ticketgate.v1|last"},
		"Extensions": {collect(r.Extensions), "a;b=1|c"},
	} {
		if c.got != c.want {
			t.Errorf("%s is %v, want %v", name, c.got, c.want)
		}
	}
	var lines []string
	for name, value := range r.Headers {
		lines = append(lines, string(name)+": "+string(value))
	}
	if len(lines) != 13 || lines[0] != "Host: rt.example.com:9443" || lines[3] != "Sec-WebSocket-Key: "+upgradetest.Key || lines[8] != "Empty: " {
		t.Errorf("Headers yields %q", lines)
	}
	for name := range r.Headers {
		if string(name) == "Host" {
			break // an iterator must stop here, or the range statement panics
		}
	}
	for range r.Protocols {
		break
	}
	for range r.Extensions {
		break
	}
	// A key means nothing without the rest of the handshake.
	if _, p := upgrade.Parse([]byte(upgradetest.Join("GET / HTTP/1.1", "Host: a", "Sec-WebSocket-Key: "+upgradetest.Key)), &upgrade.Scan{}, &r); p != nil || r.Key != nil {
		t.Errorf("a plain request has key %q, %v", r.Key, p)
	}
	// The next head in the same Request sees nothing of this one.
	if n, p := upgrade.Parse([]byte("GET / HTTP/1.1\r\nHost: b\r\n\r\n"), &upgrade.Scan{}, &r); p != nil || n == 0 || r.Upgrade {
		t.Fatal(n, p, r.Upgrade)
	}
	if got, want := describe(&r), "\"GET\" \"/\" \"/\" \"\" \"b\" \"\" false \"\" \"\" false\n\"Host\" \"b\""; got != want {
		t.Errorf("the next request is %s, want %s", got, want)
	}
}

func collect(seq func(func([]byte) bool)) string {
	var all []string
	for b := range seq {
		all = append(all, string(b))
	}
	return strings.Join(all, "|")
}

func TestHost(t *testing.T) {
	for host, want := range map[string]*upgrade.Problem{
		"a": nil, "a.": nil, "a_b-c.example:1": nil, "1.2.3.4:65535": nil, "[::]": nil, "[::1]:80": nil, "[1:2:3:4:5:6:7:8]": nil, "[1::8]": nil,
		"[1:2:3:4:5:6:7::]": nil, "[::ffff:1.2.3.4]": nil, "[1:2:3:4:5:6:1.2.3.4]": nil, "[FE80::a]": nil,
		"a:080": upgrade.ErrHost, "a:65536": upgrade.ErrHost, ".": upgrade.ErrHost, "[]": upgrade.ErrHost, "[:]": upgrade.ErrHost, "[1]": upgrade.ErrHost,
		"[1:2:3:4:5:6:7]": upgrade.ErrHost, "[1:2:3:4:5:6:7:8:9]": upgrade.ErrHost, "[1:2:3:4:5:6:7::8]": upgrade.ErrHost, "[1::2::3]": upgrade.ErrHost,
		"[:::]": upgrade.ErrHost, "[12345::]": upgrade.ErrHost, "[g::]": upgrade.ErrHost, "[::1.2.3.256]": upgrade.ErrHost, "[::1.2.3.04]": upgrade.ErrHost,
		"[::1.2.3]": upgrade.ErrHost, "[::1.2.3.4:5]": upgrade.ErrHost, "[1.2.3.4::]": upgrade.ErrHost, "[1:2:3:4:5:6:7:1.2.3.4]": upgrade.ErrHost, "[::1]80": upgrade.ErrHost,
	} {
		if _, p := upgrade.Parse([]byte(upgradetest.Join("GET / HTTP/1.1", "Host: "+host)), &upgrade.Scan{}, &upgrade.Request{}); p != want {
			t.Errorf("Host %s: %v, want %v", host, p, want)
		}
	}
}

func TestSecret(t *testing.T) {
	for _, c := range []struct {
		lines []string
		want  string
	}{
		{nil, ""},
		{[]string{"Ticketgate-Secret: tgs_a"}, "tgs_a"},
		{[]string{"Ticketgate-Secret:"}, ""},
		{[]string{"Ticketgate-Secret:", "Sec-WebSocket-Protocol: tgs_b"}, "tgs_b"},
		{[]string{"Sec-WebSocket-Protocol: x, tgs_b, tgs_b"}, "tgs_b"},
		{[]string{"Sec-WebSocket-Protocol: xtgs_b, TGS_b, tgs"}, ""},
	} {
		var r upgrade.Request
		if _, p := upgrade.Parse([]byte(upgradetest.Handshake(c.lines...)), &upgrade.Scan{}, &r); p != nil || string(r.Secret) != c.want {
			t.Errorf("%q: %q %v, want %q", c.lines, r.Secret, p, c.want)
		}
		if got := collect(r.Protocols); strings.Contains(got, "tgs_b") && !strings.Contains(got, "xtgs_b") {
			t.Errorf("%q: Protocols yields the secret: %s", c.lines, got)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	raw := []byte(upgradetest.Browser)
	bad := []byte(upgradetest.Handshake("Content-Length: 0"))
	key, protocol := []byte(upgradetest.Key), []byte("ticketgate.v1")
	var r, filled upgrade.Request
	var s upgrade.Scan
	dst := make([]byte, 0, 2048)
	var seen int
	parse := func(in []byte, s *upgrade.Scan, want *upgrade.Problem) {
		if _, p := upgrade.Parse(in, s, &r); p != want {
			t.Fatalf("%v, want %v", p, want)
		}
	}
	if _, p := upgrade.Parse(raw, &upgrade.Scan{}, &filled); p != nil {
		t.Fatal(p)
	}
	for name, f := range map[string]func(){
		"Parse":           func() { s = upgrade.Scan{}; parse(raw, &s, nil) },
		"Parse, bad":      func() { s = upgrade.Scan{}; parse(bad, &s, upgrade.ErrBody) },
		"Parse, own Scan": func() { var s upgrade.Scan; parse(raw, &s, nil) },
		"Parse, cut":      func() { s = upgrade.Scan{}; parse(raw[:100], &s, nil); parse(raw, &s, nil) },
		"AppendSwitch":    func() { dst = upgrade.AppendSwitch(dst[:0], key, protocol, nil) },
		"Append":          func() { dst = upgrade.ErrKey.Append(dst[:0], "https://rt.example.com", "req_1") },
		"iterators": func() {
			for name := range filled.Headers {
				seen += len(name)
			}
			for p := range filled.Protocols {
				seen += len(p)
			}
			for e := range filled.Extensions {
				seen += len(e)
			}
		},
	} {
		if got := testing.AllocsPerRun(100, f); got != 0 {
			t.Errorf("%s: %v allocations, want 0", name, got)
		}
	}
	if seen == 0 {
		t.Error("the iterators yielded nothing")
	}
}

func BenchmarkParse(b *testing.B) {
	for _, c := range []struct{ name, raw string }{
		{"browser", upgradetest.Browser},
		{"plain client", upgradetest.Handshake("Ticketgate-Secret: tgs_" + strings.Repeat("x", 43))},
		{"adversarial 16 KiB cookie", upgradetest.Handshake("Cookie: " + strings.Repeat("c", 16000))},
		{"adversarial 16 KiB of high bytes", upgradetest.Handshake("Cookie: " + strings.Repeat("\xff", 16000))},
		{"adversarial 95 lines", upgradetest.Handshake(slices.Repeat([]string{"A:" + strings.Repeat("b", 150)}, 95)...)},
	} {
		b.Run(fmt.Sprintf("%s %dB", c.name, len(c.raw)), func(b *testing.B) {
			raw := []byte(c.raw)
			var r upgrade.Request
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				var s upgrade.Scan
				if n, p := upgrade.Parse(raw, &s, &r); n == 0 || p != nil {
					b.Fatal(n, p)
				}
			}
		})
	}
}

// BenchmarkDribble is a 16 KiB head in pieces of one byte: time for each byte.
func BenchmarkDribble(b *testing.B) {
	raw := []byte(upgradetest.Handshake("Cookie: " + strings.Repeat("c", 16000)))
	var r upgrade.Request
	for b.Loop() {
		var s upgrade.Scan
		for end := 1; end <= len(raw); end++ {
			if n, p := upgrade.Parse(raw[:end], &s, &r); p != nil || n > 0 != (end == len(raw)) {
				b.Fatal(end, n, p)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(raw)), "ns/byte")
}

func BenchmarkAppendSwitch(b *testing.B) {
	dst := make([]byte, 0, 512)
	key, protocol := []byte(upgradetest.Key), []byte("ticketgate.v1")
	b.ReportAllocs()
	for b.Loop() {
		dst = upgrade.AppendSwitch(dst[:0], key, protocol, nil)
	}
}
