package upgrade_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"ticketgate/engine/upgrade"
	"ticketgate/engine/upgrade/upgradetest"
)

const (
	status101    = "HTTP/1.1 101 Switching Protocols"
	acceptLine   = "Sec-WebSocket-Accept: " + upgradetest.Accept
	upgradeLine  = "Upgrade: websocket"
	connectLine  = "Connection: Upgrade"
	interimLine  = "HTTP/1.1 100 Continue\r\n\r\n"
	earlyHints   = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 0\r\n\r\n"
	protocolLine = "Sec-WebSocket-Protocol: chat"
)

// answers are backends' answers to a handshake that offers chat and v2. want nil: accepted; the rest as ParseResponse says.
var answers = []struct {
	name, raw string
	status    int
	want      *upgrade.Problem
}{
	{"plainest", upgradetest.Join(status101, upgradeLine, connectLine, acceptLine), 101, nil},
	{"other case", upgradetest.Join(status101, "UPGRADE: WebSocket", "connection: keep-alive, upgrade", "sec-websocket-accept:"+upgradetest.Accept), 101, nil},
	{"no phrase", upgradetest.Join("HTTP/1.1 101 ", upgradeLine, connectLine, acceptLine), 101, nil},
	{"no space behind the status", upgradetest.Join("HTTP/1.1 101", upgradeLine, connectLine, acceptLine), 101, nil},
	{"subprotocol", upgradetest.Join(status101, upgradeLine, connectLine, acceptLine, protocolLine), 101, nil},
	{"high bytes", upgradetest.Join(status101, upgradeLine, connectLine, acceptLine, "Server: \xe9t\xe9"), 101, nil},
	{"behind 100 and 103", interimLine + earlyHints + upgradetest.Join(status101, upgradeLine, connectLine, acceptLine), 101, nil},
	{"behind 8 times 100", strings.Repeat(interimLine, 8) + upgradetest.Join(status101, upgradeLine, connectLine, acceptLine), 101, nil},
	{"behind 103 with the same fields", upgradetest.Join("HTTP/1.1 103 Early Hints", upgradeLine, acceptLine) + upgradetest.Join(status101, upgradeLine, connectLine, acceptLine), 101, nil},

	{"behind 9 times 100", strings.Repeat(interimLine, 9) + upgradetest.Join(status101, upgradeLine, connectLine, acceptLine), 0, upgrade.ErrBackendAnswer},
	{"100 for ever", strings.Repeat(interimLine, 1000), 0, upgrade.ErrBackendAnswer},
	{"103 without an end", "HTTP/1.1 103 Early Hints\r\n" + strings.Repeat("A: b\r\n", 10000), 0, upgrade.ErrBackendAnswer},
	{"head of 1 MiB", upgradetest.Join(status101, upgradeLine, "A: "+strings.Repeat("a", 1<<20)), 101, upgrade.ErrBackendAnswer},
	{"first line of 1 MiB", strings.Repeat("a", 1<<20), 0, upgrade.ErrBackendAnswer},
	{"no Upgrade", upgradetest.Join(status101, connectLine, acceptLine), 101, upgrade.ErrBackendAnswer},
	{"no Connection", upgradetest.Join(status101, upgradeLine, acceptLine), 101, upgrade.ErrBackendAnswer},
	{"no Accept", upgradetest.Join(status101, upgradeLine, connectLine), 101, upgrade.ErrBackendAnswer},
	{"Connection without upgrade", upgradetest.Join(status101, upgradeLine, "Connection: close", acceptLine), 101, upgrade.ErrBackendAnswer},
	{"Upgrade to h2c", upgradetest.Join(status101, "Upgrade: h2c", connectLine, acceptLine), 101, upgrade.ErrBackendAnswer},
	{"Upgrade to a list", upgradetest.Join(status101, "Upgrade: websocket, h2c", connectLine, acceptLine), 101, upgrade.ErrBackendAnswer},
	{"Upgrade twice", upgradetest.Join(status101, upgradeLine, upgradeLine, connectLine, acceptLine), 101, upgrade.ErrBackendAnswer},
	{"wrong Accept", upgradetest.Join(status101, upgradeLine, connectLine, "Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo="), 101, upgrade.ErrBackendAnswer},
	{"Accept cut", upgradetest.Join(status101, upgradeLine, connectLine, acceptLine[:len(acceptLine)-1]), 101, upgrade.ErrBackendAnswer},
	{"two Accepts", upgradetest.Join(status101, upgradeLine, connectLine, acceptLine, acceptLine), 101, upgrade.ErrBackendAnswer},
	{"the key in place of Accept", upgradetest.Join(status101, upgradeLine, connectLine, "Sec-WebSocket-Accept: "+upgradetest.Key), 101, upgrade.ErrBackendAnswer},
	{"subprotocol not offered", upgradetest.Join(status101, upgradeLine, connectLine, acceptLine, "Sec-WebSocket-Protocol: CHAT"), 101, upgrade.ErrBackendAnswer},
	{"two subprotocols", upgradetest.Join(status101, upgradeLine, connectLine, acceptLine, protocolLine, "Sec-WebSocket-Protocol: v2"), 101, upgrade.ErrBackendAnswer},
	{"subprotocols as a list", upgradetest.Join(status101, upgradeLine, connectLine, acceptLine, "Sec-WebSocket-Protocol: chat, v2"), 101, upgrade.ErrBackendAnswer},
	{"empty subprotocol", upgradetest.Join(status101, upgradeLine, connectLine, acceptLine, "Sec-WebSocket-Protocol:"), 101, upgrade.ErrBackendAnswer},
	{"extension", upgradetest.Join(status101, upgradeLine, connectLine, acceptLine, "Sec-WebSocket-Extensions: permessage-deflate"), 101, upgrade.ErrBackendAnswer},
	{"body", upgradetest.Join(status101, upgradeLine, connectLine, acceptLine, "Content-Length: 5"), 101, upgrade.ErrBackendAnswer},
	{"chunks", upgradetest.Join(status101, upgradeLine, connectLine, acceptLine, "Transfer-Encoding: chunked"), 101, upgrade.ErrBackendAnswer},
	{"folded line", upgradetest.Join(status101, upgradeLine, connectLine, acceptLine, "A: b", " c"), 101, upgrade.ErrBackendAnswer},
	{"space before a colon", upgradetest.Join(status101, upgradeLine, connectLine, acceptLine, "A : b"), 101, upgrade.ErrBackendAnswer},
	{"bare LFs", strings.ReplaceAll(upgradetest.Join(status101, upgradeLine, connectLine, acceptLine), "\r\n", "\n"), 0, upgrade.ErrBackendAnswer},
	{"NUL", upgradetest.Join(status101, upgradeLine, connectLine, acceptLine, "A: \x00"), 101, upgrade.ErrBackendAnswer},
	{"200 with all the fields", upgradetest.Join("HTTP/1.1 200 OK", upgradeLine, connectLine, acceptLine), 200, upgrade.ErrBackendStatus},
	{"204", upgradetest.Join("HTTP/1.1 204 No Content"), 204, upgrade.ErrBackendStatus},
	{"301", upgradetest.Join("HTTP/1.1 301 Moved", "Location: /"), 301, upgrade.ErrBackendStatus},
	{"401", "HTTP/1.1 401 Unauthorized\r\n", 401, upgrade.ErrBackendStatus},
	{"403", "HTTP/1.1 403\r\n", 403, upgrade.ErrBackendStatus},
	{"404 behind 100", interimLine + "HTTP/1.1 404 Not Found\r\n", 404, upgrade.ErrBackendStatus},
	{"500", upgradetest.Join("HTTP/1.1 500 Oops", "Content-Length: 0"), 500, upgrade.ErrBackendStatus},
	{"HTTP/1.0", upgradetest.Join("HTTP/1.0 101 Switching Protocols", upgradeLine, connectLine, acceptLine), 0, upgrade.ErrBackendAnswer},
	{"HTTP/2.0", upgradetest.Join("HTTP/2.0 101 Switching Protocols", upgradeLine, connectLine, acceptLine), 0, upgrade.ErrBackendAnswer},
	{"status of two digits", "HTTP/1.1 99 x\r\n", 0, upgrade.ErrBackendAnswer},
	{"status of four digits", "HTTP/1.1 1010 x\r\n", 0, upgrade.ErrBackendAnswer},
	{"status 600", "HTTP/1.1 600 x\r\n", 0, upgrade.ErrBackendAnswer},
	{"status with a sign", "HTTP/1.1 +10 x\r\n", 0, upgrade.ErrBackendAnswer},
	{"two spaces", "HTTP/1.1  101 x\r\n", 0, upgrade.ErrBackendAnswer},
	{"no HTTP", "SSH-2.0-OpenSSH_9.2\r\n", 0, upgrade.ErrBackendAnswer},
	{"empty line first", "\r\n" + upgradetest.Join(status101, upgradeLine, connectLine, acceptLine), 0, upgrade.ErrBackendAnswer},
}

func newResponse() *upgrade.Response {
	return &upgrade.Response{Key: []byte(upgradetest.Key), Offered: []string{"v2", "chat"}}
}

func TestParseResponse(t *testing.T) {
	for _, c := range answers {
		r := newResponse()
		n, p := upgrade.ParseResponse([]byte(c.raw), &upgrade.Scan{}, r)
		if p != c.want || r.Status != c.status || p == nil && n != len(c.raw) || p != nil && n != 0 {
			t.Errorf("%s: %d %v with status %d, want %v with status %d", c.name, n, p, r.Status, c.want, c.status)
		}
		if want := strings.Contains(c.raw, protocolLine) && p == nil; want != (string(r.Protocol) == "chat") {
			t.Errorf("%s: subprotocol %q", c.name, r.Protocol)
		}
		if len(c.raw) < upgrade.MaxHead {
			checkResponseSplits(t, []byte(c.raw), rand.New(rand.NewPCG(5, 6)))
		}
	}
	// Half a head, and nothing, are not an answer yet.
	whole := answers[0].raw
	for end := range len(whole) {
		if n, p := upgrade.ParseResponse([]byte(whole[:end]), &upgrade.Scan{}, newResponse()); n != 0 || p != nil {
			t.Errorf("%d of %d bytes: %d %v", end, len(whole), n, p)
		}
	}
	if n, p := upgrade.ParseResponse([]byte(whole+"\x81\x00"), &upgrade.Scan{}, newResponse()); n != len(whole) || p != nil {
		t.Errorf("with a frame behind it: %d %v, want %d", n, p, len(whole))
	}
}

func checkResponseSplits(t *testing.T, raw []byte, random *rand.Rand) {
	t.Helper()
	once := newResponse()
	n, p := upgrade.ParseResponse(raw, &upgrade.Scan{}, once)
	for _, longest := range []int{1, 40} {
		var s upgrade.Scan
		var gotN int
		var gotP *upgrade.Problem
		r := newResponse()
		for end := 0; end < len(raw) && gotN == 0 && gotP == nil; {
			end = min(len(raw), end+1+random.IntN(longest))
			gotN, gotP = upgrade.ParseResponse(bytes.Clone(raw[:end]), &s, r)
		}
		if gotN != n || gotP != p || n > 0 && string(r.Protocol) != string(once.Protocol) || p == upgrade.ErrBackendStatus && r.Status != once.Status {
			t.Fatalf("%.200q in pieces of up to %d bytes: %d %v %+v, at once %d %v %+v", raw, longest, gotN, gotP, r, n, p, once)
		}
	}
}

func TestAppendRequest(t *testing.T) {
	key := []byte(upgradetest.Key)
	raw, err := upgrade.AppendRequest([]byte("before "), "10.0.0.1:7001", "/ws?a=1", key, []string{"chat", "v2"}, upgrade.Header{Name: "X-Request-Id", Value: "r 1"})
	if err != nil || !bytes.HasPrefix(raw, []byte("before ")) {
		t.Fatal(err)
	}
	raw = raw[len("before "):]
	var r upgrade.Request
	n, p := upgrade.Parse(raw, &upgrade.Scan{}, &r)
	if p != nil || n != len(raw) || !r.Upgrade || string(r.Target) != "/ws?a=1" || string(r.Host) != "10.0.0.1:7001" || string(r.Key) != upgradetest.Key ||
		collect(r.Protocols) != "chat|v2" || !strings.Contains(describe(&r), `"X-Request-Id" "r 1"`) {
		t.Errorf("%q is read as %v %s", raw, p, describe(&r))
	}
	type args struct {
		host, target, key string
		protocols         []string
		name, value       string
	}
	good := args{"a", "/", upgradetest.Key, []string{"p"}, "N", "v"}
	bad := map[string]func(a *args){
		"host":                    func(a *args) { a.host = "a\r\nX: y" },
		"empty host":              func(a *args) { a.host = "" },
		"target":                  func(a *args) { a.target = "/ HTTP/1.1\r\nX: y" },
		"target with a space":     func(a *args) { a.target = "/ a" },
		"relative target":         func(a *args) { a.target = "a" },
		"empty target":            func(a *args) { a.target = "" },
		"long target":             func(a *args) { a.target = "/" + strings.Repeat("a", 8000) },
		"key":                     func(a *args) { a.key = "short" },
		"protocol":                func(a *args) { a.protocols = []string{"a", "b\r\n"} },
		"empty protocol":          func(a *args) { a.protocols = []string{""} },
		"name":                    func(a *args) { a.name = "N: x\r\nM" },
		"empty name":              func(a *args) { a.name = "" },
		"value with CR LF":        func(a *args) { a.value = "v\r\nX: y" },
		"value with NUL":          func(a *args) { a.value = "\x00" },
		"value with DEL":          func(a *args) { a.value = "\x7f" },
		"a second Host":           func(a *args) { a.name = "host" },
		"a body":                  func(a *args) { a.name = "Content-Length" },
		"a body, '_' for '-'":     func(a *args) { a.name = "Transfer_Encoding" },
		"a second ticket":         func(a *args) { a.name = "Ticketgate-Secret" },
		"extensions":              func(a *args) { a.name = "Sec-WebSocket-Extensions" },
		"connection-close by us":  func(a *args) { a.name = "Connection" },
		"another upgrade":         func(a *args) { a.name = "Upgrade" },
		"expectations":            func(a *args) { a.name = "Expect" },
		"another version":         func(a *args) { a.name = "Sec-WebSocket-Version" },
		"another key":             func(a *args) { a.name = "Sec-WebSocket-Key" },
		"subprotocols by a field": func(a *args) { a.name = "Sec-WebSocket-Protocol" },
	}
	bad["nothing wrong"] = func(*args) {}
	for name, spoil := range bad {
		a := good
		spoil(&a)
		got, err := upgrade.AppendRequest([]byte("x"), a.host, a.target, []byte(a.key), a.protocols, upgrade.Header{Name: a.name, Value: a.value})
		if want := name != "nothing wrong"; (err == upgrade.ErrRequest) != want || want && string(got) != "x" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestResponseNoAllocations(t *testing.T) {
	raw := []byte(answers[4].raw)
	r := newResponse()
	var s upgrade.Scan
	if got := testing.AllocsPerRun(100, func() {
		s = upgrade.Scan{}
		if n, p := upgrade.ParseResponse(raw, &s, r); n == 0 || p != nil {
			panic(fmt.Sprint(n, p))
		}
	}); got != 0 {
		t.Errorf("%v allocations, want 0", got)
	}
}
