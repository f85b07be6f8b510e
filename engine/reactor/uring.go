package reactor

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// io_uring (io_uring(7)), of which one thing is used: many reads or writes of sockets in one system call. Nothing is under way
// when that call returns, so no buffer belongs to the kernel outside of it. Readiness, accepting, dialling and closing stay with
// epoll and calls of their own.
//
//	sqes   |recv|recv|recv|...        filled here, from the submission queue's tail on
//	          │ io_uring_enter: each is done on the spot, because MSG_DONTWAIT forbids it to wait
//	          v
//	cqes   |n|-EAGAIN|n|...           one for each, by user = its place in the batch; taken from the head on
type uring struct {
	fd       int
	rings    []byte // the mapping of both queues
	slots    []byte // the mapping behind sqes
	sqHead   *uint32
	sqTail   *uint32
	sqMask   uint32
	sqes     []uringSQE
	cqHead   *uint32
	cqTail   *uint32
	cqMask   uint32
	cqes     []uringCQE
	answered [batchMax]bool
}

// Of linux/io_uring.h; x/sys has none of it.
const (
	sysIOUringSetup = 425
	sysIOUringEnter = 426

	uringSubmitAll = 1 << 7 // IORING_SETUP_SUBMIT_ALL (Linux 5.18): an entry that fails does not stop those behind it

	uringEnterGetEvents = 1 << 0 // IORING_ENTER_GETEVENTS
	uringOffsetSQEs     = 0x10000000
	uringOpSend         = 26 // Linux 5.6
	uringOpRecv         = 27
)

type uringSQE struct {
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

type uringCQE struct {
	user  uint64
	res   int32
	flags uint32
}

type uringParams struct {
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

// openUring returns a ring that has read and written once, or why there is none: the kernel is older than 5.18, or
// kernel.io_uring_disabled or a seccomp filter forbids it.
func openUring() (*uring, error) {
	u, err := newUring()
	if err == nil {
		err = u.try()
	}
	if err != nil {
		if u != nil {
			u.close()
		}
		return nil, err
	}
	return u, nil
}

// newUring sets up a ring; with an error it is to be closed, if there is one.
func newUring() (u *uring, err error) {
	p := uringParams{flags: uringSubmitAll}
	fd, _, errno := syscall.Syscall(sysIOUringSetup, batchMax, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	u = &uring{fd: int(fd)}
	size := max(p.sq.array+p.sqEntries*4, p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(uringCQE{})))
	const flags = unix.MAP_SHARED | unix.MAP_POPULATE
	if u.rings, err = unix.Mmap(u.fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, flags); err != nil {
		return u, os.NewSyscallError("mmap", err) // a kernel without IORING_FEAT_SINGLE_MMAP (5.4) comes to no good here
	}
	bytes := int(p.sqEntries) * int(unsafe.Sizeof(uringSQE{}))
	if u.slots, err = unix.Mmap(u.fd, uringOffsetSQEs, bytes, unix.PROT_READ|unix.PROT_WRITE, flags); err != nil {
		return u, os.NewSyscallError("mmap", err)
	}
	word := func(at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&u.rings[at])) }
	u.sqHead, u.sqTail, u.sqMask = word(p.sq.head), word(p.sq.tail), *word(p.sq.mask)
	u.cqHead, u.cqTail, u.cqMask = word(p.cq.head), word(p.cq.tail), *word(p.cq.mask)
	u.sqes = unsafe.Slice((*uringSQE)(unsafe.Pointer(&u.slots[0])), p.sqEntries)
	u.cqes = unsafe.Slice((*uringCQE)(unsafe.Pointer(&u.rings[p.cq.cqes])), p.cqEntries)
	for i, index := uint32(0), unsafe.Slice(word(p.sq.array), p.sqEntries); i < p.sqEntries; i++ {
		index[i] = i
	}
	return u, nil
}

func (u *uring) close() {
	if u.slots != nil {
		_ = unix.Munmap(u.slots)
	}
	if u.rings != nil {
		_ = unix.Munmap(u.rings)
	}
	_ = unix.Close(u.fd)
}

// try sends a byte to itself, and reads once more than there is: that must not wait either.
func (u *uring) try() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	defer func() { _, _ = unix.Close(pair[0]), unix.Close(pair[1]) }()
	sends := []transfer{{fd: int32(pair[0]), p: []byte{'t'}}, {fd: -1, p: []byte{'t'}}}
	reads := []transfer{{fd: int32(pair[1]), p: make([]byte, 2)}, {fd: int32(pair[0]), p: make([]byte, 2)}}
	if n := u.do(uringOpSend, sends); n != 2 || sends[0].n != 1 || sends[1].errno != unix.EBADF {
		return fmt.Errorf("io_uring: a send came to %d, %w", sends[0].n, errors.Join(sends[0].errno, sends[1].errno))
	}
	if n := u.do(uringOpRecv, reads); n != 2 || reads[0].n != 1 || reads[0].p[0] != 't' || reads[1].errno != unix.EAGAIN {
		return fmt.Errorf("io_uring: a read came to %d, %w", reads[0].n, errors.Join(reads[0].errno, reads[1].errno))
	}
	return nil
}

// do does op for each of t, at most batchMax, and puts down what became of it. It returns how many were done: the kernel may
// take fewer, of which those behind are untouched.
func (u *uring) do(op uint8, t []transfer) int {
	tail := *u.sqTail // nobody else writes it
	for i := range t {
		x := &t[i]
		*u.sqe(tail + uint32(i)) = uringSQE{
			op: op, fd: x.fd, addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(x.p)))), length: uint32(len(x.p)),
			msgFlags: unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL, user: uint64(i),
		}
		u.answered[i] = false
	}
	atomic.StoreUint32(u.sqTail, tail+uint32(len(t)))
	for {
		_, _, errno := syscall.RawSyscall6(sysIOUringEnter, uintptr(u.fd), uintptr(len(t)), 0, 0, 0, 0)
		if errno != unix.EINTR {
			break
		}
	}
	taken := int(atomic.LoadUint32(u.sqHead) - tail)
	if taken < len(t) { // no memory for the rest: it is taken back
		atomic.StoreUint32(u.sqTail, tail+uint32(taken))
	}
	for got := u.reap(t); got < taken; got += u.reap(t) {
		// Not on the spot, then, but under way: an answer has to come before its buffer may be used again.
		_, _, _ = syscall.RawSyscall6(sysIOUringEnter, uintptr(u.fd), 0, 0, uringEnterGetEvents, 0, 0)
	}
	return taken
}

func (u *uring) sqe(at uint32) *uringSQE { return &u.sqes[at&u.sqMask] }

// reap takes the answers that are there.
func (u *uring) reap(t []transfer) (n int) {
	head, tail := *u.cqHead, atomic.LoadUint32(u.cqTail)
	for ; head != tail; head++ {
		e := &u.cqes[head&u.cqMask]
		if e.user >= uint64(len(t)) || u.answered[e.user] {
			continue // cannot be
		}
		u.answered[e.user] = true
		n++
		x := &t[e.user]
		if x.n, x.errno = e.res, 0; e.res < 0 {
			x.n, x.errno = 0, syscall.Errno(-e.res)
		}
	}
	atomic.StoreUint32(u.cqHead, head)
	return n
}
