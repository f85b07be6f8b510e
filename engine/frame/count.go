package frame

import "math"

// Count looks ahead over the next frames, at most so many: how many of them begin a message, and the payload bytes that data
// frames declare, also of one that is not here in full. in is what Next will get next. It judges nothing; frames behind one
// that Next will refuse may be counted.
func (r *Reader) Count(in []byte, frames int) (messages, bytes int64) {
	if r.fault != 0 || r.left >= int64(len(in)) {
		return 0, 0
	}
	pos := int(r.left)
	for ; frames > 0; frames-- {
		if b := in[pos:]; len(b) >= 6 && b[1] >= maskBit && b[1] < maskBit|len16 && b[0]&8 == 0 { // most: masked, short, data
			n := int(b[1] &^ maskBit)
			bytes += int64(n)
			if b[0]&15 != byte(Continuation) {
				messages++
			}
			if n+6 >= len(b) {
				return messages, bytes
			}
			pos += n + 6
			continue
		}
		h, n, err := Parse(in[pos:])
		if n == 0 || err != nil || h.Len > math.MaxInt32 { // over every limit that can be configured
			return messages, bytes
		}
		if !h.Op.Control() {
			bytes += h.Len
			if h.Op != Continuation {
				messages++
			}
		}
		if h.Len >= int64(len(in)-pos-n) {
			return messages, bytes
		}
		pos += n + int(h.Len)
	}
	return messages, bytes
}

// Longer reports whether in, which is what Next will get next, goes on with a compressed message, or begins one of more than n
// bytes or of more than one frame. Of a header that is not here in full it says no.
func (r *Reader) Longer(in []byte, n int64) bool {
	if r.fault != 0 || r.left > 0 {
		return r.fault == 0 && r.flags&isCompressed != 0
	}
	h, used, err := Parse(in)
	switch {
	case err != nil || used == 0:
		return false
	case h.Op == Continuation:
		return r.flags&isCompressed != 0
	}
	return h.Rsv&RSV1 != 0 && (!h.Fin || h.Len > n)
}

// Partial reports whether in, which is what Next will get next, begins with a part of a message in one frame, or of a header.
func (r *Reader) Partial(in []byte) bool {
	if r.fault != 0 || r.Open() {
		return false
	}
	h, n, err := Parse(in)
	return err == nil && (n == 0 || h.Fin && !h.Op.Control() && h.Len > int64(len(in)-n))
}
