package conform

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// titles are the suite's sections.
var titles = map[string]string{
	"1": "framing", "2": "pings and pongs", "3": "reserved bits", "4": "opcodes", "5": "fragmentation", "6": "UTF-8",
	"7": "closing", "9": "limits", "10": "auto-fragmentation", "12": "compression: payloads", "13": "compression: offers",
	beyondSection: "beyond the suite",
}

// Tally is how many results there are of each kind.
type Tally struct {
	Cases    int
	Verdicts [Failed + 1]int
	Endings  [Unclean + 1]int
	Took     time.Duration // of all cases, one after the other
}

// add counts r. A case that was not played has no ending.
func (t *Tally) add(r *Result) {
	t.Cases++
	t.Verdicts[r.Verdict]++
	t.Endings[r.Ending]++
	t.Took += r.Took
}

// Wrong is how many cases failed, or ended with a wrong code or not cleanly; a case may count more than once.
func (t *Tally) Wrong() int { return t.Verdicts[Failed] + t.Endings[WrongCode] + t.Endings[Unclean] }

// Count adds up results.
func Count(results []Result) Tally {
	var t Tally
	for i := range results {
		t.add(&results[i])
	}
	return t
}

// Print writes a table by section, and its sum.
func Print(w io.Writer, results []Result) {
	const row = "  %-26s %5v %5v %10v %13v %13v %6v | %5v %10v %7v %8v\n"
	fmt.Fprintf(w, row, "section", "cases", "OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED", "CLEAN", "WRONG CODE", "UNCLEAN", "seconds")
	line := func(name string, t *Tally) {
		v, e := t.Verdicts, t.Endings
		fmt.Fprintf(w, row, name, t.Cases, v[OK], v[NonStrict], v[Informational], v[Unimplemented], v[Failed], e[Clean], e[WrongCode], e[Unclean],
			fmt.Sprintf("%.1f", t.Took.Seconds()))
	}
	sections := map[string]*Tally{}
	for i := range results {
		s := results[i].Case.Section()
		if sections[s] == nil {
			sections[s] = new(Tally)
		}
		sections[s].add(&results[i])
	}
	for _, s := range rising(sections) {
		line(s+" "+titles[s], sections[s])
	}
	sum := Count(results)
	line("all", &sum)
}

// rising are the keys in the order of their numbers.
func rising(sections map[string]*Tally) []string {
	var all []string
	for s := range sections {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b string) int {
		x, _ := strconv.Atoi(a) // all are numbers
		y, _ := strconv.Atoi(b)
		return x - y
	})
	return all
}

// Line tells of one result.
func (r *Result) Line() string {
	rfc, clause := "6455", r.Case.Clause
	if c, ok := strings.CutPrefix(clause, "7692 "); ok {
		rfc, clause = "7692", c
	}
	return fmt.Sprintf("%-8s %s, %s: %s: %s (RFC %s section %s)", r.Case.ID, r.Verdict, r.Ending, r.Case.Does, r.Why, rfc, clause)
}
