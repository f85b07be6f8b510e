package uring_test

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"ticketgate/internal/uring"
)

// open returns a ring. Where this process can have none, Open must say why; then there is none here.
func open(t *testing.T) *uring.Ring {
	t.Helper()
	r, err := uring.Open()
	if err == nil {
		t.Cleanup(r.Close)
		return r
	}
	const size, submitAll = 120, 1 << 7 // struct io_uring_params, of which the third word is flags
	p := [size / 4]uint32{2: submitAll}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&p)), 0)
	if errno == 0 {
		_ = unix.Close(int(fd))
		t.Fatalf("no ring: %v, though the kernel gives one", err)
	}
	if !strings.Contains(err.Error(), errno.Error()) {
		t.Errorf("no ring: %v, though the kernel says %v", err, errno)
	}
	return nil
}

// A call is one read or write, and what it came to.
type call struct {
	fd    int
	p     []byte
	n     int
	errno syscall.Errno
}

func recv(r *uring.Ring, list []call) { do(r, list, r.Recv) }
func send(r *uring.Ring, list []call) { do(r, list, r.Send) }

func do(r *uring.Ring, list []call, add func(int, []byte)) {
	for _, x := range list {
		add(x.fd, x.p)
	}
	r.Do()
	for i := range list {
		x := &list[i]
		var ok bool
		if x.n, x.errno, ok = r.Result(i); !ok {
			x.errno = unix.ENODATA // nothing here has no room
		}
	}
}

// filler is n bytes that differ from their neighbours.
func filler(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + i>>8)
	}
	return string(b)
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
	r := open(t)
	if r == nil {
		return
	}
	a, b := streams(t)
	empty, _ := streams(t)
	list := []call{{fd: nobodys}, {fd: empty}, {fd: b}, {fd: orphan(t)}, {fd: plainFile(t)}, {fd: b}, {fd: b}}
	for range 100 { // the ring has 32 places and goes round
		if _, err := unix.Write(a, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		for i := range list {
			list[i].p = make([]byte, 3)
		}
		recv(r, list)
		got := ""
		for _, x := range list {
			got += fmt.Sprintf("%s %v|", x.p[:x.n], x.errno)
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
	r := open(t)
	if r == nil {
		return
	}
	a, b := streams(t)
	narrow, reader := streams(t)
	long := filler(1 << 20)
	list := []call{
		{fd: nobodys, p: []byte("x")},
		{fd: narrow, p: []byte(long)},
		{fd: narrow, p: []byte("x")},
		{fd: orphan(t), p: []byte("x")},
		{fd: plainFile(t), p: []byte("x")},
		{fd: a, p: []byte("hello")},
	}
	raised := make(chan os.Signal, 2)
	signal.Notify(raised, unix.SIGPIPE, unix.SIGWINCH)
	defer signal.Stop(raised)
	send(r, list)
	if err := unix.Kill(os.Getpid(), unix.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	if first := <-raised; first != unix.SIGWINCH {
		t.Errorf("%v was raised", first)
	}
	for i, want := range []error{unix.EBADF, unix.Errno(0), unix.EAGAIN, unix.EPIPE, unix.ENOTSOCK, unix.Errno(0)} {
		if list[i].errno != want || list[i].errno != 0 && list[i].n != 0 {
			t.Errorf("write %d: %d bytes, %v, want %v", i, list[i].n, list[i].errno, want)
		}
	}
	if n := list[1].n; n == 0 || n == len(long) {
		t.Errorf("the kernel takes %d bytes of %d of a peer that does not read", n, len(long))
	}
	if got := drain(t, reader); got != long[:list[1].n] {
		t.Errorf("%d bytes arrive of %d taken, or changed", len(got), list[1].n)
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
	r := open(t)
	if r == nil {
		return
	}
	writes, reads := make([]call, uring.Max), make([]call, uring.Max)
	for i := range writes {
		writes[i].fd, reads[i].fd = streams(t)
	}
	for round := range 50 {
		for i := range writes {
			writes[i].p, reads[i].p = []byte(filler(1+100*i+round)), make([]byte, 8000)
		}
		send(r, writes)
		recv(r, reads)
		for i, w := range writes {
			r := reads[i]
			if w.n != len(w.p) || w.errno != 0 || r.errno != 0 || !bytes.Equal(r.p[:r.n], w.p) {
				t.Fatalf("round %d, socket %d: %d bytes written of %d, %v; %d read, %v", round, i, w.n, len(w.p), w.errno, r.n, r.errno)
			}
		}
	}
}
