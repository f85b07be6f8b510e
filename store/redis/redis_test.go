package redis_test

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/goleak"

	"ticketgate/store/model"
	"ticketgate/store/redis"
	"ticketgate/store/redistest"
	"ticketgate/store/storetest"
)

func TestMain(m *testing.M) {
	// A step of the random walk is a round trip here: 20 walks instead of 100, unless the command line says otherwise.
	if err := flag.Set("rapid.checks", "20"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// open returns a store of server under a prefix of its own.
func open(t testing.TB, server *redistest.Server, prefix string) *redis.Store {
	t.Helper()
	s, err := redis.New(redis.Options{URL: server.URL(), Prefix: prefix, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, s)
	return s
}

func closeAfter(t testing.TB, s *redis.Store) {
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// raw is a connection beside the store's, to look at what stands in Redis.
func raw(t testing.TB, server *redistest.Server) rueidis.Client {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr()}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// pass returns when d has passed on the server's clock: the server itself waits, in a BLPOP that nobody answers.
func pass(t testing.TB, c rueidis.Client, d time.Duration) {
	t.Helper()
	end := serverTime(t, c).Add(d)
	for now := serverTime(t, c); now.Before(end); now = serverTime(t, c) {
		err := c.Do(context.Background(), c.B().Blpop().Key("nobody:pushes").Timeout(end.Sub(now).Seconds()).Build()).Error()
		if !rueidis.IsRedisNil(err) {
			t.Fatalf("BLPOP: %v", err)
		}
	}
}

func serverTime(t testing.TB, c rueidis.Client) time.Time {
	t.Helper()
	parts, err := c.Do(context.Background(), c.B().Time().Build()).AsIntSlice()
	if err != nil || len(parts) != 2 {
		t.Fatalf("TIME: %v, %v", parts, err)
	}
	return time.Unix(parts[0], parts[1]*1000)
}

// TestStore runs the suite on a server that keeps its data in memory only, and on one from whose disk nothing is lost.
func TestStore(t *testing.T) {
	for name, options := range map[string][]redistest.Option{
		"volatile": nil,
		"durable":  {redistest.Args("--appendonly", "yes", "--appendfsync", "no")}, // no machine fails here
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, append(options, redistest.Args("--enable-debug-command", "local"))...)
			client := raw(t, server)
			opened := 0
			storetest.Run(t, func(t *testing.T) storetest.Harness {
				opened++
				prefix := fmt.Sprintf("%s%d:", name, opened)
				shifted := time.Duration(0)
				return storetest.Harness{
					Store: open(t, server, prefix),
					Model: &model.Primary{State: model.NewState(), Durable: name == "durable"},
					Now:   func(t testing.TB) time.Time { return serverTime(t, client).Add(shifted) },
					Advance: func(t testing.TB, d time.Duration) {
						if d < time.Second {
							pass(t, client, d)
							return
						}
						shift(t, client, prefix, d)
						shifted += d
					},
					Turn: func(t testing.TB) {
						if err := client.Do(context.Background(), client.B().Arbitrary("DEBUG", "CHANGE-REPL-ID").Build()).Error(); err != nil {
							t.Fatal(err)
						}
					},
				}
			})
		})
	}
}
