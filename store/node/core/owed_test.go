package core

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

func hashOf(i int) (h ticket.Hash) {
	binary.LittleEndian.PutUint64(h[:], uint64(i)+1)
	return h
}

// TestOwed against lists: what is named, what is due, what is remembered, in any order of events.
func TestOwed(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const lease = 45 * time.Second
	type entry struct {
		u    ticket.Subject
		by   mono.Time
		late bool
		told bool
	}
	for range 50 {
		var o owed
		o.init()
		model := map[ticket.Hash]*entry{}
		now := mono.Time(time.Hour)
		for i := range 400 {
			now = now.Add(time.Duration(r.Int64N(int64(2 * time.Second))))
			u := ticket.Subject(r.IntN(3))
			switch r.IntN(4) {
			case 0, 1:
				by := mono.Time(0)
				if r.IntN(3) > 0 {
					by = now.Add(43*time.Second - time.Duration(r.IntN(3))*time.Microsecond)
				}
				if !o.add(u, hashOf(i), by) || o.add(u, hashOf(i), by) {
					t.Fatal("not noted, or twice")
				}
				model[hashOf(i)] = &entry{u: u, by: by}
			case 2:
				var spent []ticket.Hash
				for _, h := range o.names(u) {
					if e := model[h]; e == nil || e.u != u || e.told {
						t.Fatalf("%x is named: %+v", h, e)
					}
					if r.IntN(2) == 0 {
						spent = append(spent, h)
					}
				}
				more := o.acknowledge(u, spent)
				left := 0
				for h, e := range model {
					if e.u == u && slices.Contains(spent, h) {
						if e.told = true; !e.late || e.by == 0 {
							delete(model, h)
						}
					} else if e.u == u && !e.told {
						left++
					}
				}
				if more != (left > 0) || len(o.names(u)) != left {
					t.Fatalf("more %v, %d are named, want %d", more, len(o.names(u)), left)
				}
			case 3:
				want := 0
				for h, e := range model {
					if e.by != 0 && e.by <= now && !e.late {
						e.late = true
						want++
					}
					if e.late && e.by != 0 && e.by.Add(lease) <= now {
						if e.by = 0; e.told {
							delete(model, h)
						}
					}
				}
				if got := o.pass(now, lease, nil); len(got) != want {
					t.Fatalf("%d become overdue, want %d", len(got), want)
				}
			}
			next := never
			for h, e := range model {
				if owes := o.owes(h); owes != (e.by != 0) {
					t.Fatalf("owes %x: %v, %+v", h, owes, e)
				}
				switch {
				case e.by == 0:
				case e.late:
					next = min(next, e.by.Add(lease))
				default:
					next = min(next, e.by)
				}
			}
			if got := o.next(lease); got != next || o.live != len(model) {
				t.Fatalf("next %v, want %v; %d are owed, want %d", got, next, o.live, len(model))
			}
		}
		o.forget()
		if o.live != 0 || o.owes(hashOf(0)) || o.next(lease) != never || len(o.taken()) != 0 || !o.add(1, hashOf(0), 1) {
			t.Fatal("not forgotten")
		}
	}
}

// TestOwedIsBounded, and costs nothing once as many have been there.
func TestOwedIsBounded(t *testing.T) {
	m := New(Options{Lease: time.Minute, Topology: func() *ticket.Topology { return nil }})
	for i := range OwedMax {
		if by, ok := m.Spend(1, ticket.Subject(i%5000), hashOf(i)); !ok || by != mono.Time(1).Add(m.span()) {
			t.Fatalf("%d: by %v, %v", i, by, ok)
		}
	}
	if _, ok := m.Spend(1, 1, hashOf(OwedMax)); ok || m.Owed() != OwedMax {
		t.Errorf("one more: %v, %d", ok, m.Owed())
	}
	if m.Settle(1, hashOf(OwedMax)); m.Owed() != OwedMax {
		t.Error("room for sockets went to a ticket that has none")
	}
	m.owed.taken()
	for i := range OwedMax {
		m.owed.acknowledge(ticket.Subject(i%5000), []ticket.Hash{hashOf(i)})
	}
	if m.Owed() != 0 {
		t.Fatalf("%d are owed", m.Owed())
	}
	m.owed.taken()
	i, name := 0, make([]ticket.Hash, 1)
	if n := testing.AllocsPerRun(5000, func() {
		m.Spend(1, ticket.Subject(i%5000), hashOf(i))
		name[0] = hashOf(i)
		m.owed.acknowledge(ticket.Subject(i%5000), name)
		i++
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
