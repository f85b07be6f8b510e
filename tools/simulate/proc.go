package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/limiter"
	"ticketgate/store/node/core"
	"ticketgate/ticket"
)

// A proc is one process of a gateway: the machine of store/node, the counts of limiter, and what an engine does with both.
type proc struct {
	w      *world
	name   int
	id     int
	alive  bool
	paused time.Duration // until
	clock  *machineClock
	counts *tally
	core   *core.Core
	top    *ticket.Topology
	check  *ticket.Checker
	calls  []core.Call
	timer  time.Duration // of the next Work; 0: none

	socks  []socket
	unused map[ticket.Hash]own
	taken  map[ticket.Incarnation]int // redeems under way
	bucket bucket

	to  map[*group]*server // that it is connected to
	to2 map[*group]time.Duration
	cut map[*group]time.Duration // until when it cannot reach it
}

// A socket is open, or lost and not closed yet.
type socket struct {
	id   int
	u    ticket.Subject
	life uint32
	hash ticket.Hash
	by   mono.Time // see core.Core.Spend
}

func (p *proc) String() string { return fmt.Sprintf("node%d/p%d", p.name, p.id) }

// start begins a process of a name. former is one of that name whose life is declared over.
func (w *world) start(name int, former ticket.Incarnation) *proc {
	p := &proc{w: w, name: name, id: w.id(), alive: true, top: w.top, check: ring.NewChecker(), taken: map[ticket.Incarnation]int{},
		unused: map[ticket.Hash]own{}, to: map[*group]*server{}, to2: map[*group]time.Duration{}, cut: map[*group]time.Duration{}}
	p.counts = w.pool.get()
	p.clock = &p.counts.clock
	*p.clock = machineClock{w: w, rate: 1 + (w.rnd.Float64()-.5)*.002, start: mono.Time(w.below(time.Hour) + time.Second)}
	p.bucket.begin(p.clock.Now())
	o := core.Options{Name: fmt.Sprint("node", name), Heartbeat: heartbeat, Lease: lease, Replicas: w.wanted, Available: w.available, Rand: w,
		Topology: func() *ticket.Topology { return p.top }, Counts: p.counts, Subjects: p.counts.subjects,
		First: w.now < time.Second, Lost: p.lost, Overdue: p.overdue, Without: w.guardsOf()}
	if former != 0 {
		o.Former = []ticket.Incarnation{former}
	}
	p.core = core.New(o)
	w.say("%v starts, declares %x over", p, former)
	w.all = append(w.all, p)
	w.procs[name] = p
	p.turn()
	return p
}

// turn has the machine work, and comes again when it has to.
func (p *proc) turn() {
	w := p.w
	p.calls = p.core.Work(p.clock.Now(), p.calls[:0])
	for _, c := range p.calls {
		p.send(c)
	}
	d := p.clock.in(p.core.Next())
	if at := w.now + d; p.timer == 0 || at < p.timer || p.timer <= w.now {
		p.timer = at
		w.at(d, p, 3, func() {
			if p.timer == w.now {
				p.timer = 0
			}
			if p.timer <= w.now {
				p.turn()
			}
		})
	}
}

// server is where the process's connection to g leads: to an old primary until that stops, or until it notices.
func (p *proc) server(g *group) *server {
	s := p.to[g]
	if s == nil || p.w.now >= s.stop || p.w.now >= p.to2[g] {
		s = g.prim
		p.to[g], p.to2[g] = s, p.w.now+p.w.below(2*lease)
	}
	return s
}

func (p *proc) send(c core.Call) {
	switch {
	case c.Renew != nil:
		p.renew(c.Renew)
	case c.Ask != nil:
		p.ask(c.Ask)
	case c.Assert != nil:
		p.assert(c.Assert)
	}
}

// of is the group of a shard, which is not there any more for a node that sees an old topology.
func (w *world) of(s ticket.Shard) *group {
	for _, g := range w.groups {
		if g.shard == s {
			return g
		}
	}
	return w.groups[len(w.groups)-1]
}

type renewed struct {
	view ticket.View
	err  error
}

func (p *proc) renew(r *core.Renew) {
	w := p.w
	w.say("%v renews %x no. %d, registers %v", p, r.Incarnation, r.Number, r.Registered)
	w.call(p, command{g: w.groups[0], limit: renewMax, wait: true, repeat: true, exec: func(s *server) any {
		q := r.RenewRequest
		if w.left(guardRenewal) {
			q.Number = uint64(w.id())
		}
		now := s.time(w.now)
		var out *renewed
		s.do(w, func(m *primary) {
			v, err := m.Renew(&q, now)
			if out == nil {
				out = &renewed{v, err}
			}
		})
		w.say("  server %d renews %x no. %d: old %v, again %v, grace %v, young %v, %v", s.id, q.Incarnation, q.Number, out.view.Old, out.view.Again,
			out.view.Grace, out.view.Young, out.err)
		return out
	}, done: func(reply any, acks int) {
		if reply == nil {
			p.core.Renewed(p.clock.Now(), r, nil, ticket.ErrUnavailable)
		} else {
			out := *reply.(*renewed)
			out.view.Acks = acks
			p.core.Renewed(p.clock.Now(), r, &out.view, out.err)
		}
		p.turn()
	}})
}

func (p *proc) ask(a *core.Ask) {
	w := p.w
	w.call(p, command{g: w.of(a.Shard), limit: callMax, exec: func(s *server) any { return s.Self },
		done: func(reply any, _ int) {
			if e, ok := reply.(ticket.ShardEpoch); ok {
				p.core.Asked(p.clock.Now(), a, e, nil)
			} else {
				p.core.Asked(p.clock.Now(), a, ticket.ShardEpoch{}, ticket.ErrUnavailable)
			}
			p.turn()
		}})
}

func (p *proc) assert(a *core.Assert) {
	w := p.w
	if w.trace {
		for _, h := range a.Held {
			w.say("%v asserts %x holds %d of %v (no. %d)", p, h.Incarnation, h.Count, h.Subject, h.Number)
		}
	}
	w.call(p, command{g: w.of(a.Shard), limit: callMax, repeat: true, exec: func(s *server) any {
		held := slices.Clone(a.Held)
		if w.left(guardNumber) {
			for i := range held {
				held[i].Number = uint64(w.id())
			}
		}
		now := s.time(w.now)
		answers := make([]ticket.AssertAnswer, len(held))
		s.do(w, func(m *primary) {
			for i := range held {
				if b := m.Assert(&held[i], now); answers[i].Seen.Epoch == 0 {
					answers[i] = b
				}
			}
		})
		w.say("  server %d (epoch %d) runs asserts of %x: %v", s.id, s.Self.Epoch, held[0].Incarnation, answers)
		return answers
	}, done: func(reply any, _ int) {
		answers, ok := reply.([]ticket.AssertAnswer)
		if !ok {
			answers = make([]ticket.AssertAnswer, len(a.Held))
		}
		p.core.Asserted(p.clock.Now(), a, answers)
		p.turn()
	}})
}

// lost is core.Options.Lost: strict closes the sockets within a second, as the engine does. They carry nothing from now on.
func (p *proc) lost(why string) {
	w := p.w
	w.stat[statLost]++
	w.say("%v loses its lease: %s (%d sockets)", p, why, len(p.socks))
	if w.available {
		return
	}
	for _, s := range p.socks {
		w.at(w.below(time.Second), p, 3, func() { p.closeSocket(s.id) })
	}
}

// overdue is core.Options.Overdue: some sockets close within a second, and carry nothing from now on.
func (p *proc) overdue(all []ticket.Hash) {
	w := p.w
	for _, s := range p.socks {
		if slices.Contains(all, s.hash) {
			w.stat[statOverdue]++
			w.say("%v has not told the store of socket %d in time", p, s.id)
			w.at(w.below(time.Second), p, 3, func() { p.closeSocket(s.id) })
		}
	}
}

func (p *proc) closeSocket(id int) {
	for i, s := range p.socks {
		if s.id == id {
			p.socks = slices.Delete(p.socks, i, i+1)
			n, number := p.counts.Done(s.u)
			p.w.say("%v closes socket %d of %v: %d (no. %d)", p, id, s.u, n, number)
			p.core.Touch(s.u)
			p.turn()
			return
		}
	}
}

// carry is how many sockets of u can carry a message now.
func (p *proc) carry(u ticket.Subject) int {
	if !p.alive || p.paused > p.w.now {
		return 0
	}
	now, state := p.clock.Now(), p.core.Now()
	n := 0
	for i := range p.socks {
		s := &p.socks[i]
		switch {
		case s.u != u:
		case p.w.available, p.w.left(guardTouch), state.Leased(now) && s.life == state.Generation && (s.by == 0 || now < s.by || !p.core.Owes(s.hash)):
			n++
		}
	}
	return n
}

// A tally is a limiter.Count that is used by one process after the other.
type tally struct {
	*limiter.Count
	clock machineClock
}

// subjects has an order of its own, so that a replay walks alike.
func (t *tally) subjects(yield func(ticket.Subject) bool) {
	var all []ticket.Subject
	t.Each(func(r limiter.Reading) bool {
		all = append(all, r.Subject)
		return true
	})
	slices.SortFunc(all, cmp.Compare[ticket.Subject])
	for _, s := range all {
		if !yield(s) {
			return
		}
	}
}

// A pool keeps tallies: each is 200 us to make.
type pool struct{ free []*tally }

func (l *pool) get() *tally {
	if n := len(l.free); n > 0 {
		t := l.free[n-1]
		l.free = l.free[:n-1]
		return t
	}
	t := &tally{clock: machineClock{w: new(world), rate: 1, start: 1}}
	t.Count = limiter.NewCount(&t.clock, lease)
	return t
}

// put empties t and takes it back. Nothing is left of its former use but the order of its rows.
func (l *pool) put(t *tally) {
	var all []limiter.Reading
	t.Each(func(r limiter.Reading) bool {
		all = append(all, r)
		return true
	})
	for _, r := range all {
		for range r.Count {
			t.Done(r.Subject)
		}
	}
	t.clock = machineClock{w: new(world), rate: 1, start: mono.Time(1000 * time.Hour)}
	t.Sweep()
	l.free = append(l.free, t)
}
