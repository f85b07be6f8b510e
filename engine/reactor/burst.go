package reactor

import (
	"syscall"
	"unsafe"
)

// The burst: what a callback writes to the first socket that it writes to with nothing in front, which is nearly always all
// that it writes. It is sent from where it lies by one send(2) or sendmsg(2), so the usual answer never sees a queue:
//
//	Write, Reserve   copied behind each other into the loop's own stage
//	Pass             left where Data has it, when that is cheaper than a copy
//
// What the kernel does not take moves to the queue (write.go). A burst ends between callbacks, and before the loop's input
// buffer is used again.
const (
	stageSize = 2 * eagerFrom // bytes; a burst is sent when more than eagerFrom of it wait
	passFrom  = 4 << 10       // bytes from which an entry of sendmsg costs less than a copy
)

// burst belongs to row; nil: there is none.
type burst struct {
	row    *row
	n      int             // bytes in pieces
	pieces []syscall.Iovec // into stage, or the loop's input buffer
	stage  []byte          // its length is what is used,
	off    int             // up to here by what was put off
	lent   bool            // a piece lies in the input buffer
}

func newBurst() burst {
	return burst{pieces: make([]syscall.Iovec, 0, vectorMax), stage: apart(stageSize)[:0]}
}

// apart returns n bytes that no other memory begins right behind, so that pieces of a burst that lie right behind each other lie
// in the same one.
func apart(n int) []byte { return make([]byte, n+1)[:n:n] }

// bursts reports whether n more bytes for r may join the burst, or begin one.
func (l *Loop) bursts(r *row) bool {
	return l.burst.row == r || l.burst.row == nil && r.out == 0 && r.flags&flagBlocked == 0
}

// staged adds n bytes to r's burst and returns them for the caller to fill; nil: there is no room for them there.
func (l *Loop) staged(id ID, r *row, n int) []byte {
	b := &l.burst
	from := len(b.stage)
	if !l.bursts(r) || n > cap(b.stage)-from {
		return nil
	}
	b.stage = b.stage[:from+n]
	p := b.stage[from : from+n : from+n]
	l.join(id, r, p)
	return p
}

// join makes p the last piece of r's burst, or a part of the last one if it lies right behind it.
func (l *Loop) join(id ID, r *row, p []byte) {
	b := &l.burst
	if b.row == nil {
		b.row = r
		l.soil(id, r)
	}
	b.n += len(p)
	if k := len(b.pieces) - 1; k >= 0 {
		last := &b.pieces[k]
		if uintptr(unsafe.Pointer(last.Base))+uintptr(last.Len) == uintptr(unsafe.Pointer(unsafe.SliceData(p))) { // see apart
			last.SetLen(int(last.Len) + len(p))
			return
		}
	}
	piece := syscall.Iovec{Base: unsafe.SliceData(p)}
	piece.SetLen(len(p))
	b.pieces = append(b.pieces, piece)
}

// Pass is Write for bytes of the slice that the Data callback under way was given. They are not copied if they are many and
// nothing is in front of them, so nobody may change them before Data returns. On the loop only.
func (l *Loop) Pass(id ID, b []byte) error {
	r := l.active(id)
	switch {
	case r == nil:
		return ErrGone
	case len(b) < passFrom || r.filter != 0 || !l.bursts(r) || len(l.burst.pieces) == vectorMax:
		return l.Write(id, b)
	}
	if err := l.admit(id, r, len(b), l.o.QueueMax); err != nil {
		return err
	}
	if !l.bursts(r) { // admit has sent what was in front, and the kernel did not take all of it
		return l.append(id, r, b, l.o.QueueMax)
	}
	l.join(id, r, b)
	l.burst.lent = l.burst.lent || !l.batch.serving // a slot stays as it is until all that was put off is sent
	l.wrote(id, r, len(b))
	return nil
}

// wrote counts n bytes of the burst, and sends it when it is long enough.
func (l *Loop) wrote(id ID, r *row, n int) {
	l.unsent += n
	if l.burst.n > l.eager {
		l.flush(id, r)
	}
}

// takeBack sends a burst whose bytes lie in the input buffer, which is about to be used again.
func (l *Loop) takeBack() {
	if b := &l.burst; b.lent {
		l.flush(ID(b.row.id.Load()), b.row)
	}
}

// sendBurst hands the burst to the kernel, and what that does not take to r's queue.
func (l *Loop) sendBurst(id ID, r *row) (progress bool, errno syscall.Errno) {
	b := &l.burst
	n, errno := 0, syscall.Errno(0)
	for ok := true; ok; ok = errno == syscall.EINTR {
		if len(b.pieces) == 1 {
			n, errno = l.sys.write(int(id.Slot()), unsafe.Slice(b.pieces[0].Base, b.n))
		} else {
			n, errno = l.sys.writev(int(id.Slot()), b.pieces)
		}
	}
	l.stat.wrote(n)
	if n < b.n && (errno == 0 || errno == syscall.EAGAIN) {
		l.enqueueRest(r, n)
	}
	l.endBurst()
	return n > 0, errno
}

// enqueueRest copies all but the first n bytes of the burst to r's queue.
func (l *Loop) enqueueRest(r *row, n int) {
	for _, piece := range l.burst.pieces {
		p := unsafe.Slice(piece.Base, int(piece.Len))
		done := min(n, len(p))
		n -= done
		if done < len(p) {
			l.enqueue(r, p[done:])
		}
	}
}

func (l *Loop) endBurst() {
	b := &l.burst
	b.row, b.n, b.lent = nil, 0, false
	b.pieces, b.stage = b.pieces[:0], b.stage[:b.off]
}
