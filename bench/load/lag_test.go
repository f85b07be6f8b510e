package load

import (
	"testing"
	"time"
)

// A beat that was missed counts as late as it was, and each figure is the power of two below what it should be.
func TestLags(t *testing.T) {
	var l lags
	if l.lag() != nil {
		t.Error("there were no beats")
	}
	next := beatEvery
	for range 60 { // all in time, within a microsecond
		next = l.beats(next, next)
	}
	next = l.beats(next, next-1) // not yet
	next = l.beats(next, next+3*time.Millisecond)
	const stopped = 390 * time.Millisecond
	if next = l.beats(next, next+stopped); next != 101*beatEvery+beatEvery {
		t.Errorf("the next beat is at %v", next)
	}
	g := l.lag()
	if g == nil || g.Count != 101 || g.P50 != time.Microsecond/2 || g.P90 < stopped*7/10/2 || g.P90 > stopped*8/10 || g.P99 < stopped/2 || g.P99 > stopped {
		t.Errorf("%+v", g)
	}
	both := l
	if both.add(&l); both.sub(&l) != l {
		t.Errorf("%v", both)
	}
	if l = (lags{}); l.beats(0, 100*time.Hour) == 0 || l.lag().P99 > 100*time.Hour {
		t.Errorf("%+v", l.lag())
	}
}
