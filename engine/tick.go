package engine

import (
	"time"

	"ticketgate/internal/mono"
)

// A tick is a moment as a session keeps it: milliseconds of the loop's clock, their low 32 bits. Ticks that are compared lie
// less than 24 days apart; a session lasts 7 at most. A tick that is set is never 0.
type tick uint32

// farthest is how far ahead a deadline may lie: later ones are cut to it.
const farthest = 20 * 24 * time.Hour

// tickAt is the first tick at or after t, for a deadline: nothing comes early.
func tickAt(t mono.Time) tick {
	return max(tick((t+mono.Time(time.Millisecond-1))/mono.Time(time.Millisecond)), 1)
}

// tickOf is the tick that has begun at t.
func tickOf(t mono.Time) tick { return max(tick(t/mono.Time(time.Millisecond)), 1) }

// after is the tick d after t, rounded up, d at most farthest.
func (t tick) after(d time.Duration) tick {
	return max(t+tick((min(d, farthest)+time.Millisecond-1)/time.Millisecond), 1)
}

// passed says that t has come at now.
func (t tick) passed(now tick) bool { return int32(now-t) >= 0 }

// since is how long t is after u.
func (t tick) since(u tick) time.Duration { return time.Duration(int32(t-u)) * time.Millisecond }

// sooner is the earlier of t and u, neither of them 0.
func (t tick) sooner(u tick) tick {
	if u.passed(t) {
		return u
	}
	return t
}

// later is the later of t and u.
func (t tick) later(u tick) tick {
	if u.passed(t) {
		return t
	}
	return u
}

// time is t on the clock that shows now.
func (t tick) time(now mono.Time) mono.Time {
	ms := now / mono.Time(time.Millisecond)
	return (ms + mono.Time(int32(t-tick(ms)))) * mono.Time(time.Millisecond)
}
