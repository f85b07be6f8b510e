package redis_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"ticketgate/store/redis"
	"ticketgate/store/redistest"
	"ticketgate/ticket"
)

// dump returns every key with its value as DUMP gives it, and its time to live in ms.
func dump(t testing.TB, c rueidis.Client) (text map[string]string, ttl map[string]int64) {
	t.Helper()
	ctx := context.Background()
	keys, err := c.Do(ctx, c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	text, ttl = map[string]string{}, map[string]int64{}
	for _, k := range keys {
		if text[k], err = c.Do(ctx, c.B().Dump().Key(k).Build()).ToString(); err != nil {
			t.Fatal(err)
		}
		if ttl[k], err = c.Do(ctx, c.B().Pttl().Key(k).Build()).AsInt64(); err != nil {
			t.Fatal(err)
		}
	}
	return text, ttl
}

// TestOnlyHashesAreStored: whoever reads Redis cannot open a socket with it.
func TestOnlyHashesAreStored(t *testing.T) {
	server := redistest.Start(t, redistest.Args("--rdbcompression", "no")) // DUMP in the clear
	s, c := quick(t, server), raw(t, server)
	v, _ := answers(t, s)
	ring, err := ticket.NewKeyRing(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m, err := ring.NewMinter(rand.Reader).Mint(v.Time.Add(30*time.Second), v.Seen.Epoch, ring.Subject("client", "user-42"), 0)
	if err != nil {
		t.Fatal(err)
	}
	grant := ticket.AppendClaims(nil, &ticket.Claims{Client: "user-42", Stream: "quotes"})
	a, err := s.Issue(context.Background(), &ticket.IssueRequest{Ticket: m.Hash, Secret: m.SecretHash, Subject: m.Locator.Subject,
		Limit: 2, Outstanding: 20, Life: 30 * time.Second, Owner: "key-1", Grant: grant, Epoch: v.Seen.Epoch})
	if err != nil || a.Result != ticket.IssueOK {
		t.Fatalf("issue: %+v, %v", a, err)
	}
	text, ttl := dump(t, c)
	all := fmt.Sprint(text)
	for k, v := range text {
		all += k + v
	}
	if !strings.Contains(all, "user-42") || !strings.Contains(all, string(m.SecretHash[:])) {
		t.Fatal("the dump does not show the grant and the secret's hash: it proves nothing")
	}
	for name, part := range map[string][]byte{
		"locator": m.Text[:], "random part": m.Locator.Random[:], "random part as text": m.Text[26:46],
		"secret": m.Secret[4:], "owner": []byte("key-1"),
	} {
		if bytes.Contains([]byte(all), part) {
			t.Errorf("the %s stands in Redis", name)
		}
	}
	tag := fmt.Sprintf("tg:{%04x}:", m.Locator.Subject.Tag())
	for k, left := range ttl {
		switch {
		case strings.HasPrefix(k, "tg:{nodes}:"):
		case !strings.HasPrefix(k, tag):
			t.Errorf("key %q without the tag %q", k, tag)
		case left <= 0 || left > 30_000:
			t.Errorf("key %q lives %d ms, the ticket 30 s", k, left)
		}
	}
	if len(text) != 2+2 {
		t.Errorf("keys %v: want ticket, reservations, entries and state", ttl)
	}
}

// TestKeysLapse: what a client leaves in Redis ends by itself.
func TestKeysLapse(t *testing.T) {
	server := redistest.Start(t)
	s, c := quick(t, server), raw(t, server)
	v, _ := answers(t, s)
	ctx := context.Background()
	held := func(count uint32, number uint64) {
		t.Helper()
		as := make([]ticket.AssertAnswer, 1)
		s.Assert(ctx, []ticket.Assertion{{Held: ticket.Held{Subject: 5, Incarnation: me, Count: count, Number: number}, Epoch: v.Seen.Epoch}}, as)
		if !as[0].OK {
			t.Fatalf("assert: %+v", as[0])
		}
	}
	want := func(low, high int64) {
		t.Helper()
		if _, ttl := dump(t, c); ttl["tg:{0005}:h:0000000000000005"] < low || ttl["tg:{0005}:h:0000000000000005"] > high {
			t.Fatalf("times to live %v, want %d to %d", ttl, low, high)
		}
	}
	held(2, 1)
	want(-1, -1) // open sockets never lapse
	held(0, 2)
	want(3_500_000, 3_600_000) // a zero keeps its number for an hour
	held(1, 3)
	want(-1, -1)
	held(0, 4)

	// Reservations live as long as the longest ticket, in whatever order they come.
	for _, life := range []time.Duration{20 * time.Second, 50 * time.Second, 10 * time.Second} {
		r := fresh(v.Seen.Epoch)
		r.Subject, r.Life = 5, life
		if _, err := s.Issue(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if _, ttl := dump(t, c); ttl["tg:{0005}:r:0000000000000005"] < 49_000 || ttl["tg:{0005}:r:0000000000000005"] > 50_000 {
		t.Errorf("times to live %v, want 50 s for the reservations", ttl)
	}
}

func TestStats(t *testing.T) {
	server := redistest.Start(t)
	s := quick(t, server)
	v, _ := answers(t, s)
	r := fresh(v.Seen.Epoch)
	r.Limit = 1
	for range 2 {
		if _, err := s.Issue(context.Background(), r); err != nil {
			t.Fatal(err)
		}
		r = fresh(v.Seen.Epoch)
		r.Limit = 0
	}
	as := make([]ticket.RedeemAnswer, 2)
	s.Redeem(context.Background(), []ticket.RedeemRequest{redeemOf(r), redeemOf(r)}, as)
	st := s.Stats()
	if !st.Up || st.Degraded {
		t.Errorf("up %v, degraded %v", st.Up, st.Degraded)
	}
	got := map[string]uint64{}
	for _, o := range st.Ops {
		if n := o.Latency.Count(); n > 0 {
			got[o.Op+" "+o.Result] = n
		}
	}
	delete(got, "renew ok")
	delete(got, "renew unsent")
	delete(got, "renew error")
	delete(got, "used ok") // answers asks until it is
	delete(got, "used unsent")
	delete(got, "used error")
	if fmt.Sprint(got) != "map[issue ok:1 issue refused:1 redeem refused:2]" {
		t.Errorf("counted %v", got)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, url := range []string{"", "redis", "http://127.0.0.1", "redis://user:hunter2@127.0.0.1:1/x", "redis://user:hunter2@[::1", "redis://user:hunter2%zz@h"} {
		if s, err := redis.New(redis.Options{URL: url}); err == nil || s != nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", url, err)
		}
	}
	if _, err := redis.New(redis.Options{URL: "redis://127.0.0.1:1", Timeout: -1}); err == nil {
		t.Error("negative timeout accepted")
	}
}

// TestUserAndPassword: an ACL user that may run our scripts on our keys and nothing else.
func TestUserAndPassword(t *testing.T) {
	server := redistest.Start(t)
	c := raw(t, server)
	rules := []string{"gw", "on", ">hunter2", "resetkeys", "~tg:*", "-@all", "+hello", "+client",
		"+ping", "+wait", "+evalsha", "+script|load", "+info", "+time", "+get", "+set", "+getdel", "+del", "+exists", "+hget", "+hmget", "+hset", "+hvals", "+hgetall", "+hdel",
		"+persist", "+pexpire", "+pexpireat", "+zadd", "+zrem", "+zcard", "+zcount", "+zremrangebyscore", "+auth"}
	if err := c.Do(context.Background(), c.B().Arbitrary("ACL", "SETUSER").Args(rules...).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	s, err := redis.New(redis.Options{URL: "redis://gw:hunter2@" + server.Addr(), Prefix: "tg:"})
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, s)
	everything(t, s)
	wrong, err := redis.New(redis.Options{URL: "redis://gw:wrong@" + server.Addr(), Prefix: "tg:"})
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, wrong)
	if _, err := renew(wrong); err == nil || strings.Contains(err.Error(), "wrong") {
		t.Errorf("renew with a wrong password: %v", err)
	}
}

// TestScriptsFlushed: a server that lost its scripts gets them again, and no call notices.
func TestScriptsFlushed(t *testing.T) {
	server := redistest.Start(t)
	s, c := quick(t, server), raw(t, server)
	v, _ := answers(t, s)
	var qs []ticket.RedeemRequest
	for range 300 {
		r := fresh(v.Seen.Epoch)
		if a, err := s.Issue(context.Background(), r); err != nil || a.Result != ticket.IssueOK {
			t.Fatalf("issue: %+v, %v", a, err)
		}
		qs = append(qs, redeemOf(r))
	}
	if err := c.Do(context.Background(), c.B().ScriptFlush().Build()).Error(); err != nil {
		t.Fatal(err)
	}
	as := make([]ticket.RedeemAnswer, len(qs))
	s.Redeem(context.Background(), qs, as)
	if i := slices.IndexFunc(as, func(a ticket.RedeemAnswer) bool { return a.Result != ticket.RedeemOK }); i >= 0 {
		t.Errorf("redeem %d: %d", i, as[i].Result)
	}
}
