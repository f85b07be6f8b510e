// Package deflate is permessage-deflate (RFC 7692) without context takeover in either direction, as pure functions over
// bytes: it opens no socket and reads no clock, and a socket costs nothing while none of its messages is under way.
//
//	offer.go   Offer: Sec-WebSocket-Extensions to the answer in the 101
//	inflate.go Inflater: a message's compressed bytes, in any pieces, to its own; bounded while it inflates
//	table.go   the Huffman tables of that
//	shrink.go  Deflater: a whole message to its compressed bytes, or "send it plain"
//
// Compressing is klauspost/compress. Inflating is ours: the readers of klauspost and of the standard library wait for
// their input, and keep up to 32 KiB of output to themselves, so that neither a limit nor a bad byte would be seen when it
// comes. Here the message itself is the window: all of it is at hand, since no message refers to the one before.
package deflate

import "errors"

// Sizes of messages in bytes that are worth compressing; others are sent plain.
const (
	Min = 512       // below it the headers eat up what is won
	Max = 256 << 10 // above it the loop would stand still too long: 256 KiB are about 1 ms
)

// Bounds on what a message may inflate to, beside the caller's limit in bytes.
const (
	RatioFrom    = 256 << 10 // bytes of a message that may be of any ratio
	RatioMost    = 1032      // to one: DEFLATE cannot do more, so as a bound it is none
	RatioDefault = 256       // to one: no text or picture comes near it but an empty one
	ratioStep    = 4 << 10   // the ratio is looked at every so many bytes
)

// A block with codes of its own that gives nothing takes 11 bytes, and 2.5 us for its tables: 30 ms for 128 KiB of them. So it must
// give something, which no compressor fails to do: such blocks are there to save bytes.
const (
	blocksFrom = 64 // blocks with codes of their own that a message may have, whatever they give
	blockLeast = 32 // bytes that a message must have given for each one more: who flushes after each 64 has as many
)

// What a block costs beside its bytes, in bytes of text that take as long to inflate: 1.1 us a KiB.
const (
	blockWork  = 32
	tablesWork = 3 << 10
)

// Errors of Inflate. They end the message, and say nothing of what was received.
var (
	ErrTooBig = errors.New("deflate: message inflates to more than allowed, or by more blocks")
	ErrStream = errors.New("deflate: broken stream")
)

// ErrOffer says that Sec-WebSocket-Extensions is not of the form that RFC 6455 section 9.1 gives it: such a handshake fails.
var ErrOffer = errors.New("deflate: malformed list of extensions")
