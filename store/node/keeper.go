package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/store/node/core"
	"ticketgate/ticket"
)

// An inbox is what the keeper is told. Any goroutine may put something in. It is bounded by who can be waiting for an answer, and
// by the number of subjects.
type inbox struct {
	mu      sync.Mutex
	touched map[ticket.Subject]struct{}
	events  []func(*core.Core, mono.Time)
	doubted bool // something suggests to look at the store
	ended   bool
	turned  chan struct{} // closed after the keeper's next turn
	wake    chan struct{}
}

func (b *inbox) init() {
	b.touched, b.turned, b.wake = map[ticket.Subject]struct{}{}, make(chan struct{}), make(chan struct{}, 1)
}

func (b *inbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// touch is for the machine's Touch.
func (b *inbox) touch(s ticket.Subject) {
	b.mu.Lock()
	b.touched[s] = struct{}{}
	b.mu.Unlock()
	b.signal()
}

// tell has f called with the machine.
func (b *inbox) tell(f func(*core.Core, mono.Time)) {
	b.mu.Lock()
	b.events = append(b.events, f)
	b.mu.Unlock()
	b.signal()
}

// doubt is for the machine's Doubt.
func (b *inbox) doubt() {
	b.mu.Lock()
	news := !b.doubted
	b.doubted = true
	b.mu.Unlock()
	if news {
		b.signal()
	}
}

// take gives everything to the machine.
func (b *inbox) take(m *core.Core, now mono.Time) {
	b.mu.Lock()
	events, doubted := b.events, b.doubted
	b.events, b.doubted = nil, false
	var touched map[ticket.Subject]struct{}
	if len(b.touched) > 0 {
		touched, b.touched = b.touched, make(map[ticket.Subject]struct{}, 16)
	}
	b.mu.Unlock()
	for _, f := range events {
		f(m, now)
	}
	for s := range touched {
		m.Touch(s)
	}
	if doubted {
		m.Doubt(now)
	}
}

// turn wakes those who wait for a turn.
func (b *inbox) turn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		close(b.turned)
		b.turned = make(chan struct{})
	}
}

// end wakes all who wait, for ever.
func (b *inbox) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	close(b.turned)
}

// wait waits until done is true after a turn of the keeper, the keeper ends, or ctx does.
func (b *inbox) wait(ctx context.Context, done func() bool) {
	for {
		b.mu.Lock()
		turned, ended := b.turned, b.ended
		b.mu.Unlock()
		if ended || done() {
			return
		}
		select {
		case <-turned:
		case <-ctx.Done():
			return
		}
	}
}

// keep is the keeper.
func (n *Node) keep() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var calls []core.Call
	away := false
	for {
		now := n.o.Clock.Now()
		n.inbox.take(n.core, now)
		lapse := n.lapse(now)
		calls = n.core.Work(now, calls[:0])
		for i := range calls {
			c := calls[i]
			n.calls.Go(func() { n.call(n.ctx, c) })
		}
		away = n.report(away)
		n.inbox.turn()
		timer.Reset(max(0, min(n.core.Next(), lapse).Sub(n.o.Clock.Now())))
		select {
		case <-n.ctx.Done():
			return
		case <-n.inbox.wake:
		case <-timer.C:
		}
	}
}

// report logs that the store is away, or there again.
func (n *Node) report(away bool) bool {
	s := n.core.Now()
	switch is := s.Failures >= failuresMax; {
	case is && !away:
		n.o.Log.Warn("ticket store does not answer", "node", n.o.Name, "reason", s.Why)
		return true
	case away && s.Failures == 0:
		n.o.Log.Info("ticket store answers again", "node", n.o.Name)
		return false
	}
	return away
}

// call makes one of the machine's requests.
func (n *Node) call(ctx context.Context, c core.Call) {
	switch {
	case c.Renew != nil:
		n.renew(ctx, c.Renew)
	case c.Ask != nil:
		n.ask(ctx, c.Ask)
	case c.Assert != nil:
		answers := n.assert(ctx, c.Assert)
		at := n.o.Clock.Now() // by now it is done; the keeper may have read the clock earlier, and been stopped since
		n.inbox.tell(func(m *core.Core, now mono.Time) { m.Asserted(max(now, at), c.Assert, answers) })
	}
}

func (n *Node) renew(ctx context.Context, r *core.Renew) {
	var v ticket.View
	err := n.writeDown(r.Incarnation)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, renewTimeout)
		defer cancel()
		v, err = n.o.Store.Renew(ctx, &r.RenewRequest)
	}
	n.inbox.tell(func(m *core.Core, now mono.Time) { m.Renewed(now, r, &v, err) })
}

// writeDown calls OnLife, once for each incarnation. A renewal of a former life may still be under way.
func (n *Node) writeDown(i ticket.Incarnation) error {
	n.writing.Lock()
	defer n.writing.Unlock()
	switch {
	case n.written == i:
		return nil
	case n.core.Now().Incarnation != i:
		return errOver
	}
	if err := n.o.OnLife(i); err != nil {
		return fmt.Errorf("write the name of this life down: %w", err)
	}
	n.written = i
	return nil
}

var errOver = errors.New("this life is over")

func (n *Node) ask(ctx context.Context, a *core.Ask) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	e, err := n.o.Store.Ask(ctx, a.Shard)
	n.inbox.tell(func(m *core.Core, now mono.Time) { m.Asked(now, a, e, err) })
}

func (n *Node) assert(ctx context.Context, a *core.Assert) []ticket.AssertAnswer {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answers := make([]ticket.AssertAnswer, len(a.Held))
	n.o.Store.Assert(ctx, a.Held, answers)
	return answers
}

// Touch says that the held count of s changed: a socket closed, or a redemption ended in doubt. It is asserted soon, and
// again until the store has acknowledged the latest reading. Any goroutine may call it; it does not wait.
func (n *Node) Touch(s ticket.Subject) { n.inbox.touch(s) }

// excess has the keeper count.
func (n *Node) excess() int {
	got := make(chan int, 1)
	n.inbox.tell(func(m *core.Core, now mono.Time) { got <- m.Excess(now) })
	select {
	case e := <-got:
		return e
	case <-n.ctx.Done():
		return 0
	}
}

// errUntold is what Close reports.
var errUntold = errors.New("released slots stay taken until the lease ends: the ticket store did not answer")

// farewell tells what is left to tell, without goroutines: all of them have ended.
func (n *Node) farewell(ctx context.Context) error {
	now := n.o.Clock.Now()
	n.inbox.take(n.core, now)
	for {
		a := n.core.Farewell(now)
		if a == nil {
			n.leave(ctx)
			return nil
		}
		before := n.core.Untold()
		answers := n.assert(ctx, a)
		n.core.Asserted(n.o.Clock.Now(), a, answers)
		if ctx.Err() != nil || n.core.Untold() >= before {
			return errors.Join(errUntold, ctx.Err())
		}
	}
}

// leave ends the lease, so that nobody waits for its end: not the next process of this name, nor who finds no room in a store that may
// have lost something. If it does not arrive, the lease ends by itself.
func (n *Node) leave(ctx context.Context) {
	r := n.core.Leave()
	if r == nil {
		return
	}
	if _, err := n.o.Store.Renew(ctx, r); err != nil {
		n.o.Log.Info("the store was not told that this node leaves: its lease ends by itself", "node", n.o.Name, "reason", err)
	}
}
