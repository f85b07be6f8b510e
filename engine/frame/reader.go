package frame

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
	"unsafe"
)

// Inbound, in the order of this file:
//
//	Next      bytes as the loop read them; the first two are checked before the rest of the header is there
//	Whole     a message in one frame that is here in full, which is what most are: nothing of it has to be remembered
//	control   a whole ping, pong or close
//	begin     the header of a data frame: type, fragment count and declared length are judged before any payload
//	part      what has arrived of the frame's payload: unmasked in place, text validated, handed out

// Rules are what a Reader demands of its peer beyond RFC 6455. All sockets of a stream share one value; nobody writes to it.
type Rules struct {
	Role         Role
	Opcodes      Opcodes // kinds of messages let in; the zero value lets none in
	MaxMessage   int64   // bytes a message may declare over all its fragments; 0 allows empty messages only
	MaxFragments int     // frames that a message may consist of, 1 to 1<<31-1; 0 allows no message
	Compressed   bool    // permessage-deflate is negotiated: RSV1 marks a message whose bytes are compressed. MaxMessage counts them as they are
}

// Opcodes is a set of message kinds.
type Opcodes uint8

// The message kinds. A message of another kind closes with CloseUnsupported.
const (
	AllowText Opcodes = 1 << iota
	AllowBinary
	AllowBoth = AllowText | AllowBinary
)

func (o Opcodes) has(op Op) bool {
	return op == Text && o&AllowText != 0 || op == Binary && o&AllowBinary != 0
}

// Kind is what an Event tells.
type Kind uint8

// The kinds; the zero value is no event.
const (
	KindData Kind = iota + 1
	KindPing
	KindPong
	KindClose
)

// Event is what Next found.
type Event struct {
	Kind       Kind
	Op         Op     // data: Text or Binary of the message, for its continuation frames too
	First      bool   // data: first part of a message
	Last       bool   // data: last part of a message
	Head       bool   // data: first part of a frame
	Tail       bool   // data: last part of a frame
	Fin        bool   // data: the frame is the last one of its message
	Code       Code   // close: 0 if the body was empty
	Compressed bool   // data: the message is, by permessage-deflate; text has not been validated
	lead       uint8  // data: bytes of the frame's header, which lies in front of Payload
	FrameLen   int64  // data: payload bytes of the whole frame
	Payload    []byte // unmasked, aliases Next's in; close: the reason, without the code
}

// Reader is the inbound state of one socket: which frame of which message is under way. It has no pointers and fits in
// 48 bytes, so a million of them are invisible to the garbage collector. The zero value is ready. It belongs to the
// socket's loop.
type Reader struct {
	frameLen int64  // payload of the current or last frame
	left     int64  // of it, not yet here
	message  int64  // declared so far by the frames of the current or last message
	frames   uint32 // of the current or last message
	mask     [4]byte
	text     UTF8
	flags    uint8
	fault    uint8 // 1 + index in violations
}

// A Reader lies in every open socket's row: over 48 bytes does not compile.
const _ = uint(48 - unsafe.Sizeof(Reader{}))

// Reader.flags.
const (
	isOpen       uint8 = 1 << iota // the message's last frame has not begun: a continuation must come
	isFin                          // the current or last frame is its message's last
	isText                         // the current or last message is text
	isCompressed                   // it is compressed: its bytes are none of the reader's business
)

// violations is what Reader.fault points into.
var violations = [...]*Error{
	ErrReservedBits, ErrOpcode, ErrUnmasked, ErrMasked, ErrControl, ErrNoMessage, ErrInterrupted, ErrMinimal, ErrTopBit,
	ErrCloseBody, ErrCloseCode, ErrAfterClose, ErrOpcodeDenied, ErrText, ErrCloseReason, ErrFragments, ErrTooBig,
}

// Open reports whether the peer owes something: the rest of a frame, or the next fragment of a message. A header that
// has not arrived whole does not count.
func (r *Reader) Open() bool { return r.left > 0 || r.flags&isOpen != 0 }

// MessageLen is how many payload bytes of the current message Next has handed out; between messages, of the last one.
func (r *Reader) MessageLen() int64 { return r.message - r.left }

// Next takes the next event out of in, unmasking its payload in place, and says how many bytes it used: the caller goes
// on with in[n:], and keeps what is left when n == 0 (more bytes are needed; never more than MaxHeader + MaxControl are
// left). A data frame that is wholly in in is one event. Of a longer one each call hands out what is there, beginning with
// the header, which is used up and told (Head) even if no payload has come with it. Control frames are told when whole.
//
// An error is an *Error and final: every later call gives it again. After a close frame nothing may follow (5.5.1), so
// every later call with bytes gives ErrAfterClose.
func (r *Reader) Next(ru *Rules, in []byte) (ev Event, n int, err error) {
	n, err = r.Read(&ev, ru, in)
	return ev, n, err
}

// Read is Next for a caller that has an Event to be overwritten. With n == 0 or an error it has no meaning.
func (r *Reader) Read(ev *Event, ru *Rules, in []byte) (n int, err error) {
	if n, err := r.Whole(ev, ru, in); n > 0 || err != nil {
		return n, err
	}
	if r.fault != 0 {
		return 0, r.again(in)
	}
	if r.left > 0 {
		return r.part(ev, in, 0)
	}
	h, n, err := Parse(in)
	if len(in) < 2 {
		return 0, nil
	}
	rsv := h.Rsv
	if rsv == RSV1 && ru.Compressed && (h.Op == Text || h.Op == Binary) { // RFC 7692 section 6: on the first frame only
		h.Rsv = 0
	}
	// First the rules of the first two bytes, so that the verdict does not depend on how the bytes were cut.
	if broken := Check(h, ru.Role, r.flags&isOpen != 0); broken != nil {
		return 0, r.fail(broken)
	}
	if err != nil {
		return 0, r.fail(err)
	}
	if n == 0 {
		return 0, nil
	}
	if h.Op.Control() {
		return r.control(ev, h, in, n)
	}
	if broken := r.begin(ru, &h, rsv); broken != nil {
		return 0, r.fail(broken)
	}
	return r.part(ev, in, n)
}

// Whole is Read for what most reads bring: a message in one frame of less than 64 KiB, all of it here. With n == 0 and no error
// it is something else, and nothing has happened.
func (r *Reader) Whole(ev *Event, ru *Rules, in []byte) (n int, err error) {
	if len(in) < 8 || r.fault != 0 || r.left != 0 || r.flags&isOpen != 0 {
		return 0, nil
	}
	op := Op(in[0] &^ finBit)
	if in[0] < finBit || !ru.Opcodes.has(op) { // has knows neither reserved bits nor other opcodes
		return 0, nil
	}
	size, lead, masked := int(in[1]), 2, ru.Role == Server
	if masked {
		size, lead = size-maskBit, 6
	}
	if size == len16 {
		size = int(binary.BigEndian.Uint16(in[2:]))
		lead += 2
		if size < len16 {
			return 0, nil
		}
	} else if uint(size) > len16 { // the bit for the mask is wrong, or eight bytes of length follow
		return 0, nil
	}
	if size > len(in)-lead || int64(size) > ru.MaxMessage || ru.MaxFragments < 1 {
		return 0, nil
	}
	n = lead + size
	p := in[lead:n:n]
	ascii := false
	if masked {
		ascii = mask(p, binary.LittleEndian.Uint32(in[lead-4:])) == 0
	} else if op == Text {
		ascii = high(p) == 0
	}
	r.message, r.flags = int64(size), isFin
	if op == Text {
		r.flags |= isText
		if !ascii && !utf8.Valid(p) {
			return 0, r.fail(ErrText)
		}
	}
	*ev = Event{Kind: KindData, Op: op, First: true, Last: true, Head: true, Tail: true, Fin: true,
		lead: uint8(lead), FrameLen: int64(size), Payload: p}
	return n, nil
}

// control tells of a control frame once all of it is in in; the header takes n bytes.
func (r *Reader) control(ev *Event, h Header, in []byte, n int) (int, error) {
	end := n + int(h.Len)
	if len(in) < end {
		return 0, nil
	}
	*ev = Event{Payload: in[n:end:end]}
	if h.Masked {
		Mask(ev.Payload, h.Mask, 0)
	}
	switch h.Op {
	case Ping:
		ev.Kind = KindPing
	case Pong:
		ev.Kind = KindPong
	default:
		code, reason, err := ParseClose(ev.Payload)
		if err != nil {
			return 0, r.fail(err)
		}
		ev.Kind, ev.Code, ev.Payload = KindClose, code, reason
		r.setFault(ErrAfterClose)
	}
	return end, nil
}

// begin enters a data frame, which Check has passed; rsv are its reserved bits.
func (r *Reader) begin(ru *Rules, h *Header, rsv byte) error {
	if h.Op != Continuation {
		if !ru.Opcodes.has(h.Op) {
			return ErrOpcodeDenied
		}
		r.message, r.frames, r.flags = 0, 0, 0
		if h.Op == Text {
			r.flags = isText
		}
		if rsv != 0 {
			r.flags |= isCompressed
		}
	}
	if h.Len > ru.MaxMessage-r.message { // a difference: a sum could overflow
		return ErrTooBig
	}
	if int64(r.frames) >= int64(ru.MaxFragments) {
		return ErrFragments
	}
	r.frames++
	r.message += h.Len
	r.frameLen, r.left, r.mask = h.Len, h.Len, h.Mask
	if h.Fin {
		r.flags = r.flags&^isOpen | isFin
	} else {
		r.flags |= isOpen
	}
	return nil
}

// part hands out what in has of the current frame's payload, which begins at in[n]. n > 0: behind the frame's header.
func (r *Reader) part(ev *Event, in []byte, n int) (int, error) {
	if n == 0 && len(in) == 0 {
		return 0, nil
	}
	end := n + int(min(r.left, int64(len(in)-n)))
	p := in[n:end:end]
	ascii := false
	if r.mask != [4]byte{} { // a zero key (or none, of a server) changes nothing
		ascii = mask(p, bits.RotateLeft32(binary.LittleEndian.Uint32(r.mask[:]), -8*int((r.frameLen-r.left)&3))) == 0
	}
	r.left -= int64(len(p))
	fin, tail := r.flags&isFin != 0, r.left == 0
	op := Binary
	if r.flags&isText != 0 {
		op = Text
		if r.flags&isCompressed == 0 && (!r.text.add(p, ascii) || tail && fin && !r.text.Whole()) {
			return 0, r.fail(ErrText)
		}
	}
	ev.Kind, ev.Op, ev.Code = KindData, op, 0
	ev.Compressed = r.flags&isCompressed != 0
	ev.Head, ev.First = n > 0, n > 0 && r.frames == 1
	ev.Tail, ev.Fin, ev.Last = tail, fin, tail && fin
	ev.FrameLen, ev.Payload, ev.lead = r.frameLen, p, uint8(n)
	return end, nil
}

// fail ends the reader with broken, one of the violations, and gives it back.
func (r *Reader) fail(broken error) error {
	r.setFault(broken)
	return broken
}

func (r *Reader) setFault(broken error) {
	for i, v := range violations {
		if v == broken {
			r.fault = uint8(i + 1)
		}
	}
}

// again is the answer to every call after the first error or the close frame.
func (r *Reader) again(in []byte) error {
	broken := violations[r.fault-1]
	if broken == ErrAfterClose && len(in) == 0 {
		return nil
	}
	return broken
}
