package offheap

import "math/bits"

// An Index is the heads of hash chains that run through the rows of a Rows: 4 bytes a row. It grows by one chain for each
// row that is added (linear hashing: W. Litwin, 1980), so no call ever moves more than one chain, about one row:
//
//	chains    0 ──────── split ──────── 2^k ──────── 2^k+split        a hash goes to its low k+1 bits, or, where that
//	          └─ split ─────────────────^ └─ from these ─^            chain does not exist yet, to its low k bits
//
// The hash must be one that nobody outside can aim. One goroutine at a time uses an Index.
type Index struct {
	heads  *Slab[uint32]
	chains uint32 // there are so many
	rows   uint32 // and so many rows in them
}

// NewIndex returns an Index without rows.
func NewIndex() *Index { return &Index{heads: NewSlab[uint32](), chains: 1} }

// chain is where hash belongs while there are chains.
func (x *Index) chain(hash uint64) uint32 {
	wide := uint32(1)<<bits.Len32(x.chains-1) - 1
	i := uint32(hash) & wide
	if i >= x.chains {
		i &= wide >> 1
	}
	return i
}

// First is the link to the first row of hash's chain: 0 at its end, as each row's own link is.
func (x *Index) First(hash uint64) *uint32 { return x.heads.At(x.chain(hash)) }

// Enter puts row i in front of hash's chain; next is i's own link. of says hash and link of any row entered before.
func (x *Index) Enter(i uint32, hash uint64, next *uint32, of func(i uint32) (hash uint64, next *uint32)) {
	if x.rows++; x.rows > x.chains && x.chains < MaxRows {
		x.split(of)
	}
	first := x.First(hash)
	*next, *first = *first, i
}

// split makes one chain more out of the one that has held its rows so far.
func (x *Index) split(of func(i uint32) (hash uint64, next *uint32)) {
	to := x.chains
	from := to &^ (1 << (bits.Len32(to) - 1))
	x.chains++
	keep, move := x.heads.At(from), x.heads.At(to)
	for i := *keep; i != 0; {
		hash, next := of(i)
		if x.chain(hash) == to {
			*move, move = i, next
		} else {
			*keep, keep = i, next
		}
		i = *next
	}
	*keep, *move = 0, 0
}

// Leave takes row i, which is there, out of hash's chain.
func (x *Index) Leave(i uint32, hash uint64, of func(i uint32) (hash uint64, next *uint32)) {
	p := x.First(hash)
	for *p != i {
		_, p = of(*p)
	}
	_, next := of(i)
	*p = *next
	x.rows--
}
