package engine_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"ticketgate/engine"
	"ticketgate/engine/reactor"
	"ticketgate/ticket"
)

// TestSeats walks the index at random, beside lists that are kept in the plainest way.
func TestSeats(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	s := engine.NewSeats()
	open := map[ticket.Subject][]reactor.ID{}
	of := map[reactor.ID]ticket.Subject{}
	var all []reactor.ID
	next := reactor.ID(1)
	for step := range 20_000 {
		switch n := rnd.IntN(10); {
		case n < 5 && len(all) < 500 || len(all) == 0:
			u := ticket.Subject(rnd.Uint64N(40))
			if !s.Enter(next<<32, u) {
				t.Fatal("no room")
			}
			open[u], of[next<<32] = append(open[u], next<<32), u
			all = append(all, next<<32)
			next++
		default:
			i := rnd.IntN(len(all))
			id := all[i]
			all = slices.Delete(all, i, i+1)
			s.Leave(id)
			s.Leave(id) // which has none any more
			u := of[id]
			open[u] = slices.DeleteFunc(open[u], func(o reactor.ID) bool { return o == id })
			if len(open[u]) == 0 {
				delete(open, u)
			}
		}
		u := ticket.Subject(rnd.Uint64N(40))
		if got := s.All(u, 1000); !slices.Equal(got, open[u]) {
			t.Fatalf("seed %d, step %d, subject %d: %x, want %x", seed, step, u, got, open[u])
		}
		if got := s.All(u, 2); !slices.Equal(got, open[u][:min(2, len(open[u]))]) {
			t.Fatalf("seed %d, step %d: two of %x are %x", seed, step, open[u], got)
		}
		if sockets, subjects := s.Len(); sockets != len(all) || subjects != len(open) {
			t.Fatalf("seed %d, step %d: %d sockets of %d subjects, want %d of %d", seed, step, sockets, subjects, len(all), len(open))
		}
	}
}

// TestSeatsDoNotAllocate: what a socket costs more is outside of the heap.
func TestSeatsDoNotAllocate(t *testing.T) {
	s := engine.NewSeats()
	if n := testing.AllocsPerRun(1000, func() {
		for id := range reactor.ID(16) {
			s.Enter(id+1, ticket.Subject(id%4))
		}
		for id := range reactor.ID(16) {
			s.Leave(id + 1)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
