package frame_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"unicode/utf8"

	"ticketgate/engine/frame"
)

// oracle reads the whole of b in the plainest way, byte by byte and with copies, and tells what a peer's transcript must
// be under defaults.
func oracle(b []byte) string {
	out := ""
	say := func(format string, args ...any) { out += fmt.Sprintf(format, args...) + "\n" }
	end := func(err error) string { return out + fmt.Sprint(err) }
	var message []byte
	open, isText, frames := false, false, 0
	var declared uint64
	for {
		if len(b) < 2 {
			return end(nil)
		}
		fin, rsv, op, masked, short := b[0] >= 128, b[0]/16%8, b[0]%16, b[1] >= 128, b[1]%128
		switch {
		case rsv > 0:
			return end(frame.ErrReservedBits)
		case op > 2 && op < 8 || op > 10:
			return end(frame.ErrOpcode)
		case !masked:
			return end(frame.ErrUnmasked)
		case op >= 8 && (short > 125 || !fin):
			return end(frame.ErrControl)
		case op == 0 && !open:
			return end(frame.ErrNoMessage)
		case op > 0 && op < 3 && open:
			return end(frame.ErrInterrupted)
		}
		at, size := 2, uint64(short)
		if more := map[byte]int{126: 2, 127: 8}[short]; more > 0 {
			if len(b) < 2+more {
				return end(nil)
			}
			size, at = 0, 2+more
			for _, c := range b[2:at] {
				size = size*256 + uint64(c)
			}
			switch {
			case size >= 1<<63:
				return end(frame.ErrTopBit)
			case more == 2 && size < 126, more == 8 && size < 65536:
				return end(frame.ErrMinimal)
			}
		}
		if len(b) < at+4 {
			return end(nil)
		}
		mask := b[at : at+4]
		b = b[at+4:]
		whole := uint64(len(b)) >= size
		if op >= 8 && !whole {
			return end(nil)
		}
		if op == 1 || op == 2 {
			message, isText, frames, declared = nil, op == 1, 0, 0
		}
		if op < 8 {
			if declared+size > uint64(defaults.MaxMessage) {
				return end(frame.ErrTooBig)
			}
			declared += size
			if frames++; frames > defaults.MaxFragments {
				return end(frame.ErrFragments)
			}
			open = !fin
		}
		payload := []byte{}
		for i, c := range b[:min(size, uint64(len(b)))] {
			payload = append(payload, c^mask[i%4])
		}
		if op < 8 {
			message = append(message, payload...)
			if isText && (!canBegin(message) || whole && fin && !utf8.Valid(message)) {
				return end(frame.ErrText)
			}
		}
		if !whole {
			return end(nil)
		}
		b = b[size:]
		switch op {
		case 9:
			say("ping %q", payload)
		case 10:
			say("pong %q", payload)
		case 8:
			code := 0
			switch {
			case size == 1:
				return end(frame.ErrCloseBody)
			case size >= 2:
				code = int(payload[0])*256 + int(payload[1])
				payload = payload[2:]
				if code < 1000 || code > 4999 || code > 1003 && code < 1007 || code > 1014 && code < 3000 {
					return end(frame.ErrCloseCode)
				}
				if !utf8.Valid(payload) {
					return end(frame.ErrCloseReason)
				}
			}
			say("close %d %q", code, payload)
			if len(b) > 0 {
				return end(frame.ErrAfterClose)
			}
			return end(nil)
		default:
			kind := 2
			if isText {
				kind = 1
			}
			say("op %d fin %v %q", kind, fin, payload)
		}
	}
}

// canBegin reports whether some valid UTF-8 text begins with b, by trying ends.
func canBegin(b []byte) bool {
	if utf8.Valid(b) {
		return true
	}
	// The two edges of every range that RFC 3629 section 4 gives a second byte, and one of the later ones.
	for _, second := range []byte{0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf} {
		for _, end := range [][]byte{{second}, {second, 0x80}, {second, 0x80, 0x80}} {
			if utf8.Valid(append(append([]byte{}, b...), end...)) {
				return true
			}
		}
	}
	return false
}

// FuzzReader: any bytes tell what the oracle says, however they are cut.
func FuzzReader(f *testing.F) {
	for i, c := range corpus() {
		f.Add(c, uint64(i))
	}
	f.Fuzz(func(t *testing.T, wire []byte, seed uint64) {
		once := &peer{rules: &defaults}
		once.feed(t, wire)
		if want := oracle(wire); once.transcript() != want {
			t.Fatalf("%x tells\n%s\nthe oracle says\n%s", wire, once.transcript(), want)
		}
		checkSplits(t, &defaults, wire, rand.New(rand.NewPCG(seed, 0)))
		compressed := defaults
		compressed.Compressed = true
		checkSplits(t, &compressed, wire, rand.New(rand.NewPCG(seed, 1)))
	})
}
