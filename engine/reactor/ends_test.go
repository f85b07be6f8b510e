package reactor_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ticketgate/engine/reactor"
)

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
