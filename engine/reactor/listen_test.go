package reactor_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ticketgate/engine/reactor"
	"ticketgate/internal/mono"
)

// opened is a listening socket as another process hands it over.
func opened(t *testing.T, network, address string) net.Listener {
	t.Helper()
	var cfg net.ListenConfig
	cfg.SetMultipathTCP(false)
	ln, err := cfg.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// relief is an echo whose first loop stands still until another loop has accepted something, too.
func relief(t *testing.T) *script {
	var mu sync.Mutex
	first, other := -1, make(chan struct{})
	h := echo()
	h.open = func(l *reactor.Loop, _ reactor.ID) {
		mu.Lock()
		switch {
		case first < 0:
			first = l.Index()
			mu.Unlock()
			select {
			case <-other:
			case <-time.After(patience):
				t.Error("one loop stands still, and the others leave its listener alone")
			}
			return
		case first != l.Index():
			select {
			case <-other:
			default:
				close(other)
			}
		}
		mu.Unlock()
	}
	return h
}

func connect(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// said writes text and expects it back.
func said(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Error(err)
	}
	expect(t, c, text)
}

// TestShared: where there is one listener for all loops, each of them takes connections.
func TestShared(t *testing.T) {
	for _, c := range []struct {
		name   string
		listen func(t *testing.T, r *reactor.Reactor) (net.Addr, error)
	}{
		{"unix", func(t *testing.T, r *reactor.Reactor) (net.Addr, error) {
			return r.Listen("unix", filepath.Join(t.TempDir(), "socket"))
		}},
		{"unix of another process", func(t *testing.T, r *reactor.Reactor) (net.Addr, error) {
			ln := opened(t, "unix", filepath.Join(t.TempDir(), "socket"))
			return ln.Addr(), r.ListenOn(ln)
		}},
		{"TCP of another process", func(t *testing.T, r *reactor.Reactor) (net.Addr, error) {
			ln := opened(t, "tcp", "127.0.0.1:0")
			return ln.Addr(), r.ListenOn(ln)
		}},
		{"IPv6 of another process", func(t *testing.T, r *reactor.Reactor) (net.Addr, error) {
			ln := opened(t, "tcp6", "[::1]:0")
			return ln.Addr(), r.ListenOn(ln)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _ := serve(t, reactor.Options{Loops: 3}, relief(t))
			addr, err := c.listen(t, r)
			if err != nil {
				t.Fatal(err)
			}
			var conns []net.Conn
			for range 50 {
				conns = append(conns, connect(t, addr.Network(), addr.String()))
			}
			for _, c := range conns {
				said(t, c, "hello")
			}
		})
	}
}

// TestListenOnOptions: what is accepted from another's listener has the options of our own, and does not block.
func TestListenOnOptions(t *testing.T) {
	slots := make(chan reactor.ID, 1)
	peers := make(chan string, 1)
	h := &script{open: func(l *reactor.Loop, id reactor.ID) { peers <- l.Peer(id).String(); slots <- id }}
	r, _ := serve(t, reactor.Options{Loops: 2, SendBuffer: 100 << 10}, h)
	ln := opened(t, "tcp", "127.0.0.1:0")
	if err := errors.Join(r.ListenOn(ln), ln.Close()); err != nil {
		t.Fatal(err)
	}
	c := dial(t, ln.Addr().String())
	if peer := event(t, peers); peer != c.LocalAddr().String() {
		t.Errorf("peer %s, want %v", peer, c.LocalAddr())
	}
	fd := int(event(t, slots).Slot())
	for name, o := range map[string][3]int{
		"TCP_USER_TIMEOUT": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 90_000},
		"SO_KEEPALIVE":     {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0},
		"SO_SNDBUF":        {unix.SOL_SOCKET, unix.SO_SNDBUF, 2 * 100 << 10},
		"SO_OOBINLINE":     {unix.SOL_SOCKET, unix.SO_OOBINLINE, 1},
	} {
		if got, err := unix.GetsockoptInt(fd, o[0], o[1]); err != nil || got != o[2] {
			t.Errorf("%s is %d, %v, want %d", name, got, err, o[2])
		}
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %x, %v: it may block", flags, err)
	}
}

// TestListenOnOutlivesUs: a socket that another process keeps open loses no connection between two of us, and its file
// stays.
func TestListenOnOutlivesUs(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			address := "127.0.0.1:0"
			if network == "unix" {
				address = filepath.Join(t.TempDir(), "socket")
			}
			ln := opened(t, network, address)
			addr := ln.Addr().String()
			first, _ := serve(t, reactor.Options{Loops: 2}, echo())
			second, _ := serve(t, reactor.Options{Loops: 2}, echo())
			if err := first.ListenOn(ln); err != nil {
				t.Fatal(err)
			}
			said(t, connect(t, network, addr), "first")
			stop(t, first)
			waiting := connect(t, network, addr)
			if err := second.ListenOn(ln); err != nil {
				t.Fatal(err)
			}
			said(t, waiting, "second")
		})
	}
}

// TestListenOnRefuses what no connections of bytes come from, and what comes too late.
func TestListenOnRefuses(t *testing.T) {
	r, _ := serve(t, reactor.Options{Loops: 1}, echo())
	listener := func(domain, kind, protocol int, address unix.Sockaddr, listens bool) net.Listener {
		fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return pipeListener{} // a kernel without this protocol
		}
		f := os.NewFile(uintptr(fd), "socket")
		defer f.Close()
		if err := unix.Bind(fd, address); err != nil {
			t.Fatal(err)
		}
		if listens {
			if err := unix.Listen(fd, 1); err != nil {
				t.Fatal(err)
			}
		}
		ln, err := net.FileListener(f)
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	path := filepath.Join(t.TempDir(), "packets")
	for name, ln := range map[string]net.Listener{
		"nothing of the kernel's":  pipeListener{},
		"TCP that does not listen": listener(unix.AF_INET, unix.SOCK_STREAM, 0, &unix.SockaddrInet4{}, false),
		"packets":                  listener(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0, &unix.SockaddrUnix{Name: path}, true),
		"Multipath TCP":            listener(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, &unix.SockaddrInet4{}, true),
	} {
		if err := r.ListenOn(ln); err == nil {
			t.Errorf("listening on %s", name)
		}
		_ = ln.Close()
	}
	ln := opened(t, "tcp", "127.0.0.1:0")
	stop(t, r)
	if err := r.ListenOn(ln); !errors.Is(err, reactor.ErrStopped) {
		t.Errorf("after Stop: %v", err)
	}
}

// pipeListener is a net.Listener that only looks like one.
type pipeListener struct{ net.Listener }

func (pipeListener) Close() error { return nil }

// TestListenUnix: other servers get the reactor's care for socket files.
func TestListenUnix(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "socket")
	first, err := reactor.ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := reactor.ListenUnix(path); err == nil {
		_ = second.Close()
		t.Error("took over a socket that is served")
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file stays: %v", err)
	}

	_ = opened(t, "unix", path).Close()
	third, err := reactor.ListenUnix(path)
	if err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	fourth, err := reactor.ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	_ = third.Close()
	c := connect(t, "unix", path) // the file of another is not removed
	_ = c.Close()
	_ = fourth.Close()

	file := filepath.Join(dir, "precious")
	if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{file, dir, filepath.Join(dir, "none", "socket")} {
		if ln, err := reactor.ListenUnix(p); err == nil {
			_ = ln.Close()
			t.Errorf("listening on %s", p)
		}
	}
}

// TestUnwatched: a connection that the poller does not take was never there for the handler, and keeps no place. A listener
// that it does not take is tried again.
func TestUnwatched(t *testing.T) {
	var d diary
	h := &script{
		open:   func(*reactor.Loop, reactor.ID) { d.add("open") },
		closed: func(*reactor.Loop, reactor.ID, reactor.Cause, error) { d.add("closed") },
	}
	clock := mono.NewManual(time.Unix(1_800_000_000, 0))
	m := reactor.NewMemory(reactor.Options{Loops: 1, Handlers: []reactor.Handler{h}}, clock)
	calls := m.Reactor().Observe(0)
	calls.Unwatched = 3 // a connection, and the listener when it wants to come back, twice
	var all []*reactor.Pipe
	for range 3 {
		all = append(all, m.Connect(netip.AddrPort{}))
	}
	m.Advance(3 * time.Second)
	d.expect(t, "open open")
	if !all[0].WasReset() || all[1].WasReset() || all[2].WasReset() {
		t.Error("it was not the first that was reset")
	}
	all[1].Close()
	all[2].Close()
	m.Advance(10 * time.Second)
	d.expect(t, "closed closed")
	if n := m.Reactor().Conns(); n != 0 {
		t.Errorf("%d sockets are left", n)
	}
}

// TestPlacesForDials: a 32nd of the places is not for those who come.
func TestPlacesForDials(t *testing.T) {
	clock := mono.NewManual(time.Unix(1_800_000_000, 0))
	m := reactor.NewMemory(reactor.Options{Loops: 1, MaxConns: 64, Handlers: []reactor.Handler{&script{}}, Work: work}, clock)
	m.OnDial(func(netip.AddrPort) (*reactor.Pipe, error) { return m.NewPipe(), nil })
	for range 70 {
		m.Connect(client)
	}
	m.Advance(time.Second)
	if n := m.Reactor().Conns(); n != 62 {
		t.Errorf("%d connections were accepted, want 62 of 64", n)
	}
	dialed := 0
	run(m, func(l *reactor.Loop) {
		for range 3 {
			if _, err := l.Dial(0, client, netip.Addr{}); err == nil {
				dialed++
			}
		}
	})
	if dialed != 2 {
		t.Errorf("%d dials found a place, want 2", dialed)
	}
}
