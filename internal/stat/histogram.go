package stat

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	first   = 16 * time.Microsecond // upper bound of the lowest bucket; below it a loopback round trip is noise
	bounded = 33                    // buckets with an upper bound, each twice the one before: the last is 19 h, past the longest session
)

// Bounds returns the upper bounds of all buckets but the last, in seconds, rising. A duration equal to a bound belongs to
// that bucket. The slice is the caller's.
func Bounds() []float64 {
	bs := make([]float64, bounded)
	for i := range bs {
		bs[i] = (first << i).Seconds()
	}
	return bs
}

// A Histogram counts durations in buckets that double from 16 us to 19 h, and one beyond. Any goroutine may use it.
// The zero Histogram is ready; it must not be copied.
type Histogram struct {
	buckets [bounded + 1]atomic.Uint64
	micros  atomic.Uint64 // ns would wrap within 5 hours of a million open sockets
}

// Observe counts d; a negative d counts as zero. It does not allocate.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	h.buckets[bucket(d)].Add(1)
	h.micros.Add(uint64((d + time.Microsecond/2) / time.Microsecond))
}

// bucket returns the place of d: 0 up to first, 1 up to twice that, and so on.
func bucket(d time.Duration) int {
	if d == 0 {
		return 0
	}
	return min(bits.Len64(uint64((d-1)/first)), bounded)
}

// Snapshot adds what h holds to s, so that one Snapshot can collect the histograms of all loops. While others observe,
// the sum may be ahead of the buckets by what is just being counted.
func (h *Histogram) Snapshot(s *Snapshot) {
	for i := range h.buckets {
		s.Buckets[i] += h.buckets[i].Load()
	}
	s.micros += h.micros.Load()
}

// A Snapshot is a histogram's content at one moment, or the sum of several.
type Snapshot struct {
	Buckets [bounded + 1]uint64 // observations per bucket, not cumulated; the last is everything above Bounds
	micros  uint64
}

// Merge adds o to s.
func (s *Snapshot) Merge(o *Snapshot) {
	for i, n := range o.Buckets {
		s.Buckets[i] += n
	}
	s.micros += o.micros
}

// Count returns the number of observations.
func (s *Snapshot) Count() uint64 {
	var n uint64
	for _, b := range s.Buckets {
		n += b
	}
	return n
}

// Sum returns the observed durations added up, in seconds; each was rounded to a microsecond.
func (s *Snapshot) Sum() float64 { return float64(s.micros) / 1e6 }
