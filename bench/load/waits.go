package load

import (
	"fmt"
	"time"

	"ticketgate/bench"
)

// errLate is the end of a step of opening a socket, or of asking for a ticket, that took too long.
var errLate = fmt.Errorf("no answer within the time that --timeout allows: %w", bench.ErrTimeout)

// A wait is a step that has to end in time. Its owner has one, and at most one step under way.
type wait struct {
	at         time.Duration // its end
	prev, next *wait         // nil: no step is under way
	expired    func()        // gives the step up
}

// waits are the steps under way, the one that ends first in front. All may take the same time, so they end in the order in which they
// began: a list does, in which a step costs two pointers, where a timer each would be a heap of them, and a goroutine's wake.
type waits struct {
	root  wait
	limit time.Duration // 0: a step may take for ever
}

// begin starts w's step.
func (q *waits) begin(w *wait, now time.Duration) {
	if q.limit == 0 {
		return
	}
	if q.root.next == nil {
		q.root.prev, q.root.next = &q.root, &q.root
	}
	w.at = now + q.limit
	w.prev, w.next = q.root.prev, &q.root
	w.prev.next, w.next.prev = w, w
}

// end says that w's step is over, if one was under way.
func (w *wait) end() {
	if w.next == nil {
		return
	}
	w.prev.next, w.next.prev = w.next, w.prev
	w.prev, w.next = nil, nil
}

// shift gives all steps d more: nothing was read for so long.
func (q *waits) shift(d time.Duration) {
	for w := q.root.next; w != nil && w != &q.root; w = w.next {
		w.at += d
	}
}

// next is when the first step ends.
func (q *waits) next() time.Duration {
	if q.root.next == nil || q.root.next == &q.root {
		return far
	}
	return q.root.next.at
}

// expire gives up what is late at now.
func (q *waits) expire(now time.Duration) {
	for q.next() <= now {
		w := q.root.next
		w.end()
		w.expired()
	}
}
