package deflate_test

import (
	"bytes"
	stdlib "compress/flate"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/klauspost/compress/flate"

	"ticketgate/engine/deflate"
)

// unbounded lets everything through that the tests make.
var unbounded = deflate.Limits{Bytes: 1 << 30, Ratio: deflate.RatioMost}

// tail is what a sender takes off the end of a message (RFC 7692 section 7.2.1).
const tail = "\x00\x00\xff\xff"

// compress is a message as a peer sends it, by the standard library at a level.
func compress(level int, message string) string {
	var b bytes.Buffer
	w, err := stdlib.NewWriter(&b, level)
	if err != nil {
		panic(err)
	}
	_, _ = io.WriteString(w, message)
	_ = w.Flush()
	return strings.TrimSuffix(b.String(), tail)
}

// inflate takes wire in pieces of at most longest bytes, 0 for one piece.
func inflate(wire string, lim deflate.Limits, longest int, random *rand.Rand) (string, error) {
	var z deflate.Inflater
	var out []byte
	for rest := []byte(wire); len(rest) > 0; {
		n := len(rest)
		if longest > 0 {
			n = min(n, 1+random.IntN(longest))
		}
		var err error
		if out, err = z.Inflate(out, rest[:n], lim); err != nil {
			return string(out), err
		}
		rest = rest[n:]
	}
	return string(out), z.End()
}

// zeros, digits and so on: messages with and without anything to win.
func messages() map[string]string {
	random := rand.New(rand.NewPCG(3, 4))
	noise := make([]byte, 100_000)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	var rows strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&rows, `{"id":%d,"name":"row %x","price":%d.%02d,"tags":["a","b"]},`, i, random.Uint64(), random.IntN(1000), random.IntN(100))
	}
	var near strings.Builder // matches at every distance, of every length
	for near.Len() < 150_000 {
		s := near.String()
		at := random.IntN(max(1, len(s)))
		near.WriteString(s[at:min(len(s), at+random.IntN(300))])
		near.WriteByte(byte(random.IntN(4)))
	}
	return map[string]string{
		"empty": "", "one byte": "a", "hello": "Hello", "zeros": strings.Repeat("\x00", 300_000), "noise": string(noise),
		"rows": rows.String(), "near": near.String(), "text": strings.Repeat("the quick brown fox é 東京 ", 40),
		"ab": strings.Repeat("ab", 5000), "7": strings.Repeat("1234567", 5000), "mixed": string(noise[:40000]) + rows.String()[:40000],
	}
}

func TestRoundTrip(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, m := range messages() {
		for _, level := range []int{-2, 0, 1, 9} {
			wire := compress(level, m)
			for _, longest := range []int{0, 1, 17, 500} {
				got, err := inflate(wire, unbounded, longest, random)
				if err != nil || got != m {
					t.Fatalf("%s, level %d, pieces of %d: %d bytes of %d, %v", name, level, longest, len(got), len(m), err)
				}
			}
		}
	}
}

// The RFC's own examples, and streams that few senders make.
func TestStreams(t *testing.T) {
	fixed := "\xf2\x48\xcd\xc9\xc9\x07\x00" // "Hello", RFC 7692 section 7.2.3.1
	final := "\xf3\x48\xcd\xc9\xc9\x07\x00" // the same with BFINAL, 7.2.3.4
	stored := "\x00\x05\x00\xfa\xffHello"   // 7.2.3.3
	for _, c := range []struct {
		name, wire, want string
		err              error
	}{
		{"7.2.3.1", fixed, "Hello", nil},
		{"7.2.3.3 no compression", stored + "\x00", "Hello", nil},
		{"7.2.3.4 BFINAL", final + "\x00", "Hello", nil},
		{"7.2.3.5 two blocks", "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", "Hello", nil},
		{"7.2.3.6 empty", "\x00", "", nil},
		{"no bytes", "", "", nil},
		{"stored block that the tail would fill", "\x00\x09\x00\xf6\xffHello", "Hello", deflate.ErrStream},
		{"stripped by five", stored, "Hello", nil},
		{"the tail is still there", fixed + tail, "Hello", nil},
		{"the tail is there twice", fixed + tail + "\x00" + tail, "Hello", nil},
		{"half of the tail", fixed + "\x00\x00", "Hello", deflate.ErrStream},
		{"final, nothing behind", final, "Hello", nil},
		{"final, then another block", final + fixed, "HelloHello", nil},
		{"final, then a final one", final + final, "HelloHello", nil},
		{"final and stored", "\x01\x05\x00\xfa\xffHello", "Hello", nil},
		{"final empty block of the tail", fixed[:6] + "\x04", "Hello", nil},
		{"behind the final block, no block", final + "\x06", "Hello", deflate.ErrStream},
		{"block of type 3", "\x06", "", deflate.ErrStream},
		{"stored length and its complement differ", "\x00\x05\x00\xfb\xffHello", "", deflate.ErrStream},
		{"stored block not whole", "\x00\x05\x00\xfa\xffHell", "Hell", deflate.ErrStream},
		{"stored length not whole", "\x00\x05\x00\xfa", "", deflate.ErrStream},
		{"block without an end", fixed[:5], "Hell", deflate.ErrStream},
	} {
		for longest := range 3 {
			got, err := inflate(c.wire, unbounded, longest, rand.New(rand.NewPCG(5, 6)))
			if got != c.want || err != c.err {
				t.Errorf("%s: got %q, %v, want %q, %v", c.name, got, err, c.want, c.err)
			}
		}
	}
}

// reference inflates by the standard library what section 7.2.2 says: the message, of which the last stored block has begun, and
// the rest of that block; or a message that ends behind a block, with at most two bits of padding. What is taken for that rest
// is not empty here, so that it shows that it was.
func reference(wire string) (string, error) {
	const rest, mark = "\x04\x00\xfb\xffMARK", "MARK"
	for padding, head := range []string{"\xf8", "\xfc", "\xfe", ""} { // a stored block's head, and ones: a decoder that is elsewhere stumbles
		if head != "" && padding > 0 && (wire == "" || wire[len(wire)-1]>>(8-padding) != 0) {
			continue
		}
		out, final, err := blocks(wire + head + rest)
		if head != "" && final { // bits of wire have made it so: a block has begun
			continue
		}
		if err == nil && strings.HasSuffix(out, mark) && !strings.HasSuffix(out, head+rest) { // not inside a stored block
			return strings.TrimSuffix(out, mark), nil
		}
	}
	return "", io.ErrUnexpectedEOF
}

const finalEmpty = "\x01" + tail

// blocks inflates blocks up to the end of wire; behind a final block goes the next one. A final block behind all of them
// shows that wire ends with a block; final says whether that was one too.
func blocks(wire string) (_ string, final bool, err error) {
	in := strings.NewReader(wire + finalEmpty)
	var out []byte
	for in.Len() > 0 {
		b, err := io.ReadAll(stdlib.NewReaderDict(in, out)) // it reads no byte more than the final block has
		out = append(out, b...)
		if err != nil {
			return "", false, err
		}
		final = final || in.Len() == len(finalEmpty)
	}
	return string(out), final, nil
}

// plain is what the standard library makes of a message and the tail.
func plain(wire string) (string, error) {
	out, err := io.ReadAll(stdlib.NewReader(strings.NewReader(wire + tail + finalEmpty)))
	return string(out), err
}

func FuzzInflate(f *testing.F) {
	for _, m := range messages() {
		for _, level := range []int{-2, 0, 1, 9} {
			f.Add([]byte(compress(level, m[:min(len(m), 2000)])), uint64(len(m)))
		}
	}
	for _, s := range []string{"\xf3\x48\xcd\xc9\xc9\x07\x00\xf3\x48\xcd\xc9\xc9\x07\x00", "\x04\x00\x00\x00\x00", "\x02\x04\x00"} {
		f.Add([]byte(s), uint64(0))
	}
	f.Fuzz(func(t *testing.T, wire []byte, seed uint64) {
		want, wrong := reference(string(wire))
		got, err := inflate(string(wire), unbounded, 0, nil)
		if err == deflate.ErrTooBig { // dozens of blocks that give next to nothing
			if len(wire) < 64*8 {
				t.Fatalf("%x is too big", wire)
			}
			return
		}
		if (err == nil) != (wrong == nil) || err == nil && got != want {
			t.Fatalf("%x: %q, %v; the standard library: %q, %v", wire, got, err, want, wrong)
		}
		if std, wrong := plain(string(wire)); err == nil && wrong == nil && !strings.HasPrefix(got, std) { // it ends at a final block
			t.Fatalf("%x: %q; the standard library: %q", wire, got, std)
		}
		random := rand.New(rand.NewPCG(seed, 1))
		cut, cutErr := inflate(string(wire), unbounded, 1+int(seed%40), random)
		if cut != got || !errors.Is(cutErr, err) {
			t.Fatalf("%x in pieces: %q, %v; at once: %q, %v", wire, cut, cutErr, got, err)
		}
		lim := deflate.Limits{Bytes: int(seed >> 8 % 300), Ratio: 2}
		got, err = inflate(string(wire), lim, 0, nil)
		cut, cutErr = inflate(string(wire), lim, 3, random)
		if cut != got || !errors.Is(cutErr, err) || len(got) > lim.Bytes {
			t.Fatalf("%x with at most %d bytes, in pieces: %q, %v; at once: %q, %v", wire, lim.Bytes, cut, cutErr, got, err)
		}
	})
}

func BenchmarkInflate(b *testing.B) {
	for _, c := range []struct {
		name string
		size int
	}{{"rows", 512}, {"rows", 4096}, {"rows", 65536}, {"noise", 65536}, {"zeros", 65536}, {"text", 900}} {
		m := messages()[c.name]
		m = m[:min(len(m), c.size)]
		wire := []byte(compress(6, m))
		b.Run(fmt.Sprintf("%s/%d/ours", c.name, c.size), func(b *testing.B) {
			var z deflate.Inflater
			out := make([]byte, 0, len(m)+300)
			b.SetBytes(int64(len(m)))
			b.ReportAllocs()
			for b.Loop() {
				z.Reset()
				var err error
				if out, err = z.Inflate(out[:0], wire, unbounded); err != nil {
					b.Fatal(err)
				}
			}
			if string(out) != m {
				b.Fatal("not the message")
			}
		})
		b.Run(fmt.Sprintf("%s/%d/klauspost", c.name, c.size), func(b *testing.B) {
			in := bytes.NewReader(nil)
			whole := append(bytes.Clone(wire), tail+"\x01"+tail...)
			r := flate.NewReader(in)
			out := make([]byte, len(m)+300)
			b.SetBytes(int64(len(m)))
			b.ReportAllocs()
			for b.Loop() {
				in.Reset(whole)
				_ = r.(flate.Resetter).Reset(in, nil)
				if n, err := io.ReadFull(r, out); n != len(m) {
					b.Fatal(n, err)
				}
			}
		})
	}
}

// The limit holds to the byte, and the verdict falls with the byte that passes it; the same for a broken stream.
func TestVerdictAtItsByte(t *testing.T) {
	m := messages()["rows"][:100_000]
	wire := []byte(compress(6, m))
	limits := []int{0, 1, 100, 4095, 65536, 99_999}
	for limit := 2000; limit < 2040; limit++ { // matches that pass it by little
		limits = append(limits, limit)
	}
	for _, limit := range limits {
		var z deflate.Inflater
		var out []byte
		var err error
		for i := range wire {
			if out, err = z.Inflate(out, wire[i:i+1], deflate.Limits{Bytes: limit, Ratio: deflate.RatioMost}); err == nil {
				continue
			}
			var free deflate.Inflater
			before, _ := free.Inflate(nil, wire[:i], unbounded)
			after, _ := free.Inflate(bytes.Clone(before), wire[i:i+1], unbounded)
			if len(before) > limit || len(after) <= limit {
				t.Errorf("limit %d: refused at byte %d, which leads from %d to %d bytes", limit, i, len(before), len(after))
			}
			break
		}
		if err != deflate.ErrTooBig || len(out) > limit || cap(out) > max(2*limit, deflate.Min) {
			t.Errorf("limit %d: %d bytes in room for %d, %v", limit, len(out), cap(out), err)
		}
	}
	for limit := range 1000 {
		if got, err := inflate(string(wire), deflate.Limits{Bytes: limit, Ratio: deflate.RatioMost}, 0, nil); err != deflate.ErrTooBig || got != m[:len(got)] {
			t.Errorf("limit %d, at once: %d bytes, %v", limit, len(got), err)
		}
	}
	exact, err := inflate(string(wire), deflate.Limits{Bytes: len(m), Ratio: deflate.RatioMost}, 0, nil)
	if err != nil || exact != m {
		t.Errorf("a message as long as the limit: %d bytes, %v", len(exact), err)
	}
}

func TestRatio(t *testing.T) {
	mebi := strings.Repeat("x", 1<<20)
	wire := compress(9, mebi)
	for _, longest := range []int{0, 1, 7} {
		got, err := inflate(wire, deflate.Limits{Bytes: 2 << 20, Ratio: 256}, longest, rand.New(rand.NewPCG(1, 1)))
		if err != deflate.ErrTooBig || len(got) < deflate.RatioFrom || len(got) > deflate.RatioFrom+4<<10 {
			t.Errorf("pieces of %d: %d bytes, %v", longest, len(got), err)
		}
		if got, err = inflate(wire, deflate.Limits{Bytes: 2 << 20, Ratio: deflate.RatioMost}, longest, rand.New(rand.NewPCG(1, 1))); err != nil || got != mebi {
			t.Errorf("pieces of %d, no bound on the ratio: %d bytes, %v", longest, len(got), err)
		}
	}
	mixed := mebi[:200_000] + messages()["rows"][:30_000] + mebi[:400_000] + messages()["near"] + mebi
	wire = compress(6, mixed)
	for ratio := range 20 {
		lim := deflate.Limits{Bytes: 2 << 20, Ratio: 1 + 15*ratio}
		got, err := inflate(wire, lim, 0, nil)
		cut, cutErr := inflate(wire, lim, 30, rand.New(rand.NewPCG(1, uint64(ratio))))
		if len(got) != len(cut) || err != cutErr {
			t.Errorf("ratio %d: %d bytes, %v at once; %d, %v in pieces", ratio, len(got), err, len(cut), cutErr)
		}
	}
	short := mebi[:deflate.RatioFrom]
	if got, err := inflate(compress(9, short), deflate.Limits{Bytes: 2 << 20, Ratio: 1}, 0, nil); err != nil || got != short {
		t.Errorf("%d bytes, of any ratio: %d, %v", len(short), len(got), err)
	}
	noise := messages()["noise"]
	noise += noise + noise
	if got, err := inflate(compress(0, noise), deflate.Limits{Bytes: 2 << 20, Ratio: 1}, 0, nil); err != nil || got != noise {
		t.Errorf("stored blocks at 1:1: %d of %d bytes, %v", len(got), len(noise), err)
	}
}

func TestInflateAllocatesNothing(t *testing.T) {
	for name, m := range messages() {
		wire := []byte(compress(6, m))
		var z deflate.Inflater
		dst := make([]byte, 0, len(m)+512)
		got := testing.AllocsPerRun(3, func() {
			z.Reset()
			dst = dst[:0]
			for _, piece := range [][]byte{wire[:len(wire)/2], wire[len(wire)/2:]} {
				var err error
				if dst, err = z.Inflate(dst, piece, unbounded); err != nil {
					t.Fatal(err)
				}
			}
		})
		if got != 0 || string(dst) != m {
			t.Errorf("%s: %v allocations, want 0", name, got)
		}
	}
}

// After any message, whole or broken, the next one finds an Inflater like new.
func TestReset(t *testing.T) {
	var z deflate.Inflater
	for _, first := range []string{"", "\x06", "\x00\x05\x00", "\xf2\x48", "\x04\xc0\xc1", compress(9, messages()["rows"])[:300]} {
		_, _ = z.Inflate(nil, []byte(first), unbounded)
		z.Reset()
		if got, err := z.Inflate(nil, []byte(compress(6, "hello hello hello")), unbounded); err != nil || string(got) != "hello hello hello" || z.End() != nil {
			t.Errorf("after %x: %q, %v", first, got, err)
		}
		z.Reset()
	}
	if deflate.Size > 7<<10 {
		t.Errorf("an Inflater takes %d bytes", deflate.Size)
	}
}

// TestFlushedFragments: who flushes after each short fragment (RFC 7692 section 6.1 lets him) sends as many blocks as fragments.
func TestFlushedFragments(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	few := make([]byte, 1<<20)
	for i := range few {
		few[i] = byte(0xf0 + rnd.IntN(4)) // 9 bits each with the fixed codes, 2 with codes of its own
	}
	for name, text := range map[string]string{"few symbols": string(few), "binary": strings.Repeat("\x00\xfe#\xfa\xf0\x80\xff\x01\xc3(\xa0\xa1\xe2(\xa1\x7f", 1<<16),
		"text": strings.Repeat("sixteen letters.", 1<<16)} {
		for level := -2; level <= 9; level++ {
			for _, fragment := range []int{40, 64, 1000} {
				var wire bytes.Buffer
				z, err := flate.NewWriter(&wire, level)
				if err != nil {
					t.Fatal(err)
				}
				for rest := text[:200_000]; len(rest) > 0; rest = rest[min(fragment, len(rest)):] {
					if _, err := z.Write([]byte(rest[:min(fragment, len(rest))])); err != nil || z.Flush() != nil {
						t.Fatal(err)
					}
				}
				if got, err := inflate(wire.String(), unbounded, 0, rnd); err != nil || got != text[:200_000] {
					t.Errorf("%s, level %d, flushed after each %d bytes: %d bytes, %v", name, level, fragment, len(got), err)
				}
			}
		}
	}
}
