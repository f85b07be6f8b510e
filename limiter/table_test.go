package limiter_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/limiter"
)

func newTable(size int) (*limiter.Table, *mono.Manual) {
	clk := mono.NewManual(time.Unix(1_800_000_000, 0))
	return limiter.NewTable(size, 0x1234, clk), clk
}

func stats(tb *limiter.Table) (s limiter.TableStats) {
	tb.Stats(&s)
	return s
}

func TestTableKeepsABucketUntilItIsFull(t *testing.T) {
	tb, clk := newTable(2)
	m := limiter.NewMeter(rate(t, "3/1minute"), 0)
	a, _ := tb.Hold(1)
	again, _ := tb.Hold(1)
	b, _ := tb.Hold(2)
	if a != again || a == b || a == 0 {
		t.Fatalf("Hold(1), Hold(1), Hold(2) = %d, %d, %d", a, again, b)
	}
	if r, ok := tb.Hold(3); ok {
		t.Fatalf("a full table gives %d", r)
	}
	m.TakeShared(tb.At(a), clk.Now(), 3)
	m.TakeShared(tb.At(b), clk.Now(), 1)
	tb.Release(a)
	tb.Release(again)
	if r, ok := tb.Hold(1); !ok || r != a {
		t.Fatalf("coming back: %d, %v; want the same bucket %d", r, ok, a)
	}
	if left, _ := m.Left(tb.At(a).Load(), clk.Now()); left != 0 {
		t.Errorf("coming back gave %d more", left)
	}
	tb.Release(a)
	tb.Release(b)
	if got, want := stats(tb), (limiter.TableStats{Size: 2, Kept: 2, Refused: 1}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
	clk.Advance(20*time.Second - 1)
	if _, ok := tb.Hold(3); ok {
		t.Error("a bucket that is not full was given to another")
	}
	clk.Advance(1) // b is full, a needs 40 s more
	c, ok := tb.Hold(3)
	if !ok || c != b {
		t.Fatalf("Hold(3) = %d, %v; want b's place %d", c, ok, b)
	}
	if left, _ := m.Left(tb.At(c).Load(), clk.Now()); left != 3 {
		t.Errorf("a new bucket has %d, want the burst", left)
	}
	if left, _ := m.Left(tb.At(a).Load(), clk.Now()); left != 1 {
		t.Errorf("a has %d, want 1 after 20 s", left)
	}
	if got, want := stats(tb), (limiter.TableStats{Size: 2, Held: 1, Kept: 1, Refused: 2, Reused: 1}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

func TestReleaseTwicePanics(t *testing.T) {
	tb, _ := newTable(2)
	r, _ := tb.Hold(1)
	tb.Release(r)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	tb.Release(r)
}

// TestTableAgainstAModel: whatever is held, kept and given away, a key's bucket is never lost while it is held or not full,
// and a Hold fails only if no bucket could be had.
func TestTableAgainstAModel(t *testing.T) {
	const size, keys = 50, 80
	type entry struct {
		ref  limiter.Ref
		held int
		full mono.Time // when it is full again
	}
	for seed := range uint64(20) {
		tb, clk := newTable(size)
		rnd := rand.New(rand.NewPCG(seed, 0))
		model := map[uint64]*entry{}
		free := func() bool {
			for _, e := range model {
				if e.held == 0 && e.full <= clk.Now() {
					return true
				}
			}
			return len(model) < size
		}
		for step := range 3000 {
			key := rnd.Uint64N(keys)
			e := model[key]
			switch {
			case rnd.IntN(3) == 0:
				clk.Advance(time.Duration(rnd.IntN(100)))
			case e != nil && e.held > 0 && rnd.IntN(2) == 0:
				e.held--
				tb.Release(e.ref)
			default:
				could := free()
				ref, ok := tb.Hold(key)
				if e == nil && ok != could || e != nil && e.full > clk.Now() && !ok {
					t.Fatalf("seed %d step %d: Hold(%d) = %v, room: %v", seed, step, key, ok, could)
				}
				if !ok {
					continue
				}
				if e == nil || e.ref != ref {
					if e != nil && (e.held > 0 || e.full > clk.Now()) {
						t.Fatalf("seed %d step %d: the bucket of %d was lost", seed, step, key)
					}
					for k, other := range model { // whose place it was
						if other.ref == ref {
							if other.held > 0 || other.full > clk.Now() {
								t.Fatalf("seed %d step %d: %d got the bucket of %d", seed, step, key, k)
							}
							delete(model, k)
						}
					}
					if w := tb.At(ref).Load(); w != 0 {
						t.Fatalf("seed %d step %d: a new bucket holds %d", seed, step, w)
					}
					e = &entry{ref: ref}
					model[key] = e
				}
				e.held++
				if e.held == 1 {
					e.full = clk.Now().Add(time.Duration(rnd.IntN(3000)))
					tb.At(ref).Store(int64(e.full) * 16)
				}
			}
		}
	}
}

func TestTableOfManyGoroutines(t *testing.T) {
	tb, _ := newTable(64)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 0))
			var held []limiter.Ref
			for range 5000 {
				if len(held) > 10 || len(held) > 0 && rnd.IntN(2) == 0 {
					tb.Release(held[len(held)-1])
					held = held[:len(held)-1]
					continue
				}
				r, ok := tb.Hold(rnd.Uint64N(40))
				if !ok {
					t.Error("no room for 40 keys in 64 buckets")
					return
				}
				tb.At(r).Add(0)
				held = append(held, r)
			}
			for _, r := range held {
				tb.Release(r)
			}
		})
	}
	wg.Wait()
	if s := stats(tb); s.Held != 0 || s.Kept > 40 {
		t.Errorf("after all releases: %+v", s)
	}
}

func TestKey(t *testing.T) {
	tb, _ := newTable(1)
	other := limiter.NewTable(1, 0x1235, mono.System)
	seen := map[uint64]string{}
	for _, names := range [][3]string{
		{"free/messages-in", "client", "user-42"}, {"gold/messages-in", "client", "user-42"}, {"free/messages-in", "key", "user-42"},
		{"free/messages-in", "client", "user-43"}, {"free/messages-in", "client", ""}, {"a", "bc", "d"}, {"ab", "c", "d"}, {"a", "b", "cd"}, {"", "", ""},
	} {
		k := tb.Key(names[0], names[1], names[2])
		if was, ok := seen[k]; ok {
			t.Errorf("%v has the key of %s", names, was)
		}
		seen[k] = fmt.Sprint(names)
		if tb.Key(names[0], names[1], names[2]) != k {
			t.Errorf("%v has two keys", names)
		}
		if other.Key(names[0], names[1], names[2]) == k {
			t.Errorf("%v has the same key under two seeds", names)
		}
	}
}
