package memory

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

// A Bank is a limiter.Bank in the process: what it holds ends with it. It does what store/redis/bank.lua does, in the same
// numbers.
type Bank struct {
	clock mono.Clock
	most  int

	mu    sync.Mutex
	pots  map[ticket.Subject]pot
	swept int // how many there were after the last sweep
}

// pot is one bucket.
type pot struct {
	tokens  float64 // of a token bucket, at the moment at
	at      int64   // Unix microseconds; of a fixed window: when it began
	used    int64   // of a fixed window
	expires int64   // Unix microseconds: from then on it says no more than a fresh one
}

// ErrBankFull is a Bank without room for one more bucket that is not full.
var ErrBankFull = errors.New("memory bank: every bucket is in use")

// bankMost is how many buckets a Bank holds if nothing else is said: some 100 MB.
const bankMost = 1 << 20

// NewBank returns an empty bank of at most most buckets, 0 for a million. Its time is clk's wall clock, as a server's is.
func NewBank(clk mono.Clock, most int) *Bank {
	if most == 0 {
		most = bankMost
	}
	return &Bank{clock: clk, most: most, pots: map[ticket.Subject]pot{}}
}

// Lease implements limiter.Bank.
func (b *Bank) Lease(_ context.Context, asks []limiter.Ask, answers []limiter.Grant) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock.Wall().UnixMicro()
	for i := range asks {
		a, known := b.pots[asks[i].Bucket]
		if !known && !b.room(now) {
			return ErrBankFull
		}
		if asks[i].Terms.Fixed {
			answers[i] = a.fixed(&asks[i], now)
		} else {
			answers[i] = a.bucket(&asks[i], known, now)
		}
		if a.expires > now {
			b.pots[asks[i].Bucket] = a
		} else {
			delete(b.pots, asks[i].Bucket)
		}
	}
	return nil
}

// room sees to it that one more fits: what has expired goes, looked for when half as many again have come.
func (b *Bank) room(now int64) bool {
	if n := len(b.pots); n < b.most && n < 1024+b.swept+b.swept/2 {
		return true
	}
	for s, a := range b.pots {
		if a.expires <= now {
			delete(b.pots, s)
		}
	}
	b.swept = len(b.pots)
	return b.swept < b.most
}

// windowKept is how much longer than its end a window is remembered: a clock that steps back by less gives nothing twice.
const windowKept = int64(time.Hour / time.Microsecond)

func (a *pot) fixed(q *limiter.Ask, now int64) (g limiter.Grant) {
	const second = 1_000_000
	per := int64(q.Terms.Rate.Per / time.Microsecond)
	start := limiter.WindowStart(time.UnixMicro(now), q.Terms.Rate.Per).UnixMicro()
	if a.at > start && (a.at-start)%per == 0 && a.expires > now { // the clock has stepped back: the window goes on
		start = a.at
	}
	if a.at != start {
		*a = pot{at: start}
	}
	a.expires = start + per + windowKept
	if q.Window*second == start {
		a.used = max(a.used+q.Spent-q.Back, 0)
	}
	left := max(int64(q.Terms.Rate.N)-a.used, 0)
	g.Given = min(q.Want, left)
	a.used += g.Given
	g.Remaining = left - g.Given
	g.Window = start / second
	g.Ends = time.Duration(start+per-now) * time.Microsecond
	if g.Remaining == 0 {
		g.Wait = g.Ends
	}
	return g
}

func (a *pot) bucket(q *limiter.Ask, known bool, now int64) (g limiter.Grant) {
	burst, rate := float64(q.Terms.Burst), float64(q.Terms.Rate.N)/float64(q.Terms.Rate.Per/time.Microsecond)
	if !known {
		a.tokens = burst
	} else {
		a.tokens = min(burst, a.tokens+float64(max(now-a.at, 0))*rate)
	}
	a.at = now
	a.tokens = min(burst, max(a.tokens-float64(q.Spent), 0)+float64(q.Back))
	g.Given = min(q.Want, int64(a.tokens))
	a.tokens -= float64(g.Given)
	g.Remaining = int64(a.tokens)
	if g.Remaining == 0 {
		g.Wait = time.Duration(math.Ceil((1-a.tokens)/rate)) * time.Microsecond
	}
	a.expires = now + int64(math.Ceil((burst-a.tokens)/rate))
	return g
}
