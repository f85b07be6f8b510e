package main

import (
	"slices"
	"strings"
	"testing"
)

func TestCells(t *testing.T) {
	o := options{sizes: numbers{32, 16384}}
	if got, want := o.cells(100), []cell{{100, 32, 1}, {100, 32, 16}, {100, 16384, 1}, {100, 16384, 16}}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got, want := o.cells(10000), []cell{{10000, 32, 1}, {10000, 32, 16}, {10000, 16384, 1}}; !slices.Equal(got, want) {
		t.Errorf("2.4 GiB in flight: %v", got)
	}
	all := &matrix{cells: o.cells(100)}
	o.sockets = numbers{100}
	if said := all.leftOut(o); said != "" {
		t.Errorf("nothing is left out, and it says %q", said)
	}
	if o.sockets = append(o.sockets, 10000); all.leftOut(o) == "" {
		t.Error("does not say that cells are left out")
	}
}

// sampled is a matrix of one size whose loads took so many µs a message.
func sampled(payload int, one, sixteen [2]float64) *matrix {
	m := &matrix{cells: []cell{{100, payload, 1}, {100, payload, 16}}}
	for _, cpus := range [][2]float64{one, sixteen} {
		m.loads = append(m.loads, []*load{
			{name: "ticketgate", rounds: []sample{{rate: 100, cpu: cpus[0]}}},
			{name: "bare", rounds: []sample{{rate: 200, cpu: cpus[1]}}},
		})
	}
	return m
}

func TestSection(t *testing.T) {
	s := sampled(1024, [2]float64{10.5, 10}, [2]float64{1.2, 1}).section("Echo", "About.")
	if len(s.tables) != 2 || len(s.tables[1].Rows) != 4 {
		t.Fatalf("%d tables", len(s.tables))
	}
	short := s.tables[0]
	for i, want := range []string{
		"100|1,024|1|10.5|10.0|1.05 (1.05-1.05)|0.50 (0.50-0.50)||",
		"100|1,024|16|1.20|1.00|1.20 (1.20-1.20)|0.50 (0.50-0.50)|8.75 times|10.0 times",
	} {
		if got := strings.Join(short.Rows[i], "|"); got != want || len(short.Rows[i]) != len(short.Head) {
			t.Errorf("row %d: %s, want %s", i, got, want)
		}
	}
	var goals []string
	for _, g := range s.goals {
		goals = append(goals, strings.Join(g, "|"))
	}
	want := []string{
		"Echo: server CPU per message against bare|at most 1.10|1.20 (1.20-1.20) at worst (100 sockets, 1024 B, 16 a write)",
		"Echo: a message, 16 in one read against one by one|10 times cheaper|8.75 times at least (100 sockets, 1024 B, 16 a write; bare: 10.0)",
	}
	if !slices.Equal(goals, want) {
		t.Errorf("%q", goals)
	}
	// 16 of these do not fit into one read: there is nothing to be said of one read.
	if s := sampled(16384, [2]float64{14, 13}, [2]float64{7, 6}).section("Echo", ""); len(s.goals) != 2 || s.tables[0].Rows[1][7] != "2.00 times" ||
		!strings.HasPrefix(s.goals[1][2], "1.17 ") {
		t.Errorf("%q, %q", s.goals, s.tables[0].Rows)
	}
}
