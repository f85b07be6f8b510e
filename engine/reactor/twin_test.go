package reactor_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"ticketgate/engine/reactor"
)

func TestEcho(t *testing.T) {
	m, _ := twin(t, reactor.Options{Loops: 2}, echo())
	a, b := m.Connect(client), m.Connect(client)
	a.Write([]byte("to the first loop"))
	b.Write([]byte("to the second"))
	m.Run()
	if got := string(a.Read()); got != "to the first loop" {
		t.Errorf("a reads %q", got)
	}
	if got := string(b.Read()); got != "to the second" {
		t.Errorf("b reads %q", got)
	}
	s := stats(m.Reactor())
	if s.Conns != 2 || len(s.PerLoop) != 2 || s.PerLoop[0].Conns != 1 || s.PerLoop[1].Conns != 1 || s.Accepted != 2 {
		t.Errorf("stats: %+v", s)
	}
	if s.BytesIn != 30 || s.BytesOut != 30 || s.Reads != 2 || s.Writes != 2 {
		t.Errorf("stats: %+v", s)
	}
}

func TestPeerAndIdentity(t *testing.T) {
	var saw []netip.AddrPort
	var ids []reactor.ID
	h := &script{
		open: func(l *reactor.Loop, id reactor.ID) {
			saw, ids = append(saw, l.Peer(id)), append(ids, id)
			if id.Loop() != l.Index() || l.Reactor().Loops() != 3 || !l.Alive(id) {
				t.Errorf("id %x on loop %d", uint64(id), l.Index())
			}
		},
		closed: func(l *reactor.Loop, id reactor.ID, _ reactor.Cause, _ error) {
			saw = append(saw, l.Peer(id)) // audit lines are written here
			if l.Alive(id) {
				t.Error("alive in Closed")
			}
		},
	}
	m, _ := twin(t, reactor.Options{Loops: 3}, h)
	from := []netip.AddrPort{client, netip.MustParseAddrPort("[2001:db8::1]:9"), {}}
	for _, a := range from {
		p := m.Connect(a)
		m.Run()
		p.Close()
		m.Run()
	}
	for i, a := range from {
		if saw[2*i] != a || saw[2*i+1] != a {
			t.Errorf("peer %v seen as %v in Open and %v in Closed", a, saw[2*i], saw[2*i+1])
		}
		if ids[i].Loop() != i {
			t.Errorf("connection %d on loop %d", i, ids[i].Loop())
		}
	}
	if ids[0].Slot() != ids[1].Slot() || ids[0] == ids[1] {
		t.Errorf("a free slot is not used again under a new ID: %x %x", uint64(ids[0]), uint64(ids[1]))
	}
}

// TestLeftover feeds records of a length byte and a body in pieces; every cut must give the same records.
func TestLeftover(t *testing.T) {
	wire := []byte("\x03one\x00\x05three\x01x\x0fa longer record")
	want := "[one][][three][x][a longer record]"
	for cut := 1; cut <= len(wire); cut++ {
		var got strings.Builder
		h := &script{data: func(_ *reactor.Loop, _ reactor.ID, in []byte) (used int) {
			for used < len(in) && used+1+int(in[used]) <= len(in) {
				got.WriteString("[" + string(in[used+1:used+1+int(in[used])]) + "]")
				used += 1 + int(in[used])
			}
			return used
		}}
		m, _ := twin(t, reactor.Options{}, h)
		p := m.Connect(client)
		for rest := wire; len(rest) > 0; rest = rest[min(cut, len(rest)):] {
			p.Write(rest[:min(cut, len(rest))])
			m.Run()
		}
		if got.String() != want {
			t.Errorf("cut every %d bytes: %s, want %s", cut, got.String(), want)
		}
	}
}

// TestLeftoverKeepsChanges: a handler that unmasks a partial payload in place finds it unmasked next time.
func TestLeftoverKeepsChanges(t *testing.T) {
	var last string
	h := &script{data: func(_ *reactor.Loop, _ reactor.ID, in []byte) int {
		for i := range in {
			if in[i] >= 'a' {
				in[i] -= 'a' - 'A'
			}
		}
		last = string(in)
		return 1
	}}
	m, _ := twin(t, reactor.Options{}, h)
	p := m.Connect(client)
	for _, b := range []string{"abc", "de", "f"} {
		p.Write([]byte(b))
		m.Run()
	}
	if last != "CDEF" {
		t.Errorf("in is %q, want CDEF", last)
	}
}

func TestLeftoverMaxStopsReading(t *testing.T) {
	var used, seen int
	var id reactor.ID
	h := &script{
		open: func(_ *reactor.Loop, i reactor.ID) { id = i },
		data: func(_ *reactor.Loop, _ reactor.ID, in []byte) int {
			seen = len(in)
			return min(used, len(in))
		},
	}
	m, _ := twin(t, reactor.Options{LeftoverMax: 100, ReadBuffer: 64, Work: work}, h)
	p := m.Connect(client)
	p.Write(make([]byte, 1000))
	m.Run()
	if seen != 128 || p.Pending() != 1000-128 {
		t.Fatalf("unconsumed: Data saw %d bytes, %d not read, want 128 and 872", seen, p.Pending())
	}
	if m.Inject(0, id.Slot()); p.Pending() != 872 {
		t.Fatalf("a stale event read on: %d not read", p.Pending())
	}
	used = 10 // 118 left: still too many
	run(m, func(l *reactor.Loop) { l.Rerun(id) })
	if p.Pending() != 872 {
		t.Fatalf("%d not read after a Rerun that leaves 118, want 872", p.Pending())
	}
	used = 1 << 20
	run(m, func(l *reactor.Loop) { l.Rerun(id) })
	if p.Pending() != 0 {
		t.Errorf("%d not read after all was consumed", p.Pending())
	}
}

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

func TestNodeQueueMax(t *testing.T) {
	var ids []reactor.ID
	var d diary
	h := &script{
		open:   func(_ *reactor.Loop, id reactor.ID) { ids = append(ids, id) },
		closed: func(_ *reactor.Loop, id reactor.ID, why reactor.Cause, _ error) { d.add("%v", why) },
	}
	const budget = 64 << 10
	m, _ := twin(t, reactor.Options{NodeQueueMax: budget, Work: work}, h)
	var pipes []*reactor.Pipe
	for range 12 {
		p := m.Connect(client)
		p.Window(0)
		pipes = append(pipes, p)
	}
	m.Run()
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

func TestPauseAndResume(t *testing.T) {
	var d diary
	var id reactor.ID
	h := &script{
		open: func(_ *reactor.Loop, i reactor.ID) { id = i },
		data: func(l *reactor.Loop, i reactor.ID, in []byte) int {
			d.add("%s", in)
			l.Pause(i)
			return min(2, len(in))
		},
	}
	m, _ := twin(t, reactor.Options{Work: work}, h)
	p := m.Connect(client)
	p.Write([]byte("abcde"))
	m.Run()
	d.expect(t, "abcde")
	p.Write([]byte("fgh"))
	m.Run()
	d.expect(t, "")
	if p.Pending() != 3 {
		t.Fatalf("%d bytes wait in the kernel, want 3", p.Pending())
	}
	inside := false
	run(m, func(l *reactor.Loop) {
		if !l.Paused(id) {
			t.Error("not paused")
		}
		l.Resume(id)
		inside = len(d.words) > 0
	})
	d.expect(t, "cde") // with what was left; paused again before the rest was read
	if inside {
		t.Error("Resume called Data itself")
	}
	run(m, func(l *reactor.Loop) { l.Rerun(id) })
	d.expect(t, "e")
	run(m, func(l *reactor.Loop) { l.Resume(id) })
	d.expect(t, "fgh")
	run(m, func(l *reactor.Loop) { l.Resume(id); l.Pause(id) })
	d.expect(t, "") // the later word holds, though "h" is left
	run(m, func(l *reactor.Loop) { l.Resume(id) })
	d.expect(t, "h")
	run(m, func(l *reactor.Loop) { l.Rerun(id) })
	d.expect(t, "") // nothing left, nothing to run
}

// TestRerunForEver: a handler that asks again and again does not keep others from their turn.
func TestRerunForEver(t *testing.T) {
	runs, answered := 0, 0
	h := &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
		if in[0] == 'a' {
			answered = runs
			return len(in)
		}
		if runs++; runs < 100 {
			l.Rerun(id)
		}
		return 0
	}}
	m, _ := twin(t, reactor.Options{}, h)
	m.Connect(client).Write([]byte("x"))
	m.Connect(client).Write([]byte("a"))
	m.Run()
	if runs != 100 || answered == 0 || answered > 10 {
		t.Errorf("%d runs, the other socket was served after %d", runs, answered)
	}
}

// TestRelay joins two sockets with back-pressure: what the slow side does not take stops the fast side.
func TestRelay(t *testing.T) {
	var pair [2]reactor.ID
	other := func(id reactor.ID) reactor.ID {
		if id == pair[0] {
			return pair[1]
		}
		return pair[0]
	}
	const high = 10_000
	most := 0
	h := &script{
		open: func(_ *reactor.Loop, id reactor.ID) {
			if pair[0] == 0 {
				pair[0] = id
			} else {
				pair[1] = id
			}
		},
		data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			to := other(id)
			if err := l.Write(to, in); err != nil {
				t.Error(err)
			}
			if most = max(most, l.Queued(to)); l.Queued(to) > high {
				l.Pause(id)
			}
			return len(in)
		},
		drained: func(l *reactor.Loop, id reactor.ID) { l.Resume(other(id)) },
		closed:  func(l *reactor.Loop, id reactor.ID, _ reactor.Cause, _ error) { l.Close(other(id)) },
	}
	m, _ := twin(t, reactor.Options{ReadBuffer: 4096}, h)
	fast, slow := m.Connect(client), m.Connect(client)
	m.Run()
	slow.Window(3000)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	fast.Write(sent)
	m.Run()
	if fast.Pending() < len(sent)-30_000 {
		t.Errorf("%d of 1 MiB were read though nobody takes them", len(sent)-fast.Pending())
	}
	fast.CloseWrite()
	var got []byte
	for {
		b := slow.Read()
		if len(b) == 0 {
			break
		}
		got = append(got, b...)
		m.Run()
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes arrived", len(got), len(sent))
	}
	if most > high+2*4096 {
		t.Errorf("%d bytes were queued at most, with a mark of %d", most, high)
	}
	if !slow.Closed() {
		t.Error("the end was not passed on")
	}
}

func TestCloseDeliversWhatIsQueued(t *testing.T) {
	var d diary
	h := &script{
		open: func(l *reactor.Loop, id reactor.ID) {
			_ = l.Write(id, bytes.Repeat([]byte("w"), 5000))
			l.Close(id)
			l.Close(id)
			if err := l.Write(id, []byte("late")); !errors.Is(err, reactor.ErrGone) {
				t.Errorf("Write after Close: %v", err)
			}
			l.Arm(id, l.Now())
			if !l.Alive(id) {
				t.Error("not alive though Closed is still to come")
			}
		},
		data:    func(_ *reactor.Loop, _ reactor.ID, in []byte) int { d.add("data"); return len(in) },
		drained: func(*reactor.Loop, reactor.ID) { d.add("drained") },
		timer:   func(*reactor.Loop, reactor.ID) { d.add("timer") },
		closed:  func(_ *reactor.Loop, _ reactor.ID, why reactor.Cause, err error) { d.add("%v:%v", why, err) },
	}
	m, _ := twin(t, reactor.Options{Linger: time.Second}, h)
	p := m.Connect(client)
	p.Window(2000)
	p.Write([]byte("more from the client"))
	total := 0
	for i := range 3 {
		m.Advance(100 * time.Millisecond)
		if d.expect(t, ""); p.Closed() != (i == 2) {
			t.Fatalf("round %d: FIN is %v, though the queue becomes empty in round 2", i, p.Closed())
		}
		total += len(p.Read())
	}
	if total != 5000 || !p.Closed() || p.WasReset() {
		t.Fatalf("%d bytes, closed %v, reset %v", total, p.Closed(), p.WasReset())
	}
	d.expect(t, "") // FIN is sent, the peer's has not come
	p.Write([]byte("still talking"))
	p.Close()
	m.Run()
	d.expect(t, "local:<nil>")
	if p.WasReset() {
		t.Error("RST though the peer had finished")
	}
}

func TestLinger(t *testing.T) {
	tests := map[string]struct {
		window int
		reset  bool
	}{
		"the peer takes nothing":     {window: 0, reset: true},
		"the peer takes all, no FIN": {window: 1 << 20, reset: false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var d diary
			h := &script{
				open: func(l *reactor.Loop, id reactor.ID) {
					_ = l.Write(id, make([]byte, 5000))
					l.Close(id)
				},
				closed: func(_ *reactor.Loop, _ reactor.ID, why reactor.Cause, err error) { d.add("%v:%v", why, err) },
			}
			m, _ := twin(t, reactor.Options{Linger: time.Second}, h)
			p := m.Connect(client)
			p.Window(test.window)
			m.Advance(990 * time.Millisecond)
			d.expect(t, "")
			m.Advance(50 * time.Millisecond)
			d.expect(t, "local:"+reactor.ErrLinger.Error())
			if p.WasReset() != test.reset {
				t.Errorf("reset: %v, want %v", p.WasReset(), test.reset)
			}
		})
	}
}

// TestCloseListensOnlySoMuch: a peer that keeps sending to a closing socket is cut off after 1 MiB.
func TestCloseListensOnlySoMuch(t *testing.T) {
	var d diary
	h := &script{
		data:   func(l *reactor.Loop, id reactor.ID, in []byte) int { l.Close(id); return len(in) },
		closed: func(_ *reactor.Loop, _ reactor.ID, why reactor.Cause, _ error) { d.add("%v", why) },
	}
	m, _ := twin(t, reactor.Options{}, h)
	p := m.Connect(client)
	p.Write(make([]byte, 1<<20))
	m.Run()
	d.expect(t, "")
	p.Write(make([]byte, 4<<20))
	m.Run()
	d.expect(t, "local")
	if p.Pending() < 3<<20 || !p.WasReset() {
		t.Errorf("%d bytes were not read, reset %v", p.Pending(), p.WasReset())
	}
}

func TestAbort(t *testing.T) {
	var d diary
	h := &script{
		data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			_ = l.Write(id, in)
			l.Abort(id)
			l.Abort(id)
			l.Close(id)
			d.add("end-of-data")
			return 0
		},
		closed: func(l *reactor.Loop, id reactor.ID, why reactor.Cause, err error) {
			d.add("%v:%v", why, err)
			l.Abort(id)
			l.Close(id)
			l.Rerun(id)
			l.Resume(id)
			if err := l.WriteLast(id, nil); !errors.Is(err, reactor.ErrGone) {
				t.Errorf("WriteLast in Closed: %v", err)
			}
		},
	}
	m, _ := twin(t, reactor.Options{}, h)
	p := m.Connect(client)
	p.Write([]byte("hello"))
	m.Run()
	d.expect(t, "end-of-data local:<nil>")
	if !p.WasReset() {
		t.Error("no RST")
	}
}

func TestEnds(t *testing.T) {
	tests := map[string]struct {
		do   func(m *reactor.Memory, p *reactor.Pipe)
		want string
	}{
		"FIN":            {func(_ *reactor.Memory, p *reactor.Pipe) { p.CloseWrite() }, "eof:<nil>"},
		"RST":            {func(_ *reactor.Memory, p *reactor.Pipe) { p.Reset() }, "reset:connection reset by peer"},
		"write to gone":  {func(_ *reactor.Memory, p *reactor.Pipe) { p.Write([]byte("x")); p.Close() }, "reset:broken pipe"},
		"reactor stops":  {func(m *reactor.Memory, _ *reactor.Pipe) { _ = m.Reactor().Stop(context.Background()) }, "stop:<nil>"},
		"peer is silent": {func(m *reactor.Memory, _ *reactor.Pipe) { m.Advance(time.Hour) }, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var d diary
			h := echo()
			h.closed = func(_ *reactor.Loop, _ reactor.ID, why reactor.Cause, err error) { d.add("%v:%v", why, err) }
			m, _ := twin(t, reactor.Options{}, h)
			p := m.Connect(client)
			m.Run()
			test.do(m, p)
			m.Run()
			d.expect(t, test.want)
			if s := stats(m.Reactor()); (s.Conns == 0) != (test.want != "") {
				t.Errorf("%d sockets left", s.Conns)
			}
		})
	}
}

// TestHalfClose: a client that shuts down its sending half after a request still gets the whole answer.
func TestHalfClose(t *testing.T) {
	var d diary
	h := &script{
		data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			_ = l.Write(id, make([]byte, 9000))
			return len(in)
		},
		closed: func(_ *reactor.Loop, _ reactor.ID, why reactor.Cause, _ error) { d.add("%v", why) },
	}
	m, _ := twin(t, reactor.Options{}, h)
	p := m.Connect(client)
	p.Window(4000)
	p.Write([]byte("request"))
	p.CloseWrite()
	n := 0
	for range 3 {
		m.Run()
		n += len(p.Read())
	}
	m.Run()
	if n != 9000 || !p.Closed() || p.WasReset() {
		t.Errorf("%d bytes, closed %v, reset %v", n, p.Closed(), p.WasReset())
	}
	d.expect(t, "eof")
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

func TestStaleIDs(t *testing.T) {
	var ids []reactor.ID
	h := &script{
		open: func(_ *reactor.Loop, id reactor.ID) { ids = append(ids, id) },
		data: func(*reactor.Loop, reactor.ID, []byte) int { return 0 },
	}
	m, _ := twin(t, reactor.Options{Loops: 2, Work: work}, h)
	first := m.Connect(client)
	m.Connect(client)
	m.Run()
	first.Close()
	m.Run()
	m.Connect(client) // loop 0 again, in the slot of the first
	m.Run()
	stale, foreign, current := ids[0], ids[1], ids[2]
	if stale.Slot() != current.Slot() || stale.Loop() != current.Loop() {
		t.Fatalf("the slot was not used again: %x %x", uint64(stale), uint64(current))
	}
	run(m, func(l *reactor.Loop) {
		for _, id := range []reactor.ID{stale, foreign, 0, ^reactor.ID(0), stale + 1<<40} {
			_, reserve := l.Reserve(id, 5)
			for what, err := range map[string]error{"Write": l.Write(id, []byte("x")), "WriteLast": l.WriteLast(id, nil), "Reserve": reserve} {
				if !errors.Is(err, reactor.ErrGone) {
					t.Errorf("%s(%x): %v", what, uint64(id), err)
				}
			}
			if l.Alive(id) || l.Queued(id) != 0 || l.Paused(id) || l.Peer(id).IsValid() {
				t.Errorf("%x seems to live", uint64(id))
			}
			l.Pause(id)
			l.Resume(id)
			l.Rerun(id)
			l.Arm(id, l.Now())
			l.Disarm(id)
			l.Close(id)
			l.Abort(id)
		}
	})
	run(m, func(l *reactor.Loop) {
		if !l.Alive(current) || l.Paused(current) {
			t.Error("a stale ID reached the slot's new owner")
		}
	})
	if s := stats(m.Reactor()); s.Conns != 2 {
		t.Errorf("%d sockets, want 2", s.Conns)
	}
}

// TestForeignEvent: readiness of a number that has moved to another loop is not served by the loop that had it before.
func TestForeignEvent(t *testing.T) {
	var d diary
	var ids []reactor.ID
	h := &script{
		open: func(_ *reactor.Loop, id reactor.ID) { ids = append(ids, id) },
		data: func(l *reactor.Loop, _ reactor.ID, in []byte) int { d.add("%d:%s", l.Index(), in); return len(in) },
	}
	m, _ := twin(t, reactor.Options{Loops: 2}, h)
	m.Connect(client)
	p := m.Connect(client)
	m.Run()
	p.Write([]byte("x"))
	m.Inject(0, ids[1].Slot())
	m.Inject(0, 5000) // nobody's yet
	d.expect(t, "")
	m.Run()
	d.expect(t, "1:x")
}

// TestNumberReusedInOneBatch: two sockets are ready at once; the first one's callback closes the second and dials, and the
// dial gets the second one's number while its event still waits in the batch.
func TestNumberReusedInOneBatch(t *testing.T) {
	var d diary
	var ids []reactor.ID
	var dialed reactor.ID
	accepted := &script{
		open: func(_ *reactor.Loop, id reactor.ID) { ids = append(ids, id) },
		data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			d.add("data:%s", in)
			if id == ids[0] {
				l.Abort(ids[1])
			}
			return len(in)
		},
	}
	accepted.closed = func(l *reactor.Loop, _ reactor.ID, _ reactor.Cause, _ error) {
		d.add("closed")
		dialed, _ = l.Dial(1, client, netip.Addr{})
	}
	backend := &script{
		open: func(_ *reactor.Loop, id reactor.ID) { d.add("open:%v", id == dialed) },
		data: func(_ *reactor.Loop, _ reactor.ID, in []byte) int { d.add("backend:%s", in); return len(in) },
	}
	m, _ := twin(t, reactor.Options{}, accepted, backend)
	var server *reactor.Pipe
	m.OnDial(func(netip.AddrPort) (*reactor.Pipe, error) {
		server = m.NewPipe()
		server.Write([]byte("greeting"))
		return server, nil
	})
	a, b := m.Connect(client), m.Connect(client)
	m.Run()
	a.Write([]byte("a"))
	b.Write([]byte("b"))
	m.Run()
	d.expect(t, "data:a closed open:true backend:greeting")
	c := m.Connect(client) // takes the number that b had
	m.Run()
	if ids[2].Slot() != ids[1].Slot() {
		t.Fatalf("slots %d and %d: the number was not used again", ids[2].Slot(), ids[1].Slot())
	}
	c.Write([]byte("c"))
	m.Run()
	d.expect(t, "data:c")
}

func TestPanics(t *testing.T) {
	var d diary
	boom := ""
	var other reactor.ID
	h := &script{
		open: func(l *reactor.Loop, id reactor.ID) {
			if boom == "open" {
				panic(boom)
			}
			if boom == "timer" {
				l.Arm(id, l.Now())
			}
			if boom == "drained" {
				_ = l.Write(id, make([]byte, 100))
			}
		},
		data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			if boom == "data" || boom == "fault" {
				panic(boom)
			}
			if boom == "closed" {
				l.Close(id)
			}
			return len(in)
		},
		timer:   func(*reactor.Loop, reactor.ID) { panic(boom) },
		drained: func(*reactor.Loop, reactor.ID) { panic(boom) },
		closed: func(_ *reactor.Loop, id reactor.ID, why reactor.Cause, _ error) {
			if d.add("%v", why); boom == "closed" {
				panic(boom)
			}
		},
		fault: func(l *reactor.Loop, id reactor.ID, v any) {
			d.add("fault:%v", v)
			if _ = l.Write(id, []byte("1011")); boom == "fault" {
				panic("again")
			}
		},
	}
	var logged []string
	m, _ := twin(t, reactor.Options{Work: work, Log: func(msg string, args ...any) { logged = append(logged, msg) }}, h)
	bystander := m.Connect(client)
	m.Run()
	tests := []struct {
		boom, want, last string
		panics           uint64
	}{
		{"open", "fault:open fault", "1011", 1},
		{"data", "fault:data fault", "1011", 1},
		{"timer", "fault:timer fault", "1011", 1},
		{"drained", "fault:drained fault", "1011", 1},
		{"fault", "fault:fault fault", "1011", 2},
		{"closed", "local", "", 1},
	}
	for _, test := range tests {
		boom = test.boom
		before := stats(m.Reactor())
		p := m.Connect(client)
		p.Window(60)
		p.Write([]byte("x"))
		m.Advance(40 * time.Millisecond)
		got := append([]byte(nil), p.Read()...)
		m.Run()
		got = append(got, p.Read()...)
		m.Run()
		got = append(got, p.Read()...)
		p.Close()
		m.Run()
		d.expect(t, test.want)
		if text := strings.TrimLeft(string(got), "\x00"); text != test.last {
			t.Errorf("%s: last words %q, want %q", test.boom, text, test.last)
		}
		s := stats(m.Reactor())
		if s.Panics-before.Panics != test.panics || s.Conns != 1 {
			t.Errorf("%s: %d panics counted, want %d; %d sockets", test.boom, s.Panics-before.Panics, test.panics, s.Conns)
		}
	}
	boom = ""
	run(m, func(*reactor.Loop) { panic("work") })
	bystander.Write([]byte("x"))
	m.Run()
	if s := stats(m.Reactor()); s.Panics != 8 || len(logged) != 8 {
		t.Errorf("%d panics, %d log lines, want 8", s.Panics, len(logged))
	}
	run(m, func(l *reactor.Loop) { l.Each(func(id reactor.ID) { other = id }) })
	if bystander.Closed() || other == 0 {
		t.Error("a bystander was closed")
	}
}

func TestDial(t *testing.T) {
	var d diary
	h := &script{
		open: func(l *reactor.Loop, id reactor.ID) { d.add("open:%v", l.Peer(id)) },
		data: func(_ *reactor.Loop, _ reactor.ID, in []byte) int { d.add("data:%s", in); return len(in) },
		timer: func(l *reactor.Loop, id reactor.ID) {
			d.add("timer")
			l.Close(id)
		},
		closed: func(_ *reactor.Loop, _ reactor.ID, why reactor.Cause, err error) { d.add("%v:%v", why, err) },
	}
	m, _ := twin(t, reactor.Options{Work: work, MaxConns: 2}, h)
	dial := func(l *reactor.Loop) (id reactor.ID) {
		id, err := l.Dial(0, client, netip.Addr{})
		if err != nil {
			t.Error(err)
		}
		if len(d.words) > 0 {
			t.Error("Dial called back before it returned")
		}
		return id
	}
	run(m, func(l *reactor.Loop) { dial(l) })
	d.expect(t, "dial:connection refused")
	m.OnDial(func(netip.AddrPort) (*reactor.Pipe, error) { return nil, syscall.EHOSTUNREACH })
	run(m, func(l *reactor.Loop) { dial(l) })
	d.expect(t, "dial:no route to host")

	m.OnDial(func(netip.AddrPort) (*reactor.Pipe, error) { return nil, nil })
	run(m, func(l *reactor.Loop) { l.Arm(dial(l), l.Now().Add(time.Second)) })
	m.Advance(time.Second)
	m.Advance(40 * time.Millisecond)
	d.expect(t, "timer local:<nil>")

	var server *reactor.Pipe
	m.OnDial(func(netip.AddrPort) (*reactor.Pipe, error) { server = m.NewPipe(); return server, nil })
	run(m, func(l *reactor.Loop) {
		if err := l.Write(dial(l), []byte("sent while it dials")); err != nil {
			t.Error(err)
		}
	})
	d.expect(t, "open:192.0.2.7:4711")
	if got := string(server.Read()); got != "sent while it dials" {
		t.Errorf("the server reads %q", got)
	}
	server.Write([]byte("hi"))
	m.Run()
	d.expect(t, "data:hi")
	run(m, func(l *reactor.Loop) {
		dial(l)
		if _, err := l.Dial(0, client, netip.Addr{}); !errors.Is(err, reactor.ErrFull) {
			t.Errorf("dial beyond MaxConns: %v", err)
		}
		if _, err := l.Dial(9, client, netip.Addr{}); err == nil || errors.Is(err, reactor.ErrFull) {
			t.Errorf("dial without a handler: %v", err)
		}
		if _, err := l.Dial(0, netip.AddrPort{}, netip.Addr{}); err == nil || errors.Is(err, reactor.ErrFull) {
			t.Errorf("dial to nowhere: %v", err)
		}
	})
	d.take()
	m.OnDial(func(netip.AddrPort) (*reactor.Pipe, error) { return nil, nil })
	server.Close()
	m.Run()
	d.take()
	run(m, func(l *reactor.Loop) { dial(l) })
	d.take()
	_ = m.Reactor().Stop(context.Background())
	d.expect(t, "stop:<nil> stop:<nil>")
}

func TestMaxConns(t *testing.T) {
	m, _ := twin(t, reactor.Options{MaxConns: 3}, echo())
	pipes := make([]*reactor.Pipe, 5)
	for i := range pipes {
		pipes[i] = m.Connect(client)
		pipes[i].Write([]byte("x"))
	}
	m.Advance(5 * time.Second)
	s := stats(m.Reactor())
	if s.Conns != 3 || s.Refused[reactor.RefusedFull] < 5 || s.Refused[reactor.RefusedFull] > 16 {
		t.Errorf("%d sockets, %d tries in 5 s with a back-off from 5 ms to 1 s", s.Conns, s.Refused[reactor.RefusedFull])
	}
	pipes[0].Close()
	pipes[1].Close()
	m.Advance(time.Second)
	if got := string(pipes[3].Read()) + string(pipes[4].Read()); got != "xx" {
		t.Errorf("1 s after release the waiting two read %q", got)
	}
	if s := stats(m.Reactor()); s.Conns != 3 || s.Closed[reactor.CauseEOF] != 2 {
		t.Errorf("%+v", s)
	}
}

func TestStopAccept(t *testing.T) {
	m, _ := twin(t, reactor.Options{}, echo())
	before := m.Connect(client)
	m.Run()
	m.Reactor().StopAccept()
	m.Run()
	after := m.Connect(client)
	before.Write([]byte("goes on"))
	m.Run()
	if got := string(before.Read()); got != "goes on" || !after.Closed() {
		t.Errorf("before reads %q, after closed %v", got, after.Closed())
	}
}

func TestAllocations(t *testing.T) {
	h := &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
		if in[len(in)-1] != '\n' {
			return 0
		}
		b, err := l.Reserve(id, 4)
		if err != nil {
			panic(err)
		}
		copy(b, "head")
		_ = l.Write(id, in)
		l.Arm(id, l.Now().Add(25*time.Second))
		return len(in)
	}}
	m, _ := twin(t, reactor.Options{}, h)
	p := m.Connect(client)
	half, rest := make([]byte, 700), append(make([]byte, 99), '\n')
	got := 0
	trip := func() {
		p.Write(half)
		m.Run()
		p.Write(rest)
		m.Run()
		got += len(p.Read())
	}
	trip()
	if n := testing.AllocsPerRun(1000, trip); n != 0 {
		t.Errorf("%v allocations a message, want 0", n)
	}
	if got < 1000*804 {
		t.Errorf("only %d bytes came back", got)
	}
	big := make([]byte, 200)
	if n := testing.AllocsPerRun(1000, func() { // through queue, block and drain
		p.Window(100)
		p.Write(append(big[:150], '\n'))
		m.Run()
		p.Read()
		m.Run()
		p.Window(1000)
		p.Read()
		m.Run()
		p.Read()
	}); n != 0 {
		t.Errorf("%v allocations a message through the queue, want 0", n)
	}
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]reactor.Options{
		"no handler":      {},
		"negative loops":  {Handlers: []reactor.Handler{echo()}, Loops: -1},
		"too many loops":  {Handlers: []reactor.Handler{echo()}, Loops: 256},
		"negative queue":  {Handlers: []reactor.Handler{echo()}, QueueMax: -1},
		"negative conns":  {Handlers: []reactor.Handler{echo()}, MaxConns: -1},
		"negative linger": {Handlers: []reactor.Handler{echo()}, Linger: -1},
		"all is reserved": {Handlers: []reactor.Handler{echo()}, Reserve: 1 << 30},
	} {
		if r, err := reactor.New(o); err == nil {
			_ = r.Stop(context.Background())
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestLeave: a far end that has left takes what comes, and its socket lives and dies as others do.
func TestLeave(t *testing.T) {
	const n = 40
	closed := 0
	h := &script{
		data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			l.Arm(id, l.Now().Add(time.Minute))
			return len(in)
		},
		timer: func(l *reactor.Loop, id reactor.ID) {
			if err := l.Write(id, make([]byte, 300<<10)); err != nil { // more than a far end that does not read would take
				t.Error(err)
			}
			l.Close(id)
		},
		closed: func(*reactor.Loop, reactor.ID, reactor.Cause, error) { closed++ },
	}
	m, _ := twin(t, reactor.Options{QueueMax: 1 << 19, Loops: 2}, h)
	for range n {
		p := m.Connect(client)
		p.Write([]byte("x"))
		m.Run()
		p.Leave()
	}
	late := m.Connect(client)
	m.Run()
	if s := stats(m.Reactor()); s.Conns != n+1 || s.BytesIn != n {
		t.Errorf("%d sockets, %d bytes in", s.Conns, s.BytesIn)
	}
	m.Advance(2 * time.Minute) // they are sent 300 KiB each, and closed; none says FIN
	if s := stats(m.Reactor()); s.Conns != 1 || closed != n || s.BytesOut != n*300<<10 || s.Queued != 0 {
		t.Errorf("%d sockets, %d were closed, %d bytes out, %d waiting", s.Conns, closed, s.BytesOut, s.Queued)
	}
	late.Write([]byte("x"))
	next := m.Connect(client) // gets the number of one that had left
	next.Write([]byte("y"))
	m.Run()
	late.CloseWrite()
	next.CloseWrite()
	m.Run()
	if !late.Closed() || !next.Closed() {
		t.Error("those that stayed are mixed up with those that left")
	}
	waits := m.Connect(client)
	defer func() {
		if recover() == nil {
			t.Error("one that was never accepted could leave")
		}
	}()
	waits.Leave()
}

// TestAFullReadIsFollowedByAnother: who sends more than the buffer holds is read on at once, but not so long that the others wait
// for all of it; and not when the callback pauses, yields or closes. With batches it is read by itself from then on, behind
// the others, until a reading is short.
func TestAFullReadIsFollowedByAnother(t *testing.T) {
	bothWays(t, func(t *testing.T, single bool) {
		longest := "a64 a64 b1 a64 a64 a64 a64 a64 a64 a64 a24"
		if single {
			fullReads(t, true, longest, "a64 b1", "a20 b1", "a20 b1")
		} else {
			fullReads(t, false, longest, "b1 a64", "b1 a20", "a20 b1")
		}
	})
}

// fullReads wants that for 600, 64, 20 and again 20 bytes of a, and a byte of b.
func fullReads(t *testing.T, single bool, want ...string) {
	t.Helper()
	var d diary
	names := map[reactor.ID]string{}
	act := func(*reactor.Loop, reactor.ID) {}
	h := &script{
		open: func(_ *reactor.Loop, id reactor.ID) { names[id] = string(rune('a' + len(names))) },
		data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			d.add("%s%d", names[id], len(in))
			act(l, id)
			return len(in)
		},
		closed: func(_ *reactor.Loop, id reactor.ID, _ reactor.Cause, _ error) { d.add("%s-closed", names[id]) },
	}
	m, _ := twin(t, reactor.Options{ReadBuffer: 64, Work: work, Single: single}, h)
	a, b := m.Connect(client), m.Connect(client)
	m.Run()
	for i, n := range []int{600, 64, 20, 20} {
		a.Write(make([]byte, n))
		b.Write(make([]byte, 1))
		m.Run()
		d.expect(t, want[i])
	}
	var id reactor.ID
	act = func(l *reactor.Loop, who reactor.ID) { l.Pause(who); id = who }
	a.Write(make([]byte, 200))
	m.Run()
	d.expect(t, "a64")
	act = func(l *reactor.Loop, who reactor.ID) { l.Close(who) }
	run(m, func(l *reactor.Loop) { l.Resume(id) })
	d.expect(t, "a64")
	a.Close()
	m.Run()
	d.expect(t, "a-closed")
}
