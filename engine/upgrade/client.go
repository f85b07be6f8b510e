package upgrade

import (
	"bytes"
	"errors"
)

// maxInterim is how many interim responses (RFC 9110 section 15.2) a backend may send before its answer; all together
// must fit in MaxHead too.
const maxInterim = 8

// Header is a header line for AppendRequest.
type Header struct{ Name, Value string }

// ErrRequest says that something given to AppendRequest has no place in a request head.
var ErrRequest = errors.New("upgrade: malformed host, target, key, subprotocol or header")

// AppendRequest appends a client's handshake (RFC 6455 section 4.1). host is the Host field; target begins with '/'; key is
// 16 random bytes in base64; protocols are offered in their order. headers must not be fields that the handshake sets
// itself or that announce a body. If anything is malformed, so that it could end its line or become another field,
// it gives dst as it was and ErrRequest.
func AppendRequest(dst []byte, host, target string, key []byte, protocols []string, headers ...Header) ([]byte, error) {
	if !IsHost(host) || !isTarget(target) || !isKey(key) {
		return dst, ErrRequest
	}
	out := append(dst, "GET "...)
	out = append(out, target...)
	out = append(out, " "+version+"\r\nHost: "...)
	out = append(out, host...)
	out = append(out, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "...)
	out = append(out, key...)
	sep := "\r\nSec-WebSocket-Protocol: "
	for _, p := range protocols {
		if !isTokens(p) {
			return dst, ErrRequest
		}
		out = append(out, sep...)
		out = append(out, p...)
		sep = ", "
	}
	for _, h := range headers {
		if !isTokens(h.Name) || !isPassed(h.Name) || !isValue(h.Value) {
			return dst, ErrRequest
		}
		out = append(out, crlf...)
		out = append(out, h.Name...)
		out = append(out, ": "...)
		out = append(out, h.Value...)
	}
	return append(out, crlf+crlf...), nil
}

// isTarget is looser than canonicalPath: the target of a backend comes from its operator.
func isTarget(t string) bool {
	return len(t) > 0 && t[0] == '/' && len(t) <= MaxTarget && isGraphic(t)
}

// isPassed reports whether a caller may add the field.
func isPassed(name string) bool {
	k := kindOf([]byte(name))
	return k == other || k == cookie || k == origin
}

// isGraphic reports whether t is of visible ASCII characters.
func isGraphic(t string) bool {
	for i := range len(t) {
		if t[i] <= ' ' || t[i] > '~' {
			return false
		}
	}
	return true
}

func isValue(v string) bool {
	n, _ := plain([]byte(v))
	return n == len(v)
}

// Response is a backend's answer. Its bytes alias ParseResponse's in and die with it.
type Response struct {
	Key     []byte   // given by the caller: the request's
	Offered []string // given by the caller: the request's subprotocols

	Status   int    // of the answer; 0 if its first line is malformed. Valid with n > 0 or a problem
	Protocol []byte // the selected subprotocol, one of Offered; nil if none

	accept    []byte
	websocket bool // Upgrade is websocket
	connected bool // Connection lists upgrade
}

// ParseResponse looks for the answer to a handshake at the start of in, which must begin with the same bytes as in the
// last call with s. n == 0 and no problem: more bytes are needed. n > 0: a valid 101 (RFC 6455 section 4.1) of n bytes,
// and what follows are frames. ErrBackendStatus: another answer, r.Status says which; ErrBackendAnswer: no valid answer.
// After a problem the connection is of no use. Interim responses are passed over.
func ParseResponse(in []byte, s *Scan, r *Response) (n int, p *Problem) {
	resumed := s.line > 0
	r.reset()
	n, p = s.response(in, r)
	if n > 0 && resumed { // the lines of former calls are forgotten
		*s = Scan{}
		r.reset()
		n, p = s.response(in, r)
	}
	if n > 0 && p == nil {
		p = r.judge()
	}
	if p != nil {
		r.Protocol = nil
		return 0, p
	}
	return n, nil
}

func (r *Response) reset() {
	*r = Response{Key: r.Key, Offered: r.Offered}
}

// response goes on with a response's heads, line by line, until that of a 101 is whole.
func (s *Scan) response(in []byte, r *Response) (n int, p *Problem) {
	for {
		if s.line == s.head {
			if done, p := s.statusLine(in, r); !done || p != nil {
				return 0, p
			}
		}
		line, more, p := s.field(in)
		switch {
		case p != nil:
			return 0, ErrBackendAnswer
		case more:
			return 0, nil
		case len(line) > 0:
			if !r.field(s, line) {
				return 0, ErrBackendAnswer
			}
		case s.passed && s.interim == maxInterim:
			return 0, ErrBackendAnswer
		case s.passed:
			s.interim++
			s.head, s.seen = s.line, 0
		default:
			return int(s.at), nil
		}
	}
}

// statusLine goes on with a head's first line (RFC 9112 section 4).
func (s *Scan) statusLine(in []byte, r *Response) (done bool, p *Problem) {
	head := in[:min(len(in), MaxHead)]
	eol, p := s.next(head)
	switch {
	case p != nil, eol < 0 && len(head) == MaxHead:
		return false, ErrBackendAnswer
	case eol < 0:
		return false, nil
	}
	status := statusOf(head[s.line:eol])
	s.line, s.passed = s.at, status < 200 && status != 101
	switch {
	case status == 0:
		return false, ErrBackendAnswer
	case status >= 200:
		r.Status = status
		return false, ErrBackendStatus
	case status == 101:
		r.Status = status
	}
	return true, nil
}

// statusOf gives the status of a status line, 0 if it is malformed or not of our protocol version. The space and the
// phrase behind the status may be missing: servers forget them, and nothing depends on them.
func statusOf(line []byte) int {
	rest, ok := bytes.CutPrefix(line, []byte(version+" "))
	if !ok || len(rest) < 3 || len(rest) > 3 && rest[3] != ' ' {
		return 0
	}
	status, ok := decimal(rest[:3])
	if !ok || status < 100 || status > 599 {
		return 0
	}
	return status
}

// field judges one header line of a response.
func (r *Response) field(s *Scan, line []byte) bool {
	_, value, k, p := s.split(line, onceInResponse)
	if p != nil || s.passed {
		return p == nil
	}
	switch k {
	case accept:
		r.accept = value
	case connection:
		r.connected = r.connected || lists(value, "upgrade")
	case upgrade: // one value here, not a list (RFC 6455 section 4.1, item 2 of the client's checks)
		r.websocket = isFold(value, "websocket")
		return r.websocket
	case protocol:
		r.Protocol = value
		return r.offered(value)
	case extensions, contentLength, transferEncoding: // none was offered; a 101 has no body (RFC 9110 section 8.6)
		return false
	}
	return true
}

func (r *Response) offered(value []byte) bool {
	for _, p := range r.Offered {
		if string(value) == p {
			return true
		}
	}
	return false
}

// judge applies the rules that need the whole head.
func (r *Response) judge() *Problem {
	var want [AcceptLen]byte
	Accept(want[:], r.Key)
	if !r.websocket || !r.connected || !bytes.Equal(r.accept, want[:]) {
		return ErrBackendAnswer
	}
	return nil
}
