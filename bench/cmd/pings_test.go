package main

import (
	"strings"
	"testing"
	"time"

	"ticketgate/bench"
)

// pingerOf is a server of 1,000 sockets that takes rest ms in each of two rounds of 25 s, and so many µs more for each ping, of which the
// second round has one socket in three twice.
func pingerOf(name string, rest [2]int, each ...int) pinger {
	s := pinger{name: name}
	for i, us := range each {
		n, idle := []int{1000, 1333}[i], time.Duration(rest[i])*time.Millisecond
		s.without = append(s.without, watched{cpu: idle, took: 25 * time.Second})
		s.with = append(s.with, watched{idle + time.Duration(n*us)*time.Microsecond, 25 * time.Second, n})
	}
	return s
}

// Pings are told apart from what the server does anyway, each round from the one without pings that belongs to it, and compared round by
// round, whatever number of them a round has.
func TestPingsSection(t *testing.T) {
	p := (options{}).pingPlan()
	p.sockets = 1000
	s := pingsSection(p, pingerOf(ours, [2]int{20, 30}, 10, 12), pingerOf("epollaccept", [2]int{1, 1}, 20, 20))
	near := func(name string, want bench.Spread) {
		got, ok := s.ratios[name]
		for _, d := range []float64{got.Median - want.Median, got.Min - want.Min, got.Max - want.Max} {
			if !ok || d > 0.001 || d < -0.001 {
				t.Errorf("%s: %v, want %v", name, got, want)
				return
			}
		}
	}
	near("Pings: CPU of a ping against epollaccept", bench.Spread{Median: 0.55, Min: 0.5, Max: 0.6})
	// 0.8 and 1.2 µs a socket and second without pings, 0.4 and 0.48 more with those of ours; 0.04 and 0.8 of epollaccept.
	near("Pings, with all that idle servers do: CPU against epollaccept", bench.Spread{Median: (1.2/0.84 + 2) / 2, Min: 1.2 / 0.84, Max: 2})
	for name := range s.ratios {
		if got := scenariosOf([]string{name}); got != "pings" {
			t.Errorf("bench-check takes %q for a ratio of %q", name, got)
		}
	}
	if want := "0.440 µs, 0.55 (0.50-0.60) times epollaccept's 0.800 µs; with all that the idle server does anyway 1.440 µs"; s.goals[0][2] != want {
		t.Errorf("%q, want %q", s.goals[0][2], want)
	}
	if want := "ticketgate|25s|50s|2,333|76.0|1.520"; strings.Join(s.tables[0].Rows[0], "|") != want || len(s.tables[0].Rows) != 4 || len(s.tables[0].Rows[0]) != len(s.tables[0].Head) {
		t.Errorf("%q, want %q", s.tables[0].Rows, want)
	}
}

// A ping that cost nothing was not seen: there is no figure to compare.
func TestPingsLost(t *testing.T) {
	s := pingsSection((options{}).pingPlan(), pingerOf(ours, [2]int{20, 30}, 10, 0), pingerOf("epollaccept", [2]int{1, 1}, 20, 20))
	if len(s.ratios) > 0 || !strings.Contains(s.goals[0][2], "repeat on a quiet machine") {
		t.Errorf("%v, %q", s.ratios, s.goals)
	}
}

// A round in which some sockets were not pinged is no measure of pings, nor is one without pings that had some.
func TestPinged(t *testing.T) {
	p := pingPlan{sockets: 1000, every: productPing}
	s := pingerOf(ours, [2]int{20, 30}, 10, 10)
	if err := s.pinged(p); err != nil {
		t.Error(err)
	}
	s.with[1].pings = 949
	if err := s.pinged(p); err == nil || !strings.Contains(err.Error(), "949") {
		t.Error(err)
	}
	s.with[1].pings, s.without[1].pings = 950, 1
	if err := s.pinged(p); err == nil {
		t.Error("a ping where there are none")
	}
}
