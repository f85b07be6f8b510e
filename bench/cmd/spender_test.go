package main

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/store/memory"
	"ticketgate/store/redis"
	"ticketgate/store/redistest"
	"ticketgate/ticket"
)

func spenders(t *testing.T) map[string]ticket.Store {
	t.Helper()
	m, err := memory.New(memory.Options{Clock: mono.System, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	r, err := redis.New(redis.Options{URL: "redis://" + redistest.Start(t).Addr(), Prefix: "tg:", Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(m.Close(), r.Close()); err != nil {
			t.Error(err)
		}
	})
	return map[string]ticket.Store{"memory": m, "redis": r}
}

// Every ticket is put once and spent once, in whatever calls; a store that refuses one is no measure.
func TestSpender(t *testing.T) {
	for name, store := range spenders(t) {
		p, err := newSpender(t.Context(), store, 10)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := p.issueAll(t.Context(), 0, 50); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if used, err := store.Used(t.Context(), subject(3), nil); err != nil || used != 5 { // 3, 13, 23, 33, 43
			t.Errorf("%s: %d slots of a client, %v", name, used, err)
		}
		if err := p.redeemAll(t.Context(), 3, 0, 50, 8); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := p.redeemAll(t.Context(), 1, 49, 1, 1); !errors.Is(err, errRefusedBy) {
			t.Errorf("%s: a ticket is spent twice: %v", name, err)
		}
		if err := p.issueAll(t.Context(), 50, 1); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := p.issueAll(t.Context(), 50, 1); !errors.Is(err, errRefusedBy) {
			t.Errorf("%s: a ticket is put twice: %v", name, err)
		}
	}
}

// Each number is done once, the last part may be smaller, and the first failure ends it.
func TestTogether(t *testing.T) {
	var mu sync.Mutex
	var did []int
	do := func(_ context.Context, at, some int) error {
		mu.Lock()
		defer mu.Unlock()
		for i := range some {
			did = append(did, at+i)
		}
		if at >= 1000 {
			return errRefusedBy
		}
		return nil
	}
	if err := together(t.Context(), 4, 7, 20, 3, do); err != nil {
		t.Error(err)
	}
	if slices.Sort(did); len(did) != 20 || did[0] != 7 || did[19] != 26 {
		t.Errorf("%v", did)
	}
	did = nil
	if err := together(t.Context(), 2, 1000, 1e6, 1, do); !errors.Is(err, errRefusedBy) || len(did) > 2 {
		t.Errorf("%d done, %v", len(did), err)
	}
}
