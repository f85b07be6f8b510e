package main

import (
	"errors"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/limiter"
	"ticketgate/store/model"
	"ticketgate/ticket"
)

type primary = model.Primary

// user asks for tickets of u, spends them, perhaps more than once and anywhere, and leaves.
func (w *world) user(u ticket.Subject) {
	w.at(w.below(4*time.Second), nil, 4, func() {
		if w.calm {
			return
		}
		p := w.procs[w.rnd.IntN(w.nodes)]
		if p.alive && p.paused <= w.now {
			p.issue(u, func(t *ticket.Minted) { w.spend(p, t) })
		}
		w.user(u)
	})
}

// spend is what the client does with a ticket.
func (w *world) spend(from *proc, t *ticket.Minted) {
	try := func(d time.Duration) {
		w.at(d, nil, 4, func() {
			q := w.procs[w.rnd.IntN(w.nodes)]
			if w.chance(.1) || w.authority && w.chance(.9) {
				q = from
			}
			if q.alive && q.paused <= w.now {
				q.redeem(t)
			}
		})
	}
	d := w.below(time.Second)
	if w.chance(.2) || w.authority && w.chance(.5) {
		d = w.below(life * 11 / 10)
	}
	if w.chance(.9) {
		try(d)
	}
	if w.chance(.3) {
		try(d + w.below(300*time.Millisecond))
	}
	if w.chance(.4) { // the same ticket again, perhaps after a failover
		try(d + w.below(life))
	}
}

// storeTime is what the node takes for the store's clock.
func (p *proc) storeTime() time.Time {
	s := p.core.Now()
	if s.StoreAt == 0 {
		return p.clock.Wall()
	}
	return s.StoreTime.Add(p.clock.Now().Sub(s.StoreAt))
}

// issue is what the handshake does.
func (p *proc) issue(u ticket.Subject, then func(*ticket.Minted)) {
	w, state, sent := p.w, p.core.Now(), p.clock.Now()
	p.bucket.take(p, sent)
	if why := state.MayIssue(sent, u); why != nil {
		w.stat[statClosed]++
		w.say("%v does not issue for %v: %v", p, u, why)
		p.core.Doubt(sent)
		p.turn()
		return
	}
	t, err := w.minter.Mint(p.storeTime().Add(life), state.Epoch(u), u, w.number(state))
	if err != nil {
		w.fail("mint: %v", err)
		return
	}
	r := ticket.IssueRequest{Ticket: t.Hash, Secret: t.SecretHash, Subject: u, Limit: w.limit, Outstanding: 1000, Life: life,
		Epoch: t.Locator.Epoch, Dead: state.Dead}
	if w.authority && !w.left(guardReservation) {
		r.Reserve = life + lease
	}
	// A command that has an effect each time is never sent twice, so it does not repeat.
	w.call(p, command{g: p.group(u), limit: callMax, exec: func(s *server) any {
		now := s.time(w.now)
		var out *ticket.IssueAnswer
		s.do(w, func(m *primary) {
			if a := m.Issue(&r, now); out == nil {
				out = &a
			}
		})
		if out.Result == ticket.IssueOK {
			w.fates[t.Hash] = fate{until: now.Add(life)}
		}
		w.say("  server %d (epoch %d) issues by %v for %v: %d, used %d, counted %x, dead %x", s.id, s.Self.Epoch, p, u, out.Result, out.Used,
			out.Counted, r.Dead)
		return out
	}, done: func(reply any, _ int) {
		a, ok := reply.(*ticket.IssueAnswer)
		if !ok {
			p.core.Doubt(p.clock.Now())
			p.turn()
			return
		}
		p.core.Issued(p.clock.Now(), sent, a)
		p.turn()
		if a.Result == ticket.IssueOK {
			w.stat[statIssued]++
			if w.authority {
				p.keep(u, t, state.Generation, sent)
			}
			then(t)
		}
	}})
}

func (p *proc) group(u ticket.Subject) *group { return p.w.of(p.top.Of(u)) }

// redeem is what the engine and the node do.
func (p *proc) redeem(t *ticket.Minted) {
	w, state, sent := p.w, p.core.Now(), p.clock.Now()
	w.forge(p, t)
	l, err := p.check.Check(t.Text[:], p.storeTime(), state)
	if err != nil && !(errors.Is(err, ticket.ErrEpoch) && w.left(guardEpoch)) {
		w.stat[statRefused]++
		return
	}
	u, epoch := t.Locator.Subject, t.Locator.Epoch
	if w.left(guardEpoch) {
		epoch = state.Epoch(u)
	} else if l.Epoch != state.Epoch(u) || l.Epoch == 0 {
		w.fail("5: a locator of epoch %d came through under epoch %d", l.Epoch, state.Epoch(u))
	}
	if !state.MayRedeem(sent, u, epoch) || t.Locator.Node != w.number(state) {
		w.stat[statRefused]++
		return
	}
	if w.authority {
		p.spendOwn(t, state)
		return
	}
	count, number := p.counts.Add(u)
	q := ticket.RedeemRequest{Ticket: t.Hash, Secret: t.SecretHash, Epoch: epoch,
		Held: ticket.Held{Subject: u, Incarnation: state.Incarnation, Count: count, Number: number}}
	wrong := w.chance(.01)
	if wrong {
		q.Secret[0] ^= 1
	}
	w.say("%v redeems %x for %v: %d (no. %d)", p, t.Hash[:3], u, count, number)
	w.call(p, command{g: p.group(u), limit: redeemMax, repeat: true, exec: func(s *server) any {
		q, now := q, s.time(w.now)
		if w.left(guardNumber) {
			q.Held.Number = uint64(w.id())
		}
		var out *ticket.RedeemAnswer
		s.do(w, func(m *primary) {
			if a := m.Redeem(&q, now); out == nil {
				out = &a
			}
		})
		w.say("  server %d (epoch %d) redeems %x: %d", s.id, s.Self.Epoch, t.Hash[:3], out.Result)
		w.served(t, s, out, now)
		return out
	}, done: func(reply any, _ int) { p.redeemed(&q, t, sent, reply) }})
}

// served checks invariant 4 where a redeem is executed: whoever holds an unexpired ticket that nobody has spent is let in.
func (w *world) served(t *ticket.Minted, s *server, a *ticket.RedeemAnswer, now time.Time) {
	known := a.Result == ticket.RedeemUnknown || a.Result == ticket.RedeemOK || a.Result == ticket.RedeemSecret
	f := w.fates[t.Hash]
	if a.Result == ticket.RedeemUnknown && !f.asked && now.Before(f.until) && !w.left(guardEpoch) {
		w.fail("4: server %d does not know the unspent ticket %x", s.id, t.Hash[:3])
	}
	f.asked = f.asked || known
	w.fates[t.Hash] = f
}

func (p *proc) redeemed(q *ticket.RedeemRequest, t *ticket.Minted, sent mono.Time, reply any) {
	w, now := p.w, p.clock.Now()
	a, _ := reply.(*ticket.RedeemAnswer)
	if a == nil {
		a = &ticket.RedeemAnswer{Result: ticket.RedeemDoubt}
	}
	state := p.core.Now()
	stands := now.Sub(sent) <= redeemMax && state.Stands(now, q, a)
	opens := a.Result == ticket.RedeemOK && (stands || w.left(guardAnswer))
	u := q.Held.Subject
	if opens {
		p.open(u, t, state.Generation, 0)
	} else {
		p.counts.Done(u)
		if a.Result == ticket.RedeemDoubt || a.Result == ticket.RedeemOK {
			w.stat[statDoubt]++
			p.core.Doubt(now)
		}
	}
	p.core.Redeemed(now, sent, u, opens, a.Seen)
	p.turn()
}

func (p *proc) open(u ticket.Subject, t *ticket.Minted, life uint32, by mono.Time) {
	w := p.w
	s := socket{w.id(), u, life, t.Hash, by}
	p.socks = append(p.socks, s)
	f := w.fates[t.Hash]
	f.opened++
	w.fates[t.Hash] = f
	w.stat[statOpened]++
	w.say("%v OPENS socket %d of %v with %x (open now %d)", p, s.id, u, t.Hash[:3], w.carry(u))
	if f.opened > 1 {
		w.fail("1: ticket %x opened %d sockets", t.Hash[:3], f.opened)
	}
	w.bounded(u)
	stays := lease
	if w.authority { // beyond the end of its reservation
		stays = 3 * lease
	}
	w.at(w.below(stays), p, 3, func() {
		if !w.calm {
			p.closeSocket(s.id)
		}
	})
}

func (w *world) carry(u ticket.Subject) int {
	n := 0
	for _, p := range w.all {
		n += p.carry(u)
	}
	return n
}

// bounded checks invariant 2.
func (w *world) bounded(u ticket.Subject) {
	if n := w.carry(u); !w.available && n > int(w.limit) {
		w.fail("2: %v has %d sockets, limit %d", u, n, w.limit)
	}
}

// forge checks invariant 5: with one character changed nothing comes through the check, and so nobody is asked.
func (w *world) forge(p *proc, t *ticket.Minted) {
	if !w.chance(.1) {
		return
	}
	text := t.Text
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	i, c := w.rnd.IntN(len(text)), alphabet[w.rnd.IntN(len(alphabet))]
	if text[i] == c {
		return
	}
	text[i] = c
	if _, err := p.check.Check(text[:], p.storeTime(), p.core.Now()); err == nil {
		w.fail("5: a forged locator came through")
	}
}

// A bucket is one of limiter, and how much it may have let through.
type bucket struct {
	tat   int64
	begun mono.Time
	taken int
}

const burst = 5

var meter = limiter.NewMeter(limiter.Rate{N: 1, Per: 2 * time.Second}, burst)

func (b *bucket) begin(now mono.Time) { *b = bucket{begun: now} }

func (b *bucket) take(p *proc, now mono.Time) {
	if ok, _ := meter.Take(&b.tat, now, 1); ok {
		b.taken++
	}
	if most := burst + 1 + int(now.Sub(b.begun)/(2*time.Second)); b.taken > most {
		p.w.fail("buckets: %d let through, at most %d", b.taken, most)
	}
}
