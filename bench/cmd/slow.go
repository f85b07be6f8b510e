package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"ticketgate/bench"
)

const (
	slowSockets = 100
	slowPad     = 1000 // bytes of a feed's message, 100 times a second
	slowStep    = 200 * time.Millisecond
	slowWatch   = 8 * time.Second // a socket's queues fill in about 4 s
)

// slow measures what sockets that do not read hold on the server's side, in the kernel and in the process, while a feed pushes.
func slow(r *runner) (_ *section, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	l, err := r.loop()
	if err != nil {
		return nil, err
	}
	g, err := r.gatewayWith(setup{feed: slowPad})
	if err != nil {
		return nil, err
	}
	heads, err := r.fetch(l, g, slowSockets)
	if err != nil {
		return nil, err
	}
	before, err := g.Memory()
	if err != nil {
		return nil, err
	}
	d := new(deaf)
	if err := errors.Join(r.keep(l, g.gate, heads, func() bench.Handler { return d }), d.err); err != nil {
		return nil, err
	}
	var full, most int64 // of all sockets together, and of one
	var resident int64
	for passed := time.Duration(0); passed < slowWatch; passed += slowStep {
		if err := l.RunFor(r.ctx, slowStep); err != nil {
			return nil, err
		}
		held, err := bench.Sends(r.ctx, g.port)
		if err != nil {
			return nil, err
		}
		var sum int64
		for _, n := range held {
			sum += n
		}
		if len(held) > 0 {
			full, most = max(full, sum), max(most, slices.Max(held))
		}
		m, err := g.Memory()
		if err != nil {
			return nil, err
		}
		resident = max(resident, m.Resident-before.Resident)
	}
	if full == 0 {
		return nil, errors.New("ss shows nothing in the send queues of sockets that do not read")
	}
	kib := func(n int64) string { return bench.Number(float64(n) / 1024) }
	return &section{tables: []*bench.Table{{
		Title: "Slow readers",
		About: fmt.Sprintf("%d sockets open and never read, while a feed sends each about %d KB/s, until their queues are full and the gateway sends them away. The highest of what was seen every %s. "+
			"Kernel memory is sk_wmem_queued of the gateway's ends (`ss -tm`): bytes that the client's kernel has not taken, with the kernel's own frames around them.", slowSockets, slowPad/10, slowStep),
		Head: []string{"KiB a socket", "mean", "largest"},
		Rows: [][]string{
			{"kernel, send queue", kib(full / slowSockets), kib(most)},
			{"process, growth of VmRSS", kib(resident / slowSockets), ""},
		},
	}}}, nil
}

// deaf is the Handler of sockets that do not read.
type deaf struct{ err error }

// Opened implements bench.Handler.
func (d *deaf) Opened(c *bench.Conn) { d.err = errors.Join(d.err, c.Deafen()) }

// Data implements bench.Handler: what came with the 101 is not looked at.
func (d *deaf) Data(_ *bench.Conn, b []byte) int { return len(b) }

// Closed implements bench.Handler: the gateway has sent it away, as it should.
func (d *deaf) Closed(*bench.Conn, error) {}
