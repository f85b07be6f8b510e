package engine_test

import (
	"bytes"
	"strings"
	"testing"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

// TestManyMessagesInOneRead: what many messages of one read leave behind is what they would have left one by one.
func TestManyMessagesInOneRead(t *testing.T) {
	size := func(n uint64) *limiter.Size { return new(limiter.Size(n)) }
	for name, c := range map[string]struct {
		limits map[string]limiter.Options
		wire   []byte
		passed uint64 // messages in
		bytes  uint64
		ends   frame.Code // 0: stays open
		left   int        // of the client's own bucket, for another socket; -1: not asked
	}{
		"all pass": {map[string]limiter.Options{
			"messages-in": {Rate: rate(t, "20/1hour"), Per: limiter.PerClient}, "bytes-in": {Rate: rate(t, "1KiB/1hour")},
		}, bytes.Repeat(client(frame.Binary, true, "12345"), 16), 16, 80, 0, 4},
		"some are too many": {map[string]limiter.Options{
			"messages-in": {Rate: rate(t, "10/1hour"), Per: limiter.PerClient},
		}, bytes.Repeat(client(frame.Binary, true, "12345"), 16), 10, 50, frame.CloseLimit, 0},
		"some are dropped": {map[string]limiter.Options{
			"messages-in": {Rate: rate(t, "10/1hour"), Per: limiter.PerConnection, WhenExceeded: "drop-newest"},
		}, bytes.Repeat(client(frame.Binary, true, "12345"), 16), 10, 50, 0, -1},
		"bytes run out": {map[string]limiter.Options{
			"bytes-in": {Rate: rate(t, "1/1hour"), Burst: size(42)},
		}, bytes.Repeat(client(frame.Binary, true, "12345"), 16), 8, 40, frame.CloseLimit, -1},
		"what comes out runs out": {map[string]limiter.Options{
			"messages-out": {Rate: rate(t, "3/1hour")},
		}, bytes.Repeat(client(frame.Binary, true, "12345"), 16), 4, 20, frame.CloseLimit, -1},
		"a broken frame in the middle gives the rest back": {map[string]limiter.Options{
			"messages-in": {Rate: rate(t, "10/1hour"), Per: limiter.PerClient},
		}, append(append(bytes.Repeat(client(frame.Binary, true, "12345"), 3), 0xff, 0x80, 1, 2, 3, 4), bytes.Repeat(client(frame.Binary, true, "12345"), 5)...),
			3, 15, frame.CloseProtocol, 7},
		"fragments": {map[string]limiter.Options{
			"messages-in": {Rate: rate(t, "3/1hour"), Per: limiter.PerClient}, "bytes-in": {Rate: rate(t, "1KiB/1hour")},
		}, bytes.Repeat(append(client(frame.Text, false, "ab"), client(frame.Continuation, true, "cd")...), 3), 3, 12, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.limits, nil)
			p := r.open(ticket.Claims{Client: "ann"})
			p.Write(c.wire)
			r.mem.Run()
			s := r.engine.Stats().Streams[0]
			if s.Messages[limiter.In] != c.passed || s.Bytes[limiter.In] != c.bytes {
				t.Errorf("%d messages with %d bytes passed, want %d with %d", s.Messages[limiter.In], s.Bytes[limiter.In], c.passed, c.bytes)
			}
			if open := r.stream.joined[0].Open(); open != (c.ends == 0) {
				t.Errorf("open %v", open)
			}
			if c.ends != 0 && r.stream.ends[0].Code != c.ends {
				t.Errorf("ended with %d, want %d", r.stream.ends[0].Code, c.ends)
			}
			if c.left >= 0 {
				r.expectLeft(c.left)
			}
		})
	}
}

// expectLeft sends one message after the other on another socket of the same client.
func (r *rig) expectLeft(want int) {
	r.t.Helper()
	p := r.open(ticket.Claims{Client: "ann"})
	n := 0
	for c := r.stream.joined[len(r.stream.joined)-1]; ; n++ {
		p.Write(client(frame.Binary, true, "x"))
		if r.mem.Run(); !c.Open() {
			break
		}
	}
	if n != want {
		r.t.Errorf("%d messages left, want %d", n, want)
	}
}

// TestDecisionsOfATurn: limits count what they decided, however many messages a read brought.
func TestDecisionsOfATurn(t *testing.T) {
	r := newRig(t, map[string]limiter.Options{
		"messages-in": {Rate: rate(t, "10/1hour"), WhenExceeded: "drop-newest"},
		"bytes-out":   {Rate: rate(t, "1MiB/1hour")},
	}, nil)
	p := r.open(ticket.Claims{})
	for range 2 {
		p.Write(bytes.Repeat(client(frame.Binary, true, "1"), 8))
		r.mem.Run()
	}
	for _, l := range r.engine.Stats().Limits {
		allow, refuse := uint64(10), uint64(6)
		if l.Limit == "bytes-out" {
			refuse = 0
		}
		if l.Allow != allow || l.Refuse != refuse {
			t.Errorf("%s allowed %d and refused %d, want %d and %d", l.Limit, l.Allow, l.Refuse, allow, refuse)
		}
	}
}

// TestExpect: what a stream announced to a client and did not bring is given back when it settles.
func TestExpect(t *testing.T) {
	r := newRig(t, map[string]limiter.Options{"messages-out": {Rate: rate(t, "10/1hour"), Per: limiter.PerClient}}, nil)
	r.stream.onReceive = func(c engine.Conn, ev *frame.Event) {
		r.engine.Do(0, func(*reactor.Loop) {
			c.Expect(8, 80)
			for range 3 {
				c.Send(frame.Text, []byte("x"))
			}
			c.Settle()
			for range len(ev.Payload) {
				c.Send(frame.Text, []byte("y"))
			}
		})
	}
	p := r.open(ticket.Claims{})
	p.Write(client(frame.Binary, true, strings.Repeat("n", 7)))
	r.mem.Run()
	if got := string(p.Read()); got != strings.Repeat("\x81\x01x", 3)+strings.Repeat("\x81\x01y", 7) {
		t.Errorf("got %q", got)
	}
	if s := r.engine.Stats().Streams[0]; s.Messages[limiter.Out] != 10 {
		t.Errorf("%d messages counted", s.Messages[limiter.Out])
	}
	p.Write(client(frame.Binary, true, "1"))
	r.mem.Run()
	if r.stream.joined[0].Open() {
		t.Error("more than the limit passed")
	}
}

// TestPassKeepsOrderAndBytes: long messages that go back from where they lie, between short ones and pongs.
func TestPassKeepsOrderAndBytes(t *testing.T) {
	r := newRig(t, nil, nil)
	r.stream.onReceive = func(c engine.Conn, ev *frame.Event) {
		if c.Begin(true, int64(len(ev.Payload))).Sent <= engine.SentHold {
			c.Pass(frame.Header{Fin: true, Op: ev.Op}, ev)
		}
	}
	p := r.open(ticket.Claims{})
	var wire, want []byte
	for i, n := range []int{1, 5000, 125, 20_000, 70, 9000, 4096, 4095} {
		text := strings.Repeat(string(rune('a'+i)), n)
		op := frame.Binary
		if i%2 == 1 {
			op = frame.Text
		}
		wire = append(wire, client(op, true, text)...)
		want = append(frame.Append(want, frame.Header{Fin: true, Op: op, Len: int64(n)}), text...)
		wire = append(wire, client(frame.Ping, true, "p")...)
		want = append(want, "\x8a\x01p"...)
	}
	p.Write(wire)
	r.mem.Run()
	if got := p.Read(); !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, want %d, or others", len(got), len(want))
	}
}
