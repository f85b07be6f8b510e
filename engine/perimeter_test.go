package engine_test

import (
	"bytes"
	"context"
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
	"ticketgate/internal/mono"
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

// cut lets the one loop of the rig give up bytes.
func (r *rig) cut(bytes int64) (held int64) {
	r.t.Helper()
	r.onLoop(func(*reactor.Loop) { held = r.engine.CutLoop(0, bytes) })
	return held
}

// TestCut: those go that hold most, whether it waits to be sent or has been begun, until it is enough.
func TestCut(t *testing.T) {
	r := newRig(t, nil, quiet)
	slow := func(name string, n int) *reactor.Pipe {
		p := r.open(ticket.Claims{Client: name})
		p.Window(0)
		c := r.stream.joined[len(r.stream.joined)-1]
		r.onLoop(func(*reactor.Loop) { c.Send(frame.Binary, make([]byte, n)) })
		return p
	}
	begun := func(name string, n int) *reactor.Pipe {
		p := r.open(ticket.Claims{Client: name})
		r.say(p, client(frame.Text, false, strings.Repeat("x", n)))
		return p
	}
	idle := r.open(ticket.Claims{Client: "idle"})
	small, large, largest := slow("small", 3<<10), slow("large", 100<<10), slow("largest", 200<<10)
	long, short := begun("long", 60<<10), begun("short", 20<<10)

	if held := r.cut(250 << 10); held != 300<<10+20 { // two frames' heads
		t.Errorf("they held %d bytes, want 300 KiB", held)
	}
	if !largest.WasReset() || !large.WasReset() || long.Closed() || short.Closed() || small.Closed() {
		t.Error("it was not the two largest that went")
	}
	if held := r.cut(1 << 30); held != 88<<10 {
		t.Errorf("they held %d bytes, want 88 KiB", held)
	}
	for _, p := range []*reactor.Pipe{long, short} {
		if got := r.heard(p); got != "close 1013 overloaded" || p.WasReset() {
			t.Errorf("a socket with a message under way heard %q, reset %v", got, p.WasReset())
		}
	}
	if small.Closed() || idle.Closed() {
		t.Error("a socket went that holds next to nothing")
	}
	s := r.engine.Stats()
	if n := s.Ended[engine.Ended{Stream: "echo", Code: frame.CloseOverloaded, By: engine.ByGateway}]; n != 4 || s.Streams[0].Cut != 2 || s.Held != 0 {
		t.Errorf("%d ended with 1013, %d of them slow, %d bytes held; want 4, 2, 0", n, s.Streams[0].Cut, s.Held)
	}
	for _, p := range []*reactor.Pipe{long, short, small, idle} {
		p.Close()
	}
	r.mem.Advance(20 * time.Second)
	r.gone("idle", "small", "large", "largest", "long", "short")
}

// TestCutUnread: what was read of a socket that waits counts as well, and is given back.
func TestCutUnread(t *testing.T) {
	r := newRig(t, nil, quiet)
	r.stream.onReceive = func(c engine.Conn, _ *frame.Event) { c.Pause() }
	waiting := func(name string, n int) *reactor.Pipe {
		p := r.open(ticket.Claims{Client: name})
		r.say(p, append(client(frame.Text, true, "x"), bytes.Repeat(client(frame.Text, true, strings.Repeat("x", 1017)), n)...)) // 1 KiB each
		return p
	}
	short, long, little := waiting("short", 8), waiting("long", 16), waiting("little", 1)
	if held := r.cut(10 << 10); held != 32<<10 {
		t.Errorf("the largest held %d bytes, want a buffer of 32 KiB", held)
	}
	if got := r.heard(long); !strings.HasSuffix(got, "close 1013 overloaded") || strings.Contains(r.heard(short), "close") {
		t.Errorf("the one with most left heard %q", got)
	}
	if held := r.cut(1 << 30); held != 16<<10 {
		t.Errorf("the next held %d bytes, want a buffer of 16 KiB", held)
	}
	if held := r.cut(1 << 30); held != 0 || little.Closed() {
		t.Errorf("%d bytes of nobody", held)
	}
}

// TestRoom: however much the budget would allow, messages under way grow only by what memory has left, until there is more.
func TestRoom(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { quiet(o); o.HoldMax, o.NodeQueue = 1<<20, 1<<20 })
	begun := r.open(ticket.Claims{Client: "begun"})
	r.say(begun, client(frame.Text, false, strings.Repeat("x", 12<<10)))
	r.engine.Room(32 << 10) // half of it: 16 KiB more
	if got := r.say(begun, client(frame.Continuation, false, strings.Repeat("x", 16<<10))); got != "" {
		t.Errorf("within the room: %q", got)
	}
	second := r.open(ticket.Claims{Client: "second"})
	if got := r.say(second, client(frame.Text, false, "x")); got != "close 1013 overloaded" {
		t.Errorf("beyond it: %q", got)
	}
	r.engine.Room(1 << 40)
	if got := r.say(begun, client(frame.Continuation, true, "x")); got != strings.Repeat("x", 28<<10+1) {
		t.Errorf("with more room the message of 28 KiB comes back as %d bytes", len(got))
	}
}

// TestRoomOfQueues: nor do queues grow beyond half of what memory has left, but for a little.
func TestRoomOfQueues(t *testing.T) {
	for _, c := range []struct {
		room int64
		sent int // of messages of 16 KiB
	}{{256 << 10, 8}, {0, 2}} {
		r := newRig(t, nil, func(o *engine.Options) { quiet(o); o.NodeQueue = 1 << 20 })
		r.engine.Room(c.room)
		p := r.open(ticket.Claims{})
		p.Window(0)
		conn, sent := r.stream.joined[0], 0
		for range 12 {
			r.onLoop(func(*reactor.Loop) {
				if conn.Send(frame.Binary, make([]byte, 16<<10-4)).Sent == engine.SentOK {
					sent++
				}
			})
		}
		if sent != c.sent || r.engine.Stats().Streams[0].Slow != 1 {
			t.Errorf("with room for %d bytes %d messages were queued, want %d, and the end", c.room, sent, c.sent)
		}
	}
}

// TestCutOnRealLoops: Cut says what has been given up, and lets who waits go when his time is over.
func TestCutOnRealLoops(t *testing.T) {
	r := newRig(t, nil, nil)
	o := r.options
	o.Clock, o.Assembly = mono.System, time.Hour
	e, err := engine.New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	addr, err := e.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if held := e.Cut(ctx, 1<<20); held != 0 {
		t.Errorf("%d bytes of loops that do not run", held)
	}
	e.Start()
	for i := range 6 {
		c := dial(t, addr.String())
		t.Cleanup(func() { _ = c.Close() })
		_, err := c.Write([]byte(head(r.issue(ticket.Claims{Client: "c" + itoa(uint16(1+i))}))))
		if err != nil {
			t.Fatal(err)
		}
		until(t, func() bool { return e.Stats().Streams[0].Opened == uint64(i)+1 })
		if _, err := c.Write(client(frame.Text, false, strings.Repeat("x", 20<<10))); err != nil {
			t.Fatal(err)
		}
		until(t, func() bool { return e.Stats().Held == int64(i+1)*24<<10 })
	}
	if held := e.Cut(t.Context(), 1<<20); held != 6*24<<10 || e.Stats().Held != 0 {
		t.Errorf("%d bytes given up, %d held; want %d and 0", held, e.Stats().Held, 6*24<<10)
	}
}
