package redis_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"ticketgate/store/redis"
	"ticketgate/store/redistest"
	"ticketgate/ticket"
)

// A listener notes what Subscribe tells it, in order.
type listener struct {
	events chan string
	done   chan struct{}
	stop   context.CancelFunc
}

func listenAt(t testing.TB, s *redis.Store, channel string) *listener {
	ctx, stop := context.WithCancel(context.Background())
	l := &listener{events: make(chan string, 1000), done: make(chan struct{}), stop: stop}
	go func() {
		defer close(l.done)
		s.Subscribe(ctx, channel, func(b []byte) { l.events <- string(b) }, func(up bool) { l.events <- fmt.Sprint("up ", up) })
	}()
	t.Cleanup(l.end)
	return l
}

func (l *listener) end() {
	l.stop()
	<-l.done
}

func (l *listener) want(t testing.TB, event string) {
	t.Helper()
	select {
	case got := <-l.events:
		if got != event {
			t.Fatalf("heard %q, want %q", got, event)
		}
	case <-time.After(time.Minute):
		t.Fatalf("heard nothing, want %q", event)
	}
}

func publish(t testing.TB, server *redistest.Server, text string) {
	t.Helper()
	if _, err := server.Do("PUBLISH", "tg:revoked", text); err != nil {
		t.Fatal(err)
	}
}

func TestSubscribe(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	s := openAt(t, redis.Options{URL: "redis://" + proxy.Addr(), Prefix: "tg:"})
	l := listenAt(t, s, "revoked")
	l.want(t, "up true")
	publish(t, server, "one\x00\r\n")
	l.want(t, "one\x00\r\n")
	proxy.Cut()
	l.want(t, "up false")
	l.want(t, "up true")
	for i := range 100 {
		publish(t, server, fmt.Sprint(i))
	}
	for i := range 100 {
		l.want(t, fmt.Sprint(i))
	}
	proxy.Drop(true) // the connection stays open, and nothing comes
	l.want(t, "up false")
	publish(t, server, "lost")
	proxy.Drop(false)
	l.want(t, "up true")
	publish(t, server, "two")
	l.want(t, "two")
	l.end()
	l.want(t, "up false")

	l = listenAt(t, s, "revoked")
	l.want(t, "up true")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	l.want(t, "up false")
	<-l.done
}

// TestPublish: what one store publishes another hears, in order and byte for byte, and nobody hears another channel.
func TestPublish(t *testing.T) {
	server := redistest.Start(t)
	s := openAt(t, redis.Options{URL: server.URL(), Prefix: "tg:"})
	l := listenAt(t, openAt(t, redis.Options{URL: server.URL(), Prefix: "tg:"}), "mine")
	other := listenAt(t, openAt(t, redis.Options{URL: server.URL(), Prefix: "tg2:"}), "mine")
	l.want(t, "up true")
	other.want(t, "up true")
	for range 2 { // the second time the server knows the script
		if err := s.Publish(t.Context(), []ticket.Message{{Channel: "mine", Payload: []byte("one\x00\r\n")}, {Channel: "theirs", Payload: []byte("no")},
			{Channel: "mine", Payload: nil}}); err != nil {
			t.Fatal(err)
		}
		l.want(t, "one\x00\r\n")
		l.want(t, "")
	}
	server.Kill()
	if err := s.Publish(t.Context(), []ticket.Message{{Channel: "mine", Payload: []byte("x")}}); !errors.Is(err, ticket.ErrUnavailable) {
		t.Errorf("published at a server that is gone: %v", err)
	}
	for len(other.events) > 0 {
		if got := <-other.events; got != "up false" && got != "up true" {
			t.Errorf("another prefix heard %q", got)
		}
	}
}

func TestSubscribeThroughFailover(t *testing.T) {
	t.Run("sentinel", func(t *testing.T) {
		r := redistest.StartSentinel(t)
		o := sentinelOptions(r)
		o.Prefix = "tg:"
		throughFailover(t, o, r.Primary, func() *redistest.Server {
			old := r.Primary()
			old.Kill()
			return r.Follows(old)
		})
	})
	t.Run("cluster", func(t *testing.T) {
		c := redistest.StartCluster(t)
		slot := redis.SlotOf("tg:{nodes}:x")
		primary := func() *redistest.Server { return c.Primary(slot) }
		throughFailover(t, redis.Options{Addresses: c.Addrs()[:3], Prefix: "tg:"}, primary, func() *redistest.Server {
			old := primary()
			old.Kill()
			return c.Follows(slot, old)
		})
	})
}

func throughFailover(t *testing.T, o redis.Options, primary, fail func() *redistest.Server) {
	s := openAt(t, o)
	l := listenAt(t, s, "revoked")
	l.want(t, "up true")
	publish(t, primary(), "before")
	l.want(t, "before")
	now := fail()
	l.want(t, "up false")
	l.want(t, "up true")
	publish(t, now, "after")
	l.want(t, "after")
	for { // the store may still be told to wait: the breaker, a slot without a primary
		err := s.Publish(t.Context(), []ticket.Message{{Channel: "revoked", Payload: []byte("ours")}})
		if err == nil {
			break
		}
		if !errors.Is(err, ticket.ErrUnavailable) || t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
	l.want(t, "ours")
}
