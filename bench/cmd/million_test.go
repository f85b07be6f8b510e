package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"ticketgate/bench"
	loadtool "ticketgate/bench/load"
)

// A gateway keeps a tenth of its descriptors for other things; several get unequal shares of what comes to one port.
func TestGatewaysFor(t *testing.T) {
	for _, c := range []struct{ sockets, files, want int }{
		{1, 20000, 1},
		{18000, 20000, 1},
		{18001, 20000, 2},
		{1000000, 20000, 59},
		{1000000, 4000000, 1},
	} {
		if got := gatewaysFor(c.sockets, c.files); got != c.want {
			t.Errorf("%d sockets, %d files: %d gateways, want %d", c.sockets, c.files, got, c.want)
		}
	}
}

// Those who ask for tickets leave the gateway that they ask the rest of its tenth.
func TestLanesFor(t *testing.T) {
	for _, c := range []struct{ files, gateways, want int }{{20000, 59, 1200}, {4000000, 59, 1200}, {4000000, 1, 512}, {2000, 59, 120}, {2000, 1, 120}, {10, 1, 1}} {
		if got := lanesFor(c.files, c.gateways); got != c.want {
			t.Errorf("%d gateways with %d files: %d lanes, want %d", c.gateways, c.files, got, c.want)
		}
	}
}

// heldMillion is a run of 1,000 sockets on two gateways in which all went well.
func heldMillion() *millionRun {
	const mib = 1 << 20
	m := &millionRun{Result: new(loadtool.Result), gateways: 2, files: 2000, ping: 25 * time.Second, watch: 10 * time.Second, resting: 10 * time.Millisecond, redis: &[2]int64{10 * mib, 10*mib + 500*1000}}
	m.Settings.Duration, m.Run.Took = time.Minute, time.Minute
	m.Opening = loadtool.Opening{Wanted: 1000, Opened: 1000, Took: time.Second}
	m.Run.Pings = 2000
	m.Verdict = loadtool.Done
	m.Series = []loadtool.Point{{Phase: "open", Open: 400, RSS: 20 * mib}, {Phase: "open", Open: 600, RSS: 21 * mib}, {Phase: "run", Open: 1000}}
	m.Server = &loadtool.Server{Before: 20 * mib, Full: 23 * mib, After: 21*mib + 100*1000, CPU: 620 * time.Millisecond}
	m.Kernel = &[2]loadtool.Slab{{Slabs: mib, Used: mib}, {Slabs: 9*mib + 0, Used: mib + 8000*1000}}
	return m
}

// A run that lost a socket, or that pinged fewer than it should have, is not shown as a million.
func TestMillionFails(t *testing.T) {
	if err := heldMillion().failed(); err != nil {
		t.Errorf("all went well: %v", err)
	}
	for want, spoil := range map[string]func(m *millionRun){
		"1 sockets were lost":                       func(m *millionRun) { m.Run.Errors = map[string]uint64{"reset": 1} },
		"999 of 1,000 sockets were open at the end": func(m *millionRun) { m.Series[2].Open = 999 },
		"0 of 1,000 sockets":                        func(m *millionRun) { m.Series = nil },
		"1,899 pings were answered, of 2,000":       func(m *millionRun) { m.Run.Pings = 1899 },
		"ended after 59s of 1m0s":                   func(m *millionRun) { m.Run.Took = 59 * time.Second },
		"of 1000 sockets could not be opened": func(m *millionRun) {
			m.Verdict, m.Why = loadtool.Fail, []string{"1 of 1000 sockets could not be opened"}
		},
		"generator saturated: it was busy 99.0 % of its core": func(m *millionRun) {
			m.Verdict, m.Why = loadtool.Invalid, []string{"generator saturated: it was busy 99.0 % of its core"}
		},
	} {
		m := heldMillion()
		spoil(m)
		if err := m.failed(); !errors.Is(err, errMillion) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	m := heldMillion() // a hold that is shorter than the time between pings owes none
	if m.ping, m.Run.Pings = 10*time.Minute, 0; m.failed() != nil {
		t.Error(m.failed())
	}
}

// What sockets add is told apart from what gateways take without any, and pings from what they do anyway.
func TestMillionFigures(t *testing.T) {
	m := heldMillion()
	if one, want := m.share(), (share{user: (1<<20 + 100*1000) / 1000.0, store: 500, slabs: 8 * (1 << 20) / 1000.0, kernel: 8000}); one != want {
		t.Errorf("%+v, want %+v", one, want)
	}
	if got := m.slope(); got < 5242.8 || got > 5243 { // a MiB for 200 sockets
		t.Errorf("slope %v", got)
	}
	// 620 ms in a minute, of which 10 ms a second are there without a socket: 20 ms for 2,000 pings.
	if p := m.pinging(); p.resting != 0.005 || p.each < 9.999 || p.each > 10.001 {
		t.Errorf("%+v", p)
	}
	if got := (pinging{resting: 0.005, each: 10}).cores(1e6, 60, 25*time.Second); got < 0.699 || got > 0.701 {
		t.Errorf("%v cores", got)
	}
	for _, part := range partsOfMillion {
		text := m.text(part, "make it")
		for _, want := range []string{"# 1,000 sockets", "Written by `make it`", "| open at the end | 1,000; 0 were lost |", "Redis, a socket | 500 B", "B**; at most 640 are wanted: missed (", "| user space in all | ", "## Ten million", "10.0 µs"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", part, want, text)
			}
		}
		if emulated := strings.Contains(text, "emulated"); emulated != (part == "guest") {
			t.Errorf("%s: says emulated: %t", part, emulated)
		}
	}
}

// What the guest's run has written stays when the native one writes, and the other way round.
func TestKeepMillion(t *testing.T) {
	r := &runner{options: options{out: filepath.Join(t.TempDir(), "MILLION.md")}}
	for _, programs := range []string{"", "bin/million", ""} {
		if r.programs = programs; r.keepMillion(heldMillion()) != nil {
			t.Fatal("not written")
		}
	}
	page, err := os.ReadFile(r.out)
	if err != nil || strings.Count(string(page), "# 1,000 sockets") != 2 || strings.Index(string(page), "begin native") > strings.Index(string(page), "begin guest") {
		t.Errorf("%v\n%s", err, page)
	}
}

func TestPongWait(t *testing.T) {
	for ping, want := range map[time.Duration]time.Duration{25 * time.Second: 10 * time.Second, 10 * time.Second: 5 * time.Second, 10 * time.Minute: 200 * time.Second} {
		if got := pongWait(ping); got != want {
			t.Errorf("%s: %s, want %s", ping, got, want)
		}
	}
}

// Gateways that do nothing are watched, and seen to do next to nothing.
func TestResting(t *testing.T) {
	c, err := bench.Start(bench.AnyCore, "sleep", "60")
	if err != nil {
		t.Fatal(err)
	}
	r := &runner{ctx: t.Context(), children: []*bench.Child{c}}
	used, err := r.resting(r.children, 100*time.Millisecond)
	if err := errors.Join(err, r.end()); err != nil || used < 0 || used > 100*time.Millisecond {
		t.Errorf("%s, %v", used, err)
	}
}

// The whole of bench-million at the size of a test: three gateways behind one port, as each process is taken to have 250 descriptors, one
// Redis, and the load tool's processes.
func TestMillionSmall(t *testing.T) {
	apart(t)
	file := filepath.Join(t.TempDir(), "MILLION.md")
	err := million(t.Context(), options{million: 600, perProcess: 250, hold: 2 * time.Second, ping: time.Second, rest: 100 * time.Millisecond, out: file})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	for _, want := range []string{
		"# 600 sockets\n", "3 gateways of 250 descriptors each share one port (SO_REUSEPORT) and one Redis", "1 client process from 102 addresses", "pinged every 1s",
		"| opened | 600 of 600, in ", "| open at the end | 600; 0 were lost |", " pings answered; 1,200 were due at least |", "| Redis, a socket | ",
		"when 200 for each had come and gone", "(watched for 100ms before)", "## Ten million",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q", want)
		}
	}
	for _, bad := range []string{"NaN", "Inf", "%!"} {
		if strings.Contains(page, bad) {
			t.Errorf("%q", bad)
		}
	}
	// Two whole times between pings fit into the hold; of a third there may be a part.
	if n := figure(t, page, `\| held \| 2s, with ([0-9,]+) pings`); n < 1200*millionPings || n > 1800 {
		t.Errorf("%v pings", n)
	}
	if n := figure(t, page, `\((\d+) a second\) \|`); n < 10 {
		t.Errorf("%v sockets a second", n)
	}
	if n := figure(t, page, `without any \| \*\*([0-9,.-]+) B\*\*`); n < -100e3 || n > 100e3 { // with so few, what a collection gives back may be more than they take
		t.Errorf("%v B of the gateways a socket", n)
	}
	if n := figure(t, page, `MiB before, ([0-9.]+) MiB at the end\) \|\n\| user space in all`); n < 1 || n > 200 {
		t.Errorf("%v MiB of Redis", n)
	}
	if n := figure(t, page, `gateways, CPU while holding \| ([0-9.]+) cores`); n <= 0 || n > 3 {
		t.Errorf("%v cores", n)
	}
	if t.Failed() {
		t.Logf("\n%s", page)
	}
}

// figure is the number in page that pattern has in brackets.
func figure(t *testing.T, page, pattern string) float64 {
	t.Helper()
	found := regexp.MustCompile(pattern).FindStringSubmatch(page)
	if found == nil {
		t.Errorf("no %s", pattern)
		return 0
	}
	v, err := strconv.ParseFloat(strings.ReplaceAll(found[1], ",", ""), 64)
	if err != nil {
		t.Errorf("%s: %v", pattern, err)
	}
	return v
}

// TestPingsDue: with pings that are rarer than the hold is long, those count whose moment must fall into it.
func TestPingsDue(t *testing.T) {
	m := &millionRun{ping: 2 * time.Minute}
	m.Result = new(loadtool.Result)
	m.Settings.Duration, m.Opening.Wanted, m.Opening.Took = 10*time.Minute, 1000, 40*time.Minute
	for at := range 41 { // 25 a minute
		m.Series = append(m.Series, loadtool.Point{At: time.Duration(at) * time.Minute, Open: 25 * at})
	}
	for ping, want := range map[time.Duration]uint64{
		2 * time.Minute: 5000, 10 * time.Minute: 1000, 9 * time.Minute: 1000,
		30 * time.Minute: 25 * (20 - 16), 20 * time.Minute: 25 * (30 - 24), time.Hour: 0, 5 * time.Hour: 0,
	} {
		if m.ping = ping; m.pingsDue() != want {
			t.Errorf("pings each %v: %d are due, want %d", ping, m.pingsDue(), want)
		}
	}
}
