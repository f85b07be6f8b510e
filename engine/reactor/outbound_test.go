package reactor_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"ticketgate/engine/reactor"
)

func TestWritesOfOneCallbackLeaveInOneWrite(t *testing.T) {
	const pieces = 50
	h := &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
		for i := range pieces {
			if i%2 == 0 {
				_ = l.Write(id, []byte("0123456789"))
				continue
			}
			b, err := l.Reserve(id, 10)
			if err != nil || len(b) != 10 || cap(b) != 10 {
				t.Errorf("Reserve: %d bytes, cap %d, %v", len(b), cap(b), err)
			}
			copy(b, "abcdefghij")
		}
		return len(in)
	}}
	m, _ := twin(t, reactor.Options{}, h)
	p := m.Connect(client)
	p.Write([]byte("x"))
	m.Run()
	if got, want := string(p.Read()), strings.Repeat("0123456789abcdefghij", pieces/2); got != want {
		t.Errorf("arrived %q", got)
	}
	if s := stats(m.Reactor()); s.Writes != 1 {
		t.Errorf("%d writes, want 1", s.Writes)
	}
}

// TestOrderOverSizes mixes every way to write, in sizes around the classes, the direct write and the eager flush.
func TestOrderOverSizes(t *testing.T) {
	sizes := []int{1, 511, 512, 513, 8191, 8192, 8193, 16383, 16384, 40_000, 65_535, 65_537, 100_000, 3, 300_000, 7}
	for _, window := range []int{97, 700, 5000, 1 << 20} {
		var want []byte
		next := 0
		var id reactor.ID
		more := func(l *reactor.Loop) {
			for ; next < 3*len(sizes); next++ {
				b := bytes.Repeat([]byte{byte('a' + next%26)}, sizes[next%len(sizes)])
				var err error
				if next%3 == 1 {
					var into []byte
					if into, err = l.Reserve(id, len(b)); err == nil {
						copy(into, b)
					}
				} else {
					err = l.Write(id, b)
				}
				if errors.Is(err, reactor.ErrSlow) {
					return
				}
				want = append(want, b...)
			}
		}
		h := &script{
			open:    func(l *reactor.Loop, i reactor.ID) { id = i; more(l) },
			drained: func(l *reactor.Loop, _ reactor.ID) { more(l) },
		}
		m, _ := twin(t, reactor.Options{QueueMax: 400_000}, h)
		p := m.Connect(client)
		p.Window(window)
		var got []byte
		for {
			m.Run()
			b := p.Read()
			if len(b) == 0 {
				break
			}
			got = append(got, b...)
		}
		if !bytes.Equal(got, want) || next != 3*len(sizes) {
			t.Errorf("window %d: %d bytes arrived of %d, or in another order", window, len(got), len(want))
		}
		if s := stats(m.Reactor()); s.Queued != 0 {
			t.Errorf("window %d: node still counts %d", window, s.Queued)
		}
	}
}

func TestQueueMax(t *testing.T) {
	var id reactor.ID
	h := &script{open: func(_ *reactor.Loop, i reactor.ID) { id = i }}
	m, _ := twin(t, reactor.Options{QueueMax: 1000, Work: work}, h)
	p := m.Connect(client)
	p.Window(50)
	m.Run()
	run(m, func(l *reactor.Loop) {
		if err := l.Write(id, make([]byte, 1001)); !errors.Is(err, reactor.ErrSlow) || l.Queued(id) != 0 {
			t.Errorf("over the bound at once: %v, %d queued", err, l.Queued(id))
		}
		if err := l.Write(id, make([]byte, 1000)); err != nil {
			t.Error(err)
		}
	})
	run(m, func(l *reactor.Loop) {
		if l.Queued(id) != 950 {
			t.Errorf("%d queued, want 950", l.Queued(id))
		}
		if err := l.Write(id, make([]byte, 51)); !errors.Is(err, reactor.ErrSlow) || l.Queued(id) != 950 {
			t.Errorf("51 more: %v, %d queued", err, l.Queued(id))
		}
		if _, err := l.Reserve(id, 51); !errors.Is(err, reactor.ErrSlow) {
			t.Errorf("reserve 51 more: %v", err)
		}
		if err := l.Write(id, make([]byte, 50)); err != nil {
			t.Errorf("50 more: %v", err)
		}
		if err := l.WriteLast(id, make([]byte, 257)); !errors.Is(err, reactor.ErrSlow) {
			t.Errorf("257 last: %v", err)
		}
		if err := l.WriteLast(id, make([]byte, 256)); err != nil || l.Queued(id) != 1256 {
			t.Errorf("256 last: %v, %d queued", err, l.Queued(id))
		}
	})
	if s := stats(m.Reactor()); s.Slow != 4 || s.Queued < 1256 || s.Queued > 2048 {
		t.Errorf("%d refusals, want 4; node counts %d for 1,256 bytes", s.Slow, s.Queued)
	}
}

// TestQueueRoom: queues may grow by what the node has been told, and never beyond NodeQueueMax.
func TestQueueRoom(t *testing.T) {
	var ids []reactor.ID
	h := &script{open: func(_ *reactor.Loop, id reactor.ID) { ids = append(ids, id) }}
	const budget = 64 << 10
	m, _ := twin(t, reactor.Options{NodeQueueMax: budget, Work: work}, h)
	deaf(m, 8)
	write := func(n int) (refused int) {
		for range n {
			run(m, func(l *reactor.Loop) {
				if l.Write(ids[0], make([]byte, 8<<10)) != nil {
					refused++
				}
			})
		}
		return refused
	}
	write(1)
	m.Reactor().QueueRoom(16 << 10)
	if n := write(4); n != 2 {
		t.Errorf("%d of 4 were refused with room for 2", n)
	}
	m.Reactor().QueueRoom(1 << 40)
	if n := write(10); n != 5 {
		t.Errorf("%d of 10 were refused with room for 5: the budget", n)
	}
}

func TestNodeQueueMax(t *testing.T) {
	var ids []reactor.ID
	var d diary
	h := &script{
		open:   func(_ *reactor.Loop, id reactor.ID) { ids = append(ids, id) },
		closed: func(_ *reactor.Loop, id reactor.ID, why reactor.Cause, _ error) { d.add("%v", why) },
	}
	const budget = 64 << 10
	m, _ := twin(t, reactor.Options{NodeQueueMax: budget, Work: work}, h)
	pipes := deaf(m, 12)
	for _, id := range ids[:8] {
		run(m, func(l *reactor.Loop) { _ = l.Write(id, make([]byte, 8<<10)) })
	}
	if s := stats(m.Reactor()); s.Queued != budget {
		t.Fatalf("node counts %d, want %d", s.Queued, budget)
	}
	run(m, func(l *reactor.Loop) {
		if err := l.Write(ids[0], []byte("x")); !errors.Is(err, reactor.ErrSlow) {
			t.Errorf("a waiting socket over the budget: %v", err)
		}
		if err := l.WriteLast(ids[0], []byte("bye")); err != nil {
			t.Errorf("its close frame: %v", err)
		}
	})
	pipes[8].Window(100)
	run(m, func(l *reactor.Loop) {
		if err := l.Write(ids[8], []byte("healthy")); err != nil {
			t.Errorf("a healthy socket while others use up the budget: %v", err)
		}
	})
	if got := string(pipes[8].Read()); got != "healthy" {
		t.Errorf("healthy socket reads %q", got)
	}
	for _, id := range ids[9:] {
		run(m, func(l *reactor.Loop) { _ = l.Write(id, make([]byte, 8<<10)) })
	}
	if s := stats(m.Reactor()); s.Queued > budget+budget/16 || s.Closed[reactor.CauseSlow] != 3 {
		t.Errorf("newcomers: node counts %d, %d closed", s.Queued, s.Closed[reactor.CauseSlow])
	}
	d.expect(t, "slow slow slow")
	for _, id := range ids[:8] {
		run(m, func(l *reactor.Loop) { l.Abort(id) })
	}
	if s := stats(m.Reactor()); s.Queued != 0 {
		t.Errorf("node counts %d after all have gone", s.Queued)
	}
}

// TestFanOutIsFlushedOnTheWay: one callback that writes to many sockets does not pile all of it up first.
func TestFanOutIsFlushedOnTheWay(t *testing.T) {
	var ids []reactor.ID
	h := &script{open: func(_ *reactor.Loop, id reactor.ID) { ids = append(ids, id) }}
	m, _ := twin(t, reactor.Options{Work: work}, h)
	var pipes []*reactor.Pipe
	for range 1000 {
		pipes = append(pipes, m.Connect(client))
	}
	m.Run()
	early := 0
	run(m, func(l *reactor.Loop) {
		for _, id := range ids {
			_ = l.Write(id, make([]byte, 4<<10))
		}
		for _, id := range ids {
			if l.Queued(id) == 0 {
				early++
			}
		}
	})
	if early < 700 {
		t.Errorf("%d of 1,000 sockets flushed within the callback: 4 MiB were piled up", early)
	}
	for i, p := range pipes {
		if n := len(p.Read()); n != 4<<10 {
			t.Fatalf("socket %d got %d bytes", i, n)
		}
	}
}

func TestDrained(t *testing.T) {
	var d diary
	h := &script{
		open:    func(l *reactor.Loop, id reactor.ID) { _ = l.Write(id, make([]byte, 100)) },
		drained: func(l *reactor.Loop, id reactor.ID) { d.add("drained:%d", l.Queued(id)) },
	}
	m, _ := twin(t, reactor.Options{}, h)
	fast := m.Connect(client)
	m.Run()
	d.expect(t, "") // nothing was ever left
	fast.Close()
	slow := m.Connect(client)
	slow.Window(40)
	m.Run()
	d.expect(t, "")
	slow.Read()
	m.Run()
	d.expect(t, "")
	slow.Read()
	m.Run()
	d.expect(t, "drained:0")
	slow.Read()
	m.Run()
	d.expect(t, "")
}

func TestWriteStall(t *testing.T) {
	var d diary
	h := &script{
		open:   func(l *reactor.Loop, id reactor.ID) { _ = l.Write(id, make([]byte, 1000)) },
		closed: func(_ *reactor.Loop, _ reactor.ID, why reactor.Cause, _ error) { d.add("%v", why) },
	}
	m, _ := twin(t, reactor.Options{WriteStall: 2 * time.Second}, h)
	p := m.Connect(client)
	p.Window(10)
	for range 10 { // progress, however slow, is progress
		m.Advance(1900 * time.Millisecond)
		p.Read()
		m.Run()
	}
	d.expect(t, "")
	m.Advance(1990 * time.Millisecond)
	d.expect(t, "")
	m.Advance(60 * time.Millisecond)
	d.expect(t, "stalled")
	if !p.WasReset() {
		t.Error("no RST")
	}
	drained := m.Connect(client) // a queue that empties is no stall
	drained.Window(10)
	m.Run()
	drained.Window(10_000)
	m.Run()
	if n := len(drained.Read()); n != 1000 {
		t.Fatalf("%d bytes drained", n)
	}
	m.Advance(time.Minute)
	d.expect(t, "")
}
