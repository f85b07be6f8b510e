package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// keeper renews the lease. All but kick and next belong to its goroutine (and to Start, before that runs).
//
//	nobody ──draw──> named ──Renew ok──> entered ──counts asserted──> registered
//	   ^               │                    │ ^                          │
//	   │ a lease without│answer             │ └──── store's epoch changed ┘
//	   └────────────────┴── lease over ─────┘
type keeper struct {
	n       *Node
	kicked  chan struct{}
	started mono.Time // of the first try to enter this incarnation
	due     mono.Time // of the next renewal

	mu   sync.Mutex
	done chan struct{} // closed when the next turn that begins has ended
}

func (k *keeper) init(n *Node) {
	k.n, k.kicked, k.done = n, make(chan struct{}, 1), make(chan struct{})
}

// kick asks for a renewal at once.
func (k *keeper) kick() {
	select {
	case k.kicked <- struct{}{}:
	default:
	}
}

// next returns what is closed when a turn that has not begun yet is over.
func (k *keeper) next() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.done
}

// swap begins a turn: who asks from now on waits for the next.
func (k *keeper) swap() chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	done := k.done
	k.done = make(chan struct{})
	return done
}

func (k *keeper) run() {
	timer := time.NewTimer(k.wait())
	defer timer.Stop()
	for {
		select {
		case <-k.n.quit:
			return
		case <-k.kicked:
			k.turn(context.Background())
		case <-timer.C:
			k.look()
		}
		timer.Reset(k.wait())
	}
}

// wait is until the next renewal or the end of the lease.
func (k *keeper) wait() time.Duration {
	now, next := k.n.o.Clock.Now(), k.due
	if until := k.n.life.Load().until; until > now && until < next {
		next = until
	}
	return max(0, next.Sub(now))
}

// look is the timer: end the lease if it is over, renew if that is due.
func (k *keeper) look() {
	now := k.n.o.Clock.Now()
	k.expire(now)
	if now >= k.due {
		k.turn(context.Background())
	}
}

// expire gives the incarnation up if its lease is over, or if it could not be entered within a lease: the store may have
// taken it in and buried it again meanwhile.
func (k *keeper) expire(now mono.Time) {
	l := k.n.life.Load()
	switch {
	case l.until != 0 && !l.leased(now):
		k.lose(l)
	case l.until == 0 && l.incarnation != 0 && now.Sub(k.started) >= k.n.o.Lease:
		k.leave(l)
	}
}

// lose ends a life that had sockets.
func (k *keeper) lose(l *life) {
	k.n.o.Log.Warn("slot lease lost", "node", k.n.o.Name)
	k.leave(l)
	k.n.o.OnLeaseLost()
}

// set publishes l. The copy is what readers hold, so nobody writes to it again.
func (k *keeper) set(l life) { k.n.life.Store(&l) }

// leave keeps what is known of the store, and nothing of the incarnation.
func (k *keeper) leave(l *life) {
	k.set(life{epoch: l.epoch, failures: l.failures, dead: l.dead, storeTime: l.storeTime, storeAt: l.storeAt})
}

// turn makes one renewal, and what follows from it.
func (k *keeper) turn(ctx context.Context) {
	done := k.swap()
	defer close(done)
	err := k.renew(ctx)
	if errors.Is(err, ticket.ErrLeaseLost) {
		err = k.renew(ctx) // under a new name
	}
	now := k.n.o.Clock.Now()
	k.due = now.Add(k.n.o.Heartbeat)
	if err != nil {
		k.failed(err)
		k.due = now.Add(min(retryAfter, k.n.o.Heartbeat))
	}
	k.expire(now)
}

func (k *keeper) failed(err error) {
	l := *k.n.life.Load()
	l.failures++
	if l.failures == failuresMax {
		k.n.o.Log.Warn("ticket store does not answer", "node", k.n.o.Name, "reason", err)
	}
	k.set(l)
}

// renew enters or prolongs the incarnation.
func (k *keeper) renew(ctx context.Context) error {
	if err := k.name(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, k.n.o.Timeout)
	defer cancel()
	l := *k.n.life.Load()
	r := ticket.RenewRequest{Incarnation: l.incarnation, Name: k.n.o.Name, Lease: k.n.o.Lease}
	if l.until == 0 { // not entered yet
		r.Former = k.n.o.Former
	}
	sent := k.n.o.Clock.Now()
	v, err := k.n.o.Store.Renew(ctx, &r)
	switch {
	case errors.Is(err, ticket.ErrLeaseLost) && l.until != 0:
		k.lose(&l)
		return err
	case errors.Is(err, ticket.ErrLeaseLost):
		k.leave(&l)
		return err
	case err != nil:
		return err
	}
	return k.believe(l, &v, sent)
}

// name draws an incarnation if there is none.
func (k *keeper) name() error {
	l := *k.n.life.Load()
	if l.incarnation != 0 {
		return nil
	}
	var err error
	if l.incarnation, err = newIncarnation(k.n.o.Rand); err != nil {
		return err
	}
	k.started = k.n.o.Clock.Now()
	k.set(l)
	return nil
}

// believe takes over what the store said to a renewal that was sent at sent. The lease counts from then: the store cannot
// have counted from earlier.
func (k *keeper) believe(l life, v *ticket.View, sent mono.Time) error {
	now, lease := k.n.o.Clock.Now(), k.n.o.Lease
	recovered := l.failures >= failuresMax
	l.until = sent.Add(lease - lease/driftParts - leaseMargin)
	l.failures, l.dead = 0, v.Dead
	l.storeTime, l.storeAt = v.Time, sent.Add(now.Sub(sent)/2)
	l.registered = l.registered && l.epoch == v.Epoch
	k.set(l)
	if !l.registered {
		if err := k.n.assertAll(l.incarnation); err != nil {
			return err
		}
		l.epoch, l.registered = v.Epoch, true
		k.set(l)
	}
	if recovered {
		k.n.o.Log.Info("ticket store answers again", "node", k.n.o.Name)
	}
	k.n.dirty.all()
	return nil
}
