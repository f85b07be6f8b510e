package certs_test

import (
	"crypto"
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
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An issued is a certificate and its key; parent signs it.
type issued struct {
	cert   *x509.Certificate
	key    crypto.Signer
	parent *issued
}

var noon = time.Date(2031, 11, 22, 12, 0, 0, 0, time.UTC) // not today: a clock that was forgotten shows

func newKey(t testing.TB, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate for key, a new one on P-256 if nil, signed by p, or by itself if p is nil.
func (p *issued) issue(t testing.TB, c x509.Certificate, key crypto.Signer) *issued {
	t.Helper()
	if key == nil {
		key = newKey(t, elliptic.P256())
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber = serial
	if c.NotAfter.IsZero() {
		c.NotBefore, c.NotAfter = noon.Add(-time.Hour), noon.Add(24*time.Hour)
	}
	signer, by := &c, key
	if p != nil {
		signer, by = p.cert, p.key
	}
	der, err := x509.CreateCertificate(rand.Reader, &c, signer, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issued{cert, key, p}
}

// authority is a template of a CA.
func authority(name string) x509.Certificate {
	return x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
}

// person is a template of a client.
func person(name string) x509.Certificate {
	return x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
}

// server is a template for a name.
func server(name string) x509.Certificate {
	return x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}
}

func (p *issued) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})
}

func (p *issued) keyPEM(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// shows is p as a client shows it, with others behind it.
func (p *issued) shows(behind ...*issued) tls.Certificate {
	c := tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key}
	for _, b := range behind {
		c.Certificate = append(c.Certificate, b.cert.Raw)
	}
	return c
}

// A folder is a temporary one with files in it.
type folder struct {
	t  testing.TB
	at string
}

func newFolder(t testing.TB) folder { return folder{t, t.TempDir()} }

func (f folder) path(name string) string { return filepath.Join(f.at, name) }

// put writes a file beside its name and moves it there, and sees to it that its time is another one.
func (f folder) put(name string, text []byte) string {
	f.t.Helper()
	path := f.path(name)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		f.t.Fatal(err)
	}
	return path
}

func (f folder) putPair(t testing.TB, p *issued) {
	f.put("tls.crt", p.pem())
	f.put("tls.key", p.keyPEM(t))
}

// shake does a handshake between the two configurations and returns what the server knows, or its error.
func shake(t testing.TB, serve, dial *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // not a net.Pipe: both may write at once
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	s, c := tls.Server(a, serve), tls.Client(b, dial)
	done := make(chan struct{})
	go func() {
		if err := c.Handshake(); err == nil {
			_, _ = c.Read(make([]byte, 1)) // the tickets, or the alert of a server that did not like us; the question is what it thinks
		}
		close(done)
	}()
	if err = s.Handshake(); err == nil {
		_, _ = s.Write([]byte{0})
	}
	_ = a.Close()
	<-done
	return s.ConnectionState(), err
}
