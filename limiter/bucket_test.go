package limiter_test

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/limiter"
)

func rate(t testing.TB, text string) limiter.Rate {
	t.Helper()
	r, err := limiter.ParseRate(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// noon is a reading after 100 days without a restart.
const noon = mono.Time(100 * 24 * time.Hour)

func TestTake(t *testing.T) {
	m := limiter.NewMeter(rate(t, "3/1minute"), 0)
	var tat int64
	clock := noon
	for i, s := range []struct {
		after time.Duration // since the step before
		n     int64
		ok    bool
		wait  time.Duration
		left  uint64
		reset time.Duration
	}{
		{0, 1, true, 0, 2, 20 * time.Second},
		{0, 1, true, 0, 1, 20 * time.Second},
		{0, 1, true, 0, 0, 20 * time.Second},
		{0, 1, false, 20 * time.Second, 0, 20 * time.Second},
		{5 * time.Second, 1, false, 15 * time.Second, 0, 15 * time.Second},
		{0, 2, false, 35 * time.Second, 0, 15 * time.Second},
		{15*time.Second - 1, 1, false, 1, 0, 1},
		{1, 1, true, 0, 0, 20 * time.Second},
		{0, 4, false, limiter.Never, 0, 20 * time.Second},
		{0, 0, true, 0, 0, 20 * time.Second},
		{0, -5, true, 0, 0, 20 * time.Second},
		{1000 * time.Hour, 3, true, 0, 0, 20 * time.Second}, // idle for long: one burst, no more
		{0, 1, false, 20 * time.Second, 0, 20 * time.Second},
		{time.Minute, 0, true, 0, 3, 0},
	} {
		clock = clock.Add(s.after)
		ok, wait := m.Take(&tat, clock, s.n)
		left, reset := m.Left(tat, clock)
		if ok != s.ok || wait != s.wait || left != s.left || reset != s.reset {
			t.Errorf("step %d: Take(%d) = %v, %v and Left = %d, %v; want %v, %v and %d, %v", i, s.n, ok, wait, left, reset, s.ok, s.wait, s.left, s.reset)
		}
	}
}

// meters are rates whose event is no whole number of ticks, and some that are: from one a year to more than a tick a byte.
var meters = []struct {
	rate  string
	burst uint64
	most  int64 // largest take
}{
	{"1/52week", 1, 1}, {"3/1minute", 0, 1}, {"3/1second", 7, 2}, {"20/1second", 40, 1}, {"7/1second", 1, 1},
	{"30000/1second", 0, 1}, {"1000000/1day", 1000, 10}, {"999983/1second", 0, 1},
	{"64KiB/1second", 256 << 10, 64 << 10}, {"1MiB/1second", 0, 1 << 20}, {"100MiB/1second", 1 << 20, 2000},
	{"100MiB/1second", 0, 1}, {"1GiB/1second", 64 << 10, 125}, {"4GiB/1second", 1 << 20, 64 << 10}, {"4GiB/1second", 0, 3},
}

// years is how long the slow rates are watched; a bucket is right for 13 years after the machine's start.
const years = 9 * 365 * 24 * time.Hour

// schedule takes at random moments, in floods and after pauses, and returns what was admitted when.
func schedule(m limiter.Meter, r limiter.Rate, most int64, rnd *rand.Rand) (at []mono.Time, n []int64) {
	var tat int64
	now := noon
	event := max(int64(r.Per)/int64(r.N), 1)
	for len(at) < 250 && now.Sub(noon) < years {
		switch rnd.IntN(8) {
		case 0:
			now = now.Add(time.Duration(rnd.Int64N(20 * event)))
		case 1, 2, 3:
			now = now.Add(time.Duration(rnd.Int64N(3)))
		case 4, 5:
			now = now.Add(time.Duration(rnd.Int64N(2 * event)))
		}
		take := 1 + rnd.Int64N(most)
		ok, wait := m.Take(&tat, now, take)
		if !ok && wait != limiter.Never {
			early := tat
			if again, _ := m.Take(&early, now.Add(wait-1), take); again {
				panic(fmt.Sprintf("%v: a take of %d that was to wait %v passes 1 ns earlier", r, take, wait))
			}
			now = now.Add(wait)
			if ok, _ = m.Take(&tat, now, take); !ok {
				panic(fmt.Sprintf("%v: a take of %d does not pass after its wait of %v", r, take, wait))
			}
		}
		if ok {
			at, n = append(at, now), append(n, take)
		}
	}
	return at, n
}

func TestNoWindowSeesMoreThanBurstAndRate(t *testing.T) {
	for i, c := range meters {
		r := rate(t, c.rate)
		burst := c.burst
		if burst == 0 {
			burst = r.N
		}
		at, n := schedule(limiter.NewMeter(r, c.burst), r, min(c.most, int64(burst)), rand.New(rand.NewPCG(1, uint64(i))))
		for from := range at {
			sum := int64(0)
			for to := from; to < len(at); to++ {
				sum += n[to]
				// sum <= burst + N*t/Per, times Per; takes of many may round up to the next event
				limit := new(big.Int).Mul(big.NewInt(int64(r.N)), big.NewInt(int64(at[to].Sub(at[from]))))
				limit.Add(limit, new(big.Int).Mul(new(big.Int).SetUint64(burst), big.NewInt(int64(r.Per))))
				if c.most > 1 {
					limit.Add(limit, big.NewInt(int64(r.Per)-1))
				}
				if got := new(big.Int).Mul(big.NewInt(sum), big.NewInt(int64(r.Per))); got.Cmp(limit) > 0 {
					t.Fatalf("%s burst %d: %d admitted in %v, from take %d to %d", c.rate, burst, sum, at[to].Sub(at[from]), from, to)
				}
			}
		}
	}
}

// TestNothingIsLostUnderLoad asks again at the very moment each wait ends. What is admitted must be 99 % of the rate, and
// each take's delay within 1 ns of exact: that is what one take may drift.
func TestNothingIsLostUnderLoad(t *testing.T) {
	for _, c := range meters {
		r := rate(t, c.rate)
		m := limiter.NewMeter(r, c.burst)
		var tat int64
		now, sum, takes := noon, int64(0), 0
		for left, _ := m.Left(tat, now); left > 0; left, _ = m.Left(tat, now) {
			m.Take(&tat, now, int64(left))
		}
		start := now
		take := c.most
		if c.burst != 0 {
			take = min(take, int64(c.burst))
		}
		for takes < 3000 && now.Sub(start) < years {
			ok, wait := m.Take(&tat, now, take)
			if !ok {
				now = now.Add(wait)
				if ok, _ = m.Take(&tat, now, take); !ok {
					t.Fatalf("%s: refused after its wait", c.rate)
				}
			}
			sum += take
			takes++
		}
		exact := new(big.Int).Div(new(big.Int).Mul(big.NewInt(sum), big.NewInt(int64(r.Per))), new(big.Int).SetUint64(r.N)).Int64()
		drift := int64(now.Sub(start)) - exact
		if drift < -int64(r.Per)/int64(r.N)-1 || drift > int64(takes)+1 {
			t.Errorf("%s, takes of %d: %d takes took %v, exact are %v: %.3f ns a take", c.rate, take, takes, now.Sub(start), time.Duration(exact), float64(drift)/float64(takes))
		}
		// A take that does not last 1 ns is refused for up to 1 ns more than it should: the clock tells no less.
		if exact >= int64(takes)*100 && drift*100 > exact {
			t.Errorf("%s, takes of %d: only %.2f %% of the rate was admitted", c.rate, take, 100*float64(exact)/float64(int64(now.Sub(start))))
		}
	}
}

// TestWholeBurstOneByOne: a full bucket holds the burst, not one less, where events are no whole number of ticks.
func TestWholeBurst(t *testing.T) {
	for _, c := range []struct {
		rate         string
		burst, least uint64 // least: 99 % where the burst is above a tick's share
	}{
		{"3/1second", 3, 3}, {"7/1second", 1000, 1000}, {"30000/1second", 500_000, 500_000}, {"999983/1second", 10_000, 10_000},
		{"100MiB/1second", 1 << 20, 1038090}, {"1GiB/1second", 1 << 16, 64880},
	} {
		m := limiter.NewMeter(rate(t, c.rate), c.burst)
		var tat, whole int64
		got := uint64(0)
		for ok := true; ok; got++ {
			ok, _ = m.Take(&tat, noon, 1)
		}
		got--
		if got < c.least || got > c.burst {
			t.Errorf("%s burst %d: %d taken one by one", c.rate, c.burst, got)
		}
		if left, _ := m.Left(0, noon); left != c.burst {
			t.Errorf("%s burst %d: a full bucket has %d left", c.rate, c.burst, left)
		}
		if ok, _ := m.Take(&whole, noon, int64(c.burst)); !ok {
			t.Errorf("%s burst %d: not taken at once", c.rate, c.burst)
		}
		if left, _ := m.Left(whole, noon); left > 1 {
			t.Errorf("%s burst %d: %d left after all was taken", c.rate, c.burst, left)
		}
	}
}

func TestLeftIsWhatCanBeTaken(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	for _, c := range meters {
		r := rate(t, c.rate)
		m := limiter.NewMeter(r, c.burst)
		for range 200 {
			var tat int64
			m.Take(&tat, noon, 1+rnd.Int64N(max(int64(c.burst), c.most)))
			now := noon.Add(time.Duration(rnd.Int64N(int64(r.Per))))
			left, reset := m.Left(tat, now)
			word := tat
			if ok, _ := m.Take(&word, now, int64(left)); !ok {
				t.Fatalf("%s: %d are left and cannot be taken", c.rate, left)
			}
			word = tat
			ok, wait := m.Take(&word, now, int64(left)+1)
			if ok || reset != 0 && wait != reset || reset == 0 && wait != limiter.Never {
				t.Fatalf("%s: %d left, reset after %v, but one more: %v, wait %v", c.rate, left, reset, ok, wait)
			}
		}
	}
}

func TestTheZeroMeterAdmitsNothing(t *testing.T) {
	for name, m := range map[string]limiter.Meter{
		"zero": {}, "rate 0": limiter.NewMeter(limiter.Rate{Per: time.Second}, 5), "no period": limiter.NewMeter(limiter.Rate{N: 5}, 5),
		"too fast": limiter.NewMeter(limiter.Rate{N: 1 << 40, Per: time.Second}, 5),
	} {
		var tat int64
		if ok, wait := m.Take(&tat, noon, 1); ok || wait != limiter.Never {
			t.Errorf("%s: Take = %v, %v", name, ok, wait)
		}
		if left, _ := m.Left(tat, noon); left != 0 {
			t.Errorf("%s: %d left", name, left)
		}
	}
}

func TestBurstIsCutToAYear(t *testing.T) {
	m := limiter.NewMeter(rate(t, "1/1day"), 1<<40)
	if left, _ := m.Left(0, noon); left != 364 {
		t.Errorf("a burst of 2^40 at one a day holds %d, want 52 weeks of days", left)
	}
}

// TestAccuracy is a gateway's promise for a minute of ten times the load: within 1 % of burst + rate*time and never more.
// Then idle time gives one burst, and a wall clock that steps gives nothing.
func TestAccuracy(t *testing.T) {
	for _, c := range []struct {
		rate  string
		burst uint64
		take  int64
		every time.Duration
	}{
		{"20/1second", 40, 1, 5 * time.Millisecond},
		{"64KiB/1second", 256 << 10, 1000, 1500 * time.Microsecond},
	} {
		r := rate(t, c.rate)
		m := limiter.NewMeter(r, c.burst)
		clk := mono.NewManual(time.Unix(1_800_000_000, 0))
		rnd := rand.New(rand.NewPCG(30, 0))
		for socket := range 30 {
			var tat int64
			admitted := int64(0)
			start := clk.Now()
			for clk.Now().Sub(start) < time.Minute {
				if ok, _ := m.Take(&tat, clk.Now(), c.take); ok {
					admitted += c.take
				}
				clk.Advance(time.Duration(rnd.Int64N(int64(2 * c.every))))
			}
			promise := float64(c.burst) + float64(r.N)*clk.Now().Sub(start).Seconds()
			if got := float64(admitted); got > promise || got < 0.99*promise {
				t.Fatalf("socket %d, %s burst %d: %d admitted of %.1f promised", socket, c.rate, c.burst, admitted, promise)
			}
			clk.StepWall(-time.Hour)
			clk.Advance(time.Hour)
			clk.StepWall(24 * time.Hour)
			after := int64(0)
			for ok := true; ok; after += c.take {
				ok, _ = m.Take(&tat, clk.Now(), c.take)
			}
			if after -= c.take; after > int64(c.burst) || after < int64(c.burst)-c.take {
				t.Fatalf("socket %d, %s burst %d: %d at once after an idle hour", socket, c.rate, c.burst, after)
			}
		}
	}
}

func TestTakeShared(t *testing.T) {
	var tat atomic.Int64
	var admitted atomic.Int64
	var wg sync.WaitGroup
	const burst, each = 1_000_000, 400_000 // long enough for the goroutines to meet
	m := limiter.NewMeter(rate(t, "1000/1second"), burst)
	start := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			<-start
			for range each {
				ok, wait := m.TakeShared(&tat, noon, 1)
				if ok {
					admitted.Add(1)
				} else if wait <= 0 || wait > time.Millisecond {
					t.Errorf("wait %v", wait)
				}
			}
		})
	}
	close(start)
	wg.Wait()
	if admitted.Load() != burst {
		t.Errorf("%d of %d admitted by a bucket of %d", admitted.Load(), 4*each, burst)
	}
	if ok, wait := m.TakeShared(&tat, noon, burst+1); ok || wait != limiter.Never {
		t.Errorf("more than the burst: %v, %v", ok, wait)
	}
	if ok, wait := m.TakeShared(&tat, noon, 0); !ok || wait != 0 {
		t.Errorf("nothing: %v, %v", ok, wait)
	}
	if left, _ := m.Left(tat.Load(), noon.Add(3*time.Second)); left < 2999 || left > 3000 {
		t.Errorf("after 3 s %d are left, want 3000", left)
	}
}

func TestTakeDoesNotAllocate(t *testing.T) {
	m := limiter.NewMeter(rate(t, "100MiB/1second"), 0)
	var own int64
	var shared atomic.Int64
	now := noon
	if n := testing.AllocsPerRun(1000, func() {
		now = now.Add(100)
		m.Take(&own, now, 1500)
		m.TakeShared(&shared, now, 1500)
		m.Left(own, now)
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
