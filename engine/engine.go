// Package engine admits sockets and carries their messages: the path of ARCHITECTURE.md on the gate's side. Each loop of the
// reactor has one worker, and all of a socket's life happens on its loop, so nothing here takes a lock or waits.
package engine

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/engine/proxy"
	"ticketgate/engine/reactor"
	"ticketgate/engine/secure"
	"ticketgate/internal/mono"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

// Redeemer spends tickets: store/node. Any goroutine may call it; it does not wait.
type Redeemer interface {
	// Redeem takes b over and calls b.Done when all of its answers are there.
	Redeem(b *ticket.Batch)
	// Touch says that the count of sockets of s has changed and must be asserted.
	Touch(s ticket.Subject)
	// Epoch is the history of the store that tickets whose slot is s's must name; 0: not known.
	Epoch(s ticket.Subject) ticket.Epoch
	// StoreTime is the store's clock, which decides on expiry.
	StoreTime() time.Time
	// Ready is nil while tickets can be spent.
	Ready() error
}

// A Prompter is a Redeemer that can answer on the spot, which saves two goroutines and two wakes for each ticket.
type Prompter interface {
	Redeemer
	// RedeemNow fills b.Answers and does not call b.Done; false: nothing has happened, and Redeem must be asked. It does not
	// wait.
	RedeemNow(b *ticket.Batch) bool
}

// An Owner is a Prompter that may spend tickets itself, and tell the store later.
type Owner interface {
	Prompter
	// Number is what the locators of tickets name that it may spend. It is quick.
	Number() uint16
	// Owes tells whether a socket that was opened with ticket h has to close at Batch.By. It does not wait.
	Owes(h ticket.Hash) bool
}

// Options are what an Engine is made of. Durations are checked by config; zero fields of the first group are programming
// errors.
type Options struct {
	Keys     *ticket.KeyRing
	Cache    *ticket.Cache
	Redeemer Redeemer
	Count    *limiter.Count
	Table    *limiter.Table
	Policy   *Policy
	Clock    mono.Clock
	Rand     io.Reader // seeds the spread of closes and Retry-After; no secret depends on it

	Node         string            // its name, for limits per node
	Base         string            // what problem types begin with, e.g. https://rt.example.com
	Origins      Origins           // who may upgrade from a browser
	Handlers     []reactor.Handler // of sockets that streams dial: kinds 1, 2, ...
	Loops        int               // 0: one for each processor
	Deadlines    Deadlines
	Control      limiter.Rate // ping and pong frames of one client
	ControlBurst uint64
	Assembly     time.Duration // a fragmented message must be complete within
	Queue        int           // bytes that may wait for one slow client
	SendBuffer   int           // SO_SNDBUF of each client's socket, 0: as the kernel likes
	Single       bool          // see reactor.Options
	NodeQueue    int64         // bytes that may wait for all
	HoldMax      int64         // bytes of incomplete messages held for all, and of what inflates them
	Compression  bool          // permessage-deflate is agreed to with clients that offer it
	InflateRatio int           // what a compressed message may inflate to from deflate.RatioFrom bytes on, to one: 1 to deflate.RatioMost
	MaxSessions  int64         // clients with a good ticket at once; more are answered 503. 0: as many as MaxConns lets in
	MaxConns     int           // sockets at once, 0: what descriptors allow
	AdmitConns   int64         // descriptors of clients and their backends, beyond which newcomers are answered 503. 0: no such mark
	AdmitRate    limiter.Rate  // good tickets redeemed by the node; beyond: 503. Zero: as many as come
	AdmitsMax    int           // good tickets and their backends waited for at once, a loop; beyond: 503. 0: 1,024
	HeadsMax     int           // sockets whose head is not complete, a loop, 8 or more; beyond: see perimeter.go. 0: 16,384
	Overloaded   func() bool   // memory runs out: newcomers are answered 503. Any goroutine may ask. nil: never
	Log          func(msg string, args ...any)

	// Life is the generation of the node's life at now, by which it holds the slots of its sockets; 0: it holds none. Each loop
	// asks before it does anything for a socket, so it is quick. A socket ends with the life in which it was let in. nil: no
	// socket ends for that.
	Life func(now mono.Time) uint32

	Event func(Event) // opened, closed, refused: called on the loop, must not wait

	// Revoked tells whether what a ticket grants has been taken back: asked when the store has spent it, and right before its 101. It
	// is called on the loops, keeps nothing of c and does not wait. nil: nothing ever is.
	Revoked func(c *ticket.Claims) bool

	Proxy proxy.Policy    // who may say whose socket it is
	TLS   *secure.Options // TLS on all listeners; Do and Done are the engine's. nil: none

	Addresses *limiter.Addresses // limits of sockets that nobody knows yet, by address. nil: none
}

// Deadlines of a socket's life. All are absolute, none restarts with a byte.
type Deadlines struct {
	TLS      time.Duration // accept to the end of the TLS handshake, a PROXY header included
	Head     time.Duration // accept, or the end of the TLS handshake, to the end of the request head
	Admit    time.Duration // accept to the 101
	Ping     time.Duration // between pings; the first comes up to 20 % earlier
	PongWait time.Duration // ping to anything received
	Idle     time.Duration // without a message in either direction; 0: off
}

// Engine is the gate. Its exported methods may be called from any goroutine.
type Engine struct {
	o       Options
	r       *reactor.Reactor
	rows    *reactor.Slab[session]
	names   *names
	tag     uint32 // names this engine in public ids of connections
	workers []*worker
	owner   Owner // o.Redeemer, if it is one
	policy  atomic.Pointer[Policy]
	control limiter.Meter
	admits  limiter.Meter
	secure  *secure.Server // nil: no TLS
	refused []byte         // the one answer to bad tickets
	shared  sharedCompressor

	draining    atomic.Bool
	held        atomic.Int64  // bytes of incomplete messages
	holdMax     atomic.Int64  // of at most so many: Options.HoldMax, or less while memory is short
	admitted    atomic.Int64  // bucket of admits
	live        atomic.Int64  // accepted sockets not yet gone
	clients     atomic.Int64  // those of them with flagClient
	compressing atomic.Int64  // open sockets that NewMessage compresses for
	empty       chan struct{} // has a value when live has come to 0 while draining
	stopped     sync.Once
}

// Work that goroutines bring to a loop.
const (
	opAnswers  uint32 = iota + 1 // P: *ticket.Batch
	opHand                       // hand the collected redemptions over
	opDo                         // P: func(*reactor.Loop)
	opAnswered                   // a bank has answered purses
	opScan                       // P: *scan, N: the slot to go on with
)

// New builds an engine; nothing runs yet.
func New(o Options) (*Engine, error) {
	e := newEngine(o)
	if err := e.useTLS(); err != nil {
		return nil, err
	}
	r, err := reactor.New(e.reactorOptions())
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	if err := e.use(r); err != nil {
		return nil, errors.Join(err, r.Stop(context.Background()))
	}
	return e, nil
}

// NewMemory builds an engine on the reactor's in-memory twin, whose clock is clk.
func NewMemory(o Options, clk *mono.Manual) (*Engine, *reactor.Memory, error) {
	o.Clock = clk
	e := newEngine(o)
	if err := e.useTLS(); err != nil {
		return nil, nil, err
	}
	m := reactor.NewMemory(e.reactorOptions(), clk)
	return e, m, e.use(m.Reactor())
}

// useTLS makes what handshakes need.
func (e *Engine) useTLS() (err error) {
	if e.o.TLS == nil {
		return nil
	}
	o := *e.o.TLS
	o.Do, o.Done = e.Do, e.secured
	if e.secure, err = secure.New(o); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	return nil
}

func newEngine(o Options) *Engine {
	o.HeadsMax, o.AdmitsMax = cmp.Or(o.HeadsMax, headsMax), cmp.Or(o.AdmitsMax, admitsMax)
	e := &Engine{
		o:       o,
		rows:    reactor.NewSlab[session](),
		names:   newNames(),
		control: limiter.NewMeter(o.Control, o.ControlBurst),
		admits:  limiter.NewMeter(o.AdmitRate, 0),
		refused: ticketRefused(o.Base),
		empty:   make(chan struct{}, 1),
	}
	e.owner, _ = o.Redeemer.(Owner)
	e.policy.Store(o.Policy)
	e.holdMax.Store(o.HoldMax)
	return e
}

// readBuffer is how much is read at once, if queue bytes may wait for one socket. What one reading becomes may have to wait behind
// what waits already, so it is half of that: streams do not read on while more than a quarter waits for where the bytes go
// (Conn.HighWater). The heads of eight frames of 16 KiB have room beside them, so that such messages are not cut.
func readBuffer(queue int) int { return min(128<<10, max(queue/2, 16<<10)) + 512 }

func (e *Engine) reactorOptions() reactor.Options {
	return reactor.Options{
		Loops:        e.o.Loops,
		Handlers:     append([]reactor.Handler{(*handler)(e)}, e.o.Handlers...),
		QueueMax:     e.o.Queue,
		ReadBuffer:   readBuffer(cmp.Or(e.o.Queue, reactor.QueueDefault)),
		NodeQueueMax: e.o.NodeQueue,
		MaxConns:     e.o.MaxConns,
		SendBuffer:   e.o.SendBuffer,
		Single:       e.o.Single,
		Clock:        e.o.Clock,
		Work:         e.work,
		Turn:         e.turn(),
		Sends:        func(l *reactor.Loop, id reactor.ID) bool { return !e.workers[l.Index()].lost(e.rows.At(id.Slot())) },
		Again:        func(l *reactor.Loop) { (*handler)(e).worker(l).shed() },
		Full:         func(l *reactor.Loop) bool { return (*handler)(e).worker(l).full() },
		Log:          e.o.Log,
	}
}

// use gives each loop of r its worker.
func (e *Engine) use(r *reactor.Reactor) error {
	e.r = r
	for i := range r.Loops() {
		var seed [32]byte
		if _, err := io.ReadFull(e.o.Rand, seed[:]); err != nil {
			return fmt.Errorf("engine: seed of loop %d: %w", i, err)
		}
		e.tag ^= binary.BigEndian.Uint32(seed[:])
		e.workers = append(e.workers, newWorker(e, rand.NewChaCha8(seed), int(min(e.o.HoldMax/keptShare/int64(r.Loops()), keptMax))))
	}
	return nil
}

// Listen adds an address for the gate: "tcp" or "unix".
func (e *Engine) Listen(network, address string) (net.Addr, error) {
	return e.r.Listen(network, address)
}

// ListenOn adds a listening socket that another process has opened; see reactor.ListenOn.
func (e *Engine) ListenOn(ln net.Listener) error { return e.r.ListenOn(ln) }

// Start runs the loops.
func (e *Engine) Start() { e.r.Start() }

// Failed tells of a loop that ended by itself: the process cannot go on.
func (e *Engine) Failed() <-chan error { return e.r.Failed() }

// Do runs f on loop i, soon. It may wait when the loop is far behind, so no loop calls it.
func (e *Engine) Do(i int, f func(l *reactor.Loop)) {
	e.r.Post(i, reactor.Work{Op: opDo, P: f})
}

// Loops is how many loops there are.
func (e *Engine) Loops() int { return e.r.Loops() }

// StopAccept closes the listeners; what has been accepted goes on, and new upgrades get 503 draining.
func (e *Engine) StopAccept() {
	e.draining.Store(true)
	e.r.StopAccept()
}

// Drain stops accepting and closes the open sockets with 1012, spread evenly over the time over. It returns when none is
// left, or with ctx's error.
func (e *Engine) Drain(ctx context.Context, over time.Duration) error {
	e.StopAccept()
	told := make(chan struct{}, len(e.workers))
	for i, w := range e.workers {
		e.Do(i, func(*reactor.Loop) {
			defer func() { told <- struct{}{} }()
			w.endAll(over, frame.CloseDrain)
		})
	}
	for range e.workers { // from then on a loop accepts no more: before, none live would mean little
		select {
		case <-told:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for e.live.Load() > 0 {
		select {
		case <-e.empty:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	e.noneLeft() // for another who waits
	return nil
}

// AskLife has every loop ask Options.Life now, also those whose sockets are silent. It may wait when a loop is far behind.
func (e *Engine) AskLife() {
	for i := range e.workers {
		e.Do(i, func(*reactor.Loop) {}) // it asks before
	}
}

// Stop closes what is left, ends the loops and gives back the slots of redemptions that are still under way: their answers
// find nobody. A Redeemer that is closed after that has a count of zero to tell.
func (e *Engine) Stop(ctx context.Context) error {
	if err := e.r.Stop(ctx); err != nil {
		return err
	}
	if e.secure != nil {
		e.secure.Wait() // the last handshakes' goroutines have nobody to tell
	}
	e.stopped.Do(func() {
		for _, w := range e.workers {
			w.abandon()
		}
	})
	return nil
}

func (e *Engine) log(msg string, args ...any) {
	if e.o.Log != nil {
		e.o.Log(msg, args...)
	}
}

// noneLeft wakes a Drain.
func (e *Engine) noneLeft() {
	select {
	case e.empty <- struct{}{}:
	default: // it has been told
	}
}

// Origins is the listener's list of origins, each as a browser sends it (scheme://host, with a port unless default).
type Origins struct {
	List []string
	None bool // clients that send no Origin may come too
}

// allows reports whether a request with this Origin may go on; exact match, no look-alikes.
func (o *Origins) allows(has bool, origin []byte) bool {
	if !has {
		return o.None
	}
	for _, a := range o.List {
		if a == string(origin) {
			return true
		}
	}
	return false
}

// Event is one line of a socket's story, for the log. Names are copied strings and no secret is among them.
type Event struct {
	Kind    EventKind
	Conn    string // public id of the connection
	Ticket  string // public id, "" before the store has answered
	Client  string
	Stream  string
	Peer    netip.Addr
	Reason  string // refusals and closes
	Request string // refusals: the request id in the answer, "" in that to a bad ticket
	Code    frame.Code
	By      By
}

// EventKind is what happened.
type EventKind uint8

// The kinds of Event.
const (
	EventOpened EventKind = iota + 1
	EventClosed
	EventRefused
)
