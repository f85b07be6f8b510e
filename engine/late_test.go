package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/limiter"
	"ticketgate/store/memory"
	"ticketgate/ticket"
)

// one is a plan with one limit.
func one(t testing.TB, name, text string, per limiter.Per, action string, more ...func(*limiter.Options)) map[string]limiter.Options {
	t.Helper()
	o := limiter.Options{Rate: rate(t, text), Per: per, WhenExceeded: action}
	for _, f := range more {
		f(&o)
	}
	return map[string]limiter.Options{name: o}
}

func burst(n limiter.Size) func(*limiter.Options) { return func(o *limiter.Options) { o.Burst = &n } }

func maxDelay(d time.Duration) func(*limiter.Options) {
	return func(o *limiter.Options) { o.MaxDelay = d }
}

func clustered(o *limiter.Options) { o.Scope = "cluster" }

// texts are messages numbered from up to to.
func texts(from, to int) (all []byte) {
	for i := from; i <= to; i++ {
		all = append(all, client(frame.Text, true, fmt.Sprint(i))...)
	}
	return all
}

// freed fails if anything of a message that waited is left.
func (r *rig) freed() {
	r.t.Helper()
	if s := r.engine.Shared(); s.Late != 0 || s.Holds != 0 {
		r.t.Errorf("%d messages still wait, %d are held", s.Late, s.Holds)
	}
	if n := r.engine.Stats().Held; n != 0 {
		r.t.Errorf("%d bytes are held", n)
	}
}

// TestDelay: a message that exceeds the limit goes on at the moment at which it fits, in its order, and is counted once.
func TestDelay(t *testing.T) {
	for _, name := range []string{"messages-in", "messages-out"} {
		for _, per := range []limiter.Per{limiter.PerConnection, limiter.PerClient} {
			t.Run(name+" per "+string(per), func(t *testing.T) {
				r := newRig(t, one(t, name, "20/1second", per, "delay", burst(2)), quiet)
				echoStops(r)
				p := r.open(ticket.Claims{})
				if got := r.say(p, texts(1, 6)); got != "1|2" {
					t.Errorf("at once: %q", got)
				}
				begun := r.clock.Now()
				for i := 3; i <= 6; i++ {
					got := ""
					for got == "" {
						r.mem.Advance(time.Millisecond)
						got = r.heard(p)
					}
					due := time.Duration(i-2) * 50 * time.Millisecond
					if took := r.clock.Now().Sub(begun); got != fmt.Sprint(i) || took < due || took > due+40*time.Millisecond {
						t.Errorf("after %v: %q, want %d after %v, or two ticks of the wheel later", took, got, i, due)
					}
				}
				l := r.engine.Stats().Limits[0]
				if l.Allow != 2 || l.Refuse != 4 || l.Soft+l.Degraded != 0 {
					t.Errorf("%+v: want 2 that passed and 4 that had to wait", l)
				}
				if s := r.engine.Stats().Streams[0]; s.Messages != [2]uint64{6, 6} {
					t.Errorf("messages %v, want 6 each way", s.Messages)
				}
				r.mem.Advance(200 * time.Millisecond)
				if got := r.say(p, texts(7, 8)); got != "7|8" {
					t.Errorf("with a full bucket again: %q", got)
				}
				r.freed()
			})
		}
	}
}

// echoStops makes the rig's stream an echo that does as SentHold says.
func echoStops(r *rig) {
	r.stream.onReceive = func(c engine.Conn, ev *frame.Event) {
		if c.Send(ev.Op, ev.Payload).Sent == engine.SentHold {
			c.Pause()
		}
	}
	r.stream.onDrained = func(c engine.Conn) {
		if !c.Held() {
			c.Resume()
		}
	}
}

// TestDelayIsBounded: a message that would wait longer than max_delay closes the socket.
func TestDelayIsBounded(t *testing.T) {
	r := newRig(t, one(t, "messages-in", "1/1second", limiter.PerClient, "delay", maxDelay(1500*time.Millisecond)), quiet)
	a, b, c := r.open(ticket.Claims{}), r.open(ticket.Claims{}), r.open(ticket.Claims{})
	if got := r.say(a, texts(1, 2)); got != "1" {
		t.Errorf("the first: %q", got)
	}
	if got := r.say(b, texts(3, 3)); got != "close 4429 limit:messages-in" {
		t.Errorf("2 s to wait: %q", got)
	}
	r.mem.Advance(time.Second)
	if got := r.heard(a); got != "2" {
		t.Errorf("after a second: %q: what was refused must not have been charged", got)
	}
	if got := r.say(c, texts(4, 4)); got != "" {
		t.Errorf("%q", got)
	}
	r.mem.Advance(time.Second)
	if got := r.heard(c); got != "4" {
		t.Errorf("after a second more: %q", got)
	}
	r.freed()
}

// TestClosedWhileDelayed: nothing of the message is left, and what it took of a bucket that others share is put back.
func TestClosedWhileDelayed(t *testing.T) {
	r := newRig(t, one(t, "messages-in", "1/1second", limiter.PerClient, "delay", maxDelay(time.Minute)), quiet)
	a, b := r.open(ticket.Claims{}), r.open(ticket.Claims{})
	r.say(a, texts(1, 1))
	for i := range 20 {
		p := r.open(ticket.Claims{Client: "ann"})
		if got := r.say(p, client(frame.Text, true, strings.Repeat("x", 5000))); got != "" {
			t.Fatalf("%q", got)
		}
		if s := r.engine.Shared(); s.Late != 1 || s.Holds != 1 {
			t.Fatalf("round %d: %+v", i, s)
		}
		r.onLoop(func(*reactor.Loop) {
			c := r.stream.joined[len(r.stream.joined)-1]
			c.Close(frame.CloseDrain, "", engine.ByGateway)
		})
		p.Close()
		r.mem.Run()
		r.freed()
	}
	r.say(b, texts(2, 2))
	r.mem.Advance(time.Second)
	if got := r.heard(b); got != "2" {
		t.Errorf("a second later: %q: the twenty messages that never went on have cost something", got)
	}
	r.freed()
}

// TestDropOldest: of what waits the newest stay, in their order; the client is told once of a run that is lost.
func TestDropOldest(t *testing.T) {
	for _, name := range []string{"messages-in", "messages-out", "bytes-in", "bytes-out"} {
		t.Run(name, func(t *testing.T) {
			text := "1/1second"
			if strings.HasPrefix(name, "bytes") {
				text = "2B/2second" // messages of two digits below
			}
			r := newRig(t, one(t, name, text, limiter.PerConnection, "drop-oldest"), quiet)
			p := r.open(ticket.Claims{}, "Sec-WebSocket-Protocol: ticketgate.v1")
			got := r.say(p, texts(10, 39))
			if !strings.HasPrefix(got, "10|{") || strings.Count(got, "$tg") != 1 || !strings.Contains(got, `"name":"`+name+`"`) {
				t.Errorf("at once: %q, want the first message and one notice", got)
			}
			wait := time.Second
			if strings.HasPrefix(name, "bytes") {
				wait = 2 * time.Second
			}
			var heard []string
			for range 9 {
				r.mem.Advance(wait)
				heard = append(heard, r.heard(p))
			}
			if got, want := strings.Join(heard, " "), "32 33 34 35 36 37 38 39 "; got != want {
				t.Errorf("then %q, want the newest eight: %q", got, want)
			}
			l := r.engine.Stats().Limits[0]
			if l.Allow != 9 || l.Refuse != 21 {
				t.Errorf("%+v: want 9 allowed and 21 refused", l)
			}
			r.freed()
		})
	}
}

// TestDropOldestIsBoundedInBytes: long messages are fewer; one may always wait.
func TestDropOldestIsBoundedInBytes(t *testing.T) {
	r := newRig(t, one(t, "messages-in", "1/1second", limiter.PerConnection, "drop-oldest"), quiet)
	p := r.open(ticket.Claims{})
	for i := range 20 {
		r.say(p, client(frame.Binary, true, string(rune('a'+i))+strings.Repeat("x", 60_000)))
	}
	if n := r.engine.Stats().Held; n > 3*64<<10 {
		t.Errorf("%d bytes wait", n)
	}
	r.mem.Advance(3 * time.Second)
	if got := r.heard(p); len(got) < 60_000 || got[len(got)-60_001] != 't' {
		t.Errorf("the newest message is not there")
	}
	r.freed()
}

// TestDelayWholeMessages: whatever a message comes as, it waits and goes on as a whole.
func TestDelayWholeMessages(t *testing.T) {
	long := strings.Repeat("b", 40_000)
	for name, wire := range map[string][]byte{
		"fragments":     append(client(frame.Binary, false, long[:100]), client(frame.Continuation, true, long[100:])...),
		"one frame":     client(frame.Binary, true, long),
		"text":          client(frame.Text, true, long),
		"compressed":    shrunk(frame.Text, long),
		"empty message": client(frame.Text, true, ""),
	} {
		t.Run(name, func(t *testing.T) {
			want := long
			if name == "empty message" {
				want = ""
			}
			for _, limit := range []string{"messages-in", "messages-out"} {
				if name == "one frame" && limit == "messages-out" {
					continue // the rig's stream gets it in parts
				}
				r := newRig(t, one(t, limit, "1/1second", limiter.PerConnection, "delay"), func(o *engine.Options) {
					quiet(o)
					if name == "compressed" {
						compressing(o)
					}
				})
				echoStops(r)
				extra := []string{}
				if name == "compressed" {
					extra = []string{"Sec-WebSocket-Extensions: permessage-deflate"}
				}
				p := r.open(ticket.Claims{}, extra...)
				r.say(p, texts(1, 1))
				for i := 0; i < len(wire); i += 9000 { // in pieces
					p.Write(wire[i:min(i+9000, len(wire))])
					r.mem.Run()
				}
				if b := p.Read(); len(b) > 0 {
					t.Fatalf("%s: %d bytes at once", limit, len(b))
				}
				r.mem.Advance(time.Second)
				b := r.all(p)
				got, _ := grown(t, b)
				if got != want {
					t.Errorf("%s: after a second %d bytes, want %d", limit, len(got), len(want))
				}
				r.freed()
			}
		})
	}
}

// TestSourceThatDoesNotStop: a stream that goes on after SentHold is ended when too much waits.
func TestSourceThatDoesNotStop(t *testing.T) {
	r := newRig(t, one(t, "messages-out", "1/1minute", limiter.PerConnection, "delay", maxDelay(time.Minute)), quiet)
	p := r.open(ticket.Claims{})
	r.onLoop(func(l *reactor.Loop) {
		c := r.stream.joined[0]
		var v engine.Outbound
		for range 300 {
			v = c.Send(frame.Text, []byte("x"))
		}
		if v.Sent != engine.SentGone {
			t.Errorf("%+v", v)
		}
	})
	if got := r.heard(p); got != "x|close 4429 limit:messages-out" {
		t.Errorf("%q", got)
	}
	r.freed()
}

// TestPausedStreamGoesOn: a stream that was told to stop by a pause is told with Drained when it may go on, once.
func TestPausedStreamGoesOn(t *testing.T) {
	r := newRig(t, one(t, "messages-out", "1/1second", limiter.PerConnection, "pause"), quiet)
	p := r.open(ticket.Claims{})
	drained := 0
	r.stream.onDrained = func(c engine.Conn) {
		if !c.Held() {
			drained++
		}
	}
	if got := r.say(p, texts(1, 2)); got != "1|2" {
		t.Errorf("%q", got)
	}
	drained = 0
	r.mem.Advance(999 * time.Millisecond)
	if drained != 0 || !r.stream.joined[0].Held() {
		t.Errorf("told to go on %d times, held %v, before its time", drained, r.stream.joined[0].Held())
	}
	r.mem.Advance(time.Millisecond)
	r.mem.Advance(10 * time.Second)
	if drained != 1 || r.stream.joined[0].Held() {
		t.Errorf("told to go on %d times, held %v", drained, r.stream.joined[0].Held())
	}
}

// fakeBank is a memory bank that can be made to fail.
type fakeBank struct {
	*memory.Bank
	down  bool
	calls int
}

func (b *fakeBank) Lease(ctx context.Context, asks []limiter.Ask, answers []limiter.Grant) error {
	b.calls++
	if b.down {
		return errors.New("down")
	}
	return b.Bank.Lease(ctx, asks, answers)
}

// clusterRig is a rig with a bank, whose purses the test brings to it with tell.
func clusterRig(t testing.TB, limits map[string]limiter.Options) (*rig, *fakeBank, *limiter.Purses) {
	var bank *fakeBank
	var purses *limiter.Purses
	r := newRig(t, limits, func(o *engine.Options) { o.Deadlines.Ping = time.Hour })
	bank = &fakeBank{Bank: memory.NewBank(r.clock, 0)}
	purses = limiter.NewPurses(bank, 64, r.ring.Subject, r.clock)
	purses.OnAnswer(r.engine.Answered)
	r.options.Table.Lend(purses)
	return r, bank, purses
}

// play lets d pass, with the bank asked each millisecond.
func (r *rig) play(p *limiter.Purses, d time.Duration) {
	for end := r.clock.Now().Add(d); r.clock.Now() < end; {
		p.Tell(r.t.Context())
		r.mem.Advance(time.Millisecond)
	}
}

// TestClusterLimit: with scope: cluster each action does what it does at one node, after the answer of the bank.
func TestClusterLimit(t *testing.T) {
	for action, want := range map[string]struct {
		first, second string
		allow, refuse uint64
	}{
		"close":       {"1|2|3|4|close 4429 limit:messages-in", "", 4, 1},
		"drop-newest": {"1|2|3|4", "", 4, 4},
		"drop-oldest": {"1|2|3|4", "5|6|7|8", 8, 0},
		// Of the four that wait some come to a purse that does not know whether the bank has one again: it has, so they are allowed.
		"pause": {"1|2|3|4", "5|6|7|8", 6, 2},
		"delay": {"1|2|3|4", "5|6|7|8", 6, 2},
		"warn":  {"1|2|3|4|5|6|7|8", "", 8, 0}, // all came before the bank was heard
	} {
		t.Run(action, func(t *testing.T) {
			change := func(o *limiter.Options) {
				if action == "delay" {
					o.MaxDelay = time.Minute
				}
			}
			r, _, purses := clusterRig(t, one(t, "messages-in", "1/1second", limiter.PerClient, action, burst(4), clustered, change))
			p := r.open(ticket.Claims{})
			p.Write(texts(1, 8))
			r.mem.Run()
			r.play(purses, 100*time.Millisecond)
			if got := r.heard(p); got != want.first {
				t.Errorf("at once: %q, want %q", got, want.first)
			}
			r.play(purses, 4100*time.Millisecond)
			if got := r.heard(p); got != want.second {
				t.Errorf("4 s later: %q, want %q", got, want.second)
			}
			if l := r.engine.Stats().Limits[0]; l.Allow != want.allow || l.Refuse != want.refuse {
				t.Errorf("%+v, want %d allowed and %d refused: each once", l, want.allow, want.refuse)
			}
			r.freed()
		})
	}
}

// TestBurstFromTheBank: a whole burst that comes at once with the first read goes on, and not one message more.
func TestBurstFromTheBank(t *testing.T) {
	r, _, purses := clusterRig(t, one(t, "messages-in", "20/1second", limiter.PerClient, "close", burst(40), clustered))
	p := r.open(ticket.Claims{})
	p.Write(texts(1, 40))
	r.mem.Run()
	r.play(purses, 45*time.Millisecond) // in which the bank has none more
	if got := r.heard(p); strings.Count(got, "|") != 39 || strings.Contains(got, "close") {
		t.Errorf("of 40: %q", got)
	}
	r.mem.Advance(2 * time.Minute)
	for range 3 { // idle: the purse gives back what it has
		purses.Tell(t.Context())
		r.mem.Advance(time.Second)
	}
	p.Write(texts(1, 42))
	r.mem.Run()
	r.play(purses, 60*time.Millisecond)
	if got := r.heard(p); strings.Count(got, "|") < 40 || !strings.HasSuffix(got, "close 4429 limit:messages-in") {
		t.Errorf("of 42: %q", got)
	}
	r.freed()
}

// TestStoreDown: what store_down says, and what is counted.
func TestStoreDown(t *testing.T) {
	for down, want := range map[string]struct {
		heard              string
		degraded, refused  uint64
		recovered          string
		recoveredAfterIdle string
	}{
		"local": {"1|2|3|4", 4, 4, "", "9|10|11|12"},
		"deny":  {"", 0, 8, "9|10|11|12", "9|10|11|12"},
		"allow": {"1|2|3|4|5|6|7|8", 8, 0, "", "9|10|11|12"},
	} {
		t.Run(down, func(t *testing.T) {
			r, bank, purses := clusterRig(t, one(t, "messages-in", "1/1minute", limiter.PerClient, "drop-newest", burst(4), clustered,
				func(o *limiter.Options) { o.StoreDown = down }))
			bank.down = true
			p := r.open(ticket.Claims{})
			r.play(purses, 5*time.Millisecond)
			p.Write(texts(1, 8))
			r.mem.Run()
			r.play(purses, 100*time.Millisecond)
			if got := r.heard(p); got != want.heard {
				t.Errorf("%q, want %q", got, want.heard)
			}
			l := r.engine.Stats().Limits[0]
			if l.Degraded != want.degraded || l.Refuse != want.refused || l.Allow != 0 {
				t.Errorf("%+v, want %d degraded and %d refused", l, want.degraded, want.refused)
			}
			bank.down = false
			r.play(purses, 300*time.Millisecond)
			p.Write(texts(100, 100)) // it asks whether the bank is back
			r.mem.Run()
			r.play(purses, 20*time.Millisecond)
			r.heard(p)
			if purses.Down() {
				t.Error("the bank answers, and is taken for down")
			}
			r.mem.Advance(10 * time.Minute)
			for range 3 {
				purses.Tell(t.Context())
				r.mem.Advance(time.Second)
			}
			p.Write(texts(9, 16))
			r.mem.Run()
			r.play(purses, 100*time.Millisecond)
			if got := r.heard(p); got != want.recoveredAfterIdle {
				t.Errorf("when it is back, after a pause: %q, want %q", got, want.recoveredAfterIdle)
			}
		})
	}
}

// TestWaitsForTheBank: while the bank has not answered a message waits, whatever the action, and the socket is not read.
func TestWaitsForTheBank(t *testing.T) {
	r, _, purses := clusterRig(t, one(t, "messages-in", "1/1second", limiter.PerClient, "close", burst(4), clustered))
	p := r.open(ticket.Claims{})
	if got := r.say(p, texts(1, 2)); got != "" {
		t.Errorf("before the bank was asked: %q", got)
	}
	r.mem.Advance(150 * time.Millisecond)
	if got := r.heard(p); got != "" {
		t.Errorf("150 ms later: %q", got)
	}
	r.play(purses, 110*time.Millisecond)
	if got := r.heard(p); got != "1|2" {
		t.Errorf("after its answer: %q", got)
	}
	l := r.engine.Stats().Limits[0]
	if l.Allow != 2 || l.Refuse != 0 {
		t.Errorf("%+v", l)
	}
	r.freed()
}

// TestNoBank: a plan that needs one where there is none lets nobody in.
func TestNoBank(t *testing.T) {
	r := newRig(t, one(t, "messages-in", "1/1second", limiter.PerClient, "close", clustered), nil)
	if _, got := r.send(head(r.issue(ticket.Claims{}))); !strings.HasPrefix(got, "HTTP/1.1 503 ") {
		t.Errorf("%q", got)
	}
}

// TestLateDoesNotAllocate: neither a message that passes limits of a bank, nor one that waits.
func TestLateDoesNotAllocate(t *testing.T) {
	for _, action := range []string{"delay", "drop-oldest", "close"} {
		for _, name := range []string{"messages-in", "messages-out"} {
			o := limiter.Options{Rate: rate(t, "1000/1second"), Burst: new(limiter.Size(1)), Per: limiter.PerClient, WhenExceeded: action}
			if action == "close" {
				o.Rate, o.Burst, o.Scope = rate(t, "1000000/1second"), nil, "cluster"
			}
			r, _, purses := clusterRig(t, map[string]limiter.Options{name: o})
			echoStops(r)
			p := r.open(ticket.Claims{})
			r.play(purses, 20*time.Millisecond)
			for range 12 {
				r.say(p, texts(1, 4))
				r.play(purses, 6*time.Millisecond)
			}
			frames := texts(1, 4)
			wire := make([]byte, len(frames))
			once := func() {
				copy(wire, frames)
				p.Write(wire)
				r.mem.Run()
				for range 6 {
					purses.Tell(context.Background())
					r.mem.Advance(time.Millisecond)
				}
				p.Read()
			}
			for range 50 {
				once()
			}
			if n := testing.AllocsPerRun(300, once); n != 0 {
				t.Errorf("%s %s: %v allocations for four messages", name, action, n)
			}
		}
	}
}

// TestDelayKeepsTheRate: timers are coarse, the rate is not, however small the burst.
func TestDelayKeepsTheRate(t *testing.T) {
	for _, name := range []string{"messages-in", "messages-out"} {
		r := newRig(t, one(t, name, "400/1second", limiter.PerConnection, "delay", burst(1)), quiet)
		echoStops(r)
		p := r.open(ticket.Claims{})
		p.Write(texts(1, 9000))
		r.mem.Run()
		begun, heard := r.clock.Now(), 0
		for r.clock.Now().Sub(begun) < 20*time.Second {
			r.mem.Advance(time.Millisecond)
			if got := r.heard(p); got != "" {
				heard += 1 + strings.Count(got, "|")
			}
			if most := 1 + 400*r.clock.Now().Sub(begun).Seconds(); float64(heard) > most+1e-6 {
				t.Fatalf("%s: %d after %v, more than %.1f", name, heard, r.clock.Now().Sub(begun), most)
			}
		}
		if heard < 7920 {
			t.Errorf("%s: %d in 20 s, want 8001 less 1%%", name, heard)
		}
	}
}
