package frame_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"ticketgate/engine/frame"
	"ticketgate/engine/frame/frametest"
)

// TestCountIsWhatNextFinds: at every cut of good wire bytes Count announces what Next then tells.
func TestCountIsWhatNextFinds(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var wire []byte
	for range 60 {
		switch size := []int{0, 1, 125, 126, 1000, 70_000}[rnd.IntN(6)]; rnd.IntN(4) {
		case 0:
			wire = append(wire, frametest.Frame(0x89, "ping")...)
		case 1: // a message of two frames
			wire = append(wire, frametest.Frame(0x02, string(make([]byte, size)))...)
			wire = append(wire, frametest.Frame(0x80, "end")...)
		default:
			wire = append(wire, frametest.Frame(0x82, string(make([]byte, size)))...)
		}
	}
	rules := &frame.Rules{Role: frame.Server, Opcodes: frame.AllowBoth, MaxMessage: 1 << 20, MaxFragments: 10}
	for range 200 {
		var r frame.Reader
		for rest := bytes.Clone(wire); len(rest) > 0; {
			in := rest[:min(1+rnd.IntN(100_000), len(rest))]
			messages, payload := r.Count(in, math.MaxInt)
			used := 0
			for {
				ev, n, err := r.Next(rules, in[used:])
				if err != nil {
					t.Fatal(err)
				}
				if n == 0 {
					break
				}
				used += n
				if ev.Kind == frame.KindData && ev.Head {
					payload -= ev.FrameLen
					if ev.First {
						messages--
					}
				}
			}
			if messages != 0 || payload != 0 {
				t.Fatalf("announced %d messages and %d bytes more than came", messages, payload)
			}
			rest = rest[used:]
			if used == 0 {
				rest = append([]byte(nil), rest...)
				if len(in) == len(rest) {
					t.Fatal("half a frame at the end")
				}
			}
		}
	}
}

// TestCountStops after so many frames, control frames among them.
func TestCountStops(t *testing.T) {
	var wire []byte
	for range 10 {
		wire = append(wire, frametest.Frame(0x82, "short")...)
		wire = append(wire, frametest.Frame(0x89, "ping")...)
		wire = append(wire, frametest.Frame(0x02, string(make([]byte, 1000)))...)
		wire = append(wire, frametest.Frame(0x80, "end")...)
	}
	for _, c := range []struct {
		frames          int
		messages, bytes int64
	}{{0, 0, 0}, {1, 1, 5}, {2, 1, 5}, {3, 2, 1005}, {4, 2, 1008}, {5, 3, 1013}, {40, 20, 10080}, {100, 20, 10080}} {
		if m, b := new(frame.Reader).Count(wire, c.frames); m != c.messages || b != c.bytes {
			t.Errorf("of %d frames %d messages with %d bytes were counted, want %d and %d", c.frames, m, b, c.messages, c.bytes)
		}
	}
}

// TestLonger: what is compressed and goes on, has several frames or announces more than n bytes is longer.
func TestLonger(t *testing.T) {
	rules := &frame.Rules{Role: frame.Server, Opcodes: frame.AllowBoth, MaxMessage: 1 << 20, MaxFragments: 10, Compressed: true}
	text := func(n int) string { return string(make([]byte, n)) }
	for name, c := range map[string]struct {
		before, in []byte
		want       bool
	}{
		"nothing":                          {nil, nil, false},
		"half a header":                    {nil, frametest.Frame(0xc2, text(5000))[:3], false},
		"n bytes":                          {nil, frametest.Frame(0xc2, text(4096)), false},
		"one more":                         {nil, frametest.Frame(0xc2, text(4097)), true},
		"one more, not compressed":         {nil, frametest.Frame(0x82, text(4097)), false},
		"one more, of which none has come": {nil, frametest.Frame(0xc2, text(4097))[:8], true},
		"the first of several":             {nil, frametest.Frame(0x42, "a"), true},
		"the same, not compressed":         {nil, frametest.Frame(0x02, "a"), false},
		"the last of several":              {frametest.Frame(0x42, "a"), frametest.Frame(0x80, "b"), true},
		"the same, none compressed":        {frametest.Frame(0x02, "a"), frametest.Frame(0x80, "b"), false},
		"a ping":                           {nil, frametest.Frame(0x89, "ping"), false},
		"a ping between frames":            {frametest.Frame(0x42, "a"), frametest.Frame(0x89, "ping"), false},
		"the rest of a frame":              {frametest.Frame(0xc2, text(100))[:50], []byte("rest"), true},
		"the rest of one not compressed":   {frametest.Frame(0x82, text(100))[:50], []byte("rest"), false},
		"behind a message":                 {frametest.Frame(0xc2, text(5000)), frametest.Frame(0xc2, "a"), false},
		"behind what broke the rules":      {[]byte{0xff, 0x80, 1, 2, 3, 4}, frametest.Frame(0xc2, text(5000)), false},
	} {
		var r frame.Reader
		for before := c.before; len(before) > 0; {
			_, n, err := r.Next(rules, before)
			if err != nil {
				break
			}
			before = before[n:]
		}
		if got := r.Longer(c.in, 4096); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestCountOfABrokenStream(t *testing.T) {
	var r frame.Reader
	rules := &frame.Rules{Role: frame.Server, Opcodes: frame.AllowBoth, MaxMessage: 1 << 20, MaxFragments: 10}
	if _, _, err := r.Next(rules, []byte{0xff, 0x80}); err == nil {
		t.Fatal("reserved bits pass")
	}
	for name, in := range map[string][]byte{
		"nothing":              nil,
		"half a header":        {0x82},
		"a length of 2^63":     {0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4},
		"a length of 2^63 - 1": {0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 0x82, 0x80},
	} {
		if m, _ := r.Count(in, 10); m != 0 {
			t.Errorf("%s: %d messages of a stream that has ended", name, m)
		}
		if m, _ := new(frame.Reader).Count(in, 10); m > 1 {
			t.Errorf("%s: %d messages", name, m)
		}
	}
}
