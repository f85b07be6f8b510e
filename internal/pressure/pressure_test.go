package pressure_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/internal/pressure"
)

// node is a process whose memory a test moves. Its limit is 1,000 bytes: one is a thousandth.
type node struct {
	clock  *mono.Manual
	watch  *pressure.Watch
	used   int64
	heap   int64 // part of used that is Go's
	need   int64 // part of heap that is in use
	loose  int64 // part of used that Free gives back
	queues int64 // part of used that Cut gives up, into loose
	room   int64 // what Room said last
	broken bool
	did    []string
}

func newNode() *node {
	n := &node{clock: mono.NewManual(time.Unix(1_800_000_000, 0))}
	n.watch = pressure.New(pressure.Options{
		RefuseAt: 85, CutAt: 95, Clock: n.clock,
		Read: func() (pressure.Reading, error) {
			if n.broken {
				return pressure.Reading{}, errors.New("broken")
			}
			return pressure.Reading{Used: n.used, Limit: 1000}, nil
		},
		Free: func() {
			n.used -= n.loose
			n.loose = 0
			n.did = append(n.did, "free")
		},
		Cut: func(_ context.Context, bytes int64) int64 {
			n.did = append(n.did, "cut "+strconv.FormatInt(bytes, 10))
			bytes = min(bytes, n.queues)
			n.queues -= bytes
			n.loose += bytes
			return bytes
		},
		Room: func(bytes int64) { n.room = bytes },
		Soft: func(bytes int64) { n.did = append(n.did, "soft "+strconv.FormatInt(bytes, 10)) },
		Heap: func() int64 { return n.heap },
		Need: func() int64 { return n.need },
	})
	return n
}

// step lets time pass and returns the state and what was done, but for the soft limit.
func (n *node) step(t *testing.T, used int64) (pressure.State, []string) {
	t.Helper()
	n.clock.Advance(pressure.Every)
	n.used, n.heap, n.did = used, used, nil
	s := n.watch.Step(t.Context())
	if s != n.watch.State() || n.watch.Refuses() != (s >= pressure.Refuse) {
		t.Errorf("Step says %v, State %v, Refuses %v", s, n.watch.State(), n.watch.Refuses())
	}
	return s, slices.DeleteFunc(n.did, func(s string) bool { return s[0] == 's' })
}

// TestStory goes through all states, a step of 250 ms a line.
func TestStory(t *testing.T) {
	n := newNode()
	for i, line := range []struct {
		used, loose, queues int64
		state               pressure.State
		did                 []string
	}{
		{used: 500},
		{used: 849},
		{used: 900, loose: 100, did: []string{"free"}},                                 // what is free is no reason to refuse
		{used: 850, state: pressure.Refuse},                                            // freed a moment ago
		{used: 900, loose: 100, state: pressure.Refuse},                                // still a moment ago
		{used: 949, state: pressure.Refuse},                                            // 0.75 s
		{used: 950, queues: 500, state: pressure.Cut, did: []string{"cut 25", "free"}}, // to 2.5 % below cut_at
		{used: 990, queues: 500, state: pressure.Cut, did: []string{"cut 65", "free"}}, // again, at once
		{used: 990, queues: 10, state: pressure.Cut, did: []string{"cut 65", "free"}},  // less than was asked for
		{used: 990, state: pressure.Cut, did: []string{"cut 65"}},                      // nothing was cut: nothing to free
		{used: 949, state: pressure.Refuse},                                            // below cut_at
		{used: 819, state: pressure.Refuse},                                            // not far enough below refuse_at
		{used: 818},
		{used: 849},                                     // newcomers are not refused again before refuse_at
		{used: 870, loose: 100, state: pressure.Refuse}, // 1.5 s after the last free
		{used: 870, loose: 100, state: pressure.Refuse},
		{used: 870, loose: 100, did: []string{"free"}},                                    // 2 s
		{used: 1200, queues: 5000, state: pressure.Cut, did: []string{"cut 275", "free"}}, // over the limit, in one step
		{used: 100},
	} {
		n.loose, n.queues = line.loose, line.queues
		state, did := n.step(t, line.used)
		if room := max(0, 975-n.used); n.room != room && (state != pressure.Cut || len(did) < 2) { // what a cut gives is seen in the next step
			t.Errorf("line %d: room for %d, want %d", i, n.room, room)
		}
		if state != line.state || !slices.Equal(did, line.did) {
			t.Errorf("line %d, %d used: %v %q, want %v %q", i, line.used, state, did, line.state, line.did)
		}
	}
	var s pressure.Stats
	n.watch.Stats(&s)
	if want := (pressure.Stats{Used: 100, Limit: 1000, Frees: 6, Cut: 25 + 65 + 10 + 275}); s != want {
		t.Errorf("stats %+v, want %+v", s, want)
	}
}

// TestBroken: a reading that fails, before or behind a free, changes nothing.
func TestBroken(t *testing.T) {
	n := newNode()
	n.step(t, 900)
	n.broken = true
	if s, did := n.step(t, 100); s != pressure.Refuse || len(did) > 0 {
		t.Errorf("%v %q, want refuse and nothing done", s, did)
	}
	var stats pressure.Stats
	if n.watch.Stats(&stats); stats.Fails != 1 {
		t.Errorf("%d readings failed, want 1", stats.Fails)
	}
	n.broken = false
	if s, _ := n.step(t, 100); s != pressure.Calm {
		t.Errorf("%v, want calm", s)
	}
}

// TestSoft: the collector is told half-way between the marks less what is not its own, and again only when that has moved.
func TestSoft(t *testing.T) {
	n := newNode()
	var told []string
	for _, r := range []struct{ used, heap, need int64 }{{200, 150, 0}, {210, 150, 0}, {230, 150, 0}, {600, 20, 0}, {100, 150, 0}, {1990, 0, 0}, {940, 240, 160}, {940, 240, 200}} {
		n.used, n.heap, n.need, n.did = r.used, r.heap, r.need, nil
		n.watch.Step(t.Context())
		for _, d := range n.did {
			if d[0] == 's' {
				told = append(told, d)
			}
		}
	}
	// 425 + 475 - 50; 840 is too near; 820; 320; all of it is the heap's; never nothing; 200 would be enough, and 180 at least;
	// an eighth above what is needed
	if want := []string{"soft 850", "soft 820", "soft 320", "soft 900", "soft 15", "soft 200", "soft 225"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

func TestStateNames(t *testing.T) {
	if got := [3]string{pressure.Calm.String(), pressure.Refuse.String(), pressure.Cut.String()}; got != [3]string{"calm", "refuse", "cut"} {
		t.Errorf("%q", got)
	}
}
