package main

import (
	"context"
	"crypto/rand"
	"slices"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/reactor"
	"ticketgate/handshake"
	"ticketgate/internal/mono"
	"ticketgate/limiter"
	"ticketgate/store/evict"
	"ticketgate/ticket"
)

// buildEvictor makes what closes sockets for newcomers, if any plan asks for that.
func (g *gateway) buildEvictor() {
	if !slices.ContainsFunc(g.plans, func(p *limiter.Plan) bool { return p.Connections.Full.Evicts() }) {
		return
	}
	o := evict.Options{Node: g.node, Sockets: victims{g.engine}, Rand: rand.Reader, Log: g.log}
	if g.redis != nil {
		o.Bus = g.redis
	}
	g.evictor = evict.New(o)
}

// evicts is handshake.Options.Evictor.
func (g *gateway) evicts() handshake.Evictor {
	if g.evictor == nil {
		return nil
	}
	return g.evictor
}

// live is node.Options.OnLife, around then.
func (g *gateway) live(then func(ticket.Incarnation) error) func(ticket.Incarnation) error {
	return func(i ticket.Incarnation) error {
		if g.evictor != nil {
			g.evictor.Live(i)
		}
		if then == nil {
			return nil
		}
		return then(i)
	}
}

// victims are the engine's sockets as evict knows them.
type victims struct{ engine *engine.Engine }

func (v victims) Victim(ctx context.Context, u ticket.Subject, idlest bool) (evict.Victim, bool) {
	found, ok := v.engine.Victim(ctx, u, idlest)
	return evict.Victim{Socket: uint64(found.ID), Ago: found.Ago}, ok
}

// ends are what the engine's words are to the cluster.
var ends = map[engine.Eviction]evict.Result{
	engine.EvictGone: evict.Gone, engine.EvictTaken: evict.Taken, engine.EvictLate: evict.Late, engine.EvictDone: evict.Done, engine.EvictDoubt: evict.Doubt,
}

func (v victims) Evict(ctx context.Context, socket uint64, u ticket.Subject, within time.Duration) evict.Result {
	return ends[v.engine.Evict(ctx, reactor.ID(socket), u, mono.System.Now().Add(within))]
}
