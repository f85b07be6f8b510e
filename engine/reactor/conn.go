package reactor

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// The life of a socket:
//
//	accept ──────────────> open ── Close, EOF ──> closing ── queue sent, FIN both ways, or Linger ──> dying ── Closed ──> free
//	Dial ──> dialing ──────^ │                      (flush, shutdown, discard)                          ^
//	            └────────────┴── Abort, error, stall ──────────────────────────────────────────────────┘
//
// A socket dies only between callbacks (bury), after what was written has been flushed. Its row and its number stay its own
// until Closed has returned, so a handler's rows by slot need no lock; then the row is free, then the descriptor is closed.
// Readiness of a number that died earlier in the same batch of the poller may still come in, even when the number has a new
// owner by then. So an event is only a hint to try: reads and writes do not block and say the truth themselves.

// An ID names one socket of a reactor: loop<<56 | slot<<32 | generation. The slot is the descriptor; the generation is
// counted up each time a slot is used, so an ID that outlives its socket matches nothing. Zero is no socket.
type ID uint64

// Loop is the index of the loop that owns the socket.
func (id ID) Loop() int { return int(id >> 56) }

// Slot is the socket's row in a Slab. No other socket has it until Closed has returned.
func (id ID) Slot() uint32 { return uint32(id>>32) % slotMax }

func makeID(loop int, slot uint32, gen uint32) ID { return ID(loop)<<56 | ID(slot)<<32 | ID(gen) }

// Kind is a socket's index into Options.Handlers. Accepted sockets have kind 0.
type Kind uint8

// A Cause is why a socket ended.
type Cause uint8

// Causes. The error that comes with them in Closed is nil unless noted.
const (
	CauseEOF     Cause = iota + 1 // the peer sent FIN first
	CauseReset                    // a read, write or poll failed; the error is the errno
	CauseLocal                    // Close or Abort; ErrLinger when Close ran out of time
	CauseStalled                  // bytes waited for WriteStall without progress
	CauseSlow                     // its first waiting bytes found NodeQueueMax used up
	CauseDial                     // the connect failed; the error is the errno
	CauseFault                    // a callback panicked
	CauseStop                     // the reactor stopped
	CauseFilter                   // its filter failed, or the peer of an offloaded socket changed its keys
	causes
)

// String is the cause as a metric label.
func (c Cause) String() string {
	names := [...]string{"none", "eof", "reset", "local", "stalled", "slow", "dial", "fault", "stop", "filter"}
	if int(c) >= len(names) {
		return "unknown"
	}
	return names[c]
}

// What calls on a loop return.
var (
	ErrGone    = errors.New("reactor: the socket is gone or closing")
	ErrSlow    = errors.New("reactor: the outbound queue is full")
	ErrNode    = fmt.Errorf("%w: that of all sockets together", ErrSlow)
	ErrFull    = errors.New("reactor: no room for another socket")
	ErrLinger  = errors.New("reactor: the peer did not finish within the linger time")
	ErrStopped = errors.New("reactor: stopped")
)

const (
	stateFree uint8 = iota
	stateDialing
	stateOpen
	stateClosing
	stateDying
	stateListener // not a socket of a handler: the loop's own descriptors
	stateTimer
	stateWaker
)

const (
	flagDirty    uint16 = 1 << iota // in the dirty list: to be flushed before the loop goes on
	flagBlocked                     // the kernel took no more: waits for writability
	flagPaused                      // Pause
	flagFull                        // more than LeftoverMax was left over: waits for Rerun or Resume
	flagRerun                       // in the soon list by Rerun
	flagResumed                     // in the soon list by Resume
	flagLinked                      // in the wheel
	flagFinSent                     // closing: shutdown is done
	flagFinSeen                     // the peer has sent FIN
	flagReset                       // the descriptor is closed with RST
	flagLate                        // closing took longer than Linger
	flagGone                        // Closed has begun
	flagSaid                        // the filter has said that nothing follows
	flagOffload                     // the kernel does TLS
	flagLong                        // its last reading of a batch filled its slot
	flagDeferred                    // in batch.outs: something is about to be sent
)

// What a row asks of the poller, as a mask.
const (
	watchRead uint8 = 1 << iota
	watchWrite
)

// freeLoop is the loop of a row that nobody owns.
const freeLoop = 255

// A row is what the reactor keeps of a socket: 64 bytes, one cache line, no pointers. It belongs to the loop that its id
// names; other loops read only id.
type row struct {
	id      atomic.Uint64 // the owner's ID, or freeLoop and the last generation
	peer    [16]byte
	port    uint16
	kind    Kind
	state   uint8
	flags   uint16
	watched uint8 // the mask that the poller has
	cause   Cause // closing, dying: what Closed will say
	errno   uint16
	dropped uint16 // closing: KiB discarded, each reading rounded up
	filter  int32  // in Loop.filters
	out     int32  // queue in Loop.queues
	left    int32  // leftover in Loop.segments
	next    int32  // wheel: slot of the next in the list + 1
	prev    int32  // wheel: slot of the one before, or the list below zero
	due     uint32 // wheel: tick of Timer
	inner   uint32 // wheel: tick of the stall or the end of Linger
}

// claim makes the row of descriptor fd this loop's and returns its new ID. The row's former owner zeroed it before it
// stored the free id, so loading the id is what hands the row over.
func (l *Loop) claim(fd int, state uint8) (ID, *row) {
	slot := uint32(fd)
	r := l.rows.At(slot)
	gen := uint32(r.id.Load()) + 1
	if gen == 0 {
		gen = 1
	}
	id := makeID(l.index, slot, gen)
	r.state = state
	r.id.Store(uint64(id))
	l.top = max(l.top, slot)
	return id, r
}

// release gives the row back. The descriptor must still be open, or the next owner of the number could be there already.
func (l *Loop) release(id ID, r *row) {
	r.peer, r.port = [16]byte{}, 0
	r.kind, r.state, r.flags, r.watched, r.cause = 0, stateFree, 0, 0, 0
	r.errno, r.dropped, r.filter, r.out, r.left = 0, 0, 0, 0, 0
	r.next, r.prev, r.due, r.inner = 0, 0, 0, 0
	r.id.Store(uint64(makeID(freeLoop, 0, uint32(id))))
}

// enter makes a row for a socket of the handlers.
func (l *Loop) enter(fd int, k Kind, state uint8, peer netip.AddrPort) (ID, *row) {
	id, r := l.claim(fd, state)
	r.kind = k
	if peer.IsValid() {
		r.peer, r.port = peer.Addr().As16(), peer.Port()
	}
	l.live++
	l.stat.conns.Store(int64(l.live))
	return id, r
}

// row returns the row of a living socket of this loop, or nil for a stale ID.
func (l *Loop) row(id ID) *row {
	if id == 0 || id.Loop() != l.index {
		return nil
	}
	if r := l.rows.At(id.Slot()); r.id.Load() == uint64(id) {
		return r
	}
	return nil
}

// active is row for sockets whose handler still has a say: not closing, not dying.
func (l *Loop) active(id ID) *row {
	if r := l.row(id); r != nil && (r.state == stateOpen || r.state == stateDialing) {
		return r
	}
	return nil
}

// Alive reports whether Closed is still to come for id. On the loop only.
func (l *Loop) Alive(id ID) bool {
	r := l.row(id)
	return r != nil && r.flags&flagGone == 0
}

// Peer returns the remote address, unmapped, until Closed has returned; zero for unix sockets and stale IDs. On the loop only.
func (l *Loop) Peer(id ID) netip.AddrPort {
	r := l.row(id)
	if r == nil || r.peer == [16]byte{} { // ::, which nobody has
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom16(r.peer).Unmap(), r.port)
}

// each calls f for the socket of slot, if it is this loop's.
func (l *Loop) each(slot uint32, f func(id ID)) {
	r := l.rows.At(slot)
	id := ID(r.id.Load())
	if id != 0 && id.Loop() == l.index && r.state >= stateDialing && r.state <= stateClosing {
		f(id)
	}
}

// Each calls f for every socket of this loop that is dialing, open or closing. f may close any of them. On the loop only.
func (l *Loop) Each(f func(id ID)) {
	l.EachFrom(0, math.MaxInt, f)
}

// EachFrom is Each for n slots from from on. next is where to go on; 0: those were the last. Sockets that come meanwhile may be missed.
// On the loop only.
func (l *Loop) EachFrom(from uint32, n int, f func(id ID)) (next uint32) {
	end := min(uint64(from)+uint64(n), uint64(l.top)+1)
	for slot := from; uint64(slot) < end; slot++ {
		l.each(slot, f)
	}
	if end > uint64(l.top) {
		return 0
	}
	return uint32(end)
}

// Close ends id in order: no callback but Closed comes any more, what is queued is sent, then FIN; then up to Linger for the
// peer's FIN, discarding what it still sends (1 MiB at most), so that no RST overtakes the last bytes. On the loop only.
func (l *Loop) Close(id ID) {
	switch r := l.row(id); {
	case r == nil:
	case r.state == stateDialing:
		l.end(id, r, CauseLocal, 0)
	case r.state == stateOpen:
		l.hangUp(id, r, CauseLocal)
	}
}

// EndWithin is Close for who has no more than d to end: whoever has not by then gets RST, and what he has not taken is lost to him, also
// what lies in our kernel. On the loop only.
func (l *Loop) EndWithin(id ID, d time.Duration) {
	r := l.row(id)
	if r == nil || r.state != stateOpen {
		l.Close(id)
		return
	}
	r.flags |= flagReset // which is nothing to a connection that both sides have ended
	l.hangUp(id, r, CauseLocal)
	l.setTimer(id.Slot(), r, &r.inner, l.tickAt(l.Now().Add(d)))
}

// CloseWithin is Close for a socket that must not hear anything later than d from now: if its peer has not taken all that was sent
// by then, the rest is lost, here and in the kernel, and the peer gets RST. On the loop only.
func (l *Loop) CloseWithin(id ID, d time.Duration) {
	l.Close(id)
	if r := l.row(id); r != nil && r.state == stateClosing {
		l.setTimer(id.Slot(), r, &r.due, l.tickAt(l.Now().Add(d))) // which its handler has no use for any more
	}
}

// sever ends a closing socket, unless its peer has taken all there is.
func (l *Loop) sever(id ID, r *row) {
	if r.out != 0 || l.sys.unsent(int(id.Slot())) > 0 {
		r.flags |= flagReset | flagLate
		l.end(id, r, r.cause, 0)
	}
}

// Abort ends id at once: what is queued is lost and the peer gets RST. Closed follows after the current callback. On the
// loop only.
func (l *Loop) Abort(id ID) {
	if r := l.row(id); r != nil {
		r.flags |= flagReset
		l.end(id, r, CauseLocal, 0)
	}
}

// hangUp begins an orderly end.
func (l *Loop) hangUp(id ID, r *row, why Cause) {
	r.state, r.cause = stateClosing, why
	l.clearTimer(id.Slot(), r, &r.due)
	l.dropLeftover(r)
	l.setTimer(id.Slot(), r, &r.inner, l.tickAt(l.Now().Add(l.o.Linger)))
	l.soil(id, r)
}

// end marks id as dying; bury does the rest between callbacks. A cause that closing has set stays.
func (l *Loop) end(id ID, r *row, why Cause, errno syscall.Errno) {
	if r.state == stateDying {
		return
	}
	if r.state != stateClosing {
		r.cause = why
	}
	r.state, r.errno = stateDying, uint16(errno)
	l.dying = append(l.dying, id)
}

// bury ends the dying: Closed, then everything the socket held.
func (l *Loop) bury() {
	for len(l.dying) > 0 {
		list := l.dying
		l.dying = l.spare[:0]
		for _, id := range list {
			l.buryOne(id, l.rows.At(id.Slot()))
		}
		l.spare = list
	}
}

func (l *Loop) buryOne(id ID, r *row) {
	if r.flags&flagDeferred != 0 {
		l.submit()
	}
	slot := id.Slot()
	r.due, r.inner = 0, 0
	l.unlink(slot, r)
	l.dropLeftover(r)
	l.dropQueue(r)
	r.flags |= flagGone
	l.stat.closed[r.cause].Add(1)
	l.call(opClosed, id, r, nil)
	if l.burst.row == r { // written by another's Closed, after which it has died as well
		l.endBurst()
	}
	if r.filter != 0 {
		l.withFilter(id, r, func(f Filter) { f.Gone(l, id) })
		l.dropFilter(r)
	}
	if r.flags&flagOffload != 0 {
		l.stat.offloaded.Add(-1)
	}
	l.leave(id, r, r.flags&flagReset != 0)
}

// leave is the other end of enter: the row, the descriptor and the place are free.
func (l *Loop) leave(id ID, r *row, reset bool) {
	l.live--
	l.stat.conns.Store(int64(l.live))
	l.release(id, r)
	l.sys.close(int(id.Slot()), reset)
	l.r.conns.Add(-1)
}

// ending is the error that comes with the cause.
func (r *row) ending() error {
	switch {
	case r.errno != 0:
		return syscall.Errno(r.errno)
	case r.flags&flagLate != 0:
		return ErrLinger
	default:
		return nil
	}
}

// overdue ends a socket whose inner deadline has passed: no write progress, or the peer lingers.
func (l *Loop) overdue(id ID, r *row) {
	switch r.state {
	case stateOpen:
		r.flags |= flagReset
		l.end(id, r, CauseStalled, 0)
	case stateClosing:
		r.flags |= flagLate
		if r.out != 0 {
			r.flags |= flagReset // its bytes would stay in the kernel's memory for as long as it pleases
		}
		l.end(id, r, r.cause, 0)
	}
}

// discardMax is how many KiB a closing socket may still send us before we stop listening to it.
const discardMax = 1 << 10

// discardBytes are discarded at once: a flood that was cut off takes no longer turns than the others.
const discardBytes = 32 << 10

// discard reads for a closing socket: only its FIN matters.
func (l *Loop) discard(id ID, r *row) {
	l.takeBack()
	n, errno := l.sys.discard(int(id.Slot()), l.in[:min(len(l.in), discardBytes)])
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
	case errno == syscall.EIO && r.flags&flagOffload != 0:
		l.record(id, r)
	case errno != 0:
		l.end(id, r, r.cause, errno)
	case n > 0:
		l.stat.read(n)
		if r.dropped += uint16((n + 1<<10 - 1) >> 10); r.dropped > discardMax {
			l.end(id, r, r.cause, 0)
		}
	default:
		r.flags |= flagFinSeen
		if r.flags&flagFinSent != 0 {
			l.end(id, r, r.cause, 0)
			return
		}
		l.watch(id, r)
	}
}

// shut sends FIN behind the last byte.
func (l *Loop) shut(id ID, r *row) {
	if r.flags&flagFinSent == 0 {
		r.flags |= flagFinSent
		if r.flags&flagOffload != 0 {
			l.sys.notify(int(id.Slot()))
		}
		l.sys.shut(int(id.Slot()))
	}
	if r.flags&flagFinSeen != 0 {
		l.end(id, r, r.cause, 0)
	}
}
