package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync/atomic"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/internal/mono"
	"ticketgate/revoke"
	"ticketgate/store/follow"
	"ticketgate/store/memory"
	"ticketgate/store/node"
	"ticketgate/ticket"
)

// revoking joins what is revoked with who has to know: the front end, the loops, the store.
//
//	follower ──new──> set ──asked──> front end, loops
//	            └──kick──> sweeping, 1 goroutine ──> engine.Sweep, one at a time
type revoking struct {
	set    *revoke.Set
	follow *follow.Follower
	node   *node.Node
	engine *engine.Engine // set before anything runs
	kicked chan struct{}
	closed atomic.Uint64 // sockets that sweeps have closed, or will
	look   ticket.Looker
	ttl    time.Duration // of tickets
	life   time.Duration // that a ticket and its socket have at most
}

// buildRevoking makes what follows the store's log. The node has to be there.
func (g *gateway) buildRevoking() {
	r := &revoking{set: revoke.NewSet(), node: g.node, kicked: make(chan struct{}, 1), ttl: g.c.Tickets.TTL, life: g.c.Tickets.SessionMax + g.c.Tickets.TTL + revokedMargin}
	r.look, _ = g.store.(ticket.Looker) // both stores are
	var log revoke.Log = memory.NewRevocations(mono.System)
	if g.redis != nil {
		log = g.redis.Revocations()
	}
	r.follow = follow.New(follow.Options{Log: log, Set: r.set, Changed: r.kick, Now: g.node.StoreTime, Clock: mono.System, Logger: g.log})
	g.revoking = r
}

// revokedMargin is what the clocks of nodes may differ by, and an admission may take, beside a ticket's and a session's time.
const revokedMargin = time.Minute

func (r *revoking) kick() {
	select {
	case r.kicked <- struct{}{}:
	default:
	}
}

// sweep closes sockets until ctx ends, as the set has more.
func (r *revoking) sweep(ctx context.Context) {
	after := uint64(0)
	for {
		select {
		case <-r.kicked:
		case <-ctx.Done():
			return
		}
		from := after
		after = r.set.Number() // before the sweep: what comes meanwhile has another
		for _, v := range r.set.Conns(from) {
			r.engine.Close(selectorOf(&v), frame.Code(v.Code), v.Over, func(n int) { r.closed.Add(uint64(n)) })
		}
		done := make(chan struct{})
		r.engine.Sweep(func(s *engine.Socket) (engine.Sentence, bool) { return r.judge(s, from) }, func(n int) {
			r.closed.Add(uint64(n))
			close(done)
		})
		select {
		case <-done:
		case <-ctx.Done(): // the loops may have ended
			return
		}
	}
}

// planRetry is the time between tries to tell the store which plans keys have.
const planRetry = time.Second

// followPlans tells the store once which plans keys have, until ctx ends. What a key was given under a former plan is taken back on all
// nodes: the file of the node that started last counts.
func (g *gateway) followPlans(ctx context.Context) {
	if g.redis == nil || len(g.c.Keys) == 0 {
		return // alone, a node that starts has no sockets yet
	}
	plans := map[string]string{}
	for i := range g.c.Keys {
		plans[g.c.Keys[i].ID] = g.c.Keys[i].Plan
	}
	t := time.NewTicker(planRetry)
	defer t.Stop()
	for {
		former, err := g.redis.KeyPlans(ctx, plans)
		for id, plan := range former {
			r := &revoke.Revocation{What: revoke.Selector{Key: id, Plan: plan}, Code: uint16(frame.CloseRevoked), Reason: "the key has another plan"}
			told, perr := g.revoking.publish(ctx, r)
			g.log.Info("a key has another plan: what it was given under the former one is taken back", "key", id, "former", plan, "plan", plans[id], "told", told, "error", perr)
		}
		if err == nil {
			return
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// judge says whether a socket has to go for a revocation that was taken in after number after. It runs on the loops.
func (r *revoking) judge(s *engine.Socket, after uint64) (engine.Sentence, bool) {
	now := r.node.StoreTime()
	h := revoke.Holder{Client: s.Client(), Key: s.Key(), Stream: s.Stream, Plan: s.Plan, Issued: s.Issued, Subject: s.Subject(), Opener: s}
	v, ok := r.set.Socket(&h, after, now)
	if !ok {
		return engine.Sentence{}, false
	}
	return engine.Sentence{Code: frame.Code(v.Code), Over: max(0, v.Over-now.Sub(v.At))}, true
}

// selectorOf is a revocation as the engine selects.
func selectorOf(v *revoke.Revocation) engine.Selector {
	w := &v.What
	s := engine.Selector{Client: w.Client, Key: w.Key, Stream: w.Stream, Plan: w.Plan, Ticket: w.Ticket, Conn: w.Conn}
	if v.Barred.IsZero() {
		s.Until = v.At.Add(revoke.Slack)
	}
	return s
}

// Key implements handshake.Revoked.
func (r *revoking) Key(id string) bool { return r.set.Len() > 0 && r.set.Key(id, r.node.StoreTime()) }

// Issue implements handshake.Revoked.
func (r *revoking) Issue(c *ticket.Claims) bool {
	return r.set.Len() == 0 || r.set.Issue(c, r.node.StoreTime())
}

// redeem is engine.Options.Revoked.
func (r *revoking) redeem(c *ticket.Claims) bool {
	return r.set.Len() > 0 && r.set.Redeem(c, r.node.StoreTime())
}

// TakenBack implements handshake.Revoked.
func (r *revoking) TakenBack(ctx context.Context, u ticket.Subject, h ticket.Hash, owner string) error {
	return r.look.Note(ctx, u, h, owner, noteFor)
}

// noteFor is how long a ticket's owner is told that it has taken it back.
const noteFor = 10 * time.Minute

// State implements handshake.Revoked.
func (r *revoking) State(ctx context.Context, id, owner string) (string, error) {
	return r.state(ctx, id, owner)
}

// state tells what became of a ticket: unused, spent, expired, revoked; "" if owner has none with this id, or no ticket at all has. owner
// "" is anybody. What neither can be used nor was revoked is spent, until it would have expired; whose it was nobody remembers.
func (r *revoking) state(ctx context.Context, id, owner string) (string, error) {
	now := r.node.StoreTime()
	if !revoke.IsTicket(id) {
		return "", nil
	}
	issued, u, h, err := ticket.ParsePublicID(id)
	if err != nil {
		return "", err
	}
	if issued.After(now.Add(revoke.Slack)) {
		return "", nil
	}
	l, err := r.look.Look(ctx, u, h, owner)
	if err != nil {
		return "", err
	}
	if l.Grant != nil {
		c, err := ticket.ParseClaims(l.Grant)
		switch {
		case err != nil:
			return "", fmt.Errorf("what the store has of a ticket: %w", err)
		case c.ID != id || owner != "" && c.Key != owner:
			return "", nil
		case r.redeem(&c):
			return "revoked", nil
		}
		return "unused", nil
	}
	_, revoked := r.set.Ticket(id)
	switch {
	case l.Revoked || revoked:
		return "revoked", nil
	case !issued.Add(r.ttl).After(now):
		return "expired", nil
	}
	return "spent", nil
}

// publish names v, dates it, and tells everybody. told is as follow.Follower.Publish has it.
func (r *revoking) publish(ctx context.Context, v *revoke.Revocation) (told bool, err error) {
	v.At = r.node.StoreTime().UTC().Truncate(time.Millisecond)
	if v.ID, err = ticket.ID("rev_", v.At, rand.Reader); err != nil {
		return false, err
	}
	if v.Until.IsZero() {
		v.Until = v.At.Add(r.life)
	}
	if v.Until.Before(v.Barred.Add(r.life)) && !v.Barred.IsZero() { // who was away when it was barred hears of it afterwards
		v.Until = v.Barred.Add(r.life)
	}
	if v.Until.After(revoke.Forever) {
		v.Until = revoke.Forever
	}
	return r.follow.Publish(ctx, v)
}

// count tells how many open sockets of this node sel means, before they are closed.
func (r *revoking) count(ctx context.Context, sel engine.Selector) (n int, err error) {
	met := make(chan int, 1)
	r.engine.Count(sel, func(n int) { met <- n })
	select {
	case n = <-met:
		return n, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// member is the node as others see it: it can do nothing while it does not know what is revoked.
type member struct {
	*node.Node
	revoking *revoking
}

// Ready is nil while tickets can be issued and redeemed.
func (m member) Ready() error {
	if err := m.Node.Ready(); err != nil {
		return err
	}
	return m.revoking.follow.Ready()
}

// issuer is the node as the front end sees it: without an epoch it issues nothing.
type issuer struct{ member }

// Epoch is 0 while the node does not know what is revoked.
func (m issuer) Epoch(s ticket.Subject) ticket.Epoch {
	if m.revoking.follow.Ready() != nil {
		return 0
	}
	return m.Node.Epoch(s)
}

// Revoke implements handshake.Node. A ticket that another node spends is taken back through the log, which that node asks before it
// opens a socket; so is one of a node of which the store has not heard yet that its ticket is spent: then its socket closes.
func (m issuer) Revoke(ctx context.Context, r *ticket.RevokeRequest) (bool, error) {
	ok, err := m.Node.Revoke(ctx, r)
	if ok || err != nil || m.Node.Number() == 0 {
		return ok, err
	}
	l, err := m.revoking.look.Look(ctx, r.Subject, r.Ticket, r.Owner)
	if err != nil || l.Grant == nil {
		return false, err
	}
	c, err := ticket.ParseClaims(l.Grant)
	if err != nil || c.Key != r.Owner || m.revoking.redeem(&c) {
		return false, err
	}
	v := &revoke.Revocation{What: revoke.Selector{Ticket: c.ID}, Code: uint16(frame.CloseRevoked), Reason: "taken back by its issuer"}
	if _, err := m.revoking.publish(ctx, v); err != nil {
		return false, fmt.Errorf("%w: %w", ticket.ErrUnavailable, err)
	}
	return true, nil
}
