package conform

import (
	"bufio"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"unicode/utf8"
)

// Socket is one end of an open WebSocket whose frames are made by hand. One goroutine writes and one reads.
type Socket struct {
	conn   net.Conn
	r      *bufio.Reader
	client bool        // we are: what we send is masked, what comes is not (5.1)
	ext    *deflate    // permessage-deflate as negotiated; nil: none
	rnd    *rand.Rand  // of the writer: mask keys
	pieces [][]byte    // of a frame with Cuts, not sent yet
	in     messageOpen // of the reader
}

// Close ends the connection without ceremony.
func (s *Socket) Close() error { return s.conn.Close() }

// A Breach is a rule that the examined broke in what it sent.
type Breach string

// Error implements error.
func (b Breach) Error() string { return "it sent " + string(b) }

// closed is a close frame as it came.
type closed struct {
	code   uint16 // 0: an empty one
	reason string
}

// messageOpen is the message that is being received.
type messageOpen struct {
	op       byte // 0: none
	deflated bool
	payload  []byte
	over     bool // the close frame was here
}

// messageMax is above the longest message of any case.
const messageMax = 64 << 20

// header is the head of a frame as it came.
type header struct {
	fin bool
	rsv byte
	op  byte
	n   int
	key [4]byte
}

// receive returns the next message or control frame: an Event, or a close frame.
func (s *Socket) receive() (Event, *closed, error) {
	for {
		h, err := s.readHeader()
		if err != nil {
			return Event{}, nil, err
		}
		payload, err := s.readPayload(h)
		if err != nil {
			return Event{}, nil, err
		}
		if h.op >= opClose {
			if h.op == opClose {
				c, err := readClose(payload)
				s.in.over = err == nil
				return Event{}, c, err
			}
			return Event{h.op, payload}, nil, nil
		}
		if h.fin {
			ev, err := s.message()
			return ev, nil, err
		}
	}
}

// readHeader reads the head of a frame and holds it against section 5.2 and what came before it.
func (s *Socket) readHeader() (h header, err error) {
	var b [8]byte
	if _, err := io.ReadFull(s.r, b[:2]); err != nil {
		return h, err
	}
	if s.in.over {
		return h, Breach("a frame behind its close frame")
	}
	h = header{fin: b[0]&0x80 != 0, rsv: b[0] >> 4 & 7, op: b[0] & 0xf, n: int(b[1] & 0x7f)}
	masked, form := b[1]&0x80 != 0, 0
	switch h.n {
	case 126:
		form = 2
	case 127:
		form = 8
	}
	if form > 0 {
		if _, err := io.ReadFull(s.r, b[8-form:]); err != nil {
			return h, cut(err)
		}
		clear(b[:8-form])
		n := binary.BigEndian.Uint64(b[:])
		if form == 2 && n < 126 || form == 8 && n < 1<<16 {
			return h, Breach("a length that is not in its shortest form")
		}
		if n > messageMax {
			return h, Breach(fmt.Sprintf("a frame of %d bytes", n))
		}
		h.n = int(n)
	}
	if masked == s.client {
		return h, Breach(fmt.Sprintf("a frame whose mask bit is %t", masked))
	}
	if masked {
		if _, err := io.ReadFull(s.r, h.key[:]); err != nil {
			return h, cut(err)
		}
	}
	return h, s.check(h)
}

// check holds a head against what is under way (5.2, 5.4, 5.5; 7692 6).
func (s *Socket) check(h header) error {
	first := h.op == opText || h.op == opBinary
	switch {
	case h.rsv&3 != 0 || h.rsv&4 != 0 && (s.ext == nil || !first):
		return Breach(fmt.Sprintf("reserved bits %03b in a frame of opcode %d", h.rsv, h.op))
	case h.op > opBinary && h.op < opClose || h.op > opPong:
		return Breach(fmt.Sprintf("opcode %d", h.op))
	case h.op >= opClose && (!h.fin || h.n > 125):
		return Breach("a control frame that is long or in fragments")
	case h.op == opContinuation && s.in.op == 0:
		return Breach("a continuation of nothing")
	case first && s.in.op != 0:
		return Breach("a message inside another")
	case h.op < opClose && len(s.in.payload)+h.n > messageMax:
		return Breach("a message that does not end")
	case first:
		s.in = messageOpen{op: h.op, deflated: h.rsv == 4}
	}
	return nil
}

// readPayload reads a frame's payload, of a data frame into the message.
func (s *Socket) readPayload(h header) ([]byte, error) {
	var payload []byte
	if h.op < opClose {
		at := len(s.in.payload)
		s.in.payload = append(s.in.payload, make([]byte, h.n)...)
		payload = s.in.payload[at:]
	} else {
		payload = make([]byte, h.n)
	}
	if _, err := io.ReadFull(s.r, payload); err != nil {
		return nil, cut(err)
	}
	mask(payload, h.key)
	return payload, nil
}

// cut tells the end of the connection inside a frame from one between frames.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// message takes the message that is whole now.
func (s *Socket) message() (Event, error) {
	ev := Event{s.in.op, s.in.payload}
	if s.in.deflated {
		var err error
		if ev.Data, err = s.ext.inflate(ev.Data); err != nil {
			return ev, Breach("a message that does not inflate: " + err.Error())
		}
	}
	s.in = messageOpen{}
	if ev.Op == opText && !utf8.Valid(ev.Data) {
		return ev, Breach("text that is no UTF-8")
	}
	return ev, nil
}

// readClose takes a close frame's body apart (5.5.1, 7.4).
func readClose(payload []byte) (*closed, error) {
	switch {
	case len(payload) == 0:
		return &closed{}, nil
	case len(payload) == 1:
		return nil, Breach("a close frame with half a code")
	}
	c := &closed{binary.BigEndian.Uint16(payload), string(payload[2:])}
	if c.code < 1000 || c.code >= 1004 && c.code <= 1006 || c.code == 1015 || c.code > 4999 || c.code >= 1016 && c.code < 3000 {
		return nil, Breach(fmt.Sprintf("close code %d", c.code))
	}
	if !utf8.ValidString(c.reason) {
		return nil, Breach("a close reason that is no UTF-8")
	}
	return c, nil
}

// send writes a part.
func (s *Socket) send(p *Part) error {
	if p.Next {
		if len(s.pieces) == 0 {
			return errors.New("the case has no further piece")
		}
		next := s.pieces[0]
		s.pieces = s.pieces[1:]
		return s.write(next, p.Chop)
	}
	var wire []byte
	for i := range p.Frames {
		f := &p.Frames[i]
		encoded, ends := s.encode(f, p.Fragment)
		if len(f.Cuts) > 0 {
			s.pieces = split(encoded, ends)
			encoded, s.pieces = s.pieces[0], s.pieces[1:]
		}
		if !p.Apart {
			wire = append(wire, encoded...)
			continue
		}
		if err := s.write(encoded, p.Chop); err != nil {
			return err
		}
	}
	return s.write(wire, p.Chop)
}

// write writes b, chop octets at a time.
func (s *Socket) write(b []byte, chop int) error {
	if chop == 0 {
		chop = max(1, len(b))
	}
	for rest := b; len(rest) > 0; {
		piece := rest[:min(len(rest), chop)]
		if _, err := s.conn.Write(piece); err != nil {
			return err
		}
		rest = rest[len(piece):]
	}
	return nil
}

// encode puts f on the wire, compressed if that was negotiated and f is part of a legal message, and says where on the wire
// its Cuts are. fragment > 0 makes several frames of it.
func (s *Socket) encode(f *Frame, fragment int) (wire []byte, ends []int) {
	payload, rsv := f.Payload, f.RSV
	if s.ext != nil {
		payload, rsv, ends = s.ext.frame(f)
	} else {
		ends = f.Cuts
	}
	if fragment == 0 || len(payload) <= fragment {
		whole := *f
		whole.RSV, whole.Payload = rsv, payload
		return s.appendFrame(nil, &whole), fromEnd(ends, len(payload))
	}
	for i, one := range fragments(f.Op, payload, fragment) {
		if i == 0 {
			one.RSV = rsv
		}
		wire = s.appendFrame(wire, &one)
	}
	return wire, nil
}

// fromEnd turns positions in a payload of n bytes into negative ones, which also hold in the frame that ends with it.
func fromEnd(at []int, n int) []int {
	var all []int
	for _, i := range at {
		all = append(all, i-n)
	}
	return all
}

// split cuts a frame at the positions ends, counted from its end.
func split(b []byte, ends []int) [][]byte {
	var all [][]byte
	from := 0
	for _, e := range ends {
		all = append(all, b[from:len(b)+e])
		from = len(b) + e
	}
	return append(all, b[from:])
}

// appendFrame appends one frame; what is wrong in it is left as it is.
func (s *Socket) appendFrame(dst []byte, f *Frame) []byte {
	head := f.Op | f.RSV<<4
	if f.Fin {
		head |= 0x80
	}
	masked := s.client != f.WrongMask
	b := appendLength(append(dst, head), f, masked)
	if !masked {
		return append(b, f.Payload...)
	}
	var key [4]byte
	binary.LittleEndian.PutUint32(key[:], s.rnd.Uint32()|1) // never 0, which would hide that nobody unmasks
	b = append(b, key[:]...)
	at := len(b)
	b = append(b, f.Payload...)
	mask(b[at:], key)
	return b
}

// appendLength appends the length and the mask bit.
func appendLength(dst []byte, f *Frame, masked bool) []byte {
	n, octets := uint64(len(f.Payload)), f.Octets
	switch {
	case octets > 0:
		n = f.Length
	case n >= 1<<16:
		octets = 8
	case n >= 126:
		octets = 2
	}
	var bit byte
	if masked {
		bit = 0x80
	}
	switch octets {
	case 2:
		return binary.BigEndian.AppendUint16(append(dst, bit|126), uint16(n))
	case 8:
		return binary.BigEndian.AppendUint64(append(dst, bit|127), n)
	default:
		return append(dst, bit|byte(n))
	}
}

// mask masks or unmasks b in place (5.3).
func mask(b []byte, key [4]byte) {
	if key == [4]byte{} {
		return
	}
	var keys [1 << 10]byte
	for i := range keys {
		keys[i] = key[i&3]
	}
	for rest := b; len(rest) > 0; {
		n := subtle.XORBytes(rest, rest, keys[:])
		rest = rest[n:]
	}
}
