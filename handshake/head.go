package handshake

import (
	"bytes"
	"strconv"

	"ticketgate/engine/upgrade"
)

// fasthttp reads a head generously: folded lines, Content_Length, both length fields at once, other versions. So every head
// is read here first, by RFC 9112 and RFC 9110 and no more than they ask, and fasthttp is given only what passed:
//
//	socket > head.feed, one line at a time > body or chunks.next > appendCanonical > fasthttp
//
// Limits on a head. A longer one is refused as soon as that can be seen.
const (
	headMax   = 16 << 10
	linesMax  = 100  // after the request line
	targetMax = 8000 // RFC 9112 section 3 wants 8,000 at least
	bodyMax   = 16 << 10
)

// A head is a request head as far as it has come. Offsets are into the request's bytes, so the bytes may move.
type head struct {
	at    int // where the line under way begins
	eol   int // how far that line has been searched for its end
	lines int

	method, target, version, path, query, host span
	coding, expect                             span // whole lines, which the canonical head leaves out

	seen    field // bits of the fields that may stand once
	length  int   // of Content-Length
	chunked bool
}

// A span is a part of the request's bytes.
type span struct{ from, to int }

func (s span) of(b []byte) []byte { return b[s.from:s.to] }

// A field is a bit for each field that must not stand twice, because two readers might take different ones.
type field uint16

const (
	fieldHost field = 1 << iota
	fieldContentLength
	fieldTransferEncoding
	fieldExpect
	fieldContentType
	fieldContentEncoding
	fieldAuthorization
	fieldOrigin
)

var single = []struct {
	name []byte
	bit  field
}{
	{[]byte("host"), fieldHost},
	{[]byte("content-length"), fieldContentLength},
	{[]byte("transfer-encoding"), fieldTransferEncoding},
	{[]byte("expect"), fieldExpect},
	{[]byte("content-type"), fieldContentType},
	{[]byte("content-encoding"), fieldContentEncoding},
	{[]byte("authorization"), fieldAuthorization},
	{[]byte("origin"), fieldOrigin},
}

// feed goes on with b, the request's bytes so far, which begin with those of the last call. n > 0: the head has n bytes. A
// reason is final. Every byte is looked at twice at most, however the head was cut.
func (h *head) feed(b []byte) (n int, no Reason) {
	for {
		lf := bytes.IndexByte(b[h.eol:], '\n')
		if lf < 0 {
			h.eol = len(b)
			return 0, h.tooLong(len(b))
		}
		end := h.eol + lf + 1
		if no := h.tooLong(end); no != none {
			return 0, no
		}
		line := span{h.at, end - 2}
		if line.to < line.from || b[line.to] != '\r' {
			return 0, badHead // a lone LF ends no line: RFC 9112 section 2.2 lets it, the next parser may not
		}
		if line.to == line.from && h.lines > 0 {
			return end, h.finish(b)
		}
		if no := h.line(b, line); no != none {
			return 0, no
		}
		if h.lines++; h.lines > 1+linesMax {
			return 0, headTooLarge
		}
		h.at, h.eol = end, end
	}
}

// tooLong judges a head of which size bytes are here.
func (h *head) tooLong(size int) Reason {
	switch {
	case h.lines == 0 && size > targetMax+len("OPTIONS  HTTP/1.1\r\n"):
		return targetTooLong
	case size > headMax:
		return headTooLarge
	}
	return none
}

func (h *head) line(b []byte, line span) Reason {
	for _, c := range line.of(b) {
		if c < 0x20 && c != '\t' || c > 0x7e { // RFC 9110 section 5.5; obs-text has no meaning that two readers share
			return badHead
		}
	}
	if h.lines == 0 {
		return h.requestLine(b, line)
	}
	return h.field(b, line)
}

// requestLine is RFC 9112 section 3: method SP target SP version, one space each, nothing in front.
func (h *head) requestLine(b []byte, line span) Reason {
	text := line.of(b)
	first, last := bytes.IndexByte(text, ' '), bytes.LastIndexByte(text, ' ')
	if first <= 0 || last <= first+1 {
		return badHead
	}
	h.method = span{line.from, line.from + first}
	h.target = span{h.method.to + 1, line.from + last}
	h.version = span{h.target.to + 1, line.to}
	if !isToken(h.method.of(b)) || bytes.ContainsAny(h.target.of(b), " \t") {
		return badHead
	}
	if no := version(h.version.of(b)); no != none {
		return no
	}
	if !knownMethod(string(h.method.of(b))) {
		return unknownMethod
	}
	if h.target.to-h.target.from > targetMax {
		return targetTooLong
	}
	return none
}

// version is RFC 9112 section 2.3.
func version(b []byte) Reason {
	if len(b) != len("HTTP/1.1") || string(b[:5]) != "HTTP/" || !isDigit(b[5]) || b[6] != '.' || !isDigit(b[7]) {
		return badHead
	}
	if b[5] != '1' || b[7] > '1' {
		return badVersion
	}
	return none
}

// knownMethod leaves out CONNECT and TRACE, which no path has or will have.
func knownMethod(m string) bool {
	switch m {
	case "GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH":
		return true
	}
	return false
}

// field is one line name ":" OWS value OWS. A folded line has no name, and a space before the colon is none (RFC 9112
// section 5). '_' is refused in names: what gateways of the CGI kind make of '_' and '-' is the same.
func (h *head) field(b []byte, line span) Reason {
	text := line.of(b)
	colon := bytes.IndexByte(text, ':')
	if colon <= 0 || !isToken(text[:colon]) || bytes.IndexByte(text[:colon], '_') >= 0 {
		return badHead
	}
	value := span{line.from + colon + 1, line.to}
	for value.from < value.to && isSpace(b[value.from]) {
		value.from++
	}
	for value.from < value.to && isSpace(b[value.to-1]) {
		value.to--
	}
	for i := range single {
		if bytes.EqualFold(text[:colon], single[i].name) {
			if h.seen&single[i].bit != 0 {
				return badHead
			}
			h.seen |= single[i].bit
			return h.known(single[i].bit, b, line, value)
		}
	}
	return none
}

func (h *head) known(f field, b []byte, line, value span) Reason {
	switch f {
	case fieldHost:
		h.host = value
		if !upgrade.IsHost(value.of(b)) {
			return badHead
		}
	case fieldContentLength:
		return h.contentLength(value.of(b))
	case fieldTransferEncoding:
		h.coding, h.chunked = line, true
		if !bytes.EqualFold(value.of(b), []byte("chunked")) {
			return badCoding // RFC 9112 section 6.1; identity is gone since RFC 7230
		}
	case fieldExpect:
		h.expect = line
		if !bytes.EqualFold(value.of(b), []byte("100-continue")) {
			return badExpect
		}
	}
	return none
}

// contentLength is RFC 9110 section 8.6, 1*DIGIT: no sign, no list.
func (h *head) contentLength(value []byte) Reason {
	for _, c := range value {
		if !isDigit(c) {
			return badFraming
		}
	}
	n, err := strconv.ParseUint(string(value), 10, 63)
	if err != nil { // empty, or over 2^63
		return badFraming
	}
	if n > bodyMax {
		return bodyTooLarge
	}
	h.length = int(n)
	return none
}

// finish judges what takes all lines to see.
func (h *head) finish(b []byte) Reason {
	old := b[h.version.to-1] == '0'
	method := string(h.method.of(b))
	hasBody := h.chunked || h.length > 0
	switch {
	case h.seen&fieldHost == 0 && !old: // RFC 9112 section 3.2
		return badHead
	case h.chunked && (old || h.seen&fieldContentLength != 0): // RFC 9112 section 6.1
		return badFraming
	case hasBody && method != "POST" && method != "PUT" && method != "PATCH": // nothing reads it, so somebody else might
		return badFraming
	}
	return h.splitTarget(b)
}

// waits reports whether the client holds its body back until it is told to go on (RFC 9110 section 10.1.1).
func (h *head) waits() bool { return h.expect.to > 0 && (h.chunked || h.length > 0) }

// appendCanonical appends the head of n bytes as fasthttp gets it: the target in origin form, no expectation (it has been
// met), and Content-Length instead of chunks. body is the length of the body.
func (h *head) appendCanonical(dst, b []byte, n, body int) []byte {
	dst = append(append(dst, h.method.of(b)...), ' ')
	dst = append(append(dst, b[h.path.from:h.query.to]...), ' ')
	dst = append(append(dst, h.version.of(b)...), "\r\n"...)
	for at := h.version.to + 2; at < n-2; {
		end := at + bytes.IndexByte(b[at:n], '\n') + 1
		if at != h.coding.from && at != h.expect.from {
			dst = append(dst, b[at:end]...)
		}
		at = end
	}
	if h.chunked {
		dst = strconv.AppendInt(append(dst, "Content-Length: "...), int64(body), 10)
		dst = append(dst, "\r\n"...)
	}
	return append(dst, "\r\n"...)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isAlpha(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// isToken is RFC 9110 section 5.6.2.
func isToken[T string | []byte](b T) bool {
	for i := range len(b) {
		if c := b[i]; !isAlpha(c) && !isDigit(c) && !bytes.ContainsRune([]byte("!#$%&'*+-.^_`|~"), rune(c)) {
			return false
		}
	}
	return len(b) > 0
}
