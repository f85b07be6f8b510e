package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"ticketgate/bench"
)

// growthPoints are the numbers of sockets of one process.
func (o options) growthPoints() []int {
	if o.short {
		return []int{1000, 2000, 3000}
	}
	return []int{1000, 2000, 4000, 8000, 12000, 18000}
}

const growthRate = 1000 // messages a second, whatever the number of sockets

func (o options) growthWatch() time.Duration {
	if o.short {
		return time.Second
	}
	return 5 * time.Second
}

var growthMessage = strings.Repeat("m", 128)

// A growthPoint is the server with so many sockets.
type growthPoint struct {
	sockets     int
	memory      bench.Memory
	slab        int64         // of the machine, beyond what it had before
	cpu         time.Duration // a second
	messages    uint64
	median, p99 time.Duration
}

// growth measures memory and processor time of one process as its sockets grow, at a constant load.
func growth(r *runner) (_ *section, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	l, err := r.loop()
	if err != nil {
		return nil, err
	}
	g, err := r.ourServer(setup{})
	if err != nil {
		return nil, err
	}
	p := bench.NewPace(l, []byte(growthMessage), growthRate)
	without := slabs()
	var points []growthPoint
	for _, n := range r.growthPoints() {
		n = min(n, r.socketsMax())
		r.say("growth: %d sockets", n)
		one, err := r.growTo(g, p, n, without)
		if err != nil {
			return nil, fmt.Errorf("%d sockets: %w", n, err)
		}
		points = append(points, one)
	}
	t := &bench.Table{
		Title: "Growth",
		About: fmt.Sprintf("One process whose sockets become more, with %s messages of %d B a second through the echo, over all sockets in turn and at fixed times; for %s at each number. "+
			"Memory is VmRSS under that load. The server sleeps between messages, so each pays for a wake of its own; pings to sockets that were silent for 25 s are in the CPU.",
			whole(growthRate), len(growthMessage), r.growthWatch()),
		Head: []string{"sockets", "resident MiB", "of it anonymous", "bytes more a socket", "kernel slabs, both ends, MiB", "server CPU ms a second", "messages answered", "p50", "p99"},
	}
	for i, one := range points {
		more := ""
		if i > 0 {
			before := points[i-1]
			more = bench.Number(float64(one.memory.Resident-before.memory.Resident) / float64(one.sockets-before.sockets))
		}
		t.Rows = append(t.Rows, []string{
			whole(one.sockets), mib(one.memory.Resident), mib(one.memory.Anonymous), more, mib(one.slab),
			bench.Number(float64(one.cpu) / 1e6), whole(int(one.messages)),
			bench.Number(float64(one.median)/1e3) + " µs", bench.Number(float64(one.p99)/1e3) + " µs",
		})
	}
	return &section{tables: []*bench.Table{t}}, r.growthPicture(t, points)
}

func mib(n int64) string { return bench.Number(float64(n) / (1 << 20)) }

// growTo brings p to n sockets and watches them; without are the machine's slabs before the first of them.
func (r *runner) growTo(s *server, p *bench.Pace, n int, without int64) (growthPoint, error) {
	l := p.Loop()
	heads, err := r.heads(l, s, n-p.Ready())
	if err != nil {
		return growthPoint{}, err
	}
	if err := errors.Join(r.keep(l, s.gate(), heads, p.Socket), r.quiet(s.process), p.Err); err != nil {
		return growthPoint{}, err
	}
	p.Resume()
	if err := r.pace(p, r.growthWatch()/5); err != nil { // not counted
		return growthPoint{}, err
	}
	p.Latency.Reset()
	done := p.Messages
	before, err := s.process.CPU()
	if err != nil {
		return growthPoint{}, err
	}
	if err := r.pace(p, r.growthWatch()); err != nil {
		return growthPoint{}, err
	}
	after, err := s.process.CPU()
	if err != nil {
		return growthPoint{}, err
	}
	memory, err := s.process.Memory()
	if err == nil && p.Ready() != n {
		err = fmt.Errorf("%d are open", p.Ready())
	}
	return growthPoint{
		sockets: n, memory: memory, slab: max(slabs()-without, 0), cpu: time.Duration(float64(after.Sub(before).Total()) / r.growthWatch().Seconds()),
		messages: p.Messages - done, median: p.Latency.Quantile(0.5), p99: p.Latency.Quantile(0.99),
	}, errors.Join(err, l.RunUntil(r.ctx, giveUp, p.Idle))
}

// pace sends messages for d.
func (r *runner) pace(p *bench.Pace, d time.Duration) error {
	for end := p.Loop().Now() + d; p.Loop().Now() < end && p.Err == nil; {
		p.Tick()
		if err := p.Loop().RunFor(r.ctx, p.Next()); err != nil {
			return err
		}
	}
	return p.Err
}

// growthPicture draws points under t.
func (r *runner) growthPicture(t *bench.Table, points []growthPoint) error {
	plot := &bench.Plot{
		Title: "ticketgate: sockets in one process, 1,000 messages a second", X: "open sockets",
		Panels: []bench.Panel{{Y: "resident memory, MiB", Ys: make([][]float64, 1)}, {Y: "processor time, ms a second", Ys: make([][]float64, 1)},
			{Y: "kernel slabs beyond those before, both ends, MiB", Ys: make([][]float64, 1)}},
	}
	for _, one := range points {
		plot.Xs = append(plot.Xs, float64(one.sockets))
		plot.Panels[0].Ys[0] = append(plot.Panels[0].Ys[0], float64(one.memory.Resident)/(1<<20))
		plot.Panels[1].Ys[0] = append(plot.Panels[1].Ys[0], float64(one.cpu)/1e6)
		plot.Panels[2].Ys[0] = append(plot.Panels[2].Ys[0], float64(one.slab)/(1<<20))
	}
	return r.draw(t, plot.Title, plot, "growth.svg")
}
