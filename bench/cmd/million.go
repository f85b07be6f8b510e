package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"ticketgate/bench"
	loadtool "ticketgate/bench/load"
)

const (
	millionSpare   = 5    // of 100 sockets that a process may hold: the kernel spreads them by chance
	millionEach    = 100  // sockets of a client
	millionLanes   = 1200 // admissions under way at once, of all client processes: a gateway has several when it wakes, and a socket costs a quarter less than with 600
	millionBusy    = 512  // and for each gateway at most: more wait longer than a gateway waits for a request, where one is slow; with fewer an emulated one wakes for each event alone
	millionAsking  = 0.06 // of its descriptors that the gateway which is asked for tickets has for those who ask: each lane keeps a connection
	millionOpening = 2    // client processes that open sockets at the same time: every one that does costs time of its own
	millionSources = 102  // addresses that clients come from: beyond half of an address's ports the kernel searches long for a free one
	millionWarm    = 200  // sockets that a gateway has opened and closed before its memory is read, as in the scenario idle
	gateShare      = 0.9  // of its descriptors that a gateway gives to sockets

	millionRest = 10 * time.Second // how long the gateways are watched without a socket
	millionStep = 2 * time.Minute  // how long a ticket, or a socket, is waited for: a RST that the kernel drops comes never
)

// million holds n sockets for a time, on as many gateways behind one port as the limit of descriptors makes necessary, and writes
// what they cost.
func million(ctx context.Context, o options) (err error) {
	files, err := bench.Files()
	if err != nil {
		return err
	}
	files = cmp.Or(o.perProcess, files)
	count := gatewaysFor(o.million, files)
	if err := ready(bench.Needs{Files: min(files, o.million), Programs: millionPrograms(o, count)}); err != nil {
		return err
	}
	r, err := newRunner(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.buildGateway(o.gateway); err != nil {
		return err
	}
	set, err := r.nodes(count)
	if err != nil {
		return err
	}
	r.say("gateways: %d", len(set.gateways))
	m, err := r.holdMillion(set)
	if err != nil {
		return err
	}
	for _, line := range m.Lines() {
		r.say("%s", line)
	}
	if err := m.failed(); err != nil {
		return err // and what an earlier run has written stays
	}
	r.say("open at the end: %s", whole(m.open()))
	return r.keepMillion(m)
}

// holdMillion opens the sockets and holds them.
func (r *runner) holdMillion(set *gatewaySet) (*millionRun, error) {
	s := loadtool.Settings{Verb: loadtool.Connect, Target: "http://" + set.api, Key: set.key, Stream: "load", Clients: max(r.million/millionEach, 1), Insist: true,
		InFlight: 1, Settle: time.Second, Timeout: millionStep, Lanes: lanesFor(r.files, len(set.gateways)), Seed: 1}
	for _, g := range set.gateways {
		s.PIDs = append(s.PIDs, g.PID)
	}
	var err error
	if s.Sources, err = loadtool.ParseSources(fmt.Sprintf("127.0.0.2-127.0.0.%d", 1+millionSources)); err != nil {
		return nil, err
	}
	m := &millionRun{gateways: len(set.gateways), files: r.files, ping: r.ping, watch: cmp.Or(r.rest, millionRest)}
	if set.redis != nil { // it has to learn every client
		m.redis = new([2]int64)
		if m.redis[0], err = set.redis.Resident(); err != nil {
			return nil, err
		}
	}
	warm := s
	warm.Sockets, warm.Duration = min(millionWarm*len(set.gateways), r.million), time.Second
	warm.Clients = max(warm.Sockets/millionEach, 1)
	r.say("warming: %s sockets that come and go", whole(warm.Sockets))
	came, err := r.load(warm, nil)
	if err == nil {
		err = sound(came, warm.Sockets)
	}
	if err != nil {
		return nil, fmt.Errorf("warm: %w", err)
	}
	if m.resting, err = r.resting(set.gateways, m.watch); err != nil {
		return nil, err
	}
	s.Sockets, s.Duration = r.million, r.options.hold
	said := time.Now()
	m.Result, err = r.load(s, func(p loadtool.Progress) {
		if m.redis != nil {
			if n, err := set.redis.Resident(); err == nil { // if it is gone, all that follows fails
				m.redis[1] = n
			}
		}
		if time.Since(said) >= 10*time.Second {
			said = time.Now()
			r.say("%s", p.Line(false))
		}
	})
	return m, err
}

// load runs the load tool, with workers of the program that is measured.
func (r *runner) load(s loadtool.Settings, say func(loadtool.Progress)) (*loadtool.Result, error) {
	line, missing, err := s.Preflight()
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		return nil, errors.New(strings.Join(missing, "\n"))
	}
	r.say("%s", line)
	s.Lanes = max(s.Lanes/min(s.Procs, millionOpening), 1)
	worker := func() *exec.Cmd { return exec.Command(r.program, "bench", "worker") }
	return loadtool.Run(r.ctx, s, loadtool.Env{Opening: millionOpening, Tool: "bench/cmd", Command: os.Args, Worker: worker, Say: say})
}

// resting is the processor time a second that the gateways take without a socket, watched for so long.
func (r *runner) resting(gateways []*bench.Child, watch time.Duration) (time.Duration, error) {
	for _, g := range gateways {
		if err := r.quiet(g.Process); err != nil {
			return 0, err
		}
	}
	before, err := usedBy(gateways)
	if err != nil {
		return 0, err
	}
	l, err := bench.NewLoop(bench.Options{})
	if err != nil {
		return 0, err
	}
	if err := errors.Join(l.RunFor(r.ctx, watch), l.Close()); err != nil {
		return 0, err
	}
	after, err := usedBy(gateways)
	return time.Duration(float64(after-before) / watch.Seconds()), err
}

// usedBy is the processor time that all of them have used.
func usedBy(all []*bench.Child) (used time.Duration, err error) {
	for _, c := range all {
		cpu, e := c.CPU()
		used, err = used+cpu.Total(), errors.Join(err, e)
	}
	return used, err
}

// lanesFor is how many admissions may be under way on so many gateways, each with so many descriptors.
func lanesFor(files, gateways int) int {
	return max(min(millionLanes, millionBusy*gateways, int(float64(files)*millionAsking)), 1)
}

// gatewaysFor is how many processes with so many descriptors each hold n sockets.
func gatewaysFor(n, files int) int {
	each := int(float64(files) * gateShare)
	if n <= each {
		return 1
	}
	each -= each * millionSpare / 100
	return (n + each - 1) / each
}

// millionPrograms are those that o needs with so many gateways.
func millionPrograms(o options, gateways int) (all []string) {
	if gateways > 1 {
		all = append(all, "redis-server")
	}
	if o.gateway == "" {
		all = append(all, "go")
	}
	return all
}

// A gatewaySet is gateways behind one port.
type gatewaySet struct {
	gateways []*bench.Child
	redis    *bench.Child // nil: the one gateway has its own memory
	api, key string
}

// nodes starts so many gateways behind one port: with one Redis, or one gateway, on all cores, with its own memory.
func (r *runner) nodes(count int) (*gatewaySet, error) {
	set := new(gatewaySet)
	nodes := setup{ping: r.ping, pong: pongWait(r.ping)}
	cores := []int{bench.AnyCore}
	var err error
	if count > 1 {
		var url string
		if set.redis, url, err = r.redis(); err != nil { // end stops it
			return nil, err
		}
		nodes.store = fmt.Sprintf("{ kind: redis, url: %q, timeout: 10s }", url)
		if cores, err = bench.Cores(); err != nil {
			return nil, err
		}
	}
	if set.key, err = r.secrets(); err != nil {
		return nil, err
	}
	ports, err := quietPorts(1 + count)
	if err != nil {
		return nil, err
	}
	for i := range count {
		file, err := r.configure(nodes, fmt.Sprintf("million-%d", i), ports[1+i], ports[0], 0)
		if err != nil {
			return nil, err
		}
		c, err := r.start(cores[i%len(cores)], r.program, "serve", "--config", file, "--new-store")
		if err != nil {
			return nil, err
		}
		set.gateways = append(set.gateways, c)
	}
	for i, c := range set.gateways {
		address := fmt.Sprintf("127.0.0.1:%d", ports[1+i])
		if err := c.Ready(r.ctx, func(ctx context.Context) error { return get(ctx, "http://"+address+"/readyz") }); err != nil {
			return nil, err
		}
	}
	set.api = fmt.Sprintf("127.0.0.1:%d", ports[1])
	return set, nil
}

// pongWait is how long a pong may take: the product's 10 s, or a third of a long time between pings, which is for machines that are
// slow.
func pongWait(ping time.Duration) time.Duration { return max(min(10*time.Second, ping/2), ping/3) }

// quietPorts finds n free ports that no outgoing connection of this machine gets (ip_local_port_range begins above them).
func quietPorts(n int) ([]int, error) {
	var all []int
	for port := 10240; port < 32768 && len(all) < n; port++ {
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return nil, err
		}
		all = append(all, port)
	}
	if len(all) < n {
		return nil, fmt.Errorf("%d ports are free, %d are needed", len(all), n)
	}
	return all, nil
}
