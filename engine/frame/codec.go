package frame

import (
	"encoding/binary"
	"unicode/utf8"
	"unsafe"
)

// Bits of the first two bytes (5.2).
const (
	finBit  = 0x80
	maskBit = 0x80
	len16   = 126 // two bytes of length follow
	len64   = 127 // eight bytes of length follow
)

// Parse reads the header at the start of b. n is its length in bytes; n == 0 without an error means that it is not
// complete yet. Fin, Rsv, Op and Masked are valid from two bytes on, whatever n and err are; with n == 0 Len is the least
// that those two bytes allow. Errors: ErrMinimal, ErrTopBit. The rules that need no more than the fields are Check's.
func Parse(b []byte) (h Header, n int, err error) {
	if len(b) < 2 {
		return Header{}, 0, nil
	}
	h = Header{
		Fin:    b[0]&finBit != 0,
		Rsv:    b[0] >> 4 & 7,
		Op:     Op(b[0] & 15),
		Masked: b[1]&maskBit != 0,
		Len:    int64(b[1] &^ maskBit),
	}
	n = 2
	switch h.Len {
	case len16:
		if len(b) < 4 {
			return h, 0, nil
		}
		v := int64(binary.BigEndian.Uint16(b[2:]))
		if v < len16 {
			return h, 0, ErrMinimal
		}
		h.Len, n = v, 4
	case len64:
		h.Len = 1 << 16
		if len(b) < 10 {
			return h, 0, nil
		}
		v := int64(binary.BigEndian.Uint64(b[2:]))
		if v < 0 {
			return h, 0, ErrTopBit
		}
		if v < 1<<16 {
			return h, 0, ErrMinimal
		}
		h.Len, n = v, 10
	}
	if h.Masked {
		if len(b) < n+4 {
			return h, 0, nil
		}
		h.Mask = [4]byte(b[n:])
		n += 4
	}
	return h, n, nil
}

// HeaderLen is the length in bytes, 2 to MaxHeader, that Append gives h.
func HeaderLen(h Header) int {
	n := 2
	switch {
	case h.Len > 0xffff:
		n = 10
	case h.Len >= len16:
		n = 4
	}
	if h.Masked {
		n += 4
	}
	return n
}

// Append appends h in wire form, its length in the shortest form (5.2).
func Append(dst []byte, h Header) []byte {
	b0, b1 := h.Rsv&7<<4|byte(h.Op&15), byte(0)
	if h.Fin {
		b0 |= finBit
	}
	if h.Masked {
		b1 = maskBit
	}
	switch {
	case h.Len > 0xffff:
		dst = append(dst, b0, b1|len64)
		dst = binary.BigEndian.AppendUint64(dst, uint64(h.Len))
	case h.Len >= len16:
		dst = append(dst, b0, b1|len16, byte(h.Len>>8), byte(h.Len))
	default:
		dst = append(dst, b0, b1|byte(h.Len))
	}
	if h.Masked {
		dst = append(dst, h.Mask[:]...)
	}
	return dst
}

// PutHead writes h, which has no mask, to the start of dst, which has room for it, and returns its length: Append for a
// server's frames, of which there are most.
func PutHead(dst []byte, h *Header) int {
	b0 := h.Rsv&7<<4 | byte(h.Op&15)
	if h.Fin {
		b0 |= finBit
	}
	dst[0] = b0
	switch {
	case h.Len < len16:
		dst[1] = byte(h.Len)
		return 2
	case h.Len <= 0xffff:
		dst[1] = len16
		binary.BigEndian.PutUint16(dst[2:], uint16(h.Len))
		return 4
	default:
		dst[1] = len64
		binary.BigEndian.PutUint64(dst[2:], uint64(h.Len))
		return 10
	}
}

// AppendClose appends a whole close frame as a server sends it. Code 0 and CloseNoStatus give an empty body. A reason
// over MaxReason bytes is cut before the character that crosses it. Another code that may not be on the wire is a bug of
// the caller's, of which the peer learns CloseFault.
func AppendClose(dst []byte, code Code, reason string) []byte {
	code, reason = sendable(code, reason)
	return appendCloseBody(appendCloseHeader(dst, code, reason, Header{}), code, reason)
}

// AppendCloseMasked is AppendClose for a client, whose frames are masked (5.3).
func AppendCloseMasked(dst []byte, code Code, reason string, mask [4]byte) []byte {
	code, reason = sendable(code, reason)
	dst = appendCloseHeader(dst, code, reason, Header{Masked: true, Mask: mask})
	body := len(dst)
	dst = appendCloseBody(dst, code, reason)
	Mask(dst[body:], mask, 0)
	return dst
}

func sendable(code Code, reason string) (Code, string) {
	if code == 0 || code == CloseNoStatus {
		return 0, ""
	}
	if !code.Wire() {
		return CloseFault, CloseFault.Reason()
	}
	n := min(len(reason), MaxReason)
	for n < len(reason) && n > 0 && !utf8.RuneStart(reason[n]) {
		n--
	}
	return code, reason[:n]
}

func appendCloseHeader(dst []byte, code Code, reason string, h Header) []byte {
	h.Fin, h.Op = true, Close
	if code != 0 {
		h.Len = int64(2 + len(reason))
	}
	return Append(dst, h)
}

func appendCloseBody(dst []byte, code Code, reason string) []byte {
	if code == 0 {
		return dst
	}
	return append(binary.BigEndian.AppendUint16(dst, uint16(code)), reason...)
}

// InPlace writes h, without a mask and for the payload as it is, over the header of the frame that ev came with, and returns
// frame and payload as one slice: what Next was given is what goes out. ok: false when there is no header in front of the
// payload, the payload is empty, or h is longer. From then on in is used up to the payload's end.
func (ev *Event) InPlace(h Header) (frame []byte, ok bool) {
	n := HeaderLen(h)
	if len(ev.Payload) == 0 || n > int(ev.lead) { // of an empty slice Go keeps no address
		return nil, false
	}
	start := unsafe.Add(unsafe.Pointer(unsafe.SliceData(ev.Payload)), -n) // the header's lead bytes lie there
	frame = unsafe.Slice((*byte)(start), n+len(ev.Payload))
	Append(frame[:0], h)
	return frame, true
}

// Join makes one slice of a and b if b lies right behind a in the same buffer, as frames do that InPlace has made of one read.
func Join(a, b []byte) (both []byte, ok bool) {
	if len(a) == 0 || len(b) == 0 || uintptr(unsafe.Pointer(unsafe.SliceData(a)))+uintptr(len(a)) != uintptr(unsafe.Pointer(unsafe.SliceData(b))) {
		return nil, false
	}
	return unsafe.Slice(unsafe.SliceData(a), len(a)+len(b)), true
}
