package upgrade

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

const crlf = "\r\n"

// next looks on for the end of the line under way. eol is where its CRLF begins, -1 if that has not come. CR and LF stand
// for nothing but a line's end, together (RFC 9112 section 2.2 lets a server take a lone LF; then the next parser may not),
// and of the other control characters only HTAB may occur (RFC 9110 section 5.5).
func (s *Scan) next(in []byte) (eol int, p *Problem) {
	n, high := plain(in[s.at:])
	i := int(s.at) + n
	s.high = s.high || high
	switch {
	case i < len(in) && in[i] != '\r', i+1 < len(in) && in[i+1] != '\n':
		return -1, ErrControl
	case i+1 >= len(in): // a CR is looked at again, with its LF
		s.at = uint16(i)
		return -1, nil
	}
	s.at = uint16(i + len(crlf))
	return i, nil
}

const (
	ones = 0x0101010101010101
	tops = 0x80 * ones
)

// plain counts the bytes that b begins with that are no control character but HTAB, and says whether one was over 0x7f.
// It takes eight at a time, in lanes of a word: no sum of two 7-bit numbers here reaches the next lane.
func plain(b []byte) (n int, high bool) {
	var seen uint64
	for ; n+8 <= len(b); n += 8 {
		w := binary.LittleEndian.Uint64(b[n:])
		low := w &^ tops
		printed := low + 0x60*ones                       // top bit: 0x20 and over
		deleted := low + ones                            // top bit: 0x7f
		untabbed := (low ^ '\t'*ones) + 0x7f*ones        // top bit: not HTAB
		out := (^printed&untabbed | deleted) &^ w & tops // and not over 0x7f
		if out != 0 {
			end := bits.TrailingZeros64(out) &^ 7
			seen |= w & (1<<end - 1)
			return n + end/8, seen&tops != 0
		}
		seen |= w
	}
	high = seen&tops != 0
	for ; n < len(b) && (b[n] >= 0x20 && b[n] != 0x7f || b[n] == '\t'); n++ {
		high = high || b[n] > 0x7f
	}
	return n, high
}

// Character classes.
const (
	tokenChar  uint8 = 1 << iota // RFC 9110 section 5.6.2
	pathChar                     // pchar (RFC 3986 section 3.3) without '%' and ';'
	queryChar                    // the same and '/', '?'
	unreserved                   // RFC 3986 section 2.3
	hexUpper                     // RFC 3986 section 2.1: two encodings differ in case only, so one is canonical
	hexAny
	base64Char // RFC 4648 section 4
	hostChar   // letters, digits, '-', '.', '_'
)

var class = classes()

func classes() (t [256]uint8) {
	mark := func(chars string, as uint8) {
		for _, c := range []byte(chars) {
			t[c] |= as
		}
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	const digits = "0123456789"
	mark(letters+digits, tokenChar|pathChar|queryChar|unreserved|base64Char|hostChar)
	mark("!#$%&'*+-.^_`|~", tokenChar)
	mark("-._~", pathChar|queryChar|unreserved)
	mark("!$&'()*+,=:@", pathChar|queryChar)
	mark("/?", queryChar)
	mark("+/", base64Char)
	mark("-._", hostChar)
	mark(digits+"ABCDEF", hexUpper|hexAny)
	mark("abcdef", hexAny)
	return t
}

func isToken(c byte) bool { return class[c]&tokenChar != 0 }

func isTokens[T []byte | string](b T) bool {
	for i := range len(b) {
		if !isToken(b[i]) {
			return false
		}
	}
	return len(b) > 0
}

// trim takes optional white space off both ends (RFC 9110 section 5.6.3).
func trim(b []byte) []byte {
	b = trimLeft(b)
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

func trimLeft(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	return b
}

// element cuts the first element off a comma-separated list (RFC 9110 section 5.6.1).
func element(list []byte) (first, rest []byte, more bool) {
	first, rest, more = bytes.Cut(list, []byte{','})
	return trim(first), rest, more
}

// lists reports whether value, a list, has the element want, which is lower-case letters, in any case.
func lists(value []byte, want string) bool {
	for more := true; more; {
		var e []byte
		e, value, more = element(value)
		if isFold(e, want) {
			return true
		}
	}
	return false
}

// isFold compares b with want, which consists of lower-case letters and '-', without regard to case. '_' counts as '-':
// what CGI-like backends make of both (RFC 3875 section 4.1.18) is the same, so the caller refuses it where it matters.
func isFold(b []byte, want string) bool {
	if len(b) != len(want) {
		return false
	}
	for i, c := range b {
		if c|0x20 != want[i] && (c != '_' || want[i] != '-') {
			return false
		}
	}
	return true
}
