package offheap

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Buffers hands out byte buffers of one capacity, for what grows to a length that nobody knows before: only the pages that
// were written to are resident, nothing is copied as a buffer grows, and what is given back returns to the kernel at once,
// but for some that stay as they are for the next. One goroutine at a time uses a Buffers, and it outlives its buffers.
type Buffers struct {
	size     int      // capacity, whole pages
	page     int      // bytes
	keep     int      // bytes that may be resident in warm
	resident int      // bytes that are
	warm     [][]byte // given back with their pages
	cold     [][]byte // given back without, and new ones: addresses only
	pieces   []piece  // the mappings that all are parts of
}

// piece is one mapping.
type piece struct {
	bytes   []byte
	touched []uint32 // pages of each buffer that have been written to since they were the kernel's
}

const (
	firstPiece = 1 << 20 // bytes of the first mapping; each is as large as all before it
	mostPiece  = 1 << 30
)

// NewBuffers hands out buffers of size bytes, rounded up to whole pages, and keeps at most warm bytes of those given back
// resident.
func NewBuffers(size, warm int) *Buffers {
	page := os.Getpagesize()
	size = max(page, (size+page-1)/page*page)
	return &Buffers{size: size, page: page, keep: warm}
}

// Size is the capacity of a buffer in bytes.
func (b *Buffers) Size() int { return b.size }

// Get returns an empty buffer with a capacity of Size.
func (b *Buffers) Get() []byte {
	if len(b.warm) == 0 && len(b.cold) == 0 {
		b.grow()
	}
	if n := len(b.warm); n > 0 {
		p := b.warm[n-1]
		b.warm = b.warm[:n-1]
		b.resident -= b.residentOf(p)
		return p
	}
	if n := len(b.cold); n > 0 {
		p := b.cold[n-1]
		b.cold = b.cold[:n-1]
		return p
	}
	return make([]byte, 0, b.size) // the kernel gives no memory of its own
}

// grow maps another piece.
func (b *Buffers) grow() {
	total := 0
	for _, p := range b.pieces {
		total += len(p.bytes)
	}
	n := max(1, min(max(total, firstPiece), mostPiece)/b.size)
	all := mapped(n * b.size)
	if all == nil {
		return
	}
	runtime.AddCleanup(b, unmap, all)
	b.pieces = append(b.pieces, piece{all, make([]uint32, n)})
	for i := range n {
		b.cold = append(b.cold, all[i*b.size:i*b.size:(i+1)*b.size])
	}
}

// Put takes back a buffer that Get returned, with the length that was written to it. What was in it is lost.
func (b *Buffers) Put(p []byte) {
	t := b.touched(p)
	if t != nil {
		*t = max(*t, uint32((len(p)+b.page-1)/b.page))
	}
	p = p[:0]
	switch n := b.residentOf(p); {
	case b.resident+n <= b.keep:
		b.resident += n
		b.warm = append(b.warm, p)
	case t == nil: // it is the collector's
	case unix.Madvise(p[:cap(p)], unix.MADV_DONTNEED) == nil:
		*t = 0
		b.cold = append(b.cold, p)
	}
}

// Resident is how many bytes of p, a buffer that Get returned, were resident before it was returned: all that has been written
// to it by others since the kernel had it. Nothing is known of one on the heap (where nothing could be mapped): 0.
func (b *Buffers) Resident(p []byte) int {
	if t := b.touched(p); t != nil {
		return int(*t) * b.page
	}
	return 0
}

// residentOf is how many bytes of p are resident; of heap, all.
func (b *Buffers) residentOf(p []byte) int {
	if t := b.touched(p); t != nil {
		return int(*t) * b.page
	}
	return b.size
}

// touched is how many pages of p have been written to; nil: p is not part of a mapping.
func (b *Buffers) touched(p []byte) *uint32 {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	for i := range b.pieces {
		piece := &b.pieces[i]
		from := uintptr(unsafe.Pointer(unsafe.SliceData(piece.bytes)))
		if at >= from && at < from+uintptr(len(piece.bytes)) {
			return &piece.touched[(at-from)/uintptr(b.size)]
		}
	}
	return nil
}
