package limiter_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"ticketgate/internal/mono"
	"ticketgate/limiter"
)

// TestRunIsAsManyMessages: a run leaves the same buckets, to the rounding of one message, and the same counts as its messages
// one by one; and where it does not begin, nothing was taken.
func TestRunIsAsManyMessages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		burst := rapid.Uint64Range(1, 60).Draw(t, "burst")
		per := rapid.SampledFrom([]limiter.Per{limiter.PerConnection, limiter.PerClient}).Draw(t, "per")
		options := map[string]limiter.Options{
			"messages-in": {Rate: parse(t, "10/1second"), Burst: size(burst), Per: per},
			"bytes-in":    {Rate: parse(t, "1000/1second"), Burst: size(100 * burst), Per: limiter.PerConnection},
		}
		one, many := newRanSession(t, options), newRanSession(t, options)
		now := mono.Time(1e9)
		for range rapid.IntRange(1, 10).Draw(t, "runs") {
			now = now.Add(time.Duration(rapid.Int64Range(0, 2e9).Draw(t, "pause")))
			n := rapid.Int64Range(1, 20).Draw(t, "announced")
			used := rapid.Int64Range(0, n).Draw(t, "used")
			length := rapid.Int64Range(0, 100).Draw(t, "length")
			if !many.run.Begin(many.plan, &many.row, many.table, limiter.In, n, n*length, now) {
				if many.run.On() {
					t.Fatal("a run that did not begin is on")
				}
				continue
			}
			for range used {
				if !many.run.Pass(true, length) {
					t.Fatal("no room for what was announced")
				}
				v := one.plan.Message(&one.row, one.table, limiter.In, true, length, now)
				if v.Action != limiter.Pass {
					t.Fatalf("a run passed what one by one did not: %v of %s", v.Action, v.Limit.Name)
				}
				one.plan.Tally(one.ds, limiter.In, true, v)
			}
			if used == n && many.run.Pass(true, 0) {
				t.Fatal("more passed than was announced")
			}
			many.run.End(many.ds)
		}
		for i := range one.ds {
			if a, b := one.ds[i].Allow.Load(), many.ds[i].Allow.Load(); a != b {
				t.Fatalf("limit %d: %d allowed one by one, %d in runs", i, a, b)
			}
		}
		for _, kind := range []struct {
			first bool
			bytes int64
		}{{true, 0}, {false, 1}} {
			a, b := one.left(kind.first, kind.bytes, now), many.left(kind.first, kind.bytes, now)
			if a-b < -1 || a-b > 1 {
				t.Fatalf("%v: %d left one by one, %d in runs", kind, a, b)
			}
		}
	})
}

// ranSession is a row bound to a plan.
type ranSession struct {
	plan  *limiter.Plan
	table *limiter.Table
	row   limiter.Row
	run   limiter.Run
	ds    []limiter.Decisions
}

func newRanSession(t *rapid.T, options map[string]limiter.Options) *ranSession {
	p, problems := limiter.Compile("plan", options, limiter.Defaults{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	s := &ranSession{plan: p, table: limiter.NewTable(64, 1, mono.NewManual(time.Unix(0, 0))), ds: make([]limiter.Decisions, len(p.Limits()))}
	if err := p.Bind(&s.row, s.table, limiter.Who{Client: "c", Key: "k"}); err != nil {
		t.Fatal(err)
	}
	return s
}

// left is how many frames would still pass.
func (s *ranSession) left(first bool, bytes int64, now mono.Time) (n int) {
	for s.plan.Message(&s.row, s.table, limiter.In, first, bytes, now).Action == limiter.Pass {
		n++
	}
	return n
}

func parse(t *rapid.T, text string) *limiter.Rate {
	r, err := limiter.ParseRate(text)
	if err != nil {
		t.Fatal(err)
	}
	return &r
}

// TestRunLeavesWhatAnotherTook: a shared bucket that changed during the run keeps what the run had announced.
func TestRunLeavesWhatAnotherTook(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newRanSession(t, map[string]limiter.Options{"messages-in": {Rate: parse(t, "1/1hour"), Burst: size(10), Per: limiter.PerClient}})
		now := mono.Time(1e9)
		if !s.run.Begin(s.plan, &s.row, s.table, limiter.In, 5, 0, now) {
			t.Fatal("the run does not begin")
		}
		if v := s.plan.Message(&s.row, s.table, limiter.In, true, 0, now); v.Action != limiter.Pass {
			t.Fatal("another does not pass")
		}
		s.run.End(s.ds)
		if left := s.left(true, 0, now); left != 4 {
			t.Fatalf("%d left, want 4", left)
		}
	})
}

func TestRunDoesNotAllocate(t *testing.T) {
	rate, _ := limiter.ParseRate("1000000/1second")
	p, _ := limiter.Compile("plan", map[string]limiter.Options{"messages-in": {Rate: &rate, Per: limiter.PerConnection}}, limiter.Defaults{})
	var row limiter.Row
	var run limiter.Run
	ds := make([]limiter.Decisions, 1)
	now := mono.Time(1e9)
	if n := testing.AllocsPerRun(100, func() {
		now++
		if !run.Begin(p, &row, nil, limiter.In, 16, 1<<14, now) || !run.Pass(true, 10) {
			t.Fatal("no run")
		}
		run.End(ds)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func size(n uint64) *limiter.Size { return new(limiter.Size(n)) }
