package limiter_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

const lease = 45 * time.Second

func newCount() (*limiter.Count, *mono.Manual) {
	clk := mono.NewManual(time.Unix(1_800_000_000, 0))
	return limiter.NewCount(clk, lease), clk
}

// edges are subjects that a table of free and closed slots could mistake.
var edges = []ticket.Subject{0, 1, 2, ^ticket.Subject(0), ^ticket.Subject(0) - 1, 1 << 63}

func TestCountOfOneSubject(t *testing.T) {
	for _, s := range edges {
		c, clk := newCount()
		if _, _, ok := c.Held(s); ok {
			t.Fatalf("%x is held before it was added", uint64(s))
		}
		last := uint64(0)
		check := func(step string, count uint32, number uint64, want uint32) {
			t.Helper()
			if count != want || number <= last {
				t.Errorf("%x %s: count %d number %d after %d, want count %d and a higher number", uint64(s), step, count, number, last, want)
			}
			last = number
			if hc, hn, ok := c.Held(s); hc != count || hn != number || !ok {
				t.Errorf("%x %s: Held = %d, %d, %v", uint64(s), step, hc, hn, ok)
			}
		}
		count, number := c.Add(s)
		check("first socket", count, number, 1)
		count, number = c.Add(s) // at the same moment
		check("second socket", count, number, 2)
		clk.Advance(time.Hour)
		count, number = c.Done(s)
		check("one closed", count, number, 1)
		count, number = c.Done(s)
		check("both closed", count, number, 0)
		if _, sockets := c.Total(); sockets != 0 {
			t.Errorf("%d sockets in all, want 0", sockets)
		}
	}
}

func TestDoneWithoutAddPanics(t *testing.T) {
	for _, s := range []ticket.Subject{0, 7} {
		c, _ := newCount()
		c.Add(s)
		c.Done(s)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%d: no panic", s)
				}
			}()
			c.Done(s)
		}()
		if count, _ := c.Add(s); count != 1 {
			t.Errorf("%d: %d sockets after the panic and an Add, want 1", s, count)
		}
	}
}

func TestSweepForgetsAfterTheLease(t *testing.T) {
	c, clk := newCount()
	const many = 10_000
	numbers := make([]uint64, many)
	for i := range many {
		c.Add(ticket.Subject(i))
		if i%10 != 0 {
			_, numbers[i] = c.Done(ticket.Subject(i))
		}
	}
	busy := ticket.Subject(many) // its numbers run ahead of the time: 2^19 changes in no time are 69 s
	for range 1 << 18 {
		c.Add(busy)
		_, numbers[0] = c.Done(busy)
	}
	clk.Advance(lease)
	c.Sweep()
	if subjects, sockets := c.Total(); subjects != many+1 || sockets != many/10 {
		t.Errorf("within the lease: %d subjects, %d sockets; want all %d and %d", subjects, sockets, many+1, many/10)
	}
	clk.Advance(time.Millisecond)
	c.Sweep()
	if subjects, sockets := c.Total(); subjects != many/10+1 || sockets != many/10 { // and busy
		t.Errorf("after the lease: %d subjects, %d sockets; want %d and %d", subjects, sockets, many/10+1, many/10)
	}
	if _, _, ok := c.Held(busy); !ok {
		t.Error("a subject whose number lies in the future was dropped")
	}
	for i := range many {
		if i%10 == 0 {
			continue
		}
		if _, _, ok := c.Held(ticket.Subject(i)); ok {
			t.Fatalf("subject %d is still there", i)
		}
		if _, number := c.Add(ticket.Subject(i)); number <= numbers[i] {
			t.Fatalf("subject %d made again has number %d after %d", i, number, numbers[i])
		}
	}
	clk.Advance(time.Hour)
	c.Sweep()
	c.Sweep()
	if count, number := c.Add(busy); count != 1 || number <= numbers[0] {
		t.Errorf("busy made again: count %d number %d after %d", count, number, numbers[0])
	}
}

// change is one change of a subject, as its caller saw it.
type change struct {
	s      ticket.Subject
	by     int
	count  uint32
	number uint64
}

// TestCountAgainstAHistory lets loops open and close sockets of few and many subjects while the table grows, moves and is
// swept. Ordered by number, the readings of a subject must then be a history: each differs from the one before by exactly
// its change, and no number comes twice. The end is compared with a map under a mutex.
func TestCountAgainstAHistory(t *testing.T) {
	c, clk := newCount()
	model := struct {
		sync.Mutex
		m map[ticket.Subject]int
	}{m: map[ticket.Subject]int{}}
	const loops, rounds, steps = 8, 8, 3000
	history := make([][]change, loops)
	open := make([][]ticket.Subject, loops)
	for round := range rounds {
		var wg sync.WaitGroup
		for g := range loops {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(round), uint64(g)))
				for range steps {
					s, by := pick(rnd, round, &open[g])
					ch := change{s: s, by: by}
					if by > 0 {
						ch.count, ch.number = c.Add(s)
					} else {
						ch.count, ch.number = c.Done(s)
					}
					history[g] = append(history[g], ch)
					model.Lock()
					model.m[s] += by
					model.Unlock()
				}
			})
		}
		wg.Go(func() {
			for range 5 {
				c.Sweep()
				c.Total()
			}
		})
		wg.Wait()
		clk.Advance(lease + time.Second) // between rounds: nobody stands inside a call for longer than a lease
	}
	checkHistory(t, slices.Concat(history...))
	checkEnd(t, c, model.m)
}

// pick chooses what one loop does next: the first half of the rounds opens more than it closes, the second closes.
func pick(rnd *rand.Rand, round int, open *[]ticket.Subject) (ticket.Subject, int) {
	if n := len(*open); n > 0 && (n > 2500 || rnd.IntN(20) < 8+round%8) {
		i := rnd.IntN(n)
		s := (*open)[i]
		(*open)[i] = (*open)[n-1]
		*open = (*open)[:n-1]
		return s, -1
	}
	var s ticket.Subject
	switch rnd.IntN(4) {
	case 0:
		s = edges[rnd.IntN(len(edges))]
	case 1:
		s = ticket.Subject(rnd.IntN(20)) // fought over
	default:
		s = ticket.Subject(rnd.Uint64N(1<<13)) << 20 * ticket.Subject(1+round) // ever new ones
	}
	*open = append(*open, s)
	return s, 1
}

func checkHistory(t *testing.T, all []change) {
	t.Helper()
	of := map[ticket.Subject][]change{}
	for _, ch := range all {
		of[ch.s] = append(of[ch.s], ch)
	}
	for s, chs := range of {
		slices.SortFunc(chs, func(a, b change) int {
			if a.number < b.number {
				return -1
			}
			return 1
		})
		count, number := 0, uint64(0)
		for _, ch := range chs {
			count += ch.by
			if int(ch.count) != count || ch.number <= number {
				t.Fatalf("subject %x: after number %d comes %+v, want count %d", uint64(s), number, ch, count)
			}
			number = ch.number
		}
	}
	t.Logf("%d changes of %d subjects", len(all), len(of))
}

func checkEnd(t *testing.T, c *limiter.Count, model map[ticket.Subject]int) {
	t.Helper()
	seen := map[ticket.Subject]bool{}
	c.Each(func(r limiter.Reading) bool {
		if seen[r.Subject] {
			t.Errorf("Each yields %x twice", uint64(r.Subject))
		}
		seen[r.Subject] = true
		if int(r.Count) != model[r.Subject] {
			t.Errorf("subject %x: %d sockets, want %d", uint64(r.Subject), r.Count, model[r.Subject])
		}
		return true
	})
	sum := 0
	for s, n := range model {
		sum += n
		if n > 0 && !seen[s] {
			t.Errorf("Each leaves out %x with %d sockets", uint64(s), n)
		}
	}
	if _, sockets := c.Total(); sockets != sum {
		t.Errorf("Total() = %d sockets, want %d", sockets, sum)
	}
	calls := 0
	c.Each(func(limiter.Reading) bool { calls++; return false })
	if calls != 1 {
		t.Errorf("Each called yield %d times after it returned false", calls)
	}
}

func TestCountDoesNotAllocate(t *testing.T) {
	c, _ := newCount()
	c.Add(5)
	if n := testing.AllocsPerRun(1000, func() { c.Add(5); c.Done(5); c.Held(5) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
