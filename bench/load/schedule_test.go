package load

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseSchedule(t *testing.T) {
	for _, c := range []struct {
		text string
		d    time.Duration
		want []Step
		back string // String; none: text
	}{
		{"20000", 10 * time.Second, []Step{{20000, 20000, 10 * time.Second}}, ""},
		{"0.5", time.Minute, []Step{{0.5, 0.5, time.Minute}}, ""},
		{"1e3", time.Second, []Step{{1000, 1000, time.Second}}, "1000"},
		{"1000..20000", 10 * time.Second, []Step{{1000, 20000, 10 * time.Second}}, ""},
		{"20..1", time.Second, []Step{{20, 1, time.Second}}, ""},
		{"1000:10s, 5000:20s", 30 * time.Second, []Step{{1000, 1000, 10 * time.Second}, {5000, 5000, 20 * time.Second}}, "1000:10s,5000:20s"},
		{"1..9:1s,5", 4 * time.Second, []Step{{1, 9, time.Second}, {5, 5, 3 * time.Second}}, "1..9:1s,5:3s"},
		{"1,2:4s,3", 10 * time.Second, []Step{{1, 1, 3 * time.Second}, {2, 2, 4 * time.Second}, {3, 3, 3 * time.Second}}, "1:3s,2:4s,3:3s"},
		{"1000000000", time.Second, []Step{{1e9, 1e9, time.Second}}, ""},
	} {
		s, err := ParseSchedule(c.text, c.d)
		if err != nil || !slices.Equal(s.Steps, c.want) || s.Duration() != c.d {
			t.Errorf("%s: %+v, %v", c.text, s, err)
			continue
		}
		if c.back == "" {
			c.back = c.text
		}
		if s.String() != c.back {
			t.Errorf("%s: as text %s, want %s", c.text, s, c.back)
		}
		if again, err := ParseSchedule(s.String(), c.d); err != nil || !slices.Equal(again.Steps, s.Steps) {
			t.Errorf("%s: its own text %s is read as %+v, %v", c.text, s, again, err)
		}
	}
}

func TestParseScheduleRefuses(t *testing.T) {
	const longest = "2562047h47m16.854775807s" // a Duration has no more
	for _, c := range []struct{ text, why string }{
		{"", `rate "": "" is no rate`},
		{"fast", `"fast" is no rate: want operations a second, above 0 and at most 1e9`},
		{"0", `"0" is no rate`},
		{"-5", `"-5" is no rate`},
		{"NaN", `"NaN" is no rate`},
		{"Inf", `"Inf" is no rate`},
		{"1000000001", `"1000000001" is no rate`},
		{"1..", `"" is no rate`},
		{"..1", `"" is no rate`},
		{"1..2..3", `"2..3" is no rate`},
		{"1,,2", `"" is no rate`},
		{"1:", `"" is no duration above 0, such as 10s`},
		{"1:10", `"10" is no duration above 0`},
		{"1:0s", `"0s" is no duration above 0`},
		{"1:-1s", `"-1s" is no duration above 0`},
		{"1:2s", "its steps take 2s, and the run 10s"},
		{"1:10s,2:20s", "its steps take 30s, and the run 10s"},
		{"1:10s,2", "its steps take 10s, and the run 10s"},
		{"1:" + longest + ",1:" + longest + ",5", "its steps take"}, // their sum overflows
	} {
		s, err := ParseSchedule(c.text, 10*time.Second)
		if err == nil {
			t.Errorf("%q is taken: %+v", c.text, s)
		} else if !strings.Contains(err.Error(), c.why) || !strings.HasPrefix(err.Error(), "rate ") {
			t.Errorf("%q: %v, want %s", c.text, err, c.why)
		}
	}
}

// schedule is ParseSchedule of what the test knows to be good.
func schedule(t *testing.T, text string, d time.Duration) Schedule {
	t.Helper()
	s, err := ParseSchedule(text, d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// times are all due times of a worker.
func times(p *pacer) []time.Duration {
	var all []time.Duration
	for {
		at, ok := p.due()
		if !ok {
			return all
		}
		all = append(all, at)
		p.advance()
	}
}

// among says how many of all lie from begin to end.
func among(all []time.Duration, begin, end time.Duration) int {
	n := 0
	for _, at := range all {
		if at >= begin && at < end {
			n++
		}
	}
	return n
}

func TestDueTimes(t *testing.T) {
	type span struct {
		begin, end time.Duration
		want       int
	}
	for _, c := range []struct {
		text  string
		d     time.Duration
		count int
		spans []span // exactly so many, but for one at either edge
		first []time.Duration
	}{
		{"10", 2 * time.Second, 20, []span{{0, time.Second, 10}, {time.Second, 2 * time.Second, 10}}, []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond}},
		{"20000", time.Second, 20000, []span{{500 * time.Millisecond, 600 * time.Millisecond, 2000}}, []time.Duration{0, 50 * time.Microsecond}},
		{"0.5", 10 * time.Second, 5, nil, []time.Duration{0, 2 * time.Second, 4 * time.Second}},
		{"0.01", 10 * time.Second, 1, nil, []time.Duration{0}},
		// From 1000 to 3000 in 2 s: 1000 t + 500 t^2.
		{"1000..3000", 2 * time.Second, 4000, []span{{0, time.Second, 1500}, {time.Second, 2 * time.Second, 2500}}, []time.Duration{0}},
		{"3000..1000", 2 * time.Second, 4000, []span{{0, time.Second, 2500}, {time.Second, 2 * time.Second, 1500}}, []time.Duration{0}},
		{"0.000001..2000", 2 * time.Second, 2001, []span{{0, time.Second, 500}, {time.Second, 2 * time.Second, 1500}}, []time.Duration{0}},
		{"100:1s,1000:1s,10:1s", 3 * time.Second, 1110, []span{{0, time.Second, 100}, {time.Second, 2 * time.Second, 1000}, {2 * time.Second, 3 * time.Second, 10}}, []time.Duration{0, 10 * time.Millisecond}},
		{"100..300:1s,50:2s", 3 * time.Second, 300, []span{{0, time.Second, 200}, {time.Second, 3 * time.Second, 100}}, nil},
	} {
		t.Run(c.text, func(t *testing.T) {
			s := schedule(t, c.text, c.d)
			all := times(newPacer(s, 0, 1, nil))
			if len(all) != c.count || int(math.Ceil(s.Count())) != c.count {
				t.Errorf("%d operations, Count %v, want %d", len(all), s.Count(), c.count)
			}
			if !slices.IsSorted(all) || all[0] < 0 || all[len(all)-1] >= c.d {
				t.Errorf("from %v to %v, sorted %t", all[0], all[len(all)-1], slices.IsSorted(all))
			}
			for _, at := range c.spans {
				if n := among(all, at.begin, at.end); n < at.want-1 || n > at.want+1 {
					t.Errorf("%d operations from %v to %v, want %d", n, at.begin, at.end, at.want)
				}
			}
			for i, want := range c.first {
				if d := all[i] - want; d < -time.Nanosecond || d > time.Nanosecond {
					t.Errorf("number %d is due at %v, want %v", i, all[i], want)
				}
			}
		})
	}
}

// What several workers do together is what one would do, to the nanosecond.
func TestShares(t *testing.T) {
	for _, text := range []string{"1000", "10..3000", "3000..10", "100:300ms,7:200ms,2000..1:500ms"} {
		s := schedule(t, text, time.Second)
		want := times(newPacer(s, 0, 1, nil))
		for _, share := range []int{2, 3, 7, 5000} {
			var all []time.Duration
			for first := range share {
				all = append(all, times(newPacer(s, first, share, nil))...)
			}
			if slices.Sort(all); !slices.Equal(all, want) {
				t.Errorf("%s: %d workers have %d operations, or others than the %d of one", text, share, len(all), len(want))
			}
		}
	}
}

func poisson(s Schedule, first, share int, seed uint64) *pacer {
	s.Poisson = true
	return newPacer(s, first, share, rand.New(rand.NewPCG(seed, uint64(first))))
}

// Gaps of a Poisson process are exponential: their mean is 1/rate and their variance the square of it, for one worker and
// for several together.
func TestPoissonGaps(t *testing.T) {
	s := schedule(t, "1000", 40*time.Second) // 40,000 gaps: a mean is known to 0.5 %, a variance to 1.4 %
	for _, share := range []int{1, 3} {
		for seed := range uint64(5) {
			var all []time.Duration
			for first := range share {
				one := times(poisson(s, first, share, seed))
				if !slices.IsSorted(one) {
					t.Errorf("seed %d: worker %d goes back in time", seed, first)
				}
				all = append(all, one...)
			}
			slices.Sort(all)
			var sum, squares float64
			for i := 1; i < len(all); i++ {
				gap := (all[i] - all[i-1]).Seconds() * 1000
				sum, squares = sum+gap, squares+gap*gap
			}
			n := float64(len(all) - 1)
			mean := sum / n
			if variance := squares/n - mean*mean; math.Abs(mean-1) > 0.02 || math.Abs(variance-1) > 0.06 {
				t.Errorf("%d workers, seed %d: %d operations, mean of the gaps %v of 1/rate, variance %v of its square", share, seed, len(all), mean, variance)
			}
		}
	}
}

// Where the rate grows, Poisson follows it.
func TestPoissonRamp(t *testing.T) {
	all := times(poisson(schedule(t, "1000..3000", 20*time.Second), 0, 1, 1))
	for _, c := range []struct {
		begin, end time.Duration
		want       float64
	}{{0, 10 * time.Second, 15000}, {10 * time.Second, 20 * time.Second, 25000}} {
		if n := float64(among(all, c.begin, c.end)); math.Abs(n-c.want) > 5*math.Sqrt(c.want) {
			t.Errorf("%v operations from %v to %v, want about %v", n, c.begin, c.end, c.want)
		}
	}
}

// A seed gives a run that can be repeated, and another seed another run.
func TestPoissonSeed(t *testing.T) {
	s := schedule(t, "500..1500", time.Second)
	one := times(poisson(s, 1, 2, 7))
	if again := times(poisson(s, 1, 2, 7)); !slices.Equal(one, again) {
		t.Error("the same seed gave other times")
	}
	if other := times(poisson(s, 1, 2, 8)); slices.Equal(one, other) {
		t.Error("another seed gave the same times")
	}
	if other := times(poisson(s, 0, 2, 7)); slices.Equal(one, other) {
		t.Error("two workers have the same times")
	}
	if one[0] == 0 {
		t.Error("the first operation is due at once, for each worker: that is a burst")
	}
}
