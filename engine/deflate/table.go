package deflate

import "math/bits"

// An entry says what the next bits of a stream are. A table has one for every value of the next root bits; codes longer than
// that go on in a table of their own behind it.
//
//	31          16 15       8 7        0
//	+-------------+----------+----------+
//	|    value    |   kind   |   bits   |   bits: how many the code has here
//	+-------------+----------+----------+
type entry uint32

// Kinds of an entry. A kind below 14 is the number of extra bits behind the code of a length or a distance, whose least is
// the value.
const (
	kindLiteral entry = 0x80 << 8 // value: the byte
	kindTable   entry = 0x40 << 8 // value: where the table begins; the low bits of the kind are how many bits choose in it
	kindEnd     entry = 0x20 << 8 // end of block
	kindBad     entry = 0x10 << 8 // no code, or a symbol that has no meaning
	kindExtra   entry = 0x0f << 8
)

// Number of symbols (RFC 1951 section 3.2.7), and of bits that choose in the first table.
const (
	maxLiterals  = 286
	maxDistances = 30
	maxLengths   = 19
	maxCode      = 15 // bits

	rootLiterals  = 9
	rootDistances = 6
	rootLengths   = 7

	// The most entries that any code needs with these roots: zlib's "enough" (its examples/enough.c tries them all).
	sizeLiterals  = 852
	sizeDistances = 592
)

const endOfBlock = 256

var (
	literals  = literalEntries()  // by symbol, without bits
	distances = distanceEntries() // the same
	lengths   = lengthEntries()   // the same, of the code for code lengths

	fixedLiterals, fixedDistances = fixedTables()
)

// literalEntries: RFC 1951 section 3.2.5, the first table.
func literalEntries() (t [288]entry) {
	for i := range endOfBlock {
		t[i] = entry(i)<<16 | kindLiteral
	}
	t[endOfBlock] = kindEnd
	least := 3
	for i := 257; i < 285; i++ {
		extra := max(0, (i-261)/4)
		t[i] = entry(least)<<16 | entry(extra)<<8
		least += 1 << extra
	}
	t[285] = 258 << 16
	t[286], t[287] = kindBad, kindBad
	return t
}

// distanceEntries: the second table.
func distanceEntries() (t [32]entry) {
	least := 1
	for i := range maxDistances {
		extra := max(0, (i-2)/2)
		t[i] = entry(least)<<16 | entry(extra)<<8
		least += 1 << extra
	}
	t[30], t[31] = kindBad, kindBad
	return t
}

func lengthEntries() (t [maxLengths]entry) {
	for i := range t {
		t[i] = entry(i) << 16
	}
	return t
}

// fixedTables: RFC 1951 section 3.2.6.
func fixedTables() (lit *[sizeLiterals]entry, dist *[sizeDistances]entry) {
	lit, dist = new([sizeLiterals]entry), new([sizeDistances]entry)
	var lens [288]uint8
	for i := range lens {
		switch {
		case i < 144:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		case i < 280:
			lens[i] = 7
		default:
			lens[i] = 8
		}
	}
	build(lit[:], rootLiterals, lens[:], literals[:])
	for i := range 32 {
		lens[i] = 5
	}
	build(dist[:], rootDistances, lens[:32], distances[:])
	return lit, dist
}

// build fills table for the code whose symbols have lens bits each (RFC 1951 section 3.2.2); symbols are their entries. It
// reports whether that is a code: not over-subscribed, and complete but for a code of a single symbol of one bit and for one
// of none, as zlib has it.
func build(table []entry, root uint, lens []uint8, symbols []entry) bool {
	var count [maxCode + 1]uint16
	for _, n := range lens {
		count[n]++
	}
	count[0] = 0
	left, codes, longest := 1, 0, uint(0)
	for n := 1; n <= maxCode; n++ {
		left = left<<1 - int(count[n])
		if left < 0 {
			return false
		}
		if count[n] > 0 {
			codes, longest = codes+int(count[n]), uint(n)
		}
	}
	if left > 0 {
		if codes > 1 || codes == 1 && count[1] != 1 {
			return false
		}
		for i := range table[:1<<root] {
			table[i] = kindBad | 1
		}
	}
	sorted := sort(&count, lens)
	fill(table, root, &count, longest, lens, sorted[:codes], symbols)
	return true
}

// sort gives the symbols that have a code in the order of their codes.
func sort(count *[maxCode + 1]uint16, lens []uint8) (sorted [288 + 32]uint16) {
	var next [maxCode + 2]uint16
	for n := 1; n <= maxCode; n++ {
		next[n+1] = next[n] + count[n]
	}
	for symbol, n := range lens {
		if n > 0 {
			sorted[next[n]] = uint16(symbol)
			next[n]++
		}
	}
	return sorted
}

// fill enters the codes of sorted. count is used up: it says how many codes of a length are still to come.
func fill(table []entry, root uint, count *[maxCode + 1]uint16, longest uint, lens []uint8, sorted []uint16, symbols []entry) {
	code, was := uint16(0), uint(0)
	free, prefix := 1<<root, -1 // where the next further table begins; the first bits of the one under way
	var sub []entry
	for _, symbol := range sorted {
		n := uint(lens[symbol])
		code <<= n - was
		was = n
		reversed := int(bits.Reverse16(code) >> (16 - n)) // codes lie in the stream from their top bit on
		e := symbols[symbol]
		if n <= root {
			spread(table[:1<<root], reversed, n, e|entry(n))
		} else {
			if first := reversed & (1<<root - 1); first != prefix {
				prefix = first
				size := further(count, n, root, longest)
				table[first] = entry(free)<<16 | kindTable | entry(size)<<8 | entry(root)
				sub = table[free : free+1<<size]
				free += 1 << size
			}
			spread(sub, reversed>>root, n-root, e|entry(n-root))
		}
		count[n]--
		code++
	}
}

// spread enters e wherever the low n bits are at.
func spread(table []entry, at int, n uint, e entry) {
	for ; at < len(table); at += 1 << n {
		table[at] = e
	}
}

// further is how many bits choose in a further table that begins with a code of n bits: as many as the codes to come need.
func further(count *[maxCode + 1]uint16, n, root, longest uint) uint {
	size := n - root
	left := 1 << size
	for size+root < longest {
		left -= int(count[size+root])
		if left <= 0 {
			break
		}
		size++
		left <<= 1
	}
	return size
}
