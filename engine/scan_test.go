package engine_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/ticket"
)

// mixed opens n sockets: clients from c0 on, ten of them or a tenth of n, and keys k0 to k2 in turn.
func (r *rig) mixed(n int) (all []*reactor.Pipe) {
	for i := range n {
		all = append(all, r.open(ticket.Claims{Client: fmt.Sprintf("c%d", i%max(10, n/10)), Key: fmt.Sprintf("k%d", i%3)}))
	}
	return all
}

// shut is Engine.Close, done.
func (r *rig) shut(sel engine.Selector, over time.Duration) (n int) {
	r.t.Helper()
	n = -1
	r.engine.Close(sel, frame.CloseRevoked, over, func(met int) { n = met })
	r.mem.Run()
	return n
}

// TestClose: by client, key, stream, plan, ticket and connection, and any of them together; nobody else hears anything.
func TestClose(t *testing.T) {
	for _, c := range []struct {
		name string
		sel  engine.Selector
		want func(i int) bool
	}{
		{"nobody", engine.Selector{}, func(int) bool { return false }},
		{"client", engine.Selector{Client: "c3"}, func(i int) bool { return i%10 == 3 }},
		{"key", engine.Selector{Key: "k1"}, func(i int) bool { return i%3 == 1 }},
		{"client and key", engine.Selector{Client: "c3", Key: "k0"}, func(i int) bool { return i%10 == 3 && i%3 == 0 }},
		{"half of a name", engine.Selector{Client: "c"}, func(int) bool { return false }},
		{"key as client", engine.Selector{Client: "k1"}, func(int) bool { return false }},
		{"stream", engine.Selector{Stream: "echo"}, func(int) bool { return true }},
		{"other stream", engine.Selector{Stream: "chat"}, func(int) bool { return false }},
		{"plan and key", engine.Selector{Plan: "plan", Key: "k2"}, func(i int) bool { return i%3 == 2 }},
		{"other plan", engine.Selector{Plan: "gold", Key: "k2"}, func(int) bool { return false }},
		{"no ticket", engine.Selector{Ticket: "tkt_x"}, func(int) bool { return false }},
		{"no connection", engine.Selector{Conn: "c_0000000zz"}, func(int) bool { return false }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil, func(o *engine.Options) { quiet(o); o.Loops = 3 })
			all, want := r.mixed(60), 0
			n := r.shut(c.sel, 0)
			for i, p := range all {
				heard := ""
				if c.want(i) {
					heard, want = "close 4403 revoked", want+1
				}
				if got := r.heard(p); got != heard {
					t.Errorf("socket %d heard %q, want %q", i, got, heard)
				}
			}
			if n != want {
				t.Errorf("%d closed, want %d", n, want)
			}
		})
	}
}

// TestCloseOne: a ticket's socket, and a connection by its id, are that one among many of the same client.
func TestCloseOne(t *testing.T) {
	var opened []engine.Event
	r := newRig(t, nil, func(o *engine.Options) {
		quiet(o)
		o.Loops = 2
		o.Event = func(e engine.Event) {
			if e.Kind == engine.EventOpened {
				opened = append(opened, e)
			}
		}
	})
	var all []*reactor.Pipe
	var ids []string
	for range 8 {
		m := r.issue(ticket.Claims{})
		ids = append(ids, ticket.PublicID(r.clock.Wall(), r.ring.Subject("client", "ann"), m.Hash))
		p, _ := r.send(head(m))
		all = append(all, p)
	}
	if n := r.shut(engine.Selector{Ticket: ids[5]}, 0); n != 1 || r.heard(all[5]) != "close 4403 revoked" {
		t.Errorf("by ticket: %d closed", n)
	}
	conn := opened[2].Conn
	if !r.engine.Mine(conn) || !engine.ValidConn(conn) || r.engine.Mine("c_0000000"+conn[9:]) || engine.ValidConn(strings.ToUpper(conn)) {
		t.Errorf("whose %s is", conn)
	}
	for _, sel := range []engine.Selector{{Conn: conn, Client: "bob"}, {Conn: conn, Stream: "chat"}} {
		if n := r.shut(sel, 0); n != 0 {
			t.Errorf("%+v closed %d", sel, n)
		}
	}
	if n := r.shut(engine.Selector{Conn: conn, Client: "ann"}, 0); n != 1 || r.heard(all[2]) != "close 4403 revoked" {
		t.Errorf("by connection: %d closed", n)
	}
	if n := r.shut(engine.Selector{Conn: conn}, 0); n != 0 {
		t.Errorf("again: %d closed", n)
	}
	for i, p := range all {
		if i != 2 && i != 5 && r.heard(p) != "" {
			t.Errorf("socket %d was closed too", i)
		}
	}
}

// TestCloseUntil: a socket whose ticket is younger than what is meant stays, however late the scan comes.
func TestCloseUntil(t *testing.T) {
	r := newRig(t, nil, quiet)
	r.mem.Advance(time.Second)
	old := r.issue(ticket.Claims{})
	before := r.clock.Wall().Add(500 * time.Millisecond)
	r.mem.Advance(time.Second)
	young := r.open(ticket.Claims{})
	r.mem.Advance(10 * time.Second)
	late, _ := r.send(head(old)) // opened after the other, with a ticket from before
	r.mem.Advance(45 * time.Minute)
	if n := r.shut(engine.Selector{Client: "ann", Until: before}, 0); n != 1 || r.heard(late) != "close 4403 revoked" || r.heard(young) != "" {
		t.Errorf("%d closed; the younger one heard %q", n, r.heard(young))
	}
}

// TestCloseSpread: at moments spread over the time given, not before and not all at once.
func TestCloseSpread(t *testing.T) {
	const sockets, parts, over = 400, 8, 40 * time.Second
	r := newRig(t, nil, quiet)
	all := r.mixed(sockets)
	if n := r.shut(engine.Selector{Plan: "plan"}, over); n != sockets {
		t.Fatalf("%d to be closed, want %d", n, sockets)
	}
	open := sockets
	for part := range parts {
		r.mem.Advance(over / parts)
		before := open
		all = slices.DeleteFunc(all, func(p *reactor.Pipe) bool { return strings.Contains(r.heard(p), "close 4403 revoked") })
		open = len(all)
		if gone := before - open; gone < sockets/parts/2 || gone > sockets/parts*2 {
			t.Errorf("part %d: %d sockets went, want about %d", part, gone, sockets/parts)
		}
	}
	r.mem.Advance(100 * time.Millisecond)
	for _, p := range all {
		if r.heard(p) == "" {
			t.Error("a socket stayed")
		}
	}
}

// TestScanTakesTurns: however many sockets there are, a scan lets the others speak after 4,096 rows.
func TestScanTakesTurns(t *testing.T) {
	const sockets = 5_000
	r := newRig(t, nil, quiet)
	all := r.mixed(sockets)
	var turns []int
	seen, last := 0, r.engine.Stats().Reactor.Work
	r.engine.Sweep(func(s *engine.Socket) (engine.Sentence, bool) {
		if now := r.engine.Stats().Reactor.Work; now != last || len(turns) == 0 {
			turns, last = append(turns, 0), now
		}
		turns[len(turns)-1]++
		if seen++; seen == 100 {
			all[sockets-1].Write(client(frame.Text, true, "hello"))
		}
		if s.Stream != "echo" || s.Plan != "plan" || seen%1000 == 0 && (!strings.HasPrefix(string(s.Client()), "c") || string(s.Key()) == "") {
			t.Errorf("socket %d: %s %s %s %s", seen, s.Stream, s.Plan, s.Client(), s.Key())
		}
		if seen == 4500 && len(frames(t, all[sockets-1].Read())) == 0 {
			t.Error("who spoke while the scan went on was not answered before it came to the end")
		}
		return engine.Sentence{}, false
	}, nil)
	r.mem.Run()
	if seen != sockets || len(turns) < 2 || slices.Max(turns) > 4096 {
		t.Errorf("%d sockets seen in turns of %v", seen, turns)
	}
}

// TestRevokedAtTheDoor: a ticket whose right has gone is refused like any other bad one, also when that happened while its stream was
// asked; the slot is free.
func TestRevokedAtTheDoor(t *testing.T) {
	gone := map[string]bool{}
	r := newRig(t, nil, func(o *engine.Options) {
		quiet(o)
		o.Revoked = func(c *ticket.Claims) bool { return gone[c.Client] }
	})
	_, forged := r.send(rawHead("/t/x"))
	gone["ann"] = true
	if _, got := r.send(head(r.issue(ticket.Claims{}))); got != forged {
		t.Errorf("revoked before: %q, want %q", got, forged)
	}
	r.stream.hold = true
	m := r.issue(ticket.Claims{Client: "bob"})
	p, _ := r.send(head(m))
	gone["bob"] = true
	r.onLoop(func(*reactor.Loop) { r.stream.joined[0].Accept(nil) })
	if got := string(p.Read()); got != forged {
		t.Errorf("revoked while the stream was asked: %q, want %q", got, forged)
	}
	if n := r.engine.Stats().Rejected["revoked"]; n != 2 || len(r.stream.ends) != 1 {
		t.Errorf("%d refused as revoked, want 2; streams left: %d, want 1", n, len(r.stream.ends))
	}
	if r.held("ann")+r.held("bob") != 0 {
		t.Error("slots are held")
	}
	if _, got := r.send(head(r.issue(ticket.Claims{Client: "eve", SessionEnd: r.clock.Wall()}))); got != forged || r.engine.Stats().Rejected["ended"] != 1 {
		t.Errorf("a session that has ended: %q", got)
	}
}

// TestRevokedAllocates: asking what is revoked costs a redemption no allocation.
func TestScanAllocates(t *testing.T) {
	r := newRig(t, nil, quiet)
	r.mixed(1000)
	judge := func(s *engine.Socket) (engine.Sentence, bool) {
		return engine.Sentence{}, string(s.Client()) == "nobody" || string(s.Key()) == "none"
	}
	ended := func(int) {}
	n := testing.AllocsPerRun(20, func() {
		r.engine.Sweep(judge, ended)
		r.mem.Run()
	})
	if n > 4 { // the scan itself, for all sockets
		t.Errorf("a scan of 1,000 sockets allocates %v times", n)
	}
}

// TestFullQueueIsCut: who has lost the right and does not read gets RST a second later, and nothing of what waited. Others are given
// the linger time to take it.
func TestFullQueueIsCut(t *testing.T) {
	for _, code := range []frame.Code{frame.CloseExpired, frame.CloseRevoked, frame.CloseReplaced, frame.CloseDrain} {
		t.Run(itoa(uint16(code)), func(t *testing.T) {
			r := newRig(t, nil, quiet)
			end := r.clock.Wall().Add(2 * time.Second)
			if code != frame.CloseExpired {
				end = end.Add(time.Hour)
			}
			p := r.open(ticket.Claims{SessionEnd: end})
			p.Window(0)
			r.onLoop(func(*reactor.Loop) {
				for range 100 {
					r.stream.joined[0].Send(frame.Binary, make([]byte, 1<<10))
				}
			})
			switch code {
			case frame.CloseExpired:
				r.mem.Advance(2*time.Second + 20*time.Millisecond)
			default:
				r.engine.Close(engine.Selector{Client: "ann"}, code, 0, nil)
				r.mem.Run()
			}
			r.mem.Advance(900 * time.Millisecond)
			if p.WasReset() {
				t.Error("reset before its second was over")
			}
			r.mem.Advance(200 * time.Millisecond)
			if cut := code != frame.CloseDrain; p.WasReset() != cut {
				t.Errorf("reset after a second: %v, want %v", p.WasReset(), cut)
			}
			r.mem.Advance(5 * time.Second)
			if r.held("ann") != 0 {
				t.Error("the slot is held")
			}
		})
	}
}

// TestConnections lists what is open, page by page, once each, and as filtered.
func TestConnections(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { quiet(o); o.Loops = 3 })
	all := r.mixed(50)
	list := func(f engine.Filter, from uint32, most int) ([]engine.Connection, uint32) {
		return r.engine.Page(&f, from, most, r.mem.Run)
	}
	seen, from, pages := map[string]bool{}, uint32(0), 0
	for {
		page, next := list(engine.Filter{}, from, 7)
		for _, c := range page {
			seen[c.ID] = true
		}
		if pages++; len(page) > 7 {
			t.Errorf("a page of %d", len(page))
		}
		if from = next; next == 0 {
			break
		}
	}
	if len(seen) != 50 || pages != 8 {
		t.Errorf("%d connections on %d pages, want 50 on 8", len(seen), pages)
	}
	page, _ := list(engine.Filter{Selector: engine.Selector{Client: "c3", Key: "k1"}}, 0, 100)
	if len(page) == 0 {
		t.Fatal("none of a client and key")
	}
	for _, c := range page {
		if c.Client != "c3" || c.Key != "k1" || c.Stream != "echo" || c.Plan != "plan" || c.Peer != somebody.Addr() || c.Queue != 0 {
			t.Errorf("%+v", c)
		}
	}
	for name, f := range map[string]engine.Filter{
		"other address": {Peer: netip.MustParsePrefix("198.51.100.0/24")}, "old": {Age: time.Hour}, "slow": {Queue: 1},
		"no connection": {Selector: engine.Selector{Conn: "c_x"}},
	} {
		if page, next := list(f, 0, 100); len(page) != 0 || next != 0 {
			t.Errorf("%s: %d connections", name, len(page))
		}
	}
	if page, _ := list(engine.Filter{Peer: netip.MustParsePrefix("203.0.113.0/24")}, 0, 100); len(page) != 50 {
		t.Errorf("of the address: %d", len(page))
	}
	all[0].Window(0)
	r.onLoop(func(*reactor.Loop) { r.stream.joined[0].Send(frame.Text, []byte("waits")) })
	r.mem.Advance(2 * time.Second)
	page, _ = list(engine.Filter{Queue: 1, Age: time.Second}, 0, 100)
	if len(page) != 1 || page[0].Client != "c0" || page[0].Queue == 0 || page[0].Idle < time.Second || r.clock.Wall().Sub(page[0].Opened) < 2*time.Second {
		t.Errorf("slow ones: %+v", page)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := r.engine.Connections(ctx, &engine.Filter{}, 0, 1); err == nil {
		t.Error("an answer although nobody has looked")
	}
}
