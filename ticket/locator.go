package ticket

import (
	"crypto/aes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"time"
)

// A locator on the wire is base64url (RFC 4648 section 5, no padding) of 51 bytes, big-endian:
//
//	 0       1         5        9          17      19        35      51
//	┌───────┬─────────┬────────┬──────────┬───────┬─────────┬───────┐
//	│ver|key│ expiry  │ epoch  │ subject  │ node  │ random  │  MAC  │
//	│ 4 | 4 │ s, u32  │  u32   │   u64    │  u16  │ 128 bit │128 bit│
//	└───────┴─────────┴────────┴──────────┴───────┴─────────┴───────┘
//	|<────────────── covered by the MAC ──────────────────>|
//
// subject is the shard tag (its low 14 bits, Subject.Tag) widened to the whole keyed hash, so that the node that redeems
// knows whose count it changes before it asks the store.
const (
	locatorVersion = 1

	offExpiry  = 1
	offEpoch   = 5
	offSubject = 9
	offNode    = 17
	offRandom  = 19
	offMAC     = 35
	rawLen     = offMAC + aes.BlockSize

	// LocatorLen is the length of a locator's text in characters. 51 bytes are exactly 68 characters, so no spare bits exist.
	LocatorLen = rawLen / 3 * 4
)

// The second secret as text: what a client offers as a subprotocol or sends in Ticketgate-Secret.
const (
	// SecretPrefix marks a second secret among offered subprotocols.
	SecretPrefix = "tgs_"
	// SecretLen is the length of a second secret's text in characters: the prefix and base64url of 32 bytes.
	SecretLen = len(SecretPrefix) + 43
)

// Why Check refuses a locator. None of them needs the store.
var (
	ErrMalformed = errors.New("malformed locator")
	ErrForged    = errors.New("forged locator")
	ErrExpired   = errors.New("expired locator")
	ErrEpoch     = errors.New("locator of another store epoch")
)

// strict refuses spare bits that are not zero, so that each value has one text. It still skips CR and LF; the callers
// notice that because the bytes come out short.
var strict = base64.RawURLEncoding.Strict()

// A Locator is the part of a ticket that stands in the URL.
type Locator struct {
	Expiry  uint32 // seconds since 1970 by the store's clock, rounded up: the store itself decides to the millisecond
	Epoch   Epoch
	Subject Subject
	Node    uint16 // the node that spends it, 0 for the store
	Random  [16]byte
}

// put writes the covered part of l to b, which has rawLen bytes.
func (l *Locator) put(b *[rawLen]byte, number byte) {
	b[0] = locatorVersion<<4 | number
	binary.BigEndian.PutUint32(b[offExpiry:], l.Expiry)
	binary.BigEndian.PutUint32(b[offEpoch:], uint32(l.Epoch))
	binary.BigEndian.PutUint64(b[offSubject:], uint64(l.Subject))
	binary.BigEndian.PutUint16(b[offNode:], l.Node)
	copy(b[offRandom:], l.Random[:])
}

// get reads the covered part.
func (l *Locator) get(b *[rawLen]byte) {
	l.Expiry = binary.BigEndian.Uint32(b[offExpiry:])
	l.Epoch = Epoch(binary.BigEndian.Uint32(b[offEpoch:]))
	l.Subject = Subject(binary.BigEndian.Uint64(b[offSubject:]))
	l.Node = binary.BigEndian.Uint16(b[offNode:])
	copy(l.Random[:], b[offRandom:])
}

// A Checker verifies locators and hashes what they carry, without I/O and without allocation. It holds scratch space: one
// per loop, not for concurrent use.
type Checker struct {
	ring *KeyRing

	hash, secret, subject hash.Hash

	// Scratch. The interfaces of crypto/cipher and hash make their arguments escape, so these live here.
	raw [rawLen]byte
	x   [aes.BlockSize]byte
	sum [sha256.Size]byte
	buf []byte
}

// NewChecker returns a Checker of the ring.
func (k *KeyRing) NewChecker() *Checker {
	return &Checker{
		ring:    k,
		hash:    hmac.New(sha256.New, k.anchor.hash),
		secret:  hmac.New(sha256.New, k.anchor.secret),
		subject: hmac.New(sha256.New, k.anchor.subject),
	}
}

// Check verifies the text of a locator against now, the store's clock, and the epoch of its subject's shard. The MAC is
// checked before anything else in it is believed, in constant time. The error is ErrMalformed, ErrForged, ErrExpired or ErrEpoch, and the
// Locator is then zero. text is not kept.
func (c *Checker) Check(text []byte, now time.Time, epochs Epochs) (Locator, error) {
	if len(text) != LocatorLen {
		return Locator{}, ErrMalformed
	}
	if n, err := strict.Decode(c.raw[:], text); err != nil || n != rawLen || c.raw[0]>>4 != locatorVersion {
		return Locator{}, ErrMalformed
	}
	var l Locator
	l.get(&c.raw)
	// All verdicts are reached before one is given, and by arithmetic: a branch for each would tell by its time which it was.
	expired := uint64(int64(l.Expiry)-now.Unix()-1) >> 63 // 1 if now >= expiry
	epoch := epochs.Epoch(l.Subject)
	diff := uint64(l.Epoch ^ epoch)
	foreign := (diff | -diff) >> 63 // 1 if they differ
	genuine := c.genuine()
	verdict := (1-genuine)*1 + genuine*expired*2 + genuine*(1-expired)*foreign*3
	if verdict == 0 && epoch != 0 {
		return l, nil
	}
	return Locator{}, verdicts[verdict]
}

// verdicts are the errors of Check by number; 0 is a right locator while the store's epoch is not known.
var verdicts = [4]error{ErrEpoch, ErrForged, ErrExpired, ErrEpoch}

// genuine is 1 if c.raw carries the MAC of a key that it names. A number that no key has costs the same work.
func (c *Checker) genuine() uint64 {
	number, tried, ok := c.raw[0]&0x0f, 0, 0
	for i := range c.ring.keys {
		if k := &c.ring.keys[i]; k.number == number {
			ok |= c.compare(k)
			tried++
		}
	}
	if tried == 0 {
		c.compare(&c.ring.keys[0])
	}
	return uint64(ok)
}

func (c *Checker) compare(k *macKey) int {
	k.mac.sum(&c.x, c.raw[:offMAC])
	return subtle.ConstantTimeCompare(c.x[:], c.raw[offMAC:])
}

// Hash is how the store, the cache and the public id name the ticket of l.
func (c *Checker) Hash(l *Locator) Hash {
	copy(c.raw[:], l.Random[:])
	return Hash(keyed(c, c.hash, c.raw[:len(l.Random)])[:16])
}

// SecretHash hashes a second secret as it stands in the request, "tgs_" and 43 characters of base64url. false: malformed,
// which is to be treated like a wrong one. secret is not kept.
func (c *Checker) SecretHash(secret []byte) (SecretHash, bool) {
	if len(secret) != SecretLen || string(secret[:len(SecretPrefix)]) != SecretPrefix {
		return SecretHash{}, false
	}
	n, err := strict.Decode(c.raw[:], secret[len(SecretPrefix):])
	if err != nil || n != 32 {
		return SecretHash{}, false
	}
	return SecretHash(keyed(c, c.secret, c.raw[:32])), true
}

// keyed returns the HMAC-SHA-256 (RFC 2104) of b, valid until the next call on c.
func keyed(c *Checker, h hash.Hash, b []byte) []byte {
	h.Reset()
	h.Write(b) // a hash.Hash never fails
	return h.Sum(c.sum[:0])
}

// Subject names what a connections limit counts: kind is what it is ("client", "key"), name which one. Any goroutine may
// call it. It is the same on all nodes whose rings end in the same key.
func (k *KeyRing) Subject(kind, name string) Subject {
	c := k.pool.Get().(*Checker)
	defer k.pool.Put(c)
	c.buf = binary.AppendUvarint(c.buf[:0], uint64(len(kind))) // so that ("a", "bc") is not ("ab", "c")
	c.buf = append(append(c.buf, kind...), name...)
	return Subject(binary.BigEndian.Uint64(keyed(c, c.subject, c.buf)))
}

// AppendSecret appends the text form of a second secret to dst.
func AppendSecret(dst []byte, raw [32]byte) []byte {
	return strict.AppendEncode(append(dst, SecretPrefix...), raw[:])
}

// A Minter makes tickets under the first key of its ring. Any goroutine may use it.
type Minter struct {
	ring *KeyRing
	rnd  io.Reader
}

// NewMinter returns a Minter that draws from rnd, which must be a cryptographic source that any goroutine may read.
func (k *KeyRing) NewMinter(rnd io.Reader) *Minter { return &Minter{k, rnd} }

// Minted is a new ticket: what the client gets and what the store gets.
type Minted struct {
	// For the client alone: never logged, never stored.
	Text   [LocatorLen]byte // goes into the URL
	Secret [SecretLen]byte  // goes beside it

	// For the store.
	Locator    Locator
	Hash       Hash
	SecretHash SecretHash
}

// Format implements fmt.Formatter, so that no verb prints what opens a socket.
func (m Minted) Format(f fmt.State, _ rune) { fmt.Fprint(f, "[minted ticket]") }

// Mint makes a ticket that expires at expiry by the store's clock, rounded up to a second. It fails when the random source
// does, and then no ticket exists: there is no weaker source to fall back to.
func (m *Minter) Mint(expiry time.Time, epoch Epoch, s Subject, node uint16) (*Minted, error) {
	seconds := expiry.Add(time.Second - 1).Unix()
	if seconds < 0 || seconds > math.MaxUint32 {
		return nil, fmt.Errorf("mint ticket: expiry %v does not fit 32 bits", expiry)
	}
	c := m.ring.pool.Get().(*Checker)
	defer m.ring.pool.Put(c)
	var random [16 + 32]byte
	c.buf = append(c.buf[:0], random[:]...)
	defer clear(c.buf)
	if _, err := io.ReadFull(m.rnd, c.buf); err != nil {
		return nil, fmt.Errorf("mint ticket: random source: %w", err)
	}
	t := &Minted{Locator: Locator{Expiry: uint32(seconds), Epoch: epoch, Subject: s, Node: node, Random: [16]byte(c.buf)}}
	AppendSecret(t.Secret[:0], [32]byte(c.buf[16:]))
	t.SecretHash, _ = c.SecretHash(t.Secret[:]) // just made: cannot be malformed
	t.Hash = c.Hash(&t.Locator)
	c.seal(&t.Locator, &t.Text)
	return t, nil
}

// seal writes l and its MAC as text.
func (c *Checker) seal(l *Locator, text *[LocatorLen]byte) {
	k := &c.ring.keys[0]
	l.put(&c.raw, k.number)
	k.mac.sum(&c.x, c.raw[:offMAC])
	copy(c.raw[offMAC:], c.x[:])
	strict.Encode(text[:], c.raw[:])
}
