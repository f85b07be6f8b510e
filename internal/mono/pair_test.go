package mono

import (
	"testing"
	"time"
)

// A process that loses its core between the two readings still has one time: another try counts.
func TestPair(t *testing.T) {
	zero := time.Now()
	var passed time.Duration // on both clocks
	reads := 0
	started, at := pair(
		func() time.Time { passed += 20 * time.Nanosecond; return zero.Add(passed) },
		func() Time {
			reads++
			passed += 100 * time.Nanosecond
			read := Time(passed)
			if reads != 5 { // all tries but one are interrupted
				passed += time.Duration(reads) * time.Millisecond
			}
			return read
		})
	if off := started.Sub(zero) - time.Duration(at); off < -100*time.Nanosecond || off > 100*time.Nanosecond {
		t.Errorf("the clocks are off by %v", off)
	}
}
