package engine

import (
	"math/bits"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/limiter"
)

// lateTurn is how long a message may go on behind a turn that comes after its time.
const lateTurn = time.Second

// due is the next moment at which time alone changes s; 0: never.
func (w *worker) due(s *session) tick {
	d := &w.e.o.Deadlines
	switch s.state {
	case stateProxy, stateTLS:
		if w.e.secure != nil {
			return s.opened.after(d.TLS)
		}
		return s.opened.after(d.Head)
	case stateHead:
		return s.last.after(d.Head).sooner(s.opened.after(d.Admit))
	case stateAsked, stateJoining:
		return s.opened.after(d.Admit)
	case stateOpen:
	default:
		return 0
	}
	next := s.endAt.sooner(s.pingAt)
	if s.flow != 0 {
		if resume := w.resumeAt(s); resume != 0 {
			next = next.sooner(resume)
		}
		if late := w.lateAt(s); late != 0 {
			next = next.sooner(late)
		}
	}
	if s.flags&flagsPaused != 0 {
		return next
	}
	if by := w.messageBy(s); by != 0 {
		next = next.sooner(by)
	}
	if d.Idle > 0 {
		next = next.sooner(s.last.after(d.Idle))
	}
	return next
}

// rearm sets the socket's one timer if s is due before it. A timer that comes too early costs one look; it is never moved
// back for traffic.
func (w *worker) rearm(id reactor.ID, s *session) {
	d := w.due(s)
	if d != 0 && (s.armed == 0 || !s.armed.passed(d)) {
		s.armed = d
		w.l.Arm(id, d.time(w.l.Now()))
	}
}

// timer does all that has fallen due.
func (w *worker) timer(id reactor.ID, s *session) {
	s.armed = 0
	now := tickOf(w.l.Now())
	switch late := w.due(s).passed(now); s.state {
	case stateProxy:
		if late {
			w.turnAway(id, awayProxyLate)
		}
	case stateTLS:
		if late {
			w.turnAway(id, awayTLSLate)
		}
	case stateHead:
		if late {
			w.refuse(id, s, errHeadLate)
		}
	case stateAsked:
		if late {
			w.refuse(id, s, ErrStore)
		}
	case stateJoining:
		if late {
			w.refuse(id, s, ErrBackendTimeout)
		}
	case stateOpen:
		if w.lost(s) {
			w.lostTimer(id, s)
			return
		}
		w.openTimer(id, s, now)
	}
	if s.state != stateClosing {
		w.rearm(id, s)
	}
}

func (w *worker) openTimer(id reactor.ID, s *session, now tick) {
	idle, by := w.e.o.Deadlines.Idle, w.messageBy(s)
	switch {
	case s.endAt.passed(now):
		w.end(id, s, s.endCode, "", ByGateway)
		return
	case s.flags&flagsPaused != 0:
	case w.l.Yielded(id): // the delay is ours: what it has sent may lie in the kernel, unread
		s.last = now
		if by != 0 {
			w.messages.At(s.side).by = by.later(now.after(lateTurn))
		}
	case by != 0 && by.passed(now):
		w.end(id, s, frame.ClosePolicy, "guard:frame.assembly", ByGateway)
		return
	case idle > 0 && s.last.after(idle).passed(now):
		w.end(id, s, frame.CloseIdle, "", ByGateway)
		return
	}
	if resume := w.resumeAt(s); resume != 0 && resume.passed(now) {
		w.flow(s).resume = 0
		if q := w.queue(s, limiter.In); q == nil || !q.stopped {
			w.resume(id, s, pauseLimit)
		}
	}
	if late := w.lateAt(s); late != 0 && late.passed(now) {
		if w.lates(id, s, now); s.state != stateOpen {
			return
		}
	}
	if s.pingAt.passed(now) {
		w.ping(id, s, now)
	}
}

// pingGrid is 1/8 to 1/16 of the time between pings: the moments of pings are rounded down to it, those at which a pong must
// have come up. What is due within two seconds (of 25 s) goes out together, the other sockets taking turns with it, and a loop with
// nothing else to do sleeps between: every wake costs as much as the pings of 50 sockets.
func (e *Engine) pingGrid() tick {
	return tick(1) << max(bits.Len64(uint64(e.o.Deadlines.Ping/time.Millisecond/8))-1, 0)
}

// nextPing is when a socket is asked for a sign of life that was not asked for d.
func (w *worker) nextPing(now tick, d time.Duration) tick {
	return max(now.after(d)&^(w.e.pingGrid()-1), 1)
}

// together is how many sockets that were opened one behind the other are pinged at the same moments: the kernel's memory of them lies
// side by side, so it is found faster.
const together = 64

// firstPing is when a socket that has just been opened is asked for a sign of life: up to a fifth before its time.
func (w *worker) firstPing(now tick) tick {
	if w.opened%together == 0 {
		d := w.e.o.Deadlines.Ping
		grid := time.Duration(w.e.pingGrid()) * time.Millisecond // of which nextPing takes up to one
		w.pinging = d - time.Duration(w.rnd.Int64N(max(int64(d/5-grid), 0)+1))
	}
	w.opened++
	return w.nextPing(now, w.pinging)
}

// pongBy is when the answer must have come.
func (w *worker) pongBy(now tick) tick {
	grid := w.e.pingGrid()
	return max((now.after(w.e.o.Deadlines.PongWait)+grid-1)&^(grid-1), 1)
}

// ping asks whether the client is still there, or gives it up.
func (w *worker) ping(id reactor.ID, s *session, now tick) {
	if s.flags&flagPinged != 0 {
		// While we do not read we cannot hear; and a client that has not taken what was sent before the ping cannot answer it.
		if s.flags&flagHeard == 0 && s.flags&flagsPaused == 0 && !w.l.Yielded(id) && !w.l.Blocked(id) {
			end := End{By: ByNetwork, Reason: "no pong"}
			s.state = stateClosing
			w.leave(id, s, end)
			w.closed(id, s, end)
			w.l.Abort(id)
			return
		}
		w.pingAgain(s)
		return
	}
	s.pingAt = w.pongBy(now)
	w.rest(s)
	if w.l.Flush(id) > 0 { // what this round has just written does not wait
		return // whether the client is there shows in the queue: the reactor ends what makes no progress
	}
	s.flags = s.flags&^flagHeard | flagPinged
	w.sendOwn(id, s, frame.Ping, nil)
}

// pingAgain sets the next ping of a client that is there: as long after it had to show that as the first one, which was spread,
// so that sockets stay apart.
func (w *worker) pingAgain(s *session) {
	d := &w.e.o.Deadlines
	s.flags &^= flagPinged
	s.pingAt = w.nextPing(s.pingAt, d.Ping-d.PongWait)
}

// answered takes a pong that was asked for. The timer, which was to look for it, moves on to what comes next while the socket is
// in the processor's caches.
func (w *worker) answered(id reactor.ID, s *session) {
	w.pingAgain(s)
	s.armed = w.due(s)
	w.l.Move(id, s.armed.time(w.l.Now()))
}
