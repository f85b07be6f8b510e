package engine_test

import (
	"strings"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/ticket"
)

// ask sends n upgrades that the loop sees in one round, each with the ticket of a new client.
func (r *rig) ask(n int) {
	r.t.Helper()
	all := make([]*reactor.Pipe, n)
	for i := range all {
		all[i] = r.mem.Connect(somebody)
	}
	r.mem.Run()
	for _, p := range all {
		r.asked++
		p.Write([]byte(head(r.issue(ticket.Claims{Client: "c" + itoa(uint16(r.asked))}))))
	}
	r.mem.Run()
}

// release lets the store answer.
func (r *rig) release() {
	kept := r.desk.kept
	r.desk.kept = nil
	for _, b := range kept {
		b.Done(b)
	}
	r.mem.Run()
}

// TestBatches: what one round of the poller brings goes to the store at once, and batches are used again while they are few
// and not too large.
func TestBatches(t *testing.T) {
	r := newRig(t, nil, quiet)
	r.desk.keep = true
	r.ask(5)
	if len(r.desk.kept) != 1 || len(r.desk.kept[0].Reqs) != 5 {
		t.Fatalf("%d batches, want one of 5", len(r.desk.kept))
	}
	first := r.desk.kept[0]
	r.mem.Advance(2 * time.Second)
	r.release()
	if len(r.stream.joined) != 5 {
		t.Fatalf("%d joined", len(r.stream.joined))
	}
	if took := r.engine.Stats().Took[ticket.RedeemOK]; took.Count() != 5 || took.Sum() != 10 {
		t.Errorf("%d took %v s in all, want 5 of 2 s", took.Count(), took.Sum())
	}
	r.ask(1)
	if len(r.desk.kept) != 1 || r.desk.kept[0] != first || len(first.Reqs) != 1 || len(first.IDs) != 1 || len(first.Answers) != 1 || len(first.Expiry) != 1 {
		t.Error("the batch is not used again, or not empty")
	}
	for range 20 {
		r.ask(1)
	}
	r.release()
	if n := r.engine.Shared().Batches; n != 16 {
		t.Errorf("%d empty batches are kept, want 16", n)
	}
	if len(r.stream.joined) != 26 {
		t.Errorf("%d joined, want 26", len(r.stream.joined))
	}

	r = newRig(t, nil, func(o *engine.Options) { quiet(o); o.AdmitsMax = 2000 })
	r.desk.keep = true
	r.ask(1100)
	r.release()
	if n := r.engine.Shared().Batches; n != 0 || len(r.stream.joined) != 1100 {
		t.Errorf("a batch for 1,100 is kept (%d), or not all joined (%d)", n, len(r.stream.joined))
	}
}

// TestWhatTheCacheKnows of a ticket that opened a socket, and of one that never was.
func TestWhatTheCacheKnows(t *testing.T) {
	r := newRig(t, nil, nil)
	r.desk.keep = true
	spent, unknown := r.issue(ticket.Claims{}), r.issue(ticket.Claims{})
	r.send(head(spent))
	r.send(head(unknown))
	r.desk.kept[1].Answers[0] = ticket.RedeemAnswer{Result: ticket.RedeemUnknown}
	r.release()
	for m, want := range map[*ticket.Minted]ticket.State{spent: ticket.Spent, unknown: ticket.Refused} {
		if got := r.options.Cache.Get(m.Hash, r.clock.Wall()); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

// TestAcceptThenRefuse: until the 101 has gone out the stream may think again.
func TestAcceptThenRefuse(t *testing.T) {
	r := newRig(t, nil, nil)
	r.stream.onJoin = func(c engine.Conn, _ *engine.Join) { c.Accept(nil); c.Refuse(engine.ErrBackend) }
	p, got := r.send(head(r.issue(ticket.Claims{})))
	if !strings.HasPrefix(got, "HTTP/1.1 502 ") || strings.Count(got, "HTTP/1.1 ") != 1 {
		t.Errorf("%q", got)
	}
	p.CloseWrite()
	r.mem.Run()
	r.gone()
}

// TestBoundOrigin: a ticket for an origin opens there.
func TestBoundOrigin(t *testing.T) {
	r := newRig(t, nil, nil)
	if _, got := r.send(head(r.issue(ticket.Claims{Origin: "https://app.example.com"}), "Origin: https://app.example.com")); !strings.HasPrefix(got, "HTTP/1.1 101 ") {
		t.Errorf("%q", got)
	}
}

// TestLoops: each loop's sockets are its own, and all are counted together.
func TestLoops(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { o.Loops = 3 })
	var all []*reactor.Pipe
	for range 7 {
		all = append(all, r.open(ticket.Claims{}))
	}
	s := r.engine.Stats()
	if s.Live != 7 || s.Streams[0].Open != 7 || len(s.Reactor.PerLoop) != 3 || s.Reactor.PerLoop[0].Conns != 3 || r.held("ann") != 7 || r.engine.Loops() != 3 {
		t.Errorf("%d live, %d open, %v, held %d", s.Live, s.Streams[0].Open, s.Reactor.PerLoop, r.held("ann"))
	}
	r.drain(0)
	r.mem.Advance(100 * time.Millisecond)
	for i, p := range all {
		if got := r.heard(p); got != "close 1012 drain" {
			t.Errorf("socket %d: %q", i, got)
		}
		p.CloseWrite()
	}
	r.mem.Run()
	r.gone()
}

// TestMalformed heads are told what is wrong, counted, and closed.
func TestMalformed(t *testing.T) {
	r := newRig(t, nil, nil)
	p, got := r.send("GET /t/x HTTP/1.1\r\nHost : a\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, "/problems/invalid-request") || !strings.Contains(got, "req_") || !p.Closed() {
		t.Errorf("%q", got)
	}
	var n uint64
	for reason, count := range r.engine.Stats().Rejected {
		if n += count; reason == "" {
			t.Error("a refusal without a reason")
		}
	}
	if n != 1 {
		t.Errorf("%d refusals counted", n)
	}
}

// TestDrainOvertakesTheUpgrade: who gets the 101 between the drain's beginning and its turn on the loop is sent away behind it.
func TestDrainOvertakesTheUpgrade(t *testing.T) {
	r := newRig(t, nil, nil)
	r.stream.hold = true
	p, _ := r.send(head(r.issue(ticket.Claims{})))
	r.engine.StopAccept()
	r.onLoop(func(*reactor.Loop) { r.stream.joined[0].Accept(nil) })
	if got := string(p.Read()); !strings.HasPrefix(got, "HTTP/1.1 101 ") || !strings.HasSuffix(got, "\x88\x07\x03\xf4drain") {
		t.Errorf("%q", got)
	}
}

// promptDesk answers on the spot while it likes to.
type promptDesk struct {
	*desk
	now   bool
	asked int
}

func (d *promptDesk) RedeemNow(b *ticket.Batch) bool {
	d.asked++
	if !d.now {
		return false
	}
	done := b.Done
	b.Done = func(*ticket.Batch) {}
	d.Redeem(b)
	b.Done = done
	return true
}

// TestRedeemedOnTheSpot: a Redeemer that need not wait is asked first, and what it says holds.
func TestRedeemedOnTheSpot(t *testing.T) {
	for _, now := range []bool{true, false} {
		var d *promptDesk
		r := newRig(t, nil, func(o *engine.Options) {
			d = &promptDesk{desk: o.Redeemer.(*desk), now: now}
			o.Redeemer = d
		})
		m := r.issue(ticket.Claims{})
		p, answer := r.send(head(m))
		if !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
			t.Fatalf("%q", answer)
		}
		if got := r.say(p, client(frame.Text, true, "hello")); got != "hello" {
			t.Errorf("%q", got)
		}
		if _, answer := r.send(head(m)); !strings.HasPrefix(answer, "HTTP/1.1 401 ") {
			t.Errorf("the second use: %q", answer)
		}
		if d.asked != 1 { // the second was refused by the cache
			t.Errorf("asked %d times", d.asked)
		}
		if n := r.held("ann"); n != 1 {
			t.Errorf("%d slots are held", n)
		}
	}
}
