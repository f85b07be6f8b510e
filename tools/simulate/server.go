package main

import (
	"slices"
	"time"

	"ticketgate/store/model"
	"ticketgate/ticket"
)

// A group is one shard: the hosts that keep it, of which one takes the writes.
//
//	server ──log──> link ──> its state      a link is a replica; what it is told arrives late, in order
//	   │ failover: a link becomes the server; the old one may serve on for a while and then becomes a link
type group struct {
	w     *world
	shard ticket.Shard
	prim  *server
}

// A host has a clock. They differ by up to a second, and run at rates of their own.
type host struct {
	offset time.Duration
	rate   float64
}

// A server is a primary with its history.
type server struct {
	model.Primary
	host
	id       int
	g        *group
	links    []*link
	replaced time.Duration // when another was promoted; never, if not
	stop     time.Duration // from when it takes nothing
}

// A link is a replica of a server.
type link struct {
	host
	state *model.State
	self  ticket.ShardEpoch // of the server that it follows
	log   []told
	last  time.Duration // when the latest arrives
}

// told is a write on its way to a replica.
type told struct {
	arrives time.Duration
	f       func(*primary)
}

const never = time.Duration(1<<63 - 1)

func (w *world) host() host {
	return host{offset: w.below(2*time.Second) - time.Second, rate: 1 + (w.rnd.Float64()-.5)*.001}
}

func (h *host) time(now time.Duration) time.Time {
	return epoch.Add(h.offset + time.Duration(float64(now)*h.rate))
}

func (w *world) newEpoch() ticket.Epoch { return ticket.Epoch(w.id()) }

func (w *world) newGroup(name ticket.Shard) *group {
	g := &group{w: w, shard: name}
	g.prim = &server{Primary: model.Primary{Self: ticket.ShardEpoch{Shard: name, Epoch: w.newEpoch()}, State: model.NewState(),
		Durable: w.durable && w.replicas == 0}, host: w.host(), id: w.id(), g: g, replaced: never, stop: never}
	for range w.replicas {
		g.prim.follow(w, w.host())
	}
	return g
}

// follow makes a host a replica, with everything up to now.
func (s *server) follow(w *world, h host) {
	s.links = append(s.links, &link{host: h, state: s.State.Clone(), self: s.Self, last: w.now})
}

// do executes a command, and sends it to the replicas. It returns when the last of them has it, or never.
func (s *server) do(w *world, f func(p *primary)) (all time.Duration) {
	f(&s.Primary)
	all = w.now
	if len(s.links) < w.replicas {
		all = never
	}
	for _, l := range s.links {
		lag := w.below(5 * time.Millisecond)
		if !w.calm && w.chance(.1) {
			lag = w.below(3 * time.Second)
		}
		l.catchUp(w.now)
		l.last = max(l.last, w.now+lag)
		l.log = append(l.log, told{l.last, f})
		if all != never {
			all = max(all, l.last)
		}
	}
	return all
}

// catchUp applies what has arrived.
func (l *link) catchUp(now time.Duration) {
	p := model.Primary{Self: l.self, State: l.state}
	n := 0
	for n < len(l.log) && l.log[n].arrives <= now {
		l.log[n].f(&p)
		n++
	}
	l.log = slices.Delete(l.log, 0, n)
}

// acks is how many replicas have what arrives there until now.
func (s *server) acks(arrives map[*link]time.Duration, now time.Duration) int {
	n := 0
	for _, l := range s.links {
		if at, ok := arrives[l]; ok && at <= now {
			n++
		}
	}
	return n
}

// failover promotes a replica.
func (g *group) failover() {
	w, old := g.w, g.prim
	if len(old.links) == 0 {
		return
	}
	i := w.rnd.IntN(len(old.links))
	l := old.links[i]
	l.catchUp(w.now)
	lost := len(l.log)
	old.links = slices.Delete(slices.Clone(old.links), i, i+1)
	serves := time.Duration(0)
	if w.chance(.6) {
		serves = w.below(3 * lease)
	}
	old.replaced, old.stop = w.now, w.now+serves
	g.prim = &server{Primary: model.Primary{Self: ticket.ShardEpoch{Shard: g.shard, Epoch: w.newEpoch(), Prev: old.Self.Epoch}, State: l.state},
		host: l.host, id: w.id(), g: g, replaced: never, stop: never}
	w.stat[statFailover]++
	w.say("FAILOVER of shard %d: server %d -> %d (epoch %d), %d writes lost, the old one serves for %v more", g.shard, old.id, g.prim.id,
		g.prim.Self.Epoch, lost, serves)
	for _, rest := range old.links {
		w.at(w.below(5*time.Second), nil, 0, func() {
			old.links = slices.DeleteFunc(slices.Clone(old.links), func(x *link) bool { return x == rest })
			g.join(rest.host)
		})
	}
	w.at(serves+w.below(lease/2), nil, 0, func() { g.join(old.host) })
}

// join makes a host a replica of the present primary, unless that has all it should have: heal does not wait.
func (g *group) join(h host) {
	if len(g.prim.links) < g.w.replicas {
		g.prim.follow(g.w, h)
	}
}

// restart brings a server without replicas back, with what its disk has.
func (g *group) restart() {
	w, old := g.w, g.prim
	if w.now >= old.stop {
		return // it is down
	}
	state := old.State
	if !old.Durable {
		state = model.NewState()
	}
	down := w.below(5 * time.Second)
	if w.chance(.2) {
		down = w.below(lease)
	}
	down = min(down, stormy-w.now)
	old.stop, old.replaced = w.now, w.now
	next := &server{Primary: model.Primary{Self: ticket.ShardEpoch{Shard: g.shard, Epoch: w.newEpoch()}, State: state, Durable: old.Durable},
		host: old.host, id: w.id(), g: g, replaced: never, stop: never}
	w.stat[statFailover]++
	w.say("RESTART of shard %d (epoch %d), down for %v, durable %v", g.shard, next.Self.Epoch, down, old.Durable)
	w.at(down, nil, -1, func() { g.prim = next })
}

// delay is how long a message takes.
func (w *world) delay() time.Duration {
	const ms = time.Millisecond
	if w.calm {
		return ms + w.below(2*ms)
	}
	return min(w.stormDelay(), stormy+time.Second-w.now) // what is on its way when all heals arrives then
}

func (w *world) stormDelay() time.Duration {
	const ms = time.Millisecond
	switch x := w.rnd.Float64(); {
	case x < .9 && w.now >= w.badNet:
		return ms + w.below(4*ms)
	case x < .99 || w.faults&faultNet == 0:
		return ms + w.below(150*ms)
	case x < .997:
		return w.below(5 * time.Second)
	}
	return w.below(lease * 3 / 2)
}

func (w *world) lose() bool {
	switch {
	case w.calm || w.faults&faultNet == 0:
		return false
	case w.now < w.badNet:
		return w.chance(.2)
	}
	return w.chance(.01)
}

// A command is one call of a process to a shard.
type command struct {
	g      *group
	limit  time.Duration // by the caller's clock
	wait   bool          // for the replicas
	repeat bool          // may be executed twice
	exec   func(s *server) any
	done   func(reply any, acks int) // reply is nil when there was none in time
}

// call sends c. Its outcome is told on p, once.
func (w *world) call(p *proc, c command) {
	s := p.server(c.g)
	over := false
	finish := func(reply any, acks int) {
		if !over {
			over = true
			c.done(reply, acks)
		}
	}
	w.at(c.limit, p, 2, func() { finish(nil, 0) })
	if w.now < p.cut[c.g] || w.lose() {
		return
	}
	exec := func() any {
		if w.now >= s.stop {
			return nil
		}
		return c.exec(s)
	}
	d := w.delay()
	w.at(d, nil, 1, func() {
		reply := exec()
		if reply == nil || w.lose() {
			return
		}
		ack, acks := time.Duration(0), func() int { return 0 }
		if c.wait && w.wanted > 0 {
			var at time.Duration
			if at, acks = s.wait(w, w.wanted); at > w.now+c.limit {
				return
			}
			ack = at - w.now
		}
		w.at(ack, nil, 1, func() {
			if w.now < p.cut[c.g] {
				return
			}
			n := acks()
			w.at(w.delay(), p, 1, func() { finish(reply, n) })
		})
	})
	if c.repeat && !w.calm && w.faults&faultNet != 0 && w.chance(.01) {
		w.at(min(d+w.below(lease), stormy+time.Second-w.now), nil, 1, func() { exec() })
	}
}

// wait is WAIT: it returns when n replicas have what was written last, and what counts them then.
func (s *server) wait(w *world, n int) (at time.Duration, acks func() int) {
	if len(s.links) < n {
		return never, nil
	}
	arrives := make(map[*link]time.Duration, len(s.links))
	times := make([]time.Duration, 0, len(s.links))
	for _, l := range s.links {
		arrives[l] = l.last
		times = append(times, l.last)
	}
	slices.Sort(times)
	return max(w.now, times[n-1]), func() int { return s.acks(arrives, w.now) }
}
