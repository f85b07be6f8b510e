package upgrade

import (
	"crypto/sha1" // #nosec G505 -- what RFC 6455 section 4.2.2 prescribes; it protects nothing
	"encoding/base64"
)

// Lengths in bytes of Sec-WebSocket-Key and Sec-WebSocket-Accept.
const (
	KeyLen    = 24
	AcceptLen = 28
)

// guid is that of RFC 6455 section 1.3.
const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// Accept writes the Sec-WebSocket-Accept for key, KeyLen bytes, into the first AcceptLen bytes of dst.
func Accept(dst, key []byte) {
	var in [KeyLen + len(guid)]byte
	copy(in[:], key[:KeyLen])
	copy(in[KeyLen:], guid)
	sum := sha1.Sum(in[:]) // #nosec G401 -- see the import
	base64.StdEncoding.Encode(dst[:AcceptLen], sum[:])
}

// AppendSwitch appends the 101 for a request's Key. protocol is the selected subprotocol, a token, and extensions the answer
// to the extensions offered, a list of RFC 6455 section 9.1; either is empty for none.
func AppendSwitch(dst, key, protocol, extensions []byte) []byte {
	dst = append(dst, version+" 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	var sum [AcceptLen]byte
	Accept(sum[:], key)
	dst = append(dst, sum[:]...)
	if len(protocol) > 0 {
		dst = append(dst, "\r\nSec-WebSocket-Protocol: "...)
		dst = append(dst, protocol...)
	}
	if len(extensions) > 0 {
		dst = append(dst, "\r\nSec-WebSocket-Extensions: "...)
		dst = append(dst, extensions...)
	}
	return append(dst, crlf+crlf...)
}
