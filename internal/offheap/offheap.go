// Package offheap keeps rows without pointers outside of Go's heap. What lies there is neither scanned nor counted by the
// collector: a table for a million sockets on the heap would let as much garbage again lie about before it works.
//
//	Make    a slice of fixed length
//	Slab    rows by number, given by others (a descriptor); any goroutine
//	Rows    rows that it numbers itself, with a free list; one goroutine, or a lock
//	Index   finds rows of a Rows by a hash, growing by one chain at a time
//	Buffers bytes that grow, one owner each
//
// Memory is set aside in large pieces and becomes resident page by page (4 KiB) as it is touched. It asks for no huge
// pages: where the kernel gives them unasked, the first row of a piece would cost 2 MiB. Under the race detector, which
// sees only Go's own memory, everything lies on the heap.
package offheap

import (
	"fmt"
	"reflect"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Make returns n zero values of T for as long as owner lives; n is at least 1. Who keeps only a pointer into the slice must
// keep owner alive as well (runtime.KeepAlive). Where the kernel gives no memory of its own, it is heap. It panics if T
// contains a pointer, string, slice, map, channel, function or interface.
func Make[T, O any](owner *O, n int) []T {
	mustBePlain(reflect.TypeFor[T]())
	b := mapped(n * int(unsafe.Sizeof(*new(T))))
	if b == nil {
		return make([]T, n)
	}
	runtime.AddCleanup(owner, unmap, b)
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

// mapped returns size bytes of zeros, or nil.
func mapped(size int) []byte {
	if onHeap {
		return nil
	}
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return nil
	}
	_ = unix.Madvise(b, unix.MADV_NOHUGEPAGE) // EINVAL: a kernel without huge pages
	return b
}

func unmap(b []byte) { _ = unix.Munmap(b) } // it fails only for what is not a mapping

// mustBePlain panics if t holds a pointer.
func mustBePlain(t reflect.Type) {
	if path := pointerIn(t); path != "" {
		panic("offheap: a row must be free of pointers: " + path)
	}
}

// pointerIn names the first part of t that holds a pointer, or "".
func pointerIn(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Array:
		if t.Len() == 0 {
			return ""
		}
		return pointerIn(t.Elem())
	case reflect.Struct:
		for f := range t.Fields() {
			if path := pointerIn(f.Type); path != "" {
				return fmt.Sprintf("%s.%s: %s", t, f.Name, path)
			}
		}
		return ""
	case reflect.Pointer, reflect.Slice, reflect.String, reflect.Map, reflect.Chan, reflect.Func, reflect.Interface, reflect.UnsafePointer:
		return t.String()
	default:
		return ""
	}
}
