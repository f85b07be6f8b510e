package frame

import "unicode/utf8"

// A UTF8 is the state of UTF-8 validation between two parts of a message: the beginning, at most three bytes, of a
// character that the last part cut. It is valid so far, else validation would have stopped. The zero value is the beginning
// of a message, and so is one whose message is Whole. A Reader has its own; what was compressed is checked by who inflates it.
type UTF8 struct {
	cut [3]byte
	n   uint8
}

// Add validates the next part. false: a byte in it, or the way it goes on, cannot occur in UTF-8 (RFC 3629 section 4:
// overlong forms, surrogates and anything above U+10FFFF are out). Whole parts go through utf8.Valid, which does ASCII at
// memory speed; only the up to three bytes at either end are looked at one by one.
func (t *UTF8) Add(p []byte) bool { return t.add(p, false) }

// add is Add for a caller that may know p to be ASCII.
func (t *UTF8) add(p []byte, ascii bool) bool {
	if ascii && t.n == 0 {
		return true
	}
	for t.n > 0 && len(p) > 0 {
		var c [4]byte
		copy(c[:], t.cut[:t.n])
		c[t.n] = p[0]
		t.n, p = t.n+1, p[1:]
		switch {
		case !utf8.FullRune(c[:t.n]): // still only a beginning, and a possible one
			copy(t.cut[:], c[:])
		case utf8.Valid(c[:t.n]):
			t.n = 0
		default:
			return false
		}
	}
	p = t.keepCut(p)
	return utf8.Valid(p)
}

// keepCut takes the beginning of a character off p's end and keeps it.
func (t *UTF8) keepCut(p []byte) []byte {
	for i := len(p) - 1; i >= 0 && i >= len(p)-3; i-- {
		if !utf8.RuneStart(p[i]) {
			continue
		}
		if !utf8.FullRune(p[i:]) {
			t.n = uint8(copy(t.cut[:], p[i:]))
			return p[:i]
		}
		break
	}
	return p
}

// Whole reports whether the message may end here: not inside a character.
func (t *UTF8) Whole() bool { return t.n == 0 }
