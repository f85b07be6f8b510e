package reactor

import (
	"syscall"
	"time"
)

// Inbound: one recv(2) an event, or up to readsMax while they are full, into the loop's own buffer, behind a copy of what the socket had left over:
//
//	loop's buffer  |........ leftover|bytes just read ........|
//	                         ^ in starts here         LeftoverMax bytes lie before the first byte read
//
// Data sees one slice and says how much of it is done; the rest moves to a buffer of the socket's own until more comes.

// Pause stops Data for id: what arrives stays in the kernel and fills the peer's window. It holds until Resume. While it
// holds, the loop does not notice that the peer has closed. On the loop only.
func (l *Loop) Pause(id ID) {
	if r := l.active(id); r != nil {
		r.flags |= flagPaused
		r.flags &^= flagResumed // its descriptor leaves the poller when it is ready next: a short pause costs no system call
	}
}

// Paused reports whether Pause holds. On the loop only.
func (l *Loop) Paused(id ID) bool {
	r := l.row(id)
	return r != nil && r.flags&flagPaused != 0
}

// Resume ends Pause. If something was left over, Data is called with it soon after the current callback. On the loop only.
func (l *Loop) Resume(id ID) {
	if r := l.active(id); r != nil && r.flags&flagPaused != 0 {
		r.flags &^= flagPaused
		l.again(id, r, flagResumed)
		l.watch(id, r)
	}
}

// Rerun calls Data with what was left over, soon after the current callback, even while id is paused. If nothing was left
// over it does nothing. On the loop only.
func (l *Loop) Rerun(id ID) {
	if r := l.active(id); r != nil {
		l.again(id, r, flagRerun)
	}
}

// Yield is Rerun after the other sockets have had their turn: for a callback that leaves work undone because it took long
// enough. Until then nothing more of id is read. Of those that yield, as many are served in a round as laterMax allows, the
// first first, so that what is short does not wait for all that is long. On the loop only.
func (l *Loop) Yield(id ID) {
	if r := l.active(id); r != nil && r.flags&(flagRerun|flagResumed) == 0 {
		r.flags |= flagRerun
		l.later = append(l.later, id)
		l.wake()
	}
}

// Yielded reports whether id waits for its turn, because it has yielded or asked for a Rerun: what its peer has sent since may lie in
// the kernel, unread. On the loop only.
func (l *Loop) Yielded(id ID) bool {
	r := l.row(id)
	return r != nil && r.flags&flagRerun != 0
}

// laterMax is how long those that have yielded are served before the poller is asked for others.
const laterMax = 500 * time.Microsecond

// putOffTurns serves those that had yielded before: one of them in any case, the rest in this round or the next ones.
func (l *Loop) putOffTurns() {
	n := len(l.later)
	if n == 0 {
		return
	}
	begun, served := l.o.Clock.Now(), 0
	for served < n && !l.stopping {
		l.soon = append(l.soon, l.later[served])
		l.rounds++
		l.begin()
		l.settle()
		if served++; l.o.Clock.Now().Sub(begun) > laterMax {
			break
		}
	}
	if l.stopping {
		return
	}
	if l.later = append(l.later[:0], l.later[served:]...); len(l.later) > 0 {
		l.wake()
	}
}

// Round counts what the loop does between two looks at the poller; the turn of one that has yielded counts for itself. It tells
// callbacks what share of a round they may take. On the loop only.
func (l *Loop) Round() uint64 { return l.rounds }

func (l *Loop) again(id ID, r *row, flag uint16) {
	if r.flags&(flagRerun|flagResumed) == 0 {
		l.soon = append(l.soon, id)
	}
	r.flags |= flag
}

// rerun serves the soon list as it stands; what its callbacks add comes next time.
func (l *Loop) rerun() {
	list := l.soon
	l.soon = l.soonSpare[:0]
	for _, id := range list {
		r := l.row(id)
		if r == nil {
			continue
		}
		asked := r.flags & (flagRerun | flagResumed)
		r.flags &^= asked
		if r.state != stateOpen || asked == 0 {
			continue
		}
		l.takeBack()
		if r.left != 0 {
			l.deliver(id, r, l.in[:copy(l.in, l.segments.items[r.left].b)])
		}
		l.pump(id, r)
	}
	l.soonSpare = list
}

// readsMax is how often a socket is read in its turn while each reading fills the buffer: what else lies in the kernel is read
// at once while all that it needs is at hand, which is worth a seventh of an echo of long messages. The others wait for 256 KiB.
const readsMax = 2

const _ = uint(readsMax - 2) // carry counts on a second one

// flagStops are the reasons not to read a socket on in its turn.
const flagStops = flagPaused | flagFull | flagRerun | flagResumed

// readable reads and hands on what came. One that has yielded, or was cut short, has its turn first.
func (l *Loop) readable(id ID, r *row) {
	if r.flags&(flagPaused|flagFull) != 0 {
		l.watch(id, r)
		return
	}
	if r.flags&flagRerun != 0 {
		return
	}
	to := l.in[l.o.LeftoverMax:]
	if r.filter != 0 {
		to = l.wireBuffer()[:l.o.ReadBuffer]
	}
	plain := r.filter == 0
	n := l.read(id, r, to, true)
	if n < l.batch.slot {
		r.flags &^= flagLong
	}
	if n == len(to) && plain { // to is not the place for what comes next if a filter has left
		l.readOn(id, r, to)
	}
}

// readOn goes on after a reading that filled its buffer.
func (l *Loop) readOn(id ID, r *row, to []byte) {
	for n, reads := len(to), 1; n == len(to) && reads < readsMax; reads++ {
		if r.state != stateOpen || r.filter != 0 || r.flags&flagStops != 0 {
			l.carried = 0 // unless it has ended there is nothing: see keep
			return
		}
		n = l.read(id, r, to, reads < readsMax-1)
	}
}

// ReadsOn reports whether the Data callback under way may leave rest bytes unused for nothing: its reading was full, so another
// follows at once, and they are not copied away but lie in front of it. On the loop only.
func (l *Loop) ReadsOn(rest int) bool { return l.more && rest <= l.o.LeftoverMax }

// read reads once, and returns how many bytes came. on: if to is full, another reading follows.
func (l *Loop) read(id ID, r *row, to []byte, on bool) int {
	l.takeBack()
	n, errno := l.sys.read(int(id.Slot()), to)
	if n == 0 {
		l.nothing(id, r, errno)
		return 0
	}
	l.stat.read(n)
	if r.filter != 0 {
		l.arrived(id, r, n)
		return n
	}
	l.more = on && n == len(to)
	l.feed(id, r, n)
	l.more = false
	return n
}

// nothing draws the consequences of a reading that brought nothing.
func (l *Loop) nothing(id ID, r *row, errno syscall.Errno) {
	if n := l.carried; n > 0 { // the reading before this one was full by chance
		l.carried = 0
		l.deliver(id, r, l.in[l.o.LeftoverMax-n:l.o.LeftoverMax])
	}
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR: // a stale hint
	case errno == syscall.EIO && r.flags&flagOffload != 0:
		l.record(id, r)
	case errno != 0:
		l.end(id, r, CauseReset, errno)
	default:
		r.flags |= flagFinSeen
		l.finished(id, r)
	}
}

// finished ends a socket whose peer sends nothing more. One that only half closed may still take what is queued for it; one
// under TLS is told in TLS's own way that we send nothing more either (RFC 8446 section 6.1).
func (l *Loop) finished(id ID, r *row) {
	switch {
	case r.state != stateOpen:
	case r.out == 0 && r.filter == 0 && r.flags&(flagDirty|flagDeferred|flagOffload) == 0:
		l.end(id, r, CauseEOF, 0)
	default:
		l.hangUp(id, r, CauseEOF)
	}
}

// feed puts the leftover in front of the n bytes just read and calls Data.
func (l *Loop) feed(id ID, r *row, n int) {
	from := l.o.LeftoverMax - l.carried
	l.carried = 0
	if r.left != 0 {
		old := l.segments.items[r.left].b
		from -= len(old)
		copy(l.in[from:], old)
	}
	l.deliver(id, r, l.in[from:l.o.LeftoverMax+n])
}

// deliver calls Data with in, which lies in the loop's own buffer, and sees to what it leaves.
func (l *Loop) deliver(id ID, r *row, in []byte) {
	had := r.filter
	used := l.call(opData, id, r, in)
	if had != 0 || r.filter == 0 {
		l.keep(id, r, in, used)
		return
	}
	l.dropLeftover(r) // what is left lies in in, and is the filter's now
	l.more, l.batch.serving = false, false
	if rest := in[min(max(used, 0), len(in)):]; len(rest) > 0 && r.state == stateOpen {
		l.arrived(id, r, copy(l.wireBuffer(), rest))
	}
}

// wireBuffer is where the bytes lie that a filter is fed: as long as what Data may leave.
func (l *Loop) wireBuffer() []byte {
	if l.wire == nil {
		l.wire = make([]byte, len(l.in))
	}
	return l.wire
}

// keep stores what Data did not use. in is the loop's own buffer, changed as Data has left it.
func (l *Loop) keep(id ID, r *row, in []byte, used int) {
	rest := in[min(max(used, 0), len(in)):]
	if len(rest) > 0 && l.ReadsOn(len(rest)) && r.state == stateOpen && r.flags&flagStops == 0 {
		l.carry(r, rest)
		return
	}
	if r.state != stateOpen || len(rest) == 0 {
		l.dropLeftover(r)
	} else {
		l.setLeftover(r, rest)
	}
	full := uint16(0)
	if len(rest) > l.o.LeftoverMax && r.flags&flagRerun == 0 { // else its turn comes before it is read again
		full = flagFull
	}
	if r.flags&flagFull != full {
		r.flags ^= flagFull
		l.watch(id, r)
	}
}

// carry moves rest in front of where the next reading goes, which follows at once.
func (l *Loop) carry(r *row, rest []byte) {
	l.takeBack()
	l.dropLeftover(r)
	l.carried = copy(l.in[l.o.LeftoverMax-len(rest):], rest)
}

// exactFrom is how long a leftover is that gets a buffer of its own length: it is of a socket that is not read any more, and may
// stay for long, when one from a pool could be twice as large.
const exactFrom = 64 << 10

// roomyFrom is how large a buffer must be to be given back when what is left gets short: the rest of a header may stay for ever.
const roomyFrom = 4 << 10

func (l *Loop) setLeftover(r *row, rest []byte) {
	if r.left != 0 {
		if room := cap(l.segments.items[r.left].b); room < len(rest) || room > max(4*len(rest), roomyFrom) {
			l.dropLeftover(r)
		}
	}
	if r.left == 0 {
		i, s := l.segments.get()
		if len(rest) > exactFrom {
			s.b = make([]byte, 0, len(rest))
		} else {
			s.b = l.pool.get(len(rest))
		}
		r.left = i
	}
	s := &l.segments.items[r.left]
	s.b = append(s.b[:0], rest...)
}

func (l *Loop) dropLeftover(r *row) {
	if r.left != 0 {
		l.pool.put(l.segments.items[r.left].b)
		l.segments.put(r.left)
		r.left = 0
	}
}

// watch tells the poller what the row waits for now, if that has changed.
func (l *Loop) watch(id ID, r *row) {
	want := r.wants()
	if want == r.watched || r.state == stateDying {
		return
	}
	if errno := l.sys.watch(int(id.Slot()), r.watched, want); errno != 0 {
		if r.state == stateListener {
			l.unheard(r, errno)
		} else {
			l.end(id, r, CauseReset, errno)
		}
		return
	}
	r.watched = want
}

func (r *row) wants() (mask uint8) {
	switch {
	case r.state == stateOpen && r.flags&(flagPaused|flagFull) == 0,
		r.state == stateClosing && r.flags&flagFinSeen == 0,
		r.state == stateListener && r.flags&flagPaused == 0:
		mask = watchRead
	}
	if r.flags&flagBlocked != 0 {
		mask |= watchWrite // and a dial, which begins blocked
	}
	return mask
}
