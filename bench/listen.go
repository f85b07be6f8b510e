package bench

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Listen accepts connections on an IPv4 address; each gets a handler of its own. Close ends it. shared: other processes may listen there
// too, if they say so as well, and the kernel spreads the connections over them (SO_REUSEPORT). A connection that there is no descriptor
// for is ended, and its handler's Closed, with no Opened before it, hears EMFILE or ENFILE.
func (l *Loop) Listen(address string, shared bool, handler func() Handler) error {
	at, err := NewTarget(address)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bench: socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil && shared {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &at.sa)
	}
	if err == nil {
		err = unix.Listen(fd, 4096)
	}
	if err == nil {
		err = unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	}
	if err == nil && l.spare < 0 {
		l.spare, err = openSpare()
	}
	if err != nil {
		return fmt.Errorf("bench: listen on %s: %w", address, errors.Join(err, unix.Close(fd)))
	}
	if l.doors == nil {
		l.doors = make(map[int]func() Handler)
	}
	l.doors[fd] = handler
	return nil
}

// openSpare takes a descriptor to give up when there is no other.
func openSpare() (int, error) { return unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0) }

func (l *Loop) accept(door int, handler func() Handler) error {
	for {
		fd, _, err := unix.Accept4(door, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
		case unix.EAGAIN:
			return nil
		case unix.ECONNABORTED, unix.EINTR:
			continue
		case unix.EMFILE, unix.ENFILE:
			if more, err := l.turnAway(door, handler, err); !more {
				return err
			}
			continue
		default:
			return fmt.Errorf("bench: accept: %w", err)
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return fmt.Errorf("bench: TCP_NODELAY: %w", errors.Join(err, unix.Close(fd)))
		}
		c := l.row(fd, handler())
		c.up = true
		ev := unix.EpollEvent{Events: events, Fd: int32(fd), Pad: int32(c.gen)}
		if err := unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
			c.Close()
			return fmt.Errorf("bench: epoll_ctl: %w", err)
		}
		c.h.Opened(c)
	}
}

// turnAway ends the next connection, with the spare descriptor: left in the queue it would wake the loop again at once, for ever. It says
// whether there was one: without a descriptor the kernel does not tell.
func (l *Loop) turnAway(door int, handler func() Handler, why error) (more bool, err error) {
	_ = unix.Close(l.spare)
	fd, _, err := unix.Accept4(door, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if more = err == nil; more {
		l.row(fd, handler()).fail(fmt.Errorf("bench: accept: %w", why))
	}
	if l.spare, err = openSpare(); err != nil { // another process has taken the machine's last one
		return false, fmt.Errorf("bench: accept: %w", errors.Join(why, err))
	}
	return more, nil
}
