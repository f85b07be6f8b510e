package mono

import (
	"sync"
	"testing"
	"time"
)

// TestFollower: a sleep counts, a step of the wall clock does not, and the time never goes back.
func TestFollower(t *testing.T) {
	var f follower
	wall, now, slept, looks := int64(1_800_000_000e9), int64(0), int64(0), 0
	read := func() Time {
		return f.now(wall, now, func() int64 { looks++; return slept })
	}
	move := func(d time.Duration) { wall, now = wall+int64(d), now+int64(d) }
	sleep := func(d time.Duration) { wall, slept = wall+int64(d), slept+int64(d) }
	want := func(what string, d time.Duration, looked int) {
		t.Helper()
		if got := read(); time.Duration(got) != d || looks != looked {
			t.Errorf("%s: %v after %d looks, want %v after %d", what, time.Duration(got), looks, d, looked)
		}
	}
	want("start", 0, 1)
	move(time.Minute)
	want("a minute", time.Minute, 1)
	sleep(45 * time.Second)
	want("a sleep", 105*time.Second, 2)
	want("the same moment", 105*time.Second, 2)
	wall -= int64(time.Hour)
	want("the wall is set back", 105*time.Second, 3)
	wall -= int64(45 * time.Second)
	sleep(45 * time.Second)
	want("set back by a sleep just before it", 105*time.Second, 3) // the two hide each other: that is what nap cannot see
	wall += int64(time.Second)
	want("and the next step shows it", 150*time.Second, 4)
	for range 3 {
		sleep(nap / 2)
	}
	want("naps add up", 150*time.Second+3*nap/2, 5)
	slept -= int64(time.Millisecond) // a reading that was interrupted
	wall += int64(time.Second)
	want("never back", 150*time.Second+3*nap/2, 6)
}

func TestSystemFollows(t *testing.T) {
	var all sync.WaitGroup
	s := &system{}
	s.apart.Store(int64(time.Hour)) // as after a step of the wall
	for range 4 {
		all.Go(func() {
			for before := Time(0); before < bootStart+Time(50*time.Millisecond); {
				now := s.Now()
				if now < before {
					t.Errorf("went back from %d to %d", before, now)
				}
				before = now
			}
		})
	}
	all.Wait()
	if off := s.Now().Sub(Boot.Now()); off > time.Second || off < -time.Second {
		t.Errorf("off by %v", off)
	}
}
