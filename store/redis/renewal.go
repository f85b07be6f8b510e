package redis

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"ticketgate/ticket"
)

// renewalTime is how long a renewal may take, with the replicas' word for it: much longer than any other command, because what
// depends on it is whether all sockets of the node stay.
const renewalTime = 3 * time.Second

// A renewer has a connection that only renewals use: what else is sent, however much, cannot delay them; and WAIT asks about
// the commands of its own connection.
type renewer struct {
	turn chan struct{} // held by the renewal under way
	link atomic.Pointer[link]
}

func (r *renewer) cut() {
	if l := r.link.Load(); l != nil {
		l.cut()
	}
}

// renewal runs a command at the primary that keeps the list of nodes, and returns its answer and how many replicas have it, asked
// for if replicas is more than 0, and the shard; it waits for as many, at most 3 s or until ctx ends. One runs at a time.
func (s *Store) renewal(ctx context.Context, c command, replicas int) (rueidis.RedisMessage, int, ticket.Shard, error) {
	ctx, cancel := context.WithTimeout(ctx, renewalTime)
	defer cancel()
	stop := context.AfterFunc(s.life, cancel)
	defer stop()
	select {
	case s.renewer.turn <- struct{}{}:
		defer func() { <-s.renewer.turn }()
	case <-ctx.Done():
		return rueidis.RedisMessage{}, 0, noShard, errWaited
	}
	p := s.nodesPrimary()
	if p == nil {
		s.lookAgain()
		return rueidis.RedisMessage{}, 0, noShard, errUnknown
	}
	to := p.addr
	for hop := 0; ; hop++ {
		r, acked := s.renewAt(ctx, to, c, replicas)
		if r.err == nil && hop == 0 {
			p.lives()
		}
		if r.err == nil || hop > 0 || r.err.redirect == nil || r.err.redirect.asking {
			m, err := r.answer()
			_, shard := s.layout.Load().at(to)
			return m, acked, shard, err
		}
		to = fullAddress(r.err.redirect.addr, to)
	}
}

// nodesPrimary keeps the list of nodes; nil: not known.
func (s *Store) nodesPrimary() *primary {
	if l := s.layout.Load(); l != nil {
		return l.nodes
	}
	return nil
}

// renewAt is renewal at one server.
func (s *Store) renewAt(ctx context.Context, addr string, c command, replicas int) (reply, int) {
	l, err := s.renewalLink(ctx, addr)
	if err != nil {
		s.lookAgain()
		return reply{err: &unavailable{reason: err.Error()}}, 0
	}
	stop := context.AfterFunc(ctx, l.cut)
	defer stop()
	r, acked := l.renew(ctx, &c, replicas)
	if r.err != nil && r.err.code() == "NOSCRIPT" {
		l.run(renewalTime, loading(l.client)...)
		r, acked = l.renew(ctx, &c, replicas)
	}
	switch {
	case r.err == nil:
		s.refused.Store(false)
	case !r.err.server:
		l.cut()
		s.lookAgain()
	default:
		s.refused.Store(r.err.redirect == nil)
		if r.err.elsewhere() {
			s.lookAgain()
		}
		if r.err.demoted() {
			l.cut()
		}
	}
	return r, acked
}

// renewalLink is the connection to addr.
func (s *Store) renewalLink(ctx context.Context, addr string) (*link, error) {
	if l := s.renewer.link.Load(); l != nil {
		if l.addr == addr && !l.broken() {
			return l, nil
		}
		s.renewer.link.Store(nil)
		l.close()
	}
	l, err := s.connect(ctx, addr)
	if err != nil {
		return nil, err
	}
	s.renewer.link.Store(l)
	if s.life.Err() != nil { // Close may have looked before
		l.cut()
	}
	return l, nil
}

// renew sends the command and WAIT in one go. WAIT is no blocking command to rueidis here: it would take another connection for
// one, which has written nothing that a replica could lack.
func (l *link) renew(ctx context.Context, c *command, replicas int) (reply, int) {
	commands := []rueidis.Completed{c.wire(l.client)}
	if replicas > 0 {
		end, _ := ctx.Deadline()
		wait := max(1, time.Until(end).Milliseconds()*9/10) // so that its answer is here before the end; 0 would be for ever
		commands = append(commands, l.client.B().Arbitrary("WAIT", strconv.Itoa(replicas), strconv.FormatInt(wait, 10)).Build())
	}
	results := l.run(renewalTime, commands...)
	r := replyOf(&results[0])
	acked := int64(0)
	if replicas > 0 && r.err == nil {
		acked, _ = results[1].AsInt64() // no answer is no replica
	}
	return r, int(acked)
}
