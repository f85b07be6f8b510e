package redis_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"ticketgate/store/redis"
	"ticketgate/store/redistest"
	"ticketgate/ticket"
)

// TestSlotMoves: while a slot is on its way, its old place sends us to the new one for what has moved (ASK), and afterwards for
// everything (MOVED). Each command runs once.
func TestSlotMoves(t *testing.T) {
	c := redistest.StartCluster(t)
	s := openAt(t, redis.Options{Addresses: c.Addrs()[:3], Prefix: "tg:"})
	ready(t, s)
	ctx := context.Background()
	const subject = ticket.Subject(0x0005)
	slot := redis.SlotOf("tg:{0005}:x")
	from := c.Primary(slot)
	to := c.Primary((slot + 8192) % 16384)
	if from == to {
		t.Fatal("one primary has both slots")
	}
	epoch, old := epochAt(t, to), epochAt(t, from)
	issue := func(epoch ticket.Epoch) *ticket.IssueRequest {
		t.Helper()
		r := fresh(epoch)
		r.Subject = subject
		if a, err := s.Issue(ctx, r); err != nil || a.Result != ticket.IssueOK {
			t.Fatalf("issue: %+v, %v", a, err)
		}
		return r
	}
	redeem := func(r *ticket.IssueRequest, epoch ticket.Epoch) ticket.RedeemResult {
		q := redeemOf(r)
		q.Epoch = epoch
		as := make([]ticket.RedeemAnswer, 1)
		s.Redeem(ctx, []ticket.RedeemRequest{q}, as)
		return as[0].Result
	}
	first, second, third := issue(old), issue(old), issue(old)
	if got := redeem(first, old); got != ticket.RedeemOK {
		t.Fatalf("redeem at the old place: %d", got)
	}

	c.Migrate(slot, to)
	if n := c.MoveKeys(slot, to); n < 4 {
		t.Fatalf("%d keys moved, want two tickets, reservations and held", n)
	}
	// Where it knows no script is where it is asked first.
	if _, err := to.Do("SCRIPT", "FLUSH"); err != nil {
		t.Fatal(err)
	}
	if got := redeem(second, old); got != ticket.RedeemEpoch {
		t.Errorf("a ticket of the old place's history, at the new one: %d, want another epoch", got)
	}
	if got := redeem(second, epoch); got != ticket.RedeemOK {
		t.Errorf("redeem while the slot moves: %d, want ok", got)
	}
	if got := redeem(second, epoch); got != ticket.RedeemUnsent { // TRYAGAIN: it might be on its way
		t.Errorf("redeem again: %d, want unsent", got)
	}
	key := "tg:{0005}:n:ask"
	if o := s.Count(ctx, key)[0]; o.Err != nil || o.N != 1 {
		t.Errorf("a new key while the slot moves: %+v", o)
	}
	// A script whose keys are not all there cannot run anywhere: known to be unsent.
	fourth := fresh(epoch)
	fourth.Subject = subject
	if _, err := s.Issue(ctx, fourth); !errors.Is(err, ticket.ErrUnavailable) || !strings.Contains(err.Error(), "TRYAGAIN") {
		t.Errorf("issue while the slot moves: %v, want TRYAGAIN", err)
	}

	c.Settle(slot, to)
	keys := make([]string, 100)
	for i := range keys {
		keys[i] = fmt.Sprintf("tg:{0005}:n:moved:%d", i)
	}
	var l ledger
	for i, o := range s.Count(ctx, keys...) { // the first to hear of it
		if o.Err != nil {
			t.Errorf("after the move: %v", o.Err)
		}
		l.note(t, keys[i], o, ranAt(t, to, keys[i:i+1])[0], false)
	}
	if got := ranAt(t, to, []string{key})[0]; got != 1 {
		t.Errorf("the new key ran %d times", got)
	}
	if got := redeem(third, epoch); got != ticket.RedeemOK {
		t.Errorf("redeem after the move: %d", got)
	}
	eventually(t, "the slot at its new shard", func() bool {
		top := s.Topology()
		return c.Primary(int(top.Of(subject))) == to
	})
	issue(epoch)
}

// TestClusterNodes: answers of several nodes put together.
func TestClusterNodes(t *testing.T) {
	const (
		a = "aa 10.0.0.1:6379@16379,one.internal"
		b = "bb 10.0.0.2:6379@16379"
		d = "dd 10.0.0.4:6379@16379"
	)
	healthy := a + " myself,master - 0 0 1 connected 0-8191\n" + b + " master - 0 0 2 connected 8192-16382 16383 [5->-bb]\n" + d + " slave aa 0 0 1 connected\n"
	for _, c := range []struct {
		name   string
		texts  []string
		secure bool
		slot   int
		want   string
	}{
		{"one answer", []string{healthy}, false, 16383, "10.0.0.2:6379"},
		{"names with TLS", []string{healthy}, true, 0, "one.internal:6379"},
		{"no address of its own", []string{"aa :7000@17000 myself,master - 0 0 1 connected 0-16383\n"}, false, 0, "192.0.2.1:7000"},
		{"IPv6", []string{"aa 2001:db8::1:7000@17000 master - 0 0 1 connected 0-16383\n"}, false, 0, "[2001:db8::1]:7000"},
		{"failed and not replaced", []string{strings.Replace(healthy, "myself,master", "master,fail", 1)}, false, 5, "10.0.0.1:6379"},
		{"the old primary's word and the others'", []string{healthy,
			a + " master,fail - 0 0 1 disconnected\n" + d + " myself,master - 0 0 3 connected 0-8191\n"}, false, 5, "10.0.0.4:6379"},
		{"in the other order", []string{a + " master - 0 0 1 connected\n" + d + " myself,master - 0 0 3 connected 0-8191\n", healthy}, false, 5, "10.0.0.4:6379"},
		{"one that is not known yet", []string{"ee :0@0 handshake - 0 0 0 connected\nff :0@0 master,noaddr - 0 0 9 disconnected 0-16383\n" + healthy}, false, 5, "10.0.0.1:6379"},
	} {
		by := []string{"192.0.2.1:6379", "192.0.2.2:6379"}[:len(c.texts)]
		owner, _, err := redis.FindClusterNodes(by, c.texts, c.secure)
		if err != nil || owner[c.slot] != c.want {
			t.Errorf("%s: slot %d at %q, %v, want %s", c.name, c.slot, owner[c.slot], err, c.want)
		}
	}
	for _, text := range []string{"no", "aa 10.0.0.1 master - 0 0 1 connected 0", "aa h:1@2 master - 0 0 x connected 0", "aa h:1@2 master - 0 0 1 connected 0-16384", "aa h:1@2 master - 0 0 1 connected 9-3", "aa h:1@2 master - 0 0 1 connected -1"} {
		if _, _, err := redis.FindClusterNodes([]string{"192.0.2.1:6379"}, []string{text}, false); err == nil {
			t.Errorf("%q: accepted", text)
		}
	}
	if owner, masters, err := redis.FindClusterNodes([]string{"192.0.2.1:6379"}, []string{"aa h:1@2 myself,master - 0 0 0 connected\n"}, false); owner != nil || masters != nil || err != nil {
		t.Errorf("a cluster without slots: %v, %v, %v", owner, masters, err)
	}
}

// FuzzClusterNodes: whatever a server says, it is an error or a view.
func FuzzClusterNodes(f *testing.F) {
	f.Add("aa 10.0.0.1:6379@16379,one.internal myself,master - 0 0 1 connected 0-8191 [5->-bb]\n", true)
	f.Add("aa :7000@17000 master,fail - 0 0 1 connected 0-16383 0\n", false)
	f.Fuzz(func(t *testing.T, text string, secure bool) {
		owner, masters, err := redis.FindClusterNodes([]string{"192.0.2.1:6379"}, []string{text}, secure)
		if err != nil {
			return
		}
		for slot, addr := range owner {
			if slot < 0 || slot >= 16384 || addr == "" || len(masters) == 0 {
				t.Fatalf("slot %d at %q of %v", slot, addr, masters)
			}
		}
	})
}
