package upgrade_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"ticketgate/engine/upgrade"
	"ticketgate/engine/upgrade/upgradetest"
)

func TestAccept(t *testing.T) {
	dst := bytes.Repeat([]byte{'?'}, 30)
	upgrade.Accept(dst, []byte(upgradetest.Key))
	if string(dst) != upgradetest.Accept+"??" {
		t.Errorf("Accept gave %q", dst)
	}
}

func TestAppendSwitch(t *testing.T) {
	const head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + upgradetest.Accept + "\r\n"
	for _, c := range []struct{ protocol, extensions, want string }{
		{"", "", head + "\r\n"},
		{"chat", "", head + "Sec-WebSocket-Protocol: chat\r\n\r\n"},
		{"", "a; b", head + "Sec-WebSocket-Extensions: a; b\r\n\r\n"},
		{"chat", "a; b", head + "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: a; b\r\n\r\n"},
	} {
		got := upgrade.AppendSwitch([]byte("before "), []byte(upgradetest.Key), []byte(c.protocol), []byte(c.extensions))
		if string(got) != "before "+c.want {
			t.Errorf("protocol %q, extensions %q: %q", c.protocol, c.extensions, got)
		}
	}
}

// problems is every refusal of a request that there is.
var problems = []*upgrade.Problem{
	upgrade.ErrRequestLine, upgrade.ErrVersion, upgrade.ErrCanonical, upgrade.ErrControl, upgrade.ErrField, upgrade.ErrRepeated, upgrade.ErrHost,
	upgrade.ErrBody, upgrade.ErrExpect, upgrade.ErrSecrets, upgrade.ErrKey, upgrade.ErrMethod, upgrade.ErrTarget, upgrade.ErrNotUpgrade,
	upgrade.ErrWebSocketVersion, upgrade.ErrHeadSize, upgrade.ErrHeadLines, upgrade.ErrMethodUnknown, upgrade.ErrCoding,
	upgrade.ErrBackendAnswer, upgrade.ErrBackendStatus,
}

func TestProblemAnswers(t *testing.T) {
	reasons := map[string]bool{}
	for _, p := range problems {
		if reasons[p.Reason] {
			t.Errorf("two problems have the reason %s", p.Reason)
		}
		reasons[p.Reason] = true
		resp, body := readAnswer(t, p.Append(nil, "https://rt.example.com", "req_1"))
		if resp.StatusCode != p.Status || int(body["status"].(float64)) != p.Status || body["detail"] != p.Detail || body["title"] != upgrade.StatusText(p.Status) {
			t.Errorf("%s: status %s, body %v", p.Reason, resp.Status, body)
		}
		if typ, _ := body["type"].(string); !strings.HasPrefix(typ, "https://rt.example.com/problems/") || strings.HasSuffix(typ, "/") {
			t.Errorf("%s: type %q", p.Reason, typ)
		}
	}
	for name, want := range map[string]struct {
		p     *upgrade.Problem
		value string
	}{
		"Allow":                 {upgrade.ErrMethod, "GET"},
		"Upgrade":               {upgrade.ErrNotUpgrade, "websocket"},
		"Sec-Websocket-Version": {upgrade.ErrWebSocketVersion, "13"},
	} {
		resp, _ := readAnswer(t, want.p.Append(nil, "", "r"))
		if got := resp.Header.Get(name); got != want.value {
			t.Errorf("%s: %s is %q, want %q", want.p.Reason, name, got, want.value)
		}
	}
}

// readAnswer reads exactly one answer that closes, and checks what all answers have in common.
func readAnswer(t *testing.T, raw []byte) (*http.Response, map[string]any) {
	t.Helper()
	in := bufio.NewReader(bytes.NewReader(raw))
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatalf("%v in %q", err, raw)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil || in.Buffered() > 0 {
		t.Fatalf("%v, %d bytes behind the answer %q", err, in.Buffered(), raw)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/problem+json", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
		"X-Content-Type-Options": "nosniff", "Content-Length": strconv.Itoa(len(text)),
	} {
		if got := resp.Header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	var body map[string]any
	if err := json.Unmarshal(text, &body); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if !resp.Close || bytes.Count(raw, []byte("\r\nConnection: close\r\n")) != 1 { // net/http takes the field out of Header
		t.Error("the answer does not close")
	}
	return resp, body
}

func TestAppendRefusal(t *testing.T) {
	before := []byte("before")
	raw := upgrade.AppendRefusal(before, "https://rt.example.com", 503, "store-unavailable", "No \"store\"\\\n\x1f", "é\xff", "req_1", 3, "X-More: 1\r\n")
	if !bytes.HasPrefix(raw, before) {
		t.Fatalf("%q does not begin with what was there", raw)
	}
	resp, body := readAnswer(t, raw[len(before):])
	if resp.Status != "503 Service Unavailable" || resp.Header.Get("Retry-After") != "3" || resp.Header.Get("X-More") != "1" {
		t.Errorf("head %s %v", resp.Status, resp.Header)
	}
	for name, want := range map[string]any{
		"type": "https://rt.example.com/problems/store-unavailable", "title": "No \"store\"\\\n\x1f", "status": 503.0, "detail": "é\ufffd",
		"instance": "urn:ticketgate:request:req_1", "request_id": "req_1", "retry_after_ms": 3000.0,
	} {
		if body[name] != want {
			t.Errorf("%s is %v, want %v", name, body[name], want)
		}
	}
	if resp, body := readAnswer(t, upgrade.AppendRefusal(nil, "", 401, "unauthenticated", "t", "d", "r", 0, "")); len(body) != 6 || resp.Header.Get("Retry-After") != "" {
		t.Errorf("without Retry-After: %v %v", resp.Header, body)
	}
	if _, body := readAnswer(t, upgrade.AppendRefusal(nil, "", 401, "unauthenticated", "t", "d", "", 0, "")); len(body) != 4 {
		t.Errorf("without a request id: %v", body)
	}
}

func TestStatusText(t *testing.T) {
	for status := range 1000 {
		want := http.StatusText(status)
		if status == 414 {
			want = "URI Too Long" // RFC 9110 section 15.5.15; net/http has the words of RFC 2616
		}
		if got := upgrade.StatusText(status); got != "" && got != want {
			t.Errorf("%d is %q, want %q", status, got, want)
		}
	}
	for _, status := range []int{400, 401, 403, 404, 405, 408, 414, 421, 426, 429, 431, 500, 501, 502, 503, 504} {
		if upgrade.StatusText(status) == "" {
			t.Errorf("%d has no text", status)
		}
	}
}
