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

// memoryApart is by what share the memory of one machine differs from boot to boot: the kernel takes its own before it counts.
const memoryApart = 0.01

// Differences says why a and b cannot be compared: other machines, other settings, another verb, a run that is not valid or did
// not come to what it was to do.
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
	if x, y := float64(a.Host.Memory), float64(b.Host.Memory); math.Abs(x-y) > memoryApart*max(x, y) {
		differ("memory", mib(a.Host.Memory), mib(b.Host.Memory))
	}
	differ("kernel", a.Host.Kernel, b.Host.Kernel)
	differ("machine", a.Host.Machine, b.Host.Machine)
	differ("cores that the client may use", a.Host.Affinity, b.Host.Affinity)
	for _, name := range sameSysctls {
		differ(name, orNone(a.Host.Sysctl[name]), orNone(b.Host.Sysctl[name]))
	}
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
	differ("source addresses", len(s.Sources), len(t.Sources))
	differ("settling", s.Settle, t.Settle)
	differ("timeout", s.Timeout, t.Timeout)
	differ("opened sockets", a.Opening.Opened, b.Opening.Opened)
	watched := func(r *Result) string {
		if r.Server == nil {
			return "not watched"
		}
		return "watched"
	}
	differ("server process", watched(a), watched(b))
	for i, r := range []*Result{a, b} {
		if r.Verdict == Invalid || r.Verdict == Interrupted || r.Verdict == Fail && !r.missedOnly() {
			all = append(all, fmt.Sprintf("the %s run is %s: %s", []string{"first", "second"}[i], r.Verdict, strings.Join(r.Why, "; ")))
		}
	}
	return all
}

// missedOnly says that r failed because of what was required of it alone: its figures are what they would be without.
func (r *Result) missedOnly() bool {
	return !slices.ContainsFunc(r.Why, func(why string) bool {
		text, _, _ := strings.Cut(why, ": ")
		_, err := parseRequirement(text)
		return err != nil
	})
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// A Delta is one figure of two runs.
type Delta struct {
	Name   string   `json:"name"`
	A      float64  `json:"a"`
	B      float64  `json:"b"`
	Change *float64 `json:"change"` // of b against a, 0.1: a tenth more; nil: a is 0
	// Noise is how far the difference of the runs moves from one moment of them to the other, as a share: three standard errors.
	// A change within it says nothing. 0: not known.
	Noise float64 `json:"noise,omitempty"`
	unit  unit
}

// withinNoise says that what changed is no more than what moves anyway.
func (d *Delta) withinNoise() bool {
	return d.Change != nil && d.Noise > 0 && math.Abs(*d.Change) <= d.Noise
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
	{"open-p50", nil}, {"open-p99", nil}, {"socket-bytes", nil}, {"kernel-bytes", nil},
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
			change := y/x - 1
			d.Change = &change
		}
		if c.point != nil {
			d.Noise = noise(a.moments(phaseRun), b.moments(phaseRun), c.point)
		}
		all = append(all, d)
	}
	return all
}

// moments are the points of a phase, as many of them added up as all workers report in twice: those of many processes report more
// rarely than there are points, which then have nothing and twice as much in turn.
func (r *Result) moments(phase string) []Point {
	var all []Point
	n := 0 // points in the last moment
	for _, p := range r.Series {
		if p.Phase != phase || p.Seconds <= 0 {
			continue
		}
		if n == 0 || n == r.Settings.reportPoints() {
			all, n = append(all, Point{Phase: phase}), 0
		}
		all[len(all)-1].add(p)
		n++
	}
	return all
}

// add makes of p one point with o, which comes behind it. What was seen at a moment is as o saw it, and a percentile is that of
// whichever has more operations.
func (p *Point) add(o Point) {
	if o.Done >= p.Done {
		p.P50, p.P99 = o.P50, o.P99
	}
	p.At, p.Open, p.RSS, p.ClientRSS, p.SlabSize = o.At, o.Open, o.RSS, o.ClientRSS, o.SlabSize
	p.Begun += o.Begun
	p.Done += o.Done
	p.Errors += o.Errors
	p.Late += o.Late
	p.Max = max(p.Max, o.Max)
	d := p.Seconds + o.Seconds
	p.Client = (p.Client*p.Seconds + o.Client*o.Seconds) / d
	p.Server = (p.Server*p.Seconds + o.Server*o.Seconds) / d
	p.Seconds = d
}

// noiseLeast is how many differences tell something.
const noiseLeast = 4

// noise is three standard errors of the difference between equal moments of two runs, as a share of what they are: what both do
// alike, such as a rate that grows, is in none of the differences. The first moments and the last are cut, in which the runs begin
// and end.
func noise(a, b []Point, of func(Point) (float64, bool)) float64 {
	var values []float64
	n := min(len(a), len(b))
	for i := 1; i < n-1; i++ {
		x, ok := of(a[i])
		y, ok2 := of(b[i])
		switch {
		case !ok || !ok2:
		case x+y == 0:
			values = append(values, 0)
		default:
			values = append(values, 2*(y-x)/(x+y))
		}
	}
	if len(values) < noiseLeast {
		return 0
	}
	var sum, squares float64
	for _, v := range values {
		sum += v
	}
	mean := sum / float64(len(values))
	for _, v := range values {
		squares += (v - mean) * (v - mean)
	}
	return 3 * math.Sqrt(squares/float64(len(values)-1)/float64(len(values)))
}

// WriteComparison writes a table of all.
func WriteComparison(w io.Writer, all []Delta) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "figure\ta\tb\tchange\tnoise\t\t")
	for _, d := range all {
		note, noise := "", ""
		if d.Noise > 0 {
			noise = "±" + percent(d.Noise)
		}
		if d.withinNoise() {
			note = "within noise"
		}
		change := "-"
		if d.Change != nil {
			change = fmt.Sprintf("%+.1f%%", 100**d.Change)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t\n", d.Name, d.unit.text(d.A), d.unit.text(d.B), change, noise, note)
	}
	return t.Flush()
}
