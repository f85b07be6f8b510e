package deflate_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"ticketgate/engine/deflate"
)

func TestDeflate(t *testing.T) {
	var d deflate.Deflater
	for name, m := range messages() {
		for _, size := range []int{0, 1, 5, 6, 33, 127, 128, 512, 3000, 65536, 100_000} {
			m := m[:min(len(m), size)]
			for bits := uint8(8); bits <= deflate.MaxBits; bits++ {
				if size > 3000 && bits != 9 && bits != deflate.MaxBits {
					continue
				}
				got, smaller := d.Deflate([]byte("before"), []byte(m), bits)
				wire, ok := strings.CutPrefix(string(got), "before")
				switch {
				case !ok:
					t.Fatalf("%s, %d bytes: what was in dst is gone", name, len(m))
				case !smaller && wire != "":
					t.Fatalf("%s, %d bytes: to be sent plain, but %d bytes are appended", name, len(m), len(wire))
				case smaller && len(wire) >= len(m):
					t.Fatalf("%s, %d bytes: compressed to %d", name, len(m), len(wire))
				case smaller:
					checkWindow(t, wire, m, bits)
				case name == "rows" && size >= 512:
					t.Fatalf("%s, %d bytes, %d bits: not smaller", name, len(m), bits)
				}
			}
		}
	}
}

// checkWindow inflates wire as a peer does that has only a window of bits: what lies further back is overwritten. Then it asks
// the standard library.
func checkWindow(t *testing.T, wire, want string, bits uint8) {
	t.Helper()
	var z deflate.Inflater
	var window, got []byte
	step := 1 + len(want)/3000 // few matches at a time
	for i := 0; i < len(wire); i += step {
		was := len(window)
		var err error
		if window, err = z.Inflate(window, []byte(wire[i:min(i+step, len(wire))]), unbounded); err != nil {
			t.Fatal(err)
		}
		got = append(got, window[was:]...)
		for j := max(0, was-1<<bits-40_000); j < len(window)-1<<bits; j++ { // a match takes its bytes before they are lost
			window[j] = 'X'
		}
	}
	if err := z.End(); err != nil || string(got) != want {
		t.Fatalf("%d bytes in a window of %d bits: not the message, %v", len(want), bits, err)
	}
	if out, err := plain(wire); err != nil || out != want {
		t.Fatalf("%d bytes in a window of %d bits: the standard library does not get the message: %v", len(want), bits, err)
	}
}

func FuzzRoundTrip(f *testing.F) {
	for _, m := range messages() {
		f.Add([]byte(m[:min(len(m), 3000)]), uint64(len(m)))
	}
	var d deflate.Deflater
	f.Fuzz(func(t *testing.T, m []byte, seed uint64) {
		wire, smaller := d.Deflate(nil, m, 8+uint8(seed%8))
		if !smaller {
			return
		}
		got, err := inflate(string(wire), deflate.Limits{Bytes: len(m), Ratio: deflate.RatioMost}, 1+int(seed%100), rand.New(rand.NewPCG(seed, 1)))
		if err != nil || got != string(m) {
			t.Fatalf("%x becomes %x becomes %x, %v", m, wire, got, err)
		}
	})
}

func TestDeflateAllocatesNothing(t *testing.T) {
	var d deflate.Deflater
	for name, m := range messages() {
		for _, bits := range []uint8{8, 10, 13, 15} {
			in, dst := []byte(m), make([]byte, 0, len(m)+64)
			if got := testing.AllocsPerRun(3, func() { dst, _ = d.Deflate(dst[:0], in, bits) }); got != 0 {
				t.Errorf("%s, %d bits: %v allocations, want 0", name, bits, got)
			}
		}
	}
}

// What a loop's Deflater takes, once it has met every window.
func TestDeflaterMemory(t *testing.T) {
	var d deflate.Deflater
	m := []byte(messages()["rows"])
	dst := make([]byte, 0, len(m)+64)
	taken := func(bits uint8) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		dst, _ = d.Deflate(dst[:0], m, bits)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	first := taken(deflate.MaxBits)
	sum := first
	for bits := uint8(8); bits <= deflate.MaxBits; bits++ {
		sum += taken(bits)
	}
	if first > deflate.Most/4 || sum > deflate.Most || sum < deflate.Most/2 {
		t.Errorf("the first window takes %d bytes and all take %d; documented are %d and %d", first, sum, deflate.Most/4, deflate.Most)
	}
}

func BenchmarkDeflate(b *testing.B) {
	for _, c := range []struct {
		name string
		size int
		bits uint8
	}{{"rows", 512, 15}, {"rows", 4096, 15}, {"rows", 4096, 9}, {"rows", 65536, 15}, {"rows", 65536, 9}, {"rows", deflate.Max, 15}, {"noise", 65536, 15}, {"zeros", 65536, 15}} {
		m := strings.Repeat(messages()[c.name], 2)[:c.size]
		b.Run(fmt.Sprintf("%s/%dB/%dbits", c.name, c.size, c.bits), func(b *testing.B) {
			var d deflate.Deflater
			in, dst := []byte(m), make([]byte, 0, len(m)+64)
			b.SetBytes(int64(len(m)))
			b.ReportAllocs()
			for b.Loop() {
				dst, _ = d.Deflate(dst[:0], in, c.bits)
			}
			b.ReportMetric(float64(len(dst))/float64(len(m))*100, "%size")
		})
	}
}
