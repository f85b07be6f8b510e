package engine

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
)

func TestNames(t *testing.T) {
	n := newNames()
	var held []uint32
	texts := []string{"", "a", "client-1234567", "client-12345678", strings.Repeat("x", 42), strings.Repeat("x", 43), strings.Repeat("y", 128),
		strings.Repeat("z", 65_535), strings.Repeat("\x00", 30)}
	for _, client := range texts {
		for _, key := range []string{"", "k_1", client} {
			i := n.hold(client, key)
			if again := n.hold(client, key); again != i {
				t.Errorf("%.10q of key %.10q has two numbers", client, key)
			}
			held = append(held, i, i)
			if got := n.client(i); got != client {
				t.Errorf("%d bytes came back as %d", len(client), len(got))
			}
		}
	}
	one, two := n.hold("ann", "k_1"), n.hold("ann", "k_2")
	if one == two {
		t.Error("one client of two keys is one")
	}
	held = append(held, one, two)
	for _, i := range held {
		n.release(i)
	}
	n.release(0) // nobody
	if n.rows.Len() != 0 || n.rests.Len() != 0 {
		t.Errorf("%d names and %d rests are left", n.rows.Len(), n.rests.Len())
	}
}

// TestNamesAgainstAMap does random things, on all loops at once.
func TestNamesAgainstAMap(t *testing.T) {
	n := newNames()
	var loops sync.WaitGroup
	for loop := range uint64(4) {
		loops.Go(func() {
			rnd := rand.New(rand.NewPCG(1, loop))
			held := map[uint32]string{}
			for range 20_000 {
				client := strings.Repeat("n", rnd.IntN(60)) + strconv.Itoa(rnd.IntN(200))
				i := n.hold(client, "k"+strconv.Itoa(rnd.IntN(3)))
				if was, ok := held[i]; ok && was != client {
					t.Errorf("number %d is %q and %q", i, was, client)
				}
				if got := n.client(i); got != client {
					t.Errorf("%q came back as %q", client, got)
				}
				if _, ok := held[i]; ok || rnd.IntN(2) == 0 {
					n.release(i)
					continue
				}
				held[i] = client
			}
			for i, client := range held {
				if got := n.client(i); got != client {
					t.Errorf("%q has become %q", client, got)
				}
				n.release(i)
			}
		})
	}
	loops.Wait()
	if n.rows.Len() != 0 || n.rests.Len() != 0 {
		t.Errorf("%d names and %d rests are left", n.rows.Len(), n.rests.Len())
	}
}

func TestNamesDoNotAllocate(t *testing.T) {
	n := newNames()
	n.hold("ann", "k_1")
	long := strings.Repeat("x", 128)
	if got := testing.AllocsPerRun(1000, func() { n.release(n.hold(long, "k_1")) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func BenchmarkNames(b *testing.B) {
	n := newNames()
	clients := make([]string, 10_000)
	for i := range clients {
		clients[i] = "client-" + strconv.Itoa(i)
		if i%2 == 0 {
			n.hold(clients[i], "k_1")
		}
	}
	i := 0
	for b.Loop() {
		n.release(n.hold(clients[i%len(clients)], "k_1"))
		i += 7919
	}
}
