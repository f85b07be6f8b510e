package ticket

import (
	"math/bits"
	"sync"
	"time"
	"unsafe"

	"github.com/cespare/xxhash/v2"
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

// A Cache remembers tickets until they expire, so that a spent one is refused without a round trip. It holds no pointers,
// never grows and never allocates; any goroutine may use it. Entries lie in sets of 8:
//
//	hash ── xxhash ──> shard (its lock) ──> set ──> 8 entries of 24 bytes, searched one by one
//
// A full set gives up its entry nearest expiry: that one protects against the shortest replay, which the store would
// refuse anyway.
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

type cacheEntry struct {
	hash   Hash
	expiry uint32 // store's seconds; the entry is free from then on
	state  State
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
	for i := range c.shards {
		c.shards[i].sets = make([]cacheSet, sets/shards)
	}
	return c
}

func ceilPower(n int) int { return 1 << bits.Len(uint(n-1)) }

// Cap returns how many entries there are.
func (c *Cache) Cap() int { return len(c.shards) * len(c.shards[0].sets) * cacheWays }

// set locks and returns the set of h, and the lock to release. The hash is keyed, so nobody outside can aim at a set.
func (c *Cache) set(h *Hash) (*cacheSet, *sync.Mutex) {
	x := xxhash.Sum64(h[:])
	s := &c.shards[x>>c.shift] // with one shard the shift is 64, which gives 0 in Go
	s.mu.Lock()
	return &s.sets[x&c.mask], &s.mu
}

// Get returns what is remembered of h at now, the store's clock.
func (c *Cache) Get(h Hash, now time.Time) State {
	set, mu := c.set(&h)
	defer mu.Unlock()
	for i := range set {
		if e := &set[i]; e.hash == h && now.Unix() < int64(e.expiry) {
			return e.state
		}
	}
	return Unknown
}

// Put remembers s for h until expiry (the locator's, in seconds of the store's clock). What is known never weakens: a
// Spent ticket stays Spent. An expiry that has passed at now is not remembered.
func (c *Cache) Put(h Hash, s State, expiry uint32, now time.Time) {
	if now.Unix() >= int64(expiry) {
		return
	}
	set, mu := c.set(&h)
	defer mu.Unlock()
	e := set.place(&h, now.Unix())
	if e.hash == h && now.Unix() < int64(e.expiry) {
		s, expiry = max(s, e.state), max(expiry, e.expiry)
	}
	*e = cacheEntry{h, expiry, s}
}

// place returns the entry of h, or a free one, or the one nearest expiry.
func (s *cacheSet) place(h *Hash, now int64) *cacheEntry {
	best := &s[0]
	for i := range s {
		e := &s[i]
		if e.hash == *h && now < int64(e.expiry) {
			return e
		}
		if e.expiry < best.expiry { // a free entry has expired, so it is before all that live
			best = e
		}
	}
	return best
}
