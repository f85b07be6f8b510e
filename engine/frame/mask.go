package frame

import (
	"encoding/binary"
	"math/bits"

	"github.com/gobwas/ws"
)

// Mask masks b in place, or unmasks it: both are the same XOR (5.3). off is how many bytes of the frame's payload came
// before b, 0 or more.
func Mask(b []byte, key [4]byte, off int) {
	mask(b, bits.RotateLeft32(binary.LittleEndian.Uint32(key[:]), -8*(off&3)))
}

// maskShort is how many bytes are masked faster word by word than by vector instructions behind a call.
const maskShort = 64

// mask masks b with key, whose lowest byte is for b[0]. In the same pass it finds out what the validation of text asks first:
// high is 0 if b, masked, has no byte with its top bit set, so that it is ASCII. Otherwise it may be.
func mask(b []byte, key uint32) (high uint64) {
	if len(b) > maskShort {
		return maskLong(b, key)
	}
	return maskWords(b, key)
}

// high says of b what mask says of what it has masked.
func high(b []byte) uint64 {
	if len(b) > maskShort {
		return highLong(b)
	}
	return highWords(b)
}

func highWords(b []byte) (high uint64) {
	for len(b) >= 8 {
		high |= binary.LittleEndian.Uint64(b)
		b = b[8:]
	}
	for _, c := range b {
		high |= uint64(c)
	}
	return high & topBits
}

const topBits = 0x8080808080808080

func maskWords(b []byte, key uint32) (high uint64) {
	twice := uint64(key)<<32 | uint64(key)
	for len(b) >= 8 {
		v := binary.LittleEndian.Uint64(b) ^ twice
		binary.LittleEndian.PutUint64(b, v)
		high |= v
		b = b[8:]
	}
	if len(b) >= 4 {
		v := binary.LittleEndian.Uint32(b) ^ key
		binary.LittleEndian.PutUint32(b, v)
		high |= uint64(v)
		b = b[4:]
	}
	for i := range b {
		b[i] ^= byte(key >> (8 * i))
		high |= uint64(b[i])
	}
	return high & topBits
}

// maskPortable is maskLong where there are no instructions for it.
func maskPortable(b []byte, key uint32) (high uint64) {
	var k [4]byte
	binary.LittleEndian.PutUint32(k[:], key)
	ws.Cipher(b, k, 0)
	return 1
}
