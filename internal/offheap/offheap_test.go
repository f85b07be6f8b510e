package offheap_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"ticketgate/internal/offheap"
)

func TestRefusesPointers(t *testing.T) {
	type inner struct{ S string }
	for name, f := range map[string]func(){
		"pointer":     func() { offheap.NewSlab[*int]() },
		"slice":       func() { offheap.NewSlab[struct{ b []byte }]() },
		"deep string": func() { offheap.NewSlab[struct{ a [2]inner }]() },
		"map":         func() { offheap.NewRows[map[int]int]() },
		"func":        func() { offheap.NewRows[func()]() },
		"chan":        func() { offheap.Make[chan int](new(int), 1) },
		"interface":   func() { offheap.Make[struct{ e error }](new(int), 1) },
		"time.Time":   func() { offheap.NewSlab[time.Time]() }, // has a location
		"2 bytes":     func() { offheap.NewRows[[2]byte]() },
		"unaligned":   func() { offheap.NewRows[[4]byte]() },
	} {
		if !panics(f) {
			t.Errorf("%s: no panic", name)
		}
	}
	plain := func() {
		offheap.NewRows[struct {
			a [0]*int
			b [4]uint16
			c time.Duration
		}]()
	}
	if panics(plain) {
		t.Error("a row without pointers is refused")
	}
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

func TestSlab(t *testing.T) {
	s := offheap.NewSlab[[3]uint64]()
	slots := []uint32{0, 1, 1023, 1024, 2047, 2048, 4095, 4096, 1<<23 - 1, 1 << 23, offheap.MaxRows - 1}
	for _, slot := range slots {
		if p := s.At(slot); *p != [3]uint64{} {
			t.Errorf("slot %d begins as %v", slot, *p)
		} else {
			p[1] = uint64(slot) + 7
		}
	}
	for _, slot := range slots {
		if got := s.At(slot)[1]; got != uint64(slot)+7 {
			t.Errorf("slot %d holds %d", slot, got)
		}
	}
	if s.At(5) != s.At(offheap.MaxRows+5) {
		t.Error("bits from 2^24 up are not ignored")
	}
}

// TestSlabApart: no two rows are one.
func TestSlabApart(t *testing.T) {
	s := offheap.NewSlab[uint32]()
	for i := range uint32(70_000) {
		*s.At(i) = ^i
	}
	for i := range uint32(70_000) {
		if *s.At(i) != ^i {
			t.Fatalf("row %d holds %d", i, ^*s.At(i))
		}
	}
}

func TestSlabGrowsOnce(t *testing.T) {
	for range 50 {
		s := offheap.NewSlab[[3]uint64]()
		var wg sync.WaitGroup
		var first [2][6]*[3]uint64
		for i := range first { // both come to each new chunk at about the same time
			wg.Go(func() {
				for chunk := range first[i] {
					first[i][chunk] = s.At(512 << chunk)
				}
			})
		}
		wg.Wait()
		if first[0] != first[1] {
			t.Fatal("two goroutines got different rows for one number")
		}
	}
}

func TestRows(t *testing.T) {
	r := offheap.NewRows[[4]uint32]()
	const n = 20_000
	for want := uint32(1); want <= n; want++ {
		i, p := r.Get()
		if i != want || *p != [4]uint32{} {
			t.Fatalf("row %d is %d: %v", want, i, *p)
		}
		*p = [4]uint32{^i, i, i, i}
	}
	for i := uint32(1); i <= n; i += 2 {
		r.Put(i)
	}
	for i := uint32(2); i <= n; i += 2 {
		if *r.At(i) != [4]uint32{^i, i, i, i} {
			t.Fatalf("row %d: %v", i, *r.At(i))
		}
	}
	for want := n - 1; want > 0; want -= 2 { // the last that was given back first
		if i, p := r.Get(); i != uint32(want) || *p != [4]uint32{} {
			t.Fatalf("again: row %d, want %d: %v", i, want, *p)
		}
	}
	if i, _ := r.Get(); i != n+1 || r.Len() != n+1 {
		t.Errorf("row %d of %d, want %d", i, r.Len(), n+1)
	}
}

// named is a row of an index: a key, and the link of its chain.
type named struct {
	key  uint64
	next uint32
}

// names is a set of keys, as owners of an Index build it.
type names struct {
	rows  *offheap.Rows[named]
	index *offheap.Index
	worst int // rows seen in one look-up
}

// hash spreads keys; those that leave the same rest by 5 fall into one chain.
func (n *names) hash(key uint64) uint64 { return key / 5 * 0x9e3779b97f4a7c15 }

func (n *names) of(i uint32) (hash uint64, next *uint32) {
	r := n.rows.At(i)
	return n.hash(r.key), &r.next
}

func (n *names) find(key uint64) uint32 {
	seen := 1
	i := *n.index.First(n.hash(key))
	for i != 0 && n.rows.At(i).key != key {
		i, seen = n.rows.At(i).next, seen+1
	}
	n.worst = max(n.worst, seen)
	return i
}

func (n *names) add(key uint64) {
	i, r := n.rows.Get()
	r.key = key
	n.index.Enter(i, n.hash(key), &r.next, n.of)
}

func (n *names) drop(key uint64) {
	i := n.find(key)
	n.index.Leave(i, n.hash(key), n.of)
	n.rows.Put(i)
}

// TestIndex does random things to a set and to a map, and compares them.
func TestIndex(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	set := &names{rows: offheap.NewRows[named](), index: offheap.NewIndex()}
	want := map[uint64]bool{}
	for step := range 200_000 {
		key := rnd.Uint64N(20_000)
		if got := set.find(key) != 0; got != want[key] {
			t.Fatalf("step %d: key %d is there: %v, want %v", step, key, got, want[key])
		}
		switch {
		case want[key]:
			set.drop(key)
			delete(want, key)
		case step < 60_000 || rnd.IntN(3) > 0: // it grows first, and then holds about two thirds
			set.add(key)
			want[key] = true
		}
	}
	for key := range uint64(20_000) {
		if got := set.find(key) != 0; got != want[key] {
			t.Fatalf("at the end: key %d is there: %v, want %v", key, got, want[key])
		}
	}
	if set.rows.Len() != len(want) || set.worst > 60 {
		t.Errorf("%d rows for %d keys, %d of them in one chain", set.rows.Len(), len(want), set.worst)
	}
}

// TestNoAllocations: what an owner does for a row of its own costs the heap nothing.
func TestNoAllocations(t *testing.T) {
	set := &names{rows: offheap.NewRows[named](), index: offheap.NewIndex()}
	key := uint64(0)
	if n := testing.AllocsPerRun(5000, func() {
		key++
		set.add(key)
		if key%3 == 0 {
			set.drop(key)
		}
	}); n != 0 {
		t.Errorf("%v allocations a row", n)
	}
}

func BenchmarkSlabAt(b *testing.B) {
	s := offheap.NewSlab[[8]uint64]()
	i := uint32(0)
	for b.Loop() {
		s.At(i & 0xffff)[0]++
		i += 7919
	}
}

func BenchmarkIndexFind(b *testing.B) {
	set := &names{rows: offheap.NewRows[named](), index: offheap.NewIndex()}
	for i := range uint64(100_000) {
		set.add(i * 5)
	}
	i := uint64(0)
	for b.Loop() {
		if set.find(i%100_000*5) == 0 {
			b.Fatal("lost")
		}
		i += 7919
	}
}
