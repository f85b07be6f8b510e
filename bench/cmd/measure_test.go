package main

import (
	"errors"
	"os"
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

// A server of two processes takes what both take.
func TestAlso(t *testing.T) {
	r := &runner{ctx: t.Context()}
	loop, err := r.loop()
	if err != nil {
		t.Fatal(err)
	}
	own := bench.Process{PID: os.Getpid()}
	l := &load{loop: loop, server: own, done: func() uint64 { return 0 }}
	one, err := l.read()
	if err != nil {
		t.Fatal(err)
	}
	l.also = &own
	two, err := l.read()
	if err := errors.Join(err, r.end()); err != nil || two.server.Total() < 2*one.server.Total() || two.server.User < 2*one.server.User {
		t.Errorf("one %v, two %v, %v", one.server, two.server, err)
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

// Around every round stands what belongs to it, and a round whose setting fails is not run.
func TestCompare(t *testing.T) {
	var did []string
	note := func(what string, err error) func() error {
		return func() error { did = append(did, what); return err }
	}
	loads := []*load{{name: "a", prepare: note("prepare", nil), after: note("after", nil)}, {name: "b"}}
	r := &runner{rounds: 2}
	round := func(l *load) error { did = append(did, l.name); return nil }
	if err := r.compare(round, loads...); err != nil || strings.Join(did, " ") != "prepare a after b prepare a after b" {
		t.Errorf("%v, %v", did, err)
	}
	did = nil
	loads[1].prepare = note("fails", errors.New("no"))
	if err := r.compare(round, loads...); err == nil || strings.Join(did, " ") != "prepare a after fails" {
		t.Errorf("%v, %v", did, err)
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct{ text, want string }{{"1", "1"}, {"100,1000", "100,1000"}, {"", ""}, {"1,", ""}, {"0", ""}, {"-1", ""}, {"1k", ""}} {
		var n numbers
		err := n.Set(c.text)
		if n.String() != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q: %s, %v", c.text, &n, err)
		}
	}
	kept := numbers{5}
	if err := kept.Set("x"); err == nil || kept.String() != "5" {
		t.Errorf("a wrong value changed it to %s, %v", &kept, err)
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		o       options
		sockets string
		files   int // the largest process's, and what it leaves unused
	}{
		{options{}, "100,1000,10000", 16888},
		{options{short: true}, "100,1000", 3200 + filesBeside},
		{options{short: true, sockets: numbers{27000}}, "27000", 30000},
	} {
		c.o.complete()
		if c.o.sockets.String() != c.sockets || c.o.filesNeeded() != c.files {
			t.Errorf("%+v: %s sockets, %d files, want %s, %d", c.o, &c.o.sockets, c.o.filesNeeded(), c.sockets, c.files)
		}
	}
}

func TestSocketsMax(t *testing.T) {
	for files, want := range map[int]int{20000: 17900, 1 << 20: 943600} {
		if got := (&runner{files: files}).socketsMax(); got != want || got > (files-64)*9/10 {
			t.Errorf("%d descriptors: %d sockets, want %d", files, got, want)
		}
	}
}

// What measures less than a whole run does not write over what one has written, unless it is told where.
func TestAllowed(t *testing.T) {
	for _, c := range []struct {
		o    options
		want string // the flags that it names; "": nothing is wrong
	}{
		{options{}, ""},
		{options{peers: true}, ""},
		{options{short: true}, "-short: "},
		{options{only: "client"}, "-only: "},
		{options{peers: true, only: "idle"}, "-only: "},
		{options{peers: true, short: true, only: "idle", against: "gws"}, "-short, -only, -against: "},
		{options{programs: "bin/idle"}, ""}, // it measures idle sockets, which are all of that part
		{options{programs: "bin/idle", short: true}, "-short: "},
		{options{check: true, only: "gate"}, ""}, // these write no RESULTS.md
		{options{million: 600, short: true}, ""},
		{options{peers: true, against: "gws", out: "-"}, ""},
		{options{short: true, out: "bench/RESULTS.md"}, ""},
	} {
		err := c.o.allowed()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want) || !strings.Contains(err.Error(), "add -out - ")) {
			t.Errorf("%+v: %v", c.o, err)
		}
	}
}

// The command refuses what is not allowed before it does anything, whatever it is to do.
func TestRefuses(t *testing.T) {
	for want, args := range map[string]string{
		"bench: -short: ":                       "-short",
		"bench: -only, -against: ":              "-peers -only idle -against gws",
		"bench: -against: only with -peers, ":   "-million 600 -against gws",
		`bench: -against: no server "apache": `: "-peers -against apache -out -",
	} {
		out, err := benchCmd(t.Context(), strings.Fields(args)...)
		if err == nil || out != "" || !strings.Contains(err.Error(), "exit status 1: "+want) {
			t.Errorf("%s: %q, %v", args, out, err)
		}
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
