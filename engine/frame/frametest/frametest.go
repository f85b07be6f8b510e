// Package frametest is hand-made traffic of WebSocket clients, bad and good, for tests of the codec and of whole
// gateways. The verdicts hold for a server whose streams take text and binary, MaxMessage and MaxFragments.
package frametest

import (
	"encoding/binary"
	"fmt"
	"strings"

	"ticketgate/engine/frame"
)

// What the tables assume of the receiver.
const (
	MaxMessage   = 64 << 10
	MaxFragments = 128
)

// Case is what a client sends, one write each, and the code that it must be closed with.
type Case struct {
	Name string
	Wire [][]byte
	Code frame.Code
}

// Message is a whole message.
type Message struct {
	Op      frame.Op
	Payload string
}

// Exchange is what a client may send, what messages and pings it means, and the close code at its end, 0 if its close
// frame is empty. Every exchange ends with a close frame.
type Exchange struct {
	Name     string
	Wire     [][]byte
	Messages []Message
	Pings    []string
	Code     frame.Code
}

// key masks every frame of the tables: no two of its bytes are equal, so a wrong offset shows.
var key = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// Frame gives a whole client frame. b0 is the first byte: FIN 0x80, RSV 0x70, opcode.
func Frame(b0 byte, payload string) []byte {
	b := header(b0, len(payload))
	at := len(b)
	b = append(b, payload...)
	frame.Mask(b[at:], key, 0)
	return b
}

// header gives a masked header with the shortest length form, made without the codec under test.
func header(b0 byte, n int) []byte {
	b := []byte{b0}
	switch {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	return append(b, key[:]...)
}

// long16 and long64 announce n in a form that may be longer than needed.
func long16(b0 byte, n uint16) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{b0, 0x80 | 126}, n), key[:]...)
}

func long64(b0 byte, n uint64) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{b0, 0x80 | 127}, n), key[:]...)
}

func closing(code uint16, reason string) []byte {
	return Frame(0x88, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}

func wire(frames ...[]byte) [][]byte { return frames }

// join makes one write of several frames.
func join(frames ...[]byte) []byte {
	var b []byte
	for _, f := range frames {
		b = append(b, f...)
	}
	return b
}

// Bad is at least 120 cases, each of which breaks one rule with its last frame.
var Bad = bad()

// Good is exchanges that stay inside the rules and the limits, at their edges.
var Good = good()

func bad() []Case {
	var t []Case
	t = append(t, badBits()...)
	t = append(t, badLengths()...)
	t = append(t, badSequences()...)
	t = append(t, badCloses()...)
	t = append(t, badTexts()...)
	return append(t, badSizes()...)
}

// badBits: the first two bytes (5.1, 5.2, 5.5).
func badBits() (t []Case) {
	const protocol = frame.CloseProtocol
	names := []struct {
		op   byte
		name string
	}{{0x1, "text"}, {0x2, "binary"}, {0x8, "close"}, {0x9, "ping"}, {0xa, "pong"}}
	for _, o := range names {
		t = append(t,
			Case{"unmasked empty " + o.name, wire([]byte{0x80 | o.op, 0}), protocol},
			Case{"unmasked " + o.name, wire([]byte{0x80 | o.op, 2, 0x03, 0xe8}), protocol},
			Case{"RSV1 on " + o.name, wire(Frame(0xc0|o.op, "")), protocol},
			Case{"RSV2 on " + o.name, wire(Frame(0xa0|o.op, "")), protocol},
			Case{"RSV3 on " + o.name, wire(Frame(0x90|o.op, "")), protocol},
			Case{"all reserved bits on " + o.name, wire(Frame(0xf0|o.op, "hi")), protocol},
		)
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		t = append(t,
			Case{fmt.Sprintf("reserved opcode %d", op), wire(Frame(0x80|op, "")), protocol},
			Case{fmt.Sprintf("reserved opcode %d with payload, not final", op), wire(Frame(op, "data")), protocol},
		)
	}
	for _, o := range names[2:] {
		t = append(t,
			Case{o.name + " not final", wire(Frame(o.op, "")), protocol},
			Case{o.name + " of 126 bytes", wire(Frame(0x80|o.op, strings.Repeat("\x03", 126))), protocol},
			Case{o.name + " that announces 126 bytes and stops", wire([]byte{0x80 | o.op, 0x80 | 126}), protocol},
			Case{o.name + " that announces 64 KiB in eight bytes", wire(long64(0x80|o.op, 1<<16)), protocol},
			Case{o.name + " with a long form of 5", wire(long16(0x80|o.op, 5)), protocol},
			Case{o.name + " not final, inside a message", wire(Frame(0x01, "a"), Frame(o.op, "b")), protocol},
		)
	}
	return append(t,
		Case{"unmasked second frame", wire(Frame(0x82, "ok"), []byte{0x82, 1, 'x'}), protocol},
		Case{"unmasked continuation", wire(Frame(0x02, "ok"), []byte{0x80, 1, 'x'}), protocol},
		Case{"unmasked ping between fragments", wire(Frame(0x02, "ok"), []byte{0x89, 0}), protocol},
		Case{"RSV1 on a continuation", wire(Frame(0x01, "a"), Frame(0xc0, "b")), protocol},
		Case{"RSV1 on a ping between fragments", wire(Frame(0x01, "a"), Frame(0xc9, "")), protocol},
		Case{"reserved opcode inside a message", wire(Frame(0x01, "a"), Frame(0x83, "b")), protocol},
		Case{"an HTTP request in place of a frame", wire([]byte("GET / HTTP/1.1\r\n\r\n")), protocol},
		Case{"a TLS hello in place of a frame", wire([]byte{0x16, 0x03, 0x01, 0x02, 0x00, 0x01}), protocol},
	)
}

// badLengths: a length has one form, and 63 bits (5.2).
func badLengths() (t []Case) {
	for _, op := range []byte{0x81, 0x82} {
		for _, n := range []uint16{0, 1, 5, 125} {
			t = append(t, Case{fmt.Sprintf("opcode %d: length %d in two bytes", op&15, n), wire(long16(op, n)), frame.CloseProtocol})
		}
		for _, n := range []uint64{0, 125, 126, 65535} {
			t = append(t, Case{fmt.Sprintf("opcode %d: length %d in eight bytes", op&15, n), wire(long64(op, n)), frame.CloseProtocol})
		}
		for _, n := range []uint64{1 << 63, 1<<63 | 5, 1<<64 - 1} {
			t = append(t, Case{fmt.Sprintf("opcode %d: length %#x", op&15, n), wire(long64(op, n)), frame.CloseProtocol})
		}
	}
	return append(t,
		Case{"length 5 in two bytes, cut inside", wire(long16(0x82, 5)[:3], long16(0x82, 5)[3:]), frame.CloseProtocol},
		Case{"length form of a continuation", wire(Frame(0x02, "a"), long16(0x80, 1)), frame.CloseProtocol},
	)
}

// badSequences: fragments (5.4).
func badSequences() []Case {
	const protocol = frame.CloseProtocol
	return []Case{
		{"continuation first", wire(Frame(0x80, "x")), protocol},
		{"continuation first, not final", wire(Frame(0x00, "x")), protocol},
		{"empty continuation first", wire(Frame(0x80, "")), protocol},
		{"continuation behind a whole message", wire(Frame(0x81, "a"), Frame(0x80, "b")), protocol},
		{"continuation behind the last fragment", wire(Frame(0x01, "a"), Frame(0x80, "b"), Frame(0x80, "c")), protocol},
		{"continuation behind a ping", wire(Frame(0x89, "a"), Frame(0x80, "b")), protocol},
		{"continuation in the same write as a whole message", wire(join(Frame(0x82, "a"), Frame(0x80, "b"))), protocol},
		{"text inside text", wire(Frame(0x01, "a"), Frame(0x81, "b")), protocol},
		{"binary inside text", wire(Frame(0x01, "a"), Frame(0x82, "b")), protocol},
		{"text inside binary", wire(Frame(0x02, "a"), Frame(0x81, "b")), protocol},
		{"binary inside binary, not final", wire(Frame(0x02, "a"), Frame(0x02, "b")), protocol},
		{"text behind a continuation", wire(Frame(0x02, "a"), Frame(0x00, "b"), Frame(0x81, "c")), protocol},
		{"text behind a ping between fragments", wire(Frame(0x02, "a"), Frame(0x89, ""), Frame(0x81, "c")), protocol},
		{"empty text inside empty text", wire(Frame(0x01, ""), Frame(0x81, "")), protocol},
	}
}

// badCloses: codes and reasons (5.5.1, 7.4).
func badCloses() (t []Case) {
	for _, code := range []uint16{0, 1, 500, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 0xffff} {
		t = append(t, Case{fmt.Sprintf("close code %d", code), wire(closing(code, "")), frame.CloseProtocol})
	}
	for _, reason := range []string{"\xff", "\x80", "ok\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\xf5abc"} {
		t = append(t, Case{fmt.Sprintf("close reason %q", reason), wire(closing(1000, reason)), frame.CloseInvalid})
	}
	return append(t,
		Case{"close body of one byte", wire(Frame(0x88, "\x03")), frame.CloseProtocol},
		Case{"close body of one byte, of text", wire(Frame(0x88, "A")), frame.CloseProtocol},
		Case{"close code 1005 with a reason", wire(closing(1005, "bye")), frame.CloseProtocol},
		Case{"bad close code and bad reason", wire(closing(1006, "\xff")), frame.CloseProtocol},
		Case{"bad close inside a message", wire(Frame(0x01, "a"), closing(999, "")), frame.CloseProtocol},
		Case{"close reason of 121 good bytes and half a character", wire(closing(4000, strings.Repeat("r", 121)+"\xc3")), frame.CloseInvalid},
	)
}

// badTexts: UTF-8 (8.1, RFC 3629 section 4).
func badTexts() (t []Case) {
	const invalid = frame.CloseInvalid
	for _, s := range []string{
		"\x80", "\xbf", "\xff", "\xfe", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf",
		"\xed\xa0\x80", "\xed\xbf\xbf", "\xed\xa0\xbd\xed\xb8\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xf8\x88\x80\x80\x80",
		"\xc3", "\xe2\x82", "\xf0\x9f\x98", "\xc3(", "\xe2\x28\xa1", "\xe2\x82\x28", "\xf0\x28\x8c\xbc", "\xf0\x90\x28\xbc", "\xf0\x28\x8c\x28",
		"fine\xce\xbaend\xff", strings.Repeat("a", 4096) + "\xff", "\x80" + strings.Repeat("a", 4096), strings.Repeat("é", 300) + "\xc3",
	} {
		name := s
		if len(name) > 16 {
			name = name[:8] + "..." + name[len(name)-4:]
		}
		t = append(t, Case{fmt.Sprintf("text %q", name), wire(Frame(0x81, s)), invalid})
	}
	euro := "\xe2\x82\xac"
	head := header(0x81, 1000)
	return append(t,
		Case{"character ends with its message, fragmented", wire(Frame(0x01, euro[:1]), Frame(0x80, euro[1:2])), invalid},
		Case{"character cut by a fragment goes on wrongly", wire(Frame(0x01, euro[:2]), Frame(0x80, "x")), invalid},
		Case{"character cut by a ping and a fragment goes on wrongly", wire(Frame(0x01, euro[:1]), Frame(0x89, "p"), Frame(0x80, euro[:1])), invalid},
		Case{"overlong form over fragments", wire(Frame(0x01, "\xe0"), Frame(0x00, "\x80")), invalid},
		Case{"surrogate over fragments", wire(Frame(0x01, "\xed"), Frame(0x00, "\xa0")), invalid},
		Case{"above U+10FFFF over fragments", wire(Frame(0x01, "\xf4"), Frame(0x00, "\x90")), invalid},
		Case{"character cut by two fragments goes on wrongly", wire(Frame(0x01, "\xf0"), Frame(0x00, "\x9f"), Frame(0x80, "x")), invalid},
		Case{"bad byte in the second fragment", wire(Frame(0x01, "ok"), Frame(0x00, "no\xff")), invalid},
		Case{"bad byte behind an empty fragment", wire(Frame(0x01, ""), Frame(0x80, "\xff")), invalid},
		Case{"empty end behind half a character", wire(Frame(0x01, "a\xc3"), Frame(0x80, "")), invalid},
		Case{"bad byte early in an unfinished frame", wire(join(head, masked("ab\xffcd"))), invalid},
		Case{"second message bad, the first ended well", wire(Frame(0x81, euro), Frame(0x81, euro[1:])), invalid},
	)
}

// masked masks s as the beginning of a payload.
func masked(s string) []byte {
	b := []byte(s)
	frame.Mask(b, key, 0)
	return b
}

// badSizes: our limits, judged on what is announced.
func badSizes() (t []Case) {
	const tooBig = frame.CloseTooBig
	for _, n := range []uint64{MaxMessage + 1, 1 << 31, 1<<32 + 5, 1 << 62, 1<<63 - 1} {
		t = append(t,
			Case{fmt.Sprintf("announces %#x bytes", n), wire(long64(0x82, n)), tooBig},
			Case{fmt.Sprintf("announces %#x bytes and sends one", n), wire(append(long64(0x81, n), 'x')), tooBig},
			Case{fmt.Sprintf("announces %#x bytes in a second fragment", n), wire(Frame(0x02, "a"), long64(0x80, n)), tooBig},
		)
	}
	kib := strings.Repeat("k", 1024)
	sum := wire(Frame(0x01, kib))
	for range 63 {
		sum = append(sum, Frame(0x00, kib))
	}
	many := wire(Frame(0x02, "1"))
	empty := wire(Frame(0x02, ""))
	for range MaxFragments - 1 {
		many = append(many, Frame(0x00, "n"))
		empty = append(empty, Frame(0x00, ""))
	}
	return append(t,
		Case{"64 KiB in fragments and one byte", append(sum[:64:64], Frame(0x80, "x")), tooBig},
		Case{"64 KiB in fragments and announces 2^63-1", append(sum[:64:64], long64(0x80, 1<<63-1)), tooBig},
		Case{"129 fragments", append(many[:MaxFragments:MaxFragments], Frame(0x80, "z")), frame.ClosePolicy},
		Case{"129 empty fragments", append(empty[:MaxFragments:MaxFragments], Frame(0x00, "")), frame.ClosePolicy},
	)
}

func good() []Exchange {
	const euro = "\xe2\x82\xac"
	text := func(s string) Message { return Message{frame.Text, s} }
	binary := func(s string) Message { return Message{frame.Binary, s} }
	end := closing(1000, "")
	big := strings.Repeat("0123456789abcdef", MaxMessage/16)
	most := wire(Frame(0x02, ""))
	for range MaxFragments - 2 {
		most = append(most, Frame(0x00, "f"))
	}
	t := []Exchange{
		{Name: "nothing", Wire: wire(Frame(0x88, ""))},
		{Name: "empty messages", Wire: wire(Frame(0x81, ""), Frame(0x82, ""), end), Messages: []Message{text(""), binary("")}, Code: 1000},
		{Name: "a text", Wire: wire(Frame(0x81, "hello"), end), Messages: []Message{text("hello")}, Code: 1000},
		{Name: "all in one write", Wire: wire(join(Frame(0x81, "a"), Frame(0x89, "p"), Frame(0x82, "b"), end)),
			Messages: []Message{text("a"), binary("b")}, Pings: []string{"p"}, Code: 1000},
		{Name: "fragments", Wire: wire(Frame(0x01, "a"), Frame(0x00, "b"), Frame(0x80, "c"), end), Messages: []Message{text("abc")}, Code: 1000},
		{Name: "empty fragments", Wire: wire(Frame(0x01, ""), Frame(0x00, ""), Frame(0x80, ""), end), Messages: []Message{text("")}, Code: 1000},
		{Name: "pings between fragments", Wire: wire(Frame(0x02, "a"), Frame(0x89, "1"), Frame(0x00, "b"), Frame(0x89, "2"), Frame(0x80, "c"), end),
			Messages: []Message{binary("abc")}, Pings: []string{"1", "2"}, Code: 1000},
		{Name: "characters cut by fragments", Wire: wire(Frame(0x01, euro[:1]), Frame(0x00, euro[1:2]), Frame(0x80, euro[2:]+"!"), end),
			Messages: []Message{text(euro + "!")}, Code: 1000},
		{Name: "the edges of UTF-8", Wire: wire(Frame(0x81, "\x00\x7f\u0080\u07ff\u0800\ud7ff\ue000\ufffd\uffff\U00010000\U0010ffff"), end),
			Messages: []Message{text("\x00\x7f\u0080\u07ff\u0800\ud7ff\ue000\ufffd\uffff\U00010000\U0010ffff")}, Code: 1000},
		{Name: "any bytes in binary", Wire: wire(Frame(0x82, "\xff\xfe\x00\xc0"), end), Messages: []Message{binary("\xff\xfe\x00\xc0")}, Code: 1000},
		{Name: "a ping and an unasked pong of 125 bytes", Wire: wire(Frame(0x89, big[:125]), Frame(0x8a, big[:125]), end), Pings: []string{big[:125]}, Code: 1000},
		{Name: "the longest message", Wire: wire(Frame(0x82, big), end), Messages: []Message{binary(big)}, Code: 1000},
		{Name: "the longest message in two fragments", Wire: wire(Frame(0x01, big[:1]), Frame(0x80, big[1:]), end), Messages: []Message{text(big)}, Code: 1000},
		{Name: "the most fragments", Wire: append(most, Frame(0x80, "f"), end), Messages: []Message{binary(strings.Repeat("f", MaxFragments-1))}, Code: 1000},
		{Name: "closed inside a message", Wire: wire(Frame(0x01, "a"), closing(1001, "gone")), Code: 1001},
		{Name: "the longest close reason", Wire: wire(closing(4999, big[:123])), Code: 4999},
	}
	for _, n := range []int{125, 126, 127, 65535, 65536} {
		t = append(t, Exchange{Name: fmt.Sprintf("%d bytes", n), Wire: wire(Frame(0x82, big[:n]), end), Messages: []Message{binary(big[:n])}, Code: 1000})
	}
	for _, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		t = append(t, Exchange{Name: fmt.Sprintf("close code %d", code), Wire: wire(closing(code, "bye "+euro)), Code: frame.Code(code)})
	}
	return t
}
