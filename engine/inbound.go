package engine

import (
	"errors"
	"strconv"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/limiter"
)

// Inbound, in the order of this file:
//
//	frames    what one read brought, frame by frame, in place
//	data      limits at each frame's head > hold what must be whole > Stream.Receive
//	control   budget > pong, or the end of the close handshake

// frames takes all whole frames, and the parts of unfinished ones, out of in.
func (w *worker) frames(id reactor.ID, s *session, in []byte) int {
	s.flags |= flagHeard
	w.behind = w.l.Queued(id) > 0
	if !w.behind {
		s.flags &^= flagPong
	}
	rules := w.entry(s).Rules
	pos := 0
	for pos < len(in) && s.paused == 0 {
		ev := &w.found
		var n int
		var err error
		*ev, n, err = s.in.Next(rules, in[pos:])
		if err != nil {
			w.violation(id, s, err)
			return len(in)
		}
		if n == 0 {
			break
		}
		pos += n
		if ev.Kind == frame.KindData {
			w.data(id, s, ev)
		} else {
			w.controlFrame(id, s, ev)
		}
		if s.state != stateOpen {
			return len(in)
		}
	}
	w.assembly(id, s)
	return pos
}

// violation closes for a broken rule of the framing.
func (w *worker) violation(id reactor.ID, s *session, err error) {
	code, reason := frame.CloseProtocol, ""
	if v, ok := errors.AsType[*frame.Error](err); ok {
		code = v.Code
		if code == frame.ClosePolicy {
			reason = v.Rule
		}
	}
	w.end(id, s, code, reason, ByGateway)
}

// assembly starts or ends the clock of a message under way. In a pause it stands: see pause.
func (w *worker) assembly(id reactor.ID, s *session) {
	switch open := s.in.Open(); {
	case open && s.asmBy == 0 && s.paused == 0:
		s.asmBy = w.l.Now().Add(w.e.o.Assembly)
		w.rearm(id, s)
	case !open:
		s.asmBy = 0
	}
}

// data takes one part of a message. Text may turn out not to be UTF-8, and a message of several frames may break the rules
// of framing in a later one: those are passed on when they are whole, so that no byte of a bad message reaches a backend. A
// binary message of one frame can only be cut off; it is passed on as it arrives.
func (w *worker) data(id reactor.ID, s *session, ev *frame.Event) {
	e := w.entry(s)
	if e.MayNot {
		w.end(id, s, frame.CloseUnsupported, "", ByGateway)
		return
	}
	if ev.First {
		s.asmBy = 0 // the message before it came whole in the same read
	}
	plan := w.plan(s)
	messages, bytes, whole := plan.Sees(limiter.In)
	if ev.Head && !whole && (messages || bytes) && s.flags&flagDropIn == 0 {
		w.allowIn(id, s, plan, ev.First, ev.FrameLen)
	}
	if s.state != stateOpen {
		return
	}
	if s.flags&flagDropIn != 0 {
		if ev.Last {
			s.flags &^= flagDropIn
		}
		return
	}
	if !whole {
		w.stats.in(s.stream, ev.First, len(ev.Payload))
	}
	s.last = w.l.Now()
	if mustBeWhole := ev.Op == frame.Text || ev.First && !ev.Fin || s.hold != 0 || whole || e.Whole; mustBeWhole && !(ev.First && ev.Last) {
		w.keep(id, s, e, plan, ev)
		return
	}
	if whole && !w.allowWhole(id, s, plan, ev) {
		return
	}
	e.Stream.Receive(Conn{w, id}, ev)
}

// keep gathers a message that must be whole, and passes it on when it is. Its size is bounded by the reader's rules.
func (w *worker) keep(id reactor.ID, s *session, e *StreamEntry, plan *limiter.Plan, ev *frame.Event) {
	if s.hold == 0 {
		s.hold = w.holds.begin()
	}
	b := &w.holds.all[s.hold-1]
	if w.e.held.Add(int64(len(ev.Payload))) > w.e.o.HoldMax {
		*b = append(*b, ev.Payload...) // dropHold gives back what is in the buffer
		w.end(id, s, frame.CloseOverloaded, "", ByGateway)
		return
	}
	*b = append(*b, ev.Payload...)
	if !ev.Last {
		return
	}
	ev.First, ev.Head, ev.Tail, ev.Fin = true, true, true, true
	ev.Payload, ev.FrameLen = *b, int64(len(*b))
	if _, _, sees := plan.Sees(limiter.In); !sees || w.allowWhole(id, s, plan, ev) {
		e.Stream.Receive(Conn{w, id}, ev)
	}
	w.dropHold(s)
}

// dropHold forgets the message under way.
func (w *worker) dropHold(s *session) {
	if s.hold == 0 {
		return
	}
	w.e.held.Add(-int64(len(w.holds.all[s.hold-1])))
	w.holds.end(s.hold)
	s.hold = 0
}

// allowWhole asks the limits for a message of which all is known, and reports whether it may pass.
func (w *worker) allowWhole(id reactor.ID, s *session, plan *limiter.Plan, ev *frame.Event) bool {
	w.allowIn(id, s, plan, true, ev.FrameLen)
	pass := s.state == stateOpen && s.flags&flagDropIn == 0
	s.flags &^= flagDropIn
	if pass {
		w.stats.in(s.stream, true, int(ev.FrameLen))
	}
	return pass
}

// allowIn asks the plan for a message from the client and does what it says.
func (w *worker) allowIn(id reactor.ID, s *session, plan *limiter.Plan, first bool, n int64) {
	v := plan.Message(&s.limits, w.e.o.Table, limiter.In, first, n, w.l.Now())
	plan.Tally(w.stats.limits[s.plan], limiter.In, first, v)
	switch v.Action {
	case limiter.Close:
		w.end(id, s, frame.CloseLimit, v.Limit.Reason, ByGateway)
	case limiter.Drop:
		s.flags |= flagDropIn
		w.notice(id, s, v)
	case limiter.Pause:
		s.resume = w.l.Now().Add(min(v.Wait, pauseMax))
		w.pause(id, s, pauseLimit)
		w.rearm(id, s)
	}
}

// pauseMax is the longest that a limit stops reading at a time; it is longer than any session.
const pauseMax = 365 * 24 * time.Hour

// notice tells a client that asked for notices which limit dropped its message, and when to come again.
func (w *worker) notice(id reactor.ID, s *session, v limiter.Verdict) {
	if s.flags&flagNotices == 0 {
		return
	}
	b := append(w.text[:0], `{"$tg":"limit","name":"`...)
	b = append(b, v.Limit.Name...) // a limit's name needs no escaping: config allows letters, digits, - and _
	b = append(b, '"')
	if v.Wait != limiter.Never {
		b = append(b, `,"retry_after_ms":`...)
		b = strconv.AppendInt(b, v.Wait.Milliseconds()+1, 10) // rounded up: never too early
	}
	w.text = append(b, '}')
	w.sendOwn(id, s, frame.Text, w.text)
}

// controlFrame answers a ping, notes a pong, and ends with a close.
func (w *worker) controlFrame(id reactor.ID, s *session, ev *frame.Event) {
	if ev.Kind == frame.KindClose {
		w.peerClosed(id, s, ev)
		return
	}
	if ok, _ := w.e.control.Take(&s.control, w.l.Now(), 1); !ok {
		w.end(id, s, frame.CloseLimit, "limit:control", ByGateway)
		return
	}
	if ev.Kind != frame.KindPing || s.flags&flagPong != 0 {
		return // 5.5.3: when several pings wait, one answer is enough
	}
	w.sendOwn(id, s, frame.Pong, ev.Payload)
	if w.behind {
		s.flags |= flagPong
	}
}
