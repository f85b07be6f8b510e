package ticket

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"net/netip"
	"time"
)

// Claims as bytes, what a store keeps for a ticket and gives back once. Numbers are unsigned varints of the shortest form,
// texts are a length and bytes:
//
//	version | limit | issued ms, zigzag | end ms, zigzag | addr (0, 4 or 16 bytes) | id | client | key | product | plan |
//	stream | origin | n, n names and values | m, m protocols
const claimsVersion = 1

// ErrClaims is a grant that AppendClaims did not write.
var ErrClaims = errors.New("malformed claims")

// AppendClaims appends c to dst. Times are cut to the millisecond and lose their zone, Addr loses its zone.
func AppendClaims(dst []byte, c *Claims) []byte {
	dst = append(dst, claimsVersion)
	dst = binary.AppendUvarint(dst, uint64(c.Limit))
	dst = binary.AppendVarint(dst, c.IssuedAt.UnixMilli())
	dst = binary.AppendVarint(dst, c.SessionEnd.UnixMilli())
	dst = appendText(dst, c.Addr.AsSlice())
	for _, s := range []string{c.ID, c.Client, c.Key, c.Product, c.Plan, c.Stream, c.Origin} {
		dst = appendText(dst, s)
	}
	dst = binary.AppendUvarint(dst, uint64(len(c.Params)))
	for _, p := range c.Params {
		dst = appendText(appendText(dst, p.Name), p.Value)
	}
	dst = binary.AppendUvarint(dst, uint64(len(c.Protocols)))
	for _, p := range c.Protocols {
		dst = appendText(dst, p)
	}
	return dst
}

func appendText[T string | []byte](dst []byte, s T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// ParseClaims reads what AppendClaims wrote and nothing else: any other bytes are ErrClaims. The result shares nothing with
// b. What it holds is at most a small multiple of len(b).
func ParseClaims(b []byte) (Claims, error) {
	p := claimsParser{rest: b}
	if len(b) == 0 || b[0] != claimsVersion {
		return Claims{}, ErrClaims
	}
	p.rest = b[1:]
	var c Claims
	limit := p.number()
	c.Limit = uint32(limit)
	c.IssuedAt, c.SessionEnd = p.time(), p.time()
	c.Addr = p.addr()
	for _, s := range []*string{&c.ID, &c.Client, &c.Key, &c.Product, &c.Plan, &c.Stream, &c.Origin} {
		*s = p.text()
	}
	for range p.count(2) {
		c.Params = append(c.Params, Param{p.text(), p.text()})
	}
	for range p.count(1) {
		c.Protocols = append(c.Protocols, p.text())
	}
	if p.bad || len(p.rest) != 0 || limit > uint64(NoLimit) {
		return Claims{}, ErrClaims
	}
	return c, nil
}

// claimsParser reads from the front of rest. After the first fault bad is set, rest is empty and all reads are zero.
type claimsParser struct {
	rest []byte
	bad  bool
}

func (p *claimsParser) fail() { p.bad, p.rest = true, nil }

func (p *claimsParser) number() uint64 {
	v, n := binary.Uvarint(p.rest)
	if n <= 0 || n != max(1, (bits.Len64(v)+6)/7) { // cut short, over 64 bits, or longer than needed
		p.fail()
		return 0
	}
	p.rest = p.rest[n:]
	return v
}

func (p *claimsParser) bytes() []byte {
	n := p.number()
	if n > uint64(len(p.rest)) {
		p.fail()
		return nil
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

func (p *claimsParser) text() string { return string(p.bytes()) }

// count reads how many items of at least size bytes follow; more than rest can hold is a fault.
func (p *claimsParser) count(size uint64) uint64 {
	n := p.number()
	if n > uint64(len(p.rest))/size {
		p.fail()
		return 0
	}
	return n
}

func (p *claimsParser) time() time.Time {
	u := p.number()
	return time.UnixMilli(int64(u>>1) ^ -int64(u&1)).UTC() // zigzag, as binary.AppendVarint writes it
}

func (p *claimsParser) addr() netip.Addr {
	b := p.bytes()
	if len(b) == 0 {
		return netip.Addr{}
	}
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		p.fail()
	}
	return a
}
