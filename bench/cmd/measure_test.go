package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"ticketgate/bench"
)

func TestBetween(t *testing.T) {
	l := &load{name: "x", latency: new(bench.Hist)}
	ms := time.Millisecond
	a := reading{at: 100 * ms, done: 50, server: bench.CPU{User: 10 * ms, System: 20 * ms}, waited: 7 * ms}
	b := reading{
		at: 1100 * ms, done: 1050, server: bench.CPU{User: 110 * ms, System: 420 * ms}, client: bench.CPU{User: 300 * ms, System: 400 * ms},
		helper: bench.CPU{User: 50 * ms}, waited: 207 * ms,
	}
	got, err := l.between(a, b)
	want := sample{rate: 1000, cpu: 500, user: 100, helper: 50, serverShare: 0.5, clientShare: 0.7, clientWanted: 0.9}
	if got != want || err != nil {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if _, err := l.between(a, reading{at: b.at, done: a.done}); err == nil {
		t.Error("a round without an operation has a rate")
	}
}

func TestClientBound(t *testing.T) {
	for _, c := range []struct {
		wanted []float64
		want   string
	}{{[]float64{0.5, 0.95, 0.6}, ""}, {[]float64{0.91, 0.3, 0.9}, "client-bound"}} {
		l := &load{}
		for _, w := range c.wanted {
			l.rounds = append(l.rounds, sample{clientWanted: w})
		}
		row := l.row()
		if len(row) != len(head("message")) || row[len(row)-1] != c.want {
			t.Errorf("%v: %q", c.wanted, row)
		}
	}
}

// Rounds are compared one by one: a slow moment that met both servers leaves the ratio as it is.
func TestRatio(t *testing.T) {
	ours := &load{name: "a", rounds: []sample{{rate: 50, cpu: 30}, {rate: 5, cpu: 60}, {rate: 60, cpu: 30}}}
	bare := &load{name: "b", rounds: []sample{{rate: 100, cpu: 10}, {rate: 10, cpu: 20}, {rate: 100, cpu: 10}}}
	want := "a against b: 0.50 (0.50-0.60) times the rate, 3.00 (3.00-3.00) times the server CPU per operation."
	if got := ratio(ours, bare); got != want {
		t.Errorf("%q", got)
	}
}

func TestChosen(t *testing.T) {
	if some, err := (options{only: "tickets,idle"}).chosen(); err != nil || len(some) != 2 || some[0].name != "tickets" || some[1].name != "idle" {
		t.Errorf("%v, %v", some, err)
	}
	if all, err := (options{}).chosen(); err != nil || len(all) != len(scenarios) {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := (options{only: "idle,eco"}).chosen(); err == nil || !strings.Contains(err.Error(), `"eco"`) {
		t.Errorf("%v", err)
	}
}

// What a scenario has opened and started is gone after it, whether it failed or not, and stopping twice is harmless.
func TestRunnerEnds(t *testing.T) {
	r := &runner{ctx: t.Context(), dir: t.TempDir()}
	if _, err := r.loop(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.end(), r.end()); err != nil || r.loops != nil || r.children != nil {
		t.Errorf("%v, %d loops, %d children", err, len(r.loops), len(r.children))
	}
}
