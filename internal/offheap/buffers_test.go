package offheap_test

import (
	"bytes"
	"testing"

	"ticketgate/internal/offheap"
)

func TestBuffers(t *testing.T) {
	const size, keep = 64 << 10, 3
	b := offheap.NewBuffers(size-1, keep*size)
	if b.Size() != size {
		t.Fatalf("size %d, want %d", b.Size(), size)
	}
	fill := bytes.Repeat([]byte{'x'}, size)
	var all [][]byte
	for range 100 { // more than a first piece has
		p := b.Get()
		if len(p) != 0 || cap(p) != size {
			t.Fatalf("length %d, capacity %d", len(p), cap(p))
		}
		p = append(p, fill...)
		if cap(p) != size {
			t.Fatal("it was moved")
		}
		all = append(all, p)
	}
	for i, p := range all {
		if p[0] = byte(i); all[(i+1)%len(all)][0] == byte(i) || p[size-1] != 'x' {
			t.Fatalf("buffer %d overlaps another", i)
		}
	}
	for _, p := range all {
		b.Put(p)
	}
	if n := testing.AllocsPerRun(100, func() { b.Put(append(b.Get(), 'y')) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSmallBuffers(t *testing.T) {
	b := offheap.NewBuffers(1, 0)
	p, q := b.Get(), b.Get()
	if b.Size() < 4096 || cap(p) != b.Size() || &p[:1][0] == &q[:1][0] {
		t.Errorf("capacities %d and %d of %d", cap(p), cap(q), b.Size())
	}
	b.Put(p)
	b.Put(q)
}
