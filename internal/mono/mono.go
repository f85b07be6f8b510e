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

// System is the machine's clock: CLOCK_BOOTTIME and the wall clock.
var System Clock = system{}

type system struct{}

func (system) Now() Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("mono: CLOCK_BOOTTIME: " + err.Error()) // every Linux that Go runs on has it
	}
	return Time(ts.Sec)*Time(time.Second) + Time(ts.Nsec)
}

func (system) Wall() time.Time { return time.Now() }

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
