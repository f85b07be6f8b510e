package engine

import (
	"errors"
	"strconv"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/limiter"
)

// allowOut asks the plan for a message to the client, at its first frame and at each further one.
func (w *worker) allowOut(id reactor.ID, s *session, first bool, n int64) Outbound {
	if s.flow != 0 && w.flows.At(s.flow).late != 0 {
		switch {
		case s.flags&flagLate != 0 && !first: // of a message that waits, and has been asked for as a whole
			return Outbound{Sent: SentOK}
		case first && w.waits(s, limiter.Out):
			return w.lateOut(id, s, w.plan(s), n, nil)
		}
	}
	if w.passes(s, limiter.Out, first, n) {
		w.passed(s, first, n)
		return Outbound{Sent: SentOK}
	}
	plan := w.plan(s)
	if messages, bytes, _ := plan.Sees(limiter.Out); messages || bytes {
		var v limiter.Verdict
		if first && plan.Holds(limiter.Out) {
			v = w.askLate(s, plan, limiter.Out, n)
		} else {
			v = plan.Message(&w.flow(s).limits, w.e.o.Table, limiter.Out, first, n, w.l.Now())
		}
		plan.Tally(w.stats.limits[s.plan], limiter.Out, first, v)
		switch v.Action {
		case limiter.Close:
			w.end(id, s, frame.CloseLimit, v.Limit.Reason, ByGateway)
			return Outbound{Sent: SentGone}
		case limiter.Drop:
			if s.flags&flagDropOut == 0 { // one notice for a run of them: more would take the room that the limit denies
				s.flags |= flagDropOut
				w.notice(id, s, v)
			}
			return Outbound{Sent: SentDrop}
		case limiter.Delay, limiter.Hold, limiter.DropOldest:
			return w.lateOut(id, s, plan, n, &v)
		case limiter.Pause:
			w.passed(s, first, n)
			w.stopOut(id, s, v.Wait)
			return Outbound{Sent: SentHold, Wait: v.Wait}
		}
	}
	w.passed(s, first, n)
	return Outbound{Sent: SentOK}
}

// passed notes what the limits have let through to the client.
func (w *worker) passed(s *session, first bool, n int64) {
	s.flags &^= flagDropOut
	s.last = tickOf(w.l.Now())
	w.count(s, limiter.Out, first, n)
}

// sendOwn queues a frame of the gateway itself; it passes no limit but the queue's.
func (w *worker) sendOwn(id reactor.ID, s *session, op frame.Op, b []byte) {
	w.scratch = frame.Append(w.scratch[:0], frame.Header{Fin: true, Op: op, Len: int64(len(b))})
	w.scratch = append(w.scratch, b...)
	if err := w.l.Write(id, w.scratch); err != nil {
		w.slow(id, s, err)
	}
}

// missed tells a client that asked for notices how many messages it has not got.
func (w *worker) missed(id reactor.ID, s *session, n uint32) {
	w.stats.trimmed(s.stream)
	if s.flags&flagNotices != 0 {
		w.text = append(strconv.AppendUint(append(w.text[:0], `{"$tg":"gap","missed":`...), uint64(n), 10), '}')
		w.sendOwn(id, s, frame.Text, w.text)
	}
}

// slow ends a socket whose queue is full: the client does not read.
func (w *worker) slow(id reactor.ID, s *session, err error) {
	if !errors.Is(err, reactor.ErrSlow) || s == nil || s.state != stateOpen {
		return
	}
	w.stats.slow(s.stream)
	w.end(id, s, frame.CloseSlow, "", ByGateway)
}

// pause stops reading for one more reason. What the client cannot do meanwhile is not asked of it: the clocks of a message
// under way, of idleness and of a pong stand until resume.
func (w *worker) pause(id reactor.ID, s *session, by flags) {
	if s.flags&flagsPaused == 0 {
		w.l.Pause(id)
		if by := w.messageBy(s); by != 0 {
			w.messages.At(s.side).by = tick(max(1, by.since(tickOf(w.l.Now()))/time.Millisecond))
		}
	}
	s.flags |= by
}

// resume takes one reason back; when none is left, the loop brings what waited.
func (w *worker) resume(id reactor.ID, s *session, by flags) {
	if s.flags&by == 0 {
		return
	}
	if s.flags &^= by; s.flags&flagsPaused != 0 {
		return
	}
	now := tickOf(w.l.Now())
	if s.side != 0 {
		if m := w.messages.At(s.side); m.by != 0 {
			m.by = max(m.by+now, 1)
		}
		w.assembly(id, s)
	}
	s.last = now
	if s.flags&flagPinged != 0 {
		s.pingAt = s.pingAt.later(w.pongBy(now))
	}
	w.rearm(id, s)
	w.l.Resume(id)
}
