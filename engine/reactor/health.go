package reactor

import (
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"ticketgate/internal/mono"
	"ticketgate/internal/stat"
)

// How a loop is doing shows at its timers: how much later than the kernel's timer the loop comes to it is how long whatever
// became ready then had to wait.

// health is one loop's. The loop writes, anybody may read but what is marked.
type health struct {
	stall stat.Histogram
	busy  atomic.Uint64 // math.Float64bits of the share of a core used between the last two measurements

	// The loop's own.
	since mono.Time // when cpu was read; 0: not since the loop has rested
	cpu   time.Duration
}

// busyEvery is how often the share of a core is measured, or more seldom if no timer falls due: one system call.
const busyEvery = time.Second

// woke notes that the loop has come to a timer that was due then.
func (h *health) woke(due, now mono.Time) {
	h.stall.Observe(now.Sub(due))
	if wall := now.Sub(h.since); wall >= busyEvery {
		used := threadTime()
		if h.since != 0 {
			h.busy.Store(math.Float64bits(min(float64(used-h.cpu)/float64(wall), 1)))
		}
		h.since, h.cpu = now, used
	}
}

// rest notes that there is nothing to wait for.
func (h *health) rest() {
	h.since = 0
	h.busy.Store(0)
}

// threadTime is the processor time that the calling thread has used.
func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // it cannot fail on Linux
	return time.Duration(t.Nano())
}
