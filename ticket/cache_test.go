package ticket_test

import (
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"ticketgate/ticket"
)

func hashOf(i uint64) (h ticket.Hash) {
	binary.LittleEndian.PutUint64(h[:], i)
	return h
}

func TestCacheStates(t *testing.T) {
	expiry := uint32(noon.Unix()) + 30
	states := []ticket.State{ticket.Unknown, ticket.Granted, ticket.Refused, ticket.Spent}
	for _, first := range states {
		for _, second := range states {
			c := ticket.NewCache(8)
			c.Put(hashOf(1), first, expiry, noon)
			c.Put(hashOf(1), second, expiry-1, noon)
			if got, want := c.Get(hashOf(1), noon), max(first, second); got != want {
				t.Errorf("%d then %d: %d, want %d", first, second, got, want)
			}
			lasts := 30 * time.Second
			if first == ticket.Unknown { // which says nothing
				lasts = 29 * time.Second
			}
			if got := c.Get(hashOf(1), noon.Add(lasts-time.Millisecond)); got != max(first, second) {
				t.Errorf("%d then %d: forgotten before the later expiry", first, second)
			}
			if got := c.Get(hashOf(1), noon.Add(30*time.Second)); got != ticket.Unknown {
				t.Errorf("%d then %d: %d after expiry", first, second, got)
			}
		}
	}
	for s, want := range map[ticket.State]bool{ticket.Unknown: false, ticket.Granted: false, ticket.Refused: true, ticket.Spent: true} {
		if s.Refuses() != want {
			t.Errorf("state %d refuses: %v", s, s.Refuses())
		}
	}
}

func TestCacheForgetsAtExpiry(t *testing.T) {
	c := ticket.NewCache(1)
	now := uint32(noon.Unix())
	c.Put(hashOf(1), ticket.Spent, now, noon) // over already
	if got := c.Get(hashOf(1), noon.Add(-time.Hour)); got != ticket.Unknown {
		t.Errorf("an expired ticket is remembered as %d", got)
	}
	c.Put(hashOf(2), ticket.Spent, now+1, noon)
	later := noon.Add(time.Second)
	c.Put(hashOf(2), ticket.Granted, now+5, later) // a new life of the entry, not the old state
	if got := c.Get(hashOf(2), later); got != ticket.Granted {
		t.Errorf("state %d", got)
	}
	if got := c.Get(ticket.Hash{}, noon); got != ticket.Unknown {
		t.Errorf("the zero hash of empty entries is %d", got)
	}
}

// TestCacheGivesUpTheNearestExpiry fills one set of 8.
func TestCacheGivesUpTheNearestExpiry(t *testing.T) {
	c := ticket.NewCache(8)
	now := uint32(noon.Unix())
	for i := range uint64(8) {
		c.Put(hashOf(i+1), ticket.Spent, now+10+uint32((i*5)%8), noon)
	}
	c.Put(hashOf(100), ticket.Spent, now+60, noon)
	for i := range uint64(8) {
		want := ticket.Spent
		if i == 0 { // expires first
			want = ticket.Unknown
		}
		if got := c.Get(hashOf(i+1), noon); got != want {
			t.Errorf("entry %d: %d, want %d", i, got, want)
		}
	}
	if got := c.Get(hashOf(100), noon); got != ticket.Spent {
		t.Errorf("the newcomer: %d", got)
	}
}

func TestCacheSize(t *testing.T) {
	if ticket.CacheEntryBytes != 12 {
		t.Errorf("an entry has %d bytes, want 12", ticket.CacheEntryBytes)
	}
	for want, sizes := range map[int][]int{8: {-1, 0, 1, 8}, 16: {9, 16}, 512: {257, 512}, 1024: {513}, 1 << 17: {100_000, 1 << 17}} {
		for _, n := range sizes {
			if got := ticket.NewCache(n).Cap(); got != want {
				t.Errorf("NewCache(%d) has %d entries, want %d", n, got, want)
			}
		}
	}
}

// TestCacheOverTheYears: the clock's 30 bits come round without a gap.
func TestCacheOverTheYears(t *testing.T) {
	c := ticket.NewCache(8)
	for _, at := range []int64{5, 1 << 30, 1<<31 - 10, 1 << 31, 1<<32 - 200} {
		for from := at - 3; from <= at+3; from++ {
			now := time.Unix(from, 0)
			c.Put(hashOf(uint64(from)), ticket.Spent, uint32(from+120), now)
			for age, want := range map[int64]ticket.State{0: ticket.Spent, 119: ticket.Spent, 120: ticket.Unknown, 1 << 20: ticket.Unknown} {
				if got := c.Get(hashOf(uint64(from)), time.Unix(from+age, 0)); got != want {
					t.Errorf("put at %d, after %d s: %d, want %d", from, age, got, want)
				}
			}
		}
	}
}

// TestCacheHoldsWhatItShould: at a quarter full nearly nothing is given up, and over-filled it stays full.
func TestCacheHoldsWhatItShould(t *testing.T) {
	c := ticket.NewCache(1 << 12)
	expiry := uint32(noon.Unix()) + 30
	known := func(n uint64) (k int) {
		for i := range n {
			if c.Get(hashOf(i), noon) == ticket.Spent {
				k++
			}
		}
		return k
	}
	for i := range uint64(1 << 10) {
		c.Put(hashOf(i), ticket.Spent, expiry, noon)
	}
	if k := known(1 << 10); k < 1020 {
		t.Errorf("%d of 1024 remembered in 4096 entries", k)
	}
	for i := range uint64(1 << 16) {
		c.Put(hashOf(i), ticket.Spent, expiry, noon)
	}
	if k := known(1 << 16); k > 1<<12 || k < 1<<12-10 {
		t.Errorf("%d remembered in 4096 entries", k)
	}
}

func TestCacheConcurrently(t *testing.T) {
	c := ticket.NewCache(1 << 10)
	expiry := uint32(noon.Unix()) + 30
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range uint64(5000) {
				h := hashOf(i % 300)
				if g%2 == 0 {
					c.Put(h, ticket.Granted, expiry, noon)
				} else {
					c.Put(h, ticket.Spent, expiry, noon)
					if got := c.Get(h, noon); got != ticket.Spent {
						t.Errorf("a spent ticket is %d again", got)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestCacheAllocatesNothing(t *testing.T) {
	c := ticket.NewCache(1 << 10)
	expiry, i := uint32(noon.Unix())+30, uint64(0)
	if n := testing.AllocsPerRun(10_000, func() {
		i++
		c.Put(hashOf(i), ticket.Spent, expiry, noon)
		c.Get(hashOf(i-1), noon)
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkCachePutGet(b *testing.B) {
	c := ticket.NewCache(1 << 20)
	expiry := uint32(noon.Unix()) + 30
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for i := uint64(0); p.Next(); i++ {
			c.Put(hashOf(i), ticket.Spent, expiry, noon)
			c.Get(hashOf(i/2), noon)
		}
	})
}
