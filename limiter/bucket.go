package limiter

import (
	"math"
	"math/bits"
	"sort"
	"sync/atomic"
	"time"

	"ticketgate/internal/mono"
)

// A bucket is one word: tat, the moment at which it would be full again (GCRA). The zero word is a full bucket.
//
//	now ───── tat ────────────── now+window
//	|<- used ->|<----- free ----->|            a take that would push tat past the right end is refused
//
// The word is mono.Time in ticks of 1/16 ns. Whole nanoseconds would round each byte at 1 GiB/s (0.93 ns) up by 7 %;
// with sixteenths it is 0.7 %. The price is range: a word holds 18 years, and takes are right while the machine has been
// up for less than 13.
//
// A take of n costs n*c ticks, c = 16*Per/N, rounded up by less than two, so that it is never too cheap. The window is what
// the burst costs when it is taken one by one, but no more than what it costs at once and floor(c) - 2. The costs
// admitted in a stretch of time t sum up to at most window + 16t ticks, whatever the bucket held when it began. Hence:
//
//	takes of 1:      admitted <= burst + N/Per*t; the whole burst is there while burst < c (800,000 at 20,000/second)
//	takes of any n:  admitted <  burst + N/Per*t + 1, for 2 ticks and floor(c) - 2 are at most one event
const (
	ticks   = 16      // of one nanosecond
	horizon = 1 << 61 // ticks, 4.6 years: no debt reaches further
)

// Never is the wait for what no waiting makes possible: more at once than the burst.
const Never = time.Duration(math.MaxInt64)

// Meter is a rate with its burst, compiled. It is immutable; the zero Meter admits nothing. One Meter serves any number of
// buckets, and a bucket's word keeps its meaning (time until full) under another Meter.
type Meter struct {
	whole  uint64 // c = whole + frac/2^64 ticks per event; frac is rounded up
	frac   uint64
	window int64 // ticks from empty to full, at most those of periodMax
	burst  int64
}

// NewMeter compiles r, which ParseRate has accepted, with a burst; 0 stands for r.N. A burst that takes more than 52 weeks
// to refill is cut to what fills in that time. A rate out of range gives the zero Meter.
func NewMeter(r Rate, burst uint64) Meter {
	if r.check() != nil {
		return Meter{}
	}
	if burst == 0 {
		burst = r.N
	}
	per := uint64(r.Per) * ticks
	m := Meter{whole: per / r.N}
	frac, rest := bits.Div64(per%r.N, 0, r.N)
	if rest != 0 {
		frac++ // no carry: rest/N is at most 1 - 2^-44
	}
	m.frac = frac
	m.burst = int64(min(burst, burstMax(r)))
	once := m.cost(m.burst)
	m.window = once + min(m.burst*m.cost(1)-once, int64(m.whole)-2)
	return m
}

// burstMax returns the largest burst of r that is full again within periodMax.
func burstMax(r Rate) uint64 {
	hi, lo := bits.Mul64(r.N, uint64(periodMax))
	n, _ := bits.Div64(hi, lo, uint64(r.Per)) // N/Per is at most 2^34/s and periodMax below 2^25 s
	return n
}

// cost returns what n costs, n from 0 to burst: n*c ticks, rounded up by less than two.
func (m *Meter) cost(n int64) int64 {
	carry, low := bits.Mul64(uint64(n), m.frac)
	c := uint64(n)*m.whole + carry
	if low != 0 {
		c++
	}
	return int64(c)
}

// try returns the word after n has been taken from tat and true; or tat, how long until n would pass, and false.
func (m *Meter) try(tat int64, now mono.Time, n int64) (after int64, until time.Duration, ok bool) {
	if n <= 0 {
		return tat, 0, true
	}
	if n > m.burst {
		return tat, Never, false
	}
	at := int64(now) * ticks
	after = max(tat, at) + m.cost(n)
	if over := after - at - m.window; over > 0 {
		return tat, wait(over), false
	}
	return after, 0, true
}

// wait turns ticks into the nanoseconds that cover them.
func wait(over int64) time.Duration { return time.Duration((over + ticks - 1) / ticks) }

// Take takes n from the bucket whose word is tat, or nothing. When it refuses, it returns how long until n would pass if
// nobody took anything meanwhile, exact to the nanosecond, or Never. n <= 0 takes nothing and passes.
// Only the word's owner may call it.
func (m Meter) Take(tat *int64, now mono.Time, n int64) (ok bool, until time.Duration) {
	*tat, until, ok = m.try(*tat, now, n)
	return ok, until
}

// TakeShared is Take for a bucket that several goroutines use at once. Their clocks' readings may differ: an old now only
// finds less room. It never blocks.
func (m Meter) TakeShared(tat *atomic.Int64, now mono.Time, n int64) (ok bool, until time.Duration) {
	for {
		old := tat.Load()
		after, until, ok := m.try(old, now, n)
		if !ok || after == old || tat.CompareAndSwap(old, after) {
			return ok, until
		}
	}
}

// Full says that the bucket whose word is tat is full: it may be forgotten, for the zero word is a full bucket as well.
func Full(tat int64, now mono.Time) bool { return tat <= int64(now)*ticks }

// owe returns the word after n has been taken from tat whether there was room or not, and how long until the bucket is out
// of debt. No debt reaches further than horizon.
func (m *Meter) owe(tat int64, now mono.Time, n int64) (after int64, until time.Duration) {
	if n <= 0 {
		return tat, 0
	}
	at := int64(now) * ticks
	after = min(max(tat, at)+m.price(n), at+horizon)
	return after, wait(max(after-at-m.window, 0))
}

// price is cost for any n, at most horizon.
func (m *Meter) price(n int64) int64 {
	if hi, low := bits.Mul64(uint64(n), m.whole+1); hi == 0 && low < horizon {
		return m.cost(n)
	}
	return horizon
}

// Left returns how much could be taken now, and how long until one more could be: 0 when the bucket is full. They are the
// r and t of a RateLimit header; with nothing left, t is the wait of a Take of 1.
func (m Meter) Left(tat int64, now mono.Time) (remaining uint64, resetAfter time.Duration) {
	at := int64(now) * ticks
	free := m.window - (max(tat, at) - at)
	n := int64(sort.Search(int(m.burst), func(i int) bool { return m.cost(int64(i)+1) > free }))
	if n == m.burst {
		return uint64(n), 0
	}
	return uint64(n), wait(m.cost(n+1) - free)
}
