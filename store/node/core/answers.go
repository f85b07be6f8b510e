package core

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// A State is what a Core knew at one moment. It is never changed, only replaced, so any goroutine may use it.
type State struct {
	Generation  uint32             // of the life: 1, 2, ...; 0 before the first
	Incarnation ticket.Incarnation // of the life; 0: between two
	Until       mono.Time          // when the lease ends by our clock; zero: not entered
	Failures    int                // renewals without an answer that counts, in a row
	Why         error              // of the last of them
	StoreTime   time.Time          // what the store's clock showed at StoreAt
	StoreAt     mono.Time          // zero: it was never asked
	Dead        []ticket.Incarnation
	Topology    *ticket.Topology // nil: not known
	Shards      []ShardState     // as Topology.Shards
	Nodes       []ticket.NodeView
	Grace       bool

	core *Core // for the simulator's guards only, which never change
}

// A ShardState is what a node may do on one shard.
type ShardState struct {
	Shard      ticket.Shard
	Epoch      ticket.Epoch // seen: that of the tickets that can be good; 0: not known
	Registered ticket.Epoch // by the last believed renewal
	Able       bool         // redeems, while the lease holds
	Closed     error        // why nothing is issued; nil: issue is open, while the lease holds
}

// Now is what the machine knows. Any goroutine may call it; it does not allocate.
func (m *Core) Now() *State { return m.now.Load() }

func (m *Core) publish() {
	w, l := &m.view, &m.life
	s := &State{Generation: l.generation, Incarnation: l.incarnation, Until: l.until, Failures: m.renewals.failures, Why: m.renewals.why,
		StoreTime: w.storeTime, StoreAt: w.storeAt, Dead: w.dead, Topology: m.top, Shards: make([]ShardState, len(m.present)),
		Nodes: w.nodes, Grace: w.grace, core: m}
	for i, x := range m.present {
		s.Shards[i] = ShardState{x.name, x.seen, x.registered, m.settled(x), m.closed(x)}
	}
	m.now.Store(s)
}

// What keeps issue closed while nothing is wrong with this node.
var (
	errTelling = errors.New("this node has not told the store its counts yet")
	errGrace   = errors.New("the store may have lost nodes: it waits for them")
	errYoung   = errors.New("the store was empty a short while ago: it waits for nodes that it may have lost")
)

// closed tells why nothing is issued on x; nil: issue is open, while the lease holds.
func (m *Core) closed(x *shard) error {
	switch {
	case !m.settled(x) || !m.view.known:
		return errTelling
	case m.view.grace:
		return errGrace
	case m.view.young && !m.o.Available && !(m.o.First && m.view.since == m.first) && !m.without(GuardYoung):
		return errYoung
	case m.without(GuardOthers):
		return nil
	}
	for i := range m.view.nodes {
		n := &m.view.nodes[i]
		if n.Dead || slices.Contains(m.view.dead, n.Incarnation) || len(n.Registered) == 0 {
			continue
		}
		if n.Topology != m.top.ID {
			return fmt.Errorf("node %q sees other shards of the store", n.Name)
		}
		for _, e := range n.Registered {
			if e.Shard == x.name && e.Epoch != x.seen {
				return fmt.Errorf("node %q has not told its counts to shard %d of the store yet", n.Name, x.name)
			}
		}
	}
	return nil
}

// Lists tells whether i is in the list of nodes, as of the last believed view.
func (s *State) Lists(i ticket.Incarnation) bool { return find(s.Nodes, i) != nil }

// Number is what locators call this life's node: never 0, and nearly never that of another.
func (s *State) Number() uint16 { return NumberOf(s.Incarnation) }

// NumberOf is what locators call the node of incarnation i.
func NumberOf(i ticket.Incarnation) uint16 {
	return max(1, uint16(i)^uint16(i>>16)^uint16(i>>32)^uint16(i>>48))
}

// Leased tells whether the lease holds at now.
func (s *State) Leased(now mono.Time) bool { return now < s.Until }

// Epoch is the one that a ticket of u must have; 0: none is right.
func (s *State) Epoch(u ticket.Subject) ticket.Epoch {
	if s.Topology == nil {
		return 0
	}
	return s.Shards[s.Topology.At(u)].Epoch
}

// MayRedeem tells whether a ticket of u and epoch may be redeemed at now.
func (s *State) MayRedeem(now mono.Time, u ticket.Subject, epoch ticket.Epoch) bool {
	if !s.Leased(now) || s.Topology == nil {
		return false
	}
	x := &s.Shards[s.Topology.At(u)]
	return x.Able && x.Epoch == epoch
}

// Stands is the check that counts, when q's answer a has arrived at now: a socket opens only in the life as which it was asked,
// with the lease valid, and where the counts are told and registered under the epoch of the ticket.
func (s *State) Stands(now mono.Time, q *ticket.RedeemRequest, a *ticket.RedeemAnswer) bool {
	if s.core != nil && s.core.without(GuardAnswer) {
		return true
	}
	return s.Incarnation == q.Held.Incarnation && s.MayRedeem(now, q.Held.Subject, q.Epoch) &&
		a.Seen.Epoch == q.Epoch && a.Seen.Shard == s.Topology.Of(q.Held.Subject)
}

// ErrLease is issue without a lease.
var ErrLease = errors.New("this node has no lease")

// MayIssue tells why a ticket of u is not issued at now; nil: it may be.
func (s *State) MayIssue(now mono.Time, u ticket.Subject) error {
	if !s.Leased(now) || s.Topology == nil {
		return ErrLease
	}
	return s.Shards[s.Topology.At(u)].Closed
}

// Redeemed tells what came of a redeem that was sent at sent. u is asserted unless the count that the store has is sure: it opened a
// socket, or was refused, so that the store has not taken its count; then u is touched when its count has been lowered.
func (m *Core) Redeemed(now, sent mono.Time, u ticket.Subject, sure bool, seen ticket.ShardEpoch) {
	m.begin(now)
	defer m.end()
	m.observe(now, sent, seen)
	if !sure {
		m.touch(u, 0)
	}
}

// Issued tells the answer to an issue that was sent at sent.
func (m *Core) Issued(now, sent mono.Time, a *ticket.IssueAnswer) {
	m.begin(now)
	defer m.end()
	m.observe(now, sent, a.Seen)
	m.counted(now, a.Counted)
}

// Doubt tells that the store gave no answer, or that this node could not ask: the next renewal, which is near, shows more.
func (m *Core) Doubt(now mono.Time) {
	m.begin(now)
	defer m.end()
	m.renewals.due = min(m.renewals.due, m.soon(now))
}
