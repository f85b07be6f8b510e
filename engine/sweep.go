package engine

import (
	"time"

	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/internal/mono"
)

// stoodStill is after how long without anything to do a loop takes it for possible that the process was stopped (SIGSTOP, a
// frozen machine, a debugger) and others have its sockets' slots by now. The node gives its lease up 2 s early.
const stoodStill = 500 * time.Millisecond

// lostOver spreads the ends of sockets that carry nothing any more.
const lostOver = time.Second

// leased is asked before a message is taken from a client or given to one. False: the node's slots may be others' by now, so
// all of the loop's sockets end without a message more: at once who sends one, the others within lostOver.
func (w *worker) leased() bool {
	now, ask := w.l.Now(), w.e.o.Leased
	if ask == nil {
		return true
	}
	if gap := now.Sub(w.looked); gap >= stoodStill || w.lost {
		was := w.lost
		if w.lost = !ask(); w.lost && !was {
			w.endAll(lostOver, frame.CloseOverloaded)
		}
	}
	w.looked = now
	return !w.lost
}

// due is the next moment at which time alone changes s; 0: never.
func (w *worker) due(s *session) mono.Time {
	switch s.state {
	case stateHead:
		return s.opened.Add(w.e.o.Deadlines.Head)
	case stateAsked, stateJoining:
		return s.opened.Add(w.e.o.Deadlines.Admit)
	case stateOpen:
	default:
		return 0
	}
	next := min(s.endAt, s.pingAt)
	if s.resume != 0 {
		next = min(next, s.resume)
	}
	if s.paused != 0 {
		return next
	}
	if s.asmBy != 0 {
		next = min(next, s.asmBy)
	}
	if idle := w.e.o.Deadlines.Idle; idle > 0 {
		next = min(next, s.last.Add(idle))
	}
	return next
}

// rearm sets the socket's one timer if s is due before it. A timer that comes too early costs one look; it is never moved
// back for traffic.
func (w *worker) rearm(id reactor.ID, s *session) {
	d := w.due(s)
	if d != 0 && (s.armed == 0 || d < s.armed) {
		s.armed = d
		w.l.Arm(id, d)
	}
}

// timer does all that has fallen due.
func (w *worker) timer(id reactor.ID, s *session) {
	s.armed = 0
	now := w.l.Now()
	switch s.state {
	case stateHead:
		if now >= w.due(s) {
			w.refuse(id, s, errHeadLate)
		}
	case stateAsked:
		if now >= w.due(s) {
			w.refuse(id, s, ErrStore)
		}
	case stateJoining:
		if now >= w.due(s) {
			w.refuse(id, s, ErrBackendTimeout)
		}
	case stateOpen:
		w.openTimer(id, s, now)
	}
	if s.state != stateClosing {
		w.rearm(id, s)
	}
}

func (w *worker) openTimer(id reactor.ID, s *session, now mono.Time) {
	switch idle := w.e.o.Deadlines.Idle; {
	case now >= s.endAt:
		w.end(id, s, s.endCode, "", ByGateway)
		return
	case s.paused != 0:
	case s.asmBy != 0 && now >= s.asmBy:
		w.end(id, s, frame.ClosePolicy, "guard:frame.assembly", ByGateway)
		return
	case idle > 0 && now >= s.last.Add(idle):
		w.end(id, s, frame.CloseIdle, "", ByGateway)
		return
	}
	if s.resume != 0 && now >= s.resume {
		s.resume = 0
		w.resume(id, s, pauseLimit)
	}
	if now >= s.pingAt {
		w.ping(id, s, now)
	}
}

// ping asks whether the client is still there, or gives it up.
func (w *worker) ping(id reactor.ID, s *session, now mono.Time) {
	d := &w.e.o.Deadlines
	if s.flags&flagPinged != 0 {
		if s.flags&flagHeard == 0 && s.paused == 0 { // while we do not read we cannot hear
			end := End{By: ByNetwork, Reason: "no pong"}
			s.state = stateClosing
			w.leave(id, s, end)
			w.closed(id, s, end)
			w.l.Abort(id)
			return
		}
		s.flags &^= flagPinged
		s.pingAt = now.Add(w.spread(d.Ping) - d.PongWait)
		return
	}
	s.pingAt = now.Add(d.PongWait)
	if w.l.Queued(id) > 0 {
		return // whether the client is there shows in the queue: the reactor ends what makes no progress
	}
	s.flags = s.flags&^flagHeard | flagPinged
	w.sendOwn(id, s, frame.Ping, nil)
}
