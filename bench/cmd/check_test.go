package main

import (
	"maps"
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
	want := map[string]call{"engine Echo/32B": {0, 0}, "store/redis Redeem/batch=64": {4, 964}}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := parseCalls("ok ticketgate 0.1s\n"); err == nil {
		t.Error("nothing measured, and no error")
	}
}

func TestCompareCalls(t *testing.T) {
	was := map[string]call{"same": {2, 1000}, "grown table": {0, 5}, "more": {2, 1000}, "longer": {0, 100}, "fewer": {3, 100}, "gone": {1, 1}}
	now := map[string]call{"same": {2, 1019}, "grown table": {0, 20}, "more": {3, 1000}, "longer": {0, 117}, "fewer": {2, 100}, "new": {9, 9}}
	var b strings.Builder
	if got := compareCalls(&b, was, now); got != 2 {
		t.Errorf("%d worse:\n%s", got, b.String())
	}
	for _, want := range []string{"WORSE   more: 3 allocations, 1000 B a call; recorded 2, 1000", "WORSE   longer", "better  fewer", "new     new", "gone    gone"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "same") || strings.Contains(b.String(), "table:") {
		t.Errorf("told what is as it was:\n%s", b.String())
	}
}

func TestCompareRatios(t *testing.T) {
	was := map[string]bench.Spread{"a": {Median: 1.1, Min: 1.0, Max: 1.2}, "b": {Median: 1.1, Min: 1.0, Max: 1.2}, "c": {Median: 1.1, Min: 1.0, Max: 1.2}, "e": {Median: 1.1, Min: 1.0, Max: 1.2}}
	now := map[string]bench.Spread{"a": {Median: 1.3, Min: 1.25, Max: 1.5}, "b": {Median: 1.4, Min: 1.33, Max: 1.5}, "c": {Median: 0.8, Min: 0.7, Max: 0.9}, "d": {}, "e": {Median: 1.4, Min: 1.1, Max: 1.5}}
	var b strings.Builder
	if got := compareRatios(&b, was, now); !slices.Equal(got, []string{"b"}) {
		t.Errorf("%q worse:\n%s", got, b.String())
	}
	for _, want := range []string{"same    a", "WORSE   b", "better  c", "new     d", "same    e"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestScenariosOf(t *testing.T) {
	if got := scenariosOf([]string{"Relay, 100 sockets", "Idle, ticketgate", "Relay, 1000 sockets"}); got != "idle,relay" {
		t.Error(got)
	}
}

func TestFewest(t *testing.T) {
	got := fewest(map[string]call{"a": {18, 100}, "b": {1, 1}}, map[string]call{"a": {17, 120}, "c": {2, 2}})
	if want := (map[string]call{"a": {17, 100}, "b": {1, 1}, "c": {2, 2}}); !maps.Equal(got, want) {
		t.Error(got)
	}
}
