package core_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/store/node/core"
	"ticketgate/ticket"
)

const (
	heartbeat = 10 * time.Second
	lease     = 45 * time.Second
)

type counts map[ticket.Subject]ticket.Held

func (c counts) Held(s ticket.Subject) (uint32, uint64, bool) {
	h, ok := c[s]
	return h.Count, h.Number, ok
}

func (c counts) subjects(yield func(ticket.Subject) bool) {
	for s := range c {
		if !yield(s) {
			return
		}
	}
}

type random struct{ *rand.ChaCha8 }

// desk is a machine and who answers it by hand.
type desk struct {
	*testing.T
	*core.Core
	now    mono.Time
	counts counts
	lost   []string
}

func newDesk(t *testing.T, change func(*core.Options)) *desk {
	d := &desk{T: t, now: mono.Time(time.Second), counts: counts{}}
	o := core.Options{Name: "gw-1", Heartbeat: heartbeat, Lease: lease, First: true, Rand: random{rand.NewChaCha8([32]byte{})},
		Topology: func() *ticket.Topology { return ticket.One }, Counts: d.counts, Subjects: d.counts.subjects,
		Lost: func(why string) { d.lost = append(d.lost, why) }}
	if change != nil {
		change(&o)
	}
	d.Core = core.New(o)
	return d
}

// work passes time, and sorts what is to be sent.
func (d *desk) work(pass time.Duration) (renew *core.Renew, ask *core.Ask, tell *core.Assert) {
	d.now = d.now.Add(pass)
	for _, c := range d.Work(d.now, nil) {
		switch {
		case c.Renew != nil:
			renew = c.Renew
		case c.Ask != nil:
			ask = c.Ask
		default:
			tell = c.Assert
		}
	}
	return renew, ask, tell
}

const epoch = 7

var seen = ticket.ShardEpoch{Epoch: epoch}

// view is the answer to r, with other nodes in the list.
func (d *desk) view(r *core.Renew, others ...ticket.NodeView) {
	d.Helper()
	if r == nil {
		d.Fatal("no renewal is sent")
	}
	me := ticket.NodeView{Incarnation: r.Incarnation, Left: lease, Registered: r.Registered, Topology: r.Topology}
	nodes := append(others, me)
	slices.SortFunc(nodes, func(a, b ticket.NodeView) int {
		if a.Incarnation < b.Incarnation {
			return -1
		}
		return 1
	})
	d.Renewed(d.now, r, &ticket.View{Seen: seen, Nodes: nodes}, nil)
}

// enter makes d registered.
func (d *desk) enter(others ...ticket.NodeView) {
	d.Helper()
	r, a, _ := d.work(0)
	d.Asked(d.now, a, seen, nil)
	d.view(r)
	r, _, _ = d.work(time.Second)
	d.view(r, others...)
	if s := d.Now(); !s.MayRedeem(d.now, 1, epoch) {
		d.Fatalf("not registered: %+v", s)
	}
}

// TestBounds: what others make us remember has an end.
func TestBounds(t *testing.T) {
	d := newDesk(t, nil)
	var dead []ticket.NodeView
	for i := range ticket.Incarnation(6000) {
		dead = append(dead, ticket.NodeView{Incarnation: 10 + i, Dead: true})
	}
	d.enter(dead...)
	if n := len(d.Now().Dead); n != 4096 {
		t.Errorf("%d dead, want 4096", n)
	}
	var counted []ticket.Incarnation
	for i := range ticket.Incarnation(3000) {
		counted = append(counted, 10000+i)
	}
	d.Issued(d.now, d.now, &ticket.IssueAnswer{Result: ticket.IssueFull, Counted: counted, Seen: seen})
	r, _, _ := d.work(time.Second)
	d.view(r)
	if n := len(d.Now().Dead); n != 1024 {
		t.Errorf("%d are presumed dead, want 1024", n)
	}
	for i := range ticket.Epoch(200) { // each a new history, and none comes back
		d.now = d.now.Add(time.Second)
		d.Redeemed(d.now, d.now, 1, true, ticket.ShardEpoch{Epoch: 100 + i})
	}
	d.Redeemed(d.now, d.now, 1, true, ticket.ShardEpoch{Epoch: 250})
	if e := d.Now().Epoch(1); e != 299 {
		t.Errorf("epoch %d, want 299", e)
	}
}

// TestAskedBefore: only who was counted before the view was asked for can be missing in it.
func TestAskedBefore(t *testing.T) {
	d := newDesk(t, nil)
	d.enter()
	full := &ticket.IssueAnswer{Result: ticket.IssueFull, Counted: []ticket.Incarnation{99}, Seen: seen}
	r, _, _ := d.work(heartbeat)
	d.Issued(d.now, d.now, full)
	d.view(r)
	if len(d.Now().Dead) != 0 {
		t.Fatal("the view was on its way already")
	}
	r, _, _ = d.work(50 * time.Millisecond)
	d.view(r)
	if !slices.Equal(d.Now().Dead, []ticket.Incarnation{99}) {
		t.Errorf("dead: %v", d.Now().Dead)
	}
	d.Issued(d.now, d.now, full) // asked with an older list
	r, _, _ = d.work(heartbeat)
	d.view(r, ticket.NodeView{Incarnation: 99, Left: lease})
	if len(d.Now().Dead) != 0 {
		t.Error("who is in the list and lives is not dead")
	}
}

// TestOwnLivesAreOver: their sockets are closed 2 s after a lease in mode strict, and kept in mode available.
func TestOwnLivesAreOver(t *testing.T) {
	for _, available := range []bool{false, true} {
		d := newDesk(t, func(o *core.Options) { o.Available = available })
		d.enter()
		life := d.Now().Incarnation
		d.work(lease)
		r, _, _ := d.work(0)
		if len(d.lost) != 1 || r != nil && len(r.Former) != 0 {
			t.Fatalf("lost %q, former %v", d.lost, r.Former)
		}
		d.work(time.Second)
		d.Renewed(d.now, nil, nil, ticket.ErrUnavailable) // a stray answer changes nothing
		for r == nil || r.Sent < mono.Time(lease+3*time.Second) {
			d.now = d.now.Add(time.Second)
			for _, c := range d.Work(d.now, nil) {
				if c.Renew != nil {
					r = c.Renew
					d.Renewed(d.now, r, nil, ticket.ErrUnavailable)
				}
			}
		}
		if slices.Contains(r.Former, life) == available {
			t.Errorf("available %v: former lives %x, the last was %x", available, r.Former, life)
		}
	}
}

// TestNobodyIsToldBeforeEntry: an incarnation that is counted and not in the list would be taken for one that has vanished.
func TestNobodyIsToldBeforeEntry(t *testing.T) {
	d := newDesk(t, nil)
	d.counts[1] = ticket.Held{Count: 1, Number: 1}
	r, a, _ := d.work(0)
	d.Asked(d.now, a, seen, nil)
	if _, _, tell := d.work(time.Second); tell != nil {
		t.Fatalf("told %+v", tell.Held)
	}
	d.view(r)
	if s := d.Now(); s.MayRedeem(d.now, 1, epoch) {
		t.Error("redeems before the counts are told")
	}
	_, _, tell := d.work(0)
	if tell == nil || len(tell.Held) != 1 {
		t.Fatalf("told %+v", tell)
	}
	d.Asserted(d.now, tell, []ticket.AssertAnswer{{OK: true, Seen: seen}})
	r, _, _ = d.work(time.Second)
	if r == nil || !slices.Equal(r.Registered, []ticket.ShardEpoch{seen}) {
		t.Fatalf("renewal %+v", r)
	}
}

// TestNextIsNotMissed: whoever calls Work when Next says sees every renewal in time, and does not spin.
func TestNextIsNotMissed(t *testing.T) {
	d := newDesk(t, nil)
	d.enter()
	sent, turns := d.now, 0
	for d.now < mono.Time(10*time.Minute) {
		next := d.Next()
		if next <= d.now {
			t.Fatalf("at %v the next turn is at %v", d.now, next)
		}
		turns++
		d.now = next
		for _, c := range d.Work(d.now, nil) {
			switch {
			case c.Renew != nil:
				if gone := d.now.Sub(sent); gone > heartbeat {
					t.Fatalf("%v between two renewals", gone)
				}
				sent = d.now
				d.view(c.Renew)
			case c.Ask != nil:
				d.Asked(d.now, c.Ask, seen, nil)
			}
		}
	}
	if turns > 3*60 || len(d.lost) > 0 {
		t.Errorf("%d turns in 10 minutes, lost %q", turns, d.lost)
	}
}

// TestBackAfterAnOutage: asserts that are lost come again after longer and longer, and at once when the store answers, be it another
// history of it or the same.
func TestBackAfterAnOutage(t *testing.T) {
	for name, back := range map[string]ticket.Epoch{"restarted": epoch + 1, "only stopped": epoch} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, nil)
			d.enter()
			d.counts[1] = ticket.Held{Subject: 1, Count: 1, Number: 1}
			d.Touch(1)
			var last *core.Renew
			tells := 0
			for range 60 { // half a minute
				r, a, tell := d.work(500 * time.Millisecond)
				if r != nil {
					last = r
					d.Renewed(d.now, r, nil, ticket.ErrUnavailable)
				}
				if a != nil {
					d.Asked(d.now, a, ticket.ShardEpoch{}, ticket.ErrUnavailable)
				}
				if tell != nil {
					tells++
					d.Asserted(d.now, tell, make([]ticket.AssertAnswer, len(tell.Held)))
				}
			}
			if last == nil || tells < 4 || tells > 10 {
				t.Fatalf("%d asserts in half a minute, last renewal %+v", tells, last)
			}
			for step := 0; ; step++ {
				r, _, tell := d.work(500 * time.Millisecond)
				if tell != nil && step > 0 {
					return
				}
				if step == 3 {
					t.Fatal("nothing is asserted a second after the store has answered")
				}
				if r != nil {
					d.Renewed(d.now, r, &ticket.View{Seen: ticket.ShardEpoch{Epoch: back}, Nodes: []ticket.NodeView{
						{Incarnation: r.Incarnation, Left: lease, Registered: r.Registered, Topology: r.Topology}}}, nil)
				}
			}
		})
	}
}
