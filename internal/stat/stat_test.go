package stat_test

import (
	"math"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"ticketgate/internal/stat"
)

func TestCounterIsReadWhileItCounts(t *testing.T) {
	var c stat.Counter
	const n = 100_000
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for last := uint64(0); ; {
			select {
			case <-stop:
				return
			default:
			}
			now := c.Load()
			if now < last {
				t.Errorf("counter went from %d back to %d", last, now)
				return
			}
			last = now
		}
	})
	for range n {
		c.Add(2)
	}
	close(stop)
	wg.Wait()
	if got := c.Load(); got != 2*n {
		t.Errorf("Load() = %d, want %d", got, 2*n)
	}
	if size := unsafe.Sizeof(c); size != 8 {
		t.Errorf("a Counter has %d bytes, want 8", size)
	}
}

func TestBounds(t *testing.T) {
	bs := stat.Bounds()
	if len(bs) != 33 || bs[0] != 16e-6 || bs[32] < 12*3600 {
		t.Fatalf("Bounds() = %d bounds from %g to %g, want 33 from 16 us to above a session's 12 h", len(bs), bs[0], bs[len(bs)-1])
	}
	for i := 1; i < len(bs); i++ {
		if math.Abs(bs[i]/bs[i-1]-2) > 1e-12 {
			t.Errorf("bound %d is %g after %g, want twice as much", i, bs[i], bs[i-1])
		}
	}
}

func TestObserveFillsTheBucketOfItsBound(t *testing.T) {
	for i, b := range stat.Bounds() {
		at := time.Duration(math.Round(b * 1e9))
		for _, c := range []struct {
			d    time.Duration
			want int
		}{{at, i}, {at + 1, i + 1}} {
			if got := placeOf(c.d); got != c.want {
				t.Errorf("%v lies in bucket %d, want %d", c.d, got, c.want)
			}
		}
	}
	for _, c := range []struct {
		d    time.Duration
		want int
	}{{math.MinInt64, 0}, {-1, 0}, {0, 0}, {1, 0}, {math.MaxInt64, 33}} {
		if got := placeOf(c.d); got != c.want {
			t.Errorf("%v lies in bucket %d, want %d", c.d, got, c.want)
		}
	}
}

func placeOf(d time.Duration) int {
	var h stat.Histogram
	var s stat.Snapshot
	h.Observe(d)
	h.Snapshot(&s)
	return slices.Index(s.Buckets[:], 1)
}

func TestHistogramOfManyGoroutines(t *testing.T) {
	var hs [2]stat.Histogram
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 1000 {
				hs[g%2].Observe(time.Duration(i) * time.Millisecond)
			}
		})
	}
	wg.Wait()
	var all, second stat.Snapshot
	hs[0].Snapshot(&all)
	hs[1].Snapshot(&second)
	all.Merge(&second)
	if got := all.Count(); got != 4000 {
		t.Errorf("Count() = %d, want 4000", got)
	}
	if want := 4 * 999 * 1000 / 2 / 1e3; math.Abs(all.Sum()-want) > 1e-6 {
		t.Errorf("Sum() = %g s, want %g", all.Sum(), want)
	}
	hs[1].Snapshot(&second)
	if got := second.Count(); got != 4000 {
		t.Errorf("a second Snapshot into the same value counts %d, want 2000 + 2000", got)
	}
}

func TestNothingAllocates(t *testing.T) {
	var c stat.Counter
	var h stat.Histogram
	var s stat.Snapshot
	if n := testing.AllocsPerRun(1000, func() { c.Add(1); h.Observe(time.Millisecond); h.Snapshot(&s) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkCounter(b *testing.B) {
	var c stat.Counter
	for b.Loop() {
		c.Add(1)
	}
}

func BenchmarkHistogram(b *testing.B) {
	var h stat.Histogram
	for b.Loop() {
		h.Observe(time.Millisecond)
	}
}
