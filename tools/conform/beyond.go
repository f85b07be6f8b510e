package conform

import "fmt"

// beyondSection is ours: the suite ends with 13.
const beyondSection = "14"

// beyond are rules that the suite leaves out.
func beyond() []*Case {
	wrongWay := func(op byte) Frame {
		f := frame(op, hello)
		f.WrongMask, f.Plain = true, true
		return f
	}
	form := func(n int, octets int, length uint64) Frame {
		return Frame{Fin: true, Op: opBinary, Payload: make([]byte, n), Octets: octets, Length: length, Plain: true}
	}
	const topBit = 1<<63 + 5
	all := []*Case{
		violation("14.1.1", "5.1", "text message masked as the other side has to", wrongWay(opText)),
		violation("14.1.2", "5.1", "ping masked as the other side has to", wrongWay(opPing)),
		violation("14.1.3", "5.1", "close frame masked as the other side has to", wrongWay(opClose)),
		violation("14.2.1", "5.2", "length 5 in 16 bits", form(5, 2, 5)),
		violation("14.2.2", "5.2", "length 5 in 64 bits", form(5, 8, 5)),
		violation("14.2.3", "5.2", "length 65535 in 64 bits", form(65535, 8, 65535)),
		violation("14.2.4", "5.2", "length with its top bit set", form(5, 8, topBit)),
		violation("14.2.5", "5.5", "ping of length 5 in 16 bits", Frame{Fin: true, Op: opPing, Payload: make([]byte, 5), Octets: 2, Length: 5}),
	}
	for i, code := range []uint16{1012, 1013, 1014} {
		all = append(all, &Case{ID: fmt.Sprintf("14.3.%d", i+1), Clause: "7.4.2", End: Sent, Codes: []uint16{code},
			Does: fmt.Sprintf("close frame with the registered code %d", code), Parts: parts(Part{Frames: []Frame{closeFrame(code, "")}})})
	}
	all = append(all, violation("14.3.4", "7.4.1", "close frame with code 1015", closeFrame(1015, "")))
	return append(all, streams()...)
}

// streams are compressed messages whose bytes are those of the examples in RFC 7692 section 7.2.3, or wrong.
func streams() []*Case {
	deflated := func(fin bool, op byte, stream string) Frame {
		return Frame{Fin: fin, RSV: 4, Op: op, Payload: []byte(stream)}
	}
	good := func(id, clause, does, stream, want string) *Case {
		return &Case{ID: id, Clause: "7692 " + clause, Does: does, Offer: defaultOffer,
			Parts: parts(Part{Frames: []Frame{deflated(true, opText, stream)}, Want: []Event{event(opText, want)}})}
	}
	bad := func(id, clause, does string, codes []uint16, frames ...Frame) *Case {
		return &Case{ID: id, Clause: "7692 " + clause, Does: does, Offer: defaultOffer, End: ByExamined, Codes: codes,
			Parts: parts(Part{Frames: frames})}
	}
	const hi = "\xf2\x48\xcd\xc9\xc9\x07\x00"
	protocol, content := []uint16{codeProtocol}, []uint16{codeInvalid, codeProtocol}
	backwards := bad("14.5.6", "7.1.1.2", "message that looks back into the one before, which had to be forgotten", content)
	backwards.Parts = parts(
		Part{Frames: []Frame{deflated(true, opText, hi)}, Want: []Event{event(opText, "Hello")}},
		Part{Frames: []Frame{deflated(true, opText, "\xf2\x00\x11\x00\x00")}})
	mixed := good("14.4.6", "6", "a message that is not compressed between two that are", hi, "Hello")
	mixed.Parts = parts(
		Part{Frames: []Frame{deflated(true, opText, hi)}, Want: []Event{event(opText, "Hello")}},
		Part{Frames: []Frame{{Fin: true, Op: opText, Payload: []byte(hello), Plain: true}}, Want: []Event{event(opText, hello)}},
		Part{Frames: []Frame{deflated(true, opText, hi)}, Want: []Event{event(opText, "Hello")}})
	return []*Case{
		good("14.4.1", "7.2.3.1", "one block", hi, "Hello"),
		good("14.4.2", "7.2.3.3", "a block that is stored", "\x00\x05\x00\xfa\xffHello\x00", "Hello"),
		good("14.4.3", "7.2.3.4", "a block that says it is the last", "\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "Hello"),
		good("14.4.4", "7.2.3.5", "two blocks", "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", "Hello"),
		good("14.4.5", "7.2.3.6", "an empty message", "\x00", ""),
		mixed,
		bad("14.5.1", "6.1", "ping with RSV1", protocol, deflated(true, opPing, "")),
		bad("14.5.2", "6.1", "second fragment with RSV1", protocol, deflated(false, opText, hi[:3]), deflated(true, opContinuation, hi[3:])),
		bad("14.5.3", "6.2", "block of a type that there is not", content, deflated(true, opText, "\x07")),
		bad("14.5.4", "6.2", "stored block whose lengths differ", content, deflated(true, opText, "\x00\x05\x00\xfa\xfeHello\x00")),
		bad("14.5.5", "6.2", "text that is no UTF-8 when it is inflated", []uint16{codeInvalid},
			deflated(true, opText, "\x00\x05\x00\xfa\xffHell\xff\x00")),
		backwards,
	}
}
