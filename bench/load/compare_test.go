package load

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDifferences(t *testing.T) {
	table := []struct {
		field  string // of Settings; "" for others
		change func(*Result)
		want   string
	}{
		{"", func(r *Result) { r.Host.Name = "other" }, "host: "},
		{"", func(r *Result) { r.Host.CPU = "other" }, "processor: "},
		{"", func(r *Result) { r.Host.Cores = 64 }, "cores: 0 and 64"},
		{"", func(r *Result) { r.Host.Memory = 90 << 30 }, "memory: 102400.0 MiB and 92160.0 MiB"},
		{"", func(r *Result) { r.Host.Kernel = "9.9" }, "kernel: "},
		{"", func(r *Result) { r.Host.Machine = "b" }, "machine: a and b"},
		{"", func(r *Result) { r.Host.Affinity = []int{1} }, "cores that the client may use: [0 1] and [1]"},
		{"", func(r *Result) { r.Host.Sysctl = map[string]string{"net.core.somaxconn": "9"} }, "net.core.somaxconn: 4096 and 9"},
		{"Timeout", func(r *Result) { r.Settings.Timeout = 1 }, "timeout: 0s and 1ns"},
		{"Verb", func(r *Result) { r.Settings.Verb = Soak }, "verb: echo and soak"},
		{"Target", func(r *Result) { r.Settings.Target = "http://h" }, "server: "},
		{"Stream", func(r *Result) { r.Settings.Stream = "s2" }, "stream: "},
		{"Clients", func(r *Result) { r.Settings.Clients = 7 }, "clients: 0 and 7"},
		{"Sockets", func(r *Result) { r.Settings.Sockets = 11 }, "sockets: 10 and 11"},
		{"Ramp", func(r *Result) { r.Settings.Ramp = 0.5 }, "ramp: 0 and 0.5"},
		{"Insist", func(r *Result) { r.Settings.Insist = true }, "insisting: false and true"},
		{"Rate", func(r *Result) { r.Settings.Rate = "2000" }, "rate: 1000 and 2000"},
		{"Rate", func(r *Result) { r.Settings.Rate = "" }, "rate: 1000 and none"},
		{"Poisson", func(r *Result) { r.Settings.Poisson = true }, "poisson: false and true"},
		{"InFlight", func(r *Result) { r.Settings.InFlight = 2 }, "in flight: 1 and 2"},
		{"Size", func(r *Result) { r.Settings.Size = 127 }, "size: 128 and 127"},
		{"Duration", func(r *Result) { r.Settings.Duration = time.Minute }, "duration: 10s and 1m0s"},
		{"Procs", func(r *Result) { r.Settings.Procs = 2 }, "processes: 1 and 2"},
		{"Pin", func(r *Result) { r.Settings.Pin = true }, "pinned to cores: false and true"},
		{"Lanes", func(r *Result) { r.Settings.Lanes = 5 }, "lanes: 4 and 5"},
		{"Attacks", func(r *Result) { r.Settings.Attacks = []string{"garbage"} }, "attacks: [] and [garbage]"},
		{"Hostile", func(r *Result) { r.Settings.Hostile = 3 }, "hostile peers: 0 and 3"},
		{"", func(r *Result) { r.Verdict, r.Why = Invalid, []string{"a", "b"} }, "the second run is INVALID: a; b"},
		{"", func(r *Result) { r.Verdict, r.Why = Interrupted, []string{"a"} }, "the second run is INTERRUPTED: a"},
		{"", func(r *Result) { r.Verdict, r.Why = Fail, []string{"p99<1ms: it is 2ms", "a worker was lost"} }, "the second run is FAIL: p99<1ms: it is 2ms; a worker was lost"},
		{"", func(r *Result) { r.Opening.Opened = 9 }, "opened sockets: 10 and 9"},
		{"", func(r *Result) { r.Server = nil }, "server process: watched and not watched"},
		{"Sources", func(r *Result) { r.Settings.Sources = []string{"127.0.0.2", "127.0.0.3"} }, "source addresses: 0 and 2"},
		{"Settle", func(r *Result) { r.Settings.Settle = time.Second }, "settling: 0s and 1s"},
	}
	// What two comparable runs may have different, each because it does not change what is measured.
	free := []string{"Plain", "Key", "Seed", "Backend", "PIDs"}
	seen := slices.Clone(free)
	for _, c := range table {
		a, b := finished(), finished()
		a.Host.Memory, b.Host.Memory = 100<<30, 100<<30-200<<20 // as after another boot
		for _, r := range []*Result{a, b} {
			r.Host.Machine, r.Host.Affinity, r.Host.Sysctl = "a", []int{0, 1}, map[string]string{"net.core.somaxconn": "4096", "net.ipv4.tcp_mem": r.Started.String()}
		}
		b.Host.Sysctl["net.ipv4.tcp_mem"] = "1 2 3"              // computed from the memory
		b.Verdict, b.Why = Fail, []string{"p99<1ms: it is 10ms"} // which says nothing about its figures
		if all := Differences(a, b); len(all) != 0 {
			t.Fatalf("the same twice: %q", all)
		}
		c.change(b)
		if all := Differences(a, b); len(all) != 1 || !strings.HasPrefix(all[0], c.want) {
			t.Errorf("%s: %q", c.want, all)
		}
		seen = append(seen, c.field)
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Settings]()) {
		if !slices.Contains(seen, f.Name) {
			t.Errorf("Settings.%s: two runs that differ in it can be compared, or this test does not know it", f.Name)
		}
	}
	a, b := finished(), finished()
	a.Verdict, a.Why = Invalid, []string{"late"}
	b.Settings.Size, b.Settings.Lanes = 1, 1
	if all := Differences(a, b); len(all) != 3 || !slices.Contains(all, "the first run is INVALID: late") {
		t.Errorf("three differences: %q", all)
	}
}

// points are n halves of a second in which done operations of each kind went, in turn.
func points(n int, done ...uint64) []Point {
	all := make([]Point, n)
	for i := range all {
		all[i] = Point{Phase: phaseRun, Done: done[i%len(done)], Seconds: 0.5, P50: time.Millisecond, P99: 10 * time.Millisecond, Max: 1, Server: 0.5}
	}
	return all
}

func TestCompare(t *testing.T) {
	a, b := finished(), finished()
	b.Run.Rate, b.Run.Latency.P99, b.Server.Cores, b.Run.ErrorShare = 1100, 5*time.Millisecond, 0.25, 0
	a.Hostile, a.Run.In, a.Run.Out = nil, nil, nil // one run has it
	all := Compare(a, b)
	var names []string
	for _, d := range all {
		names = append(names, d.Name)
		if want, ok := map[string]float64{"rate": 0.1, "p99": -0.5, "server-cores": -0.5, "p50": 0, "errors": -1, "max": 0}[d.Name]; ok && math.Abs(*d.Change-want) > 1e-9 {
			t.Errorf("%s: %+v, want %v", d.Name, d, want)
		}
	}
	a.Run.ErrorShare, b.Run.ErrorShare = 0, 0.05
	i := slices.IndexFunc(Compare(a, b), func(d Delta) bool { return d.Name == "errors" })
	if text, err := json.Marshal(Compare(a, b)[i]); err != nil || string(text) != `{"name":"errors","a":0,"b":0.05,"change":null}` {
		t.Errorf("from nothing to something: %s, %v", text, err)
	}
	a.Run.ErrorShare = 0.05
	if want := "rate p50 p99 p99.9 max errors late ticket-p50 ticket-p99 open-p50 open-p99 socket-bytes server-cores server-cpu server-growth client-bytes"; strings.Join(names, " ") != want {
		t.Errorf("%q", names)
	}
	if all[0].A != 1000 || all[0].B != 1100 {
		t.Errorf("%+v", all[0])
	}
	for _, d := range Compare(a, a) {
		if *d.Change != 0 || d.A != d.B {
			t.Errorf("a run and itself: %+v", d)
		}
	}
}

func TestNoise(t *testing.T) {
	edges := points(12, 100)
	edges[0].Done, edges[11].Done = 1, 100_000 // cut
	others := append(points(12, 100), Point{Phase: phaseOpen, Done: 5, Seconds: 0.5}, Point{Phase: phaseRun, Done: 5})
	ramp, half := points(12, 0), points(12, 0)
	for i := range ramp {
		ramp[i].Done, half[i].Done = uint64(200*i), uint64(100*i)
	}
	for _, c := range []struct {
		name string
		a, b []Point
		want float64
	}{
		{"none", nil, nil, 0},
		{"too few to know", points(5, 100, 200), points(5, 100), 0},
		{"steady", points(12, 100), points(12, 100), 0},
		{"one steadily more than the other", points(12, 100), points(12, 150), 0},
		{"nothing done", points(12, 0), points(12, 0), 0},
		{"edges", edges, points(12, 100), 0},
		{"another phase, and no time", others, points(12, 100), 0},
		{"a ramp twice", ramp, ramp, 0},
		{"a ramp, and half of it", ramp, half, 0}, // a third of their mean apart at every moment
		// 10 differences of 2*10/210 and of 0, in turn: they deviate by 0.0502, their standard error is 0.0159.
		{"moves", points(12, 100), points(12, 100, 110), 3 * 0.5 * 20. / 210 * math.Sqrt(10./9/10)},
		{"moves, six times as long", points(62, 100), points(62, 100, 110), 3 * 0.5 * 20. / 210 * math.Sqrt(60./59/60)},
		{"the shorter one counts", points(62, 100), points(12, 100, 110), 3 * 0.5 * 20. / 210 * math.Sqrt(10./9/10)},
	} {
		a, b := finished(), finished()
		a.Series, b.Series = c.a, c.b
		for _, d := range Compare(a, b) {
			want := 0.
			if d.Name == "rate" {
				want = c.want
			} else if d.Name == "server-cpu" {
				continue
			}
			if math.Abs(d.Noise-want) > 1e-9 {
				t.Errorf("%s: noise %v of %s, want %v", c.name, d.Noise, d.Name, want)
			}
		}
	}
}

// points of nothing and of twice as much in turn are the reports of many processes, and no noise.
func TestMoments(t *testing.T) {
	r := finished()
	r.Settings.Procs = 16 // report once a second
	r.Series = append([]Point{{Phase: phaseOpen, Done: 1, Seconds: 1}}, points(22, 200, 0)...)
	for i := range r.Series {
		p := &r.Series[i]
		if p.At = time.Duration(i); p.Done == 0 {
			p.P50, p.P99, p.Max, p.Server = 0, 0, 0, 0.3
		}
	}
	all := r.moments(phaseRun)
	if len(all) != 6 { // the last has two points
		t.Fatalf("%d moments", len(all))
	}
	for i, p := range all[:5] {
		if p.Done != 400 || p.Seconds != 2 || p.P99 != 10*time.Millisecond || p.Max != 1 || math.Abs(p.Server-0.4) > 1e-9 || p.At != time.Duration(4*i+4) {
			t.Errorf("%+v", p)
		}
	}
	if n := noise(all, all, compared[0].point); n != 0 {
		t.Errorf("noise %v", n)
	}
	if open := r.moments(phaseOpen); len(open) != 1 || open[0].Done != 1 {
		t.Errorf("%+v", open)
	}
	r.Settings.Procs = 7
	if all := r.moments(phaseRun); len(all) != 22 {
		t.Errorf("%d moments of few processes", len(all))
	}
}

func TestWriteComparison(t *testing.T) {
	var b bytes.Buffer
	by := func(v float64) *float64 { return &v }
	err := WriteComparison(&b, []Delta{
		{Name: "rate", A: 1000, B: 1100, Change: by(0.1), Noise: 0.05},
		{Name: "p99", A: 10e6, B: 10.2e6, Change: by(0.02), Noise: 0.05, unit: unitTime},
		{Name: "p50", A: 10e6, B: 9.8e6, Change: by(-0.02), Noise: 0.02, unit: unitTime},
		{Name: "errors", A: 0, B: 0.01, unit: unitShare},
		{Name: "server-cores", A: 0, B: 0.9, Noise: 0.04}, // from nothing to something is no noise
		{Name: "socket-bytes", A: 5000, B: 2500, Change: by(-0.5), unit: unitSize},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"figure", "a", "b", "change", "noise"},
		{"rate", "1000.00", "1100.00", "+10.0%", "±5.0%"},
		{"p99", "10ms", "10.2ms", "+2.0%", "±5.0%", "within noise"},
		{"p50", "10ms", "9.8ms", "-2.0%", "±2.0%", "within noise"},
		{"errors", "0.000%", "1.000%", "-"},
		{"server-cores", "0.00", "0.90", "-", "±4.0%"},
		{"socket-bytes", "5000B", "2500B", "-50.0%"},
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines:\n%s", len(lines), &b)
	}
	for i, line := range lines {
		if got := strings.Join(strings.Fields(line), " "); got != strings.Join(want[i], " ") {
			t.Errorf("%q, want %q", got, want[i])
		}
	}
	if err := WriteComparison(full{}, []Delta{{Name: "rate"}}); err == nil {
		t.Error("a writer that fails is not heard of")
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, fmt.Errorf("full") }
