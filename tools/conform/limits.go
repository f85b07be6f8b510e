package conform

import (
	"bytes"
	"fmt"
	"iter"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// kinds are the two sorts of messages of section 9, in its order, and what they are filled with.
var kinds = []struct {
	op   byte
	name string
	fill []byte
}{
	{opText, "text", []byte("sixteen letters.")},
	{opBinary, "binary", []byte("\x00\xfe\x23\xfa\xf0\x80\xff\x01\xc3\x28\xa0\xa1\xe2\x28\xa1\x7f")},
}

// limits is section 9: long messages, whole and in fragments and pieces, and how long small ones take back and forth.
func limits(rounds int) []*Case {
	var size, cut, pieces, trips []*Case
	for k, kind := range kinds {
		for i, n := range []int{64 * kib, 256 * kib, mib, 4 * mib, 8 * mib, 16 * mib} {
			size = append(size, &Case{ID: fmt.Sprintf("9.%d.%d", k+1, i+1), Clause: "5.6", Bytes: n, Frames: 1,
				Does: fmt.Sprintf("%s message of %d KiB", kind.name, n/kib), Parts: long(kind.op, kind.fill, n, Part{})})
		}
		for i, n := range []int{64, 256, kib, 4 * kib, 16 * kib, 64 * kib, 256 * kib, mib, 4 * mib} {
			cut = append(cut, &Case{ID: fmt.Sprintf("9.%d.%d", k+3, i+1), Clause: "5.4", Bytes: 4 * mib, Frames: 4 * mib / n,
				Does:  fmt.Sprintf("%s message of 4 MiB in fragments of %d bytes", kind.name, n),
				Parts: inFragments(kind.op, kind.fill, 4*mib, n)})
		}
		for i, n := range []int{64, 128, 256, 512, 1024, 2048} {
			pieces = append(pieces, &Case{ID: fmt.Sprintf("9.%d.%d", k+5, i+1), Clause: "5.6", Bytes: mib, Frames: 1,
				Does:  fmt.Sprintf("%s message of 1 MiB%s", kind.name, chopped(n)),
				Parts: long(kind.op, kind.fill, mib, Part{Chop: n})})
		}
		for i, n := range []int{0, 16, 64, 256, kib, 4 * kib} {
			trips = append(trips, &Case{ID: fmt.Sprintf("9.%d.%d", k+7, i+1), Clause: "5.6", Bytes: n * rounds, Frames: 1,
				Does:  fmt.Sprintf("%d %s messages of %d bytes, one at a time", rounds, kind.name, n),
				Parts: repeated(rounds, kind.op, filled(kind.fill, n))})
		}
	}
	return append(append(size, cut...), append(pieces, trips...)...)
}

// filled is n bytes of fill.
func filled(fill []byte, n int) []byte { return bytes.Repeat(fill, n/len(fill)+1)[:n] }

// long is one message of n bytes, sent as p says; it is made when it is played.
func long(op byte, fill []byte, n int, p Part) iter.Seq[Part] {
	return func(yield func(Part) bool) {
		one := echoed(op, filled(fill, n))
		one.Chop = p.Chop
		yield(one)
	}
}

func inFragments(op byte, fill []byte, size, n int) iter.Seq[Part] {
	return func(yield func(Part) bool) {
		payload := filled(fill, size)
		yield(Part{Frames: fragments(op, payload, n), Want: []Event{{op, payload}}})
	}
}

// repeated is rounds times the same message, each after the echo of the one before.
func repeated(rounds int, op byte, payload []byte) iter.Seq[Part] {
	return func(yield func(Part) bool) {
		for range rounds {
			if !yield(echoed(op, payload)) {
				return
			}
		}
	}
}
