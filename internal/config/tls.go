package config

import (
	"crypto/tls"
	"errors"
	"maps"
	"slices"
	"strings"

	"ticketgate/internal/certs"
)

// TLS is what a listener shows its clients, and asks of them.
type TLS struct {
	Cert       Paths  `yaml:"cert" form:"path"` // PEM, the chain behind the certificate in it; paths from the configuration's own folder
	Key        Paths  `yaml:"key" form:"path"`  // PEM, of each certificate
	MinVersion string `yaml:"min_version" default:"1.2" oneof:"1.2 1.3"`
	ClientCA   string `yaml:"client_ca" form:"path"` // PEM, the authorities of clients' certificates
	ClientAuth string `yaml:"client_auth" default:"none" oneof:"none optional required"`
}

// Options is t as package certs loads it. t has been checked.
func (t *TLS) Options() certs.Options {
	o := certs.Options{MinVersion: tls.VersionTLS12, ClientCA: t.ClientCA}
	for i := range t.Cert {
		o.Pairs = append(o.Pairs, certs.Pair{Cert: t.Cert[i], Key: t.Key[i]})
	}
	if t.MinVersion == "1.3" {
		o.MinVersion = tls.VersionTLS13
	}
	switch t.ClientAuth {
	case "optional":
		o.ClientAuth = certs.Optional
	case "required":
		o.ClientAuth = certs.Required
	}
	return o
}

// Paths are files: one, or a list of them.
type Paths []string

// UnmarshalYAML reads one path or a list.
func (p *Paths) UnmarshalYAML(decode func(any) error) (err error) {
	*p, err = oneOrMore(decode, "an empty list; name a file")
	return err
}

// oneOrMore reads one text or a list of them, of which an empty one is none.
func oneOrMore(decode func(any) error, none string) ([]string, error) {
	var one string
	err := decode(&one)
	if err == nil {
		return []string{one}, nil
	}
	var list []string
	if wrong := decode(&list); wrong != nil {
		if list == nil {
			return nil, err // it is no list, so it was meant to be one text
		}
		return nil, wrong
	}
	if len(list) == 0 {
		return nil, errors.New(none)
	}
	return list, nil
}

func checkPath(s string) error {
	if s == "" {
		return errors.New("is not a path")
	}
	return nil
}

// placeTLS makes paths of what is relative to the configuration.
func (l *loader) placeTLS() {
	for name, t := range l.cfg.TLS {
		for _, paths := range []Paths{t.Cert, t.Key} {
			for i, p := range paths {
				paths[i] = l.path(p)
			}
		}
		if t.ClientCA != "" {
			t.ClientCA = l.path(t.ClientCA)
		}
		l.cfg.TLS[name] = t
	}
}

// checkTLS looks into the files, too: a certificate without its key is found here, not at the next start.
func (l *loader) checkTLS() {
	in := &l.cfg.Listen.Gate
	if in.TLS != none {
		refer(l, "listen.gate.tls", "tls entry", in.TLS, l.cfg.TLS)
		l.rule(!strings.HasPrefix(in.PublicURL, "ws://"), []string{"listen.gate.public_url", "listen.gate.tls"},
			"is for clients without TLS, which listen.gate.tls is about; write wss://")
	}
	for _, name := range slices.Sorted(maps.Keys(l.cfg.TLS)) {
		t := l.cfg.TLS[name]
		at := "tls." + name
		cert, key, ca, auth := at+".cert", at+".key", at+".client_ca", at+".client_auth"
		l.rule(name != none, []string{at}, "is what a listener without TLS says; choose another name")
		l.rule(len(t.Cert) > 0, []string{cert}, "missing; name the PEM file of the certificate")
		l.rule(len(t.Key) > 0, []string{key}, "missing; name the PEM file of the certificate's key")
		l.rule(len(t.Key) == len(t.Cert), []string{key, cert}, "names %d files for %d certificates; each has a key", len(t.Key), len(t.Cert))
		l.rule(t.ClientAuth == none || t.ClientCA != "", []string{ca, auth},
			"missing; with client_auth: %s, name the PEM file of the authorities that clients' certificates come from", t.ClientAuth)
		l.rule(t.ClientAuth != none || t.ClientCA == "", []string{auth, ca}, "is none, so that client_ca is never used; write required or optional")
		if !l.sound(at) {
			continue
		}
		o := t.Options()
		o.Read = l.read
		if _, err := certs.Load(o); err != nil {
			l.wrong(at, "%s", l.mask(at, err.Error()))
		}
	}
}
