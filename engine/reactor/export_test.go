package reactor

import (
	"syscall"
	"time"
	"unsafe"

	"ticketgate/internal/uring"
)

// For the tests in package reactor_test.

const RowSize = unsafe.Sizeof(row{})

// Age makes the reactor as old as d, before it has had a socket.
func (m *Memory) Age(d time.Duration) { m.r.base = m.r.base.Add(-d) }

// Held is how many segments and queues the loops' sockets hold, and how many free bytes the pools keep.
func (m *Memory) Held() (segments, queues, free int) {
	for _, l := range m.r.loops {
		segments += len(l.segments.items) - 1 - len(l.segments.free)
		queues += len(l.queues.items) - 1 - len(l.queues.free)
		for _, list := range l.pool.free {
			for _, b := range list {
				free += cap(b)
			}
		}
	}
	return segments, queues, free
}

// Linked is how many rows stand in the wheels, and whether a tick is on.
func (m *Memory) Linked() (rows int, ticking bool) {
	for _, l := range m.r.loops {
		rows += l.wheel.count
		ticking = ticking || l.alarmed
	}
	return rows, ticking
}

// Inject tells a loop that slot is ready for everything, true or not.
func (m *Memory) Inject(loop int, slot uint32) {
	m.r.loops[loop].event(int(slot), readyRead|readyWrite)
}

// Connected asks the kernel about the dial of fd.
func Connected(fd int) syscall.Errno { return new(linux).connected(fd) }

// ConnsFor is the default of Options.MaxConns.
func ConnsFor(reserve int) int { return connsFor(reserve) }

// A RealKernel is the kernel of one loop without the loop.
type RealKernel struct{ k *linux }

func OpenRealKernel() (RealKernel, error) {
	k, err := openLinux()
	return RealKernel{k}, err
}

func (r RealKernel) Watch(fd int, had, want uint8) syscall.Errno { return r.k.watch(fd, had, want) }
func (r RealKernel) End()                                        { r.k.end() }

// TryPost is Post that reports false instead of waiting.
func (r *Reactor) TryPost(loop int, w Work) bool { return r.loops[loop].post(&w) }

// Of batches.
const (
	BatchMax  = batchMax
	SlotBytes = slotBytes
	StageSize = stageSize
	OffMax    = offMax
)

// Calls are what one loop asks of its kernel.
type Calls struct {
	Watch               int   // what the poller was told
	Read, Write         int   // calls for one socket; sendmsg, too
	ReadMany, WriteMany []int // the sockets of each call for many
	Interrupt           int   // so many of the next transfers of calls for many come to EINTR
	Unwatched           int   // so many of the next sockets the poller does not take
}

// observed is a kernel that notes what it is asked.
type observed struct {
	kernel
	Calls
	inside bool // a call for many, which is made of calls for one
}

// Observe notes what the loop asks of its kernel from now on. Before Start.
func (r *Reactor) Observe(loop int) *Calls {
	l := r.loops[loop]
	k := &observed{kernel: l.sys}
	l.sys = k
	return &k.Calls
}

func (k *observed) watch(fd int, had, want uint8) syscall.Errno {
	k.Watch++
	if had == 0 && k.Unwatched > 0 {
		k.Unwatched--
		return syscall.ENOSPC
	}
	return k.kernel.watch(fd, had, want)
}

func (k *observed) read(fd int, p []byte) (int, syscall.Errno) {
	k.Read++
	return k.kernel.read(fd, p)
}

func (k *observed) write(fd int, p []byte) (int, syscall.Errno) {
	if !k.inside {
		k.Write++
	}
	return k.kernel.write(fd, p)
}

func (k *observed) writev(fd int, v []syscall.Iovec) (int, syscall.Errno) {
	k.Write++
	return k.kernel.writev(fd, v)
}

func (k *observed) readMany(t []transfer) {
	k.ReadMany = append(k.ReadMany, len(t))
	k.kernel.readMany(k.interrupted(t))
}

func (k *observed) writeMany(t []transfer) {
	k.WriteMany = append(k.WriteMany, len(t))
	k.inside = true
	k.kernel.writeMany(k.interrupted(t))
	k.inside = false
}

// interrupted answers the first of t with EINTR, as Interrupt says, and returns the rest.
func (k *observed) interrupted(t []transfer) []transfer {
	n := min(k.Interrupt, len(t))
	k.Interrupt -= n
	for i := range t[:n] {
		t[i].n, t[i].errno = 0, syscall.EINTR
	}
	return t[n:]
}

// Turn turns one loop, as if its goroutine ran while another's is in a callback.
func (m *Memory) Turn(loop int) { m.kernels[loop].turn() }

// OpenUring gives k an io_uring.
func (r RealKernel) OpenUring() (err error) {
	r.k.uring, err = uring.Open()
	return err
}
