package handshake

import (
	"net"
	"time"
)

// ParseAsk is the decoder of a ticket request, for the fuzz test.
func ParseAsk(body []byte) (stream, client, origin string, params, protocols []string, problem string) {
	a, problem := parseAsk(body)
	for _, p := range a.params {
		params = append(params, p.Name, p.Value)
	}
	return a.stream, a.client, a.origin, params, a.protocols, problem
}

// ReadRequest reads one request as a connection does, from bytes that are all there. canonical is what fasthttp is given;
// status is 0, or that of the refusal. more: the request is not complete.
func ReadRequest(in []byte) (canonical []byte, used, status int, more bool) {
	in = append([]byte(nil), in...)
	var h head
	n, no := h.feed(in)
	if no != none || n == 0 {
		return nil, 0, refusals[no].status, no == none
	}
	var body []byte
	used = n + h.length
	if h.chunked {
		k := chunks{n, n, n}
		done, no := k.feed(in)
		if no != none || !done {
			return nil, 0, refusals[no].status, no == none
		}
		body, used = in[n:k.out], k.in
	} else if len(in) < used {
		return nil, 0, 0, true
	} else {
		body = in[n:used]
	}
	return append(h.appendCanonical(nil, in, n, len(body)), body...), used, 0, false
}

// FeedBytes feeds a head byte by byte and tells the status of its refusal, 0 if there is none.
func FeedBytes(in []byte) (n, status int) {
	var h head
	for i := range in {
		n, no := h.feed(in[:i+1])
		if no != none || n > 0 {
			return n, refusals[no].status
		}
	}
	return 0, 0
}

// SetListener replaces what Listen opened.
func (s *Server) SetListener(l net.Listener) { s.listener = l }

// Listener returns what Listen opened.
func (s *Server) Listener() net.Listener { return s.listener }

// NewConn is what Serve puts between an accepted socket and fasthttp.
func (s *Server) NewConn(c net.Conn) net.Conn { return &conn{Conn: c, s: s, since: time.Now()} }
