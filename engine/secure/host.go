package secure

import (
	"net/netip"
	"strings"
)

// HostMatches reports whether a request for host, a Host header, belongs on a connection whose client asked for sni: 421 if
// not (RFC 9110 15.5.20). A client that asked for no name, because it has an address or knows no SNI, may name any host.
func HostMatches(sni, host string) bool {
	if sni == "" {
		return true
	}
	return sameName(bare(host), bare(sni))
}

// sameName compares without regard to case, that of ASCII alone: to Unicode a Kelvin sign is a k.
func sameName(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// bare is a host without its port and the dot of the root.
func bare(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") && strings.Count(host, ":") == 1 {
		host = host[:i]
	} else if a, err := netip.ParseAddrPort(host); err == nil {
		return a.Addr().String()
	}
	return strings.TrimSuffix(host, ".")
}
