package engine_test

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

// limitAddresses is a change for newRig.
func limitAddresses(t testing.TB, connections string, unauthenticated int, exempt ...netip.Prefix) func(*engine.Options) {
	return func(o *engine.Options) {
		o.Deadlines.Ping = time.Hour
		o.Addresses = limiter.NewAddresses(limiter.AddressOptions{Rate: *rate(t, connections), Unauthenticated: unauthenticated,
			Exempt: exempt}, 1024, [2]uint64{1, 2})
	}
}

// from is the i-th address.
func from(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x0a000000+uint32(i)))), 4711)
}

// connect opens n connections that say nothing and returns them.
func (r *rig) connect(peer netip.AddrPort, n int) []*reactor.Pipe {
	all := make([]*reactor.Pipe, n)
	for i := range all {
		all[i] = r.mem.Connect(peer)
	}
	r.mem.Run()
	return all
}

// stay counts those of all that have not been reset.
func stay(all []*reactor.Pipe) (n int) {
	for _, p := range all {
		if !p.WasReset() {
			n++
		}
	}
	return n
}

func (r *rig) rejected(want map[string]uint64) {
	r.t.Helper()
	if got := r.engine.Stats().Rejected; !maps.Equal(got, want) {
		r.t.Errorf("rejected %v, want %v", got, want)
	}
}

func TestConnectionsOfAnAddress(t *testing.T) {
	r := newRig(t, nil, limitAddresses(t, "2/1second", 100))
	if n := stay(r.connect(from(1), 5)); n != 2 {
		t.Errorf("%d of 5 connections stay, want 2", n)
	}
	if n := stay(r.connect(from(2), 2)); n != 2 {
		t.Errorf("%d of 2 connections of another address stay", n)
	}
	r.mem.Advance(time.Second)
	if n := stay(r.connect(from(1), 5)); n != 2 {
		t.Errorf("a second later %d of 5 stay, want 2", n)
	}
	r.rejected(map[string]uint64{"address-rate": 6})
	if live := r.engine.Stats().Live; live != 6 {
		t.Errorf("%d sockets live, want 6", live)
	}
	r.mem.Advance(20 * time.Second)
	r.rejected(map[string]uint64{"address-rate": 6, "head-timeout": 6})
	r.gone()
}

// TestUnauthenticatedOfAnAddress: a socket counts until it is open, or its descriptor is closed.
func TestUnauthenticatedOfAnAddress(t *testing.T) {
	r := newRig(t, nil, limitAddresses(t, "1000/1second", 2))
	silent := r.connect(somebody, 2)
	if n := stay(r.connect(somebody, 1)); n != 0 {
		t.Error("the third stays")
	}
	silent[0].Close()
	r.mem.Run()
	open := r.open(ticket.Claims{})
	if n := stay(r.connect(somebody, 2)); n != 1 {
		t.Errorf("%d of 2 stay beside an open and a silent one, want 1", n)
	}
	silent[1].Close()
	r.mem.Run()
	refused, answer := r.send("GET / HTTP/1.1\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 400 ") || stay([]*reactor.Pipe{refused}) != 1 {
		t.Fatalf("%q", answer)
	}
	if n := stay(r.connect(somebody, 1)); n != 0 {
		t.Error("one that is refused and not yet gone does not count")
	}
	refused.Close()
	open.Close()
	r.mem.Run()
	if n := stay(r.connect(somebody, 2)); n != 1 {
		t.Errorf("%d of 2 stay beside a silent one, want 1: the open one counted twice, or not at all", n)
	}
	r.rejected(map[string]uint64{"address-unauthenticated": 4, "host": 1})
}

func TestExemptAddress(t *testing.T) {
	r := newRig(t, nil, limitAddresses(t, "1/1second", 1, netip.MustParsePrefix("10.0.0.0/8")))
	if n := stay(r.connect(from(1), 50)); n != 50 {
		t.Errorf("%d of 50 exempt connections stay", n)
	}
	if n := stay(r.connect(somebody, 50)); n != 1 {
		t.Errorf("%d of 50 other connections stay, want 1", n)
	}
	if n := stay(r.connect(netip.AddrPort{}, 50)); n != 50 {
		t.Errorf("%d of 50 connections of a unix socket stay", n)
	}
}

// TestHeadsBusiest: with too many unfinished heads the busiest addresses come down to one level, their oldest first. Who has
// few, and who is open, notices nothing.
func TestHeadsBusiest(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { quiet(o); o.HeadsMax = 512 })
	open := r.open(ticket.Claims{})
	few := r.connect(from(1), 20)
	busy, busier := r.connect(from(2), 100), r.connect(from(3), 200)
	rest := make([]*reactor.Pipe, 0, 192)
	for i := range cap(rest) {
		rest = append(rest, r.connect(from(100+i), 1)...)
	}
	r.rejected(map[string]uint64{})
	rest = append(rest, r.connect(from(99), 1)...) // the 513th, before which 64 go
	if n := stay(busier); n != 200-64 {
		t.Errorf("%d of 200 stay, want 136", n)
	}
	if stay(busier[:64]) != 0 {
		t.Error("it was not the oldest that went")
	}
	for i := range 100 {
		r.connect(from(1000+i), 1)
	}
	if stay(few) != 20 || stay(rest) != len(rest) || open.Closed() {
		t.Errorf("%d of 20, %d of %d single ones stay, open one closed: %v", stay(few), stay(rest), len(rest), open.Closed())
	}
	if a, b := stay(busy), stay(busier); a != 86 || b != 86 {
		t.Errorf("%d of 100 and %d of 200 stay, want 86 of both when 64 more have gone", a, b)
	}
	r.rejected(map[string]uint64{"heads": 2 * 64})
	if got := r.say(open, client(frame.Text, true, "hi")); got != "hi" {
		t.Errorf("the open socket answers %q", got)
	}
}

// TestHeadsOldest: with one head an address it is those who have waited longest.
func TestHeadsOldest(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { quiet(o); o.HeadsMax = 512; o.Loops = 2 })
	var all []*reactor.Pipe
	for i := range 2 * 513 {
		all = append(all, r.connect(from(i), 1)...)
	}
	if n := stay(all); n != 2*(513-64) || stay(all[:128]) != 0 {
		t.Errorf("%d of %d stay, %d of the oldest 128", n, len(all), stay(all[:128]))
	}
}

// TestHeadsFinish: sockets that have come and gone, or were let in, take nothing from the budget.
func TestHeadsFinish(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { quiet(o); o.HeadsMax = 512 })
	silent := r.connect(from(1), 300)
	for range 5000 {
		p, _ := r.send("GET / HTTP/1.1\r\n\r\n")
		p.Close()
		r.mem.Run()
	}
	if n := stay(silent); n != 300 {
		t.Errorf("%d of 300 silent ones stay", n)
	}
	if n := r.engine.Heads(); n > 1000 {
		t.Errorf("%d entries in the list of heads", n)
	}
}

func TestHeadsWhenMemoryIsShort(t *testing.T) {
	short := false
	r := newRig(t, nil, func(o *engine.Options) { quiet(o); o.HeadsMax = 4096; o.Overloaded = func() bool { return short } })
	silent := r.connect(from(1), 4000)
	if stay(silent) != 4000 {
		t.Fatal("there is room for 4,096")
	}
	short = true
	late := r.connect(from(2), 1)
	if n := stay(silent); n != 512-512/8 || stay(late) != 1 {
		t.Errorf("%d stay, want 448, and the newcomer", n)
	}
}

func TestWaterLevel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	over := func(of map[uint64]int, level int) (n int) {
		for _, c := range of {
			n += max(0, c-level)
		}
		return n
	}
	for range 2000 {
		of, sum := map[uint64]int{}, 0
		for i := range 1 + rnd.Uint64N(6) {
			of[i] = 1 + rnd.IntN(9)
			sum += of[i]
		}
		n := 1 + rnd.IntN(sum)
		level := engine.WaterLevel(of, n)
		if over(of, level) < n || over(of, level+1) >= n {
			t.Fatalf("%v, %d to go: level %d leaves %d too many", of, n, level, over(of, level))
		}
	}
}

// TestAdmitsInProgress: redemptions and backends that are waited for are bounded, and what ends them gives the room back.
func TestAdmitsInProgress(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { quiet(o); o.AdmitsMax = 3 })
	r.desk.keep, r.stream.hold = true, true
	one, _ := r.send(head(r.issue(ticket.Claims{Client: "a"})))
	r.send(head(r.issue(ticket.Claims{Client: "b"})))
	r.release() // both wait for their backend
	r.send(head(r.issue(ticket.Claims{Client: "c"})))
	spare := r.issue(ticket.Claims{Client: "d"})
	if _, answer := r.send(head(spare)); !strings.HasPrefix(answer, "HTTP/1.1 503 ") || !strings.Contains(answer, "/problems/overloaded") ||
		!strings.Contains(answer, "Retry-After: ") {
		t.Errorf("the fourth: %q", answer)
	}
	if _, answer := r.send(rawHead("/t/forged")); !strings.HasPrefix(answer, "HTTP/1.1 401 ") {
		t.Errorf("a bad ticket meanwhile: %q", answer)
	}
	one.Close()
	r.mem.Run()
	if _, answer := r.send(head(spare)); answer != "" {
		t.Errorf("after one has left: %q", answer)
	}
	r.release()
	r.rejected(map[string]uint64{"in-progress": 1, "malformed": 1})
}

// TestAdmitRate: what is refused has not been spent, and what is no good ticket takes nothing from the rate.
func TestAdmitRate(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { quiet(o); o.AdmitRate = *rate(t, "2/1second"); o.Loops = 2 })
	for range 10 {
		r.send(rawHead("/t/forged"))
	}
	r.open(ticket.Claims{})
	r.open(ticket.Claims{})
	m := r.issue(ticket.Claims{})
	for range 3 {
		if _, answer := r.send(head(m)); !strings.HasPrefix(answer, "HTTP/1.1 503 ") || !strings.Contains(answer, "/problems/overloaded") {
			t.Errorf("the third: %q", answer)
		}
	}
	r.mem.Advance(time.Second)
	if _, answer := r.send(head(m)); !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
		t.Errorf("a second later: %q", answer)
	}
	r.rejected(map[string]uint64{"admit-rate": 3, "malformed": 10})
}

func TestOverloaded(t *testing.T) {
	short := false
	r := newRig(t, nil, func(o *engine.Options) { quiet(o); o.Overloaded = func() bool { return short } })
	p, m := r.open(ticket.Claims{}), r.issue(ticket.Claims{})
	short = true
	if _, answer := r.send(head(m)); !strings.HasPrefix(answer, "HTTP/1.1 503 ") || !strings.Contains(answer, "Retry-After: ") {
		t.Errorf("a newcomer: %q", answer)
	}
	if got := r.say(p, client(frame.Text, true, "hi")); got != "hi" {
		t.Errorf("a resident: %q", got)
	}
	short = false
	if _, answer := r.send(head(m)); !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
		t.Errorf("when it is over: %q", answer)
	}
	r.rejected(map[string]uint64{"memory": 1})
}

// TestHeadsYieldToTickets: when descriptors run out, who has said nothing for longest makes room for who has a ticket, one for
// one. With nobody left who could, newcomers are refused.
func TestHeadsYieldToTickets(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { quiet(o); o.AdmitConns = 100 })
	silent := r.connect(somebody, 95)
	for i := range 100 {
		if i == 10 {
			if n := stay(silent); n != 95 {
				t.Errorf("%d of 95 silent ones stay within their first second", n)
			}
			r.mem.Advance(1100 * time.Millisecond)
		}
		r.open(ticket.Claims{Client: "c" + itoa(uint16(1+i))})
	}
	if n := stay(silent); n != 5 {
		t.Errorf("%d silent ones stay, want 5", n)
	}
	if _, answer := r.send(rawHead("/t/forged")); !strings.HasPrefix(answer, "HTTP/1.1 401 ") {
		t.Errorf("a bad ticket: %q", answer)
	}
	if _, answer := r.send(head(r.issue(ticket.Claims{}))); !strings.HasPrefix(answer, "HTTP/1.1 503 ") || !strings.Contains(answer, "/problems/overloaded") {
		t.Errorf("a good one when all are open: %q", answer)
	}
	r.rejected(map[string]uint64{"heads": 90, "malformed": 1, "overloaded": 1})
}

// TestRefusedYieldToTickets: who was refused or closed and does not leave gives his descriptor to who has a ticket, before those who may
// yet be let in. A head that took too long is a refusal, too.
func TestRefusedYieldToTickets(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { quiet(o); o.AdmitConns, o.Deadlines.Head = 100, 2*time.Second })
	silent := r.connect(somebody, 5)
	var refused []*reactor.Pipe
	for i := range 3 { // closed in order; they wait for nothing but their client's FIN
		p := r.open(ticket.Claims{Client: "d" + itoa(uint16(1+i))})
		r.say(p, client(frame.Close, true, "\x03\xe8"))
		refused = append(refused, p)
	}
	for range 57 {
		p, answer := r.send(rawHead("/t/forged"))
		if !strings.HasPrefix(answer, "HTTP/1.1 401 ") {
			t.Fatalf("%q", answer)
		}
		refused = append(refused, p)
	}
	late := r.connect(somebody, 30)
	for range 20 {
		r.mem.Advance(105 * time.Millisecond)
		for i := range silent { // those came before: they are to live longer
			silent[i].Close()
			silent[i] = r.connect(somebody, 1)[0]
		}
	}
	r.mem.Advance(1100 * time.Millisecond) // nobody goes before
	for i := range 5 {
		r.open(ticket.Claims{Client: "a" + itoa(uint16(1+i))})
	}
	if n := stay(refused) + stay(late); n != 90 {
		t.Errorf("%d of 90 refused ones stay while there is room", n)
	}
	for i := range 95 {
		r.open(ticket.Claims{Client: "b" + itoa(uint16(1+i))})
		if i == 89 && (stay(refused)+stay(late) != 0 || stay(silent) != 5) {
			t.Errorf("%d refused ones and %d silent ones stay", stay(refused)+stay(late), stay(silent))
		}
	}
	if n := stay(silent); n != 0 {
		t.Errorf("%d silent ones stay", n)
	}
	r.rejected(map[string]uint64{"heads": 5, "malformed": 57, "head-timeout": 30})
}

// TestStrangersMakeWay: with all descriptors in the hands of strangers, connections are accepted in their turn, and who has a
// ticket is let in soon. Nobody goes within his first second, and residents stay.
func TestStrangersMakeWay(t *testing.T) {
	for name, refused := range map[string]func(i int) bool{
		"silent":                func(int) bool { return false },
		"refused":               func(int) bool { return true },
		"both":                  func(i int) bool { return i%2 == 0 },
		"refused behind silent": func(i int) bool { return i >= 116 },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, func(o *engine.Options) {
				quiet(o)
				o.AdmitConns, o.MaxConns, o.Deadlines.Head, o.Deadlines.Admit = 100, 120, time.Hour, time.Hour
			})
			resident := r.open(ticket.Claims{})
			var crowd []*reactor.Pipe
			came := 0
			comes := func(n int) {
				for range n {
					p := r.mem.Connect(from(came))
					if refused(came) {
						p.Write([]byte(rawHead("/t/forged")))
					}
					came++
					crowd = append(crowd, p)
				}
				r.mem.Run()
			}
			comes(1000) // 116 find a place
			r.mem.Advance(900 * time.Millisecond)
			if n := stay(crowd); n != 1000 {
				t.Fatalf("%d of 1,000 stay within their first second", n)
			}
			r.mem.Advance(14 * time.Second) // 14 crowds of 116
			for range 20 {
				comes(5)
				p := r.mem.Connect(somebody)
				p.Write([]byte(head(r.issue(ticket.Claims{Client: "c" + itoa(uint16(1+came))}))))
				r.mem.Advance(2 * time.Second)
				if got := string(p.Read()); !strings.HasPrefix(got, "HTTP/1.1 101 ") {
					t.Fatalf("with %d strangers around: %q", stay(crowd), got)
				}
			}
			if n := r.engine.Stats().Live; n > 120 {
				t.Errorf("%d sockets", n)
			}
			if n := r.engine.Stats().Reactor.Refused[reactor.RefusedFull]; n == 0 {
				t.Error("accepting did not pause: there was room")
			}
			if got := r.say(resident, client(frame.Text, true, "hi")); got != "hi" {
				t.Errorf("the resident answers %q", got)
			}
		})
	}
}

func TestMaxSessions(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { o.MaxSessions = 2 })
	r.open(ticket.Claims{})
	p := r.open(ticket.Claims{})
	m := r.issue(ticket.Claims{})
	over, got := r.send(head(m))
	if !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "/overloaded") || !strings.Contains(got, "Retry-After: ") {
		t.Errorf("the third: %q", got)
	}
	over.CloseWrite()
	p.Reset()
	r.mem.Run()
	if _, got = r.send(head(m)); !strings.HasPrefix(got, "HTTP/1.1 101 ") {
		t.Errorf("the ticket must be unspent, and there is room: %q", got)
	}
}

// TestMaxSessionsIsOfClients: strangers, those refused and those who were turned away with their ticket unspent take no
// client's place.
func TestMaxSessionsIsOfClients(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) {
		quiet(o)
		o.MaxSessions, o.Loops, o.AdmitRate = 3, 2, *rate(t, "4/1second")
	})
	r.connect(somebody, 10)
	for range 10 {
		r.send(rawHead("/t/forged"))
	}
	open := []*reactor.Pipe{r.open(ticket.Claims{}), r.open(ticket.Claims{})}
	m := r.issue(ticket.Claims{})
	spent, _ := r.send(head(m))
	open = append(open, spent)
	r.send(head(m)) // a spent one
	fourth := r.issue(ticket.Claims{})
	for range 10 { // all places are taken
		if _, got := r.send(head(fourth)); !strings.HasPrefix(got, "HTTP/1.1 503 ") {
			t.Fatalf("the fourth: %q", got)
		}
	}
	for _, p := range open {
		r.say(p, client(frame.Close, true, "\x03\xe8"))
		p.Close()
	}
	r.mem.Run()
	if _, got := r.send(head(fourth)); !strings.HasPrefix(got, "HTTP/1.1 101 ") {
		t.Fatalf("the fourth when they have gone: %q", got)
	}
	fifth := r.issue(ticket.Claims{})
	for range 10 { // at the rate
		if _, got := r.send(head(fifth)); !strings.HasPrefix(got, "HTTP/1.1 503 ") {
			t.Fatalf("faster than the rate: %q", got)
		}
	}
	r.mem.Advance(time.Second)
	r.open(ticket.Claims{})
	r.open(ticket.Claims{})
	r.rejected(map[string]uint64{"malformed": 10, "spent": 1, "overloaded": 10, "admit-rate": 10})
}
