package feedtest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/engine/upgrade"
)

// A Peer is the far end of a socket of the in-memory twin: a client, or a backend.
type Peer struct {
	*reactor.Pipe
	t      testing.TB
	m      *reactor.Memory
	name   string
	masks  bool // what it sends is masked: a client
	got    []byte
	reader frame.Reader
	rules  frame.Rules
	part   Message // under way
}

// NewPeer returns the far end p, which speaks as a client (masks) or as a server.
func NewPeer(t testing.TB, m *reactor.Memory, p *reactor.Pipe, name string, client bool) *Peer {
	role := frame.Server
	if client {
		role = frame.Client
	}
	return &Peer{Pipe: p, t: t, m: m, name: name, masks: client,
		rules: frame.Rules{Role: role, Opcodes: frame.AllowBoth, MaxMessage: 1 << 30, MaxFragments: 1 << 30}}
}

// Client connects to the gate and sends an upgrade request with a fresh ticket. Answer reads what comes back.
func (g *Gate) Client(t testing.TB, header string, protocols ...string) *Peer {
	t.Helper()
	target, secret := g.Ticket(t, protocols...)
	p := NewPeer(t, g.Memory, g.Memory.Connect(from), "client", true)
	p.Write([]byte("GET " + target + " HTTP/1.1\r\nHost: gate.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nTicketgate-Secret: " + secret + "\r\n" +
		header + "\r\n"))
	return p
}

// Raw runs the gate and returns all that has arrived and was not looked at.
func (p *Peer) Raw() []byte {
	p.m.Run()
	p.got = append(p.got, p.Read()...)
	return p.got
}

// Head takes an HTTP head, which must have arrived.
func (p *Peer) Head() string {
	p.t.Helper()
	head, rest, ok := bytes.Cut(p.Raw(), []byte("\r\n\r\n"))
	if !ok {
		p.t.Fatalf("%s: no whole head in %q", p.name, p.got)
	}
	p.got = bytes.Clone(rest)
	return string(head)
}

// Opened takes the 101 and returns its head.
func (p *Peer) Opened() string {
	p.t.Helper()
	head := p.Head()
	if !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		p.t.Fatalf("%s: answer %q, want 101", p.name, head)
	}
	return head
}

// Status takes the answer and returns its status.
func (p *Peer) Status() string {
	p.t.Helper()
	_, rest, _ := strings.Cut(p.Head(), " ")
	status, _, _ := strings.Cut(rest, " ")
	return status
}

// Frame sends one frame.
func (p *Peer) Frame(fin bool, op frame.Op, payload string) { p.Write(p.Wire(fin, op, payload)) }

// Text sends a whole text message.
func (p *Peer) Text(payload string) { p.Frame(true, frame.Text, payload) }

// Wire is the frame as p would send it.
func (p *Peer) Wire(fin bool, op frame.Op, payload string) []byte {
	h := frame.Header{Fin: fin, Op: op, Len: int64(len(payload)), Masked: p.masks}
	if p.masks {
		h.Mask = [4]byte{1, 2, 3, 4}
	}
	b := append(frame.Append(nil, h), payload...)
	frame.Mask(b[len(b)-len(payload):], h.Mask, 0)
	return b
}

// HalfFrame sends the beginning of a frame, one byte of whose payload never comes.
func (p *Peer) HalfFrame(op frame.Op, payload string) {
	b := p.Wire(true, op, payload)
	p.Write(b[:len(b)-1])
}

// Fragmented is text as p would send it in 1 to 4 frames cut at random, as binary.
func (p *Peer) Fragmented(rnd *rand.Rand, text string) (wire []byte) {
	op := frame.Binary
	for range rnd.IntN(4) {
		n := rnd.IntN(len(text) + 1)
		wire = append(wire, p.Wire(false, op, text[:n])...)
		text, op = text[n:], frame.Continuation
	}
	return append(wire, p.Wire(true, op, text)...)
}

// CloseFrame sends a close frame; code 0 is an empty one.
func (p *Peer) CloseFrame(code frame.Code, reason string) {
	if p.masks {
		p.Write(frame.AppendCloseMasked(nil, code, reason, [4]byte{9, 8, 7, 6}))
		return
	}
	p.Write(frame.AppendClose(nil, code, reason))
}

// Answer101 takes an upgrade request and accepts it, with the given subprotocol if it is not empty.
func (p *Peer) Answer101(protocol string) (head string) {
	p.t.Helper()
	head = p.Head()
	_, key, _ := strings.Cut(head, "Sec-WebSocket-Key: ")
	key, _, _ = strings.Cut(key, "\r\n")
	p.Write(upgrade.AppendSwitch(nil, []byte(key), []byte(protocol), nil))
	return head
}

// Next returns the next event that has arrived; Kind 0 if there is none. Breaking a rule fails the test.
func (p *Peer) Next() frame.Event {
	p.t.Helper()
	in := p.Raw()
	ev, n, err := p.reader.Next(&p.rules, in)
	if err != nil {
		p.t.Fatalf("%s: got frames that break a rule: %v in % x", p.name, err, in[:min(len(in), 40)])
	}
	ev.Payload = bytes.Clone(ev.Payload)
	p.got = in[n:]
	return ev
}

// A Message is what a peer got: data whole, or a control frame.
type Message struct {
	Kind   frame.Kind
	Op     frame.Op
	Code   frame.Code
	Text   string
	Frames int
}

// String is m in a few words, for failures.
func (m Message) String() string {
	switch m.Kind {
	case frame.KindData:
		return fmt.Sprintf("opcode %d in %d frames, %d bytes: %.20q", m.Op, m.Frames, len(m.Text), m.Text)
	case frame.KindClose:
		return fmt.Sprintf("close %d %q", m.Code, m.Text)
	default:
		return fmt.Sprintf("kind %d %.20q", m.Kind, m.Text)
	}
}

// Messages returns what has arrived: whole messages and control frames. Parts of an unfinished message are kept, see Partial.
func (p *Peer) Messages() (all []Message) {
	p.t.Helper()
	for {
		ev := p.Next()
		switch {
		case ev.Kind == 0:
			return all
		case ev.Kind != frame.KindData:
			all = append(all, Message{Kind: ev.Kind, Code: ev.Code, Text: string(ev.Payload)})
			continue
		}
		p.part.Kind, p.part.Op = frame.KindData, ev.Op
		p.part.Text += string(ev.Payload)
		if ev.Head {
			p.part.Frames++
		}
		if ev.Last {
			all = append(all, p.part)
			p.part = Message{}
		}
	}
}

// Expect fails the test unless exactly want has arrived.
func (p *Peer) Expect(want ...Message) {
	p.t.Helper()
	if got := p.Messages(); !slices.Equal(got, want) {
		p.t.Errorf("%s got\n%v\nwant\n%v", p.name, lines(got), lines(want))
	}
}

// lines prints messages one a line, and of many the first and the last.
func lines(ms []Message) string {
	var b strings.Builder
	for i, m := range ms {
		if i < 8 || i == len(ms)-1 {
			fmt.Fprintf(&b, "  %d: %v\n", i, m)
		}
	}
	return b.String()
}

// Partial is what Messages has seen of a message that has not ended.
func (p *Peer) Partial() Message { return p.part }

// Data is a whole message as Messages returns it.
func Data(op frame.Op, text string, frames int) Message {
	return Message{Kind: frame.KindData, Op: op, Text: text, Frames: frames}
}

// Closing is a close frame as Messages returns it.
func Closing(code frame.Code, reason string) Message {
	return Message{Kind: frame.KindClose, Code: code, Text: reason}
}

// Accept is the Sec-WebSocket-Accept for key.
func Accept(key string) string {
	var sum [upgrade.AcceptLen]byte
	upgrade.Accept(sum[:], []byte(key))
	return string(sum[:])
}
