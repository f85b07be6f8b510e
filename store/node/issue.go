package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/store/node/core"
	"ticketgate/ticket"
)

// ErrIssueClosed is that no ticket may be made now: by this node's lease, or until all nodes have told the store their counts. The
// errors that wrap it say why, and wrap ticket.ErrUnavailable too.
var ErrIssueClosed = errors.New("no tickets are issued now")

// learnMax is how long an Issue waits until its node has told a new history of the store everything.
const learnMax = time.Second

// Issue is ticket.Store's, if issue is open for the shard of r.Subject; else the error wraps ErrIssueClosed. r.Dead is filled in
// here. When the store has another epoch the node has learned that when the answer is given, if ctx lasts: the caller can mint
// again under Epoch.
func (n *Node) Issue(ctx context.Context, r *ticket.IssueRequest) (ticket.IssueAnswer, error) {
	s, sent := n.core.Now(), n.o.Clock.Now()
	if why := s.MayIssue(sent, r.Subject); why != nil {
		n.inbox.doubt()
		return ticket.IssueAnswer{}, fmt.Errorf("%w: %w: %w", ErrIssueClosed, why, ticket.ErrUnavailable)
	}
	r.Dead = s.Dead
	ask := func() (ticket.IssueAnswer, error) { return n.o.Store.Issue(ctx, r) }
	var a ticket.IssueAnswer
	var err error
	if n.own != nil {
		a, err = n.issueOwn(r, s, sent, ask)
	} else {
		a, err = ask()
	}
	switch {
	case err != nil:
		n.inbox.doubt()
	case a.Result == ticket.IssueEpoch:
		n.learn(ctx, r, sent, &a)
	case n.news(s, r, &a):
		n.inbox.tell(func(m *core.Core, now mono.Time) { m.Issued(now, sent, &a) })
	}
	return a, err
}

// news tells whether the machine learns anything from a.
func (n *Node) news(s *core.State, r *ticket.IssueRequest, a *ticket.IssueAnswer) bool {
	if a.Seen.Epoch != r.Epoch || a.Seen.Shard != s.Topology.Of(r.Subject) {
		return true
	}
	for _, i := range a.Counted {
		if i != s.Incarnation && !s.Lists(i) {
			return true
		}
	}
	return false
}

// learn waits until the epoch in a is the node's own and its counts are told, or until it turns out to be one that was left.
func (n *Node) learn(ctx context.Context, r *ticket.IssueRequest, sent mono.Time, a *ticket.IssueAnswer) {
	ctx, cancel := context.WithTimeout(ctx, learnMax)
	defer cancel()
	told := make(chan struct{})
	n.inbox.tell(func(m *core.Core, now mono.Time) { m.Issued(now, sent, a); close(told) })
	n.inbox.wait(ctx, func() bool {
		select {
		case <-told:
		default:
			return false
		}
		s := n.core.Now()
		epoch := s.Epoch(r.Subject)
		return epoch == r.Epoch || s.MayRedeem(n.o.Clock.Now(), r.Subject, epoch)
	})
}

// Tell tells the store how many sockets of u are held now, and returns when it has acknowledged that, beside what the keeper tells it:
// for who waits for a slot that was given back. The error wraps ticket.ErrUnavailable: the store may know, or not.
func (n *Node) Tell(ctx context.Context, u ticket.Subject) error {
	s := n.core.Now()
	if !s.Leased(n.o.Clock.Now()) || s.Epoch(u) == 0 {
		return fmt.Errorf("tell a count: %w: %w", core.ErrLease, ticket.ErrUnavailable)
	}
	spent := n.core.Names(u) // before the count, which has their sockets
	count, number, ok := n.o.Counts.Held(u)
	if !ok && len(spent) == 0 {
		return nil // zero for longer than a lease
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	held := ticket.Held{Subject: u, Incarnation: s.Incarnation, Count: count, Number: number}
	var a [1]ticket.AssertAnswer
	n.o.Store.Assert(ctx, []ticket.Assertion{{Epoch: s.Epoch(u), Held: held, Spent: spent}}, a[:])
	if !a[0].OK || n.core.Now().Incarnation != s.Incarnation {
		n.inbox.doubt()
		return fmt.Errorf("tell a count: not acknowledged: %w", ticket.ErrUnavailable)
	}
	return nil
}

// Revoke is ticket.Store's. Where nodes spend their own tickets it is for those of this node's present life only.
func (n *Node) Revoke(ctx context.Context, r *ticket.RevokeRequest) (bool, error) {
	if n.own != nil {
		return n.revokeOwn(r), nil
	}
	return n.o.Store.Revoke(ctx, r)
}

// Used is ticket.Store's. Those that this node knows as dead are left out as well as dead.
func (n *Node) Used(ctx context.Context, s ticket.Subject, dead []ticket.Incarnation) (uint32, error) {
	if dead == nil {
		dead = n.Dead()
	}
	return n.o.Store.Used(ctx, s, dead)
}
