package handshake_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"ticketgate/handshake"
)

// Each bad head gets its status and the end of the connection, and the request behind it is never looked at.
func TestBadHeads(t *testing.T) {
	var behind atomic.Int32
	g := start(t, func(_ *rig, o *handshake.Options) {
		o.Extra["/behind"] = func(*fasthttp.RequestCtx) { behind.Add(1) }
	})
	rows := badHeads()
	if len(rows) < 140 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := g.dial()
			w.t = t
			text := strings.ReplaceAll(row.text, "KEY", g.key) + "GET /behind HTTP/1.1\r\nHost: a\r\n\r\n"
			go func() { _, _ = io.WriteString(w.TCPConn, text) }() // the answer may come before all is sent
			a := w.read()
			kind := map[int]string{400: "invalid-request", 413: "too-large", 414: "too-large", 417: "invalid-request", 431: "too-large",
				501: "not-implemented", 505: "not-implemented"}[row.status]
			a.wantProblem(t, row.status, kind, "")
			if !a.Close {
				t.Errorf("header %v", a.Header)
			}
			w.closed()
		})
	}
	t.Cleanup(func() {
		if n := behind.Load(); n != 0 {
			t.Errorf("%d requests behind a bad head were served", n)
		}
		if n := len(g.stats().Issued); n != 0 {
			t.Errorf("tickets for bad heads: %v", g.stats().Issued)
		}
	})
}

func TestGoodHeads(t *testing.T) {
	for name, text := range goodHeads() {
		t.Run(name, func(t *testing.T) {
			g := start(t, nil)
			w := g.dial()
			w.send(strings.ReplaceAll(text, "KEY", g.key))
			a := w.read()
			if a.StatusCode == 100 {
				a = w.read()
			}
			if a.StatusCode != 201 {
				t.Fatalf("%d %s", a.StatusCode, a.body)
			}
		})
	}
}

// The verdict does not depend on how the bytes were cut.
func TestHeadsByteByByte(t *testing.T) {
	for _, row := range badHeads() {
		text := []byte(strings.ReplaceAll(row.text, "KEY", "tgk_app_"+strings.Repeat("A", 43)))
		_, _, whole, _ := handshake.ReadRequest(text)
		if whole != row.status {
			t.Errorf("%s: %d before fasthttp sees it, want %d", row.name, whole, row.status)
		}
		n, status := handshake.FeedBytes(text)
		if n == 0 && status != whole {
			t.Errorf("%s: %d at once, %d byte by byte", row.name, whole, status)
		}
	}
	g := start(t, nil)
	w := g.dial()
	for _, b := range []byte(strings.ReplaceAll(goodHeads()["Chunked in pieces"], "KEY", g.key)) {
		w.send(string(b))
	}
	if a := w.read(); a.StatusCode != 201 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// Whoever reads on after a refusal finds nothing.
func TestNothingIsReadBehindARefusal(t *testing.T) {
	g := start(t, nil)
	far, near := net.Pipe()
	defer func() { g.must(far.Close()) }()
	go func() { // the answer has to be taken, for a pipe holds nothing
		_, _ = io.WriteString(far, "GET  / HTTP/1.1\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
		_, _ = io.Copy(io.Discard, far)
	}()
	c := g.NewConn(near)
	for range 2 {
		if n, err := c.Read(make([]byte, 100)); n != 0 || err != io.EOF {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	if n := g.stats().Rejected["head"]; n != 1 {
		t.Errorf("refused %d times", n)
	}
}

// A connection that becomes idle when Shutdown has already looked at it ends by itself.
func TestNothingIsReadAfterShutdown(t *testing.T) {
	g := start(t, nil)
	g.must(g.Shutdown(context.Background()))
	far, near := net.Pipe()
	go func() { _, _ = io.WriteString(far, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n") }()
	if n, err := g.NewConn(near).Read(make([]byte, 100)); n != 0 || err != io.EOF {
		t.Errorf("%d bytes, %v", n, err)
	}
	g.must(far.Close())
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	g := start(t, nil)
	w := g.dial()
	w.send(g.post(wanted) + "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /v1/nothing HTTP/1.1\r\nHost: a\r\n\r\n" +
		"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
	for _, want := range []int{201, 200, 404, 200} {
		if a := w.read(); a.StatusCode != want {
			t.Fatalf("%d %s, want %d", a.StatusCode, a.body, want)
		}
	}
	w.closed()
}

func TestAHundredRequestsAConnection(t *testing.T) {
	g := start(t, nil)
	w := g.dial()
	for i := range 100 {
		w.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
		if a := w.read(); a.Close != (i == 99) {
			t.Fatalf("answer %d: close %v", i, a.Close)
		}
	}
	w.closed()
}

func TestContinueIsSaidOnlyToWhoWaits(t *testing.T) {
	g := start(t, nil)
	w := g.dial()
	headOnly := strings.ReplaceAll(strings.TrimSuffix(with(length+"Expect: 100-continue\r\n"), wanted), "KEY", g.key)
	w.send(headOnly)
	if a := w.read(); a.StatusCode != 100 {
		t.Fatalf("%d", a.StatusCode)
	}
	w.send(wanted + headOnly + wanted)
	for range 2 {
		if a := w.read(); a.StatusCode != 201 {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
	}
}

// A client that drips is cut at an absolute time; one that says nothing is cut without an answer.
func TestDeadlines(t *testing.T) {
	g := start(t, func(_ *rig, o *handshake.Options) {
		o.ReadTimeout, o.BodyTimeout, o.IdleTimeout = 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
	})
	for _, c := range []struct {
		name, text string
		status     int
	}{
		{"silent", "", 0},
		{"half a head", "GET /healthz HTTP/1.1\r\nHost:", 408},
		{"half a body", strings.TrimSuffix(with(length), "}"), 408},
		{"half a chunk", chunkedBody("11\r\n{"), 408},
		{"idle", "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := g.dial()
			w.send(c.text)
			if c.status != 0 {
				if a := w.read(); a.StatusCode != c.status {
					t.Errorf("%d %s", a.StatusCode, a.body)
				}
			}
			w.closed()
		})
	}
	w := g.dial()
	begin := time.Now()
	for i := 0; ; i++ {
		if _, err := w.Write([]byte("GET /healthz HTTP/1.1\r\nX-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"[i%2 : i%2+1])); err != nil {
			break
		}
		if err := w.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.r.Peek(1); err == nil {
			break
		}
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("a drip of bytes kept the connection for %v", took)
	}
}

// What is accepted, net/http accepts too, and reads the same in it: before and after it was made canonical.
func FuzzHead(f *testing.F) {
	for _, row := range badHeads() {
		if len(row.text) < 4096 {
			f.Add([]byte(row.text))
		}
	}
	for _, text := range goodHeads() {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		canonical, used, status, more := handshake.ReadRequest(in)
		if status != 0 || more {
			return
		}
		theirs, body := readHTTP(t, in[:used])
		again, bodyAgain := readHTTP(t, canonical)
		if !bytes.Equal(body, bodyAgain) || theirs.Method != again.Method || !strings.EqualFold(theirs.Host, again.Host) ||
			theirs.URL.RequestURI() != again.URL.RequestURI() {
			t.Fatalf("%q became %q", in, canonical)
		}
		if twice, n, status, more := handshake.ReadRequest(canonical); status != 0 || more || n != len(canonical) || !bytes.Equal(twice, canonical) {
			t.Fatalf("%q is not canonical: %d, %q", canonical, status, twice)
		}
	})
}

func readHTTP(t *testing.T, b []byte) (*http.Request, []byte) {
	t.Helper()
	r := bufio.NewReader(bytes.NewReader(b))
	req, err := http.ReadRequest(r)
	if err != nil {
		t.Fatalf("net/http refuses %q: %v", b, err)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil || r.Buffered() > 0 {
		t.Fatalf("net/http reads %q otherwise: %v, %d left", b, err, r.Buffered())
	}
	return req, body
}
