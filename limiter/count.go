package limiter

import (
	"math/bits"
	"sync"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/internal/offheap"
	"ticketgate/ticket"
)

// A Count is how many sockets, open or being redeemed, this node holds for each subject: exact over all loops. Any goroutine
// may call it. A call takes one of 16 locks for some 50 ns; at 100,000 sockets a second that is taken 1 % of the time.
//
//	subject ──> stripe ── index ──> tally      28 bytes a subject, outside of the heap
//
// A reading is number:41 | count:22 in one word. The number is the time of the change in units of 2^17 ns (0.13 ms) since the
// Count was made, or the number before plus one if that is not smaller. It thus rises with every change of the subject. A
// tally at zero is dropped only when its number lies in the past by more than retain; one made for the subject later starts
// at the then present time, so the number rises over that gap too. 41 bits last 9 years; a subject that changes more than
// 7,600 times a second only runs ahead of the time and is dropped later.
type Count struct {
	clk     mono.Clock
	start   mono.Time
	retain  uint64 // in units of a number
	stripes [stripeCount]stripe
}

const (
	countBits  = 22
	countCap   = 1<<countBits - 1 // sockets of one subject: twice the 2^21 descriptors of our unit file
	numberBits = 41
	unitShift  = 17 // 2^17 ns

	stripeBits  = 4
	stripeCount = 1 << stripeBits
	golden      = 0x9e3779b97f4a7c15 // spreads subjects, whose low bits are the shard tag
	atOnce      = 256                // tallies that are looked at under one lock: about 1 us
)

// A stripe is what is counted of a 16th of the subjects.
type stripe struct {
	mu    sync.Mutex
	index *offheap.Index
	rows  *offheap.Rows[tally]
	_     [40]byte // locks of neighbours are not on one cache line
}

// A tally is the reading of one subject.
type tally struct {
	next    uint32 // in its chain
	subject uint64
	word    uint64 // the reading, never 0: 0 is a row that nobody has
}

// NewCount returns an empty Count. Subjects at zero are remembered for retain after their last change, which is the lease:
// that long a node reports a subject once more to a store that lost it.
func NewCount(clk mono.Clock, retain time.Duration) *Count {
	c := &Count{clk: clk, start: clk.Now(), retain: uint64(retain) >> unitShift}
	for i := range c.stripes {
		c.stripes[i].index, c.stripes[i].rows = offheap.NewIndex(), offheap.NewRows[tally]()
	}
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
	return uint32(word & countCap), word >> countBits
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
	t, hash := c.stripe(s)
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.find(uint64(s), hash)
	if r == nil {
		word := changed(0, by, c.time())
		r = t.add(uint64(s), hash)
		r.word = word
	} else {
		r.word = changed(r.word, by, c.time())
	}
	return unpack(r.word)
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
	t, hash := c.stripe(s)
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.find(uint64(s), hash)
	if r == nil {
		return 0, 0, false
	}
	count, number = unpack(r.word)
	return count, number, true
}

// stripe returns where s is counted, and its hash there. Subjects are keyed hashes: nobody outside aims them.
func (c *Count) stripe(s ticket.Subject) (t *stripe, hash uint64) {
	hash = tallyHash(uint64(s))
	return &c.stripes[hash&(stripeCount-1)], hash >> stripeBits
}

func tallyHash(s uint64) uint64 { return bits.Reverse64(s * golden) }

func (t *stripe) find(s, hash uint64) *tally {
	for i := *t.index.First(hash); i != 0; {
		r := t.rows.At(i)
		if r.subject == s {
			return r
		}
		i = r.next
	}
	return nil
}

func (t *stripe) add(s, hash uint64) *tally {
	i, r := t.rows.Get()
	if r == nil {
		panic("limiter: more subjects than 16 nodes are sized for")
	}
	r.subject = s
	t.index.Enter(i, hash, &r.next, t.of)
	return r
}

// of is for the index.
func (t *stripe) of(i uint32) (hash uint64, next *uint32) {
	r := t.rows.At(i)
	return tallyHash(r.subject) >> stripeBits, &r.next
}

// Sweep drops subjects that have been at zero for longer than retain. One goroutine calls it now and then, not a loop;
// others go on meanwhile.
func (c *Count) Sweep() {
	now := c.time()
	c.walk(func(t *stripe, i uint32) {
		r := t.rows.At(i)
		if count, number := unpack(r.word); count == 0 && number+c.retain < now {
			t.index.Leave(i, tallyHash(r.subject)>>stripeBits, t.of)
			t.rows.Put(i)
		}
	}, func() bool { return true })
}

// walk calls f for every tally, under its stripe's lock, and after each 256 of them, without a lock, more.
func (c *Count) walk(f func(t *stripe, i uint32), more func() bool) {
	for n := range c.stripes {
		t := &c.stripes[n]
		for from, last := uint32(1), false; !last; from += atOnce {
			if last = t.walk(from, f); !more() {
				return
			}
		}
	}
}

// walk calls f for the tallies from number from on, 256 numbers, and reports whether they were the last.
func (t *stripe) walk(from uint32, f func(t *stripe, i uint32)) (last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	end := min(from+atOnce-1, t.rows.Made())
	for i := from; i <= end; i++ {
		if t.rows.At(i).word != 0 {
			f(t, i)
		}
	}
	return end < from+atOnce-1
}

// Each calls yield for every subject that has a reading until yield returns false. Subjects that get their first socket
// during the call may be left out; one that is dropped and comes back during it may be told twice. Any goroutine may call
// it, and yield may call c, but it takes time for the whole table.
func (c *Count) Each(yield func(Reading) bool) {
	some := make([]Reading, 0, atOnce)
	c.walk(func(t *stripe, i uint32) {
		r := t.rows.At(i)
		count, number := unpack(r.word)
		some = append(some, Reading{ticket.Subject(r.subject), count, number})
	}, func() bool {
		for _, r := range some {
			if !yield(r) {
				return false
			}
		}
		some = some[:0]
		return true
	})
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
