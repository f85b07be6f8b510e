package redis_test

import (
	"context"
	"crypto/rand"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ticketgate/store/redis"
	"ticketgate/store/redistest"
	"ticketgate/ticket"
)

const (
	// Of what the store promises (200 ms, and 1 s from the server's return to the first answer) as much as a busy machine can show.
	callMax = slack * 2 * time.Second
	backMax = slack * 3 * time.Second
)

const me ticket.Incarnation = 0xa1

var renewals atomic.Uint64 // numbers of me's, whatever store they go to

// quick returns a store with the timeout of production.
func quick(t testing.TB, server *redistest.Server) *redis.Store {
	t.Helper()
	s, err := redis.New(redis.Options{URL: server.URL(), Prefix: "tg:"})
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, s)
	return s
}

func renew(s *redis.Store) (ticket.View, error) {
	return s.Renew(context.Background(), &ticket.RenewRequest{Incarnation: me, Name: "gw-1", Lease: time.Hour, Number: renewals.Add(1), Enter: true})
}

// answers returns the view once the store answers, and how long that took.
func answers(t testing.TB, s *redis.Store) (ticket.View, time.Duration) {
	t.Helper()
	start := time.Now()
	for time.Since(start) < 20*time.Second {
		if v, err := renew(s); err == nil {
			if _, err := s.Used(context.Background(), 1, nil); err == nil { // renewals have a connection of their own
				return v, time.Since(start)
			}
		}
		runtime.Gosched()
	}
	t.Fatal("the store does not come back")
	return ticket.View{}, 0
}

func fresh(epoch ticket.Epoch) *ticket.IssueRequest {
	var b [24]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err)
	}
	return &ticket.IssueRequest{
		Ticket: ticket.Hash(b[:]), Subject: ticket.Subject(b[16]) | ticket.Subject(b[17])<<8 | ticket.Subject(b[18])<<20, Limit: ticket.NoLimit,
		Outstanding: 1 << 30, Life: time.Minute, Owner: "key-1", Grant: []byte("grant"), Epoch: epoch,
	}
}

func redeemOf(r *ticket.IssueRequest) ticket.RedeemRequest {
	return ticket.RedeemRequest{Ticket: r.Ticket, Secret: r.Secret, Epoch: r.Epoch,
		Held: ticket.Held{Subject: r.Subject, Incarnation: me, Count: 1, Number: 1}}
}

// TestHungServer: 2,000 callers of a server that accepts and never answers are all let go in time, and nothing piles up.
func TestHungServer(t *testing.T) {
	server := redistest.Start(t)
	s := quick(t, server)
	v, _ := answers(t, s)
	kept := fresh(v.Seen.Epoch)
	if a, err := s.Issue(context.Background(), kept); err != nil || a.Result != ticket.IssueOK {
		t.Fatalf("issue: %+v, %v", a, err)
	}
	before := runtime.NumGoroutine()
	server.Pause()
	var wg sync.WaitGroup
	var slowest, unsent atomic.Int64
	for range 2000 {
		r := fresh(v.Seen.Epoch)
		wg.Go(func() {
			start := time.Now()
			if _, err := s.Issue(context.Background(), r); !errors.Is(err, ticket.ErrUnavailable) {
				t.Errorf("issue at a hung server: %v", err)
			}
			storeMax(&slowest, int64(time.Since(start)))
		})
	}
	wg.Wait()
	t.Logf("2,000 calls at a hung server: the slowest took %v", time.Duration(slowest.Load()))
	if d := time.Duration(slowest.Load()); d > callMax {
		t.Errorf("the slowest of 2,000 calls took %v, want at most %v", d, callMax)
	}
	// The breaker is open: no waiting any more, and it is known that nothing is spent.
	start := time.Now()
	qs, as := []ticket.RedeemRequest{redeemOf(kept)}, make([]ticket.RedeemAnswer, 1)
	for range 1000 {
		s.Redeem(context.Background(), qs, as)
		if as[0].Result == ticket.RedeemUnsent {
			unsent.Add(1)
		}
	}
	if d := time.Since(start); unsent.Load() != 1000 || d > callMax {
		t.Errorf("with the breaker open: %d of 1000 unsent in %v", unsent.Load(), d)
	}
	if st := s.Stats(); st.Up || !st.Degraded {
		t.Errorf("stats: up %v, degraded %v", st.Up, st.Degraded)
	}
	if now := runtime.NumGoroutine(); now > before+16 {
		t.Errorf("%d goroutines, %d before", now, before)
	}
	server.Continue()
	_, took := answers(t, s)
	t.Logf("back after %v", took)
	if took > backMax {
		t.Errorf("back after %v, want %v at most", took, backMax)
	}
	s.Redeem(context.Background(), qs, as)
	if as[0].Result != ticket.RedeemOK {
		t.Errorf("a ticket that was never sent: %d, want ok", as[0].Result)
	}
}

func storeMax(a *atomic.Int64, v int64) {
	for old := a.Load(); v > old && !a.CompareAndSwap(old, v); old = a.Load() {
	}
}

// TestRedeemInDoubt: what was sent and got no answer is in doubt, never ok.
func TestRedeemInDoubt(t *testing.T) {
	server := redistest.Start(t)
	s := quick(t, server)
	v, _ := answers(t, s)
	r := fresh(v.Seen.Epoch)
	if _, err := s.Issue(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	server.Pause()
	as := make([]ticket.RedeemAnswer, 1)
	start := time.Now()
	s.Redeem(context.Background(), []ticket.RedeemRequest{redeemOf(r)}, as)
	if took := time.Since(start); as[0].Result != ticket.RedeemDoubt || took > callMax {
		t.Errorf("redeem at a hung server: %d after %v, want doubt", as[0].Result, took)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	start = time.Now()
	s.Redeem(ctx, []ticket.RedeemRequest{redeemOf(r)}, as)
	if took := time.Since(start); as[0].Result == ticket.RedeemOK || took > callMax {
		t.Errorf("redeem with 20 ms left: %d after %v", as[0].Result, took)
	}
	server.Continue()
	answers(t, s)
	if used, err := s.Used(context.Background(), r.Subject, nil); err != nil || used != 1 {
		t.Errorf("used: %d, %v: the server had the command in its buffer and spent the ticket", used, err)
	}
	s.Redeem(context.Background(), []ticket.RedeemRequest{redeemOf(r)}, as)
	if as[0].Result != ticket.RedeemUnknown {
		t.Errorf("redeem again: %d, want unknown", as[0].Result)
	}
}

func TestKilledAndRestarted(t *testing.T) {
	server := redistest.Start(t)
	s := quick(t, server)
	v, _ := answers(t, s)
	r := fresh(v.Seen.Epoch)
	if _, err := s.Issue(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	for range 10 {
		start := time.Now()
		if _, err := s.Issue(context.Background(), fresh(v.Seen.Epoch)); !errors.Is(err, ticket.ErrUnavailable) {
			t.Errorf("issue at no server: %v", err)
		}
		if took := time.Since(start); took > callMax {
			t.Errorf("took %v", took)
		}
	}
	server.Restart()
	after, took := answers(t, s)
	if took > backMax {
		t.Errorf("back after %v, want %v at most", took, backMax)
	}
	if after.Seen.Epoch == v.Seen.Epoch || after.Seen.Epoch == 0 {
		t.Errorf("epoch %x after %x", after.Seen.Epoch, v.Seen.Epoch)
	}
	as := make([]ticket.RedeemAnswer, 1)
	s.Redeem(context.Background(), []ticket.RedeemRequest{redeemOf(r)}, as)
	if as[0].Result != ticket.RedeemEpoch {
		t.Errorf("a ticket of before: %d, want another epoch", as[0].Result)
	}
	if a, err := s.Issue(context.Background(), r); err != nil || a.Result != ticket.IssueEpoch {
		t.Errorf("issue under the old epoch: %+v, %v", a, err)
	}
	r.Epoch = after.Seen.Epoch
	if a, err := s.Issue(context.Background(), r); err != nil || a.Result != ticket.IssueOK {
		t.Errorf("issue: %+v, %v", a, err)
	}
}

// TestRestoredTicket: a server that comes back with older data (an append-only file) has another epoch, so a spent ticket
// that came back with it opens nothing.
func TestRestoredTicket(t *testing.T) {
	server := redistest.Start(t, redistest.WithAOF())
	s := quick(t, server)
	v, _ := answers(t, s)
	r := fresh(v.Seen.Epoch)
	if _, err := s.Issue(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	server.Restart()
	answers(t, s)
	if used, err := s.Used(context.Background(), r.Subject, nil); err != nil || used != 1 {
		t.Fatalf("used %d, %v: the data did not survive, so this test shows nothing", used, err)
	}
	as := make([]ticket.RedeemAnswer, 1)
	s.Redeem(context.Background(), []ticket.RedeemRequest{redeemOf(r)}, as)
	if as[0].Result != ticket.RedeemEpoch {
		t.Errorf("redeem: %d, want another epoch", as[0].Result)
	}
}

func TestStartsBeforeTheServer(t *testing.T) {
	server := redistest.Start(t)
	server.Kill()
	s := quick(t, server)
	if _, err := renew(s); !errors.Is(err, ticket.ErrUnavailable) {
		t.Fatalf("renew at no server: %v", err)
	}
	server.Restart()
	if _, took := answers(t, s); took > backMax {
		t.Errorf("connected after %v, want %v at most", took, backMax)
	}
}

func TestCloseWhileHung(t *testing.T) {
	server := redistest.Start(t)
	s := quick(t, server)
	v, _ := answers(t, s)
	server.Pause()
	failed := make(chan error)
	go func() {
		_, err := s.Issue(context.Background(), fresh(v.Seen.Epoch))
		failed <- err
	}()
	start := time.Now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("close took %v", took)
	}
	if err := <-failed; !errors.Is(err, ticket.ErrUnavailable) {
		t.Errorf("call under way: %v", err)
	}
}

// TestOutOfMemory: no new tickets, but those that exist are spent and slots given back.
func TestOutOfMemory(t *testing.T) {
	server := redistest.Start(t)
	s := quick(t, server)
	v, _ := answers(t, s)
	r := fresh(v.Seen.Epoch)
	if _, err := s.Issue(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	c := raw(t, server)
	if err := c.Do(context.Background(), c.B().ConfigSet().ParameterValue().ParameterValue("maxmemory", "1").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Issue(context.Background(), fresh(v.Seen.Epoch)); !errors.Is(err, ticket.ErrUnavailable) || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("issue: %v, want unavailable for OOM", err)
	}
	if st := s.Stats(); !st.Up || !st.Degraded {
		t.Errorf("stats: up %v, degraded %v", st.Up, st.Degraded)
	}
	as := make([]ticket.RedeemAnswer, 1)
	s.Redeem(context.Background(), []ticket.RedeemRequest{redeemOf(r)}, as)
	if as[0].Result != ticket.RedeemOK {
		t.Errorf("redeem: %d, want ok", as[0].Result)
	}
	if _, err := renew(s); err != nil {
		t.Errorf("renew: %v", err)
	}
}
