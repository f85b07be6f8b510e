package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"ticketgate/tools/rig"
)

func init() {
	tests[12] = test{"differential fuzzing: what opens a socket, net/http reads in the same way", fuzzAccept}
}

const (
	fuzzRuns  = 50_000_000
	fuzzShort = 5000
)

// executions is how "go test -fuzz" tells how far it is.
var executions = regexp.MustCompile(`fuzz: elapsed: .* execs: (\d+) `)

// fuzzAccept runs the fuzz target of the accept path for so many executions, or for as long as a short exam takes.
func fuzzAccept(ctx context.Context, x *exam) error {
	n := x.n(fuzzRuns, 1000)
	if x.duration > 0 { // a time may be over before the first one
		n = fuzzShort
	}
	length := strconv.Itoa(n) + "x"
	c := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-fuzz", "^FuzzAccept$", "-fuzztime", length, "-fuzzminimizetime", "10x", "-timeout", "0", "./engine")
	c.Dir = rig.Root()
	begun := time.Now()
	out, err := c.CombinedOutput()
	took := time.Since(begun)
	done := 0
	if all := executions.FindAllSubmatch(out, -1); len(all) > 0 {
		done, _ = strconv.Atoi(string(all[len(all)-1][1])) // digits
	}
	x.figure("%d executions in %v, %.0f a second", done, took.Round(time.Second), float64(done)/took.Seconds())
	x.want(done >= n, "%d executions, want %d", done, n)
	if err != nil {
		return fmt.Errorf("go test: %w: %.2000s", err, out)
	}
	return nil
}
