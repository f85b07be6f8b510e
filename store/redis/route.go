package redis

import (
	"context"
	"net"
	"time"

	"github.com/redis/rueidis"

	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// hopsMax is how often a command follows where a cluster sends it. Two are enough for a slot that moves and moves on.
const hopsMax = 3

// A piece is the part of a caller's commands that one primary gets.
type piece struct {
	call    *call
	primary *primary
	shard   ticket.Shard
	at      []int // where its replies belong
	over    bool  // it is not waited for any more
}

// do runs commands, each at the shard of its first key, and returns a reply for each. It waits until the timeout or the end of
// ctx. At most laneMax commands.
func (s *Store) do(ctx context.Context, commands []command) []reply {
	replies := make([]reply, len(commands))
	s.run(ctx, s.split(commands, replies), replies)
	return replies
}

// shardDo runs one command, which needs no key, at the primary of a shard.
func (s *Store) shardDo(ctx context.Context, shard ticket.Shard, c command) (rueidis.RedisMessage, error) {
	replies := []reply{{err: errUnserved, shard: shard}}
	if p := s.layout.Load().of(shard); p != nil {
		s.run(ctx, []*piece{newPiece(p, shard, []command{c}, []int{0}, false)}, replies)
	}
	return replies[0].answer()
}

// one runs the single command of c.
func (s *Store) one(ctx context.Context, c *commands) (rueidis.RedisMessage, error) {
	return s.do(ctx, c.build())[0].answer()
}

func (r *reply) answer() (rueidis.RedisMessage, error) {
	if r.err != nil { // not returned as it is: a nil *unavailable is no nil error
		return rueidis.RedisMessage{}, r.err
	}
	return r.msg, nil
}

func newPiece(p *primary, shard ticket.Shard, commands []command, at []int, asking bool) *piece {
	return &piece{call: &call{commands: commands, asking: asking, done: make(chan struct{})}, primary: p, shard: shard, at: at}
}

// split sorts commands by the primary that serves their slot. What nobody serves has its reply already.
func (s *Store) split(commands []command, replies []reply) []*piece {
	l := s.layout.Load()
	if l == nil {
		for i := range replies {
			replies[i].err = errUnknown
		}
		return nil
	}
	if l.slots == nil { // one shard has it all
		at := make([]int, len(commands))
		for i := range at {
			at[i] = i
		}
		return []*piece{newPiece(l.nodes, l.topology.Shards[0], commands, at, false)}
	}
	var pieces []*piece
	by := make([]*piece, len(l.served))
	for i := range commands {
		n := l.slots[slotOf(commands[i].keys[0])]
		if n < 0 {
			replies[i].err = errUnserved
			continue
		}
		if by[n] == nil {
			by[n] = newPiece(l.served[n], l.topology.Shards[n], nil, nil, false)
			pieces = append(pieces, by[n])
		}
		by[n].call.commands = append(by[n].call.commands, commands[i])
		by[n].at = append(by[n].at, i)
	}
	return pieces
}

// run sends pieces, and again what is redirected, and fills in the replies.
func (s *Store) run(ctx context.Context, pieces []*piece, replies []reply) {
	w := waiter{store: s, ctx: ctx, start: s.clock.Now(), timer: time.NewTimer(s.timeout)}
	defer w.timer.Stop()
	for hop := 0; len(pieces) > 0; hop++ {
		for _, p := range pieces {
			if err := p.primary.enqueue(p.call); err != nil {
				p.end(err, replies)
			}
		}
		for _, p := range pieces {
			if !p.over {
				w.wait(p, replies)
			}
		}
		if hop == hopsMax || w.over {
			return
		}
		pieces = s.redirected(pieces, replies)
	}
}

// end gives all commands of p the same reply.
func (p *piece) end(err *unavailable, replies []reply) {
	for _, at := range p.at {
		replies[at] = reply{err: err, shard: p.shard}
	}
	p.over = true
}

// collect takes the replies that the lane has written.
func (p *piece) collect(replies []reply) {
	for i, at := range p.at {
		replies[at] = p.call.replies[i]
		replies[at].shard = p.shard
	}
}

// A waiter is one caller's patience, for all pieces together.
type waiter struct {
	store *Store
	ctx   context.Context
	start mono.Time
	timer *time.Timer
	over  bool
}

// wait waits for p, unless the time is over.
func (w *waiter) wait(p *piece, replies []reply) {
	select {
	case <-p.call.done:
		p.collect(replies)
		return
	default:
	}
	if !w.over {
		select {
		case <-p.call.done:
			p.collect(replies)
			return
		case <-p.primary.life.Done():
			w.leave(p, replies)
			return
		case <-w.timer.C:
		case <-w.ctx.Done():
		}
		w.over = true
	}
	if waited := w.store.clock.Now().Sub(w.start); waited >= w.store.timeout/2 { // a caller that had less time proves nothing
		p.primary.failed(errTimeout)
	}
	p.end(p.call.leave(errTimeout), replies)
}

// leave is the end of the primary. What its lanes have sent already they wait for, so that we do, too.
func (w *waiter) leave(p *piece, replies []reply) {
	why := p.primary.over()
	if p.call.state.CompareAndSwap(callQueued, callLeft) {
		p.end(why, replies)
		return
	}
	select {
	case <-p.call.done:
		p.collect(replies)
		return
	case <-w.store.life.Done():
	case <-w.timer.C:
		w.over = true
	case <-w.ctx.Done():
		w.over = true
	}
	p.end(&unavailable{reason: why.reason, sent: true}, replies)
}

// redirected makes new pieces of the commands that a cluster sent elsewhere. Where that is must be known, else the finder has
// to look first.
func (s *Store) redirected(old []*piece, replies []reply) []*piece {
	var pieces []*piece
	by := make(map[redirect]*piece)
	for _, p := range old {
		for i, at := range p.at {
			if replies[at].err == nil || replies[at].err.redirect == nil {
				continue
			}
			to := *replies[at].err.redirect
			to.addr = fullAddress(to.addr, p.primary.addr)
			next := by[to]
			if next == nil {
				target, shard := s.layout.Load().at(to.addr)
				if target == nil {
					s.lookAgain()
					continue
				}
				next = newPiece(target, shard, nil, nil, to.asking)
				by[to] = next
				pieces = append(pieces, next)
			}
			next.call.commands = append(next.call.commands, p.call.commands[i])
			next.at = append(next.at, at)
		}
	}
	return pieces
}

// fullAddress is addr, with the host of who said it if it has none.
func fullAddress(addr, by string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host != "" {
		return addr
	}
	host, _, _ = net.SplitHostPort(by)
	return net.JoinHostPort(host, port)
}
