package load

import (
	"errors"
	"net"
	"testing"
	"time"
)

// A gate without an address is asked for once a minute, not with every ticket.
func TestUnknownGate(t *testing.T) {
	now := time.Hour
	w := newWorker(t, func() time.Duration { return now })
	asked := 0
	nobody := &net.DNSError{Err: "no such host", Name: "gate"}
	o := &opener{queue: queue{w: w}, unknown: make(map[string]unknown), resolve: func(string, string) (string, error) {
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
		to, err := o.target([]byte("gate:80"))
		if asked != c.asked || !errors.Is(err, c.err) || (to == nil) != (c.err != nil) {
			t.Errorf("after %v: asked %d times, want %d; %v", c.after, asked, c.asked, err)
		}
	}
	if len(w.gates) != 1 || w.gates[0] != "127.0.0.1:80" {
		t.Errorf("gates %q", w.gates)
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
