// Command epollaccept answers a request with a fixed 101 and keeps the socket; the next bytes, the client's close frame,
// get a close frame and the end of the connection. It checks nothing: what the gateway's admission costs is compared
// with it. With -ping it also pings every socket once in that time, and reads the pongs: what the gateway's pings cost is
// compared with that. With -refuse it answers every request with those bytes instead, and ends the connection: what the
// gateway's refusals cost is compared with that. It prints its address and ends on SIGTERM.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"time"

	"ticketgate/tools/peers/loop"
)

const (
	// The answer to the sample nonce of RFC 6455 1.3, which the load tool sends.
	switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: ticketgate.v1\r\n\r\n"
	goodbye = "\x88\x02\x03\xe8" // close, code 1000
	ping    = "\x89\x00"
	pong    = 0x8a // the first byte of one
	pongMax = 6    // bytes: one without payload, masked

	pingStep = 2048 * time.Millisecond // sockets that are due within it are pinged together, as by the gateway whose sockets came over a long time
)

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	every := flag.Duration("ping", 0, "how often each socket is pinged; 0: never")
	bursts := flag.Int("bursts", 0, "in how many bursts, evenly spread over that time; 0: one in 2,048 ms")
	refusal := flag.String("refuse", "", "what every request is answered with before its connection ends; empty: the 101, and it stays")
	calm := flag.Bool("calm", false, "sleep undisturbed between pings, at a price for each wake: for few of them a second")
	flag.Parse()
	newGate := func(l *loop.Loop) loop.Peer {
		g := &gate{Loop: l, heads: make(map[int][]byte), switching: []byte(switching), goodbye: []byte(goodbye), ping: []byte(ping), refusal: []byte(*refusal)}
		if *calm {
			l.Calm()
		}
		if *every > 0 {
			g.steps = steps(*every, *bursts)
			if err := l.Every(*every/time.Duration(g.steps), g.pingSome); err != nil {
				fmt.Fprintln(os.Stderr, "epollaccept:", err)
				os.Exit(1)
			}
		}
		return g
	}
	if err := loop.Serve(*address, newGate); err != nil {
		fmt.Fprintln(os.Stderr, "epollaccept:", err)
		os.Exit(1)
	}
}

// steps is in how many bursts all sockets are pinged.
func steps(every time.Duration, bursts int) int {
	if bursts > 0 {
		return bursts
	}
	return max(int(every/pingStep), 1)
}

type gate struct {
	*loop.Loop
	switching, goodbye, ping []byte

	refusal []byte // instead of switching; empty: nobody is refused

	open  []bool         // by descriptor: has its 101
	heads map[int][]byte // parts of heads that came in pieces

	steps int // in which all sockets are pinged
	step  int // the next
}

// pingSome pings every socket whose turn it is.
func (g *gate) pingSome() {
	for fd := g.step; fd < len(g.open); fd += g.steps {
		if g.open[fd] {
			g.Write(fd, fd, g.ping)
		}
	}
	g.step = (g.step + 1) % g.steps
}

// Open implements loop.Peer.
func (g *gate) Open(fd int) bool {
	for fd >= len(g.open) {
		g.open = append(g.open, make([]bool, max(fd+1-len(g.open), 1024))...)
	}
	return true
}

// Data implements loop.Peer.
func (g *gate) Data(fd int, b []byte) bool {
	if g.open[fd] && b[0] == pong && len(b) <= pongMax { // alone
		return true
	}
	if g.open[fd] {
		g.Write(fd, fd, g.goodbye)
		return false
	}
	if part := g.heads[fd]; part != nil {
		b = append(part, b...)
	}
	if !bytes.HasSuffix(b, []byte("\r\n\r\n")) {
		g.heads[fd] = bytes.Clone(b)
		return len(b) < 16<<10
	}
	if len(g.refusal) > 0 {
		g.Write(fd, fd, g.refusal)
		return false
	}
	g.open[fd] = true
	g.Write(fd, fd, g.switching)
	return true
}

// Gone implements loop.Peer.
func (g *gate) Gone(fd int) {
	g.open[fd] = false
	delete(g.heads, fd)
}
