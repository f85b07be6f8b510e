package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"ticketgate/bench"
	"ticketgate/internal/mono"
	"ticketgate/limiter"
	"ticketgate/store/memory"
	"ticketgate/ticket"
)

const footprintRounds = 3 // of tables that all stay until the end: what they take does not differ, what else the process takes does

// footprintClients is how many clients, or tickets, a table has.
func (r *runner) footprintClients() int {
	if r.each > 0 {
		return 20 * r.each
	}
	return scaleSizes[len(scaleSizes)-1]
}

// issuedClients is how many tickets are outstanding in a gateway at once: it has to issue them within their life.
func (r *runner) issuedClients() int {
	switch {
	case r.each > 0:
		return r.each
	case r.short:
		return 10_000
	default:
		return 100_000
	}
}

// A use is memory: what lies on Go's heap, and all that is resident.
type use struct{ heap, resident int64 }

// inUse reads this process, without garbage.
func inUse() (use, error) {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	p, err := bench.OwnResident()
	return use{int64(m.HeapAlloc), p}, err
}

// A tabled is something of a gateway's for n clients: fill returns it, so that it stays while it is looked at.
type tabled struct {
	name string
	fill func(n int) (any, error)
}

// tables are in the order of the page. The second step of the store is on top of its first.
var tables = []tabled{
	{"a socket of a client: Count", func(n int) (any, error) {
		c := limiter.NewCount(mono.System, time.Hour)
		for i := range n {
			c.Add(subject(i))
		}
		return c, nil
	}},
	{"a limit of messages per client, with a socket: Table", func(n int) (any, error) {
		t := limiter.NewTable(n, tableSeed, mono.System)
		for i := range n {
			if _, ok := t.Hold(uint64(subject(i))); !ok {
				return nil, fmt.Errorf("%w: no bucket", errUnmeasured)
			}
		}
		return t, nil
	}},
	{"a limit of tickets per client, not full again: Table", func(n int) (any, error) {
		t := limiter.NewTable(n, tableSeed, mono.System)
		for i := range n {
			r, ok := t.Hold(uint64(subject(i)))
			if !ok {
				return nil, fmt.Errorf("%w: no bucket", errUnmeasured)
			}
			lasting.TakeShared(t.At(r), mono.System.Now(), 1)
			t.Release(r)
		}
		return t, nil
	}},
	{"a ticket that is spent or refused: Cache", func(n int) (any, error) {
		c := ticket.NewCache(n)
		now := time.Now()
		for i := range n {
			h, _ := paper(i)
			c.Put(h, ticket.Spent, uint32(now.Add(time.Hour).Unix()), now)
		}
		return c, nil
	}},
	{"memory store: an outstanding ticket of a client", func(n int) (any, error) { return memoryStore(n, false) }},
	{"memory store: a slot that a client's socket holds", func(n int) (any, error) { return memoryStore(n, true) }},
}

// memoryStore is a store of n tickets of as many clients; spent: all are sockets.
func memoryStore(n int, spent bool) (any, error) {
	m, err := memory.New(memory.Options{Clock: mono.System, Rand: rand.Reader})
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	p, err := newSpender(ctx, m, n)
	var b purse
	for i := 0; i < n && err == nil; i++ {
		if err = p.issue(ctx, i); err == nil && spent { // at once: a slot takes what a ticket has left
			err = p.redeem(ctx, &b, i, 1)
		}
	}
	return m, err
}

// footprints are what each of n clients takes in t, bytes by round. keep holds what was made.
func footprints(t tabled, n, rounds int, keep *[]any) (resident, heap []float64, err error) {
	for range rounds {
		one, err := inUse()
		if err != nil {
			return nil, nil, err
		}
		made, err := t.fill(n)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", t.name, err)
		}
		two, err := inUse()
		if err != nil {
			return nil, nil, err
		}
		*keep = append(*keep, made)
		resident = append(resident, float64(two.resident-one.resident)/float64(n))
		heap = append(heap, float64(two.heap-one.heap)/float64(n))
	}
	return resident, heap, nil
}

// footprint measures what clients and tickets take in a gateway: its tables one by one, and the process.
func (r *runner) footprint(s *section) error {
	n := r.footprintClients()
	t := &bench.Table{
		Title: "Scale: memory of a gateway",
		About: fmt.Sprintf("The gateway's tables one by one, in this process, each with %s clients or tickets: growth of VmRSS, after a collection, and of it Go's heap; the rest lies outside of it. A table that is set aside in one piece costs nothing until it is used. "+
			"The last rows are gateways: growth of VmRSS with %s tickets that are outstanding, each of another client, after as many as 500 have been issued before; GOGC as it comes.", bench.Number(float64(n)), bench.Number(float64(r.issuedClients()))),
		Head: []string{"what", "bytes, resident", "of it Go's heap"},
	}
	var keep []any
	for _, one := range tables {
		r.say("scale: memory of %s", one.name)
		resident, heap, err := footprints(one, n, footprintRounds, &keep)
		if err != nil {
			return err
		}
		t.Rows = append(t.Rows, []string{one.name, bench.SpreadOf(resident).String(), bench.SpreadOf(heap).String()})
		s.compared(fmt.Sprintf("Scale: bytes of %s", one.name), bench.SpreadOf(resident))
	}
	runtime.KeepAlive(keep)
	keep = nil
	debug.FreeOSMemory()
	for _, store := range []string{"memory", "redis"} {
		r.say("scale: memory of a gateway, %s store", store)
		each, err := r.outstanding(store)
		if err != nil {
			return err
		}
		t.Rows = append(t.Rows, []string{fmt.Sprintf("gateway, %s store: an outstanding ticket of a client", store), bench.SpreadOf(each).String(), ""})
	}
	s.tables = append(s.tables, t)
	return nil
}

// outstanding is what each of so many tickets takes of a new gateway, bytes by round.
func (r *runner) outstanding(store string) (each []float64, err error) {
	const warm = 500
	n := r.issuedClients()
	for range min(r.rounds, footprintRounds) {
		one, err := r.outstandingIn(store, warm, n)
		if err != nil {
			return nil, err
		}
		each = append(each, one)
	}
	return each, nil
}

func (r *runner) outstandingIn(store string, warm, n int) (each float64, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	with := setup{clients: warm + n}
	if store == "redis" {
		_, url, err := r.redis()
		if err != nil {
			return 0, err
		}
		with.store = patientStore(url)
	}
	g, err := r.gatewayWith(with)
	if err != nil {
		return 0, err
	}
	loop, err := r.loop()
	if err != nil {
		return 0, err
	}
	var before bench.Memory
	for _, some := range []int{warm, n} {
		p := &bench.Posts{Loop: loop, To: g.api, Mint: g.mint, Max: some}
		if before, err = g.Memory(); err != nil {
			return 0, err
		}
		p.Start(lanes)
		if err := errors.Join(loop.RunUntil(r.ctx, 2*giveUp, p.Idle), p.Err, r.quiet(g.Process)); err != nil {
			return 0, err
		}
	}
	after, err := g.Memory()
	return float64(after.Resident-before.Resident) / float64(n), err
}
