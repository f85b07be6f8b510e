package feed

import "ticketgate/engine"

// messageCost is what a message counts beside its bytes: its place in the ring, and what the allocator adds.
const messageCost = 64

// size is what m counts in a ring.
func size(m *engine.Message) int { return m.Size() + messageCost }

// A ring holds a loop's last messages, for readers that are behind. Messages are numbered; numbers wrap around, and are
// compared by their distance.
//
//	first                 next
//	  |<---- kept ---->|
//	 17   18   19   20   (21)     message n is at n modulo the ring's length
type ring struct {
	messages    []engine.Message // a power of two
	first, next uint32
}

// Lengths of a ring: to begin with, and up to which an empty one is kept.
const (
	ringMin  = 8
	ringKeep = 1 << 10
)

// add appends m and returns its number.
func (r *ring) add(m engine.Message) uint32 {
	if int(r.next-r.first) == len(r.messages) {
		r.grow()
	}
	n := r.next
	*r.at(n) = m
	r.next++
	return n
}

func (r *ring) grow() {
	bigger := ring{messages: make([]engine.Message, max(ringMin, 2*len(r.messages))), first: r.first, next: r.next}
	for n := r.first; n != r.next; n++ {
		*bigger.at(n) = *r.at(n)
	}
	*r = bigger
}

// at is the message n, which the ring has.
func (r *ring) at(n uint32) *engine.Message { return &r.messages[n%uint32(len(r.messages))] }

// forget drops the messages before to.
func (r *ring) forget(to uint32) {
	for ; r.first != to; r.first++ {
		*r.at(r.first) = engine.Message{}
	}
	if r.first == r.next && len(r.messages) > ringKeep {
		r.messages = nil
	}
}
