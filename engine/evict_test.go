package engine_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/internal/mono"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

const farOff = mono.Time(1 << 62)

// evicting is a plan of ten sockets that lets newcomers have the place of others.
func evicting(how string) map[string]limiter.Options {
	n := 10
	return map[string]limiter.Options{"connections": {Count: &n, WhenFull: how}}
}

// victim is who would have to go for ann.
func (r *rig) victim(idlest bool) (v engine.Victim) {
	r.t.Helper()
	r.onLoop(func(*reactor.Loop) { v = r.engine.VictimLoop(0, r.ring.Subject("client", "ann"), idlest) })
	return v
}

// evict begins to close id.
func (r *rig) evict(id reactor.ID, client string, by mono.Time) (got <-chan engine.Eviction) {
	r.t.Helper()
	r.onLoop(func(*reactor.Loop) { got = r.engine.EvictLoop(0, id, r.ring.Subject("client", client), by) })
	return got
}

// ended is what an eviction has come to, 0 if it has not ended.
func ended(got <-chan engine.Eviction) engine.Eviction {
	select {
	case e := <-got:
		return e
	default:
		return 0
	}
}

// TestEvictOldest: the socket that was opened first goes, with 4409, and its slot is free when its client knows it.
func TestEvictOldest(t *testing.T) {
	r := newRig(t, evicting("evict-oldest"), quiet)
	var pipes []*reactor.Pipe
	var ids []reactor.ID
	for range 3 {
		pipes = append(pipes, r.open(ticket.Claims{}))
		ids = append(ids, r.stream.joined[len(r.stream.joined)-1].ID())
		r.clock.Advance(time.Second)
	}
	r.open(ticket.Claims{Client: "bob"})
	r.say(pipes[0], client(frame.Text, true, "busy"))
	if v := r.victim(false); v != (engine.Victim{ID: ids[0], Ago: 3 * time.Second}) {
		t.Fatalf("victim %+v, want %v", v, ids[0])
	}
	got := r.evict(ids[0], "ann", farOff)
	if e := ended(got); e != 0 {
		t.Errorf("ended with %d while the client does not know", e)
	}
	if e := ended(r.evict(ids[0], "ann", farOff)); e != engine.EvictTaken {
		t.Errorf("a second eviction of it: %d", e)
	}
	if v := r.victim(false); v.ID != ids[1] {
		t.Errorf("the next victim is %v, want %v", v.ID, ids[1])
	}
	if text := r.heard(pipes[0]); text != "close 4409 replaced" {
		t.Errorf("the victim heard %q", text)
	}
	pipes[0].Close()
	r.mem.Run()
	if e := ended(got); e != engine.EvictDone || r.held("ann") != 2 {
		t.Errorf("ended with %d, %d held; want 2", e, r.held("ann"))
	}
	if n := r.engine.Stats().Ended[engine.Ended{Stream: "echo", Code: frame.CloseReplaced, By: engine.ByGateway}]; n != 1 {
		t.Errorf("%d ended with 4409", n)
	}
	if e := ended(r.evict(ids[0], "ann", farOff)); e != engine.EvictGone {
		t.Errorf("who is gone: %d", e)
	}
	pipes[1].Close()
	r.mem.Run()
	if v := r.victim(false); v.ID != ids[2] {
		t.Errorf("victim %v after one left by itself, want %v", v.ID, ids[2])
	}
	if seats, evicted := r.engine.Seated(); seats != 2 || evicted != 0 {
		t.Errorf("%d seats and %d under way, want ann's one and bob's", seats, evicted)
	}
}

// TestEvictIdlest: the one whose last message is the longest ago goes, whoever sent it.
func TestEvictIdlest(t *testing.T) {
	r := newRig(t, evicting("evict-idlest"), quiet)
	var pipes []*reactor.Pipe
	for range 3 {
		pipes = append(pipes, r.open(ticket.Claims{}))
		r.clock.Advance(time.Second)
	}
	r.say(pipes[0], client(frame.Text, true, "busy"))
	r.clock.Advance(time.Second)
	c := r.stream.joined[1]
	r.onLoop(func(*reactor.Loop) { c.Send(frame.Text, []byte("news")) })
	r.clock.Advance(time.Second)
	if v := r.victim(true); v != (engine.Victim{ID: r.stream.joined[2].ID(), Ago: 3 * time.Second}) {
		t.Errorf("victim %+v, want the third, idle for 3 s", v)
	}
	r.say(pipes[2], client(frame.Text, true, "busy"))
	if v := r.victim(true); v != (engine.Victim{ID: r.stream.joined[0].ID(), Ago: 2 * time.Second}) {
		t.Errorf("victim %+v, want the first, idle for 2 s", v)
	}
	if v := r.victim(false); v.ID != r.stream.joined[0].ID() {
		t.Errorf("the oldest is %v", v.ID)
	}
}

// TestEvictDeaf: a victim that takes nothing is reset after a second.
func TestEvictDeaf(t *testing.T) {
	r := newRig(t, evicting("evict-oldest"), quiet)
	p := r.open(ticket.Claims{})
	p.Window(0)
	c := r.stream.joined[0]
	r.onLoop(func(*reactor.Loop) { c.Send(frame.Binary, make([]byte, 60<<10)) })
	got := r.evict(c.ID(), "ann", farOff)
	r.mem.Advance(900 * time.Millisecond)
	r.mem.Run()
	if e := ended(got); e != 0 || r.held("ann") != 1 {
		t.Fatalf("ended with %d before its time, %d held", e, r.held("ann"))
	}
	r.mem.Advance(200 * time.Millisecond)
	r.mem.Run()
	if e := ended(got); e != engine.EvictDone || r.held("ann") != 0 {
		t.Errorf("ended with %d, %d held", e, r.held("ann"))
	}
}

// TestEvictSilent: nor does it help to take the close frame and say nothing.
func TestEvictSilent(t *testing.T) {
	r := newRig(t, evicting("evict-oldest"), quiet)
	p := r.open(ticket.Claims{})
	got := r.evict(r.stream.joined[0].ID(), "ann", farOff)
	if text := r.heard(p); text != "close 4409 replaced" {
		t.Errorf("heard %q", text)
	}
	r.mem.Advance(1100 * time.Millisecond)
	if e := ended(got); e != engine.EvictDone || r.held("ann") != 0 || !p.WasReset() {
		t.Errorf("ended with %d, %d held, reset %v", e, r.held("ann"), p.WasReset())
	}
}

// TestEvictNot: what is not an open socket of the subject, or comes too late, is left alone.
func TestEvictNot(t *testing.T) {
	r := newRig(t, evicting("evict-oldest"), quiet)
	p := r.open(ticket.Claims{})
	id := r.stream.joined[0].ID()
	for what, got := range map[string]<-chan engine.Eviction{
		"another's":         r.evict(id, "bob", farOff),
		"an old generation": r.evict(id-1, "ann", farOff),
		"a number":          r.evict(1<<55|1<<40, "ann", farOff),
	} {
		if e := ended(got); e != engine.EvictGone {
			t.Errorf("%s: %d", what, e)
		}
	}
	if e := ended(r.evict(id, "ann", r.clock.Now().Add(-time.Millisecond))); e != engine.EvictLate {
		t.Errorf("late: %d", e)
	}
	if e := r.engine.Evict(t.Context(), reactor.ID(77)<<56|5, r.ring.Subject("client", "ann"), farOff); e != engine.EvictGone {
		t.Errorf("a loop that is not there: %d", e)
	}
	if text := r.say(p, client(frame.Text, true, "still here")); text != "still here" {
		t.Errorf("heard %q", text)
	}
	r.stream.hold = true
	if _, answer := r.send(head(r.issue(ticket.Claims{Client: "joining"}))); answer != "" {
		t.Fatal(answer)
	}
	r.onLoop(func(*reactor.Loop) {
		if v := r.engine.VictimLoop(0, r.ring.Subject("client", "joining"), false); v.ID != 0 {
			t.Errorf("a socket that is not open yet is a victim: %+v", v)
		}
	})
}

// TestEvictOnlyWhereAsked: sockets of other plans have no seat.
func TestEvictOnlyWhereAsked(t *testing.T) {
	for _, how := range []string{"reject", "warn"} {
		r := newRig(t, evicting(how), quiet)
		r.open(ticket.Claims{})
		if v := r.victim(false); v.ID != 0 {
			t.Errorf("%s: victim %+v", how, v)
		}
		if e := ended(r.evict(r.stream.joined[0].ID(), "ann", farOff)); e != engine.EvictGone {
			t.Errorf("%s: %d", how, e)
		}
	}
}

// manyLoops is desk for several loops at once.
type manyLoops struct {
	mu sync.Mutex
	*desk
}

func (d *manyLoops) Redeem(b *ticket.Batch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.desk.Redeem(b)
}
func (d *manyLoops) Touch(ticket.Subject)              {}
func (d *manyLoops) Epoch(ticket.Subject) ticket.Epoch { return d.epoch }

// quietStream lets everybody in.
type quietStream struct{}

func (quietStream) Join(c engine.Conn, _ *engine.Join) { c.Accept(nil) }
func (quietStream) Receive(engine.Conn, *frame.Event)  {}
func (quietStream) Drained(engine.Conn)                {}
func (quietStream) Gone(engine.Conn, engine.End)       {}

// TestEvictOverLoops: the oldest of all loops is found, on running loops over real sockets.
func TestEvictOverLoops(t *testing.T) {
	r := newRig(t, evicting("evict-oldest"), quiet)
	o := r.options
	o.Loops, o.Clock, o.Redeemer = 3, mono.System, &manyLoops{desk: r.desk}
	plan, _ := limiter.Compile("plan", evicting("evict-oldest"), limiter.Defaults{})
	rules := &frame.Rules{Role: frame.Server, Opcodes: frame.AllowBoth, MaxMessage: 64 << 10, MaxFragments: 128}
	o.Policy = engine.NewPolicy([]engine.StreamEntry{{Name: "echo", Stream: quietStream{}, Rules: rules}}, []*limiter.Plan{plan})
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
	u := r.ring.Subject("client", "ann")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if v, ok := e.Victim(ctx, u, false); ok {
		t.Errorf("victim %v of loops that do not run", v)
	}
	e.Start()
	var first engine.Victim
	for i := range 6 {
		c := dial(t, addr.String())
		t.Cleanup(func() { _ = c.Close() })
		if _, err := c.Write([]byte(head(r.issue(ticket.Claims{})))); err != nil {
			t.Fatal(err)
		}
		until(t, func() bool { return e.Stats().Streams[0].Opened == uint64(i)+1 })
		b := make([]byte, 4096)
		if n, err := c.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "HTTP/1.1 101") {
			t.Fatalf("%q, %v", b[:n], err)
		}
		if i == 0 {
			first, _ = e.Victim(t.Context(), u, false)
			until(t, func() bool { v, _ := e.Victim(t.Context(), u, false); return v.Ago > 2*time.Millisecond }) // the next is later
		}
	}
	v, ok := e.Victim(t.Context(), u, false)
	if !ok || v.ID != first.ID {
		t.Fatalf("victim %+v, want the first, %+v", v, first)
	}
	done := make(chan engine.Eviction, 1)
	go func() { done <- e.Evict(t.Context(), v.ID, u, farOff) }()
	if end := <-done; end != engine.EvictDone { // the client does not answer: it is cut off
		t.Errorf("evicted: %d", end)
	}
	if n, _, _ := r.count.Held(u); n != 5 {
		t.Errorf("%d held, want 5", n)
	}
	if next, _ := e.Victim(t.Context(), u, false); next.ID == v.ID {
		t.Errorf("after %+v comes %+v", v, next)
	}
}
