package config

import (
	"fmt"
	"slices"
	"strings"
)

// A Problem is one thing wrong with a configuration. It never shows a value that came from ${env:} or ${file:}, nor a
// secret.
type Problem struct {
	File   string // the file as it was named, or "environment variable NAME", "flag PATH"
	Line   int    // from 1; 0 if File is no file or cannot be read
	Column int    // from 1, in characters; 0 as Line
	Path   string // of the key or value, "plans.gold.limits"; "" is the whole
	Msg    string // says the path where it matters
}

func (p Problem) String() string {
	return pos{p.File, p.Line, p.Column}.String() + ": " + p.Msg
}

// Problems is the error of Load: everything that is wrong, by file and position.
type Problems struct{ List []Problem }

// Error is a line for each problem and a last one with their number, without a line end.
func (p *Problems) Error() string {
	var b strings.Builder
	for _, one := range p.List {
		fmt.Fprintln(&b, one)
	}
	if len(p.List) == 1 {
		b.WriteString("1 problem")
	} else {
		fmt.Fprintf(&b, "%d problems", len(p.List))
	}
	return b.String()
}

// pos is where something stands. A pos without line is a whole file, an environment variable or a flag.
type pos struct {
	file         string
	line, column int
}

func (p pos) String() string {
	if p.line == 0 {
		return p.file
	}
	return fmt.Sprintf("%s:%d:%d", p.file, p.line, p.column)
}

// suggest is "; did you mean ..." with the name nearest to word, or "" if none is near: one slip in three letters.
func suggest(word string, names []string) string {
	best, least := "", max(1, len(word)/3)+1
	for _, name := range slices.Sorted(slices.Values(names)) {
		if d := distance(fold(word), fold(name)); d < least {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// fold makes names alike that people mix up.
func fold(name string) string {
	return strings.ReplaceAll(strings.ToLower(name), "-", "_")
}

// distance is how many letters have to be added, dropped, changed or swapped with their neighbour to make b of a (optimal
// string alignment). Words over 64 bytes are as far apart as can be: no name is that long.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return max(len(a), len(b))
	}
	var before, above, row [65]int
	for j := range len(b) + 1 {
		above[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, above = above, row
	}
	return above[len(b)]
}
