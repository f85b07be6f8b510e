package engine_test

import (
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

// onLoop runs f as a stream would.
func (r *rig) onLoop(f func(l *reactor.Loop)) {
	r.t.Helper()
	before := r.engine.Stats().Reactor.Panics
	r.engine.Do(0, f)
	r.mem.Run()
	if n := r.engine.Stats().Reactor.Panics - before; n > 0 {
		r.t.Errorf("%d panics", n)
	}
}

func TestConn(t *testing.T) {
	r := newRig(t, plan(t, "messages-out", "3/1minute", "drop-newest"), quiet)
	p := r.open(ticket.Claims{})
	c := r.stream.joined[0]
	other := r.open(ticket.Claims{})
	r.onLoop(func(l *reactor.Loop) {
		c.SetWord(42)
		again := r.engine.ConnOf(l, c.ID())
		if again.Word() != 42 || r.stream.joined[1].At(c.ID()).Word() != 42 || r.stream.joined[1].Word() != 0 {
			t.Error("a socket's word is its own, whatever handle one comes by")
		}
		if !c.Open() || c.Loop() != l || c.Limits().Name != "plan" || c.Queued() != 0 {
			t.Error("an open socket")
		}
		abc, x := r.engine.NewMessage(frame.Text, []byte("abc")), r.engine.NewMessage(frame.Text, []byte("x"))
		if v := c.SendMessage(&abc); v.Sent != engine.SentOK || c.Queued() != 5 {
			t.Errorf("%+v, %d bytes wait", v, c.Queued())
		}
		if v := c.Begin(true, 1); v.Sent != engine.SentOK || c.Body([]byte("\x01\x01d")) != engine.SentOK {
			t.Errorf("%+v", v)
		}
		if v := c.Begin(false, 1); v.Sent != engine.SentOK || c.Body([]byte("\x80\x01e")) != engine.SentOK {
			t.Errorf("%+v", v)
		}
		c.Send(frame.Binary, nil)
		for range 2 {
			if v := c.SendMessage(&x); v.Sent != engine.SentDrop {
				t.Errorf("the fourth message: %+v", v)
			}
		}
	})
	if got := r.heard(p); got != "abc|d|e|" {
		t.Errorf("%q", got)
	}
	if s := r.engine.Stats(); s.Streams[0].Messages[limiter.Out] != 3 || s.Streams[0].Bytes[limiter.Out] != 5 ||
		s.Limits[0] != (engine.LimitStats{Plan: "plan", Limit: "messages-out", Allow: 3, Refuse: 2}) {
		t.Errorf("%+v, %+v", s.Streams[0], s.Limits)
	}
	r.onLoop(func(*reactor.Loop) {
		c.Close(4000, "the stream's", engine.ByBackend)
		c.Close(4001, "", engine.ByGateway)
	})
	if got := r.heard(p); got != "close 4000 the stream's" {
		t.Errorf("%q", got)
	}
	want := []engine.Sent{engine.SentGone, engine.SentGone, engine.SentGone, engine.SentGone, engine.SentGone}
	empty := r.engine.NewMessage(frame.Text, nil)
	tries := func(*reactor.Loop) {
		got := []engine.Sent{c.Send(frame.Text, nil).Sent, c.SendMessage(&empty).Sent, c.Begin(true, 0).Sent, c.Body(nil), c.Frame(frame.Header{Op: frame.Text}, nil)}
		if !slices.Equal(got, want) || c.Open() {
			t.Errorf("sent %v, open %v", got, c.Open())
		}
		c.Accept(nil)
		c.Refuse(engine.ErrBackend)
		c.Pause()
		c.Resume()
		c.Close(4001, "", engine.ByGateway)
	}
	r.onLoop(tries)
	p.CloseWrite()
	r.mem.Run()
	r.onLoop(func(l *reactor.Loop) {
		tries(l)
		c.SetWord(1)
		if c.Word() != 0 || c.Limits() != nil || c.Queued() != 0 {
			t.Error("a handle outlives its socket")
		}
	})
	next := r.open(ticket.Claims{}) // in the row of the one that is gone
	r.onLoop(tries)
	if r.stream.joined[2].ID().Slot() != c.ID().Slot() {
		t.Error("the row is not used again")
	}
	for _, p := range []*reactor.Pipe{next, other} {
		if got := r.say(p, client(frame.Text, true, "fine")); got != "fine" {
			t.Errorf("%q", got)
		}
	}
	if len(r.stream.ends) != 1 {
		t.Errorf("%+v", r.stream.ends)
	}
}

// TestCloseReasons: the code's own where we have none; nothing where the backend gave none; no body for code 0.
func TestCloseReasons(t *testing.T) {
	for _, c := range []struct {
		code   frame.Code
		reason string
		by     engine.By
		want   string
	}{
		{frame.CloseBackend, "", engine.ByGateway, "close 4502 backend"},
		{frame.CloseBackend, "mine", engine.ByGateway, "close 4502 mine"},
		{frame.CloseDrain, "", engine.ByBackend, "close 1012 "},
		{0, "", engine.ByBackend, "close"},
	} {
		r := newRig(t, nil, nil)
		p := r.open(ticket.Claims{})
		r.onLoop(func(*reactor.Loop) { r.stream.joined[0].Close(c.code, c.reason, c.by) })
		if got := r.heard(p); got != c.want || !p.Closed() {
			t.Errorf("%d %q by %v: %q, want %q; FIN %v", c.code, c.reason, c.by, got, c.want, p.Closed())
		}
	}
}

// TestCloseBeforeTheUpgradeIsAnswered is a refusal.
func TestCloseBeforeTheUpgradeIsAnswered(t *testing.T) {
	for code, want := range map[frame.Code]string{frame.CloseDrain: "503 ", frame.CloseBackend: "502 ", frame.CloseBackendTimeout: "504 ",
		frame.CloseFault: "503 "} {
		r := newRig(t, nil, nil)
		r.stream.onJoin = func(c engine.Conn, _ *engine.Join) {
			c.Pause()
			if c.Open() || c.Send(frame.Text, nil).Sent != engine.SentGone {
				t.Error("open before the 101")
			}
			c.Close(code, "", engine.ByGateway)
			c.Accept(nil)
		}
		p, got := r.send(head(r.issue(ticket.Claims{})))
		if !strings.HasPrefix(got, "HTTP/1.1 "+want) || strings.Count(got, "HTTP/1.1") != 1 || len(r.stream.ends) != 1 {
			t.Errorf("%d: %q, %d ends", code, got, len(r.stream.ends))
		}
		p.CloseWrite()
		r.mem.Run()
		r.gone()
	}
}

// TestPauseBeforeTheUpgradeIsAnswered does nothing: there is nothing to read yet.
func TestPauseBeforeTheUpgradeIsAnswered(t *testing.T) {
	r := newRig(t, nil, nil)
	r.stream.onJoin = func(c engine.Conn, _ *engine.Join) { c.Pause(); c.Accept(nil) }
	if got := r.say(r.open(ticket.Claims{}), client(frame.Text, true, "x")); got != "x" {
		t.Errorf("%q", got)
	}
}

// TestAcceptOnce: what comes after the first answer is not heard.
func TestAcceptOnce(t *testing.T) {
	r := newRig(t, nil, nil)
	r.stream.onJoin = func(c engine.Conn, j *engine.Join) {
		if j.Claims.Client != "ann" || !strings.HasPrefix(string(j.Request.Target), "/t/") {
			t.Errorf("%+v", j.Claims)
		}
		c.Accept([]byte("one"))
		c.Accept([]byte("two"))
	}
	_, got := r.send(head(r.issue(ticket.Claims{})))
	if !strings.Contains(got, "Sec-WebSocket-Protocol: one\r\n") || strings.Contains(got, "two") {
		t.Errorf("%q", got)
	}
}

// TestEarlyBytesWhileJoining: nothing may come before the 101, not even while it is on its way.
func TestEarlyBytesWhileJoining(t *testing.T) {
	r := newRig(t, nil, nil)
	r.stream.hold = true
	p, _ := r.send(head(r.issue(ticket.Claims{})))
	p.Write(client(frame.Text, true, "early"))
	r.mem.Run()
	if got := string(p.Read()); !strings.HasPrefix(got, "HTTP/1.1 400 ") || len(r.stream.ends) != 1 || r.stream.parts != 0 {
		t.Errorf("%q, %d ends", got, len(r.stream.ends))
	}
	r.onLoop(func(*reactor.Loop) { r.stream.joined[0].Accept(nil) })
	if got := p.Read(); len(got) != 0 {
		t.Errorf("after the refusal: %q", got)
	}
	p.CloseWrite()
	r.mem.Run()
	r.gone()
}

// TestAskedTooLong: the store's answer comes after the time to admit is over.
func TestAskedTooLong(t *testing.T) {
	r := newRig(t, nil, nil)
	r.desk.keep = true
	p, _ := r.send(head(r.issue(ticket.Claims{})))
	r.mem.Advance(9900 * time.Millisecond)
	if got := p.Read(); len(got) != 0 {
		t.Errorf("%q", got)
	}
	r.mem.Advance(200 * time.Millisecond)
	if got := string(p.Read()); !strings.HasPrefix(got, "HTTP/1.1 503 ") || r.held("ann") != 1 {
		t.Errorf("%q, held %d", got, r.held("ann"))
	}
	r.desk.kept[0].Done(r.desk.kept[0])
	p.CloseWrite()
	r.mem.Run()
	r.gone()
}

// TestGrantsThatFitNothing: the store's yes is not enough.
func TestGrantsThatFitNothing(t *testing.T) {
	for name, c := range map[string]struct {
		answer ticket.RedeemAnswer
		status string
		reason string
	}{
		"no claims":      {ticket.RedeemAnswer{Result: ticket.RedeemOK, Grant: []byte("x")}, "401", "unknown"},
		"unknown stream": {ticket.RedeemAnswer{Result: ticket.RedeemOK, Grant: ticket.AppendClaims(nil, &ticket.Claims{Stream: "other", Plan: "plan", Client: "ann"})}, "403", "stream"},
		"unknown plan":   {ticket.RedeemAnswer{Result: ticket.RedeemOK, Grant: ticket.AppendClaims(nil, &ticket.Claims{Stream: "echo", Plan: "other", Client: "ann"})}, "403", "stream"},
		"epoch":          {ticket.RedeemAnswer{Result: ticket.RedeemEpoch}, "401", "epoch"},
		"unsent":         {ticket.RedeemAnswer{Result: ticket.RedeemUnsent}, "503", "store"},
	} {
		r := newRig(t, nil, nil)
		r.desk.keep = true
		m := r.issue(ticket.Claims{})
		p, _ := r.send(head(m))
		b := r.desk.kept[0]
		b.Answers[0] = c.answer
		b.Done(b)
		r.mem.Run()
		if got := string(p.Read()); !strings.HasPrefix(got, "HTTP/1.1 "+c.status+" ") {
			t.Errorf("%s: %q", name, got)
		}
		if s := r.engine.Stats(); s.Rejected[c.reason] != 1 || len(s.Rejected) != 1 || s.Redeemed[c.answer.Result] != 1 {
			t.Errorf("%s: rejected %v, redeemed %v", name, s.Rejected, s.Redeemed)
		}
		p.CloseWrite()
		r.mem.Run()
		r.gone()
	}
}

// TestTheCacheRefuses what the store has said no to, without asking it again; but not after a doubt.
func TestTheCacheRefuses(t *testing.T) {
	r := newRig(t, nil, nil)
	used, unknown, doubt := r.issue(ticket.Claims{}), r.issue(ticket.Claims{}), r.issue(ticket.Claims{})
	r.send(head(used))
	r.desk.doubt = true
	r.send(head(doubt))
	r.desk.doubt, r.desk.keep = false, true
	r.send(head(unknown))
	r.desk.kept[0].Answers[0] = ticket.RedeemAnswer{Result: ticket.RedeemUnknown}
	r.desk.kept[0].Done(r.desk.kept[0])
	r.mem.Run()
	r.desk.keep = false
	for _, m := range []*ticket.Minted{used, unknown} {
		r.send(head(m))
	}
	if s := r.engine.Stats(); s.Rejected["spent"] != 2 || s.Rejected["unknown"] != 1 || s.Rejected["store"] != 1 {
		t.Errorf("%v", s.Rejected)
	}
	if _, got := r.send(head(doubt)); !strings.HasPrefix(got, "HTTP/1.1 101 ") {
		t.Errorf("a ticket that was never spent: %q", got)
	}
}

// TestNoRoomForLimits: a session that cannot be limited is refused.
func TestNoRoomForLimits(t *testing.T) {
	limits := map[string]limiter.Options{"messages-in": {Rate: rate(t, "3/1minute"), Per: limiter.PerClient, WhenExceeded: "close"}}
	r := newRig(t, limits, nil)
	full := newRig(t, limits, func(o *engine.Options) { o.Table = limiter.NewTable(1, 1, r.clock) })
	p := full.open(ticket.Claims{})
	over, got := full.send(head(full.issue(ticket.Claims{Client: "bob"})))
	if !strings.HasPrefix(got, "HTTP/1.1 503 ") || len(full.stream.joined) != 1 {
		t.Errorf("%q, %d joined", got, len(full.stream.joined))
	}
	over.CloseWrite()
	p.Reset()
	full.mem.Run()
	full.gone("bob")
}

// policy makes a rig whose one stream is changed.
func policy(t *testing.T, change func(*engine.StreamEntry)) *rig {
	r := newRig(t, nil, nil)
	entry := engine.StreamEntry{Name: "echo", Stream: r.stream, Rules: &frame.Rules{Role: frame.Server, Opcodes: frame.AllowBoth, MaxMessage: 64 << 10, MaxFragments: 4}}
	change(&entry)
	none, _ := limiter.Compile("plan", nil, limiter.Defaults{})
	r.options.Policy = engine.NewPolicy([]engine.StreamEntry{entry}, []*limiter.Plan{none})
	var err error
	if r.engine, r.mem, err = engine.NewMemory(r.options, r.clock); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestViolations(t *testing.T) {
	rsv := client(frame.Text, true, "x")
	rsv[0] |= 0x40
	for name, c := range map[string]struct {
		entry  func(*engine.StreamEntry)
		frames []byte
		want   string
	}{
		"may not send":    {func(e *engine.StreamEntry) { e.MayNot = true }, client(frame.Text, true, "x"), "close 1003 "},
		"type not wanted": {func(e *engine.StreamEntry) { e.Rules.Opcodes = frame.AllowText }, client(frame.Binary, true, "x"), "close 1003 "},
		"reserved bit":    {func(*engine.StreamEntry) {}, rsv, "close 1002 "},
		"too long":        {func(e *engine.StreamEntry) { e.Rules.MaxMessage = 3 }, client(frame.Text, true, "long"), "close 1009 "},
		"too many frames": {func(*engine.StreamEntry) {}, slices.Concat(client(frame.Text, false, ""), client(frame.Continuation, false, ""),
			client(frame.Continuation, false, ""), client(frame.Continuation, false, ""), client(frame.Continuation, true, "")), "close 1008 guard:frame.fragments"},
	} {
		r := policy(t, c.entry)
		p := r.open(ticket.Claims{})
		if got := r.say(p, c.frames, client(frame.Text, true, "after")); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if r.stream.parts != 0 {
			t.Errorf("%s: the stream saw %d parts", name, r.stream.parts)
		}
		if got := r.say(r.open(ticket.Claims{}), client(frame.Ping, true, "p")); got != "pong p" {
			t.Errorf("%s: a ping: %q", name, got)
		}
	}
}

// TestWhole: a stream that wants messages whole never sees a part.
func TestWhole(t *testing.T) {
	r := policy(t, func(e *engine.StreamEntry) { e.Whole = true })
	p := r.open(ticket.Claims{})
	wire := client(frame.Binary, true, "in two reads")
	p.Write(wire[:9])
	r.mem.Run()
	if got := r.say(p, wire[9:]); got != "in two reads" || r.stream.parts != 1 {
		t.Errorf("%q in %d parts", got, r.stream.parts)
	}
}

// TestHeldBytes are counted over all sockets, bounded, and given back.
func TestHeldBytes(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { o.HoldMax = 128 })
	one, two := r.open(ticket.Claims{}), r.open(ticket.Claims{})
	r.say(one, client(frame.Text, false, strings.Repeat("a", 60)))
	if n := r.engine.Stats().Held; n != 64 {
		t.Errorf("%d bytes held, want a buffer of 64", n)
	}
	if got := r.say(two, client(frame.Text, false, strings.Repeat("b", 64))); got != "" {
		t.Errorf("128 bytes: %q", got)
	}
	if got := r.say(two, client(frame.Continuation, false, "c")); got != "close 1013 overloaded" {
		t.Errorf("129 bytes: %q", got)
	}
	if n := r.engine.Stats().Held; n != 64 {
		t.Errorf("%d bytes held, want 64", n)
	}
	if got := r.say(one, client(frame.Continuation, true, "!")); got != strings.Repeat("a", 60)+"!" {
		t.Errorf("%q", got)
	}
	one.Reset()
	two.Reset()
	r.mem.Run()
	r.gone()
}

// TestClosedByReceive: a stream that closes in the middle of a read sees no more of it.
func TestClosedByReceive(t *testing.T) {
	r := newRig(t, nil, nil)
	r.stream.onReceive = func(c engine.Conn, ev *frame.Event) { c.Close(1000, string(ev.Payload), engine.ByBackend) }
	p := r.open(ticket.Claims{})
	if got := r.say(p, client(frame.Text, false, "a"), client(frame.Continuation, true, "b"), client(frame.Text, true, "c")); got != "close 1000 ab" || r.stream.parts != 1 {
		t.Errorf("%q in %d parts", got, r.stream.parts)
	}
	p.CloseWrite()
	r.mem.Run()
	r.gone()
}

// TestTwoPauses: a socket is read again when nobody minds any more.
func TestTwoPauses(t *testing.T) {
	r := newRig(t, plan(t, "messages-in", "3/1minute", "pause"), quiet)
	p := r.open(ticket.Claims{})
	one := client(frame.Text, true, "x")
	if got := r.say(p, one, one, one, one, one); got != "x|x|x|x" {
		t.Fatalf("%q", got)
	}
	c := r.stream.joined[0]
	r.onLoop(func(*reactor.Loop) { c.Resume() })
	if got := r.heard(p); got != "" {
		t.Errorf("the stream ended the limit's pause: %q", got)
	}
	r.onLoop(func(*reactor.Loop) { c.Pause() })
	r.mem.Advance(20100 * time.Millisecond)
	if got := r.heard(p); got != "" {
		t.Errorf("the limit ended the stream's pause: %q", got)
	}
	before := r.engine.Stats().Reactor.Timers
	r.mem.Advance(2 * time.Second)
	if n := r.engine.Stats().Reactor.Timers - before; n > 1 {
		t.Errorf("%d timers for a pause that is over", n)
	}
	p.Write(one)
	r.mem.Run()
	if p.Pending() != len(one) {
		t.Error("read while the stream pauses")
	}
	r.onLoop(func(*reactor.Loop) { c.Resume() })
	if got := r.heard(p); got != "x" {
		t.Errorf("%q", got)
	}
}

// TestStats adds up what happened.
func TestStats(t *testing.T) {
	r := newRig(t, plan(t, "messages-in", "2/1minute", "drop-newest"), quiet)
	m := r.issue(ticket.Claims{})
	r.clock.Advance(3 * time.Second)
	p, _ := r.send(head(m))
	one := client(frame.Text, true, "abc")
	r.say(p, one, one, one)
	r.mem.Advance(5 * time.Second)
	r.say(p, client(frame.Close, true, "\x03\xe8"))
	r.send(head(m))
	r.send(rawHead("/"))
	s := r.engine.Stats()
	e := s.Streams[0]
	if e.Name != "echo" || e.Opened != 1 || e.Open != 0 || e.Slow != 0 || e.Messages != [2]uint64{2, 2} || e.Bytes != [2]uint64{6, 6} {
		t.Errorf("%+v", e)
	}
	if e.Lasted.Count() != 1 || e.Lasted.Sum() != 5 || s.Age.Count() != 1 || s.Age.Sum() != 3 {
		t.Errorf("lasted %v s, age %v s", e.Lasted.Sum(), s.Age.Sum())
	}
	if s.Limits[0] != (engine.LimitStats{Plan: "plan", Limit: "messages-in", Allow: 2, Refuse: 1}) {
		t.Errorf("%+v", s.Limits)
	}
	if s.Rejected["spent"] != 1 || s.Rejected["route"] != 1 || len(s.Rejected) != 2 {
		t.Errorf("%v", s.Rejected)
	}
	if s.Redeemed[ticket.RedeemOK] != 1 || s.Took[ticket.RedeemOK].Count() != 1 || s.Redeemed[ticket.RedeemDoubt] != 0 {
		t.Errorf("%v", s.Redeemed)
	}
	if s.Live != 3 || s.Reactor.PerLoop[0].Conns != 3 {
		t.Errorf("%d live, the reactor has %v", s.Live, s.Reactor.PerLoop)
	}
	if want := "client gateway backend network"; strings.Join([]string{engine.ByClient.String(), engine.ByGateway.String(), engine.ByBackend.String(), engine.ByNetwork.String()}, " ") != want {
		t.Error("labels of who ended a socket")
	}
}
