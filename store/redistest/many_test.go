package redistest_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"ticketgate/store/redistest"
)

func do(t *testing.T, s *redistest.Server, args ...string) any {
	t.Helper()
	v, err := s.Do(args...)
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return v
}

func TestSecured(t *testing.T) {
	certs := redistest.NewCerts(t)
	s := redistest.Start(t, redistest.WithTLS(certs), redistest.WithACL("~tg:* +get"))
	if want := "rediss://gw:hunter2@" + s.Addr(); s.URL() != want {
		t.Errorf("url %s, want %s", s.URL(), want)
	}
	if v := do(t, s, "ACL", "WHOAMI"); v != "admin" {
		t.Errorf("Do is %v", v)
	}
	if got, err := ask(s.Addr(), "PING", time.Second); err == nil {
		t.Errorf("without TLS it answers %q", got)
	}
	v := do(t, s, "ACL", "DRYRUN", "gw", "SET", "tg:a", "1")
	if !strings.Contains(fmt.Sprint(v), "permissions") {
		t.Errorf("gw may SET: %v", v)
	}
	var refusal redistest.Refusal
	if _, err := s.Do("NOTHING"); !errors.As(err, &refusal) {
		t.Errorf("an unknown command: %v", err)
	}
}

func TestSentinel(t *testing.T) {
	certs := redistest.NewCerts(t)
	r := redistest.StartSentinel(t, redistest.WithTLS(certs), redistest.WithACL("+ping"))
	first := r.Primary()
	if first != r.Servers[0] {
		t.Error("the first server is not the primary")
	}
	second := r.Failover()
	if second == first {
		t.Error("the old primary still is")
	}
	second.Kill()
	if third := r.Follows(second); third == second {
		t.Error("a killed primary still is")
	}
	second.Restart()
}

func TestCluster(t *testing.T) {
	c := redistest.StartCluster(t)
	first := c.Primary(0)
	second := c.Failover(0)
	if second == first || c.Primary(slotsOfAll-1) == second {
		t.Error("wrong primaries")
	}
	second.Kill()
	if third := c.Follows(0, second); third != first {
		t.Error("the old primary has not taken over")
	}
	second.Restart()

	const key, slot = "{0005}:a", 2607
	if v := do(t, first, "CLUSTER", "KEYSLOT", key); v != int64(slot) {
		t.Fatalf("%s is in slot %v", key, v)
	}
	to := c.Primary(slotsOfAll - 1)
	do(t, c.Primary(slot), "SET", key, "1")
	c.Migrate(slot, to)
	if n := c.MoveKeys(slot, to); n != 1 {
		t.Errorf("%d keys moved", n)
	}
	if _, err := c.Primary(slot).Do("GET", key); err == nil || !strings.HasPrefix(err.Error(), "ASK ") {
		t.Errorf("the old place says %v", err)
	}
	c.Settle(slot, to)
	if v := do(t, to, "GET", key); v != "1" {
		t.Errorf("the new place has %v", v)
	}
}

const slotsOfAll = 16384

func TestProxy(t *testing.T) {
	s := redistest.Start(t)
	p := redistest.StartProxy(t, s.Addr())
	if got, err := ask(p.Addr(), "PING", 5*time.Second); err != nil || got != "+PONG" {
		t.Fatalf("%q, %v", got, err)
	}
	p.CutAfter(3)
	if got, err := ask(p.Addr(), "PING", 5*time.Second); err == nil || got != "+PO" {
		t.Errorf("cut after 3 bytes: %q, %v", got, err)
	}
	if got, err := ask(p.Addr(), "PING", 5*time.Second); err != nil || got != "+PONG" {
		t.Errorf("after the cut: %q, %v", got, err)
	}
	p.Drop(true)
	if got, err := ask(p.Addr(), "PING", 50*time.Millisecond); err == nil {
		t.Errorf("dropped: %q", got)
	}
	p.Drop(false)
	p.Refuse(true)
	if got, err := ask(p.Addr(), "PING", 5*time.Second); err == nil {
		t.Errorf("refused: %q", got)
	}
	p.Refuse(false)
	p.Delay(30 * time.Millisecond)
	start := time.Now()
	if got, err := ask(p.Addr(), "PING", 5*time.Second); err != nil || got != "+PONG" || time.Since(start) < 60*time.Millisecond {
		t.Errorf("delayed: %q, %v after %v", got, err, time.Since(start))
	}
}
