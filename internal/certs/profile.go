package certs

import "crypto/tls"

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
