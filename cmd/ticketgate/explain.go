package main

import (
	"fmt"
	"strings"

	"ticketgate/engine/frame"
)

// explain says in words what a close code means and what to do, for people who see it for the first time.
func explain(code frame.Code, reason string) string {
	switch code {
	case frame.CloseNormal:
		return "normal end"
	case frame.CloseGoingAway:
		return "the other side is going away: reconnect"
	case frame.CloseProtocol:
		return "the client broke the WebSocket protocol: a fault in its program"
	case frame.CloseUnsupported:
		return "this stream takes no messages of this kind from clients"
	case frame.CloseInvalid:
		return "a text message was not UTF-8"
	case frame.ClosePolicy:
		return "a guard refused this message: " + strings.TrimPrefix(reason, "guard:")
	case frame.CloseTooBig:
		return "the message is larger than the stream allows"
	case frame.CloseFault:
		return "a fault in the gateway or the backend: reconnect with backoff"
	case frame.CloseDrain:
		return "the node is draining: reconnect with a new ticket at a random moment"
	case frame.CloseOverloaded:
		return "the node is overloaded or has lost its slots: reconnect with backoff"
	case frame.CloseExpired:
		return "the session has reached its end: ask for a new ticket"
	case frame.CloseRevoked:
		return "the key or the stream was revoked"
	case frame.CloseIdle:
		return "no message for too long: reconnect when needed"
	case frame.CloseReplaced:
		return "a newer connection of this client took the slot"
	case frame.CloseLimit:
		return fmt.Sprintf("the limit %q was exceeded: wait before reconnecting", strings.TrimPrefix(reason, "limit:"))
	case frame.CloseSlow:
		return "this client reads too slowly"
	case frame.CloseBackend:
		return "the backend was lost or broke the protocol: reconnect with backoff"
	case frame.CloseBackendTimeout:
		return "the backend is too slow: reconnect with backoff"
	case 0, frame.CloseNoStatus:
		return "closed without a code"
	case frame.CloseAbnormal:
		return "the connection was lost"
	}
	if code >= 4000 {
		return "a code of the application's own"
	}
	return "see RFC 6455 section 7.4"
}
