package frame

import (
	"encoding/binary"
	"unicode/utf8"
)

// Error is a rule that the peer broke. The values are this file's variables, so they can be compared, and they say
// nothing of what was received.
type Error struct {
	Code Code   // to close with
	Rule string // a metric label, from this file only; for ClosePolicy also the close reason
}

// Error implements error.
func (e *Error) Error() string { return "websocket frame: " + e.Rule }

// The violations.
var (
	ErrReservedBits = &Error{CloseProtocol, "reserved-bits"}
	ErrOpcode       = &Error{CloseProtocol, "opcode"}
	ErrUnmasked     = &Error{CloseProtocol, "unmasked"}
	ErrMasked       = &Error{CloseProtocol, "masked"}
	ErrControl      = &Error{CloseProtocol, "control"}
	ErrNoMessage    = &Error{CloseProtocol, "no-message"}
	ErrInterrupted  = &Error{CloseProtocol, "interrupted"}
	ErrMinimal      = &Error{CloseProtocol, "length-form"}
	ErrTopBit       = &Error{CloseProtocol, "length-sign"}
	ErrCloseBody    = &Error{CloseProtocol, "close-body"}
	ErrCloseCode    = &Error{CloseProtocol, "close-code"}
	ErrAfterClose   = &Error{CloseProtocol, "after-close"}
	ErrOpcodeDenied = &Error{CloseUnsupported, "type"}
	ErrText         = &Error{CloseInvalid, "utf8"}
	ErrCloseReason  = &Error{CloseInvalid, "close-reason"}
	ErrFragments    = &Error{ClosePolicy, "guard:frame.fragments"}
	ErrTooBig       = &Error{CloseTooBig, "message"}
)

// Role is the side of the connection that we are on.
type Role uint8

// The roles.
const (
	Server Role = iota // the peer is a client: its frames are masked
	Client             // the peer is a server: its frames are not
)

// Check returns the first rule of RFC 6455 that h, sent by the peer of role, breaks. open: a fragmented message is under
// way. It needs only what the first two bytes of a frame say, so an incomplete header can be checked too.
func Check(h Header, role Role, open bool) error {
	switch {
	case h.Rsv != 0: // 5.2, no extension is negotiated
		return ErrReservedBits
	case h.Op.Reserved(): // 5.2
		return ErrOpcode
	case role == Server && !h.Masked: // 5.1
		return ErrUnmasked
	case role == Client && h.Masked: // 5.1
		return ErrMasked
	case h.Op.Control() && (h.Len > MaxControl || !h.Fin): // 5.5
		return ErrControl
	case h.Op == Continuation && !open: // 5.4
		return ErrNoMessage
	case (h.Op == Text || h.Op == Binary) && open: // 5.4
		return ErrInterrupted
	}
	return nil
}

// ParseClose takes a close frame's unmasked payload apart. An empty one has code 0. reason aliases payload.
func ParseClose(payload []byte) (code Code, reason []byte, err error) {
	if len(payload) == 0 {
		return 0, nil, nil
	}
	if len(payload) == 1 { // 5.5.1: a body begins with a two-byte code
		return 0, nil, ErrCloseBody
	}
	code, reason = Code(binary.BigEndian.Uint16(payload)), payload[2:]
	switch {
	case !code.Wire(): // 7.4
		return 0, nil, ErrCloseCode
	case !utf8.Valid(reason): // 5.5.1, 8.1
		return 0, nil, ErrCloseReason
	}
	return code, reason, nil
}
