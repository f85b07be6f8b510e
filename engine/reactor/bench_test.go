package reactor_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"ticketgate/engine/reactor"
)

// benchEnv makes this test binary an echo server in a process of its own, so that its CPU time is its own: "reactor", or
// "bare", which is epoll and nothing else. It says its address, then for each byte read its CPU time in microseconds, its
// resident bytes and its allocations.
const benchEnv = "REACTOR_TEST_BENCH"

func benchServer(kind string) int {
	var addr net.Addr
	var err error
	switch kind {
	case "bare":
		addr, err = bareEcho()
	default:
		var r *reactor.Reactor
		if r, err = reactor.New(reactor.Options{Loops: 1, Handlers: []reactor.Handler{echo()}}); err == nil {
			defer func() { _ = r.Stop(context.Background()) }()
			if addr, err = r.Listen("tcp", "127.0.0.1:0"); err == nil {
				r.Start()
			}
		}
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(addr)
	for b := make([]byte, 1); ; {
		if n, err := os.Stdin.Read(b); n == 0 || err != nil {
			return 0
		}
		var u unix.Rusage
		_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
		fmt.Println((u.Utime.Nano()+u.Stime.Nano())/1000, resident())
	}
}

func resident() (bytes int) {
	b, _ := os.ReadFile("/proc/self/statm")
	var size, pages int
	_, _ = fmt.Sscan(string(b), &size, &pages)
	return pages * os.Getpagesize()
}

// bareEcho is the yardstick: one goroutine, epoll, read, write.
func bareEcho() (net.Addr, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		return nil, err
	}
	lfd := int(file.Fd())
	ep, err := unix.EpollCreate1(0)
	if err != nil {
		return nil, err
	}
	add := func(fd int) error {
		return unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	}
	if err := add(lfd); err != nil {
		return nil, err
	}
	go func() { // ends with the process
		defer file.Close()
		events, buf := make([]unix.EpollEvent, 128), make([]byte, 64<<10)
		p := uintptr(unsafe.Pointer(&buf[0]))
		for {
			n, _ := unix.EpollWait(ep, events, -1)
			for _, e := range events[:max(n, 0)] {
				fd := int(e.Fd)
				if fd == lfd {
					if c, _, err := unix.Accept4(lfd, unix.SOCK_NONBLOCK); err == nil {
						_ = unix.SetsockoptInt(c, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
						_ = add(c)
					}
					continue
				}
				got, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), p, uintptr(len(buf)))
				if errno != 0 || got == 0 {
					_ = unix.Close(fd)
					continue
				}
				_, _, _ = syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), p, got)
			}
		}
	}()
	return ln.Addr(), nil
}

// child starts a bench server and returns its address and a function that asks for its figures.
func child(b *testing.B, kind string) (string, func() (cpuMicros, rss int)) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), benchEnv+"="+kind)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	line := func() string {
		var s strings.Builder
		for c := make([]byte, 1); c[0] != '\n'; {
			if _, err := io.ReadFull(out, c); err != nil {
				b.Fatal(err)
			}
			s.Write(c)
		}
		return strings.TrimSpace(s.String())
	}
	return line(), func() (cpu, rss int) {
		_, _ = in.Write([]byte{'?'})
		if _, err := fmt.Sscan(line(), &cpu, &rss); err != nil {
			b.Fatal(err)
		}
		return cpu, rss
	}
}

// BenchmarkSocketEcho: 100 sockets, each with one message of 32 bytes on its way. server-us/op is the server's CPU time.
func BenchmarkSocketEcho(b *testing.B) {
	for _, kind := range []string{"bare", "reactor"} {
		b.Run(kind, func(b *testing.B) {
			addr, figures := child(b, kind)
			pump := newPump(b, addr, 100)
			pump.run(b, 10_000)
			before, _ := figures()
			b.ResetTimer()
			pump.run(b, b.N)
			b.StopTimer()
			after, _ := figures()
			b.ReportMetric(float64(after-before)/float64(b.N), "server-us/op")
		})
	}
}

// A pump is a client of many sockets on one goroutine.
type pump struct {
	ep  int
	fds []int
}

func newPump(b *testing.B, addr string, sockets int) *pump {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Close(ep) })
	p := &pump{ep: ep}
	for range sockets {
		f, err := dial(b, addr).File()
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = f.Close() })
		fd := int(f.Fd())
		_ = unix.SetNonblock(fd, true)
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			b.Fatal(err)
		}
		p.fds = append(p.fds, fd)
	}
	return p
}

// run makes n round trips in all.
func (p *pump) run(b *testing.B, n int) {
	msg, events := make([]byte, 32), make([]unix.EpollEvent, 128)
	sent, done := 0, 0
	for ; sent < min(n, len(p.fds)); sent++ {
		_, _ = unix.Write(p.fds[sent], msg)
	}
	for done < n {
		ready, err := unix.EpollWait(p.ep, events, 10_000)
		if ready == 0 || err != nil && err != unix.EINTR {
			b.Fatalf("no answer: %v", err)
		}
		for _, e := range events[:max(ready, 0)] {
			if got, _ := unix.Read(int(e.Fd), msg); got != len(msg) {
				b.Fatalf("%d bytes came back", got)
			}
			if done++; sent < n {
				sent++
				_, _ = unix.Write(int(e.Fd), msg)
			}
		}
	}
}

// BenchmarkIdleSocket: what one silent socket of 8,000 adds to the server's resident memory. Its time is that of an echo
// among them.
func BenchmarkIdleSocket(b *testing.B) {
	const sockets = 8000
	addr, figures := child(b, "reactor")
	newPump(b, addr, 10).run(b, 10_000)
	_, before := figures()
	crowd := newPump(b, addr, sockets)
	crowd.run(b, sockets)
	_, after := figures()
	for b.Loop() {
		crowd.run(b, 1)
	}
	b.ReportMetric(float64(after-before)/sockets, "rss-B/socket")
}
