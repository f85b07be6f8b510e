package bench_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"ticketgate/bench"
)

var payloadSizes = []int{0, 1, 125, 126, 127, 65535, 65536, 70000}

// readFrame reads one frame of the client and unmasks it.
func readFrame(r io.Reader) (ws.Frame, error) {
	h, err := ws.ReadHeader(r)
	if err != nil {
		return ws.Frame{}, err
	}
	if h.Length > 1<<20 {
		return ws.Frame{}, fmt.Errorf("a frame of %d bytes: no test sends it", h.Length)
	}
	f := ws.Frame{Header: h, Payload: make([]byte, h.Length)}
	if _, err := io.ReadFull(r, f.Payload); err != nil {
		return ws.Frame{}, err
	}
	ws.Cipher(f.Payload, h.Mask, 0)
	return f, nil
}

// What AppendFrame writes, another library reads.
func TestAppendFrame(t *testing.T) {
	for _, size := range payloadSizes {
		payload := bytes.Repeat([]byte("0123456"), size/7+1)[:size]
		f, err := readFrame(bytes.NewReader(bench.AppendFrame(nil, 1, payload)))
		if err != nil || !f.Header.Masked || !f.Header.Fin || f.Header.OpCode != ws.OpText {
			t.Fatalf("%d bytes: %+v, %v", size, f.Header, err)
		}
		if !bytes.Equal(f.Payload, payload) {
			t.Errorf("%d bytes: payload differs", size)
		}
	}
}

// What another library writes, ParseFrame reads, and it waits for the last byte.
func TestParseFrame(t *testing.T) {
	for _, size := range payloadSizes {
		payload := bytes.Repeat([]byte("0123456"), size/7+1)[:size]
		b := ws.MustCompileFrame(ws.NewBinaryFrame(payload))
		for _, cut := range []int{0, 1, 2, 3, 4, 9, 10, len(b) - 1} {
			if cut >= len(b) {
				continue
			}
			if f, n, err := bench.ParseFrame(b[:cut]); n != 0 || err != nil {
				t.Errorf("%d bytes cut at %d: %+v, %d, %v", size, cut, f, n, err)
			}
		}
		f, n, err := bench.ParseFrame(append(b, 0x81, 0))
		if err != nil || n != len(b) || f.Op != 2 || !f.Fin || !bytes.Equal(f.Payload, payload) {
			t.Errorf("%d bytes: op %d, n %d, %v", size, f.Op, n, err)
		}
	}
	if _, _, err := bench.ParseFrame(bench.AppendFrame(nil, 1, nil)); !errors.Is(err, bench.ErrMasked) {
		t.Errorf("masked: %v", err)
	}
	for _, high := range []byte{0x00, 0x80} {
		huge := []byte{0x82, 127, high, 0, 0, 1, 0, 0, 0, 0}
		if _, _, err := bench.ParseFrame(huge); !errors.Is(err, bench.ErrLength) {
			t.Errorf("length %x: %v", huge[2:], err)
		}
	}
}

func TestParseAnswer(t *testing.T) {
	for _, c := range []struct {
		name, text string
		status     int
		close      bool
		body       string
		err        error
	}{
		{"created", "HTTP/1.1 201 Created\r\nServer: x\r\nContent-Length: 2\r\n\r\n{}", 201, false, "{}", nil},
		{"empty", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, false, "", nil},
		{"close", "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno!", 429, true, "no!", nil},
		{"keep-alive", "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", 200, false, "", nil},
		{"lower case", "HTTP/1.1 201 Created\r\ncontent-length:2 \r\nCONNECTION: Close\r\n\r\n{}", 201, true, "{}", nil},
		{"chunks", "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\n{\"\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n", 201, false, `{"0123456789`, nil},
		{"no chunk", "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 201, false, "", nil},
		{"bad chunk", "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", 0, false, "", bench.ErrAnswer},
		{"huge chunk", "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", 0, false, "", bench.ErrAnswer},
		{"chunk longer than it says", "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", 0, false, "", bench.ErrAnswer},
		{"another coding", "HTTP/1.1 503 No\r\nTransfer-Encoding: gzip\r\nContent-Length: 0\r\n\r\n", 0, false, "", bench.ErrAnswer},
		{"no body", "HTTP/1.1 204 No Content\r\n\r\n", 204, false, "", nil},
		{"no length", "HTTP/1.1 200 OK\r\n\r\n", 0, false, "", bench.ErrAnswer},
		{"bad length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", 0, false, "", bench.ErrAnswer},
		{"old version", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 0, false, "", bench.ErrHead},
		{"no status", "HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n", 0, false, "", bench.ErrHead},
		{"endless", strings.Repeat("a", 17<<10), 0, false, "", bench.ErrHead},
	} {
		a, n, err := bench.ParseAnswer([]byte(c.text + "HTTP/1.1 next"))
		if !errors.Is(err, c.err) || a.Status != c.status || a.Close != c.close || string(a.Body) != c.body {
			t.Errorf("%s: %+v, %v", c.name, a, err)
		}
		if c.err != nil {
			continue
		}
		if n != len(c.text) {
			t.Errorf("%s: used %d of %d", c.name, n, len(c.text))
		}
		for cut := range c.text {
			if _, n, err := bench.ParseAnswer([]byte(c.text[:cut])); n != 0 || err != nil {
				t.Errorf("%s cut at %d: %d, %v", c.name, cut, n, err)
			}
		}
	}
}

// A failure whose body ends with the connection keeps its status.
func TestParseAnswerWithoutLength(t *testing.T) {
	text := "HTTP/1.1 502 Bad Gateway\r\nServer: x\r\n\r\n<html>"
	a, n, err := bench.ParseAnswer([]byte(text))
	if err != nil || n != len(text) || a.Status != 502 || !a.Close || string(a.Body) != "<html>" {
		t.Errorf("%+v, %d, %v", a, n, err)
	}
}

func TestParseTicket(t *testing.T) {
	for _, c := range []struct{ name, body, path, secret string }{
		{"as documented", `{"id":"tkt_1","url":"wss://rt.example.com/t/abc","protocols":["ticketgate.v1","tgs_xyz"],"expires_in":30}`, "/t/abc", "tgs_xyz"},
		{"other order", `{"protocols":["tgs_1","ticketgate.v1"],"url":"ws://127.0.0.1:9/t/-_"}`, "/t/-_", "tgs_1"},
		{"no url", `{"protocols":["tgs_1"]}`, "", ""},
		{"no secret", `{"url":"ws://h/t/a","protocols":["ticketgate.v1"]}`, "", ""},
		{"no path", `{"url":"ws://h","protocols":["tgs_1"]}`, "", ""},
		{"no scheme", `{"url":"/t/a","protocols":["tgs_1"]}`, "", ""},
		{"escaped", `{"url":"ws:\/\/h\/t\/a","protocols":["tgs_1"]}`, "", ""},
		{"unfinished", `{"protocols":["tgs_1"],"url":"ws://h/t/a`, "", ""},
	} {
		ticket, err := bench.ParseTicket([]byte(c.body))
		if string(ticket.Path) != c.path || string(ticket.Secret) != c.secret || (err != nil) != (c.path == "") {
			t.Errorf("%s: %q %q %v", c.name, ticket.Path, ticket.Secret, err)
		}
	}
}

func TestMint(t *testing.T) {
	m := bench.NewMint("h:1", "tgk_k", "echo", 1001)
	request := func(n string) string {
		return "POST /v1/tickets HTTP/1.1\r\nHost: h:1\r\nX-API-Key: tgk_k\r\nContent-Type: application/json\r\nContent-Length: 41\r\n\r\n" +
			`{"stream":"echo","client":"load-` + n + `"}`
	}
	var b []byte
	for i := range 1002 {
		b = m.Append(b[:0])
		if want, ok := map[int]string{0: "0000001", 41: "0000042", 1000: "0000000", 1001: "0000001"}[i]; ok && string(b) != request(want) {
			t.Errorf("request %d: %q", i, b)
		}
	}
}

func TestMintRow(t *testing.T) {
	m := bench.NewMint("h:1", "tgk_k", "echo", 3)
	m.Row = 2
	var clients []byte
	for range 8 {
		b := m.Append(nil)
		clients = append(clients, b[len(b)-len(`0"}`)])
	}
	if string(clients) != "01122001" { // two in a row, of three
		t.Errorf("clients %q", clients)
	}
}

// The client's own work on a message must not feed the collector.
func TestWireAllocates(t *testing.T) {
	m := bench.NewMint("h:1", "tgk_k", "echo", 1000)
	answer := []byte("HTTP/1.1 201 Created\r\nConnection: keep-alive\r\nContent-Length: 57\r\n\r\n" + `{"url":"ws://h/t/a","protocols":["ticketgate.v1","tgs_1"]}`)
	frame := ws.MustCompileFrame(ws.NewTextFrame([]byte("hello")))
	buf := make([]byte, 0, 1024)
	n := testing.AllocsPerRun(100, func() {
		buf = m.Append(buf[:0])
		a, _, err := bench.ParseAnswer(answer)
		ticket, err2 := bench.ParseTicket(a.Body)
		buf = bench.AppendUpgrade(buf[:0], "h:1", ticket.Path, ticket.Secret)
		_, _, err3 := bench.ParseFrame(frame)
		if err := errors.Join(err, err2, err3); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever a server sends, the parsers stay inside it, and they agree with what came when the bytes are cut.
func FuzzServerBytes(f *testing.F) {
	f.Add(ws.MustCompileFrame(ws.NewTextFrame([]byte("hello"))))
	f.Add(ws.MustCompileFrame(ws.NewBinaryFrame(make([]byte, 300))))
	f.Add([]byte("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"))
	f.Add([]byte("HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 502 Bad Gateway\r\n\r\n<html>"))
	f.Add([]byte{0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if fr, n, err := bench.ParseFrame(b); n > len(b) || n > 0 && (err != nil || n < 2+len(fr.Payload)) {
			t.Errorf("frame: %d of %d, %v", n, len(b), err)
		} else if n > 0 {
			if _, early, err := bench.ParseFrame(b[:n-1]); early != 0 || err != nil {
				t.Errorf("frame of %d is complete at %d, %v", n, early, err)
			}
		}
		a, n, err := bench.ParseAnswer(b)
		if n > len(b) || n > 0 && (err != nil || n < len(a.Body)) {
			t.Errorf("answer: %d of %d, %v", n, len(b), err)
		}
		if ticket, err := bench.ParseTicket(b); err == nil && (len(ticket.Path) == 0 || ticket.Path[0] != '/') {
			t.Errorf("ticket %q", ticket.Path)
		}
	})
}

// What AppendFrame writes, ParseMasked reads, and it waits for the last byte.
func TestParseMasked(t *testing.T) {
	for _, size := range payloadSizes {
		payload := bytes.Repeat([]byte("0123456"), size/7+1)[:size]
		whole := bench.AppendFrame(nil, bench.OpText, payload)
		for _, cut := range []int{0, 1, 2, 3, 5, 6, 9, 13, len(whole) - 1} {
			if cut >= len(whole) {
				continue
			}
			part := bytes.Clone(whole[:cut])
			if f, n, err := bench.ParseMasked(part); n != 0 || err != nil || !bytes.Equal(part, whole[:cut]) {
				t.Errorf("%d bytes cut at %d: %+v, %d, %v", size, cut, f, n, err)
			}
		}
		f, n, err := bench.ParseMasked(append(bytes.Clone(whole), "next"...))
		if err != nil || n != len(whole) || f.Op != bench.OpText || !f.Fin || !bytes.Equal(f.Payload, payload) {
			t.Errorf("%d bytes: op %d, n %d, %v", size, f.Op, n, err)
		}
	}
	for _, key := range [][4]byte{{}, {1, 2, 3, 4}, {0xff, 0, 0x80, 0x7f}} { // each client has its own
		frame := ws.MaskFrameWith(ws.NewBinaryFrame([]byte("hello")), key)
		if f, _, err := bench.ParseMasked(ws.MustCompileFrame(frame)); err != nil || f.Op != 2 || string(f.Payload) != "hello" {
			t.Errorf("key %x: %+v, %v", key, f, err)
		}
	}
	for _, size := range payloadSizes {
		if _, _, err := bench.ParseMasked(bench.AppendUnmasked(nil, 1, make([]byte, size))); !errors.Is(err, bench.ErrMasked) {
			t.Errorf("%d bytes without mask: %v", size, err)
		}
	}
	if _, _, err := bench.ParseMasked([]byte{0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 1}); !errors.Is(err, bench.ErrLength) {
		t.Errorf("16 MiB and a byte: %v", err)
	}
}

// What AppendUnmasked and AppendAs write, another library reads, and so does ParseFrame.
func TestAppendAs(t *testing.T) {
	for _, size := range payloadSizes {
		payload := bytes.Repeat([]byte("0123456"), size/7+1)[:size]
		if b := bench.AppendUnmasked([]byte("x"), bench.OpText, payload); !bytes.Equal(b[1:], ws.MustCompileFrame(ws.NewTextFrame(payload))) || b[0] != 'x' {
			t.Errorf("%d bytes: the frame begins with %x", size, b[:min(len(b), 12)])
		}
		for _, want := range []bench.Frame{
			{Op: bench.OpText, Payload: payload}, {Op: bench.OpContinuation, Payload: payload}, {Op: bench.OpContinuation, Fin: true, Payload: payload},
		} {
			b := bench.AppendAs(nil, want)
			h, err := ws.ReadHeader(bytes.NewReader(b))
			if err != nil || h.Fin != want.Fin || h.OpCode != ws.OpCode(want.Op) || h.Masked || h.Length != int64(size) {
				t.Errorf("%d bytes: %+v, %v", size, h, err)
			}
			f, n, err := bench.ParseFrame(b)
			if err != nil || n != len(b) || f.Op != want.Op || f.Fin != want.Fin || !bytes.Equal(f.Payload, payload) {
				t.Errorf("%d bytes: op %d, fin %t, %v", size, f.Op, f.Fin, err)
			}
		}
	}
}

func TestAppendAnswer(t *testing.T) {
	const (
		start = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		key   = "dGhlIHNhbXBsZSBub25jZQ==" // of RFC 6455 1.3
		want  = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
	)
	for _, c := range []struct{ name, head string }{
		{"as in the RFC", start + "Sec-WebSocket-Key: " + key + "\r\nOrigin: http://example.com\r\nSec-WebSocket-Version: 13\r\n\r\n"},
		{"lower case", start + "sec-websocket-key: " + key + "\r\n\r\n"},
		{"upper case", start + "SEC-WEBSOCKET-KEY: " + key + "\r\n\r\n"},
		{"no space", start + "Sec-WebSocket-Key:" + key + "\r\n\r\n"},
		{"more space", start + "Sec-WebSocket-Key: \t " + key + " \t\r\n\r\n"},
		{"first", "GET / HTTP/1.1\r\nSec-WebSocket-Key: " + key + "\r\nHost: x\r\n\r\n"},
		{"its own", string(bench.AppendUpgrade(nil, "h:1", []byte("/t/x"), []byte("tgs_1")))},
		{"long", start + "Cookie: " + strings.Repeat("a", 8<<10) + "\r\nSec-WebSocket-Key: " + key + "\r\n\r\n"},
		// Characters whose small letter has another length.
		{"Latin-1", start + "Cookie: caf\xe9 cr\xe8me br\xfbl\xe9e\r\nSec-WebSocket-Key: " + key + "\r\n\r\n"},
		{"Turkish", start + "Cookie: İİİİ\r\nSec-WebSocket-Key: " + key + "\r\n\r\n"},
		{"Kelvin", start + "Cookie: KKKK\r\nSec-WebSocket-Key: " + key + "\r\n\r\n"},
	} {
		answer, n, err := appendAnswer([]byte("x"), []byte(c.head+"next"))
		if err != nil || n != len(c.head) || string(answer) != "x"+want {
			t.Errorf("%s: %q, %d of %d, %v", c.name, answer, n, len(c.head), err)
		}
		for _, cut := range []int{0, 1, 40, len(c.head) - 3, len(c.head) - 1} {
			if answer, n, err := appendAnswer(nil, []byte(c.head[:cut])); n != 0 || err != nil || len(answer) != 0 {
				t.Errorf("%s cut at %d: %q, %d, %v", c.name, cut, answer, n, err)
			}
		}
	}
	for _, c := range []struct{ name, head string }{
		{"no key", start + "\r\n"},
		{"the key in the body", start + "\r\nSec-WebSocket-Key: " + key + "\r\n\r\n"},
		{"another header", start + "X-Sec-WebSocket-Key: " + key + "\r\n\r\n"},
		{"endless", strings.Repeat("a", 17<<10)},
	} {
		if answer, n, err := appendAnswer([]byte("x"), []byte(c.head)); !errors.Is(err, bench.ErrHead) || n != 0 || string(answer) != "x" {
			t.Errorf("%s: %q, %d, %v", c.name, answer, n, err)
		}
	}
	if _, n, err := appendAnswer(nil, bytes.Repeat([]byte("a"), 16<<10)); n != 0 || err != nil {
		t.Errorf("16 KiB without an end: %d, %v", n, err)
	}
}

// appendAnswer is AppendAnswer whose panic is an error.
func appendAnswer(dst, b []byte) (answer []byte, n int, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return bench.AppendAnswer(dst, b)
}

// Mints that share the clients do not ask for the same one at the same time, and without clients there is no name.
func TestMintSkip(t *testing.T) {
	var got []string
	for index := range 3 {
		m := bench.NewMint("h:1", "tgk_k", "echo", 7)
		m.Skip(index, 3)
		got = append(got, string(m.Append(nil)), string(m.Append(nil)))
	}
	seen := make(map[string]bool)
	for _, b := range got {
		seen[b] = true
	}
	if len(seen) != 6 {
		t.Errorf("%d requests are %d different ones", len(got), len(seen))
	}
	own := bench.NewMint("h:1", "tgk_k", "echo", 0)
	own.Skip(1, 2)
	for range 2 {
		if b := string(own.Append(nil)); !strings.HasSuffix(b, "Content-Length: 17\r\n\r\n{\"stream\":\"echo\"}") {
			t.Errorf("%q", b)
		}
	}
}
