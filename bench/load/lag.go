package load

import (
	"math/bits"
	"time"
)

// beatEvery is how often a worker without due times looks at its clock: a message tells nothing of when it could have been read.
const beatEvery = 10 * time.Millisecond

// lags are how much too late the beats came: how many by less than 1 µs, less than 2, less than 4, and so on; the last ones by more. A beat
// that the worker missed counts as late as it was.
type lags [32]uint64

// beats counts the beats that were due until now, and returns when the next one is.
func (l *lags) beats(next, now time.Duration) time.Duration {
	for ; next <= now; next += beatEvery {
		l[min(bits.Len64(uint64((now-next)/time.Microsecond)), len(l)-1)]++
	}
	return next
}

func (l *lags) add(o *lags) {
	for i, n := range o {
		l[i] += n
	}
}

// sub is l without o.
func (l lags) sub(o *lags) lags {
	for i, n := range o {
		l[i] -= n
	}
	return l
}

// A Lag is by how much a client that has no due times was late for what it could have done, seen every 10 ms; each figure is the power of
// two of µs below it.
type Lag struct {
	Count uint64        `json:"count"`
	P50   time.Duration `json:"p50"`
	P90   time.Duration `json:"p90"`
	P99   time.Duration `json:"p99"`
}

// lag is nil if there were no beats.
func (l *lags) lag() *Lag {
	var g Lag
	for _, n := range l {
		g.Count += n
	}
	if g.Count == 0 {
		return nil
	}
	for _, p := range []struct {
		to    *time.Duration
		share float64
	}{{&g.P50, 0.5}, {&g.P90, 0.9}, {&g.P99, 0.99}} {
		var n uint64
		for i := range l {
			if n += l[i]; float64(n) >= p.share*float64(g.Count) {
				*p.to = time.Microsecond << i / 2
				break
			}
		}
	}
	return &g
}
