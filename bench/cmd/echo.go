package main

import (
	"bytes"
	"errors"
	"fmt"

	"ticketgate/bench"
)

type echoCell struct{ sockets, payload, inFlight int }

var echoCells = []echoCell{
	{100, 32, 1}, {100, 1024, 1}, {1000, 32, 1}, {1000, 1024, 1}, {100, 32, 16}, {100, 1024, 16},
}

func (c echoCell) String() string {
	return fmt.Sprintf("%d sockets, %d B, %d in flight", c.sockets, c.payload, c.inFlight)
}

// echo measures messages out and back through the built-in echo stream, next to a program that returns bytes.
func echo(r *runner) (_ *bench.Table, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	g, err := r.gatewayWith(memoryStore)
	if err != nil {
		return nil, err
	}
	bare, to, err := r.peer("epollecho")
	if err != nil {
		return nil, err
	}
	t := &bench.Table{
		Title: "Echo",
		About: "A closed loop: every socket has its messages in flight and sends the next when an answer is there; every answer is compared with what was sent. " +
			"ticketgate parses and unmasks a frame, takes it from the limits `messages-in` and `bytes-in`, and frames it again; epollecho returns the same masked bytes. " +
			"Latencies are those of saturation, from the write to the read in the client.",
		Head: append([]string{"what"}, head("message")...),
	}
	for _, c := range echoCells {
		r.say("echo: %s", c)
		ours, err := r.echoLoad(c, "ticketgate", g.Process, g, g.gate)
		if err != nil {
			return nil, err
		}
		floor, err := r.echoLoad(c, "epollecho", bare.Process, nil, to)
		if err != nil {
			return nil, err
		}
		if err := r.compare(r.timed, ours, floor); err != nil {
			return nil, err
		}
		for _, l := range []*load{ours, floor} {
			t.Rows = append(t.Rows, append([]string{c.String()}, l.row()...))
		}
		t.Lines = append(t.Lines, c.String()+": "+ratio(ours, floor))
		if err := r.hangUp(); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// echoLoad opens the sockets of one cell: through tickets if there is a gateway.
func (r *runner) echoLoad(c echoCell, name string, server bench.Process, g *gateway, to *bench.Target) (*load, error) {
	loop, err := r.loop()
	if err != nil {
		return nil, err
	}
	e := bench.NewEcho(loop, bytes.Repeat([]byte("m"), c.payload), c.inFlight, g == nil)
	if g == nil {
		for range c.sockets {
			if _, err := loop.Dial(to, e.Socket()); err != nil {
				return nil, err
			}
		}
	} else if err := r.openAll(loop, g, c.sockets, e.Socket); err != nil {
		return nil, err
	}
	ready := func() bool { return e.Err != nil || e.Ready() == c.sockets }
	if err := loop.RunUntil(r.ctx, giveUp, ready); err != nil {
		return nil, fmt.Errorf("%s: %d of %d sockets open: %w", name, e.Ready(), c.sockets, err)
	}
	return &load{
		name: name, loop: loop, server: server,
		start: e.Start, stop: e.Stop, idle: e.Idle,
		done: func() uint64 { return e.Messages }, latency: &e.Latency, failed: func() error { return e.Err },
	}, e.Err
}

// openAll fetches n tickets and begins to open a socket with each; what socket returns hears of the 101.
func (r *runner) openAll(l *bench.Loop, g *gateway, n int, socket func() bench.Handler) error {
	heads, err := r.fetch(l, g, n)
	if err != nil {
		return err
	}
	for _, h := range heads {
		if _, err := l.Dial(g.gate, &bench.Upgrade{Head: h, Then: socket()}); err != nil {
			return err
		}
	}
	return nil
}
