package secure

import "math/bits"

// Bytes that came off the wire and are not decoded yet lie in buffers of a power of two, which go back to the loop's free
// lists as soon as they are empty: an idle socket holds none, and one that was cut off in a record holds at most twice what
// has come of it.
const (
	classMin  = 9                       // 512 bytes
	classMax  = 18                      // 256 KiB: one reading of the reactor and one record
	classes   = classMax - classMin + 1 // powers of two
	classKeep = 256 << 10               // free bytes kept a class and loop
)

type pool struct {
	free [classes][][]byte
}

// classOf is the smallest class that holds n bytes; it may be classes or more, which no list keeps.
func classOf(n int) int { return max(bits.Len(uint(max(n, 1)-1)), classMin) - classMin }

// get returns an empty buffer with room for n bytes.
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

// add appends more to b, which came from the pool or is nil, and moves it to a larger buffer if it must.
func (p *pool) add(b, more []byte) []byte {
	if len(b)+len(more) <= cap(b) {
		return append(b, more...)
	}
	larger := append(p.get(len(b)+len(more)), b...)
	if b != nil {
		p.put(b)
	}
	return append(larger, more...)
}

// keep returns b[from:] at the beginning of a buffer that is not much too large for it, nil if it is empty.
func (p *pool) keep(b []byte, from int) []byte {
	rest := b[from:]
	switch {
	case len(rest) == 0:
		p.put(b)
		return nil
	case classOf(len(rest)) < classOf(cap(b)):
		less := append(p.get(len(rest)), rest...)
		p.put(b)
		return less
	case from > 0:
		return b[:copy(b, rest)]
	}
	return b
}
