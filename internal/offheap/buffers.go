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
	size   int      // capacity, whole pages
	keep   int      // how many warm may have
	warm   [][]byte // given back with their pages
	cold   [][]byte // given back without, and new ones: addresses only
	pieces [][]byte // the mappings that all are parts of
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
	return &Buffers{size: size, keep: warm / size}
}

// Size is the capacity of a buffer in bytes.
func (b *Buffers) Size() int { return b.size }

// Get returns an empty buffer with a capacity of Size.
func (b *Buffers) Get() []byte {
	if len(b.warm) == 0 && len(b.cold) == 0 {
		b.grow()
	}
	for _, list := range []*[][]byte{&b.warm, &b.cold} {
		if n := len(*list); n > 0 {
			p := (*list)[n-1]
			*list = (*list)[:n-1]
			return p
		}
	}
	return make([]byte, 0, b.size) // the kernel gives no memory of its own
}

// grow maps another piece.
func (b *Buffers) grow() {
	total := 0
	for _, p := range b.pieces {
		total += len(p)
	}
	n := max(1, min(max(total, firstPiece), mostPiece)/b.size)
	piece := mapped(n * b.size)
	if piece == nil {
		return
	}
	runtime.AddCleanup(b, unmap, piece)
	b.pieces = append(b.pieces, piece)
	for i := range n {
		b.cold = append(b.cold, piece[i*b.size:i*b.size:(i+1)*b.size])
	}
}

// Put takes back a buffer that Get returned. What was in it is lost.
func (b *Buffers) Put(p []byte) {
	p = p[:0]
	switch {
	case len(b.warm) < b.keep:
		b.warm = append(b.warm, p)
	case b.owns(p) && unix.Madvise(p[:cap(p)], unix.MADV_DONTNEED) == nil:
		b.cold = append(b.cold, p)
	}
}

// owns reports whether p is part of a mapping; else it is heap, and the collector's.
func (b *Buffers) owns(p []byte) bool {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	for _, piece := range b.pieces {
		from := uintptr(unsafe.Pointer(unsafe.SliceData(piece)))
		if at >= from && at < from+uintptr(len(piece)) {
			return true
		}
	}
	return false
}
