// Package bench measures a gateway from outside: over the wire as a client that holds thousands of sockets on one
// thread, and through /proc as an onlooker. It knows the gateway's public contract and nothing else of it.
//
//	client.go    Loop, Conn       epoll, sockets, bytes
//	batch.go                      many of them in one system call
//	listen.go    Loop.Listen      the other side
//	wire.go      upgrade, frames  what a WebSocket client writes and reads
//	post.go      Caller           keep-alive HTTP, tickets
//	echo.go      Echo             messages out and back, latency
//	admit.go     Admissions       ticket, open, close
//	audience.go  Audience         what a feed says
//	host.go      Process, ...     memory and CPU of a server from /proc
//	report.go    Table, Spread    medians and what they hide
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ticketgate/internal/uring"
)

const (
	readBytes   = 64 << 10              // one buffer for all sockets of a loop
	leftMax     = 256 << 10             // bytes that a handler may leave unread on one socket, if Options say nothing else
	unsentMax   = 16 << 20              // bytes that may wait to be sent on one socket: a message of the longest kind
	unsentAll   = 256 << 20             // and on all sockets of a loop: a process must not take the machine's memory
	keptMax     = 1 << 20               // bytes of a buffer that an idle socket, or a free one, may keep
	eventsMax   = 512                   // events taken in one wake
	eventsBusy  = 16                    // events of a wake from which on the next is expected to find some at once
	longestWait = 50 * time.Millisecond // so that a cancelled context is noticed
	events      = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET
	gone        = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
)

// Errors of a Loop.
var (
	ErrTimeout  = errors.New("bench: not done in time")
	ErrLeftover = errors.New("bench: the handler left too many bytes unread")
	ErrUnsent   = errors.New("bench: the other side does not read, and too many bytes wait for it")
)

// A Handler is what a Conn does. All its methods are called on the loop, and may use the Loop and any Conn of it.
type Handler interface {
	// Opened says that the TCP connection stands.
	Opened(c *Conn)
	// Data takes what arrived and says how many bytes it used; the rest is shown again with what follows. b belongs to
	// the loop and is overwritten after the call.
	Data(c *Conn, b []byte) (used int)
	// Closed says that c is gone: io.EOF if the other side closed, else why. It does not follow a Close of our own.
	Closed(c *Conn, err error)
}

// Options of a Loop.
type Options struct {
	Sources []netip.Addr         // IPv4 addresses to connect from, in turn; none: the kernel's choice
	Now     func() time.Duration // a clock that never steps; nil: the machine's
	Left    int                  // bytes that a handler may leave unread on one socket; less than 256 KiB: 256 KiB
	Single  bool                 // one read or write a system call, also where the kernel takes many (io_uring)
	// What is meant to wait for the kernel on one socket and on all of them, beyond which 16 MiB and 256 MiB more may.
	Unsent, UnsentAll int
}

// A Loop is an epoll client that one goroutine drives: few allocations, no goroutine per socket. Sources allow more
// sockets to one target than one address has ports.
type Loop struct {
	now     func() time.Duration
	sources []unix.SockaddrInet4
	left    int // bounds
	unsent  int
	all     int

	ep     int
	spare  int    // a descriptor for turnAway; -1: nobody has listened
	waits  int    // bytes that wait to be sent
	dials  uint32 // also the next Conn's generation
	conns  []*Conn
	free   []*Conn
	open   int
	busy   bool                   // the last wake found many events
	old    bool                   // there is no epoll_pwait2
	brief  bool                   // the last wait was short
	doors  map[int]func() Handler // listening sockets
	events [eventsMax]unix.EpollEvent
	batch  batch
	buf    [readBytes]byte
}

// NewLoop returns a loop without sockets.
func NewLoop(o Options) (*Loop, error) {
	l := &Loop{now: o.Now, spare: -1, left: max(o.Left, leftMax), unsent: unsentMax + o.Unsent, all: unsentAll + o.UnsentAll}
	if l.now == nil {
		start := time.Now()
		l.now = func() time.Duration { return time.Since(start) }
	}
	for _, a := range o.Sources {
		if !a.Is4() {
			return nil, fmt.Errorf("bench: source %s is not IPv4", a)
		}
		l.sources = append(l.sources, unix.SockaddrInet4{Addr: a.As4()})
	}
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("bench: epoll: %w", err)
	}
	l.ep = ep
	if !o.Single {
		l.batch.ring, _ = uring.Open() // without, each call is made by itself
	}
	return l, nil
}

// Close closes all sockets, without telling their handlers, and the loop.
func (l *Loop) Close() error {
	for _, c := range l.conns {
		if c != nil {
			c.Close()
		}
	}
	for fd := range l.doors {
		_ = unix.Close(fd)
	}
	if l.spare >= 0 {
		_ = unix.Close(l.spare)
	}
	if l.batch.ring != nil {
		l.batch.ring.Close()
	}
	return unix.Close(l.ep)
}

// Now reads the loop's clock.
func (l *Loop) Now() time.Duration { return l.now() }

// Open says how many sockets the loop has, connected or connecting.
func (l *Loop) Open() int { return l.open }

// A Target is an IPv4 address to dial, resolved once.
type Target struct{ sa unix.SockaddrInet4 }

// NewTarget returns the Target of an address such as 127.0.0.1:8081.
func NewTarget(address string) (*Target, error) {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	if !ap.Addr().Is4() {
		return nil, fmt.Errorf("bench: target %s is not IPv4", address)
	}
	return &Target{unix.SockaddrInet4{Addr: ap.Addr().As4(), Port: int(ap.Port())}}, nil
}

// Dial begins to connect. h hears of the end: Opened or Closed.
func (l *Loop) Dial(to *Target, h Handler) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("bench: socket: %w", err)
	}
	if err := l.connect(fd, to); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	c := l.row(fd, h)
	// Edge-triggered, both directions at once: a socket costs one epoll_ctl in its life.
	ev := unix.EpollEvent{Events: events, Fd: int32(fd), Pad: int32(c.gen)}
	if err := unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		c.Close()
		return nil, fmt.Errorf("bench: epoll_ctl: %w", err)
	}
	return c, nil
}

func (l *Loop) connect(fd int, to *Target) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("bench: TCP_NODELAY: %w", err)
	}
	if len(l.sources) > 0 {
		// Without it bind takes a port for itself, and a source would have 28,000 for all targets together.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return fmt.Errorf("bench: IP_BIND_ADDRESS_NO_PORT: %w", err)
		}
		if err := unix.Bind(fd, &l.sources[int(l.dials)%len(l.sources)]); err != nil {
			return fmt.Errorf("bench: bind: %w", err)
		}
	}
	if err := unix.Connect(fd, &to.sa); err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("bench: connect: %w", err)
	}
	return nil
}

// row gives fd a Conn. Its generation is new in this loop, so an event of a former socket with the same number misses it.
func (l *Loop) row(fd int, h Handler) *Conn {
	if fd >= len(l.conns) {
		l.conns = append(l.conns, make([]*Conn, max(fd+1, 2*len(l.conns))-len(l.conns))...)
	}
	c := &Conn{loop: l}
	if n := len(l.free); n > 0 {
		c, l.free = l.free[n-1], l.free[:n-1]
	}
	l.dials++
	l.open++
	c.fd, c.gen, c.h = fd, l.dials, h
	l.conns[fd] = c
	return c
}

// RunFor handles events for d. It ends early only if ctx does.
func (l *Loop) RunFor(ctx context.Context, d time.Duration) error {
	err := l.RunUntil(ctx, d, func() bool { return false })
	if errors.Is(err, ErrTimeout) {
		return nil
	}
	return err
}

// RunUntil handles events until done, which is asked after each wake, says so; ErrTimeout after limit.
func (l *Loop) RunUntil(ctx context.Context, limit time.Duration, done func() bool) error {
	end := l.now() + limit
	for !done() {
		if err := ctx.Err(); err != nil {
			return err
		}
		left := end - l.now()
		if left <= 0 {
			return ErrTimeout
		}
		if err := l.round(min(left, longestWait)); err != nil {
			return err
		}
	}
	return nil
}

// Turn handles what has arrived, after waiting for it for wait at most; 0 or less: not at all.
func (l *Loop) Turn(wait time.Duration) error { return l.round(min(max(wait, 0), longestWait)) }

// Busy says that the last turn took so much that more has come meanwhile, most likely.
func (l *Loop) Busy() bool { return l.busy }

func (l *Loop) round(wait time.Duration) error {
	var n uintptr
	var errno syscall.Errno
	if l.busy { // more has come meanwhile, most likely: it is fetched without telling Go's scheduler
		n, errno = l.look()
	}
	if n == 0 || errno != 0 {
		n, errno = l.wait(wait)
	}
	l.busy = n >= eventsBusy && errno == 0
	switch {
	case errno == unix.EINTR:
		n = 0
	case errno != 0:
		return fmt.Errorf("bench: epoll: %w", errno)
	}
	for some := l.events[:n]; len(some) > 0; {
		served := 1
		var err error
		if l.batch.ring != nil && len(some) >= batchMin {
			served, err = l.together(some)
		} else {
			err = l.event(&some[0])
		}
		if err != nil {
			return err
		}
		some = some[served:]
	}
	return nil
}

// event handles one event, which may be of a socket that is gone.
func (l *Loop) event(ev *unix.EpollEvent) error {
	fd := int(ev.Fd)
	if h := l.doors[fd]; h != nil {
		return l.accept(fd, h)
	}
	if c := l.conn(ev); c != nil {
		l.ready(c, ev.Events)
	}
	return nil
}

// conn is whom ev is about; nil: a socket that is gone, or one that listens, whose number may be beyond those of all others.
func (l *Loop) conn(ev *unix.EpollEvent) *Conn {
	if fd := int(ev.Fd); fd < len(l.conns) {
		if c := l.conns[fd]; c != nil && c.gen == uint32(ev.Pad) {
			return c
		}
	}
	return nil
}

// look takes the events that there are, without waiting.
func (l *Loop) look() (uintptr, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.ep), uintptr(unsafe.Pointer(&l.events[0])), eventsMax, 0, 0, 0)
	return n, errno
}

// wait waits for events for d, in finer steps than the milliseconds of epoll_wait, which are too coarse for due times. Linux before 5.11
// and some sandboxes have no epoll_pwait2: there ppoll waits as finely, for the price of one more system call.
//
// Go's scheduler is not told of a wait that is short, as far as the last one tells: it would take the processor away and give it back, a
// third of what a message costs a client that is a little faster than its server. Who else wants to run in this process interrupts the wait
// by a signal. It is told of a long one, which it would interrupt a hundred times a second, and watch over as often, in each of the
// processes that only hold sockets.
func (l *Loop) wait(d time.Duration) (uintptr, syscall.Errno) {
	begun := l.now()
	n, errno := l.sleep(d)
	l.brief = l.now()-begun < briefly
	return n, errno
}

// briefly is a short wait: a tenth of the time after which Go's scheduler wants a thread to make room for others.
const briefly = time.Millisecond

func (l *Loop) sleep(d time.Duration) (uintptr, syscall.Errno) {
	timeout := unix.NsecToTimespec(d.Nanoseconds())
	if !l.old {
		var n uintptr
		var errno syscall.Errno
		if l.brief {
			n, _, errno = syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(l.ep), uintptr(unsafe.Pointer(&l.events[0])), eventsMax,
				uintptr(unsafe.Pointer(&timeout)), 0, 0)
		} else {
			n, _, errno = syscall.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(l.ep), uintptr(unsafe.Pointer(&l.events[0])), eventsMax,
				uintptr(unsafe.Pointer(&timeout)), 0, 0)
		}
		if errno != unix.ENOSYS && errno != unix.EPERM {
			return n, errno
		}
		l.old = true
	}
	fds := [1]unix.PollFd{{Fd: int32(l.ep), Events: unix.POLLIN}}
	if _, _, errno := unix.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), 1, uintptr(unsafe.Pointer(&timeout)), 0, 0, 0); errno != 0 {
		return 0, errno
	}
	return l.look()
}

func (l *Loop) ready(c *Conn, ev uint32) {
	gen := c.gen
	if !c.up {
		l.connected(c)
	}
	if c.gen == gen && c.deaf {
		if ev&gone != 0 {
			c.fail(io.EOF)
		}
		return
	}
	if c.gen == gen && c.unsent() && ev&unix.EPOLLOUT != 0 {
		c.flush()
	}
	if c.gen == gen && ev&(unix.EPOLLIN|gone) != 0 {
		l.read(c, ev&gone != 0)
	}
}

func (l *Loop) connected(c *Conn) {
	code, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	if err != nil {
		c.fail(fmt.Errorf("bench: connect: %w", err))
		return
	}
	c.up = true
	c.h.Opened(c)
}

// read empties the socket. A short read has emptied it too, unless its end is known to have come: then only EOF is the end.
func (l *Loop) read(c *Conn, ended bool) {
	gen := c.gen
	for c.gen == gen && !c.deaf {
		n, errno := rawRead(c.fd, l.buf[:])
		if !c.took(l.buf[:], n, errno) || n < len(l.buf) && !ended {
			return
		}
	}
}

// A Conn is one socket of a Loop. Only the loop's goroutine touches it, and nobody after Close or Closed: it is reused.
type Conn struct {
	loop *Loop
	h    Handler
	rest *rest // nil: there never was any
	fd   int
	gen  uint32 // changes when the socket is gone
	up   bool   // connected
	deaf bool   // not read any more
	long bool   // the last read was more than a slot of a batch takes
	off  bool   // something is put off until the end of the batch
}

// A rest is bytes that wait. Few sockets ever have any, and a Conn without fits a line of the processor's cache.
type rest struct {
	in   []byte // what the handler left unread
	out  []byte // what the kernel did not take at once
	sent int    // bytes of out that it took since
	over bool   // too many waited: nothing is sent any more, and the socket ends with its next event
}

// kept is c's rest, to add to.
func (c *Conn) kept() *rest {
	if c.rest == nil {
		c.rest = new(rest)
	}
	return c.rest
}

// unsent says that bytes wait for the kernel.
func (c *Conn) unsent() bool { return c.rest != nil && len(c.rest.out) > 0 }

// Handle gives c another handler. What is unread goes to it; Opened is not called.
func (c *Conn) Handle(h Handler) { c.h = h }

// Loop returns the loop of c.
func (c *Conn) Loop() *Loop { return c.loop }

// Deafen stops reading c for good: what arrives stays in the kernel, and no event of c but its end is heard of any more. It is how a
// slow reader is played. An error says that c is still read.
func (c *Conn) Deafen() error {
	ev := unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(c.fd), Pad: int32(c.gen)}
	if err := unix.EpollCtl(c.loop.ep, unix.EPOLL_CTL_MOD, c.fd, &ev); err != nil {
		return fmt.Errorf("bench: epoll_ctl: %w", err)
	}
	c.deaf = true
	return nil
}

// wrote draws the consequences of a write of b.
func (c *Conn) wrote(b []byte, n int, errno syscall.Errno) {
	switch {
	case errno == unix.EAGAIN:
		n = 0
	case errno != 0:
		return
	}
	if n < len(b) {
		c.keep(b[n:])
	}
}

// keep lets b wait for the kernel, unless too much does already: a server that does not read must not cost the client its memory.
func (c *Conn) keep(b []byte) {
	l, r := c.loop, c.kept()
	if len(r.out)-r.sent+len(b) > l.unsent || l.waits+len(b) > l.all {
		l.waits -= len(r.out) - r.sent
		r.out, r.sent, r.over = nil, 0, true
		_ = unix.Shutdown(c.fd, unix.SHUT_RDWR) // it wakes the loop for c, unless c is deaf
		return
	}
	l.waits += len(b)
	r.out = append(r.out, b...)
}

// flush sends what waits. What was sent goes as soon as it is the larger part: each byte is moved once at most.
func (c *Conn) flush() {
	r := c.rest
	n, errno := rawWrite(c.fd, r.out[r.sent:])
	if errno == 0 {
		r.sent += n
		c.loop.waits -= n
	}
	if left := len(r.out) - r.sent; r.sent >= left {
		r.out, r.sent = r.out[:copy(r.out, r.out[r.sent:])], 0
	}
	if len(r.out) == 0 {
		r.out = empty(r.out)
	}
}

// empty is the buffer b without its bytes, or none if it is large: one long message must not stay resident.
func empty(b []byte) []byte {
	if cap(b) > keptMax {
		return nil
	}
	return b[:0]
}

// Close closes c and forgets it. The handler is not told.
func (c *Conn) Close() {
	l := c.loop
	if c.off {
		l.submit()
	}
	l.conns[c.fd] = nil
	l.open--
	_ = unix.Close(c.fd) // a socket's close has no error that a client could act on
	c.gen, c.up, c.deaf, c.long, c.fd, c.h = 0, false, false, false, -1, nil
	if r := c.rest; r != nil {
		l.waits -= len(r.out) - r.sent
		r.in, r.out, r.sent, r.over = empty(r.in), empty(r.out), 0, false
	}
	l.free = append(l.free, c)
}

// Reset is Close with a RST instead of a FIN, and throws away what was not sent.
func (c *Conn) Reset() {
	_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 0})
	c.Close()
}

func (c *Conn) fail(err error) {
	if c.rest != nil && c.rest.over {
		err = ErrUnsent
	}
	h := c.h
	c.Close()
	h.Closed(c, err)
}

func (c *Conn) feed(b []byte) {
	gen := c.gen
	if r := c.rest; r != nil && len(r.in) > 0 {
		r.in = append(r.in, b...)
		b = r.in
	}
	for len(b) > 0 {
		used := c.h.Data(c, b)
		if c.gen != gen {
			return
		}
		if used == 0 {
			break
		}
		b = b[used:]
	}
	switch r := c.rest; {
	case len(b) > c.loop.left:
		c.fail(ErrLeftover)
	case len(b) > 0 && r != nil && len(b) == len(r.in): // b is r.in: of a long message each read would move all that came before it
	case len(b) > 0:
		r = c.kept()
		r.in = append(r.in[:0], b...) // b may lie in r.in: append moves it down
	case r != nil:
		r.in = r.in[:0]
	}
}

// rawRead and rawWrite call the kernel without telling the scheduler. The sockets are non-blocking, so the calls cannot
// wait; it saves a tenth of the cost of a message.
func rawRead(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0, 0, 0)
	return int(n), errno
}

func rawWrite(fd int, b []byte) (int, syscall.Errno) {
	if len(b) == 0 {
		return 0, 0
	}
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), syscall.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}
