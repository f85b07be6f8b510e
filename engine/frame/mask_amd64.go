package frame

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// maskBlocks masks n bytes at p, a multiple of maskBlock; high is 0 if none of them has its top bit set afterwards.
//
//go:noescape
func maskBlocks(p *byte, n int, key uint32) (high uint32)

// highBlocks says of n bytes at p, a multiple of maskBlock, what maskBlocks says of what it has masked.
//
//go:noescape
func highBlocks(p *byte, n int) (high uint32)

// maskBlock is what both take at once: an AVX2 register.
const maskBlock = 32

// maskLong masks b, of which no byte has its top bit set afterwards if high is 0.
func maskLong(b []byte, key uint32) (high uint64) {
	if !cpu.X86.HasAVX2 {
		return maskPortable(b, key)
	}
	n := len(b) &^ (maskBlock - 1) // the key's period divides a block
	return uint64(maskBlocks(unsafe.SliceData(b), n, key)) | maskWords(b[n:], key)
}

// highLong is 0 if no byte of b has its top bit set; otherwise one may have.
func highLong(b []byte) (high uint64) {
	if !cpu.X86.HasAVX2 {
		return 1
	}
	n := len(b) &^ (maskBlock - 1)
	return uint64(highBlocks(unsafe.SliceData(b), n)) | highWords(b[n:])
}
