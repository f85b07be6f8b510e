package handshake

import (
	"bytes"
	"strings"
)

// splitTarget finds path and query. Paths have one form: no path of the API needs an escape, so none is decoded, and the
// bytes that are routed by are the bytes that were sent.
func (h *head) splitTarget(b []byte) Reason {
	from, no := h.origin(b)
	if no != none {
		return no
	}
	h.path, h.query = span{from, h.target.to}, span{h.target.to, h.target.to}
	if mark := bytes.IndexByte(h.path.of(b), '?'); mark >= 0 {
		h.query.from = from + mark + 1
		h.path.to = from + mark
	}
	if !canonicalPath(h.path.of(b)) || !canonicalQuery(h.query.of(b)) {
		return badTarget
	}
	return none
}

// origin says where the origin form begins. A server has to take the absolute form (RFC 9112 section 3.2.2); here it must
// name the same host as Host does, lest one counts where the other was checked.
func (h *head) origin(b []byte) (from int, no Reason) {
	target := h.target.of(b)
	if target[0] == '/' {
		return h.target.from, none
	}
	scheme, rest, found := bytes.Cut(target, []byte("://"))
	slash := bytes.IndexByte(rest, '/')
	if !found || slash < 0 || !bytes.EqualFold(scheme, []byte("http")) && !bytes.EqualFold(scheme, []byte("https")) {
		return 0, badTarget
	}
	if !bytes.EqualFold(rest[:slash], h.host.of(b)) {
		return 0, badTarget
	}
	return h.target.to - len(rest) + slash, none
}

// canonicalPath takes RFC 3986 section 3.3 without escapes, empty segments and dot segments.
func canonicalPath(p []byte) bool {
	for _, c := range p {
		if !isAlpha(c) && !isDigit(c) && strings.IndexByte("/-._~!$&'()*+,;=:@", c) < 0 {
			return false
		}
	}
	for segment := range bytes.SplitSeq(p[1:], []byte{'/'}) {
		if string(segment) == "." || string(segment) == ".." {
			return false
		}
	}
	return !bytes.Contains(p, []byte("//"))
}

// canonicalQuery takes RFC 3986 section 3.4, with escapes in upper case of what needs one, and never NUL.
func canonicalQuery(q []byte) bool {
	for i := 0; i < len(q); i++ {
		switch c := q[i]; {
		case c == '%':
			v, ok := unescape(q[i:])
			if !ok || v == 0 || isUnreserved(v) {
				return false
			}
			i += 2
		case !isUnreserved(c) && strings.IndexByte("!$&'()*+,;=:@/?", c) < 0:
			return false
		}
	}
	return true
}

func isUnreserved(c byte) bool { return isAlpha(c) || isDigit(c) || strings.IndexByte("-._~", c) >= 0 }

// unescape reads "%XX" at the start of b.
func unescape(b []byte) (byte, bool) {
	const hex = "0123456789ABCDEF"
	if len(b) < 3 {
		return 0, false
	}
	high, low := strings.IndexByte(hex, b[1]), strings.IndexByte(hex, b[2])
	return byte(high<<4 | low), high >= 0 && low >= 0
}
