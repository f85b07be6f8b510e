package main

import (
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
	millionLanes   = 600  // admissions under way at once, of all client processes: so many that a gateway has several when it wakes
	millionOpening = 2    // client processes that open sockets at the same time: every one that does costs time of its own
	millionSources = 102  // addresses that clients come from: beyond half of an address's ports the kernel searches long for a free one
	gateShare      = 0.9  // of its descriptors that a gateway gives to sockets
	extrapolated   = 10e6 // sockets
)

// million holds n sockets for a time, on as many gateways behind one port as the limit of descriptors makes necessary, and writes
// what they cost.
func million(ctx context.Context, o options) (err error) {
	files, err := bench.Files()
	if err != nil {
		return err
	}
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
	nodes, api, key, err := r.nodes(count)
	if err != nil {
		return err
	}
	r.say("gateways: %d", len(nodes))
	var pids []int
	for _, n := range nodes {
		pids = append(pids, n.PID)
	}
	sources, err := loadtool.ParseSources(fmt.Sprintf("127.0.0.2-127.0.0.%d", 1+millionSources))
	if err != nil {
		return err
	}
	s := loadtool.Settings{Verb: loadtool.Connect, Target: "http://" + api, Key: key, Stream: "load", Clients: max(o.million/millionEach, 1), Sockets: o.million, Insist: true,
		InFlight: 1, Duration: o.hold, Settle: time.Second, Lanes: millionLanes, Sources: sources, Seed: 1, PIDs: pids}
	line, missing, err := s.Preflight()
	if err != nil || len(missing) > 0 {
		return errors.Join(err, errors.New(strings.Join(missing, "\n")))
	}
	s.Lanes = millionLanes / min(s.Procs, millionOpening)
	r.say("%s", line)
	worker := func() *exec.Cmd { return exec.Command(r.program, "bench", "worker") }
	said := time.Now()
	res, err := loadtool.Run(ctx, s, loadtool.Env{Opening: millionOpening, Tool: "bench/cmd", Command: os.Args, Worker: worker, Say: func(p loadtool.Progress) {
		if time.Since(said) >= 10*time.Second {
			said = time.Now()
			r.say("%s", p.Line(false))
		}
	}})
	if err != nil {
		return err
	}
	for _, line := range res.Lines() {
		r.say("%s", line)
	}
	text := millionText(res, len(nodes), o.ping)
	if o.out == "-" {
		fmt.Print(text)
		return nil
	}
	return os.WriteFile(o.out, []byte(text), 0o644)
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

// nodes starts so many gateways behind one port: with one Redis, or one gateway, on all cores, with its own memory.
func (r *runner) nodes(count int) (all []*bench.Child, api, key string, err error) {
	nodes := setup{ping: r.ping, pong: r.ping / 3}
	cores := []int{bench.AnyCore}
	if count > 1 {
		_, url, err := r.redis() // end stops it
		if err != nil {
			return nil, "", "", err
		}
		nodes.store = fmt.Sprintf("{ kind: redis, url: %q, timeout: 5s }", url)
		if cores, err = bench.Cores(); err != nil {
			return nil, "", "", err
		}
	}
	if key, err = r.secrets(); err != nil {
		return nil, "", "", err
	}
	ports, err := quietPorts(1 + count)
	if err != nil {
		return nil, "", "", err
	}
	for i := range count {
		file, err := r.configure(nodes, fmt.Sprintf("million-%d", i), ports[1+i], ports[0], 0)
		if err != nil {
			return nil, "", "", err
		}
		c, err := r.start(cores[i%len(cores)], r.program, "serve", "--config", file)
		if err != nil {
			return nil, "", "", err
		}
		all = append(all, c)
	}
	for i, c := range all {
		address := fmt.Sprintf("127.0.0.1:%d", ports[1+i])
		if err := c.Ready(r.ctx, func(ctx context.Context) error { return get(ctx, "http://"+address+"/readyz") }); err != nil {
			return nil, "", "", err
		}
	}
	return all, fmt.Sprintf("127.0.0.1:%d", ports[1]), key, nil
}

func millionText(res *loadtool.Result, nodes int, ping time.Duration) string {
	n := float64(max(res.Opening.Opened, 1))
	srv := res.Server
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	slab := float64(res.Kernel[1].Slabs-res.Kernel[0].Slabs) / n
	kernel := float64(res.Kernel[1].Used-res.Kernel[0].Used) / n
	user := srv.PerSocket
	lost := uint64(0)
	for _, v := range res.Run.Errors {
		lost += v
	}
	say("# %s sockets\n", whole(int(res.Opening.Opened)))
	say("Written by `make bench-million` on %s. Do not edit.\n", res.Started.Format("2006-01-02 15:04 MST"))
	servers := fmt.Sprintf("%d gateways of %d descriptors each share one port (SO_REUSEPORT) and one Redis, which all count in", nodes, res.Host.Files)
	if nodes == 1 {
		servers = "One gateway in one process, with the memory store"
	}
	say("%s; %d client process%s from %d addresses. Each socket came through a ticket of its own, is counted for its client (%d sockets a client) and rate-limited, and is pinged every %s.\n",
		servers, res.Client.Processes, map[bool]string{true: "es"}[res.Client.Processes != 1], len(res.Settings.Sources), millionEach, ping)
	say("| | |\n|---|---|")
	row := func(name, format string, args ...any) { say("| %s | "+format+" |", append([]any{name}, args...)...) }
	row("machine", "%s, %d cores, %.1f GiB, Linux %s", res.Host.CPU, res.Host.Cores, float64(res.Host.Memory)/(1<<30), res.Host.Kernel)
	row("opened", "%s of %s, in %s (%.0f a second)", whole(int(res.Opening.Opened)), whole(res.Opening.Wanted), res.Opening.Took.Round(time.Second), n/res.Opening.Took.Seconds())
	row("held", "%s, with %s pings answered", res.Run.Took.Round(time.Second), whole(int(res.Run.Pings)))
	row("lost", "%d", lost)
	row("gateways, user space, a socket beyond what they take without any", "**%s B** (resident %s MiB before, %s MiB with all open, %s MiB at the end)", bench.Number(user), bench.Number(float64(srv.Before)/(1<<20)), bench.Number(float64(srv.Full)/(1<<20)), bench.Number(float64(srv.After)/(1<<20)))
	row("kernel, a socket, both ends", "%s B of slabs; %s B of all that it uses beside the page cache", bench.Number(slab), bench.Number(kernel))
	row("client, user space, a socket", "%s B", bench.Number(res.Client.PerSocket))
	row("gateways, CPU while holding", "%.2f cores: %.3f µs a socket and second, pings and all else", srv.Cores, srv.Cores*1e6/n)
	for _, why := range res.Why {
		row("but", "%s", why)
	}
	one := kernel/2 + user
	say("\n## Ten million\n")
	say("A socket takes %s B of the gateway's memory and, if both ends cost the same, %s B of its kernel's: %s B. Ten million would take %.1f GiB, and %.1f cores like these for pings every %s (%.1f at 25 s), as long as nothing is sent: a socket with data under way takes what TCP's buffers take. It assumes that memory a socket stays as it is (it has from 5,000 to %s), that descriptors and ports are there (`fs.nr_open`; a client has one of each), and that the network card's share, which loopback does not have, is paid on top.",
		bench.Number(user), bench.Number(kernel/2), bench.Number(one), one*extrapolated/(1<<30), srv.Cores*extrapolated/n, ping, srv.Cores*extrapolated/n*ping.Seconds()/25, whole(int(n)))
	return b.String()
}

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
