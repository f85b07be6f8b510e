// Package stat holds the numbers that the message path may touch: a counter for one writer and a histogram for many.
// It knows nothing of how they are shown.
package stat

import "sync/atomic"

// A Counter counts for one writer: one goroutine calls Add, any may call Load. It is 8 bytes, so that the counters which
// one message touches share a cache line; a Pad keeps those of two writers apart. The zero Counter is ready.
//
// Add is a plain 8-byte store, because a locked instruction costs 20 cycles and a message counts in several places. The
// Go memory model lets a racing reader of one aligned word see only a value that was written. Builds with the race
// detector store atomically instead, so that it checks everything around.
type Counter struct{ n uint64 }

// Add counts d more. Only the owner calls it.
func (c *Counter) Add(d uint64) { store(&c.n, c.n+d) }

// Load returns what has been counted so far. Any goroutine may call it.
func (c *Counter) Load() uint64 { return atomic.LoadUint64(&c.n) }

// Pad stands before and after a block of counters of one writer. It is two cache lines, since processors fetch lines in
// pairs.
type Pad [128]byte
