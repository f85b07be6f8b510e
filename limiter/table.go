package limiter

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"sync/atomic"

	"ticketgate/internal/mono"
	"ticketgate/internal/offheap"
)

// A Table holds the buckets that several sockets share: 36 to 40 bytes each, outside of the heap and touched when used.
//
//	free ──Hold──> held by n sockets ──last Release──> kept ──full again──> held by another
//	                        ^                            │
//	                        └────────────Hold────────────┘  the same word: coming back gives no new burst
//
// Hold and Release, at a socket's opening and end, take one lock for about 0.1 us. Messages take none: a bucket stays where
// it is while it is held. Kept buckets lie in a heap by the moment at which they are full again, which stands still
// because nobody takes from them. So Hold finds one that may be reused if there is any, and a new bucket is touched only if
// all that there are say something.
type Table struct {
	seed    uint64
	clk     mono.Clock
	buckets []bucket // never moves

	purses *Purses // of limits that a bank keeps; nil: there are none

	mu      sync.Mutex
	index   *offheap.Index // by key
	kept    []uint32       // heap of buckets without holders, the first full first
	made    int            // buckets that have ever been used
	held    int
	refused uint64
	reused  uint64
}

type bucket struct {
	tat     atomic.Int64
	key     uint64
	holders uint32
	next    uint32 // in its chain
	place   uint32 // in kept, while holders is 0
}

// Ref names a bucket of a Table; 0 is none.
type Ref uint32

// tableMax keeps a Ref in 32 bits with room to spare: 11 GiB of buckets.
const tableMax = 1 << 28

// NewTable returns a table of size buckets, 1 to 2^28. seed must be random and secret: with it nobody outside can choose
// names that share a bucket.
func NewTable(size int, seed uint64, clk mono.Clock) *Table {
	size = min(max(size, 1), tableMax)
	t := &Table{seed: seed, clk: clk, index: offheap.NewIndex()}
	t.buckets = offheap.Make[bucket](t, size)
	t.kept = offheap.Make[uint32](t, size)[:0]
	return t
}

// Lend gives t the purses of limits that a bank keeps, before the first Bind. Without them a plan that has such limits lets
// nobody in.
func (t *Table) Lend(p *Purses) { t.purses = p }

// Purses returns what Lend gave, or nil.
func (t *Table) Purses() *Purses { return t.purses }

// Key returns what a bucket is found by: 64 bits of SHA-256 over the seed and the three names. A faster hash such as
// xxhash will not do: for it, names that collide under every seed can be computed, and a client would empty another's
// bucket. It is for the opening of a socket, 0.2 us.
func (t *Table) Key(limit, kind, name string) uint64 {
	b := make([]byte, 0, 128)
	b = binary.LittleEndian.AppendUint64(b, t.seed)
	for _, s := range [...]string{limit, kind, name} {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(s))) // so that "a", "bc" is not "ab", "c"
		b = append(b, s...)
	}
	h := sha256.Sum256(b)
	return binary.LittleEndian.Uint64(h[:])
}

// Hold finds or makes the bucket of key and holds it until Release. A new bucket is full. false: every bucket is held or
// not yet full again; the caller refuses. Any goroutine may call it.
func (t *Table) Hold(key uint64) (Ref, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.find(key)
	if n == 0 {
		if n = t.room(); n == 0 {
			t.refused++
			return 0, false
		}
		t.enter(n, key)
	} else if t.bucket(n).holders == 0 {
		t.unkeep(t.bucket(n).place)
	}
	b := t.bucket(n)
	if b.holders == 0 {
		t.held++
	}
	b.holders++
	return Ref(n), true
}

// At returns the word of a held bucket, for Meter.TakeShared. Any goroutine may call it; it takes no lock.
func (t *Table) At(r Ref) *atomic.Int64 { return &t.buckets[r-1].tat }

// Release gives back what Hold returned, once. The bucket keeps its word until it is full again. Any goroutine may call
// it. To release a bucket that nobody holds is a bug and panics.
func (t *Table) Release(r Ref) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.bucket(uint32(r))
	if b.holders == 0 {
		panic("limiter: Release of a bucket that nobody holds")
	}
	if b.holders--; b.holders == 0 {
		t.held--
		t.kept = append(t.kept, uint32(r))
		t.up(uint32(len(t.kept)-1), uint32(r))
	}
}

func (t *Table) bucket(n uint32) *bucket { return &t.buckets[n-1] }

// of is for the index.
func (t *Table) of(n uint32) (hash uint64, next *uint32) {
	b := t.bucket(n)
	return b.key, &b.next
}

func (t *Table) find(key uint64) uint32 {
	n := *t.index.First(key)
	for n != 0 && t.bucket(n).key != key {
		n = t.bucket(n).next
	}
	return n
}

// room returns a bucket that is in no chain: the kept one that is full first if it is full now, or a fresh one. Else 0.
func (t *Table) room() uint32 {
	if len(t.kept) > 0 {
		if n := t.kept[0]; Full(t.bucket(n).tat.Load(), t.clk.Now()) {
			t.unkeep(0)
			t.index.Leave(n, t.bucket(n).key, t.of)
			t.reused++
			return n
		}
	}
	if t.made == len(t.buckets) {
		return 0
	}
	t.made++
	return uint32(t.made)
}

// enter puts bucket n in the chain of key, full.
func (t *Table) enter(n uint32, key uint64) {
	b := t.bucket(n)
	b.key = key
	b.tat.Store(0)
	t.index.Enter(n, key, &b.next, t.of)
}

// unkeep takes the bucket at place out of the heap: the last one fills the gap.
func (t *Table) unkeep(place uint32) {
	end := len(t.kept) - 1
	last := t.kept[end]
	t.kept = t.kept[:end]
	if int(place) < end {
		t.down(t.up(place, last), last)
	}
}

// up puts n at place, or higher while it is full before those above, and returns where.
func (t *Table) up(place, n uint32) uint32 {
	for place > 0 && t.before(n, t.kept[(place-1)/2]) {
		t.set(place, t.kept[(place-1)/2])
		place = (place - 1) / 2
	}
	t.set(place, n)
	return place
}

// down puts n at place, or lower while one of those below is full before it.
func (t *Table) down(place, n uint32) {
	for {
		child := 2*place + 1
		if int(child)+1 < len(t.kept) && t.before(t.kept[child+1], t.kept[child]) {
			child++
		}
		if int(child) >= len(t.kept) || !t.before(t.kept[child], n) {
			break
		}
		t.set(place, t.kept[child])
		place = child
	}
	t.set(place, n)
}

func (t *Table) set(place, n uint32) { t.kept[place] = n; t.bucket(n).place = place }

func (t *Table) before(n, m uint32) bool { return t.bucket(n).tat.Load() < t.bucket(m).tat.Load() }

// TableStats is how full a Table is.
type TableStats struct {
	Size    int    // buckets there are
	Held    int    // buckets that sockets hold
	Kept    int    // buckets without holders that remember what was taken
	Reused  uint64 // kept buckets that became another's
	Refused uint64 // Holds without room
}

// Stats adds t's figures to s. Any goroutine may call it.
func (t *Table) Stats(s *TableStats) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.Size += len(t.buckets)
	s.Held += t.held
	s.Kept += len(t.kept)
	s.Reused += t.reused
	s.Refused += t.refused
}
