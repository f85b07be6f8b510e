package engine

import (
	"time"

	"ticketgate/engine/deflate"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/limiter"
)

// Conn is a stream's handle on one client socket: two words, copied freely. It is of use on the socket's loop only, and
// does nothing once the socket is gone.
type Conn struct {
	w  *worker
	id reactor.ID
}

// Sent is what became of a message to the client.
type Sent uint8

// What may become of a message.
const (
	SentOK   Sent = iota // queued or gone out
	SentHold             // taken, but a limit asks to stop the source until Drained, in about Outbound.Wait
	SentDrop             // a limit dropped it: pass none of its parts on
	SentGone             // the socket is closing or gone: nothing was taken
)

// Outbound is the verdict on a message to the client.
type Outbound struct {
	Sent Sent
	Wait time.Duration // SentHold only
}

// ID names the socket; also the key under which a stream may Arm nothing: the socket's timer belongs to the engine.
func (c Conn) ID() reactor.ID { return c.id }

// Loop is the loop on which both c and whatever the stream dials for it live.
func (c Conn) Loop() *reactor.Loop { return c.w.l }

// At returns the handle of the socket id of the same loop, for a stream that kept only the id.
func (c Conn) At(id reactor.ID) Conn { return Conn{c.w, id} }

// ConnOf returns the handle of a client socket on l. It is how a handler of backend sockets comes back to its client.
func (e *Engine) ConnOf(l *reactor.Loop, id reactor.ID) Conn { return Conn{e.workers[l.Index()], id} }

// row is the session behind c, nil if it is gone.
func (c Conn) row() *session {
	if c.w.turn.id == c.id {
		return c.w.turn.s // its own callback: it cannot be gone
	}
	if !c.w.l.Alive(c.id) && c.w.closing != c.id {
		return nil
	}
	return c.w.e.rows.At(c.id.Slot())
}

// Open reports whether messages may be sent.
func (c Conn) Open() bool {
	s := c.row()
	return s != nil && s.state == stateOpen && !c.w.lost(s)
}

// Word is 8 bytes that the stream may keep beside the socket: 0 at Join, valid until Gone returns.
func (c Conn) Word() uint64 {
	if s := c.row(); s != nil {
		return s.word
	}
	return 0
}

// SetWord keeps v beside the socket.
func (c Conn) SetWord(v uint64) {
	if s := c.row(); s != nil {
		s.word = v
	}
}

// Accept answers the upgrade with 101 and opens the socket. protocol is the subprotocol that the stream's backend chose;
// nil: the engine chooses, as PRODUCT.md section 3 says. Only between Join and Gone, once.
func (c Conn) Accept(protocol []byte) {
	if s := c.row(); s != nil && s.state == stateJoining {
		c.w.accept(c.id, protocol)
	}
}

// Refuse answers the upgrade with r and closes. Only between Join and Accept.
func (c Conn) Refuse(r *Refusal) {
	if s := c.row(); s != nil && s.state == stateJoining {
		c.w.refuse(c.id, s, r)
	}
}

// Expect says that the callback under way, a backend's Data, brings n messages with bytes payload bytes in all to c: no more
// than really follow. Their limits are then asked once, and BeginRun may let them pass together: true says so. Settle ends it,
// in the same callback.
func (c Conn) Expect(n, bytes int64) bool {
	if s := c.row(); s != nil && s.state == stateOpen && !c.w.lost(s) {
		c.w.expect(c.id, s, n, bytes)
		return c.w.turn.id == c.id && c.w.turn.runs[limiter.Out].On()
	}
	return false
}

// Settle ends what Expect began; what did not follow is given back.
func (c Conn) Settle() {
	if c.w.turn.id == c.id {
		c.w.endTurn()
	}
}

// Begin asks the plan's limits for a message of the stream to the client, at its first frame (first) and at each further
// one; n is the payload length of the frame. SentOK and SentHold: pass the frame on with Frame or Body.
func (c Conn) Begin(first bool, n int64) Outbound {
	s := c.row()
	if s == nil || s.state != stateOpen || c.w.lost(s) {
		return Outbound{Sent: SentGone}
	}
	return c.w.allowOut(c.id, s, first, n)
}

// Frame queues a frame: h and, as its payload, b, which is copied before the call returns. Only after Begin allowed it. What
// finds no room is not queued in part, so the engine's own pings and close frames never land inside a frame.
func (c Conn) Frame(h frame.Header, b []byte) Sent {
	s := c.row()
	if s == nil || s.state != stateOpen || c.w.lost(s) {
		return SentGone
	}
	if sent, ok := c.compressed(s, &h, b); ok {
		return sent
	}
	h.Masked, h.Len = false, int64(len(b))
	n := frame.HeaderLen(h)
	if s.flags&flagLate != 0 {
		w := c.w
		w.scratch = append(frame.Append(w.scratch[:0], h), b...)
		return w.writeLate(c.id, s, w.scratch)
	}
	dst, err := c.w.l.Reserve(c.id, n+len(b))
	if err != nil {
		c.w.slow(c.id, s, err)
		return SentGone
	}
	copy(dst[frame.PutHead(dst, &h):], b)
	return SentOK
}

// inPlaceFrom is the payload from which it pays to leave a frame where it lies: below it a copy is cheaper.
const inPlaceFrom = 4 << 10

// Pass queues the part of a message that ev brought, as a frame with h's Fin and Op, where it lies if that is possible. ev is
// what the Data callback under way has found, in the bytes that it was given: of the client itself or of the backend. Only
// after Begin allowed it, once for an event.
func (c Conn) Pass(h frame.Header, ev *frame.Event) Sent {
	h.Masked, h.Len = false, int64(len(ev.Payload))
	if s := c.row(); len(ev.Payload) >= inPlaceFrom && s != nil && s.window() == deflate.NoWindow {
		if b, ok := ev.InPlace(h); ok {
			return c.PassBody(b)
		}
	}
	return c.Frame(h, ev.Payload)
}

// PassBody is Body for a part of the bytes that the Data callback under way was given, which nobody changes any more.
func (c Conn) PassBody(b []byte) Sent {
	s := c.row()
	if s == nil || s.state != stateOpen || c.w.lost(s) {
		return SentGone
	}
	if s.window() != deflate.NoWindow {
		if sent, ok := c.compressedFrame(s, b); ok {
			return sent
		}
	}
	if s.flags&flagLate != 0 {
		return c.w.writeLate(c.id, s, b)
	}
	if err := c.w.l.Pass(c.id, b); err != nil {
		c.w.slow(c.id, s, err)
		return SentGone
	}
	return SentOK
}

// Body queues what the caller has framed: b ends where a frame ends. It is copied or written before the call returns. Only
// after Begin allowed it.
func (c Conn) Body(b []byte) Sent {
	s := c.row()
	if s == nil || s.state != stateOpen || c.w.lost(s) {
		return SentGone
	}
	if s.flags&flagLate != 0 {
		return c.w.writeLate(c.id, s, b)
	}
	if err := c.w.l.Write(c.id, b); err != nil {
		c.w.slow(c.id, s, err)
		return SentGone
	}
	return SentOK
}

// Send asks the limits and queues one whole message. b is copied before the call returns. It does not allocate.
func (c Conn) Send(op frame.Op, b []byte) Outbound {
	v := c.Begin(true, int64(len(b)))
	if v.Sent <= SentHold && c.Frame(frame.Header{Fin: true, Op: op}, b) == SentGone {
		return Outbound{Sent: SentGone}
	}
	return v
}

// Queued is how many bytes wait for a slow client.
func (c Conn) Queued() int { return c.w.l.Queued(c.id) }

// highWater is the most that HighWater is.
const highWater = 64 << 10

// HighWater is how many bytes may wait for a socket of the loop, client or backend, before the source of them is not read any
// more: a quarter of what may wait at all, 64 KiB at most.
func (c Conn) HighWater() int { return min(highWater, c.w.l.QueueMax()/4) }

// QueueFor is what Options.Queue must be so that want bytes may wait, and a message of maxMessage bytes has room behind what
// waits while its source is still read.
func QueueFor(want, maxMessage int64) int {
	return int(max(want, highWater+maxMessage+frame.MaxHeader))
}

// Flush sends what the callback under way has queued so far, and returns how many bytes the client's kernel did not take.
func (c Conn) Flush() int { return c.w.l.Flush(c.id) }

// Blocked reports whether the client has not taken all that was sent, or a limit lets it wait (Held), so that Stream.Drained is
// still to come.
func (c Conn) Blocked() bool { return c.w.l.Blocked(c.id) || c.Held() }

// Missed says that n messages are left out because the client does not keep up: it is counted, and told if it has asked for
// notices. Only between two messages.
func (c Conn) Missed(n uint32) {
	if s := c.row(); s != nil && s.state == stateOpen {
		c.w.missed(c.id, s, n)
	}
}

// Slow ends a client that does not keep up, with 4440.
func (c Conn) Slow() { c.w.slow(c.id, c.row(), reactor.ErrSlow) }

// Pause stops reading from the client until Resume: back-pressure of the stream. Limits pause on their own account.
func (c Conn) Pause() {
	if s := c.row(); s != nil && s.state == stateOpen {
		c.w.pause(c.id, s, pauseStream)
	}
}

// Resume undoes Pause.
func (c Conn) Resume() {
	if s := c.row(); s != nil {
		c.w.resume(c.id, s, pauseStream)
	}
}

// Close sends a close frame and ends the socket; by is who began it. Code 0 is a close frame without a body. An empty
// reason stands for the code's own, but where the backend gave none.
func (c Conn) Close(code frame.Code, reason string, by By) {
	if s := c.row(); s != nil {
		c.w.end(c.id, s, code, reason, by)
	}
}

// Limits is the plan whose limits hold for the socket, for a stream that wants to know whether they must see payloads.
func (c Conn) Limits() *limiter.Plan {
	if s := c.row(); s != nil {
		return c.w.plan(s)
	}
	return nil
}
