// Package frame is the framing layer of WebSocket (RFC 6455, sections 5 to 7) as pure functions over bytes: it opens no
// socket, reads no clock, allocates nothing, and keeps one small pointer-free Reader per socket. frame.go is the wire,
// codec.go takes headers apart and puts them together, mask.go masks, check.go holds the rules, reader.go and text.go join frames to
// messages.
package frame

import "github.com/gobwas/ws"

// Op is what a frame is for: four bits of its first byte (5.2).
type Op byte

// The opcodes; 0x3-0x7 and 0xB-0xF are reserved.
const (
	Continuation = Op(ws.OpContinuation) // 0x0: goes on with a fragmented message
	Text         = Op(ws.OpText)         // 0x1: UTF-8
	Binary       = Op(ws.OpBinary)       // 0x2: any bytes
	Close        = Op(ws.OpClose)        // 0x8: empty, or a code and a reason
	Ping         = Op(ws.OpPing)         // 0x9: answered with a Pong of the same payload
	Pong         = Op(ws.OpPong)         // 0xA
)

// Control reports whether frames of o are control frames: whole, at most MaxControl bytes, allowed between fragments (5.5).
func (o Op) Control() bool { return o&0x8 != 0 }

// Reserved reports whether RFC 6455 gives o no meaning (5.2).
func (o Op) Reserved() bool { return ws.OpCode(o).IsReserved() }

// Bounds of the wire format, in bytes.
const (
	MaxHeader  = 14                            // 2, 8 of length, 4 of mask
	MaxControl = ws.MaxControlFramePayloadSize // 125: payload of a control frame (5.5)
	MaxReason  = MaxControl - 2                // 123: close reason beside its code (5.5.1)
)

// RSV1 as a Header's Rsv: the message that the frame begins is compressed (RFC 7692 section 6).
const RSV1 = 4

// Header is everything of a frame but its payload.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-------+-+-------------+-------------------------------+
//	|F|R|R|R| opcode|M| length: <126| 126: 16 bits of length follow |
//	|I|S|S|S|  (4)  |S| itself      | 127: 64 bits, the first is 0  |
//	|N|V|V|V|       |K|             | then 4 bytes of mask if MSK   |
//	+-+-+-+-+-------+-+-------------+-------------------------------+
type Header struct {
	Fin    bool    // last frame of its message
	Rsv    byte    // RSV1 is 4, RSV2 is 2, RSV3 is 1
	Op     Op      // 0 to 15
	Masked bool    // Mask is on the wire
	Mask   [4]byte // zero unless Masked
	Len    int64   // payload bytes, never negative
}

// Code says why a connection ends: the first two bytes of a close frame's payload (7.4).
type Code uint16

// The codes of RFC 6455, of its registry, and ours. After each its reason text on our wire, and what a client should do.
const (
	CloseNormal      = Code(ws.StatusNormalClosure)           // 1000 "": stop
	CloseGoingAway   = Code(ws.StatusGoingAway)               // 1001 "": reconnect with backoff
	CloseProtocol    = Code(ws.StatusProtocolError)           // 1002 "": stop, fix the program
	CloseUnsupported = Code(ws.StatusUnsupportedData)         // 1003 "": stop; text or binary is not allowed on this stream
	CloseNoStatus    = Code(ws.StatusNoStatusRcvd)            // 1005: never on the wire; the peer's close frame was empty
	CloseAbnormal    = Code(ws.StatusAbnormalClosure)         // 1006: never on the wire; the connection broke
	CloseInvalid     = Code(ws.StatusInvalidFramePayloadData) // 1007 "": stop; bad UTF-8, malformed JSON or XML
	ClosePolicy      = Code(ws.StatusPolicyViolation)         // 1008 "guard:<rule>": stop, this message is refused
	CloseTooBig      = Code(ws.StatusMessageTooBig)           // 1009 "": stop; message over the limit
	CloseExtension   = Code(ws.StatusMandatoryExt)            // 1010: only clients send it
	CloseFault       = Code(ws.StatusInternalServerError)     // 1011 "fault": reconnect with backoff
	CloseDrain       = Code(1012)                             // "drain": come back at a random moment inside the hinted spread
	CloseOverloaded  = Code(1013)                             // "overloaded": reconnect with backoff
	CloseBadGateway  = Code(1014)                             // from other gateways; we say CloseBackend
	CloseTLS         = Code(ws.StatusTLSHandshake)            // 1015: never on the wire

	CloseExpired        = Code(4401) // "session-expired": new ticket at once
	CloseRevoked        = Code(4403) // "revoked": stop
	CloseIdle           = Code(4408) // "idle": reconnect when needed
	CloseReplaced       = Code(4409) // "replaced": a newer connection took the slot; stop
	CloseLimit          = Code(4429) // "limit:<name>": wait for the limit, then reconnect
	CloseSlow           = Code(4440) // "slow-consumer": reconnect with resume
	CloseBackend        = Code(4502) // "backend": lost or wrong; reconnect with backoff
	CloseBackendTimeout = Code(4504) // "backend-timeout": too slow; reconnect with backoff
)

// Reason is the text that goes with c where the caller has nothing more exact: "" for the protocol's own codes and for
// ClosePolicy, whose text is "guard:" and the rule; "limit" for CloseLimit, whose full text is "limit:" and the name.
func (c Code) Reason() string {
	switch c {
	case CloseFault:
		return "fault"
	case CloseDrain:
		return "drain"
	case CloseOverloaded:
		return "overloaded"
	case CloseExpired:
		return "session-expired"
	case CloseRevoked:
		return "revoked"
	case CloseIdle:
		return "idle"
	case CloseReplaced:
		return "replaced"
	case CloseLimit:
		return "limit"
	case CloseSlow:
		return "slow-consumer"
	case CloseBackend:
		return "backend"
	case CloseBackendTimeout:
		return "backend-timeout"
	}
	return ""
}

// Wire reports whether c may stand in a close frame, ours or the peer's: 1000-1003, 1007-1014 and 3000-4999 (7.4.1,
// 7.4.2 and the IANA registry, which added 1012-1014). 1004 to 1006 and 1015 have no place there.
func (c Code) Wire() bool {
	return c >= 1000 && c <= 1003 || c >= 1007 && c <= 1014 || c >= 3000 && c <= 4999
}
