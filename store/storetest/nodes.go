package storetest

import (
	"errors"
	"slices"
	"time"

	"ticketgate/ticket"
)

// renewal is the next of incarnation i: its first, or one after the last was acknowledged.
func (s *suite) renewal(i ticket.Incarnation, lease time.Duration, former ...ticket.Incarnation) *ticket.RenewRequest {
	n := s.renewed[i]
	s.renewed[i]++
	return &ticket.RenewRequest{Incarnation: i, Name: "gw", Lease: lease, Number: n + 1, Acked: n, Enter: n == 0, Former: former, Topology: 1}
}

func (s *suite) do(r *ticket.RenewRequest) ticket.View {
	s.Helper()
	v, err := s.Store.Renew(s.Context(), r)
	if err != nil || v.Seen != s.Model.Self || v.Acks != 0 {
		s.Fatalf("renew %x: %+v, %v, want one seen at %+v", r.Incarnation, v, err, s.Model.Self)
	}
	return v
}

func (s *suite) renew(i ticket.Incarnation, lease time.Duration, former ...ticket.Incarnation) ticket.View {
	s.Helper()
	return s.do(s.renewal(i, lease, former...))
}

func (s *suite) wantErr(r *ticket.RenewRequest, want error) {
	s.Helper()
	if v, err := s.Store.Renew(s.Context(), r); !errors.Is(err, want) {
		s.Fatalf("renew %x: %+v, %v, want %v", r.Incarnation, v, err, want)
	}
}

func (s *suite) wantView(v ticket.View, alive, dead []ticket.Incarnation) {
	s.Helper()
	var a, d []ticket.Incarnation
	for _, n := range v.Nodes {
		if n.Dead {
			d = append(d, n.Incarnation)
		} else {
			a = append(a, n.Incarnation)
		}
		if n.Dead != (n.Left <= 0) || n.Left > long {
			s.Errorf("%x: dead %v, left %v", n.Incarnation, n.Dead, n.Left)
		}
	}
	if !slices.Equal(a, alive) || !slices.Equal(d, dead) {
		s.Fatalf("view %+v, want alive %x, dead %x", v, alive, dead)
	}
}

func lease(s *suite) {
	const brief ticket.Incarnation = 0xb2
	before := s.renew(node, long)
	s.wantView(before, []ticket.Incarnation{node}, nil)
	s.wantView(s.renew(brief, short), []ticket.Incarnation{node, brief}, nil)
	s.renew(brief, long)
	s.Advance(s, past)
	s.wantView(s.renew(brief, short), []ticket.Incarnation{node, brief}, nil) // prolonged in time
	s.Advance(s, past)
	after := s.renew(node, long)
	s.wantView(after, []ticket.Incarnation{node}, []ticket.Incarnation{brief})
	if d := after.Time.Sub(before.Time); d < 2*past || d > time.Minute {
		s.Fatalf("the store's clock went %v in %v", d, 2*past)
	}
	s.wantErr(s.renewal(brief, long), ticket.ErrLeaseLost)
	s.wantView(s.renew(node, long), []ticket.Incarnation{node}, []ticket.Incarnation{brief})

	// The first call after the end is the ended one's own.
	s.renew(0xb3, short)
	s.Advance(s, past)
	s.wantErr(s.renewal(0xb3, long), ticket.ErrLeaseLost)
	s.wantErr(&ticket.RenewRequest{Incarnation: 0xb4, Lease: long, Number: 9}, ticket.ErrLeaseLost) // never entered
}

func former(s *suite) {
	const second, third ticket.Incarnation = 0xb2, 0xb3
	u := s.subject()
	s.assert(u, node, 3, 1)
	s.renew(node, long)
	s.wantView(s.renew(second, long, node), []ticket.Incarnation{second}, []ticket.Incarnation{node})
	r := s.fresh(u)
	r.Dead = []ticket.Incarnation{node}
	s.wantIssue(r, ticket.IssueOK, 1)
	s.wantErr(s.renewal(node, long), ticket.ErrLeaseLost)
	v := s.renew(third, long, second, node, 0xfff) // one of them unknown here
	s.wantView(v, []ticket.Incarnation{third}, []ticket.Incarnation{node, second, 0xfff})
	late := s.renewal(0xfff, long)
	s.wantErr(late, ticket.ErrLeaseLost)
}

// overtaken: a renewal that is executed after a later one changes nothing.
func overtaken(s *suite) {
	on := []ticket.ShardEpoch{{Epoch: 5}}
	first, second, third := s.renewal(node, time.Minute), s.renewal(node, long), s.renewal(node, long)
	second.Acked, second.Enter, second.Registered = 0, true, on // the first got no answer
	s.do(second)
	s.wantErr(first, ticket.ErrStale)
	s.wantErr(second, ticket.ErrStale)
	first.Number, first.Former = 1, []ticket.Incarnation{0xb2}
	s.wantErr(first, ticket.ErrStale)
	third.Registered, third.Number = on, 1<<53+2 // beyond what Lua's numbers tell apart
	v := s.do(third)
	if len(v.Nodes) != 1 || v.Nodes[0].Left < 59*time.Minute || len(v.Nodes[0].Registered) != 1 || v.Nodes[0].Registered[0].Epoch != 5 {
		s.Fatalf("an overtaken renewal has changed something: %+v", v)
	}
	third.Number--
	s.wantErr(third, ticket.ErrStale)
}

// registered: the list keeps the histories of all shards in order.
func registered(s *suite) {
	const a, b, c ticket.Incarnation = 0xa1, 0xb2, 0xc3
	renew := func(i ticket.Incarnation, old []ticket.Shard, on ...ticket.ShardEpoch) ticket.View {
		s.Helper()
		r := s.renewal(i, long)
		r.Registered = on
		if i == c {
			r.Acked, r.Enter = 0, true
		}
		v := s.do(r)
		if !slices.Equal(v.Old, old) || len(old) > 0 && len(v.Nodes) > 0 {
			s.Fatalf("%x under %+v: %+v, want old %d", i, on, v, old)
		}
		if len(old) > 0 {
			s.renewed[i]-- // nothing was acknowledged
		}
		return v
	}
	at := func(shard ticket.Shard, epoch ticket.Epoch) ticket.ShardEpoch {
		return ticket.ShardEpoch{Shard: shard, Epoch: epoch}
	}
	renew(a, nil, at(0, 10), at(0x3fff, 1<<32-1))
	renew(b, nil, at(0, 10))
	renew(a, nil, at(0, 11), at(0x3fff, 1<<32-1))
	renew(b, []ticket.Shard{0}, at(0, 10))
	renew(c, []ticket.Shard{0, 0x3fff}, at(0, 12), at(0x3fff, 7))
	renew(b, nil, at(0, 11), at(0x3fff, 0))
	renew(a, []ticket.Shard{0}, at(0, 10), at(0x3fff, 1<<32-1)) // it has left that one
	renew(b, nil, at(0, 12))
	renew(a, nil, at(0, 12))
	v := renew(c, nil, at(0, 12), at(0x3fff, 7)) // nobody has the other shard any more
	for _, n := range v.Nodes {
		want := []ticket.ShardEpoch{at(0, 12)}
		if n.Incarnation == c {
			want = append(want, at(0x3fff, 7))
		}
		if !slices.Equal(n.Registered, want) || n.Topology != 1 || n.Name != "gw" {
			s.Errorf("%x is shown as %+v, want %+v", n.Incarnation, n, want)
		}
	}
}

func deadForAnHour(s *suite) {
	s.renew(0xb2, time.Minute)
	s.Advance(s, 2*time.Minute)
	s.wantView(s.renew(node, long), []ticket.Incarnation{node}, []ticket.Incarnation{0xb2})
	s.Advance(s, 58*time.Minute)
	v := s.renew(node, long)
	s.wantView(v, []ticket.Incarnation{node}, []ticket.Incarnation{0xb2})
	if left := v.Nodes[1].Left; left > -57*time.Minute || left < -59*time.Minute {
		s.Errorf("58 minutes after the end was noticed: %v", left)
	}
	s.Advance(s, 3*time.Minute)
	s.wantView(s.renew(node, long), []ticket.Incarnation{node}, nil)
	s.wantErr(s.renewal(0xb2, long), ticket.ErrLeaseLost)
}

// newHistory: in a grace nobody is marked dead and nobody's entry is missed.
func newHistory(s *suite) {
	if s.Turn == nil {
		return // one history for life: what opens it as another is another store
	}
	const a, b ticket.Incarnation = 0xa1, 0xb2
	both := []ticket.Incarnation{a, b}
	s.renew(a, 10*time.Minute)
	s.renew(b, 2*time.Minute)
	spent := s.issued(s.fresh(s.subject()))
	s.Turn(s)
	if old := s.epoch; s.ask().Epoch == old {
		s.Fatal("the epoch is still the same")
	}
	if s.wantRedeem(s.redeemRequest(spent, 1), ticket.RedeemEpoch); s.Model.Durable {
		if v := s.renew(a, 10*time.Minute); !v.Grace {
			s.Fatalf("b has not renewed: %+v", v)
		}
		if v := s.renew(b, 2*time.Minute); v.Grace {
			s.Fatalf("all have renewed, and nothing can have been lost: %+v", v)
		}
		return
	}
	s.renew(b, 2*time.Minute)
	s.Advance(s, 8*time.Minute)
	v := s.renew(a, 10*time.Minute)
	if !v.Grace || v.Again {
		s.Fatalf("%+v, want a grace", v)
	}
	if len(v.Nodes) != 2 || v.Nodes[1].Dead {
		s.Fatalf("%+v: marked dead in a grace", v)
	}
	lost := &ticket.RenewRequest{Incarnation: 0xc3, Lease: 10 * time.Minute, Number: 7, Acked: 6, Registered: []ticket.ShardEpoch{{Epoch: 3}}}
	if v = s.do(lost); !v.Again || !v.Grace || v.Nodes[2].Registered[0].Epoch != 0 {
		s.Fatalf("%+v, want an entry again, which has registered nothing", v)
	}
	s.renew(b, 10*time.Minute) // though its lease had ended
	s.wantView(s.renew(a, 10*time.Minute), append(both, 0xc3), nil)
	s.Advance(s, 8*time.Minute)
	if v = s.renew(a, 10*time.Minute); v.Grace {
		s.Fatalf("%+v: 16 minutes after the turn", v)
	}
	s.wantErr(&ticket.RenewRequest{Incarnation: 0xd4, Lease: time.Minute, Number: 7, Acked: 6}, ticket.ErrLeaseLost)
}

// young: for a lease and 5 s after the first entry, who is missing may hold slots.
func young(s *suite) {
	start := s.Now(s)
	s.renew(0xb2, long)
	if _, err := s.Model.Renew(&ticket.RenewRequest{Incarnation: 0xb2, Lease: long, Number: 1, Enter: true}, start); err != nil {
		s.Fatal(err)
	}
	for i, after := range []time.Duration{0, 61 * time.Second, 60 * time.Second} {
		s.Advance(s, after)
		r := s.renewal(node+ticket.Incarnation(i), time.Minute)
		v := s.do(r)
		want, err := s.Model.Renew(r, s.Now(s))
		if err != nil {
			s.Fatal(err)
		}
		if busy := s.Now(s).Sub(start) >= 65*time.Second; i != 1 || !busy {
			if v.Young != want.Young {
				s.Fatalf("renewal %d: young %v, want %v", i, v.Young, want.Young)
			}
		}
	}
}

func shards(s *suite) {
	if t := s.Store.Topology(); t.ID == 0 || len(t.Shards) != 1 || t.Of(1<<64-1) != t.Shards[0] || int(t.Nodes) != 0 {
		s.Errorf("topology %+v", t)
	}
	if seen, err := s.Store.Ask(s.Context(), 77); !errors.Is(err, ticket.ErrUnavailable) {
		s.Errorf("ask of no shard: %+v, %v", seen, err)
	}
}
