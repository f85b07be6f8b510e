package core

import (
	"slices"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// A mark is on each subject whose count the store may not know.
//
//	Touch, a run, a doubt ──> queued ──sent──> flying ──acknowledged, and still the latest──> (gone)
//	                            ^                │
//	                            └────────────────┘  no answer, or changed meanwhile
type mark struct {
	queued bool   // in its shard's queue
	run    uint32 // of its shard, which waits for it; 0: no run does
}

// An Assert is a batch of counts for one shard.
type Assert struct {
	Shard ticket.Shard
	Held  []ticket.Assertion
	sent  mono.Time
	run   uint32
}

// Touch says that the held count of s was lowered, or may not be what the store was told. It is asserted by the next Work. Who
// lowers a count touches after that.
func (m *Core) Touch(s ticket.Subject) { m.touch(s, 0) }

// touch has s asserted; run names the run that waits for it, 0 leaves that as it is.
func (m *Core) touch(u ticket.Subject, run uint32) {
	k := m.dirty[u]
	if run != 0 {
		k.run = run
	}
	if !k.queued && m.top != nil {
		s := m.of(u)
		s.queue = append(s.queue, u)
		k.queued = true
	}
	m.dirty[u] = k
}

func (m *Core) of(u ticket.Subject) *shard { return m.present[m.top.At(u)] }

// requeue sorts all marks anew, after a new topology or in a new life.
func (m *Core) requeue() {
	for _, s := range m.shards {
		s.queue, s.telling = nil, nil
	}
	if m.top == nil {
		return
	}
	for u, k := range m.dirty {
		s := m.of(u)
		s.queue = append(s.queue, u)
		k.queued = true
		m.dirty[u] = k
	}
	for _, s := range m.present {
		slices.Sort(s.queue) // a map has another order each time, a replay must not
	}
}

// walk begins the runs that are due: every subject of their shards is asserted, also those that came to zero in the last lease.
func (m *Core) walk(now mono.Time) {
	if !m.walks(now) {
		return
	}
	for u := range m.o.Subjects {
		if s := m.of(u); m.walksOn(s, now) {
			if m.dirty[u].run != s.run {
				s.pending++
			}
			m.touch(u, s.run)
		}
	}
	for _, s := range m.present {
		if m.walksOn(s, now) {
			s.walked = true
			m.ran(s, now)
		}
	}
	m.news = true
}

func (m *Core) walks(now mono.Time) bool {
	for _, s := range m.present {
		if m.walksOn(s, now) {
			return true
		}
	}
	return false
}

func (m *Core) walksOn(s *shard, now mono.Time) bool {
	return !s.walked && s.seen != 0 && now >= s.walkAt
}

// ran sees whether a run has ended.
func (m *Core) ran(s *shard, now mono.Time) {
	if s.walked && s.pending == 0 {
		if s.registered == 0 {
			s.adrift = 0 // it keeps nobody from moving on
		}
		m.hurry(now)
		m.news = true
	}
}

// Names are the tickets of u that this node has spent and the store may not know of: an assert outside of the machine names them too.
// Any goroutine may call it.
func (m *Core) Names(u ticket.Subject) []ticket.Hash { return m.owed.names(u) }

// canTell tells whether s may be told something once its time has come. An incarnation that is not in the list yet tells
// nothing: others would take it for one that has vanished from there.
func (m *Core) canTell(s *shard) bool {
	return len(s.queue) > 0 && s.telling == nil && s.seen != 0 && m.life.until != 0
}

// assert returns the next batch for s.
func (m *Core) assert(s *shard, now mono.Time) *Assert {
	if !m.canTell(s) || now < s.tellAt || !m.leased(now) {
		return nil
	}
	a := &Assert{Shard: s.name, sent: now, run: s.run}
	for len(s.queue) > 0 && len(a.Held) < batchMax {
		u := s.queue[len(s.queue)-1]
		s.queue = s.queue[:len(s.queue)-1]
		spent := m.owed.names(u) // before the count, which has their sockets
		count, number, ok := m.o.Counts.Held(u)
		if !ok && len(spent) == 0 {
			m.clean(s, u) // zero for longer than a lease
			continue
		}
		k := m.dirty[u]
		k.queued = false
		m.dirty[u] = k
		a.Held = append(a.Held, ticket.Assertion{Epoch: s.seen, Spent: spent,
			Held: ticket.Held{Subject: u, Incarnation: m.life.incarnation, Count: count, Number: number}})
	}
	m.ran(s, now)
	if len(a.Held) == 0 {
		return nil
	}
	s.telling = a
	return a
}

// clean removes the mark of u.
func (m *Core) clean(s *shard, u ticket.Subject) {
	m.reached(s, u, s.run)
	delete(m.dirty, u)
}

// reached notes that run, the present one or one before, need not wait for u any more.
func (m *Core) reached(s *shard, u ticket.Subject, run uint32) {
	if k := m.dirty[u]; run == s.run && k.run == run {
		s.pending--
		k.run = 0
		m.dirty[u] = k
	}
}

// Asserted tells what came of a: an answer for each of a.Held.
func (m *Core) Asserted(now mono.Time, a *Assert, answers []ticket.AssertAnswer) {
	m.begin(now)
	defer m.end()
	s := m.shards[a.Shard]
	if s == nil || s.telling != a {
		m.stray(now, a, answers)
		return
	}
	s.telling = nil
	lost := false
	for i := range a.Held {
		h, b := &a.Held[i], &answers[i]
		m.observe(now, a.sent, b.Seen)
		if b.OK && b.Seen.Shard == s.name && b.Seen.Epoch == s.seen {
			m.acknowledged(s, h, a.run)
			continue
		}
		lost = true
		m.touch(h.Subject, 0)
	}
	s.wait(now, lost, m.o.Heartbeat)
	m.ran(s, now)
}

// acknowledged: h stands in the store. The mark goes if it is still the latest reading and nobody touched it since.
func (m *Core) acknowledged(s *shard, h *ticket.Assertion, run uint32) {
	m.reached(s, h.Subject, run)
	more := m.owed.acknowledge(h.Subject, h.Spent)
	if m.dirty[h.Subject].queued {
		return
	}
	if more {
		m.touch(h.Subject, 0)
		return
	}
	if count, number, ok := m.o.Counts.Held(h.Subject); ok && (count != h.Count || number != h.Number) {
		m.touch(h.Subject, 0)
		return
	}
	m.clean(s, h.Subject)
}

// wait backs off while asserts are lost.
func (s *shard) wait(now mono.Time, lost bool, most time.Duration) {
	if !lost {
		s.backoff, s.tellAt = 0, 0
		return
	}
	s.backoff = min(max(quickly, 2*s.backoff), most)
	s.tellAt = now.Add(s.backoff)
}

// stray is an answer of another life, or from before a new topology: only its epochs count.
func (m *Core) stray(now mono.Time, a *Assert, answers []ticket.AssertAnswer) {
	for i := range answers {
		m.observe(now, a.sent, answers[i].Seen)
	}
}

// Farewell returns the next batch of what is not told yet, without waiting for anything, when nothing else will be sent any more;
// nil: there is none. Asserted comes before the next call.
func (m *Core) Farewell(now mono.Time) *Assert {
	for _, s := range m.present {
		s.telling, s.tellAt = nil, 0
		if a := m.assert(s, now); a != nil {
			return a
		}
	}
	return nil
}

// Untold is how many subjects have a mark.
func (m *Core) Untold() int { return len(m.dirty) }

// Excess is how many sockets of this node are held beyond a valid lease, or have not been told to the store in the present life:
// what a limit may be exceeded by in mode available. It walks all subjects unless there are none.
func (m *Core) Excess(now mono.Time) int {
	excess := 0
	if leased := m.leased(now); !leased || m.unsettled() {
		for u := range m.o.Subjects {
			if leased && m.top != nil && m.settled(m.of(u)) {
				continue
			}
			count, _, _ := m.o.Counts.Held(u)
			excess += int(count)
		}
	}
	return excess
}

// unsettled tells whether there is a shard that has not been told everything.
func (m *Core) unsettled() bool {
	for _, s := range m.present {
		if !m.settled(s) {
			return true
		}
	}
	return len(m.present) == 0
}
