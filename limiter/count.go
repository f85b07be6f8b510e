package limiter

import (
	"math/bits"
	"sync/atomic"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// A Count is how many sockets, open or being redeemed, this node holds for each subject: exact over all loops. Any
// goroutine may call it; nobody takes a lock.
//
// A table of slots is probed from the subject's place on, and a subject keeps its slot. A slot is 16 bytes, and a table
// is doubled when it is 3/4 full: 22 to 43 bytes a subject, half as much again while it moves.
//
//	key    0 ──> subject            word   0 ──> reading ──> reading ... ──> moved | last reading
//	       └───> closed
//
// A reading is number:41 | count:22 in one word, so that both are of one moment. The number is the time of the change in
// units of 2^17 ns (0.13 ms) since the Count was made, or the number before plus one if that is not smaller. It thus rises
// with every change of the subject. A slot at zero is dropped only when its number lies in the past by more than retain; a
// slot made for the subject later starts at the then present time, so the number rises over that gap too. 41 bits last 9
// years; a subject that changes more than 7,600 times a second only runs ahead of the time and is dropped later.
//
// Moving, when a table fills up or Sweep wants it smaller: next is set, and every change moves some slots; nobody waits.
// A slot without a subject is closed; a slot with one is marked moved, its reading is copied to next, and only then the
// subject is changed there. Why a subject never has two live slots:
//   - A probe passes only slots that have another subject, which they keep. So all probes for a subject end at the same
//     slot: its own, or the first closed one, and then in next.
//   - Whoever meets a moved slot copies its reading to next himself, by compare-and-swap from 0, before he changes it. A
//     word never returns to 0, so late copies fail.
//   - next is not moved itself before all of this table is copied.
//
// What it gives up: a goroutine that is held up inside one call for longer than retain, while others go on and the subject
// is dropped and made again, may give that subject a number lower than the last.
type Count struct {
	clk    mono.Clock
	start  mono.Time
	retain uint64 // in units of a number

	table atomic.Pointer[slots]
	odd   [2]atomic.Uint64 // words of the two subjects that a key cannot say: free and closed
}

const (
	countBits  = 22
	countCap   = 1<<countBits - 1 // sockets of one subject: twice the 2^21 descriptors of our unit file
	numberBits = 41
	unitShift  = 17 // 2^17 ns
	moved      = 1 << 63

	free   = 0                  // key of a slot that nobody has yet
	closed = ^uint64(0)         // key of a slot that nobody will have
	chunk  = 16                 // slots that one change moves: about 1 us
	least  = 1 << 12            // slots of the smallest table, 64 KiB
	golden = 0x9e3779b97f4a7c15 // spreads subjects, whose low bits are the shard tag
)

type slot struct{ key, word atomic.Uint64 }

type slots struct {
	slot  []slot
	shift uint8 // 64 - log2(len(slot))

	used atomic.Int64          // slots with a subject
	next atomic.Pointer[slots] // where this table moves to
	hand atomic.Int64          // next slot to be moved
	done atomic.Int64          // slots that have been moved
}

func newSlots(n int) *slots {
	return &slots{slot: make([]slot, n), shift: uint8(64 - bits.TrailingZeros(uint(n)))}
}

// NewCount returns an empty Count. Subjects at zero are remembered for retain after their last change, which is the lease:
// that long a node reports a subject once more to a store that lost it.
func NewCount(clk mono.Clock, retain time.Duration) *Count {
	c := &Count{clk: clk, start: clk.Now(), retain: uint64(retain) >> unitShift}
	c.table.Store(newSlots(least))
	return c
}

// A Reading is what a store is told: the number of sockets of a subject and the number of the change that made it so.
type Reading struct {
	Subject ticket.Subject
	Count   uint32
	Number  uint64
}

func pack(count, number uint64) uint64 { return number<<countBits | count }

func unpack(word uint64) (count uint32, number uint64) {
	return uint32(word & countCap), word &^ moved >> countBits
}

// time returns the present as a number; it begins with 1, so no reading is 0.
func (c *Count) time() uint64 { return uint64(c.clk.Now().Sub(c.start))>>unitShift + 1 }

// Add counts one socket more: a redeem begins. It returns the reading after it. More than 4,194,303 of one subject are a
// bug of the caller, who limits descriptors: it panics.
func (c *Count) Add(s ticket.Subject) (count uint32, number uint64) { return c.change(s, 1) }

// Done counts one socket less: it closed, or its redeem was refused. It returns the reading after it. Done without an Add
// before is a bug: it panics and changes nothing.
func (c *Count) Done(s ticket.Subject) (count uint32, number uint64) { return c.change(s, -1) }

func (c *Count) change(s ticket.Subject, by int) (count uint32, number uint64) {
	now := c.time()
	c.help()
	w := c.word(uint64(s), true)
	for {
		old := w.Load()
		if old&moved != 0 {
			w = c.word(uint64(s), true)
			continue
		}
		word := changed(old, by, now)
		if w.CompareAndSwap(old, word) {
			return unpack(word)
		}
	}
}

// changed returns the reading after old, changed by one at now.
func changed(old uint64, by int, now uint64) uint64 {
	count, number := unpack(old)
	if by < 0 && count == 0 {
		panic("limiter: Done of a subject without a socket")
	}
	if by > 0 && count == countCap {
		panic("limiter: too many sockets of one subject")
	}
	number = max(number+1, now)
	if number >= 1<<numberBits {
		panic("limiter: the numbers of a subject are used up")
	}
	return pack(uint64(int(count)+by), number)
}

// Held returns the last reading of s; false: there is none, which means zero for longer than retain, or always.
func (c *Count) Held(s ticket.Subject) (count uint32, number uint64, ok bool) {
	w := c.word(uint64(s), false)
	if w == nil {
		return 0, 0, false
	}
	count, number = unpack(w.Load())
	return count, number, number != 0
}

// word finds the word of subject s; with add it is made if need be, else nil says that there is none. A word that has
// been marked moved since then is no longer the subject's.
func (c *Count) word(s uint64, add bool) *atomic.Uint64 {
	if s == free || s == closed {
		return &c.odd[s&1]
	}
	t, last := c.table.Load(), uint64(0)
	for {
		p, end := t.find(s, add)
		switch {
		case p != nil:
			w := p.take(last)
			if w&moved == 0 {
				return &p.word
			}
			if w != moved {
				last, add = w&^moved, true
			}
		case !end && !add:
			return nil
		case !end:
			c.help()
			continue
		}
		t = t.next.Load()
	}
}

// take gives p the reading that its subject had in the table before, if it has none yet, and returns what it has.
func (p *slot) take(last uint64) uint64 {
	if last != 0 {
		p.word.CompareAndSwap(0, last)
	}
	return p.word.Load()
}

// find returns the slot of s, which add makes if need be. Without one, end says that s never will have a slot here: look
// in next.
func (t *slots) find(s uint64, add bool) (p *slot, end bool) {
	at, mask := s*golden>>t.shift, uint64(len(t.slot)-1)
	for range t.slot {
		p = &t.slot[at]
		k := p.key.Load()
		if k == free && !add {
			return nil, false
		}
		if k == free && p.key.CompareAndSwap(free, s) {
			t.used.Add(1)
			return p, false
		}
		switch p.key.Load() {
		case s:
			return p, false
		case closed:
			return nil, true
		}
		at = (at + 1) & mask
	}
	return nil, t.next.Load() != nil
}

// crowded says that it is time for a larger table. Every change looks before it makes a slot, so the last quarter is
// room for all that have looked already.
func (t *slots) crowded() bool { return t.used.Load()*4 > int64(len(t.slot))*3 }

// help does one change's share of the moving: it starts it or moves chunk slots. The next table has twice the slots, is
// half full with what moves, and gets at most one slot more for each chunk. If it is crowded all the same, because a
// goroutine was held up over its share, others do that share again.
func (c *Count) help() {
	t := c.table.Load()
	next := t.next.Load()
	switch {
	case next == nil && t.crowded():
		t.next.CompareAndSwap(nil, newSlots(2*len(t.slot)))
	case next != nil && next.crowded():
		c.finish(t)
	case next != nil:
		c.share(t)
	}
}

// share moves the next chunk of t.
func (c *Count) share(t *slots) {
	from := t.hand.Add(chunk) - chunk
	if from >= int64(len(t.slot)) {
		return
	}
	now := c.time()
	for i := range t.slot[from : from+chunk] {
		c.move(t, &t.slot[from+int64(i)], now)
	}
	if t.done.Add(chunk) == int64(len(t.slot)) {
		c.table.CompareAndSwap(t, t.next.Load())
	}
}

// finish moves all of t, again if need be, so it depends on nobody.
func (c *Count) finish(t *slots) {
	now := c.time()
	for i := range t.slot {
		c.move(t, &t.slot[i], now)
	}
	c.table.CompareAndSwap(t, t.next.Load())
}

// move closes p, or copies its reading to the next table unless it may be dropped. Doing it twice is harmless.
func (c *Count) move(t *slots, p *slot, now uint64) {
	if p.key.CompareAndSwap(free, closed) {
		return
	}
	s := p.key.Load()
	if s == closed {
		return
	}
	last := p.word.Or(moved) &^ moved
	if last == 0 || c.old(last, now) {
		return
	}
	q, end := t.next.Load().find(s, true)
	switch {
	case q != nil:
		q.take(last)
	case !end: // end: next itself is moving, so all of t had been copied before
		panic("limiter: the next table has no room for this one")
	}
}

// old says that a reading may be forgotten.
func (c *Count) old(word, now uint64) bool {
	count, number := unpack(word)
	return count == 0 && number+c.retain < now
}

// Sweep drops subjects that have been at zero for longer than retain, once they are a quarter of all or the table is
// four times too large: what remains is copied, while others go on changing it. One goroutine calls it now and then, not
// a loop.
func (c *Count) Sweep() {
	t := c.settle()
	now, drop := c.time(), int64(0)
	for i := range t.slot {
		if w := t.slot[i].word.Load(); w != 0 && c.old(w, now) {
			drop++
		}
	}
	used, n := t.used.Load(), least
	for int64(n) < 2*used || n < len(t.slot)/4 { // what moves fills half; what is made meanwhile, one a chunk, a quarter
		n *= 2
	}
	if n == len(t.slot) && (drop == 0 || drop*4 < used) {
		return
	}
	if t.next.CompareAndSwap(nil, newSlots(n)) {
		c.finish(t)
	}
}

// settle ends the moving that is under way and returns the table.
func (c *Count) settle() *slots {
	t := c.table.Load()
	if t.next.Load() != nil {
		c.finish(t)
		t = c.table.Load()
	}
	return t
}

// Each calls yield for every subject that has a reading, once, until yield returns false. Subjects that get their first
// socket during the call may be left out. Any goroutine may call it, but it takes time for the whole table.
func (c *Count) Each(yield func(Reading) bool) {
	for i := range c.odd {
		if !c.yield(-uint64(i), yield) {
			return
		}
	}
	t := c.settle()
	for i := range t.slot {
		if s := t.slot[i].key.Load(); s != free && s != closed && !c.yield(s, yield) {
			return
		}
	}
}

func (c *Count) yield(s uint64, yield func(Reading) bool) bool {
	count, number, ok := c.Held(ticket.Subject(s))
	return !ok || yield(Reading{ticket.Subject(s), count, number})
}

// Total returns how many subjects have a reading and how many sockets they hold. It walks the table, as Each does.
func (c *Count) Total() (subjects, sockets int) {
	c.Each(func(r Reading) bool {
		subjects++
		sockets += int(r.Count)
		return true
	})
	return subjects, sockets
}
