package memory_test

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/store/memory"
	"ticketgate/store/model"
	"ticketgate/store/storetest"
	"ticketgate/ticket"
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
		seen, err := s.Ask(context.Background(), 0)
		if err != nil {
			t.Fatal(err)
		}
		return storetest.Harness{
			Store:   s,
			Model:   &model.Primary{State: model.NewStateOf(model.NewNodes(seen.Epoch))},
			Now:     func(testing.TB) time.Time { return clock.Wall() },
			Advance: func(_ testing.TB, d time.Duration) { clock.Advance(d) },
		}
	})
}

// TestNobodyMissing: nobody was here before this store, so its first view can be relied on.
func TestNobodyMissing(t *testing.T) {
	s, _ := open(t, 0)
	v, err := s.Renew(context.Background(), &ticket.RenewRequest{Incarnation: me, Lease: time.Minute, Number: 1, Enter: true})
	if err != nil || v.Young || v.Grace || len(v.Nodes) != 1 {
		t.Errorf("%+v, %v", v, err)
	}
}
