// Package feed sends what a topic says to all who listen.
//
//	Publish   any goroutine   the message is framed once, each loop that has readers is woken once
//	deliver   loop            the shared frame goes to every reader of the loop that has taken what it was sent before
//	Drained   loop            a reader that was behind goes on from where it stopped, or from what is left of it
//
// Nothing is queued for a reader that does not keep up: it keeps its place in the loop's ring of last messages, which all
// readers of the topic share, and costs what its kernel has not taken of one write, 144 KiB (or half of the queue) and a message at most. When the
// ring has gone past its place, the rule of its stream decides; see Slow.
package feed

import (
	"sync/atomic"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
)

// A Hub is one topic. Streams that are joined to it share its messages. It is split per loop, so that a reader is touched by
// its own loop only. Create it with NewHub, give it Streams, Bind it before the engine starts.
type Hub struct {
	busy    func()         // the first reader has come; called on a loop
	engine  *engine.Engine // set by Bind
	streams []*Stream
	parts   []*part // by loop

	subscribers atomic.Int64
	published   atomic.Uint64
}

// part is one loop's share.
type part struct {
	ring   ring
	groups []group // by Stream

	// Any goroutine.
	count atomic.Int64 // readers of all groups, for Publish, which skips loops without any
}

// NewHub returns a topic without readers. busy, which may be nil, is called whenever a reader comes to a topic that has
// none; it runs on that reader's loop and must not wait.
func NewHub(busy func()) *Hub {
	if busy == nil {
		busy = func() {}
	}
	return &Hub{busy: busy}
}

// Stream returns a new stream that carries the topic, with a rule for readers that do not keep up. Before Bind.
func (h *Hub) Stream(slow Slow) *Stream {
	s := &Stream{hub: h, index: len(h.streams), slow: slow}
	h.streams = append(h.streams, s)
	return s
}

// Bind joins h to the engine whose loops will serve it, after engine.New and before Start.
func (h *Hub) Bind(e *engine.Engine) {
	h.engine = e
	for range e.Loops() {
		h.parts = append(h.parts, &part{groups: make([]group, len(h.streams))})
	}
}

// Subscribers is how many sockets listen. Any goroutine may call it.
func (h *Hub) Subscribers() int { return int(h.subscribers.Load()) }

// Published is how many messages Publish and PublishText have taken. Any goroutine may call it.
func (h *Hub) Published() uint64 { return h.published.Load() }

// Publish hands one whole message to all readers, framed and compressed once for all of them. payload is copied; text must be
// valid UTF-8. Any goroutine but a loop's may call it; it waits only for a loop that is far behind. Two calls of one goroutine
// reach every reader in their order.
func (h *Hub) Publish(op frame.Op, payload []byte) {
	h.published.Add(1)
	if h.subscribers.Load() == 0 {
		return
	}
	m := h.engine.NewMessage(op, payload)
	for i, p := range h.parts {
		if p.count.Load() > 0 {
			h.engine.Do(i, func(l *reactor.Loop) { h.deliver(l, m) })
		}
	}
}

// PublishText is Publish for one text message.
func (h *Hub) PublishText(text []byte) { h.Publish(frame.Text, text) }

// deliver brings m to the loop's readers, and forgets what none of them waits for any more.
func (h *Hub) deliver(l *reactor.Loop, m engine.Message) {
	p := h.parts[l.Index()]
	n := p.ring.add(m)
	var kept uint32 // how far back the groups' oldest messages go
	for i, s := range h.streams {
		g := &p.groups[i]
		s.deliver(l, g, &p.ring, n)
		kept = max(kept, p.ring.next-g.oldest)
	}
	p.ring.forget(p.ring.next - kept)
}
