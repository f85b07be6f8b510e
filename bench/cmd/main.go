// Command cmd measures ticketgate next to programs that do the least possible, and writes bench/RESULTS.md. It is what
// `make bench` runs, from the repository's root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"ticketgate/bench"
)

// The children die with the thread that starts them (bench.Start), so main stays on the process's first thread.
func init() { runtime.LockOSThread() }

func main() {
	o := options{}
	flag.BoolVar(&o.short, "short", false, "a minute instead of six: fewer rounds, fewer idle sockets")
	flag.StringVar(&o.out, "out", "bench/RESULTS.md", "file to write, - for stdout")
	flag.StringVar(&o.gateway, "ticketgate", "", "program to measure (default: built from ./cmd/ticketgate)")
	flag.StringVar(&o.only, "only", "", "scenarios, by comma: "+strings.Join(names(), ", ")+" (default: all)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	short   bool
	out     string
	gateway string
	only    string
}

// chosen are the scenarios to run.
func (o options) chosen() ([]scenario, error) {
	if o.only == "" {
		return scenarios, nil
	}
	var some []scenario
	for name := range strings.SplitSeq(o.only, ",") {
		i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no scenario %q: there are %s", name, strings.Join(names(), ", "))
		}
		some = append(some, scenarios[i])
	}
	return some, nil
}

type scenario struct {
	name string
	run  func(*runner) (*bench.Table, error)
}

var scenarios = []scenario{
	{"idle", idle},
	{"echo", echo},
	{"gate", gate},
	{"admissions", admissions},
	{"tickets", tickets},
}

func names() []string {
	var all []string
	for _, s := range scenarios {
		all = append(all, s.name)
	}
	return all
}

func run(ctx context.Context, o options) (err error) {
	some, err := o.chosen()
	if err != nil {
		return err
	}
	if err := preflight(o); err != nil {
		return err
	}
	host, err := bench.ReadHost()
	if err != nil {
		return err
	}
	r, err := newRunner(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.build(o.gateway); err != nil {
		return err
	}
	if err := bench.Pin(r.clientCore); err != nil { // after the build, which wants all cores
		return err
	}
	started := time.Now()
	var tables []*bench.Table
	for _, s := range some {
		r.say("%s", s.name)
		t, err := s.run(r)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		tables = append(tables, t)
	}
	return write(o, page{host, r, started, time.Since(started), tables})
}

// filesNeeded is the idle sockets of one process and some for everything else.
func filesNeeded(short bool) int { return idlePoints(short)[1] + 1000 }

func preflight(o options) error {
	missing, err := bench.Needs{Files: filesNeeded(o.short), Programs: []string{"redis-server", "go", "git"}}.Preflight()
	if err != nil {
		return err
	}
	if _, err := os.Stat("tools/peers/go.mod"); err != nil {
		missing = append(missing, "tools/peers is not here: run it from the repository's root")
	}
	if len(missing) > 0 {
		return fmt.Errorf("this machine is not ready:\n  %s", strings.Join(missing, "\n  "))
	}
	return nil
}

// build makes the gateway, unless there is one, and the programs it is compared with.
func (r *runner) build(gateway string) error {
	r.say("building")
	if gateway != "" {
		path, err := filepath.Abs(gateway)
		r.gateway = path
		if err != nil {
			return err
		}
	} else {
		r.gateway = filepath.Join(r.dir, "ticketgate")
		if err := r.command("go", "build", "-o", r.gateway, "./cmd/ticketgate"); err != nil {
			return err
		}
	}
	return r.command("go", "build", "-C", "tools/peers", "-o", r.dir+"/", "./...")
}

func (r *runner) command(name string, args ...string) error {
	if out, err := exec.CommandContext(r.ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
