package memory_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/store/memory"
	"ticketgate/ticket"
)

const me ticket.Incarnation = 0xa1

// numbered is the i-th ticket of subject u.
func numbered(i uint64, u ticket.Subject, epoch ticket.Epoch) *ticket.IssueRequest {
	r := &ticket.IssueRequest{Subject: u, Limit: ticket.NoLimit, Outstanding: 1 << 30, Life: 30 * time.Second, Owner: "key-1", Grant: []byte("grant"), Epoch: epoch}
	binary.LittleEndian.PutUint64(r.Ticket[:], i)
	return r
}

func epochOf(t testing.TB, s *memory.Store) ticket.Epoch {
	t.Helper()
	seen, err := s.Ask(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return seen.Epoch
}

func issue(t testing.TB, s *memory.Store, r *ticket.IssueRequest) {
	t.Helper()
	if a, err := s.Issue(context.Background(), r); err != nil || a.Result != ticket.IssueOK {
		t.Fatalf("issue: %+v, %v", a, err)
	}
}

func TestRoomForTickets(t *testing.T) {
	s, clock := open(t, 3)
	epoch := epochOf(t, s)
	for i := range uint64(3) {
		issue(t, s, numbered(i, ticket.Subject(i), epoch))
	}
	if _, err := s.Issue(context.Background(), numbered(9, 9, epoch)); !errors.Is(err, ticket.ErrUnavailable) {
		t.Fatalf("a fourth ticket: %v", err)
	}
	if used, err := s.Used(context.Background(), 9, nil); err != nil || used != 0 {
		t.Fatalf("the refused one holds %d slots, %v", used, err)
	}
	for range 2 { // only the first time it is there
		q := []ticket.RedeemRequest{{Ticket: numbered(0, 0, epoch).Ticket, Epoch: epoch, Held: ticket.Held{Incarnation: me, Number: 1}}}
		s.Redeem(context.Background(), q, make([]ticket.RedeemAnswer, 1))
	}
	issue(t, s, numbered(3, 3, epoch))
	if _, err := s.Issue(context.Background(), numbered(9, 9, epoch)); !errors.Is(err, ticket.ErrUnavailable) {
		t.Fatalf("a spent ticket has made room for more than one: %v", err)
	}
	clock.Advance(30 * time.Second)
	for i := range uint64(4) { // their own stripes notice that the old ones have expired
		if _, err := s.Used(context.Background(), ticket.Subject(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint64(3) {
		issue(t, s, numbered(10+i, ticket.Subject(i), epoch))
	}
}

// TestSubjectsOfOneTag: a ticket is not redeemed for another subject, even of the same stripe.
func TestSubjectsOfOneTag(t *testing.T) {
	s, _ := open(t, 0)
	epoch := epochOf(t, s)
	as := make([]ticket.RedeemAnswer, 1)
	for other := range ticket.Subject(200) { // some share the stripe of 1
		r := numbered(uint64(other), 1, epoch)
		issue(t, s, r)
		q := ticket.RedeemRequest{Ticket: r.Ticket, Epoch: epoch, Held: ticket.Held{Subject: other, Incarnation: me, Number: 1}}
		s.Redeem(context.Background(), []ticket.RedeemRequest{q}, as)
		if (as[0].Result == ticket.RedeemOK) != (other == 1) {
			t.Fatalf("a ticket of subject 1 redeemed for %d: %d", other, as[0].Result)
		}
	}
}

// TestNothingIsLeftBehind: the second 20,000 tickets of new clients fit into the rows of the first, and all rows are given
// back.
func TestNothingIsLeftBehind(t *testing.T) {
	s, clock := open(t, 0)
	epoch := epochOf(t, s)
	as := make([]ticket.RedeemAnswer, 1)
	n := uint64(0)
	round := func(count uint64) {
		for range count {
			n++
			r := numbered(n, ticket.Subject(n), epoch)
			issue(t, s, r)
			switch n % 3 {
			case 0: // opened and closed
				s.Redeem(context.Background(), []ticket.RedeemRequest{{Ticket: r.Ticket, Epoch: epoch, Held: ticket.Held{Subject: r.Subject, Incarnation: me, Count: 1, Number: 1}}}, as)
				aa := make([]ticket.AssertAnswer, 1)
				s.Assert(context.Background(), []ticket.Assertion{{Held: ticket.Held{Subject: r.Subject, Incarnation: me, Number: 2}, Epoch: epoch}}, aa)
				if !aa[0].OK {
					t.Fatal("assert refused")
				}
			case 1: // wrong secret
				s.Redeem(context.Background(), []ticket.RedeemRequest{{Ticket: r.Ticket, Secret: ticket.SecretHash{1}, Epoch: epoch, Held: ticket.Held{Subject: r.Subject, Incarnation: me, Count: 1, Number: 1}}}, as)
			}
		}
		for range 2 { // tickets expire, then their accounts
			clock.Advance(2 * time.Minute)
			for i := range uint64(1000) { // touch all stripes
				if _, err := s.Used(context.Background(), ticket.Subject(i), nil); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	round(20_000)
	first := s.Use()
	round(20_000)
	second := s.Use()
	if want := (memory.Use{Made: second.Made}); second != want || second.Made > first.Made+1000 { // stripes differ a little
		t.Errorf("after 20,000 tickets %+v, after 20,000 more %+v", first, second)
	}
}

// TestFrequentClients do not keep what those leave who came once and stand behind them.
func TestFrequentClients(t *testing.T) {
	s, clock := open(t, 0)
	epoch := epochOf(t, s)
	const frequent, once = 1000, 20_000 // some of each in every stripe
	n := uint64(0)
	comes := func(u ticket.Subject) {
		n++
		r := numbered(n, u, epoch)
		issue(t, s, r)
		q := ticket.RedeemRequest{Ticket: r.Ticket, Secret: ticket.SecretHash{1}, Epoch: epoch, Held: ticket.Held{Subject: u, Incarnation: me, Count: 1, Number: n}}
		s.Redeem(context.Background(), []ticket.RedeemRequest{q}, make([]ticket.RedeemAnswer, 1)) // of no effect but that it is gone
	}
	for u := range ticket.Subject(frequent + once) {
		comes(u)
	}
	for range 40 {
		clock.Advance(20 * time.Second)
		for u := range ticket.Subject(frequent) {
			comes(u)
		}
	}
	if u := s.Use(); u.Accounts > frequent {
		t.Errorf("%d accounts are kept for %d clients", u.Accounts, frequent)
	}
}

// TestSizes pins what docs/memory.md tells.
func TestSizes(t *testing.T) {
	for name, c := range map[string]struct{ got, want uintptr }{
		"ticket": {memory.RecordSize, 96}, "block of a grant": {memory.BlockSize, 64},
		"account": {memory.AccountSize, 48}, "further incarnation": {memory.HeldSize, 24},
	} {
		if c.got != c.want {
			t.Errorf("a %s has %d bytes, want %d", name, c.got, c.want)
		}
	}
}

// TestUse is what a subject and its tickets hold, step by step.
func TestUse(t *testing.T) {
	s, _ := open(t, 0)
	epoch := epochOf(t, s)
	var made []*ticket.IssueRequest
	step := func(what string, want memory.Use) {
		t.Helper()
		got := s.Use()
		if got.Made = 0; got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	for i, grant := range []int{0, 1, 60, 61} {
		r := numbered(uint64(i), 7, epoch)
		r.Grant = make([]byte, grant)
		issue(t, s, r)
		made = append(made, r)
	}
	step("four tickets", memory.Use{Tickets: 4, Blocks: 4, Accounts: 1})
	hold := func(r *ticket.IssueRequest, i ticket.Incarnation) ticket.RedeemResult {
		q := []ticket.RedeemRequest{{Ticket: r.Ticket, Epoch: epoch, Held: ticket.Held{Subject: 7, Incarnation: i, Count: 1, Number: 1}}}
		as := make([]ticket.RedeemAnswer, 1)
		s.Redeem(context.Background(), q, as)
		return as[0].Result
	}
	hold(made[3], 1)
	step("one is a socket", memory.Use{Tickets: 3, Blocks: 2, Accounts: 1})
	hold(made[2], 2)
	hold(made[1], 3)
	step("three are, of three lives of the node", memory.Use{Tickets: 1, Accounts: 1, Held: 2})
	if got := hold(made[1], 4); got != ticket.RedeemUnknown {
		t.Errorf("a spent one: %d", got)
	}
	r := numbered(9, 7, epoch)
	r.Dead = []ticket.Incarnation{1, 2}
	issue(t, s, r)
	step("two of them are over", memory.Use{Tickets: 2, Blocks: 1, Accounts: 1, Held: 1})
	if used, err := s.Used(context.Background(), 7, nil); err != nil || used != 3 {
		t.Errorf("%d slots used, %v; want two tickets and a socket", used, err)
	}
}

// TestUseOfReservation: what outlives a ticket has no grant, and goes when it ends, is asserted or asked for.
func TestUseOfReservation(t *testing.T) {
	s, clock := open(t, 4)
	epoch := epochOf(t, s)
	var made []*ticket.IssueRequest
	for i := range uint64(4) {
		r := numbered(i, 7, epoch)
		r.Grant, r.Reserve = make([]byte, 100), time.Duration(2+i)*time.Minute
		issue(t, s, r)
		made = append(made, r)
	}
	step := func(what string, want memory.Use) {
		t.Helper()
		if _, err := s.Used(context.Background(), 7, nil); err != nil { // its stripe notices the time
			t.Fatal(err)
		}
		got := s.Use()
		if got.Made = 0; got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	step("four tickets", memory.Use{Tickets: 4, Blocks: 8, Accounts: 1})
	clock.Advance(time.Minute)
	step("expired", memory.Use{Tickets: 4, Accounts: 1})
	if _, err := s.Issue(context.Background(), numbered(9, 7, epoch)); !errors.Is(err, ticket.ErrUnavailable) {
		t.Errorf("room for a fifth: %v", err)
	}
	s.Assert(context.Background(), []ticket.Assertion{{Held: ticket.Held{Subject: 7, Incarnation: me, Count: 1, Number: 1}, Epoch: epoch,
		Spent: []ticket.Hash{made[3].Ticket}}}, make([]ticket.AssertAnswer, 1))
	step("one is a socket", memory.Use{Tickets: 3, Accounts: 1})
	s.Redeem(context.Background(), []ticket.RedeemRequest{{Ticket: made[2].Ticket, Epoch: epoch, Held: ticket.Held{Subject: 7, Incarnation: me, Number: 2}}},
		make([]ticket.RedeemAnswer, 1))
	step("one came too late", memory.Use{Tickets: 2, Accounts: 1})
	clock.Advance(time.Minute)
	step("one has ended", memory.Use{Tickets: 1, Accounts: 1})
	clock.Advance(time.Minute)
	step("all have", memory.Use{Accounts: 1})
	for i := range uint64(4) {
		issue(t, s, numbered(10+i, 7, epoch))
	}
}

// TestClockDoesNotStep: the store's time follows the monotonic clock, whatever is done to the wall clock.
func TestClockDoesNotStep(t *testing.T) {
	s, clock := open(t, 0)
	number := uint64(0)
	at := func() time.Time {
		number++
		v, err := s.Renew(context.Background(), &ticket.RenewRequest{Incarnation: me, Lease: time.Hour, Number: number, Enter: true})
		if err != nil {
			t.Fatal(err)
		}
		return v.Time
	}
	before := at()
	clock.StepWall(-time.Hour)
	clock.Advance(time.Second)
	if d := at().Sub(before); d != time.Second {
		t.Errorf("the clock went %v in 1 s", d)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := memory.New(memory.Options{Clock: mono.System, Rand: strings.NewReader("abc")}); err == nil {
		t.Error("made without a random epoch")
	}
	if _, err := memory.New(memory.Options{Clock: mono.System, Rand: strings.NewReader("abcd"), Tickets: -1}); err == nil {
		t.Error("made with room for -1 tickets")
	}
	s, err := memory.New(memory.Options{Clock: mono.System, Rand: strings.NewReader("\x00\x00\x00\x00")})
	if err != nil {
		t.Fatal(err)
	}
	if epochOf(t, s) == 0 {
		t.Error("epoch 0 means not known")
	}
}

// TestAllocations: a ticket costs the heap what is given back of its grant.
func TestAllocations(t *testing.T) {
	s, clock := open(t, 0)
	epoch, i := epochOf(t, s), uint64(0)
	r := numbered(0, 7, epoch)
	q, as := make([]ticket.RedeemRequest, 1), make([]ticket.RedeemAnswer, 1)
	n := testing.AllocsPerRun(5000, func() {
		i++
		binary.LittleEndian.PutUint64(r.Ticket[:], i)
		if a, err := s.Issue(context.Background(), r); err != nil || a.Result != ticket.IssueOK {
			t.Fatalf("issue: %+v, %v", a, err)
		}
		q[0] = ticket.RedeemRequest{Ticket: r.Ticket, Epoch: epoch, Held: ticket.Held{Subject: 7, Incarnation: me, Count: 1, Number: i}}
		s.Redeem(context.Background(), q, as)
		if as[0].Result != ticket.RedeemOK {
			t.Fatalf("redeem: %d", as[0].Result)
		}
		clock.Advance(10 * time.Second) // at most 3 tickets live
	})
	if n != 1 {
		t.Errorf("%v allocations for a ticket's life, want 1", n)
	}
}

func benchmarkStore(b *testing.B) (*memory.Store, ticket.Epoch) {
	s, err := memory.New(memory.Options{Clock: mono.System, Rand: strings.NewReader("abcd"), Tickets: 1 << 23})
	if err != nil {
		b.Fatal(err)
	}
	return s, epochOf(b, s)
}

// BenchmarkIssueRedeem is a ticket's whole life, over 100,000 clients. Tickets expire after 100 ms, so that the sweep is in.
func BenchmarkIssueRedeem(b *testing.B) {
	s, epoch := benchmarkStore(b)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		i := rand.Uint64()
		q, as := make([]ticket.RedeemRequest, 1), make([]ticket.RedeemAnswer, 1)
		r := numbered(i, 0, epoch)
		r.Life = 100 * time.Millisecond
		for p.Next() {
			i++
			binary.LittleEndian.PutUint64(r.Ticket[:], i)
			r.Subject = ticket.Subject(i % 100_000)
			if a, err := s.Issue(context.Background(), r); err != nil || a.Result != ticket.IssueOK {
				b.Errorf("issue: %+v, %v", a, err)
				return
			}
			q[0] = ticket.RedeemRequest{Ticket: r.Ticket, Epoch: epoch, Held: ticket.Held{Subject: r.Subject, Incarnation: me, Count: 1, Number: i}}
			s.Redeem(context.Background(), q, as)
		}
	})
}

// BenchmarkReplay is the attack: a spent ticket again and again.
func BenchmarkReplay(b *testing.B) {
	s, epoch := benchmarkStore(b)
	r := numbered(1, 1, epoch)
	r.Life = time.Hour
	issue(b, s, r)
	q := []ticket.RedeemRequest{{Ticket: r.Ticket, Epoch: epoch, Held: ticket.Held{Subject: 1, Incarnation: me, Count: 1, Number: 1}}}
	as := make([]ticket.RedeemAnswer, 1)
	b.ReportAllocs()
	for b.Loop() {
		s.Redeem(context.Background(), q, as)
	}
}
