package main

import (
	"errors"
	"fmt"
	"time"

	"ticketgate/bench"
)

// A pingPlan is how idle sockets are watched: rounds as long as a ping needs to come to each of them, and as many, as long, without pings.
type pingPlan struct {
	sockets int           // of each server
	every   time.Duration // how often each is pinged, and how long a round is
	rounds  int
}

// pingPlan has a round less where check looks again: three would be a quarter of all the time that it takes.
func (o options) pingPlan() pingPlan {
	switch {
	case o.short:
		return pingPlan{3000, 2 * time.Second, 2}
	case o.check:
		return pingPlan{7500, productPing, 2}
	default:
		return pingPlan{7500, productPing, 3}
	}
}

const (
	noPing     = time.Hour
	pingsLeast = 0.95 // of the sockets: with fewer pinged in a round it is no measure of pings

	// The gateway spreads first pings over 2,952 ms (a fifth of 25 s less its grid of 2,048 ms) and over the second or so in which the
	// sockets are opened, on that grid: two or three bursts, which come again every 24,576 ms. epollaccept makes three, so that it does not
	// wake, or find its sockets cold, more often or more rarely.
	pingBursts = 3
)

// A watched is what was seen of idle sockets in one round.
type watched struct {
	cpu, took time.Duration
	pings     int
}

// rate is processor time, µs a second.
func (w watched) rate() float64 { return micros(w.cpu) / w.took.Seconds() }

// A pinger is a server that was watched with pings and without.
type pinger struct {
	name          string
	with, without []watched
}

// pings measures what it costs to ask idle sockets whether they are there: a watch with pings, and one without, of the gateway and of the
// bare program that does the same. Both are watched at the same time: what a ping costs after two seconds of sleep depends on what else the
// machine does more than on the server, and servers that were watched one after the other differed by twice and more.
func pings(r *runner) (*section, error) {
	p := r.pingPlan()
	a, b := pinger{name: ours}, pinger{name: "epollaccept"}
	for _, one := range []struct {
		a, b  *[]watched
		every time.Duration
	}{{&a.with, &b.with, p.every}, {&a.without, &b.without, noPing}} {
		r.say("pings: %d sockets of each, a ping every %s, %d times %s", p.sockets, one.every, p.rounds, p.every)
		var err error
		if *one.a, *one.b, err = r.watch(p, one.every); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(a.pinged(p), b.pinged(p)); err != nil {
		return nil, err
	}
	return pingsSection(p, a, b), nil
}

// pinged says what keeps s from being a measure of pings.
func (s *pinger) pinged(p pingPlan) error {
	for _, w := range s.with {
		if float64(w.pings) < pingsLeast*float64(p.sockets) {
			return fmt.Errorf("%s: of %d sockets %d answered a ping in %s, at one every %s", s.name, p.sockets, w.pings, w.took, p.every)
		}
	}
	for _, w := range s.without {
		if w.pings > 0 {
			return fmt.Errorf("%s: %d pings in %s, at one every %s", s.name, w.pings, w.took, noPing)
		}
	}
	return nil
}

// each is what a ping and its pong cost, µs: a round with pings less one without, so that what rounds without pings differ by is in
// the spread too. Rounds differ in how many pings fall into them.
func (s *pinger) each() (all []float64) {
	for i, w := range s.with {
		all = append(all, (w.rate()-s.without[i].rate())*w.took.Seconds()/float64(w.pings))
	}
	return all
}

// inAll is what each of n sockets that is pinged every 25 s takes with all that s does anyway, µs a second.
func (s *pinger) inAll(n float64) []float64 {
	all := s.each()
	for i, us := range all {
		all[i] = us/productPing.Seconds() + s.without[i].rate()/n
	}
	return all
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// pingsSection shows what was seen of the gateway and of the bare program.
func pingsSection(p pingPlan, a, b pinger) *section {
	t := &bench.Table{
		Title: "Pings",
		About: fmt.Sprintf("%s idle sockets of each server, at the same time, watched for %d times %s after they were opened, in which every one is pinged once; the client answers every ping. A server's CPU with pings less that without is what pings cost: writing the ping, reading the pong, the timer. "+
			"The rest is what an idle server does anyway, seen as often and as long: each round with pings has one without. epollaccept writes two bytes to a third of its sockets at a time, in as many bursts as the gateway comes to here, and reads what comes: it knows no deadline, no traffic that makes a ping needless, and no frame but a pong. "+
			"Alone of the bare programs it tells Go's scheduler of its waits, which else looks at the sleeping thread a hundred times a second.",
			whole(p.sockets), p.rounds, p.every),
		Head: []string{"server", "a ping every", "watched for", "pings answered", "server CPU ms", "µs a connection and second"},
	}
	n := float64(p.sockets)
	for _, s := range []*pinger{&a, &b} {
		for _, kind := range []struct {
			every  time.Duration
			rounds []watched
		}{{p.every, s.with}, {noPing, s.without}} {
			var sum watched
			for _, w := range kind.rounds {
				sum.cpu, sum.took, sum.pings = sum.cpu+w.cpu, sum.took+w.took, sum.pings+w.pings
			}
			t.Rows = append(t.Rows, []string{s.name, kind.every.String(), sum.took.Round(time.Second).String(), whole(sum.pings), bench.Number(float64(sum.cpu) / 1e6),
				fmt.Sprintf("%.3f", micros(sum.cpu)/n/sum.took.Seconds())})
		}
		each := bench.SpreadOf(s.each())
		t.Lines = append(t.Lines, fmt.Sprintf("%s: a ping and its pong cost %s µs. At one in 25 s that is %.3f µs a connection and second.", s.name, each, each.Median/productPing.Seconds()))
	}
	s := &section{tables: []*bench.Table{t}}
	against := s.pingsAgainst(n, &a, &b)
	t.Lines = append(t.Lines, "Against each other: "+against+".")
	s.goal("Pings every 25 s", "at most 0.5 µs of CPU a connection and second",
		fmt.Sprintf("%.3f µs, %s; with all that the idle server does anyway %.3f µs", bench.SpreadOf(a.each()).Median/productPing.Seconds(), against, bench.SpreadOf(a.inAll(n)).Median))
	return s
}

// pingsAgainst compares n sockets of a with those of b, round by round: pings alone, and with all that either does for idle sockets, of
// which b, whose waits Go's scheduler is told of, does next to nothing.
func (s *section) pingsAgainst(n float64, a, b *pinger) string {
	var alone, withRest []float64
	ours, theirs, oursInAll, theirsInAll := a.each(), b.each(), a.inAll(n), b.inAll(n)
	for i := range min(len(ours), len(theirs)) {
		if ours[i] <= 0 || theirs[i] <= 0 {
			return "what it costs was lost in what the watches differ by otherwise: repeat on a quiet machine"
		}
		alone = append(alone, ours[i]/theirs[i])
		withRest = append(withRest, oursInAll[i]/theirsInAll[i])
	}
	s.compared("Pings: CPU of a ping against "+b.name, bench.SpreadOf(alone))
	s.compared("Pings, with all that idle servers do: CPU against "+b.name, bench.SpreadOf(withRest))
	return fmt.Sprintf("%s times %s's %.3f µs", bench.SpreadOf(alone), b.name, bench.SpreadOf(theirs).Median/productPing.Seconds())
}

func pingingGateway(r *runner, l *bench.Loop, every time.Duration) (bench.Process, *bench.Admissions, error) {
	g, err := r.gatewayWith(setup{ping: every})
	if err != nil {
		return bench.Process{}, nil, err
	}
	return g.Process, &bench.Admissions{Loop: l, API: g.api, Gate: g.gate, Host: g.host, Mint: g.mint}, nil
}

func pingingBare(r *runner, l *bench.Loop, every time.Duration) (bench.Process, *bench.Admissions, error) {
	if every == noPing {
		every = 0 // the bare program begins with the first sockets at once
	}
	return bareGate(r, l, r.pingPlan().sockets, "-calm", "-ping", every.String(), "-bursts", fmt.Sprint(pingBursts))
}

// watch opens p's sockets to each of both servers, which ping them so often, and watches them for p's rounds.
func (r *runner) watch(p pingPlan, every time.Duration) (ours, bare []watched, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	l, err := r.loop()
	if err != nil {
		return nil, nil, err
	}
	var all [2]struct {
		server bench.Process
		*bench.Admissions
		seen []watched
	}
	for i, start := range []func(*runner, *bench.Loop, time.Duration) (bench.Process, *bench.Admissions, error){pingingGateway, pingingBare} {
		one := &all[i]
		if one.server, one.Admissions, err = start(r, l, every); err != nil {
			return nil, nil, err
		}
		one.Keep, one.Max = true, p.sockets
		one.Start(lanes)
		if err := errors.Join(l.RunUntil(r.ctx, giveUp, one.Idle), one.Err); err != nil {
			return nil, nil, err
		}
	}
	err = l.RunFor(r.ctx, time.Second)
	for round := 0; round < p.rounds && err == nil; round++ {
		var before [len(all)]bench.CPU
		var pinged [len(all)]int
		began := l.Now()
		for i := range all {
			if before[i], err = all[i].server.CPU(); err != nil {
				return nil, nil, err
			}
			pinged[i] = all[i].Pings
		}
		if err := l.RunFor(r.ctx, p.every); err != nil {
			return nil, nil, err
		}
		for i := range all {
			after, err := all[i].server.CPU()
			if err != nil {
				return nil, nil, err
			}
			all[i].seen = append(all[i].seen, watched{after.Sub(before[i]).Total(), l.Now() - began, all[i].Pings - pinged[i]})
		}
	}
	for i := range all {
		if all[i].Lost > 0 {
			err = errors.Join(err, fmt.Errorf("%d of %d sockets did not stay open", all[i].Lost, p.sockets))
		}
		err = errors.Join(err, all[i].Err)
	}
	return all[0].seen, all[1].seen, err
}
