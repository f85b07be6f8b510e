package engine

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/engine/upgrade"
	"ticketgate/internal/mono"
	"ticketgate/internal/offheap"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

// worker is one loop's share of the engine. Only its loop touches it, but for stats.
type worker struct {
	e        *Engine
	l        *reactor.Loop
	src      *rand.ChaCha8
	rnd      *rand.Rand // draws from src
	checker  *ticket.Checker
	req      upgrade.Request // the head being looked at
	scratch  []byte          // frames and answers being built
	text     []byte          // notices being built
	fresh    frame.Reader    // of a message that begins with the bytes being looked at
	unread   upgrade.Scan    // of a head that begins with them
	turn     turn
	found    frame.Event         // what the bytes being looked at hold; here, because a stream's method makes it escape
	gathered [runMax]frame.Event // for Runner.ReceiveRun
	sight    Socket              // for scans
	closing  reactor.ID          // whose Closed is on the stack: the reactor has buried it, the stream may still ask for its word
	joining  reactor.ID          // whose Stream.Join is on the stack

	life     uint32    // of the node, as the loop knows it; see life.go
	lostAt   mono.Time // when one ended last
	shedFrom uint32    // slot that shed looks at next

	batch    *ticket.Batch   // redemptions of this round
	flying   []*ticket.Batch // handed over and not answered yet
	batches  []*ticket.Batch
	storeAt  mono.Time // when the store's clock was asked
	storeWas time.Time // and what it said

	owed   []owed // see owed.go
	owedAt int

	waiting map[uint32]*parked             // by slot: between the store's answer and the 101
	seats   *seats                         // open sockets that may have to go for a newcomer; nil: there was none yet
	evicted map[reactor.ID]chan<- Eviction // those that go, until they are gone, and who waits for it

	hosts  map[uint32]string // by slot: whom TLS was for, until the head is here
	asking int               // redemptions under way, those of sockets that have left included

	heads   []reactor.ID   // sockets whose head was not complete when they were looked at last, in order of arrival
	headsAt int            // length at which they are looked at again
	headsOf map[uint64]int // by address, while they are thinned

	partings   []reactor.ID // sockets that were refused or closed, in that order, some of them gone
	partingsAt int          // length at which those are dropped

	pongs map[uint32][]byte // by slot: what the last ping said, while flagPong

	opened  int           // sockets, ever
	pinging time.Duration // after which the last of them is pinged: see firstPing

	begun    *offheap.Rows[begun] // see session
	messages *offheap.Rows[message]
	flows    *offheap.Rows[flow]
	late     *offheap.Rows[late] // see late.go

	lateMessages *offheap.Rows[lateMessage]
	askers       []reactor.ID // sockets of which a message waits for a bank's answer
	askersSpare  []reactor.ID
	hasAskers    atomic.Bool // for Engine.Answered

	holds *holds
	flate *compressor // nil: nothing is compressed
	stats *stats
}

func newWorker(e *Engine, src *rand.ChaCha8, kept int) *worker {
	rnd := rand.New(src) //nolint:gosec // it spreads moments; no secret is drawn from it
	w := &worker{e: e, src: src, rnd: rnd, checker: e.o.Keys.NewChecker(), holds: newHolds(e.policy.Load().maxMessage(), kept), waiting: map[uint32]*parked{}, pongs: map[uint32][]byte{}, hosts: map[uint32]string{},
		headsOf: map[uint64]int{}, stats: newStats(e.policy.Load()),
		begun: offheap.NewRows[begun](), messages: offheap.NewRows[message](), flows: offheap.NewRows[flow](),
		late: offheap.NewRows[late](), lateMessages: offheap.NewRows[lateMessage]()}
	if e.o.Compression {
		w.flate = newCompressor()
	}
	return w
}

// handler is the engine as the reactor sees it: kind 0, accepted sockets.
type handler Engine

func (h *handler) worker(l *reactor.Loop) *worker {
	w := h.workers[l.Index()]
	w.l = l
	return w
}

// Open implements reactor.Handler.
func (h *handler) Open(l *reactor.Loop, id reactor.ID) {
	w := h.worker(l)
	h.live.Add(1)
	s := h.rows.At(id.Slot())
	now := tickAt(l.Now())
	*s = session{opened: now, last: now}
	w.arrive(id)
	w.greet(id, s)
}

// Data implements reactor.Handler.
func (h *handler) Data(l *reactor.Loop, id reactor.ID, in []byte) int {
	w := h.worker(l)
	s := h.rows.At(id.Slot())
	if w.lost(s) {
		w.end(id, s, frame.CloseOverloaded, "", ByGateway)
		return len(in)
	}
	switch s.state {
	case stateOpen:
		return w.frames(id, s, in)
	case stateHead:
		return w.head(id, s, in)
	case stateProxy:
		return w.proxied(id, s, in)
	case stateAsked:
		if len(in) > int(s.head) {
			w.refuse(id, s, ErrEarly)
			return len(in)
		}
		return 0
	case stateJoining:
		return w.join(id, s, in)
	default:
		return len(in)
	}
}

// Drained implements reactor.Handler.
func (h *handler) Drained(l *reactor.Loop, id reactor.ID) {
	w := h.worker(l)
	s := h.rows.At(id.Slot())
	if w.lost(s) {
		return
	}
	w.payPong(id, s)
	if s.state == stateOpen {
		w.entry(s).Stream.Drained(Conn{w, id})
	}
}

// Timer implements reactor.Handler.
func (h *handler) Timer(l *reactor.Loop, id reactor.ID) {
	h.worker(l).timer(id, h.rows.At(id.Slot()))
}

// Closed implements reactor.Handler.
func (h *handler) Closed(l *reactor.Loop, id reactor.ID, why reactor.Cause, _ error) {
	w := h.worker(l)
	s := h.rows.At(id.Slot())
	open := s.state == stateOpen
	s.state = stateClosing
	w.closing = id
	w.leave(id, s, End{By: ByNetwork})
	w.closing = 0
	if open {
		if why == reactor.CauseStalled || why == reactor.CauseSlow {
			w.stats.stalled(s.stream)
		}
		w.closed(id, s, End{By: ByNetwork, Reason: why.String()})
	}
	w.e.names.release(s.who)
	w.releaseSlot(s)
	w.vacate(id)
	w.known(id, s)
	w.disagree(s)
	delete(w.hosts, id.Slot())
	*s = session{}
	if h.live.Add(-1) == 0 && h.draining.Load() {
		(*Engine)(h).noneLeft()
	}
}

// Fault implements reactor.Handler: a panic while this socket was served.
func (h *handler) Fault(l *reactor.Loop, id reactor.ID, v any) {
	w := h.worker(l)
	s := h.rows.At(id.Slot())
	w.joining = 0
	switch {
	case s.state == stateOpen && v == any(reactor.ErrRekey): // TLS in the kernel cannot follow: the client comes again
		w.end(id, s, frame.CloseDrain, "", ByGateway)
	case s.state == stateOpen:
		w.end(id, s, frame.CloseFault, "", ByGateway)
	default:
		w.refuse(id, s, ErrFault)
	}
}

// work runs what goroutines have brought.
func (e *Engine) work(l *reactor.Loop, k *reactor.Work) {
	w := (*handler)(e).worker(l)
	switch k.Op {
	case opAnswers:
		w.answers(k.P.(*ticket.Batch))
	case opHand:
		w.hand()
	case opAnswered:
		w.bankAnswered()
	case opDo:
		k.P.(func(*reactor.Loop))(l)
	case opScan:
		w.visit(k.P.(*scan), uint32(k.N))
	}
}

func (w *worker) entry(s *session) *StreamEntry { return &w.e.policy.Load().streams[s.stream] }

func (w *worker) plan(s *session) *limiter.Plan { return w.e.policy.Load().plans[s.plan] }
