package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"ticketgate/ticket"
)

// vary draws what kind of world a seed is.
func vary(seed uint64, without guard) options {
	r := rand.New(rand.NewPCG(seed, 1))
	o := options{nodes: 2 + r.IntN(2), subjects: 1 + r.IntN(2), limit: 1 + uint32(r.IntN(2)), split: r.IntN(2) == 0, faults: faultAll,
		without: without, replicas: r.IntN(3), durable: r.IntN(2) == 0, available: r.IntN(8) == 0, pace: time.Duration(5+r.IntN(36)) * time.Second}
	if r.IntN(3) == 0 { // some kinds of mishaps only
		o.faults = fault(r.IntN(faultAll + 1))
	}
	o.wanted = o.replicas
	switch {
	case without&guardWait != 0:
		o.wanted = 0
	case without&guardMost != 0:
		o.wanted = max(min(1, o.replicas), o.replicas-1)
	}
	o.authority = r.IntN(4) == 0 // drawn last: the other draws of a seed stay
	if o.authority && r.IntN(2) == 0 {
		o.split = true // so that a node can be cut off from the counts alone
	}
	return o
}

// A result is what became of a seed.
type result struct {
	seed  uint64
	steps int
	stat  [stats]int
	fails []string
	lines []string
}

// play plays one seed: a storm, then everything heals, then everything has to be right.
func play(seed uint64, o options, l *pool) result {
	src := rand.NewPCG(seed, 2)
	w := &world{options: o, src: src, rnd: rand.New(src), pool: l, fates: map[ticket.Hash]fate{},
		procs: make([]*proc, o.nodes), top: topologies[0]}
	w.minter = ring.NewMinter(w)
	w.groups = append(w.groups, w.newGroup(0))
	if w.split {
		w.top = topologies[1]
		w.groups = append(w.groups, w.newGroup(100), w.newGroup(ticket.Tags/2))
	}
	for i := range o.subjects {
		w.users = append(w.users, ticket.Subject(1000+i))
	}
	for i := range o.nodes {
		w.at(w.below(time.Second), nil, 0, func() { w.start(i, 0) })
	}
	w.run(time.Second)
	for _, u := range w.users {
		w.user(u)
	}
	w.mishaps()
	w.run(stormy)
	if len(w.failures) == 0 {
		w.heal()
		w.run(w.now + w.settled() + slack)
		w.right()
	}
	for _, p := range w.all {
		l.put(p.counts)
	}
	return result{seed, w.steps, w.stat, w.failures, w.lines}
}

// settled is after how long everything has to be right again. A node's own tickets go with it; their reservations wait for them.
func (w *world) settled() time.Duration {
	if w.authority {
		return healed + life
	}
	return healed
}

// heal ends all mishaps.
func (w *world) heal() {
	w.say("ALL HEALS")
	w.calm = true
	for _, p := range w.all {
		clear(p.cut)
		clear(p.to)
		if p.alive {
			p.top = w.top
			p.turn()
		}
	}
	for _, g := range w.groups {
		for len(g.prim.links) < w.replicas {
			g.join(w.host())
		}
		for _, l := range g.prim.links {
			l.last = min(l.last, w.now+time.Second)
		}
	}
}

// right checks invariant 3: issue is open on all nodes, and there are as many tickets for each client as slots that no socket has.
// Slots of nodes that are in no list any more are found by whoever asks at the limit, so some ask in vain first.
func (w *world) right() {
	free := make([]int, len(w.users))
	for i, u := range w.users {
		free[i] = max(0, int(w.limit)-w.sockets(u))
		for _, p := range w.procs {
			if why := p.core.Now().MayIssue(p.clock.Now(), u); p.alive && why != nil && len(w.failures) == 0 {
				w.fail("3: %v does not issue for %v long after everything healed: %v", p, u, why)
			}
		}
	}
	for range 5 {
		for i, u := range w.users {
			for _, p := range w.procs {
				if p.alive {
					p.issue(u, func(*ticket.Minted) { free[i]-- })
				}
			}
		}
		w.run(w.now + time.Second)
	}
	for i, u := range w.users {
		if len(w.failures) == 0 && free[i] != 0 {
			w.fail("3: %v gets %d tickets less than there are free slots, long after everything healed", u, free[i])
		}
	}
}

// sockets is how many of u are open anywhere.
func (w *world) sockets(u ticket.Subject) int {
	n := 0
	for _, p := range w.all {
		for _, s := range p.socks {
			if p.alive && s.u == u {
				n++
			}
		}
	}
	return n
}

func (o options) String() string {
	return fmt.Sprintf("%d nodes, %d subjects, limit %d, split %v, %d replicas (%d wanted), durable %v, available %v, authority node %v, faults %b",
		o.nodes, o.subjects, o.limit, o.split, o.replicas, o.wanted, o.durable, o.available, o.authority, o.faults)
}
