package main

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"ticketgate/bench"
	"ticketgate/engine/upgrade"
	"ticketgate/ticket"
)

const (
	floodHeads = 4096 // forged requests, each with another locator
	floodTexts = 256  // of them in process: a loop has just read what it refuses, so it is in the processor's cache
	floodWant  = 1e6  // refusals a second of a core, in process
)

// floodEach is how many refusals a round in process has.
func (r *runner) floodEach() int {
	if r.short {
		return 60_000
	}
	return 600_000
}

// A forgery is what a flood is made of: requests that are well formed to the last bit of their locators, but for the MAC.
type forgery struct {
	heads   [][]byte
	checker *ticket.Checker
	now     time.Time
	epoch   ticket.Epoch

	req upgrade.Request
}

// forge makes n requests to host: half of them under keys that the checker's ring does not have, half with a bit of the MAC changed.
func forge(host string, n int) (*forgery, error) {
	ring, err := ticket.NewKeyRing(rand.Reader)
	if err != nil {
		return nil, err
	}
	other, err := ticket.NewKeyRing(rand.Reader)
	if err != nil {
		return nil, err
	}
	f := &forgery{checker: ring.NewChecker(), now: time.Now(), epoch: 1}
	for i := range n {
		k := other
		if i%2 == 1 {
			k = ring
		}
		m, err := k.NewMinter(rand.Reader).Mint(f.now.Add(ticketTTL), f.epoch, ticket.Subject(i), 0)
		if err != nil {
			return nil, err
		}
		if k == ring {
			flip(m.Text[:])
		}
		f.heads = append(f.heads, bench.AppendUpgrade(nil, host, append([]byte("/t/"), m.Text[:]...), m.Secret[:]))
	}
	return f, nil
}

// flip changes the MAC, the last 16 bytes of a locator, and leaves the text well formed.
func flip(text []byte) {
	last := &text[len(text)-1]
	if *last == 'A' {
		*last = 'B'
	} else {
		*last = 'A'
	}
}

// Epoch implements ticket.Epochs.
func (f *forgery) Epoch(ticket.Subject) ticket.Epoch { return f.epoch }

// check is what a gate says of a locator, before it asks its cache or the store.
func (f *forgery) check(text []byte) error {
	_, err := f.checker.Check(text, f.now, f)
	return err
}

// refuse is what a gate does with a request up to there.
func (f *forgery) refuse(head []byte) error {
	var scan upgrade.Scan
	if n, p := upgrade.Parse(head, &scan, &f.req); n != len(head) || p != nil {
		return fmt.Errorf("%w: of %d bytes %d are a request", errUnmeasured, len(head), n)
	}
	return f.check(f.req.Path[len("/t/"):])
}

// perCall is the processor time of one call of do in n, ns.
func perCall(n int, do func(i int)) (float64, error) {
	before, err := bench.OwnCPU()
	if err != nil {
		return 0, err
	}
	for i := range n {
		do(i)
	}
	after, err := bench.OwnCPU()
	return float64(after.Sub(before).Total().Nanoseconds()) / float64(n), err
}

// A floodRound is what was seen of each step in one round, ns.
type floodRound struct{ locator, request, control float64 }

// rounds measures f in process: with the locators alone, with whole requests, and what SHA-256 of the same bytes takes.
func (f *forgery) rounds(rounds, each int) (all []floodRound, err error) {
	heads := f.heads[:min(len(f.heads), floodTexts)]
	texts := make([][]byte, len(heads))
	for i, h := range heads {
		texts[i] = h[len("GET /t/"):][:ticket.LocatorLen]
	}
	bad := 0
	count := func(err error) {
		if err != ticket.ErrForged {
			bad++
		}
	}
	var sum byte
	for range rounds {
		var r floodRound
		var errs [3]error
		r.locator, errs[0] = perCall(each, func(i int) { count(f.check(texts[i%len(texts)])) })
		r.request, errs[1] = perCall(each, func(i int) { count(f.refuse(heads[i%len(heads)])) })
		r.control, errs[2] = perCall(each, func(i int) { s := sha256.Sum256(heads[i%len(heads)]); sum ^= s[0] })
		if err := errors.Join(errs[:]...); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	if bad > 0 {
		return nil, fmt.Errorf("%w: %d of the forged locators were not found to be forged", errUnmeasured, bad)
	}
	return all, nil
}

// flood measures what forged tickets cost: in process, and over loopback next to a program that answers anything with the same bytes and
// ends the connection; and that Redis does not hear of them.
func flood(r *runner) (_ *section, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	redis, url, err := r.redis()
	if err != nil {
		return nil, err
	}
	g, err := r.gatewayWith(setup{store: patientStore(url)})
	if err != nil {
		return nil, err
	}
	f, err := forge(g.host, floodHeads)
	if err != nil {
		return nil, err
	}
	inside, err := f.rounds(r.rounds, r.floodEach())
	if err != nil {
		return nil, err
	}
	loop, err := r.loop()
	if err != nil {
		return nil, err
	}
	answer, err := r.refusal(loop, g.gate, f.heads[0])
	if err != nil {
		return nil, err
	}
	bare, address, err := r.peer(r.serverCore, "epollaccept", "-refuse", string(answer))
	if err != nil {
		return nil, err
	}
	to, err := bench.NewTarget(address)
	if err != nil {
		return nil, err
	}
	log, err := r.ask(strings.TrimPrefix(url, "redis://"))
	if err != nil {
		return nil, err
	}
	if err := log.Log(); err != nil {
		return nil, err
	}
	a := refusalLoad(ours, g.Process, &bench.Refusals{Loop: loop, To: g.gate, Heads: f.heads, Status: 401})
	b := refusalLoad("epollaccept", bare.Process, &bench.Refusals{Loop: loop, To: to, Heads: f.heads, Status: 401})
	a.helper = &redis.Process
	if err := r.compare(r.timed, a, b); err != nil {
		return nil, err
	}
	asked, others, err := asked(log)
	if err != nil {
		return nil, err
	}
	if err := r.seen(loop, g, log, asked); err != nil {
		return nil, err
	}
	return floodSection(inside, a, b, floodLog{int(a.done()), asked, others, len(answer)}), nil
}

// refusal is the whole answer to head.
func (r *runner) refusal(l *bench.Loop, to *bench.Target, head []byte) ([]byte, error) {
	f := &bench.Refusals{Loop: l, To: to, Heads: [][]byte{head}, Status: 401, Max: 1}
	f.Start(1)
	err := l.RunUntil(r.ctx, giveUp, f.Idle)
	return f.Answer, errors.Join(err, f.Err)
}

func refusalLoad(name string, server bench.Process, f *bench.Refusals) *load {
	return &load{
		name: name, title: "flood", loop: f.Loop, server: server,
		start: func() { f.Start(lanes) }, stop: f.Stop, idle: f.Idle,
		done: func() uint64 { return f.Done }, latency: &f.Latency, failed: func() error { return f.Err },
	}
}

// asked is how many commands Redis has heard that are about a ticket or a client, and how many others.
func asked(log *bench.Redis) (of, others int, err error) {
	all, err := log.Logged()
	for _, words := range all {
		if ofNodes(words) {
			others++
		} else {
			of++
		}
	}
	return of, others, err
}

// ofNodes says that a command is about the nodes, or the connection: a gateway asks it whether somebody comes or not.
func ofNodes(words []string) bool {
	switch strings.ToUpper(words[0]) {
	case "PING", "HELLO", "CLIENT":
		return true
	}
	for _, w := range words {
		if strings.Contains(w, "{nodes}") {
			return true
		}
	}
	return false
}

// seen makes sure that what a gateway asks about a ticket would have been counted: one good ticket comes to two commands or more.
func (r *runner) seen(l *bench.Loop, g *gateway, log *bench.Redis, before int) error {
	heads, err := r.fetch(l, g, 1)
	if err != nil {
		return err
	}
	a := &bench.Admissions{Loop: l, Gate: g.gate, Host: g.host, Heads: heads}
	a.Start(1)
	if err := errors.Join(l.RunUntil(r.ctx, giveUp, a.Idle), a.Err); err != nil {
		return err
	}
	after, _, err := asked(log)
	if err == nil && after < before+2 {
		err = fmt.Errorf("%w: of a good ticket Redis heard %d commands", errUnmeasured, after-before)
	}
	return err
}

// A floodLog is what Redis heard.
type floodLog struct{ refusals, asked, others, answer int }

func floodSection(inside []floodRound, a, b *load, log floodLog) *section {
	over := func(f func(floodRound) float64) bench.Spread {
		var all []float64
		for _, r := range inside {
			all = append(all, f(r))
		}
		return bench.SpreadOf(all)
	}
	perCore := func(of func(floodRound) float64) string {
		return over(func(r floodRound) float64 { return 1e9 / of(r) }).String()
	}
	row := func(name string, of func(floodRound) float64) []string {
		return []string{name, perCore(of), over(of).String(), over(func(r floodRound) float64 { return of(r) / r.control }).String()}
	}
	locator, request, control := func(r floodRound) float64 { return r.locator }, func(r floodRound) float64 { return r.request }, func(r floodRound) float64 { return r.control }
	_, cpu := ratios(a, b)
	s := &section{tables: []*bench.Table{
		{
			Title: "Flood: forged tickets in process",
			About: "Locators that are well formed but for their MAC: half of them under other keys, half with a bit changed. Processor time of the functions that the gate calls, one core, one call after the other. " +
				"A request is what a browser sends, parsed whole and judged, with its locator's MAC checked; nothing is allocated. SHA-256 of the same request is there as a measure of the machine.",
			Head: []string{"what", "a second of a core", "ns each", "against SHA-256 of the request"},
			Rows: [][]string{row("locator: base64 and MAC", locator), row("request: parsed, base64 and MAC", request), row("SHA-256 of the request", control)},
		},
		{
			Title: "Flood: forged tickets over loopback",
			About: fmt.Sprintf("%d connections at once; each is opened, sends one forged request, reads the 401 and the end of the connection. epollaccept answers any request with the same %d bytes and closes. The gateway counts, checks the head, the Origin and the MAC, "+
				"and ends the connection so that its answer is not lost to a client that is still sending. Its store is a Redis, which shares the client's core.", lanes, log.answer),
			Head: head("refusal"),
			Rows: [][]string{a.row(), b.row()},
			Lines: []string{
				ratio(a, b),
				fmt.Sprintf("Redis heard %d commands about a ticket or a client during %s refusals, and %d others: renewals of the node's lease, and questions whether it is there.", log.asked, bench.Number(float64(log.refusals)), log.others),
			},
		},
	}}
	s.compared("Flood, in process: locator against SHA-256 of its request", over(func(r floodRound) float64 { return r.locator / r.control }))
	s.compared("Flood, in process: request against SHA-256 of it", over(func(r floodRound) float64 { return r.request / r.control }))
	s.compared("Flood, over loopback: server CPU against epollaccept", cpu)
	s.goal("Forged tickets, in process: locator parsed, MAC checked", fmt.Sprintf("at least %s refusals a second of a core", bench.Number(floodWant)),
		fmt.Sprintf("%s; with the whole request around it %s", perCore(locator), perCore(request)))
	s.goal("Forged tickets, over loopback, against epollaccept", "a figure", fmt.Sprintf("%s times the server CPU", cpu))
	s.goal("Forged tickets: Redis operations", "0", fmt.Sprintf("%d in %s refusals", log.asked, bench.Number(float64(log.refusals))))
	return s
}
