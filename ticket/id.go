package ticket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Public ids are Crockford base32 (no I, L, O, U), upper case, and sort by time:
//
//	tkt_ + 10 characters of milliseconds + 39 characters of subject (64 bits) and ticket hash (128 bits)
//	req_ + 10 characters of milliseconds + 16 characters of random (80 bits): a ULID, as are all but tickets
//
// A ticket's id carries what DELETE /v1/tickets/{id} needs to find it, so that no index from ids to tickets exists. It opens
// nothing: subject and hash are keyed hashes.
const (
	ticketPrefix = "tkt_"
	timeChars    = 10
	hashChars    = 39
	randomChars  = 16
	publicLen    = len(ticketPrefix) + timeChars + hashChars

	msMax = 1<<48 - 1 // the year 10889
)

const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// crockfordValue maps a character to its value, 0xff for what is not in the alphabet.
var crockfordValue = func() (v [256]byte) {
	for i := range v {
		v[i] = 0xff
	}
	for i := range len(crockford) {
		v[crockford[i]] = byte(i)
	}
	return v
}()

// ErrID is a public id that no ticket has.
var ErrID = errors.New("malformed ticket id")

// PublicID names a ticket for logs and for DELETE /v1/tickets/{id}. t is kept to the millisecond.
func PublicID(t time.Time, s Subject, h Hash) string {
	var raw [24]byte
	binary.BigEndian.PutUint64(raw[:], uint64(s))
	copy(raw[8:], h[:])
	out := appendTime(append(make([]byte, 0, publicLen), ticketPrefix...), t)
	return string(appendBase32(out, raw[:], hashChars))
}

// ParsePublicID takes an id apart. The only error is ErrID. Exactly the texts that PublicID makes are accepted.
func ParsePublicID(id string) (t time.Time, s Subject, h Hash, err error) {
	if len(id) != publicLen || id[:len(ticketPrefix)] != ticketPrefix {
		return time.Time{}, 0, Hash{}, ErrID
	}
	var ms [8]byte
	var raw [24]byte
	rest := id[len(ticketPrefix):]
	if !parseBase32(ms[2:], rest[:timeChars]) || !parseBase32(raw[:], rest[timeChars:]) {
		return time.Time{}, 0, Hash{}, ErrID
	}
	t = time.UnixMilli(int64(binary.BigEndian.Uint64(ms[:])))
	return t, Subject(binary.BigEndian.Uint64(raw[:])), Hash(raw[8:]), nil
}

// ID makes the name of a request or a connection: prefix ("req_", "c_") and a ULID of t and 80 bits from rnd. It fails
// only if rnd does.
func ID(prefix string, t time.Time, rnd io.Reader) (string, error) {
	var raw [10]byte
	if _, err := io.ReadFull(rnd, raw[:]); err != nil {
		return "", fmt.Errorf("make id: random source: %w", err)
	}
	out := appendTime(append(make([]byte, 0, len(prefix)+timeChars+randomChars), prefix...), t)
	return string(appendBase32(out, raw[:], randomChars)), nil
}

// appendTime appends the milliseconds of t; a time outside 1970 to 10889 becomes the nearer end.
func appendTime(dst []byte, t time.Time) []byte {
	var raw [8]byte
	binary.BigEndian.PutUint64(raw[:], uint64(min(max(t.UnixMilli(), 0), msMax)))
	return appendBase32(dst, raw[2:], timeChars)
}

// appendBase32 appends b as chars characters, with zero bits in front where 5*chars is more than b has.
func appendBase32(dst []byte, b []byte, chars int) []byte {
	acc, bits := uint32(0), 5*chars-8*len(b)
	for _, c := range b {
		acc, bits = acc<<8|uint32(c), bits+8
		for bits >= 5 {
			bits -= 5
			dst = append(dst, crockford[acc>>bits&31])
		}
	}
	return dst
}

// parseBase32 fills dst from all of s. false: a character outside the alphabet, or a bit in front that is not zero.
func parseBase32(dst []byte, s string) bool {
	acc, bits, n := uint32(0), 8*len(dst)-5*len(s), 0
	for i := range len(s) {
		v := crockfordValue[s[i]]
		if v == 0xff {
			return false
		}
		acc, bits = acc<<5|uint32(v), bits+5
		if acc>>max(bits, 0) != 0 {
			return false
		}
		if bits >= 8 {
			bits -= 8
			dst[n] = byte(acc >> bits)
			n++
			acc &= 1<<bits - 1
		}
	}
	return true
}
