package limiter

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
	"sync"

	"ticketgate/internal/mono"
	"ticketgate/internal/offheap"
)

// Addresses limits what an address may do before it has said who it is: how often it connects, and how many of its sockets
// may wait for their admission at once. An IPv4 address is one, and so is an IPv6 /64, which is what one household gets.
//
//	free ──Enter──> seated: a bucket (GCRA) and a count ──count 0, bucket full again, seat needed──> another's
//	  │                             ^
//	  └──no seat free──> crowd ─────┘ as soon as there is one
//
// A seat is 24 bytes in a table that is set aside once and touched when used; eight make a set, and an address may sit only
// in the set that a keyed hash gives it. A seat is given to another address only when it says nothing any more: no socket
// waits and the bucket is full. So whoever comes with more and more addresses cannot make the table forget anybody, least
// of all himself. What he can do is to fill it. Then a newcomer is counted with its crowd, the others of its /24 (IPv6: /48)
// without a seat: 4,096 buckets and counts of the same size, in which some crowds share one. Those who have a seat notice
// nothing.
//
// Filling takes as many unadmitted sockets as there are seats, or a rate that needs long to refill: with 20/second a seat is
// free 50 ms after a single connection.
//
// One of 256 locks is held for about 20 ns; two loops hardly ever meet at one.
type Addresses struct {
	meter  Meter
	most   uint32
	exempt []span // sorted, apart from each other
	seed   [2]uint64

	sets   []seats
	crowds []seat
	locks  [addressLocks]addressLock
}

type seat struct {
	key  uint64 // AddressKey, 0: nobody's yet
	tat  int64  // bucket of connections
	open uint32 // sockets that wait for their admission
	_    uint32
}

type seats [8]seat

type addressLock struct {
	sync.Mutex
	_ [56]byte // two locks never share a line
}

const (
	addressLocks = 256
	crowds       = 4096
	seatsMax     = 1 << 26 // 1.5 GiB
)

// AddressOptions are the limits of every address.
type AddressOptions struct {
	Rate            Rate           // connections
	Burst           uint64         // connections at once, 0: Rate.N
	Unauthenticated int            // sockets that wait for their admission at once, at least 1
	Exempt          []netip.Prefix // who is not limited: proxies in front, health checks
}

// NewAddresses returns limits with seats for at least size addresses, 8 to 2^26. Set aside four times as many as sockets
// may wait for their admission: then hardly an address is left without a seat. seed must be random and secret: with it
// nobody outside can choose addresses that share a set.
func NewAddresses(o AddressOptions, size int, seed [2]uint64) *Addresses {
	sets := 1
	for size = min(size, seatsMax); sets*len(seats{}) < size; {
		sets *= 2
	}
	t := &Addresses{meter: NewMeter(o.Rate, o.Burst), most: uint32(o.Unauthenticated), exempt: spans(o.Exempt), seed: seed}
	t.sets = offheap.Make[seats](t, sets)
	t.crowds = offheap.Make[seat](t, crowds)
	return t
}

// Entry is what Enter says to a connection.
type Entry uint8

// Entries.
const (
	EntryFree            Entry = iota // exempt, or without an address as unix sockets are: not counted
	EntryCounted                      // counted until Leave
	EntryRate                         // refused: the address connects too often
	EntryUnauthenticated              // refused: too many of its sockets wait for their admission
)

// Enter asks whether a socket of a may be kept while nobody knows who it is. After EntryCounted, and only then, Leave is
// owed, once. A refusal takes nothing from the bucket. Any goroutine may call it; it does not allocate.
func (t *Addresses) Enter(a netip.Addr, now mono.Time) Entry {
	if !a.IsValid() || t.spared(a) {
		return EntryFree
	}
	key := AddressKey(a)
	at := t.place(key, len(t.sets))
	lock := t.lock(at)
	lock.Lock()
	if s := t.sets[at].take(key, now); s != nil {
		e := t.enter(s, now)
		lock.Unlock()
		return e
	}
	lock.Unlock()
	at = t.place(crowdOf(key), crowds)
	lock = t.lock(at)
	lock.Lock()
	e := t.enter(&t.crowds[at], now)
	lock.Unlock()
	return e
}

func (t *Addresses) enter(s *seat, now mono.Time) Entry {
	if s.open >= t.most {
		return EntryUnauthenticated
	}
	if ok, _ := t.meter.Take(&s.tat, now, 1); !ok {
		return EntryRate
	}
	s.open++
	return EntryCounted
}

// Leave says that a socket of a for which Enter has answered EntryCounted was admitted, or is closed. It panics if there is
// none. Any goroutine may call it; it does not allocate.
//
// It need not know whether the socket was counted at the seat or in the crowd: of an address's sockets seat and crowd
// together always count all, so when the seat counts none, the crowd does. Until the last has left, one count may
// be too high by what the other is too low.
func (t *Addresses) Leave(a netip.Addr) {
	key := AddressKey(a)
	if t.leave(t.place(key, len(t.sets)), func(at uint64) *seat { return t.sets[at].find(key) }) {
		return
	}
	if !t.leave(t.place(crowdOf(key), crowds), func(at uint64) *seat { return &t.crowds[at] }) {
		panic("limiter: Leave of an address without a socket")
	}
}

// leave counts one socket less at the seat that find returns under at's lock, and reports whether there was one.
func (t *Addresses) leave(at uint64, find func(at uint64) *seat) bool {
	lock := t.lock(at)
	lock.Lock()
	defer lock.Unlock()
	s := find(at)
	if s == nil || s.open == 0 {
		return false
	}
	s.open--
	return true
}

// AddressKey is what counts as one address: IPv4 in full, of IPv6 the first 64 bits. Keys of different ones differ.
func AddressKey(a netip.Addr) uint64 {
	const nobody = 0xff << 56 // the first bits of ff00::/8, groups, which no packet comes from: room for what is not a /64
	if a = a.Unmap(); a.Is4() {
		b := a.As4()
		return nobody | uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	if key := binary.BigEndian.Uint64(b[:]); key != 0 {
		return key
	}
	return nobody | 1<<32 // ::/64, loopback: 0 is a free seat
}

// crowdOf is the key of the /24 or /48 around an address.
func crowdOf(key uint64) uint64 {
	if key>>56 == 0xff {
		return key &^ (1<<8 - 1)
	}
	return key &^ (1<<16 - 1)
}

// place hashes key to a number below n, a power of two, with the secret seed: two folded multiplications, 2 ns.
func (t *Addresses) place(key uint64, n int) uint64 {
	hi, lo := bits.Mul64(key^t.seed[0], t.seed[1]|1)
	hi, lo = bits.Mul64(hi^lo, t.seed[0]|1)
	return (hi ^ lo) & uint64(n-1)
}

// lock is that of the set or crowd with number at.
func (t *Addresses) lock(at uint64) *addressLock { return &t.locks[at%addressLocks] }

// find returns key's seat, or nil.
func (s *seats) find(key uint64) *seat {
	for i := range s {
		if s[i].key == key {
			return &s[i]
		}
	}
	return nil
}

// take returns key's seat, or else one that says nothing any more, with a full bucket; nil if there is neither.
func (s *seats) take(key uint64, now mono.Time) *seat {
	var free *seat
	for i := range s {
		switch q := &s[i]; {
		case q.key == key:
			return q
		case free == nil && q.open == 0 && q.tat <= int64(now)*ticks:
			free = q
		}
	}
	if free != nil {
		*free = seat{key: key}
	}
	return free
}

// span is a range of addresses of one family, both ends included.
type span struct{ from, to netip.Addr }

// spans turns prefixes into ranges that are sorted and do not overlap.
func spans(list []netip.Prefix) []span {
	all := make([]span, 0, len(list))
	for _, p := range list {
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		all = append(all, span{p.Masked().Addr(), last(p)})
	}
	slices.SortFunc(all, func(a, b span) int { return a.from.Compare(b.from) })
	apart := all[:0]
	for _, s := range all {
		if n := len(apart); n > 0 && !apart[n-1].to.Less(s.from) {
			if apart[n-1].to.Less(s.to) {
				apart[n-1].to = s.to
			}
			continue
		}
		apart = append(apart, s)
	}
	return apart
}

// last is the last address of p.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b) // 4 or 16 bytes, as they came
	return a
}

// spared reports whether a is exempt.
func (t *Addresses) spared(a netip.Addr) bool {
	if len(t.exempt) == 0 {
		return false
	}
	a = a.Unmap()
	i, found := slices.BinarySearchFunc(t.exempt, a, func(s span, a netip.Addr) int { return s.from.Compare(a) })
	return found || i > 0 && !t.exempt[i-1].to.Less(a)
}
