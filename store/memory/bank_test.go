package memory_test

import (
	"errors"
	"testing"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/limiter"
	"ticketgate/store/memory"
	"ticketgate/store/storetest"
	"ticketgate/ticket"
)

func TestBank(t *testing.T) {
	storetest.Bank(t, func(*testing.T) *storetest.BankRig {
		clk := mono.NewManual(time.Date(2026, 11, 30, 13, 7, 5, 0, time.UTC))
		return &storetest.BankRig{Bank: memory.NewBank(clk, 0), Advance: clk.Advance, Now: clk.Wall}
	})
}

func lease(t *testing.T, b *memory.Bank, q limiter.Ask) limiter.Grant {
	t.Helper()
	var g [1]limiter.Grant
	if err := b.Lease(t.Context(), []limiter.Ask{q}, g[:]); err != nil {
		t.Fatal(err)
	}
	return g[0]
}

// TestClockSteps: a clock that steps gives no more than one burst, and no window twice.
func TestClockSteps(t *testing.T) {
	clk := mono.NewManual(time.Date(2026, 11, 30, 0, 10, 0, 0, time.UTC))
	b := memory.NewBank(clk, 0)
	bucket := limiter.Ask{Bucket: 1, Terms: limiter.Terms{Rate: limiter.Rate{N: 1, Per: time.Minute}, Burst: 5}, Want: 5}
	day := limiter.Ask{Bucket: 2, Terms: limiter.Terms{Rate: limiter.Rate{N: 5, Per: 24 * time.Hour}, Fixed: true}, Want: 5}
	lease(t, b, bucket)
	lease(t, b, day)
	for _, step := range []time.Duration{-30 * time.Minute, 20 * time.Minute} { // yesterday, and today again
		clk.StepWall(step)
		if g := lease(t, b, day); g.Given != 0 || g.Window != time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC).Unix() {
			t.Errorf("after a step of %v the day gives %+v", step, g)
		}
	}
	clk.StepWall(-24 * time.Hour)
	if g := lease(t, b, bucket); g.Given != 0 && g.Given != 5 || g.Wait > time.Minute {
		t.Errorf("a day back: %+v", g)
	}
	clk.StepWall(1000 * time.Hour)
	if g := lease(t, b, bucket); g.Given > 5 {
		t.Errorf("far ahead: %+v", g)
	}
	if g := lease(t, b, bucket); g.Given != 0 {
		t.Errorf("at once again: %+v", g)
	}
}

// TestBankIsBounded: buckets that are full again make room, others do not.
func TestBankIsBounded(t *testing.T) {
	clk := mono.NewManual(time.Unix(1_800_000_000, 0))
	b := memory.NewBank(clk, 100)
	ask := func(i int) error {
		var g [1]limiter.Grant
		q := limiter.Ask{Bucket: ticket.Subject(i), Terms: limiter.Terms{Rate: limiter.Rate{N: 1, Per: time.Minute}, Burst: 5}, Want: 1}
		return b.Lease(t.Context(), []limiter.Ask{q}, g[:])
	}
	for i := range 100 {
		if err := ask(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask(100); !errors.Is(err, memory.ErrBankFull) {
		t.Errorf("a bucket more than there are: %v", err)
	}
	clk.Advance(time.Minute)
	if err := ask(100); err != nil {
		t.Errorf("when the others are full again: %v", err)
	}
}
