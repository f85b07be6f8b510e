package bench

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ticketgate/internal/porttest"
	"ticketgate/internal/uring"
)

// A scribe is a Handler that does as it is told.
type scribe struct {
	conn *Conn
	data func(c *Conn, b []byte) int
	end  error
}

func (s *scribe) Opened(c *Conn)             { s.conn = c }
func (s *scribe) Data(c *Conn, b []byte) int { return s.data(c, b) }
func (s *scribe) Closed(_ *Conn, err error)  { s.end = err }
func (s *scribe) does(f func(c *Conn, b []byte)) {
	s.data = func(c *Conn, b []byte) int { f(c, b); return len(b) }
}

// scribes are n sockets of a loop, and their peers.
func scribes(t *testing.T, o Options, n int) (*Loop, []*scribe, []net.Conn) {
	t.Helper()
	l := OpenLoop(t, o)
	all, peers := make([]*scribe, n), make([]net.Conn, n)
	for i := range all {
		all[i] = &scribe{}
		peers[i] = dial(t, l, all[i])
		if err := peers[i].SetDeadline(time.Now().Add(loopPatience)); err != nil {
			t.Fatal(err)
		}
	}
	until(t, l, func() bool { return all[n-1].conn != nil })
	return l, all, peers
}

// wake sends a byte to each of the first n sockets: all of it is there before the loop looks.
func wake(t *testing.T, l *Loop, peers []net.Conn) {
	t.Helper()
	for _, p := range peers {
		if _, err := io.WriteString(p, "x"); err != nil {
			t.Fatal(err)
		}
	}
	arrived(t, l, peers, 1)
	if err := l.Turn(longestWait); err != nil {
		t.Fatal(err)
	}
}

// arrived waits until n bytes at least of each of peers can be read.
func arrived(t *testing.T, l *Loop, peers []net.Conn, n int) {
	t.Helper()
	for _, p := range peers {
		of := p.RemoteAddr().(*net.TCPAddr).Port
		for begun := time.Now(); ; runtime.Gosched() {
			if time.Since(begun) > loopPatience {
				t.Fatal("nothing arrives")
			}
			i := slices.IndexFunc(l.conns, func(c *Conn) bool { return c != nil && portOf(c) == of })
			if i < 0 {
				t.Fatalf("no socket has port %d", of)
			}
			if there, err := unix.IoctlGetInt(i, unix.SIOCINQ); err != nil {
				t.Fatal(err)
			} else if there >= n {
				break
			}
		}
	}
}

func portOf(c *Conn) int {
	name, err := unix.Getsockname(c.fd)
	if at, ok := name.(*unix.SockaddrInet4); err == nil && ok {
		return at.Port
	}
	return 0
}

// batches says whether l serves sockets together: unless it was told not to, it must where the kernel lets it.
func batches(t *testing.T, l *Loop, o Options) bool {
	t.Helper()
	r, err := uring.Open()
	if err == nil {
		r.Close()
	}
	if on, can := l.batch.slots != nil, err == nil && !o.Single; on != can {
		t.Errorf("served together: %v; with io_uring (%v) and %+v", on, err, o)
	}
	return l.batch.slots != nil
}

func bothWays(t *testing.T, test func(t *testing.T, o Options)) {
	for _, o := range []Options{{}, {Single: true}} {
		t.Run(fmt.Sprintf("single=%v", o.Single), func(t *testing.T) { test(t, o) })
	}
}

func pattern(n, seed int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(seed + i + i>>8)
	}
	return b
}

// Sockets that are ready at once each get their own bytes, and what their handlers write goes to their own peers, whatever its length.
func TestTogether(t *testing.T) {
	const n = 2*uring.Max + 7
	bothWays(t, func(t *testing.T, o Options) {
		l, all, peers := scribes(t, o, n)
		got := make([]int, n)
		for i, s := range all {
			s.does(func(c *Conn, b []byte) { got[i] += len(b); c.Write(b) })
		}
		for round, size := range []func(i int) int{
			func(i int) int { return 1 + i },
			func(i int) int { return offEach - 1 + i%3 },
			func(i int) int { return slotBytes - 1 + i%3 },
			func(i int) int { return slotBytes / (1 + i%2) }, // the long ones are read alone now, and only those
			func(i int) int { return 5 * slotBytes * (i % 2) },
			func(i int) int { return 100 + i },
		} {
			sent, want := make([][]byte, n), 0
			clear(got)
			for i, p := range peers {
				sent[i] = pattern(size(i), i)
				if want += len(sent[i]); len(sent[i]) == 0 {
					continue
				}
				if _, err := p.Write(sent[i]); err != nil {
					t.Fatal(err)
				}
			}
			until(t, l, func() bool {
				sum := 0
				for _, n := range got {
					sum += n
				}
				return sum == want && l.waits == 0
			})
			for i, p := range peers {
				b := make([]byte, len(sent[i]))
				if _, err := io.ReadFull(p, b); err != nil || !bytes.Equal(b, sent[i]) {
					t.Fatalf("socket %d: %d bytes come back changed, or %v", i, len(b), err)
				}
				if c := all[i].conn; round == 3 && c.long != (len(b) == slotBytes) {
					t.Errorf("socket %d has sent %d bytes at once, long: %v", i, len(b), c.long)
				}
			}
		}
		batches(t, l, o)
	})
}

// What a handler has written is sent before it closes its socket; one that another's handler closes or deafens is heard of no more,
// though its bytes were read.
func TestTogetherClosed(t *testing.T) {
	bothWays(t, func(t *testing.T, o Options) {
		l, all, peers := scribes(t, o, 6)
		heard := 0
		var gone, deaf *scribe
		for i, s := range all {
			s.does(func(c *Conn, _ []byte) {
				if heard++; heard > 1 {
					c.Write([]byte("bye"))
					c.Close()
					return
				}
				gone, deaf = all[(i+1)%6], all[(i+2)%6]
				gone.conn.Close()
				if err := deaf.conn.Deafen(); err != nil {
					t.Error(err)
				}
			})
		}
		wake(t, l, peers)
		batches(t, l, o)
		if heard != 4 || l.Open() != 2 {
			t.Errorf("%d heard something, %d are open", heard, l.Open())
		}
		byes := 0
		for i, p := range peers {
			if all[i].conn.gen != 0 {
				continue // open
			}
			b, err := io.ReadAll(p)
			switch {
			case all[i] == gone && len(b) != 0, all[i] != gone && string(b) != "bye":
				t.Errorf("socket %d: %q, %v", i, b, err)
			case all[i] != gone:
				byes++
			}
		}
		if byes != 3 {
			t.Errorf("%d wrote and closed", byes)
		}
	})
}

// What one handler writes to many sockets, to each more than once, arrives in the order in which it was written: also where some of it
// does not fit, or is too long to be put off.
func TestTogetherInOrder(t *testing.T) {
	const n = uring.Max + 3
	bothWays(t, func(t *testing.T, o Options) {
		l, all, peers := scribes(t, o, n)
		want := make([][]byte, n)
		first := true
		for _, s := range all {
			s.does(func(*Conn, []byte) {
				if !first {
					return
				}
				first = false
				for piece, size := range []int{10, 3000, 1, offEach, 20, offEach + 1, 7, 2 * offEach} {
					for i, to := range all {
						for twice := range 1 + i%2 { // for some, a short one before it
							b := pattern(size, piece+i)
							if i%2 == 1 && twice == 0 {
								b = b[:1]
							}
							want[i] = append(want[i], b...)
							to.conn.Write(b)
							clear(b) // the caller's again
						}
					}
				}
			})
		}
		wake(t, l, peers)
		if batches(t, l, o) && cap(l.batch.stage) != offAll {
			t.Errorf("%d bytes were put off", cap(l.batch.stage))
		}
		for i, p := range peers {
			got := make([]byte, len(want[i]))
			if _, err := io.ReadFull(p, got); err != nil || !bytes.Equal(got, want[i]) {
				t.Errorf("socket %d: %d bytes, not as they were written, or %v", i, len(got), err)
			}
		}
	})
}

// What the kernel does not take of a write that was put off waits, and what is written behind it waits as well.
func TestTogetherUnsent(t *testing.T) {
	bothWays(t, func(t *testing.T, o Options) {
		l, all, peers := scribes(t, o, 3)
		var want []byte
		stopped := false
		for _, s := range all {
			s.does(func(*Conn, []byte) {
				if stopped {
					return
				}
				for range 2 { // with something else between
					b := pattern(1500, len(want))
					want = append(want, b...)
					all[0].conn.Write(b)
					all[1].conn.Write([]byte("x"))
				}
			})
		}
		for rounds := 0; l.waits < 100_000; rounds++ {
			if rounds > 10_000 {
				t.Fatalf("the kernel takes everything: %d bytes", len(want))
			}
			wake(t, l, peers)
		}
		batches(t, l, o)
		stopped = true
		got := make([]byte, 0, len(want))
		for len(got) < len(want) {
			n, err := peers[0].Read(got[len(got):cap(got)])
			if err != nil {
				t.Fatal(err)
			}
			got = got[:len(got)+n]
			wake(t, l, peers) // that there is room, and something to read, is one event
		}
		if !bytes.Equal(got, want) || l.waits != 0 {
			t.Errorf("%d bytes are not as they were written, or %d still wait", len(got), l.waits)
		}
	})
}

// A lender fills a buffer that the loop does not have with what is to be sent, as echo does with its bursts.
type lender struct {
	l       *Loop
	buffers [3][]byte
}

func (d *lender) send(c *Conn, b []byte) {
	if d.l.Lent() == len(d.buffers) {
		d.l.Flush()
	}
	n := d.l.Lent()
	d.buffers[n] = append(d.buffers[n][:0], b...)
	c.WriteLent(d.buffers[n])
}

// A buffer that is lent is sent as it was when it was lent, whatever its socket has written before: a pong that is put off, or more than one
// answer because a read filled its slot.
func TestTogetherLent(t *testing.T) {
	const n = uring.Max + 9
	bothWays(t, func(t *testing.T, o Options) {
		l, all, peers := scribes(t, o, n)
		d := &lender{l: l}
		for i := range d.buffers {
			d.buffers[i] = make([]byte, 0, 20_000)
		}
		want := make([][]byte, n)
		for i, s := range all {
			s.does(func(c *Conn, b []byte) {
				if i%3 == 1 {
					want[i] = append(want[i], "pong"...)
					c.Write([]byte("pong"))
				}
				answer := pattern(len(b), len(want[i])+i)
				want[i] = append(want[i], answer...)
				d.send(c, answer)
				if i%3 == 2 {
					want[i] = append(want[i], "tail"...)
					c.Write([]byte("tail"))
				}
			})
		}
		for _, size := range []int{1, 1000, slotBytes + 10} {
			for i, p := range peers {
				if _, err := p.Write(pattern(size, i)); err != nil {
					t.Fatal(err)
				}
				clear(want[i])
				want[i] = want[i][:0]
			}
			arrived(t, l, peers, size)
			until(t, l, func() bool {
				return !slices.ContainsFunc(want, func(b []byte) bool { return len(b) < size })
			})
			for i, p := range peers {
				got := make([]byte, len(want[i]))
				if _, err := io.ReadFull(p, got); err != nil || !bytes.Equal(got, want[i]) {
					t.Fatalf("%d bytes, socket %d: what was lent arrives changed, or %v", size, i, err)
				}
			}
		}
		batches(t, l, o)
		if l.Lent() != 0 {
			t.Errorf("%d buffers are still lent", l.Lent())
		}
	})
}

// What is written to a socket that is closed reaches nobody, not even who has its place next.
func TestTogetherWrittenAfterClose(t *testing.T) {
	for name, write := range map[string]func(*Conn, []byte){"copied": (*Conn).Write, "lent": (*Conn).WriteLent} {
		t.Run(name, func(t *testing.T) {
			l, all, peers := scribes(t, Options{}, 2)
			next := &scribe{}
			var peer net.Conn
			for _, s := range all {
				s.does(func(c *Conn, _ []byte) {
					if peer == nil {
						c.Close()
						write(c, []byte("late"))
						peer = dial(t, l, next)
					}
				})
			}
			wake(t, l, peers)
			until(t, l, func() bool { return next.conn != nil })
			next.conn.Close()
			if b, err := io.ReadAll(peer); len(b) != 0 || err != nil {
				t.Errorf("%q, %v", b, err)
			}
			if l.Open() != 1 || l.Lent() != 0 {
				t.Errorf("%d open, %d lent", l.Open(), l.Lent())
			}
		})
	}
}

// A frame that is made for one write is copied where it is put off: nothing is allocated for it.
func TestTogetherAllocates(t *testing.T) {
	l, all, _ := scribes(t, Options{}, 1)
	wakeAll := func() {
		l.batch.open = true
		Pong(all[0].conn, Frame{Op: OpPing, Payload: l.buf[:4]})
		l.batch.open = false
		l.submit()
	}
	l.batch.stage, l.batch.outs = make([]byte, 0, offAll), make([]out, 0, uring.Max)
	if n := testing.AllocsPerRun(1000, wakeAll); n != 0 {
		t.Errorf("%v allocations a pong", n)
	}
}

// Listening sockets whose numbers are beyond those of all others are ready at once.
func TestTogetherDoors(t *testing.T) {
	bothWays(t, func(t *testing.T, o Options) {
		l := OpenLoop(t, o)
		opened := 0
		for range 2 {
			at := porttest.Free(t)
			if err := l.Listen(at, false, func() Handler { return &counted{&opened} }); err != nil {
				t.Fatal(err)
			}
			c, err := net.Dial("tcp4", at)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
		}
		until(t, l, func() bool { return opened == 2 })
	})
}

// A counted handler counts those of its kind that are opened.
type counted struct{ n *int }

func (h *counted) Opened(*Conn)               { *h.n++ }
func (h *counted) Data(_ *Conn, b []byte) int { return len(b) }
func (h *counted) Closed(*Conn, error)        {}
