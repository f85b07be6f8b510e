package main

import (
	"testing"
	"time"
)

// TestStalls: only what lies between two moments counts, and what was hardly late does not.
func TestStalls(t *testing.T) {
	zero := time.Unix(1e9, 0)
	at := func(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }
	var s stalls
	s.saw(at(100), at(130))
	s.saw(at(1000), at(1500))
	s.saw(at(3000), at(5000))
	for _, c := range []struct{ from, to, want int }{
		{0, 900, 0}, {0, 1200, 200}, {1200, 1300, 100}, {1200, 4000, 1300}, {0, 9000, 2500}, {5000, 9000, 0},
	} {
		if got := s.within(at(c.from), at(c.to)); got != time.Duration(c.want)*time.Millisecond {
			t.Errorf("%d to %d ms: %v, want %d ms", c.from, c.to, got, c.want)
		}
	}
	if s.longest() != 2*time.Second {
		t.Error(s.longest())
	}
}
