package main

import (
	"context"
	"runtime/debug"
	"testing"
	"time"

	"ticketgate/internal/mono"
)

// TestTidier is a process from start to rest: bytes allocated until each look, every 250 ms, and whether it frees then.
func TestTidier(t *testing.T) {
	clock := mono.NewManual(time.Unix(1_800_000_000, 0))
	total, frees, takes := uint64(0), 0, time.Duration(0)
	tidy := &tidier{
		clock: clock, allocated: func() uint64 { return total },
		free: func() { frees++; clock.Advance(takes) },
	}
	for i, step := range []struct {
		allocates uint64
		takes     time.Duration
		frees     bool
		why       string
	}{
		{allocates: 4 << 20, why: "it starts"},
		{allocates: 65 << 10, why: "still busy"},
		{allocates: 64 << 10, frees: true, why: "quiet, and 4 MiB are worth it"},
		{allocates: 0, why: "nothing to be gained"},
		{allocates: 2 << 20, why: "a rush"},
		{allocates: 0, why: "quiet, but half a second after the last time"},
		{allocates: 0, frees: true, takes: 150 * time.Millisecond, why: "a second after it"},
		{allocates: 2 << 20, why: "a rush"},
		{allocates: 0, why: "the last time took 150 ms"},
		{allocates: 0, why: "so it rests for 3 s"},
		{allocates: 0, why: "1 s"},
		{allocates: 1 << 10, why: "1.25 s"},
	} {
		total, takes = total+step.allocates, step.takes
		clock.Advance(tidyEvery)
		before := frees
		if tidy.look(); (frees > before) != step.frees {
			t.Errorf("step %d, %s: freed %v", i, step.why, frees > before)
		}
	}
	before := frees
	for range 7 {
		clock.Advance(tidyEvery)
		tidy.look()
	}
	if frees != before+1 {
		t.Errorf("freed %d times in the 3 s after a long one", frees-before)
	}
}

// TestTidyUp gives back what a burst has left, in a process that then does nothing.
func TestTidyUp(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	freed, done := make(chan struct{}, 1), make(chan struct{})
	burst = make([]byte, 2*tidyWorth)
	go func() {
		tidyUp(ctx, func() { debug.FreeOSMemory(); freed <- struct{}{} })
		close(done)
	}()
	select {
	case <-freed:
	case <-time.After(10 * time.Second):
		t.Error("nothing was given back")
	}
	stop()
	<-done
	read := allocated()
	if n := testing.AllocsPerRun(100, func() { read() }); n != 0 {
		t.Errorf("a look allocates %v times", n)
	}
}

var burst []byte
