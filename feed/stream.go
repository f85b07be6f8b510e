package feed

import (
	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
)

// Slow is the rule for readers that do not keep up.
type Slow struct {
	Queue int // bytes of messages that may wait for a reader, each with 64 more; the newest message may always wait
	Then  Then
}

// Then is what becomes of a reader for which more would wait. Whatever it is, the reactor ends a socket that takes nothing at
// all for 10 s.
type Then uint8

// What may become of a slow reader.
const (
	Close      Then = iota // it is closed with 4440
	DropOldest             // it goes on with the oldest message that may wait
	LatestOnly             // it goes on with the newest message
)

// A Stream is a topic as the sockets of one configured stream see it: an engine.Stream.
type Stream struct {
	hub   *Hub
	index int // among the hub's streams
	slow  Slow
}

var _ engine.Stream = (*Stream)(nil)

// A group is the readers of a stream on one loop: 12 bytes a reader, no pointers in them. A socket's word is its place plus 1.
//
//	ids   0 ........ live ........ len
//	       keep up    | are behind: at says which message each needs next
type group struct {
	ids  []reactor.ID
	at   []uint32
	live int

	oldest uint32 // message that may still wait for a reader
	bytes  int    // from there to the newest
}

// Join implements engine.Stream: c becomes a reader.
func (s *Stream) Join(c engine.Conn, _ *engine.Join) {
	p := s.hub.parts[c.Loop().Index()]
	g := &p.groups[s.index]
	g.ids, g.at = append(g.ids, c.ID()), append(g.at, 0)
	c.SetWord(uint64(len(g.ids)))
	g.swap(c, len(g.ids)-1, g.live)
	g.live++
	p.count.Add(1)
	c.Accept(nil)
	if s.hub.subscribers.Add(1) == 1 {
		s.hub.busy()
	}
}

// Receive implements engine.Stream. What clients send to a topic has no meaning; a stream entry with MayNot refuses it.
func (s *Stream) Receive(engine.Conn, *frame.Event) {}

// Gone implements engine.Stream: another reader takes c's place.
func (s *Stream) Gone(c engine.Conn, _ engine.End) {
	place := int(c.Word()) - 1
	if place < 0 {
		return
	}
	p := s.hub.parts[c.Loop().Index()]
	g := &p.groups[s.index]
	if place < g.live {
		g.live--
		g.swap(c, place, g.live)
		place = g.live
	}
	last := len(g.ids) - 1
	g.swap(c, place, last)
	g.ids, g.at = g.ids[:last], g.at[:last]
	c.SetWord(0)
	p.count.Add(-1)
	s.hub.subscribers.Add(-1)
}

// swap lets two readers change places. c is any socket of the loop.
func (g *group) swap(c engine.Conn, i, j int) {
	g.ids[i], g.ids[j] = g.ids[j], g.ids[i]
	g.at[i], g.at[j] = g.at[j], g.at[i]
	c.At(g.ids[i]).SetWord(uint64(i + 1))
	c.At(g.ids[j]).SetWord(uint64(j + 1))
}

// deliver sends message n, the ring's newest, to the readers that keep up. Readers are gone through from the last to the
// first: in the place of one that leaves meanwhile stands one that has been served.
func (s *Stream) deliver(l *reactor.Loop, g *group, r *ring, n uint32) {
	s.admit(g, r, n)
	if s.slow.Then == Close {
		for i := len(g.ids) - 1; i >= g.live; i-- {
			if before(g.at[i], g.oldest) {
				s.hub.engine.ConnOf(l, g.ids[i]).Slow()
			}
		}
	}
	m := r.at(n)
	for i := g.live - 1; i >= 0; i-- {
		c := s.hub.engine.ConnOf(l, g.ids[i])
		if c.Blocked() {
			g.live--
			g.at[i] = n
			g.swap(c, i, g.live)
			continue
		}
		c.SendMessage(m)
	}
	if g.live == len(g.ids) { // nobody waits for anything
		g.oldest, g.bytes = r.next, 0
	}
}

// admit adds message n to what may wait, and takes the oldest away that no longer may.
func (s *Stream) admit(g *group, r *ring, n uint32) {
	for g.bytes += size(r.at(n)); g.bytes > s.slow.Queue && g.oldest != n; g.oldest++ {
		g.bytes -= size(r.at(g.oldest))
	}
}

// before reports whether message a is older than b.
func before(a, b uint32) bool { return int32(a-b) < 0 }

// Drained implements engine.Stream: c has taken what it was sent, and gets what has come meanwhile.
func (s *Stream) Drained(c engine.Conn) {
	p := s.hub.parts[c.Loop().Index()]
	g := &p.groups[s.index]
	place := int(c.Word()) - 1
	if place < g.live {
		return
	}
	if missed := g.jump(place, s.slow.Then, p.ring.next); missed > 0 {
		c.Missed(missed)
	}
	for c.Open() && !c.Blocked() {
		if g.at[place] == p.ring.next { // it keeps up again
			g.swap(c, place, g.live)
			g.live++
			return
		}
		m := p.ring.at(g.at[place])
		g.at[place]++ // c may be gone behind the next line, and its place another's
		c.SendMessage(m)
	}
}

// jump moves a reader whose next message may no longer wait, and returns how many it misses.
func (g *group) jump(place int, then Then, next uint32) (missed uint32) {
	if !before(g.at[place], g.oldest) {
		return 0
	}
	to := g.oldest
	if then == LatestOnly {
		to = next - 1
	}
	missed = to - g.at[place]
	g.at[place] = to
	return missed
}
