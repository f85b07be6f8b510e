package reactor_test

import (
	"errors"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ticketgate/engine/reactor"
)

// TestCloseWithin: a peer that has not taken all by then is reset, and gets nothing more of it; one that has is left its linger time.
func TestCloseWithin(t *testing.T) {
	type ending struct {
		why reactor.Cause
		err error
	}
	ended := make(chan ending, 1)
	var size atomic.Int64
	h := &script{
		open: func(l *reactor.Loop, id reactor.ID) {
			if err := l.Write(id, make([]byte, size.Load())); err != nil {
				t.Error(err)
			}
			l.CloseWithin(id, 300*time.Millisecond)
		},
		closed: func(_ *reactor.Loop, _ reactor.ID, why reactor.Cause, err error) { ended <- ending{why, err} },
	}
	_, addr := serve(t, reactor.Options{Loops: 1, SendBuffer: 64 << 10, QueueMax: 8 << 20, Linger: 20 * time.Second}, h)
	for _, c := range []struct {
		name string
		size int
	}{
		{"more than the kernels take", 4 << 20}, // waits in the queue
		{"more than the peer's kernel takes", 28 << 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			size.Store(int64(c.size))
			d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
				e := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 2<<10) })
				return errors.Join(e, err)
			}}
			begun := time.Now()
			conn, err := d.DialContext(t.Context(), "tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			e := <-ended // without a byte read
			if took := time.Since(begun); took < 250*time.Millisecond || took > 10*time.Second {
				t.Errorf("ended after %v, want 300 ms", took)
			}
			if !errors.Is(e.err, reactor.ErrLinger) || e.why != reactor.CauseLocal {
				t.Errorf("ended with %v, %v", e.why, e.err)
			}
			had := infoOf(t, conn)
			for ; had.State == unix.BPF_TCP_ESTABLISHED && time.Since(begun) < patience; had = infoOf(t, conn) {
				runtime.Gosched() // the descriptor is closed when Closed has returned, and RST comes then
			}
			n, err := io.Copy(io.Discard, conn)
			if !errors.Is(err, syscall.ECONNRESET) || n >= int64(c.size) || n > int64(had.Bytes_received) {
				t.Errorf("the peer, which had %d bytes of %d, reads %d, then %v; want a reset", had.Bytes_received, c.size, n, err)
			}
		})
	}
}

func infoOf(t *testing.T, c net.Conn) (info *unix.TCPInfo) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	cerr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err := errors.Join(err, cerr); err != nil {
		t.Fatal(err)
	}
	return info
}

// TestCloseWithinTaken: a peer that has taken all of it, and says nothing, is left its linger time.
func TestCloseWithinTaken(t *testing.T) {
	var ends []error
	h := &script{
		open: func(l *reactor.Loop, id reactor.ID) {
			if err := l.Write(id, []byte("last words")); err != nil {
				t.Error(err)
			}
			l.CloseWithin(id, 300*time.Millisecond)
		},
		closed: func(_ *reactor.Loop, _ reactor.ID, _ reactor.Cause, err error) { ends = append(ends, err) },
	}
	m, _ := twin(t, reactor.Options{Loops: 1, Linger: 2 * time.Second}, h)
	p := m.Connect(client)
	m.Run()
	m.Advance(1900 * time.Millisecond)
	if len(ends) > 0 || p.WasReset() {
		t.Fatalf("ended before its linger time: %v", ends)
	}
	m.Advance(200 * time.Millisecond)
	if got := string(p.Read()); len(ends) != 1 || !errors.Is(ends[0], reactor.ErrLinger) || p.WasReset() || got != "last words" {
		t.Errorf("ended with %v, reset %v, heard %q", ends, p.WasReset(), got)
	}
}

// TestNextRound: what is put off is done, in order, after what is ready has had its turn; and a panic in it stops there.
func TestNextRound(t *testing.T) {
	var did []int64
	h := echo()
	work := func(l *reactor.Loop, w *reactor.Work) {
		did = append(did, w.N)
		switch {
		case w.N == 3:
			panic("three")
		case w.N < 5:
			l.NextRound(reactor.Work{N: w.N + 1})
			l.NextRound(reactor.Work{N: w.N + 10})
		}
	}
	m, _ := twin(t, reactor.Options{Loops: 1, Work: work}, h)
	m.Reactor().Post(0, reactor.Work{N: 1})
	m.Run()
	want := []int64{1, 2, 11, 3, 12}
	if len(did) != len(want) {
		t.Fatalf("did %v, want %v", did, want)
	}
	for i := range want {
		if did[i] != want[i] {
			t.Errorf("did %v, want %v", did, want)
		}
	}
}

// TestSome: every socket is seen once, in pieces of the size asked for, and no other loop's.
func TestSome(t *testing.T) {
	const sockets = 100
	var pieces, seen int
	work := func(l *reactor.Loop, _ *reactor.Work) {
		for from := uint32(0); ; {
			n := 0
			from = l.EachFrom(from, 7, func(id reactor.ID) {
				n++
				if id.Loop() != l.Index() {
					t.Errorf("socket %x on loop %d", uint64(id), l.Index())
				}
			})
			pieces, seen = pieces+1, seen+n
			if n > 7 {
				t.Errorf("%d at once", n)
			}
			if from == 0 {
				return
			}
		}
	}
	m, _ := twin(t, reactor.Options{Loops: 2, Work: work}, echo())
	for range sockets {
		m.Connect(client)
	}
	m.Run()
	m.Reactor().Post(0, reactor.Work{})
	m.Reactor().Post(1, reactor.Work{})
	m.Run()
	if seen != sockets || pieces < sockets/7 {
		t.Errorf("%d sockets in %d pieces", seen, pieces)
	}
}
