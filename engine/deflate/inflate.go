package deflate

import (
	"encoding/binary"
	"unsafe"
)

// Inflate, in the order of this file:
//
//	Inflate   stage by stage, as far as the bits go; what is missing comes with the next call
//	head      a block begins: stored, or codes, fixed or its own
//	stored    bytes as they are
//	codes     the block's own codes: how many, their lengths' code, their lengths
//	symbols   literals, lengths and distances: run, where there is input and room for any, else one by one
//
// Every stage takes from the bit buffer all that it needs for one step or nothing, so it can stop at any byte, and what it
// has found does not depend on how the bytes were cut. A step needs at most 48 bits, the buffer holds 56 or more.

// Limits are what a message may inflate to.
type Limits struct {
	Bytes int // in all; 0 allows the empty message only
	Ratio int // bytes for each compressed one, 1 to RatioMost; counts from RatioFrom on
}

// An Inflater is one compressed message under way. The zero value is ready for a message; Reset makes it so again. It is
// made to be pooled: Size bytes, without pointers to what it was given. It belongs to one loop.
type Inflater struct {
	buffer uint64 // the next bits of the stream, the first one lowest
	have   uint   // how many: less than 64
	src    []byte // behind them, during a call
	taken  int    // bytes that have left src, in all calls
	check  int    // the ratio is looked at when so many bytes are there
	own    int    // blocks with codes of their own
	work   int    // see Work

	stage stage
	final bool // the block under way has BFINAL
	left  int  // stage stored: bytes to come

	lit  *[sizeLiterals]entry
	dist *[sizeDistances]entry

	// The block's own codes: how many lengths there are, and the lengths, those of literals first.
	nlit, ndist, nlen, known int
	lens                     [maxLiterals + maxDistances]uint8
	ownLit                   [sizeLiterals]entry
	ownDist                  [sizeDistances]entry // while the lengths are read: the code of the lengths
}

// Size is what an Inflater takes, in bytes: what a message under way costs beside what it has inflated to.
const Size = int(unsafe.Sizeof(Inflater{}))

// Thousands of clients can have a message under way at once: over 7 KiB does not compile.
const _ = uint(7<<10 - Size)

// stage is what the next bits are.
type stage uint8

const (
	stageHead       stage = iota // of a block
	stageStoredLen               // LEN, NLEN
	stageStored                  // bytes
	stageCounts                  // HLIT, HDIST, HCLEN
	stageLengthCode              // code lengths of the code for code lengths
	stageLengths                 // code lengths
	stageSymbols
)

// Reset makes z ready for the next message.
func (z *Inflater) Reset() {
	z.buffer, z.have, z.taken, z.check, z.own, z.work = 0, 0, 0, 0, 0, 0
	z.stage, z.final = stageHead, false
}

// Inflate appends to dst what src, the next bytes of the message, inflates to. dst must be what the last call gave for this
// message, nil or empty at its beginning: it is the window that the stream refers to. All of src is taken, and not kept.
//
// An error is ErrTooBig or ErrStream and ends the message; it comes with the very byte that is wrong, inflates to more than
// allowed, or begins one of too many blocks, and dst is then what the bytes before it gave, never more than lim.Bytes. Memory
// grows by doubling.
func (z *Inflater) Inflate(dst, src []byte, lim Limits) ([]byte, error) {
	z.src = src
	if z.check == 0 {
		z.check = RatioFrom + 1
	}
	dst, err := z.inflate(dst, lim)
	z.src = nil
	return dst, err
}

// Work is what the message has cost so far beside the bytes that it gave, in bytes of text that take as long: thousands of
// blocks with nothing in them are a lot of it.
func (z *Inflater) Work() int { return z.work }

// End says whether the message may end here: nil, or ErrStream if something is missing. The peer has taken 00 00 ff ff off
// the end (RFC 7692 section 7.2.1), the rest of an empty stored block, and an append of it must complete the stream; to a
// peer that left these bytes where they were, or ended with a final block, nothing is missing either.
func (z *Inflater) End() error {
	switch {
	case z.stage == stageHead && z.buffer == 0: // at most two bits, of a padding
		return nil
	case z.stage == stageStoredLen && z.have == 0:
		return nil
	}
	return ErrStream
}

func (z *Inflater) inflate(dst []byte, lim Limits) ([]byte, error) {
	for {
		var more bool
		var err error
		switch z.stage {
		case stageHead:
			more, err = z.head()
		case stageStoredLen:
			more, err = z.storedLen()
		case stageStored:
			dst, more, err = z.stored(dst, lim.Bytes)
		case stageCounts:
			more, err = z.counts(len(dst))
		case stageLengthCode:
			more, err = z.lengthCode()
		case stageLengths:
			more, err = z.lengths()
		case stageSymbols:
			dst, more, err = z.symbols(dst, lim)
		}
		if !more || err != nil {
			return dst, err
		}
	}
}

// need has n bits in the buffer, at most 56, or reports that src is at its end.
func (z *Inflater) need(n uint) bool {
	for z.have < n {
		if len(z.src) == 0 {
			return false
		}
		z.buffer |= uint64(z.src[0]) << z.have
		z.src = z.src[1:]
		z.have += 8
		z.taken++
	}
	return true
}

// take gives the next n bits, which are there.
func (z *Inflater) take(n uint) int {
	v := int(z.buffer & (1<<n - 1))
	z.buffer >>= n
	z.have -= n
	return v
}

// head begins a block (RFC 1951 section 3.2.3).
func (z *Inflater) head() (more bool, err error) {
	if !z.need(3) {
		return false, nil
	}
	z.final = z.take(1) == 1
	z.work += blockWork
	switch z.take(2) {
	case 0:
		z.align()
		z.stage = stageStoredLen
	case 1:
		z.lit, z.dist = fixedLiterals, fixedDistances
		z.stage = stageSymbols
	case 2:
		z.stage = stageCounts
	default:
		return false, ErrStream
	}
	return true, nil
}

// ended goes on behind a block. A final one is padded to a whole byte, and more blocks may follow it (RFC 7692 section 7.2.1).
func (z *Inflater) ended() {
	if z.final {
		z.align()
	}
	z.stage = stageHead
}

func (z *Inflater) align() { z.take(z.have & 7) }

func (z *Inflater) storedLen() (more bool, err error) {
	if !z.need(32) {
		return false, nil
	}
	n := z.take(16)
	if z.take(16) != ^n&0xffff {
		return false, ErrStream
	}
	z.left, z.stage = n, stageStored
	return true, nil
}

func (z *Inflater) stored(dst []byte, limit int) (_ []byte, more bool, err error) {
	for z.left > 0 && z.have > 0 { // whole bytes: LEN begins at one
		if len(dst) >= limit {
			return dst, false, ErrTooBig
		}
		dst = append(grow(dst, 1, limit), byte(z.take(8)))
		z.left--
	}
	n := min(z.left, len(z.src), max(0, limit-len(dst)))
	dst = append(grow(dst, n, limit), z.src[:n]...)
	z.src = z.src[n:]
	z.taken += n
	z.left -= n
	switch {
	case z.left == 0:
		z.ended()
		return dst, true, nil
	case len(z.src) > 0:
		return dst, false, ErrTooBig
	}
	return dst, false, nil
}

// counts: HLIT, HDIST and HCLEN of a block with its own codes (RFC 1951 section 3.2.7), behind n bytes of message.
func (z *Inflater) counts(n int) (more bool, err error) {
	if !z.need(14) {
		return false, nil
	}
	if z.own++; z.own > blocksFrom+n/blockLeast {
		return false, ErrTooBig
	}
	z.work += tablesWork
	z.nlit, z.ndist, z.nlen = z.take(5)+257, z.take(5)+1, z.take(4)+4
	if z.nlit > maxLiterals || z.ndist > maxDistances {
		return false, ErrStream
	}
	clear(z.lens[:maxLengths])
	z.known, z.stage = 0, stageLengthCode
	return true, nil
}

// lengthOrder is the order in which the lengths of the code for code lengths come: the rarest last.
var lengthOrder = [maxLengths]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

func (z *Inflater) lengthCode() (more bool, err error) {
	for ; z.known < z.nlen; z.known++ {
		if !z.need(3) {
			return false, nil
		}
		z.lens[lengthOrder[z.known]] = uint8(z.take(3))
	}
	if !build(z.ownDist[:], rootLengths, z.lens[:maxLengths], lengths[:]) {
		return false, ErrStream
	}
	z.known, z.stage = 0, stageLengths
	return true, nil
}

func (z *Inflater) lengths() (more bool, err error) {
	n := z.nlit + z.ndist
	for z.known < n {
		if more, err := z.length(n); !more {
			return false, err
		}
	}
	ok := build(z.ownLit[:], rootLiterals, z.lens[:z.nlit], literals[:]) &&
		build(z.ownDist[:], rootDistances, z.lens[z.nlit:n], distances[:])
	if !ok {
		return false, ErrStream
	}
	z.lit, z.dist = &z.ownLit, &z.ownDist
	z.stage = stageSymbols
	return true, nil
}

// length reads one code length, or a run of the last one or of zeros; n is how many there are.
func (z *Inflater) length(n int) (more bool, err error) {
	z.need(14) // the longest code and its extra bits; fewer may do
	e := z.ownDist[z.buffer&(1<<rootLengths-1)]
	code := uint(e & 0xff)
	if code > z.have {
		return false, nil
	}
	if e&kindBad != 0 {
		return false, ErrStream
	}
	symbol := int(e >> 16)
	extra, least, value := uint(0), 1, uint8(symbol)
	switch symbol {
	case 16:
		if z.known == 0 {
			return false, ErrStream
		}
		extra, least, value = 2, 3, z.lens[z.known-1]
	case 17:
		extra, least, value = 3, 3, 0
	case 18:
		extra, least, value = 7, 11, 0
	}
	if code+extra > z.have {
		return false, nil
	}
	z.take(code)
	run := least + z.take(extra)
	if z.known+run > n {
		return false, ErrStream
	}
	for range run {
		z.lens[z.known] = value
		z.known++
	}
	return true, nil
}

// matchMax is the longest match; slack is how much more than it the copying of one may write.
const (
	matchMax = 258
	slack    = 8
)

// symbols goes on with the symbols of a block.
func (z *Inflater) symbols(dst []byte, lim Limits) (_ []byte, more bool, err error) {
	for {
		if len(z.src) >= runInput && len(dst)+matchMax+slack <= lim.Bytes {
			dst = z.run(grow(dst, matchMax+slack, lim.Bytes), lim.Bytes)
		}
		if !z.within(len(dst), lim.Ratio) {
			return dst, false, ErrTooBig
		}
		dst, more, err = z.symbol(dst, lim.Bytes)
		if err == nil && !z.within(len(dst), lim.Ratio) {
			err = ErrTooBig
		}
		if !more || err != nil || z.stage != stageSymbols {
			return dst, more, err
		}
	}
}

// within judges the ratio of the first n bytes, if it is time to.
func (z *Inflater) within(n, ratio int) bool {
	if n < z.check {
		return true
	}
	z.check = n + ratioStep - n%ratioStep
	return n <= ratio*(z.taken-int(z.have/8))
}

// symbol takes one symbol, a length with its distance, if all of its bits are there.
func (z *Inflater) symbol(dst []byte, limit int) (_ []byte, more bool, err error) {
	z.need(48) // as far as there is input: the end of a message may have less
	e, used := lookup(z.lit[:], rootLiterals, z.buffer)
	switch {
	case used > z.have:
		return dst, false, nil
	case e&kindLiteral != 0:
		if len(dst) >= limit {
			return dst, false, ErrTooBig
		}
		z.take(used)
		return append(grow(dst, 1, limit), byte(e>>16)), true, nil
	case e&kindEnd != 0:
		z.take(used)
		z.ended()
		return dst, true, nil
	case e&kindBad != 0:
		return dst, false, ErrStream
	}
	extra := uint(e&kindExtra) >> 8
	length := int(e>>16) + int(z.buffer>>used&(1<<extra-1))
	used += extra
	if used > z.have {
		return dst, false, nil
	}
	e, n := lookup(z.dist[:], rootDistances, z.buffer>>used)
	used += n
	if used > z.have {
		return dst, false, nil
	}
	if e&kindBad != 0 {
		return dst, false, ErrStream
	}
	extra = uint(e&kindExtra) >> 8
	distance := int(e>>16) + int(z.buffer>>used&(1<<extra-1))
	used += extra
	if used > z.have {
		return dst, false, nil
	}
	switch {
	case distance > len(dst):
		return dst, false, ErrStream
	case length > limit-len(dst):
		return dst, false, ErrTooBig
	}
	z.take(used)
	dst = grow(dst, length, limit)
	at := len(dst)
	dst = dst[:at+length]
	repeat(dst, at, at+length, distance)
	return dst, true, nil
}

// lookup finds the code that b begins with, and its bits. Where b has fewer real bits than that it says nothing.
func lookup(table []entry, root uint, b uint64) (e entry, used uint) {
	e = table[b&(1<<root-1)]
	if e&kindTable == 0 {
		return e, uint(e & 0xff)
	}
	size := uint(e&kindExtra) >> 8
	e = table[uint64(e>>16)+b>>root&(1<<size-1)]
	return e, root + uint(e&0xff)
}

// repeat copies b[at-distance:] to b[at:end], which may overlap.
func repeat(b []byte, at, end, distance int) {
	for from := at - distance; at < end; {
		at += copy(b[at:end], b[from:at])
	}
}

// runInput is how much input a turn of run may look at: two refills of the bit buffer.
const runInput = 16

// run takes symbols while runInput bytes of input are there, and room for the longest match and slack; dst has room for one.
// What has no place in a run (a bad symbol, a length without its bits, a limit) it leaves for symbol to judge.
func (z *Inflater) run(dst []byte, limit int) []byte {
	out := dst[:min(cap(dst), limit)]
	at := len(dst)
	stop := min(len(out)-matchMax-slack, z.check-2) // a turn takes two symbols at most: only its last may reach check
	lit, dist, src, from := z.lit, z.dist, z.src, 0
	b, have := z.buffer, z.have
	for at <= stop && from+runInput <= len(src) {
		// As many bytes as fit; bits above have are those of the next bytes already, and come again.
		b |= binary.LittleEndian.Uint64(src[from:]) << (have & 63)
		from += int(63-have) >> 3
		have |= 56
		e := lit[b&(1<<rootLiterals-1)]
		if e&kindLiteral != 0 {
			out[at] = byte(e >> 16)
			at++
			b >>= e & 63
			have -= uint(e & 63)
			e = lit[b&(1<<rootLiterals-1)]
			if e&kindLiteral != 0 {
				out[at] = byte(e >> 16)
				at++
				b >>= e & 63
				have -= uint(e & 63)
				continue
			}
			b |= binary.LittleEndian.Uint64(src[from:]) << (have & 63)
			from += int(63-have) >> 3
			have |= 56
		}
		used := uint(e & 63)
		if e&kindTable != 0 {
			e = lit[uint64(e>>16)+b>>rootLiterals&(1<<(uint(e&kindExtra)>>8)-1)]
			used = rootLiterals + uint(e&63)
			if e&kindLiteral != 0 {
				out[at] = byte(e >> 16)
				at++
				b >>= used & 63
				have -= used
				continue
			}
		}
		if e&(kindEnd|kindBad) != 0 {
			break
		}
		extra := uint(e&kindExtra) >> 8
		length := int(e>>16) + int(b>>(used&63)&(1<<extra-1))
		used += extra
		d := dist[b>>(used&63)&(1<<rootDistances-1)]
		if d&kindTable != 0 {
			used += rootDistances
			d = dist[uint64(d>>16)+b>>(used&63)&(1<<(uint(d&kindExtra)>>8)-1)]
		}
		used += uint(d & 63)
		extra = uint(d&kindExtra) >> 8
		distance := int(d>>16) + int(b>>(used&63)&(1<<extra-1))
		used += extra
		if d&kindBad != 0 || distance > at {
			break
		}
		b >>= used & 63
		have -= used
		at = paste(out, at, length, distance)
	}
	z.buffer, z.have = b&(1<<(have&63)-1), have
	z.src = src[from:]
	z.taken += from
	return out[:at]
}

// paste is repeat by words, with slack bytes of room behind the match; it gives the match's end.
func paste(out []byte, at, length, distance int) int {
	end := at + length
	for distance < 8 && at < end { // what has been written twice repeats at twice the distance too
		binary.LittleEndian.PutUint64(out[at:], binary.LittleEndian.Uint64(out[at-distance:]))
		at += distance
		distance *= 2
	}
	for from := at - distance; at < end; at, from = at+8, from+8 {
		binary.LittleEndian.PutUint64(out[at:], binary.LittleEndian.Uint64(out[from:]))
	}
	return end
}

// grow makes room for n more bytes, by doubling, but never for more than limit in all.
func grow(dst []byte, n, limit int) []byte {
	if len(dst)+n <= cap(dst) {
		return dst
	}
	room := min(max(2*cap(dst), len(dst)+n, Min), max(limit, len(dst)+n))
	return append(make([]byte, 0, room), dst...)
}
