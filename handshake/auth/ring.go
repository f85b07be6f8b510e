package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// ringMax bounds a ring: rotation needs two keys, an accident some more.
const ringMax = 16

const block = 64 // input block of SHA-256, FIPS 180-4

// A Ring is the keys that API keys are hashed with. It never changes; any goroutine may use it.
type Ring struct {
	ids  []string
	pads []pads
}

// pads are the first blocks of both passes of HMAC (RFC 2104), so that a check hashes four blocks and allocates nothing.
type pads struct{ inner, outer [block]byte }

// ParseRing reads the key_hash secret: a line "id:base64 of 32 bytes" each, blank lines and lines that begin with # left
// out. The first key hashes, all verify. No error names a byte of a key.
func ParseRing(text string) (*Ring, error) {
	r := new(Ring)
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := r.add(line); err != nil {
			return nil, fmt.Errorf("hash key ring, line %d: %w", number, err)
		}
	}
	if len(r.ids) == 0 {
		return nil, errors.New("hash key ring: no key")
	}
	return r, nil
}

func (r *Ring) add(line string) error {
	id, text, found := strings.Cut(line, ":")
	if !found || !validID(id) {
		return errors.New(`want "id:base64 of 32 bytes", id 1 to 32 of a-z, 0-9 and -`)
	}
	if _, ok := r.find(id); ok {
		return fmt.Errorf("key %q stands twice", id)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(key) != sha256.Size {
		return fmt.Errorf("key %q is not base64 of 32 bytes", id)
	}
	if len(r.ids) == ringMax {
		return fmt.Errorf("more than %d keys", ringMax)
	}
	r.ids = append(r.ids, id)
	r.pads = append(r.pads, newPads(key))
	return nil
}

func newPads(key []byte) (p pads) {
	for i := range block {
		var k byte
		if i < len(key) {
			k = key[i]
		}
		p.inner[i], p.outer[i] = k^0x36, k^0x5c
	}
	return p
}

func (r *Ring) find(id string) (int, bool) {
	for i, have := range r.ids {
		if have == id {
			return i, true
		}
	}
	return 0, false
}

// sum is HMAC-SHA-256 of text, which is at most textMax long, without allocation.
func (p *pads) sum(text []byte) [sha256.Size]byte {
	var first [block + textMax]byte
	copy(first[:], p.inner[:])
	inner := sha256.Sum256(first[:block+copy(first[block:], text)])
	var second [block + sha256.Size]byte
	copy(second[:], p.outer[:])
	copy(second[block:], inner[:])
	return sha256.Sum256(second[:])
}

// Hash returns what a keys file holds instead of text: "hmac-sha256:<id of the ring's first key>:<base64>". text is a whole
// key, "tgk_...".
func (r *Ring) Hash(text string) (string, error) {
	if _, ok := parseKey([]byte(text)); !ok {
		return "", errForm
	}
	sum := r.pads[0].sum([]byte(text))
	return hashName + ":" + r.ids[0] + ":" + base64.StdEncoding.EncodeToString(sum[:]), nil
}

const hashName = "hmac-sha256"

// parseHash reads what Hash wrote.
func (r *Ring) parseHash(s string) (pad uint32, sum [sha256.Size]byte, err error) {
	name, rest, _ := strings.Cut(s, ":")
	id, text, found := strings.Cut(rest, ":")
	if name != hashName || !found {
		return 0, sum, errors.New(`want "hmac-sha256:<hash key id>:<base64>"`)
	}
	at, ok := r.find(id)
	if !ok {
		return 0, sum, fmt.Errorf("no hash key %q in the ring", id)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != len(sum) {
		return 0, sum, errors.New("the part after the last colon is not base64 of 32 bytes")
	}
	return uint32(at), [sha256.Size]byte(b), nil
}
