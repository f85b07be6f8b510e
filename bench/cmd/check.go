package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"ticketgate/bench"
)

// A record is what a later run is compared with. `make bench` writes it beside RESULTS.md.
type record struct {
	Written time.Time               `json:"written"`
	Commit  string                  `json:"commit"`
	Host    bench.Host              `json:"host"`
	Runs    int                     `json:"runs"`   // of the benchmarks: only two or more tell whose bytes are exact
	Calls   map[string]call         `json:"calls"`  // by benchmark
	Ratios  map[string]bench.Spread `json:"ratios"` // less is better
}

// A call is what one call of a function allocates.
type call struct {
	Allocs float64 `json:"allocs"`
	Bytes  float64 `json:"bytes"`
	// Loose says that the bytes differed from run to run: a table that all calls share grew in one of them, or the collector emptied a
	// pool, which chance decides. Of the others every byte counts.
	Loose bool `json:"loose,omitempty"`
}

const (
	recordFile = "record.json"

	// checkSlack is how far beyond the recorded spread the whole of a new one must lie to be called worse, in two runs: rounds of
	// one run differ less than runs do.
	checkSlack = 1.1

	// Loose bytes of a call may differ by this much.
	bytesSlack, bytesShare = 16, 0.02

	callsEach = "2000x" // of each benchmark, so that what is shared by all calls is shared by as many
	callsRuns = 3       // in which bytes must agree to be recorded as exact
)

// checkedPackages are those whose calls are on the way of every admission or message, and those of the load tool.
var checkedPackages = []string{"./engine", "./engine/frame", "./engine/upgrade", "./engine/proxy", "./engine/deflate", "./limiter", "./ticket", "./handshake/...", "./store/...", "./internal/stat", "./internal/offheap",
	"./bench", "./bench/load"}

// checkedScenarios are run again by check, echo and relay with checkedSockets.
const checkedScenarios = "idle,echo,relay,gate,client,tickets,admissions,pings"

var checkedSockets = numbers{100, 1000}

// measureCalls runs the benchmarks of checkedPackages, each so often: 2000x.
func measureCalls(ctx context.Context, each string) (map[string]call, error) {
	args := append([]string{"test", "-run", "^$", "-bench", ".", "-skip", "MillionSockets|IdleSocket", "-benchtime", each, "-benchmem", "-p", "1"}, checkedPackages...)
	out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return parseCalls(string(out))
}

// recordCalls runs them several times, to see whose bytes are the same every time.
func recordCalls(ctx context.Context) (map[string]call, error) {
	all, err := measureCalls(ctx, callsEach)
	for i := 1; i < callsRuns && err == nil; i++ {
		var again map[string]call
		again, err = measureCalls(ctx, callsEach)
		all = agreed(all, again)
	}
	return all, err
}

// agreed is the more of two runs, with those marked whose bytes differ.
func agreed(one, two map[string]call) map[string]call {
	all := maps.Clone(one)
	for name, b := range two {
		if a, ok := all[name]; ok {
			b = call{max(a.Allocs, b.Allocs), max(a.Bytes, b.Bytes), a.Loose || b.Loose || a.Bytes != b.Bytes}
		}
		all[name] = b
	}
	return all
}

// parseCalls reads what `go test -bench -benchmem` prints.
func parseCalls(text string) (map[string]call, error) {
	all := make(map[string]call)
	pkg := ""
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && f[0] == "pkg:":
			pkg = strings.TrimPrefix(f[1], "ticketgate/")
		case len(f) > 4 && strings.HasPrefix(f[0], "Benchmark") && f[len(f)-1] == "allocs/op":
			allocs, err := strconv.ParseFloat(f[len(f)-2], 64)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
			bytes, err := strconv.ParseFloat(f[len(f)-4], 64)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
			name := strings.TrimPrefix(f[0], "Benchmark")
			if i := strings.LastIndexByte(name, '-'); i > 0 {
				name = name[:i] // the number of processors
			}
			all[pkg+" "+name] = call{Allocs: allocs, Bytes: bytes}
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no benchmark told what it allocates")
	}
	return all, nil
}

func readRecord(file string) (record, error) {
	var r record
	b, err := os.ReadFile(file)
	if err != nil {
		return r, fmt.Errorf("%w: `make bench` writes it", err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

var errUnfit = errors.New("this record is not fit to be compared with")

// fit says what r lacks of all that check measures: what is not recorded could become worse unseen.
func (r record) fit() error {
	var missing []string
	if r.Runs < 2 {
		missing = append(missing, "from one run of the benchmarks it cannot know whose bytes are exact")
	}
	for _, pkg := range checkedPackages {
		if !r.hasCalls(pkg) {
			missing = append(missing, "no allocations of "+pkg)
		}
	}
	compared := slices.Collect(maps.Keys(expected(r.Ratios, options{only: checkedScenarios, sockets: checkedSockets})))
	there := strings.Split(scenariosOf(compared), ",")
	for name := range strings.SplitSeq(checkedScenarios, ",") {
		if !slices.Contains(there, name) {
			missing = append(missing, "no ratio of "+name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s; `make bench` on a quiet machine writes a new one", errUnfit, strings.Join(missing, ", "))
}

// hasCalls says that r knows a function of pkg, which is one of checkedPackages.
func (r record) hasCalls(pkg string) bool {
	want, below := strings.CutSuffix(strings.TrimPrefix(pkg, "./"), "/...")
	for name := range r.Calls {
		of, _, _ := strings.Cut(name, " ")
		if of == want || below && strings.HasPrefix(of, want+"/") {
			return true
		}
	}
	return false
}

// keep writes what p found, and says if that is not fit to be compared with.
func (p page) keep(file string, calls map[string]call) error {
	name, err := commit("")
	if err != nil {
		return err
	}
	r := record{Written: p.started.UTC().Truncate(time.Second), Commit: name, Host: p.host, Runs: callsRuns, Calls: calls, Ratios: p.ratios()}
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
		return err
	}
	if err := r.fit(); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

func (p page) ratios() map[string]bench.Spread {
	all := make(map[string]bench.Spread)
	for _, s := range p.parts {
		maps.Copy(all, s.ratios)
	}
	return all
}

// most is what ratios of p may be at most.
func (p page) most() map[string]float64 {
	all := make(map[string]float64)
	for _, s := range p.parts {
		maps.Copy(all, s.most)
	}
	return all
}

// errWorse says that check found something.
var errWorse = errors.New("worse than what was recorded, or than what is wanted, or not recorded")

// check measures again what the record has, and says what is worse, or was not recorded.
func check(ctx context.Context, o options) error {
	file := filepath.Join(filepath.Dir(o.out), recordFile)
	was, err := readRecord(file)
	if err != nil {
		return err
	}
	host, err := bench.ReadHost()
	if err != nil {
		return err
	}
	fmt.Printf("recorded %s at %s\n", was.Written.Format(time.DateTime), was.Commit)
	if was.Host.Go != host.Go { // of which all of it depends
		return fmt.Errorf("recorded with %s, and this is %s: record first (make bench)", was.Host.Go, host.Go)
	}
	if err := was.fit(); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	worse, err := checkCalls(ctx, was)
	if err != nil {
		return err
	}
	if was.Host.CPU != host.CPU || was.Host.Cores != host.Cores || was.Host.Kernel != host.Kernel {
		return fmt.Errorf("ratios were recorded on %s with %d cores and Linux %s, and this is %s with %d and %s: record here first (make bench)",
			was.Host.CPU, was.Host.Cores, was.Host.Kernel, host.CPU, host.Cores, host.Kernel)
	}
	if o.only == "" {
		o.only, o.sockets = checkedScenarios, checkedSockets
	}
	more, err := checkRatios(ctx, o, was.Ratios)
	if err != nil {
		return err
	}
	if worse += more; worse > 0 {
		return fmt.Errorf("%w: %d figures", errWorse, worse)
	}
	fmt.Println("nothing is worse")
	return nil
}

// checkCalls says how many functions allocate more than was recorded, or are not recorded.
func checkCalls(ctx context.Context, was record) (worse int, err error) {
	calls, err := measureCalls(ctx, callsEach)
	if err != nil {
		return 0, err
	}
	if worse = compareCalls(os.Stdout, was, calls); worse == 0 {
		return 0, nil
	}
	fmt.Println("once more") // where goroutines meet, a call may allocate one more by chance
	again, err := measureCalls(ctx, callsEach)
	if err != nil {
		return 0, err
	}
	return compareCalls(os.Stdout, was, fewest(calls, again)), nil
}

// checkRatios says how many ratios are worse than was recorded or than is wanted, are not recorded or not there any more, in two runs.
func checkRatios(ctx context.Context, o options, recorded map[string]bench.Spread) (worse int, err error) {
	was := expected(recorded, o)
	p, err := measureAll(ctx, o)
	if err != nil {
		return 0, err
	}
	suspects := compareRatios(os.Stdout, was, p.ratios(), p.most())
	if len(suspects) == 0 {
		return 0, nil
	}
	if o.only = scenariosOf(suspects); o.only == "" {
		return 0, fmt.Errorf("no scenario of %q", suspects)
	}
	fmt.Println("once more: " + o.only)
	if p, err = measureAll(ctx, o); err != nil {
		return 0, err
	}
	again := p.ratios()
	for _, all := range []map[string]bench.Spread{was, again} {
		maps.DeleteFunc(all, func(name string, _ bench.Spread) bool { return !slices.Contains(suspects, name) })
	}
	return len(compareRatios(os.Stdout, was, again, p.most())), nil
}

// expected are the recorded ratios that the scenarios of o have to come to: echo and relay only for its numbers of sockets.
func expected(recorded map[string]bench.Spread, o options) map[string]bench.Spread {
	all := make(map[string]bench.Spread)
	for name, v := range recorded {
		scenario := scenariosOf([]string{name})
		counted := scenario != "echo" && scenario != "relay" || slices.ContainsFunc(o.sockets, func(n int) bool { return strings.Contains(name, fmt.Sprintf(", %d sockets,", n)) })
		if counted && slices.Contains(strings.Split(o.only, ","), scenario) {
			all[name] = v
		}
	}
	return all
}

// fewest are the lower figures of two runs.
func fewest(one, two map[string]call) map[string]call {
	least := maps.Clone(one)
	for name, b := range two {
		if a, ok := least[name]; ok {
			b = call{Allocs: min(a.Allocs, b.Allocs), Bytes: min(a.Bytes, b.Bytes)}
		}
		least[name] = b
	}
	return least
}

// slack is how many bytes more than recorded a call may allocate.
func (r record) slack(name string) float64 {
	a := r.Calls[name]
	if !a.Loose {
		return 0
	}
	return max(bytesSlack, bytesShare*a.Bytes)
}

// compareCalls says which calls allocate otherwise, and returns how many allocate more, are not recorded, or are not there any more: what
// is not measured may be anything, and so may what has nothing to be compared with.
func compareCalls(w io.Writer, was record, now map[string]call) (worse int) {
	var loose []string
	for _, name := range slices.Sorted(maps.Keys(now)) {
		a, known := was.Calls[name]
		b := now[name]
		slack := was.slack(name)
		if !known {
			fmt.Fprintf(w, "UNKNOWN %s: %g allocations, %g B a call; %s\n", name, b.Allocs, b.Bytes, notRecorded)
			worse++
			continue
		}
		if slack > 0 {
			loose = append(loose, name)
		}
		var verdict string
		switch {
		case b.Allocs > a.Allocs || b.Bytes > a.Bytes+slack:
			verdict = "WORSE"
			worse++
		case b.Allocs < a.Allocs || b.Bytes < a.Bytes-slack:
			verdict = "better"
		default:
			continue
		}
		fmt.Fprintf(w, "%-7s %s: %g allocations, %g B a call; recorded %g, %g\n", verdict, name, b.Allocs, b.Bytes, a.Allocs, a.Bytes)
	}
	for _, name := range slices.Sorted(maps.Keys(was.Calls)) {
		if _, ok := now[name]; !ok {
			fmt.Fprintf(w, "GONE    %s\n", name)
			worse++
		}
	}
	fmt.Fprintf(w, "%d functions: allocations compared exactly, bytes too", len(now))
	if len(loose) > 0 {
		fmt.Fprintf(w, ", but within %g %% or %d B of those that differed from run to run when they were recorded (what grows or is collected now and then is shared by all calls): %s",
			100*bytesShare, bytesSlack, strings.Join(loose, ", "))
	}
	fmt.Fprintln(w)
	return worse
}

// scenariosOf are the scenarios, by comma, that ratios with these names come from: a name begins with its scenario's.
func scenariosOf(ratios []string) string {
	var all []string
	for _, s := range scenarios {
		if slices.ContainsFunc(ratios, func(name string) bool { return strings.HasPrefix(strings.ToLower(name), s.name) }) {
			all = append(all, s.name)
		}
	}
	return strings.Join(all, ",")
}

// notRecorded is why something is UNKNOWN, and what to do.
const notRecorded = "not recorded: make bench"

// compareRatios says how each of now stands to what it was and to what it may be at most, and returns those that are worse or above
// that, are not recorded, or not there any more.
func compareRatios(w io.Writer, was, now map[string]bench.Spread, most map[string]float64) (worse []string) {
	for _, name := range slices.Sorted(maps.Keys(now)) {
		a, known := was[name]
		b := now[name]
		verdict, recorded, wanted := "same", "recorded "+a.String(), ""
		if !known {
			recorded = notRecorded
		}
		limit, bounded := most[name]
		if bounded {
			wanted = fmt.Sprintf("; at most %s is wanted", bench.Number(limit))
		}
		switch {
		case bounded && b.Median > limit: // what the page shows as measured; that one round meets it is no more than noise
			verdict = "MISSED"
			worse = append(worse, name)
		case !known:
			verdict = "UNKNOWN"
			worse = append(worse, name)
		case b.Min > a.Max*checkSlack:
			verdict = "WORSE"
			worse = append(worse, name)
		case b.Max < a.Min/checkSlack:
			verdict = "better"
		}
		fmt.Fprintf(w, "%-7s %s: %s; %s%s\n", verdict, name, b, recorded, wanted)
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if _, ok := now[name]; !ok {
			fmt.Fprintf(w, "GONE    %s; recorded %s\n", name, was[name])
			worse = append(worse, name)
		}
	}
	fmt.Fprintf(w, "%d ratios: worse is one whose whole spread lies more than %.0f %% above the recorded one, missed one whose middle lies above what is wanted\n",
		len(now), 100*(checkSlack-1))
	return worse
}
