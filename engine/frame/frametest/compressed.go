package frametest

import (
	"bytes"
	"compress/flate"
	"strings"

	"ticketgate/engine/frame"
)

// A CompressedMessage is a message of a client with which permessage-deflate is negotiated, without context takeover.
type CompressedMessage struct {
	Name    string
	Wire    [][]byte
	Payload string  // of the frames, joined
	Message Message // what it inflates to
}

// "Hello" as RFC 7692 section 7.2.3 has it: in a fixed block, in a final one, stored, in two blocks; and nothing.
const (
	helloFixed  = "\xf2\x48\xcd\xc9\xc9\x07\x00"
	helloFinal  = "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"
	helloStored = "\x00\x05\x00\xfa\xffHello\x00"
	helloBlocks = "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"
	nothing     = "\x00"
)

// stored is s in a stored block, as a sender may send it that does not really compress.
func stored(s string) string {
	return string([]byte{0, byte(len(s)), byte(len(s) >> 8), ^byte(len(s)), ^byte(len(s) >> 8)}) + s + nothing
}

// GoodCompressed is messages that pass, also one behind the other on one connection.
var GoodCompressed = goodCompressed()

func goodCompressed() []CompressedMessage {
	text := func(s string) Message { return Message{frame.Text, s} }
	return []CompressedMessage{
		{"fixed block", wire(Frame(0xc1, helloFixed)), helloFixed, text("Hello")},
		{"binary", wire(Frame(0xc2, helloFixed)), helloFixed, Message{frame.Binary, "Hello"}},
		{"in two fragments", wire(Frame(0x41, helloFixed[:3]), Frame(0x80, helloFixed[3:])), helloFixed, text("Hello")},
		{"a byte a fragment, and empty ones", wire(Frame(0x41, ""), Frame(0x00, "\xf2"), Frame(0x00, ""), Frame(0x00, "\x48"), Frame(0x00, "\xcd"),
			Frame(0x00, "\xc9"), Frame(0x00, "\xc9"), Frame(0x00, "\x07"), Frame(0x00, "\x00"), Frame(0x80, "")), helloFixed, text("Hello")},
		{"ping between", wire(Frame(0x41, helloFixed[:3]), Frame(0x89, "p"), Frame(0x80, helloFixed[3:])), helloFixed, text("Hello")},
		{"no compression", wire(Frame(0xc1, helloStored)), helloStored, text("Hello")},
		{"final block", wire(Frame(0xc1, helloFinal)), helloFinal, text("Hello")},
		{"two blocks", wire(Frame(0xc1, helloBlocks)), helloBlocks, text("Hello")},
		{"empty", wire(Frame(0xc1, nothing)), nothing, text("")},
		{"no bytes", wire(Frame(0xc1, "")), "", text("")},
		{"without RSV1", wire(Frame(0x81, "plain")), "plain", text("plain")},
		{"without RSV1, in fragments", wire(Frame(0x01, "pl"), Frame(0x80, "ain")), "plain", text("plain")},
		{"a character cut by a block's and a fragment's end", wire(Frame(0x41, stored("a\xc3")[:7]), Frame(0x80, "\x00\x01\x00\xfe\xff\xa9\x00")),
			stored("a\xc3")[:7] + "\x00\x01\x00\xfe\xff\xa9\x00", text("aé")},
		{"bytes that are no text when compressed, and are when inflated", wire(Frame(0xc1, stored("\u00e9"))), stored("\u00e9"), text("é")},
	}
}

// BadCompressed breaks a rule of framing although permessage-deflate is negotiated (RFC 7692 section 6, RFC 6455 section 5).
var BadCompressed = badCompressed()

func badCompressed() []Case {
	const protocol = frame.CloseProtocol
	return []Case{
		{"RSV1 on a continuation", wire(Frame(0x41, helloFixed[:3]), Frame(0xc0, helloFixed[3:])), protocol},
		{"RSV1 on a continuation of a plain message", wire(Frame(0x01, "a"), Frame(0xc0, "b")), protocol},
		{"RSV1 on a continuation of nothing", wire(Frame(0xc0, helloFixed)), protocol},
		{"RSV1 on a ping", wire(Frame(0xc9, "")), protocol},
		{"RSV1 on a pong", wire(Frame(0xca, "")), protocol},
		{"RSV1 on a close", wire(Frame(0xc8, "")), protocol},
		{"RSV1 on a ping inside a message", wire(Frame(0x41, helloFixed[:3]), Frame(0xc9, "")), protocol},
		{"RSV1 on a message inside a message", wire(Frame(0x41, helloFixed[:3]), Frame(0xc1, helloFixed)), protocol},
		{"RSV1 on a reserved opcode", wire(Frame(0xc3, helloFixed)), protocol},
		{"RSV1 and RSV2", wire(Frame(0xe1, helloFixed)), protocol},
		{"RSV1 and RSV3", wire(Frame(0xd1, helloFixed)), protocol},
		{"RSV2", wire(Frame(0xa1, helloFixed)), protocol},
		{"RSV3", wire(Frame(0x92, helloFixed)), protocol},
		{"all reserved bits", wire(Frame(0xf2, helloFixed)), protocol},
		{"unmasked", wire([]byte("\xc1\x07" + helloFixed)), protocol},
		{"bad text without RSV1", wire(Frame(0x81, "\xff")), frame.CloseInvalid},
		{"announces more compressed bytes than a message may have", wire(long64(0xc2, MaxMessage+1)), frame.CloseTooBig},
	}
}

// BadDeflate is well-framed messages whose compressed bytes are broken, or inflate to bad text or to more than MaxMessage.
var BadDeflate = badDeflate()

func badDeflate() []Case {
	const invalid, tooBig = frame.CloseInvalid, frame.CloseTooBig
	bomb := Bomb(1 << 20)
	return []Case{
		{"reserved block type", wire(Frame(0xc2, "\x06")), invalid},
		{"reserved block type in an unfinished frame", wire(append(header(0xc2, 100), masked("\x06")...)), invalid},
		{"reserved block type in a fragment", wire(Frame(0x42, "\x06")), invalid},
		{"stored length that is none", wire(Frame(0xc2, "\x00\x05\x00\xfb\xffHello\x00")), invalid},
		{"distance before the message", wire(Frame(0xc2, "\x4a\x04\x00\x00")), invalid},
		{"a match with the message before it", wire(Frame(0xc2, helloFixed), Frame(0xc2, "\xf2\x00\x11\x00\x00")), invalid}, // 7.2.3.2: context takeover
		{"block without an end", wire(Frame(0xc2, helloFixed[:5])), invalid},
		{"block without an end, in fragments", wire(Frame(0x42, helloFixed[:3]), Frame(0x80, helloFixed[3:5])), invalid},
		{"stored block that is not whole", wire(Frame(0xc2, "\x00\x05\x00\xfa\xffHell")), invalid},
		{"plain text with RSV1", wire(Frame(0xc1, "plain")), invalid},
		{"bad text", wire(Frame(0xc1, stored("\xff"))), invalid},
		{"bad text in a fragment", wire(Frame(0x41, stored("ok\xff"))), invalid},
		{"half a character at the end", wire(Frame(0xc1, stored("a\xc3"))), invalid},
		{"half a character goes on wrongly in the next fragment", wire(Frame(0x41, stored("a\xc3")), Frame(0x00, stored("x"))), invalid},
		{"one byte over the limit", wire(Frame(0xc2, Bomb(MaxMessage+1))), tooBig},
		{"1 MiB", wire(Frame(0xc2, bomb)), tooBig},
		{"1 MiB in fragments", wire(Frame(0x42, bomb[:50]), Frame(0x00, bomb[50:90]), Frame(0x00, bomb[90:])), tooBig},
		{"1 MiB in an unfinished frame", wire(append(header(0xc2, 60000), masked(bomb)...)), tooBig},
	}
}

// Bomb is n zeros as a message's compressed bytes, about 1 to 1,000 where n is large.
func Bomb(n int) string {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		panic(err) // the level is a constant
	}
	_, _ = w.Write(make([]byte, n)) // a bytes.Buffer takes everything
	_ = w.Flush()
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

// EmptyBlocks is an empty message as n DEFLATE blocks with codes of their own in which nothing is, of 90 bits each: the most work
// for the fewest bytes (RFC 1951 section 3.2.7).
func EmptyBlocks(n int) string {
	var b []byte
	var bits int
	put := func(v, n int) {
		for i := range n {
			if bits%8 == 0 {
				b = append(b, 0)
			}
			b[bits/8] |= byte(v>>i&1) << (bits % 8)
			bits++
		}
	}
	for range n {
		put(2<<1, 3)                            // not the last one, codes of its own
		put(0, 10)                              // lengths of 257 literals and one distance
		put(18-4, 4)                            // in a code of 18 lengths, of which
		put(1<<6|1<<51, 3*18)                   // 18 (zeros) and 1 have one bit
		for _, zeros := range []int{138, 118} { // literals that are not there
			put(1|(zeros-11)<<1, 8)
		}
		put(0, 3) // the end's length 1, the distance's, and the end
	}
	put(0, 3) // the stored block whose rest senders take off
	return string(b)
}
