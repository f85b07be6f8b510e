// Command cmd measures ticketgate next to programs that do the least possible, and writes bench/RESULTS.md. It is what
// `make bench` runs, from the repository's root.
package main

import (
	"cmp"
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
	o := options{sizes: allSizes}
	flag.Var(&o.sockets, "sockets", "numbers of sockets for echo and relay, by comma (default: 100,1000,10000; with -short without the last)")
	flag.Var(&o.sizes, "sizes", "bytes of a message for echo and relay, by comma")
	flag.StringVar(&o.profile, "profile", "", "folder for processor profiles of the servers, made with perf after each measurement")
	flag.BoolVar(&o.short, "short", false, "two minutes instead of fifteen: fewer rounds, fewer sockets")
	flag.StringVar(&o.out, "out", "", "file to write, - for stdout (default: bench/RESULTS.md, bench/MILLION.md with -million; with -short, -only and -against it has to be said)")
	flag.StringVar(&o.gateway, "ticketgate", "", "program to measure (default: built from ./cmd/ticketgate)")
	flag.BoolVar(&o.check, "check", false, "compare with what the last whole run recorded, and fail if something is worse")
	flag.BoolVar(&o.peers, "peers", false, "compare with other servers instead of bare programs")
	flag.StringVar(&o.against, "against", "", "with -peers, the servers to compare with, by comma: "+strings.Join(rivals(), ", ")+" (default: all)")
	flag.StringVar(&o.only, "only", "", "scenarios, by comma: "+strings.Join(names(scenarios), ", ")+"; with -peers "+strings.Join(names(peerScenarios), ", ")+" (default: all)")
	flag.StringVar(&o.programs, "programs", "", "folder of \"make bench-idle-programs\" or \"make bench-million-guest\": measure idle sockets, or -million, with what is in it, where there is no Go, and write that part of the page")
	flag.IntVar(&o.million, "million", 0, "instead of all this: hold so many sockets, on as many gateways as they need")
	flag.DurationVar(&o.hold, "hold", 10*time.Minute, "how long -million holds them")
	flag.DurationVar(&o.ping, "ping", productPing, "how often -million pings each")
	flag.Parse()
	err := o.allowed()
	o.complete()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	do := run
	switch {
	case o.million > 0:
		do = million
	case o.check:
		do = check
	}
	if err == nil {
		err = do(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// allSizes are the bytes of a message for echo and relay, unless a flag says otherwise.
var allSizes = numbers{32, 1024, 16384}

type options struct {
	short   bool
	out     string
	gateway string
	only    string
	peers   bool
	against string
	check   bool
	profile string
	million int

	programs string
	hold     time.Duration
	ping     time.Duration
	sockets  numbers
	sizes    numbers

	// What only tests set: a million of 600 sockets has several gateways too.
	perProcess int           // descriptors that a process is taken to have; 0: as many as it may
	each       int           // tickets, clients or calls of a round in the scenarios about the store and the tables; 0: as many as the page says
	rest       time.Duration // how long the gateways of -million are watched without a socket; 0: millionRest
}

// allowed says what is wrong with o as the flags have it, before anything is done.
func (o options) allowed() error {
	if err := o.knowsRivals(); err != nil {
		return err
	}
	if left := o.leavesOut(); left != "" && o.out == "" && o.million == 0 && !o.check {
		return fmt.Errorf("%s: bench/RESULTS.md is from whole runs, and this one would take the place of all that the last one has measured: add -out - to print what it finds, or -out and another file", left)
	}
	return nil
}

// leavesOut are the flags that make less of a run than its part of the page shows.
func (o options) leavesOut() string {
	var all []string
	for _, f := range []struct {
		name string
		set  bool
	}{{"-short", o.short}, {"-only", o.only != ""}, {"-against", o.against != ""}} {
		if f.set {
			all = append(all, f.name)
		}
	}
	return strings.Join(all, ", ")
}

// complete fills in what the flags left open.
func (o *options) complete() {
	o.out = cmp.Or(o.out, filepath.Join("bench", map[bool]string{false: "RESULTS.md", true: "MILLION.md"}[o.million > 0]))
	if o.programs != "" {
		o.only, o.gateway = "idle", filepath.Join(o.programs, ours)
	}
	if len(o.sockets) > 0 {
		return
	}
	o.sockets = numbers{100, 1000}
	if !o.short {
		o.sockets = append(o.sockets, 10000)
	}
}

// chosen are the scenarios to run.
func (o options) chosen() ([]scenario, error) {
	all := scenarios
	if o.peers {
		all = peerScenarios
	}
	if o.only == "" {
		return all, nil
	}
	var some []scenario
	for name := range strings.SplitSeq(o.only, ",") {
		i := slices.IndexFunc(all, func(s scenario) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no scenario %q: there are %s", name, strings.Join(names(all), ", "))
		}
		some = append(some, all[i])
	}
	return some, nil
}

type scenario struct {
	name string
	run  func(*runner) (*section, error)
}

var scenarios = []scenario{
	{"idle", idle},
	{"echo", echo},
	{"relay", relay},
	{"client", client},
	{"gate", gate},
	{"admissions", admissions},
	{"tickets", tickets},
	{"pings", pings},
	{"flood", flood},
	{"store", storeCosts},
	{"scale", scale},
	{"replicas", replicas},
	{"growth", growth},
	{"slow", slow},
}

func names(of []scenario) []string {
	var all []string
	for _, s := range of {
		all = append(all, s.name)
	}
	return all
}

func run(ctx context.Context, o options) error {
	var calls map[string]call
	if o.records() {
		fmt.Fprintln(os.Stderr, "what functions allocate")
		var err error
		if calls, err = recordCalls(ctx); err != nil { // before this process has only one core
			return err
		}
	}
	p, err := measureAll(ctx, o)
	if err != nil {
		return err
	}
	if err := write(o, p); err != nil || calls == nil {
		return err
	}
	return p.keep(filepath.Join(filepath.Dir(o.out), recordFile), calls)
}

// records says that o measures all that check compares.
func (o options) records() bool {
	return !o.peers && !o.short && o.only == "" && o.out != "-" && o.gateway == "" && slices.Equal(o.sizes, allSizes) && o.sockets.have(checkedSockets)
}

// measureAll runs the chosen scenarios.
func measureAll(ctx context.Context, o options) (_ page, err error) {
	some, err := o.chosen()
	if err != nil {
		return page{}, err
	}
	if err := preflight(o); err != nil {
		return page{}, err
	}
	host, err := bench.ReadHost()
	if err != nil {
		return page{}, err
	}
	if o.profile != "" {
		if err := os.MkdirAll(o.profile, 0o755); err != nil { //nolint:gosec // profiles are no secrets
			return page{}, err
		}
	}
	r, err := newRunner(ctx, o)
	if err != nil {
		return page{}, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.build(o.gateway); err != nil {
		return page{}, err
	}
	if err := bench.Pin(r.clientCore); err != nil { // after the build, which wants all cores
		return page{}, err
	}
	started := time.Now()
	var parts []*section
	for _, s := range some {
		r.say("%s", s.name)
		part, err := s.run(r)
		if err != nil {
			return page{}, fmt.Errorf("%s: %w", s.name, err)
		}
		parts = append(parts, part)
	}
	return page{host, r, started, time.Since(started), parts}, nil
}

// filesNeeded is the most sockets that one process has, and some for everything else: the gateway leaves a tenth unused.
// Growth and relay do with fewer sockets where there are not enough.
func (o options) filesNeeded() int {
	most := max(o.idlePoints()[1]+idleWarm, slices.Max(o.sockets))
	return max(most*10/9, most+filesBeside)
}

// filesBeside is how many descriptors a client needs beside its sockets.
const filesBeside = 500

func preflight(o options) error {
	if o.programs != "" {
		return ready(bench.Needs{Files: o.filesNeeded()})
	}
	programs := []string{"redis-server", "go", "git", "ss"}
	if o.profile != "" {
		programs = append(programs, "perf")
	}
	if o.peers && o.needsNode() {
		programs = append(programs, "node", "npm")
	}
	if _, err := os.Stat("tools/peers/go.mod"); err != nil {
		return errors.New("tools/peers is not here: run it from the repository's root")
	}
	if o.peers {
		for _, p := range proxies {
			if _, err := daemon(p.name); err != nil && o.compares(p.name) {
				return fmt.Errorf("%s is not installed: apt-get install %s", p.name, p.name)
			}
		}
	}
	return ready(bench.Needs{Files: o.filesNeeded(), Programs: programs})
}

func ready(n bench.Needs) error {
	missing, err := n.Preflight()
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("this machine is not ready:\n  %s", strings.Join(missing, "\n  "))
	}
	return err
}

// build makes the gateway, unless there is one, and the programs it is compared with.
func (r *runner) build(gateway string) error {
	if err := r.buildGateway(gateway); err != nil || r.programs != "" {
		return err
	}
	if err := r.command("go", append([]string{"build", "-C", "tools/peers", "-o", r.dir + "/"}, r.peerPackages()...)...); err != nil || !r.peers || !r.needsNode() {
		return err
	}
	npm := filepath.Join(r.dir, "npmws") // so that nothing is installed in the tree
	if err := os.CopyFS(npm, os.DirFS(filepath.Join("tools", "peers", "npmws"))); err != nil {
		return err
	}
	return r.command("npm", "ci", "--prefix", npm, "--ignore-scripts", "--no-audit", "--no-fund")
}

func (r *runner) buildGateway(gateway string) error {
	r.say("building")
	if gateway != "" {
		path, err := filepath.Abs(gateway)
		r.program = path
		return err
	}
	r.program = filepath.Join(r.dir, "ticketgate")
	return r.command("go", "build", "-o", r.program, "./cmd/ticketgate")
}

func (r *runner) command(name string, args ...string) error {
	if out, err := exec.CommandContext(r.ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
