package reactor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"ticketgate/engine/reactor"
)

func TestMain(m *testing.M) {
	if os.Getenv(crowdedEnv) != "" {
		os.Exit(crowded())
	}
	if kind := os.Getenv(benchEnv); kind != "" {
		os.Exit(benchServer(kind))
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what should happen at once.
const patience = 10 * time.Second

// serve starts a reactor on a loopback port. It is stopped, and its descriptors are counted, when the test ends.
func serve(t testing.TB, o reactor.Options, handlers ...reactor.Handler) (*reactor.Reactor, string) {
	t.Helper()
	before := openFiles(t)
	o.Handlers = handlers
	r, err := reactor.New(o)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := r.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.Start()
	t.Cleanup(func() {
		stop(t, r)
		if after := openFiles(t); after > before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	})
	return r, addr.String()
}

func stop(t testing.TB, r *reactor.Reactor) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func openFiles(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range list { // Go's own poller keeps two that appear at first use
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to != "anon_inode:[eventpoll]" && to != "anon_inode:[eventfd]" {
			n++
		}
	}
	return n
}

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

func expect(t testing.TB, c io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Errorf("read %q, %v, want %q", got, err, want)
	}
}

// event waits for the next value of c.
func event[T any](t testing.TB, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("nothing happened")
	}
	return v
}

func TestSocketEcho(t *testing.T) {
	r, addr := serve(t, reactor.Options{Loops: 2}, echo())
	var wg sync.WaitGroup
	for i := range 32 {
		c := dial(t, addr)
		wg.Go(func() {
			for j := range 50 {
				msg := fmt.Sprintf("message %d of %d", j, i)
				if _, err := io.WriteString(c, msg); err != nil {
					t.Error(err)
					return
				}
				expect(t, c, msg)
			}
		})
	}
	wg.Wait()
	if s := stats(r); s.Conns != 32 || s.Reads < 32*50 {
		t.Errorf("%+v", s)
	}
}

// TestSocketBigEcho: 8 MiB through a queue of 256 KiB, with the peer's window as the only brake.
func TestSocketBigEcho(t *testing.T) {
	h := &script{
		data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			n := min(len(in), 256<<10-l.Queued(id))
			if err := l.Write(id, in[:n]); err != nil {
				t.Error(err)
			}
			if n < len(in) {
				l.Pause(id)
			}
			return n
		},
		drained: func(l *reactor.Loop, id reactor.ID) { l.Resume(id) },
	}
	_, addr := serve(t, reactor.Options{Loops: 1}, h)
	c := dial(t, addr)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 512<<10)
	go func() { // ends with the write, or with c at the end of the test
		_, _ = c.Write(sent)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back of %d: %v", len(got), len(sent), err)
	}
}

func TestAddresses(t *testing.T) {
	peers := make(chan netip.AddrPort, 1)
	h := &script{open: func(l *reactor.Loop, id reactor.ID) { peers <- l.Peer(id); l.Close(id) }}
	r, _ := serve(t, reactor.Options{Loops: 2}, h)
	tests := []struct {
		network, address string
		dial             []string // hosts that answer
		deaf             []string // hosts that do not
	}{
		{"tcp", ":0", []string{"127.0.0.1", "::1"}, nil},
		{"tcp", "127.0.0.1:0", []string{"127.0.0.1"}, []string{"::1", "127.0.0.2"}},
		{"tcp", "[::1]:0", []string{"::1"}, []string{"127.0.0.1"}},
		{"tcp4", ":0", []string{"127.0.0.1"}, []string{"::1"}},
		{"tcp6", ":0", []string{"::1"}, []string{"127.0.0.1"}},
	}
	for _, test := range tests {
		addr, err := r.Listen(test.network, test.address)
		if err != nil {
			t.Errorf("%s %s: %v", test.network, test.address, err)
			continue
		}
		_, port, _ := net.SplitHostPort(addr.String())
		for _, host := range test.dial {
			c := dial(t, net.JoinHostPort(host, port))
			if peer := event(t, peers); peer.String() != c.LocalAddr().String() {
				t.Errorf("%s %s: peer %v of %v", test.network, test.address, peer, c.LocalAddr())
			}
		}
		for _, host := range test.deaf {
			if c, err := net.Dial("tcp", net.JoinHostPort(host, port)); err == nil {
				_ = c.Close()
				t.Errorf("%s %s answers on %s", test.network, test.address, host)
			}
		}
	}
	for _, bad := range []string{"nonsense", "127.0.0.1:99999", "192.0.2.1:0"} {
		if _, err := r.Listen("tcp", bad); err == nil {
			t.Errorf("listening on %q", bad)
		}
	}
	if _, err := r.Listen("udp", "127.0.0.1:0"); err == nil {
		t.Error("listening on udp")
	}
}

func TestUnix(t *testing.T) {
	_, addr := serve(t, reactor.Options{Loops: 1}, echo())
	r, _ := serve(t, reactor.Options{Loops: 2}, echo())
	dir := t.TempDir()
	path := filepath.Join(dir, "socket")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Listen("unix", path); err == nil {
		t.Error("took over a socket that is served")
	}
	stale.SetUnlinkOnClose(false)
	_ = stale.Close()
	if _, err := r.Listen("unix", path); err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(c, "through a file")
	expect(t, c, "through a file")

	file := filepath.Join(dir, "precious")
	if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{file, dir, filepath.Join(dir, "none", "socket")} {
		if _, err := r.Listen("unix", p); err == nil {
			t.Errorf("listening on %s", p)
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Error("the file is gone")
	}
	stop(t, r)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket file stays: %v", err)
	}
	dial(t, addr) // the other reactor goes on
}

// TestInherited checks on an accepted socket what was set on the listener.
func TestInherited(t *testing.T) {
	slots := make(chan reactor.ID, 1)
	h := &script{open: func(_ *reactor.Loop, id reactor.ID) { slots <- id }}
	_, addr := serve(t, reactor.Options{Loops: 1, SendBuffer: 100 << 10}, h)
	dial(t, addr)
	fd := int(event(t, slots).Slot())
	for _, o := range []struct {
		name               string
		level, option, val int
	}{
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0}, // the handler asks
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 10},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
		{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 90_000},
		{"TCP_NOTSENT_LOWAT", unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 32 << 10},
		{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, 2 * 100 << 10}, // Linux doubles it for its own bookkeeping
		{"SO_OOBINLINE", unix.SOL_SOCKET, unix.SO_OOBINLINE, 1},
		{"SO_PROTOCOL", unix.SOL_SOCKET, unix.SO_PROTOCOL, unix.IPPROTO_TCP},
	} {
		if got, err := unix.GetsockoptInt(fd, o.level, o.option); err != nil || got != o.val {
			t.Errorf("%s is %d, %v, want %d", o.name, got, err, o.val)
		}
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %x, %v: it may block", flags, err)
	}
	flags, err = unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %x, %v: a child would inherit it", flags, err)
	}
}

// TestKernelHoldsLittle for a peer that does not read: what it can send at once, and some more.
func TestKernelHoldsLittle(t *testing.T) {
	const window, most = 32 << 10, 48 << 10
	waits := make(chan int, 1)
	h := &script{}
	h.open = func(l *reactor.Loop, id reactor.ID) { l.Arm(id, l.Now()) }
	taken := -1
	h.timer = func(l *reactor.Loop, id reactor.ID) {
		for l.Queued(id) == 0 {
			_ = l.Write(id, make([]byte, 8<<10)) // 8 KiB go out at once
		}
		unsent, err := unix.IoctlGetInt(int(id.Slot()), unix.SIOCOUTQ)
		if err != nil {
			t.Error(err)
		}
		if unsent == taken { // twice the same: it is at rest
			waits <- unsent
			return
		}
		taken = unsent
		l.Arm(id, l.Now().Add(100*time.Millisecond))
	}
	_, addr := serve(t, reactor.Options{Loops: 1, SendBuffer: 1 << 20}, h)
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, window) })
		return errors.Join(err, failed)
	}}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := event(t, waits); got > most {
		t.Errorf("%d bytes wait in the kernel, want at most %d", got, most)
	}
}

// TestUrgentByte: one byte out of band must not stay ready for ever and keep the loop turning.
func TestUrgentByte(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			slots := make(chan reactor.ID, 1)
			h := echo()
			h.open = func(_ *reactor.Loop, id reactor.ID) { slots <- id }
			r, addr := serve(t, reactor.Options{Loops: 1}, h)
			if network == "unix" {
				addr = filepath.Join(t.TempDir(), "socket")
				if _, err := r.Listen(network, addr); err != nil {
					t.Fatal(err)
				}
			}
			c, err := net.Dial(network, addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			raw, err := c.(syscall.Conn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if cerr := raw.Control(func(fd uintptr) { err = unix.Send(int(fd), []byte("!"), unix.MSG_OOB) }); errors.Join(err, cerr) != nil {
				t.Fatal(err, cerr)
			}
			expect(t, c, "!") // in line with the rest
			ready := []unix.PollFd{{Fd: int32(event(t, slots).Slot()), Events: unix.POLLIN | unix.POLLPRI}}
			if n, err := unix.Poll(ready, 0); n != 0 || err != nil {
				t.Errorf("ready for %#x, %v, after all was read", ready[0].Revents, err)
			}
		})
	}
}

type ending struct {
	why reactor.Cause
	err error
}

// TestSocketClose: what was written before Close arrives whole if the peer reads it within Linger, and is cut off if not.
func TestSocketClose(t *testing.T) {
	tests := map[string]struct {
		size   int
		linger time.Duration
		reads  bool
		want   ending
	}{
		"200 KiB to a reader": {200 << 10, patience, true, ending{reactor.CauseLocal, nil}},
		"8 MiB to a reader":   {8 << 20, patience, true, ending{reactor.CauseLocal, nil}},
		"8 MiB to nobody":     {8 << 20, 200 * time.Millisecond, false, ending{reactor.CauseLocal, reactor.ErrLinger}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ended := make(chan ending, 1)
			h := &script{
				data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
					if err := l.Write(id, bytes.Repeat([]byte("z"), test.size)); err != nil {
						t.Error(err)
					}
					l.Close(id)
					return 0
				},
				closed: func(_ *reactor.Loop, _ reactor.ID, why reactor.Cause, err error) { ended <- ending{why, err} },
			}
			_, addr := serve(t, reactor.Options{Loops: 1, QueueMax: 16 << 20, Linger: test.linger}, h)
			c := dial(t, addr)
			_ = c.SetReadBuffer(64 << 10)
			_, _ = io.WriteString(c, "go")
			_, _ = io.WriteString(c, "and this arrives during the close, which would turn it into RST")
			if test.reads {
				got, err := io.ReadAll(c)
				if err != nil || len(got) != test.size {
					t.Errorf("%d of %d bytes: %v", len(got), test.size, err)
				}
				_ = c.Close()
			}
			if got := event(t, ended); got != test.want {
				t.Errorf("ended with %v, want %v", got, test.want)
			}
			if !test.reads {
				if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the peer that did not read sees %v, want a reset", err)
				}
			}
		})
	}
}

func TestSocketEnds(t *testing.T) {
	tests := map[string]struct {
		do   func(c *net.TCPConn, abort func())
		want reactor.Cause
	}{
		"FIN":   {func(c *net.TCPConn, _ func()) { _ = c.Close() }, reactor.CauseEOF},
		"RST":   {func(c *net.TCPConn, _ func()) { _ = c.SetLinger(0); _ = c.Close() }, reactor.CauseReset},
		"abort": {func(_ *net.TCPConn, abort func()) { abort() }, reactor.CauseLocal},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			opened, ended := make(chan reactor.ID, 1), make(chan ending, 2)
			h := &script{
				open:   func(_ *reactor.Loop, id reactor.ID) { opened <- id },
				closed: func(_ *reactor.Loop, _ reactor.ID, why reactor.Cause, err error) { ended <- ending{why, err} },
			}
			r, addr := serve(t, reactor.Options{Loops: 1, Work: work}, h)
			c := dial(t, addr)
			id := event(t, opened)
			test.do(c, func() { r.Post(0, reactor.Work{P: func(l *reactor.Loop) { l.Abort(id) }}) })
			if got := event(t, ended); got.why != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
			if test.want == reactor.CauseLocal {
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the peer of an abort sees %v", err)
				}
			}
			stop(t, r)
			if len(ended) != 0 {
				t.Error("Closed came twice")
			}
		})
	}
}

func TestSocketDial(t *testing.T) {
	opened, ended := make(chan string, 1), make(chan ending, 1)
	asked := 0 // whether the kernel asks a silent peer for a sign of life, which no handler does here
	h := &script{
		open: func(l *reactor.Loop, id reactor.ID) {
			asked, _ = unix.GetsockoptInt(int(id.Slot()), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
			opened <- l.Peer(id).String()
			_ = l.Write(id, []byte("hello"))
		},
		data: func(l *reactor.Loop, id reactor.ID, in []byte) int { l.Close(id); return len(in) },
		closed: func(_ *reactor.Loop, _ reactor.ID, why reactor.Cause, err error) {
			ended <- ending{why, err}
		},
	}
	r, _ := serve(t, reactor.Options{Loops: 1, Work: work}, h)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	to := netip.MustParseAddrPort(ln.Addr().String())
	connect := func(from netip.Addr) (err error) {
		done := make(chan error, 1)
		r.Post(0, reactor.Work{P: func(l *reactor.Loop) {
			_, err := l.Dial(0, to, from)
			done <- err
		}})
		return event(t, done)
	}
	for _, from := range []netip.Addr{{}, netip.MustParseAddr("127.0.0.9")} {
		if err := connect(from); err != nil {
			t.Fatal(err)
		}
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := event(t, opened); got != to.String() || asked != 1 {
			t.Errorf("peer %s, want %s; keepalive %d", got, to, asked)
		}
		if host, _, _ := net.SplitHostPort(c.RemoteAddr().String()); from.IsValid() && host != from.String() {
			t.Errorf("dialed from %s, want %s", host, from)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		expect(t, c, "hello")
		_, _ = io.WriteString(c, "bye")
		_ = c.Close()
		if got := event(t, ended); got.why != reactor.CauseLocal {
			t.Errorf("ended with %v", got)
		}
	}
	if err := connect(netip.MustParseAddr("192.0.2.1")); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("from an address that is not ours: %v", err)
	}
	_ = ln.Close()
	if err := connect(netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	if got := event(t, ended); got.why != reactor.CauseDial || !errors.Is(got.err, syscall.ECONNREFUSED) {
		t.Errorf("refused dial ended with %v", got)
	}
	stop(t, r)
	if s := stats(r); s.Conns != 0 || s.Dialed != 3 {
		t.Errorf("%+v", s)
	}
}

// TestDialUnderWay: readiness that was meant for the number's former owner is not taken for success.
func TestDialUnderWay(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if errno := reactor.Connected(fd); errno != syscall.EINPROGRESS {
		t.Errorf("a socket without a peer: %v, want %v", errno, syscall.EINPROGRESS)
	}
}

// TestWatch goes through all changes of what a descriptor is watched for, and asks the kernel what it has.
func TestWatch(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = unix.Close(pair[0]), unix.Close(pair[1]) }()
	k, err := reactor.OpenRealKernel()
	if err != nil {
		t.Fatal(err)
	}
	defer k.End()
	events := [4]uint32{0, unix.EPOLLIN | unix.EPOLLPRI, unix.EPOLLOUT, unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT}
	for had := range uint8(4) {
		for want := range uint8(4) {
			if had == want {
				continue
			}
			if had != 0 {
				if errno := k.Watch(pair[0], 0, had); errno != 0 {
					t.Fatal(errno)
				}
			}
			if errno := k.Watch(pair[0], had, want); errno != 0 || watched(t, pair[0]) != events[want] {
				t.Errorf("%d to %d: %v, the poller has %#x, want %#x", had, want, errno, watched(t, pair[0]), events[want])
			}
			if want != 0 {
				_ = k.Watch(pair[0], want, 0)
			}
		}
	}
	if errno := k.Watch(-1, 0, 1); errno != syscall.EBADF {
		t.Errorf("a bad descriptor: %v", errno)
	}
}

// watched is the mask with which some epoll of this process watches fd, without the two that are always reported.
func watched(t *testing.T, fd int) uint32 {
	t.Helper()
	infos, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range infos {
		info, _ := os.ReadFile(path)
		for line := range strings.Lines(string(info)) {
			var tfd int
			var mask uint32
			if n, _ := fmt.Sscanf(line, "tfd: %d events: %x", &tfd, &mask); n == 2 && tfd == fd {
				return mask &^ (unix.EPOLLERR | unix.EPOLLHUP)
			}
		}
	}
	return 0
}

func TestDefaultMaxConns(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if got, want := reactor.ConnsFor(64), int(min(limit.Cur, 1<<24)*95/100)-64; got != want {
		t.Errorf("%d sockets of %d descriptors, want %d", got, limit.Cur, want)
	}
}

func TestSocketTimer(t *testing.T) {
	fired := make(chan time.Duration, 1)
	var at time.Time
	const wait = 150 * time.Millisecond
	h := &script{
		open: func(l *reactor.Loop, id reactor.ID) {
			l.Arm(id, l.Now().Add(time.Millisecond))
			at = time.Now()
			l.Arm(id, l.Now().Add(wait))
		},
		timer: func(*reactor.Loop, reactor.ID) { fired <- time.Since(at) },
	}
	_, addr := serve(t, reactor.Options{Loops: 1}, h)
	dial(t, addr)
	if got := event(t, fired); got < wait-5*time.Millisecond || got > wait+time.Second {
		t.Errorf("fired after %v, want %v", got, wait)
	}
}

// TestReuseAcrossLoops opens and closes sockets on several loops at once, so that numbers wander between loops; a table by
// slot shows whether two ever own one.
func TestReuseAcrossLoops(t *testing.T) {
	type session struct {
		id    reactor.ID
		bytes int64
	}
	sessions := reactor.NewSlab[session]()
	h := &script{
		open: func(_ *reactor.Loop, id reactor.ID) {
			if s := sessions.At(id.Slot()); s.id != 0 {
				t.Errorf("%x opens in a slot of %x", uint64(id), uint64(s.id))
			} else {
				s.id = id
			}
		},
		data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			sessions.At(id.Slot()).bytes += int64(len(in))
			_ = l.Write(id, in)
			return len(in)
		},
		closed: func(_ *reactor.Loop, id reactor.ID, _ reactor.Cause, _ error) {
			if s := sessions.At(id.Slot()); s.id != id {
				t.Errorf("%x ends in a slot of %x", uint64(id), uint64(s.id))
			} else {
				*s = session{}
			}
		},
	}
	_, addr := serve(t, reactor.Options{Loops: 4}, h)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 100 {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(patience))
				_, _ = io.WriteString(c, "ping")
				expect(t, c, "ping")
				if (i+j)%2 == 0 {
					_ = c.(*net.TCPConn).SetLinger(0)
				}
				_ = c.Close()
			}
		})
	}
	wg.Wait()
}
