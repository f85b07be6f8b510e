package storetest

import (
	"pgregory.net/rapid"

	"ticketgate/ticket"
)

// randomWalk does random steps on the store and on a model of a few lines, and compares each answer and all counts.
func randomWalk(s *suite) {
	rapid.Check(s.T, func(r *rapid.T) {
		w := newWalk(s, r)
		actions := map[string]func(*rapid.T){
			"":       w.check,
			"issue":  w.issue,
			"lapse":  w.lapse,
			"redeem": w.redeem,
			"assert": w.assert,
			"revoke": w.revoke,
			"bury":   w.bury,
		}
		r.Repeat(actions)
	})
}

// model is what a store must behave like.
type model struct {
	unused map[ticket.Hash]*ticket.IssueRequest
	held   map[ticket.Subject]map[ticket.Incarnation]ticket.Held
}

func (m *model) reserved(u ticket.Subject) (n uint32) {
	for _, r := range m.unused {
		if r.Subject == u {
			n++
		}
	}
	return n
}

func (m *model) used(u ticket.Subject) uint32 {
	n := m.reserved(u)
	for _, h := range m.held[u] {
		n += h.Count
	}
	return n
}

func (m *model) issue(r *ticket.IssueRequest) ticket.IssueAnswer {
	for _, i := range r.Dead {
		delete(m.held[r.Subject], i)
	}
	used := m.used(r.Subject)
	switch {
	case m.unused[r.Ticket] != nil:
		return ticket.IssueAnswer{Result: ticket.IssueDuplicate, Used: used}
	case used >= r.Limit:
		return ticket.IssueAnswer{Result: ticket.IssueFull, Used: used}
	case m.reserved(r.Subject) >= r.Outstanding:
		return ticket.IssueAnswer{Result: ticket.IssueOutstanding, Used: used}
	}
	m.unused[r.Ticket] = r
	return ticket.IssueAnswer{Result: ticket.IssueOK, Used: used + 1}
}

func (m *model) redeem(q *ticket.RedeemRequest) ticket.RedeemResult {
	r := m.unused[q.Ticket]
	if r == nil {
		return ticket.RedeemUnknown
	}
	delete(m.unused, q.Ticket)
	if r.Secret != q.Secret {
		return ticket.RedeemSecret
	}
	m.hold(q.Held)
	return ticket.RedeemOK
}

func (m *model) hold(h ticket.Held) {
	if old, ok := m.held[h.Subject][h.Incarnation]; !ok || old.Number < h.Number {
		m.held[h.Subject][h.Incarnation] = h
	}
}

// walk is one random walk: two subjects of one tag, three incarnations, tickets in the order of issue.
type walk struct {
	s        *suite
	t        *rapid.T
	model    model
	subjects [2]ticket.Subject
	issued   []*ticket.IssueRequest
	number   uint64
	lapses   int
}

func newWalk(s *suite, t *rapid.T) *walk {
	a := s.subject()
	w := &walk{s: s, t: t, subjects: [2]ticket.Subject{a, a ^ 1<<30}}
	w.model = model{map[ticket.Hash]*ticket.IssueRequest{}, map[ticket.Subject]map[ticket.Incarnation]ticket.Held{}}
	for _, u := range w.subjects {
		w.model.held[u] = map[ticket.Incarnation]ticket.Held{}
	}
	return w
}

func (w *walk) subject(t *rapid.T) ticket.Subject {
	return rapid.SampledFrom(w.subjects[:]).Draw(t, "subject")
}

func (w *walk) incarnation(t *rapid.T) ticket.Incarnation {
	return rapid.SampledFrom([]ticket.Incarnation{1, 2, 3}).Draw(t, "incarnation")
}

// reading is a held count with a number that is usually the next and sometimes late or repeated.
func (w *walk) reading(t *rapid.T, u ticket.Subject) ticket.Held {
	w.number++
	late := uint64(rapid.IntRange(0, 3).Draw(t, "late"))
	return ticket.Held{Subject: u, Incarnation: w.incarnation(t), Count: uint32(rapid.IntRange(0, 4).Draw(t, "count")), Number: w.number - min(late, w.number-1)}
}

func (w *walk) fresh(t *rapid.T) *ticket.IssueRequest {
	r := w.s.fresh(w.subject(t))
	r.Limit = uint32(rapid.IntRange(0, 8).Draw(t, "limit"))
	r.Outstanding = uint32(rapid.IntRange(1, 4).Draw(t, "outstanding"))
	if rapid.Bool().Draw(t, "with dead") {
		r.Dead = []ticket.Incarnation{w.incarnation(t)}
	}
	return r
}

func (w *walk) issue(t *rapid.T) {
	r := w.fresh(t)
	if len(w.issued) > 0 && rapid.IntRange(0, 9).Draw(t, "again") == 0 {
		if old := w.issued[len(w.issued)-1]; w.model.unused[old.Ticket] != nil {
			r.Ticket, r.Subject = old.Ticket, old.Subject
		}
	}
	w.answer(t, r)
	w.issued = append(w.issued, r)
}

func (w *walk) answer(t *rapid.T, r *ticket.IssueRequest) ticket.IssueAnswer {
	got, err := w.s.Store.Issue(w.s.Context(), r)
	if want := w.model.issue(r); err != nil || got != want {
		t.Fatalf("issue: %+v, %v, want %+v", got, err, want)
	}
	return got
}

// lapse issues a ticket that expires at once. It is one step, so that no other can see it half way.
func (w *walk) lapse(t *rapid.T) {
	if w.lapses++; w.lapses > 2 {
		t.Skip("each takes real time on a real server")
	}
	r := w.fresh(t)
	r.Life = 1e6
	w.answer(t, r)
	w.s.Advance(w.s, 2e6)
	delete(w.model.unused, r.Ticket)
	w.issued = append(w.issued, r)
}

func (w *walk) some(t *rapid.T) *ticket.IssueRequest {
	if len(w.issued) == 0 {
		t.Skip("nothing issued")
	}
	return rapid.SampledFrom(w.issued).Draw(t, "ticket")
}

func (w *walk) redeem(t *rapid.T) {
	r := w.some(t)
	q := ticket.RedeemRequest{Ticket: r.Ticket, Secret: r.Secret, Epoch: r.Epoch, Held: w.reading(t, r.Subject)}
	if rapid.IntRange(0, 3).Draw(t, "wrong secret") == 0 {
		q.Secret[5] ^= 4
	}
	got := w.s.redeem(q)
	if want := w.model.redeem(&q); got.Result != want || (got.Result == ticket.RedeemOK) != (string(got.Grant) == "grant") {
		t.Fatalf("redeem: %d %q, want %d", got.Result, got.Grant, want)
	}
}

func (w *walk) assert(t *rapid.T) {
	h := w.reading(t, w.subject(t))
	if err := w.s.Store.Assert(w.s.Context(), []ticket.Held{h}); err != nil {
		t.Fatalf("assert: %v", err)
	}
	w.model.hold(h)
}

func (w *walk) revoke(t *rapid.T) {
	r := w.some(t)
	q := ticket.RevokeRequest{Ticket: r.Ticket, Subject: r.Subject, Owner: rapid.SampledFrom([]string{"key-1", "key-1", "key-2"}).Draw(t, "owner")}
	got, err := w.s.Store.Revoke(w.s.Context(), &q)
	want := w.model.unused[r.Ticket] != nil && q.Owner == r.Owner
	if err != nil || got != want {
		t.Fatalf("revoke: %v, %v, want %v", got, err, want)
	}
	if want {
		delete(w.model.unused, r.Ticket)
	}
}

// bury issues with an incarnation named as dead and no room: nothing is put, the rows go all the same.
func (w *walk) bury(t *rapid.T) {
	r := w.fresh(t)
	r.Limit, r.Dead = 0, []ticket.Incarnation{w.incarnation(t), w.incarnation(t)}
	w.answer(t, r)
}

// check compares all counts, after each step.
func (w *walk) check(t *rapid.T) {
	for _, u := range w.subjects {
		got, err := w.s.Store.Used(w.s.Context(), u, nil)
		if want := w.model.used(u); err != nil || got != want {
			t.Fatalf("used: %d, %v, want %d", got, err, want)
		}
	}
}
