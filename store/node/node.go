// Package node is one gateway's side of the ticket store: its lease, what it believes of the store, the batches in which its
// loops redeem, and the counts of sockets that it asserts.
//
//	keeper    1 goroutine    owns the machine (store/node/core), which decides everything; the others only tell it
//	call      a goroutine a request of the machine: at most one renewal, and for each shard one question and one batch of counts
//	sender    4 goroutines   join the loops' batches, ask the store, check each answer once more
//	refuser   1 goroutine    answers what is not sent
//	own       a table        of tickets that this node spends itself, on the loops, if it does (authority: node)
//
//	loops ──Redeem──> queue ──sender──> store          any goroutine ──Issue──> store
//	  │                          │                                      │
//	  └──Touch──────> inbox <────┴────────── answers ───────────────────┘
//	                    └──keeper──> machine ──call──> store ──answers──> inbox
//	                                    └──Now──> all who ask: Epoch, Life, Ready, Status
//
// The store may be slow, away or have forgotten everything. The node then opens nothing; sockets that are open stay while
// its lease does.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/store/node/core"
	"ticketgate/ticket"
)

// Counts is how many sockets this node holds; limiter.Count. Any goroutine may call it.
type Counts = core.Counts

// Options configure a Node. All but Replicas, Available, First, Former, Spends, OnLife, OnLeaseLost, OnOverdue and Log are required.
type Options struct {
	Store     ticket.Store
	Name      string        // for people
	Heartbeat time.Duration // between renewals, 10 s
	Lease     time.Duration // 45 s; more than 2 s and the heartbeat
	Timeout   time.Duration // of a redemption, from the hand-over to the answer: 200 ms
	Replicas  int           // of the store that must have a renewal before it counts; 0: the store has none
	Available bool          // sockets are kept when the lease is over
	First     bool          // nobody has used the store before. Else a store that is empty may have lost everything: without Available, nothing is issued for a lease and 5 s
	Spends    bool          // this node alone spends the tickets that it issues, without the store (authority: node)
	Clock     mono.Clock    // goes on while the machine sleeps
	Rand      io.Reader     // names incarnations, spreads renewals

	Counts   Counts
	Subjects iter.Seq[ticket.Subject] // all that Counts has a reading of, also those at zero

	// Former are earlier lives of this node whose end is proven (their lock file could be taken).
	Former []ticket.Incarnation
	// OnLife is called on a goroutine of the node before an incarnation is first sent to the store, so that it can be written
	// down: its next start may prove its end by that. It may wait. While it fails the node is not entered.
	OnLife func(ticket.Incarnation) error
	// OnLeaseLost is called on a goroutine of the node when the lease is over, before the store can give its slots to others:
	// in strict mode all sockets must close now. Life tells of it already. It must not wait.
	OnLeaseLost func()
	// OnOverdue is called on a goroutine of the node when sockets must close that the store was not told of in time: those with
	// which Batch.By has come. It must not wait.
	OnOverdue func()
	Log       *slog.Logger // nil for none
}

// How long the keeper's calls may take.
const (
	renewTimeout = 3 * time.Second // with the replicas' acknowledgements
	callTimeout  = time.Second
)

// failuresMax is how many renewals may fail in a row before the node says that it is not ready.
const failuresMax = 2

// A Node is one gateway's membership. Any goroutine may call its methods. None waits but Start, Close, Issue, Revoke and Used.
type Node struct {
	o      Options
	near   ticket.NearStore // o.Store, if it is one
	own    *own             // nil: the store spends tickets
	core   *core.Core       // the keeper's; Now is anybody's
	inbox  inbox
	asks   queue // to be sent
	refuse queue // to be answered unsent
	flying atomic.Int64
	ended  atomic.Bool

	writing sync.Mutex
	written ticket.Incarnation // OnLife has it

	ctx   context.Context // of the keeper's calls
	stop  context.CancelFunc
	close sync.Once
	work  sync.WaitGroup // all goroutines but calls
	calls sync.WaitGroup
}

// New returns a Node that does nothing before Start.
func New(o Options) *Node {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.OnLeaseLost == nil {
		o.OnLeaseLost = func() {}
	}
	if o.OnOverdue == nil {
		o.OnOverdue = func() {}
	}
	if o.OnLife == nil {
		o.OnLife = func(ticket.Incarnation) error { return nil }
	}
	n := &Node{o: o}
	n.near, _ = o.Store.(ticket.NearStore)
	if o.Spends {
		n.own = newOwn()
	}
	n.ctx, n.stop = context.WithCancel(context.Background())
	n.core = core.New(core.Options{Name: o.Name, Heartbeat: o.Heartbeat, Lease: o.Lease, Replicas: o.Replicas, Available: o.Available, First: o.First,
		Rand: o.Rand, Topology: o.Store.Topology, Counts: o.Counts, Subjects: o.Subjects, Former: o.Former, Lost: n.lost,
		Overdue: n.overdue})
	n.inbox.init()
	n.asks.init()
	n.refuse.init()
	return n
}

// Start enters the node and tells the store its counts. It waits until that is done, or until something fails, or until ctx ends;
// the node's goroutines go on trying. Whether it is in shows in Ready. It is called once.
func (n *Node) Start(ctx context.Context) {
	n.work.Go(n.keep)
	n.work.Go(n.refusing)
	for range senders {
		n.work.Go(n.sending)
	}
	n.inbox.wait(ctx, func() bool { return n.Ready() == nil || n.core.Now().Failures > 0 })
}

// Close ends the node after its engine has: what is queued is answered unsent, and released slots are told to the store
// while ctx lasts. The error is from that last assert: the slots then stay taken until the lease ends.
func (n *Node) Close(ctx context.Context) error {
	var err error
	n.close.Do(func() {
		n.ended.Store(true)
		n.stop()
		n.asks.end()
		n.refuse.end()
		n.inbox.end()
		n.work.Wait()
		n.calls.Wait()
		err = n.farewell(ctx)
	})
	return err
}

// Epoch is the history of the store's shard that keeps s as far as this node knows; 0: not known yet. It stays while the store is
// away. It neither locks nor allocates.
func (n *Node) Epoch(s ticket.Subject) ticket.Epoch { return n.core.Now().Epoch(s) }

// Life is the generation of the present life at now, 1, 2, ...; 0: the lease does not hold now. What was let in in another life
// has lost its slot. Each loop asks before it touches a socket: it is one load and a comparison.
func (n *Node) Life(now mono.Time) uint32 {
	if s := n.core.Now(); s.Leased(now) {
		return s.Generation
	}
	return 0
}

// Incarnation names the present life of this node; 0 before the first attempt to enter.
func (n *Node) Incarnation() ticket.Incarnation { return n.core.Now().Incarnation }

// Dead is whose slots no longer count, as this node knows. Nobody writes to it.
func (n *Node) Dead() []ticket.Incarnation { return n.core.Now().Dead }

// StoreTime is the store's clock now, as learned at the last renewal: right to half a round trip, and to the drift of the
// two clocks over a heartbeat. Before the first it is this machine's wall clock.
func (n *Node) StoreTime() time.Time {
	s := n.core.Now()
	if s.StoreAt == 0 {
		return n.o.Clock.Wall()
	}
	return s.StoreTime.Add(n.o.Clock.Now().Sub(s.StoreAt))
}

// Why a node is not ready.
var (
	ErrNotEntered    = errors.New("not entered in the ticket store yet")
	ErrLease         = errors.New("slot lease lost")
	ErrNotRegistered = errors.New("counts not yet told to the ticket store")
	ErrStoreAway     = errors.New("ticket store does not answer")
)

// Ready is nil while tickets of all shards can be redeemed, else one of the errors above.
func (n *Node) Ready() error {
	s := n.core.Now()
	switch now := n.o.Clock.Now(); {
	case s.Failures >= failuresMax:
		return ErrStoreAway
	case s.Until == 0 && s.Generation <= 1:
		return ErrNotEntered
	case !s.Leased(now):
		return ErrLease
	case s.Topology == nil:
		return ErrNotRegistered
	}
	for i := range s.Shards {
		if !s.Shards[i].Able {
			return ErrNotRegistered
		}
	}
	return nil
}

// A Status is what a node knows, for people.
type Status struct {
	Incarnation ticket.Incarnation
	Lease       time.Duration // left; 0: none
	Failures    int           // renewals without an answer that counts, in a row
	Why         error         // of the last of them
	Grace       bool          // the store may have lost nodes
	Shards      []core.ShardState
	Closed      error // why nothing is issued on some shard, or at all; nil: issue is open everywhere
	Nodes       []ticket.NodeView
	Unasserted  int // tickets spent here that the store does not know of yet
	Excess      int // sockets beyond a valid lease, or not told to the store yet: the bound of the excess in mode available
}

// Status returns what the node knows. It may wait for the keeper to walk all subjects while something is amiss.
func (n *Node) Status() Status {
	now, s := n.o.Clock.Now(), n.core.Now()
	st := Status{Incarnation: s.Incarnation, Lease: max(0, s.Until.Sub(now)), Failures: s.Failures, Why: s.Why, Grace: s.Grace,
		Shards: s.Shards, Nodes: s.Nodes, Closed: closed(s, now), Unasserted: n.Unasserted()}
	if n.Ready() != nil {
		st.Excess = n.excess()
	}
	return st
}

func closed(s *core.State, now mono.Time) error {
	if !s.Leased(now) || s.Topology == nil {
		return core.ErrLease
	}
	for i := range s.Shards {
		if why := s.Shards[i].Closed; why != nil {
			return fmt.Errorf("shard %d: %w", s.Shards[i].Shard, why)
		}
	}
	return nil
}

// lost is core.Options.Lost.
func (n *Node) lost(why string) {
	n.o.Log.Warn("slot lease lost", "node", n.o.Name, "reason", why)
	n.o.OnLeaseLost()
}

// overdue is core.Options.Overdue.
func (n *Node) overdue(all []ticket.Hash) {
	n.o.Log.Error("sockets close whose slots the ticket store could not be told of in time", "node", n.o.Name, "sockets", len(all))
	n.o.OnOverdue()
}
