package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"ticketgate/bench"
)

// A load is something that keeps a server busy. Start may be called again when Idle says so after Stop.
type load struct {
	name    string
	title   string // in profiles
	loop    *bench.Loop
	server  bench.Process
	also    *bench.Process // the server's other process, whose processor time counts as the server's; nil: it has one
	helper  *bench.Process // whose processor time is shown beside the server's; nil: none
	start   func()
	stop    func()
	idle    func() bool
	done    func() uint64
	latency *bench.Hist
	failed  func() error
	prepare func() error // before each round; nil: nothing
	after   func() error // after each round, and not counted; nil: nothing
	note    string       // beside its row
	rounds  []sample
}

// A sample is what one round gave.
type sample struct {
	rate                        float64 // operations a second
	cpu, user                   float64 // of the server, µs an operation; user is a part of cpu
	helper                      float64 // of the helper, µs an operation
	serverShare, clientShare    float64 // of a core
	clientWanted                float64 // of a core: what the client used and what it had to wait for
	median, ninetyNine, longest time.Duration
}

// clientBound is the share of a core from which on the client never rests, and may be what a rate shows.
const clientBound = 0.9

// A reading is the state of all counters at one moment.
type reading struct {
	at             time.Duration
	done           uint64
	server, client bench.CPU
	helper         bench.CPU
	waited         time.Duration // by the client for its core
}

func (l *load) read() (reading, error) {
	server, err := l.server.CPU()
	if err != nil {
		return reading{}, err
	}
	if l.also != nil {
		more, err := l.also.CPU()
		if err != nil {
			return reading{}, err
		}
		server.User += more.User
		server.System += more.System
	}
	var helper bench.CPU
	if l.helper != nil {
		if helper, err = l.helper.CPU(); err != nil {
			return reading{}, err
		}
	}
	client, err := bench.OwnCPU()
	if err != nil {
		return reading{}, err
	}
	waited, err := bench.OwnWait()
	return reading{l.loop.Now(), l.done(), server, client, helper, waited}, err
}

// between makes a sample of two readings.
func (l *load) between(a, b reading) (sample, error) {
	n := float64(b.done - a.done)
	if n == 0 {
		return sample{}, fmt.Errorf("%s: nothing was done in a round", l.name)
	}
	wall, server, client := b.at-a.at, b.server.Sub(a.server).Total(), b.client.Sub(a.client).Total()
	per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 / n }
	return sample{
		rate:         n / wall.Seconds(),
		cpu:          per(server),
		user:         per(b.server.Sub(a.server).User),
		helper:       per(b.helper.Sub(a.helper).Total()),
		serverShare:  float64(server) / float64(wall),
		clientShare:  float64(client) / float64(wall),
		clientWanted: float64(client+b.waited-a.waited) / float64(wall),
		median:       l.latency.Quantile(0.5),
		ninetyNine:   l.latency.Quantile(0.99),
		longest:      l.latency.Max(),
	}, nil
}

// timed runs one round in which operations begin for a fixed time. It counts from rest to rest, so that every operation has
// all of its cost in the round, however many sockets take turns.
func (r *runner) timed(l *load) error {
	return r.round(l, func() error { return l.loop.RunFor(r.ctx, r.window) })
}

// counted runs one round until all of a fixed number is done.
func (r *runner) counted(l *load) error {
	return r.round(l, func() error { return l.loop.RunUntil(r.ctx, giveUp, l.idle) })
}

func (r *runner) round(l *load, run func() error) error {
	l.latency.Reset()
	before, err := l.read()
	if err != nil {
		return err
	}
	l.start()
	err = run()
	l.stop()
	if err == nil {
		err = l.loop.RunUntil(r.ctx, giveUp, l.idle)
	}
	if err := errors.Join(l.failed(), err); err != nil {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	after, err := l.read()
	if err != nil {
		return err
	}
	s, err := l.between(before, after)
	if err == nil {
		l.rounds = append(l.rounds, s)
	}
	return err
}

// compare runs rounds of all loads in turn, so that a busy moment of the machine meets all of them.
func (r *runner) compare(round func(*load) error, loads ...*load) error {
	for range r.rounds {
		for _, l := range loads {
			if err := l.turn(round); err != nil {
				return err
			}
		}
	}
	if r.profile == "" {
		return nil
	}
	for _, l := range loads {
		if err := l.turn(r.record); err != nil {
			return err
		}
	}
	return nil
}

// turn is a round and what belongs around it.
func (l *load) turn(round func(*load) error) error {
	if l.prepare != nil {
		if err := l.prepare(); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	if err := round(l); err != nil {
		return err
	}
	if l.after != nil {
		if err := l.after(); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return nil
}

// cpu is the server's, µs an operation.
func (l *load) cpu() bench.Spread { return l.over(func(s sample) float64 { return s.cpu }) }

// over takes one figure of every round.
func (l *load) over(f func(sample) float64) bench.Spread {
	var all []float64
	for _, s := range l.rounds {
		all = append(all, f(s))
	}
	return bench.SpreadOf(all)
}

// head names the columns of a load's row.
func head(operation string) []string {
	return []string{"server", operation + "/s", "server CPU µs/" + operation, "of it user", "server core", "client core", "p50", "p99", "note"}
}

// row shows medians over the rounds, with the smallest and the largest where they matter.
func (l *load) row() []string {
	share := func(f func(sample) float64) string { return fmt.Sprintf("%.0f %%", 100*l.over(f).Median) }
	took := func(f func(sample) time.Duration) string {
		us := l.over(func(s sample) float64 { return float64(f(s).Nanoseconds()) / 1e3 }).Median
		return bench.Number(us) + " µs"
	}
	note := l.note
	if l.over(func(s sample) float64 { return s.clientWanted }).Median >= clientBound {
		note = strings.TrimPrefix(note+"; client-bound", "; ")
	}
	return []string{
		l.name,
		l.over(func(s sample) float64 { return s.rate }).String(),
		l.cpu().String(),
		bench.Number(l.over(func(s sample) float64 { return s.user }).Median),
		share(func(s sample) float64 { return s.serverShare }),
		share(func(s sample) float64 { return s.clientShare }),
		took(func(s sample) time.Duration { return s.median }),
		took(func(s sample) time.Duration { return s.ninetyNine }),
		note,
	}
}

// ratios compares l with a bare server, round by round.
func ratios(l, bare *load) (rate, cpu bench.Spread) {
	var rates, cpus []float64
	for i := range min(len(l.rounds), len(bare.rounds)) {
		rates = append(rates, l.rounds[i].rate/bare.rounds[i].rate)
		cpus = append(cpus, l.rounds[i].cpu/bare.rounds[i].cpu)
	}
	return bench.SpreadOf(rates), bench.SpreadOf(cpus)
}

// ratio says what ratios gives.
func ratio(l, bare *load) string {
	rate, cpu := ratios(l, bare)
	return fmt.Sprintf("%s against %s: %s times the rate, %s times the server CPU per operation.", l.name, bare.name, rate, cpu)
}
