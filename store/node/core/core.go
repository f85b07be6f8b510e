// Package core is one node's side of the admission protocol as a deterministic machine: no goroutine, no clock, no I/O. Times,
// answers and what happens on the node go in; requests to the store come out. store/node drives it, tools/simulate plays it.
//
//	Work    what is to be sent now: a renewal, a question for a shard's epoch, a batch of counts
//	Next    when Work has to be called again, if nothing happens before
//	Renewed, Asked, Asserted, Redeemed, Issued, Touch    what has happened
//	Now     what the machine knows: immutable, for any goroutine
//	Spend   a ticket was spent here, without the store; Owes, Overdue: the store was not told of it in time
//
// What it keeps of each shard, and what follows from it:
//
//	unknown ──any answer──> seen ──all counts asserted──> synced ──a believed renewal──> registered: redeem
//	                         ^ ^                            │                                │   and all others too: issue
//	                         │ └── tags gained, renewal refused, entered again ──────────────┤
//	                         └──── another epoch, never one that was left ───────────────────┘
package core

import (
	"encoding/binary"
	"io"
	"iter"
	"sync/atomic"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// Counts is how many sockets this node holds; limiter.Count.
type Counts interface {
	// Held returns the count of s and the number of its last change; false: zero for longer than a lease, or always.
	Held(s ticket.Subject) (count uint32, number uint64, ok bool)
}

// Options configure a Core. All but Replicas, Available, First, Former, Lost and Without are required.
type Options struct {
	Name      string        // for people
	Heartbeat time.Duration // between renewals
	Lease     time.Duration // more than the heartbeat and 2 s
	Replicas  int           // that must have a renewal before it is believed
	Available bool          // sockets are kept when their lease is over: what is not told yet does not close issue
	First     bool          // nobody has used the store before: a list of nodes that is young, in its first history, has lost none
	Rand      io.Reader     // names incarnations, spreads renewals
	Topology  func() *ticket.Topology
	Counts    Counts
	Subjects  iter.Seq[ticket.Subject] // all that Counts has a reading of, also those at zero
	Former    []ticket.Incarnation     // earlier lives of this node that are proven over

	// Lost is called when a life that had a lease has ended. Now tells of the next life by then.
	Lost func(why string)

	// Overdue is called with tickets whose sockets must be closed now: see Spend. It does not keep them.
	Overdue func([]ticket.Hash)

	Without Guard // for the simulator only
}

// A Guard is a rule that the simulator can leave out, to see what breaks without it.
type Guard uint

// The rules that can be left out.
const (
	GuardGrace      Guard = 1 << iota // nothing is concluded from a view in grace
	GuardOthers                       // issue waits for all living nodes to register the epoch
	GuardUnlisted                     // who is counted and not in the list is dead
	GuardEntryOnce                    // an incarnation that could not be entered for a lease is given up
	GuardAgain                        // who was entered again asserts everything again
	GuardAnswer                       // a redeem's answer is checked against the present life and epoch
	GuardSync                         // everything is asserted under a new epoch before it is registered
	GuardWait                         // a renewal is believed only when the replicas have it
	GuardLeft                         // an epoch that was left is never taken again
	GuardYoung                        // a list that has just begun may follow one that was lost
	GuardUnasserted                   // a socket whose ticket was spent here is closed if the store does not know it in time
)

const (
	driftParts  = 500             // our clock and the store's may run apart by 1/500
	leaseMargin = 2 * time.Second // closing takes time
	quickly     = 400 * time.Millisecond
	quickSpread = 200 * time.Millisecond
	refusedWait = 2 * time.Second       // before an epoch that was refused is told everything once more
	gap         = 50 * time.Millisecond // between renewals that were not waited for
	batchMax    = 256                   // counts in one call
	leftMax     = 64                    // epochs that are remembered as left, of one shard
	unknownMax  = 1024                  // incarnations that are looked for in the list
	deadMax     = 4096                  // incarnations in an issue's list of the dead
)

// A Core is one node's side. Not for concurrent use, except Now, Spend, Settle, Owes and Owed.
type Core struct {
	o    Options
	now  atomic.Pointer[State]
	news bool // what Now told is no longer so

	life     life
	renewals renewals
	view     view

	first   ticket.Epoch // the history of the list of nodes that this process saw first
	top     *ticket.Topology
	shards  map[ticket.Shard]*shard // all of top.Shards, and some that were
	present []*shard                // as top.Shards
	dirty   map[ticket.Subject]mark
	runs    uint32 // begun, on all shards

	owed owed
	late []ticket.Hash
}

// New returns a Core that has not been born: the first Work does that.
func New(o Options) *Core {
	if o.Lost == nil {
		o.Lost = func(string) {}
	}
	if o.Overdue == nil {
		o.Overdue = func([]ticket.Hash) {}
	}
	m := &Core{o: o, shards: map[ticket.Shard]*shard{}, dirty: map[ticket.Subject]mark{}}
	for _, i := range o.Former {
		m.renewals.over = append(m.renewals.over, over{incarnation: i})
	}
	m.owed.init()
	m.view.unknown = map[ticket.Incarnation]uint64{}
	m.now.Store(new(State))
	return m
}

// without tells whether the simulator has left g out.
func (m *Core) without(g Guard) bool { return m.o.Without&g != 0 }

// spread returns a random duration below d.
func (m *Core) spread(d time.Duration) time.Duration {
	var b [4]byte
	if _, err := io.ReadFull(m.o.Rand, b[:]); err != nil {
		return d / 2
	}
	return time.Duration(int64(d) * int64(binary.BigEndian.Uint32(b[:])) >> 32)
}

// soon is about half a second after now.
func (m *Core) soon(now mono.Time) mono.Time { return now.Add(quickly + m.spread(quickSpread)) }

// A Call is one request to the store. Exactly one field is set; the outcome is told with it, exactly once, or never.
type Call struct {
	Renew  *Renew  // to Renewed
	Ask    *Ask    // to Asked
	Assert *Assert // to Asserted
}

// Work appends to dst what is to be sent at now.
func (m *Core) Work(now mono.Time, dst []Call) []Call {
	m.begin(now)
	defer m.end()
	m.expire(now)
	m.walk(now)
	for _, s := range m.present {
		if a := m.ask(s, now); a != nil {
			dst = append(dst, Call{Ask: a})
		}
		if a := m.assert(s, now); a != nil {
			dst = append(dst, Call{Assert: a})
		}
	}
	if r := m.renew(now); r != nil {
		dst = append(dst, Call{Renew: r})
	}
	return dst
}

// Next returns when Work has something to do if nothing happens before.
func (m *Core) Next() mono.Time {
	next := min(m.endsAt(), m.owed.next(m.o.Lease))
	if m.renewals.flying == nil {
		next = min(next, m.renewals.due)
	}
	for _, s := range m.present {
		next = min(next, m.nextOf(s))
	}
	return next
}

// begin comes before every input: the newest topology first.
func (m *Core) begin(now mono.Time) {
	if top := m.o.Topology(); top != m.top && top != nil {
		m.move(top, now)
	}
	m.overdue(now)
}

// end comes after every input.
func (m *Core) end() {
	if m.news {
		m.news = false
		m.publish()
	}
}

// never is later than every time.
const never = mono.Time(1<<63 - 1)
