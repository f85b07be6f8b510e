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

// pings measures what it costs to ask idle sockets whether they are there: a watch with pings, and one as long without, of the
// gateway and of the bare program that does the same.
func pings(r *runner) (*section, error) {
	n, every, watch := r.pingTimes()
	t := &bench.Table{
		Title: "Pings",
		About: fmt.Sprintf("%s idle sockets, watched for %s after they were opened; the client answers every ping. A server's CPU with pings less that without is what pings cost: writing the ping, reading the pong, the timer. "+
			"The rest is what an idle server does anyway. epollaccept writes two bytes to the sockets of every 2,048 ms, as the gateway, and reads what comes: it knows no deadline, no traffic that makes a ping needless, and no frame but a pong.", whole(n), watch),
		Head: []string{"server", "a ping every", "pings answered", "server CPU ms", "µs a connection and second"},
	}
	per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 / float64(n) / watch.Seconds() }
	var one, at25, rest []float64
	for _, server := range []struct {
		name  string
		start func(*runner, *bench.Loop, time.Duration) (bench.Process, *bench.Admissions, error)
	}{{"ticketgate", pingingGateway}, {"epollaccept", pingingBare}} {
		look := func(every time.Duration) (watched, error) {
			r.say("pings: %s, %d sockets, a ping every %s, for %s", server.name, n, every, watch)
			return r.watch(n, watch, func(l *bench.Loop) (bench.Process, *bench.Admissions, error) { return server.start(r, l, every) })
		}
		with, err := look(every)
		if err != nil {
			return nil, err
		}
		without, err := look(noPing)
		if err != nil {
			return nil, err
		}
		if with.pings < n*19/10 || without.pings > 0 {
			return nil, fmt.Errorf("%s: %d sockets were pinged %d times in %s at one ping in %s, and %d times at one in %s", server.name, n, with.pings, watch, every, without.pings, noPing)
		}
		one = append(one, float64((with.cpu-without.cpu).Nanoseconds())/1e3/float64(with.pings))
		at25 = append(at25, (per(with.cpu)-per(without.cpu))*every.Seconds()/25)
		rest = append(rest, per(without.cpu))
		row := func(every time.Duration, w watched) []string {
			return []string{server.name, every.String(), whole(w.pings), bench.Number(float64(w.cpu) / 1e6), fmt.Sprintf("%.3f", per(w.cpu))}
		}
		t.Rows = append(t.Rows, row(every, with), row(noPing, without))
		t.Lines = append(t.Lines, fmt.Sprintf("%s: a ping and its pong cost %s µs. At one in 25 s that is %.3f µs a connection and second.", server.name, bench.Number(one[len(one)-1]), at25[len(at25)-1]))
	}
	against := "what it costs was lost in what the watches differ by otherwise: repeat on a quiet machine"
	if one[0] > 0 && one[1] > 0 {
		against = fmt.Sprintf("%.2f times epollaccept's %.3f µs", one[0]/one[1], at25[1])
	}
	t.Lines = append(t.Lines, "Against each other: "+against+".")
	s := &section{tables: []*bench.Table{t}}
	s.goal("Pings every 25 s", "at most 0.5 µs of CPU a connection and second",
		fmt.Sprintf("%.3f µs, %s; with all that the idle server does anyway %.3f µs", at25[0], against, at25[0]+rest[0]))
	return s, nil
}

func pingingGateway(r *runner, l *bench.Loop, every time.Duration) (bench.Process, *bench.Admissions, error) {
	g, err := r.gatewayWith(setup{ping: every})
	if err != nil {
		return bench.Process{}, nil, err
	}
	return g.Process, &bench.Admissions{Loop: l, API: g.api, Gate: g.gate, Host: g.host, Mint: g.mint}, nil
}

func pingingBare(r *runner, l *bench.Loop, every time.Duration) (bench.Process, *bench.Admissions, error) {
	n, _, _ := r.pingTimes()
	if every == noPing {
		every = 0 // the bare program begins with the first sockets at once
	}
	return bareGate(r, l, n, "-ping", every.String())
}

// watched is what was seen of idle sockets.
type watched struct {
	cpu   time.Duration
	pings int
}

func (r *runner) watch(n int, d time.Duration, start func(*bench.Loop) (bench.Process, *bench.Admissions, error)) (_ watched, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	l, err := r.loop()
	if err != nil {
		return watched{}, err
	}
	server, a, err := start(l)
	if err != nil {
		return watched{}, err
	}
	a.Keep, a.Max = true, n
	a.Start(lanes)
	if err := errors.Join(l.RunUntil(r.ctx, giveUp, a.Idle), a.Err, l.RunFor(r.ctx, time.Second)); err != nil {
		return watched{}, err
	}
	first := a.Pings
	before, err := server.CPU()
	if err != nil {
		return watched{}, err
	}
	if err := l.RunFor(r.ctx, d); err != nil {
		return watched{}, err
	}
	after, err := server.CPU()
	if err == nil && a.Lost > 0 {
		err = fmt.Errorf("%d of %d sockets did not stay open", a.Lost, n)
	}
	return watched{after.Sub(before).Total(), a.Pings - first}, errors.Join(err, a.Err)
}
