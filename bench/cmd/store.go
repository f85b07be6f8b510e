package main

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"ticketgate/bench"
	"ticketgate/store/redis"
	"ticketgate/ticket"
)

// authorities are who may spend a ticket, as a gateway's section tickets says it. The first is what others are compared with.
var authorities = []struct{ name, setting string }{
	{"store", ""},
}

// storeEach is how many tickets a round has.
func (r *runner) storeEach() int {
	if r.short {
		return cmp.Or(r.each, 2000)
	}
	return cmp.Or(r.each, 16000)
}

// storeCosts measures what tickets cost their store: a Redis that has a core for itself, asked by a gateway, and by its store alone.
func storeCosts(r *runner) (_ *section, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	var whole []admitted
	for _, a := range authorities {
		r.say("store: a gateway, authority %s", a.name)
		one, err := r.admitThrough(a.name, a.setting)
		if err != nil {
			return nil, fmt.Errorf("authority %s: %w", a.name, err)
		}
		whole = append(whole, one)
	}
	r.say("store: alone")
	issue, ways, err := r.storeWays()
	if err != nil {
		return nil, err
	}
	s := new(section)
	s.admissionsOfStore(r.storeEach(), whole)
	s.waysOfStore(r.storeEach(), issue, ways)
	return s, nil
}

// An admitted is a gateway whose admissions were measured step by step.
type admitted struct {
	authority              string
	issue, redeem, release costs
}

// whole is the costs of tickets that became sockets.
func (a admitted) whole() (all costs) {
	for i := range min(len(a.issue), len(a.redeem)) {
		all = append(all, a.issue[i].plus(a.redeem[i]))
	}
	return all
}

// admitThrough measures a gateway with a Redis on a core of its own, in steps: all tickets are issued, then all are spent, then all
// sockets are closed.
func (r *runner) admitThrough(name, setting string) (admitted, error) {
	redis, address, err := r.redisOn(r.serverCore)
	if err != nil {
		return admitted{}, err
	}
	log, err := r.ask(address)
	if err != nil {
		return admitted{}, err
	}
	loop, err := r.loop()
	if err != nil {
		return admitted{}, err
	}
	g, err := r.gatewayWith(setup{store: patientStore("redis://" + address), tickets: setting, beside: true})
	if err != nil {
		return admitted{}, err
	}
	n := min(r.storeEach(), r.socketsMax())
	c := &costed{log: log, redis: redis.Process, server: &g.Process}
	a := &bench.Admissions{Loop: loop, Gate: g.gate, Host: g.host, Keep: true}
	all := admitted{authority: name}
	for range r.rounds {
		var heads [][]byte
		issue, err := c.measure(n, func() (err error) { heads, err = r.fetch(loop, g, n); return err })
		if err != nil {
			return admitted{}, err
		}
		a.Again(heads)
		a.Latency.Reset()
		redeem, err := c.measure(n, func() error {
			a.Start(lanes)
			return errors.Join(loop.RunUntil(r.ctx, giveUp, a.Idle), a.Err)
		})
		if err != nil {
			return admitted{}, err
		}
		if a.Lost > 0 {
			return admitted{}, fmt.Errorf("%d sockets did not stay open", a.Lost)
		}
		redeem.median, redeem.ninetyNine = a.Latency.Quantile(0.5), a.Latency.Quantile(0.99)
		release, err := c.measure(n, func() error {
			a.HangUp()
			return r.told(c)
		})
		if err != nil {
			return admitted{}, err
		}
		all.issue, all.redeem, all.release = append(all.issue, issue), append(all.redeem, redeem), append(all.release, release)
	}
	return all, nil
}

// told waits until the gateway of c has told Redis all that it has to.
func (r *runner) told(c *costed) error {
	for range quietSteps {
		one, err := c.stats()
		if err == nil {
			err = errors.Join(r.quiet(*c.server), r.quiet(c.redis))
		}
		two, err2 := c.stats()
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		if two.Scripts-one.Scripts <= 1 { // a renewal
			return nil
		}
	}
	return fmt.Errorf("%w: the gateway does not come to rest", errUnmeasured)
}

func (s *section) admissionsOfStore(n int, all []admitted) {
	t := &bench.Table{
		Title: "Store: what an admission costs Redis",
		About: fmt.Sprintf("redis-server, which keeps nothing on disk, alone on a core; gateway and client share the other. %s tickets a round are issued (`POST /v1/tickets`, %d at once), then all of them spent (accept to 101), then all sockets closed. "+
			"Commands are scripts (EVALSHA) that Redis ran, round trips are reads of its sockets that brought something: what the gateway sends together is one, or one in each 16 KiB. The lease's renewals, one in 10 s, are among them. "+
			"Redis' processor time says how many of them a core of it would do.", bench.Number(float64(n)), lanes),
		Head: []string{"authority", "step", "commands", "round trips, at most", "Redis CPU µs", "a Redis core does, a second", "gateway CPU µs", "p50", "p99"},
	}
	row := func(authority, step string, c costs, timed bool) {
		cells := []string{authority, step, c.over(func(c cost) float64 { return c.commands }).String(), c.over(func(c cost) float64 { return c.reads }).String(),
			c.redis().String(), c.core().String(), c.over(func(c cost) float64 { return c.server }).String(), "", ""}
		if timed {
			took := func(f func(cost) time.Duration) string {
				return bench.Number(c.over(func(c cost) float64 { return micros(f(c)) }).Median) + " µs"
			}
			cells[7], cells[8] = took(func(c cost) time.Duration { return c.median }), took(func(c cost) time.Duration { return c.ninetyNine })
		}
		t.Rows = append(t.Rows, cells)
	}
	for _, a := range all {
		row(a.authority, "issue", a.issue, false)
		row(a.authority, "redeem", a.redeem, true)
		row(a.authority, "both: an admission", a.whole(), false)
		row(a.authority, "release", a.release, false)
		commands := func(c costs) string { return c.over(func(c cost) float64 { return c.commands }).String() }
		s.goal(fmt.Sprintf("Store, authority %s: round trips of an admission", a.authority), "at most 1 at issue, 1 at redeem", fmt.Sprintf("%s and %s commands, in at most %s round trips together", commands(a.issue), commands(a.redeem),
			a.whole().over(func(c cost) float64 { return c.reads })))
		s.goal(fmt.Sprintf("Store, authority %s: admissions a second of a Redis core", a.authority), "a figure", a.whole().core().String())
	}
	for _, a := range all[min(1, len(all)):] {
		for _, what := range []struct {
			name string
			of   func(cost) float64
		}{{"gateway CPU", func(c cost) float64 { return c.server }}, {"p50", func(c cost) float64 { return micros(c.median) }}} {
			ratio := a.redeem.against(all[0].redeem, what.of)
			s.compared(fmt.Sprintf("Store, authority %s against %s: %s of a redemption", a.authority, all[0].authority, what.name), ratio)
			t.Lines = append(t.Lines, fmt.Sprintf("authority %s against %s: %s times the %s of a redemption.", a.authority, all[0].authority, ratio, what.name))
		}
	}
	s.tables = append(s.tables, t)
}

// A way is how tickets are brought to the store.
type way struct {
	name          string
	callers, each int // each caller spends so many in one call
	pipeline      int // of the bare commands that it is compared with
}

// ways are compared with the first.
var ways = []way{
	{"1 a call, one caller", 1, 1, 1},
	{fmt.Sprintf("1 a call, %d callers", lanes), lanes, 1, lanes},
	{"16 a call", 1, 16, 16},
	{"64 a call", 1, 64, 64},
	{"256 a call", 1, 256, 256},
}

// A spending is a way and what it came to, next to bare commands.
type spending struct {
	way
	store, bare costs
}

// openRedis is the store as a gateway has it, in this process.
func (r *runner) openRedis(address string) (ticket.Store, error) {
	s, err := redis.New(redis.Options{URL: "redis://" + address, Prefix: "tg:", Timeout: spenderWait})
	if err == nil {
		r.closers = append(r.closers, s.Close)
	}
	return s, err
}

// storeWays measures the store alone: tickets put by many callers, and spent in each way.
func (r *runner) storeWays() (issue spending, all []spending, err error) {
	child, address, err := r.redisOn(r.serverCore)
	if err != nil {
		return issue, nil, err
	}
	log, err := r.ask(address)
	if err != nil {
		return issue, nil, err
	}
	store, err := r.openRedis(address)
	if err != nil {
		return issue, nil, err
	}
	p, err := newSpender(r.ctx, store, clients)
	if err != nil {
		return issue, nil, err
	}
	c := &costed{log: log, redis: child.Process}
	issue = spending{way: way{fmt.Sprintf("1 a call, %d callers", lanes), lanes, 1, lanes}}
	for _, w := range ways {
		all = append(all, spending{way: w})
	}
	n, next := r.storeEach(), 0
	for range r.rounds {
		for i := range all {
			put, err := c.measure(n, func() error { return p.issueAll(r.ctx, next, n) })
			if err != nil {
				return issue, nil, err
			}
			got, err := c.measure(n, func() error { return p.redeemAll(r.ctx, all[i].callers, next, n, all[i].each) })
			if err != nil {
				return issue, nil, err
			}
			set, getdel, err := c.bareCommands(r.ctx, n, all[i].pipeline, 48+len(p.grant))
			if err != nil {
				return issue, nil, err
			}
			all[i].store, all[i].bare = append(all[i].store, got), append(all[i].bare, getdel)
			if all[i].pipeline == issue.pipeline && len(issue.store) < len(all[i].store) { // one figure a round, of the way that is asked as often
				issue.store, issue.bare = append(issue.store, put), append(issue.bare, set)
			}
			next += n
		}
	}
	return issue, all, nil
}

func (s *section) waysOfStore(n int, issue spending, all []spending) {
	t := &bench.Table{
		Title: "Store: batches",
		About: fmt.Sprintf("The Redis store alone, without a gateway: %s tickets a round are issued by %d callers, and spent in the way the row says. Redis has a core for itself, the callers have the other. "+
			"The bare command, SET with an expiry for an issue and GETDEL for a redemption, has a value as long as the ticket's, and as many of them are sent together: a ticket's script does that, and counts sockets and tickets of its client besides.", bench.Number(float64(n)), lanes),
		Head: []string{"step", "tickets", "tickets/s", "commands", "round trips, at most", "Redis CPU µs", "caller CPU µs", "bare command: Redis CPU µs", "Redis CPU against it"},
	}
	redisOf := func(c cost) float64 { return c.redis }
	row := func(step string, w spending) {
		of := func(f func(cost) float64) string { return w.store.over(f).String() }
		t.Rows = append(t.Rows, []string{step, w.name, of(func(c cost) float64 { return c.rate }), of(func(c cost) float64 { return c.commands }), of(func(c cost) float64 { return c.reads }),
			of(redisOf), of(func(c cost) float64 { return c.server }), w.bare.redis().String(), w.store.against(w.bare, redisOf).String()})
	}
	row("issue", issue)
	for _, w := range all {
		row("redeem", w)
	}
	first, last := all[0], all[len(all)-1]
	cheaper, faster := first.store.against(last.store, redisOf), last.store.against(first.store, func(c cost) float64 { return c.rate })
	t.Lines = append(t.Lines,
		fmt.Sprintf("%s against %s: %s times the tickets a second, for a Redis CPU that is %s times smaller.", last.name, first.name, faster, cheaper),
		fmt.Sprintf("A whole core of Redis would do %s admissions a second, issued by %d callers and spent %s.", issuedAndSpent(issue, last), lanes, last.name))
	s.tables = append(s.tables, t)
	s.goal("Store: redemptions "+last.name+" against "+first.name, "a figure", fmt.Sprintf("%s times as many a second, %s times less Redis CPU each", faster, cheaper))
	s.compared("Store: Redis CPU of an issue against SET", issue.store.against(issue.bare, redisOf))
	s.compared("Store: Redis CPU of a redemption against GETDEL, "+last.name, last.store.against(last.bare, redisOf))
	s.compared("Store: Redis CPU of a redemption, "+last.name+" against "+first.name, last.store.against(first.store, redisOf))
}

func issuedAndSpent(issue, spent spending) bench.Spread {
	both := costs{}
	for i := range min(len(issue.store), len(spent.store)) {
		both = append(both, issue.store[i].plus(spent.store[i]))
	}
	return both.core()
}
