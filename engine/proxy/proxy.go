// Package proxy reads the PROXY protocol, versions 1 and 2, as HAProxy's proxy-protocol.txt has it: what a load balancer
// writes in front of a connection to say whom it is for. It is pure functions over the bytes that a loop has read: no
// socket, no clock, no allocation, and no state, because a header is short enough to be looked at again from its start.
//
//	proxy.go   Parse: which version, or none      policy.go  who has to, may and must not send a header
//	line.go    version 1, a line of text          binary.go  version 2, bytes
//
// It takes less than go-proxyproto v0.15.0, its oracle, never more. Refused here and taken there are: a version 2 header of
// more than MaxHeader bytes; a transport of datagrams, which no stream is; TLVs that do not fill the header exactly, and a
// CRC32c TLV that is wrong, repeated or not 4 bytes long (both of the command PROXY); a CR that is not the line's end
// behind UNKNOWN. A header that comes in pieces is taken here.
package proxy

import (
	"errors"
	"net/netip"
)

// Bounds of a header in bytes. 536 is what the specification (section 2.2) asks receivers to be ready for: the smallest
// segment of TCP, and room for the largest addresses and 304 bytes of TLVs.
const (
	MaxLine   = 107 // version 1, with its CRLF
	MaxHeader = 536 // version 2, with its TLVs
)

const (
	signature1 = "PROXY "
	signature2 = "\r\n\r\n\x00\r\nQUIT\n"
)

// What Parse finds wrong. A connection whose header is refused is closed without a word: its peer is no client.
var (
	ErrAbsent   = errors.New("proxy: no PROXY header")
	ErrLine     = errors.New("proxy: a version 1 header that is not well formed")
	ErrLong     = errors.New("proxy: a PROXY header longer than its limit")
	ErrCommand  = errors.New("proxy: a version 2 header of another version or command than LOCAL and PROXY")
	ErrFamily   = errors.New("proxy: a version 2 header for something else than TCP or a unix stream")
	ErrLength   = errors.New("proxy: a version 2 header whose lengths do not fit each other")
	ErrChecksum = errors.New("proxy: a version 2 header with a wrong checksum")
)

// Header is what a PROXY header says. Both addresses are not valid where it names none: the proxy speaks for itself (LOCAL),
// does not know (UNKNOWN), or has its client on a unix socket. IPv4 addresses that are written as IPv6 are IPv4 here.
type Header struct {
	Source  netip.AddrPort // the client
	Dest    netip.AddrPort // where the client had connected to
	Version uint8          // 1 or 2
}

// Peer is who the connection is from: the header's client, or own, the connection's peer, where it names none.
func (h *Header) Peer(own netip.AddrPort) netip.AddrPort {
	if h.Source.IsValid() {
		return h.Source
	}
	return own
}

// Parse looks for a header at the start of in, which is all that has come on the connection so far. n == 0 and no error:
// more bytes are needed. n > 0: h is a header of n bytes, and in[n:] is what the client sent. An error is final: ErrAbsent
// says that in begins with something else, any other that the header is wrong.
//
// The verdict falls with the byte that decides it, however the bytes were cut; two faults are seen later: a line that is too
// long with its byte MaxLine, a wrong checksum with the header's last byte. Parse keeps nothing of in.
func Parse(in []byte) (h Header, n int, err error) {
	switch {
	case begins(in, signature1):
		if len(in) < len(signature1) {
			return Header{}, 0, nil
		}
		return version1(in)
	case begins(in, signature2):
		if len(in) < len(signature2) {
			return Header{}, 0, nil
		}
		return version2(in)
	}
	return Header{}, 0, ErrAbsent
}

// begins reports whether in begins with text, or is a beginning of it.
func begins(in []byte, text string) bool {
	n := min(len(in), len(text))
	return string(in[:n]) == text[:n]
}
