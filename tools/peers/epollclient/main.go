// Command epollclient is the least that a closed-loop WebSocket client can be: each socket has some masked text frames under way and
// sends as many again, with one write, as answers have come back. It is one level-triggered loop of raw system calls, as in package
// loop, and counts bytes: it looks at none of them. What the client of `ticketgate bench echo --closed` costs is compared with it. It
// prints one line of JSON and ends.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	readBytes = 64 << 10
	eventsMax = 512
	upgrade   = "GET / HTTP/1.1\r\nHost: bare\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

func main() {
	address := flag.String("address", "", "the server")
	sockets := flag.Int("sockets", 100, "sockets")
	size := flag.Int("bytes", 128, "of a message, 126 to 65535 or less than 126")
	inFlight := flag.Int("in-flight", 1, "messages that a socket has under way")
	length := flag.Duration("for", 5*time.Second, "how long it sends")
	flag.Parse()
	if err := run(*address, *sockets, *size, *inFlight, *length); err != nil {
		fmt.Fprintln(os.Stderr, "epollclient:", err)
		os.Exit(1)
	}
}

type client struct {
	ep     int
	frames []byte // as many as a socket has under way
	frame  int    // bytes of one
	answer int    // bytes of one
	parts  []int  // bytes of the answer that are here, by descriptor; -1: not ours
	buf    [readBytes]byte
	events [eventsMax]unix.EpollEvent
	done   uint64
}

func run(address string, sockets, size, inFlight int, length time.Duration) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	debug.SetGCPercent(-1)
	c := &client{}
	if c.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	head := []byte{0x81, 0x80 | byte(size)}
	c.answer = 2 + size
	if size > 125 {
		head = []byte{0x81, 0x80 | 126, byte(size >> 8), byte(size)}
		c.answer = 4 + size
	}
	frame := append(append(head, 0, 0, 0, 0), bytes.Repeat([]byte{'x'}, size)...)
	c.frame, c.frames = len(frame), bytes.Repeat(frame, inFlight)
	for range sockets {
		if err := c.connect(at); err != nil {
			return err
		}
	}
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		return err
	}
	start := time.Now()
	for fd, n := range c.parts {
		if n == 0 {
			c.send(fd, inFlight)
		}
	}
	for time.Since(start) < length {
		if err := c.turn(); err != nil {
			return err
		}
	}
	took := time.Since(start)
	if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
		return err
	}
	cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"messages": c.done, "seconds": took.Seconds(), "cpu_ns": cpu.Nanoseconds()})
}

// connect opens one socket, and waits for its 101.
func (c *client) connect(at netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("TCP_NODELAY: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if _, err := unix.Write(fd, []byte(upgrade)); err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	var got []byte
	for !bytes.HasSuffix(got, []byte("\r\n\r\n")) {
		n, err := unix.Read(fd, c.buf[:])
		if err != nil || n == 0 {
			return fmt.Errorf("upgrade: ended after %q: %w", got, err)
		}
		got = append(got, c.buf[:n]...)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	for fd >= len(c.parts) {
		c.parts = append(c.parts, -1)
	}
	c.parts[fd] = 0
	return unix.EpollCtl(c.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (c *client) turn() error {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(c.ep), uintptr(unsafe.Pointer(&c.events[0])), eventsMax, 50, 0, 0)
	switch errno {
	case 0:
	case unix.EINTR:
		n = 0
	default:
		return fmt.Errorf("epoll_wait: %w", errno)
	}
	for i := range int(n) {
		fd := int(c.events[i].Fd)
		got, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&c.buf[0])), readBytes)
		if errno == unix.EAGAIN {
			continue
		}
		if errno != 0 {
			return fmt.Errorf("read: %w", errno)
		}
		if got == 0 {
			return errors.New("the server ended a socket")
		}
		if c.parts[fd] += int(got); c.parts[fd] >= c.answer {
			n := c.parts[fd] / c.answer
			c.parts[fd] -= n * c.answer
			c.done += uint64(n)
			c.send(fd, n)
		}
	}
	return nil
}

func (c *client) send(fd, n int) {
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&c.frames[0])), uintptr(n*c.frame))
}
