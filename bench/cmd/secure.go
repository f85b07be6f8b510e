package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"ticketgate/bench"
)

// secureCrowd opens sockets with TLS.
type secureCrowd struct {
	r    *runner
	loop *bench.Loop // for tickets, and for time to pass
	g    *gateway
	held *bench.Secure
	open int
	warm bool
}

func idleSecure(r *runner, l *bench.Loop) (bench.Process, crowd, error) {
	g, err := r.gatewayWith(setup{tls: true})
	if err != nil {
		return bench.Process{}, nil, err
	}
	s := &secureCrowd{r: r, loop: l, g: g}
	s.held = s.socketsOf()
	return g.Process, s, nil
}

func (s *secureCrowd) socketsOf() *bench.Secure {
	held := &bench.Secure{Address: s.g.host, Config: &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // the certificate was made a second ago by this program
		MinVersion:         tls.VersionTLS13,
	}}
	s.r.closers = append(s.r.closers, held.Close)
	return held
}

func (s *secureCrowd) grow(n int) error {
	if !s.warm {
		s.warm = true
		first := s.socketsOf()
		return errors.Join(s.more(first, idleWarm), first.Close())
	}
	err := s.more(s.held, n-s.open)
	s.open = n
	return err
}

// more opens n sockets, some hundred tickets at a time, which outlive that.
func (s *secureCrowd) more(to *bench.Secure, n int) error {
	for n > 0 {
		some := min(n, 500)
		heads, err := s.r.fetch(s.loop, s.g, some)
		if err != nil {
			return err
		}
		at := lanes
		if s.r.programs != "" { // an emulated machine would take longer for so many than a handshake may
			at = 4
		}
		if err := to.Open(s.r.ctx, heads, at); err != nil {
			return err
		}
		n -= some
	}
	return nil
}

func (s *secureCrowd) wait(d time.Duration) error { return s.loop.RunFor(s.r.ctx, d) }
func (s *secureCrowd) lost() int                  { return s.held.Lost() }

// knowsTLS finds out whether this gateway takes a certificate for the gate and opens a socket with it; why is the reason if not.
func (r *runner) knowsTLS() (ok bool, why string, err error) {
	if _, err := r.secrets(); err != nil {
		return false, "", err
	}
	file, err := r.configure(setup{tls: true}, "tls", 1, 2, 3)
	if err != nil {
		return false, "", err
	}
	said, err := exec.CommandContext(r.ctx, r.program, "config", "check", file).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		first, _, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(string(said), r.dir+"/", "")), "\n")
		return false, first, nil
	}
	if err != nil {
		return false, "", err
	}
	l, err := r.loop()
	if err != nil {
		return false, "", err
	}
	g, err := r.gatewayWith(setup{tls: true})
	if err != nil {
		return false, "", err
	}
	s := &secureCrowd{r: r, loop: l, g: g}
	if failed := s.more(s.socketsOf(), 1); failed != nil {
		why = failed.Error()
	}
	return why == "", why, r.end()
}

// certificate writes a new certificate for 127.0.0.1, and its key, into the temporary folder.
func (r *runner) certificate() (cert, key string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return "", "", err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", err
	}
	cert, key = filepath.Join(r.dir, "gate.crt"), filepath.Join(r.dir, "gate.key")
	return cert, key, errors.Join(
		os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
}
