package ticket

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// A KeyRing holds the keys that locators are minted and checked with. It never changes; any goroutine may use it.
//
// Rotation: the first key mints, every key verifies, and the last key is the anchor. Hash, SecretHash and Subject are
// computed under the anchor alone, whatever key minted a locator, so that all nodes name the same ticket and the same
// client alike while their rings differ for a moment. Put a new key first and drop keys from the middle; replacing the
// last one makes every ticket and every count of the old anchor unknown, so do it on all nodes at once.
type KeyRing struct {
	keys   []macKey // in the order of the text, 1 to maxKeys
	anchor anchor
	pool   sync.Pool // of *Checker, for calls from any goroutine
}

// maxKeys is as many as the four bits of a key number tell apart.
const maxKeys = 16

const keyLen = 32

// macKey is one key of the ring as the MAC needs it.
type macKey struct {
	number byte // 4 bits in the locator's first byte
	mac    cmac
}

// anchor holds the subkeys of the last key, one per purpose.
type anchor struct{ hash, secret, subject []byte }

// ParseKeyRing reads one key a line, "id:base64 of 32 bytes". Blank lines and lines that start with # are ignored. Errors
// name the line and never show any of it.
func ParseKeyRing(text string) (*KeyRing, error) {
	var ids []string
	var keys [][]byte
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		id, key, err := parseKeyLine(line)
		if err != nil {
			return nil, fmt.Errorf("ticket keys: line %d: %w", n+1, err)
		}
		for i := range ids {
			if ids[i] == id {
				return nil, fmt.Errorf("ticket keys: line %d: id used twice", n+1)
			}
		}
		ids, keys = append(ids, id), append(keys, key)
	}
	return newKeyRing(ids, keys)
}

// NewKeyRing makes a ring of one random key, for a process that shares its tickets with no other.
func NewKeyRing(rnd io.Reader) (*KeyRing, error) {
	key := make([]byte, keyLen)
	if _, err := io.ReadFull(rnd, key); err != nil {
		return nil, fmt.Errorf("ticket keys: random source: %w", err)
	}
	return newKeyRing([]string{"random"}, [][]byte{key})
}

func parseKeyLine(line string) (id string, key []byte, err error) {
	id, text, ok := strings.Cut(line, ":")
	if !ok || !validKeyID(id) {
		return "", nil, errors.New("want id:base64, the id of 1 to 64 letters, digits, '-', '_' or '.'")
	}
	key, err = base64.RawStdEncoding.Strict().DecodeString(strings.TrimRight(text, "="))
	if err != nil || len(key) != keyLen {
		return "", nil, fmt.Errorf("want %d bytes in base64 after the id", keyLen) // err would show part of the key
	}
	return id, key, nil
}

func validKeyID(id string) bool {
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return len(id) >= 1 && len(id) <= 64
}

func newKeyRing(ids []string, keys [][]byte) (*KeyRing, error) {
	if len(keys) == 0 || len(keys) > maxKeys {
		return nil, fmt.Errorf("ticket keys: found %d keys, want 1 to %d", len(keys), maxKeys)
	}
	k := new(KeyRing)
	for i, key := range keys {
		mac, err := newCMAC(subkey(key, "locator mac"))
		if err != nil {
			return nil, fmt.Errorf("ticket keys: %w", err)
		}
		k.keys = append(k.keys, macKey{keyNumber(ids[i]), mac})
	}
	last := keys[len(keys)-1]
	k.anchor = anchor{subkey(last, "ticket hash"), subkey(last, "secret hash"), subkey(last, "subject")}
	k.pool.New = func() any { return k.NewChecker() }
	return k, nil
}

// keyNumber gives an id the same number in every ring, wherever its line stands. Two ids may share a number; then Check
// tries both keys.
func keyNumber(id string) byte {
	sum := sha256.Sum256([]byte(id))
	return sum[0] & 0x0f
}

// subkey separates the purposes of one key (RFC 5869), so that no output of one helps with another.
func subkey(key []byte, purpose string) []byte {
	sub, err := hkdf.Key(sha256.New, key, nil, "ticketgate 1 "+purpose, keyLen)
	if err != nil {
		panic("ticket: hkdf: " + err.Error()) // only for lengths over 255 hashes
	}
	return sub
}
