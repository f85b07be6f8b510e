package reactor

import (
	"slices"
	"syscall"
	"unsafe"
)

// Outbound, in the order of this file:
//
//	Write, Reserve   in a callback    copies behind what waits, marks the socket dirty
//	flush            between callbacks, and inside one when more than eagerFrom waits: one send(2) for all
//	writable         the kernel has room again: the rest, then Drained
//	account          what stays queued is counted for the node
//
// The sum of what waits is bounded twice: QueueMax bytes a socket, NodeQueueMax bytes of buffers over all sockets.
const (
	eagerFrom  = 144 << 10 // waiting bytes from which a flush does not wait for the end of the callback; or half of QueueMax
	directFrom = 8 << 10   // a write at least so long goes out without a copy when nothing is in front of it
	unsentMax  = 1 << 20   // bytes that one callback may spread over many sockets before all are flushed
	lastExtra  = 256       // what WriteLast may add to a full queue: a close frame is 129 bytes at most
	vectorMax  = 64        // segments a sendmsg takes
	graceShare = 16        // NodeQueueMax may be passed by 1/16 by sockets that begin to queue, before they are closed
)

// Write copies b behind what waits for id. All that one callback writes leaves in one send(2) when it returns, or at once
// when more than 144 KiB, or half of QueueMax, wait. When QueueMax or NodeQueueMax would be passed it takes nothing and returns
// ErrSlow, for the latter ErrNode, which is one; for a closing, dying or unknown id, ErrGone. What is written before a dial has connected is sent then. On the loop only.
func (l *Loop) Write(id ID, b []byte) error {
	r := l.active(id)
	switch {
	case r == nil:
		return ErrGone
	case r.filter != 0:
		return l.writeFiltered(id, r, b, l.o.QueueMax)
	case len(b) >= directFrom && r.out == 0 && l.burst.row != r && r.flags&(flagBlocked|flagDeferred) == 0 && len(b) <= l.o.QueueMax:
		return l.writeDirect(id, r, b)
	}
	return l.append(id, r, b, l.o.QueueMax)
}

// WriteLast is Write for the last words before Close: it may pass QueueMax by 256 bytes, and does not ask NodeQueueMax.
func (l *Loop) WriteLast(id ID, b []byte) error {
	r := l.active(id)
	if r == nil {
		return ErrGone
	}
	if r.filter != 0 {
		return l.writeFiltered(id, r, b, l.o.QueueMax+lastExtra)
	}
	return l.append(id, r, b, l.o.QueueMax+lastExtra)
}

func (l *Loop) writeFiltered(id ID, r *row, b []byte, limit int) error {
	if len(b) == 0 {
		return nil
	}
	to, err := l.gather(id, r, len(b), limit)
	copy(to, b)
	return err
}

// Reserve adds n bytes behind what waits for id and returns them for the caller to fill, which saves a copy. They must be
// filled before the next Write, WriteLast or Reserve on this loop, for whatever socket, and before the callback ends.
// Errors as Write. On the loop only.
func (l *Loop) Reserve(id ID, n int) ([]byte, error) {
	r := l.active(id)
	if r == nil {
		return nil, ErrGone
	}
	if n <= 0 {
		return nil, nil
	}
	if r.filter != 0 {
		return l.gather(id, r, n, l.o.QueueMax)
	}
	if err := l.admit(id, r, n, l.o.QueueMax); err != nil {
		return nil, err
	}
	if p := l.staged(id, r, n); p != nil {
		l.unsent += n
		return p, nil
	}
	l.unburst(id, r)
	l.soil(id, r)
	q := l.queueOf(r)
	s := l.tail(q, n, n)
	from := len(s.b)
	s.b = s.b[:from+n]
	q.wait += uint32(n)
	l.unsent += n
	return s.b[from : from+n : from+n], nil
}

// QueueMax is how many bytes may wait for one socket.
func (l *Loop) QueueMax() int { return l.o.QueueMax }

// Queued is how many bytes wait for id, not counting what the kernel has taken. On the loop only.
func (l *Loop) Queued(id ID) int {
	r := l.row(id)
	if r == nil {
		return 0
	}
	if r.flags&flagDeferred != 0 {
		l.submit()
	}
	return l.waits(r)
}

// Unread is what the bytes of id take that wait for Data, because it has left them when it was called last, or because a filter
// has not decoded them. On the loop only.
func (l *Loop) Unread(id ID) (n int) {
	r := l.row(id)
	if r == nil {
		return 0
	}
	if r.left != 0 {
		n = cap(l.segments.items[r.left].b)
	}
	if r.filter != 0 {
		l.withFilter(id, r, func(f Filter) { n += f.Held() })
	}
	return n
}

// Blocked reports whether the kernel has left something of what was written to id, so that Drained is still to come. On the
// loop only.
func (l *Loop) Blocked(id ID) bool {
	r := l.row(id)
	return r != nil && r.flags&flagBlocked != 0
}

// Flush sends what the callback under way has written to id so far, and returns how many bytes the kernel did not take. On the
// loop only.
func (l *Loop) Flush(id ID) int {
	r := l.active(id)
	if r == nil {
		return 0
	}
	if r.flags&flagDeferred != 0 {
		l.submit()
	}
	if r.flags&(flagBlocked|flagDirty) == flagDirty {
		l.flush(id, r)
	}
	return l.waits(r)
}

// waits is how many bytes r has queued; queue 0 is the empty one, and filter 0 none.
func (l *Loop) waits(r *row) int {
	n := int(l.queues.items[r.out].wait)
	switch {
	case l.burst.row == r:
		n += l.burst.n
	case r.filter != 0:
		n += len(l.filters.items[r.filter].plain)
	}
	return n
}

// admit says whether n more bytes may wait for r. It first sends what can be sent if that decides it.
func (l *Loop) admit(id ID, r *row, n, limit int) error {
	if l.unsent+n > unsentMax {
		l.flushDirty()
	}
	if r.flags&flagDeferred != 0 { // what the kernel leaves of it has to be in front of what comes now
		l.submit()
	}
	if wait := l.waits(r); wait+n > limit || wait > l.eager {
		if r.flags&(flagBlocked|flagDirty) == flagDirty {
			l.flush(id, r)
		}
	}
	switch {
	case r.state == stateDying:
		return ErrGone
	case l.waits(r)+n > limit:
		l.stat.slow.Add(1)
		return ErrSlow
	case r.out != 0 && limit == l.o.QueueMax && l.queues.items[r.out].counted > 0 && l.r.queued.Load()+int64(n) > l.r.queueMax.Load():
		l.stat.slow.Add(1)
		return ErrNode
	default:
		return nil
	}
}

// append copies b into the queue, filling segments to the brim.
func (l *Loop) append(id ID, r *row, b []byte, limit int) error {
	if err := l.admit(id, r, len(b), limit); err != nil || len(b) == 0 {
		return err
	}
	if p := l.staged(id, r, len(b)); p != nil {
		copy(p, b)
		l.wrote(id, r, len(b))
		return nil
	}
	l.unburst(id, r)
	l.soil(id, r)
	l.enqueue(r, b)
	l.unsent += len(b)
	if int(l.queues.items[r.out].wait) > l.eager && r.flags&flagBlocked == 0 {
		l.flush(id, r)
	}
	return nil
}

// unburst sends r's burst, behind which no more has room.
func (l *Loop) unburst(id ID, r *row) {
	if l.burst.row == r {
		l.flush(id, r)
	}
}

// enqueue copies b to the end of r's queue.
func (l *Loop) enqueue(r *row, b []byte) {
	q := l.queueOf(r)
	q.wait += uint32(len(b))
	for len(b) > 0 {
		s := l.tail(q, 1, l.pieceOf(q, len(b)))
		n := min(len(b), cap(s.b)-len(s.b))
		s.b = append(s.b, b[:n]...)
		b = b[n:]
	}
}

// writeDirect hands b to the kernel and queues only what it does not take.
func (l *Loop) writeDirect(id ID, r *row, b []byte) error {
	n, errno := l.writeNow(int(id.Slot()), b)
	l.stat.wrote(n)
	switch {
	case n == len(b):
		return nil
	case errno != 0 && errno != syscall.EAGAIN && errno != syscall.EINTR:
		l.end(id, r, CauseReset, errno)
		return nil // b is lost with the socket; Closed says so
	}
	return l.append(id, r, b[n:], l.o.QueueMax)
}

// writeNow does not go through the kernel interface, so that b does not escape: callers can keep frames on their stacks.
func (l *Loop) writeNow(fd int, b []byte) (int, syscall.Errno) {
	if l.real != nil {
		return l.real.write(fd, b)
	}
	return l.sys.write(fd, slices.Clone(b))
}

// soil puts id on the list of sockets to flush.
func (l *Loop) soil(id ID, r *row) {
	if r.flags&flagDirty == 0 {
		r.flags |= flagDirty
		l.dirty = append(l.dirty, id)
	}
}

func (l *Loop) queueOf(r *row) *queue {
	if r.out == 0 {
		r.out, _ = l.queues.get()
	}
	return &l.queues.items[r.out]
}

// tail returns the last segment of q if it has n bytes of room, else a new one of size bytes.
func (l *Loop) tail(q *queue, n, size int) *segment {
	if q.tail != 0 {
		if s := &l.segments.items[q.tail]; cap(s.b)-len(s.b) >= n {
			return s
		}
	}
	return l.addSegment(q, size)
}

// pieceOf is the size of the next segment when n bytes are to be copied: a class that they fill, else one that doubles what
// the queue has, so that a few small writes share a segment.
func (l *Loop) pieceOf(q *queue, n int) int {
	if n >= packFrom {
		c := min(classOf(n+1)-1, classes-1) // the largest class not above n
		return 1 << (c + classMin)
	}
	return max(n, min(int(q.held), pieceMax))
}

func (l *Loop) addSegment(q *queue, n int) *segment {
	i, s := l.segments.get()
	s.b = l.pool.get(n)
	if q.tail == 0 {
		q.head = i
	} else {
		l.segments.items[q.tail].next = i
	}
	q.tail = i
	q.held += uint32(cap(s.b))
	return s
}

// flushDirty sends what callbacks have written.
func (l *Loop) flushDirty() {
	l.unsent = 0
	alone := len(l.dirty) == 1 && !l.batch.open
	for _, id := range l.dirty {
		if r := l.row(id); r != nil && r.flags&flagDirty != 0 && (alone || !l.putOff(id, r)) {
			l.flush(id, r)
		}
	}
	l.dirty = l.dirty[:0]
	if !l.batch.open {
		l.submit()
	}
}

// flush sends until the queue is empty or the kernel takes no more.
func (l *Loop) flush(id ID, r *row) {
	if r.flags&flagDeferred != 0 {
		l.submit()
	}
	if r.filter != 0 && r.state != stateDying {
		l.seal(id, r)
	}
	r.flags &^= flagDirty
	if r.flags&flagBlocked != 0 && r.state != stateDying {
		l.account(id, r)
		l.watch(id, r)
		return
	}
	if r.state == stateDying {
		if l.burst.row == r {
			l.endBurst()
		}
		return
	}
	progress := false
	if l.burst.row == r {
		var errno syscall.Errno
		progress, errno = l.sendBurst(id, r)
		if errno != 0 && errno != syscall.EAGAIN {
			l.end(id, r, CauseReset, errno)
			return
		}
	}
	for r.out != 0 {
		n, whole, errno := l.send(int(id.Slot()), r)
		if n > 0 {
			progress = true
			l.stat.wrote(n)
			l.consume(r, n)
		}
		if errno == syscall.EINTR || errno == 0 && whole {
			continue
		}
		if errno != 0 && errno != syscall.EAGAIN {
			l.end(id, r, CauseReset, errno)
			return
		}
		r.flags |= flagBlocked
		l.stat.blocked.Add(1)
		break
	}
	l.flushed(id, r, progress)
}

// flushed draws the consequences of a flush: what is counted, watched and waited for.
func (l *Loop) flushed(id ID, r *row, progress bool) {
	switch {
	case r.state == stateClosing:
		if r.out == 0 {
			l.shut(id, r)
		}
	case r.out == 0 && r.inner != 0:
		l.clearTimer(id.Slot(), r, &r.inner)
	case r.out != 0 && (progress || r.inner == 0):
		l.setTimer(id.Slot(), r, &r.inner, l.tickAt(l.Now().Add(l.o.WriteStall)))
	}
	l.account(id, r)
	l.watch(id, r)
}

// send hands the front of the queue to the kernel. whole: it took all that was offered.
func (l *Loop) send(fd int, r *row) (n int, whole bool, errno syscall.Errno) {
	q := &l.queues.items[r.out]
	s := &l.segments.items[q.head]
	if s.next == 0 {
		p := s.b[s.from:]
		n, errno = l.sys.write(fd, p)
		return n, n == len(p), errno
	}
	v, offered := l.vector[:0], 0
	for i := q.head; i != 0 && len(v) < vectorMax; i = s.next {
		s = &l.segments.items[i]
		p := s.b[s.from:]
		piece := syscall.Iovec{Base: unsafe.SliceData(p)}
		piece.SetLen(len(p))
		v = append(v, piece)
		offered += len(p)
	}
	n, errno = l.sys.writev(fd, v)
	return n, n == offered, errno
}

// consume drops n bytes from the front, giving back segments and, at the end, the queue.
func (l *Loop) consume(r *row, n int) {
	q := &l.queues.items[r.out]
	q.wait -= uint32(n)
	for q.head != 0 {
		s := &l.segments.items[q.head]
		rest := len(s.b) - int(s.from)
		if n < rest {
			s.from += int32(n)
			return
		}
		n -= rest
		l.dropHead(q)
	}
	l.dropQueue(r)
}

func (l *Loop) dropHead(q *queue) {
	i := q.head
	s := &l.segments.items[i]
	q.head = s.next
	q.held -= uint32(cap(s.b))
	if q.head == 0 {
		q.tail = 0
	}
	l.pool.put(s.b)
	l.segments.put(i)
}

// dropQueue frees the whole queue, sent or not.
func (l *Loop) dropQueue(r *row) {
	if r.out == 0 {
		return
	}
	q := &l.queues.items[r.out]
	for q.head != 0 {
		l.dropHead(q)
	}
	if q.counted > 0 {
		l.r.queued.Add(-int64(q.counted))
		l.stat.queued.Add(-int64(q.counted))
	}
	l.queues.put(r.out)
	r.out = 0
	r.flags &^= flagBlocked
}

// account tells the node what stays queued. A socket that begins to queue when the node has no room left is closed: a
// budget that newcomers may pass is none.
func (l *Loop) account(id ID, r *row) {
	if r.out == 0 || r.state == stateDying {
		return
	}
	q := &l.queues.items[r.out]
	if q.held == q.counted {
		return
	}
	begins := q.counted == 0
	more := int64(q.held) - int64(q.counted)
	total := l.r.queued.Add(more)
	l.stat.queued.Add(more)
	q.counted = q.held
	if most := l.r.queueMax.Load(); begins && total > most+most/graceShare && r.state == stateOpen {
		r.flags |= flagReset
		l.end(id, r, CauseSlow, 0)
	}
}

// writable goes on with a blocked queue.
func (l *Loop) writable(id ID, r *row) {
	if r.state != stateDialing && !l.sends(id, r) {
		return
	}
	r.flags &^= flagBlocked
	l.flush(id, r)
	if r.state == stateOpen && r.out == 0 {
		l.call(opDrained, id, r, nil)
	}
}
