package reactor_test

import (
	"sync"
	"testing"
	"time"

	"ticketgate/engine/reactor"
)

// TestRowSize pins what an open socket costs: a million of them are 64 MB.
func TestRowSize(t *testing.T) {
	if reactor.RowSize != 64 {
		t.Errorf("a row has %d bytes, want 64: one cache line", reactor.RowSize)
	}
}

func TestSlab(t *testing.T) {
	s := reactor.NewSlab[[3]uint64]()
	for _, slot := range []uint32{0, 1, 1023, 1024, 1<<24 - 1} {
		if p := s.At(slot); *p != [3]uint64{} {
			t.Errorf("slot %d begins as %v", slot, *p)
		} else {
			p[1] = uint64(slot) + 7
		}
	}
	for _, slot := range []uint32{0, 1, 1023, 1024, 1<<24 - 1} {
		if got := s.At(slot)[1]; got != uint64(slot)+7 {
			t.Errorf("slot %d holds %d", slot, got)
		}
	}
	var wg sync.WaitGroup
	var first [2][500]*[3]uint64
	for i := range first { // both come to each new chunk at about the same time
		wg.Go(func() {
			for chunk := range first[i] {
				first[i][chunk] = s.At(uint32(10+chunk) * 1024)
			}
		})
	}
	wg.Wait()
	if first[0] != first[1] {
		t.Error("two goroutines got different rows for one slot")
	}
}

func TestSlabRefusesPointers(t *testing.T) {
	type inner struct{ S string }
	for name, f := range map[string]func(){
		"pointer":      func() { reactor.NewSlab[*int]() },
		"slice":        func() { reactor.NewSlab[struct{ b []byte }]() },
		"deep string":  func() { reactor.NewSlab[struct{ a [2]inner }]() },
		"map":          func() { reactor.NewSlab[map[int]int]() },
		"func":         func() { reactor.NewSlab[func()]() },
		"chan":         func() { reactor.NewSlab[chan int]() },
		"interface":    func() { reactor.NewSlab[struct{ e error }]() },
		"time.Time":    func() { reactor.NewSlab[time.Time]() }, // has a location
		"no pointers!": nil,
	} {
		func() {
			defer func() {
				if panicked := recover() != nil; panicked != (f != nil) {
					t.Errorf("%s: panicked %v", name, panicked)
				}
			}()
			if f == nil {
				reactor.NewSlab[struct {
					a [0]*int
					b [4]uint16
					c time.Duration
				}]()
				return
			}
			f()
		}()
	}
}

// TestPoolIsBounded: after a burst that queued 16 MiB, little of it stays.
func TestPoolIsBounded(t *testing.T) {
	h := &script{open: func(l *reactor.Loop, id reactor.ID) { _ = l.Write(id, make([]byte, 256<<10)) }}
	m, _ := twin(t, reactor.Options{}, h)
	var pipes []*reactor.Pipe
	for range 64 {
		p := m.Connect(client)
		p.Window(0)
		pipes = append(pipes, p)
	}
	m.Run()
	if s := stats(m.Reactor()); s.Queued != 16<<20 {
		t.Fatalf("node counts %d bytes, want 16 MiB without waste", s.Queued)
	}
	for _, p := range pipes {
		p.Close()
	}
	m.Run()
	segments, queues, free := m.Held()
	if segments+queues != 0 || free > 1<<20 {
		t.Errorf("%d segments and %d queues held, %d bytes free", segments, queues, free)
	}
}

// TestQueueWaste bounds what small frames cost in a slow reader's queue: the buffers are at most 1/16 larger.
func TestQueueWaste(t *testing.T) {
	for _, frame := range []int{20, 100, 700, 3000, 5000, 20_000} {
		h := &script{open: func(l *reactor.Loop, id reactor.ID) {
			for l.Write(id, make([]byte, frame)) == nil {
			}
		}}
		m, _ := twin(t, reactor.Options{}, h)
		m.Connect(client).Window(0)
		m.Run()
		if s := stats(m.Reactor()); s.Queued > (256<<10)*17/16 || s.Queued < (256<<10)-int64(frame) {
			t.Errorf("frames of %d: %d bytes of buffers for a queue of 256 KiB", frame, s.Queued)
		}
	}
}

func BenchmarkSlabAt(b *testing.B) {
	s := reactor.NewSlab[[8]uint64]()
	var sum uint64
	for i := range b.N {
		sum += s.At(uint32(i) & 4095)[0]
	}
	if sum != 0 {
		b.Fatal(sum)
	}
}

// BenchmarkLoopEcho is an echo without a kernel: what the reactor itself costs.
func BenchmarkLoopEcho(b *testing.B) {
	m, _ := twin(b, reactor.Options{}, echo())
	p := m.Connect(client)
	m.Run()
	msg := make([]byte, 32)
	b.ReportAllocs()
	for b.Loop() {
		p.Write(msg)
		m.Run()
		p.Read()
	}
}
