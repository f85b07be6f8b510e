package reactor

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"

	"ticketgate/internal/mono"
)

// A Loop owns sockets: everything that happens to one of them happens on its loop's goroutine, one thing at a time. Its
// methods are for callbacks only; other goroutines reach it through Reactor.Post.
type Loop struct {
	// Set once.
	r     *Reactor
	index int
	o     *Options
	sys   kernel
	real  *linux // sys, or nil when the kernel is a virtual one
	rows  *Slab[row]
	eager int // see eagerFrom

	// The loop's goroutine.
	in           []byte // LeftoverMax, then ReadBuffer bytes
	now          mono.Time
	dirty        []ID // written to in this callback
	dying        []ID // to be buried after it
	soon         []ID // Rerun, Resume
	later        []ID // Yield: for the next rounds
	spare        []ID // the other halves of dying and soon
	soonSpare    []ID
	rounds       uint64 // see Round
	putOver      []Work // NextRound
	putOverSpare []Work
	unsent       int // bytes written since the last flush of all
	vector       [vectorMax]syscall.Iovec
	work         Work // the unit in hand
	pool         pool
	segments     arena[segment]
	queues       arena[queue]
	burst        burst
	batch        batch
	filters      arena[filtered]
	more         bool   // the callback under way has got a full reading, and another follows
	carried      int    // bytes of it that lie right in front of where that goes
	wire         []byte // ReadBuffer bytes for sockets with a filter, from the first one on
	sealing      ID     // whose filter is encoding
	wheel        wheel
	alarm        uint32 // the tick that the kernel's timer is set to,
	alarmed      bool   // if it is
	listeners    []listener
	acceptAt     uint32
	backOff      mono.Time
	quietUntil   mono.Time // no log line about accepting before
	live         int
	top          uint32 // highest slot used
	stopping     bool
	unfinished   bool // Later has put work into the ring
	asksAgain    bool // Again was called

	// Any goroutine.
	ring     *ring
	woken    atomic.Bool
	waiting  atomic.Int32  // posters that found the ring full
	room     chan struct{} // lets one of them go on
	wakers   atomic.Int32  // goroutines inside sys.wake
	over     atomic.Bool   // sys.wake is no longer allowed
	ended    chan struct{}
	mu       sync.Mutex
	commands []func() // guarded by mu
	stat     counters
	health   health
}

// Index is the loop's number, from 0.
func (l *Loop) Index() int { return l.index }

// Reactor is the loop's reactor.
func (l *Loop) Reactor() *Reactor { return l.r }

// Now is the time, read at most once an event, batch of work or tick. On the loop only.
func (l *Loop) Now() mono.Time {
	if l.now == 0 {
		l.now = l.o.Clock.Now()
	}
	return l.now
}

// begin reads the clock anew and lets Options.Turn see it.
func (l *Loop) begin() (lost bool) {
	l.now = 0
	return l.o.Turn != nil && l.o.Turn(l)
}

// sends reports whether what waits for id may be sent; if not, it ends.
func (l *Loop) sends(id ID, r *row) bool {
	if r.kind != 0 || l.o.Sends == nil || l.o.Sends(l, id) {
		return true
	}
	r.flags |= flagReset
	l.end(id, r, CauseLocal, 0)
	return false
}

// Again has Options.Again called at the end of this round, or of the next one if this one is at its end already: for work that
// is done in parts. On the loop only.
func (l *Loop) Again() {
	l.asksAgain = true
	l.wake()
}

// Readiness as epoll reports it.
const (
	readyRead  = syscall.EPOLLIN | syscall.EPOLLPRI | syscall.EPOLLERR | syscall.EPOLLHUP
	readyWrite = syscall.EPOLLOUT | syscall.EPOLLERR | syscall.EPOLLHUP
)

// dispatch serves one descriptor that the poller has named. It is a hint only: the number may have changed hands since.
func (l *Loop) dispatch(fd int, ready uint32) {
	r := l.rows.At(uint32(fd))
	id := ID(r.id.Load())
	if id == 0 || id.Loop() != l.index {
		return
	}
	l.begin()
	switch r.state {
	case stateOpen, stateClosing:
		l.serve(id, r, ready)
	case stateDialing:
		l.dialed(id, r)
	case stateListener:
		l.accept(id, r)
	case stateTimer:
		l.real.readTimer()
		if l.alarmed {
			l.health.woke(l.timeOf(l.alarm), l.Now())
		}
		l.onTick()
		return
	case stateWaker:
		l.onWake()
		return
	}
	l.settle()
}

func (l *Loop) serve(id ID, r *row, ready uint32) {
	if ready&readyWrite != 0 && r.flags&flagBlocked != 0 {
		l.writable(id, r)
	}
	if ready&readyRead == 0 {
		return
	}
	switch r.state {
	case stateOpen:
		l.readable(id, r)
	case stateClosing:
		l.discard(id, r)
	}
}

// onWake does what other goroutines, or an earlier round that was cut short, have asked for.
func (l *Loop) onWake() {
	l.woken.Store(false) // before looking: whoever comes later wakes again
	l.begin()
	l.stat.wakes.Add(1)
	l.runCommands()
	l.runAgain() // before drain: what that puts off is for the next round
	l.drain(workBatch)
	l.fire()
	l.settle()
	l.putOffTurns()
}

// settleTurns is how often callbacks may cause callbacks before other sockets get their turn.
const settleTurns = 8

// settle sends, buries and reruns until nothing of that is left. It runs between callbacks, so none is re-entered.
func (l *Loop) settle() {
	for turn := 0; len(l.dirty)+len(l.dying)+len(l.soon) > 0; turn++ {
		if turn == settleTurns {
			l.wake()
			return
		}
		l.flushDirty()
		l.bury()
		l.rerun()
	}
}

// An op names a callback.
type op uint8

const (
	opOpen op = iota
	opData
	opDrained
	opTimer
	opClosed
)

// call runs one callback. A panic in it ends the socket, not the loop.
func (l *Loop) call(o op, id ID, r *row, in []byte) (used int) {
	defer l.guard(o, id, r)
	h := l.o.Handlers[r.kind]
	switch o {
	case opOpen:
		h.Open(l, id)
	case opData:
		used = h.Data(l, id, in)
	case opDrained:
		h.Drained(l, id)
	case opTimer:
		h.Timer(l, id)
	case opClosed:
		h.Closed(l, id, r.cause, r.ending())
	}
	return used
}

// guard is deferred by call. After Closed nothing is left to end.
func (l *Loop) guard(o op, id ID, r *row) {
	v := recover()
	if v == nil {
		return
	}
	l.panicked("socket", v)
	if o == opClosed || r.state == stateDying {
		return
	}
	l.callFault(id, r, v)
	switch r.state {
	case stateOpen:
		l.hangUp(id, r, CauseFault)
	case stateDialing:
		l.end(id, r, CauseFault, 0)
	}
}

func (l *Loop) callFault(id ID, r *row, v any) {
	defer func() {
		if v := recover(); v != nil {
			l.panicked("fault", v)
		}
	}()
	l.o.Handlers[r.kind].Fault(l, id, v)
}

func (l *Loop) callWork() {
	defer l.guardLoop("work")
	l.o.Work(l, &l.work)
}

func (l *Loop) guardLoop(where string) {
	if v := recover(); v != nil {
		l.panicked(where, v)
	}
}

// panicked counts and logs a panic. The value may quote what a client sent, so only its type and the stack are told.
func (l *Loop) panicked(where string, v any) {
	l.stat.panics.Add(1)
	l.log("reactor: a callback panicked", "where", where, "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
}

func (l *Loop) log(msg string, args ...any) {
	if l.o.Log != nil {
		l.o.Log(msg, append(args, "loop", l.index)...)
	}
}

// shutdown ends every socket and listener. On the loop, or on Stop's goroutine when the loop never ran.
func (l *Loop) shutdown() {
	l.stopping = true
	l.now = 0
	for l.ring.tail != l.ring.head.Load() && l.ring.pop(&l.work) {
		if l.o.Work != nil {
			l.callWork()
		}
	}
	l.closeListeners()
	l.flushDirty()
	l.Each(func(id ID) { l.end(id, l.rows.At(id.Slot()), CauseStop, 0) })
	l.bury()
	l.dirty, l.soon, l.later = l.dirty[:0], l.soon[:0], l.later[:0]
}

// finish closes what the loop itself holds and lets blocked posters go. Nothing runs on the loop any more.
func (l *Loop) finish() {
	l.over.Store(true)
	for l.wakers.Load() != 0 {
		runtime.Gosched()
	}
	l.sys.end()
	close(l.ended)
}
