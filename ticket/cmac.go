package ticket

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
)

// cmac is AES-CMAC (RFC 4493) under one key. It is chosen over HMAC-SHA-256 because the 35 bytes of a locator are three
// AES blocks (some 60 ns) and a forged locator must cost next to nothing.
type cmac struct {
	block  cipher.Block
	k1, k2 [aes.BlockSize]byte // RFC 4493 2.3: for a last block that is full, and one that is not
}

func newCMAC(key []byte) (cmac, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return cmac{}, err
	}
	m := cmac{block: block}
	var l [aes.BlockSize]byte
	block.Encrypt(l[:], l[:])
	m.k1 = double(l)
	m.k2 = double(m.k1)
	return m, nil
}

// double multiplies by x in GF(2^128) (RFC 4493 2.3).
func double(in [aes.BlockSize]byte) (out [aes.BlockSize]byte) {
	for i := range len(in) - 1 {
		out[i] = in[i]<<1 | in[i+1]>>7
	}
	last := len(in) - 1
	out[last] = in[last]<<1 ^ 0x87*(in[0]>>7)
	return out
}

// sum leaves the MAC of msg in x. x is the caller's so that it does not escape here on every call.
func (m *cmac) sum(x *[aes.BlockSize]byte, msg []byte) {
	clear(x[:])
	for len(msg) > aes.BlockSize {
		subtle.XORBytes(x[:], x[:], msg[:aes.BlockSize])
		m.block.Encrypt(x[:], x[:])
		msg = msg[aes.BlockSize:]
	}
	subtle.XORBytes(x[:], x[:], msg)
	k := &m.k1
	if len(msg) < aes.BlockSize {
		x[len(msg)] ^= 0x80
		k = &m.k2
	}
	subtle.XORBytes(x[:], x[:], k[:])
	m.block.Encrypt(x[:], x[:])
}
