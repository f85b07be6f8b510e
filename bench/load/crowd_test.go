package load

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// A label is 16 hex digits: eight of the socket's number, eight of the message's.
func TestLabel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	numbers := []uint32{0, 9, 10, 15, 16, 0x0123_4567, 0x89ab_cdef, 0xffff_ffff}
	for range 1000 {
		numbers = append(numbers, rng.Uint32()>>rng.IntN(32))
	}
	c := crowd{w: &worker{job: Job{Index: 0xabc}}}
	m := c.label()
	for _, n := range numbers {
		got := make([]byte, labelSize)
		m.put(got, n)
		if want := fmt.Sprintf("%08x%08x", 0xabc<<labelShift|1, n); string(got) != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
	if next := c.label(); next.id == m.id {
		t.Error("two sockets have one label")
	}
}
