package storetest

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"ticketgate/limiter"
	"ticketgate/ticket"
)

// A BankRig is a bank with its time: Advance lets time pass for it, by the clock or by waiting; Now is its wall clock.
type BankRig struct {
	Bank    limiter.Bank
	Advance func(time.Duration)
	Now     func() time.Time
	Slack   time.Duration // by which its time may run on between two calls: 0 for a clock that a test holds
}

// Bank runs what every limiter.Bank must do. open returns one that holds nothing yet.
func Bank(t *testing.T, open func(t *testing.T) *BankRig) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, r *BankRig)
	}{
		{"a fresh bucket is full", bankFresh}, {"tokens come back evenly", bankRefill}, {"given back", bankBack}, {"spent without it", bankSpent},
		{"a bucket is never over its burst", bankBurst}, {"windows", bankWindow}, {"another window's are void", bankVoid}, {"many at once", bankMany},
		{"nobody gets one twice", bankRace}, {"extremes", bankExtremes}, {"whatever happens, no more than promised", bankPromise},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

func terms(text string, burst uint64) limiter.Terms {
	r, err := limiter.ParseRate(text)
	if err != nil {
		panic(err)
	}
	return limiter.Terms{Rate: r, Burst: burst}
}

func (r *BankRig) ask(t *testing.T, q limiter.Ask) limiter.Grant {
	t.Helper()
	var g [1]limiter.Grant
	if err := r.Bank.Lease(t.Context(), []limiter.Ask{q}, g[:]); err != nil {
		t.Fatal(err)
	}
	return g[0]
}

func bankFresh(t *testing.T, r *BankRig) {
	q := limiter.Ask{Bucket: 1, Terms: terms("1/1hour", 40)}
	for range 2 { // looking takes nothing
		if g := r.ask(t, q); g != (limiter.Grant{Remaining: 40}) {
			t.Errorf("a look at a fresh bucket: %+v", g)
		}
	}
	q.Want = 15
	if g := r.ask(t, q); g != (limiter.Grant{Given: 15, Remaining: 25}) {
		t.Errorf("15 of 40: %+v", g)
	}
	q.Want = 26
	if g := r.ask(t, q); g.Given != 25 || g.Remaining != 0 || g.Wait > time.Hour || g.Wait < time.Hour-time.Minute {
		t.Errorf("26 of 25: %+v", g)
	}
	q.Bucket = 2
	if g := r.ask(t, q); g.Given != 26 {
		t.Errorf("another bucket: %+v", g)
	}
}

func bankRefill(t *testing.T, r *BankRig) {
	q := limiter.Ask{Bucket: 1, Terms: terms("20/1second", 4), Want: 4}
	r.ask(t, q)
	q.Want = 0
	if g := r.ask(t, q); r.Slack == 0 && (g.Remaining != 0 || g.Wait != 50*time.Millisecond) {
		t.Errorf("an empty bucket: %+v", g)
	}
	r.Advance(50 * time.Millisecond)
	q.Want = 1
	if g := r.ask(t, q); g.Given != 1 {
		t.Errorf("50 ms later: %+v", g)
	}
	r.Advance(time.Second)
	q.Want = 100
	if g := r.ask(t, q); g.Given != 4 {
		t.Errorf("a second later: %+v, want a burst", g)
	}
}

func bankBack(t *testing.T, r *BankRig) {
	q := limiter.Ask{Bucket: 1, Terms: terms("1/1hour", 10), Want: 10}
	r.ask(t, q)
	q.Want, q.Back = 3, 7
	if g := r.ask(t, q); g.Given != 3 || g.Remaining != 4 {
		t.Errorf("7 back, 3 wanted: %+v", g)
	}
	q.Want, q.Back = 0, 100
	if g := r.ask(t, q); g.Remaining != 10 {
		t.Errorf("more back than there ever were: %+v", g)
	}
}

func bankSpent(t *testing.T, r *BankRig) {
	q := limiter.Ask{Bucket: 1, Terms: terms("1/1hour", 10), Spent: 4, Want: 3}
	if g := r.ask(t, q); g.Given != 3 || g.Remaining != 3 {
		t.Errorf("4 spent, 3 wanted of 10: %+v", g)
	}
	q.Spent, q.Want = 1000, 1
	if g := r.ask(t, q); g.Given != 0 || g.Wait > time.Hour {
		t.Errorf("1000 spent: %+v; no debt of more than the burst", g)
	}
}

func bankBurst(t *testing.T, r *BankRig) {
	q := limiter.Ask{Bucket: 1, Terms: terms("1000/1second", 10), Want: 10}
	r.ask(t, q)
	r.Advance(100 * time.Millisecond)
	q.Want, q.Back = 100, 10
	if g := r.ask(t, q); g.Given != 10 {
		t.Errorf("refilled and given back: %+v, want a burst", g)
	}
	q.Terms.Burst, q.Back = 3, 0 // the configuration has changed
	r.Advance(100 * time.Millisecond)
	if g := r.ask(t, q); g.Given != 3 {
		t.Errorf("of a burst that was lowered: %+v", g)
	}
}

func bankWindow(t *testing.T, r *BankRig) {
	for i, per := range []string{"1day", "1hour", "1week", "2week", "12hour", "1minute"} {
		q := limiter.Ask{Bucket: ticket.Subject(i + 1), Terms: terms("100/"+per, 0), Want: 60}
		q.Terms.Fixed = true
		before := r.Now()
		g := r.ask(t, q)
		start := limiter.WindowStart(r.Now(), q.Terms.Rate.Per)
		if g.Given != 60 || g.Remaining != 40 || g.Wait != 0 || g.Window != start.Unix() && g.Window != limiter.WindowStart(before, q.Terms.Rate.Per).Unix() {
			t.Errorf("per %s: %+v, window of %v", per, g, start)
		}
		end := time.Unix(g.Window, 0).Add(q.Terms.Rate.Per)
		if d := end.Sub(before) - g.Ends; d < 0 || d > r.Slack+time.Microsecond {
			t.Errorf("per %s: ends in %v, want %v", per, g.Ends, end.Sub(before))
		}
		g2 := r.ask(t, q)
		if g2.Window == g.Window && (g2.Given != 40 || g2.Remaining != 0 || g2.Wait != g2.Ends) {
			t.Errorf("per %s, again: %+v", per, g2)
		}
	}
}

func bankVoid(t *testing.T, r *BankRig) {
	q := limiter.Ask{Bucket: 1, Terms: terms("100/1week", 0), Want: 60}
	q.Terms.Fixed = true
	g := r.ask(t, q)
	q.Want, q.Back, q.Window = 0, 30, g.Window
	if g := r.ask(t, q); g.Remaining != 70 {
		t.Errorf("30 back: %+v", g)
	}
	q.Back, q.Spent, q.Window = 10, 5, g.Window-7*24*3600
	if g := r.ask(t, q); g.Remaining != 70 {
		t.Errorf("back and spent of last week: %+v", g)
	}
	q.Back, q.Spent, q.Window = 0, 50, g.Window
	if g := r.ask(t, q); g.Remaining != 20 {
		t.Errorf("50 spent: %+v", g)
	}
	q.Spent = 1000
	if g := r.ask(t, q); g.Remaining != 0 {
		t.Errorf("1000 spent: %+v", g)
	}
}

func bankMany(t *testing.T, r *BankRig) {
	asks, answers := make([]limiter.Ask, 700), make([]limiter.Grant, 700)
	for round := range 2 {
		for i := range asks {
			asks[i] = limiter.Ask{Bucket: ticket.Subject(i%40 + i<<20), Terms: terms("1/1week", uint64(i+2)), Want: int64(1 + i%3)}
			if i%5 == 0 {
				asks[i].Terms = limiter.Terms{Rate: limiter.Rate{N: uint64(i + 2), Per: 7 * 24 * time.Hour}, Fixed: true}
			}
		}
		if err := r.Bank.Lease(t.Context(), asks, answers); err != nil {
			t.Fatal(err)
		}
		for i, g := range answers {
			before := int64(round) * asks[i].Want
			want := min(asks[i].Want, int64(i+2)-before)
			if g.Given != max(want, 0) {
				t.Fatalf("round %d, bucket %d: %+v of %+v", round, i, g, asks[i])
			}
		}
	}
}

func bankRace(t *testing.T, r *BankRig) {
	var wg sync.WaitGroup
	var got [8]int64
	for k := range got {
		wg.Go(func() {
			var g [1]limiter.Grant
			for range 100 {
				if err := r.Bank.Lease(t.Context(), []limiter.Ask{{Bucket: 9, Terms: terms("1/1week", 500), Want: 3}}, g[:]); err != nil {
					t.Error(err)
					return
				}
				got[k] += g[0].Given
			}
		})
	}
	wg.Wait()
	sum := int64(0)
	for _, n := range got {
		sum += n
	}
	if sum != 500 {
		t.Errorf("%d given of 500", sum)
	}
}

func bankExtremes(t *testing.T, r *BankRig) {
	for i, c := range []struct {
		rate  string
		burst uint64
	}{{"1/52week", 1}, {"4GiB/1second", 16 << 40}, {"4GiB/1second", 1}, {"16384GiB/52week", 16 << 40}, {"1/1second", 31_449_600}} {
		q := limiter.Ask{Bucket: ticket.Subject(i + 100), Terms: terms(c.rate, c.burst), Want: int64(c.burst)}
		if g := r.ask(t, q); g.Given != int64(c.burst) {
			t.Errorf("%s, burst %d: %+v", c.rate, c.burst, g)
		}
		q.Want, q.Back = 0, int64(c.burst)
		if g := r.ask(t, q); g.Remaining != int64(c.burst) || g.Wait != 0 {
			t.Errorf("%s, burst %d, all given back: %+v", c.rate, c.burst, g)
		}
	}
}

// bankPromise asks at random and checks that what is out never passes burst + rate*t.
func bankPromise(t *testing.T, r *BankRig) {
	rnd := rand.New(rand.NewPCG(11, 7)) //nolint:gosec // a walk that repeats
	q := limiter.Ask{Bucket: 5, Terms: terms("200/1second", 50)}
	begun := r.Now()
	out, rounds := int64(0), 300
	for i := range rounds {
		q.Want, q.Back = rnd.Int64N(30), 0
		if rnd.IntN(4) == 0 {
			q.Back = min(rnd.Int64N(5), out)
		}
		if rnd.IntN(3) == 0 {
			r.Advance(time.Duration(rnd.IntN(20)) * time.Millisecond)
		}
		g := r.ask(t, q)
		out += g.Given - q.Back
		if most := 50 + 200*r.Now().Sub(begun).Seconds(); float64(out) > most+0.001 {
			t.Fatalf("after %d asks %d are out, at most %.2f may be", i, out, most)
		}
		if g.Given > q.Want || g.Given < 0 || g.Remaining < 0 {
			t.Fatalf("%+v answers %+v", g, q)
		}
	}
}
