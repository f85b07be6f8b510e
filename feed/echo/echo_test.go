package echo_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/feed/echo"
	"ticketgate/feed/feedtest"
	"ticketgate/limiter"
)

func open(t *testing.T, o feedtest.Options) (*feedtest.Gate, *feedtest.Peer) {
	t.Helper()
	o.Stream = echo.Echo{}
	g := feedtest.NewMemory(t, o, nil)
	c := g.Client(t, "")
	c.Opened()
	return g, c
}

func TestEcho(t *testing.T) {
	_, c := open(t, feedtest.Options{})
	for _, n := range []int{0, 1, 125, 126, 0xffff, 64 << 10} {
		text := strings.Repeat("x", n)
		for _, op := range []frame.Op{frame.Text, frame.Binary} {
			c.Frame(true, op, text)
			got := c.Messages()
			if len(got) != 1 || got[0].Op != op || got[0].Text != text {
				t.Errorf("%d bytes of opcode %d came back as %d messages", n, op, len(got))
			}
		}
	}
	c.Frame(false, frame.Text, "gr\xc3")
	c.Frame(true, frame.Continuation, "\xbcn")
	c.Expect(feedtest.Data(frame.Text, "grün", 1))
	c.Frame(false, frame.Binary, "a")
	c.Frame(false, frame.Continuation, "")
	c.Frame(true, frame.Continuation, "")
	c.Expect(feedtest.Data(frame.Binary, "a", 1))
	c.CloseFrame(1000, "")
	c.Expect(feedtest.Closing(1000, ""))
}

// TestBinaryComesBackInParts: what has come of a frame is sent as a frame of its own, so that the engine's ping does not
// fall into the middle of one.
func TestBinaryComesBackInParts(t *testing.T) {
	g, c := open(t, feedtest.Options{})
	g.Memory.Advance(19 * time.Second)
	wire := c.Wire(true, frame.Binary, "abcdef")
	c.Write(wire[:len(wire)-2])
	c.Expect()
	if got := c.Partial().Text; got != "abcd" {
		t.Errorf("%q came back of the first part, want abcd", got)
	}
	g.Memory.Advance(7 * time.Second)
	c.Expect(feedtest.Message{Kind: frame.KindPing})
	c.Write(wire[len(wire)-2:])
	c.Expect(feedtest.Data(frame.Binary, "abcdef", 2))
}

func TestRandomFragments(t *testing.T) {
	_, c := open(t, feedtest.Options{})
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		text := strings.Repeat(string(rune('a'+rnd.IntN(26))), rnd.IntN(50_000))
		var got []feedtest.Message
		for wire := c.Fragmented(rnd, text); len(wire) > 0; {
			n := min(1+rnd.IntN(30_000), len(wire))
			c.Write(wire[:n])
			wire = wire[n:]
			got = append(got, c.Messages()...)
		}
		if len(got) != 1 || got[0].Text != text {
			t.Fatalf("%d bytes came back as %d messages", len(text), len(got))
		}
	}
}

// TestSlowClientIsNotRead: what it does not take it cannot send either, and all comes back once it reads.
func TestSlowClientIsNotRead(t *testing.T) {
	for _, op := range []frame.Op{frame.Text, frame.Binary} {
		g, c := open(t, feedtest.Options{})
		c.Window(0)
		message := strings.Repeat("m", 50_000)
		const n = 30
		for range n {
			c.Frame(true, op, message)
		}
		sent := c.Pending()
		g.Memory.Run()
		if taken := sent - c.Pending(); taken > 300_000 {
			t.Errorf("opcode %d: %d bytes were taken from a client that does not read", op, taken)
		}
		c.Window(1 << 20)
		var back int
		for {
			got := c.Messages()
			if len(got) == 0 {
				break
			}
			back += len(got)
		}
		if back != n {
			t.Errorf("opcode %d: %d messages came back, want %d", op, back, n)
		}
	}
}

// TestLongTextToAFastClient: more than the high-water mark at once is no reason to wait if the client takes it.
func TestLongTextToAFastClient(t *testing.T) {
	_, c := open(t, feedtest.Options{MaxMessage: 200_000})
	c.Window(1 << 20)
	for range 3 {
		text := strings.Repeat("x", 150_000)
		c.Text(text)
		c.Expect(feedtest.Data(frame.Text, text, 1))
	}
}

func TestLimits(t *testing.T) {
	limited := func(name, rate, action string) feedtest.Options {
		r, err := limiter.ParseRate(rate)
		if err != nil {
			t.Fatal(err)
		}
		return feedtest.Options{Limits: map[string]limiter.Options{name: {Rate: &r, WhenExceeded: action}}}
	}
	one, last := feedtest.Data(frame.Text, "one", 1), feedtest.Data(frame.Text, "last", 1)
	fragments := func(c *feedtest.Peer) {
		c.Frame(false, frame.Binary, "two")
		c.Raw()
		c.Frame(true, frame.Continuation, " and more")
	}
	parts := func(c *feedtest.Peer) {
		wire := c.Wire(true, frame.Binary, "two and more")
		c.Write(wire[:9])
		c.Raw()
		c.Write(wire[9:])
	}
	for _, x := range []struct {
		name   string
		limit  feedtest.Options
		middle func(*feedtest.Peer)
		want   []feedtest.Message
	}{
		{"messages, drop", limited("messages-out", "1/1minute", "drop-newest"), fragments, []feedtest.Message{one}},
		{"messages, close", limited("messages-out", "1/1minute", "close"), fragments,
			[]feedtest.Message{one, feedtest.Closing(frame.CloseLimit, "limit:messages-out")}},
		{"bytes, drop one frame", limited("bytes-out", "10/1minute", "drop-newest"), parts, []feedtest.Message{one, last}},
		{"bytes, drop fragments", limited("bytes-out", "10/1minute", "drop-newest"), fragments, []feedtest.Message{one, last}},
	} {
		t.Run(x.name, func(t *testing.T) {
			_, c := open(t, x.limit)
			c.Text("one")
			x.middle(c)
			c.Text("last")
			c.Expect(x.want...)
		})
	}
}

func TestEchoDoesNotAllocate(t *testing.T) {
	g, c := open(t, feedtest.Options{})
	for _, op := range []frame.Op{frame.Text, frame.Binary} {
		wire := c.Wire(true, op, strings.Repeat("x", 512))
		for _, cut := range []int{len(wire), len(wire) / 2} {
			step := func() {
				for _, part := range [][]byte{wire[:cut], wire[cut:]} {
					c.Write(part)
					g.Memory.Run()
					c.Read()
				}
			}
			for range 10 {
				step()
			}
			if n := testing.AllocsPerRun(200, step); n != 0 {
				t.Errorf("opcode %d, cut at %d of %d: %v allocations, want 0", op, cut, len(wire), n)
			}
		}
	}
}

// TestSmallQueue: a part for which there is no room is left out whole, so that the close frame stands between two frames.
func TestSmallQueue(t *testing.T) {
	_, c := open(t, feedtest.Options{Queue: 4 << 10})
	c.Window(0)
	wire := c.Wire(true, frame.Binary, strings.Repeat("x", 20_000))
	for len(wire) > 0 {
		n := min(3000, len(wire))
		c.Write(wire[:n])
		wire = wire[n:]
	}
	c.Window(1 << 20)
	got := c.Messages()
	if len(got) != 1 || got[0] != feedtest.Closing(frame.CloseSlow, "slow-consumer") {
		t.Errorf("%+v", got)
	}
}
