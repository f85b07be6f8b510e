package node_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/store/node"
	"ticketgate/ticket"
)

// life is how long the tickets of these tests live.
const life = 30 * time.Second

// owner is a node that spends its own tickets.
func owner(o *node.Options) { o.Spends = true }

// inOwner is inBubble with such a node, which has started.
func inOwner(t *testing.T, test func(w *world)) {
	inBubbleOf(t, ticket.One, owner, func(w *world) {
		w.node.Start(w.Context())
		w.wantReady(nil)
		test(w)
	})
}

// own issues a ticket of s that w's node alone spends.
func (w *world) own(s ticket.Subject, limit uint32) ticket.RedeemRequest {
	w.Helper()
	q, a, err := w.issueOwn(s, limit)
	if err != nil || a.Result != ticket.IssueOK {
		w.Fatalf("issue: %+v, %v", a, err)
	}
	return q
}

var hashes struct {
	sync.Mutex
	n byte
}

func (w *world) issueOwn(s ticket.Subject, limit uint32) (ticket.RedeemRequest, ticket.IssueAnswer, error) {
	hashes.Lock()
	hashes.n++
	h := ticket.Hash{hashes.n, 1, 15: hashes.n}
	hashes.Unlock()
	r := ticket.IssueRequest{Ticket: h, Secret: ticket.SecretHash{1}, Subject: s, Limit: limit, Outstanding: 100, Life: life, Owner: "k",
		Grant: []byte("what " + string(rune('a'+h[0]%26))), Epoch: w.node.Epoch(s), Node: w.node.Number()}
	a, err := w.node.Issue(w.Context(), &r)
	return ticket.RedeemRequest{Ticket: h, Secret: ticket.SecretHash{1}, Epoch: r.Epoch, Held: ticket.Held{Subject: s}}, a, err
}

// now redeems qs as a loop does.
func (w *world) now(qs ...ticket.RedeemRequest) *ticket.Batch {
	w.Helper()
	b := w.count(qs...)
	b.Done = func(*ticket.Batch) { w.Error("Done was called") }
	if !w.node.RedeemNow(b) {
		w.Fatal("not answered")
	}
	for i, a := range b.Answers {
		if a.Result != ticket.RedeemOK {
			w.closes(b.Reqs[i].Held.Subject)
		}
	}
	return b
}

// closes gives a slot back.
func (w *world) closes(s ticket.Subject) {
	w.counts.change(s, -1)
	w.node.Touch(s)
}

// TestOwnTickets: a node spends what it has issued without asking, once, and the store is told.
func TestOwnTickets(t *testing.T) {
	inOwner(t, func(w *world) {
		if w.node.Number() == 0 {
			w.Fatal("the node has no number")
		}
		q := w.own(1, 2)
		if r := w.store.issued()[0].Reserve; r != life+lease {
			w.Errorf("reserved for %v, want %v", r, life+lease)
		}
		w.wantUsed(1, 1)
		b := w.now(q, q)
		if b.Answers[0].Result != ticket.RedeemOK || b.Answers[1].Result != ticket.RedeemUnknown || len(b.Answers[0].Grant) != 6 {
			w.Fatalf("%+v", b.Answers)
		}
		if want := w.clock.Now().Add(usable); b.By != want {
			w.Errorf("the store has to know in %v, want %v", b.By.Sub(w.clock.Now()), usable)
		}
		if !w.node.Owes(q.Ticket) || w.node.Unasserted() != 1 {
			w.Error("the store is not owed the ticket")
		}
		w.pass(0)
		if len(w.store.redeemed()) != 0 {
			w.Errorf("the store was asked: %v", w.store.redeemed())
		}
		if w.node.Owes(q.Ticket) || w.node.Unasserted() != 0 {
			w.Error("the store is owed the ticket after it was told")
		}
		w.wantUsed(1, 1) // the socket, and no reservation beside it
		w.wantResults(w.now(q), ticket.RedeemUnknown)
		w.closes(1)
		w.pass(0)
		w.wantUsed(1, 0)
	})
}

// TestOwnTicketIsSpent by a wrong secret, by its owner, and by time; each gives the slot back at once, before its reservation ends.
func TestOwnTicketIsSpent(t *testing.T) {
	for name, spend := range map[string]func(w *world, q ticket.RedeemRequest){
		"a wrong secret": func(w *world, q ticket.RedeemRequest) {
			q.Secret[0]++
			w.wantResults(w.now(q), ticket.RedeemSecret)
		},
		"revoked": func(w *world, q ticket.RedeemRequest) {
			for owner, want := range map[string]bool{"other": false, "k": true} {
				if ok, err := w.node.Revoke(w.Context(), &ticket.RevokeRequest{Ticket: q.Ticket, Subject: 1, Owner: owner}); ok != want || err != nil {
					w.Fatalf("revoke by %s: %v, %v", owner, ok, err)
				}
				if want {
					break
				}
			}
			if ok, err := w.node.Revoke(w.Context(), &ticket.RevokeRequest{Ticket: q.Ticket, Subject: 1, Owner: "k"}); ok || err != nil {
				w.Fatalf("revoked twice: %v, %v", ok, err)
			}
		},
		"time": func(w *world, _ ticket.RedeemRequest) {
			w.pass(life - life/500 - 1)
			w.wantUsed(1, 1)
			w.pass(100 * time.Millisecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inOwner(t, func(w *world) {
				q := w.own(1, 1)
				spend(w, q)
				w.pass(0)
				w.wantUsed(1, 0)
				w.wantResults(w.now(q), ticket.RedeemUnknown)
				w.wantResults(w.now(w.own(1, 1)), ticket.RedeemOK)
			})
		})
	}
}

// TestOwnTicketToTheEnd: it is good until its end by this node's clock, which is not later than the store's.
func TestOwnTicketToTheEnd(t *testing.T) {
	inOwner(t, func(w *world) {
		first, second := w.own(1, 2), w.own(1, 2)
		<-time.After(life - life/500 - 1)
		w.wantResults(w.now(first), ticket.RedeemOK)
		<-time.After(1)
		w.wantResults(w.now(second), ticket.RedeemUnknown)
	})
}

// TestOwnTicketElsewhere: another's, one of another life of this node, one of another epoch.
func TestOwnTicketElsewhere(t *testing.T) {
	inOwner(t, func(w *world) {
		other := newWorld(w.T, ticket.One, owner)
		other.shards, other.store.Store = w.shards, w.shards
		other.node.Start(w.Context())
		defer func() { _ = other.node.Close(w.Context()) }()
		q := w.own(1, 1)
		other.wantResults(other.now(q), ticket.RedeemUnknown)
		if other.node.Number() == w.node.Number() {
			w.Error("two nodes have one number")
		}
		if ok, err := other.node.Revoke(w.Context(), &ticket.RevokeRequest{Ticket: q.Ticket, Subject: 1, Owner: "k"}); ok || err != nil {
			w.Errorf("revoked elsewhere: %v, %v", ok, err)
		}
		w.wantUsed(1, 1)
		w.wantResults(w.now(q), ticket.RedeemOK)
		w.closes(1)
		w.pass(0)

		q = w.own(1, 1)
		before := w.node.Number()
		w.enter(ticket.RenewRequest{Incarnation: 9, Enter: true, Former: []ticket.Incarnation{w.node.Incarnation()}})
		for w.lost.Load() == 0 || w.node.Ready() != nil { // in its next life
			w.pass(100 * time.Millisecond)
		}
		if w.lost.Load() != 1 || w.node.Number() == before {
			w.Fatal("the life goes on")
		}
		w.wantResults(w.now(q), ticket.RedeemUnknown)
		_, a, err := w.issueOwn(2, 1)
		if err != nil || a.Result != ticket.IssueOK {
			w.Errorf("issue in the new life: %+v, %v", a, err)
		}
		r := ticket.IssueRequest{Ticket: ticket.Hash{9}, Subject: 2, Limit: 2, Outstanding: 10, Life: life, Epoch: w.node.Epoch(2), Node: before}
		if a, err := w.node.Issue(w.Context(), &r); err == nil {
			w.Errorf("a ticket that names another life was issued: %+v", a)
		}
	})
}

// TestOwnTicketsWithoutAStore open for as long as the lease lasts. Their sockets close before their reservations can end.
func TestOwnTicketsWithoutAStore(t *testing.T) {
	var overdue int
	inBubbleOf(t, ticket.One, func(o *node.Options) { owner(o); o.OnOverdue = func() { overdue++ } }, func(w *world) {
		w.node.Start(w.Context())
		first, late := w.own(1, 2), w.own(1, 2)
		w.store.set(func() { w.store.down = true })
		b := w.now(first)
		w.wantResults(b, ticket.RedeemOK)
		w.pass(life - time.Second)
		w.wantResults(w.now(late), ticket.RedeemOK)
		w.pass(usable - life + time.Second - 1)
		if w.lost.Load() != 0 || overdue != 0 || !w.node.Owes(first.Ticket) {
			w.Fatalf("before the end of the lease: lost %d, overdue %d", w.lost.Load(), overdue)
		}
		w.pass(1)
		if w.lost.Load() != 1 {
			w.Error("the lease goes on")
		}
		w.wantResults(w.now(w.ownless()), ticket.RedeemUnsent)
	})
}

// ownless is a ticket that nobody has issued.
func (w *world) ownless() ticket.RedeemRequest {
	return ticket.RedeemRequest{Ticket: ticket.Hash{77}, Epoch: w.node.Epoch(1), Held: ticket.Held{Subject: 1}}
}

// TestOverdue: the node renews its lease and cannot tell its counts. A socket that the store does not know in time has to close, and an
// answer that comes later does not save it; those that were told stay.
func TestOverdue(t *testing.T) {
	var overdue int
	inBubbleOf(t, split(1, 8192), func(o *node.Options) { owner(o); o.OnOverdue = func() { overdue++ } }, func(w *world) {
		w.node.Start(w.Context())
		told, untold := w.own(9000, 9), w.own(9000, 9)
		w.wantResults(w.now(told), ticket.RedeemOK)
		w.pass(0)
		w.store.set(func() { w.store.deaf = true })
		b := w.now(untold)
		w.wantResults(b, ticket.RedeemOK)
		w.pass(b.By.Sub(w.clock.Now()) - 1)
		if overdue != 0 || w.node.Owes(told.Ticket) || !w.node.Owes(untold.Ticket) || w.lost.Load() != 0 {
			w.Fatalf("before its time: overdue %d, lost %d", overdue, w.lost.Load())
		}
		for _, a := range w.store.asserted() {
			if a.Number == b.Reqs[0].Held.Number && (len(a.Spent) != 1 || a.Spent[0] != untold.Ticket) {
				w.Fatalf("an assert names %x, want %x", a.Spent, untold.Ticket)
			}
		}
		w.pass(1)
		if overdue != 1 || !w.node.Owes(untold.Ticket) {
			w.Fatalf("at its time: overdue %d", overdue)
		}
		w.store.set(func() { w.store.deaf = false })
		w.pass(heartbeat)
		if !w.node.Owes(untold.Ticket) {
			w.Error("an answer that came too late saved the socket")
		}
		w.closes(9000)
		w.pass(lease)
		if w.node.Unasserted() != 0 || overdue != 1 {
			w.Errorf("%d are owed for ever, overdue %d", w.node.Unasserted(), overdue)
		}
		w.wantUsed(9000, 1)
	})
}

// TestOwnTicketsAvailable: where sockets are kept, none is closed for what the store does not know.
func TestOwnTicketsAvailable(t *testing.T) {
	var overdue int
	inBubbleOf(t, ticket.One, func(o *node.Options) { owner(o); o.Available = true; o.OnOverdue = func() { overdue++ } }, func(w *world) {
		w.node.Start(w.Context())
		w.store.set(func() { w.store.deaf = true })
		b := w.now(w.own(1, 2))
		w.wantResults(b, ticket.RedeemOK)
		w.pass(2 * lease)
		if b.By != 0 || overdue != 0 {
			w.Errorf("by %v, overdue %d", b.By, overdue)
		}
		w.store.set(func() { w.store.deaf = false })
		w.pass(heartbeat)
		w.wantUsed(1, 1)
	})
}

// TestOwnRace: of many loops that have one ticket, one opens a socket.
func TestOwnRace(t *testing.T) {
	inOwner(t, func(w *world) {
		q := w.own(1, 1)
		var opened sync.Map
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				b := w.count(q)
				if w.node.RedeemNow(b) && b.Answers[0].Result == ticket.RedeemOK {
					opened.Store(i, true)
				} else {
					w.closes(1)
				}
			})
		}
		all.Wait()
		n := 0
		opened.Range(func(any, any) bool { n++; return true })
		if n != 1 {
			w.Errorf("%d sockets", n)
		}
		synctest.Wait()
		w.wantUsed(1, 1)
	})
}

// TestOwnTicketsDoNotAllocate, whatever becomes of them, and take no room when they are gone.
func TestOwnTicketsDoNotAllocate(t *testing.T) {
	o := node.NewOwn()
	name := func(i int) ticket.Hash { return ticket.Hash{byte(i), byte(i >> 8), 15: byte(i)} }
	put := func(from, to int) {
		for i := from; i < to; i++ {
			r := ticket.IssueRequest{Ticket: name(i), Subject: ticket.Subject(i) << 20, Grant: make([]byte, 150)}
			if !o.Put(&r, 1000) {
				t.Fatal("no room")
			}
		}
	}
	for what, c := range map[string]struct {
		life  uint32
		now   int64
		wrong byte
		want  ticket.RedeemResult
	}{
		"good":            {1, 1, 0, ticket.RedeemOK},
		"wrong secret":    {1, 1, 1, ticket.RedeemSecret},
		"expired":         {1, 1000, 0, ticket.RedeemUnknown},
		"of another life": {0, 1, 0, ticket.RedeemUnknown},
	} {
		put(0, 2002)
		i, grant := 0, make([]byte, 0, 200)
		n := testing.AllocsPerRun(1000, func() {
			q := &ticket.RedeemRequest{Ticket: name(i), Secret: ticket.SecretHash{c.wrong}, Held: ticket.Held{Subject: ticket.Subject(i) << 20}}
			got, out := o.Spend(q, c.life, mono.Time(c.now), grant)
			again, _ := o.Spend(q, c.life, mono.Time(c.now), grant)
			if got != c.want || again != ticket.RedeemUnknown || (len(out) == 150) != (got == ticket.RedeemOK) {
				t.Errorf("%s: %d then %d, %d bytes", what, got, again, len(out))
			}
			i++
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
		o.Sweep(1000)
		if o.Room() != node.OwnTickets {
			t.Errorf("%s: %d tickets have taken room for good", what, node.OwnTickets-o.Room())
		}
	}
	put(0, 1)
	other := ticket.RedeemRequest{Ticket: name(0), Held: ticket.Held{Subject: 1}}
	if got, _ := o.Spend(&other, 1, 1, nil); got != ticket.RedeemUnknown {
		t.Errorf("under another subject: %d", got)
	}
	mine := ticket.RedeemRequest{Ticket: name(0)}
	if got, _ := o.Spend(&mine, 2, 1, nil); got != ticket.RedeemUnknown || o.Room() != node.OwnTickets {
		t.Errorf("in the next life: %d, room for %d", got, o.Room())
	}
}

// TestOwnTicketsOfTheNextLife: where sockets are kept, the next life tells the store of those of the one before, and of their tickets.
func TestOwnTicketsOfTheNextLife(t *testing.T) {
	inBubbleOf(t, ticket.One, func(o *node.Options) { owner(o); o.Available = true }, func(w *world) {
		w.node.Start(w.Context())
		w.store.set(func() { w.store.deaf = true })
		q := w.own(1, 9)
		first := w.node.Incarnation()
		w.wantResults(w.now(q), ticket.RedeemOK)
		w.enter(ticket.RenewRequest{Incarnation: 9, Enter: true, Former: []ticket.Incarnation{first}})
		for w.lost.Load() == 0 {
			w.pass(100 * time.Millisecond)
		}
		w.store.set(func() { w.store.deaf = false })
		for w.node.Ready() != nil {
			w.pass(100 * time.Millisecond)
		}
		named := false
		for _, a := range w.store.asserted() {
			named = named || a.Incarnation != first && len(a.Spent) == 1 && a.Spent[0] == q.Ticket
		}
		if !named || w.node.Unasserted() != 0 {
			w.Errorf("named %v, %d are owed", named, w.node.Unasserted())
		}
		w.wantUsed(1, 1)
	})
}

// TestTellNamesOwnTickets: who waits for a slot is not counted a reservation whose ticket is a socket already.
func TestTellNamesOwnTickets(t *testing.T) {
	inOwner(t, func(w *world) {
		q := w.own(1, 2)
		w.store.set(func() { w.store.deaf = true }) // the keeper's asserts are not acknowledged, and it waits before the next
		w.wantResults(w.now(q), ticket.RedeemOK)
		w.pass(0)
		before := len(w.store.asserted())
		w.store.set(func() { w.store.deaf = false })
		if err := w.node.Tell(w.Context(), 1); err != nil {
			t.Fatal(err)
		}
		told := w.store.asserted()[before:]
		if len(told) != 1 || len(told[0].Spent) != 1 || told[0].Spent[0] != q.Ticket || told[0].Count != 1 {
			t.Errorf("told %+v, want one socket and its ticket", told)
		}
		w.wantUsed(1, 1)
	})
}
