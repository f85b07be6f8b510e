package storetest

import (
	"slices"
	"time"

	"ticketgate/ticket"
)

// counted: who is refused for the count learns who holds the slots.
func counted(s *suite) {
	u := s.subject()
	for i, n := range []uint32{1, 0, 2, 5} {
		s.assert(u, 0xb1+ticket.Incarnation(i)<<60, n, 1)
	}
	r := s.fresh(u)
	r.Dead = []ticket.Incarnation{0xb1 + 3<<60}
	a := s.issue(r)
	if want := []ticket.Incarnation{0xb1, 0xb1 + 2<<60}; a.Result != ticket.IssueFull || a.Used != 3 || a.Reserved != 0 || !slices.Equal(a.Counted, want) {
		s.Errorf("issue: %+v, want full with 3 used by %x", a, want)
	}
	r.Limit = 4
	if a = s.issue(r); a.Result != ticket.IssueOK || a.Counted != nil {
		s.Errorf("issue: %+v, want ok", a)
	}
	r = s.fresh(u)
	r.Limit, r.Outstanding = 10, 1
	if a = s.issue(r); a.Result != ticket.IssueOutstanding || a.Counted != nil {
		s.Errorf("issue: %+v, want outstanding", a)
	}
}

// reserve: a ticket that only its node redeems keeps its slot until the node must have said that it has.
func reserve(s *suite) {
	u := s.subject()
	r := s.fresh(u)
	r.Life, r.Reserve, r.Limit = time.Minute, 3*time.Minute, 1
	s.issued(r)
	s.Advance(s, 2*time.Minute)
	s.wantUsed(u, 1)
	next := s.fresh(u)
	next.Limit = 1
	s.wantIssue(next, ticket.IssueFull, 1)
	if ok, err := s.Store.Revoke(s.Context(), &ticket.RevokeRequest{Ticket: r.Ticket, Subject: u, Owner: r.Owner}); ok || err != nil {
		s.Fatalf("revoke of an expired ticket: %v, %v", ok, err)
	}
	again := *r
	again.Limit = 9
	s.wantIssue(&again, ticket.IssueDuplicate, 1)
	s.wantUsed(u, 1)
	s.Advance(s, 90*time.Second)
	s.wantUsed(u, 0)

	s.wantIssue(next, ticket.IssueOK, 1)
	r = s.fresh(u)
	r.Life, r.Reserve = time.Minute, 10*time.Minute
	s.issued(r)
	s.Advance(s, 2*time.Minute)
	s.wantUsed(u, 2)
	s.wantRedeem(s.redeemRequest(r, 1), ticket.RedeemUnknown) // it has expired, and is asked for no more
	s.wantUsed(u, 1)
	s.wantRedeem(s.redeemRequest(next, 1), ticket.RedeemOK)

	r = s.fresh(u) // less than its life is for its life
	r.Life, r.Reserve = 10*time.Minute, time.Minute
	s.issued(r)
	s.Advance(s, 5*time.Minute)
	s.wantUsed(u, 2)
	s.wantRedeem(s.redeemRequest(r, 2), ticket.RedeemOK)
}

// assertSpends: tickets that became sockets without the store's word are named by the count that includes them.
func assertSpends(s *suite) {
	u := s.subject()
	var spent []ticket.Hash
	for range 1500 { // more than one round trip, and than one call of a command in the script
		r := s.fresh(u)
		r.Limit, r.Outstanding, r.Reserve = ticket.NoLimit, 2000, 2*long
		spent = append(spent, s.issued(r).Ticket)
	}
	other := s.fresh(u)
	other.Limit, other.Outstanding = ticket.NoLimit, 2000
	s.issued(other)
	stays := s.issued(s.fresh(u ^ 1))
	q := ticket.Assertion{Held: ticket.Held{Subject: u, Incarnation: node, Count: 3, Number: 9}, Epoch: s.epoch, Spent: append(spent, ticket.Hash{1})}
	late := q
	late.Held = ticket.Held{Subject: u, Incarnation: node, Count: 7, Number: 8}
	late.Spent = []ticket.Hash{other.Ticket, stays.Ticket}
	as := make([]ticket.AssertAnswer, 1)
	for _, step := range []struct {
		q    ticket.Assertion
		want uint32
	}{{q, 4}, {q, 4}, {late, 3}} {
		s.Store.Assert(s.Context(), []ticket.Assertion{step.q}, as)
		if !as[0].OK || as[0].Seen != s.Model.Self {
			s.Fatalf("assert: %+v", as[0])
		}
		s.wantUsed(u, step.want)
	}
	s.wantRedeem(s.redeemRequest(other, 1), ticket.RedeemUnknown)
	s.wantUsed(stays.Subject, 1) // another subject's
}

func assertEpoch(s *suite) {
	u := s.subject()
	r := s.issued(s.fresh(u))
	as := make([]ticket.AssertAnswer, 2)
	for _, epoch := range []ticket.Epoch{0, s.epoch + 1} {
		q := ticket.Assertion{Held: ticket.Held{Subject: u, Incarnation: node, Count: 5, Number: 1}, Epoch: epoch, Spent: []ticket.Hash{r.Ticket}}
		good := ticket.Assertion{Held: ticket.Held{Subject: u ^ 1, Incarnation: node, Count: 1, Number: 1}, Epoch: s.epoch}
		s.Store.Assert(s.Context(), []ticket.Assertion{q, good}, as)
		if want := [2]ticket.AssertAnswer{{Seen: s.Model.Self}, {OK: true, Seen: s.Model.Self}}; [2]ticket.AssertAnswer(as) != want {
			s.Fatalf("%+v, want %+v", as, want)
		}
		s.wantUsed(u, 1)
		s.wantUsed(u^1, 1)
	}
	s.wantRedeem(s.redeemRequest(r, 1), ticket.RedeemOK)
}

// zerosLapse: nothing is left of a client that has gone, not even a zero beside the sockets of a node that has died.
func zerosLapse(s *suite) {
	u := s.subject()
	s.assert(u, 0xb2, 0, 9)
	s.assert(u, 0xd1, 2, 1)
	r := s.fresh(u)
	r.Dead, r.Limit = []ticket.Incarnation{0xd1}, 0
	s.wantIssue(r, ticket.IssueFull, 0)
	s.assert(u, 0xb2, 1, 8) // late
	s.wantUsed(u, 0)
	s.Advance(s, 61*time.Minute)
	s.assert(u, 0xb2, 1, 1) // its number has been forgotten, as nothing can be on its way so long
	s.wantUsed(u, 1)
}
