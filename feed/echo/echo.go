// Package echo is the built-in stream that sends every message back: for trying out tickets, limits and clients.
package echo

import (
	"ticketgate/engine"
	"ticketgate/engine/frame"
)

// Echo implements engine.Stream; its methods belong to the loops. It keeps what it must know of a socket in the socket's
// word, so one Echo serves all sockets of all loops. What the engine hands over whole comes back whole; a long binary frame
// comes back as it arrives, each part as a frame of its own (RFC 6455 section 5.4 lets fragments change), so that pings and
// close frames always stand between frames. The source of what goes out is the client, so a limit on it that asks to stop stops the client.
type Echo struct{}

var _ engine.Runner = Echo{}

// What a socket's word says.
const (
	started  = 1 << iota // a part of the message under way has gone back
	dropping             // a limit drops the message under way
	waiting              // the client is not read until Drained
)

// Join accepts every client, with the subprotocol that the engine chooses.
func (Echo) Join(c engine.Conn, _ *engine.Join) { c.Accept(nil) }

// Receive sends the part back.
func (Echo) Receive(c engine.Conn, ev *frame.Event) {
	if ev.First && ev.Last {
		if c.Begin(true, int64(len(ev.Payload))).Sent <= engine.SentHold {
			c.Pass(frame.Header{Fin: true, Op: ev.Op}, ev)
		}
	} else {
		part(c, ev)
	}
	hold(c)
}

// ReceiveRun sends all of them back.
func (Echo) ReceiveRun(c engine.Conn, run []frame.Event) {
	c.SendRun(run)
	hold(c)
}

// hold stops reading a client for which too much waits. What a limit holds back must be whole first, or it would wait for ever.
func hold(c engine.Conn) {
	if high := c.HighWater(); c.Held() && c.Word()&started == 0 || c.Queued() > high && c.Flush() > high { // what waits then is what Drained will tell of
		c.SetWord(c.Word() | waiting)
		c.Pause()
	}
}

// part sends back what has come of a longer message: a binary one of one frame, whose length is known from the start.
func part(c engine.Conn, ev *frame.Event) {
	word := c.Word()
	if ev.First && c.Begin(true, ev.FrameLen).Sent == engine.SentDrop {
		word |= dropping
	}
	if word&dropping == 0 && (ev.Last || len(ev.Payload) > 0) {
		h := frame.Header{Fin: ev.Last, Op: ev.Op}
		if word&started != 0 {
			h.Op = frame.Continuation
		}
		if c.Pass(h, ev) == engine.SentGone {
			return
		}
		word |= started
	}
	if ev.Last {
		word &^= started | dropping
	}
	c.SetWord(word)
}

// Drained reads the client again.
func (Echo) Drained(c engine.Conn) {
	if word := c.Word(); word&waiting != 0 && !c.Held() {
		c.SetWord(word &^ waiting)
		c.Resume()
	}
}

// Gone has nothing to free.
func (Echo) Gone(engine.Conn, engine.End) {}
