package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ticketgate/bench"
)

const peersAbout = "Other servers, in the same run and under the same client, each on one core. They are small programs as the libraries' own documentation would have them (tools/peers): they check no ticket, count nobody and limit nothing; " +
	"ticketgate does all of that, as in every other measurement here. Programs whose names begin with epoll are no competitors: they do the least that is possible, and know no WebSocket. " +
	"centrifuge has a protocol of its own over WebSocket: its sockets begin with its connect command, and are subscribed by that to a channel that says nothing; it has no echo, so it is in no table of messages out and back, nor in Growth, but in that of idle sockets, as they grow."

// peerScenarios compare with other servers.
var peerScenarios = []scenario{
	{"echo", peerEcho},
	{"relay", peerRelay},
	{"idle", peerIdle},
	{"connect", peerConnect},
	{"fanout", peerFanout},
	{"growth", peerGrowth},
}

// peerEcho measures messages out and back.
func peerEcho(r *runner) (_ *section, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	all, err := r.echoServers()
	if err != nil {
		return nil, err
	}
	if r.compares("epollecho") {
		floor, err := r.bareServer("epollecho", false)
		if err != nil {
			return nil, err
		}
		all = append(all, floor)
	}
	m, err := r.measure("echo", r.sockets, all)
	if err != nil {
		return nil, err
	}
	s := m.comparison("Echo", "A closed loop: a socket sends 1 or 16 text messages with one write(2), and again when all answers are there; every answer is compared with what was sent. "+
		"Where the client is the bottleneck (rates above some 100,000 a second with one message a write) only the CPU figures compare."+m.leftOut(r.options))
	return s, r.plotMatrix(s, m, "echo", all)
}

// peerRelay measures messages through to a backend and back.
func peerRelay(r *runner) (_ *section, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	_, backend, err := r.peer(r.clientCore, "wsecho")
	if err != nil {
		return nil, err
	}
	all, err := r.relays(backend)
	if err != nil {
		return nil, err
	}
	if r.compares("epollrelay") {
		floor, err := r.bareServer("epollrelay", true, "-backend", backend)
		if err != nil {
			return nil, err
		}
		all = append(all, floor)
	}
	var counts []int
	for _, n := range r.sockets {
		counts = append(counts, min(n, r.relayedMax()))
	}
	m, err := r.measure("relay", counts, all)
	if err != nil {
		return nil, err
	}
	s := m.comparison("Relay", "As above, through the server to a backend and back. All have the same backend, `wsecho`, on the client's core; nginx has one worker, haproxy one thread, with buffers for a whole message of 16 KiB. They pass bytes; ticketgate checks frames, limits messages and bytes each way and masks anew."+m.leftOut(r.options))
	return s, r.plotMatrix(s, m, "relay", all)
}

// relayedMax is how many relayed clients all relays take, in whole hundreds: each takes two descriptors, and the proxies some for themselves.
func (r *runner) relayedMax() int { return r.files * 2 / 5 / 100 * 100 }

// relays starts the gateway and the proxies before backend.
func (r *runner) relays(backend string) ([]*server, error) {
	one, err := r.ourServer(setup{backend: backend})
	if err != nil {
		return nil, err
	}
	all := []*server{one}
	for _, p := range proxies {
		if !r.compares(p.name) {
			continue
		}
		one, err := r.startProxy(p, backend, true)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// comparison shows m, whose first server is the gateway.
func (m *matrix) comparison(title, about string) *section {
	cpu := &bench.Table{Title: title + ": server CPU, µs a message", About: about, Head: []string{"sockets", "bytes", "a write"}}
	rate := &bench.Table{Title: title + ": messages a second", About: "The same rounds. p99 in ms behind each, of saturation.", Head: slices.Clone(cpu.Head)}
	for _, l := range m.loads[0] {
		cpu.Head, rate.Head = append(cpu.Head, l.name), append(rate.Head, l.name)
	}
	cpu.Head = append(cpu.Head, "the best other against "+ours)
	for i, c := range m.cells {
		what := []string{whole(c.sockets), whole(c.payload), fmt.Sprint(c.perWrite)}
		costs, rates := slices.Clone(what), slices.Clone(what)
		best, name := 0.0, ""
		for j, l := range m.loads[i] {
			spread := l.cpu()
			costs = append(costs, spread.String())
			p99 := l.over(func(s sample) float64 { return float64(s.ninetyNine) / 1e6 }).Median
			rates = append(rates, fmt.Sprintf("%s / %s", bench.Number(l.over(func(s sample) float64 { return s.rate }).Median), bench.Number(p99)))
			if _, times := ratios(l, m.loads[i][0]); j > 0 && !bare(l.name) && (best == 0 || times.Median < best) {
				best, name = times.Median, l.name
			}
		}
		against := "" // there may be no other
		if name != "" {
			against = fmt.Sprintf("%.2f times (%s)", best, name)
		}
		cpu.Rows = append(cpu.Rows, append(costs, against))
		rate.Rows = append(rate.Rows, rates)
	}
	return &section{tables: []*bench.Table{cpu, rate}}
}

// plotMatrix draws m over sizes, and over numbers of sockets, with one message a write, beside the page.
func (r *runner) plotMatrix(s *section, m *matrix, name string, servers []*server) error {
	middle := m.cells[len(m.cells)/2]
	for _, one := range []struct {
		file, title, x string
		step           func(cell) (string, bool)
	}{
		{name + "-sizes.svg", fmt.Sprintf("%s, %s sockets", name, whole(middle.sockets)), "bytes of a message", func(c cell) (string, bool) {
			return whole(c.payload), c.sockets == middle.sockets
		}},
		{name + "-sockets.svg", fmt.Sprintf("%s, %s bytes", name, whole(r.sizes[len(r.sizes)/2])), "sockets", func(c cell) (string, bool) {
			return whole(c.sockets), c.payload == r.sizes[len(r.sizes)/2]
		}},
	} {
		plot := &bench.Plot{Title: one.title, X: one.x, Panels: []bench.Panel{
			{Y: "server CPU, µs a message", Ys: make([][]float64, len(servers))}, {Y: "messages a second", Ys: make([][]float64, len(servers))},
		}}
		for _, l := range servers {
			plot.Lines = append(plot.Lines, l.name)
		}
		for i, c := range m.cells {
			step, ok := one.step(c)
			if !ok || c.perWrite != 1 {
				continue
			}
			plot.Steps = append(plot.Steps, step)
			for j, l := range m.loads[i] {
				plot.Panels[0].Ys[j] = append(plot.Panels[0].Ys[j], l.cpu().Median)
				plot.Panels[1].Ys[j] = append(plot.Panels[1].Ys[j], l.over(func(s sample) float64 { return s.rate }).Median)
			}
		}
		if len(plot.Steps) == 0 {
			continue
		}
		if err := r.draw(s.tables[0], plot.Title, plot, one.file); err != nil {
			return err
		}
	}
	return nil
}

// draw writes picture beside the page and shows it under t; not if the page goes to stdout.
func (r *runner) draw(t *bench.Table, title string, picture io.WriterTo, name string) error {
	if r.out == "-" {
		return nil
	}
	f, err := os.Create(filepath.Join(filepath.Dir(r.out), name))
	if err != nil {
		return err
	}
	_, err = picture.WriteTo(f)
	t.Lines = append(t.Lines, fmt.Sprintf("![%s](%s)", strings.ReplaceAll(title, "]", ")"), name))
	return errors.Join(err, f.Close())
}

// peerCrowd opens sockets of one server.
func peerCrowd(r *runner, l *bench.Loop, s *server) crowd {
	if g := s.gateway; g != nil {
		return &plainCrowd{r, &bench.Admissions{Loop: l, API: g.api, Gate: g.gate, Host: g.host, Mint: g.mint}}
	}
	return &plainCrowd{r, &bench.Admissions{Loop: l, Gate: s.to, Hello: s.hello, Heads: slices.Repeat([][]byte{s.head}, r.idlePoints()[1]+idleWarm)}}
}

// An idleKind is a way in which sockets are idle: a table, a picture of its end, and the curves that lead there.
type idleKind struct {
	title, about string
	names        []string
	start        func(name string) (*server, error)
	at           [2]int // what the slope is of
	points       []int  // of the curves, with those
	bars, curves string // files
}

// idleKinds are those with which peerIdle looks at what an open socket, and a relayed one, costs.
func (r *runner) idleKinds() []idleKind {
	direct := r.idlePoints()
	relayed := [2]int{direct[0] / 2, direct[1] / 2}
	return []idleKind{
		{
			title: "Idle sockets",
			about: fmt.Sprintf("Growth of the server's resident memory a socket, from none to %s that stay open, after %d that came and went; kernel slabs of the whole machine, with the client's end. A new server each round.", whole(direct[1]), idleWarm),
			names: r.among(idleNames()...), start: r.startQuiet, at: direct, points: r.idleSteps(direct), bars: "idle-peers.svg", curves: "idle-growth.svg",
		},
		{
			title: "Idle relayed sockets",
			about: fmt.Sprintf("The same, through to the backend: %s clients, each with a second connection; its memory, and the kernel's for all four ends. The proxies' buffers are those that they have by default.", whole(relayed[1])),
			names: r.among(relayNames()...), start: r.startRelay, at: relayed, points: r.idleSteps(relayed), bars: "idle-relayed.svg", curves: "idle-relayed-growth.svg",
		},
	}
}

// idleSteps are the numbers of sockets of a curve whose slope is that between two of them: with -short no others.
func (o options) idleSteps(at [2]int) []int {
	if o.short {
		return at[:]
	}
	return []int{at[0] / 5, at[0], (at[0] + at[1]) / 2, at[1]}
}

// idlePeerRounds is how many new servers of each kind hold idle sockets.
func (o options) idlePeerRounds() int {
	if o.short {
		return 1
	}
	return 2
}

// peerIdle measures what an open socket, and a relayed one, costs without traffic.
func peerIdle(r *runner) (*section, error) {
	s := new(section)
	for _, kind := range r.idleKinds() {
		var curves [][][]held // by server and round
		for _, name := range kind.names {
			var all [][]held
			for range r.idlePeerRounds() {
				r.say("%s: %s", strings.ToLower(kind.title), name)
				one, err := r.idleCurve(kind.points, func(r *runner, l *bench.Loop) (bench.Process, crowd, error) {
					s, err := kind.start(name)
					if err != nil {
						return bench.Process{}, nil, err
					}
					return s.process, peerCrowd(r, l, s), nil
				})
				if err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
				all = append(all, one)
			}
			curves = append(curves, all)
		}
		t, bars := kind.ends(curves)
		growth, plot := kind.growth(curves)
		if err := errors.Join(r.draw(t, bars.Title, bars, kind.bars), r.draw(growth, plot.Title, plot, kind.curves)); err != nil {
			return nil, err
		}
		s.tables = append(s.tables, t, growth)
	}
	return s, nil
}

// ends shows what a socket takes at the end of the curves.
func (k idleKind) ends(curves [][][]held) (*bench.Table, *bench.Bars) {
	t := &bench.Table{Title: k.title, About: k.about, Head: []string{"server", "bytes a socket", fmt.Sprintf("slope %s to %s", whole(k.at[0]), whole(k.at[1])), "of it anonymous", "kernel slabs, all ends"}}
	bars := &bench.Bars{Title: k.title, Names: k.names, Panels: []bench.BarPanel{{X: "user space, bytes a socket"}, {X: "kernel slabs, all ends, bytes a socket"}}}
	for i, name := range k.names {
		var all []idleRound
		for _, curve := range curves[i] {
			all = append(all, idleRoundOf(curve, k.at[0]))
		}
		t.Rows = append(t.Rows, idleRow(name, all))
		for j, f := range []func(idleRound) float64{func(i idleRound) float64 { return i.total }, func(i idleRound) float64 { return i.kernel }} {
			bars.Panels[j].Values = append(bars.Panels[j].Values, max(idleSpread(all, f).Median, 0))
		}
	}
	return t, bars
}

// growth shows the curves, of several rounds their middle.
func (k idleKind) growth(curves [][][]held) (*bench.Table, *bench.Plot) {
	t := &bench.Table{
		Title: k.title + ", as they grow",
		About: "The same rounds: resident MiB of the server / MiB of kernel slabs beyond those before the first socket, all ends.",
		Head:  append([]string{"sockets"}, k.names...),
	}
	plot := &bench.Plot{Title: t.Title, X: "open sockets", Lines: k.names, Panels: []bench.Panel{
		{Y: "resident memory, MiB", Ys: make([][]float64, len(k.names))}, {Y: "kernel slabs beyond those before, all ends, MiB", Ys: make([][]float64, len(k.names))},
	}}
	for i, n := range append([]int{0}, k.points...) {
		plot.Xs = append(plot.Xs, float64(n))
		row := []string{whole(n)}
		for j := range k.names {
			var memory, slab []float64
			for _, curve := range curves[j] {
				memory = append(memory, float64(curve[i].memory.Resident)/(1<<20))
				slab = append(slab, max(float64(curve[i].slabs-curve[0].slabs)/(1<<20), 0))
			}
			m, s := bench.SpreadOf(memory).Median, bench.SpreadOf(slab).Median
			plot.Panels[0].Ys[j], plot.Panels[1].Ys[j] = append(plot.Panels[0].Ys[j], m), append(plot.Panels[1].Ys[j], s)
			row = append(row, bench.Number(m)+" / "+bench.Number(s))
		}
		t.Rows = append(t.Rows, row)
	}
	return t, plot
}

// peerNames are the gateway and the peers that have an echo.
func peerNames() []string {
	all := []string{ours}
	for _, p := range peers {
		if p.echo != "" {
			all = append(all, p.name)
		}
	}
	return all
}

// feedNames are the gateway and all peers.
func feedNames() []string {
	all := []string{ours}
	for _, p := range peers {
		all = append(all, p.name)
	}
	return all
}

// idleNames are all that hold sockets: also those that have no echo.
func idleNames() []string { return append(feedNames(), "epollaccept") }

// relayNames are all that relay.
func relayNames() []string {
	all := []string{ours}
	for _, p := range proxies {
		all = append(all, p.name)
	}
	return append(all, "epollrelay")
}

func (r *runner) startEcho(name string) (*server, error) {
	if name == ours {
		return r.ourServer(setup{})
	}
	p := peerOf(name)
	return r.startPeer(p, p.echo)
}

// startQuiet starts the server of idleNames with this name.
func (r *runner) startQuiet(name string) (*server, error) {
	switch {
	case name == ours:
		return r.ourServer(setup{})
	case bare(name):
		return r.bareServer(name, true)
	default:
		return r.quietPeer(peerOf(name))
	}
}

func peerOf(name string) peer {
	return peers[slices.IndexFunc(peers, func(p peer) bool { return p.name == name })]
}

func (r *runner) startRelay(name string) (*server, error) {
	_, backend, err := r.peer(r.clientCore, "wsecho")
	if err != nil {
		return nil, err
	}
	switch {
	case name == ours:
		return r.ourServer(setup{backend: backend})
	case bare(name):
		return r.bareServer(name, true, "-backend", backend)
	default:
		return r.startProxy(proxies[slices.IndexFunc(proxies, func(p proxy) bool { return p.name == name })], backend, false)
	}
}

// peerConnect measures accept to 101.
func peerConnect(r *runner) (_ *section, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	var all []*server
	for _, name := range r.among(idleNames()...) {
		s, err := r.startQuiet(name)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	loop, err := r.loop()
	if err != nil {
		return nil, err
	}
	var loads []*load
	for _, s := range all {
		a := &bench.Admissions{Loop: loop, Gate: s.gate(), Keep: true, Hello: s.hello}
		l := admitLoad(s.name, s.process, a)
		l.prepare = func() error {
			heads, err := r.heads(loop, s, r.gateRound())
			a.Again(heads)
			return errors.Join(err, r.quiet(s.process))
		}
		l.after = func() error {
			if a.Lost > 0 {
				return fmt.Errorf("%d sockets did not stay open", a.Lost)
			}
			a.HangUp()
			return r.quiet(s.process)
		}
		loads = append(loads, l)
	}
	if err := r.compare(r.counted, loads...); err != nil {
		return nil, err
	}
	t := &bench.Table{
		Title: "Connecting",
		About: fmt.Sprintf("%d sockets a round, %d at once: TCP connect, upgrade, 101; ticketgate's with tickets that were fetched before. They stay open and are closed after the round, which is not counted. centrifuge's socket sends its connect command behind the 101, which is not waited for.", r.gateRound(), lanes),
		Head:  head("socket"),
	}
	bars := &bench.Bars{Title: t.Title, Panels: []bench.BarPanel{{X: "sockets a second"}, {X: "server CPU, µs a socket"}}}
	for _, l := range loads {
		t.Rows = append(t.Rows, l.row())
		bars.Names = append(bars.Names, l.name)
		bars.Panels[0].Values = append(bars.Panels[0].Values, l.over(func(s sample) float64 { return s.rate }).Median)
		bars.Panels[1].Values = append(bars.Panels[1].Values, l.cpu().Median)
	}
	return &section{tables: []*bench.Table{t}}, r.draw(t, bars.Title, bars, "connect-peers.svg")
}

// A growthKind is a way in which messages go while sockets become more.
type growthKind struct {
	title, about string
	picture      string // its title
	names        []string
	start        func(name string) (*server, error)
	points       []int
	file         string
}

func (r *runner) growthKinds() []growthKind {
	load := fmt.Sprintf("%s messages of %d B a second", whole(growthRate), len(growthMessage))
	const each = "over all in turn, at fixed times, for %s at each number. Resident MiB / CPU ms a second / p99 µs / MiB of kernel slabs beyond those before the first socket, all ends."
	direct, relayed := []int{1000, 4000, 8000, 12000, 16000}, []int{1000, 4000, 7500}
	if r.short {
		direct, relayed = []int{500, 1000, 2000}, []int{500, 1000}
	}
	for i, n := range relayed {
		relayed[i] = min(n, r.relayedMax())
	}
	return []growthKind{
		{
			title: "Growth", about: "Sockets of one process become more, with " + load + " through the echo, " + fmt.Sprintf(each, r.growthWatch()),
			picture: fmt.Sprintf("Sockets in one process, %s messages a second", whole(growthRate)),
			names:   r.among(peerNames()...), start: r.startEcho, points: direct, file: "growth-peers.svg",
		},
		{
			title: "Growth of relays", about: "The same, through to the backend: clients become more, each with a second connection, with " + load + " to the backend and back, " + fmt.Sprintf(each, r.growthWatch()) +
				" The proxies' buffers are those that they have by default.",
			picture: fmt.Sprintf("Relayed sockets in one process, %s messages a second", whole(growthRate)),
			names:   r.among(relayNames()...), start: r.startRelay, points: slices.Compact(relayed), file: "growth-relays.svg",
		},
	}
}

// peerGrowth measures memory and processor time as sockets grow, at a constant load.
func peerGrowth(r *runner) (*section, error) {
	s := new(section)
	for _, kind := range r.growthKinds() {
		var curves [][]growthPoint
		for _, name := range kind.names {
			r.say("%s: %s", strings.ToLower(kind.title), name)
			curve, err := r.growthOf(func() (*server, error) { return kind.start(name) }, kind.points)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			curves = append(curves, curve)
		}
		t, plot := kind.show(curves)
		if err := r.draw(t, plot.Title, plot, kind.file); err != nil {
			return nil, err
		}
		s.tables = append(s.tables, t)
	}
	return s, nil
}

// show shows the curves, one for each of k's names.
func (k growthKind) show(curves [][]growthPoint) (*bench.Table, *bench.Plot) {
	t := &bench.Table{Title: k.title, About: k.about, Head: append([]string{"sockets"}, k.names...)}
	plot := &bench.Plot{Title: k.picture, X: "open sockets", Lines: k.names,
		Panels: []bench.Panel{{Y: "resident memory, MiB"}, {Y: "server CPU, ms a second"}, {Y: "p99, µs"}, {Y: "kernel slabs beyond those before, all ends, MiB"}}}
	for p := range plot.Panels {
		plot.Panels[p].Ys = make([][]float64, len(k.names))
	}
	for i, n := range k.points {
		plot.Xs = append(plot.Xs, float64(n))
		row := []string{whole(n)}
		for j, curve := range curves {
			one := curve[i]
			for p, v := range []float64{float64(one.memory.Resident) / (1 << 20), float64(one.cpu) / 1e6, float64(one.p99) / 1e3, float64(one.slab) / (1 << 20)} {
				plot.Panels[p].Ys[j] = append(plot.Panels[p].Ys[j], v)
			}
			row = append(row, fmt.Sprintf("%s / %s / %s / %s", mib(one.memory.Resident), bench.Number(float64(one.cpu)/1e6), bench.Number(float64(one.p99)/1e3), mib(one.slab)))
		}
		t.Rows = append(t.Rows, row)
	}
	return t, plot
}

func (r *runner) growthOf(start func() (*server, error), points []int) (_ []growthPoint, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	l, err := r.loop()
	if err != nil {
		return nil, err
	}
	s, err := start()
	if err != nil {
		return nil, err
	}
	p := bench.NewPace(l, []byte(growthMessage), growthRate)
	without := slabs()
	var curve []growthPoint
	for _, n := range points {
		one, err := r.growTo(s, p, n, without)
		if err != nil {
			return nil, fmt.Errorf("%d sockets: %w", n, err)
		}
		curve = append(curve, one)
	}
	return curve, nil
}
