package reactor

import (
	"errors"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ticketgate/internal/mono"
)

// The in-memory twin: the same loops on a virtual kernel. Descriptors are small numbers, lowest free first as in Linux, so
// that numbers are reused within a batch here, too. Nothing runs but inside Run and Advance, in a fixed order: a failing run
// is repeated by repeating its calls.

// Memory is a virtual machine around one reactor. One goroutine uses it.
type Memory struct {
	clock   *mono.Manual
	r       *Reactor
	kernels []*virtual
	fds     []end   // by descriptor
	pipes   []*Pipe // by end.pipe, from 2 on
	unused  []uint32
	lowest  int // no number below it is free
	onDial  func(netip.AddrPort) (*Pipe, error)
	many    int // transfers that the kernel takes at once
	next    int // loop of the next Connect
}

// An end is the reactor's end of a connection: 8 bytes without pointers, so that a million sockets at rest are as little to
// the collector here as on a real kernel.
type end struct {
	pipe  uint32 // free, quiet or an index into Memory.pipes
	watch uint8
}

const (
	endFree  = 0
	endQuiet = 1 // see Leave
)

// A Pipe is one connection, and its methods are those of the far end: the client of an accepted socket, the server of a
// dialed one.
type Pipe struct {
	m    *Memory
	k    *virtual // the loop's side, once accepted or dialed
	fd   int
	from netip.AddrPort

	backlog []*Pipe // of a listener
	listens bool
	hangs   bool          // a dial that nobody answers
	refused syscall.Errno // a dial that fails

	in      []byte // towards the reactor, from taken on
	taken   int
	out     []byte // towards the far end
	given   []byte // what Read has returned last
	window  int
	finIn   bool // the far end has sent FIN
	gone    bool // the far end has closed: what is written to it is lost
	finOut  bool // the reactor has sent FIN
	rst     bool // either side has sent RST
	closed  bool // the reactor has closed its descriptor
	dropped bool // RST came from the reactor
	quiet   bool // the one of all that have left
}

// windowDefault is what the virtual kernel takes for one connection before it blocks the writer.
const windowDefault = 256 << 10

// NewMemory returns a virtual machine that listens on every loop. It panics if o is not valid; o.Clock is ignored.
func NewMemory(o Options, clock *mono.Manual) *Memory {
	o.Clock = clock
	m := &Memory{clock: clock, pipes: make([]*Pipe, 2)}
	if !o.Single {
		m.many = batchMax
	}
	m.pipes[endQuiet] = &Pipe{m: m, quiet: true}
	if o.MaxConns == 0 {
		o.MaxConns = 1 << 20
	}
	r, err := build(o, func(l *Loop) (kernel, error) {
		k := &virtual{m: m, l: l}
		m.kernels = append(m.kernels, k)
		return k, nil
	})
	if err != nil {
		panic(err)
	}
	m.r = r
	for _, k := range m.kernels {
		k.listener = &Pipe{m: m, k: k, listens: true}
		k.l.listen(m.number(k.listener), listener{})
	}
	return m
}

// Reactor is the reactor inside. Its Start does nothing and its Listen is of no use here; the rest works. What Post brings
// is done in Run, so posting more than 4,096 units before that would wait for ever.
func (m *Memory) Reactor() *Reactor { return m.r }

// Connect makes a connection from from, to the loops in turn. The reactor learns of it in Run.
func (m *Memory) Connect(from netip.AddrPort) *Pipe {
	p := m.NewPipe()
	p.from = from
	k := m.kernels[m.next%len(m.kernels)]
	m.next++
	if k.listener.closed {
		p.rst, p.dropped = true, true
	} else {
		k.listener.backlog = append(k.listener.backlog, p)
	}
	return p
}

// NewPipe returns a connection that OnDial's function can return.
func (m *Memory) NewPipe() *Pipe { return &Pipe{m: m, window: windowDefault} }

// OnDial serves dials with f: a Pipe is a server that accepts, an error is a refusal (a syscall.Errno as it is, others as
// ECONNREFUSED), both nil is a server that never answers. Without it every dial is refused.
func (m *Memory) OnDial(f func(to netip.AddrPort) (*Pipe, error)) { m.onDial = f }

// restless is how many rounds Run goes before it takes the sessions for two that keep each other awake for ever.
const restless = 1_000_000

// Run turns the loops in order until none has anything to do. It does not move the clock.
func (m *Memory) Run() {
	for range restless {
		busy := false
		for _, k := range m.kernels {
			busy = k.turn() || busy
		}
		if !busy {
			return
		}
	}
	panic("reactor: the loops do not come to rest")
}

// Advance moves the clock by d in steps of a tick at most, and does after each what has fallen due.
func (m *Memory) Advance(d time.Duration) {
	m.Run()
	for d > 0 {
		step := min(d, tickLength)
		d -= step
		m.clock.Advance(step)
		for _, k := range m.kernels {
			if k.ticking {
				k.l.onTick()
			}
		}
		m.Run()
	}
}

// number gives p the lowest free descriptor.
func (m *Memory) number(p *Pipe) int {
	for m.lowest < len(m.fds) && m.fds[m.lowest].pipe != endFree {
		m.lowest++
	}
	if m.lowest == len(m.fds) {
		m.fds = append(m.fds, end{})
	}
	p.fd = m.lowest
	m.fds[p.fd] = end{pipe: m.seat(p)}
	return p.fd
}

// seat enters p into pipes.
func (m *Memory) seat(p *Pipe) uint32 {
	if n := len(m.unused); n > 0 {
		i := m.unused[n-1]
		m.unused = m.unused[:n-1]
		m.pipes[i] = p
		return i
	}
	m.pipes = append(m.pipes, p)
	return uint32(len(m.pipes) - 1)
}

// unseat forgets the pipe of e, which keeps its descriptor.
func (m *Memory) unseat(e *end, left uint32) {
	if e.pipe > endQuiet {
		m.pipes[e.pipe] = nil
		m.unused = append(m.unused, e.pipe)
	}
	e.pipe = left
}

// at is the connection of fd.
func (m *Memory) at(fd int) *Pipe { return m.pipes[m.fds[fd].pipe] }

// Leave ends the use of p, whose connection stays: its far end takes whatever comes, and sends nothing. From then on it costs
// 8 bytes. Only once the reactor has accepted it, and taken what was sent.
func (p *Pipe) Leave() {
	if p.k == nil || p.closed || p.Pending() > 0 {
		panic("reactor: Leave of a connection that is not at rest")
	}
	p.m.unseat(&p.m.fds[p.fd], endQuiet)
}

// Write sends b to the reactor. There is no bound but memory; Pending tells what it has not read.
func (p *Pipe) Write(b []byte) {
	if p.finIn || p.rst {
		return
	}
	if p.taken == len(p.in) {
		p.in, p.taken = p.in[:0], 0
	}
	p.in = append(p.in, b...)
}

// Pending is how many bytes the reactor has not read yet.
func (p *Pipe) Pending() int { return len(p.in) - p.taken }

// Read takes all that has arrived from the reactor. The slice is good until the next Read.
func (p *Pipe) Read() []byte {
	p.given, p.out = p.out, p.given[:0]
	return p.given
}

// CloseWrite sends FIN.
func (p *Pipe) CloseWrite() { p.finIn = true }

// Close sends FIN and reads no more: what the reactor writes from now on fails.
func (p *Pipe) Close() { p.finIn, p.gone = true, true }

// Reset sends RST.
func (p *Pipe) Reset() { p.rst = true }

// Closed reports whether the reactor's FIN or RST has come: nothing will arrive any more but what waits for Read.
func (p *Pipe) Closed() bool { return p.finOut || p.closed || p.rst }

// WasReset reports whether the reactor has sent RST. What it had sent before and was not Read is lost.
func (p *Pipe) WasReset() bool { return p.dropped }

// Window limits what the virtual kernel takes from the reactor and Read has not taken yet: 256 KiB at first.
func (p *Pipe) Window(n int) { p.window = n }

// virtual is one loop's kernel.
type virtual struct {
	m        *Memory
	l        *Loop
	listener *Pipe
	woken    bool
	ticking  bool
	batch    []unix.EpollEvent
}

// turn serves one batch, taken before its first event is served, as epoll_wait does.
func (k *virtual) turn() bool {
	woken := k.woken
	if woken {
		k.woken = false
		k.l.onWake()
	}
	k.batch = k.batch[:0]
	for fd, e := range k.m.fds {
		if e.pipe <= endQuiet || e.watch == 0 {
			continue
		}
		p := k.m.pipes[e.pipe]
		if p.k != k {
			continue
		}
		if ready := p.ready(e.watch); ready != 0 {
			k.batch = append(k.batch, unix.EpollEvent{Fd: int32(fd), Events: ready})
		}
	}
	work := k.l.stat.work.Load()
	k.l.round(k.batch)
	return woken || len(k.batch) > 0 || k.l.stat.work.Load() != work
}

// ready is what epoll would report of p, of what is watched.
func (p *Pipe) ready(watch uint8) (ready uint32) {
	if watch&watchRead != 0 && (len(p.backlog) > 0 || p.Pending() > 0 || p.finIn) {
		ready |= syscall.EPOLLIN
	}
	if watch&watchWrite != 0 && !p.hangs && (len(p.out) < p.window || p.gone || p.refused != 0) {
		ready |= syscall.EPOLLOUT
	}
	if p.rst || p.finIn && p.finOut {
		ready |= syscall.EPOLLHUP
	}
	return ready
}

func (k *virtual) watch(fd int, _, want uint8) syscall.Errno {
	k.m.fds[fd].watch = want
	return 0
}

func (k *virtual) read(fd int, b []byte) (int, syscall.Errno) {
	p := k.m.at(fd)
	if p.rst {
		return 0, syscall.ECONNRESET
	}
	n := copy(b, p.in[p.taken:])
	p.taken += n
	if n == 0 && !p.finIn {
		return 0, syscall.EAGAIN
	}
	return n, 0
}

func (k *virtual) discard(fd int, b []byte) (int, syscall.Errno) { return k.read(fd, b) }

func (k *virtual) write(fd int, b []byte) (int, syscall.Errno) {
	p := k.m.at(fd)
	switch room := p.window - len(p.out); {
	case p.quiet:
		return len(b), 0
	case p.rst || p.gone:
		return 0, syscall.EPIPE
	case p.finOut:
		return 0, syscall.EPIPE
	case room <= 0:
		return 0, syscall.EAGAIN
	default:
		b = b[:min(len(b), room)]
	}
	p.out = append(p.out, b...)
	return len(b), 0
}

func (k *virtual) writev(fd int, v []syscall.Iovec) (sum int, errno syscall.Errno) {
	for _, piece := range v {
		n, errno := k.write(fd, unsafe.Slice(piece.Base, int(piece.Len)))
		sum += n
		if errno != 0 && sum == 0 {
			return 0, errno
		}
		if n < int(piece.Len) {
			break
		}
	}
	return sum, 0
}

func (k *virtual) many() int { return k.m.many }

func (k *virtual) readMany(t []transfer) {
	for i := range t {
		t[i].came(k.read(int(t[i].fd), t[i].p))
	}
}

func (k *virtual) writeMany(t []transfer) {
	for i := range t {
		t[i].came(k.write(int(t[i].fd), t[i].p))
	}
}

func (k *virtual) accept(fd int) (int, netip.AddrPort, syscall.Errno) {
	ln := k.m.at(fd)
	if len(ln.backlog) == 0 {
		return -1, netip.AddrPort{}, syscall.EAGAIN
	}
	p := ln.backlog[0]
	ln.backlog = ln.backlog[1:]
	p.k = k
	return k.m.number(p), p.from, 0
}

func (k *virtual) shed(fd int) bool {
	got, _, errno := k.accept(fd)
	if errno == 0 {
		k.close(got, true)
	}
	return errno == 0
}

func (k *virtual) dial(to netip.AddrPort, _ netip.Addr) (int, syscall.Errno, error) {
	p, err := k.m.NewPipe(), error(syscall.ECONNREFUSED)
	if k.m.onDial != nil {
		p, err = k.m.onDial(to)
	}
	switch {
	case err != nil:
		p = k.m.NewPipe()
		if !errors.As(err, &p.refused) {
			p.refused = syscall.ECONNREFUSED
		}
	case p == nil:
		p = k.m.NewPipe()
		p.hangs = true
	}
	p.k = k
	return k.m.number(p), 0, nil
}

func (k *virtual) connected(fd int) syscall.Errno {
	p := k.m.at(fd)
	if p.hangs {
		return syscall.EINPROGRESS
	}
	return p.refused
}

func (k *virtual) shut(fd int) { k.m.at(fd).finOut = true }

// unsent is all that Read has not taken, if the far end's window is shut: else it lies there.
func (k *virtual) unsent(fd int) int {
	if p := k.m.at(fd); !p.quiet && p.window == 0 {
		return len(p.out)
	}
	return 0
}

func (k *virtual) close(fd int, reset bool) {
	p := k.m.at(fd)
	k.m.unseat(&k.m.fds[fd], endFree)
	k.m.fds[fd].watch, k.m.lowest = 0, min(k.m.lowest, fd)
	if p.quiet {
		return
	}
	p.closed = true
	if p.listens {
		for _, q := range p.backlog {
			q.rst, q.dropped = true, true
		}
		return
	}
	if reset || p.Pending() > 0 { // as TCP does: unread bytes turn a close into RST, and RST overtakes what was sent
		p.rst, p.dropped = true, true
		p.out = p.out[:0]
	}
}

func (k *virtual) offload(int, []byte, []byte) error { return ErrNoOffload }

// record and notify are for offloaded sockets, of which there are none here.
func (k *virtual) record(int, []byte) (byte, int, syscall.Errno) { return 0, 0, syscall.EINVAL }
func (k *virtual) notify(int)                                    {}

func (k *virtual) alarm(after time.Duration) { k.ticking = after >= 0 }
func (k *virtual) wake()                     { k.woken = true }
func (k *virtual) end()                      {}
