package node

import (
	"context"
	"slices"
	"sync"

	"ticketgate/internal/mono"
	"ticketgate/store/node/core"
	"ticketgate/ticket"
)

const (
	senders   = 4
	roundTrip = 256  // redemptions in one, unless a single batch has more
	flyingMax = 8192 // redemptions queued or sent; what comes on top is refused
)

// asked is a batch and when it was handed over, by the node's own clock: the loops' may stand while the machine sleeps.
type asked struct {
	*ticket.Batch
	at mono.Time
}

// queue is a list of batches and who waits for them. Any goroutine may use it.
type queue struct {
	mu    sync.Mutex
	more  sync.Cond
	list  []asked
	ended bool
}

func (q *queue) init() { q.more.L = &q.mu }

// put adds b; false: the queue has ended.
func (q *queue) put(b asked) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return false
	}
	q.list = append(q.list, b)
	q.more.Signal()
	return true
}

// end refuses further batches; those in the list are still taken.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.more.Broadcast()
}

// take waits for a batch and appends to dst as many, at least one, as have at most limit requests together. None: the queue
// has ended and is empty.
func (q *queue) take(dst []asked, limit int) []asked {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.list) == 0 && !q.ended {
		q.more.Wait()
	}
	n := 0
	for n < len(q.list) && (n == 0 || len(q.list[n].Reqs) <= limit) {
		limit -= len(q.list[n].Reqs)
		n++
	}
	dst = append(dst, q.list[:n]...)
	q.list = slices.Delete(q.list, 0, n)
	return dst
}

// Redeem takes b over, returns at once, and has b.Done called when b.Answers is filled, one answer for each of b.Reqs: on a
// goroutine of the node, or on one made for it after Close. The incarnation in the requests is filled in here. Any goroutine
// may call it.
//
// RedeemUnsent means that nothing was asked: the node is not able to redeem, or has 8,192 redemptions under way.
func (n *Node) Redeem(b *ticket.Batch) {
	b.Answers = slices.Grow(b.Answers[:0], len(b.Reqs))[:len(b.Reqs)]
	q := &n.asks
	if n.own != nil { // RedeemNow answers, unless this node has ended
		q = &n.refuse
	}
	if n.flying.Add(int64(len(b.Reqs))) > flyingMax {
		q = &n.refuse
	}
	if !q.put(asked{b, n.o.Clock.Now()}) {
		go n.unsent(b) // a late loop during shutdown; it must not be called back on its own goroutine
	}
}

// RedeemNow is Redeem for a caller that may not wait, if the store is in this process or this node spends its tickets itself: b.Answers is
// filled when it returns, and b.Done is not called. Their grants may lie in b.Grants; see Batch.By. false: nothing has happened. Any goroutine may call it.
func (n *Node) RedeemNow(b *ticket.Batch) bool {
	switch {
	case n.ended.Load() || n.near == nil && n.own == nil:
		return false
	case n.own != nil:
		n.spendOwn(b)
		return true
	}
	b.Answers = slices.Grow(b.Answers[:0], len(b.Reqs))[:len(b.Reqs)]
	asked, s := asked{b, n.o.Clock.Now()}, n.core.Now()
	switch sent := n.screen(asked, asked.at, s); {
	case sent == len(b.Reqs):
		n.near.Redeem(context.Background(), b.Reqs, b.Answers)
	case sent > 0:
		reqs := asked.sent(nil)
		answers := make([]ticket.RedeemAnswer, sent)
		n.near.Redeem(context.Background(), reqs, answers)
		asked.fill(answers)
	default:
		return true
	}
	n.check(asked, asked.at)
	return true
}

// screen makes the present incarnation the one that asks, and answers what is not sent: when the batch is too old or there is no
// lease, tickets of another epoch than their shard's, and those of a shard that has not been told everything. The rest, as many as
// it returns, has Result 0 until the answer comes.
func (n *Node) screen(b asked, now mono.Time, s *core.State) int {
	sent := 0
	able := now.Sub(b.at) < n.o.Timeout
	for i := range b.Reqs {
		q, a := &b.Reqs[i], &b.Answers[i]
		q.Held.Incarnation = s.Incarnation
		switch {
		case able && s.MayRedeem(now, q.Held.Subject, q.Epoch):
			a.Result = 0
			sent++
		case able && s.Epoch(q.Held.Subject) != q.Epoch:
			a.Result = ticket.RedeemEpoch
		default:
			a.Result = ticket.RedeemUnsent
		}
		a.Grant, a.Seen = nil, ticket.ShardEpoch{}
	}
	if sent < len(b.Reqs) {
		n.inbox.doubt()
	}
	return sent
}

// sent appends to dst what screen has left.
func (b asked) sent(dst []ticket.RedeemRequest) []ticket.RedeemRequest {
	for i := range b.Reqs {
		if b.Answers[i].Result == 0 {
			dst = append(dst, b.Reqs[i])
		}
	}
	return dst
}

// fill takes the answers to what was sent from the front of as, and returns the rest.
func (b asked) fill(as []ticket.RedeemAnswer) []ticket.RedeemAnswer {
	for i := range b.Answers {
		if b.Answers[i].Result == 0 {
			b.Answers[i], as = as[0], as[1:]
		}
	}
	return as
}

// unsent answers b without asking.
func (n *Node) unsent(b *ticket.Batch) {
	n.notSent(b)
	n.done(b)
}

func (n *Node) notSent(b *ticket.Batch) {
	for i := range b.Answers {
		b.Answers[i] = ticket.RedeemAnswer{Result: ticket.RedeemUnsent}
	}
}

func (n *Node) done(b *ticket.Batch) {
	n.flying.Add(-int64(len(b.Reqs)))
	b.Done(b)
}

func (n *Node) refusing() {
	var batches []asked
	for {
		batches = n.refuse.take(batches[:0], roundTrip)
		if len(batches) == 0 {
			return
		}
		for _, b := range batches {
			n.unsent(b.Batch)
		}
	}
}

func (n *Node) sending() {
	s := sender{n: n}
	for {
		s.batches = n.asks.take(s.batches[:0], roundTrip)
		if len(s.batches) == 0 {
			return
		}
		s.round()
		clear(s.batches)
	}
}

// sender makes round trips, one at a time. Its slices are used again.
type sender struct {
	n       *Node
	batches []asked
	reqs    []ticket.RedeemRequest
	answers []ticket.RedeemAnswer
}

// round answers s.batches.
func (s *sender) round() {
	now, state := s.n.o.Clock.Now(), s.n.core.Now()
	oldest := s.join(now, state)
	if len(s.batches) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.n.o.Timeout-now.Sub(oldest))
	s.n.o.Store.Redeem(ctx, s.reqs, s.answers)
	cancel()
	rest := s.answers
	for _, b := range s.batches {
		rest = b.fill(rest)
		s.n.check(b, now)
		s.n.done(b.Batch)
	}
	clear(s.answers) // the grants are the loops' now
}

// join collects the requests of all batches that may be sent and answers the others. It returns when the oldest began.
func (s *sender) join(now mono.Time, state *core.State) (oldest mono.Time) {
	s.reqs, oldest = s.reqs[:0], now
	s.batches = slices.DeleteFunc(s.batches, func(b asked) bool {
		if s.n.screen(b, now, state) == 0 {
			s.n.done(b.Batch)
			return true
		}
		oldest = min(oldest, b.at)
		s.reqs = b.sent(s.reqs)
		return false
	})
	s.answers = slices.Grow(s.answers[:0], len(s.reqs))[:len(s.reqs)]
	return oldest
}

// check is the one that counts: a socket opens only if the answer came in time and core.State.Stands. Else the ticket is spent in
// vain, and the count is asserted. After a no it is not, before the loop has lowered it and calls Touch: the store would be told of a
// socket that there is not. sent is when the store was asked.
func (n *Node) check(b asked, sent mono.Time) {
	now, s := n.o.Clock.Now(), n.core.Now()
	late := now.Sub(b.at) > n.o.Timeout
	var news []outcome
	for i := range b.Answers {
		q, a := &b.Reqs[i], &b.Answers[i]
		seen := a.Seen
		if a.Result == ticket.RedeemOK && (late || !s.Stands(now, q, a)) {
			*a = ticket.RedeemAnswer{Result: ticket.RedeemDoubt}
		}
		switch a.Result {
		case ticket.RedeemOK, ticket.RedeemUnsent:
			continue
		case ticket.RedeemDoubt:
			n.inbox.doubt()
		}
		news = append(news, outcome{q.Held.Subject, seen, a.Result != ticket.RedeemDoubt})
	}
	if news == nil {
		return
	}
	n.inbox.tell(func(m *core.Core, now mono.Time) {
		for _, o := range news {
			m.Redeemed(now, sent, o.subject, o.sure, o.seen)
		}
	})
}

// An outcome is what the machine learns from a redemption that opened nothing.
type outcome struct {
	subject ticket.Subject
	seen    ticket.ShardEpoch
	sure    bool // the store has not taken its count
}
