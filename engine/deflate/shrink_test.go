package deflate_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"ticketgate/engine/deflate"
)

// windows are the bits of each.
var windows = map[deflate.Window]int{deflate.Window8: 8, deflate.Window9: 9, deflate.Window15: 15}

func TestDeflate(t *testing.T) {
	var d deflate.Deflater
	for name, m := range messages() {
		for _, size := range []int{0, 1, 5, 6, 33, 127, 128, 512, 3000, 65536, 100_000} {
			m := m[:min(len(m), size)]
			for window, bits := range windows {
				got, smaller := d.Deflate([]byte("before"), []byte(m), window)
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
func checkWindow(t *testing.T, wire, want string, bits int) {
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
		wire, smaller := d.Deflate(nil, m, deflate.Window8+deflate.Window(seed%3))
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
		for window, bits := range windows {
			in, dst := []byte(m), make([]byte, 0, len(m)+64)
			if got := testing.AllocsPerRun(3, func() { dst, _ = d.Deflate(dst[:0], in, window) }); got != 0 {
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
	taken := func(window deflate.Window) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		dst, _ = d.Deflate(dst[:0], m, window)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	first := taken(deflate.Window15)
	sum := first + taken(deflate.Window8) + taken(deflate.Window9) + taken(deflate.Window15)
	if first > deflate.Most/3 || sum > deflate.Most || sum < deflate.Most/2 {
		t.Errorf("the first window takes %d bytes and all take %d; documented are %d and %d", first, sum, deflate.Most/3, deflate.Most)
	}
}

func BenchmarkDeflate(b *testing.B) {
	for _, c := range []struct {
		name   string
		size   int
		window deflate.Window
	}{{"rows", 512, deflate.Window15}, {"rows", 4096, deflate.Window15}, {"rows", 4096, deflate.Window9}, {"rows", 65536, deflate.Window15},
		{"rows", 65536, deflate.Window9}, {"rows", deflate.Max, deflate.Window15}, {"noise", 65536, deflate.Window15}, {"zeros", 65536, deflate.Window15}} {
		m := strings.Repeat(messages()[c.name], 2)[:c.size]
		b.Run(fmt.Sprintf("%s/%dB/%dbits", c.name, c.size, windows[c.window]), func(b *testing.B) {
			var d deflate.Deflater
			in, dst := []byte(m), make([]byte, 0, len(m)+64)
			b.SetBytes(int64(len(m)))
			b.ReportAllocs()
			for b.Loop() {
				dst, _ = d.Deflate(dst[:0], in, c.window)
			}
			b.ReportMetric(float64(len(dst))/float64(len(m))*100, "%size")
		})
	}
}
