package load

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"
)

// drawn is finished with all that a page can show.
func drawn(t *testing.T) *Result {
	t.Helper()
	r := finished()
	h := newHist()
	for i := range 10_000 {
		record(h, time.Duration(i)*time.Microsecond, 1)
	}
	l, err := latencyOf(h)
	if err != nil {
		t.Fatal(err)
	}
	r.Run.Latency, r.Run.In, r.Run.Out, r.Opening.Ticket, r.Opening.Open = l, l, l, l, l
	r.Run.Errors, r.Opening.Errors = map[string]uint64{"close_1013": 20}, map[string]uint64{"http_429": 3}
	for i := range 20 {
		at := time.Duration(i) * 500 * time.Millisecond
		p := Point{At: at, Phase: phaseRun, Open: 10, Begun: 500, Done: 500, Seconds: 0.5, P50: time.Millisecond, P99: 9 * time.Millisecond, Max: 10 * time.Millisecond,
			Client: 0.3, Server: 0.5, RSS: 100 << 20, ClientRSS: 20 << 20, SlabSize: int64(300+i) << 20}
		if i < 3 {
			p = Point{At: at, Phase: phaseOpen, Open: 3 * i, Seconds: 0.5, P50: time.Millisecond, P99: 2 * time.Millisecond, Max: 3 * time.Millisecond}
		}
		r.Series = append(r.Series, p)
	}
	r.Command = []string{"ticketgate", "bench", "echo"}
	return r
}

func pageOf(t *testing.T, r *Result) string {
	t.Helper()
	var b bytes.Buffer
	n, err := r.WriteHTML(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("%d of %d bytes, %v", n, b.Len(), err)
	}
	return b.String()
}

var void = regexp.MustCompile(`<(!doctype html|meta [^>]*)>`)

// wellFormed reads a page as XML, but for the elements of HTML that have no end.
func wellFormed(page string) error {
	d := xml.NewDecoder(strings.NewReader(void.ReplaceAllString(page, "")))
	for {
		if _, err := d.Token(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

func TestHTML(t *testing.T) {
	bare := &Result{Settings: plainEcho(), Verdict: Done}
	connect := drawn(t)
	connect.Settings.Verb, connect.Run.Latency = Connect, nil
	for name, r := range map[string]*Result{"whole": drawn(t), "bare": bare, "connect": connect} {
		page := pageOf(t, r)
		if err := wellFormed(page); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, bad := range []string{"http://", "https://", "src=", "href=", "url(", "@import", "<link", "<script", "NaN", "Inf", "%!", "<no value>", "ZgotmplZ"} {
			if strings.Contains(page, bad) {
				t.Errorf("%s: the page has %s", name, bad)
			}
		}
	}
	r := drawn(t)
	r.Examples = map[string]string{"http_429": "too\nmany"}
	page := pageOf(t, r)
	for _, part := range []string{
		"<title>ticketgate bench echo</title>", `<span class="v DONE">DONE</span>`, "Latency by percentile", "Operations a second", "Latency over time", "Open sockets",
		"Sockets opened a second", "Tickets over time, while sockets were opened", "<title>opened 1: 6</title>", "Memory: resident, and growth of the kernel", "Cores in use", "<td>operation, from due</td>", "<td>close_1013</td><td>0</td><td>20</td><td></td>", "<td>http_429</td><td>3</td><td>0</td><td>too many</td>",
		"<pre>ticketgate bench echo</pre>", "99.99%", "25.00 µs", "5000 B",
	} {
		if !strings.Contains(page, part) {
			t.Errorf("the page has no %s", part)
		}
	}
	if n := strings.Count(page, "<svg"); n != 8 {
		t.Errorf("%d charts", n)
	}
}

// A mark at the right end stays in the picture.
func TestChartMarks(t *testing.T) {
	c := chart{lines: []curve{{x: []float64{0, 4}, y: []float64{1, 2}}}, marks: []mark{{0, "0%"}, {4, "99.99%"}}, format: trim}
	for _, want := range []string{`x="76.0" y="236" text-anchor="middle">0%<`, `x="760.0" y="236" text-anchor="end">99.99%<`} {
		if svg := c.svg(); !strings.Contains(svg, want) {
			t.Errorf("no %s in %s", want, svg)
		}
	}
}

// A page says what was asked for, where, and what the kernel took.
func TestHTMLTells(t *testing.T) {
	r := drawn(t)
	r.Settings.Pin, r.Settings.Stream, r.Settings.Target, r.Settings.Plain = true, "echo", "127.0.0.1:8080", ""
	r.Host.Affinity, r.Host.Sysctl = []int{0, 3}, map[string]string{"net.core.somaxconn": "4096"}
	r.Kernel = &[2]Slab{}
	page := pageOf(t, r)
	for _, want := range []string{
		"<td>target</td><td>127.0.0.1:8080</td>", "<td>stream</td><td>echo</td>", "<td>sockets</td><td>10</td>", "<td>rate</td><td>1000 a second</td>",
		"<td>size</td><td>128 B</td>", "<td>processes</td><td>1, each on one core</td>", "<td>lanes of each</td><td>4</td>",
		"<td>cores that the client may use</td><td>0 3</td>", "<td>net.core.somaxconn</td><td>4096</td>", "not known: this kernel does not tell",
		"<title>server 1.5: 100 MiB</title>", "<title>client 1.5: 20 MiB</title>", "<title>kernel 1.5: 303 MiB</title>",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %s", want)
		}
	}
	if strings.Contains(page, "0.0 MiB, at the end") && strings.Contains(page, "slabs, of the machine</td><td>before") {
		t.Error("slabs that nobody could read are told")
	}
	r.Kernel = &[2]Slab{{Slabs: 300 << 20}, {Slabs: 320 << 20}}
	r.Settings.Rate, r.Settings.InFlight = "", 4
	r.Run.Held, r.Run.Lost, r.Server.Thread = 8, 2, 0.5
	r.Backend = &Backend{Processes: 2, Busiest: 0.25, Errors: map[string]uint64{classFiles: 1}}
	r.Hostile = &Attack{Peers: []Peers{{Kind: "flood", Came: 9, Open: 2, CutOff: 7, Errors: map[string]uint64{classReset: 3}}}}
	page = pageOf(t, r)
	for _, want := range []string{"<title>kernel 1.5: 3 MiB</title>", "<td>kernel slabs, of the machine</td><td>before 300.0 MiB, at the end 320.0 MiB</td>",
		"<td>rate</td><td>closed loop, 4 in flight</td>",
		`<b>8</b><span class="m">open at the end</span>`, `<b>2</b><span class="m">lost</span>`, "<td>server, busiest thread</td><td>50.0% of a core</td>",
		"<td>2 processes, the busiest 25.0% of a core   errors: 1 no_file</td>", "<td>flood</td><td>9</td><td>7</td><td>2</td><td>3 reset</td>"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %s", want)
		}
	}
}

// Whatever stands in a result, it is text.
func TestHTMLEscapes(t *testing.T) {
	const hostile = `<script>alert("1")</script><img src=x onerror='a'>&amp;`
	r := drawn(t)
	r.Command = []string{"ticketgate", "bench", hostile, "it's", ""}
	r.Tool, r.Host.Name, r.Host.CPU, r.Host.Kernel = hostile, hostile, hostile, hostile
	r.Settings.Verb, r.Verdict = hostile, hostile
	r.Why, r.Notes = []string{hostile}, []string{hostile}
	r.Run.Errors = map[string]uint64{hostile: 1}
	page := pageOf(t, r)
	if err := wellFormed(page); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"<script", "<img", `"1"`, "onerror='a'"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	d := xml.NewDecoder(strings.NewReader(void.ReplaceAllString(page, "")))
	var command string
	for {
		tok, err := d.Token()
		if err != nil {
			break
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "pre" {
			if err := d.DecodeElement(&command, &e); err != nil {
				t.Fatal(err)
			}
		}
	}
	if want := `ticketgate bench '<script>alert("1")</script><img src=x onerror='\''a'\''>&amp;' 'it'\''s' ''`; command != want {
		t.Errorf("the command is shown as %s, want %s", command, want)
	}
}

func TestHTMLFails(t *testing.T) {
	if _, err := finished().WriteHTML(full{}); err == nil {
		t.Error("a writer that fails is not heard of")
	}
	r := drawn(t)
	r.Run.Latency.HDR = "garbage"
	if _, err := r.WriteHTML(io.Discard); err == nil {
		t.Error("a histogram that cannot be read is not heard of")
	}
}

// What is written down is read again.
func TestResultFile(t *testing.T) {
	r := drawn(t)
	r.Verdict, r.Why = Fail, []string{"p99<1ms: it is 9ms"}
	var b bytes.Buffer
	if n, err := r.WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatalf("%d of %d bytes, %v", n, b.Len(), err)
	}
	text := b.String()
	again, err := ReadResult(&b)
	if err != nil {
		t.Fatal(err)
	}
	var second bytes.Buffer
	if _, err := again.WriteTo(&second); err != nil || second.String() != text {
		t.Errorf("it differs, %v", err)
	}
	if len(Differences(r, again)) != 0 || pageOf(t, again) != pageOf(t, r) {
		t.Error("what was read is another run")
	}
	for _, bad := range []string{"", "{}", "[]", "not JSON", `{"version":1,"settings":{"verb":"echo"}}`, `{"version":3,"settings":{"verb":"echo"}}`, text[:len(text)/2]} {
		if _, err := ReadResult(strings.NewReader(bad)); !errors.Is(err, ErrResult) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

func TestLines(t *testing.T) {
	part := func(r *Result) {
		r.Opening.Opened, r.Opening.Errors, r.Verdict, r.Why = 7, map[string]uint64{"refused": 3}, Fail, []string{"3 of 10"}
	}
	for _, c := range []struct {
		name   string
		change func(*Result)
		want   []string // beginnings and parts, line by line
	}{
		{"whole", func(*Result) {}, []string{
			"opened  10 of 10 sockets in 0s, 10 open at the end   tickets p50 4ms  p99 40ms   open p50 5ms  p99 50ms",
			"result  rate 1000/s of 1000 wanted   errors 0 (0.2%)   p50 1ms  p90 3ms  p99 10ms  p99.9 20ms  max 40ms   DONE",
			"ways    to the backend p50 2ms  p99 20ms   back p50 3ms  p99 30ms",
			"hostile p99 before 10ms  under attack 30ms (3.00 times)   3 peers cut off",
			"client  busy 30.0% of a core   late 0.3% (begun 100µs after due at p99)   900 B a socket",
			"server  0.50 cores   25.00 µs CPU an operation   resident 100.0 MiB, at the end 110.0 MiB   5000 B a socket",
		}},
		{"bare", func(r *Result) { *r = Result{Settings: plainEcho(), Verdict: Done} }, []string{
			"result  rate 0/s   errors 0 (0.0%)   DONE", "client  busy 0.0% of a core",
		}},
		{"not all", func(r *Result) { part(r); r.Hostile, r.Run.In, r.Server = nil, nil, nil }, []string{
			"opened  7 of 10 sockets", "result  ", "client  ", "fail: 3 of 10",
		}},
		{"connect", func(r *Result) {
			*r = Result{Settings: plainEcho(), Verdict: Invalid, Why: []string{"w"}, Notes: []string{"n"}}
			r.Settings.Verb, r.Run.Held, r.Run.Took, r.Run.Pings, r.Run.Errors = Connect, 7, 2*time.Second, 5, map[string]uint64{"reset": 2, "ended": 1}
		}, []string{
			"result  7 sockets held for 2s, 5 pings answered   errors 3 (0.0%)   INVALID", "errors  1 ended, 2 reset", "client  ", "note    n", "invalid: w",
		}},
	} {
		r := finished()
		c.change(r)
		lines := r.Lines()
		if len(lines) != len(c.want) {
			t.Errorf("%s: %d lines:\n%s", c.name, len(lines), strings.Join(lines, "\n"))
			continue
		}
		for i, want := range c.want {
			if !strings.HasPrefix(lines[i], want) {
				t.Errorf("%s: %q, want %q", c.name, lines[i], want)
			}
		}
	}
	r := finished()
	part(r)
	if line := r.Lines()[0]; !strings.HasSuffix(line, "   errors: 3 refused") {
		t.Errorf("%q", line)
	}
}

func TestProgressLine(t *testing.T) {
	for _, c := range []struct {
		p    Progress
		bar  bool
		want string
	}{
		{Progress{Phase: phaseOpen, Open: 50, Wanted: 100, PerSec: 1234.4}, false, "ramp    50/100  1234/s"},
		{Progress{Phase: phaseOpen, Open: 50, Wanted: 100, Errors: 12}, true, "ramp    [##############--------------] 50/100  0/s  errors 12"},
		{Progress{Phase: phaseOpen}, true, ""},
		{Progress{Phase: phaseOpen, Wanted: 7, Ticket: &Latency{P99: time.Millisecond}, Latency: &Latency{P99: time.Second}}, false, "ramp    0/7  0/s  tickets p99 1ms  open p99 1s"},
		{Progress{Phase: phaseRun, Open: 3, At: 20 * time.Second, For: 10 * time.Second, Total: Counts{Due: 200, Late: 1, Begun: 23_456, Done: 12_345}, PerSec: 10}, true,
			"run     [############################] 10s/10s  open 3  sent 23k  recv 12k  10/s  late 0.5%"},
		{Progress{Phase: phaseRun, At: -time.Second, For: 10 * time.Second, Latency: &Latency{P50: 1000, P99: 2000, P999: 3000}}, true,
			"run     [----------------------------] 0s/10s  open 0  p50 1µs  p99 2µs  p99.9 3µs"},
	} {
		if got := c.p.Line(c.bar); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
