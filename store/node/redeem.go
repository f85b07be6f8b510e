package node

import (
	"context"
	"slices"
	"sync"

	"ticketgate/internal/mono"
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
	if n.flying.Add(int64(len(b.Reqs))) > flyingMax {
		q = &n.refuse
	}
	if !q.put(asked{b, n.o.Clock.Now()}) {
		go n.unsent(b) // a late loop during shutdown; it must not be called back on its own goroutine
	}
}

// RedeemNow is Redeem for a caller that may not wait, if the store is in this process: b.Answers is filled when it returns, and
// b.Done is not called. false: nothing has happened. Any goroutine may call it.
func (n *Node) RedeemNow(b *ticket.Batch) bool {
	if n.near == nil {
		return false
	}
	select {
	case <-n.quit:
		return false
	default:
	}
	b.Answers = slices.Grow(b.Answers[:0], len(b.Reqs))[:len(b.Reqs)]
	asked := asked{b, n.o.Clock.Now()}
	l := n.life.Load()
	if !n.mayAsk(asked, asked.at, l) {
		n.notSent(b)
		return true
	}
	asked.as(l.incarnation)
	n.near.Redeem(context.Background(), b.Reqs, b.Answers)
	n.check(asked, l.incarnation)
	return true
}

// mayAsk reports whether b may be sent, and otherwise sees to it that the next may.
func (n *Node) mayAsk(b asked, now mono.Time, l *life) bool {
	if l.leased(now) && l.registered && now.Sub(b.at) < n.o.Timeout {
		return true
	}
	n.keeper.kick()
	return false
}

// as makes i the one that asks.
func (b asked) as(i ticket.Incarnation) {
	for k := range b.Reqs {
		b.Reqs[k].Held.Incarnation = i
	}
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
	now, l := s.n.o.Clock.Now(), s.n.life.Load()
	oldest := s.join(now, l)
	if len(s.batches) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.n.o.Timeout-now.Sub(oldest))
	s.n.o.Store.Redeem(ctx, s.reqs, s.answers)
	cancel()
	rest := s.answers
	for _, b := range s.batches {
		copy(b.Answers, rest[:len(b.Reqs)])
		rest = rest[len(b.Reqs):]
		s.n.check(b, l.incarnation)
		s.n.done(b.Batch)
	}
	clear(s.answers) // the grants are the loops' now
}

// join collects the requests of all batches that may be sent and answers the others. It returns when the oldest began.
func (s *sender) join(now mono.Time, l *life) (oldest mono.Time) {
	s.reqs, oldest = s.reqs[:0], now
	s.batches = slices.DeleteFunc(s.batches, func(b asked) bool {
		if !s.n.mayAsk(b, now, l) {
			s.n.unsent(b.Batch)
			return true
		}
		oldest = min(oldest, b.at)
		b.as(l.incarnation)
		s.reqs = append(s.reqs, b.Reqs...)
		return false
	})
	s.answers = slices.Grow(s.answers[:0], len(s.reqs))[:len(s.reqs)]
	return oldest
}

// check is the one that counts: a socket opens only if the answer came in time, in the life as which it was asked, with its lease
// still held and the epoch still the store's. Else the ticket is spent in vain, and the count is asserted.
func (n *Node) check(b asked, as ticket.Incarnation) {
	now, l := n.o.Clock.Now(), n.life.Load()
	late := now.Sub(b.at) > n.o.Timeout || l.incarnation != as
	for i := range b.Answers {
		q, a := &b.Reqs[i], &b.Answers[i]
		if a.Result == ticket.RedeemOK && (late || !l.able(now, q.Epoch)) {
			*a = ticket.RedeemAnswer{Result: ticket.RedeemDoubt}
		}
		switch a.Result {
		case ticket.RedeemDoubt:
			n.Touch(q.Held.Subject)
			n.keeper.kick()
		case ticket.RedeemEpoch, ticket.RedeemUnsent:
			n.keeper.kick()
		}
	}
}
