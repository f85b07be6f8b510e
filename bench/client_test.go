package bench_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"ticketgate/bench"
)

const patience = 20 * time.Second // for what takes milliseconds: only a fault waits so long

// serve runs handle for each connection to a new listener until the test ends.
func serve(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{handle: handle, open: make(map[net.Conn]bool)}
	s.running.Go(func() { s.accept(l) })
	t.Cleanup(func() {
		l.Close()
		s.hangUp()
		s.running.Wait()
	})
	return l.Addr().String()
}

type server struct {
	handle  func(net.Conn)
	running sync.WaitGroup
	mu      sync.Mutex
	open    map[net.Conn]bool // nil: ended
}

func (s *server) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		ended := s.open == nil
		if !ended {
			s.open[c] = true
		}
		s.mu.Unlock()
		if ended {
			c.Close()
			return
		}
		s.running.Go(func() {
			s.handle(c)
			s.mu.Lock()
			delete(s.open, c)
			s.mu.Unlock()
			c.Close()
		})
	}
}

func (s *server) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		c.Close()
	}
	s.open = nil
}

func target(t *testing.T, address string) *bench.Target {
	t.Helper()
	to, err := bench.NewTarget(address)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func runUntil(t *testing.T, l *bench.Loop, done func() bool) {
	t.Helper()
	if err := l.RunUntil(t.Context(), patience, done); err != nil {
		t.Fatal(err)
	}
}

func TestDial(t *testing.T) {
	closedPort := func() string {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}()
	l := bench.OpenLoop(t, bench.Options{})
	e := bench.NewEcho(l, []byte("x"), 1, true)
	if _, err := l.Dial(target(t, closedPort), e.Socket()); err != nil {
		t.Fatal(err)
	}
	runUntil(t, l, func() bool { return e.Err != nil })
	if !errors.Is(e.Err, syscall.ECONNREFUSED) || l.Open() != 0 {
		t.Errorf("%v, %d open", e.Err, l.Open())
	}
	for _, bad := range []string{"", "127.0.0.1", "[::1]:80", "localhost:80"} {
		if _, err := bench.NewTarget(bad); err == nil {
			t.Errorf("target %q is taken", bad)
		}
	}
	if _, err := bench.NewLoop(bench.Options{Sources: []netip.Addr{netip.IPv6Loopback()}}); err == nil {
		t.Error("an IPv6 source is taken")
	}
}

// Sources are used in turn.
func TestSources(t *testing.T) {
	var mu sync.Mutex
	from := make(map[string]int)
	address := serve(t, func(c net.Conn) {
		mu.Lock()
		from[c.RemoteAddr().(*net.TCPAddr).IP.String()]++
		mu.Unlock()
		_, _ = c.Write([]byte("x"))
		_, _ = io.Copy(io.Discard, c)
	})
	l := bench.OpenLoop(t, bench.Options{Sources: []netip.Addr{netip.MustParseAddr("127.0.1.1"), netip.MustParseAddr("127.0.1.2")}})
	count := &counter{}
	for range 10 {
		if _, err := l.Dial(target(t, address), count); err != nil {
			t.Fatal(err)
		}
	}
	runUntil(t, l, func() bool { return count.bytes == 10 })
	mu.Lock()
	defer mu.Unlock()
	if from["127.0.1.1"] != 5 || from["127.0.1.2"] != 5 {
		t.Errorf("%v", from)
	}
}

// counter is a Handler that counts bytes and ends.
type counter struct {
	bytes int
	ends  []error
}

func (k *counter) Opened(*bench.Conn)               {}
func (k *counter) Data(_ *bench.Conn, b []byte) int { k.bytes += len(b); return len(b) }
func (k *counter) Closed(_ *bench.Conn, err error)  { k.ends = append(k.ends, err) }

// flood is a Handler that writes size bytes at once and reads them back.
type flood struct {
	counter
	size int
}

func (f *flood) Opened(c *bench.Conn) {
	b := make([]byte, f.size/2)
	c.Write(b)
	c.Write(b)
}

// Half of it is more than a socket's buffers hold. What the kernel does not take is sent later, and the last bytes before the end of a connection are not lost.
func TestWriteMoreThanTheKernelTakes(t *testing.T) {
	const size = 16 << 20
	address := serve(t, func(c net.Conn) {
		_, _ = io.CopyN(c, c, size)
	})
	l := bench.OpenLoop(t, bench.Options{})
	f := &flood{size: size}
	if _, err := l.Dial(target(t, address), f); err != nil {
		t.Fatal(err)
	}
	runUntil(t, l, func() bool { return len(f.ends) > 0 })
	if f.bytes != size || f.ends[0] != io.EOF || len(f.ends) != 1 {
		t.Errorf("%d of %d bytes came back, %v", f.bytes, size, f.ends)
	}
}

// hoarder is a Handler that never uses a byte.
type hoarder struct{ counter }

func (h *hoarder) Data(*bench.Conn, []byte) int { return 0 }

func TestLeftoverIsBounded(t *testing.T) {
	address := serve(t, func(c net.Conn) {
		for b := make([]byte, 64<<10); ; {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	})
	l := bench.OpenLoop(t, bench.Options{})
	h := &hoarder{}
	if _, err := l.Dial(target(t, address), h); err != nil {
		t.Fatal(err)
	}
	runUntil(t, l, func() bool { return len(h.ends) > 0 })
	if !errors.Is(h.ends[0], bench.ErrLeftover) || l.Open() != 0 {
		t.Errorf("%v, %d open", h.ends[0], l.Open())
	}
}

// rival is a Handler that closes its other half when it gets a byte, and dials anew: on the descriptor that is just free.
type rival struct {
	counter
	l     *bench.Loop
	to    *bench.Target
	conn  *bench.Conn
	other *rival
	heir  *heir
}

func (r *rival) Opened(c *bench.Conn) { r.conn = c }

func (r *rival) Data(_ *bench.Conn, b []byte) int {
	r.bytes += len(b)
	r.other.conn.Close()
	if _, err := r.l.Dial(r.to, r.heir); err != nil {
		r.ends = append(r.ends, err)
	}
	return len(b)
}

// heir is a Handler that notes the wake in which it was opened.
type heir struct {
	counter
	wake, opened int
}

func (h *heir) Opened(*bench.Conn) { h.opened = h.wake }

// An event of a socket that was closed earlier in the same wake does not reach the new one with its number.
func TestReusedDescriptor(t *testing.T) {
	accepted := make(chan net.Conn, 3)
	address := serve(t, func(c net.Conn) {
		accepted <- c
		_, _ = io.Copy(io.Discard, c)
	})
	l := bench.OpenLoop(t, bench.Options{})
	h := &heir{wake: 1}
	a := &rival{l: l, to: target(t, address), heir: h}
	b := &rival{l: l, to: a.to, heir: h, other: a}
	a.other = b
	for _, r := range []*rival{a, b} {
		if _, err := l.Dial(r.to, r); err != nil {
			t.Fatal(err)
		}
	}
	runUntil(t, l, func() bool { return a.conn != nil && b.conn != nil })
	for range 2 { // both bytes are there before the loop looks
		if _, err := (<-accepted).Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	runUntil(t, l, func() bool {
		if a.bytes+b.bytes > 0 {
			h.wake++
		}
		return h.opened > 0
	})
	if a.bytes+b.bytes != 1 || h.opened < 2 || h.bytes != 0 || len(a.ends)+len(b.ends)+len(h.ends) != 0 {
		t.Errorf("%d and %d bytes, opened in wake %d, %v %v %v", a.bytes, b.bytes, h.opened, a.ends, b.ends, h.ends)
	}
}

func TestRunEnds(t *testing.T) {
	now := time.Duration(0)
	l := bench.OpenLoop(t, bench.Options{Now: func() time.Duration { now += time.Millisecond; return now }})
	if err := l.RunUntil(t.Context(), 5*time.Millisecond, func() bool { return false }); !errors.Is(err, bench.ErrTimeout) {
		t.Errorf("timeout: %v", err)
	}
	if err := l.RunFor(t.Context(), 5*time.Millisecond); err != nil {
		t.Errorf("RunFor: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.RunFor(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// mute is a Handler that hears nothing after it has deafened its socket.
type mute struct {
	opened, heard int
	err           error
}

func (m *mute) Opened(c *bench.Conn)               { m.opened++; m.err = c.Deafen() }
func (m *mute) Data(_ *bench.Conn, b []byte) int   { m.heard++; return len(b) }
func (m *mute) Closed(_ *bench.Conn, reason error) { m.heard++; m.err = reason }

func TestDeafen(t *testing.T) {
	said := make(chan struct{})
	address := serve(t, func(c net.Conn) {
		_, _ = c.Write([]byte("hello"))
		_ = c.Close()
		close(said)
	})
	l, m := bench.OpenLoop(t, bench.Options{}), new(mute)
	if _, err := l.Dial(target(t, address), m); err != nil {
		t.Fatal(err)
	}
	<-said // so that the bytes and the end are in the same event as the connection
	runUntil(t, l, func() bool { return m.opened > 0 })
	runUntil(t, l, func() bool { return m.heard > 0 }) // of its end, and of nothing before
	if *m != (mute{opened: 1, heard: 1, err: io.EOF}) || l.Open() != 0 {
		t.Errorf("%+v, %d open", m, l.Open())
	}
}

// Turn handles what is there, and does not wait for more when it must not.
func TestTurn(t *testing.T) {
	address := serve(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	l := bench.OpenLoop(t, bench.Options{})
	g := &guest{text: "hello"}
	if _, err := l.Dial(target(t, address), g); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); g.heard != "hello"; {
		if err := l.Turn(-time.Hour); err != nil {
			t.Fatal(err)
		}
		if time.Since(start) > patience {
			t.Fatalf("heard %q", g.heard)
		}
	}
	start := time.Now()
	if err := l.Turn(time.Hour); err != nil || time.Since(start) > patience { // longestWait at most
		t.Errorf("a turn of %v, %v", time.Since(start), err)
	}
}

// The peer of a socket that is reset hears of it, unlike that of one that is closed.
func TestReset(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*bench.Conn)
		want error
	}{"close": {(*bench.Conn).Close, nil}, "reset": {(*bench.Conn).Reset, syscall.ECONNRESET}} {
		t.Run(name, func(t *testing.T) {
			ends := make(chan error, 1)
			address := serve(t, func(c net.Conn) {
				_, err := io.Copy(c, c)
				ends <- err
			})
			l := bench.OpenLoop(t, bench.Options{})
			g := &guest{text: "hello"}
			if _, err := l.Dial(target(t, address), g); err != nil {
				t.Fatal(err)
			}
			runUntil(t, l, func() bool { return g.heard == "hello" })
			c.end(g.conn)
			if l.Open() != 0 || len(g.ends) != 0 {
				t.Errorf("%d open; the handler was told %v", l.Open(), g.ends)
			}
			select {
			case err := <-ends:
				if !errors.Is(err, c.want) {
					t.Errorf("the peer hears %v, want %v", err, c.want)
				}
			case <-time.After(patience):
				t.Error("the peer hears nothing")
			}
		})
	}
}
