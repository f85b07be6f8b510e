package bench

import (
	"fmt"
	"io"
	"syscall"

	"golang.org/x/sys/unix"

	"ticketgate/internal/uring"
)

// Sockets of one wake are served together where the kernel takes many calls at once (package uring): each is read into a slot of
// its own, then their handlers are called, and what these write is sent with one more. A read and a write that are no calls of their own
// save a sixth of what a short message costs, and more (bench/RESULTS.md, the load tool itself).
const (
	batchMin  = 2              // sockets: below, a call for each is cheaper
	slotBytes = 16<<10 + 17*64 // 16 messages of 1 KiB, or one of 16; slots behind each other fall into different sets of the caches
	offEach   = 4 << 10        // bytes of a write that is put off: to copy more costs as much as the call
	offAll    = 64 << 10       // and of all that are, but those that are lent
)

// batch is a loop's.
type batch struct {
	ring   *uring.Ring // nil: each call is made by itself
	slots  []byte      // where sockets are read; none before the first batch
	picked []picked
	rest   []unix.EpollEvent // of the wake, for after the batch
	open   bool              // writes are put off
	stage  []byte            // those
	outs   []out
	lent   int // of outs
}

// A picked socket is one of the batch, as it was when that was read: it may be gone when its turn comes.
type picked struct {
	c     *Conn
	gen   uint32
	n     int // what its read has come to
	errno syscall.Errno
}

// An out is what is to be sent to c: a part of stage, or lent.
type out struct {
	c    *Conn
	p    []byte
	lent bool
}

// together serves the sockets of events that are plainly readable, as many as a batch takes, and then the others that it met. It
// returns how many events those were.
func (l *Loop) together(events []unix.EpollEvent) (n int, err error) {
	b := &l.batch
	if b.slots == nil {
		b.slots = make([]byte, uring.Max*slotBytes)
		b.stage = make([]byte, 0, offAll)
	}
	b.picked, b.rest = b.picked[:0], b.rest[:0]
	// No handler may run before all are read: numbers of descriptors change hands.
	for ; n < len(events) && len(b.picked) < uring.Max; n++ {
		ev := &events[n]
		if c := l.conn(ev); c != nil && c.plain(ev.Events) {
			b.picked = append(b.picked, picked{c: c, gen: c.gen})
		} else {
			b.rest = append(b.rest, *ev)
		}
	}
	if len(b.picked) >= batchMin {
		l.readMany()
	} else {
		b.rest = append(b.rest[:0], events[:n]...)
	}
	for i := range b.rest {
		if err := l.event(&b.rest[i]); err != nil {
			return n, err
		}
	}
	return n, nil
}

// plain says that ev is nothing but something to read, most likely no more than a slot takes.
func (c *Conn) plain(ev uint32) bool {
	return ev&(unix.EPOLLIN|gone) == unix.EPOLLIN && c.up && !c.deaf && !c.long && !c.unsent()
}

// readMany serves what was picked.
func (l *Loop) readMany() {
	b := &l.batch
	for i := range b.picked {
		b.ring.Recv(b.picked[i].c.fd, b.slot(i))
	}
	b.ring.Do()
	for i := range b.picked { // before a handler's writes use the ring
		p := &b.picked[i]
		var ok bool
		if p.n, p.errno, ok = b.ring.Result(i); !ok {
			p.n, p.errno = rawRead(p.c.fd, b.slot(i))
		}
	}
	b.open = true
	for i := range b.picked {
		// Handlers of those before it may have closed or deafened it.
		if p := &b.picked[i]; p.c.gen == p.gen && !p.c.deaf && p.c.took(b.slot(i), p.n, p.errno) && p.c.gen == p.gen && p.n == slotBytes {
			l.submit()         // that may take long
			l.read(p.c, false) // edge-triggered: it has to be emptied
		}
	}
	b.open = false
	l.submit()
}

func (b *batch) slot(i int) []byte { return b.slots[i*slotBytes : (i+1)*slotBytes : (i+1)*slotBytes] }

// took handles what a read into b has come to, and says whether it was bytes.
func (c *Conn) took(b []byte, n int, errno syscall.Errno) bool {
	switch {
	case errno == unix.EAGAIN:
		return false
	case errno != 0:
		c.fail(fmt.Errorf("bench: read: %w", errno))
		return false
	case n == 0:
		c.fail(io.EOF)
		return false
	}
	c.long = n >= slotBytes
	c.feed(b[:n])
	return true
}

// Write sends b, which the caller may use again at once. What the kernel does not take waits. A broken connection, or one on which
// too much waits, is heard of by the handler's Closed in a later event, so Write returns nothing.
func (c *Conn) Write(b []byte) {
	t := &c.loop.batch
	fits := t.open && len(b) <= offEach
	if t.open {
		t.makeRoom(c, len(b), fits)
	}
	switch {
	case c.waits(b):
	case fits:
		t.putOff(c, b)
	default:
		n, errno := rawWrite(c.fd, b)
		c.wrote(b, n, errno)
	}
}

// WriteLent is Write of b, of which no copy is made: it is the loop's until Loop.Lent is 0.
func (c *Conn) WriteLent(b []byte) {
	t := &c.loop.batch
	lend := t.open
	if t.open && (c.off || len(t.outs) == uring.Max) {
		c.loop.submit()
		lend = false // its place among those that are lent would be another now than the one it was chosen for
	}
	switch {
	case c.waits(b):
	case lend:
		c.off = true
		t.outs = append(t.outs, out{c, b, true})
		t.lent++
	default:
		n, errno := rawWrite(c.fd, b)
		c.wrote(b, n, errno)
	}
}

// Lent is how many of what WriteLent was given belong to the loop. Whoever alone lends on a loop, and before each WriteLent takes the
// buffer of the number that Lent is, never writes into one that is still to be sent.
func (l *Loop) Lent() int { return l.batch.lent }

// Flush sends what handlers have written so far.
func (l *Loop) Flush() { l.submit() }

// waits says that b is not to be sent now, and keeps it if it is to be sent later.
func (c *Conn) waits(b []byte) bool {
	switch {
	case c.gen == 0: // it is closed, and may be another's next
		return true
	case c.unsent():
		c.keep(b)
		return true
	default:
		return c.rest != nil && c.rest.over
	}
}

// makeRoom sends what was put off if that has to be before n bytes of c can be sent, or put off: where they fit.
func (b *batch) makeRoom(c *Conn, n int, fits bool) {
	joins := fits && b.joins(c)
	if c.off && !joins || fits && (len(b.stage)+n > offAll || !joins && len(b.outs) == uring.Max) {
		c.loop.submit()
	}
}

// joins says that what was put off last lies in the stage, and is c's.
func (b *batch) joins(c *Conn) bool {
	last := len(b.outs) - 1
	return c.off && b.outs[last].c == c && !b.outs[last].lent
}

// putOff lets p be sent to c at the end of the batch, after makeRoom.
func (b *batch) putOff(c *Conn, p []byte) {
	from := len(b.stage)
	b.stage = append(b.stage, p...) // it has room, and stays where it is
	if b.joins(c) {
		o := &b.outs[len(b.outs)-1]
		o.p = o.p[:len(o.p)+len(p)]
		return
	}
	c.off = true
	b.outs = append(b.outs, out{c, b.stage[from:], false})
}

// submit sends what was put off.
func (l *Loop) submit() {
	b := &l.batch
	many := len(b.outs) >= batchMin
	if many {
		for _, o := range b.outs {
			b.ring.Send(o.c.fd, o.p)
		}
		b.ring.Do()
	}
	for i, o := range b.outs {
		o.c.off = false
		if many {
			if n, errno, ok := b.ring.Result(i); ok {
				o.c.wrote(o.p, n, errno)
				continue
			}
		}
		n, errno := rawWrite(o.c.fd, o.p)
		o.c.wrote(o.p, n, errno)
	}
	clear(b.outs)
	b.outs, b.stage, b.lent = b.outs[:0], b.stage[:0], 0
}
