// Package model is the ticket store in plain Go: what the scripts of one Redis primary do, written to be read. The stores are
// tested against it, and the simulator runs on it.
package model

import (
	"maps"
	"slices"
	"time"

	"ticketgate/ticket"
)

// zeroKept is how long the zeros of a subject stay: longer than any command can be on its way.
const zeroKept = time.Hour

// A Primary is one server that takes writes. Not for concurrent use. Times are those of the server's own clock; its methods are
// given the present one, which never steps back.
type Primary struct {
	Self ticket.ShardEpoch
	// Durable: no write that was acknowledged is missing in the present history, if none was in the one before. It has been
	// restarted from a file that has them all; it is no former replica, and has none that could take over.
	Durable bool
	State   *State
}

// A State is what a primary hands on to its replicas.
type State struct {
	subjects map[ticket.Subject]*subject
	nodes    *Nodes
}

type subject struct {
	tickets  map[ticket.Hash]unused
	reserved map[ticket.Hash]time.Time // until when
	held     map[ticket.Incarnation]reading
	zero     time.Time // when the held readings, all zero, are forgotten; zero: some are not
}

type unused struct {
	secret ticket.SecretHash
	owner  string
	grant  []byte
	expiry time.Time
}

type reading struct {
	count  uint32
	number uint64
}

// NewState returns what an empty server has.
func NewState() *State { return NewStateOf(NewNodes(0)) }

// NewStateOf returns what a server has that keeps n, and nothing else yet.
func NewStateOf(n *Nodes) *State {
	return &State{subjects: map[ticket.Subject]*subject{}, nodes: n}
}

// Clone returns a copy that shares nothing with s but grants, which nobody writes to.
func (s *State) Clone() *State {
	c := &State{subjects: make(map[ticket.Subject]*subject, len(s.subjects)), nodes: s.nodes.clone()}
	for k, v := range s.subjects {
		c.subjects[k] = &subject{maps.Clone(v.tickets), maps.Clone(v.reserved), maps.Clone(v.held), v.zero}
	}
	return c
}

// at returns the subject u, in which nothing has expired.
func (s *State) at(u ticket.Subject, now time.Time) *subject {
	x := s.subjects[u]
	if x == nil {
		x = &subject{map[ticket.Hash]unused{}, map[ticket.Hash]time.Time{}, map[ticket.Incarnation]reading{}, time.Time{}}
		s.subjects[u] = x
	}
	maps.DeleteFunc(x.tickets, func(_ ticket.Hash, t unused) bool { return !now.Before(t.expiry) })
	maps.DeleteFunc(x.reserved, func(_ ticket.Hash, until time.Time) bool { return !now.Before(until) })
	if !x.zero.IsZero() && !now.Before(x.zero) {
		clear(x.held)
		x.zero = time.Time{}
	}
	return x
}

func (x *subject) used() uint32 {
	n := uint32(len(x.reserved))
	for _, r := range x.held {
		n += r.count
	}
	return n
}

// counted are those who hold something, in their order.
func (x *subject) counted() []ticket.Incarnation {
	var out []ticket.Incarnation
	for i, r := range x.held {
		if r.count > 0 {
			out = append(out, i)
		}
	}
	slices.Sort(out)
	return out
}

// hold writes a reading unless the same or a later one stands there. A zero stays, with its number.
func (x *subject) hold(h *ticket.Held, now time.Time) {
	if old, ok := x.held[h.Incarnation]; ok && h.Number <= old.number {
		return
	}
	x.held[h.Incarnation] = reading{h.Count, h.Number}
	x.settle(now)
}

// bury forgets the readings of the dead.
func (x *subject) bury(dead []ticket.Incarnation, now time.Time) {
	before := len(x.held)
	for _, i := range dead {
		delete(x.held, i)
	}
	if len(x.held) < before {
		x.settle(now)
	}
}

// settle is called after each change of the readings.
func (x *subject) settle(now time.Time) {
	x.zero = time.Time{}
	if len(x.held) > 0 && len(x.counted()) == 0 {
		x.zero = now.Add(zeroKept)
	}
}

// Issue is ticket.Store's.
func (p *Primary) Issue(r *ticket.IssueRequest, now time.Time) ticket.IssueAnswer {
	a := ticket.IssueAnswer{Seen: p.Self}
	if r.Epoch != p.Self.Epoch {
		a.Result = ticket.IssueEpoch
		return a
	}
	x := p.State.at(r.Subject, now)
	x.bury(r.Dead, now)
	a.Used = x.used()
	_, twice := x.tickets[r.Ticket]
	_, again := x.reserved[r.Ticket] // outlives its ticket
	switch {
	case twice:
		a.Result = ticket.IssueDuplicate
	case r.Limit != ticket.NoLimit && a.Used >= r.Limit:
		a.Result, a.Reserved, a.Counted = ticket.IssueFull, uint32(len(x.reserved)), x.counted()
	case uint32(len(x.reserved)) >= r.Outstanding:
		a.Result = ticket.IssueOutstanding
	case again:
		a.Result = ticket.IssueDuplicate
	default:
		x.tickets[r.Ticket] = unused{r.Secret, r.Owner, slices.Clone(r.Grant), now.Add(r.Life)}
		x.reserved[r.Ticket] = now.Add(max(r.Life, r.Reserve))
		a.Result = ticket.IssueOK
		a.Used++
	}
	return a
}

// Redeem is ticket.Store's, for one.
func (p *Primary) Redeem(r *ticket.RedeemRequest, now time.Time) ticket.RedeemAnswer {
	a := ticket.RedeemAnswer{Seen: p.Self}
	if r.Epoch != p.Self.Epoch {
		a.Result = ticket.RedeemEpoch
		return a
	}
	x := p.State.at(r.Held.Subject, now)
	t, ok := x.tickets[r.Ticket]
	delete(x.tickets, r.Ticket)
	delete(x.reserved, r.Ticket)
	switch {
	case !ok:
		a.Result = ticket.RedeemUnknown
	case t.secret != r.Secret:
		a.Result = ticket.RedeemSecret
	default:
		x.hold(&r.Held, now)
		a.Result, a.Grant = ticket.RedeemOK, slices.Clone(t.grant)
	}
	return a
}

// Assert is ticket.Store's, for one.
func (p *Primary) Assert(r *ticket.Assertion, now time.Time) ticket.AssertAnswer {
	if r.Epoch != p.Self.Epoch {
		return ticket.AssertAnswer{Seen: p.Self}
	}
	x := p.State.at(r.Subject, now)
	for _, h := range r.Spent {
		delete(x.tickets, h)
		delete(x.reserved, h)
	}
	x.hold(&r.Held, now)
	return ticket.AssertAnswer{OK: true, Seen: p.Self}
}

// Revoke is ticket.Store's.
func (p *Primary) Revoke(r *ticket.RevokeRequest, now time.Time) bool {
	x := p.State.at(r.Subject, now)
	t, ok := x.tickets[r.Ticket]
	if !ok || t.owner != r.Owner {
		return false
	}
	delete(x.tickets, r.Ticket)
	delete(x.reserved, r.Ticket)
	return true
}

// Used is ticket.Store's.
func (p *Primary) Used(u ticket.Subject, dead []ticket.Incarnation, now time.Time) uint32 {
	x := p.State.at(u, now)
	n := uint32(len(x.reserved))
	for i, r := range x.held {
		if !slices.Contains(dead, i) {
			n += r.count
		}
	}
	return n
}
