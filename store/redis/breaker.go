package redis

import (
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/internal/mono"
)

// The breaker opens at 5 failures in a second; then nothing is sent but a probe every 250 ms, and calls fail at once.
const (
	breakerFailures = 5
	breakerWindow   = time.Second
)

// breaker remembers the last failures. Any goroutine may use it. It starts open: nothing is known of the server.
type breaker struct {
	closed atomic.Bool // read by every call

	mu    sync.Mutex
	fails [breakerFailures]mono.Time // ring of the latest, zero where none
	next  int
}

// fail notes a failure at now and tells whether it opened the breaker.
func (b *breaker) fail(now mono.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	oldest := b.fails[(b.next+1)%breakerFailures]
	b.fails[b.next] = now
	b.next = (b.next + 1) % breakerFailures
	return oldest != 0 && now.Sub(oldest) <= breakerWindow && b.closed.CompareAndSwap(true, false)
}

// open is for a failure that leaves no doubt: there is no connection, and none can be made.
func (b *breaker) open() { b.closed.Store(false) }

// close forgets all failures. It tells whether the breaker was open.
func (b *breaker) close() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fails = [breakerFailures]mono.Time{}
	return b.closed.CompareAndSwap(false, true)
}
