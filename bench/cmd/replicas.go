package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"ticketgate/bench"
)

// replicaCalls is how many calls of each kind a round has.
func (r *runner) replicaCalls() int {
	switch {
	case r.each > 0:
		return r.each
	case r.short:
		return 100
	default:
		return 1000
	}
}

// replicasMost is how many replicas a Redis has at most.
const replicasMost = 2

// A durability is how many replicas a Redis has, and how many of them an answer waits for. The first is what others are compared with.
type durability struct{ replicas, waits int }

var durabilities = []durability{{0, 0}, {1, 0}, {1, 1}, {2, 0}, {2, 1}, {2, 2}}

func (d durability) String() string {
	if d.replicas == 0 {
		return "no replica"
	}
	text := fmt.Sprintf("%d replica", d.replicas)
	if d.replicas > 1 {
		text += "s"
	}
	if d.waits == 0 {
		return text + ", nobody waits"
	}
	return fmt.Sprintf("%s, %d waited for", text, d.waits)
}

// durableCalls are what is asked of a store; a batch is of batchOfAll tickets.
var durableCalls = []struct {
	name    string
	tickets int // that a call spends; 0: it renews the lease
}{{"renewal", 0}, {"redemption", 1}, {fmt.Sprintf("redemption of %d", batchOfAll), batchOfAll}}

// A durable is a store whose answers are as good as d says.
type durable struct {
	d       durability
	waiter  *bench.Waiter
	spender *spender
	cost    *costed
	next    int     // ticket
	seen    []costs // by call
}

// primaries starts a Redis on the server's core for each number of replicas, which share the client's core.
func (r *runner) primaries() (all [replicasMost + 1]*costed, addresses [replicasMost + 1]string, err error) {
	for n := range all {
		child, address, err := r.redisOn(r.serverCore, "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")
		if err != nil {
			return all, addresses, err
		}
		log, err := r.ask(address)
		if err != nil {
			return all, addresses, err
		}
		for range n {
			host, port, _ := strings.Cut(address, ":")
			if _, _, err := r.redisOn(r.clientCore, "--repl-diskless-load", "on-empty-db", "--replicaof", host+" "+port); err != nil {
				return all, addresses, err
			}
		}
		err = child.Ready(r.ctx, func(context.Context) error {
			info, err := log.Do("INFO", "replication")
			text, _ := info.(string)
			if have := strings.Count(text, "state=online"); err == nil && have < n {
				err = fmt.Errorf("%d of %d replicas are there", have, n)
			}
			return err
		})
		if err != nil {
			return all, addresses, err
		}
		all[n], addresses[n] = &costed{log: log, redis: child.Process}, address
	}
	return all, addresses, nil
}

// replicas measures what it costs to believe an answer of Redis only when replicas have it too: a WAIT behind each call.
func replicas(r *runner) (_ *section, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	primaries, addresses, err := r.primaries()
	if err != nil {
		return nil, err
	}
	var all []*durable
	for i, d := range durabilities {
		w, err := bench.NewWaiter(addresses[d.replicas], d.waits)
		if err != nil {
			return nil, err
		}
		r.closers = append(r.closers, w.Close)
		store, err := r.openRedis(w.Address())
		if err != nil {
			return nil, err
		}
		one := &durable{d: d, waiter: w, cost: primaries[d.replicas], next: i << 32, seen: make([]costs, len(durableCalls))}
		if one.spender, err = newSpender(r.ctx, store, clients); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	for range r.rounds {
		for k := range durableCalls {
			for _, one := range all {
				if err := one.round(r, k); err != nil {
					return nil, fmt.Errorf("%s, %s: %w", one.d, durableCalls[k].name, err)
				}
			}
		}
	}
	return replicasSection(r.replicaCalls(), all), nil
}

// round makes calls of kind k, one after the other, and sees to it that as many were waited for.
func (d *durable) round(r *runner, k int) error {
	n, tickets := r.replicaCalls(), durableCalls[k].tickets
	if tickets > 1 {
		n = max(1, n/10)
	}
	if err := d.spender.issueAll(r.ctx, d.next, n*tickets); err != nil {
		return err
	}
	before, _ := d.waiter.Waits()
	var took bench.Hist
	var b purse
	c, err := d.cost.measure(n, func() error {
		return together(r.ctx, 1, 0, n, 1, func(ctx context.Context, at, _ int) error {
			began := time.Now()
			var err error
			if tickets == 0 {
				err = d.spender.renew(ctx)
			} else {
				err = d.spender.redeem(ctx, &b, d.next+at*tickets, tickets)
			}
			took.Record(time.Since(began))
			return err
		})
	})
	d.next += n * tickets
	waits, wrong := d.waiter.Waits()
	if err := errors.Join(err, wrong); err != nil {
		return err
	}
	if waited := waits - before; d.d.waits > 0 && waited < n || d.d.waits == 0 && waited > 0 {
		return fmt.Errorf("%w: %d of %d calls were waited for", errUnmeasured, waited, n)
	}
	c.median, c.ninetyNine = took.Quantile(0.5), took.Quantile(0.99)
	d.seen[k] = append(d.seen[k], c)
	return nil
}

func replicasSection(calls int, all []*durable) *section {
	t := &bench.Table{
		Title: "Replicas: what waiting for them costs",
		About: fmt.Sprintf("Calls of the Redis store, one after the other, %s a round (a tenth of the batches). Behind each that has to be waited for stands a WAIT, and its answers are kept back until the replicas have acknowledged: a program between store and Redis does that, which all rows pass. "+
			"Redis has a core for itself; the replicas, on loopback and without a disk, share the client's. A network adds its round trip to each wait; a replica that is away makes a call wait until it is given up.", bench.Number(float64(calls))),
		Head: []string{"call", "Redis", "p50", "p99", "Redis CPU µs", "p50 against no replica", "Redis CPU against no replica"},
	}
	s := new(section)
	median, redis := func(c cost) float64 { return micros(c.median) }, func(c cost) float64 { return c.redis }
	for k, call := range durableCalls {
		first := all[0].seen[k]
		for i, d := range all {
			c := d.seen[k]
			row := []string{call.name, d.d.String(), c.over(median).String() + " µs", bench.Number(c.over(func(c cost) float64 { return micros(c.ninetyNine) }).Median) + " µs", c.redis().String(), "", ""}
			if i > 0 {
				row[5], row[6] = c.against(first, median).String(), c.against(first, redis).String()
			}
			t.Rows = append(t.Rows, row)
			if d.d.waits > 0 && d.d.waits == d.d.replicas {
				s.compared(fmt.Sprintf("Replicas: p50 of a %s, %s, against none", call.name, d.d), c.against(first, median))
				s.goal(fmt.Sprintf("Replicas: a %s, %s", call.name, d.d), "a figure", fmt.Sprintf("%s times the p50 without", c.against(first, median)))
			}
		}
	}
	s.tables = append(s.tables, t)
	return s
}
