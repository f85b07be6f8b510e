package redis_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"ticketgate/revoke"
	"ticketgate/store/redis"
	"ticketgate/store/redistest"
	"ticketgate/store/storetest"
	"ticketgate/ticket"
)

func TestRevocations(t *testing.T) {
	server := redistest.Start(t)
	client := raw(t, server)
	storetest.Revocations(t, func(t *testing.T) storetest.LogHarness {
		return storetest.LogHarness{
			Log: open(t, server, t.Name()+":").Revocations(), Now: func() time.Time { return serverTime(t, client) },
			Advance: func(t testing.TB, d time.Duration) { pass(t, client, d) },
		}
	})
}

// TestKeyPlans: a key whose plan is another than before is told, once; a new one is not.
func TestKeyPlans(t *testing.T) {
	s := open(t, redistest.Start(t), "tg:")
	plans := map[string]string{}
	for i := range 1200 {
		plans[fmt.Sprint("k", i)] = "free"
	}
	for _, c := range []struct {
		change, plan string
		want         map[string]string
	}{{"k0", "free", map[string]string{}}, {"k7", "gold", map[string]string{"k7": "free"}}, {"k7", "gold", map[string]string{}}, {"k7", "free", map[string]string{"k7": "gold"}}, {"new", "gold", map[string]string{}}} {
		plans[c.change] = c.plan
		if got, err := s.KeyPlans(t.Context(), plans); err != nil || !maps.Equal(got, c.want) {
			t.Errorf("%s is %s: %v, %v, want %v", c.change, c.plan, got, err, c.want)
		}
	}
}

func TestLooks(t *testing.T) {
	server := redistest.Start(t)
	client := raw(t, server)
	storetest.Looks(t, open(t, server, "tg:"), func(t testing.TB, d time.Duration) { pass(t, client, d) })
}

func revocation(id string) revoke.Revocation {
	now := time.Now().Truncate(time.Millisecond)
	return revoke.Revocation{ID: id, At: now, What: revoke.Selector{Key: "k"}, Code: 4403, Until: now.Add(time.Hour)}
}

// TestRevocationsOneSlot: all keys of the log carry one hash tag, and so does its channel.
func TestRevocationsOneSlot(t *testing.T) {
	server := redistest.Start(t)
	log, c := open(t, server, "tg:").Revocations(), raw(t, server)
	if err := log.Publish(t.Context(), []revoke.Revocation{revocation("a")}); err != nil {
		t.Fatal(err)
	}
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil || len(keys) != 4 {
		t.Fatalf("%v, %v", keys, err)
	}
	for _, key := range keys {
		if !strings.HasPrefix(key, "tg:{revoked}:") {
			t.Errorf("key %s", key)
		}
	}
}

// TestRevocationsLost: a server that came back without its data, and one that was flushed, are another history.
func TestRevocationsLost(t *testing.T) {
	server := redistest.Start(t)
	log, c := open(t, server, "tg:").Revocations(), raw(t, server)
	if err := log.Publish(t.Context(), []revoke.Revocation{revocation("a"), revocation("b")}); err != nil {
		t.Fatal(err)
	}
	before, err := log.Read(t.Context(), revoke.Place{}, 10)
	if err != nil || len(before.Texts) != 2 {
		t.Fatalf("%d, %v", len(before.Texts), err)
	}
	if err := c.Do(t.Context(), c.B().Flushall().Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if err := log.Publish(t.Context(), []revoke.Revocation{revocation("c"), revocation("d"), revocation("e")}); err != nil {
		t.Fatal(err)
	}
	after, err := log.Read(t.Context(), before.Next, 10)
	if err != nil || !after.Reset || len(after.Texts) != 3 {
		t.Errorf("flushed: reset %v, %d, %v; want all 3", after.Reset, len(after.Texts), err)
	}
	server.Kill()
	if _, err := log.Read(t.Context(), after.Next, 10); !errors.Is(err, ticket.ErrUnavailable) {
		t.Errorf("read of a server that is gone: %v", err)
	}
	if err := log.Watch(t.Context(), func() {}); !errors.Is(err, ticket.ErrUnavailable) {
		t.Errorf("watching a server that is gone: %v", err)
	}
	server.Restart()
	var again revoke.Page
	for again.Next.History == "" {
		if again, err = log.Read(t.Context(), after.Next, 10); err != nil && t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
	if !again.Reset || len(again.Texts) != 0 {
		t.Errorf("restarted: reset %v, %d", again.Reset, len(again.Texts))
	}
}

// TestRevocationsUser: what an ACL user needs for the log; one who may not publish still has the log.
func TestRevocationsUser(t *testing.T) {
	server := redistest.Start(t)
	c := raw(t, server)
	rules := []string{"on", ">hunter2", "resetkeys", "resetchannels", "~tg:*", "-@all", "+hello", "+client", "+ping", "+auth", "+evalsha", "+script|load", "+info", "+time",
		"+hget", "+hset", "+hsetnx", "+hexists", "+hincrby", "+hdel", "+zadd", "+zrem", "+zcard", "+zrangebyscore"}
	for user, more := range map[string][]string{"full": {"+publish", "+subscribe", "+unsubscribe", "&tg:*"}, "mute": nil} {
		args := append(append([]string{user}, rules...), more...)
		if err := c.Do(t.Context(), c.B().Arbitrary("ACL", "SETUSER").Args(args...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
		s, err := redis.New(redis.Options{URL: "redis://" + user + ":hunter2@" + server.Addr(), Prefix: "tg:", Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		closeAfter(t, s)
		log := s.Revocations()
		if err := log.Publish(t.Context(), []revoke.Revocation{revocation(user)}); err != nil {
			t.Errorf("%s: publish: %v", user, err)
		}
		page, err := log.Read(t.Context(), revoke.Place{}, 10)
		if err != nil || len(page.Texts) == 0 {
			t.Errorf("%s: read: %v", user, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err = log.Watch(ctx, cancel)
		if cancel(); errors.Is(err, context.Canceled) != (user == "full") {
			t.Errorf("%s: watch: %v", user, err)
		}
	}
}
