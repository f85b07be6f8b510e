package memory_test

import (
	"crypto/rand"
	"testing"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/store/memory"
	"ticketgate/store/storetest"
)

func open(t testing.TB, tickets int) (*memory.Store, *mono.Manual) {
	t.Helper()
	clock := mono.NewManual(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
	s, err := memory.New(memory.Options{Clock: clock, Rand: rand.Reader, Tickets: tickets})
	if err != nil {
		t.Fatal(err)
	}
	return s, clock
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		s, clock := open(t, 0)
		return storetest.Harness{Store: s, Advance: func(_ testing.TB, d time.Duration) { clock.Advance(d) }}
	})
}
