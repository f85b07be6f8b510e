package deflate_test

import (
	"math/bits"
	"math/rand/v2"
	"strings"
	"testing"

	"ticketgate/engine/deflate"
)

// A stream is written bit by bit, as RFC 1951 section 3.1.1 packs them.
type stream struct {
	b []byte
	n int // bits
}

// put appends the low n bits of v, the lowest first.
func (s *stream) put(v, n int) *stream {
	for i := range n {
		if s.n%8 == 0 {
			s.b = append(s.b, 0)
		}
		s.b[len(s.b)-1] |= byte(v>>i&1) << (s.n % 8)
		s.n++
	}
	return s
}

// code appends a Huffman code, the highest bit first.
func (s *stream) code(v, n int) *stream { return s.put(int(bits.Reverse32(uint32(v))>>(32-n)), n) }

// literal and the rest are symbols of a fixed block.
func (s *stream) literal(c byte) *stream {
	if c < 144 {
		return s.code(0x30+int(c), 8)
	}
	return s.code(0x190+int(c)-144, 9)
}

func (s *stream) length3() *stream { return s.code(1, 7) } // symbol 257
func (s *stream) end() *stream     { return s.code(0, 7) } // symbol 256

// head begins a block with its own codes, of which there are nlit, ndist lengths. Lengths 0 to 12 and the three that repeat have
// a code of four bits each: a length's own number, then 13 for 16, 14 for 17, 15 for 18.
func head(nlit, ndist int) *stream {
	s := new(stream).put(2<<1, 3).put(nlit-257, 5).put(ndist-1, 5).put(15, 4)
	for _, symbol := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15} {
		if symbol >= 13 && symbol <= 15 {
			s.put(0, 3)
		} else {
			s.put(4, 3)
		}
	}
	return s
}

func (s *stream) lens(lens ...int) *stream {
	for _, n := range lens {
		s.code(n, 4)
	}
	return s
}

// zeros appends n code lengths of 0, 11 or more.
func (s *stream) zeros(n int) *stream {
	for n > 0 {
		run := min(n, 138)
		if n-run > 0 && n-run < 11 {
			run -= 11
		}
		s.code(15, 4).put(run-11, 7)
		n -= run
	}
	return s
}

func fixed() *stream { return new(stream).put(1<<1, 3) }

// ab begins a block in which 'a' is 0, 'b' 10 and the end 11, with dist as the lengths of the distance code.
func ab(dist ...int) *stream {
	return head(257, len(dist)).zeros('a').lens(1, 2).zeros(256 - 'b' - 1).lens(2).lens(dist...)
}

// Every rule of the format, with a stream that breaks only it.
func TestRules(t *testing.T) {
	for _, c := range []struct {
		name string
		s    *stream
		want string
		ok   bool
	}{
		{"fixed literals", fixed().literal('a').literal(0xff).end(), "a\xff", true},
		{"match", fixed().literal('a').length3().code(0, 5).end(), "aaaa", true},
		{"match from the beginning", fixed().literal('a').literal('b').length3().code(1, 5).end(), "ababa", true},
		{"match from before the beginning", fixed().literal('a').length3().code(1, 5).end(), "a", false},
		{"match of nothing", fixed().length3().code(0, 5).end(), "", false},
		{"symbol 285", fixed().literal('a').code(0xc5, 8).code(0, 5).end(), strings.Repeat("a", 259), true},
		{"symbol 286", fixed().literal('a').code(0xc6, 8).code(0, 5).end(), "a", false},
		{"symbol 287", fixed().literal('a').code(0xc7, 8).code(0, 5).end(), "a", false},
		{"distance 29", fixed().literal('a').length3().code(29, 5).put(8191, 13).end(), "a", false},
		{"distance 30", fixed().literal('a').length3().code(30, 5).end(), "a", false},
		{"distance 31", fixed().literal('a').length3().code(31, 5).end(), "a", false},
		{"own codes", ab(1).code(0, 1).code(2, 2).code(3, 2), "ab", true},
		{"no distances", ab(0).code(0, 1).code(2, 2).code(3, 2), "ab", true},
		{"two distances", ab(1, 1).code(0, 1).code(3, 2), "a", true},
		{"one distance of two bits", ab(2).code(0, 1).code(3, 2), "", false},
		{"incomplete distances", ab(2, 2).code(0, 1).code(3, 2), "", false},
		{"three distances of one bit", ab(1, 1, 1).code(0, 1).code(3, 2), "", false},
		{"literals: one of one bit", head(257, 1).zeros(256).lens(1, 1).code(0, 1), "", true},
		{"literals: the other bit", head(257, 1).zeros(256).lens(1, 1).code(1, 1), "", false},
		{"literals: one of two bits", head(257, 1).zeros(256).lens(2, 1).code(0, 2), "", false},
		{"literals: none", head(257, 1).zeros(257).lens(1).put(0, 16), "", false},
		{"literals: incomplete", head(257, 1).zeros(255).lens(2, 2, 1).code(1, 2), "", false},
		{"literals: over-subscribed", head(257, 1).zeros(254).lens(1, 1, 1, 1).code(1, 1), "", false},
		{"286 literals", head(286, 1).zeros(256).lens(1).zeros(29).lens(0).code(0, 1), "", true},
		{"287 literals", head(287, 1).zeros(256).lens(1).zeros(30).lens(0).code(0, 1), "", false},
		{"30 distances", head(257, 30).zeros(256).lens(1).zeros(30).code(0, 1), "", true},
		{"31 distances", head(257, 31).zeros(256).lens(1).zeros(31).code(0, 1), "", false},
		{"repeat of nothing", head(257, 1).code(13, 4).put(0, 2).zeros(253).lens(1, 1).code(0, 1), "", false},
		{"repeat of the last length", head(257, 1).zeros(253).lens(2).code(13, 4).put(0, 2).lens(1).code(3, 2), "", true},
		{"repeat from literals into distances", head(257, 3).zeros(255).lens(1, 1).code(14, 4).put(0, 3).code(1, 1), "", true},
		{"repeat past the end", head(257, 2).zeros(255).lens(1, 1).code(14, 4).put(0, 3).code(1, 1), "", false},
		{"code for lengths incomplete", new(stream).put(2<<1, 3).put(0, 10).put(0, 4).put(2, 3).put(2, 3).put(0, 6), "", false},
		{"code for lengths over-subscribed", new(stream).put(2<<1, 3).put(0, 10).put(0, 4).put(1, 3).put(1, 3).put(1, 3).put(0, 3), "", false},
	} {
		wire := string(c.s.put(0, 3).b) // the head of the empty block
		want := deflate.ErrStream
		if c.ok {
			want = nil
		}
		for _, longest := range []int{0, 1, 3} {
			got, err := inflate(wire, unbounded, longest, rand.New(rand.NewPCG(7, 8)))
			if got != c.want || err != want {
				t.Errorf("%s: got %q, %v, want %q, %v", c.name, got, err, c.want, want)
			}
		}
		if out, err := reference(wire); (err == nil) != c.ok || c.ok && out != c.want {
			t.Errorf("%s: the standard library says %q, %v", c.name, out, err)
		}
		long := strings.Repeat("\x00"+tail, 9) + wire + tail + strings.Repeat("\x00"+tail, 9) // so that run sees it
		if got, err := inflate(long, unbounded, 0, nil); c.ok != (err == nil) || c.ok && !strings.HasSuffix(got, c.want) {
			t.Errorf("%s, with more around it: got %q, %v", c.name, got, err)
		}
	}
}

// Codes of all lengths up to 15 bits, so that both tables go on behind their roots.
func TestLongCodes(t *testing.T) {
	s := new(stream).put(2<<1, 3).put(257+15-257, 5).put(15, 5).put(15, 4)
	for range 3 {
		s.put(0, 3)
	}
	for range 16 {
		s.put(4, 3) // lengths 0 to 15 have four bits each
	}
	lits := make([]int, 257+15)
	for i := range 14 {
		lits['a'+i] = i + 1
	}
	lits[256], lits[257] = 15, 15
	for _, n := range lits {
		s.code(n, 4)
	}
	for i := range 16 {
		s.code(min(i+1, 15), 4)
	}
	var want strings.Builder
	for i := range 14 {
		s.code(1<<(i+1)-2, i+1)
		want.WriteByte('a' + byte(i))
	}
	for d := range 5 { // distances 1, 2, 3, 4 and 5 or 6, three bytes each
		s.code(1<<15-1, 15).code(1<<(d+1)-2, d+1)
		if d == 4 {
			s.put(1, 1)
		}
		distance := []int{1, 2, 3, 4, 6}[d]
		for range 3 {
			want.WriteByte(want.String()[want.Len()-distance])
		}
	}
	s.code(1<<15-1, 15).code(1<<15-2, 15).put(0, 6) // distance 129 at least: too far
	wire := string(s.b)
	for _, longest := range []int{0, 1} {
		got, err := inflate(wire, unbounded, longest, rand.New(rand.NewPCG(7, 8)))
		if got != want.String() || err != deflate.ErrStream {
			t.Errorf("got %q, %v, want %q and a distance that is too long", got, err, want.String())
		}
	}
}

// The byte that makes the ratio too bad is the same one however the bytes were cut: here the first of two literals, behind
// which the ratio would be good again.
func TestRatioAtItsByte(t *testing.T) {
	for pad := 0; ; pad++ {
		s := new(stream)
		for range pad {
			s.put(0, 8).put(0xffff0000, 32)
		}
		s.put(1<<1, 3)
		for range 16 {
			s.literal('a')
		}
		for range (deflate.RatioFrom - 16) / 258 {
			s.code(0xc5, 8).code(0, 5)
		}
		taken := (s.literal('a').n + 7) / 8
		ratio := deflate.RatioFrom / taken
		if ratio*(taken+1) < deflate.RatioFrom+2 {
			continue
		}
		for range 40 {
			s.literal('a')
		}
		wire := string(s.end().put(0, 3).b)
		for _, longest := range []int{0, 1, 40} {
			got, err := inflate(wire, deflate.Limits{Bytes: 1 << 20, Ratio: ratio}, longest, rand.New(rand.NewPCG(7, 8)))
			if err != deflate.ErrTooBig || len(got) != deflate.RatioFrom+1 {
				t.Errorf("pieces of %d: %d bytes, %v, want %d", longest, len(got), err, deflate.RatioFrom+1)
			}
		}
		return
	}
}

// join appends t, a block, bit by bit.
func (s *stream) join(t *stream) *stream {
	for i := range t.n {
		s.put(int(t.b[i/8]>>(i%8)&1), 1)
	}
	return s
}

// Blocks with codes of their own must give something, and all blocks are work, however the bytes were cut.
func TestBlocksThatGiveNothing(t *testing.T) {
	empty := head(257, 1).zeros(256).lens(1, 1).put(0, 1)
	letters := func(n int) *stream {
		s := ab(0)
		for range n {
			s.put(0, 1)
		}
		return s.put(3, 2)
	}
	const most, least = 64, 32
	for name, c := range map[string]struct {
		given, blocks int // letters of the first block, and how many empty ones follow
		err           error
	}{
		"as many as may be":        {0, most - 1, nil},
		"one more":                 {0, most, deflate.ErrTooBig},
		"one more for some bytes":  {least, most, nil},
		"two more for as many":     {least, most + 1, deflate.ErrTooBig},
		"one more for fewer bytes": {least - 1, most, deflate.ErrTooBig},
		"many for many":            {100 * least, most + 99, nil},
	} {
		s := new(stream).join(letters(c.given))
		for range c.blocks {
			s.join(empty)
		}
		wire := string(s.put(0, 3).b)
		for _, longest := range []int{0, 1, 40} {
			got, err := inflate(wire, unbounded, longest, rand.New(rand.NewPCG(7, 8)))
			if got != strings.Repeat("a", c.given) || err != c.err {
				t.Errorf("%s, pieces of %d: %d bytes, %v, want %d, %v", name, longest, len(got), err, c.given, c.err)
			}
		}
	}
	var z deflate.Inflater
	for name, c := range map[string]struct {
		s    *stream
		want int
	}{
		"one with codes of its own": {new(stream).join(letters(3)), 32 + 3<<10},
		"three":                     {new(stream).join(letters(3)).join(empty).join(empty), 3 * (32 + 3<<10)},
		"fixed":                     {fixed().end().join(fixed().end()), 64},
	} {
		z.Reset()
		if _, err := z.Inflate(nil, c.s.b, unbounded); err != nil || z.Work() < c.want || z.Work() > c.want+32 { // the padding begins one
			t.Errorf("%s: work %d, %v, want %d", name, z.Work(), err, c.want)
		}
	}
}
