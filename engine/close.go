package engine

import (
	"fmt"
	"runtime/debug"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
)

// end sends a close frame and closes once it has gone out. The slot stays taken until the descriptor is closed: until the
// client has heard, its own count of its sockets must not pass the limit.
func (w *worker) end(id reactor.ID, s *session, code frame.Code, reason string, by By) {
	if s.state == stateJoining || s.state == stateAsked {
		w.refuse(id, s, refusalFor(code))
		return
	}
	if s.state != stateOpen {
		return
	}
	if w.lost(s) {
		w.lose(id, s)
		return
	}
	if reason == "" && by != ByBackend {
		reason = code.Reason()
	}
	w.lastWord(id, s, End{By: by, Code: code, Reason: reason})
	if losesRight(code) {
		w.l.CloseWithin(id, severAfter)
	} else {
		w.l.Close(id)
	}
	w.parted(id)
}

// endWithin ends a socket that is lost, with no more than d for the client to take it.
func (w *worker) endWithin(id reactor.ID, s *session, d time.Duration) {
	w.lastWord(id, s, End{By: ByGateway, Code: frame.CloseOverloaded, Reason: frame.CloseOverloaded.Reason()})
	w.l.EndWithin(id, d)
	w.parted(id)
}

// lastWord sends the close frame of how and tells everybody of the end.
func (w *worker) lastWord(id reactor.ID, s *session, how End) {
	s.state = stateClosing
	w.scratch = frame.AppendClose(w.scratch[:0], how.Code, how.Reason)
	_ = w.l.WriteLast(id, w.scratch) // a peer that is gone does not miss it
	w.leave(id, s, how)
	w.closed(id, s, how)
}

// severAfter is how long a socket that has lost its right may go on taking what was sent to it before. What it has not taken by then
// is dropped, here and in the kernel, and it gets RST: it does not read, so it would not hear the close frame either.
const severAfter = time.Second

// losesRight are the ends of those who may hear nothing more.
func losesRight(code frame.Code) bool {
	return code == frame.CloseExpired || code == frame.CloseRevoked || code == frame.CloseReplaced
}

// refusalFor is what a socket hears that is closed before its upgrade was answered.
func refusalFor(code frame.Code) *Refusal {
	switch code {
	case frame.CloseDrain:
		return ErrDraining
	case frame.CloseBackend:
		return ErrBackend
	case frame.CloseBackendTimeout:
		return ErrBackendTimeout
	case frame.CloseExpired:
		return errEnded
	case frame.CloseRevoked:
		return errRevoked
	default:
		return ErrOverloaded
	}
}

// peerClosed answers the client's close frame with its own code (RFC 6455 5.5.1) and closes.
func (w *worker) peerClosed(id reactor.ID, s *session, ev *frame.Event) {
	how := End{By: ByClient, Code: ev.Code, Reason: string(ev.Payload)}
	s.state = stateClosing
	w.scratch = frame.AppendClose(w.scratch[:0], ev.Code, "")
	_ = w.l.WriteLast(id, w.scratch)
	w.leave(id, s, how)
	w.closed(id, s, how)
	w.releaseSlot(s) // for the client it is closed: it may want the slot again before its FIN is here
	w.l.Close(id)
	w.parted(id)
}

// leave tells the stream and frees what the session shares with others, once; the slot and the names are kept until the
// descriptor is closed.
func (w *worker) leave(id reactor.ID, s *session, end End) {
	delete(w.waiting, id.Slot())
	if s.flags&flagClient != 0 {
		s.flags &^= flagClient
		w.e.clients.Add(-1)
	}
	w.unseat(id, s)
	w.dropPong(id, s)
	w.dropSide(s)
	if w.turn.id == id {
		w.endTurn() // before its buckets go
	}
	if s.flow != 0 {
		w.dropLate(s)
		w.plan(s).Unbind(&w.flow(s).limits, w.e.o.Table)
		w.flows.Put(s.flow)
		s.flow = 0
	}
	if s.flags&flagJoined != 0 {
		s.flags &^= flagJoined
		w.gone(Conn{w, id}, w.entry(s).Stream, end)
	}
}

// gone tells the stream. A panic in it stops here: sockets end in the middle of work that concerns others too.
func (w *worker) gone(c Conn, to Stream, end End) {
	defer func() {
		if v := recover(); v != nil {
			w.stats.panics.Add(1)
			w.e.log("engine: a stream panicked", "where", "gone", "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
		}
	}()
	to.Gone(c, end)
}

// endAll closes every open socket of the loop with code at a random moment within over, evenly spread, and refuses those
// that are not open yet.
func (w *worker) endAll(over time.Duration, code frame.Code) {
	now := tickOf(w.l.Now())
	w.l.Each(func(id reactor.ID) {
		s := w.e.rows.At(id.Slot())
		switch s.state {
		case stateOpen:
			s.endAt, s.endCode = s.endAt.sooner(now.after(w.within(over))), code
			w.rearm(id, s)
		case stateAsked, stateJoining:
			w.refuse(id, s, refusalFor(code))
		}
	})
}

// within is a random part of d.
func (w *worker) within(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(w.rnd.Int64N(int64(d)))
}

// closed counts and tells the end of an open socket, which its stream has heard of already.
func (w *worker) closed(id reactor.ID, s *session, how End) {
	w.stats.closed(w.entry(s).Name, s.stream, how, tickOf(w.l.Now()).since(s.opened))
	ev := Event{Kind: EventClosed, Code: how.Code, By: how.By}
	if how.By != ByClient {
		ev.Reason = how.Reason // a client's reason is its own text and stays out of our log
	}
	w.event(id, s, ev)
}

// event tells the log what happened to s.
func (w *worker) event(id reactor.ID, s *session, ev Event) {
	if w.e.o.Event == nil {
		return
	}
	ev.Conn = w.e.connName(id)
	ev.Peer = w.l.Peer(id).Addr()
	if s.who != 0 {
		ev.Client, ev.Stream = w.e.names.client(s.who), w.entry(s).Name
	}
	w.e.o.Event(ev)
}
