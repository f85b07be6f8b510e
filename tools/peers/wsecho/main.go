// Command wsecho is a WebSocket backend that sends every message back and does no more than that takes: it answers the
// upgrade, and returns each masked frame unmasked (RFC 6455 5.1), as it comes, with one write for one read. It checks
// nothing. The gateway's relay and the program it is compared with have the same one behind them. It prints its address
// and ends on SIGTERM.
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
	if err := loop.Serve(*address, func(l *loop.Loop) loop.Peer { return &backend{Loop: l} }); err != nil {
		fmt.Fprintln(os.Stderr, "wsecho:", err)
		os.Exit(1)
	}
}

type backend struct {
	*loop.Loop
	sockets []*socket // by descriptor
}

// Open implements loop.Peer.
func (s *backend) Open(fd int) bool {
	for fd >= len(s.sockets) {
		s.sockets = append(s.sockets, make([]*socket, max(fd+1-len(s.sockets), 1024))...)
	}
	s.sockets[fd] = new(socket)
	return true
}

// Data implements loop.Peer.
func (s *backend) Data(fd int, b []byte) bool {
	out, ok := s.sockets[fd].answer(b)
	if len(out) > 0 {
		s.Write(fd, fd, out)
	}
	return ok
}

// Gone implements loop.Peer.
func (s *backend) Gone(fd int) { s.sockets[fd] = nil }
