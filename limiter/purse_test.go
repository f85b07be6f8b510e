package limiter_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/limiter"
	"ticketgate/store/memory"
	"ticketgate/ticket"
)

// A counter is a bank between purses and the true one, which counts what passes, and can lose calls and answers.
type counter struct {
	bank      *memory.Bank
	down      atomic.Bool // nothing arrives
	deaf      atomic.Bool // what arrives is done, and the answer is lost
	mu        sync.Mutex
	given     int64
	back      int64
	spent     int64
	lost      int64 // given back to nobody
	mostWant  int64
	delivered int64 // given in answers that arrived
}

func (c *counter) Lease(ctx context.Context, asks []limiter.Ask, answers []limiter.Grant) error {
	if c.down.Load() {
		for i := range asks {
			c.lost += asks[i].Back
		}
		return errors.New("down")
	}
	err := c.bank.Lease(ctx, asks, answers)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range asks {
		c.given += answers[i].Given
		c.back += asks[i].Back
		c.spent += asks[i].Spent
		c.mostWant = max(c.mostWant, asks[i].Want)
		if !c.deaf.Load() {
			c.delivered += answers[i].Given
		}
	}
	if c.deaf.Load() {
		return errors.New("the answer is lost")
	}
	return err
}

// subjectOf is a keyed hash for tests.
func subjectOf(kind, name string) ticket.Subject {
	h := uint64(14695981039346656037)
	for _, s := range []string{kind, "\x00", name} {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
	}
	return ticket.Subject(h)
}

// A member is a node of a cluster: its table, purses and one socket of the client ann.
type member struct {
	*session
	purses   *limiter.Purses
	counter  *counter
	admitted int64
	clk      *mono.Manual
}

// newMember joins a node to bank.
func newMember(t testing.TB, p *limiter.Plan, bank *memory.Bank, clk *mono.Manual, name string) *member {
	t.Helper()
	m := &member{counter: &counter{bank: bank}, clk: clk}
	m.purses = limiter.NewPurses(m.counter, 16, subjectOf, clk)
	tb := limiter.NewTable(16, 1, clk)
	tb.Lend(m.purses)
	m.session = &session{plan: p, tb: tb, ds: make([]limiter.Decisions, len(p.Limits()))}
	if err := p.Bind(&m.row, tb, limiter.Who{Client: "ann", Key: "k", Node: name}); err != nil {
		t.Fatal(err)
	}
	m.purses.Tell(t.Context())
	return m
}

// send sends one message of n bytes, asking the bank as often as it waits for it, and reports whether it went on.
func (m *member) send(t testing.TB, n int64) limiter.Verdict {
	t.Helper()
	for range 20 {
		v := m.message(limiter.In, true, n, m.clk.Now())
		if v.Action == limiter.Hold && v.Asked() {
			m.purses.Tell(t.Context())
			continue
		}
		if v.Action < limiter.Delay {
			m.admitted += n
		}
		m.purses.Tell(t.Context())
		return v
	}
	t.Fatal("a message waits for ever")
	return limiter.Verdict{}
}

// TestClusterNeverAdmitsMore: four nodes, any order of messages, rests, clock steps and lost answers. What all have admitted never
// passes burst + rate*t, no purse holds more than a batch, and what is given back was leased before and not spent.
func TestClusterNeverAdmitsMore(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 30))
		clk := mono.NewManual(time.Unix(1_800_000_000, 0))
		bank := memory.NewBank(clk, 0)
		p := plan(t, "messages-in: { rate: 20/1second, burst: 40, per: client, scope: cluster, when_exceeded: drop-newest, store_down: deny }")
		var nodes []*member
		for i := range 4 {
			nodes = append(nodes, newMember(t, p, bank, clk, fmt.Sprint("gw-", i)))
		}
		begun := clk.Now()
		for step := range 3000 {
			m := nodes[rnd.IntN(4)]
			switch rnd.IntN(40) {
			case 0:
				m.counter.deaf.Store(rnd.IntN(3) == 0)
			case 1:
				m.counter.down.Store(rnd.IntN(3) == 0)
			case 2:
				clk.Advance(time.Duration(rnd.IntN(3000)) * time.Millisecond)
			default:
				clk.Advance(time.Duration(rnd.IntN(8)) * time.Millisecond)
				m.send(t, 1)
			}
			for _, n := range nodes {
				n.purses.Tell(t.Context())
			}
			sum := int64(0)
			for i, n := range nodes {
				sum += n.admitted
				held := n.counter.delivered - n.counter.back - n.counter.lost - n.admitted
				if held < 0 || held > 4 {
					t.Fatalf("seed %d step %d: node %d holds %d tokens; a batch is 4", seed, step, i, held)
				}
				if n.counter.mostWant > 4 || n.counter.spent != 0 {
					t.Fatalf("seed %d: asked for %d, told of %d spent", seed, n.counter.mostWant, n.counter.spent)
				}
			}
			if most := 40 + 20*clk.Now().Sub(begun).Seconds(); float64(sum) > most+1e-6 {
				t.Fatalf("seed %d step %d: %d admitted, at most %.2f may be", seed, step, sum, most)
			}
		}
	}
}

// TestClusterAdmitsAll: the same cluster without trouble gets 95 % of it, and after a rest one burst.
func TestClusterAdmitsAll(t *testing.T) {
	clk := mono.NewManual(time.Unix(1_800_000_000, 0))
	bank := memory.NewBank(clk, 0)
	p := plan(t, "messages-in: { rate: 20/1second, burst: 40, per: client, scope: cluster, when_exceeded: drop-newest }")
	var nodes []*member
	for i := range 4 {
		nodes = append(nodes, newMember(t, p, bank, clk, fmt.Sprint("gw-", i)))
	}
	total := func() (sum int64) {
		for _, n := range nodes {
			sum += n.admitted
		}
		return sum
	}
	begun := clk.Now()
	for i := 0; clk.Now().Sub(begun) < time.Minute; i++ {
		nodes[i%4].send(t, 1)
		clk.Advance(5 * time.Millisecond)
	}
	if got := total(); got > 1240 || got < 1178 {
		t.Errorf("%d admitted in a minute, want 1240 less 5%%", got)
	}
	for range 12 {
		clk.Advance(500 * time.Millisecond)
		for _, n := range nodes {
			n.purses.Tell(t.Context())
		}
	}
	before := total()
	for i := range 400 {
		nodes[i%4].send(t, 1)
	}
	if got := total() - before; got != 40 {
		t.Errorf("after a rest %d at once, want one burst", got)
	}
}

// TestGivenBackOnce: what is idle goes back once, whatever becomes of the answer, and Settle returns all that is left.
func TestGivenBackOnce(t *testing.T) {
	for _, trouble := range []string{"none", "deaf", "down"} {
		clk := mono.NewManual(time.Unix(1_800_000_000, 0))
		bank := memory.NewBank(clk, 0)
		p := plan(t, "messages-in: { rate: 1/1hour, burst: 400, per: client, scope: cluster }")
		m := newMember(t, p, bank, clk, "gw-1")
		for range 10 {
			m.send(t, 1)
		}
		before := m.counter.given - m.counter.back - m.admitted
		if before <= 0 {
			t.Fatalf("%d tokens in the purse: nothing to give back", before)
		}
		m.counter.deaf.Store(trouble == "deaf")
		m.counter.down.Store(trouble == "down")
		for range 10 {
			clk.Advance(time.Second)
			m.purses.Tell(t.Context())
		}
		m.counter.deaf.Store(false)
		m.counter.down.Store(false)
		for range 10 {
			clk.Advance(time.Second)
			m.purses.Tell(t.Context())
		}
		m.purses.Settle(t.Context())
		left := m.counter.given - m.counter.back - m.admitted
		if want := map[string]int64{"none": 0, "deaf": 0, "down": before}[trouble]; left != want {
			t.Errorf("%s: %d tokens are neither spent nor given back, want %d", trouble, left, want)
		}
	}
}

// TestSettle: a node that stops gives back what it has leased, so that the next one finds it.
func TestSettle(t *testing.T) {
	clk := mono.NewManual(time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC))
	bank := memory.NewBank(clk, 0)
	for _, scope := range []string{"node", "cluster"} {
		p := plan(t, "x-"+scope+": { counts: messages-in, rate: 1000/1day, window: fixed, scope: "+scope+", per: client }")
		used := int64(0)
		for round := range 3 {
			m := newMember(t, p, bank, clk, "gw-1")
			for range 100 {
				m.send(t, 1)
			}
			used += m.admitted
			m.purses.Settle(t.Context())
			other := newMember(t, p, bank, clk, "gw-2")
			l := limitOf(t, p, "x-"+scope)
			g := [1]limiter.Grant{}
			s := limiter.Bucket(subjectOf, "free", l.Name, l.Per, "ann", l.Home("gw-1"))
			if err := bank.Lease(t.Context(), []limiter.Ask{{Bucket: s, Terms: l.Terms()}}, g[:]); err != nil {
				t.Fatal(err)
			}
			held := other.counter.given
			if scope == "node" {
				held = 0 // it has a quota of its own
			}
			if g[0].Remaining != 1000-used-held {
				t.Errorf("scope %s, life %d: %d remain of 1000, %d are used and %d leased", scope, round, g[0].Remaining, used, held)
			}
			other.purses.Settle(t.Context())
		}
	}
}

// TestBorderOfWindows: two nodes whose clocks run apart from the bank's by as much as an answer takes agree on which day it is: before
// midnight no more than the old quota, after it the new one, and no token of yesterday counts today.
func TestBorderOfWindows(t *testing.T) {
	clk := mono.NewManual(time.Date(2026, 11, 30, 23, 59, 50, 0, time.UTC))
	bank := memory.NewBank(clk, 0)
	p := plan(t, "messages-in: { rate: 100/1day, window: fixed, scope: cluster, per: client, when_exceeded: drop-newest }")
	nodes := []*member{newMember(t, p, bank, clk, "gw-1"), newMember(t, p, bank, clk, "gw-2")}
	days := map[string]int{}
	for step := range 4000 { // 20 s around midnight
		m := nodes[step%2]
		at := clk.Wall()
		if v := m.send(t, 1); v.Action == limiter.Pass {
			days[at.Format("Jan 2")]++
		} else if until := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC).Sub(at); until > 0 && (v.Wait > until+time.Microsecond || v.Wait < until-10*time.Millisecond) {
			t.Fatalf("at %v: wait %v, the day ends in %v", at, v.Wait, until)
		}
		clk.Advance(5 * time.Millisecond)
	}
	if days["Nov 30"] != 100 || days["Dec 1"] != 100 || len(days) != 2 {
		t.Errorf("admitted %v, want 100 on each day", days)
	}
}

// TestTokensOfYesterday: a purse that is full at midnight has nothing a moment later, and gives nothing back into the new day.
func TestTokensOfYesterday(t *testing.T) {
	clk := mono.NewManual(time.Date(2026, 11, 30, 23, 59, 59, 999_000_000, time.UTC))
	bank := memory.NewBank(clk, 0)
	p := plan(t, "messages-in: { rate: 10/1day, window: fixed, scope: cluster, per: client, when_exceeded: drop-newest }")
	m := newMember(t, p, bank, clk, "gw-1")
	m.send(t, 1)
	clk.Advance(2 * time.Millisecond)
	for range 12 {
		m.send(t, 1)
	}
	if m.admitted != 1+10 {
		t.Errorf("%d admitted on two days, want 1 and 10", m.admitted)
	}
}

// TestDownFixed: a quota while the bank is down: what was left when it was heard last, and from the next day on a whole one.
func TestDownFixed(t *testing.T) {
	clk := mono.NewManual(time.Date(2026, 11, 30, 23, 0, 0, 0, time.UTC))
	bank := memory.NewBank(clk, 0)
	p := plan(t, "messages-in: { rate: 100/1day, window: fixed, scope: cluster, per: client, when_exceeded: drop-newest }")
	m := newMember(t, p, bank, clk, "gw-1")
	for range 30 {
		m.send(t, 1)
	}
	m.counter.down.Store(true)
	for range 200 {
		m.send(t, 1)
	}
	if m.admitted != 100 {
		t.Errorf("%d admitted on the first day, want 100", m.admitted)
	}
	clk.Advance(time.Hour)
	for range 200 {
		m.send(t, 1)
	}
	if m.admitted != 200 {
		t.Errorf("%d admitted on two days, want 200", m.admitted)
	}
	m.counter.down.Store(false)
	clk.Advance(time.Second)
	m.send(t, 1)
	for range 5 {
		m.purses.Tell(t.Context())
	}
	if m.counter.spent == 0 {
		t.Error("the bank was not told what was spent without it")
	}
	if v := m.send(t, 1); v.Action != limiter.Drop || m.admitted != 200 {
		t.Errorf("when the bank is back: %s, %d admitted: the day's quota is used up", say(v), m.admitted)
	}
}

// TestPurseOfManyLoops: goroutines that share a purse, and the teller beside them, never admit more than the bank has given.
func TestPurseOfManyLoops(t *testing.T) {
	const burst, each = 5000, 4000
	clk := mono.NewManual(time.Unix(1_800_000_000, 0))
	bank := memory.NewBank(clk, 0)
	p := plan(t, "b: { counts: messages-in, rate: 5000/52week, window: fixed, per: client, when_exceeded: drop-newest }\n"+
		"c: { counts: bytes-in, rate: 1000000/1second, per: client, when_exceeded: drop-newest }")
	m := newMember(t, p, bank, clk, "gw-1")
	ctx, stop := context.WithCancel(t.Context())
	var teller, loops sync.WaitGroup
	teller.Go(func() { m.purses.Run(ctx, time.Second) })
	var passed atomic.Int64
	for range 4 {
		s := &session{plan: p, tb: m.tb, ds: make([]limiter.Decisions, len(p.Limits()))}
		if err := p.Bind(&s.row, m.tb, limiter.Who{Client: "ann", Node: "gw-1"}); err != nil {
			t.Fatal(err)
		}
		loops.Go(func() {
			var run limiter.Run
			for i := 0; i < each; {
				if i%7 == 0 && run.Begin(p, &s.row, m.tb, limiter.In, 3, 3, clk.Now()) {
					if run.Pass(true, 1) { // one of three; the others are given back
						passed.Add(1)
					}
					run.End(s.ds)
					i++
					continue
				}
				switch v := s.message(limiter.In, true, 1, clk.Now()); {
				case v.Action == limiter.Hold:
					continue
				case v.Action < limiter.Hold:
					passed.Add(1)
				}
				i++
			}
		})
	}
	loops.Wait()
	stop()
	teller.Wait()
	out := m.counter.given - m.counter.back
	if n := passed.Load(); n != out || n > burst {
		t.Errorf("%d went on, the bank has given %d for good of %d", n, out, burst)
	}
}

// TestPursesAreBounded: who finds no purse is refused; purses that say nothing any more make room.
func TestPursesAreBounded(t *testing.T) {
	clk := mono.NewManual(time.Unix(1_800_000_000, 0))
	p := plan(t, "messages-in: { rate: 1/1hour, burst: 100, per: client, scope: cluster }")
	purses := limiter.NewPurses(memory.NewBank(clk, 0), 2, subjectOf, clk)
	tb := limiter.NewTable(1, 1, clk)
	tb.Lend(purses)
	bind := func(client string) (*limiter.Row, error) {
		r := new(limiter.Row)
		return r, p.Bind(r, tb, limiter.Who{Client: client})
	}
	a, err := bind("a")
	b, err2 := bind("b")
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	if _, err := bind("c"); !errors.Is(err, limiter.ErrFull) {
		t.Errorf("a third of two: %v", err)
	}
	purses.Tell(t.Context())
	p.Message(a, tb, limiter.In, true, 1, clk.Now())
	p.Unbind(a, tb)
	p.Unbind(b, tb)
	for range 6 {
		clk.Advance(time.Second)
		purses.Tell(t.Context())
	}
	var s limiter.PursesStats
	if purses.Stats(&s); s.Held != 0 || s.Kept != 0 || s.Refused != 1 || s.Size != 2 || s.Down {
		t.Errorf("when all have gone: %+v", s)
	}
	for _, client := range []string{"c", "d"} {
		if _, err := bind(client); err != nil {
			t.Errorf("%s: %v", client, err)
		}
	}
}

// TestReconnectingGivesNothing: with the store down a client that comes again and again has the one bucket it had.
func TestReconnectingGivesNothing(t *testing.T) {
	clk := mono.NewManual(time.Unix(1_800_000_000, 0))
	bank := memory.NewBank(clk, 0)
	p := plan(t, "messages-in: { rate: 1/1hour, burst: 5, per: client, scope: cluster, when_exceeded: drop-newest }")
	m := newMember(t, p, bank, clk, "gw-1")
	p.Unbind(&m.row, m.tb)
	for range 4 { // its purse is gone
		clk.Advance(time.Second)
		m.purses.Tell(t.Context())
	}
	m.counter.down.Store(true)
	for range 10 {
		if err := p.Bind(&m.row, m.tb, limiter.Who{Client: "ann"}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			m.send(t, 1)
		}
		p.Unbind(&m.row, m.tb)
		for range 4 {
			clk.Advance(time.Second)
			m.purses.Tell(t.Context())
		}
	}
	if m.admitted != 5 {
		t.Errorf("%d admitted, want the burst of 5", m.admitted)
	}
}

func TestWindowStart(t *testing.T) {
	for _, c := range []struct{ at, per, want string }{
		{"2026-11-30T13:07:05Z", "1day", "2026-11-30T00:00:00Z"},
		{"2026-11-30T13:07:05Z", "1hour", "2026-11-30T13:00:00Z"},
		{"2026-11-30T13:07:05Z", "1minute", "2026-11-30T13:07:00Z"},
		{"2026-11-30T13:07:05Z", "12hour", "2026-11-30T12:00:00Z"},
		{"2026-11-30T13:07:05Z", "1week", "2026-11-30T00:00:00Z"}, // a Monday
		{"2026-11-29T23:59:59Z", "1week", "2026-11-23T00:00:00Z"},
		{"2026-11-30T00:00:00Z", "1week", "2026-11-30T00:00:00Z"},
		{"1969-12-31T23:00:00Z", "1day", "1969-12-31T00:00:00Z"},
		{"1970-01-01T00:00:00Z", "1week", "1969-12-29T00:00:00Z"},
		{"2024-02-29T12:00:00+14:00", "1day", "2024-02-28T00:00:00Z"}, // the calendar is UTC
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := limiter.WindowStart(at, rate(t, "1/"+c.per).Per).Format(time.RFC3339); got != c.want {
			t.Errorf("the %s of %s began at %s, want %s", c.per, c.at, got, c.want)
		}
	}
}

func TestLeasedMessageDoesNotAllocate(t *testing.T) {
	clk := mono.NewManual(time.Unix(1_800_000_000, 0))
	p := plan(t, "messages-in: { rate: 1000000/1second, per: client, scope: cluster }\nx: { counts: messages-in, rate: 1/1hour, per: client, scope: cluster, when_exceeded: drop-newest }")
	m := newMember(t, p, memory.NewBank(clk, 0), clk, "gw-1")
	ctx := t.Context()
	for range 100 {
		m.message(limiter.In, true, 1, clk.Now())
		m.purses.Tell(ctx)
	}
	if n := testing.AllocsPerRun(1000, func() {
		m.message(limiter.In, true, 1, clk.Now())
		clk.Advance(time.Millisecond)
		m.purses.Tell(ctx)
	}); n != 0 {
		t.Errorf("%v allocations a message and a turn of the teller", n)
	}
}
