package engine_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// lease is a node's lease as the engine sees it: generation, until a moment of the clock.
type lease struct {
	generation atomic.Uint32
	until      atomic.Int64
}

func (l *lease) life(now mono.Time) uint32 {
	if now < mono.Time(l.until.Load()) {
		return l.generation.Load()
	}
	return 0
}

// begin begins another life, which lasts for d.
func (l *lease) begin(now mono.Time, d time.Duration) {
	l.generation.Add(1)
	l.until.Store(int64(now.Add(d)))
}

// leased is a rig under a lease of 43 s.
func leased(t testing.TB, change func(*engine.Options)) (*rig, *lease) {
	l := new(lease)
	r := newRig(t, nil, func(o *engine.Options) {
		quiet(o)
		o.Life = l.life
		if change != nil {
			change(o)
		}
	})
	l.begin(r.clock.Now(), 43*time.Second)
	return r, l
}

const lost = "close 1013 overloaded"

// TestLostLease: the lease ends while nothing stands still. From that moment on no message passes; the ends are spread over half
// a second; who comes in the next life stays.
func TestLostLease(t *testing.T) {
	r, l := leased(t, nil)
	one := r.open(ticket.Claims{})
	var silent []*reactor.Pipe
	for _, client := range []string{"ann", "ben", "cid"} {
		for range 9 {
			silent = append(silent, r.open(ticket.Claims{Client: client}))
		}
	}
	r.mem.Advance(42 * time.Second)
	r.stream.hold = true
	joining, _ := r.send(head(r.issue(ticket.Claims{Client: "dan"})))
	r.stream.hold = false
	r.clock.Advance(time.Duration(l.until.Load()) - time.Duration(r.clock.Now()) - 1)
	if got := r.say(one, client(frame.Text, true, "x")); got != "x" {
		t.Errorf("to the last nanosecond: %q", got)
	}
	parts := r.stream.parts
	r.clock.Advance(1)
	if got := r.say(one, client(frame.Text, true, "x")); got != lost || r.stream.parts != parts {
		t.Errorf("who speaks first: %q", got)
	}
	if got := string(joining.Read()); !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "/overloaded") {
		t.Errorf("joining: %q", got)
	}
	again := r.send1(head(r.issue(ticket.Claims{Client: "eve"})))
	if got := string(again.Read()); !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "/store-unavailable") {
		t.Errorf("let in without a lease: %q", got)
	}
	ended := r.parted(260*time.Millisecond, silent)
	l.begin(r.clock.Now(), time.Minute)
	if ended == 0 || ended == len(silent) {
		t.Errorf("%d of %d ended in the first half: not spread", ended, len(silent))
	}
	fresh := r.open(ticket.Claims{Client: "fay"})
	if ended += r.parted(240*time.Millisecond, silent); ended != len(silent) {
		t.Errorf("%d of %d ended within half a second", ended, len(silent))
	}
	if got := r.say(fresh, client(frame.Text, true, "new")); got != "new" {
		t.Errorf("under the next lease: %q", got)
	}
	for _, p := range []*reactor.Pipe{one, joining, again} {
		p.CloseWrite()
	}
	r.mem.Advance(30 * time.Second)
	if got := r.say(fresh, client(frame.Text, true, "still")); got != "still" {
		t.Errorf("under the next lease, later: %q", got)
	}
	if s := r.engine.Stats().Slots; len(s) != 1 || s[0] != (engine.SlotStats{Plan: "plan", Held: 1}) {
		t.Errorf("slots: %+v", s)
	}
	fresh.Reset()
	r.mem.Run()
	if s := r.engine.Stats().Slots; s[0].Held != 0 {
		t.Errorf("slots: %+v", s)
	}
	r.gone()
}

// send1 connects and writes text.
func (r *rig) send1(text string) *reactor.Pipe {
	p := r.mem.Connect(somebody)
	p.Write([]byte(text))
	r.mem.Run()
	return p
}

// parted moves the clock on by d, and has each of all hear what it is told and answer it as a client does that is told to go.
func (r *rig) parted(d time.Duration, all []*reactor.Pipe) (ended int) {
	r.t.Helper()
	for ; d > 0; d -= 20 * time.Millisecond {
		r.mem.Advance(20 * time.Millisecond)
		for _, p := range all {
			switch got := r.heard(p); got {
			case "":
			case lost:
				ended++
				p.CloseWrite()
			default:
				r.t.Errorf("%q", got)
			}
		}
	}
	return ended
}

// TestLostLeaseIsToldToSilentSockets: a loop with nothing to do learns of it by AskLife.
func TestLostLeaseIsToldToSilentSockets(t *testing.T) {
	r, _ := leased(t, nil)
	p := r.open(ticket.Claims{})
	r.clock.Advance(time.Minute)
	r.engine.AskLife()
	r.mem.Run()
	if n := r.parted(500*time.Millisecond, []*reactor.Pipe{p}); n != 1 {
		t.Errorf("%d ended", n)
	}
}

// TestSlept: the clock jumps over the end of the lease, as after a pause of the process or the machine, while in every direction
// something is ready to go. None of it goes.
func TestSlept(t *testing.T) {
	r, _ := leased(t, nil)
	speaks, blocked, pinged, leaving := r.open(ticket.Claims{}), r.open(ticket.Claims{}), r.open(ticket.Claims{}), r.open(ticket.Claims{})
	conns := r.stream.joined
	blocked.Window(10)
	leaving.Window(10)
	r.onLoop(func(*reactor.Loop) {
		for _, c := range []engine.Conn{conns[1], conns[3]} {
			if v := c.Send(frame.Binary, bytes.Repeat([]byte("x"), 1000)); v.Sent != engine.SentOK {
				t.Errorf("%+v", v)
			}
		}
		conns[3].Close(frame.CloseNormal, "", engine.ByBackend)
	})
	drained := 0
	r.stream.onDrained = func(engine.Conn) { drained++ }
	before := r.stream.parts
	r.clock.Advance(time.Hour)
	for _, p := range []*reactor.Pipe{blocked, leaving} {
		p.Read() // the window is open again
		p.Window(1 << 20)
	}
	pinged.Write(client(frame.Ping, true, "x"))
	speaks.Write(client(frame.Text, true, "x"))
	r.mem.Run()
	if r.stream.parts != before || drained != 0 {
		t.Errorf("the stream got %d messages and was told %d times that there is room", r.stream.parts-before, drained)
	}
	for name, p := range map[string]*reactor.Pipe{"who speaks": speaks, "who pings": pinged} {
		if got := r.heard(p); got != lost {
			t.Errorf("%s: %q", name, got)
		}
	}
	r.mem.Advance(500 * time.Millisecond)
	for name, p := range map[string]*reactor.Pipe{"with a queue": blocked, "with a queue and closed before": leaving} {
		if got := len(p.Read()); got != 0 || !p.WasReset() {
			t.Errorf("%s: %d bytes, reset: %v", name, got, p.WasReset())
		}
	}
}

// TestRoomComesAfterTheEnd: what waits for a client when the lease is lost never reaches it.
func TestRoomComesAfterTheEnd(t *testing.T) {
	r, l := leased(t, nil)
	p := r.open(ticket.Claims{})
	p.Window(10)
	r.onLoop(func(*reactor.Loop) { r.stream.joined[0].Send(frame.Binary, bytes.Repeat([]byte("x"), 1000)) })
	l.until.Store(0)
	r.mem.Advance(500 * time.Millisecond)
	p.Read()
	p.Window(1 << 20)
	r.mem.Run()
	if got := len(p.Read()); got != 0 || !p.WasReset() {
		t.Errorf("%d bytes, reset: %v", got, p.WasReset())
	}
	r.gone()
}

// TestSleptAndTheStreamSpeaksFirst: what a backend or a feed sends after the pause goes nowhere either.
func TestSleptAndTheStreamSpeaksFirst(t *testing.T) {
	r, _ := leased(t, nil)
	p := r.open(ticket.Claims{})
	r.clock.Advance(time.Minute)
	r.onLoop(func(*reactor.Loop) {
		c := r.stream.joined[0]
		if c.Open() || c.Send(frame.Text, nil).Sent != engine.SentGone || c.Body([]byte("\x81\x00")) != engine.SentGone ||
			c.Frame(frame.Header{Op: frame.Text}, nil) != engine.SentGone || c.PassBody([]byte("\x81\x00")) != engine.SentGone {
			t.Error("a message was taken for a client")
		}
		c.Close(frame.CloseNormal, "bye", engine.ByBackend)
	})
	if got := r.heard(p); got != lost {
		t.Errorf("the backend's end: %q", got)
	}
}

// TestPauseShorterThanTheLease: nothing happens.
func TestPauseShorterThanTheLease(t *testing.T) {
	r, _ := leased(t, nil)
	p := r.open(ticket.Claims{})
	r.clock.Advance(42 * time.Second)
	if got := r.say(p, client(frame.Text, true, "x")); got != "x" {
		t.Errorf("%q", got)
	}
}

// TestCloseThatNobodyTakes: half a second after its close frame a lost socket is cut off.
func TestCloseThatNobodyTakes(t *testing.T) {
	r, _ := leased(t, nil)
	stuck, slow := r.open(ticket.Claims{}), r.open(ticket.Claims{})
	stuck.Read()
	stuck.Window(0)
	r.clock.Advance(time.Minute)
	r.engine.AskLife()
	r.mem.Run()
	heard := ""
	for d := time.Duration(0); d < time.Second; d += 20 * time.Millisecond { // and neither sends its FIN
		r.mem.Advance(20 * time.Millisecond)
		heard += r.heard(slow)
	}
	if heard != lost {
		t.Errorf("%q", heard)
	}
	if got := len(stuck.Read()); got != 0 || !stuck.WasReset() || !slow.WasReset() {
		t.Errorf("%d bytes, reset: %v, %v", got, stuck.WasReset(), slow.WasReset())
	}
	r.gone()
}

// TestAnswerToAnEarlierLife: the store's yes was for a slot that the node lost before the loop came to it.
func TestAnswerToAnEarlierLife(t *testing.T) {
	for name, c := range map[string]struct {
		after func(r *rig, l *lease)
		want  string
	}{
		"the same life":       {func(*rig, *lease) {}, "HTTP/1.1 101 "},
		"a longer lease":      {func(r *rig, l *lease) { l.until.Add(int64(time.Hour)); r.clock.Advance(9 * time.Second) }, "HTTP/1.1 101 "},
		"no life":             {func(r *rig, l *lease) { l.until.Store(0) }, "HTTP/1.1 503 "},
		"another life":        {func(r *rig, l *lease) { l.begin(r.clock.Now(), time.Hour) }, "HTTP/1.1 503 "},
		"the clock has leapt": {func(r *rig, l *lease) { r.clock.Advance(time.Minute) }, "HTTP/1.1 503 "},
	} {
		r, l := leased(t, nil)
		r.desk.keep = true
		p, _ := r.send(head(r.issue(ticket.Claims{})))
		if len(r.desk.kept) != 1 || r.held("ann") != 1 {
			t.Fatalf("%s: %d batches, %d slots", name, len(r.desk.kept), r.held("ann"))
		}
		c.after(r, l)
		r.desk.touched = nil
		r.desk.kept[0].Done(r.desk.kept[0])
		r.mem.Run()
		got := string(p.Read())
		if open := c.want == "HTTP/1.1 101 "; !strings.HasPrefix(got, c.want) || (r.held("ann") == 1) != open || (len(r.desk.touched) == 0) != open {
			t.Errorf("%s: %d slots, %d asserts, %q", name, r.held("ann"), len(r.desk.touched), got)
		}
		p.Reset()
		r.mem.Run()
		r.gone()
	}
}

// TestNewLifeAtOnce: the node enters again before any loop has looked. Who was let in before is lost all the same.
func TestNewLifeAtOnce(t *testing.T) {
	r, l := leased(t, nil)
	old := r.open(ticket.Claims{})
	l.begin(r.clock.Now(), time.Minute)
	fresh := r.open(ticket.Claims{})
	if got := r.say(old, client(frame.Text, true, "x")); got != lost {
		t.Errorf("of the earlier life: %q", got)
	}
	if got := r.say(fresh, client(frame.Text, true, "x")); got != "x" {
		t.Errorf("of this life: %q", got)
	}
}

// TestManyAreShedInParts: thousands of sockets are found in rounds, and all within a second.
func TestManyAreShedInParts(t *testing.T) {
	r, _ := leased(t, nil)
	var all []*reactor.Pipe
	for range 5000 {
		all = append(all, r.openFor("many"))
	}
	r.clock.Advance(time.Minute)
	r.engine.AskLife()
	r.mem.Run()
	if n := r.parted(500*time.Millisecond, all); n != len(all) {
		t.Errorf("%d of %d ended", n, len(all))
	}
	r.mem.Run()
	r.gone()
}

// openFor is open for one of any number of sockets of a client.
func (r *rig) openFor(client string) *reactor.Pipe {
	r.t.Helper()
	c := ticket.Claims{Client: client, Plan: "plan", Stream: "echo", SessionEnd: r.clock.Wall().Add(time.Hour), IssuedAt: r.clock.Wall()}
	subject := r.ring.Subject("client", client)
	m, err := r.ring.NewMinter(bytes.NewReader(r.random())).Mint(r.clock.Wall().Add(30*time.Second), r.desk.epoch, subject, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	a, err := r.store.Issue(context.Background(), &ticket.IssueRequest{Ticket: m.Hash, Secret: m.SecretHash, Subject: subject,
		Limit: ticket.NoLimit, Outstanding: 20, Life: 30 * time.Second, Owner: "k", Grant: ticket.AppendClaims(nil, &c), Epoch: r.desk.epoch})
	if err != nil || a.Result != ticket.IssueOK {
		r.t.Fatalf("issue: %+v, %v", a, err)
	}
	p, answer := r.send(head(m))
	if !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
		r.t.Fatalf("open: %q", answer)
	}
	return p
}

// TestWithoutLives: where sockets outlive the node's lease (mode: available) nobody is asked.
func TestWithoutLives(t *testing.T) {
	r := newRig(t, nil, quiet)
	p := r.open(ticket.Claims{})
	r.clock.Advance(time.Hour)
	r.engine.AskLife()
	r.mem.Advance(time.Second)
	if got := r.say(p, client(frame.Text, true, "x")); got != "ping |x" {
		t.Errorf("%q", got)
	}
}

// TestEpochOfTheSubject: the locator is held against the epoch of its own subject.
func TestEpochOfTheSubject(t *testing.T) {
	r := newRig(t, nil, nil)
	r.open(ticket.Claims{Client: "ann"})
	if len(r.desk.asked) != 1 || r.desk.asked[0] != r.ring.Subject("client", "ann") {
		t.Errorf("asked for the epoch of %v", r.desk.asked)
	}
}

// random is enough of it for one ticket.
func (r *rig) random() []byte {
	b := make([]byte, 256)
	if _, err := rand.Read(b); err != nil {
		r.t.Fatal(err)
	}
	return b
}
