package reactor

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"syscall"
	"time"
	"unsafe"

	"github.com/panjf2000/gnet/v2/pkg/netpoll"
	"golang.org/x/sys/unix"

	"ticketgate/internal/uring"
)

// A kernel is what one loop needs of the system. linux is the real one, virtual (memory.go) the one for tests and
// simulation. wake may be called by any goroutine, the rest by the loop's. No method blocks, none keeps a slice.
type kernel interface {
	watch(fd int, had, want uint8) syscall.Errno // masks of watchRead and watchWrite; level-triggered
	read(fd int, p []byte) (int, syscall.Errno)
	discard(fd int, p []byte) (int, syscall.Errno) // read, but p may be left as it is
	write(fd int, p []byte) (int, syscall.Errno)
	writev(fd int, v []syscall.Iovec) (int, syscall.Errno)
	many() int // transfers that the next two take at once; 0: the kernel has nothing of the kind
	readMany(t []transfer)
	writeMany(t []transfer)
	accept(fd int) (int, netip.AddrPort, syscall.Errno)
	shed(fd int) bool                                                    // accept and close with the spare descriptor
	dial(to netip.AddrPort, from netip.Addr) (int, syscall.Errno, error) // the errno is the connect's, when it failed at once
	connected(fd int) syscall.Errno                                      // EINPROGRESS: not yet
	shut(fd int)                                                         // FIN
	unsent(fd int) int                                                   // bytes that the peer's kernel has not confirmed yet
	offload(fd int, tx, rx []byte) error                                 // ErrNoOffload: it cannot, and nothing has changed
	record(fd int, p []byte) (kind byte, n int, errno syscall.Errno)     // offloaded: the next record and its type
	notify(fd int)                                                       // offloaded: close_notify
	close(fd int, reset bool)
	alarm(after time.Duration) // Loop.onTick then, once; below 0: never
	wake()                     // Loop.onWake soon
	end()
}

// linux is a kernel on gnet's poller, of which it uses the level-triggered half and none of the task queue: a wake is an
// eventfd of ours, edge-triggered and never read, which costs one write and no allocation. It also waits by itself. The poller's
// own loop asks once more whenever it has run dry, and lets the scheduler look for other work, which wakes a thread: together
// 2 to 3 % of an echo with one message in flight.
type linux struct {
	poller *netpoll.Poller
	epoll  int // the poller's
	events [eventsMax]unix.EpollEvent
	timer  int
	waker  int
	spare  int                    // an open /dev/null for shed; -1 while it could not be had
	target netpoll.PollAttachment // the poller reads nothing of it but FD
	uring  *uring.Ring            // nil: every call is made by itself
}

func openLinux() (_ *linux, err error) {
	k := &linux{timer: -1, waker: -1, spare: -1}
	defer func() {
		if err != nil {
			k.end()
		}
	}()
	if k.poller, err = netpoll.OpenPoller(); err != nil {
		return nil, err
	}
	if k.epoll, err = descriptorOf(k.poller); err != nil {
		return nil, err
	}
	// The clock of package mono, which goes on while the machine sleeps.
	if k.timer, err = unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	if k.waker, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	if !k.openSpare() {
		return nil, errors.New("no spare descriptor")
	}
	return k, errors.Join(
		k.poller.AddRead(&netpoll.PollAttachment{FD: k.timer}, false),
		k.poller.AddRead(&netpoll.PollAttachment{FD: k.waker}, true))
}

// eventsMax is how many descriptors one wait names.
const eventsMax = 512

// descriptorOf is the epoll descriptor of p, which does not tell it.
func descriptorOf(p *netpoll.Poller) (int, error) {
	f := reflect.ValueOf(p).Elem().FieldByName("fd")
	if !f.IsValid() || !f.CanInt() {
		return -1, errors.New("gnet's poller has no epoll descriptor where version 2.10 has it")
	}
	return int(f.Int()), nil
}

// run serves l until it stops (nil) or waiting fails.
func (k *linux) run(l *Loop) error {
	for {
		n, err := unix.EpollWait(k.epoll, k.events[:], -1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("reactor: loop %d: %w", l.index, os.NewSyscallError("epoll_wait", err))
		}
		l.round(k.events[:max(n, 0)])
		if l.stopping {
			return nil
		}
	}
}

func (k *linux) end() {
	for _, fd := range []int{k.timer, k.waker, k.spare} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	if k.uring != nil {
		k.uring.Close()
	}
	if k.poller != nil {
		_ = k.poller.Close()
	}
}

func (k *linux) watch(fd int, had, want uint8) syscall.Errno {
	p, t := k.poller, &k.target
	t.FD = fd
	var err error
	switch {
	case want == 0:
		err = p.Delete(fd)
	case want == watchRead && had == 0:
		err = p.AddRead(t, false)
	case want == watchRead:
		err = p.ModRead(t, false)
	case want == watchWrite && had == 0:
		err = p.AddWrite(t, false)
	case want == watchWrite: // the poller has no ModWrite
		if err = p.Delete(fd); err == nil {
			err = p.AddWrite(t, false)
		}
	case had == 0:
		err = p.AddReadWrite(t, false)
	default:
		err = p.ModReadWrite(t, false)
	}
	if err == nil {
		return 0
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return syscall.EIO
}

// read, write and writev are raw system calls: the descriptors do not block, so the scheduler need not know. That is worth
// 10 to 15 % of an echo. They are the calls of sockets, recv, send and sendmsg: read(2) and write(2) take a file's position
// into account on their way, which a socket does not have, and cost an echo 5 % more.
func (k *linux) read(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
	return count(n, errno)
}

// discard has the kernel throw away what it would copy (tcp(7), MSG_TRUNC); other kinds of sockets are read.
func (k *linux) discard(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_TRUNC, 0, 0)
	return count(n, errno)
}

func (k *linux) write(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_NOSIGNAL, 0, 0)
	return count(n, errno)
}

func (k *linux) writev(fd int, v []syscall.Iovec) (int, syscall.Errno) {
	m := syscall.Msghdr{Iov: unsafe.SliceData(v), Iovlen: uint64(len(v))}
	n, _, errno := syscall.RawSyscall(syscall.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&m)), syscall.MSG_NOSIGNAL)
	return count(n, errno)
}

func count(n uintptr, errno syscall.Errno) (int, syscall.Errno) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func (k *linux) accept(fd int) (int, netip.AddrPort, syscall.Errno) {
	var from syscall.RawSockaddrAny
	size := uint32(syscall.SizeofSockaddrAny)
	n, _, errno := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)),
		syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, netip.AddrPort{}, errno
	}
	peer := addrOf(&from)
	if !peer.IsValid() { // a unix socket inherits nothing: see tune for why
		_ = unix.SetsockoptInt(int(n), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
	}
	return int(n), peer, 0
}

// addrOf reads a kernel's address; families other than IP have none here.
func addrOf(a *syscall.RawSockaddrAny) netip.AddrPort {
	port := func(p *uint16) uint16 { // in network order
		b := (*[2]byte)(unsafe.Pointer(p))
		return uint16(b[0])<<8 | uint16(b[1])
	}
	switch a.Addr.Family {
	case syscall.AF_INET:
		v4 := (*syscall.RawSockaddrInet4)(unsafe.Pointer(a))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port(&v4.Port))
	case syscall.AF_INET6:
		v6 := (*syscall.RawSockaddrInet6)(unsafe.Pointer(a))
		return netip.AddrPortFrom(netip.AddrFrom16(v6.Addr), port(&v6.Port))
	default:
		return netip.AddrPort{}
	}
}

func (k *linux) openSpare() bool {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	k.spare = fd
	return err == nil
}

func (k *linux) shed(fd int) bool {
	if k.spare < 0 && !k.openSpare() {
		return false
	}
	_ = unix.Close(k.spare)
	got, _, errno := k.accept(fd)
	if errno == 0 {
		k.close(got, true)
	}
	k.openSpare()
	return errno == 0
}

func (k *linux) dial(to netip.AddrPort, from netip.Addr) (fd int, pending syscall.Errno, err error) {
	addr, port := to.Addr().Unmap(), int(to.Port())
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, 0, err
	}
	if err = tune(fd, 0, true); err == nil && from.IsValid() {
		// The port is chosen at connect, when the peer is known: 64,511 connections an address pair instead of in all.
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
			unix.Bind(fd, sockaddr(from.Unmap(), 0)))
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, 0, err
	}
	err = unix.Connect(fd, sockaddr(addr, port))
	if errno, ok := errors.AsType[syscall.Errno](err); ok && errno != syscall.EINPROGRESS && errno != syscall.EINTR {
		return fd, errno, nil
	}
	return fd, 0, nil
}

func sockaddr(a netip.Addr, port int) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: port}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: port}
}

// connected asks twice: SO_ERROR is 0 while a connect is still under way, too.
func (k *linux) connected(fd int) syscall.Errno {
	if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || n != 0 {
		return syscall.Errno(max(n, 1))
	}
	if _, err := unix.Getpeername(fd); err == unix.ENOTCONN {
		return syscall.EINPROGRESS
	}
	return 0
}

func (k *linux) shut(fd int) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_SHUTDOWN, uintptr(fd), syscall.SHUT_WR, 0)
}

// unsent counts FIN as a byte. A socket that cannot tell has nothing.
func (k *linux) unsent(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}

func (k *linux) close(fd int, reset bool) {
	if reset {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 0})
	}
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) // which takes it out of the poller
}

// alarm sets the timer, once: to a nanosecond at least, since zero would turn it off.
func (k *linux) alarm(after time.Duration) {
	var t unix.ItimerSpec
	if after >= 0 {
		t.Value = unix.NsecToTimespec(max(int64(after), 1))
	}
	_ = unix.TimerfdSettime(k.timer, 0, &t, nil)
}

// readTimer takes back that the timer is ready.
func (k *linux) readTimer() {
	var n [8]byte
	_, _ = unix.Read(k.timer, n[:])
}

func (k *linux) wake() {
	one := [8]byte{1}
	_, _ = unix.Write(k.waker, one[:])
}

// unsentKept is how many bytes the kernel takes beyond what it may send: it bounds what lies in kernel memory for a peer that
// does not read to 18 to 55 KiB, whatever SendBuffer is (290 KiB with one of 128 KiB alone, and a million such peers are 30 GiB), and
// costs an echo of 16 KiB nothing that could be measured.
const unsentKept = 32 << 10

// unsentDialed is the same for a socket that we dial, whose SO_SNDBUF is the kernel's own: a backend is the operator's, and one that
// has to be waited for after every 32 KiB makes long messages to it a tenth dearer.
const unsentDialed = 256 << 10

// tune sets what every TCP socket of ours has; accepted ones inherit it from their listener, the others are dialed. A peer that
// does not acknowledge what was sent to it for 90 s is given up.
//
// With keepalive silence is sent something after 60 s, and so a peer that vanished is noticed after 90 s. Sockets that we dial
// have it. Accepted ones do not: their handler asks them for a sign of life, and the kernel's timers, which it rounds to
// some seconds, would ask thousands of idle ones at the same moment. TCP_USER_TIMEOUT is as long as all probes together take,
// not less: once a peer has been silent for that long, the kernel gives it up at the first probe without an answer
// (tcp_keepalive_timer), and with 30 s that was the first that got lost.
func tune(fd, sendBuffer int, dialed bool) error {
	asked, unsent := 0, unsentKept
	if dialed {
		asked, unsent = 1, unsentDialed
	}
	options := [...]struct{ level, name, value int }{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, asked},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 10},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 90_000},
		{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent},
		// The poller also asks for urgent data. Out of line, an urgent byte would stay ready for ever and turn the loop.
		{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1},
		{unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer},
	}
	n := len(options)
	if sendBuffer == 0 {
		n-- // the kernel's own
	}
	for _, o := range options[:n] {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("socket option %d/%d: %w", o.level, o.name, err)
		}
	}
	return nil
}
