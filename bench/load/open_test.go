package load

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"ticketgate/bench"
)

// A gate without an address is asked for once a minute, not with every ticket. Nobody is late for the resolver. A gate that has one is
// told at once.
func TestUnknownGate(t *testing.T) {
	now := time.Hour
	w := newWorker(t, func() time.Duration { return now })
	var told bytes.Buffer
	w.out, w.waits.limit = json.NewEncoder(&told), time.Second
	var step wait
	const slow = 3 * time.Second // the resolver
	asked := 0
	nobody := &net.DNSError{Err: "no such host", Name: "gate"}
	o := &opener{queue: queue{w: w}, unknown: make(map[string]unknown), resolve: func(string, string) (string, error) {
		now += slow
		if asked++; asked < 3 {
			return "", nobody
		}
		return "127.0.0.1:80", nil
	}}
	for _, c := range []struct {
		after time.Duration
		asked int
		err   error
	}{{0, 1, nobody}, {0, 1, nobody}, {unknownFor - 1, 1, nobody}, {1, 2, nobody}, {unknownFor, 3, nil}, {unknownFor, 3, nil}} {
		now += c.after
		w.waits.begin(&step, now)
		to, err := o.target([]byte("gate:80"))
		if asked != c.asked || !errors.Is(err, c.err) || (to == nil) != (c.err != nil) {
			t.Errorf("after %v: asked %d times, want %d; %v", c.after, asked, c.asked, err)
		}
		if left := step.at - now; left != time.Second {
			t.Errorf("after %v: %v are left of a second", c.after, left)
		}
		step.end()
	}
	if n := strings.Count(told.String(), "\n"); n != 1 || !strings.Contains(told.String(), `"gates":["127.0.0.1:80"]`) {
		t.Errorf("%d reports: %s", n, told.String())
	}
}

// The first error of a class is an example, reported once.
func TestExamples(t *testing.T) {
	w := newWorker(t, nil)
	for _, err := range []error{errSecure, &net.DNSError{Err: "first", Name: "gate"}, &net.DNSError{Err: "second", Name: "gate"}} {
		w.fail(w.class(err), 1)
	}
	if len(w.examples) != 2 || w.examples["tls"] != errSecure.Error() || w.examples["dns"] != "lookup gate: first" || w.errors["dns"] != 2 {
		t.Errorf("%q, %v", w.examples, w.errors)
	}
	var r Result
	r.learn(w.examples)
	r.learn(map[string]string{"dns": "of another worker", "other": "x"})
	if len(r.Examples) != 3 || r.Examples["dns"] != "lookup gate: first" {
		t.Errorf("%q", r.Examples)
	}
}

// Without tickets the time of opening a socket counts from when it was due: a wait for a lane shows nowhere else.
func TestOpenFromDue(t *testing.T) {
	for _, c := range []struct {
		api  *bench.Target
		want time.Duration
	}{{nil, 9 * time.Second}, {new(bench.Target), 4 * time.Second}} {
		w := newWorker(t, func() time.Duration { return 10 * time.Second })
		o := &opener{queue: queue{w: w}, api: c.api, next: func() bench.Handler { return &quiet{w: w} }}
		(&lane{o: o, due: time.Second, dialed: 6 * time.Second}).Opened(new(bench.Conn))
		if got := time.Duration(w.hists.of(histOpen).Max()).Round(100 * time.Millisecond); got != c.want {
			t.Errorf("tickets %t: %v, want %v", c.api != nil, got, c.want)
		}
	}
}
