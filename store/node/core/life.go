package core

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// A life is one incarnation.
//
//	nobody ──draw──> named ──a believed renewal──> leased ──lease over, refused, or adrift for a lease──> nobody
//	   ^               │
//	   └─ a lease ─────┘  without acknowledgement: the store may have buried it
type life struct {
	generation  uint32 // counts lives; 0: none yet
	incarnation ticket.Incarnation
	first       mono.Time // when its first renewal was sent; zero: not yet
	until       mono.Time // when the lease ends by our clock; zero: not entered
	number      uint64    // of the last renewal; goes on over lives
	acked       uint64    // of the last believed renewal; 0: none
}

// renewals is when they are sent, and what came of them.
type renewals struct {
	flying   *Renew
	due      mono.Time
	sent     mono.Time // when the last was
	failures int       // in a row
	why      error     // of the last failure
	over     []over    // lives whose end has not been told to the store
}

// An over life of this node holds nothing any more from a moment on.
type over struct {
	incarnation ticket.Incarnation
	at          mono.Time
}

// overMax is how many of them are remembered; the others end with their lease.
const overMax = 16

// A Renew is a renewal to be sent.
type Renew struct {
	ticket.RenewRequest
	Sent mono.Time
}

// renew returns the renewal that is due.
func (m *Core) renew(now mono.Time) *Renew {
	if m.renewals.flying != nil || now < m.renewals.due {
		return nil
	}
	if err := m.draw(); err != nil {
		m.failed(now, err)
		return nil
	}
	l := &m.life
	r := &Renew{Sent: now}
	if l.first == 0 {
		l.first = now
	}
	l.number++
	r.RenewRequest = ticket.RenewRequest{Incarnation: l.incarnation, Name: m.o.Name, Lease: m.o.Lease, Number: l.number, Acked: l.acked,
		Enter: l.acked == 0, Registered: m.registers(), Replicas: m.o.Replicas}
	for _, o := range m.renewals.over {
		if o.at <= now {
			r.Former = append(r.Former, o.incarnation)
		}
	}
	if m.top != nil {
		r.Topology = m.top.ID
	}
	m.renewals.flying, m.renewals.sent = r, now
	return r
}

// Leave is the last renewal of a node that holds nothing any more, and by which its life ends at once; nil: there is none to end.
// Nothing is to be asked of m afterwards.
func (m *Core) Leave() *ticket.RenewRequest {
	l := &m.life
	if l.acked == 0 {
		return nil
	}
	return &ticket.RenewRequest{Incarnation: l.incarnation, Name: m.o.Name, Lease: m.o.Lease, Number: l.number + 1, Acked: l.acked,
		Former: []ticket.Incarnation{l.incarnation}, Replicas: m.o.Replicas}
}

// draw names an incarnation if there is none.
func (m *Core) draw() error {
	if m.life.incarnation != 0 {
		return nil
	}
	var b [8]byte
	if _, err := io.ReadFull(m.o.Rand, b[:]); err != nil {
		return fmt.Errorf("name an incarnation: random source: %w", err)
	}
	m.life.generation = max(1, m.life.generation+1)
	m.life.incarnation = max(1, ticket.Incarnation(binary.BigEndian.Uint64(b[:])))
	m.news = true
	return nil
}

// hurry makes the next renewal due at once, or a moment after the last.
func (m *Core) hurry(now mono.Time) {
	if m.renewals.failures > 0 {
		return // its repetition is near
	}
	m.renewals.due = min(m.renewals.due, max(now, m.renewals.sent.Add(gap)))
}

// leased tells whether the lease holds at now.
func (m *Core) leased(now mono.Time) bool { return now < m.life.until }

// span is what a lease is worth by our clock.
func (m *Core) span() time.Duration { return m.o.Lease - m.o.Lease/driftParts - leaseMargin }

// endsAt is when the present life ends if nothing is heard.
func (m *Core) endsAt() mono.Time {
	l, end := &m.life, never
	switch {
	case l.until != 0:
		end = l.until
	case l.first != 0 && !m.without(GuardEntryOnce):
		end = l.first.Add(m.span())
	}
	for _, s := range m.present {
		if s.adrift != 0 {
			end = min(end, s.adrift.Add(m.o.Lease))
		}
	}
	return end
}

// expire ends the life if that is due.
func (m *Core) expire(now mono.Time) {
	if now < m.endsAt() {
		return
	}
	switch {
	case m.life.until == 0:
		m.leave(now)
	case !m.leased(now):
		m.lose(now, "not renewed in time")
	default:
		m.lose(now, "could not tell a shard of the store its counts for a lease")
	}
}

// lose ends a life that had a lease.
func (m *Core) lose(now mono.Time, why string) {
	m.leave(now)
	m.news = false
	m.publish()
	m.o.Lost(why)
}

// leave keeps what is known of the store, and nothing of the incarnation. That its slots are free is told to the store when the last
// of its sockets has been closed; where sockets are kept, it ends with its lease.
func (m *Core) leave(now mono.Time) {
	l := &m.life
	if l.first != 0 && (l.until == 0 || !m.o.Available) {
		all := append(m.renewals.over, over{l.incarnation, now.Add(leaseMargin)})
		m.renewals.over = all[max(0, len(all)-overMax):]
	}
	if !m.o.Available {
		m.owed.forget()
	}
	*l = life{generation: l.generation, number: l.number}
	m.renewals.flying, m.renewals.due = nil, now
	m.view.nodes, m.view.topology, m.view.known = nil, 0, false
	for _, s := range m.shards {
		m.rebirth(s)
	}
	m.requeue()
	m.news = true
}

// Renewed tells what came of r: a view, or an error. ErrLeaseLost ends the life; any other is no answer.
func (m *Core) Renewed(now mono.Time, r *Renew, v *ticket.View, err error) {
	m.begin(now)
	defer m.end()
	m.expire(now)
	if err == nil {
		m.meet(v.Seen.Epoch)
		m.observe(now, r.Sent, v.Seen)
	}
	if m.renewals.flying != r {
		return // of another life
	}
	m.renewals.flying = nil
	switch {
	case errors.Is(err, ticket.ErrLeaseLost) && m.life.until != 0:
		m.lose(now, "the store has ended it")
	case errors.Is(err, ticket.ErrLeaseLost):
		m.leave(now)
		m.renewals.due = m.soon(now)
	case err != nil:
		m.failed(now, err)
	case v.Acks < m.o.Replicas && !m.without(GuardWait):
		m.failed(now, fmt.Errorf("renewal reached %d of %d replicas", v.Acks, m.o.Replicas))
	case len(v.Old) > 0:
		m.refused(now, r, v)
	default:
		m.believe(now, r, v)
	}
}

// failed notes a renewal without an answer that counts.
func (m *Core) failed(now mono.Time, why error) {
	m.renewals.failures++
	m.renewals.why = why
	m.renewals.due = m.soon(now)
	m.news = true
}

// believe takes over what the store said. The lease counts from the sending: the store cannot have counted from earlier.
func (m *Core) believe(now mono.Time, r *Renew, v *ticket.View) {
	l := &m.life
	l.acked = r.Number
	l.until = max(l.until, r.Sent.Add(m.span()))
	m.renewals.over = slices.DeleteFunc(m.renewals.over, func(o over) bool { return slices.Contains(r.Former, o.incarnation) })
	if m.renewals.failures > 0 { // the store is back: whoever waits for longer and longer need not any more
		for _, s := range m.present {
			s.backoff, s.tellAt = 0, 0
		}
	}
	m.renewals.failures, m.renewals.why = 0, nil
	m.view.storeTime, m.view.storeAt = v.Time, r.Sent.Add(now.Sub(r.Sent)/2)
	if v.Again && !m.without(GuardAgain) {
		m.again(now)
	}
	m.registered(now, r, v.Again && !m.without(GuardAgain))
	m.see(r, v)
	m.schedule(now, r)
	m.news = true
}

// schedule says when the next renewal is due after a believed one.
//
//	at once              something is asserted and not registered, or somebody is looked for in the list
//	in half a second     issue is closed by others, or by the grace
//	another's lease end  so that its slots are free soon
//	a heartbeat
func (m *Core) schedule(now mono.Time, r *Renew) {
	due := r.Sent.Add(m.o.Heartbeat)
	for _, n := range m.view.nodes {
		if !n.Dead && n.Incarnation != m.life.incarnation {
			ends := now.Add(max(0, n.Left) + 20*time.Millisecond + m.spread(quickSpread))
			due = min(due, max(ends, now.Add(quickly)))
		}
	}
	m.renewals.due = due
	if len(m.view.unknown) > 0 && !m.view.grace && !m.view.young {
		m.hurry(now)
	}
	for _, s := range m.present {
		switch {
		case m.synced(s) && s.registered != s.seen, m.top.ID != m.view.topology:
			m.hurry(now)
		case m.settled(s) && m.closed(s) != nil:
			m.renewals.due = min(m.renewals.due, m.soon(now))
		}
	}
}

// refused: other epochs of some shards are the current ones, and nothing was prolonged.
func (m *Core) refused(now mono.Time, r *Renew, v *ticket.View) {
	m.renewals.failures, m.renewals.why = 0, nil
	m.renewals.due = m.soon(now)
	for _, name := range v.Old {
		s := m.shards[name]
		if s == nil {
			continue
		}
		s.askAt = now
		if m.synced(s) && slices.Contains(r.Registered, ticket.ShardEpoch{Shard: name, Epoch: s.seen}) {
			m.unsync(s, now)
			s.walkAt = now.Add(refusedWait)
		}
	}
	m.news = true
}

// A view is the last believed one, and what follows from it.
type view struct {
	known     bool // there is one of this life
	nodes     []ticket.NodeView
	topology  uint64 // by which we were registered in it
	grace     bool
	young     bool         // its list began a short while ago: who is missing may hold slots
	since     ticket.Epoch // the history of the list
	storeTime time.Time
	storeAt   mono.Time // zero: never asked
	dead      []ticket.Incarnation
	presumed  []ticket.Incarnation          // the oldest first
	unknown   map[ticket.Incarnation]uint64 // counted, not in the list; the number of the last renewal that had been sent by then
}

// see takes v over, the answer to r.
func (m *Core) see(r *Renew, v *ticket.View) {
	w := &m.view
	w.known, w.nodes, w.topology = true, v.Nodes, r.Topology
	w.grace, w.young, w.since = v.Grace && !m.without(GuardGrace), v.Young, v.Seen.Epoch
	if !w.grace && !w.young {
		m.presume(r.Number)
	}
	w.presumed = slices.DeleteFunc(w.presumed, func(i ticket.Incarnation) bool { return w.find(i) != nil })
	if w.grace {
		return // an entry that is dead here may be so by a history that did not happen
	}
	dead := make([]ticket.Incarnation, 0, len(w.dead))
	for _, n := range v.Nodes {
		if n.Dead && n.Incarnation != m.life.incarnation {
			dead = append(dead, n.Incarnation)
		}
	}
	dead = append(dead, w.presumed...)
	w.dead = dead[max(0, len(dead)-deadMax):]
}

// presume takes for dead who was counted in an answer before this view was asked for, and is not in it.
func (m *Core) presume(number uint64) {
	w := &m.view
	var found []ticket.Incarnation
	for i, sent := range w.unknown {
		if sent >= number {
			continue
		}
		delete(w.unknown, i)
		if w.find(i) == nil && !slices.Contains(w.presumed, i) && !m.without(GuardUnlisted) {
			found = append(found, i)
		}
	}
	slices.Sort(found) // the same order in each replay
	w.presumed = append(slices.Clone(w.presumed), found...)
	w.presumed = w.presumed[max(0, len(w.presumed)-unknownMax):]
}

func (w *view) find(i ticket.Incarnation) *ticket.NodeView { return find(w.nodes, i) }

func find(nodes []ticket.NodeView, i ticket.Incarnation) *ticket.NodeView {
	at, ok := slices.BinarySearchFunc(nodes, i, func(n ticket.NodeView, i ticket.Incarnation) int {
		switch {
		case n.Incarnation < i:
			return -1
		case n.Incarnation > i:
			return 1
		}
		return 0
	})
	if !ok {
		return nil
	}
	return &nodes[at]
}

// counted notes who holds slots by an answer that arrived at now, and is looked for in the next view.
func (m *Core) counted(now mono.Time, by []ticket.Incarnation) {
	w := &m.view
	for _, i := range by {
		_, asked := w.unknown[i]
		if i == m.life.incarnation || asked || len(w.unknown) >= unknownMax || w.find(i) != nil {
			continue
		}
		w.unknown[i] = m.life.number
		m.hurry(now)
	}
}
