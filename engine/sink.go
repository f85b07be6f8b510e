package engine

import (
	"ticketgate/engine/frame"
	"ticketgate/engine/upgrade"
	"ticketgate/ticket"
)

// A Stream is what admitted sockets are joined to: a relay, a feed, the built-in echo. One value serves all sockets of a
// configured stream. Its methods run on the socket's loop and never wait; calls for one socket never overlap.
//
//	Join ──> Conn.Accept ──> Receive, Drained, ... ──> Gone
//	   └───> Conn.Refuse ─────────────────────────────────┘ (Gone is the last call for every Join)
type Stream interface {
	// Join is called when c's ticket has been spent. It leads to c.Accept or c.Refuse, at once or later on the same loop.
	// j and all it refers to but j.Claims die with the call.
	Join(c Conn, j *Join)
	// Receive gets what the client sent, after the limits. A text message is always whole and valid UTF-8, and so is a
	// binary message of several frames: First and Last are set, and it looks like one frame. A binary message of one frame
	// comes in the parts in which it arrived. ev.Payload may be written to and dies with the call. Control frames are
	// answered by the engine and do not come here.
	Receive(c Conn, ev *frame.Event)
	// Drained says that what Send left queued has gone out, or that a limit which has answered SentHold lets the stream go on.
	// The other of the two may still be so: see Conn.Blocked.
	Drained(c Conn)
	// Gone is the end of c, once. end says who began it and with which code. c takes no more calls but Word and Claims.
	Gone(c Conn, end End)
}

// Join is an admission that waits for its stream.
type Join struct {
	Claims  *ticket.Claims   // not written to by anyone; may be kept
	Request *upgrade.Request // the client's upgrade request
}

// End is how a socket ended.
type End struct {
	By     By
	Code   frame.Code // the code on the wire, 0 if none was sent or received
	Reason string     // the text beside it, at most 123 bytes
}

// By is who ended a socket: the metric label.
type By uint8

// Who may end a socket.
const (
	ByClient  By = iota + 1 // the client sent a close frame
	ByGateway               // we did
	ByBackend               // the backend did
	ByNetwork               // the connection broke
)

func (b By) String() string {
	switch b {
	case ByClient:
		return "client"
	case ByGateway:
		return "gateway"
	case ByBackend:
		return "backend"
	default:
		return "network"
	}
}
