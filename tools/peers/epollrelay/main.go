// Command epollrelay joins every connection that it accepts to one of its own to a backend, and passes bytes both ways with
// read and write: no WebSocket, no tickets, no limits, no timers. A relay through the gateway is compared with it. (splice(2)
// would need two pipes for each pair, and copies nothing less for messages that are smaller than a page.) It prints its
// address and ends on SIGTERM.
package main

import (
	"flag"
	"fmt"
	"net/netip"
	"os"

	"ticketgate/tools/peers/loop"
)

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	backend := flag.String("backend", "", "IPv4 address and port to relay to")
	flag.Parse()
	if err := run(*address, *backend); err != nil {
		fmt.Fprintln(os.Stderr, "epollrelay:", err)
		os.Exit(1)
	}
}

func run(address, backend string) error {
	to, err := netip.ParseAddrPort(backend)
	if err != nil {
		return fmt.Errorf("-backend: %w", err)
	}
	return loop.Serve(address, func(l *loop.Loop) loop.Peer { return &relay{Loop: l, backend: to} })
}

type relay struct {
	*loop.Loop
	backend netip.AddrPort
	other   []int32 // by descriptor: the other side, 0: none
}

// Open implements loop.Peer.
func (r *relay) Open(fd int) bool {
	backend, err := r.Dial(r.backend)
	if err != nil {
		fmt.Fprintln(os.Stderr, "epollrelay:", err)
		return false
	}
	for need := max(fd, backend) + 1; len(r.other) < need; {
		r.other = append(r.other, make([]int32, max(need, 1024))...)
	}
	r.other[fd], r.other[backend] = int32(backend), int32(fd)
	return true
}

// Data implements loop.Peer.
func (r *relay) Data(fd int, b []byte) bool {
	r.Write(int(r.other[fd]), fd, b)
	return true
}

// Gone implements loop.Peer: the other side ends too.
func (r *relay) Gone(fd int) {
	if fd >= len(r.other) || r.other[fd] == 0 {
		return
	}
	other := int(r.other[fd])
	r.other[fd], r.other[other] = 0, 0
	r.Close(other)
}
