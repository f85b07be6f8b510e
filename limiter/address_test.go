package limiter_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"ticketgate/limiter"
)

// newAddresses limits connections to 20/second with a burst of 40, and 4 at once.
func newAddresses(tb testing.TB, size int, exempt ...string) *limiter.Addresses {
	tb.Helper()
	o := limiter.AddressOptions{Rate: rate(tb, "20/1second"), Burst: 40, Unauthenticated: 4}
	for _, e := range exempt {
		o.Exempt = append(o.Exempt, netip.MustParsePrefix(e))
	}
	return limiter.NewAddresses(o, size, [2]uint64{0x243f6a8885a308d3, 0x13198a2e03707344})
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// v4 is the i-th IPv4 address.
func v4(i uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, i)))
}

func TestAddressRate(t *testing.T) {
	a := newAddresses(t, 64)
	now, one := noon, ip("203.0.113.9")
	connect := func() (n int) {
		for a.Enter(one, now) == limiter.EntryCounted {
			a.Leave(one)
			n++
		}
		return n
	}
	if n := connect(); n != 40 {
		t.Errorf("burst of %d, want 40", n)
	}
	if got := a.Enter(one, now); got != limiter.EntryRate {
		t.Errorf("behind the burst: %d, want EntryRate", got)
	}
	if got := a.Enter(ip("203.0.113.10"), now); got != limiter.EntryCounted {
		t.Errorf("a neighbour: %d, want EntryCounted", got)
	}
	now = now.Add(time.Second)
	if n := connect(); n != 20 {
		t.Errorf("a second later %d, want 20", n)
	}
}

func TestAddressUnauthenticated(t *testing.T) {
	a := newAddresses(t, 64)
	one := ip("203.0.113.9")
	for i, want := range []limiter.Entry{1, 1, 1, 1, limiter.EntryUnauthenticated, limiter.EntryUnauthenticated} {
		if got := a.Enter(one, noon); got != want {
			t.Errorf("socket %d: %d, want %d", i, got, want)
		}
	}
	a.Leave(one)
	if got := a.Enter(one, noon); got != limiter.EntryCounted {
		t.Errorf("after one has left: %d, want EntryCounted", got)
	}
	for range 4 {
		a.Leave(one)
	}
	defer func() {
		if recover() == nil {
			t.Error("Leave without a socket does not panic")
		}
	}()
	a.Leave(one)
}

// TestAddressKey: what is one address and what is not.
func TestAddressKey(t *testing.T) {
	same := [][]string{
		{"203.0.113.9", "::ffff:203.0.113.9"},
		{"2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::"},
		{"2001:db8:1:3::1"},
		{"203.0.113.10"},
		{"::1", "::"},
		{"0.0.0.0", "::ffff:0.0.0.0"},
		{"0.0.0.1"},
		{"2002:cb00:7109::1"},  // 6to4 of 203.0.113.9: another way in
		{"64:ff9b::cb00:7109"}, // NAT64 of it
	}
	keys := map[uint64]int{}
	for i, list := range same {
		for _, s := range list {
			k := limiter.AddressKey(ip(s))
			if was, ok := keys[k]; k == 0 || ok && was != i {
				t.Errorf("%s: key %#x is that of line %d too, or 0", s, k, was)
			}
			if k != limiter.AddressKey(ip(list[0])) {
				t.Errorf("%s and %s have different keys", s, list[0])
			}
			keys[k] = i
		}
	}
}

func TestAddressIPv6IsOneBy64(t *testing.T) {
	a := newAddresses(t, 64)
	for i, s := range []string{"2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:2:3::", "2001:db8:1:2:4:5:6:7"} {
		if got := a.Enter(ip(s), noon); got != limiter.EntryCounted {
			t.Errorf("socket %d: %d", i, got)
		}
	}
	if got := a.Enter(ip("2001:db8:1:2:9::9"), noon); got != limiter.EntryUnauthenticated {
		t.Errorf("the fifth of one /64: %d, want EntryUnauthenticated", got)
	}
	if got := a.Enter(ip("2001:db8:1:1::1"), noon); got != limiter.EntryCounted {
		t.Errorf("the /64 beside it: %d, want EntryCounted", got)
	}
}

func TestAddressExempt(t *testing.T) {
	a := newAddresses(t, 64, "10.1.0.0/16", "10.0.0.0/8", "192.0.2.7/32", "::ffff:198.51.100.0/120", "2001:db8::/32", "192.0.2.8/32", "10.255.0.0/16")
	for s, want := range map[string]limiter.Entry{
		"10.0.0.0": 0, "10.1.2.3": 0, "10.255.255.255": 0, "9.255.255.255": 1, "11.0.0.0": 1,
		"192.0.2.6": 1, "192.0.2.7": 0, "192.0.2.8": 0, "192.0.2.9": 1, "::ffff:10.9.9.9": 0,
		"198.51.99.255": 1, "198.51.100.0": 0, "198.51.100.255": 0, "198.51.101.0": 1,
		"2001:db7:ffff::1": 1, "2001:db8::1": 0, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff": 0, "2001:db9::": 1, "::1": 1,
	} {
		if got := a.Enter(ip(s), noon); got != want {
			t.Errorf("%s: %d, want %d", s, got, want)
		}
	}
	if got := a.Enter(netip.Addr{}, noon); got != limiter.EntryFree {
		t.Errorf("no address: %d, want EntryFree", got)
	}
	for all, other := range map[string]string{"0.0.0.0/0": "2001:db8::1", "::/0": "192.0.2.1"} {
		a := newAddresses(t, 64, all)
		if got := a.Enter(netip.MustParsePrefix(all).Addr(), noon); got != limiter.EntryFree {
			t.Errorf("%s does not exempt itself: %d", all, got)
		}
		if got := a.Enter(ip(other), noon); got != limiter.EntryCounted {
			t.Errorf("%s exempts %s: %d", all, other, got)
		}
	}
}

// TestAddressExemptMatchesPrefixes: random prefixes and addresses, against netip's own idea of containing.
func TestAddressExemptMatchesPrefixes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	near := func() netip.Addr { // few different bits, so that they do meet
		if rnd.IntN(2) == 0 {
			return v4(rnd.Uint32() & 0x03000301)
		}
		return netip.AddrFrom16([16]byte{0: 0x20, 1: byte(rnd.IntN(3)), 7: byte(rnd.IntN(4)), 15: byte(rnd.IntN(4))})
	}
	for range 300 {
		var list []netip.Prefix
		for range rnd.IntN(6) {
			a := near()
			list = append(list, netip.PrefixFrom(a, rnd.IntN(a.BitLen()+1)))
		}
		a := limiter.NewAddresses(limiter.AddressOptions{Rate: rate(t, "20/1second"), Unauthenticated: 1000, Exempt: list}, 8, [2]uint64{1, 2})
		for range 20 {
			addr, want := near(), limiter.EntryCounted
			for _, p := range list {
				if p.Contains(addr) {
					want = limiter.EntryFree
				}
			}
			if got := a.Enter(addr, noon); got != want {
				t.Fatalf("%s among %v: %d, want %d", addr, list, got, want)
			}
			if want == limiter.EntryCounted {
				a.Leave(addr)
			}
		}
	}
}

// TestAddressFlood: a thousand times more addresses than seats do not make the table forget one that is limited, and do not
// keep others out once they are quiet.
func TestAddressFlood(t *testing.T) {
	a := newAddresses(t, 64)
	now, greedy := noon, ip("203.0.113.9")
	for range 4 {
		a.Enter(greedy, now)
	}
	for i := range uint32(64_000) {
		now = now.Add(10 * time.Millisecond) // five seats are in use at a time
		one := v4(0x0a000000 + i)
		if got := a.Enter(one, now); got != limiter.EntryCounted {
			t.Fatalf("address %d of the flood: %d; there are free seats", i, got)
		}
		a.Leave(one)
	}
	if got := a.Enter(greedy, now); got != limiter.EntryUnauthenticated {
		t.Errorf("the greedy one after the flood: %d, want EntryUnauthenticated", got)
	}
}

// TestAddressBucketIsNotForgotten: an address without sockets keeps its seat until its bucket is full again.
func TestAddressBucketIsNotForgotten(t *testing.T) {
	a := newAddresses(t, 8)
	now, greedy := noon, ip("203.0.113.9")
	for range 40 {
		a.Enter(greedy, now)
		a.Leave(greedy)
	}
	for i := range uint32(800) {
		now = now.Add(time.Millisecond)
		if got := a.Enter(v4(i), now); got == limiter.EntryCounted {
			a.Leave(v4(i))
		}
	}
	passed := 0
	for a.Enter(greedy, now) == limiter.EntryCounted {
		a.Leave(greedy)
		passed++
	}
	if passed != 16 {
		t.Errorf("%d connections 800 ms after the burst, want 16", passed)
	}
}

// TestAddressCrowd: with every seat taken, newcomers share the limits of their /24 or /48, and each Leave finds its count
// whatever has become free meanwhile.
func TestAddressCrowd(t *testing.T) {
	a := newAddresses(t, 8)
	for i := range uint32(8) {
		a.Enter(v4(0x0a000000+i<<8), noon)
	}
	crowd := []netip.Addr{ip("198.51.100.1"), ip("198.51.100.2"), ip("198.51.100.3"), ip("198.51.100.4")}
	for _, c := range crowd {
		if got := a.Enter(c, noon); got != limiter.EntryCounted {
			t.Fatalf("%s: %d", c, got)
		}
	}
	if got := a.Enter(ip("198.51.100.5"), noon); got != limiter.EntryUnauthenticated {
		t.Errorf("the fifth of the crowd: %d, want EntryUnauthenticated", got)
	}
	if got := a.Enter(ip("198.51.101.5"), noon); got != limiter.EntryCounted {
		t.Errorf("another crowd: %d, want EntryCounted", got)
	}
	later := noon.Add(time.Minute)
	for i := range uint32(8) { // all seats become free, and one of the crowd gets one
		a.Leave(v4(0x0a000000 + i<<8))
	}
	for range 3 {
		if got := a.Enter(crowd[0], later); got != limiter.EntryCounted {
			t.Fatalf("with a seat: %d", got)
		}
	}
	for range 4 {
		a.Leave(crowd[0])
	}
	for _, c := range crowd[1:] {
		a.Leave(c)
	}
	for _, c := range crowd {
		for i := range 4 {
			if got := a.Enter(c, later.Add(time.Minute)); got != limiter.EntryCounted {
				t.Errorf("%s, socket %d, when all have left: %d", c, i, got)
			}
		}
	}
}

// TestAddressShared: loops enter and leave at once, with far too few seats. No count is lost or kept, and the limit holds
// for whoever has a seat.
func TestAddressShared(t *testing.T) {
	const goroutines, rounds, addresses = 8, 20_000, 40
	o := limiter.AddressOptions{Rate: rate(t, "1000000000/1second"), Unauthenticated: 1 << 20}
	a := limiter.NewAddresses(o, 16, [2]uint64{3, 5})
	var wg sync.WaitGroup
	for g := range uint64(goroutines) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(g, 1))
			var mine []netip.Addr
			now := noon
			for range rounds {
				now = now.Add(time.Microsecond)
				if len(mine) > 0 && rnd.IntN(2) == 0 {
					i := rnd.IntN(len(mine))
					a.Leave(mine[i])
					mine[i] = mine[len(mine)-1]
					mine = mine[:len(mine)-1]
					continue
				}
				one := v4(uint32(rnd.IntN(addresses)) << 8)
				if got := a.Enter(one, now); got != limiter.EntryCounted {
					t.Errorf("%s: %d", one, got)
					return
				}
				mine = append(mine, one)
			}
			for _, one := range mine {
				a.Leave(one)
			}
		})
	}
	wg.Wait()
	if n := limiter.AddressesOpen(a); n != 0 {
		t.Errorf("%d sockets are still counted", n)
	}
}

func TestAddressSize(t *testing.T) {
	if limiter.SeatSize != 24 {
		t.Errorf("a seat has %d bytes, want 24", limiter.SeatSize)
	}
	for size, want := range map[int]int{1: 8, 8: 8, 9: 16, 1000: 1024, 1 << 17: 1 << 17} {
		if got := limiter.Seats(newAddresses(t, size)); got != want {
			t.Errorf("size %d: %d seats, want %d", size, got, want)
		}
	}
}

// TestAddressSpread: a hash that favours some sets would leave addresses without a seat long before the table is full.
func TestAddressSpread(t *testing.T) {
	for name, of := range map[string]func(i uint32) netip.Addr{
		"one network":      func(i uint32) netip.Addr { return v4(0x0a000000 + i) },
		"one host in each": func(i uint32) netip.Addr { return v4(i << 8) },
		"one /48": func(i uint32) netip.Addr {
			return netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 6: byte(i >> 8), 7: byte(i)})
		},
	} {
		a := newAddresses(t, 1<<15)
		for i := range uint32(1 << 13) {
			a.Enter(of(i), noon)
		}
		// A quarter full: with sets of eight filled by chance, 8 in 10,000 find theirs full, here 3 of 8,192.
		if n := limiter.Seated(a); n < 1<<13-20 {
			t.Errorf("%s: %d of %d addresses have a seat", name, n, 1<<13)
		}
	}
}

func TestAddressAllocs(t *testing.T) {
	a, one := newAddresses(t, 1<<10, "10.0.0.0/8"), ip("2001:db8::1")
	now := noon
	if n := testing.AllocsPerRun(1000, func() {
		now = now.Add(time.Second)
		if a.Enter(one, now) == limiter.EntryCounted {
			a.Leave(one)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAddresses(b *testing.B) {
	b.Run("one address", func(b *testing.B) {
		a, one, now := newAddresses(b, 1<<17), ip("203.0.113.9"), noon
		for b.Loop() {
			now = now.Add(50 * time.Millisecond)
			a.Enter(one, now)
			a.Leave(one)
		}
	})
	b.Run("refused", func(b *testing.B) {
		a, one := newAddresses(b, 1<<17), ip("203.0.113.9")
		for b.Loop() {
			a.Enter(one, noon)
		}
	})
	b.Run("100000 addresses", func(b *testing.B) {
		a, now, i := newAddresses(b, 1<<17), noon, uint32(0)
		for b.Loop() {
			now = now.Add(time.Microsecond)
			one := v4(i % 100_000 * 7)
			i++
			if a.Enter(one, now) == limiter.EntryCounted {
				a.Leave(one)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		a := newAddresses(b, 1<<17)
		b.RunParallel(func(pb *testing.PB) {
			now, i := noon, rand.Uint32()
			for pb.Next() {
				now = now.Add(time.Microsecond)
				i++
				if one := v4(i); a.Enter(one, now) == limiter.EntryCounted {
					a.Leave(one)
				}
			}
		})
	})
}
