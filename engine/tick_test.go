package engine

import (
	"math"
	"testing"
	"time"

	"ticketgate/internal/mono"
)

// TestTicks around the moments at which a tick's 32 bits are 0, and come round after 49.7 days.
func TestTicks(t *testing.T) {
	const ms = mono.Time(time.Millisecond)
	for _, start := range []mono.Time{0, 1, 5 * ms, math.MaxInt32 * ms, (1<<32 - 3) * ms, 1 << 32 * ms, 3 << 33 * ms, 1 << 60} {
		for off := -3 * ms; off <= 3*ms; off += ms / 4 {
			now := start + off
			if now < 0 {
				continue
			}
			for _, d := range []time.Duration{0, 1, time.Millisecond, 20*time.Millisecond + 1, time.Second, 7 * 24 * time.Hour, farthest, 1000 * time.Hour * 24} {
				due := tickAt(now).after(d)
				at := due.time(now)
				if early, late := now.Add(min(d, farthest)), now.Add(min(d, farthest)+3*time.Millisecond); at < early || at > late {
					t.Fatalf("at %d, %v later: due %v after it", now, d, at.Sub(now))
				}
				if due == 0 || !due.passed(tickOf(at)) || d > 3*time.Millisecond && due.passed(tickOf(now)) {
					t.Fatalf("at %d, %v later: due %d, passed %v then and %v now", now, d, due, due.passed(tickOf(at)), due.passed(tickOf(now)))
				}
				if got := due.since(tickAt(now)); (got - min(d, farthest)).Abs() > 2*time.Millisecond {
					t.Fatalf("at %d, %v later: %v between them", now, d, got)
				}
			}
		}
	}
	for _, base := range []tick{1, 1 << 31, math.MaxUint32 - 5} {
		soon, late := base.after(time.Second), base.after(time.Minute)
		if soon.sooner(late) != soon || late.sooner(soon) != soon || soon.later(late) != late || late.later(soon) != late {
			t.Errorf("from %d: %d and %d are in the wrong order", base, soon, late)
		}
	}
}

// TestPingGrid: pings go out together at moments that lie an 8th to a 16th of their interval apart.
func TestPingGrid(t *testing.T) {
	for ping, want := range map[time.Duration]tick{
		time.Millisecond: 1, 100 * time.Millisecond: 8, time.Second: 64, 25 * time.Second: 2048, time.Hour: 262144,
	} {
		e := &Engine{}
		e.o.Deadlines.Ping = ping
		if got := e.pingGrid(); got != want {
			t.Errorf("a ping in %v: every %d ms, want %d", ping, got, want)
		}
	}
}
