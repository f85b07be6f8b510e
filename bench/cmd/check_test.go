package main

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"runtime"
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
// anything, and so may what is not recorded.
func TestCompareCalls(t *testing.T) {
	was := record{Calls: map[string]call{
		"same": {Allocs: 2, Bytes: 1000}, "byte": {Bytes: 100}, "table": {Bytes: 5, Loose: true}, "long table": {Bytes: 1000, Loose: true},
		"more": {Allocs: 2, Bytes: 1000}, "longer": {Bytes: 100, Loose: true}, "fewer": {Allocs: 3, Bytes: 100}, "gone": {Allocs: 1, Bytes: 1},
	}}
	now := map[string]call{
		"same": {Allocs: 2, Bytes: 1000}, "byte": {Bytes: 101}, "table": {Bytes: 20}, "long table": {Bytes: 1019},
		"more": {Allocs: 3, Bytes: 1000}, "longer": {Bytes: 117}, "fewer": {Allocs: 2, Bytes: 100}, "new": {Allocs: 9, Bytes: 9},
	}
	var b strings.Builder
	if got := compareCalls(&b, was, now); got != 5 {
		t.Errorf("%d worse:\n%s", got, b.String())
	}
	for _, want := range []string{"WORSE   more: 3 allocations, 1000 B a call; recorded 2, 1000", "WORSE   longer", "WORSE   byte", "better  fewer", "UNKNOWN new: 9 allocations, 9 B a call; not recorded: make bench\n", "GONE    gone",
		"8 functions: allocations compared exactly, bytes too, but within 2 % or 16 B of those that differed from run to run", ": long table, longer, table\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "same") || strings.Contains(b.String(), "table:") {
		t.Errorf("told what is as it was:\n%s", b.String())
	}
}

// What differs between runs is marked, and stays so.
func TestAgreed(t *testing.T) {
	got := agreed(map[string]call{"a": {Bytes: 9, Loose: true}, "b": {Allocs: 1, Bytes: 1}, "c": {Allocs: 2, Bytes: 3}}, map[string]call{"a": {Bytes: 9}, "b": {Allocs: 1, Bytes: 2}, "c": {Allocs: 1, Bytes: 3}, "d": {}})
	if want := (map[string]call{"a": {Bytes: 9, Loose: true}, "b": {Allocs: 1, Bytes: 2, Loose: true}, "c": {Allocs: 2, Bytes: 3}, "d": {}}); !maps.Equal(got, want) {
		t.Error(got)
	}
}

// A ratio is worse when all of its rounds are beyond what was recorded, and missed when their middle is beyond what is wanted: "g" is not,
// though a round is, and "h" is, though a round meets it. One that is not recorded is no better than one that is gone.
func TestCompareRatios(t *testing.T) {
	was := map[string]bench.Spread{"a": {Median: 1.1, Min: 1.0, Max: 1.2}, "b": {Median: 1.1, Min: 1.0, Max: 1.2}, "c": {Median: 1.1, Min: 1.0, Max: 1.2}, "e": {Median: 1.1, Min: 1.0, Max: 1.2}, "f": {},
		"g": {Median: 1, Min: 0.9, Max: 1.1}, "h": {Median: 1, Min: 0.9, Max: 1.1}}
	now := map[string]bench.Spread{"a": {Median: 1.3, Min: 1.25, Max: 1.5}, "b": {Median: 1.4, Min: 1.33, Max: 1.5}, "c": {Median: 0.8, Min: 0.7, Max: 0.9}, "d": {}, "e": {Median: 1.4, Min: 1.1, Max: 1.5},
		"g": {Median: 1, Min: 0.9, Max: 1.2}, "h": {Median: 1.1, Min: 0.9, Max: 1.2}, "i": {Median: 601, Min: 601, Max: 601}}
	var b strings.Builder
	if got := compareRatios(&b, was, now, map[string]float64{"g": 1, "h": 1, "i": 600}); !slices.Equal(got, []string{"b", "d", "h", "i", "f"}) {
		t.Errorf("%q worse:\n%s", got, b.String())
	}
	for _, want := range []string{"same    a", "WORSE   b", "better  c", "UNKNOWN d: 0.00 (0.00-0.00); not recorded: make bench\n", "same    e", "GONE    f", "same    g",
		"MISSED  h: 1.10 (0.90-1.20); recorded 1.00 (0.90-1.10); at most 1.00 is wanted", "MISSED  i: 601 (601-601); not recorded: make bench; at most 600 is wanted"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// Ratios of scenarios, or of numbers of sockets, that are not measured are not missed.
func TestExpected(t *testing.T) {
	was := make(map[string]bench.Spread)
	for _, name := range []string{"Echo, 100 sockets, 32 B, 1 a write: server CPU", "Echo, 10000 sockets, 32 B, 1 a write: server CPU", "Relay, 8950 sockets, 32 B: server CPU",
		"Idle, ticketgate, 10 sockets a client: bytes a socket", "Gate: server CPU", "Slow readers: bytes", "Tickets: server CPU"} {
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

// fitRecord has all that check measures, and no more.
func fitRecord() record {
	r := record{Runs: 2, Calls: make(map[string]call), Ratios: make(map[string]bench.Spread)}
	for _, name := range []string{"engine Echo", "engine/frame Next", "engine/upgrade Parse", "engine/proxy Parse", "engine/deflate Inflate", "limiter Bind", "ticket Check", "handshake/auth Authenticate",
		"store/redis Redeem", "internal/stat Counter", "internal/offheap SlabAt", "bench Frame", "bench/load Echo"} {
		r.Calls[name] = call{}
	}
	for _, name := range []string{"Idle, ticketgate: bytes", "Echo, 100 sockets, 32 B: CPU", "Relay, 1000 sockets, 32 B: CPU", "Gate: CPU", "Client, idle: bytes", "Tickets: CPU", "Admissions, memory store: CPU", "Pings: CPU"} {
		r.Ratios[name] = bench.Spread{}
	}
	return r
}

// A record that lacks something of what check measures would let it become worse unseen.
func TestFit(t *testing.T) {
	if err := fitRecord().fit(); err != nil {
		t.Errorf("all is there: %v", err)
	}
	for want, spoil := range map[string]func(r *record){
		"whose bytes are exact":              func(r *record) { r.Runs = 1 },
		"no allocations of ./engine,":        func(r *record) { delete(r.Calls, "engine Echo"); delete(r.Calls, "engine/frame Next") },
		"no allocations of ./engine/frame;":  func(r *record) { delete(r.Calls, "engine/frame Next") },
		"no allocations of ./store/...;":     func(r *record) { delete(r.Calls, "store/redis Redeem"); r.Calls["stores Get"] = call{} },
		"no allocations of ./handshake/...;": func(r *record) { delete(r.Calls, "handshake/auth Authenticate") },
		"no allocations of ./bench;":         func(r *record) { delete(r.Calls, "bench Frame") },
		"no ratio of pings;":                 func(r *record) { delete(r.Ratios, "Pings: CPU") },
		"no ratio of idle, no ratio of tick": func(r *record) { delete(r.Ratios, "Idle, ticketgate: bytes"); delete(r.Ratios, "Tickets: CPU") },
		"no ratio of relay;": func(r *record) { // of another number of sockets
			delete(r.Ratios, "Relay, 1000 sockets, 32 B: CPU")
			r.Ratios["Relay, 10000 sockets, 32 B: CPU"] = bench.Spread{}
		},
	} {
		r := fitRecord()
		spoil(&r)
		if err := r.fit(); !errors.Is(err, errUnfit) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "`make bench`") {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Only a run of all that check measures is recorded: what it left out could become worse unseen.
func TestRecords(t *testing.T) {
	whole := options{out: "bench/RESULTS.md", sockets: numbers{100, 1000, 10000}, sizes: allSizes}
	if !whole.records() {
		t.Error("a whole run is not recorded")
	}
	for name, narrow := range map[string]func(*options){
		"-sizes 32":        func(o *options) { o.sizes = numbers{32} },
		"-sizes, one more": func(o *options) { o.sizes = append(slices.Clone(allSizes), 64) }, // bench-check does not measure it: it would be gone
		"-sockets 1000":    func(o *options) { o.sockets = numbers{1000} },
		"-short":           func(o *options) { o.short = true },
		"-only":            func(o *options) { o.only = "echo" },
		"-peers":           func(o *options) { o.peers = true },
		"-out -":           func(o *options) { o.out = "-" },
		"-ticketgate":      func(o *options) { o.gateway = "bin/ticketgate" },
	} {
		o := whole
		if narrow(&o); o.records() {
			t.Errorf("%s is recorded", name)
		}
	}
}

// What make bench has recorded last is fit to be compared with.
func TestRecord(t *testing.T) {
	r, err := readRecord(filepath.Join("..", recordFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.fit(); err != nil {
		t.Error(err)
	}
}

// check does not begin to measure when there is nothing to compare with.
func TestCheckWantsAFitRecord(t *testing.T) {
	o := options{out: filepath.Join(t.TempDir(), "RESULTS.md")}
	if err := check(t.Context(), o); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "`make bench`") {
		t.Errorf("without a record: %v", err)
	}
	r := fitRecord()
	r.Host.Go = runtime.Version()
	delete(r.Ratios, "Tickets: CPU")
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(o.out), recordFile), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := check(t.Context(), o); !errors.Is(err, errUnfit) || !strings.Contains(err.Error(), "no ratio of tickets") {
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

// Every function that the record is about runs, and every package has one.
func TestMeasureCalls(t *testing.T) {
	t.Chdir(filepath.Join("..", ".."))
	calls, err := measureCalls(t.Context(), "1x")
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range checkedPackages {
		if r := (record{Calls: calls}); !r.hasCalls(pkg) {
			t.Errorf("%s has none", pkg)
		}
	}
}
