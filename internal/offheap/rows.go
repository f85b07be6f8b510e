package offheap

import "unsafe"

// Rows hands out numbered rows. Number 0 is nobody's, so that a zeroed field names no row. A row that was given back is the
// next to be handed out, so that few pages are in use. One goroutine at a time uses a Rows.
type Rows[T any] struct {
	slab *Slab[T]
	made uint32 // numbers that have ever been handed out
	free uint32 // the first free row, each naming the next in its first bytes
	live uint32
}

// NewRows returns an empty Rows. T must have no pointers and at least 4 bytes, aligned to 4; otherwise it panics.
func NewRows[T any]() *Rows[T] {
	if unsafe.Sizeof(*new(T)) < 4 || unsafe.Alignof(*new(T)) < 4 {
		panic("offheap: a row must have room for the number of another")
	}
	return &Rows[T]{slab: NewSlab[T]()}
}

// At returns row i, which Get has handed out. The pointer is good as long as the Rows is.
func (r *Rows[T]) At(i uint32) *T { return r.slab.At(i) }

// Get hands out a zeroed row. Number 0: all 16,777,215 are taken.
func (r *Rows[T]) Get() (uint32, *T) {
	i := r.free
	switch {
	case i != 0:
		r.free = *r.link(i)
		*r.link(i) = 0
	case r.made+1 < MaxRows:
		r.made++
		i = r.made
	default:
		return 0, nil
	}
	r.live++
	return i, r.slab.At(i)
}

// Put takes row i back, once.
func (r *Rows[T]) Put(i uint32) {
	var zero T
	*r.slab.At(i) = zero
	*r.link(i) = r.free
	r.free = i
	r.live--
}

// Len is how many rows are handed out.
func (r *Rows[T]) Len() int { return int(r.live) }

// Made is the highest number that has ever been handed out, for who wants to look at all rows. One that was given back is
// zero but for its first 4 bytes.
func (r *Rows[T]) Made() uint32 { return r.made }

// link is where free row i names the next.
func (r *Rows[T]) link(i uint32) *uint32 { return (*uint32)(unsafe.Pointer(r.slab.At(i))) }
