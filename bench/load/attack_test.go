package load

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Hostile peers are other clients than the honest, and each kind has its own.
func TestMintOfAttack(t *testing.T) {
	names := func(j Job) (all []string) {
		j.API, j.Clients, j.Sockets, j.Share = "h", 5, 3, 2
		m := (&worker{job: j}).mint()
		for range 9 {
			_, rest, _ := strings.Cut(string(m.Append(nil)), `"client":"load-`)
			all = append(all, rest[:strings.IndexByte(rest, '"')])
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	for i, want := range [][]string{{"0000005", "0000006", "0000007"}, {"0000008", "0000009", "0000010"}} {
		if got := names(Job{Verb: attack, Index: i}); !slices.Equal(got, want) {
			t.Errorf("attack %d: %q", i, got)
		}
	}
	if got := names(Job{Verb: Hostile}); got[len(got)-1] > "0000004" {
		t.Errorf("the honest: %q", got)
	}
}

// The start of a run is no part of the calm before an attack, and the wait behind one that was ended early no part of an attack.
func TestHalf(t *testing.T) {
	r := &runner{s: Settings{Duration: 10 * time.Second}, calm: hists{"calm": nil}, storm: hists{"storm": nil}}
	for _, c := range []struct {
		phase string
		at    time.Duration
		want  string
	}{{phaseRun, time.Second, ""}, {phaseRun, 1001 * time.Millisecond, "calm"}, {phaseRun, 5 * time.Second, "calm"}, {phaseRun, 5001 * time.Millisecond, "storm"}, {phaseSettle, 3 * time.Second, "calm"}, {phaseDone, 11 * time.Second, "storm"}} {
		if got := strings.Join(sortedKeys(r.half(Report{Phase: c.phase, At: c.at})), ""); got != c.want {
			t.Errorf("%s after %v: %q, want %q", c.phase, c.at, got, c.want)
		}
	}
}
