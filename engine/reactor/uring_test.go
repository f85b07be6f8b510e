package reactor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"ticketgate/engine/reactor"
)

// uringForbidden is why this process can have no io_uring with what Linux 5.18 has, whatever we make of it; nil: it can.
func uringForbidden() error {
	const size, submitAll = 120, 1 << 7 // struct io_uring_params, of which the third word is flags
	p := [size / 4]uint32{2: submitAll}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

// uringKernel is a kernel with an io_uring. Where there can be none, a reactor must work without and say why: then that is what is
// tested, and false is returned.
func uringKernel(t *testing.T) (reactor.RealKernel, bool) {
	t.Helper()
	k, err := reactor.OpenRealKernel()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.End)
	if err = k.OpenUring(); err == nil {
		return k, true
	}
	if !errors.Is(err, uringForbidden()) {
		t.Fatalf("no io_uring here: %v, though the kernel says %v", err, uringForbidden())
	}
	r, _ := serve(t, reactor.Options{Loops: 1}, echo())
	if on, why := r.Batched(); on || why == nil || why.Error() != err.Error() {
		t.Errorf("batched %v because of %v, though there is no io_uring: %v", on, why, err)
	}
	return k, false
}

// TestBatched: batches are on where the kernel has io_uring, and nowhere else without a reason.
func TestBatched(t *testing.T) {
	_, can := uringKernel(t)
	for _, single := range []bool{false, true} {
		r, err := reactor.New(reactor.Options{Loops: 2, Single: single, Handlers: []reactor.Handler{echo()}})
		if err != nil {
			t.Fatal(err)
		}
		on, why := r.Batched()
		if on != (can && !single) || (why == nil) != (can || single) {
			t.Errorf("single %v, io_uring %v: batched %v, %v", single, can, on, why)
		}
		stop(t, r)
	}
}

// TestUringClosesItsDescriptor with the reactor, started or not.
func TestUringClosesItsDescriptor(t *testing.T) {
	before := openFiles(t)
	for range 3 {
		r, err := reactor.New(reactor.Options{Loops: 3, Handlers: []reactor.Handler{echo()}})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// streams is a pair of connected sockets that do not block.
func streams(t *testing.T) (a, b int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.Close(pair[0]), unix.Close(pair[1]) })
	return pair[0], pair[1]
}

// orphan is one whose peer has closed.
func orphan(t *testing.T) int {
	t.Helper()
	a, b := streams(t)
	if err := unix.Shutdown(b, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	return a
}

// plainFile is no socket.
func plainFile(t *testing.T) int {
	t.Helper()
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return int(f.Fd())
}

const nobodys = 1 << 20 // a descriptor that is not open: beyond any limit of open files

// TestUringReads: each read of a call has its own result, and none waits or stops those behind it.
func TestUringReads(t *testing.T) {
	k, ok := uringKernel(t)
	if !ok {
		return
	}
	a, b := streams(t)
	empty, _ := streams(t)
	list := []reactor.Transfer{{FD: nobodys}, {FD: empty}, {FD: b}, {FD: orphan(t)}, {FD: plainFile(t)}, {FD: b}, {FD: b}}
	for range 100 { // the ring has 32 places and goes round
		if _, err := unix.Write(a, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		for i := range list {
			list[i].P = make([]byte, 3)
		}
		k.ReadMany(list)
		got := ""
		for _, x := range list {
			got += fmt.Sprintf("%s %v|", x.P[:x.N], x.Errno)
		}
		want := fmt.Sprintf(" %v| %v|hel %[3]v| %[3]v| %[4]v|lo %[3]v| %[2]v|", unix.EBADF, unix.EAGAIN, unix.Errno(0), unix.ENOTSOCK)
		if got != want {
			t.Fatalf("read %s, want %s", got, want)
		}
	}
}

// TestUringWrites: each write of a call has its own result. One that the kernel takes a part of says how much, and none raises
// SIGPIPE.
func TestUringWrites(t *testing.T) {
	k, ok := uringKernel(t)
	if !ok {
		return
	}
	a, b := streams(t)
	narrow, reader := streams(t)
	long := filler(1 << 20)
	list := []reactor.Transfer{
		{FD: nobodys, P: []byte("x")},
		{FD: narrow, P: []byte(long)},
		{FD: narrow, P: []byte("x")},
		{FD: orphan(t), P: []byte("x")},
		{FD: plainFile(t), P: []byte("x")},
		{FD: a, P: []byte("hello")},
	}
	k.WriteMany(list)
	for i, want := range []error{unix.EBADF, unix.Errno(0), unix.EAGAIN, unix.EPIPE, unix.ENOTSOCK, unix.Errno(0)} {
		if list[i].Errno != want || list[i].Errno != 0 && list[i].N != 0 {
			t.Errorf("write %d: %d bytes, %v, want %v", i, list[i].N, list[i].Errno, want)
		}
	}
	if n := list[1].N; n == 0 || n == len(long) {
		t.Errorf("the kernel takes %d bytes of %d of a peer that does not read", n, len(long))
	}
	if got := drain(t, reader); got != long[:list[1].N] {
		t.Errorf("%d bytes arrive of %d taken, or changed", len(got), list[1].N)
	}
	if got := drain(t, b); got != "hello" {
		t.Errorf("got %q", got)
	}
}

// drain reads all that is there.
func drain(t *testing.T, fd int) string {
	t.Helper()
	var all []byte
	b := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, b)
		if err == unix.EAGAIN {
			return string(all)
		}
		if err != nil || n == 0 {
			t.Fatalf("read %d bytes, %v", n, err)
		}
		all = append(all, b[:n]...)
	}
}

// TestUringFull: as many transfers as a call takes, again and again, each with its own bytes.
func TestUringFull(t *testing.T) {
	k, ok := uringKernel(t)
	if !ok {
		return
	}
	writes, reads := make([]reactor.Transfer, reactor.BatchMax), make([]reactor.Transfer, reactor.BatchMax)
	for i := range writes {
		writes[i].FD, reads[i].FD = streams(t)
	}
	for round := range 50 {
		for i := range writes {
			writes[i].P, reads[i].P = []byte(filler(1+100*i+round)), make([]byte, 8000)
		}
		k.WriteMany(writes)
		k.ReadMany(reads)
		for i, w := range writes {
			r := reads[i]
			if w.N != len(w.P) || w.Errno != 0 || r.Errno != 0 || !bytes.Equal(r.P[:r.N], w.P) {
				t.Fatalf("round %d, socket %d: %d bytes written of %d, %v; %d read, %v", round, i, w.N, len(w.P), w.Errno, r.N, r.Errno)
			}
		}
	}
}

// TestSocketsReadyAtOnce: a hundred clients have sent something while their loop was busy. Each gets its own bytes back, in both
// ways of serving them.
func TestSocketsReadyAtOnce(t *testing.T) {
	_, can := uringKernel(t)
	bothWays(t, func(t *testing.T, single bool) {
		var calls *reactor.Calls
		r, addr := serveObserved(t, reactor.Options{Loops: 1, Single: single, Work: work}, &calls, echo())
		conns := make([]*net.TCPConn, 100)
		for i := range conns {
			conns[i] = dial(t, addr)
		}
		for round, size := range []func(i int) int{
			func(i int) int { return 1 + i },
			func(int) int { return 1000 },
			func(i int) int { return 20_000 * (i % 3) }, // some send nothing
			func(i int) int { return reactor.SlotBytes - 1 + i%3 },
			func(i int) int { return 100 + i },
		} {
			busy := make(chan struct{})
			r.Post(0, reactor.Work{P: func(*reactor.Loop) { <-busy }})
			for i, c := range conns {
				if _, err := c.Write([]byte(filler(size(i)))); err != nil {
					t.Fatal(err)
				}
			}
			close(busy)
			for i, c := range conns {
				got := make([]byte, size(i))
				if _, err := io.ReadFull(c, got); err != nil || string(got) != filler(size(i)) {
					t.Fatalf("round %d, client %d: an echo of %d bytes, %v, is not what was sent", round, i, len(got), err)
				}
			}
		}
		stop(t, r)
		if n := len(calls.ReadMany); (n > 0) != (can && !single) || (len(calls.WriteMany) > 0) != (n > 0) {
			t.Errorf("%d calls for many reads, %d for many writes, with io_uring: %v", n, len(calls.WriteMany), can)
		}
	})
}

// serveObserved is serve with calls that are good once the reactor has stopped.
func serveObserved(t *testing.T, o reactor.Options, calls **reactor.Calls, handlers ...reactor.Handler) (*reactor.Reactor, string) {
	t.Helper()
	o.Handlers = handlers
	r, err := reactor.New(o)
	if err != nil {
		t.Fatal(err)
	}
	*calls = r.Observe(0)
	addr, err := r.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.Start()
	t.Cleanup(func() { stop(t, r) })
	return r, addr.String()
}
