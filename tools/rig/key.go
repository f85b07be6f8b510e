package rig

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"

	"ticketgate/handshake/auth"
)

// Ring is a text for secrets.ticket_keys and secrets.key_hash with one fresh key.
func Ring() (string, error) {
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return "", err
	}
	return "k1:" + base64.StdEncoding.EncodeToString(key[:]) + "\n", nil
}

// Key is an API key as a test holds it.
type Key struct {
	Text  string // what the caller sends
	Entry string // its line in keys.yaml
}

// NewKey makes a key of client for plan of product, hashed with ring.
func NewKey(ring, id, client, product, plan string, scopes ...string) (Key, error) {
	r, err := auth.ParseRing(ring)
	if err != nil {
		return Key{}, err
	}
	text, rec, err := auth.Generate(rand.Reader, id, r)
	if err != nil {
		return Key{}, err
	}
	entry := fmt.Sprintf("- { id: %s, hash: %q, client: %s, product: %s, plan: %s, scopes: [%s] }\n",
		id, rec.Hash, client, product, plan, strings.Join(scopes, ", "))
	return Key{text, entry}, nil
}
