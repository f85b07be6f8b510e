package conform

import (
	"bytes"
	"compress/flate"
	"math/rand/v2"
	"testing"

	klauspost "github.com/klauspost/compress/flate"
)

// stream compresses b with a library's writer.
func stream(t *testing.T, b []byte, level int) []byte {
	t.Helper()
	var out bytes.Buffer
	z, err := flate.NewWriter(&out, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Flush(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// noise is n bytes that do not repeat.
func noise(n int) []byte {
	rnd := rand.New(rand.NewPCG(1951, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

// TestFarthest: what repeats after a distance is found at that distance.
func TestFarthest(t *testing.T) {
	for _, far := range []int{1, 100, 512, 513, 5000, 30000} {
		once := noise(far)
		got, err := farthest(stream(t, bytes.Repeat(once, 3+10/far), flate.BestCompression))
		if err != nil || got != far {
			t.Errorf("what repeats after %d bytes: %d, %v", far, got, err)
		}
	}
	for _, b := range [][]byte{nil, noise(10), noise(70000)} {
		if got, err := farthest(stream(t, b, flate.BestSpeed)); err != nil || got != 0 {
			t.Errorf("%d bytes of noise: %d, %v; want 0", len(b), got, err)
		}
	}
}

// TestFarthestWindow: a compressor with a small window stays in it, one without does not.
func TestFarthestWindow(t *testing.T) {
	for i := range sources {
		if sources[i].name == "what is compressed already" || sources[i].name == "a bitmap" {
			continue // nothing repeats within so little
		}
		content := []byte(sources[i].text())
		var out bytes.Buffer
		z, err := klauspost.NewWriterWindow(&out, 512)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := z.Write(content); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		if far, err := farthest(out.Bytes()); err != nil || far == 0 || far > 512 {
			t.Errorf("%s with a window of 512: %d, %v", sources[i].name, far, err)
		}
		for _, level := range []int{flate.HuffmanOnly, flate.NoCompression, flate.BestSpeed, flate.DefaultCompression} {
			far, err := farthest(stream(t, content, level))
			if looks := level == flate.BestSpeed || level == flate.DefaultCompression; err != nil || looks != (far > 512) {
				t.Errorf("%s at level %d: %d, %v", sources[i].name, level, far, err)
			}
		}
	}
}

// TestFarthestBroken: no broken stream is read as a good one, or for ever.
func TestFarthestBroken(t *testing.T) {
	for _, b := range []string{"\x07", "\x00\x05\x00\x00\x00hello", "\x00\x05\x00\xfa\xffhell", "\x05", "\x4b"} {
		if got, err := farthest([]byte(b)); err == nil {
			t.Errorf("% x: %d, want an error", b, got)
		}
	}
}

func FuzzFarthest(f *testing.F) {
	f.Add([]byte("\x00\x05\x00\xfa\xffhello"))
	f.Add([]byte("\x4b\x04\x00"))
	f.Add([]byte("\x4a\x4c\x04\x00\x00\x00\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if far, err := farthest(b); far < 0 || far > 1<<15 || err != nil && far != 0 {
			t.Errorf("% x: %d, %v", b, far, err)
		}
	})
}
