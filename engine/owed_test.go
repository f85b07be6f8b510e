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

// ownDesk is an Owner that tells the store within 30 s, or not at all.
type ownDesk struct {
	promptDesk
	number uint16
	owes   map[ticket.Hash]bool
	looked int
}

func (d *ownDesk) Number() uint16 { return d.number }

func (d *ownDesk) Owes(h ticket.Hash) bool {
	d.looked++
	return d.owes[h]
}

func (d *ownDesk) RedeemNow(b *ticket.Batch) bool {
	b.By = d.clock.Now().Add(30 * time.Second)
	return d.promptDesk.RedeemNow(b)
}

// owning is a rig with an Owner, under a lease of an hour.
func owning(t *testing.T) (*rig, *ownDesk, *lease) {
	d := &ownDesk{number: 7, owes: map[ticket.Hash]bool{}}
	r, l := leased(t, func(o *engine.Options) {
		d.promptDesk = promptDesk{desk: o.Redeemer.(*desk), now: true}
		o.Redeemer = d
	})
	l.begin(r.clock.Now(), time.Hour)
	r.node = 7
	return r, d, l
}

// TestElsewhere: a ticket that names another node as the one that spends it, or the store, is refused as any bad one, and stays unspent.
func TestElsewhere(t *testing.T) {
	own, d, _ := owning(t)
	store := newRig(t, nil, nil)
	var common string
	for _, c := range []struct {
		name string
		*rig
		node uint16
		here bool
	}{
		{"its own, at its node", own, 7, true},
		{"another's, at a node", own, 8, false},
		{"the store's, at a node", own, 0, false},
		{"the store's, at the store", store, 0, true},
		{"a node's, at the store", store, 7, false},
	} {
		c.rig.node = c.node
		m := c.issue(ticket.Claims{Client: c.name})
		_, got := c.send(head(m))
		subject := c.ring.Subject("client", c.name)
		ok, err := c.store.Revoke(t.Context(), &ticket.RevokeRequest{Ticket: m.Hash, Subject: subject, Owner: "k"})
		if err != nil || ok == c.here {
			t.Errorf("%s: spent %v, %v", c.name, !ok, err)
		}
		switch {
		case c.here != strings.HasPrefix(got, "HTTP/1.1 101 "):
			t.Errorf("%s: %q", c.name, got)
		case c.here:
		case common == "":
			common = got
		case got != common:
			t.Errorf("%s: %q, want %q", c.name, got, common)
		}
	}
	if _, got := own.send(rawHead("/t/" + strings.Repeat("A", ticket.LocatorLen))); got != common || !strings.HasPrefix(got, "HTTP/1.1 401 ") {
		t.Errorf("elsewhere %q, malformed %q", common, got)
	}
	if n := own.engine.Stats().Rejected["elsewhere"]; n != 2 || d.asked != 1 {
		t.Errorf("%d counted, the desk was asked %d times", n, d.asked)
	}
}

// TestOwed: a socket whose time has come and that the store does not know is lost before anything else is done for it. Those that
// it knows stay.
func TestOwed(t *testing.T) {
	r, d, _ := owning(t)
	var owed, known []*reactor.Pipe
	for i := range 10 {
		m := r.issue(ticket.Claims{Client: "c" + itoa(uint16(i))})
		d.owes[m.Hash] = i%2 == 0
		p, answer := r.send(head(m))
		if !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
			t.Fatalf("%q", answer)
		}
		if i%2 == 0 {
			owed = append(owed, p)
		} else {
			known = append(known, p)
		}
	}
	hello := func() []byte { return client(frame.Text, true, "hello") }
	r.mem.Advance(30*time.Second - 1)
	for _, p := range append(owed, known...) {
		if got := r.say(p, hello()); got != "hello" {
			t.Fatalf("before its time: %q", got)
		}
	}
	parts := r.stream.parts
	r.clock.Advance(1)
	if got := r.say(owed[0], hello()); got != lost || r.stream.parts != parts {
		t.Errorf("who speaks first: %q", got)
	}
	for _, p := range known {
		if got := r.say(p, hello()); got != "hello" {
			t.Errorf("one that the store knows: %q", got)
		}
	}
	if n := r.parted(500*time.Millisecond, owed[1:]); n != 4 {
		t.Errorf("%d of 4 silent ones ended", n)
	}
	for _, p := range known {
		if got := r.say(p, hello()); got != "hello" {
			t.Errorf("one that the store knows, later: %q", got)
		}
		p.Reset()
	}
	owed[0].CloseWrite()
	r.mem.Run()
	r.gone("c0", "c1", "c2", "c9")
	if n := r.engine.Shared().Owed; n != 0 {
		t.Errorf("%d are remembered", n)
	}
}

// TestOwedIsShort: what the store knows, and who has left, is forgotten long before its time.
func TestOwedIsShort(t *testing.T) {
	r, d, _ := owning(t)
	first := r.issue(ticket.Claims{Client: "first"})
	d.owes[first.Hash] = true
	stays, _ := r.send(head(first))
	for i := range 1000 {
		m := r.issue(ticket.Claims{Client: "c" + itoa(uint16(i))})
		d.owes[m.Hash] = i%2 == 0 // and leaves
		p, answer := r.send(head(m))
		if !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
			t.Fatalf("%q", answer)
		}
		p.Reset()
		r.mem.Run()
		if n := r.engine.Shared().Owed; n > 64 {
			t.Fatalf("%d are remembered", n)
		}
	}
	if d.looked > 2000 {
		t.Errorf("looked at %d", d.looked)
	}
	r.clock.Advance(30 * time.Second)
	r.engine.AskLife() // as the node has it done, for who is silent
	if n := r.parted(500*time.Millisecond, []*reactor.Pipe{stays}); n != 1 {
		t.Errorf("the first, which is silent, has not ended")
	}
}
