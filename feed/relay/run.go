package relay

import (
	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
)

// Runs: several messages that one read brought whole go on with one question to the limits and one write.

// runMax is how many messages of a backend are one run at most.
const runMax = 64

// ReceiveRun implements engine.Runner: the messages go on to the backend, each with a mask of its own. They lie one behind the
// other, and so do the frames made of them where they lie.
func (r *Relay) ReceiveRun(c engine.Conn, run []frame.Event) {
	l := c.Loop()
	id, w := r.pair(c)
	if w == nil {
		return
	}
	n := r.lane(l)
	var wire []byte // frames that are ready
	for i := range run {
		ev := &run[i]
		h := frame.Header{Fin: true, Op: ev.Op, Masked: true, Mask: n.mask(), Len: ev.FrameLen}
		frame.Mask(ev.Payload, h.Mask, 0)
		b, ok := ev.InPlace(h) // the client's header was as long
		if ok {
			if joined, ok := frame.Join(wire, b); ok {
				wire = joined
				continue
			}
		} else { // an empty message
			n.scratch = frame.Append(n.scratch[:0], h)
			b = n.scratch
		}
		if !r.send(l, id, w, c, wire) {
			return
		}
		wire = b
		if !ok {
			if !r.send(l, id, w, c, b) {
				return
			}
			wire = nil
		}
	}
	if r.send(l, id, w, c, wire) {
		r.stop(l, id, w, c)
	}
}

// send writes whole frames to the backend; false: they are the end of the pair.
func (r *Relay) send(l *reactor.Loop, id reactor.ID, w *row, c engine.Conn, wire []byte) bool {
	for len(wire) > 0 {
		piece := wire[:min(len(wire), pieceMax, c.QueueMax())]
		if err := l.Pass(id, piece); err != nil {
			r.failed(l, id, w, c, err)
			return false
		}
		wire = wire[len(piece):]
	}
	return true
}

// run passes on the messages in front of in that are whole, and returns how many bytes they were: 0 if there are none or if they
// must be looked at one by one.
func (r *Relay) run(l *reactor.Loop, id reactor.ID, w *row, c engine.Conn, in []byte) (pos int) {
	if w.rest > 0 || w.flags&(flagDropping|flagGathers|flagStarted) != 0 {
		return 0
	}
	var bytes int64
	var lengths [runMax]int
	n := r.lane(l)
	frames := 0
	for frames < runMax && pos < len(in) {
		ev := &n.run[frames]
		used, err := w.in.Whole(ev, &r.rules, in[pos:])
		if used == 0 || err != nil {
			break // frames comes to it again; an error stays
		}
		lengths[frames] = used
		frames++
		pos += used
		bytes += ev.FrameLen
	}
	if frames == 0 {
		return 0
	}
	if c.BeginRun(int64(frames), bytes) {
		from, at := 0, 0
		for _, used := range lengths[:frames] {
			if at > from && at+used-from > c.QueueMax() {
				c.PassBody(in[from:at])
				from = at
			}
			at += used
		}
		c.PassBody(in[from:pos]) // whole frames of a server are the same on both sides
		r.waits(l, id, w, c)
		return pos
	}
	at := 0
	for i, used := range lengths[:frames] {
		if w.state != stateOpen {
			return pos
		}
		if w.flags&(flagWaits|flagHeld) != 0 {
			break // a server's frames are as they were: they are found again
		}
		r.pass(l, id, w, c, &n.run[i], in[at:at+used])
		at += used
	}
	return at
}
