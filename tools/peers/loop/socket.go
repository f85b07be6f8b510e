package loop

import (
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// slow is what a socket needs only while a peer does not read.
type slow struct {
	out    []byte // what the kernel did not take
	from   int    // the socket that it came from, which is not read meanwhile
	paused bool   // not read: another socket, or itself, has bytes waiting
}

// Write sends b, which came from the socket from, on fd. What the kernel does not take waits for it, and from is not read
// meanwhile. An error is left to the next event of fd.
func (l *Loop) Write(fd, from int, b []byte) {
	if len(l.slow) > 0 {
		if s := l.slow[fd]; s != nil && len(s.out) > 0 {
			s.out = append(s.out, b...)
			return
		}
	}
	n, errno := call(unix.SYS_WRITE, fd, b)
	if errno == 0 && n == len(b) || errno != 0 && errno != unix.EAGAIN {
		return
	}
	s := l.slowOf(fd)
	s.out, s.from = append(s.out, b[n:]...), from
	l.slowOf(from).paused = true
	l.watch(fd)
	l.watch(from)
}

// flush sends what waits for fd; false: fd has ended.
func (l *Loop) flush(fd int) bool {
	s := l.slow[fd]
	if s == nil || len(s.out) == 0 {
		return true
	}
	n, errno := call(unix.SYS_WRITE, fd, s.out)
	if errno != 0 && errno != unix.EAGAIN {
		return false
	}
	if s.out = s.out[n:]; len(s.out) > 0 {
		return true
	}
	if from := l.slow[s.from]; from != nil {
		from.paused = false
		l.watch(s.from)
	}
	l.watch(fd)
	return true
}

func (l *Loop) paused(fd int) bool {
	if len(l.slow) == 0 {
		return false
	}
	s := l.slow[fd]
	return s != nil && s.paused
}

func (l *Loop) slowOf(fd int) *slow {
	s := l.slow[fd]
	if s == nil {
		s = new(slow)
		l.slow[fd] = s
	}
	return s
}

// watch tells epoll what fd waits for, and forgets its row if that is only bytes. A socket that is gone has no interest.
func (l *Loop) watch(fd int) {
	s := l.slow[fd]
	if s == nil {
		return
	}
	var events uint32
	if !s.paused {
		events |= unix.EPOLLIN
	}
	if len(s.out) > 0 {
		events |= unix.EPOLLOUT
	}
	_ = l.interest(unix.EPOLL_CTL_MOD, fd, events)
	if events == unix.EPOLLIN {
		delete(l.slow, fd)
	}
}

// Dial connects to address without waiting; bytes that are written before the connection stands wait for it.
func (l *Loop) Dial(address netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: address.Addr().As4(), Port: int(address.Port())})
	}
	if err == nil || err == unix.EINPROGRESS {
		err = l.interest(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN)
	}
	if err != nil {
		_ = unix.Close(fd) // nothing was written
		return -1, fmt.Errorf("connect to %s: %w", address, err)
	}
	return fd, nil
}

// call reads or writes without telling Go's scheduler; the descriptor is non-blocking and b is not empty. n is 0 with an
// error.
func call(trap uintptr, fd int, b []byte) (n int, errno syscall.Errno) {
	r, _, errno := syscall.RawSyscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}

// wait waits for events without telling Go's scheduler, as a program without one would; calm: it is told, as it would interrupt long
// waits. n is 0 with an error.
func wait(ep int, events []unix.EpollEvent, calm bool) (n int, errno syscall.Errno) {
	var r uintptr
	if calm { // two calls: the pointer may become a number only in that of a function of package syscall
		r, _, errno = syscall.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), ^uintptr(0), 0, 0)
	} else {
		r, _, errno = syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), ^uintptr(0), 0, 0)
	}
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}

// accept takes one connection; nobody asks for its address.
func accept(listener int) (fd int, errno syscall.Errno) {
	r, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return int(r), errno
}
