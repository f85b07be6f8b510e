package reactor

import (
	"syscall"
	"time"
	"unsafe"
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
