package bench

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// A Spread is what several rounds gave: the middle one, and how far the others lie.
type Spread struct{ Median, Min, Max float64 }

// SpreadOf summarises rounds; none give the zero Spread. With an even number of rounds the median is the mean of the two
// in the middle.
func SpreadOf(rounds []float64) Spread {
	if len(rounds) == 0 {
		return Spread{}
	}
	s := slices.Sorted(slices.Values(rounds))
	mid := len(s) / 2
	m := s[mid]
	if len(s)%2 == 0 {
		m = (s[mid-1] + s[mid]) / 2
	}
	return Spread{m, s[0], s[len(s)-1]}
}

// String is "12,300 (11,900-12,800)": three significant digits at least, thousands apart.
func (s Spread) String() string {
	return fmt.Sprintf("%s (%s-%s)", Number(s.Median), Number(s.Min), Number(s.Max))
}

// Number writes v with three significant digits at least and thousands apart.
func Number(v float64) string {
	a := max(v, -v)
	switch {
	case a < 10:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case a < 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	digits := strconv.FormatFloat(a, 'f', 0, 64)
	var b strings.Builder
	if v < 0 {
		b.WriteByte('-')
	}
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// A Table is one section of a report: what was done, the rows, and what follows from them.
type Table struct {
	Title string
	About string   // how it was measured
	Head  []string // names of the columns
	Rows  [][]string
	Lines []string // one sentence each, below the table
}

// WriteTo writes t as Markdown.
func (t *Table) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n\n%s\n\n", t.Title, t.About)
	if len(t.Rows) > 0 {
		row(&b, t.Head)
		b.WriteString("|" + strings.Repeat("---|", len(t.Head)) + "\n")
		for _, r := range t.Rows {
			row(&b, r)
		}
		b.WriteByte('\n')
	}
	for _, l := range t.Lines {
		fmt.Fprintf(&b, "- %s\n", l)
	}
	if len(t.Lines) > 0 {
		b.WriteByte('\n')
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

func row(b *strings.Builder, cells []string) {
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}
