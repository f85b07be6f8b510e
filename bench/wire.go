package bench

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // RFC 6455 1.3 wants it
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// What a client and a WebSocket server say to each other (RFC 6455): one request, one answer, frames.
const (
	key    = "dGhlIHNhbXBsZSBub25jZQ=="     // the sample nonce of 1.3: load needs no fresh one
	accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" // and its answer

	OpContinuation = 0x0
	OpText         = 0x1
	OpClose        = 0x8
	OpPing         = 0x9
	OpPong         = 0xa
	fin            = 0x80
	masked         = 0x80

	headMax = 16 << 10
)

// mask is the masking key of every frame (5.3). A fixed one lets a message be masked once and sent a million times.
var mask = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// PoliteClose is a masked close frame with code 1000.
var PoliteClose = AppendFrame(nil, OpClose, []byte{0x03, 0xe8})

// Errors of what a server sends.
var (
	ErrHead   = errors.New("bench: not an HTTP/1.1 answer")
	ErrAccept = errors.New("bench: 101 without the right Sec-WebSocket-Accept")
	ErrMasked = errors.New("bench: masked frame from the server, or one without mask from a client")
	ErrLength = errors.New("bench: frame over 16 MiB")
)

// A StatusError is an answer with another status than the one hoped for.
type StatusError struct {
	Status int
	Body   string // its first 300 bytes at most
}

// Error tells the status and the body.
func (e *StatusError) Error() string { return fmt.Sprintf("bench: HTTP %d: %s", e.Status, e.Body) }

// A CloseError is a close frame from the server.
type CloseError struct {
	Code   int // 1005 if the frame had none
	Reason string
}

// Error tells code and reason.
func (e *CloseError) Error() string { return fmt.Sprintf("bench: closed %d %q", e.Code, e.Reason) }

// AppendUpgrade appends the request that opens path on host. secret is the ticket's second secret, empty for none.
func AppendUpgrade(dst []byte, host string, path, secret []byte) []byte {
	dst = append(dst, "GET "...)
	dst = append(dst, path...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, host...)
	dst = append(dst, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+key...)
	if len(secret) > 0 {
		dst = append(dst, "\r\nSec-WebSocket-Protocol: ticketgate.v1, "...)
		dst = append(dst, secret...)
	}
	return append(dst, "\r\n\r\n"...)
}

// AppendFrame appends a final, masked frame.
func AppendFrame(dst []byte, op byte, payload []byte) []byte {
	switch n := len(payload); {
	case n <= 125:
		dst = append(dst, fin|op, masked|byte(n))
	case n <= 0xffff:
		dst = binary.BigEndian.AppendUint16(append(dst, fin|op, masked|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, fin|op, masked|127), uint64(n))
	}
	dst = append(dst, mask[:]...)
	for i, b := range payload {
		dst = append(dst, b^mask[i&3])
	}
	return dst
}

// AppendUnmasked appends the frame that a server sends back for AppendFrame's.
func AppendUnmasked(dst []byte, op byte, payload []byte) []byte {
	return AppendAs(dst, Frame{Op: op, Fin: true, Payload: payload})
}

// AppendAs appends f as a server sends it.
func AppendAs(dst []byte, f Frame) []byte {
	first := f.Op
	if f.Fin {
		first |= fin
	}
	switch n := len(f.Payload); {
	case n <= 125:
		dst = append(dst, first, byte(n))
	case n <= 0xffff:
		dst = binary.BigEndian.AppendUint16(append(dst, first, 126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, first, 127), uint64(n))
	}
	return append(dst, f.Payload...)
}

// A Frame is one frame of a server. Payload lies in the bytes it was parsed from.
type Frame struct {
	Op      byte
	Fin     bool
	Payload []byte
}

// ParseFrame reads a server's frame; n is 0 until all of it is there.
func ParseFrame(b []byte) (f Frame, n int, err error) {
	if len(b) >= 2 && b[1]&masked != 0 {
		return Frame{}, 0, ErrMasked
	}
	return parse(b, 0)
}

// ParseMasked reads a client's frame and unmasks its payload where it lies; n is 0 until all of it is there.
func ParseMasked(b []byte) (f Frame, n int, err error) {
	if len(b) >= 2 && b[1]&masked == 0 {
		return Frame{}, 0, ErrMasked
	}
	if f, n, err = parse(b, len(mask)); n > 0 {
		k := b[n-len(f.Payload)-len(mask):]
		key := [4]byte{k[0], k[1], k[2], k[3]}
		for i := range f.Payload {
			f.Payload[i] ^= key[i&3]
		}
	}
	return f, n, err
}

// parse reads a frame whose payload stands key bytes behind its length.
func parse(b []byte, key int) (f Frame, n int, err error) {
	if len(b) < 2 {
		return Frame{}, 0, nil
	}
	head, size := 2, uint64(b[1]&^masked)
	switch {
	case size == 126 && len(b) >= 4:
		head, size = 4, uint64(binary.BigEndian.Uint16(b[2:]))
	case size == 127 && len(b) >= 10:
		head, size = 10, binary.BigEndian.Uint64(b[2:])
	case size > 125:
		return Frame{}, 0, nil
	}
	if size > 16<<20 {
		return Frame{}, 0, ErrLength
	}
	head += key
	n = head + int(size)
	if len(b) < n {
		return Frame{}, 0, nil
	}
	return Frame{Op: b[0] & 0xf, Fin: b[0]&fin != 0, Payload: b[head:n]}, n, nil
}

// Closed is what the close frame f says.
func Closed(f Frame) *CloseError { return closed(f.Payload) }

// closed turns the payload of a close frame into an error.
func closed(payload []byte) *CloseError {
	if len(payload) < 2 {
		return &CloseError{Code: 1005}
	}
	return &CloseError{Code: int(binary.BigEndian.Uint16(payload)), Reason: string(payload[2:])}
}

// parseHead finds the end of an HTTP head and its status; n is 0 until all of it is there.
func parseHead(b []byte) (status, n int, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > headMax {
			return 0, 0, ErrHead
		}
		return 0, 0, nil
	}
	if end < 12 || string(b[:9]) != "HTTP/1.1 " {
		return 0, 0, ErrHead
	}
	for _, d := range b[9:12] {
		if d < '0' || d > '9' {
			return 0, 0, ErrHead
		}
		status = status*10 + int(d-'0')
	}
	return status, end + 4, nil
}

// An Upgrade asks for a WebSocket and then hands the Conn to Then, whose Opened means "the 101 is here". What goes wrong
// before reaches Then.Closed: a StatusError, or why the connection broke.
type Upgrade struct {
	Head []byte // AppendUpgrade; kept until Opened
	Then Handler
}

// Opened implements Handler.
func (u *Upgrade) Opened(c *Conn) { c.Write(u.Head) }

// Data implements Handler.
func (u *Upgrade) Data(c *Conn, b []byte) int {
	status, n, err := parseHead(b)
	switch {
	case err != nil:
	case n == 0:
		return 0
	case status != 101:
		err = &StatusError{status, string(b[n:min(len(b), n+300)])}
	case !bytes.Contains(b[:n], []byte(accept)):
		err = ErrAccept
	}
	if err != nil {
		c.Close()
		u.Then.Closed(c, err)
		return 0
	}
	c.Handle(u.Then)
	u.Then.Opened(c)
	return n
}

// Closed implements Handler.
func (u *Upgrade) Closed(c *Conn, err error) { u.Then.Closed(c, early(err)) }

// early names an end that came before the answer.
func early(err error) error {
	if err == io.EOF {
		return fmt.Errorf("bench: closed before the answer: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// answerControl does what a client owes to a control frame (5.5): a ping gets a pong. It returns the close that the
// server asked for, nil if none.
func answerControl(c *Conn, f Frame) *CloseError {
	switch f.Op {
	case OpPing:
		Pong(c, f)
	case OpClose:
		return closed(f.Payload)
	}
	return nil
}

// Pong answers the ping f.
func Pong(c *Conn, f Frame) {
	var frame [maxControl + 8]byte
	c.Write(AppendFrame(frame[:0], OpPong, f.Payload))
}

const maxControl = 125 // bytes of a control frame's payload (5.5)

// AppendAnswer appends the 101 to the upgrade request that b begins with, and says how long that is; 0 until all of it is there.
func AppendAnswer(dst, b []byte) (answer []byte, n int, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > headMax {
			return dst, 0, ErrHead
		}
		return dst, 0, nil
	}
	nonce := ""
	for line := range strings.SplitSeq(string(b[:end]), "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(name, "Sec-WebSocket-Key") {
			nonce = strings.TrimSpace(value)
		}
	}
	if nonce == "" {
		return dst, 0, ErrHead
	}
	sum := sha1.Sum([]byte(nonce + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // RFC 6455 1.3 wants it
	dst = append(dst, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	dst = base64.StdEncoding.AppendEncode(dst, sum[:])
	return append(dst, "\r\n\r\n"...), end + 4, nil
}
