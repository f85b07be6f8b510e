package feed_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/feed"
	"ticketgate/feed/feedtest"
)

// numbered is message n of 100 bytes, which counts 166 while it waits: its header and 64 more.
func numbered(n int) string { return fmt.Sprintf("%-100d", n) }

const counts = 100 + 2 + 64

// story is what a client got, in short: "1 2 gap 3 6 closed 4440".
func story(p *feedtest.Peer) string {
	var words []string
	for _, m := range p.Messages() {
		var n int
		switch {
		case m.Kind == frame.KindClose:
			words = append(words, fmt.Sprint("closed ", m.Code))
		case strings.HasPrefix(m.Text, "{"):
			if _, err := fmt.Sscanf(m.Text, `{"$tg":"gap","missed":%d}`, &n); err != nil {
				n = -1
			}
			words = append(words, fmt.Sprint("gap ", n))
		default:
			words = append(words, strings.TrimRight(m.Text, " "))
		}
	}
	return strings.Join(words, " ")
}

// TestSlowReader: the rule of the stream decides what becomes of a reader for which more than three messages wait.
func TestSlowReader(t *testing.T) {
	const notices = "Sec-WebSocket-Protocol: ticketgate.v1\r\n"
	for _, c := range []struct {
		name   string
		then   feed.Then
		header string
		last   int // message before the client reads again; it was blocked by the first
		want   string
	}{
		{"nothing waits", feed.Close, notices, 1, "1 99"},
		{"all that may wait", feed.Close, notices, 4, "1 2 3 4 99"},
		{"one more: close", feed.Close, notices, 5, "1 closed 4440"},
		{"many more: close", feed.Close, notices, 50, "1 closed 4440"},
		{"all that may wait: drop-oldest", feed.DropOldest, notices, 4, "1 2 3 4 99"},
		{"one more: drop-oldest", feed.DropOldest, notices, 5, "1 gap 1 3 4 5 99"},
		{"many more: drop-oldest", feed.DropOldest, notices, 50, "1 gap 46 48 49 50 99"},
		{"many more: drop-oldest without notices", feed.DropOldest, "", 50, "1 48 49 50 99"},
		{"all that may wait: latest-only", feed.LatestOnly, notices, 4, "1 2 3 4 99"},
		{"one more: latest-only", feed.LatestOnly, notices, 5, "1 gap 3 5 99"},
		{"many more: latest-only", feed.LatestOnly, notices, 50, "1 gap 48 50 99"},
		{"many more: latest-only without notices", feed.LatestOnly, "", 50, "1 50 99"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := feed.NewHub(nil)
			g := feedtest.NewMemory(t, feedtest.Options{Stream: h.Stream(feed.Slow{Queue: 3*counts + 1, Then: c.then})}, h.Bind)
			h.Age(math.MaxUint32 - 3) // numbers wrap around on the way
			slow, other := g.Client(t, c.header), g.Client(t, "")
			slow.Opened()
			other.Opened()
			slow.Window(0)
			for n := 1; n <= c.last; n++ {
				h.PublishText([]byte(numbered(n)))
				if got := story(other); got != fmt.Sprint(n) {
					t.Fatalf("the other reader got %q, want %d", got, n)
				}
			}
			slow.Window(1 << 20)
			g.Memory.Run()
			h.PublishText([]byte(numbered(99)))
			if got := story(slow); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if h.Kept() != 0 {
				t.Errorf("%d messages are kept for nobody", h.Kept())
			}
			count := func(yes bool) uint64 { return map[bool]uint64{true: 1}[yes] }
			s := g.Engine.Stats().Streams[0]
			if s.Slow != count(strings.Contains(c.want, "closed")) || s.Trimmed != count(c.last > 4 && c.then != feed.Close) {
				t.Errorf("counted: %d closed, %d trimmed", s.Slow, s.Trimmed)
			}
		})
	}
}

// TestNewestMayAlwaysWait: a message larger than the queue is still sent.
func TestNewestMayAlwaysWait(t *testing.T) {
	h := feed.NewHub(nil)
	g := feedtest.NewMemory(t, feedtest.Options{Stream: h.Stream(feed.Slow{Queue: 10, Then: feed.DropOldest})}, h.Bind)
	c := g.Client(t, "")
	c.Opened()
	c.Window(0)
	for n := 1; n <= 4; n++ {
		h.PublishText([]byte(numbered(n)))
		g.Memory.Run()
	}
	c.Window(1 << 20)
	if got := story(c); got != "1 4" {
		t.Errorf("got %q, want the first and the last", got)
	}
}

// TestSlowReadersCostLittle: what waits for many is kept once, and goes when nobody waits for it.
func TestSlowReadersCostLittle(t *testing.T) {
	const readers, messages = 50, 2000
	h := feed.NewHub(nil)
	g := feedtest.NewMemory(t, feedtest.Options{Stream: h.Stream(feed.Slow{Queue: 64 << 20, Then: feed.DropOldest})}, h.Bind)
	var clients []*feedtest.Peer
	for range readers {
		c := g.Client(t, "")
		c.Opened()
		c.Window(0)
		clients = append(clients, c)
	}
	for n := range messages {
		h.PublishText([]byte(numbered(n)))
		g.Memory.Run()
	}
	if queued := g.Engine.Stats().Reactor.Queued; queued > readers*1024 {
		t.Errorf("%d bytes are queued for %d readers that have not taken one message", queued, readers)
	}
	if h.Kept() != messages-1 {
		t.Errorf("%d messages are kept, want all but the first", h.Kept())
	}
	clients[0].Window(1000) // it reads on, and no more than 64 KiB and what fills their buffers is queued for it at a time
	clients[0].Messages()
	if queued := g.Engine.Stats().Reactor.Queued; queued > readers*1024+128<<10 {
		t.Errorf("%d bytes are queued when one of them reads on", queued)
	}
	for _, c := range clients[1:] {
		c.Window(1 << 20)
		if got := len(c.Messages()); got != messages {
			t.Errorf("got %d messages, want %d", got, messages)
		}
	}
	clients[0].Reset()
	g.Memory.Run()
	h.PublishText([]byte("x"))
	g.Memory.Run()
	if h.Kept() != 0 || h.Room() > 1<<10 {
		t.Errorf("%d messages are kept and %d have room when nobody is behind", h.Kept(), h.Room())
	}
}

// TestSlowIsNotGone: a reader that takes a little now and then answers no ping in time, because the ping is behind all that it
// has not taken. It stays while it makes progress, and ends 10 s after it has made none.
func TestSlowIsNotGone(t *testing.T) {
	h := feed.NewHub(nil)
	g := feedtest.NewMemory(t, feedtest.Options{Stream: h.Stream(feed.Slow{Queue: 1 << 20, Then: feed.DropOldest})}, h.Bind)
	c := g.Client(t, "")
	c.Opened()
	c.Window(300)
	h.PublishText([]byte(strings.Repeat("x", 5000)))
	g.Memory.Run()
	for at := 4 * time.Second; at <= time.Minute; at += 4 * time.Second {
		if at == 20*time.Second { // all has been taken: now a ping can go out, and the next message waits behind it
			c.Window(1 << 20)
			c.Raw()
			c.Window(300)
			g.Memory.Advance(6 * time.Second)
			h.PublishText([]byte(strings.Repeat("y", 5000)))
		}
		g.Memory.Advance(4 * time.Second)
		c.Read()
		g.Memory.Run()
		if c.Closed() {
			t.Fatalf("closed after %v", at)
		}
	}
	if g.Memory.Advance(8 * time.Second); c.Closed() {
		t.Fatal("closed 8 s after it has taken something")
	}
	if g.Memory.Advance(3 * time.Second); !c.WasReset() {
		t.Error("still there 11 s after it has taken something")
	}
}

// fork is a stream that gives each of its sockets to the next of several, so that one gate has readers of different rules. It
// runs on one loop.
type fork struct {
	streams []*feed.Stream
	next    int
	of      map[reactor.ID]*feed.Stream
}

func (f *fork) Join(c engine.Conn, j *engine.Join) {
	f.of[c.ID()] = f.streams[f.next]
	f.next = (f.next + 1) % len(f.streams)
	f.of[c.ID()].Join(c, j)
}
func (f *fork) Receive(engine.Conn, *frame.Event) {}
func (f *fork) Drained(c engine.Conn)             { f.of[c.ID()].Drained(c) }
func (f *fork) Gone(c engine.Conn, end engine.End) {
	f.of[c.ID()].Gone(c, end)
	delete(f.of, c.ID())
}

// reader is a client of TestRandomReaders and what it must have got.
type reader struct {
	*feedtest.Peer
	rule   feed.Then
	told   bool // has asked for notices
	last   int  // number of the last message it got
	missed int  // told since then
	closed bool
}

// read checks what has arrived: numbers rise, and every jump is told exactly to who asked for it.
func (r *reader) read(t *testing.T) {
	t.Helper()
	for _, m := range r.Messages() {
		var n int
		switch {
		case m.Kind == frame.KindClose:
			if r.rule != feed.Close || m.Code != frame.CloseSlow {
				t.Errorf("rule %d: closed with %d", r.rule, m.Code)
			}
			r.closed = true
		case strings.HasPrefix(m.Text, "{"):
			if _, err := fmt.Sscanf(m.Text, `{"$tg":"gap","missed":%d}`, &n); err != nil || r.rule == feed.Close || !r.told || r.missed != 0 || n < 1 {
				t.Errorf("rule %d: notice %q, %v", r.rule, m.Text, err)
			}
			r.missed = n
		default:
			if _, err := fmt.Sscan(m.Text, &n); err != nil || n <= r.last || (r.rule == feed.Close || r.told) && n != r.last+1+r.missed {
				t.Errorf("rule %d: message %d (%v) behind %d, and %d missed", r.rule, n, err, r.last, r.missed)
			}
			r.last, r.missed = n, 0
		}
	}
}

// TestRandomReaders: readers of three rules come, go, stop and read on at random. Nobody gets a message twice, out of order or
// after an untold gap, all that read have the newest, and nothing is kept that nobody waits for.
func TestRandomReaders(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			h := feed.NewHub(nil)
			f := &fork{of: map[reactor.ID]*feed.Stream{}}
			rules := []feed.Then{feed.Close, feed.DropOldest, feed.LatestOnly, feed.DropOldest}
			for i, then := range rules {
				f.streams = append(f.streams, h.Stream(feed.Slow{Queue: (3 + 5*i) * counts, Then: then}))
			}
			g := feedtest.NewMemory(t, feedtest.Options{Stream: f}, h.Bind)
			readers, joined, n := map[int]*reader{}, 0, 0
			for range 2000 {
				var of []int
				of = slices.AppendSeq(of, maps.Keys(readers))
				slices.Sort(of)
				var r *reader
				if len(of) > 0 {
					r = readers[of[rnd.IntN(len(of))]]
				}
				switch k := rnd.IntN(20); {
				case k < 2 && len(readers) < 20 || r == nil:
					told := rnd.IntN(2) == 0
					header := map[bool]string{true: "Sec-WebSocket-Protocol: ticketgate.v1\r\n"}[told]
					c := g.Client(t, header)
					c.Opened()
					readers[joined] = &reader{Peer: c, rule: rules[joined%len(rules)], told: told, last: n}
					joined++
				case k < 3:
					r.Reset()
					g.Memory.Run()
					maps.DeleteFunc(readers, func(_ int, other *reader) bool { return other == r })
				case k < 6:
					r.Window(rnd.IntN(400))
				case k < 8:
					r.read(t)
				default:
					for range 1 + rnd.IntN(3) { // more than one in a turn of the loop
						n++
						h.PublishText([]byte(numbered(n)))
					}
					g.Memory.Run()
				}
				maps.DeleteFunc(readers, func(_ int, r *reader) bool { return r.closed })
				if most := 3 + 5*(len(rules)-1); h.Kept() > most {
					t.Fatalf("%d messages are kept, at most %d may wait", h.Kept(), most)
				}
			}
			for _, r := range readers {
				r.Window(1 << 20)
				r.read(t)
			}
			n++
			h.PublishText([]byte(numbered(n)))
			for i, r := range readers {
				if r.read(t); r.last != n && !r.closed {
					t.Errorf("reader %d of rule %d has %d as its last message, want %d", i, r.rule, r.last, n)
				}
			}
			if h.Kept() != 0 {
				t.Errorf("%d messages are kept for nobody", h.Kept())
			}
		})
	}
}
