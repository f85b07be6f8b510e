// Command exam puts real gateways through the tests of the reliability and security exam. Each test prints its figures and
// PASS or FALLS SHORT; the exit code is 1 if any falls short.
//
//	go run ./tools/exam               all
//	go run ./tools/exam -n 18,37      these
//	go run ./tools/exam -n 18 -size 0.1 -seed 7
//	go run ./tools/exam -n 18 -part sentinel
//	go run ./tools/exam -race -size 0.1
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"ticketgate/tools/rig"
	"time"
)

// test is one numbered test of the exam.
type test struct {
	title string
	run   func(ctx context.Context, x *exam) error
}

// tests are all that exist; each file adds its own.
var tests = map[int]test{}

// exam is what a test gets: its size and chance, and where it writes.
type exam struct {
	seed     uint64
	rnd      *rand.Rand
	size     float64       // share of the exam's own numbers, 1 for all
	part     string        // of a test that has parts, "" for all
	duration time.Duration // of tests that measure over time, 0: their own
	dir      string        // an empty folder, removed afterwards
	out      io.Writer
	short    []string
}

// n is the exam's number m at this size, at least least.
func (x *exam) n(m, least int) int { return max(least, int(float64(m)*x.size)) }

// figure prints one measured line.
func (x *exam) figure(format string, args ...any) {
	fmt.Fprintf(x.out, "  "+format+"\n", args...)
}

// want notes that the test falls short unless ok.
func (x *exam) want(ok bool, format string, args ...any) {
	if !ok {
		x.short = append(x.short, fmt.Sprintf(format, args...))
	}
}

// wantTime is want for figures of time and processor, which only the full size on a quiet machine can judge. The short form
// prints them.
func (x *exam) wantTime(ok bool, format string, args ...any) {
	if x.size >= 1 {
		x.want(ok, format, args...)
	}
}

// wantMemory is want for memory, which the race detector takes several times over.
func (x *exam) wantMemory(ok bool, format string, args ...any) {
	if !rig.Race {
		x.want(ok, format, args...)
	}
}

// shortMax is how many reasons of one test are printed.
const shortMax = 20

func main() {
	if code, done := play(os.Args[1:]); done {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(Main(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Main runs the tests that args name and returns the exit code.
func Main(ctx context.Context, args []string, out, errs io.Writer) int {
	f := flag.NewFlagSet("exam", flag.ContinueOnError)
	f.SetOutput(errs)
	which := f.String("n", "", "numbers, with commas between; empty: all")
	seed := f.Uint64("seed", uint64(time.Now().UnixNano()), "for all that is drawn by chance; printed, so that a run can be repeated")
	size := f.Float64("size", 1, "share of the exam's own numbers of sockets, rounds and rows")
	part := f.String("part", "", "of test 18: one, sentinel or cluster; empty: all")
	race := f.Bool("race", false, "gateways with the race detector, which ends one at its first race: for -size 0.1, which judges no times")
	duration := f.Duration("duration", 0, "of tests that measure over time; 0: their own")
	if err := f.Parse(args); err != nil {
		return 2
	}
	numbers, err := choose(*which)
	if err != nil || *size <= 0 {
		fmt.Fprintln(errs, "exam:", errors.Join(err, sizeError(*size)))
		return 2
	}
	if *part != "" && (!slices.Contains(replayParts, *part) || !slices.Equal(numbers, []int{18})) {
		fmt.Fprintf(errs, "exam: -part %q: want -n 18 and one of %v\n", *part, replayParts)
		return 2
	}
	if *race {
		rig.Race = true
		if err := os.Setenv("GORACE", "halt_on_error=1"); err != nil {
			fmt.Fprintln(errs, "exam:", err)
			return 1
		}
	}
	if binDir == "" {
		if binDir, err = os.MkdirTemp("", "exam-bin-"); err != nil {
			fmt.Fprintln(errs, "exam:", err)
			return 1
		}
		defer func() { _ = os.RemoveAll(binDir) }() // what stays is in the system's temporary folder
	}
	code := 0
	for _, n := range numbers {
		x := &exam{seed: *seed, rnd: rand.New(rand.NewPCG(*seed, uint64(n))), size: *size, part: *part, duration: *duration, out: out}
		if !x.sit(ctx, n) {
			code = 1
		}
	}
	return code
}

// binDir holds the gateway that is examined.
var binDir string

func sizeError(size float64) error {
	if size <= 0 {
		return fmt.Errorf("-size %v: want more than 0", size)
	}
	return nil
}

// choose reads "3,18" and returns the numbers, rising.
func choose(which string) ([]int, error) {
	if which == "" {
		return slices.Sorted(maps.Keys(tests)), nil
	}
	var numbers []int
	for s := range strings.SplitSeq(which, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if _, ok := tests[n]; err != nil || !ok {
			return nil, fmt.Errorf("-n %q: there are %v", s, slices.Sorted(maps.Keys(tests)))
		}
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	return slices.Compact(numbers), nil
}

// sit runs test n and reports whether it passed.
func (x *exam) sit(ctx context.Context, n int) bool {
	t := tests[n]
	fmt.Fprintf(x.out, "exam %d: %s (seed %d, size %g)\n", n, t.title, x.seed, x.size)
	dir, err := os.MkdirTemp("", "exam-")
	if err != nil {
		fmt.Fprintf(x.out, "exam %d: FALLS SHORT: %v\n", n, err)
		return false
	}
	defer func() { _ = os.RemoveAll(dir) }()
	x.dir = dir
	begun := time.Now()
	if err := t.run(ctx, x); err != nil {
		x.short = append(x.short, err.Error())
	}
	for i, s := range x.short {
		if i == shortMax {
			fmt.Fprintf(x.out, "  and %d more\n", len(x.short)-i)
			break
		}
		fmt.Fprintf(x.out, "  short: %s\n", s)
	}
	verdict := "PASS"
	if len(x.short) > 0 {
		verdict = "FALLS SHORT"
	}
	fmt.Fprintf(x.out, "exam %d: %s in %.1f s\n", n, verdict, time.Since(begun).Seconds())
	return len(x.short) == 0
}
