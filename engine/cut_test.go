package engine_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/internal/mono"
	"ticketgate/ticket"
	"time"
)

// cut lets the one loop of the rig give up bytes.
func (r *rig) cut(bytes int64) (held int64) {
	r.t.Helper()
	r.onLoop(func(*reactor.Loop) { held = r.engine.CutLoop(0, bytes) })
	return held
}

// TestCut: those go that hold most, whether it waits to be sent or has been begun, until it is enough.
func TestCut(t *testing.T) {
	r := newRig(t, nil, quiet)
	slow := func(name string, n int) *reactor.Pipe {
		p := r.open(ticket.Claims{Client: name})
		p.Window(0)
		c := r.stream.joined[len(r.stream.joined)-1]
		r.onLoop(func(*reactor.Loop) { c.Send(frame.Binary, make([]byte, n)) })
		return p
	}
	begun := func(name string, n int) *reactor.Pipe {
		p := r.open(ticket.Claims{Client: name})
		r.say(p, client(frame.Text, false, strings.Repeat("x", n)))
		return p
	}
	idle := r.open(ticket.Claims{Client: "idle"})
	small, large, largest := slow("small", 3<<10), slow("large", 100<<10), slow("largest", 200<<10)
	long, short := begun("long", 60<<10), begun("short", 20<<10)

	if held := r.cut(250 << 10); held != 300<<10+20 { // two frames' heads
		t.Errorf("they held %d bytes, want 300 KiB", held)
	}
	if !largest.WasReset() || !large.WasReset() || long.Closed() || short.Closed() || small.Closed() {
		t.Error("it was not the two largest that went")
	}
	if held := r.cut(1 << 30); held != 88<<10 {
		t.Errorf("they held %d bytes, want 88 KiB", held)
	}
	for _, p := range []*reactor.Pipe{long, short} {
		if got := r.heard(p); got != "close 1013 overloaded" || p.WasReset() {
			t.Errorf("a socket with a message under way heard %q, reset %v", got, p.WasReset())
		}
	}
	if small.Closed() || idle.Closed() {
		t.Error("a socket went that holds next to nothing")
	}
	s := r.engine.Stats()
	if n := s.Ended[engine.Ended{Stream: "echo", Code: frame.CloseOverloaded, By: engine.ByGateway}]; n != 4 || s.Streams[0].Cut != 2 || s.Held != 0 {
		t.Errorf("%d ended with 1013, %d of them slow, %d bytes held; want 4, 2, 0", n, s.Streams[0].Cut, s.Held)
	}
	for _, p := range []*reactor.Pipe{long, short, small, idle} {
		p.Close()
	}
	r.mem.Advance(20 * time.Second)
	r.gone("idle", "small", "large", "largest", "long", "short")
}

// TestCutUnread: what was read of a socket that waits counts as well, and is given back.
func TestCutUnread(t *testing.T) {
	r := newRig(t, nil, quiet)
	r.stream.onReceive = func(c engine.Conn, _ *frame.Event) { c.Pause() }
	waiting := func(name string, n int) *reactor.Pipe {
		p := r.open(ticket.Claims{Client: name})
		r.say(p, append(client(frame.Text, true, "x"), bytes.Repeat(client(frame.Text, true, strings.Repeat("x", 1017)), n)...)) // 1 KiB each
		return p
	}
	short, long, little := waiting("short", 8), waiting("long", 16), waiting("little", 1)
	if held := r.cut(10 << 10); held != 32<<10 {
		t.Errorf("the largest held %d bytes, want a buffer of 32 KiB", held)
	}
	if got := r.heard(long); !strings.HasSuffix(got, "close 1013 overloaded") || strings.Contains(r.heard(short), "close") {
		t.Errorf("the one with most left heard %q", got)
	}
	if held := r.cut(1 << 30); held != 16<<10 {
		t.Errorf("the next held %d bytes, want a buffer of 16 KiB", held)
	}
	if held := r.cut(1 << 30); held != 0 || little.Closed() {
		t.Errorf("%d bytes of nobody", held)
	}
}

// TestRoom: however much the budget would allow, messages under way grow only by what memory has left, until there is more.
func TestRoom(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { quiet(o); o.HoldMax, o.NodeQueue = 1<<20, 1<<20 })
	begun := r.open(ticket.Claims{Client: "begun"})
	r.say(begun, client(frame.Text, false, strings.Repeat("x", 12<<10)))
	r.engine.Room(32 << 10) // half of it: 16 KiB more
	if got := r.say(begun, client(frame.Continuation, false, strings.Repeat("x", 16<<10))); got != "" {
		t.Errorf("within the room: %q", got)
	}
	second := r.open(ticket.Claims{Client: "second"})
	if got := r.say(second, client(frame.Text, false, "x")); got != "close 1013 overloaded" {
		t.Errorf("beyond it: %q", got)
	}
	r.engine.Room(1 << 40)
	if got := r.say(begun, client(frame.Continuation, true, "x")); got != strings.Repeat("x", 28<<10+1) {
		t.Errorf("with more room the message of 28 KiB comes back as %d bytes", len(got))
	}
}

// TestRoomOfQueues: nor do queues grow beyond half of what memory has left, but for a little.
func TestRoomOfQueues(t *testing.T) {
	for _, c := range []struct {
		room int64
		sent int // of messages of 16 KiB
	}{{256 << 10, 8}, {0, 2}} {
		r := newRig(t, nil, func(o *engine.Options) { quiet(o); o.NodeQueue = 1 << 20 })
		r.engine.Room(c.room)
		p := r.open(ticket.Claims{})
		p.Window(0)
		conn, sent := r.stream.joined[0], 0
		for range 12 {
			r.onLoop(func(*reactor.Loop) {
				if conn.Send(frame.Binary, make([]byte, 16<<10-4)).Sent == engine.SentOK {
					sent++
				}
			})
		}
		if sent != c.sent || r.engine.Stats().Streams[0].Slow != 1 {
			t.Errorf("with room for %d bytes %d messages were queued, want %d, and the end", c.room, sent, c.sent)
		}
	}
}

// TestCutOnRealLoops: Cut says what has been given up, and lets who waits go when his time is over.
func TestCutOnRealLoops(t *testing.T) {
	r := newRig(t, nil, nil)
	o := r.options
	o.Clock, o.Assembly = mono.System, time.Hour
	e, err := engine.New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	addr, err := e.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if held := e.Cut(ctx, 1<<20); held != 0 {
		t.Errorf("%d bytes of loops that do not run", held)
	}
	e.Start()
	for i := range 6 {
		c := dial(t, addr.String())
		t.Cleanup(func() { _ = c.Close() })
		_, err := c.Write([]byte(head(r.issue(ticket.Claims{Client: "c" + itoa(uint16(1+i))}))))
		if err != nil {
			t.Fatal(err)
		}
		until(t, func() bool { return e.Stats().Streams[0].Opened == uint64(i)+1 })
		if _, err := c.Write(client(frame.Text, false, strings.Repeat("x", 20<<10))); err != nil {
			t.Fatal(err)
		}
		until(t, func() bool { return e.Stats().Held == int64(i+1)*24<<10 })
	}
	if held := e.Cut(t.Context(), 1<<20); held != 6*24<<10 || e.Stats().Held != 0 {
		t.Errorf("%d bytes given up, %d held; want %d and 0", held, e.Stats().Held, 6*24<<10)
	}
}
