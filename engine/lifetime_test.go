package engine_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/internal/mono"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

// TestDrainSpreads: 1012 for who is open, evenly within the time given; a refusal for who is not yet.
func TestDrainSpreads(t *testing.T) {
	const sockets, parts, over = 1000, 10, 30 * time.Second
	r := newRig(t, nil, quiet)
	var open []*reactor.Pipe
	for i := range sockets {
		open = append(open, r.open(ticket.Claims{Client: "c" + itoa(uint16(i+1))}))
	}
	r.stream.hold = true
	joining, _ := r.send(head(r.issue(ticket.Claims{})))
	r.desk.keep = true
	asked, _ := r.send(head(r.issue(ticket.Claims{})))
	half, _ := r.send("GET ")

	r.drain(over)
	for name, p := range map[string]*reactor.Pipe{"joining": joining, "asked": asked} {
		if got := string(p.Read()); !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "/draining") || !strings.Contains(got, "Retry-After: ") {
			t.Errorf("%s: %q", name, got)
		}
		p.CloseWrite()
	}
	half.Write([]byte(strings.TrimPrefix(head(r.issue(ticket.Claims{})), "GET ")))
	r.mem.Run()
	if got := string(half.Read()); !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "/draining") {
		t.Errorf("a head that came later: %q", got)
	}
	half.CloseWrite()
	late := r.mem.Connect(somebody)
	r.mem.Run()
	if !late.Closed() {
		t.Error("a connection was accepted")
	}
	for part := range parts {
		r.mem.Advance(over / parts)
		before := len(open)
		open = slices.DeleteFunc(open, func(p *reactor.Pipe) bool {
			got := r.heard(p)
			if got != "" && got != "close 1012 drain" {
				t.Fatalf("%q", got)
			}
			if got != "" {
				p.CloseWrite()
			}
			return got != ""
		})
		if n := before - len(open); part < parts-1 && (n < sockets/parts/2 || n > sockets/parts*3/2) { // five sigma and more
			t.Errorf("tenth %d: %d closed, want about %d", part, n, sockets/parts)
		}
	}
	r.mem.Advance(100 * time.Millisecond)
	for _, p := range open {
		p.CloseWrite()
	}
	r.mem.Run()
	for _, b := range r.desk.kept {
		b.Done(b)
	}
	r.mem.Run()
	r.gone()
	if n := r.engine.Stats().Ended[engine.Ended{Stream: "echo", Code: frame.CloseDrain, By: engine.ByGateway}]; n != sockets {
		t.Errorf("%d counted as drained, want %d", n, sockets)
	}
}

// TestDrainOnRealLoops returns when the last socket has gone, not before, and tells of a deadline.
func TestDrainOnRealLoops(t *testing.T) {
	r := newRig(t, nil, nil)
	o := r.options
	o.Clock, o.Loops = mono.System, 2
	e, err := engine.New(o)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := e.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.Start()
	defer func() {
		if err := e.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		select {
		case err := <-e.Failed():
			t.Error(err)
		default:
		}
	}()
	c := dial(t, addr.String())
	until(t, func() bool { return e.Stats().Live == 1 })
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := e.Drain(short, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a socket is there: %v", err)
	}
	long, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	drained := make(chan error, 2)
	for range cap(drained) {
		go func() { drained <- e.Drain(long, 0) }()
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for range cap(drained) {
		if err := <-drained; err != nil || e.Stats().Live != 0 {
			t.Errorf("%v, %d live", err, e.Stats().Live)
		}
	}
}

// TestDrainKeepsAnEarlierEnd: whoever has less time than the drain gives ends then.
func TestDrainKeepsAnEarlierEnd(t *testing.T) {
	r := newRig(t, nil, quiet)
	p := r.open(ticket.Claims{SessionEnd: r.clock.Wall().Add(time.Second)})
	r.drain(1000 * time.Hour)
	r.mem.Advance(1100 * time.Millisecond)
	if got := r.heard(p); !strings.HasPrefix(got, "close ") {
		t.Errorf("%q", got)
	}
}

func TestIdleOff(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { o.Deadlines.Ping = 1000 * time.Hour })
	p := r.open(ticket.Claims{})
	r.mem.Advance(10 * time.Minute)
	if got := r.heard(p); got != "" || p.Closed() {
		t.Errorf("%q", got)
	}
	if n := r.engine.Stats().Reactor.Timers; n > 5 {
		t.Errorf("%d timers for a socket that waits for nothing", n)
	}
	r.clock.Advance(11*time.Hour + 49*time.Minute)
	r.mem.Advance(0)
	if got := r.heard(p); got != "" {
		t.Errorf("%q", got)
	}
}

// TestNothingLeaks over a thousand sockets that end in every way, at every stage.
func TestNothingLeaks(t *testing.T) {
	limits := map[string]limiter.Options{
		"messages-in": {Rate: rate(t, "3/1minute"), Per: limiter.PerClient, WhenExceeded: "close"},
		"bytes-in":    {Rate: rate(t, "1MiB/1second"), Per: limiter.PerConnection, WhenExceeded: "pause"},
	}
	r := newRig(t, limits, nil)
	ends := []func(p *reactor.Pipe){
		func(p *reactor.Pipe) { p.Write(client(frame.Close, true, "")); r.mem.Run(); p.CloseWrite() },
		func(p *reactor.Pipe) { p.Write(client(frame.Text, false, "half")); r.mem.Run(); p.Reset() },
		func(p *reactor.Pipe) { p.CloseWrite() },
		func(p *reactor.Pipe) {
			p.Write(client(frame.Text, false, "a"))
			p.Write(client(frame.Continuation, true, "\xff"))
			r.mem.Run()
			p.CloseWrite()
		},
		func(p *reactor.Pipe) { p.Close() },
	}
	var settled engine.Shared
	for i := range 1000 {
		r.stream.hold, r.stream.refuse, r.desk.keep = i%7 == 5, nil, i%7 == 6
		if i%7 == 4 {
			r.stream.refuse = engine.ErrBackend
		}
		p, _ := r.send(head(r.issue(ticket.Claims{Client: "c" + itoa(uint16(i%5+1))})))
		ends[i%len(ends)](p)
		r.mem.Run()
		for _, b := range r.desk.kept {
			b.Done(b)
		}
		r.desk.kept = nil
		p.CloseWrite()
		r.mem.Run()
		if i == 100 {
			settled = r.engine.Shared()
		}
	}
	r.gone("c1", "c2", "c3", "c4", "c5")
	if s := r.engine.Shared(); s != settled {
		t.Errorf("after 1000 sockets %+v, after 100 %+v", s, settled)
	}
	var s limiter.TableStats
	if r.options.Table.Stats(&s); s.Held != 0 {
		t.Errorf("%d shared buckets are held", s.Held)
	}
	if r.mem.Reactor().Loops() != r.engine.Loops() {
		t.Error("loops")
	}
}

// TestTwoSocketsShareNames and limits, and the first to go leaves them to the other.
func TestTwoSocketsShareNames(t *testing.T) {
	limits := map[string]limiter.Options{"messages-in": {Rate: rate(t, "3/1minute"), Per: limiter.PerClient, WhenExceeded: "close"}}
	var events []engine.Event
	r := newRig(t, limits, func(o *engine.Options) { o.Event = func(e engine.Event) { events = append(events, e) } })
	one, two := r.open(ticket.Claims{}), r.open(ticket.Claims{})
	bob := r.open(ticket.Claims{Client: "bob"})
	one.Reset()
	r.mem.Run()
	if s := r.engine.Shared(); s.Names != 3 { // and their key
		t.Errorf("%+v", s)
	}
	text := client(frame.Text, true, "x")
	if got := r.say(two, text, text, text, text); got != "x|x|x|close 4429 limit:messages-in" {
		t.Errorf("%q", got)
	}
	if got := r.say(bob, text); got != "x" {
		t.Errorf("bob: %q", got)
	}
	last := events[len(events)-1]
	if last.Client != "ann" || last.Stream != "echo" || last.Kind != engine.EventClosed || last.Code != frame.CloseLimit ||
		last.By != engine.ByGateway || last.Reason != "limit:messages-in" || last.Peer != somebody.Addr() {
		t.Errorf("%+v", last)
	}
}

// TestEvents tell a socket's story, and no secret.
func TestEvents(t *testing.T) {
	var events []engine.Event
	r := newRig(t, nil, func(o *engine.Options) { o.Event = func(e engine.Event) { events = append(events, e) } })
	told := func() string {
		var s []string
		for _, e := range events {
			s = append(s, strings.Join([]string{string('0' + rune(e.Kind)), e.Ticket, e.Client, e.Stream, e.Reason, e.By.String(), itoa(uint16(e.Code)), e.Request[:min(4, len(e.Request))]}, ","))
		}
		events = nil
		return strings.Join(s, "|")
	}
	p := r.open(ticket.Claims{ID: "tkt_1"})
	if !strings.HasPrefix(events[0].Conn, "c_") {
		t.Errorf("%+v", events)
	}
	r.say(p, client(frame.Close, true, "\x03\xe8secret"))
	if got := told(); got != "1,tkt_1,ann,echo,,network,,|2,,ann,echo,,client,1000," {
		t.Error(got)
	}
	r.send(rawHead("/t/x"))
	r.send(rawHead("/"))
	r.send("GET / HTTP/1.1\r\n\r\n")
	if got := told(); got != "3,,,,malformed,network,,|3,,,,route,network,,req_|3,,,,host,network,,req_" {
		t.Error(got)
	}
	r.open(ticket.Claims{}).Reset()
	r.mem.Run()
	if got := told(); got != "1,,ann,echo,,network,,|2,,ann,echo,reset,network,," {
		t.Error(got)
	}
}

// TestNewWithoutRandomness fails and leaves no loop behind.
func TestNewWithoutRandomness(t *testing.T) {
	o := newRig(t, nil, nil).options
	o.Clock, o.Rand = mono.System, iotest.ErrReader(errors.New("dry"))
	if e, err := engine.New(o); err == nil || e != nil || !strings.Contains(err.Error(), "dry") {
		t.Errorf("%v, %v", e, err)
	}
	o.Rand, o.Queue = rand.Reader, -1
	if e, err := engine.New(o); err == nil || e != nil {
		t.Errorf("%v, %v", e, err)
	}
}

// TestStopGivesBackWhatWasAsked: answers that come when the loops have ended open nothing and keep no slot.
func TestStopGivesBackWhatWasAsked(t *testing.T) {
	r := newRig(t, nil, nil)
	r.desk.keep = true
	r.send(head(r.issue(ticket.Claims{})))
	gone, _ := r.send(head(r.issue(ticket.Claims{Client: "bob"})))
	gone.Reset()
	r.mem.Run()
	r.desk.keep = false
	r.open(ticket.Claims{})
	if err := r.engine.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, b := range r.desk.kept {
		b.Done(b)
	}
	if r.held("ann") != 0 || r.held("bob") != 0 || len(r.desk.touched) != 3 {
		t.Errorf("held %d and %d, touched %d", r.held("ann"), r.held("bob"), len(r.desk.touched))
	}
	if err := r.engine.Stop(t.Context()); err != nil || r.held("ann") != 0 {
		t.Errorf("a second Stop: %v, held %d", err, r.held("ann"))
	}
}

// TestFullRing: a redemption for which the loop's ring has no room goes out at once.
func TestFullRing(t *testing.T) {
	r := newRig(t, nil, nil)
	r.desk.keep = true // an answer at once would wait for the ring
	p := r.mem.Connect(somebody)
	r.mem.Run()
	m := r.issue(ticket.Claims{})
	n := 0
	fill := func(l *reactor.Loop) {
		for l.Later(reactor.Work{}) {
			n++
		}
	}
	for range 511 { // fill is the last of the 512 units that a wake does: none behind it makes room
		r.engine.Do(0, func(*reactor.Loop) {})
	}
	r.engine.Do(0, fill)
	p.Write([]byte(head(m)))
	r.mem.Run()
	if n < 1000 || len(r.desk.kept) != 1 {
		t.Fatalf("%d posted, %d batches", n, len(r.desk.kept))
	}
	r.desk.kept[0].Done(r.desk.kept[0])
	r.mem.Run()
	if got := string(p.Read()); !strings.HasPrefix(got, "HTTP/1.1 101 ") {
		t.Errorf("%q", got)
	}
}

// TestBoundAddress: a unix socket has no address, and a ticket bound to one is not for it.
func TestBoundAddress(t *testing.T) {
	r := newRig(t, nil, nil)
	_, got := r.send(head(r.issue(ticket.Claims{Addr: somebody.Addr()})))
	if !strings.HasPrefix(got, "HTTP/1.1 101 ") {
		t.Errorf("the ticket's own address: %q", got)
	}
	p := r.mem.Connect(netip.AddrPort{})
	p.Write([]byte(head(r.issue(ticket.Claims{Addr: somebody.Addr()}))))
	r.mem.Run()
	if got := string(p.Read()); !strings.HasPrefix(got, "HTTP/1.1 401 ") {
		t.Errorf("no address: %q", got)
	}
}

// TestEndsOnce: a socket that is due for two reasons in one moment ends for the first.
func TestEndsOnce(t *testing.T) {
	for name, c := range map[string]struct {
		claims func(*rig) ticket.Claims
		idle   time.Duration
		frames []byte
		want   string
	}{
		"session and pong":  {func(r *rig) ticket.Claims { return ticket.Claims{SessionEnd: r.clock.Wall().Add(10 * time.Second)} }, 0, nil, "close 4401 session-expired"},
		"idle and pong":     {func(*rig) ticket.Claims { return ticket.Claims{} }, 10 * time.Second, nil, "close 4408 idle"},
		"assembly and idle": {func(*rig) ticket.Claims { return ticket.Claims{} }, 10 * time.Second, client(frame.Text, false, "x"), "close 1008 guard:frame.assembly"},
	} {
		r := newRig(t, nil, func(o *engine.Options) {
			o.Deadlines.Ping, o.Deadlines.PongWait, o.Deadlines.Idle = 4, 9980*time.Millisecond, c.idle // a ping in the first tick
		})
		p := r.open(c.claims(r))
		r.say(p, c.frames)
		r.mem.Advance(9950 * time.Millisecond)
		r.heard(p)
		r.clock.Advance(200 * time.Millisecond) // all are due in the tick that follows
		r.mem.Advance(20 * time.Millisecond)
		if got := r.heard(p); got != c.want || len(r.stream.ends) != 1 || len(r.engine.Stats().Ended) != 1 {
			t.Errorf("%s: %q, ended %v", name, got, r.engine.Stats().Ended)
		}
		p.Reset()
		r.mem.Run()
		r.gone()
	}
}

// TestSlowEverywhere: whatever finds no room for a client ends it with 4440.
func TestSlowEverywhere(t *testing.T) {
	thousand := []byte(strings.Repeat("x", 1000))
	for name, fill := range map[string]func(*rig, engine.Conn){
		"SendMessage": func(r *rig, c engine.Conn) {
			r.onLoop(func(*reactor.Loop) {
				m := r.engine.NewMessage(frame.Text, thousand)
				for n := 1; ; n++ {
					if v := c.SendMessage(&m); v.Sent == engine.SentGone {
						if n != 5 {
							t.Errorf("%d messages of 1,004 bytes fit into 4 KiB", n-1)
						}
						return
					}
				}
			})
		},
		"Send": func(r *rig, c engine.Conn) {
			r.onLoop(func(*reactor.Loop) {
				for c.Send(frame.Text, thousand).Sent == engine.SentOK {
				}
			})
		},
	} {
		r := newRig(t, nil, func(o *engine.Options) { quiet(o); o.Queue = 4 << 10 })
		p := r.open(ticket.Claims{})
		p.Window(0)
		fill(r, r.stream.joined[0])
		if len(r.stream.ends) != 1 || r.stream.ends[0].Code != frame.CloseSlow || r.engine.Stats().Streams[0].Slow != 1 {
			t.Errorf("%s: %+v", name, r.stream.ends)
		}
		p.Window(1 << 20)
		r.mem.Run()
		if got := frames(t, p.Read()); len(got) == 0 || got[len(got)-1] != "close 4440 slow-consumer" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestBrokenConnectionIsNotSlow: a write that fails because the peer is gone is the network's doing.
func TestBrokenConnectionIsNotSlow(t *testing.T) {
	r := newRig(t, nil, quiet)
	p := r.open(ticket.Claims{})
	p.Reset()
	r.engine.Do(0, func(*reactor.Loop) {
		c := r.stream.joined[0]
		big := make([]byte, 100<<10)
		c.Body(append([]byte("\x82\x7f\x00\x00\x00\x00\x00\x01\x90\x00"), big...)) // goes out at once, and fails
		if v := c.Send(frame.Text, []byte("x")); v.Sent != engine.SentGone {
			t.Errorf("%+v", v)
		}
	})
	r.mem.Run()
	if len(r.stream.ends) != 1 || r.stream.ends[0].By != engine.ByNetwork || r.engine.Stats().Streams[0].Slow != 0 {
		t.Errorf("%+v", r.stream.ends)
	}
	r.gone()
}

// TestStopInTime: Stop tells when the loops did not end in time.
func TestStopInTime(t *testing.T) {
	r := newRig(t, nil, nil)
	o := r.options
	o.Clock = mono.System
	e, err := engine.New(o)
	if err != nil {
		t.Fatal(err)
	}
	e.Start()
	free := make(chan struct{})
	e.Do(0, func(*reactor.Loop) { <-free })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Stop(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	close(free)
	if err := e.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestPings come every 20 to 25 s while they are answered; the first that is not ends the socket, once, with a reset.
func TestPings(t *testing.T) {
	r := newRig(t, nil, nil)
	p := r.open(ticket.Claims{})
	last, pings := 0, 0
	const seconds = 600
	for now := 1; now <= seconds; now++ {
		r.mem.Advance(time.Second)
		switch got := r.heard(p); got {
		case "":
		case "ping ":
			if gap := now - last; gap < 20 || gap > 26 {
				t.Errorf("a ping %d s after the last", gap)
			}
			last = now
			pings++
			r.say(p, client(frame.Pong, true, ""))
		default:
			t.Fatalf("%q", got)
		}
	}
	if pings < seconds/26 || pings > seconds/20 {
		t.Errorf("%d pings in %d s", pings, seconds)
	}
	for r.heard(p) == "" {
		r.mem.Advance(time.Second)
	}
	r.mem.Advance(8900 * time.Millisecond)
	if p.Closed() {
		t.Error("given up too early")
	}
	r.mem.Advance(3500 * time.Millisecond) // pongs are looked for on a grid of 2,048 ms
	s := r.engine.Stats()
	if want := (engine.End{By: engine.ByNetwork, Reason: "no pong"}); len(r.stream.ends) != 1 || r.stream.ends[0] != want || !p.WasReset() {
		t.Errorf("%+v, reset %v", r.stream.ends, p.WasReset())
	}
	if len(s.Ended) != 1 || s.Ended[engine.Ended{Stream: "echo", By: engine.ByNetwork}] != 1 {
		t.Errorf("%v", s.Ended)
	}
	r.gone()
}

// TestPingsAreSpread: sockets that were opened one behind the other are pinged together, so many of them, and others at other times.
func TestPingsAreSpread(t *testing.T) {
	r := newRig(t, nil, nil)
	const group, groups = 64, 12
	var pipes []*reactor.Pipe
	for i := range group * groups {
		pipes = append(pipes, r.open(ticket.Claims{Client: fmt.Sprint(i)}))
	}
	at := make([]int, len(pipes))
	for now := 1; now <= 25; now++ {
		r.mem.Advance(time.Second)
		for i, p := range pipes {
			if at[i] == 0 && r.heard(p) == "ping " {
				at[i] = now
			}
		}
	}
	moments := map[int]bool{}
	for g := range groups {
		all := at[g*group : (g+1)*group]
		if all[0] < 20 || len(slices.Compact(slices.Clone(all))) > 1 {
			t.Errorf("group %d: pinged after %v seconds", g, all)
		}
		moments[all[0]] = true
	}
	if len(moments) < 2 {
		t.Errorf("all are pinged in second %v", moments)
	}
}

// TestAssemblyOfALateMessage: its clock needs no timer that happens to come before.
func TestAssemblyOfALateMessage(t *testing.T) {
	r := newRig(t, nil, quiet)
	p := r.open(ticket.Claims{})
	r.mem.Advance(time.Minute)
	r.say(p, client(frame.Binary, false, "begun"))
	r.mem.Advance(10100 * time.Millisecond)
	if got := r.heard(p); got != "close 1008 guard:frame.assembly" {
		t.Errorf("%q", got)
	}
}

// TestAClientThatOnlyTalksIsNotIdle, and one that only pings is.
func TestAClientThatOnlyTalksIsNotIdle(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { quiet(o); o.Deadlines.Idle = 5 * time.Second })
	r.stream.onReceive = func(engine.Conn, *frame.Event) {}
	p := r.open(ticket.Claims{})
	for range 4 {
		r.mem.Advance(4 * time.Second)
		if got := r.say(p, client(frame.Text, true, "x")); got != "" {
			t.Errorf("%q", got)
		}
	}
	r.mem.Advance(4 * time.Second)
	r.say(p, client(frame.Ping, true, ""))
	r.mem.Advance(1100 * time.Millisecond)
	if got := r.heard(p); got != "close 4408 idle" {
		t.Errorf("%q", got)
	}
}
