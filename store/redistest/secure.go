package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The users of WithACL. The first is for what is tested, the second for servers among themselves and for Do.
const (
	User          = "gw"
	Password      = "hunter2"
	adminUser     = "admin"
	adminPassword = "sesame"
)

// WithACL adds the user User with rules, such as "~tg:*", "+ping". Nobody else may do anything, but for Do and replicas.
func WithACL(rules string) Option {
	return func(s *Server) {
		s.secured = true
		s.args = append(s.args, "--masteruser", adminUser, "--masterauth", adminPassword, "--user", "default", "off",
			"--user", adminUser, "on", ">"+adminPassword, "~*", "&*", "+@all", "--user", User, "on", ">"+Password)
		s.args = append(s.args, strings.Fields(rules)...)
	}
}

// Certs are an authority, and what it has certified: servers at 127.0.0.1, and a client, whom they ask for it.
type Certs struct {
	CA, Cert, Key string      // PEM files: of the authority, and the client's own
	Client        *tls.Config // all three, for a client

	serverCert, serverKey string
}

// WithTLS makes the server speak TLS, and refuse clients without a certificate of c.
func WithTLS(c *Certs) Option {
	return func(s *Server) { s.certs = c }
}

// NewCerts makes an authority in a directory of the test.
func NewCerts(tb testing.TB) *Certs {
	tb.Helper()
	dir := tb.TempDir()
	c := &Certs{
		CA: filepath.Join(dir, "ca.crt"), Cert: filepath.Join(dir, "client.crt"), Key: filepath.Join(dir, "client.key"),
		serverCert: filepath.Join(dir, "server.crt"), serverKey: filepath.Join(dir, "server.key"),
	}
	a := &authority{tb: tb}
	a.cert, a.key = a.certify(&x509.Certificate{
		Subject: pkix.Name{CommonName: "redistest"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	write(tb, c.CA, "CERTIFICATE", a.cert.Raw)
	for _, who := range []struct{ name, cert, key string }{{"server", c.serverCert, c.serverKey}, {"client", c.Cert, c.Key}} {
		cert, key := a.certify(&x509.Certificate{
			Subject: pkix.Name{CommonName: who.name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"redis.internal"},
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		})
		write(tb, who.cert, "CERTIFICATE", cert.Raw)
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			tb.Fatal(err)
		}
		write(tb, who.key, "PRIVATE KEY", der)
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	c.Client = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{pair}, ServerName: "127.0.0.1"}
	return c
}

// authority certifies; the first time itself.
type authority struct {
	tb   testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func (a *authority) certify(t *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.tb.Fatal(err)
	}
	a.next++
	t.SerialNumber = big.NewInt(a.next)
	t.NotBefore, t.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = t, key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err != nil {
		a.tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.tb.Fatal(err)
	}
	return cert, key
}

func write(tb testing.TB, file, kind string, der []byte) {
	tb.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		tb.Fatal(err)
	}
}
