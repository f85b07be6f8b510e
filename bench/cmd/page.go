package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"ticketgate/bench"
)

// A page is what one run writes: a part of RESULTS.md, whose other parts stay as they are.
type page struct {
	host    bench.Host
	r       *runner
	started time.Time
	took    time.Duration
	parts   []*section
}

// A section is what a scenario gave.
type section struct {
	tables []*bench.Table
	goals  [][]string              // what, what is wanted, what was measured
	ratios map[string]bench.Spread // what check compares; less is better
	most   map[string]float64      // what some of them may be at most, whatever was recorded
}

func (s *section) goal(what, want, got string) { s.goals = append(s.goals, []string{what, want, got}) }

const howToRead = `**How to read it.** Every figure is the median of the rounds, with the smallest and the largest in brackets; servers that
are compared take turns, round by round, under the same client. A round runs from rest to rest: until the last operation that began in its
time is done. Client and server are separate processes, each on a core of its
own, on loopback. *server CPU* is what the scheduler gave the server's process (all threads, user and system; of it *user* is known
in steps of 10 ms only) for one operation: it is what a core is worth, and other work on the machine moves it much less than a rate. *server core* and
*client core* are shares of a core. A row says *client-bound* when the client, running or waiting for its core, took 90 % of the time:
the rate is then the client's as much as the server's, and only the CPU figure compares. Loopback charges most of the kernel's TCP work
to the side that writes. The bare programs (tools/peers) only move the same bytes, on one level-triggered epoll loop of raw system calls, without
a scheduler or a collector: they are a floor, not competitors. One machine, no network card: take ratios from here, and measure your own.
`

// compared keeps v for check.
func (s *section) compared(name string, v bench.Spread) {
	if s.ratios == nil {
		s.ratios = make(map[string]bench.Spread)
	}
	s.ratios[name] = v
}

// bounded keeps v for check, which also fails when the middle of it lies above most.
func (s *section) bounded(name string, v bench.Spread, most float64) {
	s.compared(name, v)
	if s.most == nil {
		s.most = make(map[string]float64)
	}
	s.most[name] = most
}

// busy is the load average per core from which on the page says that the machine was not quiet.
const busy = 0.5

func write(o options, p page) error {
	var b strings.Builder
	if err := p.write(&b); err != nil {
		return err
	}
	if o.out == "-" {
		_, err := fmt.Print(b.String())
		return err
	}
	if err := replaceIn(o.out, partsOfPage, o.part(), b.String()); err != nil {
		return err
	}
	p.r.say("wrote %s after %s", o.out, p.took.Round(time.Second))
	return nil
}

// partsOfPage are in the order in which they stand.
var partsOfPage = []string{"bare", "idle", "peers"}

func (o options) part() string {
	switch {
	case o.peers:
		return "peers"
	case o.programs != "":
		return "idle"
	default:
		return "bare"
	}
}

// replaceIn puts text in the place of a part of file, which need not be there.
func replaceIn(file string, parts []string, part, text string) error {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile(file, []byte(replacePart(string(old), parts, part, text)), 0o644)
}

// replacePart puts text in the place of a part of page, whose parts stand in the order of parts. What is in no part goes.
func replacePart(page string, parts []string, part, text string) string {
	var b strings.Builder
	for _, name := range parts {
		begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->\n"
		_, rest, _ := strings.Cut(page, begin)
		now, _, _ := strings.Cut(rest, end)
		if name == part {
			now = text
		}
		if now != "" {
			b.WriteString(begin + now + end)
		}
	}
	return b.String()
}

func (p page) write(b *strings.Builder) error {
	commit, err := commit(p.r.programs)
	if err != nil {
		return err
	}
	title, about := "Results: against the least possible", ""
	switch p.r.part() {
	case "peers":
		title, about = "Results: against other servers", peersAbout+"\n\n"
	case "idle":
		title, about = "Results: idle sockets on another machine", idleAbout+"\n\n"
	}
	fmt.Fprintf(b, "# "+title+"\n\n"+about+"Written by `%s` on %s, in %s. Do not edit.\n\n",
		commandLine(), p.started.UTC().Format("2006-01-02 15:04 MST"), p.took.Round(time.Second))
	fmt.Fprintf(b, "| | |\n|---|---|\n| machine | %s, %d cores, %.1f GiB |\n| kernel | Linux %s |\n| Go | %s |\n| commit | %s |\n",
		p.host.CPU, p.host.Cores, float64(p.host.Memory)/(1<<30), p.host.Kernel, p.host.Go, commit)
	fmt.Fprintf(b, "| load average at the start | %.2f |\n| rounds | %d, timed ones of %s |\n| cores | client %d, server %d |\n\n",
		p.host.Load, p.r.rounds, p.r.window, p.r.clientCore, p.r.serverCore)
	b.WriteString(howToRead + "\n")
	if p.r.shared() {
		b.WriteString("**This machine has one core: client and server disturb each other in every figure.**\n\n")
	}
	if p.host.Load > busy*float64(p.host.Cores) {
		b.WriteString("**Other programs were running: rates and latencies are lower and higher than this machine can do, and spread widely.**\n\n")
	}
	var tables []*bench.Table
	goals := &bench.Table{Title: "In short", About: "What is wanted, and what was measured; how is said further down.", Head: []string{"what", "wanted", "measured"}}
	for _, s := range p.parts {
		tables = append(tables, s.tables...)
		goals.Rows = append(goals.Rows, s.goals...)
	}
	if len(goals.Rows) > 0 {
		tables = append([]*bench.Table{goals}, tables...)
	}
	for _, t := range tables {
		if _, err := t.WriteTo(b); err != nil {
			return err
		}
	}
	return nil
}

// commandLine is what was typed, whatever folder the program lies in.
func commandLine() string {
	return strings.Join(append([]string{"go", "run", "./bench/cmd"}, os.Args[1:]...), " ")
}

const idleAbout = "What an idle socket takes where the kernel seals and opens TLS records, which the machine of the other parts does not. " +
	"Only bytes are to be taken from here: the machine may be an emulated one. `make bench-idle-programs` makes what to take there."

// commitFile names the commit in a folder of programs.
const commitFile = "commit"

// commit names what was measured.
func commit(programs string) (string, error) {
	if programs != "" {
		name, err := os.ReadFile(filepath.Join(programs, commitFile))
		return strings.TrimSpace(string(name)), err
	}
	head, err := exec.Command("git", "rev-parse", "--short=12", "--verify", "HEAD").Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "none yet", nil
	}
	if err != nil {
		return "", fmt.Errorf("git: %w", err)
	}
	// What runs write is no change of what they measure.
	changed, err := exec.Command("git", "status", "--porcelain", "--", ":!bench/*.md", ":!bench/*.svg", ":!bench/record.json").Output()
	if err != nil {
		return "", fmt.Errorf("git status: %w", err)
	}
	name := strings.TrimSpace(string(head))
	if len(changed) > 0 {
		name += ", dirty"
	}
	return name, nil
}

// whole writes n with thousands apart.
func whole(n int) string {
	if n < 100 {
		return strconv.Itoa(n)
	}
	return bench.Number(float64(n))
}
