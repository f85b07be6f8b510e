package conform

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// greek is valid text of five characters, of two and three bytes.
const greek = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"

// latin is valid text with characters of two bytes, in two halves.
const (
	latinLeft  = "Hello-µ@ßöä"
	latinRight = "üàá-UTF-8!!"
	latin      = latinLeft + latinRight
)

// tooHigh is an encoding of U+110000, which there is not (RFC 3629 section 3): its second byte is the first that cannot be.
const tooHigh = "\xf4\x90\x80\x80"

// surrogate is half a UTF-16 pair in UTF-8's clothes.
const surrogate = "\xed\xa0\x80"

// text is section 6.
func text() []*Case {
	empty, middle := more(opContinuation, ""), more(opContinuation, "middle")
	legal := func(id, does string, want string, frames ...Frame) *Case {
		return &Case{ID: id, Clause: "5.6", Does: does, Frames: len(frames), Parts: parts(Part{Frames: frames, Want: []Event{event(opText, want)}})}
	}
	all := []*Case{
		legal("6.1.1", "empty text message", "", frame(opText, "")),
		legal("6.1.2", "text message of 3 empty fragments", "", more(opText, ""), empty, frame(opContinuation, "")),
		legal("6.1.3", "text message of an empty, a full and an empty fragment", "middle", more(opText, ""), middle, frame(opContinuation, "")),
		legal("6.2.1", "UTF-8 in one frame", latin, frame(opText, latin)),
		legal("6.2.2", "UTF-8 in 2 fragments, cut between characters", latin, more(opText, latinLeft), frame(opContinuation, latinRight)),
		legal("6.2.3", "UTF-8 in fragments of one byte", latin, fragments(opText, []byte(latin), 1)...),
		legal("6.2.4", "other UTF-8 in fragments of one byte", greek, fragments(opText, []byte(greek), 1)...),
		invalid("6.3.1", "text with a surrogate in one frame", frame(opText, greek+surrogate+"edited")),
		invalid("6.3.2", "text with a surrogate in fragments of one byte", fragments(opText, []byte(greek+surrogate+"edited"), 1)...),
	}
	all = append(all, failFast()...)
	for i, set := range sequences() {
		for j, s := range set.text {
			id, does := fmt.Sprintf("6.%d.%d", i+5, j+1), set.name+fmt.Sprintf(": % x", s)
			if utf8.ValidString(s) {
				all = append(all, legal(id, does, s, frame(opText, s)))
			} else {
				all = append(all, invalid(id, does, frame(opText, s)))
			}
		}
	}
	return all
}

// invalid is a case whose text is not UTF-8.
func invalid(id, does string, frames ...Frame) *Case {
	return &Case{ID: id, Clause: "8.1", Does: does, End: ByExamined, Codes: []uint16{codeInvalid}, Frames: len(frames),
		Parts: parts(Part{Frames: frames})}
}

const (
	accepts = 50 * time.Millisecond // a good beginning is watched for so long: nothing may happen
	objects = 2 * time.Second       // within which a byte that cannot be is to be refused
)

// failFast are the cases that stop in the middle: the first part is good, the second has the byte that cannot be, and the
// third is sent only if nothing happened.
func failFast() []*Case {
	whole := greek + tooHigh + "edited"
	fast := func(id, does string, p ...Part) *Case {
		return &Case{ID: id, Clause: "8.1", Does: does, End: ByExamined, Codes: []uint16{codeInvalid}, Fast: 2, Frames: 3, Parts: parts(p...)}
	}
	inFrames := func(one, two int) []Part {
		return []Part{
			{Frames: []Frame{more(opText, whole[:one])}, Quiet: accepts},
			{Frames: []Frame{more(opContinuation, whole[one:two])}, Quiet: objects},
			{Frames: []Frame{frame(opContinuation, whole[two:])}},
		}
	}
	inPieces := func(one, two int) []Part {
		f := frame(opText, whole)
		f.Cuts = []int{one, two}
		return []Part{{Frames: []Frame{f}, Quiet: accepts}, {Next: true, Quiet: objects}, {Next: true}}
	}
	char := len(greek)
	return []*Case{
		fast("6.4.1", "3 fragments, the second a character that there is not", inFrames(char, char+len(tooHigh))...),
		fast("6.4.2", "3 fragments, the second just the byte that cannot be", inFrames(char+1, char+2)...),
		fast("6.4.3", "one frame in 3 pieces, the second a character that there is not", inPieces(char, char+len(tooHigh))...),
		fast("6.4.4", "one frame in 3 pieces, the second just the byte that cannot be", inPieces(char+1, char+2)...),
	}
}

// sequenceSet is a subsection of 6.5 to 6.23.
type sequenceSet struct {
	name string
	text []string
}

// sequences are what a decoder has to tell apart (RFC 3629, and Markus Kuhn's list of decoder tests).
func sequences() []sequenceSet {
	cut := []string{"\xc0", "\xe0\x80", "\xf0\x80\x80", "\xf8\x80\x80\x80", "\xfc\x80\x80\x80\x80",
		"\xdf", "\xef\xbf", "\xf7\xbf\xbf", "\xfb\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf"}
	return []sequenceSet{
		{"characters of one to four bytes", []string{"hello\x24world", "hello\xc2\xa2world", "hello\xe2\x82\xacworld",
			"hello\xf0\xa4\xad\xa2world", greek}},
		{"beginning of valid text", prefixes(greek)},
		{"first of a length", []string{"\x00", "\xc2\x80", "\xe0\xa0\x80", "\xf0\x90\x80\x80"}},
		{"first of 5 and 6 bytes", []string{"\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80"}},
		{"last of a length", []string{"\x7f", "\xdf\xbf", "\xef\xbf\xbf", "\xf4\x8f\xbf\xbf"}},
		{"last of 4, 5 and 6 bytes", []string{"\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf\xbf"}},
		{"other boundaries", []string{"\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbd", "\xf4\x8f\xbf\xbf", "\xf4\x90\x80\x80"}},
		{"continuation of nothing", []string{"\x80", "\xbf", "\x80\xbf", "\x80\xbf\x80", "\x80\xbf\x80\xbf", "\x80\xbf\x80\xbf\x80",
			"\x80\xbf\x80\xbf\x80\xbf", span(0x80, 0xbf, "")}},
		{"beginnings alone", []string{span(0xc0, 0xdf, " "), span(0xe0, 0xef, " "), span(0xf0, 0xf7, " "), span(0xf8, 0xfb, " "), span(0xfc, 0xfd, " ")}},
		{"last byte missing", cut},
		{"beginnings in a row", []string{strings.Join(cut, "")}},
		{"bytes that cannot be", []string{"\xfe", "\xff", "\xfe\xfe\xff\xff"}},
		{"slash too long", []string{"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf"}},
		{"longest that is too long", []string{"\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf8\x87\xbf\xbf\xbf", "\xfc\x83\xbf\xbf\xbf\xbf"}},
		{"NUL too long", []string{"\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf8\x80\x80\x80\x80", "\xfc\x80\x80\x80\x80\x80"}},
		{"surrogates", []string{"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf"}},
		{"pairs of surrogates", []string{"\xed\xa0\x80\xed\xb0\x80", "\xed\xa0\x80\xed\xbf\xbf", "\xed\xad\xbf\xed\xb0\x80",
			"\xed\xad\xbf\xed\xbf\xbf", "\xed\xae\x80\xed\xb0\x80", "\xed\xae\x80\xed\xbf\xbf", "\xed\xaf\xbf\xed\xb0\x80", "\xed\xaf\xbf\xed\xbf\xbf"}},
		{"no characters, but valid", nonCharacters()},
		{"specials", []string{"\ufff9", "\ufffa", "\ufffb", "\ufffc", "\ufffd", "\ufffe", "\uffff"}},
	}
}

// prefixes are all beginnings of s, by bytes, and s.
func prefixes(s string) []string {
	var all []string
	for i := range len(s) {
		all = append(all, s[:i+1])
	}
	return all
}

// span is the bytes from first to last, each with after behind it.
func span(first, last byte, after string) string {
	var b strings.Builder
	for c := int(first); c <= int(last); c++ {
		b.WriteByte(byte(c))
		b.WriteString(after)
	}
	return b.String()
}

// nonCharacters are the last two code points of each of the 17 planes.
func nonCharacters() []string {
	var all []string
	for plane := rune(0); plane <= 16; plane++ {
		all = append(all, string(plane<<16|0xfffe), string(plane<<16|0xffff))
	}
	return all
}
