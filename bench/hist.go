package bench

import (
	"math/bits"
	"time"
)

const (
	subBits = 6            // 64 buckets to each doubling: a value is known to 1/64, 1.6 %
	subs    = 1 << subBits // values below it have a bucket each
	buckets = (64 - subBits) * subs
)

// A Hist counts durations in buckets whose width grows with the value. Its zero value is empty. Recording is a shift and
// an increment and never allocates; one goroutine owns it.
type Hist struct {
	n      uint64
	max    time.Duration
	counts [buckets]uint64
}

// Record counts d; a negative d, which only a broken clock gives, counts as 0.
func (h *Hist) Record(d time.Duration) { h.RecordN(d, 1) }

// RecordN counts d n times.
func (h *Hist) RecordN(d time.Duration, n uint64) {
	d = max(d, 0)
	h.counts[bucket(uint64(d))] += n
	h.n += n
	h.max = max(h.max, d)
}

// Count says how many durations were recorded.
func (h *Hist) Count() uint64 { return h.n }

// Max is the largest recorded duration, exactly.
func (h *Hist) Max() time.Duration { return h.max }

// Quantile returns a duration that at least the share q (0 to 1) of the recorded ones do not exceed, at most 1/64 above
// the exact one and never above Max. An empty Hist answers 0.
func (h *Hist) Quantile(q float64) time.Duration {
	want := uint64(min(max(q, 0), 1) * float64(h.n))
	var seen uint64
	for i, n := range h.counts {
		seen += n
		if n > 0 && seen >= want {
			return min(time.Duration(upper(i)), h.max)
		}
	}
	return h.max
}

// Add counts everything that o counted. o stays as it is.
func (h *Hist) Add(o *Hist) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// Reset forgets everything.
func (h *Hist) Reset() { *h = Hist{} }

// bucket is the index for v: below 64 the value itself, above it the doubling and the six bits after the leading one.
func bucket(v uint64) int {
	if v < subs {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift<<subBits + int(v>>shift)
}

// upper is the largest value of bucket i.
func upper(i int) uint64 {
	if i < 2*subs {
		return uint64(i)
	}
	shift := i>>subBits - 1
	return (uint64(i&(subs-1)|subs)+1)<<shift - 1
}
