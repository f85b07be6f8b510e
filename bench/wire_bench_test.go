package bench_test

import (
	"bytes"
	"fmt"
	"testing"

	"ticketgate/bench"
)

// What a client does for each message must not allocate: it would measure its own collector.
func BenchmarkFrame(b *testing.B) {
	for _, size := range []int{32, 1024} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			b.ReportAllocs()
			payload := bytes.Repeat([]byte("m"), size)
			answer := bench.AppendUnmasked(nil, bench.OpText, payload)
			buf := make([]byte, 0, size+16)
			for b.Loop() {
				buf = bench.AppendFrame(buf[:0], bench.OpText, payload)
				if f, n, err := bench.ParseFrame(answer); err != nil || n != len(answer) || len(f.Payload) != size {
					b.Fatal(n, err)
				}
			}
		})
	}
}

// A request for a ticket, and the upgrade that spends it.
func BenchmarkAdmission(b *testing.B) {
	b.ReportAllocs()
	mint := bench.NewMint("127.0.0.1:8080", "tgk_bench", "load", 100)
	var req, head []byte
	for b.Loop() {
		req = mint.Append(req[:0])
		head = bench.AppendUpgrade(head[:0], "127.0.0.1:8081", []byte("/t/x"), []byte("tgs_x"))
	}
	if len(req) == 0 || len(head) == 0 {
		b.Fatal("nothing was written")
	}
}
