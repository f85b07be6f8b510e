package reactor

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ticketgate/internal/uring"
)

// Batches. Entering the kernel and coming back costs as much as what it does for a short message, and afterwards our own
// code has to be found again by every cache of the processor. So sockets that are ready at the same time are served together,
// where the kernel can take many calls at once (package uring). In the order of this file:
//
//	round       what one wait has named: batches of sockets that are plainly readable, then whatever else is ready
//	batch       readMany: each into a slot of its own > Data for each, one behind the other > what they wrote is put off
//	putOff      a flush at the end of a callback, to be done with the others'
//	submit      writeMany, and what it came to: when batchMax or enough bytes are put off, before a socket with something put
//	            off is written to again or closed, and at the end of a batch
//
// A socket whose reading fills its slot gets the rest as without batches, by calls of its own, and so until one is shorter again.
const (
	batchMax  = uring.Max        // sockets
	batchMin  = 2                // below, a call for each is cheaper
	slotBytes = 16<<10 + 17*64   // a message of 16 KiB; slots behind each other fall into different sets of the caches
	offMax    = 2 * eagerFrom    // bytes that are put off: beyond, the first would wait for long, and the caches be too small
	nowEvery  = 4                // sockets of a batch that share one look at the clock
	lateMax   = time.Millisecond // then what was put off does not wait any longer for callbacks that take their time
	flagBusy  = flagPaused | flagFull | flagBlocked | flagRerun | flagResumed | flagLong | flagDeferred
)

const _ = uint(2 - batchMin) // submit makes one call where it is below

// A transfer is one read or write of a batch.
type transfer struct {
	id    ID
	p     []byte
	fd    int32
	n     int32         // bytes that it came to
	errno syscall.Errno // n is 0
	queue bool          // a write of the first segment of the row's queue; else of what was its burst
}

// came notes what a call has come to.
func (x *transfer) came(n int, errno syscall.Errno) { x.n, x.errno = int32(n), errno }

// batch is a loop's.
type batch struct {
	max     int    // sockets; 0: the kernel takes one call at a time
	slots   []byte // where reads go
	slot    int    // bytes of one
	reads   []transfer
	rest    []unix.EpollEvent // of the round, for after the batch
	serving bool              // Data has been given a slot
	open    bool              // a batch is being served: flushes are put off
	outs    []transfer        // put off
	off     int               // bytes in outs
}

func newBatch(o *Options, room int) batch {
	b := batch{max: min(room, batchMax)}
	if b.max >= batchMin {
		b.slot = min(slotBytes, o.ReadBuffer)
		b.slots = apart(b.max * b.slot)
		b.reads = make([]transfer, 0, b.max)
		b.outs = make([]transfer, 0, b.max)
	} else {
		b.max = 0
	}
	return b
}

// round serves what one wait has named. A round that has made the loop stop is cut short.
func (l *Loop) round(events []unix.EpollEvent) {
	l.rounds++
	for len(events) > 0 && !l.stopping {
		if l.batch.max == 0 || len(events) == 1 {
			l.event(int(events[0].Fd), events[0].Events)
			events = events[1:]
			continue
		}
		n := l.choose(events)
		l.serveBatch()
		for _, e := range l.batch.rest {
			if l.stopping {
				return
			}
			l.event(int(e.Fd), e.Events)
		}
		events = events[n:]
	}
	if !l.stopping {
		l.endRound()
	}
}

// choose fills reads with sockets out of events, and rest with what else is among those looked at, whose number it returns.
// No callback may run before they are read: numbers of descriptors change hands.
func (l *Loop) choose(events []unix.EpollEvent) (n int) {
	b := &l.batch
	b.reads, b.rest = b.reads[:0], b.rest[:0]
	for ; n < len(events) && len(b.reads) < b.max; n++ {
		e := &events[n]
		r := l.rows.At(uint32(e.Fd))
		id := ID(r.id.Load())
		if id.Loop() != l.index || e.Events != unix.EPOLLIN || r.state != stateOpen || r.flags&flagBusy != 0 || r.filter|r.left != 0 {
			b.rest = append(b.rest, *e)
			continue
		}
		at := len(b.reads) * b.slot
		b.reads = append(b.reads, transfer{id: id, fd: e.Fd, p: b.slots[at : at+b.slot : at+b.slot]})
	}
	return n
}

// serveBatch serves the chosen ones.
func (l *Loop) serveBatch() {
	b := &l.batch
	if len(b.reads) < batchMin {
		for _, x := range b.reads {
			l.event(int(x.fd), unix.EPOLLIN)
		}
		return
	}
	l.begin()
	begun := l.Now()
	l.sys.readMany(b.reads)
	since := begun
	b.open = true
	for i := range b.reads {
		x := &b.reads[i]
		if i%nowEvery == 0 {
			if l.begin(); l.Now().Sub(since) > lateMax {
				l.submit()
				since = l.Now()
			}
		}
		// Callbacks of those before it may have ended it, and its number be another's. What it sent is lost then, as if it had
		// not been read; its FIN will be seen again.
		if r := l.rows.At(uint32(x.fd)); ID(r.id.Load()) == x.id && r.state == stateOpen {
			l.brought(x, r)
			l.settle()
		}
	}
	b.open = false
	l.flushDirty() // what settle has left lies in the slots
	l.settle()
	l.health.batch(len(b.reads), l.o.Clock.Now().Sub(begun))
}

// brought hands on what a read of the batch has come to.
func (l *Loop) brought(x *transfer, r *row) {
	n := int(x.n)
	stopped := r.flags&(flagPaused|flagFull) != 0 // by another's callback, just now
	if n == 0 {
		if !stopped { // else it comes again
			l.nothing(x.id, r, x.errno)
		}
		return
	}
	l.stat.read(n)
	switch {
	case r.filter != 0: // by another's callback as well; the filter has its own place for it, and feed too
		l.takeBack()
		l.arrived(x.id, r, copy(l.wireBuffer(), x.p[:n]))
		return
	case stopped:
		l.keep(x.id, r, x.p[:n], 0)
		return
	case r.left != 0:
		l.takeBack()
		l.feed(x.id, r, copy(l.in[l.o.LeftoverMax:], x.p[:n]))
		return
	}
	l.batch.serving, l.more = true, n == len(x.p)
	l.deliver(x.id, r, x.p[:n])
	l.batch.serving, l.more = false, false
	if n == len(x.p) {
		r.flags |= flagLong
		l.readOn(x.id, r, l.in[l.o.LeftoverMax:])
	}
}

// putOff notes what has to be sent on r at the end of a callback, and reports whether it could: it is one piece then, which
// stays where it is until submit.
func (l *Loop) putOff(id ID, r *row) bool {
	b, u := &l.batch, &l.burst
	if b.max == 0 || r.state != stateOpen || r.filter != 0 || r.flags&(flagBlocked|flagDeferred) != 0 {
		return false
	}
	x := transfer{id: id, fd: int32(id.Slot())}
	switch {
	case u.row == r:
		if len(u.pieces) != 1 || u.lent {
			return false
		}
		x.p = unsafe.Slice(u.pieces[0].Base, u.n)
		u.off = len(u.stage)
		l.endBurst()
	case r.out == 0:
		return false
	default:
		s := &l.segments.items[l.queues.items[r.out].head]
		if s.next != 0 {
			return false
		}
		x.p, x.queue = s.b[s.from:], true
	}
	r.flags = r.flags&^flagDirty | flagDeferred
	b.outs = append(b.outs, x)
	if b.off += len(x.p); len(b.outs) == b.max || b.off > offMax || cap(u.stage)-len(u.stage) < stageSize/2 {
		l.submit()
	}
	return true
}

// submit sends what was put off.
func (l *Loop) submit() {
	b := &l.batch
	if len(b.outs) == 0 {
		return
	}
	outs := b.outs
	b.outs, b.off = b.outs[:0], 0 // sent puts nothing off
	if l.begin() {
		outs = l.unlost(outs)
	}
	if len(outs) == 0 {
		return
	}
	if x := &outs[0]; len(outs) < batchMin {
		x.came(l.sys.write(int(x.fd), x.p))
	} else {
		l.sys.writeMany(outs)
	}
	for i := range outs {
		x := &outs[i]
		r := l.rows.At(uint32(x.fd)) // it is not buried before this
		r.flags &^= flagDeferred
		l.sent(x, r)
	}
	if l.burst.off = 0; l.burst.row == nil {
		l.burst.stage = l.burst.stage[:0]
	}
}

// unlost are those of outs that may be sent; the others end.
func (l *Loop) unlost(outs []transfer) []transfer {
	kept := outs[:0]
	for _, x := range outs {
		if r := l.rows.At(uint32(x.fd)); l.sends(x.id, r) {
			kept = append(kept, x)
		} else {
			r.flags &^= flagDeferred
		}
	}
	return kept
}

// sent draws the consequences of a write that was put off, as flush does of one on the spot.
func (l *Loop) sent(x *transfer, r *row) {
	n := int(x.n)
	l.stat.wrote(n)
	switch {
	case r.state == stateDying:
		return
	case x.errno != 0 && x.errno != syscall.EAGAIN && x.errno != syscall.EINTR:
		l.end(x.id, r, CauseReset, x.errno)
		return
	case x.queue:
		l.consume(r, n)
	case n < len(x.p):
		l.enqueue(r, x.p[n:]) // nothing was written behind it: see admit
	}
	if r.out != 0 && r.flags&flagBlocked == 0 && (n < len(x.p) || r.flags&flagDirty == 0) {
		l.flush(x.id, r)
		return
	}
	l.flushed(x.id, r, n > 0)
}

func (k *linux) many() int {
	if k.uring == nil {
		return 0
	}
	return uring.Max
}

func (k *linux) readMany(t []transfer) {
	for i := range t {
		k.uring.Recv(int(t[i].fd), t[i].p)
	}
	k.together(t, k.read)
}

func (k *linux) writeMany(t []transfer) {
	for i := range t {
		k.uring.Send(int(t[i].fd), t[i].p)
	}
	k.together(t, k.write)
}

// together does what the ring was asked for, which is t, and by alone what it had no room for.
func (k *linux) together(t []transfer, alone func(fd int, p []byte) (int, syscall.Errno)) {
	k.uring.Do()
	for i := range t {
		n, errno, ok := k.uring.Result(i)
		if !ok {
			n, errno = alone(int(t[i].fd), t[i].p)
		}
		t[i].came(n, errno)
	}
}
