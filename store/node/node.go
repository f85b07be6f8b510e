// Package node is one gateway's side of the ticket store: its lease, what it believes of the store, the batches in which its
// loops redeem, and the counts of sockets that it asserts.
//
//	keeper    1 goroutine    renews the lease each heartbeat; learns epoch, dead nodes and the store's clock
//	sender    4 goroutines   join the loops' batches, ask the store, check each answer once more
//	refuser   1 goroutine    answers what is not sent
//	asserter  1 goroutine    tells the store how many sockets the node holds, until it has understood
//
// The store may be slow, away or have forgotten everything. The node then opens nothing; sockets that are open stay while
// its lease does.
package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// Counts is how many sockets this node holds; limiter.Count. Any goroutine may call it.
type Counts interface {
	// Held returns the count of s and the number of its last change; false: zero for longer than a lease, or always.
	Held(s ticket.Subject) (count uint32, number uint64, ok bool)
}

// Options configure a Node. All but Former, OnLeaseLost and Log are required.
type Options struct {
	Store     ticket.Store
	Name      string        // for people
	Heartbeat time.Duration // between renewals, 10 s
	Lease     time.Duration // 45 s; more than 2 s and the heartbeat
	Timeout   time.Duration // of a redemption, from the hand-over to the answer: 200 ms
	Clock     mono.Clock
	Rand      io.Reader // names incarnations

	Counts   Counts
	Subjects iter.Seq[ticket.Subject] // all that Counts has a reading of, also those at zero

	// Former are earlier lives of this node whose end is proven (their lock file could be taken).
	Former []ticket.Incarnation
	// OnLeaseLost is called on a goroutine of the node when the lease is over, before the store can give its slots to others:
	// in strict mode all sockets must close now. It must not wait.
	OnLeaseLost func()
	Log         *slog.Logger // nil for none
}

// What the node knows less well than the store: their clocks may run apart by 0.2 %, and closing takes time.
const (
	driftParts  = 500
	leaseMargin = 2 * time.Second
)

// retryAfter is the wait after a renewal that failed: as often as the store's breaker probes.
const retryAfter = 250 * time.Millisecond

// failuresMax is how many renewals may fail in a row before the node says that it is not ready.
const failuresMax = 2

// A Node is one gateway's membership. Any goroutine may call its methods; none but Start, Learn and Close waits.
type Node struct {
	o      Options
	near   ticket.NearStore // o.Store, if it is one
	life   atomic.Pointer[life]
	asks   queue // to be sent
	refuse queue // to be answered unsent
	flying atomic.Int64
	dirty  dirty

	keeper keeper

	quit  chan struct{}
	close sync.Once
	work  sync.WaitGroup
}

// A life is what is known of one incarnation. It is never changed, only replaced, by the keeper.
type life struct {
	incarnation ticket.Incarnation
	until       mono.Time    // when the lease ends by our clock; zero: not entered
	epoch       ticket.Epoch // of the last view that we could act on
	registered  bool         // the counts stand in the store of that epoch
	failures    int          // renewals failed in a row
	dead        []ticket.Incarnation
	storeTime   time.Time // what the store's clock showed
	storeAt     mono.Time // when it did; zero: never asked
}

// leased tells whether the lease holds at now.
func (l *life) leased(now mono.Time) bool { return now < l.until }

// able tells whether tickets of epoch may be redeemed at now.
func (l *life) able(now mono.Time, epoch ticket.Epoch) bool {
	return l.leased(now) && l.registered && l.epoch == epoch
}

// New returns a Node that does nothing before Start.
func New(o Options) *Node {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.OnLeaseLost == nil {
		o.OnLeaseLost = func() {}
	}
	n := &Node{o: o, quit: make(chan struct{})}
	n.near, _ = o.Store.(ticket.NearStore)
	n.life.Store(new(life))
	n.asks.init()
	n.refuse.init()
	n.dirty.init()
	n.keeper.init(n)
	return n
}

// Start tries once to enter the node, at most until ctx ends, and starts its goroutines, which go on trying. Whether it is
// in shows in Ready. It is called once.
func (n *Node) Start(ctx context.Context) {
	n.keeper.turn(ctx)
	n.work.Go(n.keeper.run)
	n.work.Go(n.asserting)
	n.work.Go(n.refusing)
	for range senders {
		n.work.Go(n.sending)
	}
}

// Close ends the node after its engine has: what is queued is answered unsent, and released slots are told to the store
// while ctx lasts. The error is from that last assert: the slots then stay taken until the lease ends.
func (n *Node) Close(ctx context.Context) error {
	var err error
	n.close.Do(func() {
		close(n.quit)
		n.asks.end()
		n.refuse.end()
		n.work.Wait()
		n.dirty.all()
		err = n.flush(ctx)
	})
	return err
}

// Epoch is the store's history as far as this node knows; 0: not known yet. It stays while the store is away.
func (n *Node) Epoch() ticket.Epoch { return n.life.Load().epoch }

// Incarnation names the present life of this node; 0 before the first attempt to enter.
func (n *Node) Incarnation() ticket.Incarnation { return n.life.Load().incarnation }

// Dead is whose slots no longer count, from the last view. Nobody writes to it.
func (n *Node) Dead() []ticket.Incarnation { return n.life.Load().dead }

// StoreTime is the store's clock now, as learned at the last renewal: right to half a round trip, and to the drift of the
// two clocks over a heartbeat. Before the first it is this machine's wall clock.
func (n *Node) StoreTime() time.Time {
	l := n.life.Load()
	if l.storeAt == 0 {
		return n.o.Clock.Wall()
	}
	return l.storeTime.Add(n.o.Clock.Now().Sub(l.storeAt))
}

// Leased tells whether the node's slots are its own at now. After any pause a loop asks before it touches a socket.
func (n *Node) Leased(now mono.Time) bool { return n.life.Load().leased(now) }

// Why a node is not ready.
var (
	ErrNotEntered    = errors.New("not entered in the ticket store yet")
	ErrLease         = errors.New("slot lease lost")
	ErrNotRegistered = errors.New("counts not yet told to the ticket store")
	ErrStoreAway     = errors.New("ticket store does not answer")
)

// Ready is nil while tickets can be issued and redeemed, else one of the errors above.
func (n *Node) Ready() error {
	l := n.life.Load()
	switch now := n.o.Clock.Now(); {
	case l.failures >= failuresMax:
		return ErrStoreAway
	case l.until == 0:
		return ErrNotEntered
	case !l.leased(now):
		return ErrLease
	case !l.registered:
		return ErrNotRegistered
	}
	return nil
}

// Store returns the store as the issuing side should use it: when an Issue finds that the store has another epoch, the node
// learns it before the answer is given, so that the caller can mint again under Epoch.
func (n *Node) Store() ticket.Store { return learning{n.o.Store, n} }

type learning struct {
	ticket.Store
	node *Node
}

func (s learning) Issue(ctx context.Context, r *ticket.IssueRequest) (ticket.IssueAnswer, error) {
	a, err := s.Store.Issue(ctx, r)
	switch {
	case err != nil:
		s.node.keeper.kick()
	case a.Result == ticket.IssueEpoch:
		s.node.Learn(ctx)
	}
	return a, err
}

// Learn renews at once and waits for the outcome, or for ctx.
func (n *Node) Learn(ctx context.Context) {
	done := n.keeper.next()
	n.keeper.kick()
	select {
	case <-done:
	case <-ctx.Done():
	case <-n.quit:
	}
}

// newIncarnation draws a name that is not zero.
func newIncarnation(rnd io.Reader) (ticket.Incarnation, error) {
	var b [8]byte
	if _, err := io.ReadFull(rnd, b[:]); err != nil {
		return 0, fmt.Errorf("name an incarnation: random source: %w", err)
	}
	return max(1, ticket.Incarnation(binary.BigEndian.Uint64(b[:]))), nil
}
