package redis_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/limiter"
	"ticketgate/store/redis"
	"ticketgate/store/redistest"
	"ticketgate/store/storetest"
	"ticketgate/ticket"
)

// TestBank runs the suite against a real server, whose clock is this machine's.
func TestBank(t *testing.T) {
	server := redistest.Start(t)
	banks := 0
	storetest.Bank(t, func(t *testing.T) *storetest.BankRig {
		banks++
		s, err := redis.New(redis.Options{URL: server.URL(), Prefix: fmt.Sprintf("b%d:", banks), Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return &storetest.BankRig{Bank: s, Advance: wait, Now: time.Now, Slack: 30 * time.Second}
	})
}

// wait lets real time pass: the server's clock cannot be moved.
func wait(d time.Duration) { <-time.After(d) }

// TestBankOutlivesTheProcess: what was leased is gone from the bucket for whoever asks next, over another connection and
// after a restart of the server that keeps its data.
func TestBankOutlivesTheProcess(t *testing.T) {
	server := redistest.Start(t, redistest.WithAOF())
	day := limiter.Ask{Bucket: 0x1234567890abcdef, Terms: limiter.Terms{Rate: limiter.Rate{N: 1000, Per: 7 * 24 * time.Hour}, Fixed: true}, Want: 400}
	for round := range 3 {
		if round == 2 {
			server.Kill()
			server.Restart()
		}
		s, err := redis.New(redis.Options{URL: server.URL(), Prefix: "tg:", Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		var g [1]limiter.Grant
		if err := s.Lease(t.Context(), []limiter.Ask{day}, g[:]); err != nil {
			t.Fatal(err)
		}
		if want := []int64{400, 400, 200}[round]; g[0].Given != want {
			t.Errorf("round %d: %+v, want %d given", round, g[0], want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestBankDown: a server that is gone, or hangs, is an error within the timeout.
func TestBankDown(t *testing.T) {
	server := redistest.Start(t)
	s, err := redis.New(redis.Options{URL: server.URL(), Prefix: "tg:", Clock: mono.System})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	ask := []limiter.Ask{{Bucket: ticket.Subject(7), Terms: limiter.Terms{Rate: limiter.Rate{N: 1, Per: time.Hour}, Burst: 3}, Want: 1}}
	var g [1]limiter.Grant
	if err := s.Lease(t.Context(), ask, g[:]); err != nil {
		t.Fatal(err)
	}
	server.Pause()
	if err := s.Lease(t.Context(), ask, g[:]); !errors.Is(err, ticket.ErrUnavailable) {
		t.Errorf("a server that hangs: %v", err)
	}
	server.Continue()
	server.Kill()
	if err := s.Lease(t.Context(), ask, g[:]); !errors.Is(err, ticket.ErrUnavailable) {
		t.Errorf("a server that is gone: %v", err)
	}
}
