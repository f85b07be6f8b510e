// Package uring reads and writes many sockets in one system call.
package uring

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Max is how many reads or writes one call takes.
const Max = 32

// A Ring is an io_uring (io_uring(7)), of which one thing is used: many reads or writes of sockets in one system call. Nothing is
// under way when that call returns, so no buffer belongs to the kernel outside of it. Readiness, accepting, dialling and closing
// stay with epoll and calls of their own. One goroutine at a time may use it.
//
//	sqes   |recv|recv|recv|...        filled by Recv and Send, from the submission queue's tail on
//	          │ io_uring_enter: each is done on the spot, because MSG_DONTWAIT forbids it to wait
//	          v
//	cqes   |n|-EAGAIN|n|...           one for each, by user = its place in the batch; taken from the head on
type Ring struct {
	fd      int
	rings   []byte // the mapping of both queues
	slots   []byte // the mapping behind sqes
	sqHead  *uint32
	sqTail  *uint32
	sqMask  uint32
	sqes    []sqe
	cqHead  *uint32
	cqTail  *uint32
	cqMask  uint32
	cqes    []cqe
	scratch [4]byte    // for try
	n       int        // calls since Do
	results [Max]int32 // bytes, or a negative errno; untaken: the kernel has not taken it
}

// untaken is no errno of the kernel's.
const untaken = -1 << 31

// Of linux/io_uring.h; x/sys has none of it.
const (
	sysSetup = 425
	sysEnter = 426

	submitAll = 1 << 7 // IORING_SETUP_SUBMIT_ALL (Linux 5.18): an entry that fails does not stop those behind it

	enterGetEvents = 1 << 0 // IORING_ENTER_GETEVENTS
	offsetSQEs     = 0x10000000
	opSend         = 26 // Linux 5.6
	opRecv         = 27
)

type sqe struct {
	op, flags uint8
	priority  uint16
	fd        int32
	offset    uint64
	addr      uint64
	length    uint32
	msgFlags  uint32
	user      uint64
	_         [3]uint64
}

type cqe struct {
	user  uint64
	res   int32
	flags uint32
}

type params struct {
	sqEntries, cqEntries, flags, cpu, idle, features, workers uint32
	_                                                         [3]uint32
	sq                                                        struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// Open returns a ring that has read and written once, or why there is none: the kernel is older than 5.18, or
// kernel.io_uring_disabled or a seccomp filter forbids it.
func Open() (*Ring, error) {
	r, err := newRing()
	if err == nil {
		err = r.try()
	}
	if err != nil {
		if r != nil {
			r.Close()
		}
		return nil, err
	}
	return r, nil
}

// newRing sets up a ring; with an error it is to be closed, if there is one.
func newRing() (r *Ring, err error) {
	p := params{flags: submitAll}
	fd, _, errno := syscall.Syscall(sysSetup, Max, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	r = &Ring{fd: int(fd)}
	size := max(p.sq.array+p.sqEntries*4, p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(cqe{})))
	const flags = unix.MAP_SHARED | unix.MAP_POPULATE
	if r.rings, err = unix.Mmap(r.fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, flags); err != nil {
		return r, os.NewSyscallError("mmap", err) // a kernel without IORING_FEAT_SINGLE_MMAP (5.4) comes to no good here
	}
	bytes := int(p.sqEntries) * int(unsafe.Sizeof(sqe{}))
	if r.slots, err = unix.Mmap(r.fd, offsetSQEs, bytes, unix.PROT_READ|unix.PROT_WRITE, flags); err != nil {
		return r, os.NewSyscallError("mmap", err)
	}
	word := func(at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[at])) }
	r.sqHead, r.sqTail, r.sqMask = word(p.sq.head), word(p.sq.tail), *word(p.sq.mask)
	r.cqHead, r.cqTail, r.cqMask = word(p.cq.head), word(p.cq.tail), *word(p.cq.mask)
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&r.slots[0])), p.sqEntries)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&r.rings[p.cq.cqes])), p.cqEntries)
	for i, index := uint32(0), unsafe.Slice(word(p.sq.array), p.sqEntries); i < p.sqEntries; i++ {
		index[i] = i
	}
	return r, nil
}

// Close ends r, which is of no use then.
func (r *Ring) Close() {
	if r.slots != nil {
		_ = unix.Munmap(r.slots)
	}
	if r.rings != nil {
		_ = unix.Munmap(r.rings)
	}
	_ = unix.Close(r.fd)
}

// try sends a byte to itself, and reads once more than there is: that must not wait either.
func (r *Ring) try() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	defer func() { _, _ = unix.Close(pair[0]), unix.Close(pair[1]) }()
	t, got, none := r.scratch[:1], r.scratch[1:3], r.scratch[3:]
	t[0] = 't'
	r.Send(pair[0], t)
	r.Send(-1, t)
	if r.Do(); r.results[0] != 1 || r.results[1] != -int32(unix.EBADF) {
		return fmt.Errorf("io_uring: two sends came to %d", r.results[:2])
	}
	r.Recv(pair[1], got)
	r.Recv(pair[0], none)
	if r.Do(); r.results[0] != 1 || got[0] != 't' || r.results[1] != -int32(unix.EAGAIN) {
		return fmt.Errorf("io_uring: two reads came to %d", r.results[:2])
	}
	return nil
}

// Recv lets the next Do read fd into p. From Do to Do there may be Max calls of Recv, or of Send; p has to stay where it is, and
// reachable, until Do has returned: it must not lie on a stack, which moves.
func (r *Ring) Recv(fd int, p []byte) { r.add(opRecv, fd, p) }

// Send lets the next Do write p to fd, as Recv.
func (r *Ring) Send(fd int, p []byte) { r.add(opSend, fd, p) }

func (r *Ring) add(op uint8, fd int, p []byte) {
	*r.sqe(*r.sqTail + uint32(r.n)) = sqe{ // nobody else writes the tail
		op: op, fd: int32(fd), addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))), length: uint32(len(p)),
		msgFlags: unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL, user: uint64(r.n),
	}
	r.results[r.n] = untaken
	r.n++
}

// Do does what was asked for, in that order, and keeps what became of each: see Result.
func (r *Ring) Do() {
	tail, n := *r.sqTail, r.n
	r.n = 0
	atomic.StoreUint32(r.sqTail, tail+uint32(n))
	for {
		_, _, errno := syscall.RawSyscall6(sysEnter, uintptr(r.fd), uintptr(n), 0, 0, 0, 0)
		if errno != unix.EINTR {
			break
		}
	}
	taken := int(atomic.LoadUint32(r.sqHead) - tail)
	if taken < n { // no memory for the rest: it is taken back
		atomic.StoreUint32(r.sqTail, tail+uint32(taken))
	}
	for got := r.reap(n); got < taken; got += r.reap(n) {
		// Not on the spot, then, but under way: an answer has to come before its buffer may be used again.
		_, _, _ = syscall.RawSyscall6(sysEnter, uintptr(r.fd), 0, 0, enterGetEvents, 0, 0)
	}
}

// Result says what became of the call number i, from 0, of the last Do: n bytes, or none and why. Not ok says that the ring, not
// the socket, had no room for it, and nothing was done: then a call of its own tells.
func (r *Ring) Result(i int) (n int, errno syscall.Errno, ok bool) {
	switch res := r.results[i]; {
	case res >= 0:
		return int(res), 0, true
	case res == untaken:
		return 0, 0, false
	default:
		errno = syscall.Errno(-res)
		return 0, errno, errno != unix.ENOMEM && errno != unix.ENOBUFS && errno != unix.EBUSY && errno != unix.ECANCELED
	}
}

func (r *Ring) sqe(at uint32) *sqe { return &r.sqes[at&r.sqMask] }

// reap takes the answers that are there, to n calls.
func (r *Ring) reap(n int) (got int) {
	head, tail := *r.cqHead, atomic.LoadUint32(r.cqTail)
	for ; head != tail; head++ {
		e := &r.cqes[head&r.cqMask]
		if e.user >= uint64(n) || r.results[e.user] != untaken {
			continue // cannot be
		}
		r.results[e.user] = e.res
		got++
	}
	atomic.StoreUint32(r.cqHead, head)
	return got
}
