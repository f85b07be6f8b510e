package main

import (
	"errors"
	"fmt"
	"time"

	"ticketgate/bench"
)

// pingTimes are how many sockets are watched, how often they are pinged, and for how long they are watched: two pings each
// and some, because the gateway spreads them.
func (o options) pingTimes() (sockets int, every, watch time.Duration) {
	if o.short {
		return 3000, 2 * time.Second, 4 * time.Second
	}
	return 15000, 25 * time.Second, 50 * time.Second
}

const noPing = time.Hour

// pings measures what it costs to ask idle sockets whether they are there: a watch with pings, and one as long without.
func pings(r *runner) (*section, error) {
	n, every, watch := r.pingTimes()
	with, err := r.watch(n, every, watch)
	if err != nil {
		return nil, err
	}
	without, err := r.watch(n, noPing, watch)
	if err != nil {
		return nil, err
	}
	if with.pings < n*19/10 || without.pings > 0 {
		return nil, fmt.Errorf("%d sockets were pinged %d times in %s at one ping in %s, and %d times at one in %s", n, with.pings, watch, every, without.pings, noPing)
	}
	per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 / float64(n) / watch.Seconds() }
	one := float64((with.cpu - without.cpu).Nanoseconds()) / 1e3 / float64(with.pings)
	at25 := (per(with.cpu) - per(without.cpu)) * every.Seconds() / 25
	row := func(every time.Duration, w watched) []string {
		return []string{every.String(), whole(w.pings), bench.Number(float64(w.cpu) / 1e6), fmt.Sprintf("%.3f", per(w.cpu))}
	}
	line := fmt.Sprintf("A ping and its pong cost %s µs. With `ping: 25s` that is %.3f µs a connection and second.", bench.Number(one), at25)
	if one <= 0 {
		line = "What pings cost is lost in what the rest differs by: the two watches have to be repeated on a quiet machine."
	}
	s := &section{tables: []*bench.Table{{
		Title: "Pings",
		About: fmt.Sprintf("%s idle sockets, watched for %s after they were opened; the client answers every ping. The server's CPU with pings less that without is what pings cost: writing the ping, reading the pong, the timer. "+
			"The rest is what an idle server does anyway.", whole(n), watch),
		Head:  []string{"a ping every", "pings answered", "server CPU ms", "µs a connection and second"},
		Rows:  [][]string{row(every, with), row(noPing, without)},
		Lines: []string{line},
	}}}
	s.goal("Pings every 25 s", "at most 0.5 µs of CPU a connection and second",
		fmt.Sprintf("%.3f µs; with all that the idle server does anyway %.3f µs", at25, at25+per(without.cpu)))
	return s, nil
}

// watched is what was seen of idle sockets.
type watched struct {
	cpu   time.Duration
	pings int
}

func (r *runner) watch(n int, every, d time.Duration) (_ watched, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	r.say("pings: %d sockets, a ping every %s, for %s", n, every, d)
	l, err := r.loop()
	if err != nil {
		return watched{}, err
	}
	g, err := r.gatewayWith(setup{ping: every})
	if err != nil {
		return watched{}, err
	}
	a := &bench.Admissions{Loop: l, API: g.api, Gate: g.gate, Host: g.host, Mint: g.mint, Keep: true, Max: n}
	a.Start(lanes)
	if err := errors.Join(l.RunUntil(r.ctx, giveUp, a.Idle), a.Err, l.RunFor(r.ctx, time.Second)); err != nil {
		return watched{}, err
	}
	first := a.Pings
	before, err := g.CPU()
	if err != nil {
		return watched{}, err
	}
	if err := l.RunFor(r.ctx, d); err != nil {
		return watched{}, err
	}
	after, err := g.CPU()
	if err == nil && a.Lost > 0 {
		err = fmt.Errorf("%d of %d sockets did not stay open", a.Lost, n)
	}
	return watched{after.Sub(before).Total(), a.Pings - first}, errors.Join(err, a.Err)
}
