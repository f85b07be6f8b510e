// Package evict gives a newcomer the slot of an open socket of the same subject, wherever in the cluster that is: for plans whose
// connections limit says when_full: evict-oldest or evict-idlest.
//
//	newcomer's node                       nodes that hold slots                 store
//	issue ──────────────────────────────────────────────────────────────────────> full: who holds slots
//	  ask ───────────────────────────────> which of your sockets?
//	      <─────────────────────────────── this one, open (idle) since ...
//	  evict the oldest of them ──────────> close it with 4409; its slot is free
//	                                       assert ──────────────────────────────> acknowledged
//	      <─────────────────────────────── done
//	issue ──────────────────────────────────────────────────────────────────────> ok, or full: somebody was faster
//
// Nothing is decided here that the store does not decide again: the ticket is made by an issue like any other, so no count is ever
// exceeded, whatever is lost or late. A newcomer has at most one socket evicted: after a doubt it is refused. Who holds an unused
// ticket is never evicted, because only open sockets are victims.
//
// A subject has one eviction at a time on each node, and a few newcomers that wait for it; the node has 64, and as many questions of
// others in hand. Whoever comes on top is refused, as everybody is where plans reject.
package evict

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"sync"
	"time"

	"ticketgate/ticket"
)

const (
	totalMax   = 2 * time.Second        // from the first full answer to the last issue
	askMax     = 300 * time.Millisecond // for the answers of others; who has not answered then is left out
	lastMoment = 200 * time.Millisecond // before the end of totalMax no victim is touched any more: it would go in vain
	tries      = 3                      // victims that turned out to be gone, or another's, before the newcomer is refused
	askedMax   = 128                    // nodes asked for one newcomer
	inHand     = 64                     // evictions under way for newcomers of this node; also questions of other nodes, and their evictions
	lineMax    = 16                     // newcomers of a subject that wait for their turn
	waitMax    = 256                    // newcomers that wait, in all
)

// Result is how an eviction ended.
type Result uint8

// The results.
const (
	Done  Result = iota + 1 // closed, and its slot is free
	Gone                    // no such socket: nothing was done
	Taken                   // it is being closed for another newcomer
	Late                    // nothing was done: it was too late
	Doubt                   // it may be closed, or be closed yet
)

// A Victim is the socket of a node that would have to go.
type Victim struct {
	Socket uint64
	Ago    time.Duration // since it was opened, or since its last message
}

// Sockets are this node's. Any goroutine may call its methods, which wait, but not longer than ctx.
type Sockets interface {
	// Victim is the socket of u that was opened first, or the idlest one; false: none can go.
	Victim(ctx context.Context, u ticket.Subject, idlest bool) (Victim, bool)
	// Evict closes a socket of u with 4409 and returns when its slot is not counted on this node any more. After within, from now,
	// the socket is not touched any more.
	Evict(ctx context.Context, socket uint64, u ticket.Subject, within time.Duration) Result
}

// Node is this node at the store: store/node.
type Node interface {
	Incarnation() ticket.Incarnation
	StoreTime() time.Time
	// Tell tells the store the count of u as it is now. nil: the store has acknowledged it.
	Tell(ctx context.Context, u ticket.Subject) error
}

// Bus carries messages between nodes: store/redis. Who was not listening when something was published has missed it.
type Bus interface {
	Publish(ctx context.Context, ms []ticket.Message) error
	Subscribe(ctx context.Context, channel string, payload func([]byte), state func(up bool))
}

// Options configure an Evictor. All but Bus and Log are required.
type Options struct {
	Node    Node
	Sockets Sockets
	Bus     Bus       // nil: this node is the only one
	Rand    io.Reader // names questions; any goroutine may read it
	Log     *slog.Logger
}

// An Evictor makes room for this node's newcomers, and on this node for others'. Any goroutine may call it.
type Evictor struct {
	o      Options
	turns  turns
	asked  chan struct{} // questions of others in hand
	evicts chan struct{} // and evictions for them, which may take as long as a client that does not read

	mu      sync.Mutex
	pending map[uint64]chan message // by request: who waits for answers
	life    ticket.Incarnation
	another chan struct{} // closed when there is another life

	ctx  context.Context
	stop context.CancelFunc
	work sync.WaitGroup
}

// New returns an Evictor that listens for others from the first Live on.
func New(o Options) *Evictor {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e := &Evictor{o: o, asked: make(chan struct{}, inHand), evicts: make(chan struct{}, inHand), pending: map[uint64]chan message{}, another: make(chan struct{})}
	e.turns.init()
	e.ctx, e.stop = context.WithCancel(context.Background())
	if o.Bus != nil {
		e.work.Go(e.listen)
	}
	return e
}

// Live says that the node's life is called i from now on. It does not wait.
func (e *Evictor) Live(i ticket.Incarnation) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.life = i
	close(e.another)
	e.another = make(chan struct{})
}

// Close ends what is under way, and waits for it: newcomers are refused, and other nodes get no answers.
func (e *Evictor) Close() {
	e.stop()
	e.work.Wait()
}

// Issue calls issue, and where it answers ticket.IssueFull makes room and calls it once more, within about 2 s. What the last call of
// issue has answered is what holds. Full may mean that there was nobody who could go, that somebody did not answer in time, or that
// another has got the slot. issue gives up when its context ends; Result 0 is no answer.
func (e *Evictor) Issue(ctx context.Context, n ticket.Newcomer, issue func(context.Context) ticket.IssueAnswer) {
	a := issue(ctx)
	if a.Result != ticket.IssueFull {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, totalMax)
	defer cancel()
	stop := context.AfterFunc(e.ctx, cancel)
	defer stop()
	waited, ok := e.turns.take(ctx, n.Subject)
	if !ok {
		return
	}
	defer e.turns.give(n.Subject)
	if waited {
		a = issue(ctx)
	}
	for range tries {
		// Of more than the limit one less is still too many, and who has too many unused tickets gets none: somebody would go in vain.
		if a.Result != ticket.IssueFull || a.Used > n.Limit || a.Reserved >= n.Unused || ctx.Err() != nil {
			return
		}
		switch e.evict(ctx, &n, a.Counted) {
		case Done:
			issue(ctx)
			return
		case Gone:
			a = issue(ctx)
		case Taken: // another's, and so will be its slot
		default:
			return
		}
	}
}

// candidate is a victim and whose it is.
type candidate struct {
	node   ticket.Incarnation
	socket uint64
	since  int64 // in milliseconds of the store's clock
}

// evict finds who has to go among the sockets of holders, and has it closed.
func (e *Evictor) evict(ctx context.Context, n *ticket.Newcomer, holders []ticket.Incarnation) Result {
	c, ok := e.find(ctx, n, holders)
	if !ok {
		return Late
	}
	end, _ := ctx.Deadline()
	within := time.Until(end) - lastMoment
	if within <= 0 {
		return Late
	}
	self := e.o.Node.Incarnation()
	if c.node == self {
		return e.close(ctx, c.socket, n.Subject, within)
	}
	m := message{kind: kindEvict, from: self, subject: n.Subject, socket: c.socket, at: e.o.Node.StoreTime().Add(within).UnixMilli()}
	answers, done := e.send(ctx, &m, []ticket.Incarnation{c.node})
	defer done()
	for {
		select {
		case m := <-answers:
			if m.kind == kindEnded && m.from == c.node {
				return m.result
			}
		case <-ctx.Done():
			e.o.Log.Warn("a socket was to be evicted for a newcomer, and its node did not answer", "node", channel(c.node))
			return Doubt
		}
	}
}

// find asks holders, and returns the best answer.
func (e *Evictor) find(ctx context.Context, n *ticket.Newcomer, holders []ticket.Incarnation) (best candidate, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	self, here := e.o.Node.Incarnation(), false
	var others []ticket.Incarnation
	for _, i := range holders {
		switch {
		case i == self:
			here = true
		case len(others) < askedMax && e.o.Bus != nil:
			others = append(others, i)
		}
	}
	end, _ := ctx.Deadline()
	m := message{kind: kindAsk, from: self, subject: n.Subject, idlest: n.Idlest, at: e.o.Node.StoreTime().Add(time.Until(end)).UnixMilli()}
	answers, done := e.send(ctx, &m, others)
	defer done()
	if here {
		if v, found := e.o.Sockets.Victim(ctx, n.Subject, n.Idlest); found {
			best, ok = candidate{self, v.Socket, e.since(v)}, true
		}
	}
	for waiting := len(others); waiting > 0; {
		select {
		case m := <-answers:
			i := index(others, m.from)
			if i < 0 || m.kind != kindAnswer {
				continue
			}
			others[i] = 0 // who says it twice
			waiting--
			if m.found && (!ok || m.at < best.since) {
				best, ok = candidate{m.from, m.socket, m.at}, true
			}
		case <-ctx.Done():
			return best, ok
		}
	}
	return best, ok
}

// since is v's moment by the store's clock.
func (e *Evictor) since(v Victim) int64 { return e.o.Node.StoreTime().Add(-v.Ago).UnixMilli() }

func index(all []ticket.Incarnation, i ticket.Incarnation) int {
	for n, one := range all {
		if one == i && i != 0 {
			return n
		}
	}
	return -1
}

// close closes a socket of this node, and sees to it that the store knows.
func (e *Evictor) close(ctx context.Context, socket uint64, u ticket.Subject, within time.Duration) Result {
	r := e.o.Sockets.Evict(ctx, socket, u, within)
	if r == Done && e.o.Node.Tell(ctx, u) != nil {
		return Doubt
	}
	return r
}

// send sends m to each of to, under a number of its own. done ends the waiting for answers.
func (e *Evictor) send(ctx context.Context, m *message, to []ticket.Incarnation) (answers <-chan message, done func()) {
	var b [8]byte
	if len(to) == 0 {
		return nil, func() {}
	}
	if _, err := io.ReadFull(e.o.Rand, b[:]); err != nil {
		return nil, func() {} // nobody answers
	}
	m.request = binary.BigEndian.Uint64(b[:])
	got := make(chan message, len(to)+1)
	e.mu.Lock()
	e.pending[m.request] = got
	e.mu.Unlock()
	payload := m.append(nil)
	ms := make([]ticket.Message, len(to))
	for i, one := range to {
		ms[i] = ticket.Message{Channel: channel(one), Payload: payload}
	}
	if err := e.o.Bus.Publish(ctx, ms); err != nil {
		e.o.Log.Debug("other nodes cannot be asked for a socket to evict", "reason", err)
	}
	return got, func() {
		e.mu.Lock()
		delete(e.pending, m.request)
		e.mu.Unlock()
	}
}
