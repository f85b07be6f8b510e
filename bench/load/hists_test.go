package load

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// overTheWire is what a worker's report carries to the process that started it.
func overTheWire(t *testing.T, h hists) map[string][]byte {
	t.Helper()
	line, err := json.Marshal(Report{Hists: h.take()})
	if err != nil {
		t.Fatal(err)
	}
	var r Report
	if err := json.Unmarshal(line, &r); err != nil {
		t.Fatal(err)
	}
	return r.Hists
}

// What workers take in parts, merged, is what one histogram of everything would say.
func TestMergeLosesNothing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	whole, merged := newHist(), make(hists)
	workers := []hists{make(hists), make(hists), make(hists)}
	const n = 50_000
	for i := range n {
		d := time.Duration(rnd.ExpFloat64() * float64(time.Millisecond))
		if i%100 == 0 {
			d *= 1000
		}
		record(whole, d, 1)
		w := workers[i%len(workers)]
		record(w.of(histOperation), d, 1)
		if i%7000 == 0 { // reports come whenever
			if err := merged.merge(overTheWire(t, w)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, w := range workers {
		if err := merged.merge(overTheWire(t, w)); err != nil {
			t.Fatal(err)
		}
	}
	got := merged[histOperation]
	if got.TotalCount() != n || got.Max() != whole.Max() || got.Min() != whole.Min() || got.Mean() != whole.Mean() {
		t.Errorf("%d values from %d to %d, mean %v; want %d from %d to %d, mean %v", got.TotalCount(), got.Min(), got.Max(), got.Mean(),
			n, whole.Min(), whole.Max(), whole.Mean())
	}
	for _, q := range []float64{0, 1, 50, 90, 99, 99.9, 99.99, 100} {
		if got.ValueAtPercentile(q) != whole.ValueAtPercentile(q) {
			t.Errorf("p%v: %d, want %d", q, got.ValueAtPercentile(q), whole.ValueAtPercentile(q))
		}
	}
}

// A histogram knows a value to three digits.
func TestHistQuantiles(t *testing.T) {
	h := newHist()
	var all []time.Duration
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 10_001 {
		d := time.Duration(rnd.Int64N(int64(10*time.Second))) + time.Millisecond
		all = append(all, d)
		record(h, d, 1)
	}
	slices.Sort(all)
	l, err := latencyOf(h)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		got  time.Duration
		q    float64
	}{{"p50", l.P50, 0.5}, {"p90", l.P90, 0.9}, {"p99", l.P99, 0.99}, {"p99.9", l.P999, 0.999}, {"p99.99", l.P9999, 0.9999}, {"max", l.Max, 1}, {"min", l.Min, 0}} {
		exact := all[int(c.q*float64(len(all)-1))]
		if d := (c.got - exact).Abs(); d > exact/500 {
			t.Errorf("%s: %v, exactly %v", c.name, c.got, exact)
		}
	}
	if l.Count != uint64(len(all)) {
		t.Errorf("count %d, want %d", l.Count, len(all))
	}
	again, err := l.hist()
	if err != nil || again.TotalCount() != int64(len(all)) || again.ValueAtPercentile(99) != int64(l.P99) {
		t.Errorf("what is written down is another distribution, %v", err)
	}
}

func TestRecordBounds(t *testing.T) {
	h := newHist()
	record(h, -time.Second, 1)
	record(h, 0, 1)
	record(h, 1000*time.Hour, 3)
	if h.TotalCount() != 5 || h.Min() != 0 {
		t.Errorf("%d values, the smallest %d", h.TotalCount(), h.Min())
	}
	if most := time.Duration(h.Max()); most < time.Hour-time.Hour/500 || most > time.Hour+time.Hour/500 {
		t.Errorf("the longest is %v, want an hour", most)
	}
}

// What was taken is not taken again, and what is empty is not sent.
func TestTake(t *testing.T) {
	h := make(hists)
	h.of("empty")
	record(h.of("one"), time.Second, 2)
	first := overTheWire(t, h)
	if len(first) != 1 || first["one"] == nil {
		t.Errorf("%d histograms were taken: %q", len(first), sortedKeys(first))
	}
	if again := overTheWire(t, h); len(again) != 0 {
		t.Errorf("%q were taken again", sortedKeys(again))
	}
	if l, err := latencyOf(h["one"]); l != nil || err != nil {
		t.Errorf("an empty histogram has latencies: %+v, %v", l, err)
	}
	if l, err := latencyOf(nil); l != nil || err != nil {
		t.Errorf("no histogram has latencies: %+v, %v", l, err)
	}
}

func TestMergeGarbage(t *testing.T) {
	h := newHist()
	record(h, time.Second, 1)
	good, err := encode(h)
	if err != nil {
		t.Fatal(err)
	}
	far := binary.AppendUvarint(nil, 1<<40)
	for name, b := range map[string][]byte{
		"half a number":  {0x80},
		"no count":       {1},
		"a count of 0":   {1, 0},
		"too far":        append(far, 1),
		"one too far":    append(binary.AppendUvarint(nil, uint64(len(h.Export().Counts))), 1),
		"negative count": append([]byte{0}, binary.AppendUvarint(nil, 1<<63)...),
	} {
		if err := make(hists).merge(map[string][]byte{"one": b}); err == nil {
			t.Errorf("%s: merged", name)
		}
	}
	for name, b := range map[string][]byte{
		"nothing":   {},
		"text":      []byte("not a histogram"),
		"truncated": []byte(good[:len(good)/2]),
		"flipped":   append([]byte(good[:len(good)-9]), bytes.Repeat([]byte{'A'}, 9)...),
		"zeros":     make([]byte, 100),
	} {
		if _, err := (&Latency{HDR: string(b)}).hist(); err == nil {
			t.Errorf("%s: read as a distribution", name)
		}
	}
}
