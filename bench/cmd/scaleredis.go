package main

import (
	"errors"
	"fmt"

	"ticketgate/bench"
	"ticketgate/ticket"
)

// A filled is a Redis that knows n clients, each with a socket.
type filled struct {
	n int
	*costed
	spender *spender
	next    int // ticket

	ticket, slot   float64 // bytes of one that is outstanding, and of a client whose socket holds it
	issues, redeem costs
}

// fillRedis starts a Redis on the server's core and brings n clients in: a ticket each, then a socket each.
func (r *runner) fillRedis(n int) (*filled, error) {
	child, address, err := r.redisOn(r.serverCore)
	if err != nil {
		return nil, err
	}
	log, err := r.ask(address)
	if err != nil {
		return nil, err
	}
	store, err := r.openRedis(address)
	if err != nil {
		return nil, err
	}
	f := &filled{n: n, costed: &costed{log: log, redis: child.Process}, next: n}
	if f.spender, err = newSpender(r.ctx, store, n); err != nil {
		return nil, err
	}
	var memory [3]uint64
	for i, do := range []func() error{
		func() error { return f.warm(r, store) },
		func() error { return f.spender.issueAll(r.ctx, 0, n) },
		func() error { return f.spender.redeemAll(r.ctx, 1, 0, n, batchOfAll) },
	} {
		if err := do(); err != nil {
			return nil, err
		}
		now, err := f.stats()
		if err != nil {
			return nil, err
		}
		memory[i] = now.Memory
	}
	f.ticket, f.slot = (float64(memory[1])-float64(memory[0]))/float64(n), (float64(memory[2])-float64(memory[0]))/float64(n)
	return f, nil
}

// batchOfAll is how many tickets a call spends where what is measured is not the batch.
const batchOfAll = 64

// warm brings the scripts in, and the first client: what they take is not that of a client.
func (f *filled) warm(r *runner, s ticket.Store) error {
	p, err := newSpender(r.ctx, s, 1)
	if err != nil {
		return err
	}
	const far = 1 << 40 // a number that no other ticket has
	return errors.Join(p.issueAll(r.ctx, far, 1), p.redeemAll(r.ctx, 1, far, 1, 1))
}

// round issues so many tickets to clients in turn, whose names are in no order, and spends them.
func (f *filled) round(r *runner, each int) error {
	issue, err := f.measure(each, func() error { return f.spender.issueAll(r.ctx, f.next, each) })
	if err != nil {
		return err
	}
	redeem, err := f.measure(each, func() error { return f.spender.redeemAll(r.ctx, 1, f.next, each, batchOfAll) })
	f.issues, f.redeem = append(f.issues, issue), append(f.redeem, redeem)
	f.next += each
	return err
}

// scaledRedis measures Redis with more and more clients: what they take of its memory, and what their count costs at an issue.
func (r *runner) scaledRedis(s *section) error {
	var all []*filled
	for _, n := range r.redisSizes() {
		r.say("scale: a Redis with %s clients", bench.Number(float64(n)))
		f, err := r.fillRedis(n)
		if err != nil {
			return err
		}
		all = append(all, f)
	}
	for range r.rounds {
		for _, f := range all {
			if err := f.round(r, r.storeEach()); err != nil {
				return err
			}
		}
	}
	s.scaledRedis(r.storeEach(), all)
	return nil
}

func (s *section) scaledRedis(each int, all []*filled) {
	t := &bench.Table{
		Title: "Scale: Redis",
		About: fmt.Sprintf("A redis-server of each size, on a core of its own; its clients have a ticket each, then a socket each. Bytes are used_memory by all of them: names of keys, their tables and their expiry included. "+
			"Then, in turns, %s tickets a round are issued by %d callers, each counting the slots of its client, and spent %d a call: the processor time, and that against the first row's.", bench.Number(float64(each)), lanes, batchOfAll),
		Head: []string{"clients", "bytes of an outstanding ticket", "bytes of a held slot", "issue: Redis CPU µs", "redeem: Redis CPU µs"},
	}
	redis := func(c cost) float64 { return c.redis }
	cell := func(c, first costs) string {
		return fmt.Sprintf("%s, %s times", c.redis(), c.against(first, redis))
	}
	for _, f := range all {
		t.Rows = append(t.Rows, []string{bench.Number(float64(f.n)), bench.Number(f.ticket), bench.Number(f.slot), cell(f.issues, all[0].issues), cell(f.redeem, all[0].redeem)})
	}
	s.tables = append(s.tables, t)
	first, last := all[0], all[len(all)-1]
	between := fmt.Sprintf("%s clients against %s", bench.Number(float64(last.n)), bench.Number(float64(first.n)))
	grown := last.issues.against(first.issues, redis)
	s.compared("Scale: Redis CPU of an issue, "+between, grown)
	s.compared("Scale: Redis CPU of a redemption, "+between, last.redeem.against(first.redeem, redis))
	s.goal("Scale: count check in Redis, at an issue, "+between, "flat, but for the caches", fmt.Sprintf("%s times", grown))
	s.goal(fmt.Sprintf("Scale: memory in Redis, %s clients", bench.Number(float64(last.n))), "a figure", fmt.Sprintf("%s B an outstanding ticket, %s B a held slot", bench.Number(last.ticket), bench.Number(last.slot)))
}
