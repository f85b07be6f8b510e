package revoke_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"ticketgate/revoke"
	"ticketgate/ticket"
)

var noon = time.UnixMilli(1_800_000_000_000).UTC()

// taken is a revocation at noon of what, in force for a day.
func taken(id string, what revoke.Selector) *revoke.Revocation {
	return &revoke.Revocation{ID: id, At: noon, What: what, Code: 4403, Until: noon.Add(24 * time.Hour)}
}

func barred(id string, what revoke.Selector, until time.Time) *revoke.Revocation {
	r := taken(id, what)
	r.Barred = until
	return r
}

func set(t testing.TB, rs ...*revoke.Revocation) *revoke.Set {
	t.Helper()
	s := revoke.NewSet()
	for _, r := range rs {
		if a := s.Add(r, true, noon); a != revoke.New {
			t.Fatalf("add %s: %d", r.ID, a)
		}
	}
	return s
}

var (
	ticketID = ticket.PublicID(noon, 77, ticket.Hash{1, 2, 3})
	otherID  = ticket.PublicID(noon, 77, ticket.Hash{1, 2, 4})
)

// opener is a socket of one ticket.
type opener ticket.Hash

func (o opener) From(_ ticket.Subject, h ticket.Hash) bool { return ticket.Hash(o) == h }

// asked is what a Set says of one bearer: at issue, at redeem, and of its open socket.
func asked(s *revoke.Set, c ticket.Claims, now time.Time) string {
	h := revoke.Holder{Client: []byte(c.Client), Key: []byte(c.Key), Stream: c.Stream, Plan: c.Plan, Issued: c.IssuedAt, Subject: 77, Opener: opener{1, 2, 3}}
	if c.ID == otherID {
		h.Opener = opener{1, 2, 4}
	}
	var out []string
	fresh := c
	if !s.Issue(&fresh, now) {
		out = append(out, "issue")
	}
	if s.Redeem(&c, now) {
		out = append(out, "redeem")
	}
	if _, ok := s.Socket(&h, 0, now); ok {
		out = append(out, "socket")
	}
	if s.Key(c.Key, now) {
		out = append(out, "key")
	}
	return strings.Join(out, " ")
}

func TestSet(t *testing.T) {
	before, after := noon.Add(-time.Minute), noon.Add(time.Minute)
	ann := func(at time.Time) ticket.Claims {
		return ticket.Claims{ID: ticketID, Client: "ann", Key: "app", Stream: "chat", Plan: "free", IssuedAt: at}
	}
	other := func(change func(*ticket.Claims)) ticket.Claims {
		c := ann(before)
		change(&c)
		return c
	}
	block := barred("b", revoke.Selector{Client: "ann"}, noon.Add(time.Hour))
	lift := taken("l", revoke.Selector{Client: "ann"})
	lift.At, lift.Lift, lift.Code = noon.Add(10*time.Minute), true, 0
	again := barred("b2", revoke.Selector{Client: "ann"}, noon.Add(time.Hour))
	again.At = noon.Add(20 * time.Minute)
	spare := taken("s", revoke.Selector{Client: "ann"})
	spare.Spare = true
	for _, c := range []struct {
		name string
		set  *revoke.Set
		who  ticket.Claims
		now  time.Time
		want string
	}{
		{"nothing is revoked", set(t), ann(before), noon, ""},
		{"client", set(t, taken("r", revoke.Selector{Client: "ann"})), ann(before), noon, "redeem socket"},
		{"client, ticket from later", set(t, taken("r", revoke.Selector{Client: "ann"})), ann(after), after, ""},
		{"client, ticket of the same moment", set(t, taken("r", revoke.Selector{Client: "ann"})), ann(noon.Add(revoke.Slack)), noon.Add(revoke.Slack), "redeem socket"},
		{"other client", set(t, taken("r", revoke.Selector{Client: "bob"})), ann(before), noon, ""},
		{"client and stream", set(t, taken("r", revoke.Selector{Client: "ann", Stream: "chat"})), ann(before), noon, "redeem socket"},
		{"client and other stream", set(t, taken("r", revoke.Selector{Client: "ann", Stream: "quotes"})), ann(before), noon, ""},
		{"client and other key", set(t, taken("r", revoke.Selector{Client: "ann", Key: "web"})), ann(before), noon, ""},
		{"stream", set(t, taken("r", revoke.Selector{Stream: "chat"})), ann(before), noon, "redeem socket"},
		{"stream, and plan that is another", set(t, taken("r", revoke.Selector{Stream: "chat", Plan: "gold"})), ann(before), noon, ""},
		{"plan", set(t, taken("r", revoke.Selector{Plan: "free"})), ann(before), noon, "redeem socket"},
		{"plan, given later", set(t, taken("r", revoke.Selector{Plan: "free"})), ann(after), after, ""},
		{"ticket", set(t, taken("r", revoke.Selector{Ticket: ticketID})), ann(before), noon, "redeem socket"},
		{"another ticket of the subject", set(t, taken("r", revoke.Selector{Ticket: ticketID})), other(func(c *ticket.Claims) { c.ID = otherID }), noon, ""},
		{"ticket of another client", set(t, taken("r", revoke.Selector{Ticket: ticketID, Client: "bob"})), ann(before), noon, ""},
		{"connection", set(t, taken("r", revoke.Selector{Conn: "c_00000001"})), ann(before), noon, ""},
		{"key", set(t, barred("r", revoke.Selector{Key: "app"}, revoke.Forever)), ann(after), noon.Add(23 * time.Hour), "issue redeem socket key"},
		{"other key", set(t, barred("r", revoke.Selector{Key: "web"}, revoke.Forever)), ann(after), after, ""},
		{"key for one client only", set(t, barred("r", revoke.Selector{Key: "app", Client: "ann"}, revoke.Forever)), ann(after), after, "issue redeem socket"},
		{"key for another client", set(t, barred("r", revoke.Selector{Key: "app", Client: "bob"}, revoke.Forever)), ann(after), after, ""},
		{"block", set(t, block), ann(after), after, "issue redeem socket"},
		{"block that is over", set(t, block), ann(noon.Add(2 * time.Hour)), noon.Add(2 * time.Hour), ""},
		{"block that is over, ticket from before", set(t, block), ann(before), noon.Add(2 * time.Hour), "redeem socket"},
		{"block lifted", set(t, block, lift), ann(after), noon.Add(11 * time.Minute), ""},
		{"block lifted, heard of in the other order", set(t, lift, block), ann(after), noon.Add(11 * time.Minute), ""},
		{"block lifted, ticket from before", set(t, block, lift), ann(before), noon.Add(11 * time.Minute), "redeem socket"},
		{"blocked again", set(t, lift, block, again), ann(noon.Add(15 * time.Minute)), noon.Add(21 * time.Minute), "issue redeem socket"},
		{"only sockets", set(t, spare), ann(before), noon, "socket"},
	} {
		if got := asked(c.set, c.who, c.now); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestIssuedBehind: a ticket issued by a node that knows of a revocation is not one of those that it takes back, however soon it comes.
func TestIssuedBehind(t *testing.T) {
	s := set(t, taken("a", revoke.Selector{Client: "ann"}), taken("b", revoke.Selector{Stream: "chat"}))
	later := taken("c", revoke.Selector{Client: "ann", Plan: "free"})
	later.At = noon.Add(300 * time.Millisecond)
	s.Add(later, true, noon)
	now := noon.Add(350 * time.Millisecond)
	c := ticket.Claims{Client: "ann", Key: "app", Stream: "chat", Plan: "free", IssuedAt: now}
	if !s.Issue(&c, now) {
		t.Fatal("refused")
	}
	if want := later.At.Add(revoke.Slack + time.Millisecond); !c.IssuedAt.Equal(want) {
		t.Errorf("dated %v, want %v", c.IssuedAt, want)
	}
	if got := asked(s, c, now); got != "" {
		t.Errorf("the new ticket: %q", got)
	}
	unconcerned := ticket.Claims{Client: "bob", Key: "app", Stream: "quotes", Plan: "free", IssuedAt: now}
	if s.Issue(&unconcerned, now); !unconcerned.IssuedAt.Equal(now) {
		t.Error("a ticket was dated that nothing is about")
	}
}

// TestSocketSince: a sweep acts on what is new to it, and of several takes the soonest.
func TestSocketSince(t *testing.T) {
	slow, quick := taken("slow", revoke.Selector{Client: "ann"}), taken("quick", revoke.Selector{Plan: "free"})
	slow.Over, quick.Code = time.Minute, 1012
	s := set(t, slow)
	h := revoke.Holder{Client: []byte("ann"), Plan: "free", Issued: noon}
	if v, ok := s.Socket(&h, 0, noon); !ok || v.Over != time.Minute || v.Code != 4403 {
		t.Errorf("%+v, %v", v, ok)
	}
	if _, ok := s.Socket(&h, s.Number(), noon); ok {
		t.Error("once more")
	}
	at := s.Number()
	s.Add(quick, true, noon)
	for _, after := range []uint64{0, at} {
		if v, ok := s.Socket(&h, after, noon); !ok || v.Over != 0 || v.Code != 1012 {
			t.Errorf("after %d: %+v, %v", after, v, ok)
		}
	}
	conn := taken("conn", revoke.Selector{Conn: "c_00000001"})
	at = s.Number()
	s.Add(conn, true, noon)
	if list := s.Conns(at); len(list) != 1 || list[0].ID != "conn" || len(s.Conns(s.Number())) != 0 {
		t.Errorf("connections: %v", list)
	}
}

// TestBounds: the set forgets what is over, takes nothing twice, and no more than its bound.
func TestBounds(t *testing.T) {
	s := revoke.NewSet()
	for i := range revoke.Max {
		r := taken(fmt.Sprint("r", i), revoke.Selector{Client: fmt.Sprint("c", i)})
		if i%2 == 0 {
			r.Until = noon.Add(time.Hour)
		}
		if a := s.Add(r, i%4 == 0, noon); a != revoke.New {
			t.Fatalf("%d: %d", i, a)
		}
	}
	extra := taken("one more", revoke.Selector{Client: "x"})
	if a := s.Add(extra, true, noon); a != revoke.NoRoom {
		t.Errorf("one more: %d", a)
	}
	if a := s.Add(taken("r7", revoke.Selector{Client: "c7"}), false, noon); a != revoke.Known {
		t.Errorf("once more: %d", a)
	}
	if n := s.Waiting(); n != revoke.Max*3/4 {
		t.Errorf("%d wait for the log, want %d", n, revoke.Max*3/4)
	}
	s.Expire(noon.Add(2 * time.Hour))
	if s.Len() != revoke.Max/2 || s.Waiting() != revoke.Max/2 {
		t.Errorf("%d left, of which %d wait; want half of %d", s.Len(), s.Waiting(), revoke.Max)
	}
	now := noon.Add(2 * time.Hour)
	if asked(s, ticket.Claims{Client: "c2", IssuedAt: noon}, now) != "" || asked(s, ticket.Claims{Client: "c3", IssuedAt: noon}, now) != "redeem socket" {
		t.Error("the wrong half is left")
	}
	if a := s.Add(extra, true, now); a != revoke.New {
		t.Errorf("one more, with room: %d", a)
	}
	if a := s.Add(taken("late", revoke.Selector{Client: "y"}), true, noon.Add(25*time.Hour)); a != revoke.Over {
		t.Errorf("one that is over: %d", a)
	}
	s.Expire(noon.Add(48 * time.Hour))
	if n := s.Size(); s.Len() != 0 || s.Waiting() != 0 || n != 0 {
		t.Errorf("%d left, %d wait, %d indexed", s.Len(), s.Waiting(), n)
	}
}

// TestUntold: what the log does not have is told in the order in which it came.
func TestUntold(t *testing.T) {
	s := revoke.NewSet()
	for i := range 10 {
		s.Add(taken(fmt.Sprint(i), revoke.Selector{Client: "c"}), i < 3, noon)
	}
	ids := func(list []revoke.Revocation) (all string) {
		for _, r := range list {
			all += r.ID
		}
		return all
	}
	if got := ids(s.Untold(4)); got != "3456" {
		t.Errorf("untold %s", got)
	}
	s.Told(s.Untold(4), true)
	if got := ids(s.Untold(100)); got != "789" || s.Waiting() != 3 {
		t.Errorf("then %s", got)
	}
	s.Untell()
	if got := ids(s.Untold(100)); got != "0123456789" || s.Waiting() != 10 {
		t.Errorf("all again: %s", got)
	}
}

// TestAllocations: what loops ask costs nothing, with 10,000 revocations in force.
func TestAllocations(t *testing.T) {
	s := revoke.NewSet()
	for i := range 10_000 {
		s.Add(taken(fmt.Sprint("r", i), revoke.Selector{Client: fmt.Sprint("c", i)}), true, noon)
	}
	s.Add(taken("t", revoke.Selector{Ticket: ticketID}), true, noon)
	s.Add(taken("s", revoke.Selector{Stream: "old"}), true, noon)
	c := ticket.Claims{ID: otherID, Client: "ann", Key: "app", Stream: "chat", Plan: "free", IssuedAt: noon}
	gone := c
	gone.Client = "c4711"
	h := revoke.Holder{Client: []byte("ann"), Key: []byte("app"), Stream: "chat", Plan: "free", Issued: noon, Subject: 77, Opener: opener{9}}
	if n := testing.AllocsPerRun(1000, func() {
		if s.Redeem(&c, noon) || !s.Redeem(&gone, noon) {
			t.Error("wrong")
		}
	}); n != 0 {
		t.Errorf("a redemption allocates %v times", n)
	}
	bearer := h.Opener
	if n := testing.AllocsPerRun(1000, func() {
		h.Opener = bearer
		if _, ok := s.Socket(&h, 0, noon); ok {
			t.Error("wrong")
		}
	}); n != 0 {
		t.Errorf("a socket allocates %v times", n)
	}
}

func TestText(t *testing.T) {
	r := barred("rev_1", revoke.Selector{Client: "ann\"\n", Key: "k", Stream: "s", Plan: "p", Ticket: ticketID, Conn: "c_1"}, noon.Add(time.Hour))
	r.Lift, r.Spare, r.Over, r.Reason = true, true, 90*time.Second, "left the company"
	got, err := revoke.Parse(revoke.AppendText(nil, r))
	if err != nil || got != *r {
		t.Errorf("%+v, %v; want %+v", got, err, *r)
	}
	for name, text := range map[string]string{
		"nothing": "", "no JSON": "{", "later version": `{"v":2,"id":"a","at":1,"until":2,"what":{"key":"k"}}`,
		"no selector": `{"v":1,"id":"a","at":1,"until":2}`, "no id": `{"v":1,"at":1,"until":2,"what":{"key":"k"}}`,
		"ends before it begins": `{"v":1,"id":"a","at":3,"until":2,"what":{"key":"k"}}`, "code": `{"v":1,"id":"a","at":1,"until":2,"code":7,"what":{"key":"k"}}`,
		"ticket": `{"v":1,"id":"a","at":1,"until":2,"what":{"ticket":"tkt_x"}}`, "reason": `{"v":1,"id":"a","at":1,"until":2,"reason":"a\nb","what":{"key":"k"}}`,
		"long": `{"v":1,"id":"a","at":1,"until":2,"what":{"key":"` + strings.Repeat("k", 257) + `"}}`, "very long": strings.Repeat(" ", 4096),
	} {
		if _, err := revoke.Parse([]byte(text)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func BenchmarkRedeem(b *testing.B) {
	for _, n := range []int{0, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := revoke.NewSet()
			for i := range n {
				s.Add(taken(fmt.Sprint("r", i), revoke.Selector{Client: fmt.Sprint("c", i)}), true, noon)
			}
			c := ticket.Claims{ID: otherID, Client: "ann", Key: "app", Stream: "chat", Plan: "free", IssuedAt: noon}
			b.ReportAllocs()
			for b.Loop() {
				s.Redeem(&c, noon)
			}
		})
	}
}
