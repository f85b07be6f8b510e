package bench_test

import (
	"strings"
	"testing"

	"ticketgate/bench"
)

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		rounds []float64
		want   bench.Spread
		text   string
	}{
		{nil, bench.Spread{}, "0.00 (0.00-0.00)"},
		{[]float64{7}, bench.Spread{7, 7, 7}, "7.00 (7.00-7.00)"},
		{[]float64{30, 10, 20}, bench.Spread{20, 10, 30}, "20.0 (10.0-30.0)"},
		{[]float64{4, 1, 3, 2}, bench.Spread{2.5, 1, 4}, "2.50 (1.00-4.00)"},
		{[]float64{123456, 999.6, 1234567}, bench.Spread{123456, 999.6, 1234567}, "123,456 (1,000-1,234,567)"},
	} {
		got := bench.SpreadOf(c.rounds)
		if got != c.want || got.String() != c.text {
			t.Errorf("%v: %+v %q, want %+v %q", c.rounds, got, got, c.want, c.text)
		}
	}
	if got := bench.Number(-12345); got != "-12,345" {
		t.Errorf("negative: %q", got)
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	table := bench.Table{Title: "Echo", About: "About it.", Head: []string{"a", "b"}, Rows: [][]string{{"1", "2"}}, Lines: []string{"So."}}
	n, err := table.WriteTo(&b)
	want := "## Echo\n\nAbout it.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- So.\n\n"
	if b.String() != want || n != int64(len(want)) || err != nil {
		t.Errorf("%q, %d, %v", b.String(), n, err)
	}
}
