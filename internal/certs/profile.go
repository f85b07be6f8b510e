package certs

import (
	"crypto/tls"
	"net/netip"
	"strings"
)

// profile is what a listener accepts (RFC 9325, Mozilla's intermediate): nothing without forward secrecy, nothing that is not
// authenticated encryption, no group that is not fast and safe. crypto/tls never renegotiates as a server and takes no early
// data, and replaces the keys of session tickets every 24 hours.
func profile(least uint16) *tls.Config {
	return &tls.Config{
		MinVersion: least,
		MaxVersion: tls.VersionTLS13,
		CipherSuites: []uint16{ // of TLS 1.2; all of 1.3's are good
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256},
		NextProtos:       []string{"http/1.1"},
	}
}

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
