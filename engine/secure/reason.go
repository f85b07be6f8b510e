package secure

import (
	"crypto/tls"
	"errors"
	"net"
)

// A Reason is why a handshake did not end well: a metric label from a fixed list.
type Reason uint8

// The reasons.
const (
	ReasonMalformed   Reason = iota // no TLS, a broken message, a broken promise of the protocol
	ReasonVersion                   // no version in common
	ReasonParameters                // no cipher suite, group or protocol (ALPN) in common
	ReasonCertificate               // the client's certificate is missing or refused
	ReasonAlert                     // the client has ended it by an alert: it does not like our certificate, or us
	ReasonBusy                      // Options.Handshakes were running, and it was the newcomer or the one that had been silent for long
	ReasonGone                      // the socket was closed before the end: the client left, or took too long
	ReasonInternal                  // our own fault: no certificate, a panic
	reasons
)

// String is the reason as a metric label.
func (r Reason) String() string {
	names := [...]string{"tls-malformed", "tls-version", "tls-parameters", "tls-certificate", "tls-alert", "tls-busy", "tls-gone", "tls-internal"}
	if int(r) >= len(names) {
		return "tls-unknown"
	}
	return names[r]
}

// Reasons lists all of them, for who shows a metric of each.
func Reasons() []Reason {
	all := make([]Reason, reasons)
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}

// A Failure is the error that Options.Done gets. Its text may quote names in a client's certificate.
type Failure struct {
	Reason Reason
	Err    error
}

func (f *Failure) Error() string { return f.Reason.String() + ": " + f.Err.Error() }

// Unwrap returns what crypto/tls or the collector said.
func (f *Failure) Unwrap() error { return f.Err }

// What Failure.Err can be beside the errors of crypto/tls and the collector's.
var (
	ErrBusy  = errors.New("secure: as many handshakes are running as may")
	errFlood = errors.New("secure: more bytes than a handshake needs")
	errPanic = errors.New("secure: the handshake panicked")
)

// noCertificate is what crypto/tls says to a client that has none although it must. It has no type of its own.
const noCertificate = "tls: client didn't provide a certificate"

// reasonOf sorts an error of tls.Conn.Handshake. alert is the last one that went out unprotected, 0 if none did.
func reasonOf(err error, alert byte) Reason {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok || err.Error() == noCertificate {
		return ReasonCertificate
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return ReasonAlert
	}
	if errors.Is(err, errPanic) {
		return ReasonInternal
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return ReasonMalformed // whatever alert went with it
	}
	switch alert {
	case alertVersion:
		return ReasonVersion
	case alertFailure, alertInsecure, alertNoProtocol:
		return ReasonParameters
	case alertInternal, alertNoName:
		return ReasonInternal
	}
	return ReasonMalformed
}
