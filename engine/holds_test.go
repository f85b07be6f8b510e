package engine_test

import (
	"strings"
	"testing"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/ticket"
)

// TestHeldMessages: they come whole, however long it gets, and beside others that are under way.
func TestHeldMessages(t *testing.T) {
	r := newRig(t, nil, quiet)
	const longest = 64 << 10
	var lengths []int
	r.stream.onReceive = func(_ engine.Conn, ev *frame.Event) {
		if s := string(ev.Payload); s != strings.Repeat(s[:1], len(s)) {
			t.Errorf("%d bytes, and not of one message", len(s))
		}
		lengths = append(lengths, len(ev.Payload))
	}
	for _, n := range []int{1, 4095, 4096, 4097, 5000, 20_000, longest} {
		a, b := r.open(ticket.Claims{Client: "bob"}), r.open(ticket.Claims{Client: "bob"})
		for _, pieces := range []int{1, 2, 3, 100} {
			lengths = lengths[:0]
			op := frame.Text
			for i := range pieces {
				part := n*(i+1)/pieces - n*i/pieces
				for c, p := range map[string]*reactor.Pipe{"a": a, "b": b} {
					p.Write(client(op, i == pieces-1, strings.Repeat(c, part)))
					r.mem.Run()
				}
				op = frame.Continuation
			}
			if len(lengths) != 2 || lengths[0] != n || lengths[1] != n {
				t.Errorf("%d bytes in %d pieces: messages of %d", n, pieces, lengths)
			}
		}
		for _, p := range []*reactor.Pipe{a, b} {
			p.Reset()
		}
		r.mem.Run()
	}
	r.gone("bob")
}

// TestHeldMessagesLeaveNoGarbage once their buffers are there.
func TestHeldMessagesLeaveNoGarbage(t *testing.T) {
	r := newRig(t, nil, quiet)
	r.stream.onReceive = func(engine.Conn, *frame.Event) {}
	p := r.open(ticket.Claims{})
	begin, end := client(frame.Binary, false, strings.Repeat("x", 3000)), client(frame.Continuation, true, strings.Repeat("y", 3000))
	if n := testing.AllocsPerRun(100, func() {
		p.Write(begin)
		r.mem.Run()
		p.Write(end)
		r.mem.Run()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestHeldPages: a message counts for what it makes resident. One that has outgrown its first buffer has whole pages, and left
// that one behind.
func TestHeldPages(t *testing.T) {
	r := newRig(t, nil, quiet)
	p := r.open(ticket.Claims{})
	op := frame.Text
	for _, c := range []struct{ more, want int }{{4000, 4096}, {100, 12288}, {4092, 12288}, {1, 16384}} {
		r.say(p, client(op, false, strings.Repeat("x", c.more)))
		op = frame.Continuation
		if held := r.engine.Stats().Held; held != int64(c.want) {
			t.Errorf("after %d bytes more %d count, want %d", c.more, held, c.want)
		}
	}
	p.Reset()
	r.mem.Run()
	r.gone("bob")
}
