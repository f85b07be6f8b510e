package engine

import (
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/internal/mono"
)

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
	if s.asmBy != 0 {
		next = min(next, s.asmBy)
	}
	if s.resume != 0 {
		next = min(next, s.resume)
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
			w.closed(id, s, end)
			s.state = stateClosing
			w.leave(id, s, end)
			w.l.Abort(id)
			return
		}
		s.flags &^= flagPinged
		s.pingAt = now.Add(w.spread(d.Ping) - d.PongWait)
		return
	}
	s.flags = s.flags&^flagHeard | flagPinged
	s.pingAt = now.Add(d.PongWait)
	if w.l.Queued(id) == 0 { // behind a full queue a ping tells nothing that the queue does not
		w.sendOwn(id, s, frame.Ping, nil)
	}
}
