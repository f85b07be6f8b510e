package certs_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"ticketgate/internal/certs"
)

// longKey is an RSA key of 4096 bits.
var longKey = sync.OnceValue(func() crypto.Signer {
	text, err := os.ReadFile("testdata/rsa4096.pem")
	if err != nil {
		panic(err)
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		panic(err)
	}
	return key.(crypto.Signer)
})

// A hollow key is as long as it says, and seals nothing: it must not come to that.
type hollow struct{ bits, exponent int }

func (h hollow) Public() crypto.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), uint(h.bits)-1)
	return &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: h.exponent}
}

func (h hollow) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return make([]byte, h.bits/8), nil
}

// A hall is a store that asks for certificates of root's.
type hall struct {
	t     *testing.T
	root  *issued
	store *certs.Store
}

func newHall(t *testing.T, auth certs.ClientAuth) *hall {
	f := newFolder(t)
	h := &hall{t: t, root: (*issued)(nil).issue(t, authority("root"), nil)}
	f.putPair(t, h.root.issue(t, server("a.test"), nil))
	ca := f.put("ca", h.root.pem())
	h.store = load(t, certs.Options{Pairs: f.pair(), ClientAuth: auth, ClientCA: ca})
	return h
}

// enter is a client that shows c, or nothing.
func (h *hall) enter(version uint16, c ...tls.Certificate) (tls.ConnectionState, error) {
	config := trusting("a.test", h.root)
	only(version)(config)
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { // whatever the server would like
		if len(c) == 0 {
			return &tls.Certificate{}, nil
		}
		return &c[0], nil
	}
	return shake(h.t, h.store.Config(), config)
}

// line is a chain of n authorities below p, from the lowest to the highest.
func line(t testing.TB, p *issued, n int, change func(i int, c *x509.Certificate)) (chain []*issued) {
	for i := range n {
		c := authority(fmt.Sprint("between ", i))
		if change != nil {
			change(i, &c)
		}
		p = p.issue(t, c, nil)
		chain = append([]*issued{p}, chain...)
	}
	return chain
}

// TestClients: who is let in, by which certificate.
func TestClients(t *testing.T) {
	h := newHall(t, certs.Required)
	stranger := (*issued)(nil).issue(t, authority("stranger"), nil)
	alike := (*issued)(nil).issue(t, authority("root"), nil) // another root of the same name
	expired, early := person("late"), person("early")
	expired.NotBefore, expired.NotAfter = noon.Add(-2*time.Hour), noon.Add(-time.Second)
	early.NotBefore, early.NotAfter = noon.Add(time.Second), noon.Add(time.Hour)
	forServers := person("a server")
	forServers.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	three, four := line(t, h.root, 3, nil), line(t, h.root, 4, nil)
	twin := line(t, h.root, 1, nil)[0]
	ed, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil || len(ed) == 0 {
		t.Fatal(err)
	}
	short, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	fenced := line(t, h.root, 1, func(_ int, c *x509.Certificate) { c.PermittedDNSDomains = []string{"inside.test"} })[0]
	inside, outside := person("inside"), person("outside")
	inside.DNSNames, outside.DNSNames = []string{"a.inside.test"}, []string{"a.outside.test"}
	many := person("many")
	for i := range 65 {
		many.DNSNames = append(many.DNSNames, fmt.Sprint("n", i, ".test"))
	}
	wide := line(t, h.root, 1, func(_ int, c *x509.Certificate) {
		for i := range 65 {
			c.ExcludedDNSDomains = append(c.ExcludedDNSDomains, fmt.Sprint("n", i, ".test"))
		}
	})[0]

	for _, row := range []struct {
		name string
		show []tls.Certificate
		want string // in the error; "" is in
	}{
		{"one of ours", []tls.Certificate{h.root.issue(t, person("me"), nil).shows()}, ""},
		{"P-384", []tls.Certificate{h.root.issue(t, person("me"), newKey(t, elliptic.P384())).shows()}, ""},
		{"RSA 2048", []tls.Certificate{h.root.issue(t, person("me"), short).shows()}, ""},
		{"RSA 4096", []tls.Certificate{h.root.issue(t, person("me"), longKey()).shows()}, ""},
		{"Ed25519", []tls.Certificate{h.root.issue(t, person("me"), edKey).shows()}, ""},
		{"three between", []tls.Certificate{three[0].issue(t, person("me"), nil).shows(three...)}, ""},
		{"inside its authority's fence", []tls.Certificate{fenced.issue(t, inside, nil).shows(fenced)}, ""},
		{"none", nil, "didn't provide a certificate"},
		{"of a stranger", []tls.Certificate{stranger.issue(t, person("me"), nil).shows()}, "unknown authority"},
		{"of a stranger, who comes along", []tls.Certificate{stranger.issue(t, person("me"), nil).shows(stranger)}, "unknown authority"},
		{"of one with our root's name", []tls.Certificate{alike.issue(t, person("me"), nil).shows(alike)}, "unknown authority"},
		{"signed by itself", []tls.Certificate{(*issued)(nil).issue(t, person("me"), nil).shows()}, "unknown authority"},
		{"expired", []tls.Certificate{h.root.issue(t, expired, nil).shows()}, "expired"},
		{"not yet valid", []tls.Certificate{h.root.issue(t, early, nil).shows()}, "not yet valid"},
		{"for servers", []tls.Certificate{h.root.issue(t, forServers, nil).shows()}, "incompatible key usage"},
		{"signed by one who is no authority", []tls.Certificate{h.root.issue(t, person("he"), nil).
			issue(t, person("me"), nil).shows(h.root.issue(t, person("he"), nil))}, "unknown authority"},
		{"the link is missing", []tls.Certificate{three[0].issue(t, person("me"), nil).shows(three[1:]...)}, "unknown authority"},
		{"outside its authority's fence", []tls.Certificate{fenced.issue(t, outside, nil).shows(fenced)}, "not permitted"},
		{"four between", []tls.Certificate{four[0].issue(t, person("me"), nil).shows(four...)}, "chain of 5 certificates"},
		{"ten between", []tls.Certificate{four[0].issue(t, person("me"), nil).shows(line(t, h.root, 10, nil)...)}, "chain of 11 certificates"},
		{"two of one name", []tls.Certificate{twin.issue(t, person("me"), nil).shows(twin, line(t, h.root, 1, nil)[0])}, "two certificates of one subject"},
		{"RSA 1024", []tls.Certificate{h.root.issue(t, person("me"), hollow{1024, 65537}).shows()}, "1024 bits"},
		{"RSA with a long exponent", []tls.Certificate{h.root.issue(t, person("me"), hollow{2048, 65539}).shows()}, "exponent 65539"},
		{"RSA 8192", []tls.Certificate{h.root.issue(t, person("me"), hollow{8192, 65537}).shows()}, "8192 bits"},
		{"RSA 16384", []tls.Certificate{h.root.issue(t, person("me"), hollow{16384, 65537}).shows()}, "larger than 8192 bits"},
		{"RSA 4608", []tls.Certificate{h.root.issue(t, person("me"), hollow{4608, 65537}).shows()}, "4608 bits"},
		{"P-521", []tls.Certificate{h.root.issue(t, person("me"), newKey(t, elliptic.P521())).shows()}, "neither on P-256"},
		{"65 names", []tls.Certificate{h.root.issue(t, many, nil).shows()}, "65 names"},
		{"65 constraints", []tls.Certificate{wide.issue(t, person("me"), nil).shows(wide)}, "65 names"},
	} {
		for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
			if row.name == "RSA 1024" && version == tls.VersionTLS12 {
				continue // the client itself has no signature for it
			}
			state, err := h.enter(version, row.show...)
			switch {
			case row.want == "" && (err != nil || len(state.PeerCertificates) == 0 || !strings.Contains("me inside", state.PeerCertificates[0].Subject.CommonName)):
				t.Errorf("%s, %x: %v", row.name, version, err)
			case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
				t.Errorf("%s, %x: %v, want %q", row.name, version, err, row.want)
			}
			if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok && row.want != "" && row.name != "none" && row.name != "RSA 16384" {
				t.Errorf("%s, %x: the error is a %T", row.name, version, err)
			}
		}
	}
}

// TestOptional: without a certificate one is nobody, with a wrong one one is refused.
func TestOptional(t *testing.T) {
	h := newHall(t, certs.Optional)
	if state, err := h.enter(tls.VersionTLS13); err != nil || len(state.PeerCertificates) != 0 {
		t.Errorf("without: %v", err)
	}
	if state, err := h.enter(tls.VersionTLS13, h.root.issue(t, person("me"), nil).shows()); err != nil || len(state.PeerCertificates) != 1 {
		t.Errorf("with: %v", err)
	}
	if _, err := h.enter(tls.VersionTLS13, (*issued)(nil).issue(t, person("me"), nil).shows()); err == nil {
		t.Error("a wrong one is as good as none")
	}
}

// TestChainCost: the dearest chains that are not refused at sight take less than 5 ms; they are verified to the end because
// nothing but the root's signature is wrong with them. The least of some runs: what else runs here is not theirs.
func TestChainCost(t *testing.T) {
	h := newHall(t, certs.Required)
	verify := h.store.Config().VerifyConnection
	fence := func(i int, c *x509.Certificate) {
		for j := range 64 {
			c.ExcludedDNSDomains = append(c.ExcludedDNSDomains, fmt.Sprintf("%s%d-%d.test", strings.Repeat("a.", 60), i, j))
		}
	}
	named := person("me")
	for j := range 64 {
		named.DNSNames = append(named.DNSNames, fmt.Sprintf("%sn%d.test", strings.Repeat("a.", 60), j))
	}
	build := func(leaf x509.Certificate, key func() *issued, between func(p *issued, i int) *issued) []*x509.Certificate {
		p := key()
		list := []*issued{}
		for i := range 3 {
			p = between(p, i)
			list = append([]*issued{p}, list...)
		}
		me := p.issue(t, leaf, nil)
		chain := []*x509.Certificate{me.cert}
		for _, b := range list {
			chain = append(chain, b.cert)
		}
		return chain
	}
	impostor := func(name string) func() *issued { // has the root's name, so that the last signature is tried, too
		return func() *issued {
			c := authority(name)
			return (*issued)(nil).issue(t, c, longKey())
		}
	}
	for name, chain := range map[string][]*x509.Certificate{
		"RSA 4096": build(person("me"), impostor("root"), func(p *issued, i int) *issued {
			return p.issue(t, authority(fmt.Sprint("between ", i)), longKey())
		}),
		"P-384": build(person("me"), impostor("root"), func(p *issued, i int) *issued {
			return p.issue(t, authority(fmt.Sprint("between ", i)), newKey(t, elliptic.P384()))
		}),
		"names under constraints": build(named, impostor("root"), func(p *issued, i int) *issued {
			c := authority(fmt.Sprint("between ", i))
			fence(i, &c)
			return p.issue(t, c, nil)
		}),
	} {
		least := time.Hour
		for range 10 {
			start := time.Now()
			err := verify(tls.ConnectionState{PeerCertificates: chain})
			least = min(least, time.Since(start))
			if err == nil {
				t.Fatalf("%s: accepted", name)
			}
		}
		t.Logf("%s: %v", name, least)
		if least > 5*time.Millisecond*slowed {
			t.Errorf("%s: %v", name, least)
		}
	}
}
