package engine

import (
	"ticketgate/engine/deflate"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/internal/faults"
	"ticketgate/limiter"
)

// A Runner is a Stream that takes the messages of one read together. What is asked, looked up and written for each message
// alone costs more than the message itself when sixteen short ones come at once.
type Runner interface {
	Stream
	// ReceiveRun is Receive for each of run, in this order. Each is a whole message that came in one frame (First and Last
	// are set) and is not compressed. run and the payloads may be written to and die with the call.
	ReceiveRun(c Conn, run []frame.Event)
}

// runMax is how many messages ReceiveRun gets at most.
const runMax = 64

// run hands the messages in front of in to the stream, as many as came whole one behind the other, and returns how many and
// how many bytes they were. 0: whatever is next is not for a run.
func (w *worker) run(id reactor.ID, s *session, r *frame.Reader, rules *frame.Rules, in []byte) (frames, pos int) {
	t := &w.turn
	in0 := &t.runs[limiter.In]
	limited := t.messages || t.bytes
	if t.runner == nil || s.side != 0 || t.entry.MayNot || s.flags&flagDropIn != 0 || limited && !in0.On() {
		return 0, 0
	}
	var bytes int64
	for frames < len(w.gathered) && pos < len(in) {
		ev := &w.gathered[frames]
		n, err := r.Whole(ev, rules, in[pos:])
		if n == 0 || err != nil {
			break // the caller comes to it again; an error stays
		}
		size := int64(len(ev.Payload))
		faults.Point(faults.Message, ev.Payload)
		if limited && !in0.Pass(true, size) { // the run was begun with all of them
			w.deliver(id, s, frames, bytes)
			if s.state == stateOpen {
				w.data(id, s, ev)
			}
			return frames + 1, pos + n
		}
		frames++
		pos += n
		bytes += size
	}
	w.deliver(id, s, frames, bytes)
	return frames, pos
}

// deliver hands over the first n gathered messages, of so many bytes in all.
func (w *worker) deliver(id reactor.ID, s *session, n int, bytes int64) {
	if n == 0 {
		return
	}
	p := &w.turn.wait[limiter.In]
	p.messages += uint64(n)
	p.bytes += bytes
	s.last = tickOf(w.l.Now())
	w.turn.runner.ReceiveRun(Conn{w, id}, w.gathered[:n])
}

// SendRun is Begin and Pass for each of run, which ReceiveRun has got: what the limits let through goes out as whole messages.
func (c Conn) SendRun(run []frame.Event) {
	var bytes int64
	for i := range run {
		bytes += int64(len(run[i].Payload))
	}
	if !c.BeginRun(int64(len(run)), bytes) {
		for i := range run {
			ev := &run[i]
			if c.Begin(true, int64(len(ev.Payload))).Sent <= SentHold {
				c.Pass(frame.Header{Fin: true, Op: ev.Op}, ev)
			}
		}
		return
	}
	for len(run) > 0 {
		n, size := short(run, min(shortMax, c.QueueMax()))
		if n == 0 {
			n = 1
			c.Pass(frame.Header{Fin: true, Op: run[0].Op}, &run[0])
		} else if !c.sendShort(run[:n], size) {
			return
		}
		run = run[n:]
	}
}

// shortMax bounds what is reserved at once.
const shortMax = 16 << 10

// short is how many messages at the start of run are better copied than sent from where they lie, and how long their frames
// are together: at most so many bytes.
func short(run []frame.Event, most int) (n, size int) {
	for i := range run {
		b := len(run[i].Payload)
		whole := frame.HeaderLen(frame.Header{Len: int64(b)}) + b
		if b >= inPlaceFrom || size+whole > most {
			return i, size
		}
		size += whole
	}
	return len(run), size
}

// sendShort queues run as frames of size bytes in all; false: the socket has ended.
func (c Conn) sendShort(run []frame.Event, size int) bool {
	dst, err := c.w.l.Reserve(c.id, size)
	if err != nil {
		c.w.slow(c.id, c.row(), err)
		return false
	}
	for i := range run {
		ev := &run[i]
		n := frame.PutHead(dst, &frame.Header{Fin: true, Op: ev.Op, Len: int64(len(ev.Payload))})
		n += copy(dst[n:], ev.Payload)
		dst = dst[n:]
	}
	return true
}

// QueueMax is how many bytes may wait for a client: more at once are too many.
func (c Conn) QueueMax() int { return c.w.l.QueueMax() }

// BeginRun is Begin for n whole messages with bytes payload bytes in all, none of which would be compressed. false: nothing
// has been asked, and each has to be asked for by itself.
func (c Conn) BeginRun(n, bytes int64) bool {
	s, w := c.row(), c.w
	t := &w.turn
	if s == nil || s.state != stateOpen || t.id != c.id || s.window() != deflate.NoWindow || w.waits(s, limiter.Out) {
		return false
	}
	if messages, sized, _ := t.plan.Sees(limiter.Out); (messages || sized) && !t.runs[limiter.Out].PassAll(n, bytes) {
		return false
	}
	s.flags &^= flagDropOut
	s.last = tickOf(w.l.Now())
	t.wait[limiter.Out].messages += uint64(n)
	t.wait[limiter.Out].bytes += bytes
	return true
}
