package evict

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"
)

// samples are one message of each kind, with no field like another.
func samples() []message {
	return []message{
		{kind: kindAsk, request: 0x1112131415161718, from: 0x2122232425262728, subject: 0x3132333435363738, idlest: true, at: 0x4142434445464748},
		{kind: kindAsk, request: 1, from: 2, subject: 3, at: 4},
		{kind: kindAnswer, request: 1, from: 2, found: true, socket: 3 << 60, at: 4},
		{kind: kindAnswer, request: 1, from: 2},
		{kind: kindEvict, request: 1, from: 2, subject: 3, socket: 4, at: 5},
		{kind: kindEnded, request: 1, from: 2, result: Done},
		{kind: kindEnded, request: 1, from: 2, result: Doubt},
	}
}

func TestMessages(t *testing.T) {
	for _, m := range samples() {
		b := m.append([]byte("before"))[6:]
		if got, err := parse(b); err != nil || got != m {
			t.Errorf("%+v is read as %+v, %v", m, got, err)
		}
		for n := range b {
			if got, err := parse(b[:n]); err == nil {
				t.Errorf("the first %d bytes of %+v are %+v", n, m, got)
			}
		}
		if got, err := parse(append(bytes.Clone(b), 0)); err == nil {
			t.Errorf("with a byte more %+v is %+v", m, got)
		}
	}
}

func TestBadMessages(t *testing.T) {
	change := func(m message, at int, to ...byte) []byte {
		b := m.append(nil)
		copy(b[at:], to)
		return b
	}
	all := samples()
	for what, b := range map[string][]byte{
		"nothing":             nil,
		"another version":     change(all[0], 0, 2),
		"kind 0":              change(all[0], 1, 0),
		"an unknown kind":     change(all[0], 1, 5),
		"another kind's form": change(all[0], 1, byte(kindEvict)),
		"from nobody":         change(all[5], 10, 0, 0, 0, 0, 0, 0, 0, 0),
		"a flag of 2":         change(all[0], 26, 2),
		"found 2":             change(all[2], 18, 2),
		"a negative time":     change(all[4], 34, 0x80),
		"result 0":            change(all[5], 18, 0),
		"an unknown result":   change(all[5], 18, byte(Doubt)+1),
	} {
		if m, err := parse(b); err == nil || m != (message{}) {
			t.Errorf("%s: %+v", what, m)
		}
	}
}

// TestAnyBytes: what is read is written as the same bytes; nothing panics.
func TestAnyBytes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(rand.Uint64(), 1))
	all := samples()
	read := 0
	for range 100_000 {
		b := all[rnd.IntN(len(all))].append(nil)
		for range rnd.IntN(3) {
			b[rnd.IntN(len(b))] = byte(rnd.Uint32())
		}
		m, err := parse(b)
		if err != nil {
			continue
		}
		read++
		if again := m.append(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x is read as %+v, which is %x", b, m, again)
		}
	}
	if read == 0 {
		t.Error("nothing was read")
	}
}

func TestUntil(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	for ms, want := range map[int64]time.Duration{
		now.UnixMilli() + 300: 300 * time.Millisecond, now.UnixMilli(): 0, now.UnixMilli() - 5000: -time.Millisecond,
		now.UnixMilli() + 1<<40: totalMax, 0: -time.Millisecond, 1<<63 - 1: totalMax,
	} {
		if got := until(ms, now); got != want {
			t.Errorf("%d: %v, want %v", ms, got, want)
		}
	}
}
