// Package certs loads what a TLS listener shows and demands: certificates with their keys, the authorities of clients, and
// the profile of versions, suites and groups. It looks at the files again and again, and swaps a new set in whole; a broken
// one changes nothing. Open sockets keep what they have.
package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"time"
)

// A Pair is a certificate chain and its key, two PEM files. They may be the same file.
type Pair struct{ Cert, Key string }

// ClientAuth is what is asked of clients.
type ClientAuth uint8

// The choices. Without None there is no session resumption: the certificate is looked at each time.
const (
	None     ClientAuth = iota
	Optional            // a client that shows one must be right
	Required
)

// Options of a Store. Pairs is needed.
type Options struct {
	Pairs      []Pair     // the name that the client asks for (SNI) picks one; the first serves who asks for none, or another
	MinVersion uint16     // tls.VersionTLS12 (also if 0) or tls.VersionTLS13
	ClientAuth ClientAuth // if not None, ClientCA is needed
	ClientCA   string     // a PEM file of the authorities that clients' certificates come from

	Now  func() time.Time                               // time.Now
	Read func(path string, limit int64) ([]byte, error) // of a file, at most limit bytes; nil: of the machine's
}

// fileMax bounds what is read of one file.
const fileMax = 1 << 20

// A Store has the current certificates. Its methods may be called by any goroutine, Check by one at a time.
type Store struct {
	o   Options
	set atomic.Pointer[set]

	looked []stamp // Check: the files as they were tried last
}

// A set is what one reading of the files gave. It is never changed.
type set struct {
	config   *tls.Config
	notAfter time.Time
}

// A stamp tells one state of a file from the next.
type stamp struct {
	info fs.FileInfo // nil: there is none
	size int64
	at   time.Time
}

// Load reads the files. The error says which of them is wrong and how; it names no content.
func Load(o Options) (*Store, error) {
	switch {
	case len(o.Pairs) == 0:
		return nil, errors.New("certs: no certificate is named")
	case o.MinVersion == 0:
		o.MinVersion = tls.VersionTLS12
	case o.MinVersion != tls.VersionTLS12 && o.MinVersion != tls.VersionTLS13:
		return nil, errors.New("certs: the least version is TLS 1.2 or 1.3")
	}
	if o.ClientAuth > Required || (o.ClientAuth == None) != (o.ClientCA == "") {
		return nil, errors.New("certs: clients' certificates need their authority, and an authority somebody to ask")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Read == nil {
		o.Read = readFile
	}
	s := &Store{o: o}
	s.looked = s.stamps()
	set, err := s.read()
	if err != nil {
		return nil, err
	}
	s.set.Store(set)
	return s, nil
}

// Config is the configuration of new handshakes. It is another one after each reload, and is not to be changed.
func (s *Store) Config() *tls.Config { return s.set.Load().config }

// NotAfter is when the first of the certificates ends.
func (s *Store) NotAfter() time.Time { return s.set.Load().notAfter }

// Check looks whether a file has changed, and reads all of them if so. An error leaves everything as it was; the same files
// are not tried again before one of them changes.
func (s *Store) Check() (changed bool, err error) {
	now := s.stamps()
	if same(now, s.looked) {
		return false, nil
	}
	s.looked = now
	set, err := s.read()
	if err != nil {
		return false, err
	}
	s.set.Store(set)
	return true, nil
}

// Watch calls Check at each tick, every 500 ms in a gateway, and report with what comes of a change (nil: it is in force). It
// returns when ctx has ended.
func (s *Store) Watch(ctx context.Context, tick <-chan time.Time, report func(error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			if changed, err := s.Check(); changed || err != nil {
				report(err)
			}
		}
	}
}

// files are all that the options name.
func (s *Store) files() (names []string) {
	for _, p := range s.o.Pairs {
		names = append(names, p.Cert, p.Key)
	}
	if s.o.ClientCA != "" {
		names = append(names, s.o.ClientCA)
	}
	return names
}

func (s *Store) stamps() (all []stamp) {
	for _, name := range s.files() {
		info, err := os.Stat(name) // of what a symbolic link leads to: some replace the link
		if err != nil {
			all = append(all, stamp{})
			continue
		}
		all = append(all, stamp{info, info.Size(), info.ModTime()})
	}
	return all
}

func same(a, b []stamp) bool {
	for i := range a {
		switch {
		case a[i].info == nil || b[i].info == nil:
			if a[i].info != b[i].info {
				return false
			}
		case !os.SameFile(a[i].info, b[i].info), a[i].size != b[i].size, !a[i].at.Equal(b[i].at):
			return false
		}
	}
	return true
}

// read makes a set of the files as they are now.
func (s *Store) read() (*set, error) {
	to := &set{config: profile(s.o.MinVersion)}
	for _, p := range s.o.Pairs {
		c, err := s.load(p)
		if err != nil {
			return nil, err
		}
		to.config.Certificates = append(to.config.Certificates, c)
		if end := c.Leaf.NotAfter; to.notAfter.IsZero() || end.Before(to.notAfter) {
			to.notAfter = end
		}
	}
	if s.o.ClientAuth == None {
		return to, nil
	}
	pool, err := s.authorities()
	if err != nil {
		return nil, err
	}
	s.demand(to.config, pool)
	return to, nil
}

func (s *Store) load(p Pair) (c tls.Certificate, err error) {
	cert, err := s.o.Read(p.Cert, fileMax)
	if err != nil {
		return c, fmt.Errorf("%s: %w", p.Cert, err)
	}
	key, err := s.o.Read(p.Key, fileMax)
	if err != nil {
		return c, fmt.Errorf("%s: %w", p.Key, err)
	}
	defer clear(key)
	if c, err = tls.X509KeyPair(cert, key); err != nil {
		return c, fmt.Errorf("%s and %s: %w", p.Cert, p.Key, err) // crypto/tls quotes neither
	}
	if err := strong(c.Leaf.PublicKey); err != nil {
		return c, fmt.Errorf("%s: %w", p.Cert, err)
	}
	return c, nil
}

// rsaMin is the shortest RSA key of ours (RFC 9325 4.5).
const rsaMin = 2048

func strong(key any) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < rsaMin {
			return fmt.Errorf("an RSA key of %d bits; at least %d", k.N.BitLen(), rsaMin)
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return fmt.Errorf("a key of a kind that TLS has no use for: %T", key)
	}
	return nil
}

// authorities reads the certificates of a PEM file. A file without any would refuse everybody.
func (s *Store) authorities() (*x509.CertPool, error) {
	text, err := s.o.Read(s.o.ClientCA, fileMax)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.o.ClientCA, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: no certificate in it", s.o.ClientCA)
	}
	return pool, nil
}

// readFile is Options.Read by default. Its errors do not repeat the path.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, withoutPath(err)
	case int64(len(text)) > limit:
		return nil, fmt.Errorf("longer than %d bytes", limit)
	}
	return text, nil
}

func withoutPath(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
