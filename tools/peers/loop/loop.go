// Package loop is the least that a server on epoll can be: one level-triggered loop a core, SO_REUSEPORT, one read buffer
// a loop, raw system calls, nothing per socket unless its peer does not read. What it costs is what the kernel costs, so it
// is the floor under the gateway's figures.
//
//	loop.go    Serve        the loops, accepting, reading until a read comes back short
//	socket.go  Write, Dial  what the kernel does not take waits, and its source is not read meanwhile
package loop

import (
	"context"
	"fmt"
	"net/netip"
	"os/signal"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

const (
	readBytes = 128 << 10 // as the gateway's
	eventsMax = 512
	backlog   = 4096
)

// A Peer is the behaviour of one loop's sockets. Its methods are called on that loop only.
type Peer interface {
	// Open says that fd was accepted; false closes it.
	Open(fd int) bool
	// Data takes what arrived on fd, and may change it; false closes fd. b is overwritten after the call.
	Data(fd int, b []byte) bool
	// Gone says that fd, accepted or dialled, is closed.
	Gone(fd int)
}

// Serve runs one loop a core, each with a Peer of its own, on address (IPv4; port 0: any), prints the address in one line
// on stdout, and returns when the process gets SIGTERM or SIGINT, or with the first error of a loop.
func Serve(address string, newPeer func(*Loop) Peer) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	// A loop waits in a raw system call and keeps its place in Go's scheduler: one more place is for this goroutine. The
	// collector would wait for the loops, and has nothing to collect.
	failed := make(chan error, runtime.GOMAXPROCS(0))
	runtime.GOMAXPROCS(cap(failed) + 1)
	debug.SetGCPercent(-1)
	for range cap(failed) {
		l, err := listen(&at)
		if err != nil {
			return err
		}
		l.peer = newPeer(l)
		go func() { failed <- l.run() }() // ends with the process: Serve is all that main does
	}
	fmt.Println(at)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// A Loop is one epoll descriptor and the sockets in it.
type Loop struct {
	ep, listener int
	timer        int    // -1: none
	due          func() // when timer says so
	calm         bool
	peer         Peer
	slow         map[int]*slow // by descriptor: sockets that wait, or that are waited for
	events       [eventsMax]unix.EpollEvent
	buf          [readBytes]byte
}

// listen opens one more listener on at, and puts the port that the kernel chose into at.
func listen(at *netip.AddrPort) (*Loop, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	for _, opt := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, 1); err != nil {
			return nil, fmt.Errorf("setsockopt: %w", err)
		}
	}
	// Accepted sockets inherit it.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return nil, fmt.Errorf("TCP_NODELAY: %w", err)
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
	l := &Loop{ep: ep, listener: fd, timer: -1, slow: make(map[int]*slow)}
	return l, l.interest(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN)
}

func (l *Loop) run() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		n, errno := wait(l.ep, l.events[:], l.calm)
		if errno != 0 && errno != unix.EINTR {
			return fmt.Errorf("epoll_wait: %w", errno)
		}
		for i := range n {
			ev := &l.events[i]
			switch fd := int(ev.Fd); fd {
			case l.listener:
				if err := l.accept(); err != nil {
					return err
				}
			case l.timer:
				var times [8]byte
				_, _ = call(unix.SYS_READ, fd, times[:])
				l.due()
			default:
				l.ready(fd, ev.Events)
			}
		}
	}
}

// Calm makes the loop one that mostly sleeps: Go's scheduler, which would interrupt a wait that it is not told of a hundred times a
// second, hears of every one. It may be called before the loop runs.
func (l *Loop) Calm() { l.calm = true }

// Every makes the loop call due once in every d, from now on. It may be called once, before the loop runs.
func (l *Loop) Every(d time.Duration, due func()) error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("timerfd: %w", err)
	}
	l.timer, l.due = fd, due
	every := unix.NsecToTimespec(int64(d))
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
		return fmt.Errorf("timerfd: %w", err)
	}
	return l.interest(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN)
}

func (l *Loop) accept() error {
	for {
		fd, errno := accept(l.listener)
		switch errno {
		case 0:
		case unix.EAGAIN:
			return nil
		case unix.ECONNABORTED, unix.EINTR:
			continue
		default:
			return fmt.Errorf("accept: %w", errno)
		}
		if err := l.interest(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN); err != nil {
			return err
		}
		if !l.peer.Open(fd) {
			l.Close(fd)
		}
	}
}

// ready serves one socket. Its read may have closed others whose events are still to come; they then fail with EBADF or
// EAGAIN, which a floor can afford.
func (l *Loop) ready(fd int, ev uint32) {
	if ev&unix.EPOLLOUT != 0 && !l.flush(fd) {
		l.Close(fd)
		return
	}
	if ev&^uint32(unix.EPOLLOUT) != 0 && !l.read(fd) {
		l.Close(fd)
	}
}

// read takes what has arrived, until a read comes back short; false: fd has ended.
func (l *Loop) read(fd int) bool {
	for {
		n, errno := call(unix.SYS_READ, fd, l.buf[:])
		switch {
		case errno == unix.EAGAIN || errno == unix.EBADF:
			return true
		case errno != 0 || n == 0 || !l.peer.Data(fd, l.buf[:n]):
			return false
		case n < len(l.buf) || l.paused(fd):
			return true
		}
	}
}

// Close closes fd and tells the peer. An fd that is closed already is let alone.
func (l *Loop) Close(fd int) {
	if unix.Close(fd) == nil {
		delete(l.slow, fd)
		l.peer.Gone(fd)
	}
}

func (l *Loop) interest(op, fd int, events uint32) error {
	if err := unix.EpollCtl(l.ep, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}
