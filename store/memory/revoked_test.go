package memory_test

import (
	"crypto/rand"
	"testing"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/store/memory"
	"ticketgate/store/storetest"
)

func TestRevocations(t *testing.T) {
	storetest.Revocations(t, func(*testing.T) storetest.LogHarness {
		clock := mono.NewManual(time.Unix(1_800_000_000, 0))
		return storetest.LogHarness{Log: memory.NewRevocations(clock), Now: clock.Wall, Advance: func(_ testing.TB, d time.Duration) { clock.Advance(d) }}
	})
}

func TestLooks(t *testing.T) {
	clock := mono.NewManual(time.Unix(1_800_000_000, 0))
	s, err := memory.New(memory.Options{Clock: clock, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Looks(t, s, func(_ testing.TB, d time.Duration) { clock.Advance(d) })
}
