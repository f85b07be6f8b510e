package upgrade

import "bytes"

// nameMax is the longest host name in bytes (RFC 1035 section 2.3.4).
const nameMax = 255

// IsHost reports whether h is a name or an address, with a port if there is a colon: letters, digits, '-', '.' and '_', no
// empty label but the root's, at most 255 bytes; or an IPv6 address in brackets. Of RFC 3986 section 3.2.2 that leaves out user part, percent
// encoding, sub-delimiters, zones and future forms.
func IsHost[T []byte | string](s T) bool {
	h := []byte(s)
	if len(h) > 0 && h[0] == '[' {
		end := bytes.IndexByte(h, ']')
		return end > 0 && isIPv6(h[1:end]) && isPortPart(h[end+1:])
	}
	name, fresh := 0, true // fresh: a label is to begin
	for ; name < len(h) && h[name] != ':'; name++ {
		c := h[name]
		if class[c]&hostChar == 0 || c == '.' && fresh {
			return false
		}
		fresh = c == '.'
	}
	return name > 0 && name <= nameMax && isPortPart(h[name:])
}

// isPortPart reports whether p is empty, or a colon and a port from 1 to 65535 without leading zeros.
func isPortPart(p []byte) bool {
	if len(p) == 0 {
		return true
	}
	port, ok := decimal(p[1:])
	return p[0] == ':' && ok && port > 0 && port <= 0xffff
}

// decimal reads one to five digits without leading zeros.
func decimal(d []byte) (v int, ok bool) {
	if len(d) == 0 || len(d) > 5 || d[0] == '0' && len(d) > 1 {
		return 0, false
	}
	for _, c := range d {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int(c-'0')
	}
	return v, true
}

// isIPv6 reports whether a is an address in a form of RFC 4291 section 2.2.
func isIPv6(a []byte) bool {
	left, right, short := bytes.Cut(a, []byte("::"))
	if !short {
		return groups(a, true) == 8
	}
	l, r := groups(left, false), groups(right, true)
	return l >= 0 && r >= 0 && l+r < 8
}

// groups counts the 16-bit groups of a; -1: malformed. Where v4 is set the last two may be an IPv4 address.
func groups(a []byte, v4 bool) int {
	n := 0
	for more := len(a) > 0; more; n++ {
		var g []byte
		g, a, more = bytes.Cut(a, []byte{':'})
		switch {
		case isGroup(g):
		case v4 && !more && isIPv4(g):
			n++
		default:
			return -1
		}
	}
	return n
}

func isGroup(g []byte) bool {
	for _, c := range g {
		if class[c]&hexAny == 0 {
			return false
		}
	}
	return len(g) > 0 && len(g) <= 4
}

func isIPv4(a []byte) bool {
	n := 0
	for more := true; more; n++ {
		var d []byte
		d, a, more = bytes.Cut(a, []byte{'.'})
		if v, ok := decimal(d); !ok || v > 255 {
			return false
		}
	}
	return n == 4
}
