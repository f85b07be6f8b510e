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
