package auth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net/netip"
	"strings"
	"time"
)

// An API key on the wire:
//
//	tgk_<id>_<secret>      id: 1 to 32 of a-z, 0-9 and -, public      secret: 32 random bytes, base64url, 43 characters
//
// Stored is only HMAC-SHA-256(hash key, the whole text), so a hash moved to another id opens nothing.
const (
	Prefix     = "tgk_"
	idMax      = 32
	secretSize = 32
	secretText = 43 // base64url of secretSize without padding
	textMax    = len(Prefix) + idMax + 1 + secretText
)

var errForm = errors.New(`not an API key: want "tgk_<id>_<43 characters>"`)

// A Record is one entry of a keys file: all but the key itself.
type Record struct {
	ID      string         `yaml:"id"`
	Hash    string         `yaml:"hash"` // Ring.Hash
	Client  string         `yaml:"client,omitempty"`
	Product string         `yaml:"product"`
	Plan    string         `yaml:"plan"`
	Scopes  []string       `yaml:"scopes,omitempty"`
	IP      []netip.Prefix `yaml:"ip,omitempty"`      // where it may come from; none: anywhere
	Expires *time.Time     `yaml:"expires,omitempty"` // refused from this moment on; none: never
}

// Generate makes a key with 256 bits from rnd and its record, which has ID and Hash only. text is shown once and kept
// nowhere.
func Generate(rnd io.Reader, id string, ring *Ring) (text string, rec Record, err error) {
	if !validID(id) {
		return "", rec, fmt.Errorf("key id %q: want 1 to %d of a-z, 0-9 and -", id, idMax)
	}
	var secret [secretSize]byte
	if _, err := io.ReadFull(rnd, secret[:]); err != nil {
		return "", rec, fmt.Errorf("make key %q: %w", id, err)
	}
	text = Prefix + id + "_" + base64.RawURLEncoding.EncodeToString(secret[:])
	hash, err := ring.Hash(text)
	if err != nil {
		return "", rec, err
	}
	return text, Record{ID: id, Hash: hash}, nil
}

// parseKey checks the form and returns the id, a part of text. Only one text stands for each secret.
func parseKey(text []byte) (id []byte, ok bool) {
	if len(text) > textMax || !bytes.HasPrefix(text, []byte(Prefix)) {
		return nil, false
	}
	id, secret, ok := bytes.Cut(text[len(Prefix):], []byte{'_'})
	if !ok || !validID(id) || len(secret) != secretText {
		return nil, false
	}
	return id, canonical(secret)
}

// canonical reports whether s is how base64url writes secretSize bytes. Its time does not depend on which characters they
// are: arithmetic, no table.
func canonical(s []byte) bool {
	var bad uint
	for _, c := range s {
		bad |= outside(c, 'A', 'Z') & outside(c, 'a', 'z') & outside(c, '0', '9') & outside(c, '-', '-') & outside(c, '_', '_')
	}
	return bad == 0 && strings.IndexByte(lastOfSecret, s[len(s)-1]) >= 0
}

// lastOfSecret are the characters whose two lowest bits are zero: 43 characters hold two bits too many.
const lastOfSecret = "AEIMQUYcgkosw048" //nolint:gosec // an alphabet

// outside is 1 if c is not in low..high, else 0.
func outside(c, low, high byte) uint {
	return ((uint(c) - uint(low)) | (uint(high) - uint(c))) >> (bits.UintSize - 1)
}

func validID[T string | []byte](id T) bool {
	if len(id) == 0 || len(id) > idMax {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}
