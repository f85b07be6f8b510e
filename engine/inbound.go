package engine

import (
	"errors"
	"strconv"
	"time"

	"ticketgate/engine/deflate"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/internal/faults"
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
	reader := w.reader(s)
	t := w.begin(id, s, reader, in)
	n := w.eachFrame(id, s, reader, t.entry.rules(s), in)
	w.endTurn()
	return n
}

// turnFrames is how many frames one socket may have served before the others get their turn: a reading of 128 KiB can hold
// 20,000 of them, each of which may be a message that costs much more than its bytes.
const turnFrames = 1024

func (w *worker) eachFrame(id reactor.ID, s *session, reader *frame.Reader, rules *frame.Rules, in []byte) int {
	pos := 0
	for frames := 0; pos < len(in) && s.flags&flagsPaused == 0; frames++ {
		if frames >= turnFrames || w.turn.inflated > turnInflated || s.window() != deflate.NoWindow && w.inflatesLater(reader, in[pos:]) {
			w.l.Yield(id)
			break
		}
		if n, used := w.run(id, s, reader, rules, in[pos:]); n > 0 {
			pos += used
			frames += n - 1
			if s.state != stateOpen {
				return len(in)
			}
			continue
		}
		if rest := in[pos:]; w.l.ReadsOn(len(rest)) && reader.Partial(rest) {
			break // the rest of it follows at once: then it need not be put together elsewhere
		}
		ev := &w.found
		n, err := reader.Read(ev, rules, in[pos:])
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
	w.keepReader(id, s, reader)
	return pos
}

// reader returns the reader of the message under way, or a fresh one.
func (w *worker) reader(s *session) *frame.Reader {
	if s.side != 0 {
		return &w.messages.At(s.side).in
	}
	w.fresh = frame.Reader{}
	return &w.fresh
}

// keepReader keeps what r knows of a message under way, or forgets a message that is whole.
func (w *worker) keepReader(id reactor.ID, s *session, r *frame.Reader) {
	if !r.Open() {
		w.dropSide(s)
		return
	}
	if m := w.message(s); r != &m.in {
		m.in = *r
	}
	w.assembly(id, s)
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

// assembly starts the clock of a message under way. In a pause it stands: see pause.
func (w *worker) assembly(id reactor.ID, s *session) {
	if m := w.message(s); m.by == 0 && s.flags&flagsPaused == 0 {
		m.by = tickAt(w.l.Now()).after(w.e.o.Assembly)
		w.rearm(id, s)
	}
}

// data takes one part of a message. Text may turn out not to be UTF-8, and a message of several frames may break the rules
// of framing in a later one: those are passed on when they are whole, so that no byte of a bad message reaches a backend. A
// binary message of one frame can only be cut off; it is passed on as it arrives.
func (w *worker) data(id reactor.ID, s *session, ev *frame.Event) {
	if ev.First {
		faults.Point(faults.Message, ev.Payload)
	}
	t := &w.turn
	e, plan, whole := t.entry, t.plan, t.whole
	if e.MayNot {
		w.end(id, s, frame.CloseUnsupported, "", ByGateway)
		return
	}
	if ev.First && s.side != 0 {
		w.messages.At(s.side).by = 0 // the message before it came whole in the same read
	}
	if ev.Compressed {
		w.inflate(id, s, ev)
		return
	}
	if ev.Head && !whole && (t.messages || t.bytes) && s.flags&flagDropIn == 0 {
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
		w.count(s, limiter.In, ev.First, int64(len(ev.Payload)))
	}
	s.last = tickOf(w.l.Now())
	if mustBeWhole := ev.Op == frame.Text || ev.First && !ev.Fin || w.holding(s) || whole || e.Whole; mustBeWhole && !(ev.First && ev.Last) {
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
	m := w.message(s)
	had := int64(0)
	if m.hold == 0 {
		m.hold = w.holds.begin()
	} else {
		had = w.holds.charge(m.hold)
	}
	b := w.holds.add(m.hold, ev.Payload)
	switch {
	case w.e.held.Add(w.holds.charge(m.hold)-had) > w.e.holdMax.Load():
		w.end(id, s, frame.CloseOverloaded, "", ByGateway)
		return
	case !ev.Last:
		return
	}
	*ev = frame.Event{Kind: frame.KindData, Op: ev.Op, First: true, Last: true, Head: true, Tail: true, Fin: true,
		FrameLen: int64(len(b)), Payload: b}
	if _, _, sees := plan.Sees(limiter.In); !sees || w.allowWhole(id, s, plan, ev) {
		e.Stream.Receive(Conn{w, id}, ev)
	}
	w.dropHold(m)
}

// holding reports whether a part of the message under way is kept.
func (w *worker) holding(s *session) bool { return s.side != 0 && w.messages.At(s.side).hold != 0 }

// dropHold forgets what is kept of m.
func (w *worker) dropHold(m *message) {
	if m.hold == 0 {
		return
	}
	w.e.held.Add(-w.holds.charge(m.hold) - w.flate.end(m.hold))
	w.holds.end(m.hold)
	m.hold = 0
}

// allowWhole asks the limits for a message of which all is known, and reports whether it may pass.
func (w *worker) allowWhole(id reactor.ID, s *session, plan *limiter.Plan, ev *frame.Event) bool {
	if plan.Holds(limiter.In) {
		return w.allowLate(id, s, plan, ev)
	}
	w.allowIn(id, s, plan, true, ev.FrameLen)
	pass := s.state == stateOpen && s.flags&flagDropIn == 0
	s.flags &^= flagDropIn
	if pass {
		w.count(s, limiter.In, true, ev.FrameLen)
	}
	return pass
}

// allowIn asks the plan for a message from the client and does what it says.
func (w *worker) allowIn(id reactor.ID, s *session, plan *limiter.Plan, first bool, n int64) {
	if w.passes(s, limiter.In, first, n) {
		return
	}
	v := plan.Message(&w.flow(s).limits, w.e.o.Table, limiter.In, first, n, w.l.Now())
	plan.Tally(w.stats.limits[s.plan], limiter.In, first, v)
	switch v.Action {
	case limiter.Close:
		w.end(id, s, frame.CloseLimit, v.Limit.Reason, ByGateway)
	case limiter.Drop:
		s.flags |= flagDropIn
		w.notice(id, s, v)
	case limiter.Pause:
		w.pauseFor(id, s, v.Wait)
	}
}

// pauseFor stops reading for d, which a limit asks for.
func (w *worker) pauseFor(id reactor.ID, s *session, d time.Duration) {
	w.flow(s).resume = tickAt(w.l.Now()).after(d)
	w.pause(id, s, pauseLimit)
	w.rearm(id, s)
}

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
	if ev.Kind == frame.KindPong && s.flags&flagPinged != 0 {
		w.answered(id, s) // we asked for it: an idle client takes nothing from its limits
		return
	}
	if ok, _ := w.e.control.Take(&w.flow(s).control, w.l.Now(), 1); !ok {
		w.end(id, s, frame.CloseLimit, "limit:control", ByGateway)
		return
	}
	if ev.Kind == frame.KindPing {
		w.pong(id, s, ev.Payload)
	}
}

// pong answers a ping. While bytes wait for the client it is only noted: when all have gone the last ping is answered, and
// those before it are not (RFC 6455 5.5.3), so that never more than one pong waits.
func (w *worker) pong(id reactor.ID, s *session, payload []byte) {
	if w.l.Flush(id) == 0 {
		w.sendOwn(id, s, frame.Pong, payload)
		return
	}
	s.flags |= flagPong
	w.pongs[id.Slot()] = append(w.pongs[id.Slot()][:0], payload...)
}

// payPong answers the ping that was noted.
func (w *worker) payPong(id reactor.ID, s *session) {
	if s.flags&flagPong != 0 {
		payload := w.pongs[id.Slot()]
		w.dropPong(id, s)
		w.sendOwn(id, s, frame.Pong, payload)
	}
}

func (w *worker) dropPong(id reactor.ID, s *session) {
	if s.flags&flagPong != 0 {
		s.flags &^= flagPong
		delete(w.pongs, id.Slot())
	}
}
