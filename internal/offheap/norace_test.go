//go:build !race

package offheap_test

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"ticketgate/internal/offheap"
)

// The race detector sees only the heap, so with it rows lie there, and 16,777,215 of them take it long.

func TestRowsEnd(t *testing.T) {
	r := offheap.NewRows[uint32]()
	for range offheap.MaxRows - 1 {
		r.Get()
	}
	if i, p := r.Get(); i != 0 || p != nil {
		t.Fatalf("got row %d", i)
	}
	r.Put(77)
	if i, _ := r.Get(); i != 77 {
		t.Errorf("got row %d, want 77", i)
	}
}

// TestOffHeap: rows are neither on the heap nor resident before they are touched, and go with their owner.
func TestOffHeap(t *testing.T) {
	const size = 1 << 30 // several times what else the process has
	heap := heapBytes()
	owner := new(int)
	b := offheap.Make[[64]byte](owner, size/64)
	b[len(b)-1][0] = 1
	if grown := heapBytes() - heap; grown > 1<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	if now := mapped(t); now < size {
		t.Errorf("%d bytes mapped, want %d", now, size)
	}
	runtime.KeepAlive(owner)
	for end := time.Now().Add(10 * time.Second); mapped(t) > size; {
		if runtime.GC(); time.Now().After(end) { // its cleanup runs after it
			t.Fatal("the memory outlives its owner")
		}
	}
}

// TestBuffersComeAndGo: of buffers only what was written to is resident, and nothing of those given back beyond the warm ones.
func TestBuffersComeAndGo(t *testing.T) {
	const size, n, slack = 64 << 10, 1000, 1 << 20 // the kernel counts in steps
	b := offheap.NewBuffers(size, 4*size)
	heap, before := heapBytes(), resident(t)
	var all [][]byte
	for range n {
		all = append(all, append(b.Get(), 'x'))
	}
	page := os.Getpagesize()
	if grown := resident(t) - before; grown < n*page-slack || grown > n*page+(4<<20) {
		t.Errorf("a byte in each of %d buffers: %d KiB more are resident, want about %d", n, grown>>10, n*page>>10)
	}
	for i, p := range all {
		for len(p) < size {
			p = append(p, 'y')
		}
		all[i] = p
	}
	if grown := resident(t) - before; grown < n*size-slack || grown > n*size+(4<<20) {
		t.Errorf("all full: %d KiB more are resident, want about %d", grown>>10, n*size>>10)
	}
	if grown := heapBytes() - heap; grown > 1<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	for _, p := range all {
		b.Put(p)
	}
	if grown := resident(t) - before; grown > 4<<20 {
		t.Errorf("all given back: %d KiB more are resident", grown>>10)
	}
	runtime.KeepAlive(b)
}

// resident is how many bytes of the process's memory are in memory.
func resident(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return n * os.Getpagesize()
}

func heapBytes() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// mapped is how many bytes of private memory the process has mapped.
func mapped(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmData:")
	number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// TestWarmBuffers: as many bytes as were written to stay, not as many buffers.
func TestWarmBuffers(t *testing.T) {
	const size, page = 64 << 10, 4096
	b := offheap.NewBuffers(size, 10*page)
	get := func(n int) (all [][]byte) {
		for range n {
			all = append(all, b.Get())
		}
		return all
	}
	put := func(all [][]byte, written int) {
		for _, p := range all {
			b.Put(append(p, make([]byte, written)...))
		}
	}
	put(get(20), 1)
	if n, bytes := b.Warm(); n != 10 || bytes != 10*page {
		t.Errorf("%d buffers of one page are warm, with %d bytes", n, bytes)
	}
	all := get(12)
	put(all[:5], page+1)
	if n, bytes := b.Warm(); n != 5 || bytes != 10*page {
		t.Errorf("%d buffers of two pages are warm, with %d bytes", n, bytes)
	}
	put(get(1), 1) // it still has two
	if n, bytes := b.Warm(); n != 5 || bytes != 10*page {
		t.Errorf("%d buffers are warm, with %d bytes, after a short use", n, bytes)
	}
	put(all[5:], 1) // there is no room for them
	if n, bytes := b.Warm(); n != 5 || bytes != 10*page {
		t.Errorf("%d buffers are warm, with %d bytes, of too many", n, bytes)
	}
	get(5)
	if n, bytes := b.Warm(); n != 0 || bytes != 0 {
		t.Errorf("%d buffers with %d bytes are left", n, bytes)
	}
}

// TestResident: a buffer that is used again has the pages that were written to before.
func TestResident(t *testing.T) {
	b := offheap.NewBuffers(64<<10, 1<<20)
	p := b.Get()
	if n := b.Resident(p); n != 0 {
		t.Errorf("%d bytes of a new one are resident", n)
	}
	b.Put(append(p, make([]byte, 20_000)...))
	p = b.Get()
	if n := b.Resident(append(p, 1)); n != 20_480 {
		t.Errorf("%d bytes are resident of one that held 20,000, want 5 pages", n)
	}
}
