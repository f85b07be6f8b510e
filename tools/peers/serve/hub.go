package serve

import "sync"

// A Hub gives each subscriber a queue of the feed's messages, as chat examples do: one lock, and whoever is slow loses. M is
// what the library makes of a message once for all.
type Hub[M any] struct {
	feed    *Feed
	prepare func(message []byte) (M, error)

	mu     sync.Mutex
	queues map[chan M]struct{}
}

// NewHub returns a Hub. prepare is called once a tick.
func NewHub[M any](f *Feed, prepare func(message []byte) (M, error)) *Hub[M] {
	return &Hub[M]{feed: f, prepare: prepare, queues: make(map[chan M]struct{})}
}

// Join returns a new subscriber's queue. Any goroutine may call it.
func (h *Hub[M]) Join() chan M {
	queue := make(chan M, QueueMax)
	h.mu.Lock()
	h.queues[queue] = struct{}{}
	h.mu.Unlock()
	h.feed.Start(h.send)
	return queue
}

// Leave ends a subscription, and with it the queue, which is closed. Any goroutine may call it, once.
func (h *Hub[M]) Leave(queue chan M) {
	h.mu.Lock()
	delete(h.queues, queue)
	h.mu.Unlock()
	close(queue) // send is not at it, and does not find it any more
}

func (h *Hub[M]) send(message []byte) error {
	m, err := h.prepare(message)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for queue := range h.queues {
		select {
		case queue <- m:
		default: // lost for this one
		}
	}
	return nil
}
