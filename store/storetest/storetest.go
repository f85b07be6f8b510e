// Package storetest is the suite that every ticket.Store passes: each result of each call, in order, late, repeated and by
// hundreds of goroutines at once, and a random walk beside a model.
package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ticketgate/store/model"
	"ticketgate/ticket"
)

// A Harness is one store that nobody else uses, with no replicas, and its time.
type Harness struct {
	Store ticket.Store
	// Model is what the store does, in the state in which it is opened. Its epoch is asked of the store.
	Model *model.Primary
	// Now is the store's clock.
	Now func(t testing.TB) time.Time
	// Advance returns when at least d more has passed on the store's clock.
	Advance func(t testing.TB, d time.Duration)
	// Turn gives the server a new history of the same data. nil: this store has one for life.
	Turn func(t testing.TB)
	// Walks is how many random walks are made; 0: 100, or as the flag -rapid.checks says.
	Walks int
}

// Lives of tickets and leases in the suite: long outlasts any test, short is what Advance passes.
const (
	long  = time.Hour
	short = 60 * time.Millisecond
	past  = 2 * short // after it, short is over
)

// Run runs the suite. open makes a fresh, empty store for each test and registers its end with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	for _, c := range []struct {
		name string
		test func(*suite)
	}{
		{"redeem gives the grant once", redeemOnce},
		{"redeem refusals", redeemRefusals},
		{"wrong secret spends", wrongSecretSpends},
		{"batch of redeems", redeemBatch},
		{"replay race", replayRace},
		{"issue race", issueRace},
		{"limit counts reserved and held", limitCounts},
		{"outstanding", outstanding},
		{"no limit", noLimit},
		{"duplicate hash", duplicate},
		{"epoch mismatch", epochMismatch},
		{"expiry gives the reservation back", expiry},
		{"assert keeps the highest number", assertOrder},
		{"assert races", assertRace},
		{"late assert after redeem", lateAssert},
		{"revoke", revoke},
		{"revoke races redeem", revokeRace},
		{"dead incarnations", deadIncarnations},
		{"subjects apart", subjectsApart},
		{"lease", lease},
		{"former incarnations", former},
		{"grants are bytes", grantBytes},
		{"caller's memory", callersMemory},
		{"who is counted", counted},
		{"reservation outlives its ticket", reserve},
		{"assert spends", assertSpends},
		{"assert of another epoch", assertEpoch},
		{"zeros lapse", zerosLapse},
		{"renewals overtaken", overtaken},
		{"epochs registered", registered},
		{"the dead are told for an hour", deadForAnHour},
		{"new history", newHistory},
		{"young list", young},
		{"shards", shards},
		{"closed", closed},
		{"random walk", randomWalk},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.test(begin(t, open))
		})
	}
}

// suite is one test's store with shorthands that fail the test on any error.
type suite struct {
	*testing.T
	Harness
	open    func(*testing.T) Harness
	epoch   ticket.Epoch
	seq     atomic.Uint64 // numbers of held readings
	renewed map[ticket.Incarnation]uint64
}

const node ticket.Incarnation = 0xa1

func begin(t *testing.T, open func(t *testing.T) Harness) *suite {
	t.Helper()
	s := &suite{T: t, Harness: open(t), open: open, renewed: map[ticket.Incarnation]uint64{}}
	s.epoch = s.ask().Epoch
	return s
}

// ask asks the only shard for its epoch, and tells the model.
func (s *suite) ask() ticket.ShardEpoch {
	s.Helper()
	seen, err := s.Store.Ask(s.Context(), s.Store.Topology().Shards[0])
	if err != nil || seen.Epoch == 0 || seen.Shard != s.Store.Topology().Shards[0] {
		s.Fatalf("ask: %+v, %v", seen, err)
	}
	s.Model.Self = seen
	return seen
}

// a new ticket: unguessable, as the real ones.
func (s *suite) fresh(u ticket.Subject) *ticket.IssueRequest {
	var b [48]byte
	if _, err := rand.Read(b[:]); err != nil {
		s.Fatal(err)
	}
	return &ticket.IssueRequest{
		Ticket: ticket.Hash(b[:]), Secret: ticket.SecretHash(b[16:]), Subject: u, Limit: 3, Outstanding: 20,
		Life: long, Owner: "key-1", Grant: []byte("grant"), Epoch: s.epoch,
	}
}

func (s *suite) subject() ticket.Subject {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		s.Fatal(err)
	}
	return ticket.Subject(binary.BigEndian.Uint64(b[:]))
}

func (s *suite) issue(r *ticket.IssueRequest) ticket.IssueAnswer {
	s.Helper()
	a, err := s.Store.Issue(s.Context(), r)
	if err != nil {
		s.Fatalf("issue: %v", err)
	}
	return a
}

func (s *suite) issued(r *ticket.IssueRequest) *ticket.IssueRequest {
	s.Helper()
	if a := s.issue(r); a.Result != ticket.IssueOK {
		s.Fatalf("issue: %+v, want ok", a)
	}
	return r
}

// redeemRequest spends r as node, which then holds count sockets.
func (s *suite) redeemRequest(r *ticket.IssueRequest, count uint32) ticket.RedeemRequest {
	return ticket.RedeemRequest{Ticket: r.Ticket, Secret: r.Secret, Epoch: r.Epoch,
		Held: ticket.Held{Subject: r.Subject, Incarnation: node, Count: count, Number: s.seq.Add(1)}}
}

func (s *suite) redeem(q ticket.RedeemRequest) ticket.RedeemAnswer {
	var as [1]ticket.RedeemAnswer
	s.Store.Redeem(s.Context(), []ticket.RedeemRequest{q}, as[:])
	return as[0]
}

func (s *suite) wantRedeem(q ticket.RedeemRequest, want ticket.RedeemResult) {
	s.Helper()
	a := s.redeem(q)
	if a.Result != want || a.Seen != s.Model.Self {
		s.Fatalf("redeem: %+v, want result %d, seen %+v", a, want, s.Model.Self)
	}
	if (a.Grant != nil) != (want == ticket.RedeemOK) {
		s.Fatalf("redeem: result %d with grant %q", a.Result, a.Grant)
	}
}

func (s *suite) wantUsed(u ticket.Subject, want uint32, dead ...ticket.Incarnation) {
	s.Helper()
	got, err := s.Store.Used(s.Context(), u, dead)
	if err != nil || got != want {
		s.Fatalf("used: %d, %v, want %d", got, err, want)
	}
}

func (s *suite) wantIssue(r *ticket.IssueRequest, want ticket.IssueResult, used uint32) {
	s.Helper()
	if a := s.issue(r); a.Result != want || a.Used != used || a.Seen != s.Model.Self {
		s.Fatalf("issue: %+v, want result %d, used %d, seen %+v", a, want, used, s.Model.Self)
	}
}

func (s *suite) assert(u ticket.Subject, i ticket.Incarnation, count uint32, number uint64) {
	s.Helper()
	s.assertHeld(ticket.Held{Subject: u, Incarnation: i, Count: count, Number: number})
}

func (s *suite) assertHeld(hs ...ticket.Held) {
	s.Helper()
	rs, as := make([]ticket.Assertion, len(hs)), make([]ticket.AssertAnswer, len(hs))
	for i, h := range hs {
		rs[i] = ticket.Assertion{Held: h, Epoch: s.epoch}
	}
	s.Store.Assert(s.Context(), rs, as)
	for i, a := range as {
		if !a.OK || a.Seen != s.Model.Self {
			s.Errorf("assert %d: %+v", i, a) // not Fatal: it may be another goroutine's
		}
	}
}

func redeemOnce(s *suite) {
	r := s.fresh(s.subject())
	s.wantUsed(r.Subject, 0)
	s.wantIssue(r, ticket.IssueOK, 1)
	s.wantUsed(r.Subject, 1)
	a := s.redeem(s.redeemRequest(r, 1))
	if a.Result != ticket.RedeemOK || string(a.Grant) != "grant" {
		s.Fatalf("redeem: %d %q", a.Result, a.Grant)
	}
	s.wantUsed(r.Subject, 1) // the reservation became a held slot
	s.wantRedeem(s.redeemRequest(r, 2), ticket.RedeemUnknown)
	s.wantUsed(r.Subject, 1) // a refused redemption holds nothing
	s.assert(r.Subject, node, 0, s.seq.Add(1))
	s.wantUsed(r.Subject, 0)
}

func redeemRefusals(s *suite) {
	r := s.issued(s.fresh(s.subject()))
	never := s.redeemRequest(s.fresh(r.Subject), 1)
	s.wantRedeem(never, ticket.RedeemUnknown)
	other := s.redeemRequest(r, 1)
	other.Held.Subject ^= 1 // another tag; within one tag only the locator's MAC keeps subjects apart
	s.wantRedeem(other, ticket.RedeemUnknown)
	s.wantUsed(other.Held.Subject, 0)
}

func wrongSecretSpends(s *suite) {
	for _, at := range []int{0, 31} {
		r := s.issued(s.fresh(s.subject()))
		wrong := s.redeemRequest(r, 1)
		wrong.Secret[at] ^= 1
		s.wantRedeem(wrong, ticket.RedeemSecret)
		s.wantUsed(r.Subject, 0)
		s.wantRedeem(s.redeemRequest(r, 1), ticket.RedeemUnknown)
		s.wantUsed(r.Subject, 0)
	}
}

// redeemBatch is larger than a round trip, with a ticket twice in it and refusals in between.
func redeemBatch(s *suite) {
	const n = 600
	u := s.subject()
	var qs []ticket.RedeemRequest
	for i := range n {
		r := s.fresh(u)
		r.Limit, r.Outstanding = ticket.NoLimit, n
		if i%3 != 0 {
			s.issued(r)
		}
		qs = append(qs, s.redeemRequest(r, uint32(i+1)))
	}
	qs = append(qs, qs[1])
	as := make([]ticket.RedeemAnswer, len(qs))
	s.Store.Redeem(s.Context(), qs, as)
	for i, a := range as {
		want := ticket.RedeemOK
		if i%3 == 0 || i == n {
			want = ticket.RedeemUnknown
		}
		if a.Result != want {
			s.Fatalf("redeem %d of a batch: %d, want %d", i, a.Result, want)
		}
	}
	s.wantUsed(u, n) // the last ok carried the count of n: absolute, not added up
	s.Store.Redeem(s.Context(), nil, nil)
}

func replayRace(s *suite) {
	for range 5 {
		r := s.issued(s.fresh(s.subject()))
		var ok, unknown atomic.Int32
		together(200, func(int) {
			switch a := s.redeem(s.redeemRequest(r, 1)); a.Result {
			case ticket.RedeemOK:
				ok.Add(1)
			case ticket.RedeemUnknown:
				unknown.Add(1)
			}
		})
		if ok.Load() != 1 || unknown.Load() != 199 {
			s.Fatalf("200 redemptions of one ticket: %d ok, %d unknown", ok.Load(), unknown.Load())
		}
		s.wantUsed(r.Subject, 1)
	}
}

func issueRace(s *suite) {
	const limit = 7
	u := s.subject()
	var ok, full atomic.Int32
	together(200, func(int) {
		r := s.fresh(u)
		r.Limit = limit
		a, err := s.Store.Issue(s.Context(), r)
		switch {
		case err != nil:
			s.Errorf("issue: %v", err)
		case a.Result == ticket.IssueOK:
			ok.Add(1)
		case a.Result == ticket.IssueFull && a.Used == limit:
			full.Add(1)
		}
	})
	if ok.Load() != limit || full.Load() != 200-limit {
		s.Fatalf("200 issues at a limit of %d: %d ok, %d full", limit, ok.Load(), full.Load())
	}
	s.wantUsed(u, limit)
}

// together runs f on n goroutines that start at one moment.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

func limitCounts(s *suite) {
	u := s.subject()
	first := s.issued(s.fresh(u))
	s.wantRedeem(s.redeemRequest(first, 1), ticket.RedeemOK)
	s.wantIssue(s.fresh(u), ticket.IssueOK, 2)
	s.assert(u, 0xb2, 1, 1) // another node's socket
	s.wantIssue(s.fresh(u), ticket.IssueFull, 3)
	s.assert(u, node, 0, s.seq.Add(1)) // the socket closes
	s.wantIssue(s.fresh(u), ticket.IssueOK, 3)
	s.wantIssue(s.fresh(u), ticket.IssueFull, 3)
	lower := s.fresh(u)
	lower.Limit = 1 // a reload lowered it: nobody is cut, nobody is let in
	s.wantIssue(lower, ticket.IssueFull, 3)
	zero := s.fresh(s.subject())
	zero.Limit = 0
	s.wantIssue(zero, ticket.IssueFull, 0)
}

func outstanding(s *suite) {
	u := s.subject()
	var rs []*ticket.IssueRequest
	for range 2 {
		r := s.fresh(u)
		r.Limit, r.Outstanding = 10, 2
		rs = append(rs, s.issued(r))
	}
	third := s.fresh(u)
	third.Limit, third.Outstanding = 10, 2
	s.wantIssue(third, ticket.IssueOutstanding, 2)
	s.wantRedeem(s.redeemRequest(rs[0], 1), ticket.RedeemOK) // a held slot is not outstanding
	s.wantIssue(third, ticket.IssueOK, 3)
	full := s.fresh(u)
	full.Limit, full.Outstanding = 3, 2
	s.wantIssue(full, ticket.IssueFull, 3) // both apply: the connections limit is the one that lasts
	if a := s.issue(full); a.Reserved != 2 {
		s.Errorf("full: %+v, want 2 of the slots reserved", a)
	}
}

func noLimit(s *suite) {
	u := s.subject()
	s.assert(u, 0xb2, 4_000_000_000, 1)
	r := s.fresh(u)
	r.Limit = ticket.NoLimit
	s.wantIssue(r, ticket.IssueOK, 4_000_000_001)
	r = s.fresh(u)
	r.Limit = ticket.NoLimit - 1
	s.wantIssue(r, ticket.IssueOK, 4_000_000_002)
}

func duplicate(s *suite) {
	r := s.issued(s.fresh(s.subject()))
	again := *r
	again.Secret[0] ^= 1
	s.wantIssue(&again, ticket.IssueDuplicate, 1)
	s.wantRedeem(s.redeemRequest(r, 1), ticket.RedeemOK)
}

func epochMismatch(s *suite) {
	r := s.fresh(s.subject())
	r.Epoch++
	s.wantIssue(r, ticket.IssueEpoch, 0)
	s.wantUsed(r.Subject, 0)
	r.Epoch = 0
	s.wantIssue(r, ticket.IssueEpoch, 0)
	r.Epoch = s.epoch
	s.issued(r)
	q := s.redeemRequest(r, 1)
	q.Epoch++
	s.wantRedeem(q, ticket.RedeemEpoch)
	s.wantUsed(r.Subject, 1)
	s.wantRedeem(s.redeemRequest(r, 1), ticket.RedeemOK) // it was not spent
}

func expiry(s *suite) {
	u := s.subject()
	brief := s.fresh(u)
	brief.Life, brief.Limit = short, 2
	s.issued(brief)
	stays := s.fresh(u)
	stays.Limit = 2
	s.issued(stays)
	s.Advance(s, past)
	s.wantUsed(u, 1)
	next := s.fresh(u)
	next.Limit = 2
	s.wantIssue(next, ticket.IssueOK, 2)
	s.wantRedeem(s.redeemRequest(brief, 1), ticket.RedeemUnknown)
	s.wantRedeem(s.redeemRequest(stays, 1), ticket.RedeemOK)
	s.wantUsed(u, 2)
	if ok, err := s.Store.Revoke(s.Context(), &ticket.RevokeRequest{Ticket: brief.Ticket, Subject: u, Owner: brief.Owner}); ok || err != nil {
		s.Fatalf("revoke of an expired ticket: %v, %v", ok, err)
	}
}

func assertOrder(s *suite) {
	u := s.subject()
	const big = 1<<53 + 1 // beyond what Lua's numbers tell apart
	for _, c := range []struct {
		count  uint32
		number uint64
		want   uint32
	}{
		{2, 5, 2},
		{7, 4, 2}, // late
		{7, 5, 2}, // repeated with another count
		{2, 5, 2}, // repeated
		{9, 6, 9},
		{0, 10, 0}, // 10 after 6: compared as numbers
		{3, 9, 0},  // late, after a zero
		{4, 1 << 40, 4},
		{5, big, 5},
		{6, big - 1, 5},
		{6, big + 1, 6},
		{1, 1<<64 - 1, 1},
		{2, 1<<64 - 2, 1},
	} {
		s.assert(u, node, c.count, c.number)
		s.wantUsed(u, c.want)
	}
	s.assert(u, 0xb2, 8, 1) // each incarnation has its own numbers
	s.wantUsed(u, 9)
	s.Store.Assert(s.Context(), nil, nil)
}

func assertRace(s *suite) {
	u := s.subject()
	together(100, func(i int) {
		h := ticket.Held{Subject: u, Incarnation: node, Count: uint32(1000 + i), Number: uint64(i + 1)}
		s.assertHeld(h, h)
	})
	s.wantUsed(u, 1099)
}

// lateAssert: an assert computed before a redemption and executed after it must not hide the new socket.
func lateAssert(s *suite) {
	u := s.subject()
	r := s.issued(s.fresh(u))
	late := ticket.Held{Subject: u, Incarnation: node, Count: 0, Number: s.seq.Add(1)}
	s.wantRedeem(s.redeemRequest(r, 1), ticket.RedeemOK)
	s.assertHeld(late)
	s.wantUsed(u, 1)

	// The other way round: the redemption's own reading is the older one. The ticket is spent all the same.
	r = s.issued(s.fresh(u))
	q := s.redeemRequest(r, 9)
	s.assert(u, node, 2, s.seq.Add(1))
	s.wantRedeem(q, ticket.RedeemOK)
	s.wantUsed(u, 2)
}

func revoke(s *suite) {
	r := s.issued(s.fresh(s.subject()))
	for _, c := range []struct {
		name string
		q    ticket.RevokeRequest
		want bool
	}{
		{"another owner", ticket.RevokeRequest{Ticket: r.Ticket, Subject: r.Subject, Owner: "key-2"}, false},
		{"no owner", ticket.RevokeRequest{Ticket: r.Ticket, Subject: r.Subject}, false},
		{"another tag", ticket.RevokeRequest{Ticket: r.Ticket, Subject: r.Subject ^ 1, Owner: r.Owner}, false},
		{"another subject of the tag", ticket.RevokeRequest{Ticket: r.Ticket, Subject: r.Subject ^ 1<<40, Owner: r.Owner}, false},
		{"another ticket", ticket.RevokeRequest{Ticket: ticket.Hash{1}, Subject: r.Subject, Owner: r.Owner}, false},
		{"the owner", ticket.RevokeRequest{Ticket: r.Ticket, Subject: r.Subject, Owner: r.Owner}, true},
		{"again", ticket.RevokeRequest{Ticket: r.Ticket, Subject: r.Subject, Owner: r.Owner}, false},
	} {
		if got, err := s.Store.Revoke(s.Context(), &c.q); err != nil || got != c.want {
			s.Fatalf("revoke by %s: %v, %v, want %v", c.name, got, err, c.want)
		}
	}
	s.wantUsed(r.Subject, 0)
	s.wantRedeem(s.redeemRequest(r, 1), ticket.RedeemUnknown)

	spent := s.issued(s.fresh(r.Subject))
	s.wantRedeem(s.redeemRequest(spent, 1), ticket.RedeemOK)
	if got, err := s.Store.Revoke(s.Context(), &ticket.RevokeRequest{Ticket: spent.Ticket, Subject: r.Subject, Owner: r.Owner}); err != nil || got {
		s.Fatalf("revoke of a spent ticket: %v, %v", got, err)
	}
	s.wantUsed(r.Subject, 1)
}

func revokeRace(s *suite) {
	for range 20 {
		r := s.issued(s.fresh(s.subject()))
		var won atomic.Int32
		together(20, func(i int) {
			if i%2 == 0 {
				if s.redeem(s.redeemRequest(r, 1)).Result == ticket.RedeemOK {
					won.Add(1)
				}
				return
			}
			ok, err := s.Store.Revoke(s.Context(), &ticket.RevokeRequest{Ticket: r.Ticket, Subject: r.Subject, Owner: r.Owner})
			if err != nil {
				s.Errorf("revoke: %v", err)
			}
			if ok {
				won.Add(1)
			}
		})
		if won.Load() != 1 {
			s.Fatalf("a ticket was redeemed or revoked %d times, want once", won.Load())
		}
	}
}

func deadIncarnations(s *suite) {
	const gone, living ticket.Incarnation = 0xd1, 0xb2
	u := s.subject()
	s.assert(u, gone, 2, 1)
	s.assert(u, living, 1, 1)
	s.wantUsed(u, 3)
	s.wantUsed(u, 1, gone)
	s.wantUsed(u, 3) // asking changes nothing
	s.wantIssue(s.fresh(u), ticket.IssueFull, 3)
	r := s.fresh(u)
	r.Dead = []ticket.Incarnation{0xd0, gone}
	s.wantIssue(r, ticket.IssueOK, 2)
	s.wantUsed(u, 2) // the rows are gone for everyone
	many := s.fresh(s.subject())
	s.assert(many.Subject, gone, 3, 1)
	for i := range 9000 { // more than Lua's unpack takes at once
		many.Dead = append(many.Dead, ticket.Incarnation(0x10000+i))
	}
	many.Dead = append(many.Dead, gone)
	s.wantIssue(many, ticket.IssueOK, 1)
}

func subjectsApart(s *suite) {
	a := s.subject()
	b := a ^ 1<<50 // the same tag
	r := s.fresh(a)
	r.Limit = 1
	s.issued(r)
	s.wantUsed(b, 0)
	r = s.fresh(b)
	r.Limit = 1
	s.wantIssue(r, ticket.IssueOK, 1)
	s.assert(a, node, 5, s.seq.Add(1))
	s.wantUsed(a, 6)
	s.wantUsed(b, 1)
}

func grantBytes(s *suite) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, grant := range [][]byte{{}, {0}, []byte("\r\n$-1\r\n"), all, bytes.Repeat(all, 64)} {
		r := s.fresh(s.subject())
		r.Grant = grant
		r.Owner = string(all)
		s.issued(r)
		a := s.redeem(s.redeemRequest(r, 1))
		if a.Result != ticket.RedeemOK || !bytes.Equal(a.Grant, grant) {
			s.Fatalf("grant of %d bytes came back as %d bytes, result %d", len(grant), len(a.Grant), a.Result)
		}
	}
}

// callersMemory: what the caller passed is the caller's again after the call, and a grant is the caller's for good.
func callersMemory(s *suite) {
	r := s.fresh(s.subject())
	r.Grant = []byte("first")
	s.issued(r)
	copy(r.Grant, "XXXXX")
	a := s.redeem(s.redeemRequest(r, 1))
	if string(a.Grant) != "first" {
		s.Fatalf("the grant changed with the caller's buffer: %q", a.Grant)
	}
	b := s.issued(s.fresh(r.Subject))
	copy(a.Grant, "YYYYY")
	if got := s.redeem(s.redeemRequest(b, 2)); string(got.Grant) != "grant" {
		s.Fatalf("a grant changed with another caller's: %q", got.Grant)
	}
}

func closed(s *suite) {
	r := s.issued(s.fresh(s.subject()))
	for range 2 {
		if err := s.Store.Close(); err != nil {
			s.Fatalf("close: %v", err)
		}
	}
	ctx := context.Background()
	for name, call := range map[string]func() error{
		"issue": func() error { _, err := s.Store.Issue(ctx, s.fresh(r.Subject)); return err },
		"ask":   func() error { _, err := s.Store.Ask(ctx, 0); return err },
		"revoke": func() error {
			_, err := s.Store.Revoke(ctx, &ticket.RevokeRequest{Ticket: r.Ticket, Subject: r.Subject, Owner: r.Owner})
			return err
		},
		"used": func() error { _, err := s.Store.Used(ctx, r.Subject, nil); return err },
		"renew": func() error {
			_, err := s.Store.Renew(ctx, &ticket.RenewRequest{Incarnation: node, Lease: long})
			return err
		},
	} {
		if err := call(); !errors.Is(err, ticket.ErrUnavailable) {
			s.Errorf("%s after close: %v", name, err)
		}
	}
	if a := s.redeem(s.redeemRequest(r, 1)); !reflect.DeepEqual(a, ticket.RedeemAnswer{Result: ticket.RedeemUnsent}) {
		s.Errorf("redeem after close: %+v", a)
	}
	as := []ticket.AssertAnswer{{OK: true}}
	s.Store.Assert(ctx, []ticket.Assertion{{Held: ticket.Held{Subject: r.Subject, Number: 1}, Epoch: s.epoch}}, as)
	if as[0] != (ticket.AssertAnswer{}) {
		s.Errorf("assert after close: %+v", as[0])
	}
}
