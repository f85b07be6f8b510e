// Package reactor runs sockets on event loops, one a core, on gnet's poller. It accepts and dials, reads into
// the loop's buffer, queues what is written and sends it in one system call a callback, pauses reading, closes in order,
// keeps one timer a socket, and takes work from other goroutines. It knows nothing of what the bytes mean.
//
// A socket is a row of 64 bytes in a slab without pointers, so a million of them cost the collector nothing. Everything is
// bounded: what one socket may queue and leave over, what all may queue, the ring of work, the number of sockets.
//
// The files, along the path: accept.go, dial.go (how sockets come), pause.go (in), write.go and buffer.go (out), conn.go
// (rows, and how sockets go), wheel.go (time), ring.go (other goroutines), loop.go (what turns it all), poll.go (Linux),
// memory.go (the same loops on a virtual kernel, without sockets, goroutines or waiting).
package reactor

import (
	"context"
	"errors"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/internal/uring"
)

// A Handler is what sockets of one kind do. Every method runs on the socket's loop, never two at once for one loop and none
// inside another, and must not block.
type Handler interface {
	// Open: the socket was accepted, or its dial has connected.
	Open(l *Loop, id ID)
	// Data gets what was left over and behind it what has arrived, and returns how many bytes it is done with; the rest
	// comes again in front of the next. in may be changed in place and is good until Data returns. Data is called when bytes
	// arrive and after Rerun, Yield or Resume; and because something is left over only if ReadsOn had promised more than came.
	Data(l *Loop, id ID, in []byte) (used int)
	// Drained: the queue is empty again after the kernel had left something in it.
	Drained(l *Loop, id ID)
	// Timer: the time set with Arm has passed.
	Timer(l *Loop, id ID)
	// Closed is the last call for id, exactly once for each ID that Open was called with or Dial has returned. Peer still
	// works; Write and the rest do nothing. Nobody else has id's slot until it returns.
	Closed(l *Loop, id ID, why Cause, err error)
	// Fault: a callback for id has panicked with v. A last frame may be written; then the socket is closed in order.
	Fault(l *Loop, id ID, v any)
}

// QueueDefault is how many bytes may wait for one socket unless Options say otherwise.
const QueueDefault = 256 << 10

// ReserveDefault is how many descriptors are left to the rest of the process unless Options say otherwise.
const ReserveDefault = 64

// Options of a reactor. The zero value of a field is its default; Handlers is needed.
type Options struct {
	Loops        int           // GOMAXPROCS; at most 255
	Handlers     []Handler     // by Kind; accepted sockets are kind 0
	ReadBuffer   int           // bytes read at once, a loop: 64 KiB
	QueueMax     int           // outbound bytes one socket may have waiting: 256 KiB
	NodeQueueMax int64         // bytes of buffers behind all that waits: 1 GiB. See Loop.Write and CauseSlow
	SendBuffer   int           // SO_SNDBUF of accepted TCP sockets: what the kernel holds for a slow peer before QueueMax counts; 0: the kernel's, up to 4 MiB
	LeftoverMax  int           // unconsumed bytes with which a socket still reads on: 20 KiB. Beyond, only Rerun and Resume help
	WriteStall   time.Duration // waiting bytes without progress for so long end the socket: 10 s
	Linger       time.Duration // what Close gives the queue and the peer's FIN: 5 s
	MaxConns     int           // accepted and dialed sockets at once: 95 % of RLIMIT_NOFILE, less Reserve. A 32nd is not for accepted ones
	Reserve      int           // descriptors for the rest of the process: 64
	Single       bool          // one read or write a system call, also where the kernel takes many (io_uring)
	Clock        mono.Clock    // mono.System

	// Turn is called on the loop before anything is done for a socket, with the clock just read: before each event, each few
	// sockets of a batch, work, what has yielded, what is due, and what was put off. true: sockets have
	// been lost since it was called last, of which Sends knows. It may be called inside of other callbacks, so it ends none
	// itself. May be nil.
	Turn func(l *Loop) (lost bool)
	// Sends is asked before what has waited for a socket of kind 0 is sent after a Turn. false: it is not sent, and the socket
	// ends with RST. May be nil.
	Sends func(l *Loop, id ID) bool
	// Again is what Loop.Again asks for. It may end sockets. May be nil if nobody does.
	Again func(l *Loop)
	// Work does a unit that Post brought, on the loop. w is good until it returns. May be nil.
	Work func(l *Loop, w *Work)
	// Full is called on the loop when it stops accepting for want of descriptors, and may Abort whom nobody needs. true: it did,
	// and accepting goes on soon. May be nil.
	Full func(l *Loop) bool
	// Log gets what an operator should see: panics, accept errors. It must not block. May be nil.
	Log func(msg string, args ...any)
}

// Work is a unit of work that another goroutine brings to a loop. The reactor reads none of it.
type Work struct {
	Op uint32
	ID ID
	N  int64
	P  any
}

// A Reactor is a set of loops.
type Reactor struct {
	o     Options
	base  mono.Time // tick 0
	rows  *Slab[row]
	loops []*Loop

	single error // why loops make a system call for each read and write

	conns    atomic.Int64 // sockets, against MaxConns
	queued   atomic.Int64 // held by queues, against queueMax
	queueMax atomic.Int64 // NodeQueueMax, or less: see QueueRoom

	running atomic.Int32 // loop goroutines
	done    chan struct{}
	failed  chan error

	mu      sync.Mutex
	started bool
	stopped bool
}

// New opens the loops' descriptors (five a loop); nothing runs before Start.
func New(o Options) (*Reactor, error) {
	return build(o, func(l *Loop) (kernel, error) {
		k, err := openLinux()
		if err != nil {
			return nil, err
		}
		if !o.Single {
			k.uring, l.r.single = uring.Open()
		}
		l.real = k
		l.claim(k.timer, stateTimer)
		l.claim(k.waker, stateWaker)
		return k, nil
	})
}

// build makes the loops on what open gives them.
func build(o Options, open func(*Loop) (kernel, error)) (*Reactor, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	r := &Reactor{o: o, base: o.Clock.Now(), rows: NewSlab[row](), done: make(chan struct{}), failed: make(chan error, 1)}
	r.queueMax.Store(o.NodeQueueMax)
	for i := range o.Loops {
		l := &Loop{
			r: r, index: i, o: &r.o, rows: r.rows, eager: min(eagerFrom, r.o.QueueMax/2),
			in:       apart(o.LeftoverMax + o.ReadBuffer),
			segments: newArena[segment](), queues: newArena[queue](), filters: newArena[filtered](), burst: newBurst(),
			ring: newRing(), room: make(chan struct{}, 1), ended: make(chan struct{}),
		}
		var err error
		if l.sys, err = open(l); err != nil {
			_ = r.Stop(context.Background())
			return nil, err
		}
		l.batch = newBatch(&r.o, l.sys.many())
		r.loops = append(r.loops, l)
	}
	return r, nil
}

// complete puts defaults into o and refuses what cannot work.
func (o *Options) complete() error {
	orInt := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	orInt(&o.Loops, runtime.GOMAXPROCS(0))
	orInt(&o.ReadBuffer, 64<<10)
	orInt(&o.QueueMax, QueueDefault)
	orInt(&o.LeftoverMax, 20<<10)
	orInt(&o.Reserve, ReserveDefault)
	if o.NodeQueueMax == 0 {
		o.NodeQueueMax = 1 << 30
	}
	if o.WriteStall == 0 {
		o.WriteStall = 10 * time.Second
	}
	if o.Linger == 0 {
		o.Linger = 5 * time.Second
	}
	if o.Clock == nil {
		o.Clock = mono.System
	}
	if o.MaxConns == 0 {
		o.MaxConns = connsFor(o.Reserve)
	}
	switch {
	case len(o.Handlers) == 0 || len(o.Handlers) > 256:
		return errors.New("reactor: 1 to 256 handlers are needed")
	case o.Loops < 1 || o.Loops > freeLoop:
		return errors.New("reactor: loops must be 1 to 255")
	case min(o.ReadBuffer, o.QueueMax, o.LeftoverMax) < 1 || max(o.ReadBuffer, o.QueueMax, o.LeftoverMax) > math.MaxInt32/4:
		return errors.New("reactor: ReadBuffer, QueueMax and LeftoverMax must be 1 byte to 512 MiB")
	case o.MaxConns < 1:
		return errors.New("reactor: the limit of open files leaves no room for sockets")
	case o.NodeQueueMax < 0 || o.WriteStall < 0 || o.Linger < 0:
		return errors.New("reactor: NodeQueueMax, WriteStall and Linger must not be negative")
	}
	return nil
}

// connsFor is 95 % of the descriptors this process may have, less reserve.
func connsFor(reserve int) int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(limit.Cur, slotMax)*95/100) - reserve
}

// QueueRoom lets all queues together grow by n bytes more at most, until it is called again, and never beyond NodeQueueMax. Any
// goroutine may call it.
func (r *Reactor) QueueRoom(n int64) { r.queueMax.Store(min(r.o.NodeQueueMax, r.queued.Load()+n)) }

// Batched reports whether the loops read and write many sockets in one system call, and if not, why; nil: Options.Single.
func (r *Reactor) Batched() (bool, error) { return r.loops[0].batch.max > 0, r.single }

// CanBatch is nil if this kernel lets this process read and write many sockets in one system call.
func CanBatch() error {
	u, err := uring.Open()
	if err == nil {
		u.Close()
	}
	return err
}

// Loops is how many loops there are.
func (r *Reactor) Loops() int { return len(r.loops) }

// Failed gives an error if a loop ends by itself. Its sockets are closed then; the process should end.
func (r *Reactor) Failed() <-chan error { return r.failed }

// Start starts the loops. Once.
func (r *Reactor) Start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.started || r.stopped || r.loops[0].real == nil {
		return // Memory turns its loops itself
	}
	r.started = true
	r.running.Store(int32(len(r.loops)))
	for _, l := range r.loops {
		go l.run() // Stop waits for done, which the last of them closes
	}
}

func (l *Loop) run() {
	err := l.real.run(l)
	if err != nil {
		l.shutdown()
		select {
		case l.r.failed <- err:
		default: // the first failure is enough
		}
	}
	l.finish()
	if l.r.running.Add(-1) == 0 {
		close(l.r.done)
	}
}

// Stop does the work that waits, sends what the kernel takes at once, closes every socket (Closed with CauseStop) and waits
// until the loops have ended, or for ctx. A Post that waits returns. Any goroutine but a loop's; a second call only waits.
func (r *Reactor) Stop(ctx context.Context) error {
	r.mu.Lock()
	first := !r.stopped
	r.stopped = true
	started := r.started
	r.mu.Unlock()
	for _, l := range r.loops {
		switch {
		case !first:
		case started:
			l.do(l.shutdown)
		default: // no goroutine of its own: this one is it
			l.runCommands()
			l.shutdown()
			l.finish()
		}
	}
	if first && !started {
		close(r.done)
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
