package model

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"ticketgate/ticket"
)

const (
	deadKept  = time.Hour       // how long the end of an incarnation is told
	graceMore = 5 * time.Second // what a grace lasts beyond a lease
	formerMax = 64              // epochs of a shard that are remembered as left, the latest
	listMax   = 4096            // incarnations in the list, the dead of the last hour among them: a hundred nodes that all crash every 90 s
)

var errCrowded = fmt.Errorf("%w: over %d incarnations in an hour: a node is restarted again and again", ticket.ErrUnavailable, listMax)

// Nodes is the list of incarnations, and what is known of the histories of all shards.
//
//	history == 0      nobody has ever been here: born = now
//	history changed   since = now: entries may be lost, the list is in grace
//
// Not for concurrent use.
type Nodes struct {
	history  ticket.Epoch // of the shard that keeps this list, when it was last written to
	born     time.Time    // when the first entry was made; zero: nothing was ever before it
	since    time.Time    // when the present history began; zero: nothing of an earlier one can be missing
	lost     bool         // somebody has missed an entry, or a renewal, in this history
	list     map[ticket.Incarnation]entry
	current  map[ticket.Shard]ticket.Epoch
	formerly map[ticket.Shard][]ticket.Epoch
}

type entry struct {
	name       string
	end        time.Time // of the lease; of the dead: when they were marked
	number     uint64
	dead       bool
	sure       bool // has renewed in this history, and nothing of it was lost
	topology   uint64
	registered []ticket.ShardEpoch
}

// on is the epoch under which the entry has registered a shard; 0: none.
func (e *entry) on(s ticket.Shard) ticket.Epoch {
	for _, r := range e.registered {
		if r.Shard == s {
			return r.Epoch
		}
	}
	return 0
}

// NewNodes returns an empty list. history is that of a server of which it is known that nobody has ever been there, so that
// the list is not young; 0: it is not known.
func NewNodes(history ticket.Epoch) *Nodes {
	return &Nodes{history: history, list: map[ticket.Incarnation]entry{}, current: map[ticket.Shard]ticket.Epoch{},
		formerly: map[ticket.Shard][]ticket.Epoch{}}
}

// clone shares the slices, which are never written to.
func (n *Nodes) clone() *Nodes {
	c := *n
	c.list, c.current, c.formerly = maps.Clone(n.list), maps.Clone(n.current), maps.Clone(n.formerly)
	return &c
}

// Renew is ticket.Store's. The caller fills in View.Acks.
func (p *Primary) Renew(r *ticket.RenewRequest, now time.Time) (ticket.View, error) {
	return p.State.nodes.Renew(p.Self, p.Durable, r, now)
}

// Renew is Primary's, of the list that the server self keeps.
func (n *Nodes) Renew(self ticket.ShardEpoch, durable bool, r *ticket.RenewRequest, now time.Time) (ticket.View, error) {
	e, known := n.list[r.Incarnation]
	if known && r.Number <= e.number {
		return ticket.View{}, ticket.ErrStale
	}
	span := r.Lease + graceMore
	n.turn(self.Epoch, now, span)
	v := ticket.View{Seen: self, Time: now, Grace: n.grace(now, span), Young: now.Before(n.born.Add(span))}
	if !v.Grace {
		n.bury(now)
		e, known = n.list[r.Incarnation]
	}
	switch {
	case known && e.dead:
		return ticket.View{}, ticket.ErrLeaseLost
	case !known && !r.Enter && !v.Grace && !(v.Young && r.Acked > 0):
		return ticket.View{}, ticket.ErrLeaseLost
	case !known && !r.Enter:
		v.Again = true
	}
	if len(n.list)+n.strangers(r) > listMax {
		return ticket.View{}, errCrowded
	}
	if v.Old = n.refused(r, &e); len(v.Old) > 0 {
		return v, nil
	}
	if v.Again || known && r.Acked > e.number {
		n.missed(now, v.Grace)
		v.Grace = true
	}
	registered := slices.Clone(r.Registered)
	if v.Again { // under no epoch, until it has asserted everything once more
		for i := range registered {
			registered[i].Epoch = 0
		}
	}
	n.register(registered)
	n.list[r.Incarnation] = entry{name: r.Name, end: now.Add(r.Lease), number: r.Number, sure: true, topology: r.Topology,
		registered: registered}
	for _, f := range r.Former { // a node that leaves names itself
		n.mark(f, now)
	}
	if v.Grace && durable && r.Replicas == 0 && n.complete() {
		n.since, v.Grace = time.Time{}, false
	}
	v.Nodes = n.view(now)
	return v, nil
}

// strangers is how many entries r would make.
func (n *Nodes) strangers(r *ticket.RenewRequest) int {
	made := 0
	for _, i := range append([]ticket.Incarnation{r.Incarnation}, r.Former...) {
		if _, known := n.list[i]; !known {
			made++
		}
	}
	return made
}

// turn notices that the server has another history than the list was written in.
func (n *Nodes) turn(epoch ticket.Epoch, now time.Time, span time.Duration) {
	switch n.history {
	case epoch:
		return
	case 0:
		n.born = now
	default:
		open := n.grace(now, span) // what the history before has lost may still be missing
		n.begin(now)
		n.lost = open
	}
	n.history = epoch
}

// begin starts a grace.
func (n *Nodes) begin(now time.Time) {
	n.since, n.lost = now, false
	for i, e := range n.list {
		e.sure = false
		n.list[i] = e
	}
}

func (n *Nodes) grace(now time.Time, span time.Duration) bool {
	return !n.since.IsZero() && now.Before(n.since.Add(span))
}

// missed notes that something acknowledged is not there.
func (n *Nodes) missed(now time.Time, grace bool) {
	if !grace {
		n.begin(now)
	}
	n.lost = true
}

// bury marks those whose lease has ended, and forgets those who were marked an hour ago.
func (n *Nodes) bury(now time.Time) {
	for i, e := range n.list {
		switch {
		case e.dead && !now.Before(e.end.Add(deadKept)):
			delete(n.list, i)
		case !e.dead && !now.Before(e.end):
			n.mark(i, now)
		}
	}
}

func (n *Nodes) mark(i ticket.Incarnation, now time.Time) {
	e := n.list[i]
	if e.dead {
		return
	}
	e.dead, e.end, e.registered = true, now, nil
	n.list[i] = e
}

// refused returns the shards whose current epoch is another than r's, and which r may not move on: only who is registered under
// the current one may, to one that was never left, or who is alone.
func (n *Nodes) refused(r *ticket.RenewRequest, me *entry) []ticket.Shard {
	var old []ticket.Shard
	for _, s := range r.Registered {
		current := n.current[s.Shard]
		if current == 0 || s.Epoch == 0 || current == s.Epoch || n.alone(r.Incarnation, s) {
			continue
		}
		if me.on(s.Shard) != current || slices.Contains(n.formerly[s.Shard], s.Epoch) {
			old = append(old, s.Shard)
		}
	}
	return old
}

// alone tells whether no other living incarnation is registered under another epoch than s.
func (n *Nodes) alone(me ticket.Incarnation, s ticket.ShardEpoch) bool {
	for i, e := range n.list {
		if on := e.on(s.Shard); i != me && !e.dead && on != 0 && on != s.Epoch {
			return false
		}
	}
	return true
}

// register makes the epochs of rs the current ones.
func (n *Nodes) register(rs []ticket.ShardEpoch) {
	for _, s := range rs {
		current := n.current[s.Shard]
		if s.Epoch == 0 || current == s.Epoch {
			continue
		}
		left := slices.Clone(n.formerly[s.Shard])
		if current != 0 {
			left = append(left, current)
		}
		left = slices.DeleteFunc(left, func(e ticket.Epoch) bool { return e == s.Epoch })
		n.formerly[s.Shard], n.current[s.Shard] = left[max(0, len(left)-formerMax):], s.Epoch
	}
}

// complete tells whether everybody in the list has renewed in this history and has missed nothing.
func (n *Nodes) complete() bool {
	if n.lost {
		return false
	}
	for _, e := range n.list {
		if !e.dead && !e.sure {
			return false
		}
	}
	return true
}

func (n *Nodes) view(now time.Time) []ticket.NodeView {
	out := make([]ticket.NodeView, 0, len(n.list))
	for i, e := range n.list {
		out = append(out, ticket.NodeView{Incarnation: i, Name: e.name, Dead: e.dead, Left: e.end.Sub(now),
			Registered: e.registered, Topology: e.topology})
	}
	slices.SortFunc(out, func(a, b ticket.NodeView) int { return cmp.Compare(a.Incarnation, b.Incarnation) })
	return out
}
