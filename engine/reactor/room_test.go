package reactor_test

import (
	"testing"

	"ticketgate/engine/reactor"
)

// TestRowSize pins what an open socket costs: a million of them are 64 MB.
func TestRowSize(t *testing.T) {
	if reactor.RowSize != 64 {
		t.Errorf("a row has %d bytes, want 64: one cache line", reactor.RowSize)
	}
}

// TestPoolIsBounded: after a burst that queued 16 MiB, little of it stays.
func TestPoolIsBounded(t *testing.T) {
	h := &script{open: func(l *reactor.Loop, id reactor.ID) { _ = l.Write(id, make([]byte, 256<<10)) }}
	m, _ := twin(t, reactor.Options{}, h)
	pipes := deaf(m, 64)
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
