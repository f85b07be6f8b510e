package engine

import (
	"time"

	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
)

// The node holds its sockets' slots by a lease. When that is over others may have them, so the sockets that it had let in are
// lost: each carries the number of its life (session.life), and is lost at once, all of them together, when the loop learns of
// another. In the order of this file:
//
//	look     before anything is done for a socket: is it still the same life?
//	shed     goes through the sockets, so many a round, and spreads the ends of those that are lost
//	lose     1013, if the client takes it at once; else RST
//
// What a lost socket sends is not looked at, and nothing is sent to it but the close frame. The node gives its lease up 2 s
// early (store/node): lostOver and lostLinger together are half of it, the rest is for a loop that is late.
const (
	lostOver   = 450 * time.Millisecond // the ends are spread over it; a timer is up to 40 ms late
	lostLinger = 450 * time.Millisecond // what a client has not taken then of the close frame, and what was before it, is cut off
	shedSlots  = 4096                   // looked at in one round: 0.1 to 0.3 ms
)

// turn is reactor.Options.Turn.
func (e *Engine) turn() func(*reactor.Loop) bool {
	if e.o.Life == nil {
		return nil
	}
	return func(l *reactor.Loop) bool { return e.workers[l.Index()].look(l) }
}

// look asks for the node's life, and reports whether one has ended. It is called inside of other callbacks too, so it ends no
// socket itself.
func (w *worker) look(l *reactor.Loop) (lost bool) {
	g := w.e.o.Life(l.Now())
	if len(w.owed) > 0 && w.owed[0].by <= l.Now() && w.stray(l.Now()) {
		lost = true
		w.hunt(l)
	}
	if g == w.life {
		return lost
	}
	if w.life != 0 {
		lost = true
		w.hunt(l)
	}
	w.life = g
	return lost
}

// hunt has shed go through all sockets, from now on.
func (w *worker) hunt(l *reactor.Loop) {
	if w.shedFrom == 0 {
		w.lostAt = l.Now()
	}
	w.shedFrom = 0
	l.Again()
}

// lost says that s was let in in a life that is over: its slot may be another's. A socket that has no slot has no life either.
func (w *worker) lost(s *session) bool { return s.life != lifeOf(w.life) && s.life != 0 }

// lifeOf is a life as a session keeps it: 1 to 254, again and again, so never strayLife. A lost socket is gone after a second, in which
// nobody loses his lease 253 times.
func lifeOf(g uint32) uint8 {
	if g == 0 {
		return 0
	}
	return uint8((g-1)%(uint32(strayLife)-1)) + 1
}

// shed looks at some slots, and comes again if there are more.
func (w *worker) shed() {
	w.shedFrom = w.l.EachFrom(w.shedFrom, shedSlots, w.shedOne)
	if w.shedFrom != 0 {
		w.l.Again()
	}
}

// shedOne gives a lost socket its end: a moment of the half second that begins when it was lost.
func (w *worker) shedOne(id reactor.ID) {
	s := w.e.rows.At(id.Slot())
	if !w.lost(s) {
		return
	}
	switch s.state {
	case stateJoining:
		w.refuse(id, s, ErrOverloaded)
	case stateOpen:
		if at := w.lostAt.Add(w.within(lostOver)); at > w.l.Now() {
			s.endAt = s.endAt.sooner(tickAt(at))
			w.awaitEnd(id, s)
			return
		}
		w.lose(id, s)
	case stateClosing:
		if w.l.Queued(id) > 0 {
			w.l.Abort(id)
		}
	}
}

// awaitEnd lets time do nothing to a lost socket but end it. Until shed has seen it that is its session's end.
func (w *worker) awaitEnd(id reactor.ID, s *session) {
	s.armed = s.endAt
	w.l.Move(id, s.endAt.time(w.l.Now()))
}

// lostTimer is timer for a lost socket.
func (w *worker) lostTimer(id reactor.ID, s *session) {
	if s.endAt.passed(tickOf(w.l.Now())) {
		w.lose(id, s)
		return
	}
	w.awaitEnd(id, s)
}

// lose ends an open socket that is lost. What waits for its client must not go out, so a close frame cannot either.
func (w *worker) lose(id reactor.ID, s *session) {
	if w.l.Queued(id) > 0 || w.l.Blocked(id) {
		how := End{By: ByGateway, Code: frame.CloseOverloaded, Reason: frame.CloseOverloaded.Reason()}
		s.state = stateClosing
		w.leave(id, s, how)
		w.closed(id, s, how)
		w.l.Abort(id)
		return
	}
	s.life = 0 // the close frame may wait
	w.endWithin(id, s, lostLinger)
}
