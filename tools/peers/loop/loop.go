// Package loop is the least that a server on epoll can be: one level-triggered loop a core, SO_REUSEPORT, one read buffer
// a loop, raw system calls. What it costs is what the kernel costs, so it is the floor under the gateway's figures.
package loop

import (
	"context"
	"fmt"
	"net/netip"
	"os/signal"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	readBytes = 64 << 10
	eventsMax = 512
	backlog   = 4096
)

// A Peer is the behaviour of one loop's sockets. Its methods are called on that loop only.
type Peer interface {
	// Data takes what arrived on fd; false closes fd. b is overwritten after the call.
	Data(fd int, b []byte) bool
	// Gone says that fd is closed.
	Gone(fd int)
}

// Serve runs one loop a core, each with a Peer of its own, on address (IPv4; port 0: any), prints the address in one line
// on stdout, and returns when the process gets SIGTERM or SIGINT, or with the first error of a loop.
func Serve(address string, newPeer func() Peer) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	failed := make(chan error, runtime.GOMAXPROCS(0))
	for range cap(failed) {
		l, err := listen(&at)
		if err != nil {
			return err
		}
		go func() { failed <- l.run(newPeer()) }() // ends with the process: Serve is all that main does
	}
	fmt.Println(at)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

type loop struct{ ep, listener int }

// listen opens one more listener on at, and puts the port that the kernel chose into at.
func listen(at *netip.AddrPort) (*loop, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	for _, opt := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, 1); err != nil {
			return nil, fmt.Errorf("setsockopt: %w", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}); err != nil {
		return nil, fmt.Errorf("bind %s: %w", at, err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil, fmt.Errorf("getsockname: %w", err)
	}
	*at = netip.AddrPortFrom(at.Addr(), uint16(sa.(*unix.SockaddrInet4).Port))
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	l := &loop{ep, fd}
	return l, l.add(fd)
}

func (l *loop) add(fd int) error {
	if err := unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

func (l *loop) run(p Peer) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var ready [eventsMax]unix.EpollEvent
	buf := make([]byte, readBytes)
	for {
		n, err := unix.EpollWait(l.ep, ready[:], -1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		for _, ev := range ready[:max(n, 0)] {
			if fd := int(ev.Fd); fd != l.listener {
				serve(p, fd, buf)
			} else if err := l.accept(); err != nil {
				return err
			}
		}
	}
}

func (l *loop) accept() error {
	for {
		fd, _, err := unix.Accept4(l.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
		case unix.EAGAIN:
			return nil
		case unix.ECONNABORTED, unix.EINTR:
			continue
		default:
			return fmt.Errorf("accept: %w", err)
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return fmt.Errorf("TCP_NODELAY: %w", err)
		}
		if err := l.add(fd); err != nil {
			return err
		}
	}
}

func serve(p Peer, fd int, buf []byte) {
	n, errno := call(unix.SYS_READ, fd, buf)
	if errno == unix.EAGAIN || errno == 0 && n > 0 && p.Data(fd, buf[:n]) {
		return
	}
	_ = unix.Close(fd) // a socket's close has no error that a server could act on
	p.Gone(fd)
}

// Write writes all of b, or answers false. A peer of a benchmark has less in flight than a socket's buffers hold, so a
// short write is a fault of the setting and not a case to serve.
func Write(fd int, b []byte) bool {
	n, errno := call(unix.SYS_WRITE, fd, b)
	return errno == 0 && n == len(b)
}

// call reads or writes without telling Go's scheduler; the descriptor is non-blocking and b is not empty.
func call(trap uintptr, fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}
