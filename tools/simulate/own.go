package main

import (
	"time"

	"ticketgate/internal/mono"
	"ticketgate/store/node/core"
	"ticketgate/ticket"
)

// An own ticket is spent by the process that made it, and by nobody else.
type own struct {
	life   uint32
	expiry mono.Time
}

// number is what locators of a process in state name.
func (w *world) number(state *core.State) uint16 {
	if !w.authority {
		return 0
	}
	return state.Number()
}

// keep keeps the ticket t, for which the store was asked at sent, until it expires.
func (p *proc) keep(u ticket.Subject, t *ticket.Minted, generation uint32, sent mono.Time) {
	x := own{generation, sent.Add(life - life/500)}
	now := p.clock.Now()
	if p.core.Now().Generation != generation || now >= x.expiry {
		p.settle(u, t)
		return
	}
	p.unused[t.Hash] = x
	p.w.at(p.clock.in(x.expiry), p, 3, func() {
		if _, ok := p.unused[t.Hash]; ok {
			delete(p.unused, t.Hash)
			p.settle(u, t)
		}
	})
}

func (p *proc) settle(u ticket.Subject, t *ticket.Minted) {
	p.core.Settle(u, t.Hash)
	p.later()
}

// later has the machine work soon, as another goroutine does.
func (p *proc) later() {
	p.w.at(p.w.below(5*time.Millisecond), p, 3, p.turn)
}

// spendOwn spends t without asking anyone.
func (p *proc) spendOwn(t *ticket.Minted, state *core.State) {
	w, now, u := p.w, p.clock.Now(), t.Locator.Subject
	p.counts.Add(u)
	x, ok := p.unused[t.Hash]
	delete(p.unused, t.Hash)
	refuse := func() {
		w.stat[statRefused]++
		p.counts.Done(u)
		p.core.Touch(u)
		p.later()
	}
	switch {
	case !ok || x.life != state.Generation || now >= x.expiry:
		refuse()
	case w.chance(.01): // a wrong secret
		p.core.Settle(u, t.Hash)
		refuse()
	default:
		by, ok := p.core.Spend(now, u, t.Hash)
		if !ok {
			w.fail("the store is owed %d tickets", p.core.Owed())
			return
		}
		p.open(u, t, state.Generation, by)
		p.later()
	}
}
