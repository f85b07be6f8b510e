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
//	share     any goroutine   one listener for all loops, where there can only be one: unix sockets, and those opened by others
//	accept    loop            up to 64 an event, or 4 where other loops want some too; while there is room
//	full      loop            MaxConns, or no descriptor or memory: listeners leave the poller, back-off 5 ms to 0.96 s; 50 ms
//	                          when Options.Full has made room
const (
	acceptBatch = 64
	sharedBatch = 4 // all loops are woken by one connection: who takes all leaves the others idle
	backOffMin  = mono.Time(5 * time.Millisecond)
	backOffRoom = mono.Time(50 * time.Millisecond)  // with the tick, some 15 times a second: so often an eighth may go
	backOffMax  = mono.Time(960 * time.Millisecond) // with the tick's 20 ms on top: accepting resumes within 1 s of release
	quiet       = 10 * time.Second                  // between two log lines of a loop about it
)

// A listener is one listening descriptor of a loop.
type listener struct {
	id     ID
	shared bool // the other loops have descriptors of the same socket
	file   unixFile
}

// Listen accepts connections as kind 0. network is "tcp", "tcp4", "tcp6" (every loop gets a listener of its own on the
// address; port 0 picks one; an empty host is IPv4 and IPv6) or "unix" (one listener for all loops; a socket file that
// nobody serves is replaced, anything else is left alone). It returns the address. Any goroutine, before or after Start.
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
		l.do(func() { l.listen(fds[i], listener{}) })
	}
	return addr, nil
}

// ListenOn accepts connections as kind 0 from the socket of ln, TCP or unix, which another process has opened and may keep:
// systemd does. All loops share it, so each connection wakes all of them; it gets the options of our own listeners. A unix
// socket's file is not ours and stays when the loops stop listening, as do connections that wait in it. ln remains the
// caller's, who does not accept from it and may close it. Any goroutine, before or after Start.
func (r *Reactor) ListenOn(ln net.Listener) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return ErrStopped
	}
	c, ok := ln.(syscall.Conn)
	if !ok {
		return errors.New("listen: a listener without a socket")
	}
	if err := r.adopt(c); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return r.share(c, unixFile{})
}

// adopt checks that c listens for streams, and sets what accepted sockets inherit.
func (r *Reactor) adopt(c syscall.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		listens, lerr := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		domain, derr := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		kind, kerr := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE)
		protocol, perr := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL)
		switch err = errors.Join(lerr, derr, kerr, perr); {
		case err != nil:
		case listens == 0 || kind != unix.SOCK_STREAM:
			err = errors.New("not a socket that listens for streams")
		case protocol == unix.IPPROTO_MPTCP: // its sockets lack options that tune sets
			err = errors.New("a socket of Multipath TCP; plain TCP is needed")
		case domain != unix.AF_UNIX:
			err = tune(int(fd), r.o.SendBuffer, false)
		}
	})
	return errors.Join(err, cerr)
}

// share gives every loop a descriptor of the one socket behind c. file goes with the first loop's.
func (r *Reactor) share(c syscall.Conn, file unixFile) error {
	fds := make([]int, 0, len(r.loops))
	for range r.loops {
		fd, err := dupOf(c)
		if err != nil {
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
			return fmt.Errorf("listen: %w", err)
		}
		fds = append(fds, fd)
	}
	for i, l := range r.loops {
		ln := listener{shared: len(fds) > 1}
		if i == 0 {
			ln.file = file
		}
		l.do(func() { l.listen(fds[i], ln) })
	}
	return nil
}

// listenTCP makes one listener with what every accepted socket inherits from it.
func listenTCP(network, address string, sendBuffer int) (int, net.Addr, error) {
	cfg := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
				tune(int(fd), sendBuffer, false))
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
	ln, err := openUnix(path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	defer func() { _ = ln.UnixListener.Close() }() // the loops have it, and the file is theirs
	if err := r.share(ln, ln.file); err != nil {
		ln.file.remove()
		return nil, err
	}
	return ln.Addr(), nil
}

// ListenUnix opens a listener at path for servers that are not the reactor, with the same care: a socket file that nobody
// serves is replaced, anything else is left alone. Close removes the file if it is still the same.
func ListenUnix(path string) (net.Listener, error) { return openUnix(path) }

// A unixListener is a *net.UnixListener that knows its own file.
type unixListener struct {
	*net.UnixListener
	file unixFile
}

func openUnix(path string) (*unixListener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // it would take another process's socket of the same name
	made, err := os.Lstat(path)
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return &unixListener{ln, unixFile{path, made}}, nil
}

// Close stops listening and removes the file.
func (l *unixListener) Close() error {
	l.file.remove()
	return l.UnixListener.Close()
}

// A unixFile is the file of a unix socket, as it was when we made it. The zero unixFile is none.
type unixFile struct {
	path string
	made os.FileInfo
}

// remove removes the file, unless another stands there now.
func (f unixFile) remove() {
	if now, err := os.Lstat(f.path); err == nil && f.made != nil && os.SameFile(now, f.made) {
		_ = os.Remove(f.path)
	}
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

// listen takes fd, a listening descriptor, into the loop as ln. On the loop.
func (l *Loop) listen(fd int, ln listener) {
	id, r := l.claim(fd, stateListener)
	ln.id = id
	l.listeners = append(l.listeners, ln)
	if l.acceptAt != 0 {
		r.flags |= flagPaused
	}
	l.watch(id, r)
}

// StopAccept closes the listeners; connections that were not accepted yet are reset, but for those to a socket that another
// process keeps open. Any goroutine; it does not wait.
func (r *Reactor) StopAccept() {
	for _, l := range r.loops {
		l.do(l.closeListeners)
	}
}

func (l *Loop) closeListeners() {
	for _, ln := range l.listeners {
		ln.file.remove()
		l.release(ln.id, l.rows.At(ln.id.Slot()))
		l.sys.close(int(ln.id.Slot()), false)
	}
	l.listeners, l.acceptAt = nil, 0
}

// dialShare of MaxConns is for Dial alone: who was let in needs a backend, and those who wait to be accepted would take its
// place.
const dialShare = 32

// enterOne takes one of most places.
func (r *Reactor) enterOne(most int) bool {
	if r.conns.Add(1) <= int64(most) {
		return true
	}
	r.conns.Add(-1)
	return false
}

// accept takes what waits at a listener.
func (l *Loop) accept(id ID, r *row) {
	for range l.batchOf(id) {
		if r.flags&flagPaused != 0 {
			break // full, or the listener is closed
		}
		if !l.r.enterOne(l.o.MaxConns - l.o.MaxConns/dialShare) {
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
		if l.accepted(fd, peer) {
			l.backOff = 0
		}
	}
}

// batchOf is how many connections the loop takes from a listener before it looks at other sockets.
func (l *Loop) batchOf(id ID) int {
	for i := range l.listeners {
		if ln := &l.listeners[i]; ln.id == id && ln.shared {
			return sharedBatch
		}
	}
	return acceptBatch
}

// accepted makes a socket of fd, and reports whether it is one.
func (l *Loop) accepted(fd int, peer netip.AddrPort) bool {
	if fd >= slotMax {
		l.sys.close(fd, true)
		l.r.conns.Add(-1)
		l.refuse(RefusedFull, 0)
		return false
	}
	l.stat.accepted.Add(1)
	id, r := l.enter(fd, 0, stateOpen, peer)
	l.watch(id, r)
	if r.state == stateOpen {
		l.call(opOpen, id, r, nil)
		return true
	}
	errno := syscall.Errno(r.errno) // the poller does not take it, and no handler has seen it
	l.dying = l.dying[:len(l.dying)-1]
	l.leave(id, r, true)
	l.refuse(RefusedMemory, errno)
	return false
}

// acceptFailed deals with errno and reports whether to go on with the next connection at once.
func (l *Loop) acceptFailed(id ID, errno syscall.Errno) bool {
	switch errno {
	case syscall.EAGAIN:
		return false
	case syscall.EINTR:
		return true
	case syscall.EMFILE, syscall.ENFILE:
		if !l.refuse(RefusedFiles, errno) {
			l.shed(int(id.Slot()))
		}
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

// refuse takes the listeners out of the poller for a while, so that what cannot be accepted does not turn the loop. It reports
// whether room has been made.
func (l *Loop) refuse(why Refused, errno syscall.Errno) (room bool) {
	l.stat.refused[why].Add(1)
	l.seldom("reactor: accepting pauses", "reason", why.String(), "errno", int(errno), "sockets", l.r.conns.Load())
	if room = (why == RefusedFull || why == RefusedFiles) && l.o.Full != nil && l.callFull(); room {
		l.backOff = backOffRoom / 2
	}
	l.retryAccept()
	l.pauseListeners(true)
	return room
}

// seldom logs what may happen again and again.
func (l *Loop) seldom(msg string, args ...any) {
	if l.Now() >= l.quietUntil {
		l.quietUntil = l.Now().Add(quiet)
		l.log(msg, args...)
	}
}

// retryAccept lets the listeners come back after a back-off that is longer each time, until something is accepted.
func (l *Loop) retryAccept() {
	l.backOff = min(max(2*l.backOff, backOffMin), backOffMax)
	l.acceptAt = l.tickAt(l.Now() + l.backOff)
	l.wakeAt(l.acceptAt)
}

func (l *Loop) callFull() (room bool) {
	defer l.guardLoop("full")
	return l.o.Full(l)
}

func (l *Loop) resumeAccept() {
	l.acceptAt = 0
	l.pauseListeners(false)
}

// unheard tries again later with a listener that the poller does not take: it has no memory, or no watches, for now.
func (l *Loop) unheard(r *row, errno syscall.Errno) {
	l.seldom("reactor: a listener waits for the poller", "errno", int(errno))
	r.flags |= flagPaused
	l.retryAccept()
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
