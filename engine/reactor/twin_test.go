package reactor_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
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
