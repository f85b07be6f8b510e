package limiter

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// offHeap returns n zero values of T, which must have no pointers, in memory of their own for as long as owner lives. A
// table set aside for a million clients would else count as live heap, and the collector would let as much garbage again
// lie about before it works: 44 MB more resident memory for nothing. Pages that were never touched cost nothing.
// Where the kernel gives no such memory, it is heap.
func offHeap[T, O any](owner *O, n int) []T {
	size := n * int(unsafe.Sizeof(*new(T)))
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return make([]T, n)
	}
	runtime.AddCleanup(owner, func(b []byte) { _ = unix.Munmap(b) }, b) // it fails only for what is not a mapping
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n)
}
