package main

import (
	"context"
	"runtime/metrics"
	"time"

	"ticketgate/internal/mono"
)

// The collector lets the heap grow to twice what lives before it works, and then keeps the pages: after a rush of 100,000
// admissions garbage of some megabytes stays resident for as long as little happens. What lives on the heap does not grow
// with the sockets, so a collection costs 2 to 5 ms of a processor, and as soon as there is time for it that memory goes
// back to the system. Under load the collector's own pace is the cheapest: with GOGC=50 it takes 14 % of the processor time of
// a node that does nothing but issue tickets, instead of 7 %. So GOGC is left as it is, and whoever sets it is obeyed.
const (
	tidyEvery = 250 * time.Millisecond // between two looks
	quietMax  = 64 << 10               // bytes allocated between two looks of a process that has time
	tidyWorth = 1 << 20                // bytes that must have been allocated since the last time
	tidyRest  = time.Second            // from one time to the next, at least
	tidyShare = 20                     // and so many times as long as the last one took
)

// A tidier gives the heap's free memory back when the process has time. One goroutine uses it.
type tidier struct {
	clock     mono.Clock
	allocated func() uint64 // bytes that the heap has ever handed out
	free      func()        // collects, and gives back what is free

	seen uint64    // at the last look
	done uint64    // at the last time
	next mono.Time // not before
}

// look frees if it is time for it.
func (t *tidier) look() {
	n, now := t.allocated(), t.clock.Now()
	quiet := n-t.seen <= quietMax
	t.seen = n
	if !quiet || n-t.done < tidyWorth || now < t.next {
		return
	}
	t.free()
	end := t.clock.Now()
	t.done, t.next = t.allocated(), end.Add(max(tidyRest, tidyShare*end.Sub(now)))
}

// tidyUp looks until ctx ends. free is debug.FreeOSMemory.
func tidyUp(ctx context.Context, free func()) {
	t := &tidier{clock: mono.System, allocated: allocated(), free: free}
	every := time.NewTicker(tidyEvery)
	defer every.Stop()
	for {
		select {
		case <-every.C:
			t.look()
		case <-ctx.Done():
			return
		}
	}
}

// allocated returns a function that reads how many bytes the heap has ever handed out. It does not allocate.
func allocated() func() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	return func() uint64 {
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
}
