// Package feed sends what a topic says to all who listen.
//
//	Publish   any goroutine   the message is framed once, each loop that has subscribers is woken once
//	deliver   loop            the shared frame goes to every subscriber of the loop; slow ones follow the engine's rule (4440)
package feed

import (
	"sync/atomic"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
)

// A Hub is one topic: an engine.Stream whose sockets all get what is published. It is split per loop, so that a
// subscriber is touched by its own loop only. Create it with NewHub, Bind it before the engine starts.
type Hub struct {
	busy   func()         // the first subscriber has come; called on a loop
	engine *engine.Engine // set by Bind
	parts  []*part        // by loop

	subscribers atomic.Int64
	published   atomic.Uint64
}

var _ engine.Stream = (*Hub)(nil)

// part is one loop's share: 8 bytes a subscriber, no pointers in them.
type part struct {
	ids []reactor.ID // in no order; a socket's word is its place plus 1

	// Any goroutine.
	count atomic.Int64 // len(ids), for Publish, which skips loops without subscribers
}

// NewHub returns a topic without subscribers. busy, which may be nil, is called whenever a subscriber comes to a topic that
// has none; it runs on that subscriber's loop and must not wait.
func NewHub(busy func()) *Hub {
	if busy == nil {
		busy = func() {}
	}
	return &Hub{busy: busy}
}

// Bind joins h to the engine whose loops will serve it, after engine.New and before Start.
func (h *Hub) Bind(e *engine.Engine) {
	h.engine = e
	for range e.Loops() {
		h.parts = append(h.parts, new(part))
	}
}

// Subscribers is how many sockets listen. Any goroutine may call it.
func (h *Hub) Subscribers() int { return int(h.subscribers.Load()) }

// Published is how many messages Publish and PublishText have taken. Any goroutine may call it.
func (h *Hub) Published() uint64 { return h.published.Load() }

// Publish hands one whole message to all subscribers. framed is the unmasked frame with its header, n its payload's length
// in bytes; framed is shared by all loops from now on, so nobody writes to it again. Any goroutine but a loop's may call
// it; it waits only for a loop that is far behind. Two calls of one goroutine reach every subscriber in their order.
func (h *Hub) Publish(framed []byte, n int64) {
	h.published.Add(1)
	for i, p := range h.parts {
		if p.count.Load() > 0 {
			h.engine.Do(i, func(l *reactor.Loop) { h.deliver(l, framed, n) })
		}
	}
}

// PublishText is Publish for one text message, which is copied; text must be valid UTF-8.
func (h *Hub) PublishText(text []byte) {
	head := frame.Header{Fin: true, Op: frame.Text, Len: int64(len(text))}
	framed := frame.Append(make([]byte, 0, frame.HeaderLen(head)+len(text)), head)
	h.Publish(append(framed, text...), head.Len)
}

// deliver sends framed to the loop's subscribers. From the last to the first: one that is closed for being slow is
// replaced by the last, which has been served.
func (h *Hub) deliver(l *reactor.Loop, framed []byte, n int64) {
	p := h.parts[l.Index()]
	for i := len(p.ids) - 1; i >= 0; i-- {
		h.engine.ConnOf(l, p.ids[i]).SendFrame(framed, n)
	}
}

// Join implements engine.Stream: c subscribes.
func (h *Hub) Join(c engine.Conn, _ *engine.Join) {
	p := h.parts[c.Loop().Index()]
	p.ids = append(p.ids, c.ID())
	c.SetWord(uint64(len(p.ids)))
	p.count.Store(int64(len(p.ids)))
	c.Accept(nil)
	if h.subscribers.Add(1) == 1 {
		h.busy()
	}
}

// Receive implements engine.Stream. What clients send to a topic has no meaning; a stream entry with MayNot refuses it.
func (h *Hub) Receive(engine.Conn, *frame.Event) {}

// Drained implements engine.Stream. A topic does not wait for anyone.
func (h *Hub) Drained(engine.Conn) {}

// Gone implements engine.Stream: the last subscriber of the loop takes c's place.
func (h *Hub) Gone(c engine.Conn, _ engine.End) {
	place := int(c.Word()) - 1
	if place < 0 {
		return
	}
	p := h.parts[c.Loop().Index()]
	last := len(p.ids) - 1
	moved := p.ids[last]
	p.ids[place], p.ids = moved, p.ids[:last]
	c.At(moved).SetWord(uint64(place + 1))
	c.SetWord(0)
	p.count.Store(int64(last))
	h.subscribers.Add(-1)
}
