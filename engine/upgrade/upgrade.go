// Package upgrade is the opening handshake of WebSocket (RFC 6455 section 4, over the message syntax of RFC 9112) as pure
// functions over the bytes that a loop has read: it opens no socket, reads no clock and does not allocate. It accepts less
// than the RFCs allow where two parsers could read one head in two ways.
//
//	upgrade.go  Parse: a head, as far as it has come      line.go    lines, tokens, lists
//	request.go  header lines, and the rules over them     target.go  one path, one meaning; the Host
//	problem.go  every refusal, and its answer             accept.go  the 101
//	client.go   the same from the other side, for relays
package upgrade

import (
	"bytes"
	"unsafe"
)

// Limits on a head; beyond them it is refused as soon as that can be seen.
const (
	MaxHead   = 16 << 10 // bytes, with the empty line
	MaxLines  = 100      // header lines
	MaxTarget = 8000     // bytes of the request target; RFC 9112 section 3 asks for at least as much

	// maxMethod is longer than any registered method (RFC 9110 section 16.1).
	maxMethod = 32
)

const version = "HTTP/1.1"

// Scan is how far an unfinished head has been looked at. Its zero value is ready, it has no pointers and fits in 16
// bytes: an unfinished socket keeps one, so that a head that comes byte by byte costs no more than three looks at each
// of its bytes: one to find the end of its line, one to judge the line, and one to fill the Request when all is there.
type Scan struct {
	at      uint16 // the bytes before it have been looked at
	line    uint16 // where the line under way begins
	space   uint16 // request: the space behind the method; 0 if not come to yet
	head    uint16 // response: where the head under way begins, behind interim responses
	seen    uint16 // fields that may come once and have: a bit each
	lines   uint8  // header lines
	interim uint8  // response: interim responses
	high    bool   // the line under way has a byte over 0x7f
	passed  bool   // response: the head under way is an interim response
}

// One lies beside every unfinished head: over 16 bytes does not compile.
const _ = uint(16 - unsafe.Sizeof(Scan{}))

// Parse looks for a head at the start of in, which must begin with the same bytes as in the last call with s. n == 0 and
// no problem: more bytes are needed. n > 0: a head of n bytes is in r, and in[n:] is what follows. A problem is final: the
// answer is its Append, and nothing behind the head is to be looked at (RFC 9112 section 11.2).
//
// The verdict does not depend on how the bytes were cut: faults are judged in the order of their last byte.
func Parse(in []byte, s *Scan, r *Request) (n int, p *Problem) {
	resumed := s.line > 0
	r.reset(in)
	if n, p = s.request(in, r); n == 0 || p != nil {
		return 0, p
	}
	if resumed { // the lines of former calls went into a Request that is gone
		*s = Scan{}
		r.reset(in)
		if n, p = s.request(in, r); p != nil {
			return 0, p
		}
	}
	r.head = in[:n:n]
	if p = r.judge(); p != nil {
		return 0, p
	}
	return n, nil
}

// request goes on with a request's head, line by line.
func (s *Scan) request(in []byte, r *Request) (n int, p *Problem) {
	if s.line == 0 {
		if done, p := s.requestLine(in, r); !done || p != nil {
			return 0, p
		}
	}
	for {
		at := int(s.line)
		line, more, p := s.field(in)
		switch {
		case p != nil || more:
			return 0, p
		case len(line) == 0:
			return int(s.at), nil
		}
		if p := r.field(s, line, at); p != nil {
			return 0, p
		}
		s.high = false
	}
}

// requestLine goes on with the first line. What can be seen before its end is seen: a byte that no method has, a method
// or a target that is too long. Nothing may stand before it, not even the empty line that RFC 9112 section 2.2 tolerates.
func (s *Scan) requestLine(in []byte, r *Request) (done bool, p *Problem) {
	if s.space == 0 {
		if found, p := s.method(in); !found || p != nil {
			return false, p
		}
	}
	end := int(s.space) + len(" ") + MaxTarget + len(" "+version+crlf)
	eol, p := s.next(in[:min(len(in), end)])
	switch {
	case p != nil:
		return false, p
	case eol < 0 && len(in) >= end:
		return false, ErrTarget
	case eol < 0:
		return false, nil
	}
	s.line = s.at
	return true, r.first(in[:eol], int(s.space))
}

func (s *Scan) method(in []byte) (found bool, p *Problem) {
	for i, c := range in[s.at:min(len(in), maxMethod+1)] {
		switch {
		case c == ' ' && int(s.at)+i > 0:
			s.space = s.at + uint16(i)
			s.at = s.space + 1
			return true, nil
		case !isToken(c):
			return false, ErrRequestLine
		}
	}
	if len(in) > maxMethod {
		return false, ErrMethodUnknown // RFC 9112 section 3
	}
	s.at = uint16(len(in))
	return false, nil
}

// first takes the whole request line apart; the method ends at space. A line that is not of our protocol version is not
// judged further.
func (r *Request) first(line []byte, space int) *Problem {
	r.Method = line[:space]
	rest := line[space+1:]
	end := bytes.IndexByte(rest, ' ')
	switch {
	case end < 0:
		return ErrRequestLine
	case string(rest[end+1:]) != version:
		return ErrVersion
	}
	switch string(r.Method) {
	case "GET":
	case "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH":
		return ErrMethod
	default: // methods are case-sensitive (RFC 9110 section 9.1)
		return ErrMethodUnknown
	}
	return r.target(rest[:end])
}

// field goes on to the end of the next header line and gives it, without its CRLF. more: it is not whole yet. An empty
// line is the end of the head.
func (s *Scan) field(in []byte) (line []byte, more bool, p *Problem) {
	head := in[:min(len(in), MaxHead)]
	eol, p := s.next(head)
	switch {
	case p != nil:
		return nil, false, p
	case eol < 0 && len(head) == MaxHead:
		return nil, false, ErrHeadSize
	case eol < 0:
		return nil, true, nil
	}
	line = head[s.line:eol]
	if len(line) > 0 {
		if s.lines == MaxLines {
			return nil, false, ErrHeadLines
		}
		s.lines++
	}
	s.line = s.at
	return line, false, nil
}
