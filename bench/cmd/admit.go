package main

import (
	"errors"
	"fmt"

	"ticketgate/bench"
)

// lanes is how many connections ask for tickets, and how many sockets are being opened, at once.
const lanes = 64

// fetch asks for n tickets and returns the upgrade requests that spend them.
func (r *runner) fetch(l *bench.Loop, g *gateway, n int) ([][]byte, error) {
	heads := make([][]byte, 0, n)
	p := &bench.Posts{Loop: l, To: g.api, Mint: g.mint, Max: n, Keep: func(t bench.Ticket) {
		heads = append(heads, bench.AppendUpgrade(nil, g.host, t.Path, t.Secret))
	}}
	p.Start(min(n, lanes))
	if err := errors.Join(l.RunUntil(r.ctx, giveUp, p.Idle), p.Err); err != nil {
		return nil, fmt.Errorf("fetch %d tickets: %w", n, err)
	}
	return heads, nil
}

// admitLoad is the load of a.
func admitLoad(name string, server bench.Process, a *bench.Admissions) *load {
	return &load{
		name: name, title: "admit", loop: a.Loop, server: server,
		start: func() { a.Start(lanes) }, stop: a.Stop, idle: a.Idle,
		done: func() uint64 { return a.Done }, latency: &a.Latency, failed: func() error { return a.Err },
	}
}

// gateRound is how many sockets a round of gate opens.
func (r *runner) gateRound() int {
	if r.short {
		return 1500
	}
	return 6000
}

// gate measures accept to 101 alone, with tickets fetched before, next to a program that answers a fixed 101. The sockets of
// a round are closed when its clock has stopped.
func gate(r *runner) (_ *section, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	loop, err := r.loop()
	if err != nil {
		return nil, err
	}
	g, err := r.gatewayWith(setup{})
	if err != nil {
		return nil, err
	}
	bare, address, err := r.peer(r.serverCore, "epollaccept")
	if err != nil {
		return nil, err
	}
	to, err := bench.NewTarget(address)
	if err != nil {
		return nil, err
	}
	ours := &bench.Admissions{Loop: loop, Gate: g.gate, Host: g.host, Keep: true}
	floor := &bench.Admissions{Loop: loop, Gate: to, Host: g.host, Keep: true}
	a, b := admitLoad("ticketgate", g.Process, ours), admitLoad("epollaccept", bare.Process, floor)
	a.prepare = func() error {
		heads, err := r.fetch(loop, g, r.gateRound())
		ours.Again(heads)
		return errors.Join(err, r.quiet(g.Process))
	}
	b.prepare = func() error {
		floor.Again(ours.Heads) // the same bytes; the bare program does not know that they are spent
		return nil
	}
	for _, l := range []*load{a, b} {
		kept := map[*load]*bench.Admissions{a: ours, b: floor}[l]
		l.after = func() error {
			if kept.Lost > 0 {
				return fmt.Errorf("%d sockets did not stay open", kept.Lost)
			}
			kept.HangUp()
			return r.quiet(l.server)
		}
	}
	if err := r.compare(r.counted, a, b); err != nil {
		return nil, err
	}
	rate, cpu := ratios(a, b)
	s := &section{tables: []*bench.Table{{
		Title: "Gate: accept to 101",
		About: fmt.Sprintf("%d sockets a round, %d at once, with tickets fetched before and a memory store: TCP connect, upgrade with locator and second secret, 101. They stay open and are closed after the round, which is not counted. "+
			"epollaccept reads the same request and answers a fixed 101. The kernel does the TCP handshake at the cost of the client, in its connect(2).", r.gateRound(), lanes),
		Head: head("socket"),
		Rows: [][]string{a.row(), b.row()},
		Lines: []string{
			ratio(a, b),
			fmt.Sprintf("A whole core would admit %s and %s sockets a second by these CPU figures: %.2f times.",
				bench.Number(1e6/a.cpu().Median), bench.Number(1e6/b.cpu().Median), 1/cpu.Median),
		},
	}}}
	s.compared("Gate: server CPU against epollaccept", cpu)
	s.goal("Gate: accept to 101 against epollaccept", "at least 0.7 times the rate", fmt.Sprintf("%s; %s times the server CPU", rate, cpu))
	return s, nil
}

// admissions measures the whole way, ticket included, with both stores.
func admissions(r *runner) (_ *section, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	redis, url, err := r.redis()
	if err != nil {
		return nil, err
	}
	var loads []*load
	var g *gateway
	for _, s := range []struct{ name, store string }{{"memory store", ""}, {"redis store", redisStore(url)}} {
		loop, err := r.loop()
		if err != nil {
			return nil, err
		}
		if g, err = r.gatewayWith(setup{store: s.store}); err != nil {
			return nil, err
		}
		a := &bench.Admissions{Loop: loop, API: g.api, Gate: g.gate, Host: g.host, Mint: g.mint}
		loads = append(loads, admitLoad(s.name, g.Process, a))
	}
	loads[1].helper = &redis.Process
	floor, err := r.bareAdmissions(loads[0].loop, g)
	if err != nil {
		return nil, err
	}
	if err := r.compare(r.timed, append(loads, floor)...); err != nil {
		return nil, err
	}
	t := &bench.Table{
		Title: "Admissions: ticket, open, close",
		About: fmt.Sprintf("%d lanes; each asks for a ticket (`POST /v1/tickets`, keep-alive), opens the socket with it and closes it. "+
			"redis-server keeps nothing on disk and shares the client's core. The last row answers the same requests with as many bytes, and checks nothing: barehttp the one for a ticket, with one of the gateway's, epollaccept the upgrade with that and the close frame; its CPU is that of both.", lanes),
		Head: head("admission"),
	}
	s := &section{tables: []*bench.Table{t}}
	for _, l := range loads {
		_, cpu := ratios(l, floor)
		s.compared("Admissions, "+l.name+": server CPU against "+floor.name, cpu)
		t.Rows = append(t.Rows, l.row())
		t.Lines = append(t.Lines, ratio(l, floor))
	}
	t.Rows = append(t.Rows, floor.row())
	t.Lines = append(t.Lines, ratio(loads[1], loads[0]),
		fmt.Sprintf("redis-server itself: %s µs of CPU per admission.", loads[1].over(func(s sample) float64 { return s.helper })))
	return s, nil
}

// bareAdmissions is the load of two programs that do the least for an admission to g.
func (r *runner) bareAdmissions(l *bench.Loop, g *gateway) (*load, error) {
	api, to, _, err := r.bareAPI(l, g)
	if err != nil {
		return nil, err
	}
	gate, address, err := r.peer(r.serverCore, "epollaccept")
	if err != nil {
		return nil, err
	}
	at, err := bench.NewTarget(address)
	if err != nil {
		return nil, err
	}
	floor := admitLoad("barehttp and epollaccept", gate.Process, &bench.Admissions{Loop: l, API: to, Gate: at, Host: g.host, Mint: g.mint})
	floor.also = &api
	return floor, nil
}

// bareAPI starts a barehttp that answers with a ticket of g's: a client finds as much to read, and to send on, as in those of g.
func (r *runner) bareAPI(l *bench.Loop, g *gateway) (p bench.Process, to *bench.Target, bytes int, err error) {
	ticket, err := r.ticket(l, g)
	if err != nil {
		return bench.Process{}, nil, 0, err
	}
	bare, address, err := r.peer(r.serverCore, "barehttp", "-answer", ticket)
	if err != nil {
		return bench.Process{}, nil, 0, err
	}
	to, err = bench.NewTarget(address)
	return bare.Process, to, len(ticket), err
}

// ticket is the whole answer to one request to g.
func (r *runner) ticket(l *bench.Loop, g *gateway) (body string, err error) {
	done := false
	var failed error
	k := bench.NewCaller(l, g.api, func(a bench.Answer, err error) {
		_, failed = bench.TicketOf(a, err)
		body, done = string(a.Body), true
	})
	defer k.HangUp()
	k.Post(g.mint.Append(nil))
	err = l.RunUntil(r.ctx, giveUp, func() bool { return done })
	return body, errors.Join(err, failed)
}

// tickets measures the front end alone, next to a fasthttp handler that answers as many bytes.
func tickets(r *runner) (_ *section, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	loop, err := r.loop()
	if err != nil {
		return nil, err
	}
	g, err := r.gatewayWith(setup{})
	if err != nil {
		return nil, err
	}
	bare, to, bytes, err := r.bareAPI(loop, g)
	if err != nil {
		return nil, err
	}
	a := postsLoad("ticketgate", g.Process, &bench.Posts{Loop: loop, To: g.api, Mint: g.mint})
	b := postsLoad("barehttp", bare, &bench.Posts{Loop: loop, To: to, Mint: g.mint})
	if err := r.compare(r.timed, a, b); err != nil {
		return nil, err
	}
	s := &section{tables: []*bench.Table{{
		Title: "Tickets",
		About: fmt.Sprintf("`POST /v1/tickets` on %d keep-alive connections, one request at a time on each, memory store: key checked, limits, ticket minted, slot reserved; nobody spends the tickets, they lapse after %.0f s. "+
			"barehttp is fasthttp with a handler that answers every request with the same ticket, of %d bytes as those of the gateway; both end a connection after 100 requests.", lanes, ticketTTL.Seconds(), bytes),
		Head:  head("ticket"),
		Rows:  [][]string{a.row(), b.row()},
		Lines: []string{ratio(a, b)},
	}}}
	_, cpu := ratios(a, b)
	s.compared("Tickets: server CPU against barehttp", cpu)
	return s, nil
}

func postsLoad(name string, server bench.Process, p *bench.Posts) *load {
	return &load{
		name: name, title: "tickets", loop: p.Loop, server: server,
		start: func() { p.Start(lanes) }, stop: p.Stop, idle: p.Idle,
		done: func() uint64 { return p.Done }, latency: &p.Latency, failed: func() error { return p.Err },
	}
}
