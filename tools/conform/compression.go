package conform

import (
	"fmt"
	"iter"
)

// defaultOffer is what the suite offers where nothing else is said: it can do all that a server may ask of it.
const defaultOffer = "permessage-deflate; client_no_context_takeover; client_max_window_bits"

// shapes are the messages of each subsection: bytes, and octets to a fragment after compression.
var shapes = []struct{ n, fragment int }{
	{16, 0}, {64, 0}, {256, 0}, {kib, 0}, {4 * kib, 0}, {8 * kib, 0}, {16 * kib, 0}, {32 * kib, 0}, {64 * kib, 0}, {128 * kib, 0},
	{8 * kib, 256}, {16 * kib, 256}, {32 * kib, 256}, {64 * kib, 256}, {128 * kib, 256},
	{128 * kib, kib}, {128 * kib, 4 * kib}, {128 * kib, 32 * kib},
}

// payloads is section 12: permessage-deflate with messages of every kind.
func payloads(rounds int) []*Case {
	var all []*Case
	for i := range sources {
		all = append(all, compressing(fmt.Sprintf("12.%d", i+1), &sources[i], rounds, defaultOffer)...)
	}
	return all
}

// offers are those of section 13, its subsections in order (7692 7.1): none, no takeover, window bits, both, and several at once.
var offers = []string{
	defaultOffer,
	defaultOffer + "; server_no_context_takeover",
	defaultOffer + "; server_max_window_bits=9",
	defaultOffer + "; server_max_window_bits=15",
	defaultOffer + "; server_no_context_takeover; server_max_window_bits=9",
	defaultOffer + "; server_no_context_takeover; server_max_window_bits=15",
	defaultOffer + "; server_no_context_takeover; server_max_window_bits=9, " +
		defaultOffer + "; server_no_context_takeover, " + defaultOffer,
}

// parameters is section 13: permessage-deflate with every sort of offer.
func parameters(rounds int) []*Case {
	var all []*Case
	for i, offer := range offers {
		all = append(all, compressing(fmt.Sprintf("13.%d", i+1), &sources[0], rounds, offer)...)
	}
	return all
}

// compressing are the 18 cases of one subsection.
func compressing(id string, from *source, rounds int, offer string) []*Case {
	var all []*Case
	for i, shape := range shapes {
		c := &Case{ID: fmt.Sprintf("%s.%d", id, i+1), Clause: "7692 7", Offer: offer, Bytes: shape.n * rounds, Frames: 1,
			Does: fmt.Sprintf("%d messages of %d bytes of %s", rounds, shape.n, from.name), Parts: cutFrom(from, rounds, shape.n, shape.fragment)}
		if shape.fragment > 0 {
			c.Does += fmt.Sprintf(" in fragments of %d", shape.fragment)
			c.Frames = shape.n/shape.fragment + 1
		}
		all = append(all, c)
	}
	return all
}

// cutFrom is rounds messages of n bytes from one source, each after the echo of the one before.
func cutFrom(from *source, rounds, n, fragment int) iter.Seq[Part] {
	return func(yield func(Part) bool) {
		content, at, op := from.text(), 0, byte(opText)
		if from.binary {
			op = opBinary
		}
		for range rounds {
			var msg []byte
			msg, at = message(content, at, n, from.binary)
			p := echoed(op, msg)
			p.Fragment = fragment
			if !yield(p) {
				return
			}
		}
	}
}
