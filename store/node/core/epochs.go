package core

import (
	"slices"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// A shard is what is known of one.
type shard struct {
	name       ticket.Shard
	seen       ticket.Epoch   // of its present history; 0: not known
	since      mono.Time      // when that was first seen
	left       []ticket.Epoch // by this life: the latest leftMax
	registered ticket.Epoch   // by the last believed renewal; 0: none
	zero       bool           // registered as "holds something that is not told": it was lost, or never told there
	adrift     mono.Time      // since when an epoch was left and none registered; zero: is not

	// The run that asserts all subjects under seen.
	run     uint32    // names it, among those of all shards
	walked  bool      // its subjects are in pending
	walkAt  mono.Time // not before
	pending int       // subjects that have not been acknowledged in it

	asking *Ask
	askAt  mono.Time // when its epoch is to be asked for

	queue   []ticket.Subject // to be asserted
	telling *Assert
	tellAt  mono.Time // not before
	backoff time.Duration
}

// An Ask is a question for the epoch of a shard.
type Ask struct {
	Shard ticket.Shard
	sent  mono.Time
}

// synced tells whether all counts stand in the shard under the epoch seen.
func (m *Core) synced(s *shard) bool {
	return s.seen != 0 && (s.walked && s.pending == 0 || m.without(GuardSync))
}

// settled tells whether it is also registered so, in the present topology.
func (m *Core) settled(s *shard) bool {
	return m.synced(s) && s.registered == s.seen && m.top.ID == m.view.topology
}

// rebirth forgets what another incarnation has told.
func (m *Core) rebirth(s *shard) {
	s.left, s.registered, s.zero, s.adrift = nil, 0, false, 0
	m.restart(s)
	s.walkAt, s.askAt = 0, 0
	s.telling, s.tellAt, s.backoff = nil, 0, 0
}

// restart begins another run.
func (m *Core) restart(s *shard) {
	m.runs++
	s.run, s.walked, s.pending = m.runs, false, 0
}

// unsync has everything asserted again.
func (m *Core) unsync(s *shard, now mono.Time) {
	if s.adrift == 0 && (s.registered != 0 || s.zero) {
		s.adrift = now
	}
	m.restart(s)
	m.news = true
}

// again: the list of nodes had lost us, and so may the shards have lost what we told them.
func (m *Core) again(now mono.Time) {
	for _, s := range m.present {
		m.unsync(s, now)
		s.zero = true
	}
}

// registers is what a renewal says of the present shards.
//
//	synced                          the epoch seen
//	lost it, or gained tags         0
//	was registered in this life     that epoch: if it was left, the lease is not prolonged until the new one is told
//	never told anything there       0 if it holds something, else nothing
func (m *Core) registers() []ticket.ShardEpoch {
	var out []ticket.ShardEpoch
	for _, s := range m.present {
		switch {
		case m.synced(s):
			out = append(out, ticket.ShardEpoch{Shard: s.name, Epoch: s.seen})
		case s.zero:
			out = append(out, ticket.ShardEpoch{Shard: s.name})
		case s.registered != 0:
			out = append(out, ticket.ShardEpoch{Shard: s.name, Epoch: s.registered})
		case !m.o.Available && m.holds(s):
			out = append(out, ticket.ShardEpoch{Shard: s.name})
		}
	}
	return out
}

// holds tells whether a shard that is not synced may have to be told something.
func (m *Core) holds(s *shard) bool {
	if s.walked {
		return s.pending > 0
	}
	for range m.o.Subjects {
		return true
	}
	return false
}

// registered notes what the store has acknowledged; again: under no epoch.
func (m *Core) registered(now mono.Time, r *Renew, again bool) {
	for _, s := range m.present {
		s.registered = 0
	}
	for _, e := range r.Registered {
		s := m.shards[e.Shard]
		if s == nil {
			continue
		}
		if s.registered = e.Epoch; again {
			s.registered = 0
		}
		if m.synced(s) && s.registered == s.seen {
			s.adrift, s.zero = 0, false
		}
	}
}

// ask returns the question for the epoch of s, if that is due.
func (m *Core) ask(s *shard, now mono.Time) *Ask {
	if s.asking != nil || now < s.askAt {
		return nil
	}
	s.asking = &Ask{s.name, now}
	s.askAt = now.Add(m.o.Heartbeat)
	return s.asking
}

// Asked tells what came of a.
func (m *Core) Asked(now mono.Time, a *Ask, e ticket.ShardEpoch, err error) {
	m.begin(now)
	defer m.end()
	s := m.shards[a.Shard]
	if s == nil || s.asking != a {
		return
	}
	s.asking = nil
	if err != nil {
		s.askAt = m.soon(now)
		return
	}
	m.observe(now, a.sent, e)
	if !m.synced(s) {
		s.askAt = min(s.askAt, m.soon(now))
	}
}

// observe takes over the epoch that a server named in the answer to what was sent at sent. An epoch that was left is not taken
// again, nor one from before the present was seen: such an answer is of an old primary, or was long on its way.
func (m *Core) observe(now, sent mono.Time, e ticket.ShardEpoch) {
	s := m.shards[e.Shard]
	if s != nil && e.Shard == m.top.Shards[m.top.Nodes] {
		m.meet(e.Epoch)
	}
	switch {
	case s == nil || e.Epoch == 0:
		return
	case e.Epoch == s.seen:
		m.forsake(s, e.Prev)
		return
	case !m.without(GuardLeft) && (sent < s.since || slices.Contains(s.left, e.Epoch)):
		s.askAt = min(s.askAt, m.soon(now))
		return
	}
	m.forsake(s, s.seen)
	m.forsake(s, e.Prev)
	s.seen, s.since = e.Epoch, now
	s.walkAt = 0
	s.backoff, s.tellAt = 0, 0 // it has just answered
	m.unsync(s, now)
	m.hurry(now)
}

// meet notes the history of the list of nodes that is seen first. Options.First is said of no other: the store may lose everything
// a moment later.
func (m *Core) meet(e ticket.Epoch) {
	if m.first == 0 {
		m.first = e
	}
}

// forsake adds e to those that were left.
func (m *Core) forsake(s *shard, e ticket.Epoch) {
	if e == 0 || slices.Contains(s.left, e) {
		return
	}
	s.left = append(s.left, e)
	s.left = s.left[max(0, len(s.left)-leftMax):]
}

// move takes over another topology. A shard that gained tags has to be told the subjects that it gained.
func (m *Core) move(top *ticket.Topology, now mono.Time) {
	old := m.top
	gained := gains(old, top)
	m.top = top
	m.present = m.present[:0]
	for i, name := range top.Shards {
		s := m.shards[name]
		if s == nil {
			s = &shard{name: name}
			m.shards[name] = s
		}
		m.present = append(m.present, s)
		if gained[i] || !m.synced(s) { // no epoch was left: adrift stays as it is
			m.restart(s)
		}
		if gained[i] && old != nil {
			s.zero = s.zero || m.holds(s)
		}
	}
	m.prune()
	m.requeue()
	m.hurry(now)
	m.news = true
}

// gains tells for each of top's shards whether it keeps tags that another kept in old.
func gains(old, top *ticket.Topology) []bool {
	out := make([]bool, len(top.Shards))
	if old == nil {
		for i := range out {
			out[i] = true
		}
		return out
	}
	for tag := range ticket.Tags {
		s := ticket.Subject(tag)
		if i := top.At(s); old.Of(s) != top.Shards[i] {
			out[i] = true
		}
	}
	return out
}

// prune forgets shards that are gone, once they are many.
func (m *Core) prune() {
	if len(m.shards) <= 2*len(m.present)+16 {
		return
	}
	for name := range m.shards {
		if m.top.Find(name) < 0 {
			delete(m.shards, name)
		}
	}
}

// nextOf is when something is due for s.
func (m *Core) nextOf(s *shard) mono.Time {
	next := never
	if s.asking == nil {
		next = s.askAt
	}
	if s.seen != 0 && !s.walked {
		next = min(next, s.walkAt)
	}
	if m.canTell(s) {
		next = min(next, s.tellAt)
	}
	return next
}
