package reactor_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"ticketgate/engine/reactor"
)

// TestBurstIsOneWrite: whatever one callback writes to a socket, from where it lies or copied, is one system call.
func TestBurstIsOneWrite(t *testing.T) {
	long := strings.Repeat("long", 2000)
	m, _ := twin(t, reactor.Options{}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
		_ = l.Write(id, []byte("head "))
		_ = l.Pass(id, in[:len(long)])
		b, _ := l.Reserve(id, 6)
		copy(b, " then ")
		_ = l.Pass(id, in[len(long):])
		_ = l.Write(id, []byte(" tail"))
		if n := l.Queued(id); n != len(in)+16 {
			t.Errorf("%d bytes queued, want %d", n, len(in)+16)
		}
		return len(in)
	}})
	p := m.Connect(client)
	p.Write([]byte(long + long))
	m.Run()
	if got := string(p.Read()); got != "head "+long+" then "+long+" tail" {
		t.Errorf("got %d bytes", len(got))
	}
	if s := stats(m.Reactor()); s.Writes != 1 {
		t.Errorf("%d writes, want 1", s.Writes)
	}
}

// TestBurstOfASlowPeer: what the kernel does not take of a burst waits in order, and later writes behind it.
func TestBurstOfASlowPeer(t *testing.T) {
	long := strings.Repeat("abcdefgh", 1000)
	round := 0
	m, _ := twin(t, reactor.Options{}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
		round++
		_ = l.Write(id, []byte{byte('0' + round)})
		_ = l.Pass(id, in)
		return len(in)
	}})
	p := m.Connect(client)
	p.Window(100)
	p.Write([]byte(long))
	m.Run()
	p.Write([]byte(long))
	var got []byte
	for range 200 {
		m.Run()
		got = append(got, p.Read()...)
	}
	if string(got) != "1"+long+"2"+long {
		t.Errorf("%d bytes arrived, out of order or changed", len(got))
	}
	if segments, queues, _ := m.Held(); segments+queues != 0 {
		t.Errorf("%d segments and %d queues are still held", segments, queues)
	}
}

// TestPassedBytesAreSentBeforeTheBufferIsUsedAgain: two sockets whose leftovers are served between one poll and the next.
func TestPassedBytesAreSentBeforeTheBufferIsUsedAgain(t *testing.T) {
	var ids []reactor.ID
	keep := true
	fill := func(c byte) []byte { return bytes.Repeat([]byte{c}, 8000) }
	m, _ := twin(t, reactor.Options{Work: work}, &script{
		open: func(_ *reactor.Loop, id reactor.ID) { ids = append(ids, id) },
		data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			if keep {
				return 0
			}
			_ = l.Pass(id, in)
			return len(in)
		},
	})
	a, b := m.Connect(client), m.Connect(client)
	a.Write(fill('a'))
	b.Write(fill('b'))
	m.Run()
	keep = false
	run(m, func(l *reactor.Loop) { l.Rerun(ids[0]); l.Rerun(ids[1]) })
	if !bytes.Equal(a.Read(), fill('a')) || !bytes.Equal(b.Read(), fill('b')) {
		t.Error("one socket got another's bytes")
	}
}

// TestBurstIsTheFirstSocketsOnly: others that a callback writes to are served as well.
func TestBurstIsTheFirstSocketsOnly(t *testing.T) {
	var all []reactor.ID
	m, _ := twin(t, reactor.Options{}, &script{
		open: func(_ *reactor.Loop, id reactor.ID) { all = append(all, id) },
		data: func(l *reactor.Loop, _ reactor.ID, in []byte) int {
			for range 2 {
				for _, id := range all {
					_ = l.Pass(id, in)
				}
			}
			return len(in)
		},
	})
	var pipes []*reactor.Pipe
	for range 3 {
		pipes = append(pipes, m.Connect(client))
	}
	m.Run()
	text := strings.Repeat("x", 5000)
	pipes[1].Write([]byte(text))
	m.Run()
	for i, p := range pipes {
		if got := string(p.Read()); got != text+text {
			t.Errorf("socket %d got %d bytes", i, len(got))
		}
	}
}

// TestBurstOfASocketThatDies leaves nothing for the next one that writes.
func TestBurstOfASocketThatDies(t *testing.T) {
	for name, end := range map[string]func(*reactor.Loop, reactor.ID){
		"abort": func(l *reactor.Loop, id reactor.ID) { l.Abort(id) },
		"panic": func(*reactor.Loop, reactor.ID) { panic("test") },
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := twin(t, reactor.Options{}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
				_ = l.Write(id, in)
				if string(in) == "die" {
					end(l, id)
				}
				return len(in)
			}})
			p := m.Connect(client)
			p.Write([]byte("die"))
			m.Run()
			q := m.Connect(client)
			q.Write([]byte("live"))
			m.Run()
			if got := string(q.Read()); got != "live" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestBurstLongerThanTheStage goes through the queue, in order.
func TestBurstLongerThanTheStage(t *testing.T) {
	m, _ := twin(t, reactor.Options{QueueMax: 1 << 20}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
		for i := range 40 {
			b, err := l.Reserve(id, 7001)
			if err != nil {
				t.Fatal(err)
			}
			for k := range b {
				b[k] = byte(i)
			}
		}
		b, _ := l.Reserve(id, 200_000)
		for k := range b {
			b[k] = 40
		}
		return len(in)
	}})
	p := m.Connect(client)
	p.Window(1 << 20)
	p.Write([]byte("go"))
	m.Run()
	got := p.Read()
	if len(got) != 40*7001+200_000 {
		t.Fatalf("%d bytes", len(got))
	}
	for k, c := range got {
		if want := byte(min(k/7001, 40)); c != want {
			t.Fatalf("byte %d is of piece %d, want %d", k, c, want)
		}
	}
}

// TestLoopHealth: a loop that comes late to its timers says for how long, and how much of its time it serves.
func TestLoopHealth(t *testing.T) {
	h := echo()
	h.open = func(l *reactor.Loop, id reactor.ID) { l.Arm(id, l.Now().Add(50*time.Millisecond)) }
	h.timer = h.open
	r, addr := serve(t, reactor.Options{Loops: 1, Work: work}, h)
	c := dial(t, addr)
	_, _ = c.Write([]byte("x"))
	expect(t, c, "x")
	stalled := make(chan struct{})
	r.Post(0, reactor.Work{P: func(*reactor.Loop) {
		for end := time.Now().Add(250 * time.Millisecond); time.Now().Before(end); {
		}
		close(stalled)
	}})
	event(t, stalled)
	deadline := time.After(patience)
	for {
		s := stats(r)
		long := uint64(0)
		for i, n := range s.PerLoop[0].Stall.Buckets {
			if i >= 13 { // above 65 ms
				long += n
			}
		}
		if long > 0 && s.PerLoop[0].Busy > 0 {
			if s.PerLoop[0].Busy > 1 {
				t.Errorf("busy %v", s.PerLoop[0].Busy)
			}
			return
		}
		select {
		case <-deadline:
			t.Fatalf("after a stall of 250 ms: %+v", s.PerLoop[0])
		default:
		}
	}
}
