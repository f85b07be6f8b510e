package relay

import (
	"encoding/binary"
	"errors"
	"math"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/limiter"
)

// An open pair:
//
//	client ──> engine ──> Receive: one frame a message, fresh mask ───────> queue ──> backend
//	client <── queue <── pass: same frames, a long one in pieces <── Data <────────── backend
//
// The engine hands over whole messages, and a binary message of one frame as it arrives. Such a frame goes on with its own
// length as soon as its head is here; until it is whole nothing of ours can stand between, so a pong to the backend waits
// for its end. A frame from the backend that has not come whole goes on in
// pieces, each a frame of its own (RFC 6455 section 5.4 lets an intermediary do so without extensions): whatever becomes
// of the backend, a ping or a close frame to the client always stands between two frames, and a message whose end never
// comes is never finished.

// pair returns the backend socket of c and its row; nil unless the pair is open.
func (r *Relay) pair(c engine.Conn) (reactor.ID, *row) {
	id := reactor.ID(c.Word())
	if id == 0 || !c.Loop().Alive(id) {
		return 0, nil
	}
	if w := r.rows.At(id.Slot()); w.state == stateOpen {
		return id, w
	}
	return 0, nil
}

// Receive implements engine.Stream: a part of a message goes on to the backend.
func (r *Relay) Receive(c engine.Conn, ev *frame.Event) {
	l := c.Loop()
	id, w := r.pair(c)
	if w == nil {
		return
	}
	if err := r.forward(l, id, w, ev); err != nil {
		r.failed(l, id, w, c, err)
		return
	}
	r.stop(l, id, w, c)
}

// failed ends a pair to whose backend nothing could be written.
func (r *Relay) failed(l *reactor.Loop, id reactor.ID, w *row, c engine.Conn, err error) {
	switch {
	case errors.Is(err, reactor.ErrNode):
		r.stuck(l, id, w, c, frame.CloseOverloaded, engine.ByGateway)
	case errors.Is(err, reactor.ErrSlow):
		r.stuck(l, id, w, c, frame.CloseBackendTimeout, engine.ByBackend)
	} // else Closed follows
}

// stop stops reading the client while the backend does not keep up.
func (r *Relay) stop(l *reactor.Loop, id reactor.ID, w *row, c engine.Conn) {
	if high := c.HighWater(); w.flags&flagStops == 0 && l.Queued(id) > high && l.Flush(id) > high {
		w.flags |= flagStops // until the backend's Drained
		c.Pause()
	}
}

// forward writes ev to the backend, masked.
func (r *Relay) forward(l *reactor.Loop, id reactor.ID, w *row, ev *frame.Event) error {
	n := r.lane(l)
	wire, write := ev.Payload, l.Pass
	if ev.Head {
		h := frame.Header{Fin: true, Op: ev.Op, Masked: true, Mask: n.mask(), Len: ev.FrameLen}
		w.mask, w.offset = h.Mask, 0
		w.flags |= flagMidway
		if in, ok := ev.InPlace(h); ok {
			wire = in // the client's header was as long
		} else {
			write = l.Write // a message that was held: its bytes do not lie in the loop's buffer
			n.scratch = frame.Append(n.scratch[:0], h)
			if err := l.Write(id, n.scratch); err != nil {
				return err
			}
		}
	}
	frame.Mask(ev.Payload, w.mask, int(w.offset))
	w.offset = uint8((int(w.offset) + len(ev.Payload)) & 3)
	for len(wire) > 0 { // in pieces, of which the kernel may take some before the queue is full
		piece := wire[:min(len(wire), pieceMax)]
		if err := write(id, piece); err != nil {
			return err
		}
		wire = wire[len(piece):]
	}
	if ev.Tail {
		w.flags &^= flagMidway
		r.payPong(l, id, w)
	}
	return nil
}

// mask draws the key of one frame (RFC 6455 section 5.3).
func (n *lane) mask() (m [4]byte) {
	binary.LittleEndian.PutUint32(m[:], uint32(n.rnd.Uint64()))
	return m
}

// Drained implements engine.Stream and reads the backend again: all that waited for the client has gone out, or its limits let
// more go.
func (r *Relay) Drained(c engine.Conn) {
	id, w := r.pair(c)
	if w == nil || w.flags&(flagWaits|flagHeld) == 0 {
		return
	}
	why := flagWaits // the client has taken all
	if !c.Held() {
		why |= flagHeld
	}
	w.proceed(c.Loop(), id, why)
}

// frames takes what can be passed on out of in and says how many bytes that was.
func (r *Relay) frames(l *reactor.Loop, id reactor.ID, w *row, in []byte) int {
	c := r.engine.ConnOf(l, w.client)
	runs := c.Expect(w.in.Count(in, math.MaxInt))
	defer c.Settle()
	ev := &r.lane(l).found
	pos := 0
	for pos < len(in) && w.flags&(flagWaits|flagHeld) == 0 {
		if runs {
			n := r.run(l, id, w, c, in[pos:])
			if w.state != stateOpen {
				return len(in)
			}
			if pos += n; n > 0 {
				continue
			}
		}
		if rest := in[pos:]; l.ReadsOn(len(rest)) && w.in.Partial(rest) {
			break // the rest of it follows at once
		}
		show := w.ready(in[pos:])
		if show == 0 {
			break
		}
		n, err := w.in.Read(ev, &r.rules, in[pos:pos+show])
		if err != nil {
			r.violated(l, id, w, c, err)
			return len(in)
		}
		if n == 0 {
			break
		}
		r.event(l, id, w, c, ev, in[pos:pos+n])
		if w.state != stateOpen {
			return len(in)
		}
		pos += n
	}
	return pos
}

// ready is how many bytes of in, which is not empty, the reader may see now: of a data frame that is not whole only its
// header, so that it is judged at once, and then pieces of pieceMin bytes or its end.
func (w *row) ready(in []byte) int {
	if w.rest > 0 {
		if int64(len(in)) < min(w.rest, pieceMin) {
			return 0
		}
		return len(in)
	}
	h, n, err := frame.Parse(in)
	if err != nil || n == 0 || h.Op.Control() || int64(len(in)-n) >= min(h.Len, pieceMin) {
		return len(in)
	}
	return n
}

// event takes one event of the backend's frames; wire are the bytes that it was made of.
func (r *Relay) event(l *reactor.Loop, id reactor.ID, w *row, c engine.Conn, ev *frame.Event, wire []byte) {
	switch ev.Kind {
	case frame.KindData:
		r.pass(l, id, w, c, ev, wire)
	case frame.KindPing:
		r.pong(l, id, w, ev.Payload)
	case frame.KindClose:
		r.backendClosed(l, id, w, c, ev)
	}
}

// pass hands a part of a message to the client, if its limits let it.
func (r *Relay) pass(l *reactor.Loop, id reactor.ID, w *row, c engine.Conn, ev *frame.Event, wire []byte) {
	if ev.Head {
		w.rest = ev.FrameLen
		r.begin(l, id, w, c, ev)
	}
	w.rest -= int64(len(ev.Payload))
	switch {
	case w.state != stateOpen || w.flags&flagDropping != 0:
	case w.flags&flagGathers != 0:
		r.gather(l, id, w, c, ev)
	case ev.Head && ev.Tail: // a whole frame of a server is the same on both sides
		c.PassBody(wire) // if the client is gone, Gone has closed the pair
		w.flags |= flagStarted
	case ev.Tail || len(ev.Payload) > 0:
		c.Body(r.wire(l, w, ev))
		w.flags |= flagStarted
	}
	if ev.Last {
		w.flags &^= flagStarted | flagDropping | flagGathers
	}
	r.waits(l, id, w, c)
}

// waits stops reading the backend until the client's Drained, if too much waits for it.
func (r *Relay) waits(l *reactor.Loop, id reactor.ID, w *row, c engine.Conn) {
	if high := c.HighWater(); c.Queued() > high && c.Flush() > high {
		w.halt(l, id, flagWaits)
	}
}

// begin asks the client's limits at the head of a frame. A limit that drops by length must know all of a message before
// its first frame has gone on: then the fragments are gathered first. So are the parts of a frame that is to be compressed, or
// that a limit may let wait, since what is held does not bring the rest of it.
func (r *Relay) begin(l *reactor.Loop, id reactor.ID, w *row, c engine.Conn, ev *frame.Event) {
	switch {
	case !ev.First || ev.Last && ev.Tail:
	case ev.Fin:
		if c.Compresses(ev.FrameLen) || c.Limits().Holds(limiter.Out) {
			w.flags |= flagGathers
		}
	default:
		if _, _, whole := c.Limits().Sees(limiter.Out); whole {
			w.flags |= flagGathers
		}
	}
	if w.flags&(flagDropping|flagGathers) == 0 {
		r.ask(l, id, w, c, ev.First, ev.FrameLen)
	}
}

// ask asks the client's limits for n bytes of a message. What they say is in w's flags and state.
func (r *Relay) ask(l *reactor.Loop, id reactor.ID, w *row, c engine.Conn, first bool, n int64) {
	switch v := c.Begin(first, n); v.Sent {
	case engine.SentDrop:
		w.flags |= flagDropping
	case engine.SentHold:
		w.halt(l, id, flagHeld) // until Drained
	}
}

// gather keeps the parts of a message, whose sum the reader's rules bound, and passes it on when it is whole.
func (r *Relay) gather(l *reactor.Loop, id reactor.ID, w *row, c engine.Conn, ev *frame.Event) {
	n := r.lane(l)
	whole, begun := n.gathered[id.Slot()]
	if !begun {
		whole, n.spare = n.spare, nil
	}
	whole = append(whole, ev.Payload...)
	if !ev.Last {
		n.gathered[id.Slot()] = whole
		return
	}
	delete(n.gathered, id.Slot())
	if cap(whole) <= spareMax {
		n.spare = whole[:0]
	}
	r.ask(l, id, w, c, true, int64(len(whole)))
	if w.state != stateOpen || w.flags&flagDropping != 0 {
		return
	}
	if _, ok := c.Compress(ev.Op, whole); ok {
		return
	}
	for more := true; more && w.state == stateOpen && w.flags&flagDropping == 0; {
		piece := whole[:min(len(whole), pieceMax)]
		whole = whole[len(piece):]
		more = len(whole) > 0
		c.Body(r.wire(l, w, &frame.Event{Op: ev.Op, Last: !more, Payload: piece}))
		w.flags |= flagStarted
	}
}

// spareMax is the largest buffer that a loop keeps for the next message that is gathered.
const spareMax = 256 << 10

// pieceMax keeps what is written at once under any queue.
const pieceMax = 64 << 10

// wire gives the bytes that tell the client of ev, a piece of a frame: it gets a header of its own.
func (r *Relay) wire(l *reactor.Loop, w *row, ev *frame.Event) []byte {
	h := frame.Header{Fin: ev.Last, Op: ev.Op, Len: int64(len(ev.Payload))}
	if w.flags&flagStarted != 0 {
		h.Op = frame.Continuation
	}
	n := r.lane(l)
	n.scratch = append(frame.Append(n.scratch[:0], h), ev.Payload...)
	return n.scratch
}

// halt stops reading the backend for one more reason.
func (w *row) halt(l *reactor.Loop, id reactor.ID, why flags) {
	if w.flags&(flagWaits|flagHeld) == 0 {
		l.Pause(id)
	}
	w.flags |= why
}

// proceed takes one reason back; when none is left, the loop brings what waited.
func (w *row) proceed(l *reactor.Loop, id reactor.ID, why flags) {
	if w.flags &^= why; w.flags&(flagWaits|flagHeld) == 0 {
		l.Resume(id)
	}
}

// release lets the client send again: all that waited for the backend has gone out.
func (r *Relay) release(l *reactor.Loop, w *row) {
	if w.state == stateOpen && w.flags&flagStops != 0 {
		w.flags &^= flagStops
		r.engine.ConnOf(l, w.client).Resume()
	}
}

// pongRoom is how many bytes may wait for a backend before its pings get no more than one answer, the next, until all
// have gone: a backend that does not read has no use for more (RFC 6455 section 5.5.3).
const pongRoom = 4 << 10

// pong answers a ping of the backend, now or at the end of the frame under way.
func (r *Relay) pong(l *reactor.Loop, id reactor.ID, w *row, payload []byte) {
	n := r.lane(l)
	if w.flags&flagMidway != 0 {
		w.flags |= flagOwed
		n.pongs[id.Slot()] = append(n.pongs[id.Slot()][:0], payload...) // only the latest ping needs an answer
		return
	}
	waiting := l.Queued(id)
	if w.flags&flagPong != 0 && waiting > 0 {
		return
	}
	w.flags &^= flagPong
	if waiting > pongRoom {
		w.flags |= flagPong
	}
	h := frame.Header{Fin: true, Op: frame.Pong, Masked: true, Mask: n.mask(), Len: int64(len(payload))}
	n.scratch = frame.Append(n.scratch[:0], h)
	head := len(n.scratch)
	n.scratch = append(n.scratch, payload...)
	frame.Mask(n.scratch[head:], h.Mask, 0)
	_ = l.Write(id, n.scratch) // a queue that is full for a pong is full for the next message, which says so
}

// payPong sends the pong that waited for the end of a frame.
func (r *Relay) payPong(l *reactor.Loop, id reactor.ID, w *row) {
	if w.flags&flagOwed == 0 {
		return
	}
	w.flags &^= flagOwed
	n := r.lane(l)
	payload := n.pongs[id.Slot()]
	delete(n.pongs, id.Slot())
	r.pong(l, id, w, payload)
}
