package storetest

import (
	"bytes"
	"errors"
	"flag"
	"reflect"
	"slices"
	"strconv"
	"time"

	"pgregory.net/rapid"

	"ticketgate/ticket"
)

// randomWalk does random steps on a store and on the model, and compares each answer and all counts.
func randomWalk(s *suite) {
	if s.Walks > 0 {
		f := flag.Lookup("rapid.checks") // rapid knows no other way
		before := f.Value.String()
		must(s, f.Value.Set(strconv.Itoa(s.Walks)))
		defer func() { must(s, f.Value.Set(before)) }()
	}
	rapid.Check(s.T, func(r *rapid.T) {
		w := newWalk(s)
		r.Repeat(map[string]func(*rapid.T){
			"":       w.check,
			"issue":  w.issue,
			"issue ": w.issue, // as often as what needs a ticket
			"redeem": w.redeem,
			"assert": w.assert,
			"revoke": w.revoke,
			"used":   w.used,
			"renew":  w.renew,
			"renew ": w.renew,
			"lapse":  w.lapse,
			"turn":   w.turn,
		})
	})
}

func must(s *suite, err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// Times in a walk are such that no end falls on a moment at which something is done: the clock goes on by multiples of tick,
// and nothing ends within 2 minutes of one, so that it does not matter how long the walk itself takes.
//
//	life, lease 600 = 1 tick + 180 s     grace 605 = 1 tick + 185 s     reserve 1000 = 2 ticks + 160 s
//	lease 1500 = 3 ticks + 240 s         grace 1505 = 3 ticks + 245 s   an hour = 8 ticks + 240 s
const tick = 420 * time.Second

var (
	walkLeases = []time.Duration{600 * time.Second, 1500 * time.Second}
	walkLapses = []time.Duration{tick, tick, 2 * tick, 9 * tick}
)

// walk is one random walk on a store of its own: two subjects of one tag, three incarnations that hold, three nodes.
type walk struct {
	*suite
	subjects [2]ticket.Subject
	tickets  []*ticket.IssueRequest // in the order of issue
	epochs   []ticket.Epoch
	number   uint64 // of the latest reading
	floor    uint64 // none below is on its way any more
	nodes    [3]walker
	lives    ticket.Incarnation
}

// walker is one node's present life, and what it knows of its renewals.
type walker struct {
	incarnation   ticket.Incarnation
	number, acked uint64
}

func newWalk(s *suite) *walk {
	w := &walk{suite: begin(s.T, s.open)}
	a := s.subject()
	w.subjects, w.epochs = [2]ticket.Subject{a, a ^ 1<<30}, []ticket.Epoch{w.epoch}
	for i := range w.nodes {
		w.nodes[i] = w.born()
	}
	return w
}

func (w *walk) born() walker {
	w.lives++
	return walker{incarnation: 0x100 + w.lives}
}

func (w *walk) now() time.Time { return w.Now(w.T) }

// fail fails the step and tells what was asked.
func fail(t *rapid.T, what string, asked, got, want any) {
	t.Helper()
	t.Fatalf("%s %+v:\n got %+v\nwant %+v", what, asked, got, want)
}

func (w *walk) drawSubject(t *rapid.T) ticket.Subject {
	return rapid.SampledFrom(w.subjects[:]).Draw(t, "subject")
}

func (w *walk) drawHolders(t *rapid.T, most int) []ticket.Incarnation {
	return rapid.SliceOfN(rapid.SampledFrom([]ticket.Incarnation{1, 2, 3, 4}), 0, most).Draw(t, "incarnations")
}

// drawEpoch is usually the present one.
func (w *walk) drawEpoch(t *rapid.T) ticket.Epoch {
	if rapid.IntRange(0, 7).Draw(t, "another epoch") > 0 {
		return w.epoch
	}
	return rapid.SampledFrom(append(w.epochs, 0, w.epoch+1)).Draw(t, "epoch")
}

// drawReading is a held count with a number that is usually the next and sometimes late or repeated.
func (w *walk) drawReading(t *rapid.T, u ticket.Subject) ticket.Held {
	w.number++
	late := uint64(rapid.IntRange(0, 3).Draw(t, "late"))
	return ticket.Held{Subject: u, Incarnation: rapid.SampledFrom([]ticket.Incarnation{1, 2, 3}).Draw(t, "incarnation"),
		Count: uint32(rapid.IntRange(0, 4).Draw(t, "count")), Number: max(w.number-min(late, w.number-1), w.floor)}
}

// drawTicket is one of the latest that was asked for, or one that nobody has asked for while there is none.
func (w *walk) drawTicket(t *rapid.T) *ticket.IssueRequest {
	if len(w.tickets) == 0 {
		return w.fresh(w.drawSubject(t))
	}
	return rapid.SampledFrom(w.tickets[max(0, len(w.tickets)-6):]).Draw(t, "ticket")
}

func (w *walk) issue(t *rapid.T) {
	r := w.fresh(w.drawSubject(t))
	r.Limit = uint32(rapid.IntRange(0, 9).Draw(t, "limit"))
	if r.Limit == 9 {
		r.Limit = ticket.NoLimit
	}
	r.Outstanding = uint32(rapid.IntRange(1, 5).Draw(t, "outstanding"))
	r.Life = 600 * time.Second
	r.Reserve = rapid.SampledFrom([]time.Duration{0, 1000 * time.Second}).Draw(t, "reserve")
	r.Epoch, r.Dead = w.drawEpoch(t), w.drawHolders(t, 2)
	if len(w.tickets) > 0 && rapid.IntRange(0, 9).Draw(t, "again") == 0 {
		old := w.drawTicket(t)
		r.Ticket, r.Subject = old.Ticket, old.Subject
	}
	got, err := w.Store.Issue(w.Context(), r)
	if want := w.Model.Issue(r, w.now()); err != nil || !reflect.DeepEqual(got, want) {
		t.Logf("%v", err)
		fail(t, "issue", r, got, want)
	}
	if got.Result == ticket.IssueOK {
		w.tickets = append(w.tickets, r)
	}
}

func (w *walk) redeem(t *rapid.T) {
	r := w.drawTicket(t)
	q := ticket.RedeemRequest{Ticket: r.Ticket, Secret: r.Secret, Epoch: w.drawEpoch(t), Held: w.drawReading(t, r.Subject)}
	if rapid.IntRange(0, 3).Draw(t, "wrong secret") == 0 {
		q.Secret[5] ^= 4
	}
	got := w.suite.redeem(q)
	want := w.Model.Redeem(&q, w.now())
	if got.Result != want.Result || got.Seen != want.Seen || !bytes.Equal(got.Grant, want.Grant) {
		fail(t, "redeem", q, got, want)
	}
}

func (w *walk) assert(t *rapid.T) {
	q := ticket.Assertion{Epoch: w.drawEpoch(t)}
	u := w.drawSubject(t)
	q.Held = w.drawReading(t, u)
	for _, r := range w.tickets[max(0, len(w.tickets)-4):] {
		if r.Subject == u && rapid.IntRange(0, 3).Draw(t, "spent") == 0 {
			q.Spent = append(q.Spent, r.Ticket)
		}
	}
	as := make([]ticket.AssertAnswer, 1)
	w.Store.Assert(w.Context(), []ticket.Assertion{q}, as)
	if want := w.Model.Assert(&q, w.now()); as[0] != want {
		fail(t, "assert", q, as[0], want)
	}
}

func (w *walk) revoke(t *rapid.T) {
	r := w.drawTicket(t)
	q := ticket.RevokeRequest{Ticket: r.Ticket, Subject: r.Subject, Owner: rapid.SampledFrom([]string{"key-1", "key-1", "key-2"}).Draw(t, "owner")}
	got, err := w.Store.Revoke(w.Context(), &q)
	if want := w.Model.Revoke(&q, w.now()); err != nil || got != want {
		t.Logf("%v", err)
		fail(t, "revoke", q, got, want)
	}
}

func (w *walk) used(t *rapid.T) { w.compareUsed(t, w.drawSubject(t), w.drawHolders(t, 3)) }

func (w *walk) compareUsed(t *rapid.T, u ticket.Subject, dead []ticket.Incarnation) {
	got, err := w.Store.Used(w.Context(), u, dead)
	if want := w.Model.Used(u, dead, w.now()); err != nil || got != want {
		t.Logf("%v", err)
		fail(t, "used without", dead, got, want)
	}
}

// renew is the next renewal of a node, or a late one, or one that knows of an acknowledgement which the store does not.
func (w *walk) renew(t *rapid.T) {
	n := &w.nodes[rapid.IntRange(0, 2).Draw(t, "node")]
	r := &ticket.RenewRequest{Incarnation: n.incarnation, Name: rapid.SampledFrom([]string{"gw-1", "", "gw 2:\xff"}).Draw(t, "name"),
		Lease: rapid.SampledFrom(walkLeases).Draw(t, "lease"), Number: n.number + 1, Acked: n.acked, Enter: n.acked == 0,
		Topology: rapid.Uint64().Draw(t, "topology")}
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		r.Number -= min(2, n.number)
	case 1:
		r.Number, r.Acked = n.number+3, n.number+2
	case 2:
		r.Enter = !r.Enter
	}
	for _, shard := range []ticket.Shard{0, 0x3fff} {
		if rapid.IntRange(0, 2).Draw(t, "registers") > 0 {
			epoch := rapid.SampledFrom([]ticket.Epoch{1, 1, 2, 2, 3, 1<<32 - 1, 0}).Draw(t, "epoch")
			r.Registered = append(r.Registered, ticket.ShardEpoch{Shard: shard, Epoch: epoch})
		}
	}
	if rapid.IntRange(0, 9).Draw(t, "former") == 0 {
		r.Former = []ticket.Incarnation{rapid.SampledFrom(w.nodes[:]).Draw(t, "life").incarnation, 0x200}
	}
	got, gotErr := w.Store.Renew(w.Context(), r)
	want, wantErr := w.Model.Renew(r, w.now())
	if !sameErr(gotErr, wantErr) || !sameView(&got, &want) {
		t.Logf("got error %v, want %v", gotErr, wantErr)
		fail(t, "renew", r, got, want)
	}
	switch {
	case errors.Is(wantErr, ticket.ErrLeaseLost):
		*n = w.born()
	case wantErr == nil:
		n.number = r.Number
		if len(want.Old) == 0 {
			n.acked = r.Number
		}
	}
}

func sameErr(a, b error) bool {
	for _, e := range []error{ticket.ErrLeaseLost, ticket.ErrStale, ticket.ErrUnavailable} {
		if errors.Is(a, e) != errors.Is(b, e) {
			return false
		}
	}
	return (a == nil) == (b == nil)
}

// sameView compares all but the time, which goes on between store and model, and the exact ends of leases.
func sameView(a, b *ticket.View) bool {
	return a.Seen == b.Seen && a.Grace == b.Grace && a.Young == b.Young && a.Again == b.Again && a.Acks == b.Acks &&
		slices.Equal(a.Old, b.Old) && slices.EqualFunc(a.Nodes, b.Nodes, sameNode)
}

func sameNode(a, b ticket.NodeView) bool {
	return a.Incarnation == b.Incarnation && a.Name == b.Name && a.Dead == b.Dead && (a.Left-b.Left).Abs() < time.Minute &&
		slices.Equal(a.Registered, b.Registered) && a.Topology == b.Topology
}

func (w *walk) lapse(t *rapid.T) {
	w.Advance(w.T, rapid.SampledFrom(walkLapses).Draw(t, "lapse"))
	w.number++
	w.floor = w.number
}

// turn gives the server a new history, unless it has one for life. It is the step that changes most, so each second one does nothing.
func (w *walk) turn(t *rapid.T) {
	if w.Turn == nil || rapid.Bool().Draw(t, "not now") {
		return
	}
	w.Turn(w.T)
	w.epoch = w.ask().Epoch
	w.epochs = append(w.epochs, w.epoch)
}

// check compares all counts, after each step.
func (w *walk) check(t *rapid.T) {
	for _, u := range w.subjects {
		w.compareUsed(t, u, nil)
	}
}
