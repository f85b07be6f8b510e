package upgrade

import (
	"bytes"
	"unicode/utf8"
)

// target takes the request target apart and refuses every form that somebody could read as another path: the bytes that
// routing sees are the bytes that are sent on. Origin form, or absolute form with the authority that Host names
// (RFC 9112 section 3.2); judge compares, so it has the form that Host has.
func (r *Request) target(t []byte) *Problem {
	r.Target = t
	if rest, ok := afterScheme(t); ok {
		end := bytes.IndexByte(rest, '/')
		if end < 0 {
			return ErrCanonical
		}
		r.authority, t = rest[:end], rest[end:]
	}
	end := canonicalPath(t)
	if end < 0 {
		return ErrCanonical
	}
	r.Path = t[:end]
	if end < len(t) {
		r.Query = t[end+1:]
		if !canonicalQuery(r.Query) {
			return ErrCanonical
		}
	}
	return nil
}

func afterScheme(t []byte) (rest []byte, ok bool) {
	if rest, ok = bytes.CutPrefix(t, []byte("http://")); ok {
		return rest, true
	}
	return bytes.CutPrefix(t, []byte("https://"))
}

// canonicalPath gives the length of the path that t begins with, which '?' or t's end limits; -1 if it is not canonical.
// Refused are an empty segment (but for the last) and one that ends with a dot: "." and ".." are resolved by some, and
// other dots at the end dropped by file systems; ';', which some take for the end of a segment; what RFC 3986 has encoded;
// and encodings that are needless or dangerous.
func canonicalPath(t []byte) int {
	if len(t) == 0 || t[0] != '/' {
		return -1
	}
	for i := 1; i < len(t); {
		switch c := t[i]; {
		case class[c]&pathChar != 0:
			i++
		case c == '/':
			if t[i-1] == '/' || t[i-1] == '.' {
				return -1
			}
			i++
		case c == '?':
			return endOfPath(t[:i])
		case c == '%':
			n := encoded(t[i:], plainInPath)
			if n == 0 {
				return -1
			}
			i += n
		default:
			return -1
		}
	}
	return endOfPath(t)
}

func endOfPath(path []byte) int {
	if path[len(path)-1] == '.' {
		return -1
	}
	return len(path)
}

// canonicalQuery is looser about encodings, as a value may itself be a URL, but not about ';', which is '&' to some.
func canonicalQuery(q []byte) bool {
	for i := 0; i < len(q); {
		switch c := q[i]; {
		case class[c]&queryChar != 0:
			i++
		case c == '%':
			n := encoded(q[i:], plainInQuery)
			if n == 0 {
				return false
			}
			i += n
		default:
			return false
		}
	}
	return true
}

// encoded gives the length of the percent-encoded character that t begins with, 0 if it is not fit: not two upper-case
// hexadecimal digits (RFC 3986 section 6.2.2.1), a control character, refused by plain, or not UTF-8.
func encoded(t []byte, plain func(c byte, behind []byte) bool) int {
	c, ok := octet(t)
	if !ok || c < 0x20 || c == 0x7f {
		return 0
	}
	if c < 0x80 {
		if !plain(c, t[3:]) {
			return 0
		}
		return 3
	}
	var char [4]byte
	for n := range char {
		if char[n], ok = octet(t[min(3*n, len(t)):]); !ok {
			return 0
		}
		switch {
		case !utf8.FullRune(char[:n+1]):
		case utf8.Valid(char[:n+1]):
			return 3 * (n + 1)
		default:
			return 0
		}
	}
	return 0
}

// octet decodes the "%XX" that t begins with.
func octet(t []byte) (c byte, ok bool) {
	if len(t) < 3 || t[0] != '%' || class[t[1]]&class[t[2]]&hexUpper == 0 {
		return 0, false
	}
	return digit(t[1])<<4 | digit(t[2]), true
}

// digit gives the value of a hexadecimal digit.
func digit(c byte) byte {
	if c >= 'A' {
		return c - 'A' + 10
	}
	return c - '0'
}

// plainInPath reports whether c may stand encoded in a path: not what needs no encoding (RFC 3986 section 6.2.2.2), not
// what separates on one system or another, and not what would be an encoding once decoded.
func plainInPath(c byte, behind []byte) bool {
	switch {
	case class[c]&unreserved != 0, c == '/', c == '\\', c == ';':
		return false
	case c == '%':
		return len(behind) < 2 || class[behind[0]]&class[behind[1]]&hexAny == 0
	}
	return true
}

func plainInQuery(byte, []byte) bool { return true }
