package relay

import (
	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
)

// backend is a Relay as the reactor sees it: the handler of its backend sockets.
type backend Relay

// Handler returns what engine.Options.Handlers gets at index Options.Kind - 1.
func (r *Relay) Handler() reactor.Handler { return (*backend)(r) }

// Open implements reactor.Handler.
func (b *backend) Open(l *reactor.Loop, id reactor.ID) {
	if w := b.rows.At(id.Slot()); w.state == stateDialing {
		(*Relay)(b).request(l, id, w)
	}
}

// Data implements reactor.Handler.
func (b *backend) Data(l *reactor.Loop, id reactor.ID, in []byte) int {
	switch w := b.rows.At(id.Slot()); w.state {
	case stateHead:
		return (*Relay)(b).answer(l, id, w, in)
	case stateOpen:
		return (*Relay)(b).frames(l, id, w, in)
	default:
		return len(in)
	}
}

// Drained implements reactor.Handler.
func (b *backend) Drained(l *reactor.Loop, id reactor.ID) {
	(*Relay)(b).release(l, b.rows.At(id.Slot()))
}

// Timer implements reactor.Handler: an attempt took too long.
func (b *backend) Timer(l *reactor.Loop, id reactor.ID) {
	switch w := b.rows.At(id.Slot()); w.state {
	case stateDialing, stateHead:
		(*Relay)(b).reject(l, id, w, resultTimeout, engine.ErrBackendTimeout)
	}
}

// Closed implements reactor.Handler.
func (b *backend) Closed(l *reactor.Loop, id reactor.ID, why reactor.Cause, _ error) {
	r, w := (*Relay)(b), b.rows.At(id.Slot())
	was := *w
	*w = row{}
	delete(r.lane(l).pongs, id.Slot())
	delete(r.lane(l).gathered, id.Slot())
	switch was.state {
	case stateDialing:
		r.undialled(l, id, &was)
	case stateHead:
		r.leaveJoining(l, id, &was, resultRejected)
		r.engine.ConnOf(l, was.client).Refuse(engine.ErrBackend)
	case stateOpen:
		r.lost(l, &was, why)
	}
}

// Fault implements reactor.Handler: a panic while the backend's side was served. The reactor closes its socket.
func (b *backend) Fault(l *reactor.Loop, id reactor.ID, _ any) {
	r, w := (*Relay)(b), b.rows.At(id.Slot())
	switch w.state {
	case stateDialing, stateHead:
		r.reject(l, id, w, resultRejected, engine.ErrFault)
	case stateOpen:
		r.end(w)
		r.engine.ConnOf(l, w.client).Close(frame.CloseFault, "", engine.ByGateway)
	}
}
