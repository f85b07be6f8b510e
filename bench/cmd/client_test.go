package main

import (
	"errors"
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
	for _, bad := range []string{"", "x"} {
		if _, err := parseBareClient([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
	for _, bad := range []string{"{}", `{"cpu_ns":500000,"messages":0,"seconds":0.5}`, `{"cpu_ns":0,"messages":100,"seconds":0.5}`, `{"cpu_ns":-1,"messages":100,"seconds":0.5}`,
		`{"messages":100,"seconds":0.5}`, `{"cpu_ns":500000,"messages":100}`, `{"cpu_ns":500000,"messages":100,"seconds":-0.5}`} {
		if one, err := parseBareClient([]byte(bad)); !errors.Is(err, errUnmeasured) {
			t.Errorf("%s: %+v, %v", bad, one, err)
		}
	}
}

// What was not measured is 0, and as a figure it would meet every goal.
func TestUnmeasured(t *testing.T) {
	result := func(change func(*loadtool.Result)) *loadtool.Result {
		r := new(loadtool.Result)
		r.Run.Done, r.Run.Took, r.Client.CPU, r.Client.PerSocket = 100, 500*time.Millisecond, 500*time.Microsecond, 590
		change(r)
		return r
	}
	whole := result(func(*loadtool.Result) {})
	if got, err := clientRoundOf(whole); err != nil || got != (clientRound{100, 500 * time.Microsecond, 500 * time.Millisecond}) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := perSocketOf(whole); err != nil || got != 590 {
		t.Errorf("%v, %v", got, err)
	}
	for name, spoil := range map[string]func(*loadtool.Result){
		"no messages":       func(r *loadtool.Result) { r.Run.Done = 0 },
		"no processor time": func(r *loadtool.Result) { r.Client.CPU = 0 },
		"less than none":    func(r *loadtool.Result) { r.Client.CPU = -1 },
		"no time":           func(r *loadtool.Result) { r.Run.Took = 0 },
	} {
		if got, err := clientRoundOf(result(spoil)); !errors.Is(err, errUnmeasured) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, each := range []float64{0, -10} {
		if got, err := perSocketOf(result(func(r *loadtool.Result) { r.Client.PerSocket = each })); !errors.Is(err, errUnmeasured) {
			t.Errorf("%v B a socket: %v, %v", each, got, err)
		}
	}
}

// Clients are compared round by round, and the worst load is what is told; a record has less for what is better.
func TestClientSection(t *testing.T) {
	cells := options{}.clientCells()
	ours, bare := make([][]clientRound, len(cells)), make([][]clientRound, len(cells))
	for i := range cells {
		for _, slow := range []int{1, 2} { // a slow round meets both
			ours[i] = append(ours[i], clientRound{1000, time.Duration(10*slow) * time.Millisecond, time.Second})
			bare[i] = append(bare[i], clientRound{1000, time.Duration(12*slow) * time.Millisecond, time.Second})
		}
	}
	ours[2][0].cpu *= 2
	ours[2][1].cpu *= 2
	ours[7][0].cpu *= 3
	ours[7][1].cpu *= 3
	s := clientSection(cells, ours, bare)
	if got := strings.Join(s.goals[0], "|"); got != "Load tool: messages a second of a core, against epollclient|at least 1.00 times|0.60 (0.60-0.60) at worst (100 sockets, 1024 B, 1 in flight); with a core to itself 0.40 (0.40-0.40) (100 sockets, 1024 B, 16 in flight)" {
		t.Error(got)
	}
	if got := s.ratios["Client, 100 sockets, 32 B, 1 in flight: CPU against epollclient"]; got.Median < 0.83 || got.Median > 0.84 {
		t.Errorf("%v of %v", got, s.ratios)
	}
	if got := s.most["Client, 100 sockets, 32 B, 1 in flight: CPU against epollclient"]; got != 1 {
		t.Errorf("at most %v times epollclient's processor time is wanted", got)
	}
	if len(s.ratios) != 4 { // of the core that is shared: the others are no measure of the client alone
		t.Errorf("recorded: %v", s.ratios)
	}
	half := options{check: true}.clientCells()
	if one := clientSection(half, ours[:len(half)], bare[:len(half)]); len(half) != 4 || len(one.ratios) != 4 || !strings.HasSuffix(one.goals[0][2], "at worst (100 sockets, 1024 B, 1 in flight)") {
		t.Errorf("%v, %v", half, one.goals)
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
