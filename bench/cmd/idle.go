package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"ticketgate/bench"
)

// idlePoints are the numbers of sockets at which memory is read.
func (o options) idlePoints() [2]int {
	if o.short {
		return [2]int{1000, 3000}
	}
	return [2]int{5000, 15000}
}

// settleStep is how far apart memory is read until it is settled: with -short what a collection will free is not waited for.
func (o options) settleStep() time.Duration {
	if o.short {
		return 100 * time.Millisecond
	}
	return 200 * time.Millisecond
}

const (
	settleSteps = 25       // 5 s at most
	settled     = 16 << 10 // bytes of change in three steps that count as none

	idleWarm  = 200 // sockets opened and closed before
	idleShare = 10  // sockets of a client, where clients have several
)

// A crowd is sockets that stay open on a server.
type crowd interface {
	grow(n int) error // to n more sockets than those that warm opened and closed
	wait(d time.Duration) error
	lost() int
}

// A held is what a server and the machine hold with so many sockets open.
type held struct {
	sockets int
	memory  bench.Memory
	slabs   int64 // of the machine; 0: unreadable
}

// An idleRound is memory per socket, in bytes.
type idleRound struct {
	total, slope, anonymous float64
	kernel                  float64 // of slabs, both ends of a connection together
}

// An idleServer is a row: how to start the server, and how sockets come to it.
type idleServer struct {
	name   string
	rounds int
	start  func(*runner, *bench.Loop) (bench.Process, crowd, error)
}

// idle measures what an open socket without traffic costs.
func idle(r *runner) (*section, error) {
	at := r.idlePoints()
	t := &bench.Table{
		Title: "Idle sockets",
		About: fmt.Sprintf("Resident memory of the server (VmRSS), which has opened and closed %d sockets before, then holds %s and %s open ones, each ticketed, counted, rate-limited, pinged; read when it no longer changes; GOGC as it comes, "+
			"no forced collection. A new server each round. Bytes per socket; the slope is the growth between the two points, without what the first socket pays for all.",
			idleWarm, whole(at[0]), whole(at[1])),
		Head: []string{"server", fmt.Sprintf("0 to %d", at[1]), fmt.Sprintf("slope %d to %d", at[0], at[1]), "of the total anonymous", "kernel slabs, both ends"},
	}
	servers := []idleServer{
		{"ticketgate, a client a socket", 3, func(r *runner, l *bench.Loop) (bench.Process, crowd, error) { return idleGateway(r, l, 1) }},
		{fmt.Sprintf("ticketgate, %d sockets a client", idleShare), 3, func(r *runner, l *bench.Loop) (bench.Process, crowd, error) { return idleGateway(r, l, idleShare) }},
		{"epollaccept", 2, idleBare},
	}
	secure, why, err := r.knowsTLS()
	switch {
	case err != nil:
		return nil, err
	case secure:
		by := "crypto/tls"
		if kernelTLS() {
			by = "the kernel"
		}
		servers = append(servers, idleServer{"ticketgate, TLS by " + by, 2, idleSecure})
		t.Lines = append(t.Lines, "TLS: version 1.3, a certificate on P-256, no session resumption.")
	default:
		t.Lines = append(t.Lines, "TLS on the gate was not measured: "+why)
	}
	s := &section{tables: []*bench.Table{t}}
	for i, server := range servers {
		var all []idleRound
		for range min(r.rounds, server.rounds) {
			r.say("idle: %s", server.name)
			curve, err := r.idleCurve(at[:], server.start)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", server.name, err)
			}
			all = append(all, idleRoundOf(curve, at[0]))
		}
		s.compared("Idle, "+server.name+": bytes a socket", idleSpread(all, func(i idleRound) float64 { return i.total }))
		row := idleRow(server.name, all)
		t.Rows = append(t.Rows, row)
		if i == 0 {
			s.goal("Idle socket, user space, everything on", "at most 512 B", fmt.Sprintf("%s B; slope %s B", row[1], row[2]))
		}
	}
	if _, err := bench.Slab(); err != nil {
		t.Lines = append(t.Lines, fmt.Sprintf("Kernel memory could not be read: %v.", err))
	} else {
		t.Lines = append(t.Lines, "Kernel slabs are those of the whole machine (/proc/slabinfo) and hold the client's end too, which is about half; buffers with data in them are not slabs.")
	}
	return s, nil
}

// kernelTLS reports whether sockets may have their TLS in the kernel.
func kernelTLS() bool {
	known, err := os.ReadFile("/proc/sys/net/ipv4/tcp_available_ulp")
	return err == nil && slices.Contains(strings.Fields(string(known)), "tls")
}

func idleSpread(all []idleRound, f func(idleRound) float64) bench.Spread {
	var v []float64
	for _, one := range all {
		v = append(v, f(one))
	}
	return bench.SpreadOf(v)
}

func idleRow(name string, all []idleRound) []string {
	over := func(f func(idleRound) float64) string { return idleSpread(all, f).String() }
	return []string{
		name,
		over(func(i idleRound) float64 { return i.total }),
		over(func(i idleRound) float64 { return i.slope }),
		over(func(i idleRound) float64 { return i.anonymous }),
		over(func(i idleRound) float64 { return i.kernel }),
	}
}

// idleGateway is a gateway whose clients have each sockets.
func idleGateway(r *runner, l *bench.Loop, each int) (bench.Process, crowd, error) {
	g, err := r.gatewayWith(setup{})
	if err != nil {
		return bench.Process{}, nil, err
	}
	g.mint.Row = each
	return g.Process, &plainCrowd{r, &bench.Admissions{Loop: l, API: g.api, Gate: g.gate, Host: g.host, Mint: g.mint}}, nil
}

func idleBare(r *runner, l *bench.Loop) (bench.Process, crowd, error) {
	p, a, err := bareGate(r, l, r.idlePoints()[1]+idleWarm)
	return p, &plainCrowd{r, a}, err
}

// bareGate is an epollaccept to which n sockets can be opened.
func bareGate(r *runner, l *bench.Loop, n int, args ...string) (bench.Process, *bench.Admissions, error) {
	c, address, err := r.peer(r.serverCore, "epollaccept", args...)
	if err != nil {
		return bench.Process{}, nil, err
	}
	to, err := bench.NewTarget(address)
	if err != nil {
		return bench.Process{}, nil, err
	}
	head := bench.AppendUpgrade(nil, "127.0.0.1", []byte("/t/bare"), []byte("tgs_bare"))
	return c.Process, &bench.Admissions{Loop: l, Gate: to, Heads: slices.Repeat([][]byte{head}, n)}, nil
}

// plainCrowd opens sockets without TLS.
type plainCrowd struct {
	r *runner
	a *bench.Admissions
}

func (p *plainCrowd) grow(n int) error {
	p.a.Max = n + idleWarm
	if !p.a.Keep { // the first call: those that are closed again
		p.a.Max = idleWarm
	}
	p.a.Start(lanes)
	err := p.a.Loop.RunUntil(p.r.ctx, giveUp, p.a.Idle)
	p.a.Keep = true
	return errors.Join(err, p.a.Err)
}

func (p *plainCrowd) wait(d time.Duration) error { return p.a.Loop.RunFor(p.r.ctx, d) }
func (p *plainCrowd) lost() int                  { return p.a.Lost }

// idleCurve brings a new server to so many sockets, one number after the other, and says what was held before the first of them and at
// each number.
func (r *runner) idleCurve(points []int, start func(*runner, *bench.Loop) (bench.Process, crowd, error)) (curve []held, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	l, err := r.loop()
	if err != nil {
		return nil, err
	}
	server, c, err := start(r, l)
	if err != nil {
		return nil, err
	}
	for _, n := range append([]int{0}, points...) {
		one, err := r.hold(server, c, n)
		if err != nil {
			return nil, err
		}
		curve = append(curve, one)
	}
	return curve, nil
}

// idleRoundOf is what curve comes to at its end, a socket; the slope begins at from sockets.
func idleRoundOf(curve []held, from int) idleRound {
	zero, last := curve[0], curve[len(curve)-1]
	half := curve[slices.IndexFunc(curve, func(h held) bool { return h.sockets == from })]
	n := float64(last.sockets)
	return idleRound{
		total:     float64(last.memory.Resident-zero.memory.Resident) / n,
		slope:     float64(last.memory.Resident-half.memory.Resident) / float64(last.sockets-half.sockets),
		anonymous: float64(last.memory.Anonymous-zero.memory.Anonymous) / n,
		kernel:    float64(last.slabs-zero.slabs) / n,
	}
}

// hold brings c to n sockets and reads the server's memory when it is quiet.
func (r *runner) hold(server bench.Process, c crowd, n int) (held, error) {
	if err := c.grow(n); err != nil {
		return held{}, fmt.Errorf("%d sockets: %w", n, err)
	}
	m, err := r.settle(server, c)
	if err == nil && c.lost() > 0 {
		err = fmt.Errorf("%d of %d sockets did not stay open", c.lost(), n)
	}
	return held{n, m, slabs()}, err
}

// slabs are the machine's; 0 where they cannot be read, which idle says.
func slabs() int64 {
	n, err := bench.Slab()
	if err != nil {
		return 0
	}
	return n
}

// settle waits until three readings in a row agree.
func (r *runner) settle(server bench.Process, c crowd) (bench.Memory, error) {
	var last bench.Memory
	for same, step := 0, 0; same < 3 && step < settleSteps; step++ {
		if err := c.wait(r.settleStep()); err != nil {
			return last, err
		}
		m, err := server.Memory()
		if err != nil {
			return last, err
		}
		same++
		if d := m.Resident - last.Resident; d > settled || d < -settled {
			same = 0
		}
		last = m
	}
	return last, nil
}
