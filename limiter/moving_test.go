package limiter

import (
	"testing"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// These tests hold a mover up where a scheduler seldom does: between two of its steps.

func half(t *testing.T) (c *Count, old *slots) {
	t.Helper()
	c = NewCount(mono.NewManual(time.Unix(1_800_000_000, 0)), time.Minute)
	c.Add(7)
	old = c.table.Load()
	old.next.Store(newSlots(2 * least))
	return c, old
}

func want(t *testing.T, c *Count, s ticket.Subject, count uint32) {
	t.Helper()
	if got, _, ok := c.Held(s); got != count || !ok {
		t.Errorf("subject %d: %d sockets, %v; want %d", s, got, ok, count)
	}
	seen := 0
	c.Each(func(r Reading) bool {
		if r.Subject == s {
			seen++
		}
		return true
	})
	if seen != 1 {
		t.Errorf("subject %d has %d live slots", s, seen)
	}
}

func TestMoverHeldUpBeforeItCopies(t *testing.T) {
	c, old := half(t)
	p, _ := old.find(7, false)
	last := p.word.Or(moved)
	if count, number := c.Add(7); count != 2 || number <= last>>countBits {
		t.Errorf("Add between mark and copy: count %d number %d after %d", count, number, last>>countBits)
	}
	q, _ := old.next.Load().find(7, true)
	q.take(last) // the mover goes on
	want(t, c, 7, 2)
}

func TestHeldBetweenMarkAndCopy(t *testing.T) {
	c, old := half(t)
	p, _ := old.find(7, false)
	p.word.Or(moved)
	if count, _, ok := c.Held(7); count != 1 || !ok {
		t.Errorf("Held between mark and copy = %d, %v; want 1", count, ok)
	}
}

func TestSlotClosedUnderAProbe(t *testing.T) {
	c, old := half(t)
	for i := range old.slot {
		old.slot[i].key.CompareAndSwap(free, closed)
	}
	c.Add(8) // only next has a slot for it
	if p, end := old.find(8, true); p != nil || !end {
		t.Errorf("subject 8 has a slot in a closed table")
	}
	c.Add(8)
	want(t, c, 8, 2)
	want(t, c, 7, 1)
}

func TestMoverWakesTwoTablesLater(t *testing.T) {
	c, old := half(t)
	p, _ := old.find(7, false)
	last := p.word.Load()
	c.finish(old)
	c.Add(7)
	next := c.table.Load()
	next.next.Store(newSlots(4 * least))
	c.finish(next)
	c.Done(7)
	q, end := next.find(7, true)
	if end {
		t.Fatal("subject 7 was not in the table it was moved to")
	}
	q.take(last)
	c.move(old, p, c.time())
	want(t, c, 7, 1)
}

func TestAFullTableGrows(t *testing.T) {
	c, old := half(t)
	old.next.Store(nil)
	for i := range old.slot { // as if all that looked had seen room
		old.slot[i].key.CompareAndSwap(free, uint64(1000+i))
		old.used.Add(1)
	}
	c.Add(8)
	want(t, c, 8, 1)
	want(t, c, 7, 1)
}

func TestCountStopsAtItsEnds(t *testing.T) {
	for name, word := range map[string]uint64{"sockets": pack(countCap, 5), "numbers": pack(1, 1<<numberBits-1)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic at the end", name)
				}
			}()
			changed(word, 1, 9)
		}()
	}
	if count, number := unpack(changed(pack(countCap-1, 1<<numberBits-2), 1, 9)); count != countCap || number != 1<<numberBits-1 {
		t.Errorf("just before the ends: %d, %d", count, number)
	}
}
