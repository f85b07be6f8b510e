package frame_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"ticketgate/engine/frame"
)

// TestMask: every length over all the blocks there are, from every address within one, byte for byte what section 5.3 says; no
// byte beside it changes, and ASCII is told from the rest wherever the one byte lies.
func TestMask(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	const most, room = 300, 64
	for n := range most + 1 {
		at := n % room
		in := make([]byte, room+most+room)
		for i := range in {
			in[i] = byte(rnd.Uint32())
		}
		key := [4]byte{byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32())}
		for off := range 4 {
			want := bytes.Clone(in)
			for i := range n {
				want[at+i] ^= key[(off+i)&3]
			}
			got := bytes.Clone(in)
			frame.Mask(got[at:at+n], key, off)
			if !bytes.Equal(got, want) {
				t.Fatalf("%d bytes from %d, offset %d: got %x, want %x", n, at, off, got, want)
			}
			portable := bytes.Clone(in)
			if off == 0 {
				frame.MaskPortable(portable[at:at+n], binary.LittleEndian.Uint32(key[:]))
				if !bytes.Equal(portable, want) {
					t.Fatalf("portable, %d bytes: got %x, want %x", n, portable, want)
				}
			}
		}
		word := binary.LittleEndian.Uint32(key[:])
		for odd := -1; odd < n; odd++ { // masked, all are ASCII but one
			text := in[at : at+n]
			for i := range text {
				text[i] = 'a' ^ key[i&3]
			}
			if odd >= 0 {
				text[odd] ^= 0x80
			}
			if high := frame.MaskHigh(text, word); (high != 0) != (odd >= 0) {
				t.Fatalf("%d bytes, not ASCII at %d: %x", n, odd, high)
			}
			if high := frame.High(text); (high != 0) != (odd >= 0) {
				t.Fatalf("%d bytes that were not masked, not ASCII at %d: %x", n, odd, high)
			}
		}
	}
}
