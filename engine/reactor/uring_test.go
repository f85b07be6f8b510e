package reactor_test

import (
	"context"
	"errors"
	"io"
	"net"
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
