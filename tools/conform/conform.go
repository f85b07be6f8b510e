// Package conform plays the sections of the Autobahn test suite against a WebSocket endpoint, and says of each case how the
// endpoint behaved and how the connection ended. Cases have the suite's numbers, so that results can be compared; what they
// do and what they expect is written down here from RFC 6455 and RFC 7692.
//
//	conform.go      what a case and a result are
//	framing.go      sections 1 to 5 and 10     text.go      section 6
//	closing.go      section 7                  limits.go    section 9
//	compression.go  sections 12 and 13         source.go    the messages of both
//	beyond.go       section 14, which is ours: what the suite leaves out
//	play.go         plays one case             run.go       plays many, report.go prints what came of them
//	wire.go         the tester's own framing   upgrade.go   its opening handshake, both sides
//	deflate.go      its permessage-deflate     distance.go  how far a compressed message looks back
//	gorilla.go      the legal cases again, with a client of another library
//	peers.go        who stands behind the examined: a backend that echoes, a backend that examines, a client that echoes
//
// Nothing here is shared with the gateway's own framing: a mistake there cannot hide itself.
package conform

import (
	"iter"
	"strings"
	"time"
)

// Opcodes of RFC 6455 section 5.2.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// Close codes of RFC 6455 section 7.4.1, and the gateway's own for a backend that failed.
const (
	codeNormal   = 1000
	codeProtocol = 1002
	codeInvalid  = 1007
	codeBackend  = 4502
	codeNone     = 0 // an empty close frame
)

// Frame is what the tester sends, right or wrong.
type Frame struct {
	Fin     bool
	RSV     byte // RSV1 is 4, RSV2 is 2, RSV3 is 1
	Op      byte
	Payload []byte
	Cuts    []int // positions in Payload at which sending stops until the next part that says Next

	WrongMask bool   // masked as a server, unmasked as a client
	Octets    int    // 2 or 8: the length takes so many, whatever it is; 0: as few as it needs
	Length    uint64 // with Octets: the length announced
	Plain     bool   // never compressed
}

// Part is what the tester sends at once, and what must come back before the next part goes out.
type Part struct {
	Frames   []Frame
	Next     bool          // the next piece of a frame with Cuts; no Frames
	Chop     int           // octets in a write; 0: all in one
	Apart    bool          // each frame in a write of its own
	Fragment int           // frames of at most so many octets, cut after compression; 0: as they are
	Want     []Event       // messages and pongs
	Quiet    time.Duration // the connection is watched for so long before the next part
}

// Event is a message or a pong that the examined sends. Pings of its own are answered and are no events.
type Event struct {
	Op   byte
	Data []byte
}

// End says who has to begin the end of the connection.
type End uint8

// The ends.
const (
	ByTester   End = iota // the tester closes with 1000 when all events are here
	Sent                  // the last part has the tester's close frame; it is to be answered
	ByExamined            // the tester broke a rule: the examined fails the connection (RFC 6455 section 7.1.7)
)

// Case is one case of the suite.
type Case struct {
	ID     string // as in the suite
	Does   string
	Clause string // of RFC 6455, or "7692 " and one of RFC 7692
	Parts  iter.Seq[Part]
	End    End
	Codes  []uint16 // with which the examined may close; nil: 1000

	Deflated []uint16 // Codes where compression is negotiated; nil: the same
	Loose    bool     // NON-STRICT instead of FAILED if events are missing because the connection was failed first
	Fast     int      // parts after which the connection is to be failed; later is NON-STRICT. 0: all
	Open     bool     // the RFC leaves it open what happens: INFORMATIONAL
	Offer    string   // the tester's Sec-WebSocket-Extensions; "": the run's
	Bytes    int      // payload of all messages
	Frames   int      // of the longest message
}

// Section is the part of the id before the first dot.
func (c *Case) Section() string {
	s, _, _ := strings.Cut(c.ID, ".")
	return s
}

// legal reports whether the tester keeps to the rules, so that another library can play its part.
func (c *Case) legal() bool { return c.End == ByTester && c.Section() != beyondSection }

// codes are those with which the examined may close.
func (c *Case) codes(deflated bool) []uint16 {
	switch {
	case deflated && c.Deflated != nil:
		return c.Deflated
	case c.Codes != nil:
		return c.Codes
	default:
		return []uint16{codeNormal}
	}
}

// far is the code that the other client of a gateway must get when the tester is the backend: the tester's own close code,
// or 4502 where the tester broke a rule.
func (c *Case) far() uint16 {
	if c.End == ByExamined {
		return codeBackend
	}
	return c.codes(false)[0]
}

// Verdict is how the examined behaved.
type Verdict uint8

// The verdicts.
const (
	OK Verdict = iota
	NonStrict
	Informational
	Unimplemented
	Failed
)

// String is the suite's word for v.
func (v Verdict) String() string {
	return [...]string{"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED"}[v]
}

// Ending is how the connection ended.
type Ending uint8

// The endings.
const (
	Clean     Ending = iota
	WrongCode        // a close frame with another code than the clause asks for
	Unclean          // no close frame, or no end of TCP behind it
)

// String is the suite's word for e, CLEAN for its OK.
func (e Ending) String() string { return [...]string{"CLEAN", "WRONG CODE", "UNCLEAN"}[e] }

// Result is what came of a case.
type Result struct {
	Case    *Case
	Verdict Verdict
	Ending  Ending
	Why     string // "" for OK and CLEAN
	Took    time.Duration
}

// All are all cases of the suite, and ours. scale is the share of the suite's 1,000 messages in each case of 9.7, 9.8, 12 and 13; at
// least 2 are sent.
func All(scale float64) []*Case {
	rounds := max(2, int(1000*scale))
	var all []*Case
	for _, section := range [][]*Case{framing(), pings(), reserved(), opcodes(), fragmentation(), text(), closing(), limits(rounds),
		automatic(), payloads(rounds), parameters(rounds), beyond()} {
		all = append(all, section...)
	}
	return all
}

// parts are p, in turn.
func parts(p ...Part) iter.Seq[Part] {
	return func(yield func(Part) bool) {
		for _, one := range p {
			if !yield(one) {
				return
			}
		}
	}
}

// frame is a whole one.
func frame(op byte, payload string) Frame { return Frame{Fin: true, Op: op, Payload: []byte(payload)} }

// more is one that is not its message's last.
func more(op byte, payload string) Frame { return Frame{Op: op, Payload: []byte(payload)} }

// event is a message or pong with the payload data.
func event(op byte, data string) Event { return Event{op, []byte(data)} }
