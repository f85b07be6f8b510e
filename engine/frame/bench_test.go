package frame_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"ticketgate/engine/frame"
	"ticketgate/engine/frame/frametest"
)

// BenchmarkNext is parse, check, unmask and, for text, validation. Each pass unmasks what the last one left, so the payload
// turns back and forth; the key of the text frames has no top bits, so that both readings are ASCII.
func BenchmarkNext(b *testing.B) {
	for _, size := range []int{32, 1 << 10, 16 << 10} {
		b.Run(fmt.Sprintf("binary/%dB", size), func(b *testing.B) {
			benchmarkNext(b, frametest.Frame(0x82, strings.Repeat("x", size)), 1)
		})
	}
	for _, size := range []int{32, 1 << 10, 16 << 10} {
		b.Run(fmt.Sprintf("text/%dB", size), func(b *testing.B) {
			benchmarkNext(b, asciiFrame(size), 1)
		})
	}
	b.Run("binary/16x32B", func(b *testing.B) {
		benchmarkNext(b, bytes.Repeat(frametest.Frame(0x82, strings.Repeat("x", 32)), 16), 16)
	})
	b.Run("adversarial/16xempty", func(b *testing.B) {
		benchmarkNext(b, bytes.Repeat(frametest.Frame(0x82, ""), 16), 16)
	})
}

// asciiFrame gives a text frame whose payload is ASCII masked and unmasked.
func asciiFrame(size int) []byte {
	h := frame.Header{Fin: true, Op: frame.Text, Masked: true, Mask: [4]byte{1, 2, 3, 4}, Len: int64(size)}
	return append(frame.Append(nil, h), strings.Repeat("x", size)...)
}

func benchmarkNext(b *testing.B, wire []byte, frames int) {
	var r frame.Reader
	b.SetBytes(int64(len(wire)))
	b.ReportAllocs()
	for b.Loop() {
		rest := wire
		for range frames {
			_, n, err := r.Next(&defaults, rest)
			if err != nil || n == 0 {
				b.Fatal(n, err)
			}
			rest = rest[n:]
		}
	}
}

func BenchmarkParse(b *testing.B) {
	wire := frametest.Frame(0x82, strings.Repeat("x", 1024))
	for b.Loop() {
		if _, n, err := frame.Parse(wire); n == 0 || err != nil {
			b.Fatal(n, err)
		}
	}
}
