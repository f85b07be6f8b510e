package main

import (
	"strings"
	"testing"
	"time"

	"ticketgate/bench"
)

// pingerOf is a server of 1,000 sockets that takes 1 ms a second without pings, and so many µs for each of them, over two rounds of 25 s
// of which the second has one socket in three twice.
func pingerOf(name string, each ...int) pinger {
	ms := time.Millisecond
	s := pinger{name: name, without: []watched{{cpu: 20 * ms, took: 25 * time.Second}, {cpu: 30 * ms, took: 25 * time.Second}}}
	for i, us := range each {
		n := []int{1000, 1333}[i]
		s.with = append(s.with, watched{25*ms + time.Duration(n*us)*time.Microsecond, 25 * time.Second, n})
	}
	return s
}

// Pings are told apart from what the server does anyway, and compared round by round, whatever number of them a round has.
func TestPingsSection(t *testing.T) {
	p := (options{}).pingPlan()
	p.sockets = 1000
	s := pingsSection(p, pingerOf(ours, 10, 12), pingerOf("epollaccept", 20, 20))
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
	// 1 µs a socket and second without pings; 0.4 and 0.48 more with those of ours, and 0.8 the others' alone.
	near("Pings, with all that an idle gateway does: CPU against the pings of epollaccept", bench.Spread{Median: 1.8, Min: 1.4 / 0.8, Max: 1.48 / 0.8})
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
	s := pingsSection((options{}).pingPlan(), pingerOf(ours, 10, 0), pingerOf("epollaccept", 20, 20))
	if len(s.ratios) > 0 || !strings.Contains(s.goals[0][2], "repeat on a quiet machine") {
		t.Errorf("%v, %q", s.ratios, s.goals)
	}
}

// A round in which some sockets were not pinged is no measure of pings, nor is one without pings that had some.
func TestPinged(t *testing.T) {
	p := pingPlan{sockets: 1000, every: productPing}
	s := pingerOf(ours, 10, 10)
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
