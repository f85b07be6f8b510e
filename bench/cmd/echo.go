package main

import (
	"errors"
	"fmt"

	"ticketgate/bench"
)

const echoAbout = "A closed loop: a socket sends 1 or 16 text messages with one write(2), and again when all answers are there; every answer is compared with what was sent. " +
	"ticketgate reads, parses and unmasks each frame, checks its UTF-8, takes it from the limits on messages and bytes, in and out, counts it, and frames it again; " +
	"epollecho returns the same masked bytes: one read, one write, nothing else. The *CPU ratio* is what counts, and the *rate ratio* is the client's as well where a row below says client-bound. " +
	"Latencies are those of saturation, from the write to the read in the client."

// echo measures messages out and back through the built-in echo stream, next to a program that returns bytes.
func echo(r *runner) (_ *section, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	g, err := r.gatewayWith(setup{})
	if err != nil {
		return nil, err
	}
	bare, address, err := r.peer(r.serverCore, "epollecho")
	if err != nil {
		return nil, err
	}
	to, err := bench.NewTarget(address)
	if err != nil {
		return nil, err
	}
	m, err := r.measure("echo", r.sockets, []*server{
		{name: "ticketgate", process: g.Process, gateway: g},
		{name: "epollecho", process: bare.Process, to: to},
	})
	if err != nil {
		return nil, err
	}
	return m.section("Echo", echoAbout+m.leftOut(r.options)), nil
}

const relayAbout = "As above, but through the server to a backend and back. Both have the same backend, `wsecho`, on the client's core: it unmasks each frame into its answer (RFC 6455 5.1 forbids it to send it as it came) and does nothing else. " +
	"ticketgate reads each frame, takes it from the limits, masks it with a key of its own for the backend, and does the way back as for an echo; " +
	"epollrelay joins the two sockets with read and write and knows no WebSocket: the client's upgrade and frames go to the backend as they are. " +
	"So both move the same bytes with as many reads and writes, of which the gateway puts up to 32 into one system call where it may (io_uring), and client and backend do the same work; only the gateway's own work differs."

// relay measures messages through the gateway to a backend and back, next to a program that passes bytes.
func relay(r *runner) (_ *section, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	_, backend, err := r.peer(r.clientCore, "wsecho")
	if err != nil {
		return nil, err
	}
	g, err := r.gatewayWith(setup{backend: backend})
	if err != nil {
		return nil, err
	}
	bare, address, err := r.peer(r.serverCore, "epollrelay", "-backend", backend)
	if err != nil {
		return nil, err
	}
	to, err := bench.NewTarget(address)
	if err != nil {
		return nil, err
	}
	about := relayAbout
	counts := make([]int, 0, len(r.sockets))
	for _, n := range r.sockets {
		if room := r.socketsMax() / 2; n > room {
			about += fmt.Sprintf(" A relayed client costs the gateway two of the %s descriptors that a process has here: %s clients instead of %s.",
				whole(r.files), whole(room), whole(n))
			n = room
		}
		counts = append(counts, n)
	}
	m, err := r.measure("relay", counts, []*server{
		{name: "ticketgate", process: g.Process, gateway: g},
		{name: "epollrelay", process: bare.Process, to: to, head: bench.AppendUpgrade(nil, backend, []byte("/"), nil)},
	})
	if err != nil {
		return nil, err
	}
	return m.section("Relay", about+m.leftOut(r.options)), nil
}
