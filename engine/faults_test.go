package engine_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

// quiet leaves pings out.
func quiet(o *engine.Options) { o.Deadlines.Ping = time.Hour }

// gone checks that nothing of any socket is left.
func (r *rig) gone(clients ...string) {
	r.t.Helper()
	for _, c := range append(clients, "ann") {
		if n := r.held(c); n != 0 {
			r.t.Errorf("%s still holds %d slots", c, n)
		}
	}
	if s := r.engine.Shared(); s.Names+s.Parked+s.Side+s.Flows+s.Holds+s.Pongs != 0 {
		r.t.Errorf("left behind: %+v", s)
	}
	if s := r.engine.Stats(); s.Live != 0 || s.Held != 0 || s.Streams[0].Open != 0 {
		r.t.Errorf("live %d, held bytes %d, open %d", s.Live, s.Held, s.Streams[0].Open)
	}
}

// TestPanicInGone: whatever a stream does when it hears of an end, the socket's slot and all else it shares are given back,
// and other sockets that end in the same callback are told.
func TestPanicInGone(t *testing.T) {
	limits := map[string]limiter.Options{"messages-in": {Rate: rate(t, "5/1minute"), Per: limiter.PerClient, WhenExceeded: "close"}}
	for name, end := range map[string]func(*rig, *reactor.Pipe){
		"client closes":  func(_ *rig, p *reactor.Pipe) { p.Write(client(frame.Close, true, "\x03\xe8")) },
		"network breaks": func(_ *rig, p *reactor.Pipe) { p.Reset() },
		"gateway closes": func(_ *rig, p *reactor.Pipe) { p.Write(client(frame.Text, true, "\xff")) },
		"drain":          func(r *rig, _ *reactor.Pipe) { r.drain(0) },
	} {
		t.Run(name, func(t *testing.T) {
			var logged []string
			r := newRig(t, limits, func(o *engine.Options) {
				o.Log = func(msg string, args ...any) { logged = append(logged, fmt.Sprint(msg, args)) }
			})
			r.stream.onGone = func(engine.Conn, engine.End) { panic("ann's secret") }
			var all []*reactor.Pipe
			for range 3 {
				all = append(all, r.open(ticket.Claims{}))
			}
			for _, p := range all {
				end(r, p)
			}
			r.mem.Advance(100 * time.Millisecond)
			for _, p := range all {
				p.CloseWrite()
			}
			r.mem.Run()
			if len(r.stream.ends) != 3 {
				t.Errorf("told of %d ends, want 3", len(r.stream.ends))
			}
			r.gone()
			if n := r.engine.Stats().Reactor.Panics; n != 3 {
				t.Errorf("%d panics counted, want 3", n)
			}
			if len(logged) != 3 || !strings.Contains(logged[0], "faults_test.go") || strings.Contains(logged[0], "secret") {
				t.Errorf("logged %d lines: %.200q", len(logged), logged)
			}
			var s limiter.TableStats
			if r.options.Table.Stats(&s); s.Held != 0 {
				t.Errorf("%d shared buckets are still held", s.Held)
			}
		})
	}
}

// TestPanicInGoneWhileJoining: one stream's panic in a drain does not keep the other sockets from hearing of it.
func TestPanicInGoneWhileJoining(t *testing.T) {
	r := newRig(t, nil, nil)
	r.stream.hold = true
	r.stream.onGone = func(engine.Conn, engine.End) { panic("gone") }
	var all []*reactor.Pipe
	for range 3 {
		p, _ := r.send(head(r.issue(ticket.Claims{})))
		all = append(all, p)
	}
	r.drain(0)
	for i, p := range all {
		if got := string(p.Read()); !strings.HasPrefix(got, "HTTP/1.1 503 ") {
			t.Errorf("socket %d: %q", i, got)
		}
		p.CloseWrite()
	}
	r.mem.Run()
	r.gone()
}

// TestPanics in the other calls of a stream end that socket alone.
func TestPanics(t *testing.T) {
	t.Run("Join", func(t *testing.T) {
		r := newRig(t, nil, nil)
		r.stream.onJoin = func(c engine.Conn, _ *engine.Join) { c.Accept(nil); panic("join") }
		p, got := r.send(head(r.issue(ticket.Claims{})))
		if !strings.HasPrefix(got, "HTTP/1.1 500 ") || len(r.stream.ends) != 1 {
			t.Errorf("%q, told of %d ends", got, len(r.stream.ends))
		}
		p.CloseWrite()
		r.mem.Run()
		r.gone()
	})
	t.Run("Join after its answer", func(t *testing.T) {
		r := newRig(t, nil, nil)
		r.stream.onJoin = func(c engine.Conn, _ *engine.Join) { c.Refuse(engine.ErrBackend); panic("join") }
		p, got := r.send(head(r.issue(ticket.Claims{})))
		if !strings.HasPrefix(got, "HTTP/1.1 502 ") || strings.Count(got, "HTTP/1.1 ") != 1 || !p.Closed() {
			t.Errorf("%q", got)
		}
		p.CloseWrite()
		r.mem.Run()
		r.gone()
	})
	t.Run("Receive of a held message", func(t *testing.T) {
		r := newRig(t, nil, nil)
		r.stream.panics = true
		p := r.open(ticket.Claims{})
		if got := r.say(p, client(frame.Text, false, "a"), client(frame.Continuation, true, "b")); got != "close 1011 fault" {
			t.Errorf("%q", got)
		}
		p.CloseWrite()
		r.mem.Run()
		r.gone()
	})
	t.Run("Drained", func(t *testing.T) {
		r := newRig(t, nil, nil)
		r.stream.onDrained = func(engine.Conn) { panic("drained") }
		p := r.open(ticket.Claims{})
		p.Window(10)
		p.Write(client(frame.Text, true, strings.Repeat("x", 100)))
		r.mem.Run()
		p.Window(1 << 20)
		r.mem.Run()
		if got := string(p.Read()); !strings.HasSuffix(got, "\x03\xf3fault") {
			t.Errorf("%q", got)
		}
		p.CloseWrite()
		r.mem.Run()
		r.gone()
	})
}

// TestGoneIsTheEnd: what a stream tries with a socket that has broken does nothing, and the end is counted once.
func TestGoneIsTheEnd(t *testing.T) {
	limits := plan(t, "messages-out", "1/1minute", "close")
	r := newRig(t, limits, nil)
	var sent []engine.Sent
	r.stream.onGone = func(c engine.Conn, _ engine.End) {
		if c.Word() != 42 {
			t.Errorf("the word is %d in Gone, want 42", c.Word())
		}
		for range 2 {
			sent = append(sent, c.Send(frame.Text, []byte("too late")).Sent)
		}
		c.Close(frame.CloseNormal, "", engine.ByGateway)
	}
	p := r.open(ticket.Claims{})
	r.onLoop(func(*reactor.Loop) { r.stream.joined[0].SetWord(42) })
	p.Reset()
	r.mem.Run()
	if len(r.stream.ends) != 1 || r.stream.ends[0].By != engine.ByNetwork || len(sent) != 2 || sent[0] != engine.SentGone || sent[1] != engine.SentGone {
		t.Errorf("ends %+v, sent %v", r.stream.ends, sent)
	}
	s := r.engine.Stats()
	if len(s.Ended) != 1 || s.Ended[engine.Ended{Stream: "echo", By: engine.ByNetwork}] != 1 {
		t.Errorf("ended: %v", s.Ended)
	}
	r.gone()
}

// TestAssemblyIsOfEachMessage: the clock of a message under way begins with that message, however its bytes are cut.
func TestAssemblyIsOfEachMessage(t *testing.T) {
	r := newRig(t, nil, quiet)
	r.stream.onReceive = func(engine.Conn, *frame.Event) {}
	p := r.open(ticket.Claims{})
	for op, half := range map[frame.Op]int{frame.Binary: 6, frame.Text: 4} {
		message := client(op, true, "abcd")
		p.Write(message[:half])
		for range 24 {
			r.mem.Advance(500 * time.Millisecond)
			p.Write(message[half:])
			p.Write(message[:half]) // in one read with the end of the one before
		}
		r.mem.Run()
		if got := r.heard(p); got != "" || p.Closed() {
			t.Fatalf("opcode %d: messages of half a second each: %q", op, got)
		}
		p.Write(message[half:])
		r.mem.Run()
	}
}

// TestClocksStandInAPause: while we do not read, the client can neither finish a message nor say that it is there.
func TestClocksStandInAPause(t *testing.T) {
	r := newRig(t, plan(t, "messages-in", "3/1minute", "pause"), func(o *engine.Options) {
		o.Assembly, o.Deadlines.Idle, o.Deadlines.Ping = 10*time.Second, 15*time.Second, time.Hour
	})
	r.stream.onReceive = func(engine.Conn, *frame.Event) {}
	p := r.open(ticket.Claims{})
	one := client(frame.Text, true, "x")
	long := client(frame.Binary, true, "abcdef")
	r.say(p, one, one, one, long[:8]) // the fourth begins, and the limit stops reading for 20 s
	p.Write(long[8:])
	r.mem.Advance(19 * time.Second)
	if got := r.heard(p); strings.Contains(got, "close") || p.Closed() {
		t.Fatalf("closed while it was not read: %q", got)
	}
	r.mem.Advance(1100 * time.Millisecond)
	if n := r.stream.parts; n != 5 {
		t.Errorf("%d parts arrived, want three messages and two parts", n)
	}
	r.mem.Advance(14800 * time.Millisecond)
	if got := r.heard(p); strings.Contains(got, "close") {
		t.Errorf("idle for less than 15 s since it is read again: %q", got)
	}
	r.mem.Advance(400 * time.Millisecond)
	if got := r.heard(p); !strings.HasSuffix(got, "close 4408 idle") {
		t.Errorf("idle for 15 s since it is read again: %q", got)
	}
}

// TestAssemblyGoesOnAfterAPause with what was left of it.
func TestAssemblyGoesOnAfterAPause(t *testing.T) {
	r := newRig(t, nil, nil)
	r.stream.onReceive = func(c engine.Conn, _ *frame.Event) { c.Pause() }
	p := r.open(ticket.Claims{})
	r.say(p, client(frame.Text, false, "begun"))
	r.mem.Advance(6 * time.Second)
	do := func(f func(engine.Conn)) {
		r.engine.Do(0, func(*reactor.Loop) { f(r.stream.joined[0]) })
		r.mem.Run()
	}
	do(engine.Conn.Pause)
	r.mem.Advance(8 * time.Second)
	do(engine.Conn.Resume)
	r.mem.Advance(3900 * time.Millisecond)
	if got := r.heard(p); got != "" {
		t.Fatalf("read for less than 10 s: %q", got)
	}
	r.mem.Advance(200 * time.Millisecond)
	if got := r.heard(p); got != "close 1008 guard:frame.assembly" {
		t.Errorf("read for 10 s: %q", got)
	}
}

// TestAFedClientIsNotIdle, also when its limit only slows the source down.
func TestAFedClientIsNotIdle(t *testing.T) {
	r := newRig(t, plan(t, "messages-out", "1/1minute", "pause"), func(o *engine.Options) { o.Deadlines.Idle = 5 * time.Second })
	p := r.open(ticket.Claims{})
	c := r.stream.joined[0]
	for i := range 4 {
		r.engine.Do(0, func(*reactor.Loop) {
			if v := c.Send(frame.Text, []byte("x")); i > 0 && (v.Sent != engine.SentHold || v.Wait <= 0) {
				t.Errorf("message %d: %+v, want a hold", i, v)
			}
		})
		r.mem.Advance(4 * time.Second)
	}
	if got := r.heard(p); got != "x|x|x|x" {
		t.Errorf("%q", got)
	}
}

// TestSlowButReadingClientStays: a ping that was not sent, because the queue says as much, wants no pong.
func TestSlowButReadingClientStays(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { o.Queue = 64 << 10 })
	p := r.open(ticket.Claims{})
	p.Window(1 << 10)
	c := r.stream.joined[0]
	r.engine.Do(0, func(*reactor.Loop) { c.Send(frame.Text, []byte(strings.Repeat("x", 60<<10))) })
	r.mem.Run()
	for range 45 {
		p.Read()
		r.mem.Advance(time.Second)
	}
	if p.Closed() {
		t.Fatalf("a client that takes 1 KiB a second was given up: %v", r.stream.ends)
	}
	p.Window(1 << 20)
	r.mem.Advance(10 * time.Second)
	if got := string(p.Read()); !strings.HasSuffix(got, "x\x89\x00") {
		t.Errorf("no ping once the queue is empty: %q", got[max(0, len(got)-20):])
	}
}

// TestPingBehindAFreshMessage: a message that was written in the round in which a ping is due does not put the ping off.
func TestPingBehindAFreshMessage(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { o.Deadlines.Ping = 4 }) // at the next tick
	before, last := r.open(ticket.Claims{}), ticket.Claims{SessionEnd: r.clock.Wall().Add(time.Millisecond)}
	ends := r.open(last)
	after := r.open(ticket.Claims{})
	r.stream.onGone = func(c engine.Conn, _ engine.End) {
		for _, other := range []engine.Conn{r.stream.joined[0], r.stream.joined[2]} {
			other.Send(frame.Text, []byte("news"))
		}
	}
	r.mem.Advance(20 * time.Millisecond)
	if got := r.heard(ends); got != "close 4401 session-expired" {
		t.Fatalf("%q", got)
	}
	for _, p := range []*reactor.Pipe{before, after} { // one of the two has its turn behind the end
		if got := r.heard(p); !strings.Contains(got, "ping") || !strings.Contains(got, "news") {
			t.Errorf("%q, want a message and a ping", got)
		}
	}
}

// TestPongThatWaitedInAPause: a pause ends in the moment in which the pong is due, and the pong is there, unread.
func TestPongThatWaitedInAPause(t *testing.T) {
	r := newRig(t, plan(t, "messages-in", "6/1minute", "pause"), func(o *engine.Options) {
		o.Deadlines.Ping, o.Deadlines.PongWait = 4, 40*time.Second // pings at once
	})
	p := r.open(ticket.Claims{})
	r.mem.Advance(20 * time.Millisecond)
	if got := r.heard(p); got != "ping " {
		t.Fatalf("%q", got)
	}
	one := client(frame.Text, true, "x")
	for range 10 { // burst of 6, then a debt of 4: read again in 40 s
		p.Write(one)
	}
	r.mem.Run()
	p.Write(client(frame.Pong, true, ""))
	r.mem.Advance(45 * time.Second)
	if p.Closed() {
		t.Errorf("given up: %+v", r.stream.ends)
	}
}

// TestPingsAreAnsweredAgain once the queue is empty, whatever was in it when a ping came.
func TestPingsAreAnsweredAgain(t *testing.T) {
	r := newRig(t, nil, nil)
	p := r.open(ticket.Claims{})
	p.Window(10)
	p.Write(client(frame.Text, true, strings.Repeat("x", 100)))
	r.mem.Run()
	r.stream.onDrained = func(c engine.Conn) { c.Send(frame.Text, []byte("on")) }
	p.Window(1 << 20)
	p.Write(client(frame.Ping, true, "1")) // served in one event with the end of the queue
	r.mem.Run()
	p.Read()
	if got := r.say(p, client(frame.Ping, true, "2")); got != "pong 2" {
		t.Errorf("%q", got)
	}
	p.Window(0)
	r.say(p, client(frame.Text, true, "y"))
	for _, n := range []string{"3", "4", "5"} {
		r.say(p, client(frame.Ping, true, n))
	}
	p.Window(1 << 20)
	r.mem.Run()
	if got := r.heard(p); got != "y|pong 5|on" {
		t.Errorf("three pings behind a full queue: %q", got)
	}
	if got := r.say(p, client(frame.Ping, true, "6")); got != "pong 6" {
		t.Errorf("%q", got)
	}
}

// TestOnePongWaits also for pings that come in one read with the message that has to wait; what the kernel takes at once is
// answered one by one.
func TestOnePongWaits(t *testing.T) {
	r := newRig(t, nil, quiet)
	p := r.open(ticket.Claims{})
	ping := func(s string) []byte { return client(frame.Ping, true, s) }
	if got := r.say(p, ping("1"), ping("2"), ping("3")); got != "pong 1|pong 2|pong 3" {
		t.Errorf("a client that reads: %q", got)
	}
	p.Window(5)
	p.Write(slices.Concat(ping("4"), client(frame.Text, true, "message"), ping("5"), ping("6"), ping("7")))
	r.mem.Run()
	p.Window(1 << 20)
	r.mem.Run()
	if got := r.heard(p); got != "pong 4|message|pong 7" {
		t.Errorf("behind what waits: %q", got)
	}
	p.Window(1)
	p.Write(slices.Concat(ping("8"), ping("9")))
	r.mem.Run()
	p.Write(client(frame.Close, true, "\x03\xe8"))
	r.mem.Run()
	p.Window(1 << 20)
	r.mem.Run()
	if got := r.heard(p); got != "pong 8|close 1000 " {
		t.Errorf("closed before its turn: %q", got)
	}
	p.CloseWrite()
	r.mem.Run()
	r.gone()
}

// TestDroppedMessageCostsNothing more once its first frame is dropped.
func TestDroppedMessageCostsNothing(t *testing.T) {
	limits := plan(t, "messages-in", "1/1minute", "drop-newest")
	limits["bytes-in"] = limiter.Options{Rate: rate(t, "10B/1minute"), Per: limiter.PerConnection, WhenExceeded: "close"}
	r := newRig(t, limits, nil)
	p := r.open(ticket.Claims{})
	if got := r.say(p, client(frame.Text, true, "1"), client(frame.Binary, false, "ab"),
		client(frame.Continuation, true, strings.Repeat("c", 20))); got != "1" {
		t.Errorf("%q", got)
	}
	if s := r.engine.Stats().Streams[0]; s.Messages[limiter.In] != 1 || s.Bytes[limiter.In] != 1 {
		t.Errorf("counted %d messages and %d bytes, want 1 of each", s.Messages[limiter.In], s.Bytes[limiter.In])
	}
}

// TestDroppedWholeIsNotCounted as a message that passed.
func TestDroppedWholeIsNotCounted(t *testing.T) {
	r := newRig(t, plan(t, "bytes-in", "10B/1minute", "drop-newest"), nil)
	p := r.open(ticket.Claims{})
	text := func(s string) []byte { return client(frame.Text, true, s) }
	if got := r.say(p, text("12345678"), text("abc"), client(frame.Text, false, "a"), client(frame.Continuation, true, "bc"), text("xy")); got != "12345678|xy" {
		t.Errorf("%q", got)
	}
	if s := r.engine.Stats().Streams[0]; s.Messages[limiter.In] != 2 || s.Bytes[limiter.In] != 10 {
		t.Errorf("counted %d messages and %d bytes, want 2 and 10", s.Messages[limiter.In], s.Bytes[limiter.In])
	}
}

// TestOutboundNoticeOnce: one notice tells of a run of dropped messages, or notices would take the room of what is dropped.
func TestOutboundNoticeOnce(t *testing.T) {
	r := newRig(t, plan(t, "messages-out", "1/1minute", "drop-newest"), quiet)
	p := r.open(ticket.Claims{}, "Sec-WebSocket-Protocol: ticketgate.v1")
	text := client(frame.Text, true, "x")
	const notice = `{"$tg":"limit","name":"messages-out","retry_after_ms":60001}`
	if got := r.say(p, text, text, text, text); got != "x|"+notice {
		t.Errorf("%q", got)
	}
	r.mem.Advance(time.Minute)
	if got := r.say(p, text, text, text); got != "x|"+notice {
		t.Errorf("a minute later: %q", got)
	}
}

// TestFramesAreWhole: what a full queue refuses it refuses whole, so the close frame stands between two frames.
func TestFramesAreWhole(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { o.Queue = 4 << 10 })
	p := r.open(ticket.Claims{})
	p.Window(0)
	c := r.stream.joined[0]
	var got []engine.Sent
	r.engine.Do(0, func(*reactor.Loop) {
		part := []byte(strings.Repeat("x", 3000))
		for _, h := range []frame.Header{{Op: frame.Binary}, {Op: frame.Continuation}, {Op: frame.Continuation, Fin: true}} {
			got = append(got, c.Frame(h, part))
		}
	})
	r.mem.Run()
	p.Window(1 << 20)
	r.mem.Run()
	if !slices.Equal(got, []engine.Sent{engine.SentOK, engine.SentGone, engine.SentGone}) {
		t.Errorf("sent: %v", got)
	}
	if all := frames(t, p.Read()); len(all) != 2 || all[1] != "close 4440 slow-consumer" {
		t.Errorf("%q", all)
	}
}
