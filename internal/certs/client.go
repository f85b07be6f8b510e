package certs

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// Clients' certificates. A chain is what a stranger chose, and to verify it can be made dear: many certificates of one name
// that all have to be tried, long keys, thousands of names under thousands of constraints. So crypto/tls only asks for one,
// and verify looks at its shape first. What is left costs less than 5 ms, a tenth of that for an ordinary chain.
const (
	chainMax       = 4     // certificates that a client may send, its own included
	clientRSA      = 4096  // bits of an RSA key
	clientExponent = 65537 // of an RSA key: a longer one takes longer
	namesMax       = 64    // names of one certificate, and names in its constraints
)

// demand has config ask for certificates from pool's authorities. The verified one is PeerCertificates[0] of a connection's
// state, which has none if the client had none. Tickets are off, because crypto/tls would take a ticket for a certificate that
// has run out meanwhile.
func (s *Store) demand(config *tls.Config, pool *x509.CertPool) {
	config.SessionTicketsDisabled = true
	config.ClientCAs = pool // whose names the client is told
	config.ClientAuth = tls.RequireAnyClientCert
	if s.o.ClientAuth == Optional {
		config.ClientAuth = tls.RequestClientCert
	}
	config.VerifyConnection = func(state tls.ConnectionState) error {
		chain := state.PeerCertificates
		if len(chain) == 0 {
			return nil // which RequireAnyClientCert does not let happen
		}
		if err := s.verify(chain, pool); err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
		}
		return nil
	}
}

// verify checks that chain is a client's, signed by one of pool's, now.
func (s *Store) verify(chain []*x509.Certificate, pool *x509.CertPool) error {
	if err := affordable(chain); err != nil {
		return err
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: between, CurrentTime: s.o.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// affordable refuses a chain that could be dear to verify.
func affordable(chain []*x509.Certificate) error {
	if len(chain) > chainMax {
		return fmt.Errorf("a chain of %d certificates; at most %d", len(chain), chainMax)
	}
	subjects := make(map[string]bool, len(chain))
	for _, c := range chain {
		if subjects[string(c.RawSubject)] { // each would be tried as the parent of all that name it
			return errors.New("two certificates of one subject")
		}
		subjects[string(c.RawSubject)] = true
		if err := cheapKey(c.PublicKey); err != nil {
			return err
		}
		if n := max(names(c), constraints(c)); n > namesMax {
			return fmt.Errorf("a certificate with %d names; at most %d", n, namesMax)
		}
	}
	return nil
}

// cheapKey refuses keys that take more than a millisecond to verify with.
func cheapKey(key any) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n > clientRSA || n < rsaMin || k.E > clientExponent {
			return fmt.Errorf("an RSA key of %d bits with the exponent %d; %d to %d bits, and at most %d", n, k.E, rsaMin, clientRSA, clientExponent)
		}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return errors.New("an ECDSA key that is neither on P-256 nor on P-384")
		}
	case ed25519.PublicKey:
	default:
		return errors.New("a key that is neither RSA, ECDSA nor Ed25519")
	}
	return nil
}

func names(c *x509.Certificate) int {
	return len(c.DNSNames) + len(c.EmailAddresses) + len(c.IPAddresses) + len(c.URIs)
}

func constraints(c *x509.Certificate) int {
	return len(c.PermittedDNSDomains) + len(c.ExcludedDNSDomains) + len(c.PermittedIPRanges) + len(c.ExcludedIPRanges) +
		len(c.PermittedEmailAddresses) + len(c.ExcludedEmailAddresses) + len(c.PermittedURIDomains) + len(c.ExcludedURIDomains)
}
