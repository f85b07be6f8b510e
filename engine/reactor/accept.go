package reactor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ticketgate/internal/mono"
)

// Accepting never ends a loop. In the order of this file:
//
//	Listen    any goroutine   one listener a loop on one port; the kernel spreads connections over them
//	accept    loop            up to 64 an event, while there is room
//	full      loop            MaxConns, or no descriptor or memory: listeners leave the poller, back-off 5 ms to 0.96 s
const (
	acceptBatch = 64
	backOffMin  = mono.Time(5 * time.Millisecond)
	backOffMax  = mono.Time(960 * time.Millisecond) // with the tick's 20 ms on top: accepting resumes within 1 s of release
	quiet       = 10 * time.Second                  // between two log lines of a loop about it
)

// A listener is one listening descriptor of a loop.
type listener struct {
	id   ID
	path string // unix: the file that goes when the listener does, if it is still the same
	made os.FileInfo
}

// Listen accepts connections as kind 0. network is "tcp", "tcp4", "tcp6" (every loop gets a listener of its own on the
// address; port 0 picks one; an empty host is IPv4 and IPv6) or "unix" (one listener, on loop 0; a socket file that nobody
// serves is replaced, anything else is left alone). It returns the address. Any goroutine, before or after Start.
func (r *Reactor) Listen(network, address string) (net.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return nil, ErrStopped
	}
	if network == "unix" {
		return r.listenUnix(address)
	}
	var addr net.Addr
	fds := make([]int, 0, len(r.loops))
	for range r.loops {
		fd, at, err := listenTCP(network, address, r.o.SendBuffer)
		if err != nil {
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
			return nil, fmt.Errorf("listen: %w", err)
		}
		fds = append(fds, fd)
		if addr == nil {
			addr, address = at, at.String() // the port that the first one got
			if strings.HasPrefix(address, "[::]:") {
				address = address[len("[::]"):] // as it was asked for: both families
			}
		}
	}
	for i, l := range r.loops {
		l.do(func() { l.listen(fds[i], "", nil) })
	}
	return addr, nil
}

// listenTCP makes one listener with what every accepted socket inherits from it.
func listenTCP(network, address string, sendBuffer int) (int, net.Addr, error) {
	cfg := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
				tune(int(fd), sendBuffer))
		})
		return errors.Join(err, failed)
	}}
	cfg.SetMultipathTCP(false) // Go's default since 1.24; its sockets lack options that tune sets
	ln, err := cfg.Listen(context.Background(), network, address)
	if err != nil {
		return -1, nil, err
	}
	fd, err := dupOf(ln.(*net.TCPListener))
	return fd, ln.Addr(), errors.Join(err, ln.Close())
}

func (r *Reactor) listenUnix(path string) (net.Addr, error) {
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	addr := &net.UnixAddr{Name: path, Net: "unix"}
	ln, err := net.ListenUnix("unix", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	ln.SetUnlinkOnClose(false)
	defer func() { _ = ln.Close() }()
	made, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	fd, err := dupOf(ln)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	l := r.loops[0]
	l.do(func() { l.listen(fd, path, made) })
	return addr, nil
}

// removeStale removes path if it is a socket that refuses connections: its server is gone.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%s is there and is not a socket", path)
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("%s is served by somebody: %w", path, syscall.EADDRINUSE)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// dupOf returns a descriptor of ln that Go's own poller does not know.
func dupOf(ln syscall.Conn) (int, error) {
	raw, err := ln.SyscallConn()
	if err != nil {
		return -1, err
	}
	dup := -1
	cerr := raw.Control(func(fd uintptr) { dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	return dup, errors.Join(err, cerr)
}

// listen takes fd, a listening descriptor, into the loop. On the loop.
func (l *Loop) listen(fd int, path string, made os.FileInfo) {
	id, r := l.claim(fd, stateListener)
	l.listeners = append(l.listeners, listener{id, path, made})
	if l.acceptAt != 0 {
		r.flags |= flagPaused
	}
	l.watch(id, r)
}

// StopAccept closes the listeners; connections that were not accepted yet are reset. Any goroutine; it does not wait.
func (r *Reactor) StopAccept() {
	for _, l := range r.loops {
		l.do(l.closeListeners)
	}
}

func (l *Loop) closeListeners() {
	for _, ln := range l.listeners {
		if now, err := os.Lstat(ln.path); err == nil && ln.made != nil && os.SameFile(now, ln.made) {
			_ = os.Remove(ln.path)
		}
		l.release(ln.id, l.rows.At(ln.id.Slot()))
		l.sys.close(int(ln.id.Slot()), false)
	}
	l.listeners, l.acceptAt = nil, 0
}

// enterOne takes a place among MaxConns.
func (r *Reactor) enterOne() bool {
	if r.conns.Add(1) <= int64(r.o.MaxConns) {
		return true
	}
	r.conns.Add(-1)
	return false
}

// accept takes what waits at a listener.
func (l *Loop) accept(id ID, r *row) {
	for range acceptBatch {
		if r.flags&flagPaused != 0 {
			break // full, or the listener is closed
		}
		if !l.r.enterOne() {
			l.refuse(RefusedFull, 0)
			return
		}
		fd, peer, errno := l.sys.accept(int(id.Slot()))
		if errno != 0 {
			l.r.conns.Add(-1)
			if l.acceptFailed(id, errno) {
				continue
			}
			return
		}
		l.backOff = 0
		l.accepted(fd, peer)
	}
}

func (l *Loop) accepted(fd int, peer netip.AddrPort) {
	if fd >= slotMax {
		l.sys.close(fd, true)
		l.r.conns.Add(-1)
		l.refuse(RefusedFull, 0)
		return
	}
	l.stat.accepted.Add(1)
	id, r := l.enter(fd, 0, stateOpen, peer)
	l.watch(id, r)
	if r.state == stateOpen {
		l.call(opOpen, id, r, nil)
	}
}

// acceptFailed deals with errno and reports whether to go on with the next connection at once.
func (l *Loop) acceptFailed(id ID, errno syscall.Errno) bool {
	switch errno {
	case syscall.EAGAIN:
		return false
	case syscall.EINTR:
		return true
	case syscall.EMFILE, syscall.ENFILE:
		l.shed(int(id.Slot()))
		l.refuse(RefusedFiles, errno)
		return false
	case syscall.ENOBUFS, syscall.ENOMEM:
		l.refuse(RefusedMemory, errno)
		return false
	case syscall.ECONNABORTED, syscall.EPROTO, syscall.ENETDOWN, syscall.ENOPROTOOPT, syscall.EHOSTDOWN, syscall.ENONET,
		syscall.EHOSTUNREACH, syscall.EOPNOTSUPP, syscall.ENETUNREACH, syscall.EPERM:
		l.stat.refused[RefusedPeer].Add(1) // accept(2): the fault of that connection; the next one may be good
		return true
	default:
		l.refuse(RefusedOther, errno)
		return false
	}
}

// shed closes one waiting connection with the descriptor kept for that, so that its client learns at once.
func (l *Loop) shed(fd int) {
	if l.sys.shed(fd) {
		l.stat.shed.Add(1)
	}
}

// refuse takes the listeners out of the poller for a while, so that what cannot be accepted does not turn the loop.
func (l *Loop) refuse(why Refused, errno syscall.Errno) {
	l.stat.refused[why].Add(1)
	if l.Now() >= l.quietUntil {
		l.quietUntil = l.Now().Add(quiet)
		l.log("reactor: accepting pauses", "reason", why.String(), "errno", int(errno), "sockets", l.r.conns.Load())
	}
	l.backOff = min(max(2*l.backOff, backOffMin), backOffMax)
	l.startTicks()
	l.acceptAt = l.tickAt(l.Now() + l.backOff)
	l.pauseListeners(true)
}

func (l *Loop) resumeAccept() {
	l.acceptAt = 0
	l.pauseListeners(false)
}

func (l *Loop) pauseListeners(on bool) {
	for _, ln := range l.listeners {
		r := l.rows.At(ln.id.Slot())
		r.flags &^= flagPaused
		if on {
			r.flags |= flagPaused
		}
		l.watch(ln.id, r)
	}
}

// Refused is why an accept did not become a socket.
type Refused uint8

// Reasons.
const (
	RefusedFull   Refused = iota // MaxConns
	RefusedFiles                 // EMFILE, ENFILE
	RefusedMemory                // ENOBUFS, ENOMEM
	RefusedPeer                  // the connection was gone before it was accepted
	RefusedOther
	refusals
)

// String is the reason as a metric label.
func (w Refused) String() string {
	names := [...]string{"full", "files", "memory", "peer", "other"}
	if int(w) >= len(names) {
		return strconv.Itoa(int(w))
	}
	return names[w]
}
