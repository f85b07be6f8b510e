package deflate

// The words of RFC 7692 section 7.
const (
	extension       = "permessage-deflate"
	serverNoContext = "server_no_context_takeover"
	clientNoContext = "client_no_context_takeover"
	serverBits      = "server_max_window_bits"
	clientBits      = "client_max_window_bits"
)

// maxBits is the whole window of DEFLATE, 2^15 bytes, for a client that does not ask for less, which it may down to 8 bits.
const maxBits = 15

// An Answer is what becomes of a client's offers. The zero value has seen none and accepts nothing. It keeps no bytes of them.
type Answer struct {
	bits  uint8 // 0: none accepted
	asked bool  // for fewer bits, so the answer must say them
}

// Offer takes the value of one Sec-WebSocket-Extensions line, in their order; the first offer that can be accepted is.
// Declined is one that has a parameter which is unknown, repeated or without its proper value (RFC 7692 section 7.1), and
// any other extension. ErrOffer: the line is not of the form of RFC 6455 section 9.1 and the handshake fails, whatever was
// accepted. One pass over line, no allocation.
func (a *Answer) Offer(line []byte) error {
	s := scan{line}
	for {
		s.space()
		switch {
		case len(s.rest) == 0:
			return nil
		case s.byte(','): // an empty element means nothing (RFC 9110 section 5.6.1.2)
			continue
		}
		bits, asked, ok := s.extension()
		s.space()
		if !ok || len(s.rest) > 0 && s.rest[0] != ',' {
			return ErrOffer
		}
		if a.bits == 0 && bits != 0 {
			a.bits, a.asked = bits, asked
		}
	}
}

// Window is that of messages to the client; NoWindow: nothing was accepted, all messages are plain in both directions.
func (a Answer) Window() Window {
	switch {
	case a.bits == 0:
		return NoWindow
	case a.bits == 8:
		return Window8
	case a.bits < maxBits:
		return Window9
	}
	return Window15
}

// Append appends the value of the answer's Sec-WebSocket-Extensions, nothing if nothing was accepted. No context is taken
// over in either direction, and the client's window is not bounded: the message itself is our window.
func (a Answer) Append(dst []byte) []byte {
	if a.bits == 0 {
		return dst
	}
	dst = append(dst, extension+"; "+serverNoContext+"; "+clientNoContext...)
	if a.asked {
		dst = append(dst, "; "+serverBits+"="...)
		if a.bits >= 10 {
			dst = append(dst, '1')
		}
		dst = append(dst, '0'+a.bits%10)
	}
	return dst
}

// parameters are those that an offer has had: a bit each.
type parameters uint8

const (
	hasServerNoContext parameters = 1 << iota
	hasClientNoContext
	hasServerBits
	hasClientBits
)

// extension reads one offer. ok: its form is right. bits is 0 if it must be declined.
func (s *scan) extension() (bits uint8, asked, ok bool) {
	name := s.token()
	if len(name) == 0 {
		return 0, false, false
	}
	ours := string(name) == extension // names are compared as they are: RFC 6455 knows no case folding for them
	bits = maxBits
	for seen := parameters(0); ; {
		s.space()
		if !s.byte(';') {
			break
		}
		s.space()
		name := s.token()
		v, well := s.value()
		if len(name) == 0 || !well {
			return 0, false, false
		}
		p, window := parameter(name, v)
		if p == 0 || seen&p != 0 {
			ours = false
		}
		seen |= p
		if p == hasServerBits {
			bits, asked = window, true
		}
	}
	if !ours {
		bits = 0
	}
	return bits, asked, true
}

// parameter says which parameter it is and, for a window, its bits. 0: none, or its value is not allowed in an offer.
func parameter(name []byte, v value) (p parameters, bits uint8) {
	switch string(name) {
	case serverNoContext:
		p = hasServerNoContext
	case clientNoContext:
		p = hasClientNoContext
	case serverBits: // 7.1.2.1
		if bits = v.bits(); bits != 0 {
			return hasServerBits, bits
		}
		return 0, 0
	case clientBits: // 7.1.2.2: may be without a value
		if !v.given || v.bits() != 0 {
			return hasClientBits, 0
		}
		return 0, 0
	}
	if v.given { // 7.1.1
		return 0, 0
	}
	return p, 0
}

// A value is that of a parameter, unquoted: as much of it as a window's bits may have, and one byte more.
type value struct {
	given bool
	n     int // bytes
	text  [3]byte
}

func (v *value) add(c byte) {
	if v.n < len(v.text) {
		v.text[v.n] = c
		v.n++
	}
}

// bits reads a window: 8 to 15, without leading zeros. 0: it is none.
func (v *value) bits() uint8 {
	switch a, b := v.text[0], v.text[1]; {
	case v.n == 1 && (a == '8' || a == '9'):
		return a - '0'
	case v.n == 2 && a == '1' && '0' <= b && b <= '5':
		return 10 + b - '0'
	}
	return 0
}

// scan is what is left of a line.
type scan struct{ rest []byte }

func (s *scan) space() {
	for len(s.rest) > 0 && (s.rest[0] == ' ' || s.rest[0] == '\t') {
		s.rest = s.rest[1:]
	}
}

// byte reads c if it is next.
func (s *scan) byte(c byte) bool {
	if len(s.rest) == 0 || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

// token reads as much as is a token; nothing, if none is next.
func (s *scan) token() []byte {
	n := 0
	for n < len(s.rest) && isToken(s.rest[n]) {
		n++
	}
	t := s.rest[:n]
	s.rest = s.rest[n:]
	return t
}

// value reads "=" and a token, or a quoted string that is a token once it is unquoted (RFC 6455 section 9.1). Without "=" it
// is not given.
func (s *scan) value() (v value, ok bool) {
	if !s.byte('=') {
		return v, true
	}
	v.given = true
	if s.byte('"') {
		return s.quoted(v)
	}
	t := s.token()
	for _, c := range t[:min(len(t), len(v.text))] {
		v.add(c)
	}
	return v, len(t) > 0
}

// quoted reads the rest of a quoted string (RFC 9110 section 5.6.4).
func (s *scan) quoted(v value) (value, bool) {
	for len(s.rest) > 0 {
		if s.byte('"') {
			return v, v.n > 0
		}
		s.byte('\\') // stands for what follows it
		if len(s.rest) == 0 || !isToken(s.rest[0]) {
			return v, false
		}
		v.add(s.rest[0])
		s.rest = s.rest[1:]
	}
	return v, false
}

// isToken reports whether c may be in a token (RFC 9110 section 5.6.2).
func isToken(c byte) bool { return tokens[c] }

var tokens = tokenChars()

func tokenChars() (t [256]bool) {
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~") {
		t[c] = true
	}
	return t
}
