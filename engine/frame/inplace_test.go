package frame_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"ticketgate/engine/frame"
	"ticketgate/engine/frame/frametest"
)

func TestInPlace(t *testing.T) {
	for _, size := range []int{1, 125, 126, 65535, 65536} {
		text := strings.Repeat("x", size)
		wire := frametest.Frame(0x82, text)
		before := append([]byte("before"), wire...)
		in := before[6:]
		var r frame.Reader
		ev, n, err := r.Next(&frame.Rules{Role: frame.Server, Opcodes: frame.AllowBoth, MaxMessage: 1 << 20, MaxFragments: 1}, in)
		if err != nil || n != len(wire) {
			t.Fatal(n, err)
		}
		h := frame.Header{Fin: true, Op: frame.Binary, Len: int64(size)}
		got, ok := ev.InPlace(h)
		if want := append(frame.Append(nil, h), text...); !ok || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: ok %v, %d bytes in place", size, ok, len(got))
		}
		if string(before[:6]) != "before" {
			t.Errorf("%d bytes: wrote in front of the frame: %q", size, before[:6])
		}
	}
}

func TestInPlaceWithoutRoom(t *testing.T) {
	rules := &frame.Rules{Role: frame.Client, Opcodes: frame.AllowBoth, MaxMessage: 1 << 20, MaxFragments: 1}
	h := frame.Header{Fin: true, Op: frame.Binary, Len: 200}
	for name, c := range map[string]struct {
		wire []byte
		cut  int // the part looked at begins here
		h    frame.Header
	}{
		"an empty payload":    {[]byte{0x82, 0}, 0, frame.Header{Fin: true, Op: frame.Binary}},
		"a longer header":     {append([]byte{0x82, 5}, "short"...), 0, h},
		"a part of a payload": {append([]byte{0x82, 126, 0, 200}, make([]byte, 200)...), 104, h},
		"a mask we have not":  {append([]byte{0x82, 5}, "short"...), 0, frame.Header{Fin: true, Op: frame.Binary, Masked: true, Len: 5}},
	} {
		var r frame.Reader
		if c.cut > 0 {
			if _, n, err := r.Next(rules, c.wire[:c.cut]); n != c.cut || err != nil {
				t.Fatal(name, n, err)
			}
		}
		ev, _, err := r.Next(rules, c.wire[c.cut:])
		if err != nil {
			t.Fatal(name, err)
		}
		if _, ok := ev.InPlace(c.h); ok {
			t.Errorf("%s: in place", name)
		}
	}
}

// TestMaskIsTheOracles: short ones are masked by our own loop.
func TestMaskIsTheOracles(t *testing.T) {
	key := [4]byte{1, 0x80, 0xff, 7}
	for n := range 200 {
		for off := range 5 {
			a := []byte(strings.Repeat("abcdefg", 30)[:n])
			b := bytes.Clone(a)
			frame.Mask(a, key, off)
			ws.Cipher(b, key, off)
			if !bytes.Equal(a, b) {
				t.Fatalf("%d bytes from %d: %x, want %x", n, off, a, b)
			}
		}
	}
}

// TestPutHeadIsAppend for every form of a server's header.
func TestPutHeadIsAppend(t *testing.T) {
	for _, n := range []int64{0, 1, 125, 126, 65535, 65536, 1 << 40} {
		for _, fin := range []bool{true, false} {
			h := frame.Header{Fin: fin, Rsv: 4, Op: frame.Text, Len: n}
			var dst [frame.MaxHeader]byte
			got := dst[:frame.PutHead(dst[:], &h)]
			if want := frame.Append(nil, h); !bytes.Equal(got, want) || len(got) != frame.HeaderLen(h) {
				t.Errorf("%+v: %x, want %x", h, got, want)
			}
		}
	}
}
