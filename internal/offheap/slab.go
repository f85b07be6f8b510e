package offheap

import (
	"math/bits"
	"reflect"
	"runtime"
	"sync/atomic"
	"unsafe"
)

const (
	// MaxRows is how many rows a Slab has: sixteen times the descriptors that one node is sized for.
	MaxRows   = 1 << 24
	firstBits = 10 // the first chunk has 1,024 rows
	chunks    = 24 - firstBits + 1
)

// A Slab is a table of T by number. It grows at first use, by a chunk as large as all before it, never moves a row and never
// shrinks, so a pointer from At stays good as long as the Slab is reachable. Any goroutine may call At; who may touch the row
// behind it is the owner's business.
//
//	chunk 0      1            2                       3
//	|0 .. 1023|1024 .. 2047|2048 ........... 4095|4096 ...
type Slab[T any] struct {
	chunks [chunks]atomic.Pointer[T] // the first row of each
}

// NewSlab returns an empty Slab. It panics if T contains a pointer, string, slice, map, channel, function or interface.
func NewSlab[T any]() *Slab[T] {
	mustBePlain(reflect.TypeFor[T]())
	return new(Slab[T])
}

// At returns row i, zeroed at its first use. Bits of i from 2^24 up are ignored.
func (s *Slab[T]) At(i uint32) *T {
	i %= MaxRows
	c := bits.Len32(i >> firstBits)
	first := s.chunks[c].Load()
	if first == nil {
		first = s.grow(c)
	}
	return (*T)(unsafe.Add(unsafe.Pointer(first), uintptr(i-begin(c))*unsafe.Sizeof(*first)))
}

// begin is the first row of chunk c.
func begin(c int) uint32 { return 1 << (firstBits + c) >> 1 &^ (1<<firstBits - 1) }

// grow adds chunk c. Two goroutines may race: the loser's memory goes at once.
func (s *Slab[T]) grow(c int) *T {
	rows := max(int(begin(c)), 1<<firstBits)
	p := &s.chunks[c]
	b := mapped(rows * int(unsafe.Sizeof(*new(T))))
	switch {
	case b == nil:
		p.CompareAndSwap(nil, unsafe.SliceData(make([]T, rows)))
	case p.CompareAndSwap(nil, (*T)(unsafe.Pointer(unsafe.SliceData(b)))):
		runtime.AddCleanup(s, unmap, b)
	default:
		unmap(b)
	}
	return p.Load()
}
