package reactor

import "math/bits"

// Buffers. An idle socket holds none. What waits (outbound, or input that was not consumed) lies in segments from the
// loop's own free lists, one a size class, so nothing is locked and a collection does not empty them.
const (
	classMin  = 9                       // 512 bytes: most frames
	classMax  = 18                      // 256 KiB: one whole default queue
	classes   = classMax - classMin + 1 // powers of two
	classKeep = 1 << 20                 // free bytes kept a class and loop: 10 MiB a loop at most
	pieceMax  = 4 << 10                 // small writes to one socket share segments up to so long
	packFrom  = 16 << 10                // longer pieces are cut to classes that they fill: under 1/16 of 256 KiB is lost
)

// A pool keeps free buffers by class.
type pool struct {
	free [classes][][]byte
}

// classOf is the smallest class that holds n bytes; it may be classes or more, which no list keeps.
func classOf(n int) int { return max(bits.Len(uint(n-1)), classMin) - classMin }

// get returns an empty buffer with room for n bytes, n > 0.
func (p *pool) get(n int) []byte {
	c := classOf(n)
	if c >= classes {
		return make([]byte, 0, n)
	}
	list := p.free[c]
	if len(list) == 0 {
		return make([]byte, 0, 1<<(c+classMin))
	}
	b := list[len(list)-1]
	p.free[c] = list[:len(list)-1]
	return b
}

// put takes b back if its class has room.
func (p *pool) put(b []byte) {
	c := classOf(cap(b))
	if c >= classes || cap(b) != 1<<(c+classMin) || (len(p.free[c])+1)*cap(b) > classKeep {
		return
	}
	p.free[c] = append(p.free[c], b[:0])
}

// An arena hands out numbered T. Number 0 stays zero and is nobody's, so that a zeroed row holds nothing.
type arena[T any] struct {
	items []T
	free  []int32
}

func newArena[T any]() arena[T] { return arena[T]{items: make([]T, 1, 64)} }

// get returns a zeroed item. Pointers into the arena are good until the next get.
func (a *arena[T]) get() (int32, *T) {
	if n := len(a.free); n > 0 {
		i := a.free[n-1]
		a.free = a.free[:n-1]
		return i, &a.items[i]
	}
	var zero T
	a.items = append(a.items, zero)
	i := int32(len(a.items) - 1)
	return i, &a.items[i]
}

func (a *arena[T]) put(i int32) {
	var zero T
	a.items[i] = zero
	a.free = append(a.free, i)
}

// A segment is a piece of one socket's outbound bytes, or its whole leftover. b[from:] waits.
type segment struct {
	b    []byte
	from int32
	next int32
}

// A queue is what one socket has waiting to be sent.
type queue struct {
	head, tail int32  // segments
	wait       uint32 // bytes
	held       uint32 // capacity of the segments: what the queue costs
	counted    uint32 // the part of held that Reactor.queued knows of
}
