package redis_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"ticketgate/store/redis"
	"ticketgate/store/redistest"
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
	l := listenAt(t, openAt(t, o), "revoked")
	l.want(t, "up true")
	publish(t, primary(), "before")
	l.want(t, "before")
	now := fail()
	l.want(t, "up false")
	l.want(t, "up true")
	publish(t, now, "after")
	l.want(t, "after")
}
