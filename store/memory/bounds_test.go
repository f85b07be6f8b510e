package memory_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
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
	v, err := s.Renew(context.Background(), &ticket.RenewRequest{Incarnation: me, Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return v.Epoch
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
	q := []ticket.RedeemRequest{{Ticket: numbered(0, 0, epoch).Ticket, Epoch: epoch, Held: ticket.Held{Incarnation: me, Number: 1}}}
	s.Redeem(context.Background(), q, make([]ticket.RedeemAnswer, 1))
	if _, err := s.Issue(context.Background(), numbered(9, 9, epoch)); !errors.Is(err, ticket.ErrUnavailable) {
		t.Fatalf("a fourth ticket: %v", err)
	}
	if used, err := s.Used(context.Background(), 9, nil); err != nil || used != 0 {
		t.Fatalf("the refused one holds %d slots, %v", used, err)
	}
	clock.Advance(30 * time.Second)
	for i := range uint64(3) { // their own stripes notice that the old ones have expired
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

// TestNothingIsLeftBehind: the second and third 20,000 tickets of new clients fit into the memory of the first.
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
				if err := s.Assert(context.Background(), []ticket.Held{{Subject: r.Subject, Incarnation: me, Number: 2}}); err != nil {
					t.Fatal(err)
				}
			case 1: // wrong secret
				s.Redeem(context.Background(), []ticket.RedeemRequest{{Ticket: r.Ticket, Secret: ticket.SecretHash{1}, Epoch: epoch, Held: ticket.Held{Subject: r.Subject, Incarnation: me, Count: 1, Number: 1}}}, as)
			}
		}
		clock.Advance(3 * time.Minute)
		for i := range uint64(1000) { // touch all stripes
			if _, err := s.Used(context.Background(), ticket.Subject(i), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	round(20_000)
	round(20_000) // tables of the maps settle
	before := heap()
	round(20_000)
	if grown := int64(heap()) - int64(before); grown > 1<<20 { // left behind, they would be 5 MB
		t.Errorf("the heap grew by %d bytes over 20,000 tickets", grown)
	}
	runtime.KeepAlive(s)
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestClockDoesNotStep: the store's time follows the monotonic clock, whatever is done to the wall clock.
func TestClockDoesNotStep(t *testing.T) {
	s, clock := open(t, 0)
	at := func() time.Time {
		v, err := s.Renew(context.Background(), &ticket.RenewRequest{Incarnation: me, Lease: time.Hour})
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

// TestAllocations: a ticket costs its grant, and what the maps grow by; spending it costs nothing.
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
	s, err := memory.New(memory.Options{Clock: mono.System, Rand: strings.NewReader("abcd"), Tickets: 1 << 30})
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
