package load

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Differences says why a and b cannot be compared: other machines, other settings, another verb, a run that is not valid.
func Differences(a, b *Result) []string {
	var all []string
	differ := func(what string, x, y any) {
		if x, y := fmt.Sprint(x), fmt.Sprint(y); x != y {
			all = append(all, fmt.Sprintf("%s: %s and %s", what, x, y))
		}
	}
	differ("host", a.Host.Name, b.Host.Name)
	differ("processor", a.Host.CPU, b.Host.CPU)
	differ("cores", a.Host.Cores, b.Host.Cores)
	differ("memory", a.Host.Memory, b.Host.Memory)
	differ("kernel", a.Host.Kernel, b.Host.Kernel)
	s, t := a.Settings, b.Settings
	differ("verb", s.Verb, t.Verb)
	kind := func(s Settings) string {
		if s.Target != "" {
			return "gateway"
		}
		return "without tickets"
	}
	differ("server", kind(s), kind(t))
	differ("stream", s.Stream, t.Stream)
	differ("clients", s.Clients, t.Clients)
	differ("sockets", s.Sockets, t.Sockets)
	differ("ramp", s.Ramp, t.Ramp)
	differ("insisting", s.Insist, t.Insist)
	differ("rate", orNone(s.Rate), orNone(t.Rate))
	differ("poisson", s.Poisson, t.Poisson)
	differ("in flight", s.InFlight, t.InFlight)
	differ("size", s.Size, t.Size)
	differ("duration", s.Duration, t.Duration)
	differ("processes", s.Procs, t.Procs)
	differ("lanes", s.Lanes, t.Lanes)
	differ("pinned to cores", s.Pin, t.Pin)
	differ("attacks", s.Attacks, t.Attacks)
	differ("hostile peers", s.Hostile, t.Hostile)
	for i, r := range []*Result{a, b} {
		if r.Verdict == Invalid {
			all = append(all, fmt.Sprintf("the %s run is INVALID: %s", []string{"first", "second"}[i], strings.Join(r.Why, "; ")))
		}
	}
	return all
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// A Delta is one figure of two runs.
type Delta struct {
	Name   string  `json:"name"`
	A      float64 `json:"a"`
	B      float64 `json:"b"`
	Change float64 `json:"change"` // of b against a, 0.1: a tenth more
	// Noise is how far the figure moves within the runs themselves, as a share: three standard errors of its values half second
	// by half second. A change within it says nothing. 0: not known.
	Noise float64 `json:"noise,omitempty"`
	unit  unit
}

// compared are the figures that Compare shows, with the value of a point that tells their noise.
var compared = []struct {
	name  string
	point func(Point) (float64, bool)
}{
	{"rate", func(p Point) (float64, bool) { return float64(p.Done) / p.Seconds, true }},
	{"p50", func(p Point) (float64, bool) { return float64(p.P50), p.P50 > 0 }},
	{"p99", func(p Point) (float64, bool) { return float64(p.P99), p.P99 > 0 }},
	{"p99.9", nil}, {"max", nil}, {"errors", nil}, {"late", nil}, {"in-p99", nil}, {"out-p99", nil}, {"ticket-p50", nil}, {"ticket-p99", nil},
	{"open-p50", nil}, {"open-p99", nil}, {"socket-bytes", nil},
	{"server-cores", func(p Point) (float64, bool) { return p.Server, true }},
	{"server-cpu", func(p Point) (float64, bool) { return p.Server / (float64(p.Done) / p.Seconds), p.Done > 0 }},
	{"server-growth", nil}, {"slowdown", nil}, {"client-bytes", nil},
}

// Compare returns the figures that both runs have.
func Compare(a, b *Result) []Delta {
	var all []Delta
	for _, c := range compared {
		f := figures[c.name]
		x, ok := f.of(a)
		y, ok2 := f.of(b)
		if !ok || !ok2 || x == 0 && y == 0 {
			continue
		}
		d := Delta{Name: c.name, A: x, B: y, unit: f.unit}
		if x != 0 {
			d.Change = y/x - 1
		}
		if c.point != nil {
			d.Noise = math.Hypot(noise(a, c.point), noise(b, c.point))
		}
		all = append(all, d)
	}
	return all
}

// noise is three standard errors of the mean of the run's points, as a share of it. The first and the last are cut, in which
// the run begins and ends.
func noise(r *Result, of func(Point) (float64, bool)) float64 {
	var values []float64
	for _, p := range r.Series {
		if v, ok := of(p); ok && p.Phase == phaseRun && p.Seconds > 0 {
			values = append(values, v)
		}
	}
	if len(values) < 6 {
		return 0
	}
	values = values[1 : len(values)-1]
	var sum, squares float64
	for _, v := range values {
		sum += v
	}
	mean := sum / float64(len(values))
	for _, v := range values {
		squares += (v - mean) * (v - mean)
	}
	if mean == 0 {
		return 0
	}
	return 3 * math.Sqrt(squares/float64(len(values)-1)/float64(len(values))) / mean
}

// WriteComparison writes a table of all.
func WriteComparison(w io.Writer, all []Delta) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "figure\ta\tb\tchange\tnoise\t\t")
	for _, d := range all {
		note, noise := "", ""
		if d.Noise > 0 {
			noise = "±" + percent(d.Noise)
			if d.A != 0 && math.Abs(d.Change) <= d.Noise {
				note = "within noise"
			}
		}
		change := "-"
		if d.A != 0 {
			change = fmt.Sprintf("%+.1f%%", 100*d.Change)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t\n", d.Name, d.unit.text(d.A), d.unit.text(d.B), change, noise, note)
	}
	return t.Flush()
}
