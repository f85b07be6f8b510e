package conform

import "errors"

// errStream is a deflate stream that breaks RFC 1951.
var errStream = errors.New("a broken deflate stream")

// farthest reads a deflate stream (RFC 1951), which ends with a flush or a last block, and returns how far its longest look
// back goes. It produces no output: a library's inflater says nothing about distances, and a client with a small window
// (RFC 7692 section 7.1.2.1) is lost if one is too long.
func farthest(in []byte) (int, error) {
	b := bits{in: in}
	for !b.empty() {
		last, kind := b.take(1), b.take(2)
		switch kind {
		case 0:
			b.stored()
		case 1:
			b.block(fixedLengths, fixedDistances)
		case 2:
			b.block(b.tables())
		default:
			b.bad = true
		}
		if b.bad {
			return 0, errStream
		}
		if last == 1 {
			break
		}
	}
	return b.far, nil
}

// bits reads a deflate stream, least bit first.
type bits struct {
	in  []byte
	at  int // bit
	far int
	bad bool
}

// empty reports whether fewer bits are left than a block's head has.
func (b *bits) empty() bool { return b.bad || b.at+3 > 8*len(b.in) }

func (b *bits) take(n int) int {
	v := 0
	for i := range n {
		if b.at >= 8*len(b.in) {
			b.bad = true
			return 0
		}
		v |= int(b.in[b.at/8]>>(b.at%8)&1) << i
		b.at++
	}
	return v
}

// stored skips a block that is not compressed (3.2.4).
func (b *bits) stored() {
	b.at = (b.at + 7) &^ 7
	n, not := b.take(16), b.take(16)
	if n != not^0xffff || b.at/8+n > len(b.in) {
		b.bad = true
		return
	}
	b.at += 8 * n
}

// code is a Huffman code in canonical form (3.2.2): how many symbols each length has, and the symbols in order.
type code struct {
	count   [16]int
	symbols []int
}

func newCode(lengths []int) *code {
	c := &code{symbols: make([]int, len(lengths))}
	for _, n := range lengths {
		c.count[n]++
	}
	c.count[0] = 0
	var next [16]int
	for i := 1; i < 15; i++ {
		next[i+1] = next[i] + c.count[i]
	}
	for symbol, n := range lengths {
		if n > 0 {
			c.symbols[next[n]] = symbol
			next[n]++
		}
	}
	return c
}

func (b *bits) symbol(c *code) int {
	value, first, index := 0, 0, 0
	for n := 1; n < len(c.count) && !b.bad; n++ {
		value |= b.take(1)
		if value-first < c.count[n] {
			return c.symbols[index+value-first]
		}
		index += c.count[n]
		first = (first + c.count[n]) << 1
		value <<= 1
	}
	b.bad = true
	return 0
}

// Lengths and distances (3.2.5): the least that a symbol stands for, and how many bits follow it.
var (
	lengthBase   = []int{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthBits   = []int{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distanceBase = []int{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
		8193, 12289, 16385, 24577}
	distanceBits = []int{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

// endOfBlock is the symbol behind a block's last.
const endOfBlock = 256

// block reads the symbols of a compressed block.
func (b *bits) block(lengths, distances *code) {
	for !b.bad {
		s := b.symbol(lengths)
		switch {
		case s == endOfBlock:
			return
		case s > endOfBlock:
			b.number(lengthBase, lengthBits, s-endOfBlock-1)
			b.far = max(b.far, b.number(distanceBase, distanceBits, b.symbol(distances)))
		}
	}
}

// number is what symbol i of a table stands for, with the bits behind it.
func (b *bits) number(base, extra []int, i int) int {
	if i >= len(base) {
		b.bad = true
		return 0
	}
	return base[i] + b.take(extra[i])
}

// order is that of the code lengths' own lengths (3.2.7).
var order = []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// tables reads the codes of a block that brings its own.
func (b *bits) tables() (lengths, distances *code) {
	nl, nd, nc := b.take(5)+257, b.take(5)+1, b.take(4)+4
	own := make([]int, len(order))
	for _, i := range order[:nc] {
		own[i] = b.take(3)
	}
	c := newCode(own)
	all := make([]int, 0, nl+nd)
	for len(all) < nl+nd && !b.bad {
		all = b.runOf(c, all)
	}
	if b.bad || len(all) != nl+nd {
		b.bad = true
		return fixedLengths, fixedDistances
	}
	return newCode(all[:nl]), newCode(all[nl:])
}

// runOf appends the code lengths of one symbol to all.
func (b *bits) runOf(c *code, all []int) []int {
	value, n := b.symbol(c), 1
	switch value {
	case 16:
		if len(all) == 0 {
			b.bad = true
			return all
		}
		value, n = all[len(all)-1], 3+b.take(2)
	case 17:
		value, n = 0, 3+b.take(3)
	case 18:
		value, n = 0, 11+b.take(7)
	}
	run := all
	for range n {
		run = append(run, value)
	}
	return run
}

// The codes of a block without its own (3.2.6).
var fixedLengths, fixedDistances = fixed()

func fixed() (lengths, distances *code) {
	l := make([]int, 288)
	for i := range l {
		switch {
		case i < 144:
			l[i] = 8
		case i < 256:
			l[i] = 9
		case i < 280:
			l[i] = 7
		default:
			l[i] = 8
		}
	}
	d := make([]int, 30)
	for i := range d {
		d[i] = 5
	}
	return newCode(l), newCode(d)
}
