package engine_test

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/deflate"
	"ticketgate/engine/frame"
	"ticketgate/engine/frame/frametest"
	"ticketgate/engine/reactor"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

const (
	offer    = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
	accepted = "\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n"
)

func compressing(o *engine.Options) {
	quiet(o)
	o.Compression, o.InflateRatio = true, deflate.RatioDefault
}

// shrunk is s as a client's whole compressed message.
func shrunk(op frame.Op, s string) []byte {
	b := client(op, true, shrink(s))
	b[0] |= frame.RSV1 << 4
	return b
}

// shrink compresses s as a client does, by the standard library.
func shrink(s string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	_, _ = io.WriteString(w, s)
	_ = w.Flush()
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

// grown inflates what the server sent in one frame.
func grown(t testing.TB, wire []byte) (payload string, compressed bool) {
	t.Helper()
	h, n, err := frame.Parse(wire)
	if err != nil || n == 0 || int64(len(wire)-n) != h.Len || !h.Fin {
		t.Fatalf("%+v, %v: not one whole frame in %d bytes", h, err, len(wire))
	}
	if h.Rsv == 0 {
		return string(wire[n:]), false
	}
	out, err := io.ReadAll(flate.NewReader(strings.NewReader(string(wire[n:]) + "\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
	if err != nil || h.Rsv != frame.RSV1 {
		t.Fatalf("%+v: %v", h, err)
	}
	return string(out), true
}

// all is what the server sends, also of what has no room in the pipe at once.
func (r *rig) all(p *reactor.Pipe) (wire []byte) {
	for b := p.Read(); len(b) > 0; b = p.Read() {
		wire = append(wire, b...)
		r.mem.Run()
	}
	return wire
}

func TestNegotiation(t *testing.T) {
	r := newRig(t, nil, compressing)
	for _, c := range []struct{ line, want string }{
		{"", ""},
		{offer, accepted},
		{"Sec-WebSocket-Extensions: other\r\nSec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9",
			strings.TrimSuffix(accepted, "\r\n") + "; server_max_window_bits=9\r\n"},
		{"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=7", ""},
	} {
		m := r.issue(ticket.Claims{})
		var extra []string
		if c.line != "" {
			extra = []string{c.line}
		}
		p, answer := r.send(head(m, extra...))
		if !strings.HasPrefix(answer, "HTTP/1.1 101 ") || c.want != "" != strings.Contains(answer, "Extensions") || !strings.Contains(answer, c.want) {
			t.Errorf("%q: %q", c.line, answer)
		}
		if got, want := r.say(p, shrunk(frame.Text, "Hello")), "Hello"; c.want != "" && got != want {
			t.Errorf("%q: a compressed message: %q", c.line, got)
		} else if c.want == "" && got != "close 1002 " {
			t.Errorf("%q: RSV1 without the extension: %q", c.line, got)
		}
		p.Reset()
		r.mem.Run()
	}
	m := r.issue(ticket.Claims{})
	bad, answer := r.send(head(m, "Sec-WebSocket-Extensions: permessage-deflate;;"))
	bad.Reset()
	if !strings.HasPrefix(answer, "HTTP/1.1 400 ") || r.engine.Stats().Rejected["extensions"] != 1 {
		t.Errorf("a malformed list: %q", answer)
	}
	p, answer := r.send(head(m, offer))
	if !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
		t.Errorf("the ticket was spent by a malformed list: %q", answer)
	}
	p.Reset()
	r.mem.Run()
	r.gone()

	off := newRig(t, nil, quiet)
	for _, line := range []string{offer, "Sec-WebSocket-Extensions: ;;;"} {
		p, answer := off.send(head(off.issue(ticket.Claims{}), line))
		if !strings.HasPrefix(answer, "HTTP/1.1 101 ") || strings.Contains(answer, "Extensions") {
			t.Errorf("off, %q: %q", line, answer)
		}
		if got := off.say(p, shrunk(frame.Text, "Hello")); got != "close 1002 " {
			t.Errorf("off, RSV1: %q", got)
		}
	}
}

// Every good message of the table reaches the stream whole, and comes back; at once, byte by byte, and all on one socket.
func TestGoodCompressed(t *testing.T) {
	for _, step := range []int{1 << 20, 1} {
		r := newRig(t, nil, compressing)
		var got []frametest.Message
		r.stream.onReceive = func(_ engine.Conn, ev *frame.Event) {
			if !ev.First || !ev.Last || !ev.Head || !ev.Tail || !ev.Fin || ev.Compressed || ev.FrameLen != int64(len(ev.Payload)) {
				t.Errorf("%+v", ev)
			}
			got = append(got, frametest.Message{Op: ev.Op, Payload: string(ev.Payload)})
		}
		one := r.open(ticket.Claims{}, offer)
		for _, c := range frametest.GoodCompressed {
			got = nil
			for wire := bytes.Join(c.Wire, nil); len(wire) > 0; {
				n := min(step, len(wire))
				one.Write(wire[:n])
				r.mem.Run()
				wire = wire[n:]
			}
			if len(got) != 1 || got[0] != c.Message {
				t.Errorf("%s: %q, want %q", c.Name, got, c.Message)
			}
			if n := r.engine.Stats().Held; n != 0 {
				t.Errorf("%s: %d bytes held", c.Name, n)
			}
		}
		if s := r.heard(one); strings.Contains(s, "close") {
			t.Errorf("%q", s)
		}
	}
}

// Every bad one closes with its code, before anything of it reaches the stream, and gives back what it held.
func TestBadCompressed(t *testing.T) {
	for _, c := range append(slices.Clone(frametest.BadDeflate), frametest.BadCompressed...) {
		for _, step := range []int{1 << 20, 1} {
			r := newRig(t, nil, compressing)
			p := r.open(ticket.Claims{}, offer)
			seen := 0
			r.stream.onReceive = func(_ engine.Conn, ev *frame.Event) {
				if string(ev.Payload) != "Hello" { // what a row has before its bad message
					seen++
				}
			}
			for wire := bytes.Join(c.Wire, nil); len(wire) > 0; {
				n := min(step, len(wire))
				p.Write(wire[:n])
				r.mem.Run()
				wire = wire[n:]
			}
			got := frames(t, p.Read())
			if last := len(got) - 1; last < 0 || got[last] != fmt.Sprintf("close %d ", c.Code) || seen != 0 {
				t.Errorf("%s: %q, want code %d; the stream saw %d of it", c.Name, got, c.Code, seen)
			}
			if n := r.engine.Stats().Held; n != 0 {
				t.Errorf("%s: %d bytes held", c.Name, n)
			}
			p.Reset()
			r.mem.Run()
			r.gone()
		}
	}
}

// The verdict on a bomb falls with the byte that passes the limit, and no more than the limit is held.
func TestBombInPieces(t *testing.T) {
	bomb := frametest.Bomb(1 << 20)
	r := newRig(t, nil, compressing)
	p := r.open(ticket.Claims{}, offer)
	h := frame.Header{Op: frame.Binary, Rsv: frame.RSV1, Masked: true, Len: int64(len(bomb))}
	p.Write(frame.Append(nil, h))
	held := int64(0)
	for i := range len(bomb) {
		p.Write([]byte(bomb[i : i+1]))
		r.mem.Run()
		if got := frames(t, p.Read()); len(got) > 0 {
			if least := 64 << 10 / deflate.RatioMost; got[0] != "close 1009 " || i < least || i > least+30 {
				t.Errorf("after %d bytes: %q", i+1, got)
			}
			break
		}
		held = max(held, r.engine.Stats().Held)
	}
	if held < 60<<10 || held > 68<<10+int64(deflate.Size) {
		t.Errorf("%d bytes held at most", held)
	}
	if n := r.engine.Stats().Held; n != 0 {
		t.Errorf("%d bytes held behind it", n)
	}
}

// Limits and counters see what a message inflates to.
func TestLimitsCountInflated(t *testing.T) {
	text := strings.Repeat("all the same ", 100) // 1,300 bytes, some 30 of them compressed
	for _, c := range []struct {
		name, limit, rate, action string
		messages                  int
		want                      string // what the last says
	}{
		{"bytes", "bytes-in", "4000/1minute", "close", 4, "close 4429 limit:bytes-in"},
		{"bytes, dropped", "bytes-in", "4000/1minute", "drop-newest", 4, ""},
		{"messages", "messages-in", "3/1minute", "close", 4, "close 4429 limit:messages-in"},
		{"messages, dropped", "messages-in", "3/1minute", "drop-newest", 5, ""},
	} {
		for _, parts := range []int{1, 3} {
			r := newRig(t, plan(t, c.limit, c.rate, c.action), compressing)
			seen := 0
			r.stream.onReceive = func(_ engine.Conn, ev *frame.Event) {
				seen++
				if string(ev.Payload) != text {
					t.Errorf("%s: %q", c.name, ev.Payload)
				}
			}
			p := r.open(ticket.Claims{}, offer)
			got := ""
			for range c.messages {
				got = r.say(p, inParts(shrink(text), parts)...)
			}
			if got != c.want || seen != 3 {
				t.Errorf("%s in %d parts: %q after %d messages, want %q after 3", c.name, parts, got, seen, c.want)
			}
			if s := r.engine.Stats().Streams[0]; s.Messages[limiter.In] != 3 || s.Bytes[limiter.In] != uint64(3*len(text)) {
				t.Errorf("%s: counted %v messages, %v bytes", c.name, s.Messages, s.Bytes)
			}
		}
	}
	r := newRig(t, plan(t, "bytes-out", "4000/1minute", "close"), compressing)
	p := r.open(ticket.Claims{}, offer)
	for range 3 {
		p.Write(shrunk(frame.Text, text))
		r.mem.Run()
		if got, compressed := grown(t, p.Read()); got != text || !compressed {
			t.Errorf("%q", got)
		}
	}
	if got := r.say(p, shrunk(frame.Text, text)); got != "close 4429 limit:bytes-out" {
		t.Errorf("bytes-out: %q", got)
	}
}

// inParts is a compressed text of n fragments.
func inParts(payload string, n int) (all [][]byte) {
	op, rsv := frame.Text, byte(frame.RSV1<<4)
	for i := range n {
		from, to := i*len(payload)/n, (i+1)*len(payload)/n
		f := client(op, i == n-1, payload[from:to])
		f[0] |= rsv
		all = append(all, f)
		op, rsv = frame.Continuation, 0
	}
	return all
}

// What inflates is held within the node's budget, with what inflating itself takes.
func TestInflatedIsHeld(t *testing.T) {
	var text string
	for n := range 2000 {
		text += fmt.Sprintf("%d,", n*n)
	}
	parts := inParts(shrink(text), 2)
	budget := int64(deflate.Size) + 22_000 // whole pages count, and one more
	r := newRig(t, nil, func(o *engine.Options) { compressing(o); o.HoldMax = budget })
	one := r.open(ticket.Claims{}, offer)
	r.say(one, parts[0])
	held := r.engine.Stats().Held
	if held < int64(deflate.Size) || held > int64(deflate.Size+len(text)+8<<10) {
		t.Errorf("%d bytes held", held)
	}
	two := r.open(ticket.Claims{}, offer)
	if got := r.say(two, parts[0]); got != "close 1013 overloaded" {
		t.Errorf("over the budget: %q", got)
	}
	if n := r.engine.Stats().Held; n != held {
		t.Errorf("%d bytes held, want %d", n, held)
	}
	one.Write(parts[1])
	r.mem.Run()
	if got, _ := grown(t, one.Read()); got != text {
		t.Errorf("%d bytes came back", len(got))
	}
	if n := r.engine.Stats().Held; n != 0 {
		t.Errorf("%d bytes held behind it", n)
	}
	whole := newRig(t, nil, func(o *engine.Options) { compressing(o); o.HoldMax = 5000 })
	if got := whole.say(whole.open(ticket.Claims{}, offer), shrunk(frame.Text, text)); got != "close 1013 overloaded" {
		t.Errorf("at once, over the budget: %q", got)
	}
}

// Messages to a client are compressed if that pays: whole ones, from 512 bytes on, that get smaller.
func TestDeflated(t *testing.T) {
	noise := make([]byte, 2000)
	for i := range noise {
		noise[i] = byte(i * i * 7919 >> 5)
	}
	text := strings.Repeat("nothing new under the sun; ", 10_000)
	for _, c := range []struct {
		name    string
		payload string
		extra   string
		want    bool
	}{
		{"text", text[:1000], offer, true},
		{"at the least size", text[:deflate.Min], offer, true},
		{"below it", text[:deflate.Min-1], offer, false},
		{"64 KiB", text[:64<<10], offer, true},
		{"at the largest size", text[:deflate.Max], offer, true},
		{"above it", text[:deflate.Max+1], offer, false},
		{"noise", string(noise), offer, false},
		{"a window of 512 bytes", text[:5000], "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9", true},
		{"a window of 256 bytes", text[:5000], "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8", true},
		{"not agreed", text[:5000], "X: y", false},
	} {
		r := newRig(t, nil, func(o *engine.Options) { compressing(o); o.Queue = 1 << 20 })
		p := r.open(ticket.Claims{}, c.extra)
		conn := r.stream.joined[0]
		if conn.Compresses(int64(len(c.payload))) != (c.want || c.name == "noise") {
			t.Errorf("%s: Compresses is %v", c.name, !c.want)
		}
		for name, send := range map[string]func(){
			"Send":  func() { conn.Send(frame.Text, []byte(c.payload)) },
			"Frame": func() { conn.Frame(frame.Header{Fin: true, Op: frame.Text}, []byte(c.payload)) },
			"Pass":  func() { conn.Pass(frame.Header{Fin: true, Op: frame.Text}, &frame.Event{Payload: []byte(c.payload)}) },
			"Compress": func() {
				if _, ok := conn.Compress(frame.Text, []byte(c.payload)); !ok {
					conn.Frame(frame.Header{Fin: true, Op: frame.Text}, []byte(c.payload))
				}
			},
			"PassBody": func() {
				conn.PassBody(append(frame.Append(nil, frame.Header{Fin: true, Op: frame.Text, Len: int64(len(c.payload))}), c.payload...))
			},
			"SendMessage": func() {
				m := r.engine.NewMessage(frame.Text, []byte(c.payload))
				conn.SendMessage(&m)
			},
		} {
			r.onLoop(func(*reactor.Loop) { send() })
			wire := r.all(p)
			got, compressed := grown(t, wire)
			want := c.want && (name != "SendMessage" || c.extra == offer) // small windows get what is shared plain
			if got != c.payload || compressed != want || compressed && len(wire) >= len(c.payload) {
				t.Errorf("%s, %s: %d bytes came as %d, compressed %v, want %v", c.name, name, len(got), len(wire), compressed, want)
			}
		}
		for _, h := range []frame.Header{{Fin: false, Op: frame.Text}, {Fin: false, Op: frame.Continuation}, {Fin: true, Op: frame.Continuation}} {
			r.onLoop(func(*reactor.Loop) { conn.Frame(h, []byte(c.payload)) })
			if got, _, _ := frame.Parse(r.all(p)); got.Rsv != 0 || got.Len != int64(len(c.payload)) {
				t.Errorf("%s, a fragment: %+v", c.name, got)
			}
		}
	}
}

// A message to many is compressed once, for those who agreed, and not at all when nobody did.
func TestMessageToMany(t *testing.T) {
	r := newRig(t, nil, compressing)
	text := strings.Repeat("to whom it may concern ", 100)
	if m := r.engine.NewMessage(frame.Text, []byte(text)); m.Size() > len(text)+8 {
		t.Errorf("compressed for nobody: %d bytes", m.Size())
	}
	plain, packed := r.open(ticket.Claims{}), r.open(ticket.Claims{}, offer)
	narrow := r.open(ticket.Claims{}, "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=14")
	early := r.engine.NewMessage(frame.Text, []byte(text))
	if early.Size() <= len(text)+8 || early.Size() > len(text)+len(text)/4 {
		t.Errorf("plain and compressed take %d bytes", early.Size())
	}
	for i, p := range []*reactor.Pipe{plain, packed, narrow} {
		conn := r.stream.joined[i]
		r.onLoop(func(*reactor.Loop) { conn.SendMessage(&early) })
		if got, compressed := grown(t, p.Read()); got != text || compressed != (p == packed) {
			t.Errorf("%q, compressed %v", got, compressed)
		}
	}
	packed.Reset()
	r.mem.Run()
	if m := r.engine.NewMessage(frame.Text, []byte(text)); m.Size() > len(text)+8 {
		t.Errorf("compressed for one that has left: %d bytes", m.Size())
	}
}

// A client that sends hundreds of small bombs in one write is not served to their end before others, and hundreds of clients that
// send a few are not, either.
func TestBombsTakeTurns(t *testing.T) {
	for name, row := range map[string]struct {
		payload string
		most    int // of them until the other has its turn
	}{
		"much in little":      {frametest.Bomb(60 << 10), 25},
		"work without a byte": {frametest.EmptyBlocks(40), 12},
	} {
		bomb := client(frame.Binary, true, row.payload)
		bomb[0] |= frame.RSV1 << 4
		for _, clients := range []int{1, 100} {
			t.Run(fmt.Sprintf("%s, %d clients", name, clients), func(t *testing.T) {
				r := newRig(t, nil, compressing)
				var order []string
				r.stream.onReceive = func(_ engine.Conn, ev *frame.Event) {
					order = append(order, string(ev.Payload[:min(1, len(ev.Payload))]))
				}
				var greedy []*reactor.Pipe
				for i := range clients {
					greedy = append(greedy, r.open(ticket.Claims{Client: fmt.Sprint("bob", i)}, offer))
				}
				other := r.open(ticket.Claims{}, offer)
				const bombs = 200
				for _, p := range greedy {
					p.Write(bytes.Repeat(bomb, bombs/clients))
				}
				other.Write(client(frame.Text, true, "me"))
				r.mem.Run()
				if at := slices.Index(order, "m"); len(order) != bombs+1 || at < 0 || at > row.most {
					t.Errorf("%d messages, the other's was number %d", len(order), at)
				}
			})
		}
	}
}

// TestLongBombsWaitForEachOther: when many clients send what is long once it is inflated, who says something short in the same
// moment, compressed or not, does not wait for all of them. Each of them gets its turn, whatever the others cost.
func TestLongBombsWaitForEachOther(t *testing.T) {
	var long string // of which 5 KiB and more have to be sent
	for n := range 3000 {
		long += fmt.Sprintf("%x,", n*n*n)
	}
	for name, parts := range map[string][][]byte{
		"in fragments": inParts(shrink(strings.Repeat("long", 15_000)), 2),
		"in one frame": {shrunk(frame.Text, long)},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, compressing)
			var order []int
			r.stream.onReceive = func(_ engine.Conn, ev *frame.Event) { order = append(order, len(ev.Payload)) }
			const bombers = 60
			var pipes []*reactor.Pipe
			for i := range bombers + 1 {
				pipes = append(pipes, r.open(ticket.Claims{Client: fmt.Sprint("bob", i)}, offer))
			}
			plain := r.open(ticket.Claims{})
			for _, p := range pipes[:bombers] {
				p.Write(slices.Concat(parts...))
			}
			short := "short and short and short and short and short and short"
			pipes[bombers].Write(shrunk(frame.Text, short))
			plain.Write(client(frame.Text, true, short))
			r.mem.Run()
			first := slices.Index(order, len(short))
			if len(order) != bombers+2 || first < 0 || first > 10 || order[first+1] != len(short) {
				t.Errorf("%d messages, the short ones not first: %v", len(order), order)
			}
		})
	}
}

// TestATurnThatComesLate: who had to wait for others that inflate a lot is not blamed for what he sent in time.
func TestATurnThatComesLate(t *testing.T) {
	text := shrink(strings.Repeat("part", 15_000))
	parts, three := inParts(text, 2), inParts(text, 3)
	for name, row := range map[string]struct {
		change func(*engine.Options)
		before time.Duration // until the crowd comes
		begun  []byte        // what the client has sent by then,
		then   [][]byte      // and sends at the same moment as the crowd,
		late   []byte        // and before his turn
		long   int           // turns of the crowd that take 4 s
	}{
		"the rest of a message":   {quiet, 0, parts[0], parts[1:], nil, 6},
		"the last of three parts": {quiet, 0, three[0], three[1:2], three[2], 6},
		"a message after a while": {func(o *engine.Options) { quiet(o); o.Deadlines.Idle = 10 * time.Second }, 8 * time.Second, nil, parts, nil, 6},
		"a pong behind a message": {nil, 26 * time.Second, nil, append(parts[:2:2], client(frame.Pong, true, "")), nil, 20},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, func(o *engine.Options) {
				compressing(o)
				o.Deadlines.Ping = 25 * time.Second
				if row.change != nil {
					row.change(o)
				}
			})
			crowd := map[reactor.ID]bool{}
			var honest *reactor.Pipe
			var heard []string
			turns := 0
			r.stream.onReceive = func(c engine.Conn, ev *frame.Event) {
				switch {
				case !crowd[c.ID()]:
					heard = append(heard, string(ev.Payload[:4]))
				case len(heard) == 0:
					honest.Write(row.late)
					row.late = nil
					if turns++; turns < row.long {
						r.clock.Advance(4 * time.Second)
					} else {
						r.clock.Advance(50 * time.Millisecond)
					}
				}
			}
			var pipes []*reactor.Pipe
			for i := range 6 {
				pipes = append(pipes, r.open(ticket.Claims{Client: fmt.Sprint("bob", i)}, offer))
				crowd[r.stream.joined[i].ID()] = i < 5
			}
			honest = pipes[5]
			r.say(honest, row.begun)
			r.mem.Advance(row.before)
			for _, p := range pipes[:5] {
				p.Write(bytes.Repeat(slices.Concat(parts...), 4))
			}
			honest.Write(slices.Concat(row.then...))
			timers := r.engine.Stats().Reactor.Timers
			r.mem.Run()
			if len(heard) != 1 || heard[0] != "part" || strings.Contains(r.heard(honest), "close") || honest.Closed() {
				t.Errorf("heard %q, closed %v, ends %+v", heard, honest.Closed(), r.stream.ends)
			}
			if n := r.engine.Stats().Reactor.Timers - timers; n > uint64(row.long)+8 {
				t.Errorf("%d timers while he waited for %d turns", n, turns)
			}
		})
	}
}

func TestCompressedEchoDoesNotAllocate(t *testing.T) {
	r := newRig(t, map[string]limiter.Options{
		"messages-in": {Rate: rate(t, "1000000/1second"), Per: limiter.PerClient},
		"bytes-out":   {Rate: rate(t, "1GiB/1second"), Per: limiter.PerConnection},
	}, compressing)
	p := r.open(ticket.Claims{}, offer)
	text := strings.Repeat("again and again ", 200)
	for name, all := range map[string][]byte{
		"whole":        shrunk(frame.Text, text),
		"in fragments": slices.Concat(inParts(shrink(text), 3)...),
		"short":        shrunk(frame.Binary, "hi"),
	} {
		wire := make([]byte, len(all))
		once := func() {
			copy(wire, all)
			p.Write(wire)
			r.mem.Run()
			if len(p.Read()) == 0 {
				t.Fatal("no echo")
			}
		}
		once()
		if n := testing.AllocsPerRun(200, once); n != 0 {
			t.Errorf("%s: %v allocations a message", name, n)
		}
	}
}
