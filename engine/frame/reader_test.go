package frame_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"ticketgate/engine/frame"
	"ticketgate/engine/frame/frametest"
)

var defaults = frame.Rules{
	Role:         frame.Server,
	Opcodes:      frame.AllowBoth,
	MaxMessage:   frametest.MaxMessage,
	MaxFragments: frametest.MaxFragments,
}

// A peer is a Reader and its leftover, as a session keeps them, and a transcript of what whole frames told.
type peer struct {
	rules *frame.Rules
	r     frame.Reader
	left  []byte

	lines      []string
	inside     bool   // a data frame is under way
	compressed bool   // it is of a compressed message
	payload    []byte // of that frame
	message    []byte // of the message under way
	whole      []frametest.Message
	pings      []string
	code       frame.Code
	err        error
}

// feed takes the next bytes. It copies them, as Next unmasks in place.
func (p *peer) feed(t *testing.T, b []byte) {
	t.Helper()
	p.left = append(p.left, b...)
	for p.err == nil {
		ev, n, err := p.r.Next(p.rules, p.left)
		p.err = err
		if n == 0 {
			break
		}
		p.tell(t, ev)
		p.left = p.left[n:]
	}
	if p.err == nil && len(p.left) >= frame.MaxHeader+frame.MaxControl {
		t.Fatalf("%d bytes are left without an event", len(p.left))
	}
}

func (p *peer) tell(t *testing.T, ev frame.Event) {
	t.Helper()
	switch ev.Kind {
	case frame.KindPing:
		p.pings = append(p.pings, string(ev.Payload))
		p.lines = append(p.lines, fmt.Sprintf("ping %q", ev.Payload))
	case frame.KindPong:
		p.lines = append(p.lines, fmt.Sprintf("pong %q", ev.Payload))
	case frame.KindClose:
		p.code = ev.Code
		p.lines = append(p.lines, fmt.Sprintf("close %d %q", ev.Code, ev.Payload))
	case frame.KindData:
		p.data(t, ev)
	default:
		t.Fatalf("event of kind %d", ev.Kind)
	}
}

func (p *peer) data(t *testing.T, ev frame.Event) {
	t.Helper()
	if ev.Head == p.inside || ev.First && !ev.Head || ev.Last != (ev.Tail && ev.Fin) {
		t.Fatalf("%+v with %d bytes of its frame seen", ev, len(p.payload))
	}
	if !ev.First && ev.Compressed != p.compressed {
		t.Fatalf("%+v: Compressed changes inside a message", ev)
	}
	p.inside, p.compressed = !ev.Tail, ev.Compressed
	p.payload = append(p.payload, ev.Payload...)
	p.message = append(p.message, ev.Payload...)
	if got := p.r.MessageLen(); got != int64(len(p.message)) {
		t.Fatalf("MessageLen is %d, want %d", got, len(p.message))
	}
	if got := p.r.Open(); got == ev.Last {
		t.Fatalf("Open is %v behind %+v", got, ev)
	}
	if !ev.Tail {
		return
	}
	if int64(len(p.payload)) != ev.FrameLen {
		t.Fatalf("frame of %d bytes ended after %d", ev.FrameLen, len(p.payload))
	}
	p.lines = append(p.lines, fmt.Sprintf("op %d fin %v %q", ev.Op, ev.Fin, p.payload))
	p.payload = nil
	if ev.Last {
		p.whole = append(p.whole, frametest.Message{Op: ev.Op, Payload: string(p.message)})
		p.message = nil
	}
}

// transcript is what must not depend on how the bytes were cut.
func (p *peer) transcript() string {
	return strings.Join(append(p.lines, fmt.Sprint(p.err)), "\n")
}

func TestBad(t *testing.T) {
	if len(frametest.Bad) < 120 {
		t.Errorf("the table has %d rows, want 120", len(frametest.Bad))
	}
	seen := map[string]bool{}
	for _, c := range frametest.Bad {
		if seen[c.Name] {
			t.Errorf("two rows are called %q", c.Name)
		}
		seen[c.Name] = true
		p := &peer{rules: &defaults}
		for i, w := range c.Wire {
			if p.err != nil {
				t.Errorf("%s: %v before write %d of %d", c.Name, p.err, i, len(c.Wire))
			}
			p.feed(t, w)
		}
		var broken *frame.Error
		if !errors.As(p.err, &broken) || broken.Code != c.Code {
			t.Errorf("%s: got %v, want code %d", c.Name, p.err, c.Code)
			continue
		}
		if ev, n, err := p.r.Next(&defaults, frametest.Frame(0x81, "later")); ev.Kind != 0 || n != 0 || err != p.err {
			t.Errorf("%s: a later call gave %+v %d %v, want the error again", c.Name, ev, n, err)
		}
	}
}

func TestGood(t *testing.T) {
	for _, c := range frametest.Good {
		p := &peer{rules: &defaults}
		for _, w := range c.Wire {
			p.feed(t, w)
		}
		if p.err != nil || p.code != c.Code || fmt.Sprint(p.whole) != fmt.Sprint(c.Messages) || fmt.Sprint(p.pings) != fmt.Sprint(c.Pings) {
			t.Errorf("%s: %d messages, pings %q, code %d, %v; want %d, %q, %d", c.Name, len(p.whole), p.pings, p.code, p.err,
				len(c.Messages), c.Pings, c.Code)
		}
		if _, n, err := p.r.Next(&defaults, nil); n != 0 || err != nil {
			t.Errorf("%s: without bytes behind the close frame: %d %v", c.Name, n, err)
		}
		if ev, n, err := p.r.Next(&defaults, frametest.Frame(0x81, "x")); ev.Kind != 0 || n != 0 || err != frame.ErrAfterClose {
			t.Errorf("%s: behind the close frame: %+v %d %v", c.Name, ev, n, err)
		}
	}
}

// With permessage-deflate RSV1 marks messages, whose bytes the reader hands out as they are.
func TestCompressed(t *testing.T) {
	rules := defaults
	rules.Compressed = true
	p := &peer{rules: &rules}
	for _, c := range frametest.GoodCompressed {
		before := len(p.whole)
		for _, w := range c.Wire {
			p.feed(t, w)
		}
		if p.err != nil || len(p.whole) != before+1 || p.whole[before] != (frametest.Message{Op: c.Message.Op, Payload: c.Payload}) {
			t.Fatalf("%s: %d messages, %v", c.Name, len(p.whole)-before, p.err)
		}
		if want := !strings.Contains(c.Name, "without RSV1"); p.compressed != want {
			t.Errorf("%s: Compressed is %v, want %v", c.Name, p.compressed, want)
		}
	}
	for _, c := range frametest.BadDeflate {
		p := &peer{rules: &rules}
		for _, w := range c.Wire {
			p.feed(t, w)
		}
		if p.err != nil {
			t.Errorf("%s: %v, but its frames are right", c.Name, p.err)
		}
	}
	for _, c := range frametest.BadCompressed {
		p := &peer{rules: &rules}
		for i, w := range c.Wire {
			if p.err != nil {
				t.Errorf("%s: %v before write %d of %d", c.Name, p.err, i, len(c.Wire))
			}
			p.feed(t, w)
		}
		var broken *frame.Error
		if !errors.As(p.err, &broken) || broken.Code != c.Code {
			t.Errorf("%s: got %v, want code %d", c.Name, p.err, c.Code)
		}
	}
}

// A compressed message, and one that breaks a rule, are told apart however they are cut.
func TestCompressedSplit(t *testing.T) {
	rules := defaults
	rules.Compressed = true
	random := rand.New(rand.NewPCG(1, 2))
	for _, c := range frametest.GoodCompressed {
		checkSplits(t, &rules, bytes.Join(c.Wire, nil), random)
	}
	for _, c := range append(frametest.BadCompressed, frametest.BadDeflate...) {
		checkSplits(t, &rules, bytes.Join(c.Wire, nil), random)
	}
}

// A frame that is there whole is one event; of another one the header is told at once, and then what comes.
func TestParts(t *testing.T) {
	whole := frametest.Frame(0x82, "0123456789")
	var r frame.Reader
	in := append(bytes.Clone(whole), whole...)
	ev, n, err := r.Next(&defaults, in)
	if err != nil || n != len(whole) || !ev.First || !ev.Last || !ev.Head || !ev.Tail || string(ev.Payload) != "0123456789" {
		t.Fatalf("whole frame: %+v %d %v", ev, n, err)
	}
	if &ev.Payload[0] != &in[6] || cap(ev.Payload) != 10 {
		t.Error("the payload is not the piece of in that it was, or can grow into the next frame")
	}
	steps := []struct {
		from, to   int
		head, tail bool
		payload    string
	}{{0, 6, true, false, ""}, {6, 7, false, false, "0"}, {7, 15, false, false, "12345678"}, {15, 16, false, true, "9"}}
	in = bytes.Clone(whole)
	for _, s := range steps {
		ev, n, err := r.Next(&defaults, in[s.from:s.to])
		if err != nil || n != s.to-s.from || ev.Head != s.head || ev.First != s.head || ev.Tail != s.tail || ev.Last != s.tail || string(ev.Payload) != s.payload {
			t.Fatalf("bytes %d to %d: %+v %d %v", s.from, s.to, ev, n, err)
		}
		if ev.FrameLen != 10 || !ev.Fin || r.Open() == s.tail {
			t.Fatalf("bytes %d to %d: %+v, open %v", s.from, s.to, ev, r.Open())
		}
	}
}

func TestRules(t *testing.T) {
	text, binary := frametest.Frame(0x81, "t"), frametest.Frame(0x82, "b")
	unmasked := []byte{0x81, 1, 't'}
	for _, c := range []struct {
		name  string
		rules frame.Rules
		wire  []byte
		want  error
	}{
		{"text only, text", frame.Rules{Opcodes: frame.AllowText, MaxMessage: 9, MaxFragments: 1}, text, nil},
		{"text only, binary", frame.Rules{Opcodes: frame.AllowText, MaxMessage: 9, MaxFragments: 1}, binary, frame.ErrOpcodeDenied},
		{"binary only, text", frame.Rules{Opcodes: frame.AllowBinary, MaxMessage: 9, MaxFragments: 1}, text, frame.ErrOpcodeDenied},
		{"zero rules", frame.Rules{}, text, frame.ErrOpcodeDenied},
		{"no bytes", frame.Rules{Opcodes: frame.AllowBoth, MaxFragments: 1}, text, frame.ErrTooBig},
		{"no fragments", frame.Rules{Opcodes: frame.AllowBoth, MaxMessage: 9}, text, frame.ErrFragments},
		{"at a server, unmasked", defaults, unmasked, frame.ErrUnmasked},
		{"at a client, unmasked", frame.Rules{Role: frame.Client, Opcodes: frame.AllowText, MaxMessage: 1, MaxFragments: 1}, unmasked, nil},
		{"at a client, masked", frame.Rules{Role: frame.Client, Opcodes: frame.AllowText, MaxMessage: 1, MaxFragments: 1}, text, frame.ErrMasked},
	} {
		var r frame.Reader
		ev, _, err := r.Next(&c.rules, bytes.Clone(c.wire))
		if err != c.want || err == nil && string(ev.Payload) != "t" {
			t.Errorf("%s: %+v %v, want %v", c.name, ev, err, c.want)
		}
	}
}

// A bad byte is seen as soon as it is here, though its frame is not.
func TestTextFailsFast(t *testing.T) {
	for _, bad := range []string{"\xff", "ok\x80", "\xe0\x80", "\xed\xa0", "\xf4\x90", "\xf0\x8f", "\xc3(", "\xe2\x82("} {
		frame10 := frametest.Frame(0x81, bad+strings.Repeat("a", 100))
		p := &peer{rules: &defaults}
		upTo := 6 + len(bad)
		for _, b := range frame10[:upTo-1] {
			p.feed(t, []byte{b})
		}
		if p.err != nil {
			t.Errorf("%q: %v before its last byte", bad, p.err)
		}
		p.feed(t, frame10[upTo-1:upTo])
		if p.err != frame.ErrText {
			t.Errorf("%q: %v at its last byte", bad, p.err)
		}
	}
}

// How the bytes were cut changes nothing: whole, byte by byte, in random pieces.
func TestAnySplit(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, wire := range corpus() {
		checkSplits(t, &defaults, wire, random)
	}
}

func checkSplits(t *testing.T, rules *frame.Rules, wire []byte, random *rand.Rand) {
	t.Helper()
	once := &peer{rules: rules}
	once.feed(t, wire)
	for _, longest := range []int{1, 3, 20, 3000} {
		cut := &peer{rules: rules}
		for rest := wire; len(rest) > 0; {
			n := min(len(rest), 1+random.IntN(longest))
			cut.feed(t, rest[:n])
			rest = rest[n:]
		}
		if cut.transcript() != once.transcript() {
			t.Fatalf("%.40x in pieces of up to %d bytes tells\n%.300s\nand at once\n%.300s", wire, longest, cut.transcript(), once.transcript())
		}
	}
}

// corpus is every row of the tables as one piece.
func corpus() (all [][]byte) {
	for _, c := range frametest.Bad {
		all = append(all, bytes.Join(c.Wire, nil))
	}
	for _, c := range frametest.Good {
		all = append(all, bytes.Join(c.Wire, nil))
	}
	for _, c := range frametest.GoodCompressed {
		all = append(all, bytes.Join(c.Wire, nil))
	}
	for _, c := range frametest.BadCompressed {
		all = append(all, bytes.Join(c.Wire, nil))
	}
	return all
}

func TestNoAllocations(t *testing.T) {
	wire := frametest.Frame(0x81, strings.Repeat("text é", 100))
	fragment, last, ping := frametest.Frame(0x01, "a\xc3"), frametest.Frame(0x80, "\xa9"), frametest.Frame(0x89, "ping")
	unmasked := []byte{0x81, 0}
	dst := make([]byte, 0, 256)
	var r frame.Reader
	next := func(in []byte) {
		for len(in) > 0 {
			_, n, err := r.Next(&defaults, in)
			if err != nil || n == 0 {
				t.Fatal(n, err)
			}
			in = in[n:]
		}
	}
	for name, f := range map[string]func(){
		"whole frames": func() { next(wire); remask(wire) },
		"parts":        func() { next(wire[:9]); next(wire[9:]); remask(wire) },
		"fragments": func() {
			next(fragment)
			next(ping)
			next(last)
			remask(fragment)
			remask(ping)
			remask(last)
		},
		"append": func() {
			dst = frame.AppendClose(dst[:0], frame.CloseDrain, "drain")
			dst = frame.AppendCloseMasked(dst, frame.CloseDrain, "drain", [4]byte{1, 2, 3, 4})
			dst = frame.Append(dst, frame.Header{Fin: true, Op: frame.Binary, Len: 70000})
		},
		"refusal": func() {
			var r frame.Reader
			if _, _, err := r.Next(&defaults, unmasked); err == nil {
				t.Fatal("not refused")
			}
		},
	} {
		if got := testing.AllocsPerRun(100, f); got != 0 {
			t.Errorf("%s: %v allocations, want 0", name, got)
		}
	}
}

// remask undoes what Next did to a frame of the tables.
func remask(wire []byte) {
	h, n, _ := frame.Parse(wire)
	frame.Mask(wire[n:], h.Mask, 0)
}

// A UTF8 says of any string in any pieces what utf8.Valid says of the whole.
func TestUTF8(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	parts := []string{"a", "é", "€", "\U0001f600", "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\xff", "\x80", "\xed\xa0\x80", ""}
	for range 5000 {
		var s string
		for range random.IntN(6) {
			s += parts[min(random.IntN(len(parts)+8)/2, len(parts)-1)]
		}
		var u frame.UTF8
		ok := true
		for rest := []byte(s); len(rest) > 0 && ok; {
			n := 1 + random.IntN(len(rest))
			ok = u.Add(rest[:n])
			rest = rest[n:]
		}
		if got := ok && u.Whole(); got != utf8.ValidString(s) {
			t.Fatalf("%q: %v", s, got)
		}
	}
}
