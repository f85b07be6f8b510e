package limiter

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

const (
	tellMax    = 256                    // asks of one call: what the store sends in one round trip
	sweepEvery = 500 * time.Millisecond // a purse that spent nothing between two sweeps gives back what it has
	againAfter = 250 * time.Millisecond // how soon a purse asks a bank again that did not answer
	shortly    = 100 * time.Millisecond // a purse that asks again so soon gets twice as much
	seldom     = time.Second            // and one that did not for so long half
	patience   = 50 * time.Millisecond  // what a dry purse waits for more than one token: fewer, larger batches
)

// teller is what the one goroutine that asks the bank keeps.
type teller struct {
	down         atomic.Bool
	asks, failed atomic.Uint64

	swept   mono.Time
	warm    []Ref // those that may have tokens
	refs    []Ref // that ask in this turn
	queries []Ask
	grants  []Grant
}

// Run brings what purses ask to the bank until ctx ends, and then all that they have left, for at most last. It returns
// after that. One goroutine calls it, once.
func (b *Purses) Run(ctx context.Context, last time.Duration) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-b.wake:
		case <-tick.C:
		case <-ctx.Done():
		}
		b.Tell(ctx)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), last)
	defer cancel()
	b.Settle(ctx)
}

// Tell is one turn of Run: it asks the bank what purses want of it, and gives back what is idle. For who has a clock of his
// own. One goroutine at a time calls it.
func (b *Purses) Tell(ctx context.Context) {
	t := &b.teller
	t.refs, t.queries = t.refs[:0], t.queries[:0]
	for n := b.head.Swap(0); n != 0; {
		r := Ref(n)
		n = b.at(r).next.Load() // before r can ask again
		t.refs = append(t.refs, r)
	}
	slices.Reverse(t.refs) // who asked first
	for _, r := range t.refs {
		t.queries = append(t.queries, b.want(b.at(r)))
	}
	if now := b.clk.Now(); now.Sub(t.swept) >= sweepEvery {
		t.swept = now
		b.sweep(now)
	}
	b.bring(ctx)
}

// Settle gives all that is left back. No message may come any more. The goroutine of Tell calls it, or who has seen it end.
func (b *Purses) Settle(ctx context.Context) {
	b.Tell(ctx)
	t := &b.teller
	t.refs, t.queries = t.refs[:0], t.queries[:0]
	for n := Ref(1); n <= Ref(b.made); n++ {
		p := b.at(n)
		if p.state.Load()&(purseAsked|purseDown) == 0 && (p.tokens.Load() > 0 || p.debt.Load() > 0) {
			p.state.Store(p.state.Load() | purseAsked)
			t.refs, t.queries = append(t.refs, n), append(t.queries, b.giveBack(p))
		}
	}
	b.bring(ctx)
}

// want is what p asks for: a batch, or what a message that waits takes, less what it has.
func (b *Purses) want(p *purse) Ask {
	k := b.termsOf(p)
	q := Ask{Bucket: ticket.Subject(p.subject), Terms: k.Terms, Window: p.window}
	need := max(p.need.Swap(0), min(p.batch.Load(), k.most))
	q.Want = max(need-p.left(b.clk.Now()), 0)
	switch {
	case p.state.Load()&purseDown == 0:
		q.Spent = p.debt.Swap(0)
	case p.debt.Load() > 0: // this asks whether the bank is back: what it may not hear it is not told, and until it was, nothing is wanted
		q.Want = 0
	}
	return q
}

// giveBack is p's ask when it is idle. Its tokens are not its own any more, whatever the answer.
func (b *Purses) giveBack(p *purse) Ask {
	q := Ask{Bucket: ticket.Subject(p.subject), Terms: b.termsOf(p).Terms, Window: p.window}
	q.Back, q.Spent = p.tokens.Swap(0), p.debt.Swap(0)
	return q
}

// bring makes the calls of a turn. After one without an answer the rest are not made: they would take as long.
func (b *Purses) bring(ctx context.Context) {
	t := &b.teller
	t.asks.Add(uint64(len(t.queries)))
	var err error
	for from := 0; from < len(t.queries); from += tellMax {
		some := t.queries[from:min(from+tellMax, len(t.queries))]
		t.grants = slices.Grow(t.grants[:0], len(some))[:len(some)]
		sent := b.clk.Now()
		if err == nil {
			err = b.bank.Lease(ctx, some, t.grants)
			t.down.Store(err != nil)
		}
		now := b.clk.Now()
		for i := range some {
			p := b.at(t.refs[from+i])
			if err != nil {
				t.failed.Add(1)
				b.unanswered(p, now)
			} else {
				b.answered(t.refs[from+i], p, &some[i], &t.grants[i], sent, now)
			}
		}
		b.answers()
	}
}

// answered puts into p what the bank has given.
func (b *Purses) answered(r Ref, p *purse, q *Ask, g *Grant, sent, now mono.Time) {
	if q.Terms.Fixed {
		if p.window != g.Window {
			p.tokens.Store(0)
			p.round.Add(1)
			p.window = g.Window
		}
		p.ends.Store(int64(sent.Add(g.Ends))) // as if it had been answered when it was asked: never later than in the bank
	}
	p.rest = g.Remaining
	p.tokens.Add(g.Given)
	var dry mono.Time
	if g.Remaining == 0 {
		dry = now.Add(g.Wait)
		if more := (q.Want - g.Given - 1) / 2; more > 0 && !q.Terms.Fixed {
			dry = dry.Add(min(time.Duration(min(more, 1<<20))*b.termsOf(p).every, patience))
		}
	}
	p.dry.Store(int64(dry))
	p.queue.Store(0)
	if q.Want > 0 {
		b.adapt(p, now)
	}
	for {
		s := p.state.Load()
		if p.state.CompareAndSwap(s, s&^(purseAsked|purseDown)|purseKnown) {
			break
		}
	}
	if p.debt.Load() > 0 || q.Terms.Fixed && g.Ends <= 0 {
		b.ask(r, p) // spent while the bank was down
	}
	if p.tokens.Load() > 0 && !p.warm {
		p.warm = true
		b.teller.warm = append(b.teller.warm, r)
	}
}

// adapt sizes the next batch to how soon this one was asked for.
func (b *Purses) adapt(p *purse, now mono.Time) {
	k, batch := b.termsOf(p), p.batch.Load()
	switch since := now.Sub(p.at); {
	case p.at == 0:
	case since < shortly:
		batch = min(2*batch, k.most)
	case since > seldom:
		batch = max(batch/2, k.first)
	}
	p.batch.Store(batch)
	p.at = now
}

// unanswered leaves p to store_down.
func (b *Purses) unanswered(p *purse, now mono.Time) {
	p.again.Store(int64(now.Add(againAfter)))
	k := b.termsOf(p)
	fresh := p.state.Load()&purseDown == 0
	if k.Fixed && (p.ends.Load() == 0 || now >= mono.Time(p.ends.Load())) { // the calendar is the same everywhere
		wall := b.clk.Wall()
		start := WindowStart(wall, k.Rate.Per)
		p.tokens.Store(0)
		p.round.Add(1)
		p.window, p.rest = start.Unix(), int64(k.Rate.N)
		p.ends.Store(int64(now.Add(start.Add(k.Rate.Per).Sub(wall))))
		p.debt.Store(0)
		fresh = true
	}
	if k.Fixed && fresh {
		p.local.Store(p.rest)
	}
	for {
		s := p.state.Load()
		if p.state.CompareAndSwap(s, s&^purseAsked|purseDown) {
			return
		}
	}
}

// sweep gives back what purses have that spent nothing since the last one, and forgets those that nobody holds and that
// have nothing to say.
func (b *Purses) sweep(now mono.Time) {
	t := &b.teller
	keep := t.warm[:0]
	for _, r := range t.warm {
		p := b.at(r)
		if p.taken.Swap(0) > 0 || p.need.Load() > 0 {
			keep = append(keep, r)
			continue
		}
		s := p.state.Load()
		if s&(purseAsked|purseDown) != 0 || !p.state.CompareAndSwap(s, s|purseAsked) {
			keep = append(keep, r)
			continue
		}
		p.warm = false
		t.refs, t.queries = append(t.refs, r), append(t.queries, b.giveBack(p))
	}
	t.warm = keep
	b.mu.Lock()
	defer b.mu.Unlock()
	stay := b.left[:0]
	for _, n := range b.left {
		p := b.at(Ref(n))
		switch {
		case p.holders > 0:
			p.parting = false
		case p.warm || p.state.Load()&purseAsked != 0:
			stay = append(stay, n)
		case !b.silent(p, now):
			if p.state.Load()&purseDown == 0 || now >= mono.Time(p.again.Load()) {
				b.ask(Ref(n), p)
			}
			stay = append(stay, n)
		default:
			b.index.Leave(n, p.subject, b.of)
			p.forget()
			b.free = append(b.free, n)
		}
	}
	b.left = stay
}

// silent reports whether p says no more than a purse that is made anew: what it has admitted without the bank is over.
func (b *Purses) silent(p *purse, now mono.Time) bool {
	switch {
	case p.state.Load()&purseDown == 0:
		return p.debt.Load() == 0
	case b.termsOf(p).Fixed:
		return now >= mono.Time(p.ends.Load())
	}
	return Full(p.local.Load(), now)
}

// forget makes p a fresh one. Nobody holds it and it is not asking.
func (p *purse) forget() {
	for _, w := range [...]*atomic.Int64{&p.tokens, &p.ends, &p.round, &p.dry, &p.again, &p.local, &p.debt, &p.taken, &p.need, &p.queue, &p.batch} {
		w.Store(0)
	}
	p.state.Store(0)
	p.subject, p.chain, p.parting = 0, 0, false
	p.window, p.rest, p.at = 0, 0, 0
}
