package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"time"
)

// What Authenticate refuses. Callers learn the same of ErrKey and ErrExpired; ErrAddress comes only after the right key.
var (
	ErrKey     = errors.New("no such key")
	ErrExpired = errors.New("key expired")
	ErrAddress = errors.New("key not allowed from this address")
)

// Keys are the API keys of one configuration. It never changes; any goroutine may use it. A nil Keys knows no key.
//
// A known and an unknown id cost the same: one seeded hash of the id, all slots of one bucket compared without a branch,
// one HMAC under the found row's hash key (or the decoy's), one comparison.
//
//	id ──maphash──> bucket ──8 compares──> row ──HMAC, compare──> identity
//	                                       0: the decoy, which nothing matches
type Keys struct {
	seed    maphash.Seed
	buckets []bucket // a power of two
	checks  []check  // checks[0] is the decoy
	rows    []row    // rows[i] is checks[i]'s
	ring    *Ring
}

const bucketSize = 8

// A bucket's slots hold the id's hash and the row. That the hash stands for the id is no matter of safety: the HMAC is over
// the id as well.
type bucket struct {
	hash [bucketSize]uint64
	row  [bucketSize]uint32 // 0: free
}

// A check is one cache line, because one that straddles two costs a measurable nanosecond.
type check struct {
	sum [sha256.Size]byte
	pad uint32 // index into Ring.pads
	_   [64 - sha256.Size - 4]byte
}

type row struct {
	identity Identity
	ip       []netip.Prefix
}

// A Problem is one thing wrong with a record.
type Problem struct {
	Index   int    // of the record
	Field   string // its YAML name
	Message string
}

func (p Problem) String() string { return fmt.Sprintf("key %d: %s: %s", p.Index, p.Field, p.Message) }

// NewKeys builds the table of recs, whose hashes name keys of ring. With any problem there is no table.
func NewKeys(recs []Record, ring *Ring) (*Keys, []Problem) {
	k := &Keys{ring: ring, checks: make([]check, 1, len(recs)+1), rows: make([]row, 1, len(recs)+1)}
	var problems []Problem
	seen := make(map[string]bool, len(recs))
	for i := range recs {
		c, r, found := newRow(&recs[i], ring)
		if seen[recs[i].ID] {
			found = append(found, Problem{Field: "id", Message: "stands twice"})
		}
		seen[recs[i].ID] = true
		for _, p := range found {
			p.Index = i
			problems = append(problems, p)
		}
		k.checks, k.rows = append(k.checks, c), append(k.rows, r)
	}
	if problems != nil {
		return nil, problems
	}
	k.index()
	return k, nil
}

func newRow(rec *Record, ring *Ring) (c check, r row, problems []Problem) {
	wrong := func(field, format string, args ...any) {
		problems = append(problems, Problem{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	if !validID(rec.ID) {
		wrong("id", "want 1 to %d of a-z, 0-9 and -", idMax)
	}
	var err error
	if c.pad, c.sum, err = ring.parseHash(rec.Hash); err != nil {
		wrong("hash", "%v", err)
	}
	if rec.Product == "" {
		wrong("product", "missing: a key opens the streams of its product")
	}
	if rec.Plan == "" {
		wrong("plan", "missing: a key has the limits of its plan")
	}
	for _, s := range rec.Scopes {
		if !validScope(s) {
			wrong("scopes", "%q is none of delegate, authorize, stream:<name>", s)
		}
	}
	for _, p := range rec.IP {
		if !p.IsValid() {
			wrong("ip", "not an address range")
		}
	}
	r.ip = rec.IP
	r.identity = Identity{Key: rec.ID, Client: rec.Client, Product: rec.Product, Plan: rec.Plan, Scopes: rec.Scopes}
	if rec.Expires != nil {
		r.identity.Expires = *rec.Expires
	}
	if r.identity.Client == "" {
		r.identity.Client = rec.ID
	}
	return c, r, problems
}

// index fills the buckets, two keys each on average: then a seed and size under which no bucket overflows and no two ids
// share a hash are found in the first few tries.
func (k *Keys) index() {
	size := 1
	for size*2 < len(k.rows) {
		size *= 2
	}
	for !k.tryIndex(size) {
		size *= 2
	}
}

func (k *Keys) tryIndex(size int) bool {
	k.seed, k.buckets = maphash.MakeSeed(), make([]bucket, size)
	for i := 1; i < len(k.rows); i++ {
		h := k.hash([]byte(k.rows[i].identity.Key))
		b := &k.buckets[h&uint64(size-1)]
		free := 0
		for free < bucketSize && b.row[free] != 0 && b.hash[free] != h {
			free++
		}
		if free == bucketSize || b.row[free] != 0 {
			return false
		}
		b.hash[free], b.row[free] = h, uint32(i)
	}
	return true
}

// hash is over a padded id, so that its time does not tell the length.
func (k *Keys) hash(id []byte) uint64 {
	var padded [idMax]byte
	copy(padded[:], id)
	return maphash.Bytes(k.seed, padded[:])
}

// find looks at every slot of the id's bucket, whatever it finds.
func (k *Keys) find(id []byte) uint32 {
	h := k.hash(id)
	b := &k.buckets[h&uint64(len(k.buckets)-1)]
	var found uint32
	for i := range bucketSize {
		diff := h ^ b.hash[i]
		differs := uint32((diff | -diff) >> 63) // 1 or 0
		found |= b.row[i] & (differs - 1)
	}
	return found
}

// Authenticate says whose key text is. now is the wall clock, peer the caller's address. It keeps nothing of text and
// allocates nothing. The error is ErrKey, ErrExpired or ErrAddress.
func (k *Keys) Authenticate(text []byte, now time.Time, peer netip.Addr) (Identity, error) {
	id, ok := parseKey(text)
	if !ok || k == nil {
		return Identity{}, ErrKey
	}
	at := k.find(id)
	c := &k.checks[at]
	sum := k.ring.pads[c.pad].sum(text)
	same := subtle.ConstantTimeCompare(sum[:], c.sum[:])
	if same&subtle.ConstantTimeLessOrEq(1, int(at)) != 1 {
		return Identity{}, ErrKey
	}
	r := &k.rows[at]
	if ends := r.identity.Expires; !ends.IsZero() && !now.Before(ends) {
		return Identity{}, ErrExpired
	}
	if !r.mayComeFrom(peer) {
		return Identity{}, ErrAddress
	}
	return r.identity, nil
}

// mayComeFrom compares without the IPv4-mapped form and zone that a dual-stack listener shows.
func (r *row) mayComeFrom(peer netip.Addr) bool {
	peer = peer.Unmap().WithZone("")
	for _, p := range r.ip {
		if p.Contains(peer) {
			return true
		}
	}
	return len(r.ip) == 0
}
