package limiter_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"ticketgate/internal/mono"
	"ticketgate/limiter"
)

// A session is what an engine keeps of one socket, with its loop's counters.
type session struct {
	plan *limiter.Plan
	row  limiter.Row
	tb   *limiter.Table
	ds   []limiter.Decisions
}

func open(t testing.TB, p *limiter.Plan, tb *limiter.Table, client string) *session {
	t.Helper()
	s := &session{plan: p, tb: tb, ds: make([]limiter.Decisions, len(p.Limits()))}
	if err := p.Bind(&s.row, tb, limiter.Who{Client: client, Key: "k-" + client}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *session) message(d limiter.Direction, first bool, bytes int64, now mono.Time) limiter.Verdict {
	v := s.plan.Message(&s.row, s.tb, d, first, bytes, now)
	s.plan.Tally(s.ds, d, first, v)
	return v
}

func (s *session) tallies() string {
	var b strings.Builder
	for _, l := range s.plan.Limits() {
		d := &s.ds[l.Index]
		fmt.Fprintf(&b, " %s=%d/%d/%d", l.Name, d.Allow.Load(), d.Refuse.Load(), d.Soft.Load())
	}
	return strings.TrimSpace(b.String())
}

var words = map[limiter.Action]string{limiter.Pass: "pass", limiter.Warn: "warn", limiter.Pause: "pause", limiter.Drop: "drop", limiter.Close: "close"}

func say(v limiter.Verdict) string {
	s := words[v.Action]
	if v.Limit != nil {
		s += " " + v.Limit.Reason
	}
	switch v.Wait {
	case 0:
	case limiter.Never:
		s += " never"
	default:
		s += " " + v.Wait.String()
	}
	return s
}

// transcripts are told line by line: "who direction bytes", "who direction +bytes" for a frame that continues a message, or
// a time that passes; after the arrow what the limits say. "tally who" shows allow/refuse/soft of each limit.
var transcripts = []struct{ name, limits, story string }{
	{"three a minute close", "messages-in: { rate: 3/1minute, per: client, when_exceeded: close }", `
ann in 10    -> pass
ann in 10    -> pass
ann2 in 10   -> pass
bob in 10    -> pass
ann out 10   -> pass
5s
ann2 in 10   -> close limit:messages-in 15s
ann in +10   -> pass
tally ann    -> messages-in=2/0/0
tally ann2   -> messages-in=1/1/0
14999999999ns
ann in 10    -> close limit:messages-in 1ns
1ns
ann in 10    -> pass`},
	{"five a minute drop", "messages-out: { rate: 5/1minute, burst: 1, per: connection, when_exceeded: drop-newest }", `
ann out 10   -> pass
ann2 out 10  -> pass
ann out 10   -> drop limit:messages-out 12s
ann out 10   -> drop limit:messages-out 12s
12s
ann out 10   -> pass
tally ann    -> messages-out=2/2/0`},
	{"soft", "messages-in: { rate: 1/1minute, hard: false }", `
ann in 10    -> pass
ann in 10    -> warn limit:messages-in 1m0s
ann in 10    -> warn limit:messages-in 1m0s
1m
ann in 10    -> pass
tally ann    -> messages-in=2/0/2`},
	{"pause books the debt", "bytes-in: { rate: 1000/1second, when_exceeded: pause }", `
ann in 1000  -> pass
ann in 500   -> pause limit:bytes-in 500ms
500ms
ann in 1     -> pause limit:bytes-in 1ms
ann in +2000 -> pause limit:bytes-in 2.001s
2001ms
ann in +0    -> pass
1s
ann in 1000  -> pass
tally ann    -> bytes-in=3/3/0`},
	{"a message that never fits", "bytes-in: { rate: 1000/1second }", `
ann in 1001  -> close limit:bytes-in never
ann in 1000  -> pass
ann in 1     -> close limit:bytes-in 1ms`},
	{"all must pass, nothing is taken from one if another refuses", `
messages-in: { rate: 2/1second, when_exceeded: close }
bytes-in:    { rate: 100/1second, per: client, when_exceeded: drop-newest }`, `
ann in 60    -> pass
ann in 60    -> drop limit:bytes-in 200ms
ann in 60    -> drop limit:bytes-in 200ms
ann in 40    -> pass
ann in 10    -> close limit:messages-in 500ms
1s
ann in 100   -> pass
tally ann    -> bytes-in=3/3/0 messages-in=3/1/0`},
	{"the most severe action wins", `
a: { counts: messages-in, rate: 1/1second, hard: false }
b: { counts: messages-in, rate: 2/1second, when_exceeded: pause }
c: { counts: messages-in, rate: 4/1second, when_exceeded: drop-newest }
d: { counts: bytes-in, rate: 1/1hour, burst: 100, when_exceeded: close }`, `
ann in 10    -> pass
ann in 10    -> warn limit:a 1s
ann in 10    -> pause limit:b 500ms
ann in 10    -> pause limit:b 1s
ann in 10    -> drop limit:c 250ms
ann in 61    -> close limit:d 1h0m0s
tally ann    -> a=1/0/3 b=2/2/0 c=4/2/0 d=4/1/0
1s
ann in 10    -> pause limit:b 500ms
tally ann    -> a=2/0/3 b=2/3/0 c=5/2/0 d=5/1/0`},
	{"a refused message leaves milder limits alone", `
a: { counts: messages-in, rate: 1/1second, when_exceeded: drop-newest }
b: { counts: messages-in, rate: 1/1second, hard: false }
c: { counts: messages-in, rate: 1/1second, when_exceeded: close }`, `
ann in 10    -> pass
ann in 10    -> close limit:c 1s
tally ann    -> a=1/1/0 b=1/0/0 c=1/1/0`},
	{"of two pauses the longer", `
a: { counts: messages-in, rate: 1/1second, when_exceeded: pause }
b: { counts: bytes-in, rate: 10/1second, when_exceeded: pause }`, `
ann in 10    -> pass
ann in 20    -> pause limit:b 2s
2s
ann in 1     -> pause limit:b 100ms
ann in 1     -> pause limit:a 1s`},
	{"per key", "messages-in: { rate: 1/1minute, per: key, when_exceeded: close }", `
ann in 1     -> pass
ann2 in 1    -> close limit:messages-in 1m0s
bob in 1     -> pass`},
}

// TestStories plays the transcripts: ann and ann2 are two sockets of one client, on different loops.
func TestStories(t *testing.T) {
	for _, c := range transcripts {
		t.Run(c.name, func(t *testing.T) {
			p := plan(t, c.limits)
			tb, clk := newTable(16)
			who := map[string]*session{}
			for _, name := range []string{"ann", "ann2", "bob"} {
				who[name] = open(t, p, tb, strings.TrimSuffix(name, "2"))
			}
			for line := range strings.Lines(strings.TrimSpace(c.story)) {
				step, want, _ := strings.Cut(strings.TrimSpace(line), "->")
				words := strings.Fields(step)
				if len(words) == 1 {
					d, err := time.ParseDuration(words[0])
					if err != nil {
						t.Fatal(err)
					}
					clk.Advance(d)
					continue
				}
				var got string
				if words[0] == "tally" {
					got = who[words[1]].tallies()
				} else {
					var bytes int64
					if _, err := fmt.Sscan(words[2], &bytes); err != nil {
						t.Fatal(err)
					}
					d := map[string]limiter.Direction{"in": limiter.In, "out": limiter.Out}[words[1]]
					got = say(who[words[0]].message(d, !strings.HasPrefix(words[2], "+"), bytes, clk.Now()))
				}
				if got != strings.TrimSpace(want) {
					t.Errorf("%s-> %s\nwant%s", step, got, want)
				}
			}
		})
	}
}

func TestSees(t *testing.T) {
	for _, c := range []struct {
		limits string
		in     [3]bool
		out    [3]bool
	}{
		{"{}", [3]bool{}, [3]bool{}},
		{"messages-in: { rate: 1/1second, when_exceeded: drop-newest }", [3]bool{true, false, false}, [3]bool{}},
		{"bytes-in: { rate: 1/1second }", [3]bool{false, true, false}, [3]bool{}},
		{"bytes-out: { rate: 1/1second, when_exceeded: drop-newest }", [3]bool{}, [3]bool{false, true, true}},
		{"messages-out: { rate: 1/1second }\nx: { counts: bytes-out, rate: 1/1second, hard: false }", [3]bool{}, [3]bool{true, true, false}},
	} {
		p := plan(t, c.limits)
		for d, want := range map[limiter.Direction][3]bool{limiter.In: c.in, limiter.Out: c.out} {
			if m, b, w := p.Sees(d); [3]bool{m, b, w} != want {
				t.Errorf("%s: Sees(%d) = %v, %v, %v; want %v", c.limits, d, m, b, w, want)
			}
		}
	}
}

func TestBindHoldsAllOrNothing(t *testing.T) {
	p := plan(t, "messages-in: { rate: 1/1minute, per: client }\nmessages-out: { rate: 1/1minute, per: key }\nbytes-in: { rate: 9/1second }")
	tb, clk := newTable(3)
	var a, b limiter.Row
	if err := p.Bind(&a, tb, limiter.Who{Client: "ann", Key: "k1"}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		who  limiter.Who
		want error
	}{
		"no room":   {limiter.Who{Client: "bob", Key: "k2"}, limiter.ErrFull},
		"no client": {limiter.Who{Key: "k1"}, limiter.ErrNoName},
		"no key":    {limiter.Who{Client: "bob"}, limiter.ErrNoName},
	} {
		if err := p.Bind(&b, tb, c.who); !errors.Is(err, c.want) || b != (limiter.Row{}) {
			t.Errorf("%s: %v, row %v; want %v and a zero row", name, err, b, c.want)
		}
	}
	if s := stats(tb); s.Held != 2 {
		t.Errorf("%d buckets held, want ann's 2", s.Held)
	}
	p.Message(&a, tb, limiter.In, true, 9, clk.Now())
	p.Unbind(&a, tb)
	p.Unbind(&a, tb)
	if s := stats(tb); s.Held != 0 || a != (limiter.Row{}) {
		t.Errorf("after Unbind %d buckets are held, row %v", s.Held, a)
	}
	if err := p.Bind(&a, tb, limiter.Who{Client: "ann", Key: "k1"}); err != nil {
		t.Fatal(err)
	}
	if v := p.Message(&a, tb, limiter.In, true, 0, clk.Now()); v.Action != limiter.Close {
		t.Errorf("coming back gives a new burst: %s", say(v))
	}
}

// TestSharedBucketsOfManyLoops: sockets of one client on four loops, under two shared limits. Together they get exactly the
// messages of the tighter one, and of the other no more than those.
func TestSharedBucketsOfManyLoops(t *testing.T) {
	const burst, each = 100_000, 50_000 // long enough for the loops to meet
	p := plan(t, `
messages-in: { rate: 1/1second, burst: 100000, per: client, when_exceeded: drop-newest }
a: { counts: bytes-in, rate: 1/1second, burst: 150000, per: key, when_exceeded: drop-newest }
z: { counts: bytes-in, rate: 1/1second, burst: 150000, per: client, when_exceeded: close }`)
	tb, clk := newTable(4)
	now := clk.Now()
	sessions := make([]*session, 4)
	var wg sync.WaitGroup
	start := make(chan struct{})
	passed := make([]int, len(sessions))
	for g := range sessions {
		s := open(t, p, tb, "ann")
		sessions[g] = s
		wg.Go(func() {
			<-start
			for range each {
				if s.message(limiter.In, true, 1, now).Action < limiter.Drop {
					passed[g]++
				}
			}
		})
	}
	close(start)
	wg.Wait()
	all := 0
	var allow, refuse uint64
	for g, s := range sessions {
		all += passed[g]
		i := limitOf(t, p, "messages-in").Index
		allow += s.ds[i].Allow.Load()
		refuse += s.ds[i].Refuse.Load()
	}
	if all != burst || allow != burst || refuse != 4*each-burst {
		t.Errorf("%d messages went on, counted %d allowed and %d refused; want %d of %d", all, allow, refuse, burst, 4*each)
	}
	for _, name := range []string{"a", "z"} {
		l := limitOf(t, p, name)
		who := map[string]string{"a": "k-ann", "z": "ann"}[name]
		ref, _ := tb.Hold(tb.Key("free/"+name, string(l.Per), who))
		left, _ := l.Meter.Left(tb.At(ref).Load(), now)
		// What a lost race left behind may be missing, never the other way.
		if left > 150_000-burst || left < 150_000-burst-each/100 {
			t.Errorf("limit %s has %d left, want %d", name, left, 150_000-burst)
		}
	}
}

func limitOf(t testing.TB, p *limiter.Plan, name string) limiter.Limit {
	t.Helper()
	for _, l := range p.Limits() {
		if l.Name == name {
			return l
		}
	}
	t.Fatalf("no limit %s", name)
	return limiter.Limit{}
}

// TestPauseHoldsTheRate: a sender ten times too fast that stops when told gets burst + rate*t and one message, no more and
// at least 99 % of it.
func TestPauseHoldsTheRate(t *testing.T) {
	p := plan(t, "messages-in: { rate: 20/1second, burst: 40, when_exceeded: pause }")
	tb, clk := newTable(1)
	s := open(t, p, tb, "ann")
	rnd := rand.New(rand.NewPCG(7, 7))
	start, sent := clk.Now(), 0
	for clk.Now().Sub(start) < time.Minute {
		v := s.message(limiter.In, true, 10, clk.Now())
		sent++
		if v.Action == limiter.Pause {
			clk.Advance(v.Wait)
		}
		clk.Advance(time.Duration(rnd.IntN(int(10 * time.Millisecond))))
	}
	promise := 40 + 20*clk.Now().Sub(start).Seconds()
	if got := float64(sent); got > promise+1 || got < 0.99*promise {
		t.Errorf("%d sent, promised %.1f", sent, promise)
	}
}

// TestDebtEnds: a debt that would last for ever, and one built up by a caller that does not stop, are cut.
func TestDebtEnds(t *testing.T) {
	p := plan(t, "bytes-in: { rate: 1B/52week, when_exceeded: pause }")
	tb, clk := newTable(1)
	s := open(t, p, tb, "ann")
	for _, bytes := range []int64{1, 2, 1 << 62, 1<<63 - 1, 5} {
		if v := s.message(limiter.In, true, bytes, clk.Now()); bytes > 1 && (v.Action != limiter.Pause || v.Wait <= 0 || v.Wait > 5*365*24*time.Hour) {
			t.Errorf("%d bytes: %s", bytes, say(v))
		}
	}
}

func TestMessageDoesNotAllocate(t *testing.T) {
	p := plan(t, `
messages-in: { rate: 1000000/1second, per: client, when_exceeded: drop-newest }
bytes-in: { rate: 1GiB/1second, when_exceeded: pause }
soft: { counts: messages-in, rate: 1/1hour, hard: false }`)
	tb, clk := newTable(4)
	s := open(t, p, tb, "ann")
	if n := testing.AllocsPerRun(1000, func() { s.message(limiter.In, true, 1500, clk.Now()) }); n != 0 {
		t.Errorf("%v allocations a message, want 0", n)
	}
}

func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(limiter.Row{}); n > 64 {
		t.Errorf("a Row has %d bytes, at most 64 fit the session's", n)
	}
	if n := unsafe.Sizeof(limiter.Meter{}); n != 32 {
		t.Errorf("a Meter has %d bytes, want 32: it is passed in registers", n)
	}
}
