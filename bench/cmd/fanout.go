package main

import (
	"errors"
	"fmt"
	"time"

	"ticketgate/bench"
)

// fanoutCells are subscribers, bytes of a message, and the time between two.
func (o options) fanoutCells() []fanoutCell {
	if o.short {
		return []fanoutCell{{500, 128, 20 * time.Millisecond}}
	}
	return []fanoutCell{
		{1000, 128, 20 * time.Millisecond}, {1000, 1024, 20 * time.Millisecond},
		{10000, 128, 200 * time.Millisecond}, {10000, 1024, 200 * time.Millisecond},
	}
}

type fanoutCell struct {
	sockets, payload int
	every            time.Duration
}

// clockFrame is how many bytes of the clock's message are not padding.
const clockFrame = 50

// peerFanout measures one message to many subscribers.
func peerFanout(r *runner) (_ *section, err error) {
	const about = "The server sends each subscriber the same text message at fixed times, 50,000 deliveries a second in all; it makes the message itself. CPU is that of the server for one delivery, the latency runs from the time in the message to its arrival at each subscriber. " +
		"Servers take turns, each alone with its subscribers."
	t := &bench.Table{Title: "Fan-out", About: about, Head: append([]string{"subscribers", "bytes"}, head("delivery")...)}
	bars := &bench.Bars{Title: t.Title, Names: r.among(feedNames()...)}
	for _, c := range r.fanoutCells() {
		loads, err := r.fanout(c)
		if err != nil {
			return nil, fmt.Errorf("%d subscribers, %d B: %w", c.sockets, c.payload, err)
		}
		for _, l := range loads {
			t.Rows = append(t.Rows, append([]string{whole(c.sockets), whole(c.payload)}, l.row()...))
		}
		panel := bench.BarPanel{X: fmt.Sprintf("%s subscribers, %s B: server CPU, µs a delivery", whole(c.sockets), whole(c.payload))}
		for _, l := range loads {
			panel.Values = append(panel.Values, l.cpu().Median)
		}
		bars.Panels = append(bars.Panels, panel)
		best := ""
		for _, l := range loads[1:] {
			_, cpu := ratios(l, loads[0])
			best += fmt.Sprintf("; %s %s", l.name, cpu)
		}
		t.Lines = append(t.Lines, fmt.Sprintf("%s subscribers, %s B: CPU a delivery, in times of %s's%s. A core of %s delivers %s a second.", whole(c.sockets), whole(c.payload), ours, best, ours, bench.Number(1e6/loads[0].cpu().Median)))
	}
	return &section{tables: []*bench.Table{t}}, r.draw(t, bars.Title, bars, "fanout-peers.svg")
}

// fanout measures one cell on all servers, in turns.
func (r *runner) fanout(c fanoutCell) (loads []*load, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	one, err := r.ourServer(setup{feed: c.payload - clockFrame, every: c.every})
	if err != nil {
		return nil, err
	}
	servers, hellos := []*server{one}, []string{""}
	for _, p := range peers {
		if !r.compares(p.name) {
			continue
		}
		one, err := r.startPeer(p, p.feed, "--every", c.every.String(), "--bytes", fmt.Sprint(c.payload))
		if err != nil {
			return nil, err
		}
		servers, hellos = append(servers, one), append(hellos, p.hello)
	}
	for _, s := range servers {
		loads = append(loads, &load{name: s.name, server: s.process, title: "fanout", start: func() {}, stop: func() {}, idle: func() bool { return true }})
	}
	for round := range r.rounds {
		r.say("fan-out: %d subscribers, %d B, round %d", c.sockets, c.payload, round+1)
		for i, s := range servers {
			if err := r.fanoutRound(loads[i], s, c, hellos[i]); err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	return loads, nil
}

const (
	fanoutWarm  = 500 * time.Millisecond
	fanoutWatch = 2 * time.Second
	fanoutLeast = 0.95 // of the deliveries that are due: with fewer in a round its row says so
)

func (r *runner) fanoutRound(l *load, s *server, c fanoutCell, hello string) error {
	loop, err := r.loop()
	if err != nil {
		return err
	}
	a := bench.NewAudience(loop, []byte(hello), time.Now)
	heads, err := r.heads(loop, s, c.sockets)
	if err != nil {
		return err
	}
	if err := errors.Join(r.keep(loop, s.gate(), heads, a.Socket), loop.RunFor(r.ctx, fanoutWarm), a.Err); err != nil {
		return err
	}
	l.loop, l.latency, l.failed = loop, &a.Latency, func() error { return a.Err }
	l.done = func() uint64 { return a.Messages }
	first := a.Messages
	if err := r.round(l, func() error { return loop.RunFor(r.ctx, fanoutWatch) }); err != nil {
		return err
	}
	if share := float64(a.Messages-first) / (float64(c.sockets) * float64(fanoutWatch/c.every)); share < fanoutLeast {
		l.note = fmt.Sprintf("%.0f %% of what was due", 100*share)
	}
	return errors.Join(r.hangUp(), r.quiet(s.process))
}
