package load

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ticketgate/bench"
)

const attackNice = 15

// Attacks are what hostile peers do beside honest ones, each with enough of them to hurt and none against the law of TCP.
var Attacks = []string{"garbage", "header-bomb", "oversize", "ping-flood", "slow-head", "slow-reader", "unmasked"}

// attacking keeps Sockets hostile peers busy from After on, and opens another for each that is cut off.
type attacking struct {
	w       *worker
	o       *opener // for those that come in with a ticket
	begun   bool
	running bool
	at      time.Duration
	peers   int
	next    time.Duration // when another round of slow bytes is due
	slow    []*hostile
	target  *bench.Target
}

func newAttack(w *worker) (*attacking, error) {
	if !slices.Contains(Attacks, w.job.Attack) {
		return nil, fmt.Errorf("no attack %q: there are %s", w.job.Attack, strings.Join(Attacks, ", "))
	}
	// On a machine that is also the server's, an attack must not take the processor from those whose latency counts.
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, attackNice); err != nil {
		return nil, fmt.Errorf("setpriority: %w", err)
	}
	a := &attacking{w: w}
	var err error
	if a.inside() {
		a.o, err = newOpener(w, 0, func() bench.Handler { return &hostile{a: a} })
		if err == nil {
			a.o.full = func() bool { return a.peers+a.o.busy >= w.job.Sockets }
		}
	} else { // one honest socket, which tells where the gate is
		a.o, err = newOpener(w, 1, func() bench.Handler { return &quiet{w: w} })
	}
	return a, err
}

// inside says that the attack is one of admitted clients.
func (a *attacking) inside() bool {
	switch a.w.job.Attack {
	case "oversize", "ping-flood", "slow-reader", "unmasked":
		return true
	default:
		return false
	}
}

func (a *attacking) socket() bench.Handler { return nil }

func (a *attacking) begin(now time.Duration) error {
	a.at = now + a.w.job.After
	a.running = true
	return nil
}

func (a *attacking) tick(now time.Duration) time.Duration {
	if now < a.at || !a.running {
		return a.at
	}
	a.begun = true
	next := now + 50*time.Millisecond
	if a.inside() {
		return min(a.o.tick(now), next)
	}
	if a.target == nil {
		if a.target = a.o.plain; a.target == nil {
			for _, a.target = range a.w.targets {
			}
		}
		if a.target == nil {
			return min(a.o.tick(now), next)
		}
	}
	for range min(a.w.job.Sockets-a.peers, 256) {
		h := &hostile{a: a}
		a.peers++
		a.w.Begun++
		if _, err := a.w.loop.Dial(a.target, h); err != nil {
			a.peers--
			a.w.fail(a.w.class(err), 1)
			break
		}
	}
	if now >= a.next { // slow-head: a byte a second each
		a.next = now + time.Second
		for _, h := range a.slow {
			h.drip()
		}
	}
	return next
}

func (a *attacking) finish()    { a.running = false }
func (a *attacking) idle() bool { return true }
func (a *attacking) giveUp()    {}

// A hostile is one bad peer.
type hostile struct {
	a     *attacking
	conn  *bench.Conn
	place int
	sent  int
}

func (h *hostile) move(place int) { h.place = place }

var (
	garbage    = bytes.Repeat([]byte{0x16, 0x03, 0xff, 0x00, 0x0d, 0x0a, 0x80, 0xc1}, 512)
	headerBomb = []byte("GET /t/x HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-A: b\r\n", 4096))
	slowHead   = []byte("GET /t/x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nX-Slow: " + strings.Repeat("a", 4096))
	floodPings = bytes.Repeat(bench.AppendFrame(nil, bench.OpPing, make([]byte, 125)), 100)
	plainText  = bench.AppendUnmasked(nil, bench.OpText, []byte("not masked"))
	askMuch    = bytes.Repeat(bench.AppendFrame(nil, bench.OpText, bytes.Repeat([]byte{'x'}, 4<<10)), 16)
)

// oversize is a message of 4 MiB.
var oversize = sync.OnceValue(func() []byte { return bench.AppendFrame(nil, bench.OpText, bytes.Repeat([]byte{'x'}, 4<<20)) })

// Opened implements bench.Handler.
func (h *hostile) Opened(c *bench.Conn) {
	a := h.a
	h.conn = c
	a.w.Came++
	if a.inside() {
		a.peers++
	}
	switch a.w.job.Attack {
	case "garbage":
		c.Write(garbage)
	case "header-bomb":
		c.Write(headerBomb)
	case "slow-head":
		h.place = len(a.slow)
		a.slow = append(a.slow, h)
		h.drip()
	case "oversize":
		c.Write(oversize())
	case "ping-flood":
		c.Write(floodPings)
	case "unmasked":
		c.Write(plainText)
	case "slow-reader":
		if err := c.Deafen(); err != nil {
			a.w.fail(classOther, 1)
		}
		for range 16 {
			c.Write(askMuch)
		}
	}
}

// drip sends one byte more of a head that never ends.
func (h *hostile) drip() {
	if h.sent < len(slowHead) {
		h.conn.Write(slowHead[h.sent : h.sent+1])
		h.sent++
	}
}

// Data implements bench.Handler: whatever comes is an answer to go on at.
func (h *hostile) Data(c *bench.Conn, b []byte) int {
	h.a.w.Received += uint64(len(b))
	if h.a.w.job.Attack == "ping-flood" && h.a.running {
		c.Write(floodPings)
	}
	return len(b)
}

// Closed implements bench.Handler: it was cut off, and comes again.
func (h *hostile) Closed(_ *bench.Conn, err error) {
	a := h.a
	a.peers--
	if h.conn == nil { // it did not come in
		a.w.fail(a.w.class(err), 1)
		return
	}
	a.w.Done++
	if a.w.job.Attack == "slow-head" {
		a.slow = drop(a.slow, h.place)
	}
}
