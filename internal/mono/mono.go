// Package mono is the clock of ticketgate: 8 bytes a reading, injected everywhere, so that tests and simulations own time.
package mono

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Time is nanoseconds on a clock that never steps and goes on while the machine sleeps. Only differences mean anything.
// The zero Time is before every reading: "never".
type Time int64

// Add returns t moved by d.
func (t Time) Add(d time.Duration) Time { return t + Time(d) }

// Sub returns how long after u t is.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }

// A Clock tells both times. Any goroutine may call it.
type Clock interface {
	// Now is for intervals and deadlines.
	Now() Time
	// Wall is for what people and other machines read: expiry in a token, log lines. It may step.
	Wall() time.Time
}

// System is the machine's clock for everything that happens while it runs: a reading costs about 35 ns and no system call,
// because it goes through the vDSO (CLOCK_MONOTONIC). It stands while the machine sleeps.
var System Clock = system{}

// Boot is System with CLOCK_BOOTTIME, which goes on while the machine sleeps, at the price of a system call a reading. What
// others may have taken from us in the meantime, a lease, is measured with it. Its times and System's can be compared as
// long as the machine has not slept since the process started.
var Boot Clock = boot{}

// started and bootStart are the same moment on the two clocks.
var started, bootStart = pair(time.Now, bootTime)

// pair reads both clocks at one moment, as nearly as it can: whoever is preempted between the two is off for its whole life, and
// processes that compare their times, as those of bench do, with it. Of several tries that with the least time around the reading counts.
func pair(now func() time.Time, boot func() Time) (started time.Time, at Time) {
	const tries = 16
	best := time.Duration(1<<63 - 1)
	for range tries {
		before := now()
		read := boot()
		if around := now().Sub(before); around < best {
			best, started, at = around, before.Add(around/2), read
		}
	}
	return started, at
}

type system struct{}

func (system) Now() Time { return bootStart + Time(time.Since(started)) }

func (system) Wall() time.Time { return time.Now() }

type boot struct{}

func (boot) Now() Time { return bootTime() }

func (boot) Wall() time.Time { return time.Now() }

func bootTime() Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("mono: CLOCK_BOOTTIME: " + err.Error()) // every Linux that Go runs on has it
	}
	return Time(ts.Sec)*Time(time.Second) + Time(ts.Nsec)
}

// A Manual clock moves only when told. Any goroutine may use it.
type Manual struct {
	now  atomic.Int64
	wall atomic.Int64
}

// NewManual returns a clock that stands at wall, with Now one second after zero.
func NewManual(wall time.Time) *Manual {
	m := new(Manual)
	m.now.Store(int64(time.Second))
	m.wall.Store(wall.UnixNano())
	return m
}

// Now implements Clock.
func (m *Manual) Now() Time { return Time(m.now.Load()) }

// Wall implements Clock.
func (m *Manual) Wall() time.Time { return time.Unix(0, m.wall.Load()) }

// Advance moves both times by d, which is not negative.
func (m *Manual) Advance(d time.Duration) {
	m.now.Add(int64(d))
	m.wall.Add(int64(d))
}

// StepWall moves the wall clock alone, as an administrator or NTP would; d may be negative.
func (m *Manual) StepWall(d time.Duration) { m.wall.Add(int64(d)) }
