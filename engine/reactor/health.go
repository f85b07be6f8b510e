package reactor

import (
	"math"
	"sync/atomic"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/internal/stat"
)

// How a loop is doing shows at its timers: how much later than the kernel's timer the loop comes to it is how long whatever
// became ready then had to wait.

// health is one loop's. The loop writes, anybody may read but what is marked.
type health struct {
	stall stat.Histogram
	busy  atomic.Uint64 // math.Float64bits of the share of its time that the loop served sockets, between the last two looks

	// The loop's own.
	events uint64
	served time.Duration // in events, an estimate; since the last look
	looked mono.Time     // 0: not since the loop has rested
}

const (
	busyEvery   = time.Second // between two looks at served, or longer if no timer falls due
	sampleEvery = 8           // events, of which one is timed: reading the clock for each would cost up to 1 % of an echo
)

// event serves one descriptor that the poller has named, and times some.
func (l *Loop) event(fd int, ready uint32) {
	h := &l.health
	if h.events++; h.events%sampleEvery != 0 {
		l.dispatch(fd, ready)
		return
	}
	begun := l.o.Clock.Now()
	l.dispatch(fd, ready)
	h.served += sampleEvery * l.o.Clock.Now().Sub(begun)
}

// batch notes that n descriptors were served in took.
func (h *health) batch(n int, took time.Duration) {
	h.events += uint64(n)
	h.served += took
}

// woke notes that the loop has come to a timer that was due then.
func (h *health) woke(due, now mono.Time) {
	h.stall.Observe(now.Sub(due))
	wall := now.Sub(h.looked)
	if wall < busyEvery {
		return
	}
	if h.looked != 0 {
		h.busy.Store(math.Float64bits(min(float64(h.served)/float64(wall), 1)))
	}
	h.looked, h.served = now, 0
}

// rest notes that there is nothing to wait for.
func (h *health) rest() {
	h.looked, h.served = 0, 0
	h.busy.Store(0)
}
