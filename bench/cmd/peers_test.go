package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"ticketgate/bench"
)

// The bare programs stand in the tables, and are nobody's rival.
func TestComparison(t *testing.T) {
	m := &matrix{cells: []cell{{100, 32, 1}}, loads: [][]*load{{
		{name: ours, rounds: []sample{{rate: 100, cpu: 10}}}, {name: "gws", rounds: []sample{{rate: 50, cpu: 20}}}, {name: "epollecho", rounds: []sample{{rate: 200, cpu: 5}}},
	}}}
	for _, table := range m.comparison("Echo", "About.").tables {
		if row := table.Rows[0]; len(row) != len(table.Head) || !slices.Contains(table.Head, "epollecho") {
			t.Errorf("%q under %q", row, table.Head)
		}
	}
	if row := m.comparison("Echo", "About.").tables[0].Rows[0]; row[len(row)-1] != "2.00 times (gws)" {
		t.Errorf("%q", row)
	}
}

// Where nobody else is measured nobody is the best of them.
func TestComparisonAlone(t *testing.T) {
	m := &matrix{cells: []cell{{100, 32, 1}}, loads: [][]*load{{{name: ours, rounds: []sample{{rate: 100, cpu: 10}}}}}}
	if row := m.comparison("Echo", "About.").tables[0].Rows[0]; row[len(row)-1] != "" {
		t.Errorf("%q", row)
	}
}

// -against leaves the gateway and those it names, and builds no more than they need.
func TestAgainst(t *testing.T) {
	o := options{peers: true, against: "ws (node),nginx,centrifuge,epollrelay", out: "-"}
	if err := o.allowed(); err != nil {
		t.Error(err)
	}
	if got := o.among(idleNames()...); !slices.Equal(got, []string{ours, "ws (node)", "centrifuge"}) {
		t.Errorf("idle: %q", got)
	}
	if got := o.among(relayNames()...); !slices.Equal(got, []string{ours, "nginx", "epollrelay"}) {
		t.Errorf("relays: %q", got)
	}
	if got := o.peerPackages(); !slices.Equal(got, []string{"./wsecho", "./centrifuge", "./epollrelay"}) || !o.needsNode() {
		t.Errorf("packages %q, node %t", got, o.needsNode())
	}
	if o.against = "gws"; o.needsNode() {
		t.Error("gws needs Node.js")
	}
	for _, o := range []options{{peers: true, against: "nginx,apache"}, {against: "nginx"}, {peers: true, against: "nginx", million: 600}, {peers: true, against: "nginx", check: true}} {
		if o.out = "-"; o.allowed() == nil || !strings.HasPrefix(o.allowed().Error(), "-against: ") {
			t.Errorf("%+v: %v", o, o.allowed())
		}
	}
	if all := (options{peers: true}); !slices.Equal(all.among(relayNames()...), relayNames()) || !slices.Equal(all.peerPackages(), []string{"./..."}) || !all.needsNode() {
		t.Error("without -against all are compared")
	}
}

// Of several rounds the middle of each point is shown, resident memory as it is and slabs beyond those before.
func TestIdleGrowth(t *testing.T) {
	const mib = 1 << 20
	curve := func(more int64) []held {
		return []held{{0, bench.Memory{Resident: 10 * mib, Anonymous: 5 * mib}, 100 * mib}, {500, bench.Memory{Resident: (11 + more) * mib}, 101 * mib}, {1024, bench.Memory{Resident: (14 + more) * mib, Anonymous: 6 * mib}, (108 + more) * mib}}
	}
	k := idleKind{title: "Idle", names: []string{ours, "nginx"}, at: [2]int{500, 1024}, points: []int{500, 1024}}
	all := [][][]held{{curve(0), curve(2)}, {curve(4), curve(4)}}
	if one, want := idleRoundOf(all[0][0], 500), (idleRound{total: 4096, slope: 3 * mib / 524.0, anonymous: 1024, kernel: 8192}); one != want {
		t.Errorf("%+v, want %+v", one, want)
	}
	table, plot := k.growth(all)
	for i, want := range []string{"0|10.0 / 0.00|10.0 / 0.00", "500|12.0 / 1.00|15.0 / 1.00", "1,024|15.0 / 9.00|18.0 / 12.0"} {
		if got := strings.Join(table.Rows[i], "|"); got != want || len(table.Rows[i]) != len(table.Head) {
			t.Errorf("row %d: %s, want %s", i, got, want)
		}
	}
	if !slices.Equal(plot.Xs, []float64{0, 500, 1024}) || !slices.Equal(plot.Panels[0].Ys[1], []float64{10, 15, 18}) || !slices.Equal(plot.Panels[1].Ys[0], []float64{0, 1, 9}) {
		t.Errorf("%+v", plot)
	}
	ends, bars := k.ends(all)
	if got := strings.Join(ends.Rows[1], "|"); got != "nginx|8,192 (8,192-8,192)|6,003 (6,003-6,003)|1,024 (1,024-1,024)|12,288 (12,288-12,288)" {
		t.Errorf("%q", ends.Rows)
	}
	if !slices.Equal(bars.Panels[0].Values, []float64{5120, 8192}) || len(ends.Rows[0]) != len(ends.Head) {
		t.Errorf("%+v, %q", bars, ends.Rows)
	}
}

// Each server has a column, each number of sockets a row.
func TestGrowthShow(t *testing.T) {
	const ms = time.Millisecond
	k := growthKind{names: []string{ours, "nginx"}, points: []int{1000, 4000}}
	at := func(mib int64, cpu time.Duration) growthPoint {
		return growthPoint{memory: bench.Memory{Resident: mib << 20}, cpu: cpu, p99: time.Millisecond, slab: 3 << 20}
	}
	table, plot := k.show([][]growthPoint{{at(20, 50*ms), at(21, 51*ms)}, {at(30, 60*ms), at(90, 61*ms)}})
	for i, want := range []string{"1,000|20.0 / 50.0 / 1,000 / 3.00|30.0 / 60.0 / 1,000 / 3.00", "4,000|21.0 / 51.0 / 1,000 / 3.00|90.0 / 61.0 / 1,000 / 3.00"} {
		if got := strings.Join(table.Rows[i], "|"); got != want || len(table.Rows[i]) != len(table.Head) {
			t.Errorf("row %d: %s, want %s", i, got, want)
		}
	}
	if !slices.Equal(plot.Panels[0].Ys[1], []float64{30, 90}) || !slices.Equal(plot.Panels[1].Ys[0], []float64{50, 51}) || !slices.Equal(plot.Xs, []float64{1000, 4000}) {
		t.Errorf("%+v", plot)
	}
}

// Relays of this machine's descriptors hold half as many clients, and no number stands twice.
func TestGrowthKinds(t *testing.T) {
	for files, want := range map[int][]int{20000: {1000, 4000, 7500}, 12000: {1000, 4000, 4800}, 5000: {1000, 2000}} {
		r := &runner{options: options{peers: true}, files: files}
		if got := r.growthKinds()[1]; !slices.Equal(got.points, want) || !slices.Equal(got.names, relayNames()) {
			t.Errorf("%d files: %v of %q", files, got.points, got.names)
		}
	}
}

// Who has no echo still holds sockets; who has one is in both lists.
func TestIdleNames(t *testing.T) {
	all := idleNames()
	for _, name := range append(peerNames(), "centrifuge", "epollaccept") {
		if !slices.Contains(all, name) {
			t.Errorf("no %s in %q", name, all)
		}
	}
	if slices.Contains(peerNames(), "centrifuge") {
		t.Error("centrifuge has no echo")
	}
}

// The real peers, on few sockets: a library, one without an echo, a program of another package manager, and both proxies.
func TestPeersShort(t *testing.T) {
	apart(t)
	page, err := benchCmd(t.Context(), "-peers", "-short", "-only", "idle", "-against", "centrifuge,ws (node),nginx,haproxy", "-out", "-")
	if err != nil {
		t.Fatal(err)
	}
	direct, relayed, ok := strings.Cut(page, "## Idle relayed sockets\n")
	for name, in := range map[string]string{"centrifuge": direct, "ws (node)": direct, "nginx": relayed, "haproxy": relayed} {
		if each := figure(t, in, `\| `+regexp.QuoteMeta(name)+` \| ([0-9,]+)`); each < 1000 || each > 200e3 {
			t.Errorf("%s: %v B a socket", name, each)
		}
	}
	for _, want := range []string{"| sockets | ticketgate | ws (node) | centrifuge |", "| sockets | ticketgate | nginx | haproxy |"} {
		if !ok || !strings.Contains(page, want) {
			t.Errorf("no %q", want)
		}
	}
	if t.Failed() {
		t.Logf("\n%s", page)
	}
}
