package conform

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// closeFrame is a close frame with code and reason (5.5.1).
func closeFrame(code uint16, reason string) Frame {
	return Frame{Fin: true, Op: opClose, Payload: append(binary.BigEndian.AppendUint16(nil, code), reason...)}
}

// reasonMax is the longest close reason: 125 bytes less the code (5.5.1).
const reasonMax = 123

// valid are codes that may stand in a close frame (7.4.1, 7.4.2).
var valid = []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999}

// never are codes that may not (7.4.1, 7.4.2): below 1000, reserved ones, those that stand for no code, and ranges of the
// protocol that nobody has given out.
var never = []uint16{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999}

// undefined are codes above all ranges (7.4.2).
var undefined = []uint16{5000, 65535}

// closing is section 7.
func closing() []*Case {
	normal := closeFrame(codeNormal, "")
	answered := func(id, clause, does string, code uint16, frames ...Frame) *Case {
		return &Case{ID: id, Clause: clause, Does: does, End: Sent, Codes: []uint16{code}, Parts: parts(Part{Frames: frames}), Frames: 2}
	}
	all := []*Case{
		{ID: "7.1.1", Clause: "5.5.1", Does: "text message, then a close frame", Parts: parts(echoed(opText, []byte(hello)))},
		answered("7.1.2", "5.5.1", "two close frames: one answer", codeNormal, normal, frame(opClose, "")),
		answered("7.1.3", "5.5.1", "ping behind a close frame: no pong", codeNormal, normal, frame(opPing, "")),
		answered("7.1.4", "5.5.1", "text message behind a close frame: no echo", codeNormal, normal, frame(opText, hello)),
		answered("7.1.5", "5.5.1", "close frame between two fragments: no echo", codeNormal,
			more(opText, "first half"), normal, frame(opContinuation, "second half")),
		backToBack(),
		answered("7.3.1", "5.5.1", "close frame without a body", codeNone, frame(opClose, "")),
		violation("7.3.2", "5.5.1", "close frame with half a code", frame(opClose, "a")),
		answered("7.3.3", "5.5.1", "close frame with a code", codeNormal, normal),
		answered("7.3.4", "5.5.1", "close frame with a code and a reason", codeNormal, closeFrame(codeNormal, hello)),
		answered("7.3.5", "5.5.1", "close frame with the longest reason", codeNormal, closeFrame(codeNormal, strings.Repeat("*", reasonMax))),
		violation("7.3.6", "5.5", "close frame with a reason one byte too long", closeFrame(codeNormal, strings.Repeat("*", reasonMax+1))),
		{ID: "7.5.1", Clause: "5.5.1, 8.1", Does: "close frame whose reason is no UTF-8", End: ByExamined,
			Codes: []uint16{codeInvalid, codeProtocol}, Parts: parts(Part{Frames: []Frame{closeFrame(codeNormal, greek+surrogate+"edited")}})},
	}
	for i, code := range valid {
		all = append(all, answered(fmt.Sprintf("7.7.%d", i+1), "7.4", fmt.Sprintf("close frame with code %d", code), code, closeFrame(code, "")))
	}
	for i, code := range never {
		all = append(all, violation(fmt.Sprintf("7.9.%d", i+1), "7.4", fmt.Sprintf("close frame with code %d", code), closeFrame(code, "")))
	}
	for i, code := range undefined {
		c := violation(fmt.Sprintf("7.13.%d", i+1), "7.4.2", fmt.Sprintf("close frame with code %d", code), closeFrame(code, ""))
		c.Open = true
		all = append(all, c)
	}
	return all
}

// backToBack sends a long and a short message, a close frame and a ping at once: what has gone back when the close frame is
// answered is the examined's business.
func backToBack() *Case {
	const size = 256 << 10
	long := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	return &Case{ID: "7.1.6", Clause: "5.5.1", Does: "text messages of 256 KiB and 13 bytes, a close frame and a ping", End: Sent, Open: true,
		Bytes: size, Frames: 1, Parts: parts(Part{
			Frames: []Frame{{Fin: true, Op: opText, Payload: long}, frame(opText, hello), closeFrame(codeNormal, ""), frame(opPing, "")},
			Want:   []Event{{opText, long}, event(opText, hello)}})}
}
