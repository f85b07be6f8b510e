package main

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"ticketgate/bench"
	"ticketgate/limiter"
)

// Every client is in every table once, and each check is of the client whose turn it is.
func TestPopulation(t *testing.T) {
	const n = 500
	p, err := populate(n)
	if err != nil {
		t.Fatal(err)
	}
	if subjects, sockets := p.count.Total(); subjects != n || sockets != n {
		t.Errorf("%d clients counted, with %d sockets", subjects, sockets)
	}
	var held, kept limiter.TableStats
	p.held.Stats(&held)
	p.kept.Stats(&kept)
	if held.Held != n || kept.Kept != n || kept.Held != 0 {
		t.Errorf("%+v, %+v", held, kept)
	}
	seen := make([]bool, n)
	for _, i := range p.at {
		if seen[i] {
			t.Fatalf("row %d is named twice", i)
		}
		seen[i] = true
	}
	for _, c := range scaleChecks {
		for i := range 10 {
			if !c.do(p, i) {
				t.Errorf("%s: not done", c.name)
			}
		}
	}
	if subjects, sockets := p.count.Total(); subjects != n || sockets != n {
		t.Errorf("after checks %d clients counted, with %d sockets", subjects, sockets)
	}
	if p.rows[p.at[p.random(3)]].word.Load() == 0 {
		t.Error("the bare array was not touched")
	}
	runtime.KeepAlive(p)
}

// Checks do not allocate: what they cost is what the gateway's loops pay.
func TestScaledChecks(t *testing.T) {
	p, err := populate(50)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range scaleChecks {
		if n := testing.AllocsPerRun(100, func() { c.do(p, 7) }); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
	q, err := populate(100)
	if err != nil {
		t.Fatal(err)
	}
	took, err := scaledChecks([]*population{p, q}, 2, 3000)
	if err != nil || len(took) != len(scaleChecks) {
		t.Fatalf("%v, %v", took, err)
	}
	for k := range took {
		if len(took[k]) != 2 || len(took[k][0]) != 2 || len(took[k][1]) != 2 || took[k][0][0] <= 0 {
			t.Errorf("%s: %v", scaleChecks[k].name, took[k])
		}
	}
	p.held, p.refs = limiter.NewTable(50, tableSeed, nil), make([]limiter.Ref, 50)
	for i := range p.refs {
		p.refs[i], _ = p.held.Hold(uint64(i))
		p.held.At(p.refs[i]).Store(1 << 62) // nothing to be taken
	}
	if _, err := scaledChecks([]*population{p}, 1, 10); !errors.Is(err, errUnmeasured) {
		t.Errorf("checks that refuse are measured: %v", err)
	}
}

func TestScaledSection(t *testing.T) {
	s := new(section)
	s.scaledChecks(1000, []int{100, 10_000}, [][][]float64{{{10, 20}, {30, 60}}, {{100, 100}, {200, 400}}, {{20, 20}, {40, 60}}, {{50, 50}, {50, 50}}})
	near(t, s, "Scale: count check, 10,000 clients against 100", bench.Spread{Median: 3, Min: 2, Max: 4})
	near(t, s, "Scale: count check, 10,000 clients, against a bare array", bench.Spread{Median: 6.666667, Min: 6.666667, Max: 6.666667})
	near(t, s, "Scale: bucket check, new socket, 10,000 clients against 100", bench.Spread{Median: 1, Min: 1, Max: 1})
	if want := "count: a socket more and one less (Count)|100|300 (3.00 times)"; strings.Join(s.tables[0].Rows[1], "|") != want {
		t.Errorf("%q", s.tables[0].Rows[1])
	}
	if want := "3.00 (2.00-4.00) times; a bare array 3.00 (3.00-3.00) times"; s.goals[0][2] != want {
		t.Errorf("%q, want %q", s.goals[0][2], want)
	}
	one, two := twoCosts(1, 20, 9, 0), twoCosts(1, 30, 9, 0)
	s.scaledRedis(1000, []*filled{{n: 100, ticket: 500, slot: 160, issues: one, redeem: two}, {n: 10_000, ticket: 520, slot: 170, issues: two, redeem: one}})
	near(t, s, "Scale: Redis CPU of an issue, 10,000 clients against 100", bench.Spread{Median: 1.5, Min: 1.5, Max: 1.5})
	if want := "520 B an outstanding ticket, 170 B a held slot"; s.goals[len(s.goals)-1][2] != want {
		t.Errorf("%q, want %q", s.goals[len(s.goals)-1][2], want)
	}
	for name := range s.ratios {
		if got := scenariosOf([]string{name}); got != "scale" {
			t.Errorf("%q is taken for a ratio of %q", name, got)
		}
	}
}

// What is resident is seen, whether it lies on the heap or not.
func TestFootprints(t *testing.T) {
	const n = 1 << 16
	var keep []any
	for name, c := range map[string]struct {
		fill      func(n int) (any, error)
		all, heap float64
	}{
		"heap":    {func(n int) (any, error) { return touched(make([]byte, 64*n)), nil }, 64, 64},
		"outside": {tables[1].fill, 36, 0},
	} {
		resident, heap, err := footprints(tabled{name, c.fill}, n, 3, &keep)
		if err != nil {
			t.Fatal(err)
		}
		if got := bench.SpreadOf(resident).Median; got < c.all-12 { // the race detector takes several times as much
			t.Errorf("%s: %v bytes resident, want %v or more", name, got, c.all)
		}
		if got := bench.SpreadOf(heap).Median; len(heap) != 3 || name == "heap" && (got < c.heap-2 || got > c.heap+8) {
			t.Errorf("%s: %v bytes of heap, want about %v", name, got, c.heap)
		}
	}
	if len(keep) != 6 {
		t.Errorf("%d tables kept", len(keep))
	}
	runtime.KeepAlive(keep)
	if _, _, err := footprints(tabled{"none", func(int) (any, error) { return nil, errUnmeasured }}, n, 1, &keep); !errors.Is(err, errUnmeasured) {
		t.Errorf("%v", err)
	}
}

func touched(b []byte) *[]byte {
	for i := range b {
		b[i] = 1
	}
	return &b
}

// Every table is filled with as many as it says.
func TestTables(t *testing.T) {
	for _, one := range tables {
		if made, err := one.fill(300); err != nil || made == nil {
			t.Errorf("%s: %v", one.name, err)
		}
	}
}

// The whole on small numbers, with real servers.
func TestScale(t *testing.T) {
	apart(t)
	r, err := newRunner(t.Context(), options{short: true, each: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := r.buildGateway(""); err != nil {
		t.Fatal(err)
	}
	r.rounds = 1
	s, err := scale(r)
	if err != nil {
		t.Fatal(err)
	}
	memory, checks, redis := s.tables[0], s.tables[1], s.tables[2]
	if len(memory.Rows) != len(tables)+2 || len(checks.Rows) != len(scaleChecks) || len(redis.Rows) != 2 {
		t.Errorf("%q\n%q\n%q", memory.Rows, checks.Rows, redis.Rows)
	}
	for _, row := range redis.Rows { // a ticket is three names and a grant of 100 bytes, a slot one name
		for _, cell := range row[1:3] {
			if len(cell) != 3 { // 100 to 999 bytes
				t.Errorf("%q", row)
			}
		}
	}
}
