package main

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // RFC 6455 4.2.2 demands it
	"encoding/base64"
	"encoding/binary"
)

const (
	guid    = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" // RFC 6455 1.3
	keyName = "\r\nsec-websocket-key: "
	headMax = 16 << 10 // bytes of a request
	opClose = 0x8
	opPing  = 0x9
	masked  = 0x80
)

// A socket is where a client's byte stream stands.
type socket struct {
	open bool   // the upgrade is done
	part []byte // a request or a frame's header that has not come whole

	left uint64  // payload bytes of the frame under way
	mask [4]byte // its key, turned so that the next byte is masked with the first of it
	bye  bool    // it is a close frame: the connection ends with it
}

// answer takes what came and returns what is to be sent, which lies in b or is new; false: then close.
func (s *socket) answer(b []byte) (out []byte, ok bool) {
	if !s.open {
		return s.upgrade(b)
	}
	if len(s.part) > 0 {
		b = append(s.part, b...)
		s.part = nil
	}
	out = b[:0] // an answer is shorter than what it answers: it loses the mask
	for len(b) > 0 {
		if s.left == 0 {
			var n int
			if out, n = s.head(out, b); n == 0 {
				s.part = bytes.Clone(b)
				return out, true
			}
			b = b[n:]
		}
		n := int(min(s.left, uint64(len(b))))
		out = s.unmask(out, b[:n])
		b = b[n:]
		s.left -= uint64(n)
		if s.left == 0 && s.bye {
			return out, false
		}
	}
	return out, true
}

// head takes the header of a masked frame and appends that of its answer. It answers 0 until the header is whole.
func (s *socket) head(out, b []byte) (_ []byte, n int) {
	if len(b) < 2 {
		return out, 0
	}
	n = 2
	switch b[1] &^ masked {
	case 126:
		n = 4
	case 127:
		n = 10
	}
	if len(b) < n+4 {
		return out, 0
	}
	switch n {
	case 2:
		s.left = uint64(b[1] &^ masked)
	case 4:
		s.left = uint64(binary.BigEndian.Uint16(b[2:]))
	default:
		s.left = binary.BigEndian.Uint64(b[2:])
	}
	copy(s.mask[:], b[n:])
	s.bye = b[0]&0xf == opClose
	first := b[0]
	if first&0xf == opPing {
		first++ // a pong with the same payload
	}
	out = append(out, first, b[1]&^masked)
	return append(out, b[2:n]...), n + 4
}

// unmask appends the payload b, which lies behind out in the same memory.
func (s *socket) unmask(out, b []byte) []byte {
	key := uint64(binary.LittleEndian.Uint32(s.mask[:]))
	key |= key << 32
	at := len(out)
	out = out[:at+len(b)]
	dst := out[at:]
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(dst, binary.LittleEndian.Uint64(b)^key)
		dst, b = dst[8:], b[8:]
	}
	for i := range b {
		dst[i] = b[i] ^ s.mask[i&3]
	}
	turn := len(b) & 3
	s.mask = [4]byte{s.mask[turn], s.mask[(turn+1)&3], s.mask[(turn+2)&3], s.mask[(turn+3)&3]}
	return out
}

// upgrade answers a request with 101.
func (s *socket) upgrade(b []byte) ([]byte, bool) {
	b = append(s.part, b...)
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		s.part = b
		return nil, len(b) < headMax
	}
	at := bytes.Index(bytes.ToLower(b[:end+2]), []byte(keyName)) // HAProxy writes names in lower case
	if at < 0 || len(b) > end+4 {                                // a client says nothing before its 101
		return nil, false
	}
	key, _, _ := bytes.Cut(b[at+len(keyName):], []byte("\r\n"))
	s.part, s.open = nil, true
	sum := sha1.Sum(append(bytes.Clone(key), guid...)) //nolint:gosec // see above
	out := []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ")
	return append(base64.StdEncoding.AppendEncode(out, sum[:]), "\r\n\r\n"...), true
}
