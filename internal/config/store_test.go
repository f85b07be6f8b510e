package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"ticketgate/internal/config"
)

// TestStoreServers: sentinels, users and certificates, as the store gets them.
func TestStoreServers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gw.yaml")
	for _, name := range []string{"rt.pem", "eu.crt", "eu.key", "ring.txt"} {
		text, err := os.ReadFile(filepath.Join("testdata/good", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(file), name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	load := func(store string) *config.Store {
		t.Helper()
		text := "version: 1\nlisten: { gate: { public_url: ws://a } }\nsecrets: { ticket_keys: \"${file:ring.txt}\", key_hash: \"${file:ring.txt}\" }\nstore: { kind: redis, " + store + " }\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return &mustLoad(t, file, nil, nil).Store
	}
	s := load(`addresses: ["10.0.0.5:26379", "[2001:db8::1]:26379", "redis.internal:26379"], sentinel: { master: tickets, user: watcher, password: "${file:ring.txt}" },
  user: gw, password: hunter2, tls: { ca: rt.pem, cert: eu.crt, key: eu.key, server_name: redis.internal }`)
	if want := []string{"10.0.0.5:26379", "[2001:db8::1]:26379", "redis.internal:26379"}; !reflect.DeepEqual(s.Addresses, want) {
		t.Errorf("addresses %v, want %v", s.Addresses, want)
	}
	if s.Sentinel.Master != "tickets" || s.Sentinel.User != "watcher" || s.Sentinel.Password.Empty() || s.User != "gw" || s.Password.Reveal() != hunter {
		t.Errorf("got %+v", s)
	}
	c := s.TLS.Loaded
	if c == nil || c.RootCAs == nil || c.ServerName != "redis.internal" || c.GetClientCertificate == nil {
		t.Fatalf("TLS %+v", c)
	}
	pair, err := c.GetClientCertificate(nil)
	if err != nil || len(pair.Certificate) == 0 {
		t.Fatalf("certificate: %v", err)
	}
	if err := os.WriteFile(s.TLS.Cert, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetClientCertificate(nil); err == nil {
		t.Error("the file is not read for each connection")
	}
	if c := load("url: rediss://10.0.0.5").TLS.Loaded; c != nil {
		t.Errorf("rediss:// and nothing else: %+v", c)
	}
	if c := load("addresses: [\"10.0.0.5:6379\"], tls: { ca: system }").TLS.Loaded; c == nil || c.RootCAs != nil {
		t.Errorf("system: %+v", c)
	}
}
