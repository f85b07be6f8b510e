package ticket

import (
	"encoding/binary"
	"math/bits"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"github.com/cespare/xxhash/v2"

	"ticketgate/internal/offheap"
)

// State is what a node remembers of a ticket. It may refuse on its own (Spent, Refused); it never admits: Granted is
// knowledge, the store still decides.
type State uint8

// The states. A later one is never replaced by an earlier one.
const (
	Unknown State = iota // nothing remembered: ask the store
	Granted              // issued here, not seen since: ask the store
	Refused              // the store did not know it
	Spent                // redeemed, revoked or burnt
)

// Refuses tells whether the store need not be asked.
func (s State) Refuses() bool { return s >= Refused }

// A Cache remembers tickets until they expire, so that a spent one is refused without a round trip. It lies outside of the
// heap, never grows and never allocates; any goroutine may use it. Entries lie in sets of 8:
//
//	hash ── xxhash ──> shard (its lock) ──> set ──> 8 entries of 12 bytes, searched one by one
//
// A full set gives up its entry nearest expiry: that one protects against the shortest replay, which the store would
// refuse anyway. An entry knows its ticket by 64 bits of a keyed hash, which nobody outside can aim: that a good ticket is
// taken for a spent one happens once in 2^61 look-ups.
type Cache struct {
	shards []cacheShard
	shift  uint // 64 - log2(shards): the top bits of the xxhash pick the shard
	mask   uint64
}

const (
	cacheWays      = 8
	cacheShardsMax = 64

	// CacheEntryBytes is what one entry costs; the sets hold nothing else.
	CacheEntryBytes = int(unsafe.Sizeof(cacheEntry{}))
)

// A cacheEntry is zero while it is free.
type cacheEntry struct {
	hash [2]uint32 // the first 8 bytes of the Hash; two words, so that an entry is aligned to 4
	left uint32    // the low 30 bits of the expiry in the store's seconds, and the State
}

const stateBits = 2

func entryOf(h *Hash, s State, expiry uint32) cacheEntry {
	return cacheEntry{[2]uint32{binary.LittleEndian.Uint32(h[:]), binary.LittleEndian.Uint32(h[4:])}, expiry<<stateBits | uint32(s)}
}

func (e *cacheEntry) state() State { return State(e.left & (1<<stateBits - 1)) }

// lasts is for how many seconds from now the entry says something. Tickets live 2 minutes: 30 bits of the expiry, which
// come round after 34 years, say which.
func (e *cacheEntry) lasts(now int64) int32 {
	if e.state() == Unknown {
		return 0
	}
	return max(int32(e.left&^(1<<stateBits-1)-uint32(now)<<stateBits)>>stateBits, 0)
}

type cacheSet [cacheWays]cacheEntry

type cacheShard struct {
	mu   sync.Mutex
	sets []cacheSet
	_    [32]byte // a shard fills a cache line, so that locks of neighbours do not fight over one
}

// NewCache returns a Cache of at least entries entries (1 or more, rounded up to a power of two of sets).
func NewCache(entries int) *Cache {
	sets := ceilPower(max(1, (entries+cacheWays-1)/cacheWays))
	shards := min(sets, cacheShardsMax)
	c := &Cache{
		shards: make([]cacheShard, shards),
		shift:  uint(64 - bits.TrailingZeros(uint(shards))),
		mask:   uint64(sets/shards - 1),
	}
	all := offheap.Make[cacheSet](c, sets)
	for i := range c.shards {
		c.shards[i].sets, all = all[:sets/shards], all[sets/shards:]
	}
	return c
}

func ceilPower(n int) int { return 1 << bits.Len(uint(n-1)) }

// Cap returns how many entries there are.
func (c *Cache) Cap() int { return len(c.shards) * len(c.shards[0].sets) * cacheWays }

// shard returns the shard of h, and which of its sets is h's. The hash is keyed, so nobody outside can aim at a set.
func (c *Cache) shard(h *Hash) (*cacheShard, uint64) {
	x := xxhash.Sum64(h[:])
	return &c.shards[x>>c.shift], x & c.mask // with one shard the shift is 64, which gives 0 in Go
}

// Get returns what is remembered of h at now, the store's clock.
func (c *Cache) Get(h Hash, now time.Time) State {
	s, i := c.shard(&h)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer runtime.KeepAlive(c)
	if e := s.sets[i].find(&h, now.Unix()); e != nil {
		return e.state()
	}
	return Unknown
}

// Put remembers s for h until expiry (the locator's, in seconds of the store's clock). What is known never weakens: a
// Spent ticket stays Spent. An expiry that has passed at now is not remembered, nor is Unknown.
func (c *Cache) Put(h Hash, s State, expiry uint32, now time.Time) {
	if now.Unix() >= int64(expiry) || s == Unknown {
		return
	}
	t, i := c.shard(&h)
	t.mu.Lock()
	defer t.mu.Unlock()
	defer runtime.KeepAlive(c)
	set := &t.sets[i]
	e := set.find(&h, now.Unix())
	if e != nil {
		s, expiry = max(s, e.state()), max(expiry, uint32(now.Unix()+int64(e.lasts(now.Unix()))))
	} else {
		e = set.nearest(now.Unix())
	}
	*e = entryOf(&h, s, expiry)
}

// find returns the entry of h if it still says something.
func (s *cacheSet) find(h *Hash, now int64) *cacheEntry {
	want := entryOf(h, 0, 0).hash
	for i := range s {
		if e := &s[i]; e.hash == want && e.lasts(now) > 0 {
			return e
		}
	}
	return nil
}

// nearest returns a free entry, or the one nearest expiry.
func (s *cacheSet) nearest(now int64) *cacheEntry {
	best := &s[0]
	for i := range s {
		if e := &s[i]; e.lasts(now) < best.lasts(now) {
			best = e
		}
	}
	return best
}
