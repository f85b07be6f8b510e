package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ticketgate/tools/rig"
)

func init() {
	tests[52] = test{"TLS profile and client certificates", tlsProfile}
}

// tlsProfile scans what a gate agrees to, and shows certificates to one that asks for them.
func tlsProfile(ctx context.Context, x *exam) error {
	if err := scanProfile(ctx, x); err != nil {
		return err
	}
	return clientCertificates(ctx, x)
}

// hello is one handshake and whether the profile lets it pass.
type hello struct {
	name   string
	change func(*tls.Config)
	pass   bool
}

func hellos() []hello {
	only := func(version uint16) func(*tls.Config) {
		return func(c *tls.Config) { c.MinVersion, c.MaxVersion = version, version }
	}
	rows := []hello{
		{"TLS 1.0", only(tls.VersionTLS10), false}, {"TLS 1.1", only(tls.VersionTLS11), false},
		{"TLS 1.2", only(tls.VersionTLS12), true}, {"TLS 1.3", only(tls.VersionTLS13), true},
		{"ALPN http/1.1", func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }, true},
		{"ALPN h2, http/1.1", func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }, true},
		{"ALPN h2", func(c *tls.Config) { c.NextProtos = []string{"h2"} }, false},
	}
	good := map[uint16]bool{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: true, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384: true,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: true,
	}
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if s.SupportedVersions[0] == tls.VersionTLS13 {
			continue // all three are in the profile, and cannot be chosen
		}
		rows = append(rows, hello{s.Name, func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{s.ID}
		}, good[s.ID]})
	}
	for group, pass := range map[tls.CurveID]bool{tls.X25519MLKEM768: true, tls.X25519: true, tls.CurveP256: true, tls.CurveP384: false, tls.CurveP521: false} {
		rows = append(rows, hello{"group " + group.String(), func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{group} }, pass})
	}
	return rows
}

func scanProfile(ctx context.Context, x *exam) error {
	s, err := secure(x.dir)
	if err != nil {
		return err
	}
	c, err := start(ctx, x, clusterOptions{memory: true, gate: exemptLoopback + ", " + s.gate, yaml: s.yaml})
	if err != nil {
		return err
	}
	defer func() { _ = c.close() }()
	gate := c.nodes[0].Gate
	wrong := 0
	rows := hellos()
	for _, h := range rows {
		config := s.client.Clone()
		h.change(config)
		state, err := shake(ctx, gate, config)
		if (err == nil) != h.pass {
			wrong++
			x.want(false, "%s: %v", h.name, verdict(err))
		}
		if err == nil && (state.NegotiatedProtocol == "h2" || state.DidResume) {
			x.want(false, "%s: agreed to %q, resumed %v", h.name, state.NegotiatedProtocol, state.DidResume)
		}
	}
	x.figure("profile: %d handshakes, %d wrong verdicts", len(rows), wrong)
	if err := resume(ctx, x, gate, s.client); err != nil {
		return err
	}
	for host, want := range map[string]string{"gate.test": "401", "GATE.TEST:443": "401", "other.test": "421", "gate.test.evil.test": "421"} {
		status, err := statusOver(ctx, gate, s.client, host)
		if err != nil {
			return err
		}
		x.want(status == want, "Host %s under SNI gate.test: %s, want %s", host, status, want)
	}
	return nil
}

// resume: on a public listener a second visit is short, in TLS 1.3 as in 1.2.
func resume(ctx context.Context, x *exam, gate string, base *tls.Config) error {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := base.Clone()
		config.MinVersion, config.MaxVersion = version, version
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		var resumed bool
		for range 2 {
			state, err := shake(ctx, gate, config)
			if err != nil {
				return err
			}
			resumed = state.DidResume
		}
		x.want(resumed, "%s: the second handshake is not resumed", tls.VersionName(version))
	}
	return nil
}

// shake makes one handshake, and a request, so that what TLS 1.3 servers refuse late is heard.
func shake(ctx context.Context, gate string, config *tls.Config) (state tls.ConnectionState, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", gate)
	if err != nil {
		return state, err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(httpTimeout))
	c := tls.Client(conn, config)
	if err := c.HandshakeContext(ctx); err != nil {
		return state, err
	}
	if _, err := io.WriteString(c, rig.Head("gate.test", "/t/x", "tgs_x")); err != nil {
		return state, err
	}
	answer, err := io.ReadAll(c)
	if err == nil && !strings.HasPrefix(string(answer), "HTTP/1.1 401 ") {
		err = fmt.Errorf("answer %.40q", answer)
	}
	return c.ConnectionState(), err
}

func verdict(err error) string {
	if err == nil {
		return "let in"
	}
	return "refused: " + err.Error()
}

func statusOver(ctx context.Context, gate string, config *tls.Config, host string) (string, error) {
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", gate)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(httpTimeout))
	if _, err := io.WriteString(conn, rig.Head(host, "/t/x", "tgs_x")); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	if _, rest, ok := strings.Cut(string(answer), "HTTP/1.1 "); ok && len(rest) >= 3 {
		return rest[:3], nil
	}
	return "none", err
}

// signer is an authority or a client with its key.
type signer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// sign makes a certificate from by's; by nil: it signs itself.
func sign(by *signer, public crypto.PublicKey, key crypto.Signer, change func(*x509.Certificate)) (*signer, error) {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "client"}, DNSNames: []string{"client.good.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(t)
	}
	parent := &signer{t, key}
	if by != nil {
		parent = by
	}
	raw, err := x509.CreateCertificate(rand.Reader, t, parent.cert, public, parent.key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	return &signer{cert, key}, err
}

func certify(by *signer, change func(*x509.Certificate)) (*signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return sign(by, key.Public(), key, change)
}

func authority(t *x509.Certificate) {
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage, t.ExtKeyUsage, t.DNSNames = true, true, x509.KeyUsageCertSign, nil, nil
	t.Subject = pkix.Name{CommonName: fmt.Sprint("authority ", t.SerialNumber)}
}

// huge is a key of 16,384 bits, of which only the public part is of use: a server that verifies with it pays for it.
type huge struct{ public *rsa.PublicKey }

func newHuge() (*huge, error) {
	n := make([]byte, 2048)
	if _, err := rand.Read(n); err != nil {
		return nil, err
	}
	n[0] |= 0x80
	n[len(n)-1] |= 1
	return &huge{&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}}, nil
}

func (h *huge) Public() crypto.PublicKey { return h.public }
func (h *huge) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return make([]byte, h.public.Size()), nil
}

// shown is a chain that a client shows.
type shown struct {
	name  string
	chain []*signer // the client's own first
	pass  bool
}

// showings are the chains of the exam under root, which the gate trusts.
func showings(root *signer) (rows []shown, err error) {
	one := func(by *signer, change func(*x509.Certificate)) *signer {
		s, e := certify(by, change)
		err = errors.Join(err, e)
		return s
	}
	stranger, between := one(nil, authority), one(root, authority)
	narrow := one(root, func(t *x509.Certificate) {
		authority(t)
		t.PermittedDNSDomainsCritical, t.PermittedDNSDomains = true, []string{"good.test"}
	})
	long := []*signer{root}
	for range 10 {
		long = append([]*signer{one(long[0], authority)}, long...)
	}
	long = append([]*signer{one(long[0], nil)}, long[:10]...)
	h, e := newHuge()
	if err = errors.Join(err, e); err != nil {
		return nil, err
	}
	big16, e := sign(root, h.public, h, nil)
	err = errors.Join(err, e)
	many := one(root, func(t *x509.Certificate) {
		for i := range 5000 {
			t.DNSNames = append(t.DNSNames, fmt.Sprintf("name%d.good.test", i))
		}
	})
	return []shown{
		{"the right one", []*signer{one(root, nil)}, true},
		{"one below an intermediate", []*signer{one(between, nil), between}, true},
		{"a permitted name", []*signer{one(narrow, nil), narrow}, true},
		{"none", nil, false},
		{"of another authority", []*signer{one(stranger, nil)}, false},
		{"signed by itself", []*signer{one(nil, nil)}, false},
		{"expired", []*signer{one(root, func(t *x509.Certificate) { t.NotAfter = time.Now().Add(-time.Minute) })}, false},
		{"not yet valid", []*signer{one(root, func(t *x509.Certificate) { t.NotBefore = time.Now().Add(time.Minute) })}, false},
		{"for servers", []*signer{one(root, func(t *x509.Certificate) { t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })}, false},
		{"for no purpose of TLS", []*signer{one(root, func(t *x509.Certificate) { t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} })}, false},
		{"a name that its authority may not give", []*signer{one(narrow, func(t *x509.Certificate) { t.DNSNames = []string{"client.evil.test"} }), narrow}, false},
		{"below a client's certificate", []*signer{one(one(root, nil), nil)}, false},
		{"without its intermediate", []*signer{one(between, nil)}, false},
		{"ten intermediates", long, false},
		{"RSA of 16,384 bits", []*signer{big16}, false},
		{"5,000 names", []*signer{many}, false},
	}, err
}

// clientCPU is what a handshake may cost the gate, whatever is shown.
const clientCPU = 5 * time.Millisecond

func clientCertificates(ctx context.Context, x *exam) error {
	root, err := certify(nil, authority)
	if err != nil {
		return err
	}
	rows, err := showings(root)
	if err != nil {
		return err
	}
	s, err := secure(x.dir)
	if err != nil {
		return err
	}
	ca := filepath.Join(x.dir, "clients.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.cert.Raw}), 0o600); err != nil {
		return err
	}
	yaml := strings.Replace(s.yaml, " } }", fmt.Sprintf(", client_ca: %q, client_auth: required } }", ca), 1)
	sub := *x
	if sub.dir, err = os.MkdirTemp(x.dir, "required-"); err != nil {
		return err
	}
	c, err := start(ctx, &sub, clusterOptions{memory: true, gate: exemptLoopback + ", " + s.gate, yaml: yaml})
	if err != nil {
		return err
	}
	defer func() { _ = c.close() }()
	wrong, dearest, dear := 0, time.Duration(0), ""
	for _, row := range rows {
		config := s.client.Clone()
		if len(row.chain) > 0 {
			shownCert := tls.Certificate{PrivateKey: row.chain[0].key}
			for _, link := range row.chain {
				shownCert.Certificate = append(shownCert.Certificate, link.cert.Raw)
			}
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &shownCert, nil }
		}
		rounds := x.n(40, 2)
		before := cpuSeconds(c.nodes[0].PID())
		for range rounds {
			if state, err := shake(ctx, c.nodes[0].Gate, config); (err == nil) != row.pass || state.DidResume {
				wrong++
				x.want(false, "%s: %s, resumed %v", row.name, verdict(err), state.DidResume)
			}
		}
		each := time.Duration((cpuSeconds(c.nodes[0].PID()) - before) / float64(rounds) * float64(time.Second))
		if each > dearest {
			dearest, dear = each, row.name
		}
	}
	x.figure("client certificates: %d chains, %d wrong verdicts", len(rows), wrong)
	x.figure("dearest handshake: %v of the gate's processor (%s)", dearest.Round(10*time.Microsecond), dear)
	x.wantTime(dearest <= clientCPU, "a handshake costs %v, at most %v wanted (%s)", dearest, clientCPU, dear)
	return nil
}
