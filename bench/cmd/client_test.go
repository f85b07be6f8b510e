package main

import (
	"strings"
	"testing"
	"time"

	"ticketgate/bench"
	loadtool "ticketgate/bench/load"
)

func TestParseBareClient(t *testing.T) {
	got, err := parseBareClient([]byte(`{"cpu_ns":500000,"messages":100,"seconds":0.5}` + "\n"))
	if want := (clientRound{100, 500 * time.Microsecond, 500 * time.Millisecond}); err != nil || got != want || got.perMessage() != 5 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "x", `{"cpu_ns":500000,"messages":0,"seconds":0.5}`} {
		if _, err := parseBareClient([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// Clients are compared round by round, and the worst load is what is told; a record has less for what is better.
func TestClientSection(t *testing.T) {
	ours, bare := make([][]clientRound, len(clientCells)), make([][]clientRound, len(clientCells))
	for i := range clientCells {
		for _, slow := range []int{1, 2} { // a slow round meets both
			ours[i] = append(ours[i], clientRound{1000, time.Duration(10*slow) * time.Millisecond, time.Second})
			bare[i] = append(bare[i], clientRound{1000, time.Duration(12*slow) * time.Millisecond, time.Second})
		}
	}
	ours[2][0].cpu *= 2
	ours[2][1].cpu *= 2
	s := clientSection(ours, bare)
	if got := strings.Join(s.goals[0], "|"); got != "Load tool: messages a second of a core, against epollclient|at least 1.00 times|0.60 (0.60-0.60) at worst (100 sockets, 1024 B, 1 in flight)" {
		t.Error(got)
	}
	if got := s.ratios["Client, 100 sockets, 32 B, 1 in flight: CPU against epollclient"]; got.Median < 0.83 || got.Median > 0.84 {
		t.Errorf("%v of %v", got, s.ratios)
	}
	if got := s.most["Client, 100 sockets, 32 B, 1 in flight: CPU against epollclient"]; got != 1 {
		t.Errorf("at most %v times epollclient's processor time is wanted", got)
	}
	s.clientIdle(15000, bench.SpreadOf([]float64{590, 610, 620}))
	if got := strings.Join(s.goals[1], "|"); got != "Load tool: an idle socket, user space|at most 600 B|610 (590-620) B" || s.most["Client, idle: bytes a socket"] != 600 {
		t.Errorf("%s, at most %v", got, s.most)
	}
	if got := scenariosOf([]string{"Client, idle: bytes a socket"}); got != "client" {
		t.Errorf("bench-check takes it for a ratio of %q", got)
	}
	for _, row := range s.tables[0].Rows {
		if len(row) != len(s.tables[0].Head) {
			t.Errorf("%d columns under %d", len(row), len(s.tables[0].Head))
		}
	}
}

// A run whose process died, or whose sockets did not come, is no figure.
func TestSound(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*loadtool.Result)
		is     bool
	}{
		{"all", func(*loadtool.Result) {}, true},
		{"slow client", func(r *loadtool.Result) { r.Verdict = loadtool.Invalid }, true},
		{"failed", func(r *loadtool.Result) { r.Verdict = loadtool.Fail }, false},
		{"process lost", func(r *loadtool.Result) {
			r.Verdict, r.Broken = loadtool.Invalid, []string{"worker 0 ended before its time"}
		}, false},
		{"fewer", func(r *loadtool.Result) { r.Opening.Opened = 9 }, false},
		{"errors", func(r *loadtool.Result) { r.Run.Errors = map[string]uint64{"reset": 1} }, false},
	} {
		r := &loadtool.Result{Verdict: loadtool.Done, Opening: loadtool.Opening{Opened: 10}}
		c.change(r)
		if err := sound(r, 10); (err == nil) != c.is {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
