// Command epollecho returns every byte that it receives: no WebSocket, no tickets, no limits, no timers. An echo through
// the gateway is compared with it. It prints its address and ends on SIGTERM.
package main

import (
	"flag"
	"fmt"
	"os"

	"ticketgate/tools/peers/loop"
)

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	flag.Parse()
	if err := loop.Serve(*address, func(l *loop.Loop) loop.Peer { return echo{l} }); err != nil {
		fmt.Fprintln(os.Stderr, "epollecho:", err)
		os.Exit(1)
	}
}

type echo struct{ *loop.Loop }

// Open implements loop.Peer.
func (echo) Open(int) bool { return true }

// Data implements loop.Peer.
func (e echo) Data(fd int, b []byte) bool {
	e.Write(fd, fd, b)
	return true
}

// Gone implements loop.Peer.
func (echo) Gone(int) {}
