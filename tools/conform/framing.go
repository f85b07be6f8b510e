package conform

import (
	"bytes"
	"fmt"
	"slices"
)

// hello is the small text that many cases send.
const hello = "Hello, world!"

// raw is a small payload that is no UTF-8.
const raw = "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"

// echoed is a part that sends one whole message and wants it back.
func echoed(op byte, payload []byte) Part {
	return Part{Frames: []Frame{{Fin: true, Op: op, Payload: payload}}, Want: []Event{{op, payload}}}
}

// lengths are where the form of a frame's length changes (5.2), and a long one in pieces.
var lengths = []struct{ n, chop int }{{0, 0}, {125, 0}, {126, 0}, {127, 0}, {128, 0}, {65535, 0}, {65536, 0}, {65536, 997}}

// framing is section 1: messages of one frame, of every form of length.
func framing() []*Case {
	var all []*Case
	for i, kind := range []struct {
		op   byte
		name string
		fill string
	}{{opText, "text", "*"}, {opBinary, "binary", "\xfe"}} {
		for j, l := range lengths {
			p := echoed(kind.op, bytes.Repeat([]byte(kind.fill), l.n))
			p.Chop = l.chop
			all = append(all, &Case{
				ID: fmt.Sprintf("1.%d.%d", i+1, j+1), Clause: "5.2", Bytes: l.n, Frames: 1, Parts: parts(p),
				Does: fmt.Sprintf("%s message of %d bytes%s", kind.name, l.n, chopped(l.chop)),
			})
		}
	}
	return all
}

// chopped says in words how a part is cut.
func chopped(chop int) string {
	if chop == 0 {
		return ""
	}
	return fmt.Sprintf(", %d octets a write", chop)
}

// pings is section 2.
func pings() []*Case {
	long := string(bytes.Repeat([]byte{0xfe}, 125))
	answered := func(payload string) Part {
		return Part{Frames: []Frame{frame(opPing, payload)}, Want: []Event{event(opPong, payload)}}
	}
	slow := answered(long)
	slow.Chop = 1
	ten, tenSlow := tenPings(0), tenPings(1)
	return []*Case{
		{ID: "2.1", Clause: "5.5.2", Does: "empty ping", Parts: parts(answered(""))},
		{ID: "2.2", Clause: "5.5.3", Does: "ping with text", Parts: parts(answered(hello))},
		{ID: "2.3", Clause: "5.5.3", Does: "ping whose payload is no UTF-8", Parts: parts(answered(raw))},
		{ID: "2.4", Clause: "5.5", Does: "ping of 125 bytes, the most", Parts: parts(answered(long))},
		violation("2.5", "5.5", "ping of 126 bytes", Frame{Fin: true, Op: opPing, Payload: []byte(long + "\xfe")}),
		{ID: "2.6", Clause: "5.5", Does: "ping of 125 bytes, an octet a write", Parts: parts(slow)},
		{ID: "2.7", Clause: "5.5.3", Does: "empty pong that nobody asked for: no answer", Parts: parts(Part{Frames: []Frame{frame(opPong, "")}})},
		{ID: "2.8", Clause: "5.5.3", Does: "pong that nobody asked for: no answer", Parts: parts(Part{Frames: []Frame{frame(opPong, "nobody asked")}})},
		{ID: "2.9", Clause: "5.5.3", Does: "such a pong, then a ping: one pong", Parts: parts(Part{
			Frames: []Frame{frame(opPong, "nobody asked"), frame(opPing, "asked")}, Want: []Event{event(opPong, "asked")}})},
		{ID: "2.10", Clause: "5.5.3", Does: "ten pings at once: ten pongs in order", Parts: parts(ten)},
		{ID: "2.11", Clause: "5.5.3", Does: "ten pings, an octet a write", Parts: parts(tenSlow)},
	}
}

func tenPings(chop int) Part {
	p := Part{Chop: chop}
	for i := range 10 {
		payload := fmt.Sprintf("ping %d", i)
		p.Frames = append(p.Frames, frame(opPing, payload))
		p.Want = append(p.Want, event(opPong, payload))
	}
	return p
}

// violation is a case whose frames break a rule of the framing.
func violation(id, clause, does string, frames ...Frame) *Case {
	return &Case{ID: id, Clause: clause, Does: does, End: ByExamined, Codes: []uint16{codeProtocol}, Parts: parts(Part{Frames: frames})}
}

// behind is a violation that comes behind a good message and before a ping. The echo of the message has to come; where it
// travels further than the verdict it may be overtaken (NON-STRICT). The ping must not be answered.
func behind(id, clause, does string, bad Frame, chop int, apart bool) *Case {
	return &Case{ID: id, Clause: clause, Does: "text message, then " + does + ", then a ping" + chopped(chop), End: ByExamined,
		Codes: []uint16{codeProtocol}, Loose: true, Parts: parts(Part{
			Frames: []Frame{frame(opText, hello), bad, frame(opPing, "")}, Chop: chop, Apart: apart, Want: []Event{event(opText, hello)}})}
}

// reserved is section 3: bits that mean nothing without an extension (5.2).
func reserved() []*Case {
	bits := func(op, rsv byte, payload string) Frame {
		return Frame{Fin: true, RSV: rsv, Op: op, Payload: []byte(payload)}
	}
	rsv1 := behind("3.4", "5.2", "one with RSV1", bits(opText, 4, hello), 1, false)
	rsv1.Deflated = []uint16{codeInvalid, codeProtocol} // the bit is legal then, but hello is no deflate stream (7692 6.2)
	return []*Case{
		violation("3.1", "5.2", "text message with RSV3", bits(opText, 1, hello)),
		behind("3.2", "5.2", "one with RSV2", bits(opText, 2, hello), 0, false),
		behind("3.3", "5.2", "one with RSV2 and RSV3", bits(opText, 3, hello), 0, true),
		rsv1,
		violation("3.5", "5.2", "binary message with RSV1 and RSV3", bits(opBinary, 5, raw)),
		violation("3.6", "5.2", "ping with RSV1 and RSV2", bits(opPing, 6, hello)),
		violation("3.7", "5.2", "close frame with all three bits", bits(opClose, 7, "")),
	}
}

// opcodes is section 4: opcodes that mean nothing (5.2).
func opcodes() []*Case {
	var all []*Case
	for i, first := range []byte{0x3, 0xB} {
		id := func(j int) string { return fmt.Sprintf("4.%d.%d", i+1, j) }
		does := func(j byte, rest string) string { return fmt.Sprintf("a frame of opcode %d%s", first+j, rest) }
		all = append(all,
			violation(id(1), "5.2", does(0, ""), frame(first, "")),
			violation(id(2), "5.2", does(1, " with a payload"), frame(first+1, "reserved")),
			behind(id(3), "5.2", does(2, ""), frame(first+2, ""), 0, false),
			behind(id(4), "5.2", does(3, " with a payload"), frame(first+3, hello), 0, false),
			behind(id(5), "5.2", does(4, " with a payload"), frame(first+4, hello), 1, false))
	}
	return all
}

// fragmentation is section 5.
func fragmentation() []*Case {
	one, two := more(opText, "first half, "), frame(opContinuation, "second half")
	whole := []Event{event(opText, "first half, second half")}
	ping, pong := frame(opPing, "between"), event(opPong, "between")
	nothing, nothingYet := frame(opContinuation, "continues nothing"), more(opContinuation, "continues nothing")
	message := frame(opText, hello)

	legal := func(id, does string, p Part) *Case {
		return &Case{ID: id, Clause: "5.4", Does: does + chopped(p.Chop), Parts: parts(p), Frames: 2}
	}
	bad := func(id, does string, chop int, apart bool, frames ...Frame) *Case {
		return &Case{ID: id, Clause: "5.4", Does: does + chopped(chop), End: ByExamined, Codes: []uint16{codeProtocol},
			Parts: parts(Part{Frames: frames, Chop: chop, Apart: apart})}
	}
	split, splitPing := []Frame{one, two}, []Frame{one, ping, two}
	pongFirst := append([]Event{pong}, whole...)
	apart := " in writes of their own"
	overtaken := bad("5.15", "text message of 2 fragments, then a continuation of nothing and a text message", 0, false,
		one, two, nothingYet, message)
	overtaken.Loose = true
	overtaken.Parts = parts(Part{Frames: []Frame{one, two, nothingYet, message}, Want: whole})
	return []*Case{
		bad("5.1", "ping of 2 fragments", 0, false, more(opPing, "first"), frame(opContinuation, "second")),
		bad("5.2", "pong of 2 fragments", 0, false, more(opPong, "first"), frame(opContinuation, "second")),
		legal("5.3", "text message of 2 fragments", Part{Frames: split, Want: whole}),
		legal("5.4", "text message of 2 fragments"+apart, Part{Frames: split, Want: whole, Apart: true}),
		legal("5.5", "text message of 2 fragments", Part{Frames: split, Want: whole, Chop: 1}),
		legal("5.6", "text message of 2 fragments, a ping between: pong first", Part{Frames: splitPing, Want: pongFirst}),
		legal("5.7", "text message of 2 fragments, a ping between"+apart, Part{Frames: splitPing, Want: pongFirst, Apart: true}),
		legal("5.8", "text message of 2 fragments, a ping between", Part{Frames: splitPing, Want: pongFirst, Chop: 1}),
		bad("5.9", "last fragment of nothing, then a text message", 0, false, nothing, message),
		bad("5.10", "last fragment of nothing, then a text message,"+apart, 0, true, nothing, message),
		bad("5.11", "last fragment of nothing, then a text message", 1, false, nothing, message),
		bad("5.12", "middle fragment of nothing, then a text message", 0, false, nothingYet, message),
		bad("5.13", "middle fragment of nothing, then a text message,"+apart, 0, true, nothingYet, message),
		bad("5.14", "middle fragment of nothing, then a text message", 1, false, nothingYet, message),
		overtaken,
		bad("5.16", "twice: middle fragment of nothing, then a text message of 2 fragments", 0, false,
			slices.Repeat([]Frame{nothingYet, one, two}, 2)...),
		bad("5.17", "twice: last fragment of nothing, then a text message of 2 fragments", 0, false,
			slices.Repeat([]Frame{nothing, one, two}, 2)...),
		bad("5.18", "text message whose second fragment says text again", 0, false, one, frame(opText, "second half")),
		patient("5.19", "text message of 5 fragments with two pings; the first pong comes before the rest is sent", false),
		patient("5.20", "the same"+apart, true),
	}
}

// patient waits in the middle of a message for the pong to the ping there.
func patient(id, does string, apart bool) *Case {
	return &Case{ID: id, Clause: "5.4, 5.5.3", Does: does, Frames: 5, Parts: parts(
		Part{Apart: apart, Frames: []Frame{more(opText, "one "), more(opContinuation, "two "), frame(opPing, "first")},
			Want: []Event{event(opPong, "first")}},
		Part{Apart: apart, Frames: []Frame{more(opContinuation, "three "), more(opContinuation, "four "), frame(opPing, "second"),
			frame(opContinuation, "five")}, Want: []Event{event(opPong, "second"), event(opText, "one two three four five")}},
	)}
}

// automatic is section 10.
func automatic() []*Case {
	const size, fragment = 65536, 1300
	payload := bytes.Repeat([]byte("*"), size)
	frames := fragments(opText, payload, fragment)
	return []*Case{{ID: "10.1.1", Clause: "5.4", Does: "text message of 65536 bytes in fragments of 1300", Bytes: size, Frames: len(frames),
		Parts: parts(Part{Frames: frames, Want: []Event{{opText, payload}}})}}
}

// fragments cuts a message into frames of n bytes.
func fragments(op byte, payload []byte, n int) []Frame {
	var all []Frame
	for rest := range slices.Chunk(payload, n) {
		all = append(all, Frame{Op: opContinuation, Payload: rest})
	}
	all[0].Op = op
	all[len(all)-1].Fin = true
	return all
}
