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

// System is the machine's clock for what happens often: a reading costs about 40 ns and no system call, because it goes through
// the vDSO (CLOCK_MONOTONIC and CLOCK_REALTIME). It shows Boot's time, but for naps: see follower.
var System Clock = &system{}

// Boot is CLOCK_BOOTTIME, which goes on while the machine sleeps, at the price of a system call a reading. What others may
// have taken from us in the meantime, a lease, is measured with it. Its times and System's can be compared.
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

// nap is the longest sleep of the machine that System may not have noticed, all those since it last looked taken together.
const nap = 20 * time.Millisecond

// A follower makes a clock that stands while the machine sleeps follow one that does not. After a sleep the kernel sets the
// wall clock forward by as much as it sets CLOCK_BOOTTIME, so it is enough to ask that one when the wall has moved against
// CLOCK_MONOTONIC: a sleep, or somebody who set the clock. Any goroutine may use it.
type follower struct {
	apart atomic.Int64 // how far the wall was ahead of the monotonic clock when it was looked at last
	slept atomic.Int64 // how far the clock that goes on was
}

// now is mono with all sleeps but naps added. wall and mono are of one reading; look tells how far the clock that goes on is
// ahead of the monotonic one.
func (f *follower) now(wall, mono int64, look func() int64) Time {
	if d := wall - mono - f.apart.Load(); d > int64(nap) || d < -int64(nap) {
		f.catchUp(wall-mono, look())
	}
	return Time(mono + f.slept.Load())
}

// catchUp sets slept before apart: who sees the new apart sees what it means, too. slept never goes back, and so neither does
// the time.
func (f *follower) catchUp(apart, slept int64) {
	for {
		was := f.slept.Load()
		if slept <= was || f.slept.CompareAndSwap(was, slept) {
			break
		}
	}
	f.apart.Store(apart)
}

// system's monotonic time counts from bootStart.
type system struct{ follower }

func (s *system) Now() Time {
	t := time.Now()
	return s.now(t.UnixNano(), int64(bootStart)+int64(t.Sub(started)), sleptNow)
}

func (*system) Wall() time.Time { return time.Now() }

// sleptNow is for how long the machine has slept since the process started.
func sleptNow() int64 {
	at, boot := pair(time.Now, bootTime)
	return int64(boot-bootStart) - int64(at.Sub(started))
}

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
