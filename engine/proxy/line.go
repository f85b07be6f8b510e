package proxy

import (
	"bytes"
	"errors"
	"net/netip"
)

// Version 1 is one line (section 2.1). The words are separated by one space each, and nothing is written in two ways:
//
//	PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n
//	PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n
//	PROXY UNKNOWN whatever\r\n
//
// IPv6 addresses may end in four decimal numbers, as nginx writes IPv4 clients of an IPv6 listener.

// version1 parses a version 1 header, of which in has the signature.
func version1(in []byte) (h Header, n int, err error) {
	s := scan{in: in[:min(len(in), MaxLine)], at: len(signature1)}
	h.Version = 1
	if f := s.family(); f == 'U' {
		s.skip()
	} else {
		from, to := s.ip(f), s.ip(f)
		fromPort, toPort := s.number(65535, ' '), s.number(65535, '\r')
		h.Source, h.Dest = netip.AddrPortFrom(from, uint16(fromPort)), netip.AddrPortFrom(to, uint16(toPort))
	}
	s.word("\n")
	switch {
	case s.err == nil:
		return h, s.at, nil
	case s.err != errShort:
		return Header{}, 0, s.err
	case len(in) >= MaxLine:
		return Header{}, 0, ErrLong
	}
	return Header{}, 0, nil
}

// errShort is a scan's error when the bytes so far are right.
var errShort = errors.New("proxy: more bytes are needed")

// A scan reads a line from the left. Its first error stays, and what is read after it means nothing.
type scan struct {
	in  []byte
	at  int
	err error
}

// peek is the next byte; 0, which no line has outside of what is skipped, if there is none.
func (s *scan) peek() byte {
	switch {
	case s.err != nil:
	case s.at == len(s.in):
		s.err = errShort
	default:
		return s.in[s.at]
	}
	return 0
}

// refuse says that the next byte is wrong, unless there is none.
func (s *scan) refuse() {
	if s.peek(); s.err == nil {
		s.err = ErrLine
	}
}

// word reads text.
func (s *scan) word(text string) {
	for _, c := range []byte(text) {
		if s.peek() != c {
			s.refuse()
			return
		}
		s.at++
	}
}

// family reads "TCP4 " or "TCP6 " and returns the digit, or "UNKNOWN" and returns 'U'.
func (s *scan) family() byte {
	if s.peek() == 'U' {
		s.word("UNKNOWN")
		return 'U'
	}
	s.word("TCP")
	c := s.peek()
	if c != '4' && c != '6' {
		s.refuse()
		return c
	}
	s.at++
	s.word(" ")
	return c
}

// skip reads what stands behind UNKNOWN, to the CR: the receiver has to ignore it.
func (s *scan) skip() {
	if c := s.peek(); c != ' ' && c != '\r' {
		s.refuse()
		return
	}
	end := bytes.IndexAny(s.in[s.at:], "\r\n")
	if end < 0 {
		s.err = errShort
		return
	}
	s.at += end
	s.word("\r")
}

// number reads a decimal number of at most most, without leading zeros, and the byte behind it.
func (s *scan) number(most uint32, end byte) (v uint32) {
	from := s.at
	for {
		c := s.peek()
		switch {
		case c == end && s.at > from:
			s.at++
			return v
		case c < '0' || c > '9' || v == 0 && s.at > from || v*10+uint32(c-'0') > most:
			s.refuse()
			return 0
		}
		v = v*10 + uint32(c-'0')
		s.at++
	}
}

// ip reads an address of the family and the space behind it.
func (s *scan) ip(family byte) netip.Addr {
	if family == '6' {
		return s.ip6()
	}
	return netip.AddrFrom4(s.quad())
}

// quad reads four decimal numbers and the space behind them.
func (s *scan) quad() (a [4]byte) {
	for i := range 3 {
		a[i] = byte(s.number(255, '.'))
	}
	a[3] = byte(s.number(255, ' '))
	return a
}

// ip6 reads an IPv6 address (RFC 4291 section 2.2) and the space behind it. "::" stands for one group at least.
func (s *scan) ip6() netip.Addr {
	var a [16]byte
	n, gap := 0, -1 // bytes that are there, and where among them "::" stands
	if s.peek() == ':' {
		s.word("::")
		gap = 0
	}
	for s.err == nil && (gap != n || s.peek() != ' ') {
		if n == room(gap) {
			s.refuse()
			break
		}
		from := s.at
		group, ok := s.group()
		c := s.peek()
		switch {
		case !ok:
			s.refuse()
		case c == '.' && (gap < 0 && n == 12 || gap >= 0 && n <= 10):
			s.at = from
			q := s.quad()
			copy(a[n:], q[:])
			return expand(a, n+4, gap)
		case c == ' ' && (gap >= 0 || n == 14):
			s.at++
			a[n], a[n+1] = byte(group>>8), byte(group)
			return expand(a, n+2, gap)
		case c == ':' && n+2 < room(gap):
			s.at++
			a[n], a[n+1] = byte(group>>8), byte(group)
			n += 2
			if gap < 0 && s.peek() == ':' {
				s.at++
				gap = n
			}
		default:
			s.refuse()
		}
	}
	s.at++ // the space
	return expand(a, n, gap)
}

// room is how many bytes an address with or without "::" may spell out.
func room(gap int) int {
	if gap < 0 {
		return 16
	}
	return 14
}

// group reads one to four hexadecimal digits.
func (s *scan) group() (v uint16, ok bool) {
	for from := s.at; ; s.at++ {
		d := digit(s.peek())
		if d > 15 || s.at-from == 4 {
			return v, s.at > from && d > 15
		}
		v = v<<4 | uint16(d)
	}
}

// digit is the value of a hexadecimal digit, 255 for another byte.
func digit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// expand puts zeros where "::" stands among the n bytes of a.
func expand(a [16]byte, n, gap int) netip.Addr {
	if gap >= 0 {
		moved := copy(a[16-(n-gap):], a[gap:n])
		clear(a[gap : 16-moved])
	}
	return netip.AddrFrom16(a).Unmap()
}
