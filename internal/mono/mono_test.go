package mono_test

import (
	"testing"
	"time"

	"ticketgate/internal/mono"
)

func TestClocksAgree(t *testing.T) {
	for range 100 {
		before := mono.Boot.Now()
		now := mono.System.Now()
		after := mono.Boot.Now()
		if now.Add(time.Millisecond) < before || now > after.Add(time.Millisecond) {
			t.Fatalf("System reads %d between Boot's %d and %d", now, before, after)
		}
		if again := mono.System.Now(); again < now {
			t.Fatalf("System went back from %d to %d", now, again)
		}
	}
	if d := time.Since(mono.System.Wall()); d < 0 || d > time.Minute {
		t.Errorf("Wall is off by %v", d)
	}
}

func TestSystemDoesNotAllocate(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { mono.System.Now() }); n != 0 {
		t.Errorf("%v allocations a reading", n)
	}
}

func TestManual(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	m := mono.NewManual(at)
	begun := m.Now()
	m.Advance(time.Minute)
	if d := m.Now().Sub(begun); d != time.Minute {
		t.Errorf("Now moved by %v", d)
	}
	m.StepWall(-time.Hour)
	if d := m.Wall().Sub(at); d != time.Minute-time.Hour {
		t.Errorf("Wall moved by %v", d)
	}
	if d := m.Now().Sub(begun); d != time.Minute {
		t.Errorf("a step of the wall moved Now to %v", d)
	}
}

func BenchmarkSystemNow(b *testing.B) {
	for b.Loop() {
		mono.System.Now()
	}
}
