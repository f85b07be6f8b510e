package redis

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A primary is one server that takes commands, with its lanes and their breaker. Primaries share nothing, so that none waits for
// another's server.
type primary struct {
	store *Store
	addr  string
	tried chan struct{} // closed when connecting was tried once

	breaker breaker
	queue   chan *call
	link    atomic.Pointer[link] // nil: none now

	mu      sync.Mutex
	changed chan struct{} // closed when there is another link

	nudge chan struct{} // asks the keeper to try now

	life  context.Context // ends with the store, or when it is no primary any more
	end   context.CancelFunc
	lanes sync.WaitGroup

	// Owned by the keeper.
	said tellOnce
	last time.Time // when connecting was last tried
}

// redialGap is the least time between two tries to connect, one of which went well: a server that ends every connection would
// else keep a core busy.
const redialGap = 50 * time.Millisecond

// newPrimary starts the keeper and the lanes of the server at addr.
func (s *Store) newPrimary(addr string) *primary {
	p := &primary{store: s, addr: addr, tried: make(chan struct{}), queue: make(chan *call, queueMax), changed: make(chan struct{}), nudge: make(chan struct{}, 1)}
	p.life, p.end = context.WithCancel(s.life)
	p.lanes.Add(lanes)
	s.work.Go(p.keep)
	for range lanes {
		s.work.Go(func() { defer p.lanes.Done(); p.lane() })
	}
	return p
}

// keep holds the connection, and finds out when the server answers again. When it is no primary any more, its answers to what it
// got before are still waited for; when the store ends, they are not.
func (p *primary) keep() {
	defer func() {
		if p.store.life.Err() == nil {
			p.lanes.Wait()
		}
		p.drop()
	}()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	p.connect()
	close(p.tried)
	for {
		var gone chan struct{} // of no link: never
		l := p.link.Load()
		if l != nil {
			gone = l.gone
		}
		select {
		case <-p.life.Done():
			return
		case <-gone:
			p.drop()
			p.store.lookAgain()
			if time.Since(p.last) > redialGap {
				p.connect()
			}
		case <-tick.C:
			p.probe(l)
		case <-p.nudge:
			p.probe(l)
		}
	}
}

// probe tries to make good what is not.
func (p *primary) probe(l *link) {
	switch {
	case l == nil:
		p.connect()
	case !p.breaker.closed.Load():
		p.ping(l)
	}
}

// lives tells the keeper that somebody else has got an answer of the server. It does not wait.
func (p *primary) lives() {
	if !p.breaker.closed.Load() {
		select {
		case p.nudge <- struct{}{}:
		default:
		}
	}
}

// drop gives the link up.
func (p *primary) drop() {
	if l := p.link.Swap(nil); l != nil {
		l.close()
	}
}

// connect makes a link. That it cannot opens the breaker.
func (p *primary) connect() {
	p.last = time.Now()
	l, err := p.store.connect(p.life, p.addr)
	if err != nil {
		p.breaker.open()
		if p.life.Err() == nil && p.said.news(err.Error()) {
			p.store.log.Warn("ticket store is down", "server", p.addr, "reason", err)
		}
		p.store.lookAgain()
		return
	}
	p.link.Store(l)
	p.mu.Lock()
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	p.up()
}

// ping closes the breaker if the server answers in time.
func (p *primary) ping(l *link) {
	stop := context.AfterFunc(p.store.life, l.cut)
	defer stop()
	start := time.Now()
	r := l.run(p.store.cutAfter(), l.client.B().Ping().Build())
	if r[0].Error() == nil && time.Since(start) <= p.store.timeout {
		p.up()
	}
}

func (p *primary) up() {
	p.said.news("")
	if p.breaker.close() {
		p.store.log.Info("ticket store is up", "server", p.addr)
	}
}

// cutAfter is how long a round trip may take.
func (s *Store) cutAfter() time.Duration { return max(cutAfter, 2*s.timeout) }

// failed tells the breaker.
func (p *primary) failed(why error) {
	if p.breaker.fail(p.store.clock.Now()) {
		p.store.log.Warn("ticket store is down", "server", p.addr, "reason", why)
		p.store.lookAgain()
	}
}

// await returns the link, once there is one; nil at the end.
func (p *primary) await() *link {
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		if l := p.link.Load(); l != nil && !l.broken() {
			return l
		}
		select {
		case <-changed:
		case <-p.life.Done():
			return nil
		}
	}
}

// A call is what one caller wants of one primary: up to laneMax commands.
type call struct {
	commands []command
	asking   bool          // the server is importing their slot: ASKING before each
	replies  []reply       // written by the lane before done is closed
	done     chan struct{} // closed by the lane
	state    atomic.Uint32
}

// The states of a call. Caller and lane race for a queued one.
const (
	callQueued uint32 = iota
	callTaken         // by a lane: from here on it may have happened
	callLeft          // by the caller: it never happened
)

// enqueue gives c to the lanes, or says at once why not.
func (p *primary) enqueue(c *call) *unavailable {
	if p.life.Err() != nil {
		return p.over()
	}
	if !p.breaker.closed.Load() {
		return errBreaker
	}
	select {
	case p.queue <- c:
		return nil
	default:
		return errQueue
	}
}

// over is why a primary that has ended did.
func (p *primary) over() *unavailable {
	if p.store.life.Err() != nil {
		return errClosed
	}
	return errLeaving
}

// leave is the caller going without an answer.
func (c *call) leave(why *unavailable) *unavailable {
	if c.state.CompareAndSwap(callQueued, callLeft) {
		if why == errTimeout {
			return errWaited
		}
		return why
	}
	return &unavailable{reason: why.reason, sent: true}
}

// lane makes round trips until the end.
func (p *primary) lane() {
	b := batch{primary: p}
	for {
		select {
		case <-p.life.Done():
			return
		case c := <-p.queue:
			l := p.await()
			if l == nil {
				return // the caller sees the end, too
			}
			b.fill(c)
			b.run(l)
		}
	}
}
