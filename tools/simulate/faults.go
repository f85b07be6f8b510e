package main

import (
	"time"

	"ticketgate/ticket"
)

// mishaps has one mishap happen after the other.
func (w *world) mishaps() {
	w.at(w.below(w.pace), nil, 0, func() {
		if w.calm {
			return
		}
		w.mishap(w.procs[w.rnd.IntN(w.nodes)])
		w.mishaps()
	})
}

// still is d, or as much of it as the storm still lasts.
func (w *world) still(d time.Duration) time.Duration { return max(0, min(d, stormy-w.now)) }

func (w *world) mishap(p *proc) {
	switch f := fault(1) << w.rnd.IntN(7); f & w.faults {
	case faultCrash:
		w.crash(p)
	case faultPause:
		w.pause(p, w.long())
	case faultCut:
		if w.authority && w.chance(.7) { // it renews, and cannot tell its counts
			w.cutOff(p, w.of(w.top.Of(w.users[0])), lease+w.below(lease))
			return
		}
		w.cutOff(p, w.groups[w.rnd.IntN(len(w.groups))], w.long())
		if w.chance(.5) {
			for _, g := range w.groups {
				w.cutOff(p, g, w.long())
			}
		}
	case faultTwin:
		w.twin(p)
	case faultStore:
		g := w.groups[w.rnd.IntN(len(w.groups))]
		if w.chance(.5) { // with more, issue is hardly ever open
			return
		}
		if w.replicas > 0 {
			g.failover()
		} else {
			g.restart()
		}
	case faultNet:
		w.badNet = w.now + w.long()
		p.clock.wall += w.below(24*time.Hour) - 12*time.Hour
		w.say("the network is bad until %v", w.badNet)
	case faultShards:
		w.reshard()
	}
}

// crash kills a process. Its next start proves that it is gone by the lock file, or cannot, on another host.
func (w *world) crash(p *proc) {
	if !p.alive {
		return
	}
	w.say("%v killed", p)
	p.alive = false
	proven := w.chance(.7)
	w.at(w.still(w.below(20*time.Second)), nil, 0, func() {
		if w.procs[p.name] != p {
			return
		}
		former := ticket.Incarnation(0)
		if proven {
			former = p.core.Now().Incarnation
		}
		w.start(p.name, former)
	})
}

// twin has a second process take the name while the first may still run. It has no proof of anything.
func (w *world) twin(p *proc) {
	if w.chance(.7) {
		for _, g := range w.groups {
			w.cutOff(p, g, w.long())
		}
	}
	if w.chance(.3) {
		w.pause(p, w.long())
	}
	w.at(w.still(w.below(20*time.Second)), nil, 0, func() {
		if w.procs[p.name] != p {
			return
		}
		former := ticket.Incarnation(0)
		if w.left(guardProof) || !p.alive {
			former = p.core.Now().Incarnation
		}
		w.start(p.name, former)
		w.at(w.still(w.long()), p, 0, func() {
			w.say("%v ends", p)
			p.alive = false
		})
	})
}

func (w *world) cutOff(p *proc, g *group, d time.Duration) {
	w.say("%v cut off from shard %d for %v", p, g.shard, d)
	p.cut[g] = w.now + d
}

func (w *world) pause(p *proc, d time.Duration) {
	if !p.alive || p.paused > w.now {
		return
	}
	d = w.still(d)
	w.say("%v paused for %v", p, d)
	p.paused = w.now + d
	w.at(d, p, -1, func() {
		w.say("%v resumes", p)
		for _, u := range w.users {
			w.bounded(u)
		}
	})
}

// reshard gives the store one shard more, of which nobody has any subject, or takes it away. The nodes notice it one by one.
func (w *world) reshard() {
	if !w.split {
		return
	}
	next := topologies[2]
	if w.top == next {
		next = topologies[1]
	}
	w.top = next
	w.say("the store has %d shards now", len(next.Shards))
	for _, p := range w.all {
		w.at(w.long(), p, 0, func() {
			if p.top != w.top {
				w.say("%v sees %d shards", p, len(w.top.Shards))
				p.top = w.top
				p.turn()
			}
		})
	}
}

// topologies are one shard; two, the second with all subjects; and a third with the upper half of the tags.
var topologies = [3]*ticket.Topology{
	{ID: 1, Shards: []ticket.Shard{0}},
	topology(2, 100),
	topology(3, 100, ticket.Tags/2),
}

func topology(id uint64, from ...ticket.Shard) *ticket.Topology {
	t := &ticket.Topology{ID: id, Shards: append([]ticket.Shard{0}, from...), Tags: make([]uint16, ticket.Tags)}
	for i, first := range from {
		for tag := int(first); tag < ticket.Tags; tag++ {
			t.Tags[tag] = uint16(i + 1)
		}
	}
	return t
}
