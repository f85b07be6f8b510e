package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ticketgate/bench"
)

func TestParseCalls(t *testing.T) {
	got, err := parseCalls(`goos: linux
pkg: ticketgate/engine
cpu: some
BenchmarkEcho/32B-2   	    2000	       500.0 ns/op	  64.00 MB/s	        31.0 ns/message	       0 B/op	       0 allocs/op
BenchmarkNoNumbers-2  	    2000	       500.0 ns/op
PASS
ok  	ticketgate/engine	0.3s
pkg: ticketgate/store/redis
BenchmarkRedeem/batch=64 	    2000	       964 ns/op	     964 B/op	       4 allocs/op
`)
	want := map[string]call{"engine Echo/32B": {}, "store/redis Redeem/batch=64": {Allocs: 4, Bytes: 964}}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := parseCalls("ok ticketgate 0.1s\n"); err == nil {
		t.Error("nothing measured, and no error")
	}
}

// Allocations count exactly, and so do bytes unless they differed when they were recorded. What is not measured any more may be
// anything.
func TestCompareCalls(t *testing.T) {
	was := record{Runs: 2, Calls: map[string]call{
		"same": {Allocs: 2, Bytes: 1000}, "byte": {Bytes: 100}, "table": {Bytes: 5, Loose: true}, "long table": {Bytes: 1000, Loose: true},
		"more": {Allocs: 2, Bytes: 1000}, "longer": {Bytes: 100, Loose: true}, "fewer": {Allocs: 3, Bytes: 100}, "gone": {Allocs: 1, Bytes: 1},
	}}
	now := map[string]call{
		"same": {Allocs: 2, Bytes: 1000}, "byte": {Bytes: 101}, "table": {Bytes: 20}, "long table": {Bytes: 1019},
		"more": {Allocs: 3, Bytes: 1000}, "longer": {Bytes: 117}, "fewer": {Allocs: 2, Bytes: 100}, "new": {Allocs: 9, Bytes: 9},
	}
	var b strings.Builder
	if got := compareCalls(&b, was, now); got != 4 {
		t.Errorf("%d worse:\n%s", got, b.String())
	}
	for _, want := range []string{"WORSE   more: 3 allocations, 1000 B a call; recorded 2, 1000", "WORSE   longer", "WORSE   byte", "better  fewer", "new     new", "GONE    gone",
		"8 functions: allocations compared exactly, bytes too, but within 2 % or 16 B of those that differed from run to run", ": long table, longer, table\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "same") || strings.Contains(b.String(), "table:") {
		t.Errorf("told what is as it was:\n%s", b.String())
	}
	was.Runs = 0 // an older record does not know
	if got := compareCalls(&b, was, now); got != 3 {
		t.Errorf("%d worse than in an older record:\n%s", got, b.String())
	}
}

// What differs between runs is marked, and stays so.
func TestAgreed(t *testing.T) {
	got := agreed(map[string]call{"a": {Bytes: 9, Loose: true}, "b": {Allocs: 1, Bytes: 1}, "c": {Allocs: 2, Bytes: 3}}, map[string]call{"a": {Bytes: 9}, "b": {Allocs: 1, Bytes: 2}, "c": {Allocs: 1, Bytes: 3}, "d": {}})
	if want := (map[string]call{"a": {Bytes: 9, Loose: true}, "b": {Allocs: 1, Bytes: 2, Loose: true}, "c": {Allocs: 2, Bytes: 3}, "d": {}}); !maps.Equal(got, want) {
		t.Error(got)
	}
}

func TestCompareRatios(t *testing.T) {
	was := map[string]bench.Spread{"a": {Median: 1.1, Min: 1.0, Max: 1.2}, "b": {Median: 1.1, Min: 1.0, Max: 1.2}, "c": {Median: 1.1, Min: 1.0, Max: 1.2}, "e": {Median: 1.1, Min: 1.0, Max: 1.2}, "f": {}}
	now := map[string]bench.Spread{"a": {Median: 1.3, Min: 1.25, Max: 1.5}, "b": {Median: 1.4, Min: 1.33, Max: 1.5}, "c": {Median: 0.8, Min: 0.7, Max: 0.9}, "d": {}, "e": {Median: 1.4, Min: 1.1, Max: 1.5}}
	var b strings.Builder
	if got := compareRatios(&b, was, now); !slices.Equal(got, []string{"b", "f"}) {
		t.Errorf("%q worse:\n%s", got, b.String())
	}
	for _, want := range []string{"same    a", "WORSE   b", "better  c", "new     d", "same    e", "GONE    f"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// Ratios of scenarios, or of numbers of sockets, that are not measured are not missed.
func TestExpected(t *testing.T) {
	was := make(map[string]bench.Spread)
	for _, name := range []string{"Echo, 100 sockets, 32 B, 1 a write: server CPU", "Echo, 10000 sockets, 32 B, 1 a write: server CPU", "Relay, 8950 sockets, 32 B: server CPU",
		"Idle, ticketgate, 10 sockets a client: bytes a socket", "Gate: server CPU", "Slow readers: bytes"} {
		was[name] = bench.Spread{}
	}
	got := expected(was, options{only: "idle,echo,relay,gate", sockets: numbers{100, 1000}})
	want := []string{"Echo, 100 sockets, 32 B, 1 a write: server CPU", "Gate: server CPU", "Idle, ticketgate, 10 sockets a client: bytes a socket"}
	if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
}

// Figures of another Go are no measure: every version allocates, and compiles, in its own way.
func TestCheckWantsTheSameGo(t *testing.T) {
	o := options{out: filepath.Join(t.TempDir(), "RESULTS.md")}
	if err := os.WriteFile(filepath.Join(filepath.Dir(o.out), recordFile), []byte(`{"host":{"Go":"go1.1"},"calls":{},"ratios":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := check(t.Context(), o); err == nil || !strings.Contains(err.Error(), "recorded with go1.1,") {
		t.Errorf("%v", err)
	}
}

func TestScenariosOf(t *testing.T) {
	if got := scenariosOf([]string{"Relay, 100 sockets", "Idle, ticketgate", "Relay, 1000 sockets"}); got != "idle,relay" {
		t.Error(got)
	}
}

func TestFewest(t *testing.T) {
	got := fewest(map[string]call{"a": {Allocs: 18, Bytes: 100}, "b": {Allocs: 1, Bytes: 1}}, map[string]call{"a": {Allocs: 17, Bytes: 120}, "c": {Allocs: 2, Bytes: 2}})
	if want := (map[string]call{"a": {Allocs: 17, Bytes: 100}, "b": {Allocs: 1, Bytes: 1}, "c": {Allocs: 2, Bytes: 2}}); !maps.Equal(got, want) {
		t.Error(got)
	}
}
