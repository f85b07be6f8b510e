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
	Calls   map[string]call         `json:"calls"`  // by benchmark
	Ratios  map[string]bench.Spread `json:"ratios"` // less is better
}

// A call is what one call of a function allocates.
type call struct {
	Allocs float64 `json:"allocs"`
	Bytes  float64 `json:"bytes"`
}

const (
	recordFile = "record.json"

	// checkSlack is how far beyond the recorded spread the whole of a new one must lie to be called worse, in two runs: rounds of
	// one run differ less than runs do.
	checkSlack = 1.1

	// A table that grows allocates in a few of many calls: bytes a call may differ by this much.
	bytesSlack, bytesShare = 16, 0.02

	callsEach = "2000x" // of each benchmark, so that what is shared by all calls is shared by as many
)

// checkedPackages are those whose calls are on the way of every admission or message.
var checkedPackages = []string{"./engine", "./engine/frame", "./engine/upgrade", "./engine/proxy", "./engine/deflate", "./limiter", "./ticket", "./handshake/...", "./store/...", "./internal/stat", "./internal/offheap"}

// checkedScenarios are run again by check.
const checkedScenarios = "idle,echo,relay,gate,client"

// measureCalls runs the packages' benchmarks.
func measureCalls(ctx context.Context) (map[string]call, error) {
	args := append([]string{"test", "-run", "^$", "-bench", ".", "-skip", "MillionSockets|IdleSocket", "-benchtime", callsEach, "-benchmem", "-p", "1"}, checkedPackages...)
	out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return parseCalls(string(out))
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
			all[pkg+" "+name] = call{allocs, bytes}
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

// keep writes what p found.
func (p page) keep(file string, calls map[string]call) error {
	name, err := commit("")
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(record{Written: p.started.UTC().Truncate(time.Second), Commit: name, Host: p.host, Calls: calls, Ratios: p.ratios()}, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

func (p page) ratios() map[string]bench.Spread {
	all := make(map[string]bench.Spread)
	for _, s := range p.parts {
		maps.Copy(all, s.ratios)
	}
	return all
}

// errWorse says that check found something.
var errWorse = errors.New("worse than what was recorded")

// check measures again what the record has, and says what is worse.
func check(ctx context.Context, o options) error {
	was, err := readRecord(filepath.Join(filepath.Dir(o.out), recordFile))
	if err != nil {
		return err
	}
	host, err := bench.ReadHost()
	if err != nil {
		return err
	}
	fmt.Printf("recorded %s at %s\n", was.Written.Format(time.DateTime), was.Commit)
	calls, err := measureCalls(ctx)
	if err != nil {
		return err
	}
	worse := compareCalls(os.Stdout, was.Calls, calls)
	if worse > 0 { // where goroutines meet, a call may allocate one more by chance
		fmt.Println("once more")
		again, err := measureCalls(ctx)
		if err != nil {
			return err
		}
		worse = compareCalls(os.Stdout, was.Calls, fewest(calls, again))
	}
	if was.Host.CPU != host.CPU || was.Host.Cores != host.Cores || was.Host.Kernel != host.Kernel {
		return fmt.Errorf("ratios were recorded on %s with %d cores and Linux %s, and this is %s with %d and %s: record here first (make bench)",
			was.Host.CPU, was.Host.Cores, was.Host.Kernel, host.CPU, host.Cores, host.Kernel)
	}
	if o.only == "" {
		o.only, o.sockets = checkedScenarios, numbers{100, 1000}
	}
	p, err := measureAll(ctx, o)
	if err != nil {
		return err
	}
	suspects := compareRatios(os.Stdout, was.Ratios, p.ratios())
	if len(suspects) > 0 {
		if o.only = scenariosOf(suspects); o.only == "" {
			return fmt.Errorf("no scenario of %q", suspects)
		}
		fmt.Println("once more: " + o.only)
		if p, err = measureAll(ctx, o); err != nil {
			return err
		}
		again := p.ratios()
		maps.DeleteFunc(again, func(name string, _ bench.Spread) bool { return !slices.Contains(suspects, name) })
		worse += len(compareRatios(os.Stdout, was.Ratios, again))
	}
	if worse > 0 {
		return fmt.Errorf("%w: %d figures", errWorse, worse)
	}
	fmt.Println("nothing is worse")
	return nil
}

// fewest are the lower figures of two runs.
func fewest(one, two map[string]call) map[string]call {
	least := maps.Clone(one)
	for name, b := range two {
		if a, ok := least[name]; ok {
			b = call{min(a.Allocs, b.Allocs), min(a.Bytes, b.Bytes)}
		}
		least[name] = b
	}
	return least
}

// compareCalls says which calls allocate otherwise, and returns how many allocate more.
func compareCalls(w io.Writer, was, now map[string]call) (worse int) {
	for _, name := range slices.Sorted(maps.Keys(now)) {
		a, known := was[name]
		b := now[name]
		slack := max(bytesSlack, bytesShare*a.Bytes)
		var verdict string
		switch {
		case !known:
			verdict = "new"
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
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if _, ok := now[name]; !ok {
			fmt.Fprintf(w, "gone    %s\n", name)
		}
	}
	fmt.Fprintf(w, "%d functions: allocations compared exactly, bytes within %g %% or %d B\n", len(now), 100*bytesShare, bytesSlack)
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

// compareRatios says how each of now stands to what it was, and returns those that are worse.
func compareRatios(w io.Writer, was, now map[string]bench.Spread) (worse []string) {
	for _, name := range slices.Sorted(maps.Keys(now)) {
		a, known := was[name]
		b := now[name]
		verdict := "same"
		switch {
		case !known:
			verdict = "new"
		case b.Min > a.Max*checkSlack:
			verdict = "WORSE"
			worse = append(worse, name)
		case b.Max < a.Min/checkSlack:
			verdict = "better"
		}
		fmt.Fprintf(w, "%-7s %s: %s; recorded %s\n", verdict, name, b, a)
	}
	fmt.Fprintf(w, "%d ratios: worse is one whose whole spread lies more than %.0f %% above the recorded one\n", len(now), 100*(checkSlack-1))
	return worse
}
