package certs_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ticketgate/internal/certs"
)

func now() time.Time { return noon }

// trusting is a client that asks for name.
func trusting(name string, root *issued) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(root.cert)
	return &tls.Config{RootCAs: pool, ServerName: name, Time: now}
}

// load is Load that must not fail.
func load(t testing.TB, o certs.Options) *certs.Store {
	t.Helper()
	o.Now = now
	s, err := certs.Load(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f folder) pair() []certs.Pair {
	return []certs.Pair{{Cert: f.path("tls.crt"), Key: f.path("tls.key")}}
}

// TestNames: the client's SNI picks the certificate, the first serves the rest; the first to end is told.
func TestNames(t *testing.T) {
	f := newFolder(t)
	root := (*issued)(nil).issue(t, authority("root"), nil)
	var pairs []certs.Pair
	for i, name := range []string{"a.test", "b.test", "*.c.test"} {
		c := server(name)
		c.NotBefore, c.NotAfter = noon.Add(-time.Hour), noon.Add(time.Duration(9-i)*time.Hour)
		p := root.issue(t, c, nil)
		both := f.put(name, append(p.pem(), p.keyPEM(t)...)) // one file may hold both
		pairs = append(pairs, certs.Pair{Cert: both, Key: both})
	}
	s := load(t, certs.Options{Pairs: pairs})
	if want := noon.Add(7 * time.Hour); !s.NotAfter().Equal(want) {
		t.Errorf("ends %v, want %v", s.NotAfter(), want)
	}
	for sni, want := range map[string]string{"a.test": "a.test", "b.test": "b.test", "x.c.test": "*.c.test", "other.test": "a.test", "": "a.test"} {
		var got string
		c := trusting(sni, root)
		c.InsecureSkipVerify = true // what it is shown is the question
		c.VerifyConnection = func(state tls.ConnectionState) error {
			got = state.PeerCertificates[0].DNSNames[0]
			return nil
		}
		state, err := shake(t, s.Config(), c)
		if err != nil || got != want || state.ServerName != sni {
			t.Errorf("%q was shown %q, %v; the server knows %q", sni, got, err, state.ServerName)
		}
	}
}

// TestLoadRefuses: what is wrong, and in which file.
func TestLoadRefuses(t *testing.T) {
	f := newFolder(t)
	root := (*issued)(nil).issue(t, authority("root"), nil)
	good, other := root.issue(t, server("a.test"), nil), root.issue(t, server("a.test"), nil)
	short, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // it is to be refused
	if err != nil {
		t.Fatal(err)
	}
	f.putPair(t, good)
	f.put("other.key", other.keyPEM(t))
	f.put("short.crt", root.issue(t, server("a.test"), short).pem())
	f.put("short.key", (&issued{key: short}).keyPEM(t))
	f.put("text", []byte("no PEM"))
	f.put("long", make([]byte, 1<<20+1))
	crt, key := f.path("tls.crt"), f.path("tls.key")
	for _, row := range []struct {
		name string
		o    certs.Options
		want string
	}{
		{"nothing", certs.Options{}, "no certificate is named"},
		{"no file", certs.Options{Pairs: []certs.Pair{{Cert: f.path("none"), Key: key}}}, "none: no such file"},
		{"no key file", certs.Options{Pairs: []certs.Pair{{Cert: crt, Key: f.path("none")}}}, "none: no such file"},
		{"a folder", certs.Options{Pairs: []certs.Pair{{Cert: f.at, Key: key}}}, "is a directory"},
		{"no PEM", certs.Options{Pairs: []certs.Pair{{Cert: f.path("text"), Key: key}}}, "text and "},
		{"the key of another", certs.Options{Pairs: []certs.Pair{{Cert: crt, Key: f.path("other.key")}}}, "does not match"},
		{"turned round", certs.Options{Pairs: []certs.Pair{{Cert: key, Key: crt}}}, "tls.key and "},
		{"a short RSA key", certs.Options{Pairs: []certs.Pair{{Cert: f.path("short.crt"), Key: f.path("short.key")}}}, "1024 bits; at least 2048"},
		{"a long file", certs.Options{Pairs: []certs.Pair{{Cert: f.path("long"), Key: key}}}, "longer than"},
		{"TLS 1.1", certs.Options{Pairs: f.pair(), MinVersion: tls.VersionTLS11}, "1.2 or 1.3"},
		{"an authority and nobody to ask", certs.Options{Pairs: f.pair(), ClientCA: crt}, "somebody to ask"},
		{"clients without authority", certs.Options{Pairs: f.pair(), ClientAuth: certs.Required}, "need their authority"},
		{"an unknown demand", certs.Options{Pairs: f.pair(), ClientAuth: certs.Required + 1, ClientCA: crt}, "need their authority"},
		{"an authority that is none", certs.Options{Pairs: f.pair(), ClientAuth: certs.Optional, ClientCA: f.path("text")}, "no certificate in it"},
		{"an authority that is not there", certs.Options{Pairs: f.pair(), ClientAuth: certs.Optional, ClientCA: f.path("none")}, "no such file"},
	} {
		if _, err := certs.Load(row.o); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
}

// TestReload: a new pair is taken up whole; half of one, a broken one or none at all changes nothing and is told once.
func TestReload(t *testing.T) {
	f := newFolder(t)
	root := (*issued)(nil).issue(t, authority("root"), nil)
	first, second, third := root.issue(t, server("first.test"), nil), root.issue(t, server("second.test"), nil), root.issue(t, server("third.test"), nil)
	f.putPair(t, first)
	s := load(t, certs.Options{Pairs: f.pair()})
	was := s.Config()
	check := func(step string, wantChanged, wantErr bool, want *issued) {
		t.Helper()
		changed, err := s.Check()
		if changed != wantChanged || (err != nil) != wantErr {
			t.Errorf("%s: %v, %v", step, changed, err)
		}
		if got := s.Config().Certificates[0].Leaf; !got.Equal(want.cert) {
			t.Errorf("%s: serves %v", step, got.Subject)
		}
	}
	check("nothing has changed", false, false, first)
	f.put("tls.crt", second.pem())
	check("half of a pair", false, true, first)
	check("still half", false, false, first)
	f.put("tls.key", second.keyPEM(t))
	check("both halves", true, false, second)
	if was == s.Config() || !was.Certificates[0].Leaf.Equal(first.cert) {
		t.Error("the former configuration was changed")
	}
	f.put("tls.crt", second.pem()[:100])
	check("half a file", false, true, second)
	if err := os.Remove(f.path("tls.crt")); err != nil {
		t.Fatal(err)
	}
	check("no file", false, true, second)
	check("still none", false, false, second)
	f.put("tls.crt", second.pem())
	check("it is back", true, false, second)

	// As Kubernetes does: what a link leads to is another folder from one moment to the next.
	links := newFolder(t)
	for i, p := range []*issued{first, third} {
		dir := folder{t, links.path([]string{"one", "two"}[i])}
		if err := os.Mkdir(dir.at, 0o700); err != nil {
			t.Fatal(err)
		}
		dir.putPair(t, p)
	}
	point := func(to string) {
		if err := os.Symlink(links.path(to), links.path("data.new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(links.path("data.new"), links.path("data")); err != nil {
			t.Fatal(err)
		}
	}
	point("one")
	s = load(t, certs.Options{Pairs: folder{t, links.path("data")}.pair()})
	check("linked", false, false, first)
	point("two")
	check("the link leads elsewhere", true, false, third)
}

// TestWatch: each tick looks, a change is reported, and the end of ctx is the end.
func TestWatch(t *testing.T) { synctest.Test(t, testWatch) }

func testWatch(t *testing.T) {
	f := newFolder(t)
	root := (*issued)(nil).issue(t, authority("root"), nil)
	first, second := root.issue(t, server("first.test"), nil), root.issue(t, server("second.test"), nil)
	both := f.put("both", append(first.pem(), first.keyPEM(t)...))
	s := load(t, certs.Options{Pairs: []certs.Pair{{Cert: both, Key: both}}})
	ctx, stop := context.WithCancel(t.Context())
	tick, reports, ended := make(chan time.Time), make(chan error, 1), make(chan struct{})
	go func() {
		s.Watch(ctx, tick, func(err error) { reports <- err })
		close(ended)
	}()
	look := func() {
		tick <- noon
		synctest.Wait() // it has looked
	}
	look()
	f.put("both", []byte("no PEM"))
	look()
	if err := <-reports; err == nil {
		t.Error("a broken file is reported as good")
	}
	look()
	f.put("both", append(second.pem(), second.keyPEM(t)...))
	look()
	if err := <-reports; err != nil {
		t.Error(err)
	}
	look()
	if len(reports) != 0 || !s.Config().Certificates[0].Leaf.Equal(second.cert) {
		t.Errorf("%d reports too many, or the old certificate", len(reports))
	}
	stop()
	<-ended
}

// TestProfile: what is spoken, and what is not.
func TestProfile(t *testing.T) {
	f := newFolder(t)
	root := (*issued)(nil).issue(t, authority("root"), nil)
	f.putPair(t, root.issue(t, server("a.test"), nil))
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	both := root.issue(t, server("rsa.test"), rsaKey)
	file := f.put("rsa", append(both.pem(), both.keyPEM(t)...))
	s := load(t, certs.Options{Pairs: append(f.pair(), certs.Pair{Cert: file, Key: file})})
	strict := load(t, certs.Options{Pairs: f.pair(), MinVersion: tls.VersionTLS13})

	for _, row := range []struct {
		name   string
		store  *certs.Store
		change func(*tls.Config)
		good   bool
	}{
		{"as it comes", s, func(*tls.Config) {}, true},
		{"TLS 1.2", s, only(tls.VersionTLS12), true},
		{"TLS 1.1", s, only(tls.VersionTLS11), false},
		{"TLS 1.0", s, only(tls.VersionTLS10), false},
		{"TLS 1.2 where 1.3 is the least", strict, only(tls.VersionTLS12), false},
		{"TLS 1.3 where 1.3 is the least", strict, only(tls.VersionTLS13), true},
		{"ML-KEM", s, group(tls.X25519MLKEM768), true},
		{"X25519", s, group(tls.X25519), true},
		{"P-256", s, group(tls.CurveP256), true},
		{"P-384", s, group(tls.CurveP384), false},
		{"P-521", s, group(tls.CurveP521), false},
		{"http/1.1", s, func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }, true},
		{"h2 alone", s, func(c *tls.Config) { c.NextProtos = []string{"h2"} }, false},
	} {
		c := trusting("a.test", root)
		row.change(c)
		if state, err := shake(t, row.store.Config(), c); (err == nil) != row.good {
			t.Errorf("%s: %v", row.name, err)
		} else if err == nil && len(c.NextProtos) > 0 && state.NegotiatedProtocol != "http/1.1" {
			t.Errorf("%s: speaks %q", row.name, state.NegotiatedProtocol)
		}
	}
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if suite.SupportedVersions[0] == tls.VersionTLS13 {
			continue // of which all are good
		}
		name := "a.test"
		if strings.Contains(suite.Name, "RSA") && !strings.Contains(suite.Name, "ECDSA") {
			name = "rsa.test"
		}
		c := trusting(name, root)
		only(tls.VersionTLS12)(c)
		c.CipherSuites = []uint16{suite.ID}
		good := strings.Contains(suite.Name, "ECDHE") && (strings.Contains(suite.Name, "GCM") || strings.Contains(suite.Name, "POLY1305"))
		if _, err := shake(t, s.Config(), c); (err == nil) != good {
			t.Errorf("%s: %v", suite.Name, err)
		}
	}
}

func only(version uint16) func(*tls.Config) {
	return func(c *tls.Config) { c.MinVersion, c.MaxVersion = version, version }
}

func group(id tls.CurveID) func(*tls.Config) {
	return func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{id} }
}

// TestResumption: tickets where nobody's certificate is asked for, none where one is.
func TestResumption(t *testing.T) {
	f := newFolder(t)
	root := (*issued)(nil).issue(t, authority("root"), nil)
	f.putPair(t, root.issue(t, server("a.test"), nil))
	ca := f.put("ca", root.pem())
	me := root.issue(t, person("me"), nil).shows()
	for _, row := range []struct {
		o    certs.Options
		want bool
	}{
		{certs.Options{Pairs: f.pair()}, true},
		{certs.Options{Pairs: f.pair(), ClientAuth: certs.Optional, ClientCA: ca}, false},
		{certs.Options{Pairs: f.pair(), ClientAuth: certs.Required, ClientCA: ca}, false},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			s := load(t, row.o)
			s.Config().Time = now // of the tickets
			c := trusting("a.test", root)
			only(version)(c)
			c.Certificates = []tls.Certificate{me}
			c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			var last tls.ConnectionState
			for range 2 {
				state, err := shake(t, s.Config(), c)
				if err != nil {
					t.Fatal(err)
				}
				last = state
			}
			if last.DidResume != row.want {
				t.Errorf("asking %d, TLS %x: resumed %v", row.o.ClientAuth, version, last.DidResume)
			}
		}
	}
}
