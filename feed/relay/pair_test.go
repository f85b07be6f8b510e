package relay_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/feed/feedtest"
	"ticketgate/feed/relay"
	"ticketgate/limiter"
)

// perSide is what relay.go allows one side of a pair to hold with the default limits: queue and leftover.
const perSide = 64<<10 + 128<<10 + 512 + 20<<10

// TestSlowClientStallsTheBackend: what the client does not take stays with the backend, and nothing is lost.
func TestSlowClientStallsTheBackend(t *testing.T) {
	k := newRig(t, options(), feedtest.Options{})
	c, b := k.pair()
	c.Window(0)
	message := strings.Repeat("m", 1000)
	const n = 4000
	for range n {
		b.Text(message)
	}
	sent := b.Pending()
	k.Memory.Run()
	taken := sent - b.Pending()
	if taken > perSide {
		t.Errorf("the gateway took %d bytes for a client that does not read, want at most %d", taken, perSide)
	}
	k.Memory.Advance(5 * time.Second) // less than the reactor's patience with a full queue
	if again := sent - b.Pending(); again != taken {
		t.Errorf("the gateway went on from %d to %d bytes", taken, again)
	}
	c.Window(1 << 20)
	got := c.Messages()
	for len(got) < n {
		more := c.Messages()
		if len(more) == 0 {
			break
		}
		got = append(got, more...)
	}
	if len(got) != n || slices.ContainsFunc(got, func(m feedtest.Message) bool { return m.Text != message }) {
		t.Errorf("client got %d messages when it read again, want %d unchanged", len(got), n)
	}
	k.over(c, b)
}

// TestSlowBackendStallsTheClient is the same the other way round.
func TestSlowBackendStallsTheClient(t *testing.T) {
	for _, op := range []frame.Op{frame.Text, frame.Binary} {
		k := newRig(t, options(), feedtest.Options{})
		c, b := k.pair()
		b.Window(0)
		message := strings.Repeat("m", 60_000)
		const n = 40
		for range n {
			c.Frame(true, op, message)
		}
		sent := c.Pending()
		k.Memory.Run()
		if taken := sent - c.Pending(); taken > perSide {
			t.Errorf("the gateway took %d bytes for a backend that does not read, want at most %d", taken, perSide)
		}
		b.Window(1 << 20)
		got := b.Messages()
		for len(got) < n {
			more := b.Messages()
			if len(more) == 0 {
				break
			}
			got = append(got, more...)
		}
		if len(got) != n || slices.ContainsFunc(got, func(m feedtest.Message) bool { return m.Text != message }) {
			t.Errorf("backend got %d messages when it read again, want %d unchanged", len(got), n)
		}
		k.over(c, b)
	}
}

func TestBackendThatNeverReads(t *testing.T) {
	// For 10 s nothing of what waits has gone.
	k := newRig(t, options(), feedtest.Options{})
	c, b := k.pair()
	b.Window(0)
	c.Text("x")
	k.Memory.Advance(11 * time.Second)
	c.Expect(feedtest.Closing(frame.CloseBackendTimeout, "backend-timeout"))
	k.over(c, b)

	// The queue is full before the client could be stopped: one reading brings more than may wait.
	k = newRig(t, options(), feedtest.Options{Queue: 8 << 10})
	c, b = k.pair()
	b.Window(0)
	for range 20 {
		c.Text(strings.Repeat("m", 1000))
	}
	c.Expect(feedtest.Closing(frame.CloseBackendTimeout, "backend-timeout"))
	k.over(c, b)

	// What all queues may have is full: that is not the backend's fault.
	k = newRig(t, options(), feedtest.Options{NodeQueue: 8 << 10})
	c, b = k.pair()
	b.Window(0)
	c.Text(strings.Repeat("m", 6000))
	k.Memory.Run()
	c.Text(strings.Repeat("m", 6000))
	c.Expect(feedtest.Closing(frame.CloseOverloaded, "overloaded"))
	k.over(c, b)
}

func TestTextLongerThanTheQueue(t *testing.T) {
	const size = 1 << 20
	k := newRig(t, options(func(o *relay.Options) { o.MaxMessage = size }), feedtest.Options{MaxMessage: size})
	c, b := k.pair()
	b.Window(2 << 20)
	long := strings.Repeat("0123456789abcdef", size/16)
	c.Text(long)
	b.Expect(feedtest.Data(frame.Text, long, 1))
	k.over(c, b)
}

// TestLongMessageBehindOthers: one that comes when something waits already has room, in both directions.
func TestLongMessageBehindOthers(t *testing.T) {
	const size = 250 << 10
	k := newRig(t, options(func(o *relay.Options) { o.MaxMessage = size }), feedtest.Options{MaxMessage: size, Queue: engine.QueueFor(4<<10, size)})
	short, long := strings.Repeat("s", 60_000), strings.Repeat("l", size)
	c, b := k.pair()
	b.Window(0)
	c.Text(short)
	c.Text(long)
	k.Memory.Run()
	b.Window(1 << 20)
	b.Expect(feedtest.Data(frame.Text, short, 1), feedtest.Data(frame.Text, long, 1))
	c.Window(0)
	b.Text(short)
	b.Text(long)
	k.Memory.Run()
	c.Window(1 << 20)
	c.Expect(feedtest.Data(frame.Text, short, 1), feedtest.Data(frame.Text, long, 3)) // the backend's come as they arrive
	k.over(c, b)
}

// TestClientThatNeverReads: the backend hears that it went away.
func TestClientThatNeverReads(t *testing.T) {
	k := newRig(t, options(), feedtest.Options{})
	c, b := k.pair()
	c.Window(0)
	b.Text("x")
	k.Memory.Advance(11 * time.Second)
	b.Expect(feedtest.Closing(frame.CloseGoingAway, ""))
	k.over(c, b)
}

func TestBackendsPings(t *testing.T) {
	pong := func(s string) feedtest.Message { return feedtest.Message{Kind: frame.KindPong, Text: s} }
	k := newRig(t, options(), feedtest.Options{})
	c, b := k.pair()
	var want []feedtest.Message
	for i := range 10 {
		b.Frame(true, frame.Ping, fmt.Sprint(i))
		want = append(want, pong(fmt.Sprint(i)))
	}
	b.Frame(true, frame.Pong, "nobody asked")
	b.Expect(want...)
	c.Expect()

	// Between a message's fragments.
	b.Frame(false, frame.Text, "a")
	b.Frame(true, frame.Ping, "")
	b.Frame(true, frame.Continuation, "b")
	b.Expect(pong(""))
	c.Expect(feedtest.Data(frame.Text, "ab", 2))

	// While the client is inside a frame only the latest is answered, behind it.
	c.Write([]byte("\x82\x84\x00\x00\x00\x00wx"))
	k.Memory.Run()
	b.Frame(true, frame.Ping, "first")
	b.Frame(true, frame.Ping, "second")
	b.Expect()
	c.Write([]byte("yz"))
	b.Expect(feedtest.Data(frame.Binary, "wxyz", 1), pong("second"))

	// The client leaves before the end of its frame: nothing is kept for it.
	c.Write([]byte("\x82\x84\x00\x00\x00\x00wx"))
	k.Memory.Run()
	b.Frame(true, frame.Ping, "never answered")
	k.Memory.Run()
	c.Reset()
	k.over(c, b)
}

func TestPingFloodOfABackendThatDoesNotRead(t *testing.T) {
	k := newRig(t, options(), feedtest.Options{})
	c, b := k.pair()
	b.Window(0)
	for range 5000 {
		b.Frame(true, frame.Ping, strings.Repeat("p", 125))
	}
	k.Memory.Run()
	b.Window(1 << 20)
	if got := len(b.Messages()); got == 0 || got > 34 {
		t.Errorf("%d pongs waited for the backend, want 1 to 34: 4 KiB and one more", got)
	}
	b.Frame(true, frame.Ping, "awake")
	b.Expect(feedtest.Message{Kind: frame.KindPong, Text: "awake"})
	k.over(c, b)
}

func limit(name, rate, action string) feedtest.Options {
	r, err := limiter.ParseRate(rate)
	if err != nil {
		panic(err)
	}
	return feedtest.Options{Limits: map[string]limiter.Options{name: {Rate: &r, WhenExceeded: action}}}
}

func TestLimitsOnWhatGoesOut(t *testing.T) {
	send := func(b *feedtest.Peer) {
		b.Text("one")
		b.Frame(false, frame.Binary, "two")
		b.Frame(true, frame.Continuation, "two")
		b.Text("three")
	}
	one, two, three := feedtest.Data(frame.Text, "one", 1), feedtest.Data(frame.Binary, "twotwo", 2), feedtest.Data(frame.Text, "three", 1)
	for _, x := range []struct {
		name  string
		limit feedtest.Options
		want  []feedtest.Message
	}{
		{"messages, drop", limit("messages-out", "1/1minute", "drop-newest"), []feedtest.Message{one}},
		{"messages, close", limit("messages-out", "2/1minute", "close"), []feedtest.Message{one, two, feedtest.Closing(frame.CloseLimit, "limit:messages-out")}},
		{"messages, warn", limit("messages-out", "1/1minute", "warn"), []feedtest.Message{one, two, three}},
		// Dropping by length needs the whole message: it is gathered, and its fragments become one frame.
		{"bytes, drop, enough", limit("bytes-out", "14/1minute", "drop-newest"), []feedtest.Message{one, feedtest.Data(frame.Binary, "twotwo", 1), three}},
		{"bytes, drop, last too much", limit("bytes-out", "10/1minute", "drop-newest"), []feedtest.Message{one, feedtest.Data(frame.Binary, "twotwo", 1)}},
		{"bytes, drop, second too much", limit("bytes-out", "8/1minute", "drop-newest"), []feedtest.Message{one, three}},
		{"bytes, close", limit("bytes-out", "4/1minute", "close"), []feedtest.Message{one, feedtest.Closing(frame.CloseLimit, "limit:bytes-out")}},
	} {
		t.Run(x.name, func(t *testing.T) {
			k := newRig(t, options(), x.limit)
			c, b := k.pair()
			send(b)
			c.Expect(x.want...)
			k.over(c, b)
		})
	}
}

// TestPauseOfWhatGoesOut: a message over the limit passes, and the backend is not read until its debt is paid.
func TestPauseOfWhatGoesOut(t *testing.T) {
	k := newRig(t, options(), limit("messages-out", "1/1second", "pause"))
	c, b := k.pair()
	for i := range 6 {
		b.Text(fmt.Sprint(i))
	}
	c.Expect(feedtest.Data(frame.Text, "0", 1), feedtest.Data(frame.Text, "1", 1))
	b.Text("6") // stays with the backend
	k.Memory.Run()
	if b.Pending() == 0 {
		t.Error("the backend is still read")
	}
	k.Memory.Advance(30 * time.Millisecond) // one tick of the wheel, and some
	for i := 2; i < 7; i++ {
		k.Memory.Advance(900 * time.Millisecond)
		c.Expect()
		k.Memory.Advance(100 * time.Millisecond)
		c.Expect(feedtest.Data(frame.Text, fmt.Sprint(i), 1))
	}
	k.over(c, b)
}

// TestTwoReasonsToWait: the backend is read again when the limit lets it and the client has caught up, whichever is last.
func TestTwoReasonsToWait(t *testing.T) {
	for _, clientFirst := range []bool{true, false} {
		k := newRig(t, options(), limit("messages-out", "1/1second", "pause"))
		c, b := k.pair()
		c.Window(0)
		b.Text(strings.Repeat("x", 40_000))
		k.Memory.Run()
		b.Text(strings.Repeat("y", 40_000)) // over the limit, and now more waits than may
		k.Memory.Run()
		b.Text("last")
		if clientFirst {
			c.Window(1 << 20)
			c.Messages()
		} else {
			k.Memory.Advance(1500 * time.Millisecond)
		}
		k.Memory.Run()
		if b.Pending() == 0 {
			t.Errorf("client first %v: the backend is read though one reason to wait is left", clientFirst)
		}
		k.Memory.Advance(1500 * time.Millisecond)
		c.Window(1 << 20)
		var last feedtest.Message
		for got := c.Messages(); len(got) > 0; got = c.Messages() {
			last = got[len(got)-1]
		}
		if last.Text != "last" {
			t.Errorf("client first %v: the last message has not arrived, but %v", clientFirst, last)
		}
		k.over(c, b)
	}
}

// TestControlFramesStandBetweenFrames: the engine pings a client to whom half of a long frame has gone, and the backend
// dies in the middle of it: what the client gets is frames all the way, and no message.
func TestControlFramesStandBetweenFrames(t *testing.T) {
	k := newRig(t, options(), feedtest.Options{})
	c, b := k.pair()
	b.HalfFrame(frame.Text, strings.Repeat("h", 40_000))
	c.Expect()
	k.Memory.Advance(26 * time.Second)
	c.Expect(feedtest.Message{Kind: frame.KindPing})
	b.Reset()
	c.Expect(feedtest.Closing(frame.CloseBackend, "backend"))
	if got := len(c.Partial().Text); got < 16<<10 || got >= 40_000 {
		t.Errorf("client has %d bytes of the message, want some and not all", got)
	}
	k.over(c, b)
}

func TestLongGatheredMessage(t *testing.T) {
	const size = 200 << 10
	k := newRig(t, options(func(o *relay.Options) { o.MaxMessage = size }), limit("bytes-out", "1000000/1minute", "drop-newest"))
	c, b := k.pair()
	text := strings.Repeat("0123456789abcdef", size/16)
	for i := 0; i < size; i += 10_000 {
		op := frame.Continuation
		if i == 0 {
			op = frame.Text
		}
		b.Frame(i+10_000 >= size, op, text[i:min(i+10_000, size)])
	}
	c.Expect(feedtest.Data(frame.Text, text, 4))
	b.Frame(false, frame.Text, "begun, and never finished")
	c.Expect()
	k.over(c, b)
}

// TestWhoeverEndsFirst: whatever is under way on either side, the end of one side closes the other, and nothing is left.
func TestWhoeverEndsFirst(t *testing.T) {
	for seed := range uint64(40) {
		k := newRig(t, options(), feedtest.Options{})
		rnd := rand.New(rand.NewPCG(seed, 48))
		c, b := k.pair()
		sides := []*feedtest.Peer{c, b}
		for range rnd.IntN(12) {
			disturb(k, rnd, sides[rnd.IntN(2)])
		}
		ended := rnd.IntN(2)
		finish(rnd, sides[ended])
		if rnd.IntN(4) == 0 { // both at once
			finish(rnd, sides[1-ended])
		}
		k.Memory.Advance(20 * time.Second) // more than a stall and a linger
		if !sides[0].Closed() || !sides[1].Closed() {
			t.Errorf("seed %d: side %d ended; client closed %v, backend closed %v", seed, ended, sides[0].Closed(), sides[1].Closed())
		}
		if n := k.relay.Held(64); n != 0 || k.stats().Open != 0 {
			t.Errorf("seed %d: the relay holds %d, %d pairs open", seed, n, k.stats().Open)
		}
		if t.Failed() {
			return
		}
	}
}

// disturb does something that leaves the pair open.
func disturb(k *rig, rnd *rand.Rand, p *feedtest.Peer) {
	switch rnd.IntN(9) {
	case 0:
		p.Text(strings.Repeat("t", rnd.IntN(60_000)))
	case 1:
		p.Frame(true, frame.Binary, strings.Repeat("b", rnd.IntN(60_000)))
	case 2:
		p.Frame(true, frame.Ping, "p")
	case 3:
		p.Window(rnd.IntN(2) * rnd.IntN(1<<20))
	case 4:
		p.Raw()
	case 5:
		for range 8 {
			p.Frame(true, frame.Binary, strings.Repeat("b", 60_000))
		}
	case 6:
		k.Memory.Advance(time.Duration(rnd.IntN(1000)) * time.Millisecond)
	default:
		k.Memory.Run()
	}
}

// finish ends p's side: now, or behind the half of a frame or of a message.
func finish(rnd *rand.Rand, p *feedtest.Peer) {
	switch rnd.IntN(3) {
	case 0:
		p.Frame(false, frame.Binary, "half a message")
	case 1:
		p.HalfFrame(frame.Binary, strings.Repeat("h", 1+rnd.IntN(40_000)))
	}
	switch rnd.IntN(5) {
	case 0:
		p.CloseFrame(1000, "")
		p.CloseWrite()
	case 1:
		p.CloseFrame(4000, "reason")
	case 2:
		p.CloseWrite()
	case 3:
		p.Close()
	case 4:
		p.Reset()
	}
	if rnd.IntN(2) == 0 {
		p.CloseWrite() // behind a half frame a close frame is no close frame
	}
}

// TestRandomTraffic: sizes from 0 to 64 KiB, cut into frames and packets at random, many pairs on two loops: every byte
// arrives where it belongs, in order.
func TestRandomTraffic(t *testing.T) {
	k := newRig(t, options(), feedtest.Options{Loops: 2})
	rnd := rand.New(rand.NewPCG(7, 13))
	const pairs, each = 10, 8
	type way struct {
		from, to *feedtest.Peer
		wire     []byte
		sent     []string
		got      []string
	}
	var ways []*way
	for range pairs {
		c, b := k.pair()
		ways = append(ways, &way{from: c, to: b}, &way{from: b, to: c})
	}
	for i, w := range ways {
		for n := range each {
			text := fmt.Sprintf("%d/%d/", i, n) + strings.Repeat(string(rune('a'+i%26)), rnd.IntN(64<<10-16))
			w.sent = append(w.sent, text)
			w.wire = append(w.wire, w.from.Fragmented(rnd, text)...)
		}
	}
	for left := len(ways); left > 0; {
		w := ways[rnd.IntN(len(ways))]
		if n := min(1+rnd.IntN(20_000), len(w.wire)); n > 0 {
			w.from.Write(w.wire[:n])
			if w.wire = w.wire[n:]; len(w.wire) == 0 {
				left--
			}
		}
		for _, m := range w.to.Messages() {
			w.got = append(w.got, m.Text)
		}
	}
	for i, w := range ways {
		for more := w.to.Messages(); len(more) > 0; more = w.to.Messages() {
			for _, m := range more {
				w.got = append(w.got, m.Text)
			}
		}
		if !slices.Equal(w.got, w.sent) {
			t.Errorf("way %d: %d messages arrived, of %d, or not the same", i, len(w.got), len(w.sent))
		}
	}
}

// TestForwardingDoesNotAllocate: a small frame in either direction, whole and in two packets. Long ones are in
// TestLongFramesDoNotAllocate, on real sockets: the twin copies what goes past the queue.
func TestForwardingDoesNotAllocate(t *testing.T) {
	for _, x := range []struct {
		name   string
		client bool
		cut    bool
	}{
		{"client to backend", true, false}, {"client to backend, in two", true, true},
		{"backend to client", false, false}, {"backend to client, in two", false, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			k := newRig(t, options(), feedtest.Options{})
			c, b := k.pair()
			from, to := c, b
			if !x.client {
				from, to = b, c
			}
			wire := from.Wire(true, frame.Binary, strings.Repeat("x", 512))
			cut := len(wire)
			if x.cut {
				cut = len(wire) / 2
			}
			step := func() {
				for _, part := range [][]byte{wire[:cut], wire[cut:]} {
					from.Write(part)
					k.Memory.Run()
					to.Read()
				}
			}
			for range 10 {
				step() // buffers reach their size
			}
			if n := testing.AllocsPerRun(200, step); n != 0 {
				t.Errorf("%v allocations a frame, want 0", n)
			}
		})
	}
}

func TestStats(t *testing.T) {
	k := newRig(t, options(), feedtest.Options{})
	if s := k.stats(); !s.Up || s.Open != 0 || s.URL != "ws://10.0.0.1:7000/ws?a=b" {
		t.Errorf("before any dial: %+v", s)
	}
	c := k.Client(t, "")
	k.Memory.Advance(time.Second)
	b := k.peers[0]
	b.Answer101("")
	c.Opened()
	s := k.stats()
	if !s.Up || s.Open != 1 || k.dialled("ok") != 1 || s.Dials[0].Seconds.Count() != 1 {
		t.Errorf("with one pair: %+v", s)
	}
	if sum := s.Dials[0].Seconds.Sum(); sum < 0.9 || sum > 1.2 {
		t.Errorf("the dial took %g s, want 1", sum)
	}
	c.CloseFrame(1000, "")
	k.over(c, b)
}
