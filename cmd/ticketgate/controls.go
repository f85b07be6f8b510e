package main

import (
	"context"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/handshake/auth"
	"ticketgate/internal/admin"
	"ticketgate/revoke"
)

// controls are what operators may do to this node: admin.Control.
type controls struct {
	*revoking
	keys []auth.Record
}

var _ admin.Control = (*controls)(nil)

func (c *controls) Now() time.Time { return c.node.StoreTime() }

func (c *controls) Revoke(ctx context.Context, r *revoke.Revocation) (bool, error) {
	return c.publish(ctx, r)
}

func (c *controls) Count(ctx context.Context, sel engine.Selector) (int, error) {
	return c.count(ctx, sel)
}

func (c *controls) Close(ctx context.Context, sel engine.Selector, code uint16, over time.Duration) (int, error) {
	closed := make(chan int, 1)
	c.engine.Close(sel, frame.Code(code), over, func(n int) { closed <- n })
	select {
	case n := <-closed:
		return n, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (c *controls) Connections(ctx context.Context, f *engine.Filter, from uint32, most int) ([]engine.Connection, uint32, error) {
	return c.engine.Connections(ctx, f, from, most)
}

func (c *controls) Mine(conn string) bool { return c.engine.Mine(conn) }

// clientsMax is how many clients are told apart on each loop: with short names about 10 MB.
const clientsMax = 100_000

func (c *controls) Clients(ctx context.Context) (counts map[string]int, all bool, err error) {
	loops := make([]map[string]int, c.engine.Loops())
	left := make([]bool, len(loops))
	done := make(chan struct{})
	for i := range loops {
		loops[i] = map[string]int{}
	}
	c.engine.Sweep(func(s *engine.Socket) (engine.Sentence, bool) {
		i, name := s.ID.Loop(), s.Client()
		if n, known := loops[i][string(name)]; known || len(loops[i]) < clientsMax {
			loops[i][string(name)] = n + 1
		} else {
			left[i] = true
		}
		return engine.Sentence{}, false
	}, func(int) { close(done) })
	select {
	case <-done:
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	counts, all = loops[0], !left[0]
	for i := 1; i < len(loops); i++ {
		for name, n := range loops[i] {
			counts[name] += n
		}
		all = all && !left[i]
	}
	return counts, all, nil
}

func (c *controls) Barring(w revoke.Selector) []revoke.Revocation {
	return c.set.Barring(w, c.node.StoreTime())
}

func (c *controls) Keys() []admin.Key {
	keys := make([]admin.Key, len(c.keys))
	for i := range c.keys {
		k := &c.keys[i]
		keys[i] = admin.Key{ID: k.ID, Client: k.Client, Product: k.Product, Plan: k.Plan, Scopes: k.Scopes, Expires: k.Expires, Revoked: c.Key(k.ID)}
		if keys[i].Client == "" {
			keys[i].Client = k.ID
		}
	}
	return keys
}

func (c *controls) Ticket(ctx context.Context, id string) (string, error) {
	return c.state(ctx, id, "")
}
