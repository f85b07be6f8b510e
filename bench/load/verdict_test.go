package load

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// finished is the result of an open loop in which nothing went wrong.
func finished() *Result {
	s := plainEcho()
	s.Rate, s.Duration = "1000", 10*time.Second
	latency := func(base time.Duration) *Latency {
		return &Latency{Count: 10_000, Mean: 2 * base, Min: base / 2, P50: base, P90: 3 * base, P99: 10 * base, P999: 20 * base, P9999: 30 * base, Max: 40 * base}
	}
	var series []Point
	for i := range 11 { // the first half is no part of the growth
		p := Point{Phase: phaseRun, At: time.Duration(i) * time.Second, RSS: 50 << 20}
		if i >= 5 {
			p.RSS = int64((92.5 + float64(i)) * (1 << 20))
		}
		series = append(series, p)
	}
	return &Result{
		Series: series, Version: resultVersion, Tool: "ticketgate test", Settings: s, Verdict: Done,
		Opening: Opening{Wanted: 10, Opened: 10, Ticket: latency(4 * time.Millisecond), Open: latency(5 * time.Millisecond)},
		Run: Running{Took: 10 * time.Second, Held: 10, Counts: Counts{Due: 10_000, Begun: 10_000, Done: 10_000}, Rate: 1000, Wanted: 1000,
			ErrorShare: 0.002, LateShare: 0.003,
			Latency: latency(time.Millisecond), In: latency(2 * time.Millisecond), Out: latency(3 * time.Millisecond), Schedule: latency(10 * time.Microsecond)},
		Client:  Client{Processes: 1, Busiest: 0.3, PerSocket: 900},
		Server:  &Server{PIDs: []int{1}, Cores: 0.5, PerDone: 25 * time.Microsecond, Before: 10 << 20, Full: 100 << 20, After: 110 << 20, Most: 120 << 20, PerSocket: 5000},
		Hostile: &Attack{Kinds: []string{"garbage"}, Before: latency(time.Millisecond), Under: latency(3 * time.Millisecond), CutOff: 3},
		Kernel:  &[2]Slab{},
	}
}

func TestParseRequirements(t *testing.T) {
	for _, c := range []struct {
		text  string
		value float64
		than  string
	}{
		{"p99<20ms", 20e6, "<"},
		{"p99 < 1.5s", 1.5e9, "<"},
		{"mean<=250us", 250e3, "<="},
		{"ticket-p99.99>1ns", 1, ">"},
		{"server-cpu<30µs", 30e3, "<"},
		{"errors<0.1%", 0.001, "<"},
		{"errors<25%", 0.25, "<"},
		{"late<=0%", 0, "<="},
		{"server-growth<-1%", -0.01, "<"},
		{"rate>=20000", 20000, ">="},
		{"opened>9e4", 90000, ">"},
		{"slowdown<2", 2, "<"},
		{"server-cores<1.5", 1.5, "<"},
		{"socket-bytes<4KiB", 4096, "<"},
		{"socket-bytes<1MiB", 1 << 20, "<"},
		{"socket-bytes<512B", 512, "<"},
		{"client-bytes<700", 700, "<"},
	} {
		all, err := ParseRequirements(c.text)
		if err != nil || len(all) != 1 {
			t.Errorf("%s: %+v, %v", c.text, all, err)
			continue
		}
		if d := all[0].value - c.value; d < -1e-9 || d > 1e-9 || all[0].than != c.than || all[0].text != c.text {
			t.Errorf("%s: %+v", c.text, all[0])
		}
	}
	all, err := ParseRequirements("p99<20ms, errors<0.1%,rate>=5")
	if err != nil || len(all) != 3 || all[1].text != "errors<0.1%" {
		t.Errorf("three: %+v, %v", all, err)
	}
}

func TestParseRequirementsRefuses(t *testing.T) {
	for _, c := range []struct{ text, why string }{
		{"", `--require "": want NAME<VALUE`},
		{"p99", `--require "p99": want NAME<VALUE or NAME>VALUE, such as p99<20ms`},
		{"p99=20ms", "want NAME<VALUE"},
		{"p98<20ms", `no figure "p98": there are client-bytes, errors, held, in-max`},
		{"<20ms", `no figure ""`},
		{"p99<20", `"20" is no duration such as 20ms`},
		{"p99<", `"" is no duration`},
		{"p99<<20ms", `"<20ms" is no duration`},
		{"errors<few", `"few" is no share such as 0.1%`},
		{"errors<%", `"%" is no share`},
		{"errors<0.1", `"0.1" is no share such as 0.1%`}, // a tenth, or a thousandth?
		{"late<1", `"1" is no share such as 0.1%`},
		{"errors<1ms", `"1ms" is no share`},
		{"socket-bytes<4GB", `is no size such as 512B or 4KiB`},
		{"socket-bytes<KiB", `is no size such as 512B or 4KiB`},
		{"rate>many", `"many" is no number`},
		{"rate>10%", `"10%" is no number`},
		{"rate>NaN", `"NaN" is no number`}, // nothing is above it, nothing below
		{"errors<NaN%", `is no share`},
		{"p99<20ms,", `--require "": want`},
		{"p99<20ms,p98<1ms", `--require "p98<1ms"`},
	} {
		if all, err := ParseRequirements(c.text); err == nil {
			t.Errorf("%q is taken: %+v", c.text, all)
		} else if !strings.Contains(err.Error(), c.why) {
			t.Errorf("%q: %v, want %s", c.text, err, c.why)
		}
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		text, why string // why: the run misses it
	}{
		{"p99<20ms", ""},
		{"p99<10ms", "p99<10ms: it is 10ms"},
		{"p99<=10ms", ""},
		{"p99>10ms", "p99>10ms: it is 10ms"},
		{"p99>=10ms", ""},
		{"p50<900us", "p50<900us: it is 1ms"},
		{"mean<2ms", "mean<2ms: it is 2ms"},
		{"p90<3ms", "p90<3ms: it is 3ms"},
		{"p99.9<20ms", "p99.9<20ms: it is 20ms"},
		{"p99.99<30ms", "p99.99<30ms: it is 30ms"},
		{"max<40ms", "max<40ms: it is 40ms"},
		{"in-p50<2ms", "in-p50<2ms: it is 2ms"},
		{"out-p50<3ms", "out-p50<3ms: it is 3ms"},
		{"ticket-p50<4ms", "ticket-p50<4ms: it is 4ms"},
		{"open-p50<5ms", "open-p50<5ms: it is 5ms"},
		{"schedule-p50<10us", "schedule-p50<10us: it is 10µs"},
		{"errors<0.1%", "errors<0.1%: it is 0.200%"},
		{"errors<0.3%", ""},
		{"late<0.3%", "late<0.3%: it is 0.300%"},
		{"rate>1000", "rate>1000: it is 1000.00"},
		{"opened>=10", ""},
		{"opened>10", "opened>10: it is 10.00"},
		{"held>10", "held>10: it is 10.00"},
		{"lost<1", ""},
		{"lost>0", "lost>0: it is 0.00"},
		{"client-bytes<900", "client-bytes<900: it is 900B"},
		{"socket-bytes<4KiB", "socket-bytes<4KiB: it is 5000B"},
		{"server-cores<0.5", "server-cores<0.5: it is 0.50"},
		{"server-cpu<25us", "server-cpu<25us: it is 25µs"},
		{"server-growth<9.99%", "server-growth<9.99%: it is 10.000%"},
		{"server-growth<10.01%", ""},
		{"slowdown<3", "slowdown<3: it is 3.00"},
		{"p99<20ms,errors<0.3%", ""},
	} {
		r := finished()
		all, err := ParseRequirements(c.text)
		if err != nil {
			t.Fatal(err)
		}
		missed := r.Judge(all)
		if want := c.why != ""; missed != want || r.Verdict != map[bool]string{true: Fail, false: Pass}[want] {
			t.Errorf("%s: missed %t, %s", c.text, missed, r.Verdict)
		}
		if got := strings.Join(r.Why, "; "); got != c.why {
			t.Errorf("%s: %q, want %q", c.text, got, c.why)
		}
	}
}

// A figure that was not measured is missed, never met.
func TestJudgeWithoutFigures(t *testing.T) {
	all := sortedKeys(figures)
	bare := func(*Result) {}
	for _, c := range []struct {
		name   string
		change func(*Result)
		of     func(name string) bool
	}{
		{"no server", bare, func(n string) bool { return strings.HasPrefix(n, "server-") || n == "socket-bytes" }},
		{"nothing done", func(r *Result) { r.Server = &Server{PIDs: []int{1}, Full: 1, After: 1} }, func(n string) bool { return n == "server-cpu" }},
		{"few sockets", func(r *Result) { r.Server = &Server{PIDs: []int{1}, Full: 1, After: 1} }, func(n string) bool { return n == "socket-bytes" || n == "client-bytes" }},
		{"nothing begun", bare, func(n string) bool { return n == "errors" }},
		{"too short for growth", func(r *Result) {
			r.Series = []Point{{Phase: phaseRun, RSS: 1}, {Phase: phaseRun, At: 2, RSS: 1}, {Phase: phaseRun, At: 3, RSS: 1}}
		}, func(n string) bool { return n == "server-growth" }},
		{"no attack", bare, func(n string) bool { return n == "slowdown" }},
		{"nothing before the attack", func(r *Result) { r.Hostile = &Attack{Under: &Latency{P99: 1}} }, func(n string) bool { return n == "slowdown" }},
		{"no latencies", bare, func(n string) bool {
			return n == "max" || n == "mean" || n[0] == 'p' || strings.ContainsAny(n, "-") && figures[n].unit == unitTime
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, name := range all {
				if !c.of(name) {
					continue
				}
				for _, than := range []string{"<", ">"} {
					r := &Result{Settings: plainEcho(), Verdict: Done}
					c.change(r)
					q := Requirement{text: name, name: name, than: than, value: map[string]float64{"<": 1e18, ">": -1e18}[than], unit: figures[name].unit}
					if !r.Judge([]Requirement{q}) || r.Verdict != Fail || !strings.Contains(strings.Join(r.Why, ""), "this run has no "+name) {
						t.Errorf("%s%s is %s: %q", name, than, r.Verdict, r.Why)
					}
				}
			}
		})
	}
}

// What a run is already, requirements make no better.
func TestJudgeKeeps(t *testing.T) {
	all, err := ParseRequirements("p99<1s")
	if err != nil {
		t.Fatal(err)
	}
	hard, err := ParseRequirements("p99<1ns")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		before, after string
		all           []Requirement
		missed        bool
	}{
		{Done, Pass, all, false},
		{Done, Fail, hard, true},
		{Done, Done, nil, false},
		{Fail, Fail, all, false}, // sockets that could not be opened
		{Fail, Fail, hard, true},
		{Invalid, Invalid, all, false},
		{Invalid, Invalid, hard, false},
		{Invalid, Invalid, nil, false},
	} {
		r := finished()
		r.Verdict = c.before
		if missed := r.Judge(c.all); missed != c.missed || r.Verdict != c.after {
			t.Errorf("%s with %d requirements: %s, missed %t; want %s, %t", c.before, len(c.all), r.Verdict, missed, c.after, c.missed)
		}
	}
}

// Delays between clocks that differ meet nothing and miss nothing.
func TestJudgeClocks(t *testing.T) {
	for _, c := range []struct{ text, verdict string }{{"p99<1s", Invalid}, {"rate>1,max>1ns", Invalid}, {"rate>1,server-cpu<1s", Pass}} {
		all, err := ParseRequirements(c.text)
		if err != nil {
			t.Fatal(err)
		}
		r := finished()
		r.Run.Ahead = 1
		if missed := r.Judge(all); missed || r.Verdict != c.verdict || c.verdict == Invalid && !strings.Contains(strings.Join(r.Why, ""), "not known: the clocks") {
			t.Errorf("%s: %s %q, missed %t", c.text, r.Verdict, r.Why, missed)
		}
	}
}

// Figures under an attack that did not happen are not those of an attack.
func TestHarmless(t *testing.T) {
	r := finished()
	r.Hostile.Peers = []Peers{{Kind: "garbage", Came: 1}, {Kind: "oversize", Errors: map[string]uint64{"http_429": 20}}}
	want := []string{"no oversize attacked: none came in: 20 http_429 (429: a limit of the client's plan; --clients spreads the load over several)"}
	if why := r.harmless(); !slices.Equal(why, want) {
		t.Errorf("%q", why)
	}
	if r.Hostile = nil; r.harmless() != nil {
		t.Error("without an attack")
	}
}

func TestFailed(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Result)
		why    string
	}{
		{"nothing", func(*Result) {}, ""},
		{"not all opened", func(r *Result) {
			r.Opening.Opened, r.Run.Held, r.Opening.Errors = 7, 7, map[string]uint64{"refused": 3}
		}, "3 of 10 sockets could not be opened: 3 refused"},
		{"refused for their number", func(r *Result) {
			r.Opening.Opened, r.Run.Held, r.Opening.Errors = 7, 7, map[string]uint64{"http_429": 3}
		},
			"3 of 10 sockets could not be opened: 3 http_429 (429: a limit of the client's plan; --clients spreads the load over several)"},
		{"insisted", func(r *Result) { r.Opening.Errors = map[string]uint64{"refused": 3} }, ""},
		{"lost while others opened", func(r *Result) { r.Opening.Opened, r.Opening.Lost, r.Run.Held = 8, 2, 8 }, "2 of 10 sockets were lost before the run"},
		{"lost in the run", func(r *Result) { r.Run.Held, r.Run.Errors = 9, map[string]uint64{"reset": 1} }, "1 of 10 sockets were lost in the run: 1 reset"},
		{"nothing done", func(r *Result) { r.Run.Counts, r.Run.Errors = Counts{Begun: 64}, map[string]uint64{"no_answer": 64} }, "nothing was done: 64 no_answer"},
		{"a feed that is silent", func(r *Result) { r.Settings.Verb, r.Run.Counts = Feed, Counts{} }, "nothing was done"},
		{"connect does nothing", func(r *Result) { r.Settings.Verb, r.Run.Counts = Connect, Counts{} }, ""},
		{"all of it late", func(r *Result) { r.Run.Counts, r.Run.After = Counts{Begun: 64}, 64 }, ""},
		{"the server went", func(r *Result) { r.Server.Gone = "server process 7: no such process" }, "the server did not stay: server process 7: no such process"},
		{"mostly errors", func(r *Result) { r.Run.Errors = map[string]uint64{"http_429:tickets": 10_001} },
			"10000 operations were done, and 10001 went wrong: 10001 http_429:tickets (429: a limit of the client's plan; --clients spreads the load over several)"},
		{"with several clients", func(r *Result) { r.Settings.Clients, r.Run.Errors = 5, map[string]uint64{"http_429": 10_001} }, "10000 operations were done, and 10001 went wrong: 10001 http_429"},
		{"half errors", func(r *Result) { r.Run.Errors = map[string]uint64{"reset": 10_000} }, ""},
	} {
		r := finished()
		c.change(r)
		if why := strings.Join(r.failed(), "; "); why != c.why {
			t.Errorf("%s: %q, want %q", c.name, why, c.why)
		}
	}
}

func TestSaturated(t *testing.T) {
	closed := func(r *Result) { r.Settings.Rate, r.Client.Busiest = "", 0.97 }
	for _, c := range []struct {
		name   string
		change func(*Result)
		why    []string // parts of each reason
	}{
		{"nothing", func(*Result) {}, nil},
		{"as late as may be", func(r *Result) { r.Run.LateShare = 0.01 }, nil},
		{"late", func(r *Result) { r.Run.LateShare = 0.012 }, []string{"1.2% of the operations began more than 10ms after"}},
		{"just enough were due", func(r *Result) { r.Run.Due = 9900 }, nil},
		{"not all were due", func(r *Result) { r.Run.Due = 9800 }, []string{"it came to 9800 of the 10000 operations"}},
		{"broken off", func(r *Result) { r.Run.Due, r.Run.Took = 5000, 5*time.Second }, nil},
		{"Poisson has no exact count", func(r *Result) { r.Run.Due, r.Settings.Poisson = 9800, true }, nil},
		{"Poisson, late", func(r *Result) { r.Run.LateShare, r.Settings.Poisson = 0.5, true }, []string{"50.0% of"}},
		{"both", func(r *Result) { r.Run.LateShare, r.Run.Due = 0.5, 10 }, []string{"50.0% of", "it came to 10 of"}},
		{"busy, but in time", func(r *Result) { r.Client.Busiest = 1 }, nil},
		{"closed, idle", func(r *Result) { closed(r); r.Client.Busiest = 0.9 }, nil},
		{"closed, busy", closed, []string{"busy 97.0% of its core (the server: 0.50 cores, its busiest thread 0.0%)"}},
		{"closed, as busy as a thread of the server", func(r *Result) { closed(r); r.Server.Thread = 0.9 }, nil},
		{"closed, the server has all that it may", func(r *Result) { closed(r); r.Server.Cores, r.Server.May = 0.95, 1 }, nil},
		{"closed, the server has cores left", func(r *Result) { closed(r); r.Server.Cores, r.Server.May, r.Server.Thread = 1.2, 8, 0.4 }, []string{"1.20 cores, its busiest thread 40.0%"}},
		{"closed, the server uses all its cores", func(r *Result) { closed(r); r.Server.Cores, r.Server.May = 7.5, 8 }, nil},
		{"closed, no server", func(r *Result) { closed(r); r.Server = nil }, []string{"(the server: not known)"}},
		{"connect", func(r *Result) { closed(r); r.Settings.Verb = Connect }, nil},
		{"one process is late", func(r *Result) { r.Client.Late = 0.02 }, []string{"2.0% of the operations of one process"}},
		{"a busy backend", func(r *Result) { r.Backend = &Backend{Busiest: 0.97} }, []string{"the backend, which is its own, was busy 97.0%"}},
		{"a busy backend, and server", func(r *Result) { r.Backend, r.Server.Thread = &Backend{Busiest: 0.97}, 0.95 }, nil},
		{"a backend without descriptors", func(r *Result) { r.Backend = &Backend{Errors: map[string]uint64{classFiles: 3}} }, []string{"the backend, which is its own, had no descriptor for 3 sockets"}},
		{"always a little behind", func(r *Result) { r.Run.Schedule.P50 = 600 * time.Microsecond }, []string{"its own delay is 600µs at p50, more than half of the 1ms that"}},
		{"a tail of its own is a note", func(r *Result) { r.Run.Schedule.P99 = 8 * time.Millisecond }, nil},
		{"no more than a wake-up", func(r *Result) { r.Run.Schedule.P50, r.Run.Latency.P50 = 200*time.Microsecond, 210*time.Microsecond }, nil},
		{"no ports to open with", func(r *Result) { r.Opening.Opened, r.Opening.Errors = 7, map[string]uint64{"no_port": 3} }, []string{"no port or descriptor for 3 sockets"}},
		{"ports came back", func(r *Result) { r.Opening.Errors = map[string]uint64{"no_port": 3} }, nil},
		{"no files", func(r *Result) { r.Run.Errors = map[string]uint64{"no_file": 1} }, []string{"no port or descriptor for some operations: 1 no_file"}},
		{"the server closed all sockets", func(r *Result) { r.Run.Errors = map[string]uint64{"no_connection": 900} }, nil},
		{"no lanes", func(r *Result) { r.Settings.Verb, r.Run.Errors = Tickets, map[string]uint64{"no_connection": 200} }, []string{"2.0% of the operations found all lanes busy"}},
		{"few without a lane", func(r *Result) { r.Settings.Verb, r.Run.Errors = Churn, map[string]uint64{"no_connection": 100} }, nil},
		{"a server that is dead", func(r *Result) {
			r.Settings.Verb, r.Run.Done, r.Run.Errors = Tickets, 0, map[string]uint64{"no_connection": 200}
		}, nil},
		{"late for want of lanes", func(r *Result) { r.Settings.Verb, r.Run.LateShare = Tickets, 0.5 }, []string{"after they were due: give it more --lanes"}},
		{"closed, and stopped for a time", func(r *Result) {
			closed(r)
			r.Client.Busiest, r.Run.Schedule, r.Run.Lag = 0.5, nil, &Lag{P90: 2 * time.Millisecond}
		}, []string{"its own delay is 2ms at p90, more than half of the 3ms"}},
		{"closed, woken late now and then", func(r *Result) {
			closed(r)
			r.Client.Busiest, r.Run.Schedule, r.Run.Lag = 0.5, nil, &Lag{P99: time.Hour}
		}, nil},
		{"a ramp that is late", func(r *Result) {
			r.Settings.Verb, r.Settings.Rate, r.Settings.Ramp, r.Opening.LateShare = Connect, "", 10, 0.02
		},
			[]string{"the client began 2.0% of them more than 10ms after"}},
		{"a ramp of another verb", func(r *Result) { r.Settings.Ramp, r.Opening.LateShare = 10, 0.02 }, nil},
		{"closed, late has no meaning", func(r *Result) { closed(r); r.Client.Busiest, r.Run.LateShare = 0.1, 1 }, nil},
	} {
		r := finished()
		c.change(r)
		why := r.saturated()
		if len(why) != len(c.why) {
			t.Errorf("%s: %q", c.name, why)
			continue
		}
		for i, part := range c.why {
			if !strings.HasPrefix(why[i], "generator saturated: ") || !strings.Contains(why[i], part) {
				t.Errorf("%s: %q, want %q", c.name, why[i], part)
			}
		}
	}
}

// What a verb does not measure is refused before the run; what it may measure is not.
func TestHas(t *testing.T) {
	echo := Settings{Verb: Echo, Target: "http://h", Rate: "10", Sockets: 5000}
	for _, c := range []struct {
		figures string // refused, as they are named; all others that are tried are taken
		change  func(*Settings)
	}{
		{"in-p99 out-max slowdown", func(*Settings) {}},
		{"in-p99 out-max slowdown late schedule-p50", func(s *Settings) { s.Rate = "" }},
		{"in-p99 out-max slowdown ticket-p99", func(s *Settings) { s.Target, s.Plain = "", "ws://h" }},
		{"in-p99 out-max slowdown socket-bytes client-bytes", func(s *Settings) { s.Sockets = 999 }},
		{"slowdown", func(s *Settings) { s.Verb = Relay }},
		{"in-p99 out-max", func(s *Settings) { s.Verb = Hostile }},
		{"in-p99 out-max slowdown late schedule-p50 p99 max rate server-cpu", func(s *Settings) { s.Verb, s.Rate = Connect, "" }},
		{"in-p99 out-max slowdown late schedule-p50", func(s *Settings) { s.Verb, s.Rate = Feed, "" }},
		{"in-p99 out-max slowdown opened held lost socket-bytes client-bytes open-p90", func(s *Settings) { s.Verb = Tickets }},
		{"in-p99 out-max slowdown opened held lost socket-bytes client-bytes", func(s *Settings) { s.Verb = Churn }},
	} {
		s := echo
		c.change(&s)
		for name := range strings.FieldsSeq("p99 max rate errors late opened held lost in-p99 out-max ticket-p99 open-p90 schedule-p50 slowdown socket-bytes client-bytes server-cpu server-cores server-growth") {
			err := s.Has([]Requirement{{text: name + "<1", name: name}})
			if want := slices.Contains(strings.Fields(c.figures), name); (err != nil) != want {
				t.Errorf("%s, rate %q: %s: %v", s.Verb, s.Rate, name, err)
			} else if want && !strings.Contains(err.Error(), "has no "+name) {
				t.Errorf("%v", err)
			}
		}
	}
}

// Everything that can be required is in the manual.
func TestFiguresInManual(t *testing.T) {
	manual, err := os.ReadFile("../../docs/bench.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range sortedKeys(figures) {
		prefix, part, isPart := strings.Cut(name, "-")
		listed := strings.Contains(string(manual), "`"+name+"`")
		if isPart && !listed {
			listed = strings.Contains(string(manual), "`"+prefix+"-`") && strings.Contains(string(manual), "`"+part+"`")
		}
		if !listed {
			t.Errorf("%s is not in docs/bench.md", name)
		}
	}
}

// Tickets are the operations of bench tickets: they have ticket- figures as well.
func TestTicketsOfTickets(t *testing.T) {
	r := finished()
	r.Settings.Verb, r.Opening.Ticket = Tickets, nil
	if p99, ok := figures["ticket-p99"].of(r); !ok || time.Duration(p99) != r.Run.Latency.P99 {
		t.Errorf("%v, %t", p99, ok)
	}
}

// The tail of a client that is woken late now and then is told, and says nothing against the server: it is the faster without it.
func TestOwnDelay(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Running)
		want   string
	}{
		{"none", func(*Running) {}, ""},
		{"at p99", func(r *Running) { r.Schedule.P99 = 8 * time.Millisecond }, "its own delay is 8ms at p99, more than half of the 10ms"},
		{"half of it", func(r *Running) { r.Schedule.P99 = 5 * time.Millisecond }, ""},
		{"too few for a p99", func(r *Running) { r.Schedule.P99, r.Latency.Count = 8*time.Millisecond, 999 }, ""},
		{"at p99.9", func(r *Running) { r.Schedule.P999 = 18 * time.Millisecond }, "its own delay is 18ms at p99.9"},
		{"another percentile", func(r *Running) { r.Schedule.P50 = time.Millisecond }, ""},
		{"a closed loop", func(r *Running) { r.Schedule = nil }, ""},
	} {
		r := finished()
		c.change(&r.Run)
		if got := r.Run.ownDelay(0.01, 0.001); !strings.HasPrefix(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

// Where the client was the one who was slow while sockets were opened, that is a note, and what is required of the times that it took is
// not known.
func TestOpeningOwn(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Result)
		want   string
	}{
		{"neither", func(*Result) {}, ""},
		{"busy", func(r *Result) { r.Opening.Busiest = 0.96 }, "a client process was busy 96.0% of its core"},
		{"busy, as the server", func(r *Result) { r.Opening.Busiest, r.Opening.Full = 0.96, true }, ""},
		{"busy on a ramp", func(r *Result) { r.Opening.Busiest, r.Settings.Ramp = 0.96, 10 }, ""},
		{"late", func(r *Result) { r.Opening.LateShare, r.Settings.Ramp = 0.011, 10 }, "the client began 1.1% of them more than 10ms after they were due"},
		{"slow", func(r *Result) { r.Opening.Schedule, r.Settings.Ramp = &Latency{P50: 3 * time.Millisecond}, 10 }, "the client: its own delay is 3ms at p50, more than half of the 4ms"},
		{"a verb without an opening", func(r *Result) { r.Opening.Busiest, r.Opening.Wanted = 0.96, 0 }, ""},
	} {
		r := finished()
		c.change(r)
		own := r.openingOwn()
		if !strings.HasPrefix(own, c.want) || (own == "") != (c.want == "") {
			t.Errorf("%s: %q", c.name, own)
		}
		for text, opening := range map[string]bool{"open-p99<1h": true, "ticket-p50<1h": true, "p99<1h": false, "opened>1": false} {
			all, err := ParseRequirements(text)
			if err != nil {
				t.Fatal(err)
			}
			r.Verdict, r.Why = Done, nil
			want := Pass
			if opening && own != "" {
				want = Invalid
			}
			if missed := r.Judge(all); missed || r.Verdict != want {
				t.Errorf("%s, %s: %s %q, want %s", c.name, text, r.Verdict, r.Why, want)
			}
		}
		n := &runner{s: r.Settings, result: r}
		if n.conclude(); strings.Contains(strings.Join(r.Notes, "\n"), "while sockets were opened ") != (own != "") {
			t.Errorf("%s: notes %q", c.name, r.Notes)
		}
	}
}

// What the client did wrong comes before what the server seems to have done.
func TestInvalidBeforeFail(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*runner)
		verdict string
		why     []string
	}{
		{"all well", func(*runner) {}, Done, nil},
		{"no socket", func(r *runner) { r.result.Opening.Opened, r.stands = 0, []string{"there was nothing to run with"} }, Fail,
			[]string{"none of 10 sockets could be opened", "there was nothing to run with"}},
		{"no port for any", func(r *runner) {
			r.result.Opening.Opened, r.result.Opening.Errors, r.stands = 0, map[string]uint64{classPorts: 10}, []string{"there was nothing to run with"}
		}, Invalid, []string{"none of 10 sockets could be opened: 10 no_port", "there was nothing to run with", "generator saturated: it had no port"}},
		{"a process lost", func(r *runner) { r.result.Broken = []string{"worker 0 ended before its time"} }, Invalid, []string{"worker 0 ended before its time"}},
	} {
		r := &runner{result: finished()}
		r.result.Hostile = nil
		c.change(r)
		r.conclude()
		if len(r.result.Why) != len(c.why) || r.result.Verdict != c.verdict {
			t.Fatalf("%s: %s %q", c.name, r.result.Verdict, r.result.Why)
		}
		for i, why := range c.why {
			if !strings.HasPrefix(r.result.Why[i], why) {
				t.Errorf("%s: %q, want %q", c.name, r.result.Why[i], why)
			}
		}
	}
}

// A run that was ended while sockets were being opened has failed in nothing: none was lost in it, and nothing was to be done.
func TestNoRun(t *testing.T) {
	r := finished()
	r.Run, r.Opening.Opened = Running{}, 3
	r.Why = r.failed()
	if len(r.Why) != 1 || !strings.Contains(r.Why[0], "could not be opened") {
		t.Errorf("%q", r.Why)
	}
	r.brokenOff()
	if len(r.Why) != 1 || r.Why[0] != "ended while sockets were being opened" || strings.Contains(strings.Join(r.Lines(), "\n"), "open at the end") {
		t.Errorf("%q\n%q", r.Why, r.Lines())
	}
	r = finished()
	r.Hostile, r.Run.Took = &Attack{Peers: []Peers{{Kind: "garbage"}}}, r.Settings.Duration/2
	if why := r.harmless(); len(why) > 0 {
		t.Errorf("ended before the attack: %q", why)
	}
	if r.Run.Took++; len(r.harmless()) != 1 {
		t.Error("an attack of nobody")
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 499: "0s", 1234: "1µs", 999_400: "999µs", 1_234_567: "1.23ms", 12_345_678: "12.3ms", 1_234_567_890: "1.23s", 90 * time.Second: "1m30s",
	} {
		if got := short(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
}

// The text of a refusal names every figure that there is.
func TestFigures(t *testing.T) {
	_, err := ParseRequirements("no-such<1")
	if err == nil {
		t.Fatal("taken")
	}
	_, list, _ := strings.Cut(err.Error(), "there are ")
	if got := strings.Split(list, ", "); !slices.Equal(got, sortedKeys(figures)) {
		t.Errorf("%q", got)
	}
}
