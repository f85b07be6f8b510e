package engine

import (
	"ticketgate/engine/frame"
	"ticketgate/engine/upgrade"
	"ticketgate/internal/mono"
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
// asked: the head stays in the reactor's leftover until the store has answered, and is parsed again then: nothing of it is
// copied. joining: the stream has been asked and may still be dialling.
type state uint8

const (
	stateGone state = iota
	stateHead
	stateAsked
	stateJoining
	stateOpen
	stateClosing
)

// session is what one socket costs the engine beside the reactor's row. It has no pointers, so that a million of them are
// nothing to the collector; what is shared (plan, stream, names) is an index.
type session struct {
	state  state
	flags  flags
	paused pauseBy
	stream uint16 // index into Policy.streams
	plan   uint16 // index into Policy.plans
	head   uint16 // bytes of the upgrade request, once it is known to be whole
	who    uint32 // index into worker.names
	hold   uint32 // index+1 into worker.holds: a message that is not yet complete

	subject ticket.Subject // whose slot it holds while flagSlot is set
	word    uint64         // the stream's own

	in      frame.Reader
	scan    upgrade.Scan
	limits  limiter.Row
	control int64 // bucket of control frames

	opened  mono.Time // accepted, then opened
	last    mono.Time // last message in either direction
	endAt   mono.Time // session end or drain: closed with endCode
	pingAt  mono.Time // when the next ping is due; or, with flagPinged, when the pong must have come
	asmBy   mono.Time // when the message under way must be complete, 0 if none is; in a pause, how long it had left
	resume  mono.Time // when a limit lets it read again, 0 if it reads
	armed   mono.Time // what the reactor's timer stands at
	endCode frame.Code
}

type flags uint8

const (
	flagSlot    flags = 1 << iota // holds one of subject's slots; while asked, the redemption under way holds it
	flagJoined                    // the stream has seen Join and is owed Gone
	flagPinged                    // a ping waits for its answer
	flagHeard                     // something arrived since the ping
	flagPong                      // a pong waits behind other bytes: further pings are not answered until the queue has been empty
	flagDropIn                    // the message under way from the client is dropped
	flagDropOut                   // a message to the client was dropped, and none has passed since
	flagNotices                   // ticketgate.v1 was selected: $tg objects may be sent
)

// pauseBy is who does not want to read from the client.
type pauseBy uint8

const (
	pauseStream pauseBy = 1 << iota
	pauseLimit
)
