package main

import (
	"strings"
	"testing"
	"time"

	"ticketgate/bench"
)

func TestDurability(t *testing.T) {
	for d, want := range map[durability]string{{0, 0}: "no replica", {1, 0}: "1 replica, nobody waits", {2, 1}: "2 replicas, 1 waited for"} {
		if got := d.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, d := range durabilities {
		if d.replicas > replicasMost || d.waits > d.replicas {
			t.Errorf("%s: it would wait for ever", d)
		}
	}
	if durabilities[0] != (durability{}) {
		t.Errorf("compared with %s", durabilities[0])
	}
}

func TestReplicasSection(t *testing.T) {
	made := func(d durability, p50 time.Duration) *durable {
		one := &durable{d: d, seen: make([]costs, len(durableCalls))}
		for k := range one.seen {
			for i := range 2 {
				one.seen[k] = append(one.seen[k], cost{redis: float64(10 * (i + 1)), median: p50 * time.Duration(k+1), ninetyNine: 2 * p50})
			}
		}
		return one
	}
	s := replicasSection(100, []*durable{made(durability{}, 100*time.Microsecond), made(durability{1, 0}, 120*time.Microsecond), made(durability{1, 1}, 250*time.Microsecond)})
	near(t, s, "Replicas: p50 of a renewal, 1 replica, 1 waited for, against none", bench.Spread{Median: 2.5, Min: 2.5, Max: 2.5})
	if len(s.ratios) != len(durableCalls) || len(s.tables[0].Rows) != 9 {
		t.Errorf("%v, %q", s.ratios, s.tables[0].Rows)
	}
	for name := range s.ratios {
		if got := scenariosOf([]string{name}); got != "replicas" {
			t.Errorf("%q is taken for a ratio of %q", name, got)
		}
	}
	if want := "renewal|1 replica, nobody waits|120 (120-120) µs|240 µs|15.0 (10.0-20.0)|1.20 (1.20-1.20)|1.00 (1.00-1.00)"; strings.Join(s.tables[0].Rows[1], "|") != want {
		t.Errorf("%q", s.tables[0].Rows[1])
	}
}

// The whole with real replicas: every call that has to be is waited for, or it fails.
func TestReplicas(t *testing.T) {
	apart(t)
	r, err := newRunner(t.Context(), options{short: true, each: 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}()
	r.rounds = 1
	s, err := replicas(r)
	if err != nil {
		t.Fatal(err)
	}
	if rows := s.tables[0].Rows; len(rows) != len(durableCalls)*len(durabilities) {
		t.Errorf("%q", rows)
	}
}
