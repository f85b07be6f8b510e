package load

import (
	"cmp"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

var page = template.Must(template.New("report").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{{.Title}}</title><style>
:root{color-scheme:light dark;--p:#fff;--t:#1f2328;--m:#59636e;--g:#d1d9e0;--l0:#0969da;--l1:#bc4c00;--l2:#1a7f37;--l3:#8250df;--good:#1a7f37;--bad:#cf222e}
@media(prefers-color-scheme:dark){:root{--p:#0d1117;--t:#e6edf3;--m:#9198a1;--g:#3d444d;--l0:#58a6ff;--l1:#f0883e;--l2:#3fb950;--l3:#bc8cff;--good:#3fb950;--bad:#f85149}}
body{background:var(--p);color:var(--t);font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:24px;margin:0}h2{font-size:18px;margin:32px 0 8px;border-bottom:1px solid var(--g);padding-bottom:4px}
p{margin:4px 0}.m{color:var(--m)}code,pre{font:13px ui-monospace,monospace}pre{border:1px solid var(--g);border-radius:6px;padding:10px 12px;overflow-x:auto;white-space:pre-wrap;overflow-wrap:anywhere}
.v{display:inline-block;border-radius:6px;padding:2px 10px;font-weight:600;color:var(--p);background:var(--m);vertical-align:3px;font-size:15px}.PASS{background:var(--good)}.FAIL,.INVALID{background:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:8px;margin:16px 0}
.tiles div{border:1px solid var(--g);border-radius:6px;padding:8px 12px}.tiles b{display:block;font-size:20px;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{text-align:right;padding:4px 8px;border-bottom:1px solid var(--g)}th:first-child,td:first-child{text-align:left}th{color:var(--m);font-weight:500}
.w{overflow-x:auto}figure{margin:12px 0}svg{width:100%;height:auto;display:block}svg text{font:12px system-ui,sans-serif;fill:var(--m)}svg text.t{font-size:14px;font-weight:600;fill:var(--t)}
.g{stroke:var(--g);fill:none}.c{fill:none;stroke-width:1.8}.d{fill:transparent}.d:hover{fill:var(--t)}
polyline.l0{stroke:var(--l0)}polyline.l1{stroke:var(--l1)}polyline.l2{stroke:var(--l2)}polyline.l3{stroke:var(--l3)}
svg text.l0{fill:var(--l0)}svg text.l1{fill:var(--l1)}svg text.l2{fill:var(--l2)}svg text.l3{fill:var(--l3)}
</style></head><body>
<h1>{{.Title}} <span class="v {{.R.Verdict}}">{{.R.Verdict}}</span></h1>
<p class="m">{{.When}}, on {{.R.Host.Name}}, by {{.R.Tool}}</p>
{{range .R.Why}}<p><strong>{{.}}</strong></p>{{end}}{{range .R.Notes}}<p class="m">{{.}}</p>{{end}}
<div class="tiles">{{range .Tiles}}<div><b>{{.Value}}</b><span class="m">{{.Name}}</span></div>{{end}}</div>
{{if .Latencies}}<h2>Latency</h2><div class="w"><table><tr><th>what</th><th>count</th><th>mean</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>p99.99</th><th>max</th></tr>
{{range .Latencies}}<tr>{{range .}}<td>{{.}}</td>{{end}}</tr>{{end}}</table></div>{{end}}
{{range .Charts}}{{.}}{{end}}
{{if .Errors}}<h2>Errors</h2><div class="w"><table><tr><th>class</th><th>while opening</th><th>in the run</th><th>the first of them</th></tr>{{range .Errors}}<tr>{{range .}}<td>{{.}}</td>{{end}}</tr>{{end}}</table></div>{{end}}
{{with .R.Hostile}}{{if .Peers}}<h2>Attack</h2><div class="w"><table><tr><th>kind</th><th>came</th><th>cut off</th><th>open at the end</th><th>errors</th></tr>{{range .Peers}}<tr><td>{{.Kind}}</td><td>{{.Came}}</td><td>{{.CutOff}}</td><td>{{.Open}}</td><td>{{.Listed}}</td></tr>{{end}}</table></div>{{end}}{{end}}
<h2>Command</h2><pre>{{.Command}}</pre>
<h2>Settings</h2><div class="w"><table>{{range .Settings}}<tr><td>{{.Name}}</td><td>{{.Value}}</td></tr>{{end}}</table></div>
<h2>Environment</h2><div class="w"><table>{{range .Facts}}<tr><td>{{.Name}}</td><td>{{.Value}}</td></tr>{{end}}</table></div>
</body></html>
`))

type named struct{ Name, Value string }

// WriteHTML writes r as one page that needs nothing from elsewhere.
func (r *Result) WriteHTML(w io.Writer) (int64, error) {
	charts, err := r.charts()
	if err != nil {
		return 0, err
	}
	n := &counting{w: w}
	err = page.Execute(n, map[string]any{
		"R": r, "Title": "ticketgate bench " + r.Settings.Verb, "When": r.Started.Format("2006-01-02 15:04:05 MST"), "Tiles": r.tiles(),
		"Latencies": r.latencyRows(), "Charts": charts, "Errors": r.errorRows(), "Command": strings.Join(quoted(r.Command), " "), "Settings": r.Settings.named(), "Facts": r.facts(),
	})
	return n.n, err
}

// counting counts what is written.
type counting struct {
	w io.Writer
	n int64
}

// Write implements io.Writer.
func (c *counting) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// quoted is args as a shell reads them.
func quoted(args []string) []string {
	var all []string
	for _, a := range args {
		if a == "" || strings.ContainsAny(a, " \t\n\"'\\$&|<>;()*?`#~![]{}") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		all = append(all, a)
	}
	return all
}

func (r *Result) tiles() []named {
	run := &r.Run
	var all []named
	add := func(name, format string, args ...any) { all = append(all, named{name, fmt.Sprintf(format, args...)}) }
	if r.Opening.Wanted > 0 {
		add(fmt.Sprintf("of %d sockets open", r.Opening.Wanted), "%d", r.Opening.Opened)
		if run.Took > 0 {
			add("open at the end", "%d", run.Held)
		}
		if n := r.Opening.Lost + run.Lost; n > 0 {
			add("lost", "%d", n)
		}
	}
	if r.Settings.Verb != Connect {
		of := "operations a second"
		if run.Wanted > 0 {
			of = fmt.Sprintf("of %.0f a second wanted", run.Wanted)
		}
		add(of, "%.0f", run.Rate)
	}
	if l := run.Latency; l != nil {
		add("p50", "%s", short(l.P50))
		add("p99", "%s", short(l.P99))
	}
	add(percent(run.ErrorShare)+" errors", "%d", sum(run.Errors))
	if s := r.Server; s != nil {
		add("cores of the server", "%.2f", s.Cores)
		if s.PerDone > 0 {
			add("server CPU an operation", "%.2f µs", float64(s.PerDone)/1e3)
		}
		if s.PerSocket > 0 {
			add("server memory a socket", "%.0f B", s.PerSocket)
		}
	}
	if each, ok := r.kernelPerSocket(); ok {
		add("kernel memory a socket"+r.ends(), "%.0f B", each)
	}
	return all
}

// ends says whose ends of the sockets this machine's kernel has.
func (r *Result) ends() string {
	if r.Server != nil {
		return ", both ends"
	}
	return ", the client's end"
}

// named are the settings of a run, as a reader looks for them.
func (s *Settings) named() []named {
	var all []named
	add := func(name string, is bool, format string, args ...any) {
		if is {
			all = append(all, named{name, fmt.Sprintf(format, args...)})
		}
	}
	add("target", s.Target != "", "%s", s.Target)
	add("target, without tickets", s.Plain != "", "%s", s.Plain)
	add("stream", s.Stream != "", "%s", s.Stream)
	add("clients", s.Clients > 0, "%d", s.Clients)
	add("sockets", s.hasSockets(), "%d", s.Sockets)
	add("ramp", s.Ramp > 0, "%.0f sockets a second", s.Ramp)
	add("rate", s.Rate != "", "%s a second%s", s.Rate, map[bool]string{true: ", Poisson"}[s.Poisson])
	add("rate", s.Rate == "" && s.Verb != Connect && s.Verb != Feed, "closed loop, %d in flight", max(s.InFlight, 1))
	add("size", s.messages(), "%d B", s.Size)
	add("attacks", len(s.Attacks) > 0, "%s, %d peers each", strings.Join(s.Attacks, ", "), s.Hostile)
	add("duration", true, "%s, and up to %s for answers", s.Duration, s.Settle)
	add("timeout", s.Timeout > 0, "%s for a ticket, and for connecting and upgrading", s.Timeout)
	add("processes", true, "%d%s", s.Procs, map[bool]string{true: ", each on one core"}[s.Pin])
	add("lanes of each", true, "%d", s.Lanes)
	add("source addresses", len(s.Sources) > 0, "%d", len(s.Sources))
	return append(all, named{"seed", fmt.Sprint(s.Seed)})
}

func (r *Result) latencyRows() [][]string {
	var rows [][]string
	add := func(name string, l *Latency) {
		if l != nil {
			rows = append(rows, []string{name, count(l.Count), short(l.Mean), short(l.P50), short(l.P90), short(l.P99), short(l.P999), short(l.P9999), short(l.Max)})
		}
	}
	add("operation, from due", r.Run.Latency)
	add("to the backend", r.Run.In)
	add("back from the backend", r.Run.Out)
	if h := r.Hostile; h != nil {
		add("before the attack", h.Before)
		add("under attack", h.Under)
	}
	add("ticket, in the run", r.Run.Ticket)
	add("dial to 101, in the run", r.Run.Open)
	add("ticket, while opening", r.Opening.Ticket)
	add("dial to 101, while opening", r.Opening.Open)
	add("begun after due (client)", r.Run.Schedule)
	add("begun after due, while opening (client)", r.Opening.Schedule)
	return rows
}

func (r *Result) errorRows() [][]string {
	classes := make(map[string]bool)
	for _, errs := range []map[string]uint64{r.Opening.Errors, r.Run.Errors} {
		for class := range errs {
			classes[class] = true
		}
	}
	var rows [][]string
	for _, class := range sortedKeys(classes) {
		rows = append(rows, []string{class, fmt.Sprint(r.Opening.Errors[class]), fmt.Sprint(r.Run.Errors[class]), oneLine(r.Examples[class])})
	}
	return rows
}

func (r *Result) facts() []named {
	h := r.Host
	all := []named{
		{"machine", fmt.Sprintf("%s, %d cores, %.1f GiB", h.CPU, h.Cores, float64(h.Memory)/(1<<30))},
		{"kernel", "Linux " + h.Kernel}, {"Go", h.Go}, {"load average at the start", fmt.Sprintf("%.2f", h.Load)},
		{"cores that the client may use", strings.Trim(fmt.Sprint(h.Affinity), "[]")},
		{"descriptors a process", fmt.Sprint(h.Files)}, {"client processes", fmt.Sprint(r.Client.Processes)},
		{"client, busiest process", percent(r.Client.Busiest) + " of a core"},
		{"client, busiest process while opening", percent(r.Opening.Busiest) + " of a core"},
		{"client resident, at the end", mib(r.Client.RSS)},
	}
	if r.Client.PerSocket > 0 {
		all = append(all, named{"client memory a socket", fmt.Sprintf("%.0f B", r.Client.PerSocket)})
	}
	if b := r.Backend; b != nil {
		all = append(all, named{"backend, which is the client's", fmt.Sprintf("%d process%s, the busiest %s of a core%s", b.Processes, map[bool]string{true: "es"}[b.Processes != 1], percent(b.Busiest), errorText(b.Errors))})
	}
	if s := r.Server; s != nil {
		if s.Thread > 0 {
			all = append(all, named{"server, busiest thread", percent(s.Thread) + " of a core"})
		}
		all = append(all, named{"server processes", strings.Trim(fmt.Sprint(s.PIDs), "[]")},
			named{"server resident", fmt.Sprintf("before %s, all open %s, at the end %s, most %s", mib(s.Before), mib(s.Full), mib(s.After), mib(s.Most))})
	}
	if k := r.Kernel; k != nil {
		slabs := "not known: this kernel does not tell"
		if k[0].Slabs > 0 {
			slabs = fmt.Sprintf("before %s, at the end %s", mib(k[0].Slabs), mib(k[1].Slabs))
		}
		all = append(all, named{"kernel slabs, of the machine", slabs},
			named{"TCP buffers, of the machine", fmt.Sprintf("before %s, at the end %s", mib(k[0].TCP), mib(k[1].TCP))})
	}
	for _, name := range sortedKeys(h.Sysctl) {
		all = append(all, named{name, h.Sysctl[name]})
	}
	return append(all, named{"took", r.Took.Round(time.Millisecond).String()})
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// charts are the pictures of r.
func (r *Result) charts() ([]template.HTML, error) {
	var all []template.HTML
	add := func(c chart) {
		if svg := c.svg(); svg != "" {
			all = append(all, template.HTML(svg)) // its texts are escaped
		}
	}
	p, err := r.percentiles()
	if err != nil {
		return nil, err
	}
	add(p)
	run := r.moments(phaseRun)
	whole := append(r.moments(phaseOpen), run...)
	line := func(name string, points []Point, of func(Point) (float64, bool)) curve {
		c := curve{name: name}
		for _, p := range points {
			if v, ok := of(p); ok {
				c.x, c.y = append(c.x, p.At.Seconds()), append(c.y, v)
			}
		}
		return c
	}
	rate := func(n func(Point) uint64) func(Point) (float64, bool) {
		return func(p Point) (float64, bool) { return float64(n(p)) / p.Seconds, true }
	}
	const seconds = "seconds since the first socket"
	number := func(v float64) string { return count(uint64(math.Round(v))) }
	ms := func(v float64) string { return short(time.Duration(v)) }
	had := func(of func(Point) time.Duration) func(Point) (float64, bool) {
		return func(p Point) (float64, bool) { return float64(of(p)), p.Max > 0 }
	}
	if r.Settings.Verb != Connect {
		add(chart{title: "Operations a second", x: seconds, format: number, whole: true, lines: []curve{
			line("done", run, rate(func(p Point) uint64 { return p.Done })),
			line("errors", run, rate(func(p Point) uint64 { return p.Errors })),
			line("late", run, rate(func(p Point) uint64 { return p.Late })),
		}})
		add(chart{title: "Latency over time", x: seconds, format: ms, lines: []curve{
			line("p50", run, had(func(p Point) time.Duration { return p.P50 })),
			line("p99", run, had(func(p Point) time.Duration { return p.P99 })),
			line("max", run, had(func(p Point) time.Duration { return p.Max })),
		}})
	}
	opening := r.moments(phaseOpen)
	if r.Opening.Wanted > 0 {
		last := 0
		add(chart{title: "Sockets opened a second", x: seconds, format: number, whole: true, lines: []curve{
			line("opened", opening, func(p Point) (float64, bool) {
				more := max(p.Open-last, 0)
				last = p.Open
				return float64(more) / p.Seconds, true
			}),
		}})
		what := "Dial to 101"
		if r.Opening.Ticket != nil {
			what = "Tickets"
		}
		add(chart{title: what + " over time, while sockets were opened", x: seconds, format: ms, lines: []curve{
			line("p50", opening, had(func(p Point) time.Duration { return p.P50 })),
			line("p99", opening, had(func(p Point) time.Duration { return p.P99 })),
			line("max", opening, had(func(p Point) time.Duration { return p.Max })),
		}})
	}
	add(chart{title: "Open sockets", x: seconds, format: number, whole: true, lines: []curve{
		line("open", whole, func(p Point) (float64, bool) { return float64(p.Open), true }),
	}})
	var before int64 // of the machine's slabs
	if r.Kernel != nil {
		before = r.Kernel[0].Slabs
	}
	resident := func(of func(Point) int64, less int64) func(Point) (float64, bool) {
		return func(p Point) (float64, bool) { return max(float64(of(p)-less), 0) / (1 << 20), of(p) > 0 }
	}
	add(chart{title: "Memory: resident, and growth of the kernel's slabs", x: seconds, format: func(v float64) string { return trim(v) + " MiB" }, lines: drawnOf(
		line("server", whole, resident(func(p Point) int64 { return p.RSS }, 0)),
		line("client", whole, resident(func(p Point) int64 { return p.ClientRSS }, 0)),
		line("kernel", whole, resident(func(p Point) int64 { return p.SlabSize }, before)),
	)})
	cores := []curve{line("client", whole, func(p Point) (float64, bool) { return p.Client, true })}
	if r.Server != nil {
		cores = append(cores, line("server", whole, func(p Point) (float64, bool) { return p.Server, true }))
	}
	add(chart{title: "Cores in use", x: seconds, format: trim, lines: cores})
	return all, nil
}

// drawnOf leaves out the lines that have no point.
func drawnOf(all ...curve) []curve {
	return slices.DeleteFunc(all, func(c curve) bool { return len(c.x) == 0 })
}

// percentiles is the distribution of the latencies: equal steps on the x axis are ten times rarer values.
func (r *Result) percentiles() (chart, error) {
	c := chart{title: "Latency by percentile", x: "percentile", format: func(v float64) string { return short(time.Duration(v)) }}
	most := 0.0
	for _, of := range []struct {
		name string
		l    *Latency
	}{{"operation", r.Run.Latency}, {"in", r.Run.In}, {"out", r.Run.Out}, {"ticket", cmp.Or(r.Run.Ticket, r.Opening.Ticket)}, {"open", cmp.Or(r.Run.Open, r.Opening.Open)}} {
		if of.l == nil || len(c.lines) == 4 || r.Run.Latency != nil && (of.name == "ticket" || of.name == "open") {
			continue
		}
		h, err := of.l.hist()
		if err != nil {
			return chart{}, err
		}
		line := byPercentile(h)
		line.name = of.name
		c.lines = append(c.lines, line)
		most = max(most, line.x[len(line.x)-1])
	}
	for _, p := range []float64{0, 90, 99, 99.9, 99.99, 99.999} {
		if at := rarity(p); at <= math.Ceil(most) {
			c.marks = append(c.marks, mark{at, strings.TrimSuffix(trim3(p), ".") + "%"})
		}
	}
	return c, nil
}

func trim3(v float64) string { return strings.TrimRight(fmt.Sprintf("%.3f", v), "0") }

// rarity is 0 for all values, 1 for one in ten, 2 for one in a hundred.
func rarity(percentile float64) float64 { return -math.Log10(1 - percentile/100) }

func byPercentile(h *hdrhistogram.Histogram) curve {
	var c curve
	end := math.Log10(float64(max(h.TotalCount(), 10)))
	for x := 0.0; x <= end; x += 0.05 {
		c.x = append(c.x, x)
		c.y = append(c.y, float64(h.ValueAtPercentile(100*(1-math.Pow(10, -x)))))
	}
	return c
}
