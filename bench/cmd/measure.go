package main

import (
	"fmt"
	"time"

	"ticketgate/bench"
)

// A load is something that keeps a server busy. Start may be called again when Idle says so after Stop.
type load struct {
	name    string
	loop    *bench.Loop
	server  bench.Process
	helper  *bench.Process // whose processor time is shown beside the server's; nil: none
	start   func()
	stop    func()
	idle    func() bool
	done    func() uint64
	latency *bench.Hist
	failed  func() error
	prepare func() error // before each round; nil: nothing
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

// timed runs one round of a fixed length and waits until what was under way has ended.
func (r *runner) timed(l *load) error {
	l.start()
	if err := l.loop.RunFor(r.ctx, r.warm); err != nil {
		return err
	}
	l.latency.Reset()
	before, err := l.read()
	if err != nil {
		return err
	}
	if err := l.loop.RunFor(r.ctx, r.window); err != nil {
		return err
	}
	return r.finish(l, before)
}

// counted runs one round until all of a fixed number is done.
func (r *runner) counted(l *load) error {
	l.latency.Reset()
	before, err := l.read()
	if err != nil {
		return err
	}
	l.start()
	if err := l.loop.RunUntil(r.ctx, giveUp, l.idle); err != nil {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	return r.finish(l, before)
}

func (r *runner) finish(l *load, before reading) error {
	after, err := l.read()
	if err != nil {
		return err
	}
	s, err := l.between(before, after)
	if failure := l.failed(); failure != nil {
		return fmt.Errorf("%s: %w", l.name, failure)
	}
	if err != nil {
		return err
	}
	l.rounds = append(l.rounds, s)
	l.stop()
	if err := l.loop.RunUntil(r.ctx, giveUp, l.idle); err != nil {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	return l.failed()
}

// compare runs rounds of all loads in turn, so that a busy moment of the machine meets all of them.
func (r *runner) compare(round func(*load) error, loads ...*load) error {
	for range r.rounds {
		for _, l := range loads {
			if l.prepare != nil {
				if err := l.prepare(); err != nil {
					return fmt.Errorf("%s: %w", l.name, err)
				}
			}
			if err := round(l); err != nil {
				return err
			}
		}
	}
	return nil
}

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
	note := ""
	if l.over(func(s sample) float64 { return s.clientWanted }).Median >= clientBound {
		note = "client-bound"
	}
	return []string{
		l.name,
		l.over(func(s sample) float64 { return s.rate }).String(),
		l.over(func(s sample) float64 { return s.cpu }).String(),
		bench.Number(l.over(func(s sample) float64 { return s.user }).Median),
		share(func(s sample) float64 { return s.serverShare }),
		share(func(s sample) float64 { return s.clientShare }),
		took(func(s sample) time.Duration { return s.median }),
		took(func(s sample) time.Duration { return s.ninetyNine }),
		note,
	}
}

// ratio compares l with a bare server, round by round.
func ratio(l, bare *load) string {
	var rate, cpu []float64
	for i := range min(len(l.rounds), len(bare.rounds)) {
		rate = append(rate, l.rounds[i].rate/bare.rounds[i].rate)
		cpu = append(cpu, l.rounds[i].cpu/bare.rounds[i].cpu)
	}
	return fmt.Sprintf("%s against %s: %s times the rate, %s times the server CPU per operation.",
		l.name, bare.name, bench.SpreadOf(rate), bench.SpreadOf(cpu))
}
