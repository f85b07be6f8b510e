package engine

import (
	"ticketgate/engine/frame"
	"ticketgate/engine/upgrade"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

// state is where a socket stands.
//
//	gone ──accept──> head ──good ticket──> asked ──store: yes──> joining ──stream: yes──> open ──┐
//	                  │                     │                      │                            │
//	                  └────── refusal ──────┴────── refusal ───────┴── refusal ──> closing <────┘
//	                                                                                 │
//	gone <───────────────────────────── descriptor closed, slot given back ──────────┘
//
// proxy, TLS: before head, where the gate takes PROXY headers or speaks TLS; see entry.go.
// asked: the head stays in the reactor's leftover until the store has answered, and is parsed again then: nothing of it is
// copied. joining: the stream has been asked and may still be dialling.
type state uint8

const (
	stateGone state = iota
	stateProxy
	stateTLS
	stateHead
	stateAsked
	stateJoining
	stateOpen
	stateClosing
)

// session is what one socket costs the engine beside the reactor's row: 64 bytes, one cache line, in a slab without
// pointers. What is shared (plan, stream, names) is an index, and what only a socket with something under way needs lies in
// the loop's tables:
//
//	side     begun: a head that has not arrived whole       while head is 0
//	         message: a message that has not arrived whole  from then on
//	flow     flow: buckets that are not full, or shared
//
// An idle socket has neither, unless its plan has limits that sockets share.
type session struct {
	state  state
	life   uint8 // of the node, in which it was let in: see life.go. 0: it holds no slot, or Options.Life is nil
	flags  flags
	stream uint16 // index into Policy.streams
	plan   uint16 // index into Policy.plans
	head   uint16 // bytes of the upgrade request, once it is known to be whole

	endCode frame.Code
	who     uint32 // number in Engine.names
	side    uint32 // number in worker.begun or worker.messages
	flow    uint32 // number in worker.flows

	opened tick // accepted, then opened
	last   tick // head: when the stage began; open: last message in either direction; closing: when it was over
	endAt  tick // session end or drain: closed with endCode
	pingAt tick // when the next ping is due; or, with flagPinged, when the pong must have come
	armed  tick // what the reactor's timer stands at
	mark   mark // which ticket it is from

	subject ticket.Subject // whose slot it holds while flagSlot is set
	word    uint64         // the stream's own
}

type flags uint16

const (
	flagSlot     flags = 1 << iota // holds one of subject's slots; while asked, the redemption under way holds it
	flagJoined                     // the stream has seen Join and is owed Gone
	flagPinged                     // a ping waits for its answer
	flagHeard                      // something arrived since the ping
	flagPong                       // a pong is owed: worker.pongs has it until nothing waits for the client any more
	flagDropIn                     // the message under way from the client is dropped
	flagDropOut                    // a message to the client was dropped, and none has passed since
	flagNotices                    // ticketgate.v1 was selected: $tg objects may be sent
	flagMet                        // Options.Addresses counts it among those of its address that nobody knows
	flagClient                     // Engine.clients counts it: from its good ticket to its end
	flagDropLate                   // a message from the client was dropped that waited, and none has passed since
	flagLate                       // what the stream writes is a message that has to wait: the last of worker.queue

	pauseStream // who does not want to read from the client
	pauseLimit
	flagsPaused = pauseStream | pauseLimit

	windowShift = 14 // the two highest: the deflate.Window of messages to the client
)

// begun is a head of which something is missing: how far it has been looked at.
type begun struct {
	_    [0]uint32 // aligned as a row must be
	scan upgrade.Scan
}

// message is one of which something is missing.
type message struct {
	in   frame.Reader
	by   tick   // when it must be complete, 0: not set yet; in a pause, how long it had left
	hold uint32 // index+1 into worker.holds: what of it must be passed on whole, 0 for nothing
}

// flow is what a socket has taken from its limits.
type flow struct {
	limits  limiter.Row
	control int64  // bucket of control frames
	resume  tick   // when a limit lets it read again, 0 if it reads
	late    uint32 // number in worker.late
}

// message returns the record of the message under way, and begins one if there is none.
func (w *worker) message(s *session) *message {
	if s.side == 0 {
		s.side, _ = w.messages.Get()
	}
	return w.messages.At(s.side)
}

// dropSide forgets the head or the message under way.
func (w *worker) dropSide(s *session) {
	switch {
	case s.side == 0:
		return
	case s.head == 0:
		w.begun.Put(s.side)
	default:
		w.dropHold(w.messages.At(s.side))
		w.messages.Put(s.side)
	}
	s.side = 0
}

// flow returns what s has taken from its limits, to be changed.
func (w *worker) flow(s *session) *flow {
	if s.flow == 0 {
		s.flow, _ = w.flows.Get()
	}
	return w.flows.At(s.flow)
}

// rest gives the flow of s back if it says nothing: every bucket is full, and none is shared.
func (w *worker) rest(s *session) {
	if s.flow == 0 {
		return
	}
	f, now := w.flows.At(s.flow), w.l.Now()
	w.dropQueues(f)
	if f.resume == 0 && f.late == 0 && limiter.Full(f.control, now) && w.plan(s).Full(&f.limits, now) {
		w.flows.Put(s.flow)
		s.flow = 0
	}
}

// resumeAt is when a limit lets s read again, 0 if it reads.
func (w *worker) resumeAt(s *session) tick {
	if s.flow == 0 {
		return 0
	}
	return w.flows.At(s.flow).resume
}

// messageBy is when the message under way must be complete, 0 if none must.
func (w *worker) messageBy(s *session) tick {
	if s.side == 0 {
		return 0
	}
	return w.messages.At(s.side).by
}
