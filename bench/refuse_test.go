package bench_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"ticketgate/bench"
)

// refusing serves each connection with what answer makes of its request, and ends it.
func refusing(t *testing.T, answer func(path string) string) *bench.Target {
	t.Helper()
	to, err := bench.NewTarget(serve(t, func(c net.Conn) {
		defer c.Close()
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err == nil {
			fmt.Fprint(c, answer(req.URL.Path))
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func refusals(t *testing.T, to *bench.Target, paths ...string) *bench.Refusals {
	t.Helper()
	l, err := bench.NewLoop(bench.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &bench.Refusals{Loop: l, To: to, Status: 401}
	for _, p := range paths {
		f.Heads = append(f.Heads, bench.AppendUpgrade(nil, "127.0.0.1", []byte(p), nil))
	}
	return f
}

const unauthorised = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}"

// Every request is made on a connection of its own, in turn and again, and its answer is read to the end.
func TestRefusals(t *testing.T) {
	var mu sync.Mutex
	asked := make(map[string]int)
	f := refusals(t, refusing(t, func(path string) string {
		mu.Lock()
		defer mu.Unlock()
		asked[path]++
		return unauthorised
	}), "/a", "/b", "/c")
	f.Max = 7
	f.Start(2)
	if err := f.Loop.RunUntil(t.Context(), patience, f.Idle); err != nil || f.Err != nil {
		t.Fatal(err, f.Err)
	}
	if f.Done != 7 || string(f.Answer) != unauthorised || f.Loop.Open() != 0 || f.Latency.Max() <= 0 {
		t.Errorf("%d done, %q, %d open, %s at most", f.Done, f.Answer, f.Loop.Open(), f.Latency.Max())
	}
	if mu.Lock(); asked["/a"] != 3 || asked["/b"] != 2 || asked["/c"] != 2 {
		t.Errorf("%v", asked)
	}
	mu.Unlock()
}

// What is no refusal is an error, and the end of the load: a server that lets someone in, that answers with half a head, or at length.
func TestNoRefusal(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		want   error // nil: a StatusError
	}{
		"101":   {"HTTP/1.1 101 Switching Protocols\r\n\r\n", nil},
		"429":   {"HTTP/1.1 429 Too Many Requests\r\n\r\n", nil},
		"half":  {"HTTP/1.1 401 Unauth", io.ErrUnexpectedEOF},
		"none":  {"", io.ErrUnexpectedEOF},
		"other": {"SSH-2.0-OpenSSH_9.2\r\n\r\n", bench.ErrHead},
		"long":  {unauthorised + strings.Repeat("x", 1<<20), bench.ErrHead},
	} {
		f := refusals(t, refusing(t, func(string) string { return c.answer }), "/")
		f.Start(1)
		if err := f.Loop.RunUntil(t.Context(), patience, f.Idle); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var status *bench.StatusError
		if f.Done != 0 || c.want == nil && !errors.As(f.Err, &status) || c.want != nil && !errors.Is(f.Err, c.want) {
			t.Errorf("%s: %d done, %v", name, f.Done, f.Err)
		}
	}
}
