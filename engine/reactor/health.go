package reactor

import (
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"ticketgate/internal/mono"
	"ticketgate/internal/stat"
)

// How a loop is doing shows in its tick: the kernel marks one every 20 ms while the loop has timers, and how much later the
// loop comes to it is how long whatever became ready then had to wait.

// health is one loop's. The loop writes, anybody may read but what is marked.
type health struct {
	stall stat.Histogram
	busy  atomic.Uint64 // math.Float64bits of the share of a core used in the last measured second

	// The loop's own.
	next  mono.Time // when the next tick is due; 0: the ticks have just begun
	since mono.Time // when cpu was read
	cpu   time.Duration
}

// busyEvery is how often the share of a core is measured: one system call.
const busyEvery = time.Second

// ticked notes that the loop has come to n ticks, 1 or more.
func (h *health) ticked(n uint64, now mono.Time) {
	if h.next != 0 {
		h.stall.Observe(now.Sub(h.next))
		h.next = h.next.Add(time.Duration(n) * tickLength)
	} else {
		h.next = now.Add(tickLength)
	}
	if wall := now.Sub(h.since); wall >= busyEvery {
		used := threadTime()
		if h.since != 0 {
			h.busy.Store(math.Float64bits(min(float64(used-h.cpu)/float64(wall), 1)))
		}
		h.since, h.cpu = now, used
	}
}

// rest notes that the ticks end: there is nothing to do.
func (h *health) rest() {
	h.next, h.since = 0, 0
	h.busy.Store(0)
}

// threadTime is the processor time that the calling thread has used.
func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // it cannot fail on Linux
	return time.Duration(t.Nano())
}
