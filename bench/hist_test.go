package bench_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"ticketgate/bench"
)

// A quantile may exceed the exact one by 1/64 and never falls below it, at any size of value.
func TestHistQuantile(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int64{1, 63, 64, 65, 1000, 1_000_000, 3_600_000_000_000, 1 << 62} {
		var h bench.Hist
		all := make([]time.Duration, 10_000)
		for i := range all {
			all[i] = time.Duration(rng.Int64N(size))
			h.Record(all[i])
		}
		slices.Sort(all)
		for _, q := range []float64{0.0001, 0.1, 0.5, 0.9, 0.99, 0.999, 1} {
			exact := all[max(int(q*float64(len(all))), 1)-1]
			got := h.Quantile(q)
			if got < exact || got > exact+exact/64 {
				t.Errorf("values below %d: quantile %v is %d, exactly %d", size, q, got, exact)
			}
		}
		if h.Max() != all[len(all)-1] || h.Count() != uint64(len(all)) {
			t.Errorf("values below %d: max %d, count %d", size, h.Max(), h.Count())
		}
	}
}

func TestHistEdges(t *testing.T) {
	var h bench.Hist
	if got := h.Quantile(0.5); got != 0 {
		t.Errorf("empty: %v", got)
	}
	h.Record(-time.Second)
	if h.Max() != 0 || h.Count() != 1 {
		t.Errorf("negative: max %v, count %d; want 0, 1", h.Max(), h.Count())
	}
	h.Record(1<<63 - 1)
	if got := h.Quantile(1); got != 1<<63-1 {
		t.Errorf("largest: %d", got)
	}
	if got := h.Quantile(0); got != 0 {
		t.Errorf("quantile 0: %d, want the smallest", got)
	}
	h.Reset()
	if h.Count() != 0 || h.Max() != 0 || h.Quantile(1) != 0 {
		t.Error("Reset left something")
	}
}

func TestHistRecordN(t *testing.T) {
	var one, many bench.Hist
	for range 5 {
		one.Record(30 * time.Microsecond)
	}
	many.RecordN(30*time.Microsecond, 5)
	if one != many || many.Count() != 5 {
		t.Errorf("%d recorded at once differ from 5 recorded one by one", many.Count())
	}
}

func TestHistAdd(t *testing.T) {
	var a, b, both bench.Hist
	for i := range 5000 {
		d := time.Duration(i*i) * time.Microsecond
		both.Record(d)
		if i%3 == 0 {
			a.Record(d)
		} else {
			b.Record(d)
		}
	}
	a.Add(&b)
	if a != both {
		t.Error("two halves added are not the whole")
	}
}

func TestHistAllocates(t *testing.T) {
	var h bench.Hist
	if n := testing.AllocsPerRun(100, func() { h.Record(12345); _ = h.Quantile(0.99) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
