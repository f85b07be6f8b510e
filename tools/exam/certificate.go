package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// secured is what a gate with TLS needs in its configuration, and its clients in theirs.
type secured struct {
	gate, yaml string
	client     *tls.Config
}

// secure makes a certificate of its own for gate.test in dir.
func secure(dir string) (*secured, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"gate.test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	raw, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
	files := [2]string{filepath.Join(dir, "gate.crt"), filepath.Join(dir, "gate.key")}
	for i, text := range [][]byte{cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})} {
		if err := os.WriteFile(files[i], text, 0o600); err != nil {
			return nil, err
		}
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(cert)
	return &secured{gate: "tls: main", yaml: fmt.Sprintf("tls: { main: { cert: %q, key: %q } }\n", files[0], files[1]),
		client: &tls.Config{RootCAs: trusted, ServerName: "gate.test"}}, nil
}

// wrap is TLS around a connection, for visitors.
func (s *secured) wrap(ctx context.Context, conn net.Conn) (net.Conn, error) {
	c := tls.Client(conn, s.client)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}
