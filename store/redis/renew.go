package redis

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"ticketgate/ticket"
)

// Renew implements ticket.Store.
func (s *Store) Renew(ctx context.Context, r *ticket.RenewRequest) (ticket.View, error) {
	start := s.clock.Now()
	v, err := s.renew(ctx, r)
	s.stats.observe(opRenew, labelOK, err, s.clock.Now().Sub(start))
	return v, err
}

func (s *Store) renew(ctx context.Context, r *ticket.RenewRequest) (ticket.View, error) {
	c := newCommands(s.prefix, 1)
	c.renew(r)
	answer, acks, shard, err := s.renewal(ctx, c.build()[0], r.Replicas)
	if err != nil {
		return ticket.View{}, err
	}
	v, err := parseView(&answer)
	if err == nil {
		v.Acks, v.Seen.Shard = acks, shard
	}
	return v, err
}

func (c *commands) renew(r *ticket.RenewRequest) {
	c.begin(scriptRenew)
	c.nodesKey("entries")
	c.nodesKey("state")
	c.endKeys()
	c.hex(uint64(r.Incarnation), 16)
	c.text(r.Name)
	c.int(r.Lease.Milliseconds())
	c.number(r.Number)
	c.number(r.Acked)
	c.flag(r.Enter)
	c.hex(r.Topology, 16)
	for _, s := range r.Registered {
		c.buf = appendHex(appendHex(c.buf, uint64(s.Shard), 4), uint64(s.Epoch), 8)
	}
	c.next()
	c.int(int64(r.Replicas))
	c.incarnations(r.Former)
	c.end()
}

var errCrowded = &unavailable{reason: "over 4096 incarnations in an hour: a node is restarted again and again", sent: true}

// parseView reads what renew.lua answers.
func parseView(m *rueidis.RedisMessage) (ticket.View, error) {
	parts, err := m.ToArray()
	if err != nil || len(parts) == 0 {
		return ticket.View{}, errAnswer
	}
	switch kind, _ := parts[0].ToString(); {
	case kind == "lost":
		return ticket.View{}, ticket.ErrLeaseLost
	case kind == "stale":
		return ticket.View{}, ticket.ErrStale
	case kind == "crowded":
		return ticket.View{}, errCrowded
	case kind != "ok" || len(parts) != 7:
		return ticket.View{}, errAnswer
	}
	seen, err1 := seenOf(parts[1:])
	ms, err2 := number(&parts[3], 10, 63)
	flags, err3 := parts[4].ToString()
	old, err4 := parts[5].ToArray()
	fields, err5 := parts[6].ToArray()
	v := ticket.View{Seen: seen, Time: time.UnixMilli(int64(ms)),
		Grace: strings.Contains(flags, "g"), Young: strings.Contains(flags, "y"), Again: strings.Contains(flags, "a")}
	v.Old, err = shards(old)
	if err = errors.Join(err, err1, err2, err3, err4, err5); err != nil {
		return ticket.View{}, errAnswer
	}
	v.Nodes, err = nodeViews(fields, v.Time)
	if err != nil {
		return ticket.View{}, errAnswer
	}
	return v, nil
}

func shards(items []rueidis.RedisMessage) ([]ticket.Shard, error) {
	var out []ticket.Shard
	for i := range items {
		n, err := number(&items[i], 16, 16)
		if err != nil {
			return nil, err
		}
		out = append(out, ticket.Shard(n))
	}
	return out, nil
}

// nodeViews reads pairs of incarnation and entry.
func nodeViews(fields []rueidis.RedisMessage, now time.Time) ([]ticket.NodeView, error) {
	out := make([]ticket.NodeView, 0, len(fields)/2)
	for i := 0; i+1 < len(fields); i += 2 {
		incarnation, err := number(&fields[i], 16, 64)
		if err != nil {
			return nil, err
		}
		text, err := fields[i+1].ToString()
		if err != nil {
			return nil, err
		}
		r := reader{text: text}
		n := r.entry(now)
		if r.bad {
			return nil, errAnswer
		}
		n.Incarnation = ticket.Incarnation(incarnation)
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b ticket.NodeView) int { return cmp.Compare(a.Incarnation, b.Incarnation) })
	return out, nil
}
