package relay

import (
	"errors"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
)

// How a pair ends, and what the other side hears of it:
//
//	the client closes with a code      backend: the same code and reason; none: an empty close frame
//	the gateway closes the client      backend: 1001 and our reason: who it talked to goes away, and it did nothing wrong
//	the client's connection breaks     backend: 1001, after whole messages only: in a half one, the end of the connection
//	the backend closes with a code     client: the same code and reason; none: an empty close frame (1005 is not for the wire)
//	the backend's connection breaks    client: 4502
//	the backend breaks a rule          client: 4502; backend: the rule's code
//	the backend does not read          client: 4504
//
// Whoever ends first sets the row to closing, so each side is told once, and what the other does then is not looked at.

// end marks the pair as over.
func (r *Relay) end(w *row) {
	w.state = stateClosing
	r.targets[w.target].open.Add(-1)
}

// Gone implements engine.Stream: the client has left.
func (r *Relay) Gone(c engine.Conn, how engine.End) {
	l, id := c.Loop(), reactor.ID(c.Word())
	if id == 0 || !l.Alive(id) {
		return
	}
	switch w := r.rows.At(id.Slot()); w.state {
	case stateDialing, stateHead:
		r.leaveJoining(l, id, w, resultLeft)
		w.state = stateClosing
		l.Abort(id)
	case stateOpen:
		code, reason := parting(how)
		r.hangUp(l, id, w, code, reason)
	}
}

// parting is what the backend hears when the client leaves.
func parting(how engine.End) (frame.Code, string) {
	switch how.By {
	case engine.ByClient:
		return how.Code, how.Reason
	case engine.ByGateway:
		return frame.CloseGoingAway, how.Reason
	default: // what the network did is no text for a peer
		return frame.CloseGoingAway, ""
	}
}

// hangUp ends the backend's side behind what is queued for it. Inside a frame there is no place for a close frame: then
// the end of the connection tells (1006). It is not cut with RST, which could destroy whole messages not yet read.
func (r *Relay) hangUp(l *reactor.Loop, id reactor.ID, w *row, code frame.Code, reason string) {
	r.end(w)
	if w.flags&flagMidway == 0 {
		n := r.lane(l)
		n.scratch = frame.AppendCloseMasked(n.scratch[:0], code, reason, n.mask())
		_ = l.WriteLast(id, n.scratch) // a backend that is gone does not miss it
	}
	l.Close(id)
}

// backendClosed passes the backend's close frame on and answers it (RFC 6455 section 5.5.1).
func (r *Relay) backendClosed(l *reactor.Loop, id reactor.ID, w *row, c engine.Conn, ev *frame.Event) {
	reason := string(ev.Payload)
	r.hangUp(l, id, w, ev.Code, "")
	c.Close(ev.Code, reason, engine.ByBackend)
}

// violated ends the pair because the backend broke a rule of the framing, or of the limits on its messages.
func (r *Relay) violated(l *reactor.Loop, id reactor.ID, w *row, c engine.Conn, err error) {
	code := frame.CloseProtocol
	if v, ok := errors.AsType[*frame.Error](err); ok {
		code = v.Code
	}
	r.hangUp(l, id, w, code, "")
	c.Close(frame.CloseBackend, frame.CloseBackend.Reason(), engine.ByBackend)
}

// stuck ends the pair because the backend does not take what the client sends, and the queue is full: its own, or the node's.
func (r *Relay) stuck(l *reactor.Loop, id reactor.ID, w *row, c engine.Conn, code frame.Code, by engine.By) {
	r.end(w)
	l.Abort(id)
	c.Close(code, code.Reason(), by)
}

// lost tells the client that the backend's connection has broken; w is what its row was.
func (r *Relay) lost(l *reactor.Loop, w *row, why reactor.Cause) {
	r.end(w)
	code, by := frame.CloseBackend, engine.ByBackend
	switch why {
	case reactor.CauseStalled:
		code = frame.CloseBackendTimeout
	case reactor.CauseSlow: // the node's memory for queues is used up
		code, by = frame.CloseOverloaded, engine.ByGateway
	case reactor.CauseFault:
		code, by = frame.CloseFault, engine.ByGateway
	case reactor.CauseStop:
		code, by = frame.CloseDrain, engine.ByGateway
	}
	r.engine.ConnOf(l, w.client).Close(code, code.Reason(), by)
}
