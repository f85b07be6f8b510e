package bench

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const loopPatience = 20 * time.Second // for what takes milliseconds

// An ear is a Handler that leaves everything unread up to want bytes.
type ear struct {
	want int
	got  []byte
	conn *Conn
	end  error
}

func (e *ear) Opened(c *Conn) { e.conn = c }
func (e *ear) Data(_ *Conn, b []byte) int {
	if len(b) < e.want {
		return 0
	}
	e.got = append(e.got, b...)
	return len(b)
}
func (e *ear) Closed(_ *Conn, err error) { e.end = err }

// dial connects a loop to what the test plays.
func dial(t *testing.T, l *Loop, h Handler) net.Conn {
	t.Helper()
	at, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	to, err := NewTarget(at.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Dial(to, h); err != nil {
		t.Fatal(err)
	}
	c, err := at.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func until(t *testing.T, l *Loop, done func() bool) {
	t.Helper()
	if err := l.RunUntil(t.Context(), loopPatience, done); err != nil {
		t.Fatal(err)
	}
}

// A kernel without epoll_pwait2 has a loop that waits and hears all the same.
func TestOldKernel(t *testing.T) {
	l := OpenLoop(t, Options{})
	l.old = true
	e := &ear{want: 1}
	c := dial(t, l, e)
	until(t, l, func() bool { return e.conn != nil })
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	until(t, l, func() bool { return len(e.got) == 1 })
	before := l.Now()
	if err := l.Turn(3 * time.Millisecond); err != nil || l.Now()-before < 3*time.Millisecond {
		t.Errorf("nothing came: a turn of %v, %v", l.Now()-before, err)
	}
}

// A long wait is one that Go's scheduler knows of, a hundred of which else are interrupted in a second; a short one is not.
func TestBriefWaits(t *testing.T) {
	l := OpenLoop(t, Options{})
	if err := l.Turn(2 * briefly); err != nil || l.brief {
		t.Fatalf("%v, brief after a wait of %v", err, 2*briefly)
	}
	var whole bool
	for range 5 { // a signal would end each; one that was under way, or is the collector's, may end some
		begun := l.Now()
		if err := l.Turn(40 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if whole = l.Now()-begun >= 40*time.Millisecond; whole {
			break
		}
	}
	if !whole {
		t.Error("every long wait was interrupted")
	}
	for range 1000 { // of which one takes no time, on a machine that is ever so busy
		if err := l.Turn(0); err != nil {
			t.Fatal(err)
		}
		if l.brief {
			return
		}
	}
	t.Error("never brief")
}

// What a handler may leave unread is an option: a message of many MiB is one piece for it.
func TestLeft(t *testing.T) {
	const size = 3 << 20
	l := OpenLoop(t, Options{Left: size})
	e := &ear{want: size}
	c := dial(t, l, e)
	var writing sync.WaitGroup
	writing.Go(func() {
		b := make([]byte, size)
		b[0], b[size/2], b[size-1] = 1, 2, 3
		_, _ = c.Write(b)
	})
	until(t, l, func() bool { return len(e.got) > 0 || e.end != nil })
	writing.Wait()
	if e.end != nil || len(e.got) != size || e.got[0] != 1 || e.got[size/2] != 2 || e.got[size-1] != 3 {
		t.Errorf("%v, %d bytes", e.end, len(e.got))
	}
	e.conn.Close()
	if free := l.free[0]; cap(free.rest.in) > keptMax {
		t.Errorf("a free socket keeps %d bytes", cap(free.rest.in))
	}
}

// Towards a server that does not read only so much waits: on one socket, or on all.
func TestUnsent(t *testing.T) {
	for name, bound := range map[string]func(*Loop){
		"one": func(l *Loop) { l.unsent = 1 << 20 },
		"all": func(l *Loop) { l.all = 1 << 20 },
	} {
		t.Run(name, func(t *testing.T) {
			l := OpenLoop(t, Options{})
			bound(l)
			e := &ear{}
			dial(t, l, e)
			until(t, l, func() bool { return e.conn != nil })
			b := make([]byte, 256<<10)
			for range 64 { // 16 MiB, of which the kernel takes a part
				if l.waits > 1<<20 || e.conn.rest != nil && cap(e.conn.rest.out) > 4<<20 {
					t.Fatalf("%d bytes wait", l.waits)
				}
				e.conn.Write(b)
			}
			until(t, l, func() bool { return e.end != nil })
			if !errors.Is(e.end, ErrUnsent) || l.waits != 0 || l.Open() != 0 {
				t.Errorf("%v, %d bytes wait, %d open", e.end, l.waits, l.Open())
			}
		})
	}
}

// What was sent does not wait for the rest: a socket on which something always waits stays small.
func TestUnsentMoves(t *testing.T) {
	l := OpenLoop(t, Options{})
	e := &ear{}
	c := dial(t, l, e)
	until(t, l, func() bool { return e.conn != nil })
	// 64 MiB in all, of which more wait at any time than the kernel takes at once.
	const piece, pieces, waiting = 256 << 10, 256, 6 << 20
	b := make([]byte, piece)
	read, most := 0, 0
	in := make([]byte, piece)
	for sent := 0; sent < piece*pieces; {
		for ; sent < piece*pieces && l.waits < waiting; sent += piece {
			e.conn.Write(b)
		}
		n, err := c.Read(in)
		if err != nil {
			t.Fatal(err)
		}
		read += n
		if err := l.Turn(0); err != nil {
			t.Fatal(err)
		}
		if e.conn.rest != nil {
			most = max(most, cap(e.conn.rest.out))
		}
	}
	if most > 4*waiting {
		t.Errorf("%d bytes were kept for %d", most, waiting)
	}
	if e.end != nil || read == 0 {
		t.Errorf("%v, %d bytes read", e.end, read)
	}
}

// useUp leaves this process no descriptor, until allow, beyond those up to spare.
func useUp(t *testing.T, spare int) (allow func()) {
	t.Helper()
	last := 0
	for last < spare {
		fd, err := openSpare()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		last = fd
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(last) + 1, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
	}
}

// Who comes when there is no descriptor left is told to go and counted, and the next one is served.
func TestNoDescriptor(t *testing.T) {
	l := OpenLoop(t, Options{})
	all := make([]*ear, 0, 2)
	probe, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := probe.Addr().String()
	probe.Close()
	if err := l.Listen(address, true, func() Handler {
		all = append(all, &ear{})
		return all[len(all)-1]
	}); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	allow := useUp(t, l.spare)
	err = l.Turn(loopPatience)
	allow()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || all[0].conn != nil || !errors.Is(all[0].end, unix.EMFILE) || l.Open() != 0 || l.spare < 0 {
		t.Errorf("%d came, %d open", len(all), l.Open())
	}
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("it hears %v", err)
	}
	again, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	until(t, l, func() bool { return len(all) == 2 && all[1].conn != nil })
}

// Two loops that share an address are both served.
func TestListenShared(t *testing.T) {
	one, two := OpenLoop(t, Options{}), OpenLoop(t, Options{})
	probe, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := probe.Addr().String()
	probe.Close()
	var came [2]int
	for i, l := range []*Loop{one, two} {
		if err := l.Listen(address, true, func() Handler { came[i]++; return &ear{} }); err != nil {
			t.Fatal(err)
		}
	}
	if err := OpenLoop(t, Options{}).Listen(address, false, nil); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("alone where others are: %v", err)
	}
	for came[0] == 0 || came[1] == 0 { // the kernel picks by the port that a client happens to have
		c, err := net.Dial("tcp4", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		n := came[0] + came[1]
		for came[0]+came[1] == n {
			if err := errors.Join(one.Turn(time.Millisecond), two.Turn(time.Millisecond)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
