package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// StoreTLS is how connections to the store are secured.
type StoreTLS struct {
	CA         string `yaml:"ca"`   // PEM, the authorities of the servers' certificates; "system": the host's
	Cert       string `yaml:"cert"` // PEM, what this node shows them
	Key        string `yaml:"key"`  // PEM, of Cert
	ServerName string `yaml:"server_name"`

	Loaded *tls.Config `yaml:"-"` // nil if none of the keys is set
}

// system is the store.tls.ca that names no file.
const system = "system"

// placeStoreTLS makes paths of what is relative to the configuration.
func (l *loader) placeStoreTLS() {
	t := &l.cfg.Store.TLS
	for _, path := range []*string{&t.CA, &t.Cert, &t.Key} {
		if *path != "" && (path != &t.CA || *path != system) {
			*path = l.path(*path)
		}
	}
}

func (l *loader) checkStore() {
	s := &l.cfg.Store
	redis := s.Kind == "redis"
	l.rule(!redis || !s.URL.Empty() || len(s.Addresses) > 0, []string{"store.url", "store.kind", "store.addresses"},
		"missing; a redis store needs one, or addresses")
	if !redis {
		for _, key := range l.setOf("store.url", "store.addresses", "store.sentinel", "store.user", "store.password", "store.tls", "store.replicas") {
			l.rule(false, []string{key, "store.kind"}, "a %s store has none; write kind: redis", s.Kind)
		}
	}
	l.rule(!redis || !l.cfg.Secrets.TicketKeys.Empty(), []string{"secrets.ticket_keys", "store.kind"},
		"missing; nodes that share a store need the same ticket keys")
	l.rule(!redis || !l.cfg.Secrets.KeyHash.Empty(), []string{"secrets.key_hash", "store.kind"},
		"missing; nodes that share a store need the same hash keys")
	if redis && l.sound("store") {
		l.checkServers(s)
		l.checkStoreTLS(s)
	}
	c := &l.cfg.Cluster
	l.rule(c.Lease >= 3*c.Heartbeat, []string{"cluster.lease", "cluster.heartbeat"},
		"%v is less than three heartbeats of %v: one lost answer would end it", c.Lease, c.Heartbeat)
}

// setOf returns which of paths stand in the file, in the environment or in flags.
func (l *loader) setOf(paths ...string) []string {
	var set []string
	for _, p := range paths {
		if _, ok := l.where[p]; ok {
			set = append(set, p)
		}
	}
	return set
}

// checkServers reports what contradicts itself in where the servers are, and as whom they are asked.
func (l *loader) checkServers(s *Store) {
	one := !s.URL.Empty()
	l.rule(!one || len(s.Addresses) == 0, []string{"store.addresses"}, "are of several servers, and store.url is of one; write one of both")
	if one {
		for _, key := range l.setOf("store.user", "store.password") {
			l.rule(false, []string{key}, "stands in store.url if there is one: redis://user:password@host:port")
		}
	}
	l.rule(s.User == "" || !s.Password.Empty(), []string{"store.password", "store.user"}, "missing; store.user has one")
	l.rule(!one || s.Sentinel == Sentinel{}, []string{"store.sentinel"}, "is asked at store.addresses; write the sentinels there, and no store.url")
	l.rule(s.Sentinel.Master != "" || s.Sentinel == Sentinel{}, []string{"store.sentinel.master", "store.sentinel"},
		"missing; write what the sentinels call the primary")
	l.rule(s.Sentinel.User == "" || !s.Sentinel.Password.Empty(), []string{"store.sentinel.password", "store.sentinel.user"},
		"missing; store.sentinel.user has one")
	l.rule(len(s.Addresses) <= addressesMax, []string{"store.addresses"}, "are %d; %d are enough to find the others", len(s.Addresses), addressesMax)
	seen := make(map[string]bool)
	for i, a := range s.Addresses {
		l.rule(!seen[a], []string{fmt.Sprintf("store.addresses[%d]", i), "store.addresses"}, "is there twice")
		seen[a] = true
	}
}

// addressesMax is as many as the store asks at once.
const addressesMax = 16

// checkStoreTLS reads the files, too.
func (l *loader) checkStoreTLS(s *Store) {
	t := &s.TLS
	if *t == (StoreTLS{}) {
		return
	}
	const at = "store.tls"
	l.rule(s.URL.Empty() || isTLS(s.URL.Reveal()), []string{at}, "is never used with redis://; write rediss:// in store.url")
	l.rule(t.Cert == "" || t.Key != "", []string{at + ".key", at + ".cert"}, "missing; name the PEM file of the key of store.tls.cert")
	l.rule(t.Key == "" || t.Cert != "", []string{at + ".cert", at + ".key"}, "missing; name the PEM file of the certificate of store.tls.key")
	l.rule(t.CA != "" || !s.URL.Empty(), []string{at + ".ca", at},
		`missing; name the PEM file of the authorities of the servers' certificates, or write "system" for the host's`)
	if !l.sound(at) {
		return
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" && t.CA != system {
		text, err := l.read(t.CA, pemMax)
		c.RootCAs = x509.NewCertPool()
		if err == nil && !c.RootCAs.AppendCertsFromPEM(text) {
			err = errors.New("no certificate in it")
		}
		if err != nil {
			l.wrong(at+".ca", "%s: %v", l.quote(at+".ca", t.CA), err)
		}
	}
	if t.Cert != "" {
		if _, err := loadPair(l.read, t.Cert, t.Key); err != nil {
			l.wrong(at+".cert", "%s: %v", l.quote(at+".cert", t.Cert), err)
		}
		// Read anew for each connection, so that a renewed certificate needs no restart.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return loadPair(readFile, t.Cert, t.Key) }
	}
	t.Loaded = c
}

// pemMax bounds what is read of a PEM file.
const pemMax = 1 << 20

func loadPair(read func(string, int64) ([]byte, error), cert, key string) (*tls.Certificate, error) {
	certText, err := read(cert, pemMax)
	if err != nil {
		return nil, err
	}
	keyText, err := read(key, pemMax)
	if err != nil {
		return nil, fmt.Errorf("its key: %w", err)
	}
	pair, err := tls.X509KeyPair(certText, keyText)
	if err != nil {
		return nil, errors.New("no certificate with its key in these two files") // the library's own may show parts of them
	}
	return &pair, nil
}

func isTLS(url string) bool { return strings.HasPrefix(url, "rediss://") }
