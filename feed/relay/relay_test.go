package relay_test

import (
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/feed/feedtest"
	"ticketgate/feed/relay"
	"ticketgate/limiter"
)

// A rig is a gate with a relay on the in-memory twin.
type rig struct {
	*feedtest.Gate
	t     testing.TB
	relay *relay.Relay
	dials []string         // addresses, in order
	peers []*feedtest.Peer // backends, in order
	deny  map[string]bool  // addresses that refuse
	hang  map[string]bool  // addresses that never answer
}

func options(change ...func(*relay.Options)) relay.Options {
	o := relay.Options{Name: "pool", Targets: []string{"ws://10.0.0.1:7000/ws?a=b"}, MaxMessage: 64 << 10, MaxFragments: 128, Kind: relay.Kind}
	for _, f := range change {
		f(&o)
	}
	return o
}

func newRig(t testing.TB, o relay.Options, g feedtest.Options, wrap ...func(reactor.Handler) reactor.Handler) *rig {
	t.Helper()
	r, err := relay.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	k := &rig{t: t, relay: r, deny: map[string]bool{}, hang: map[string]bool{}}
	h := r.Handler()
	for _, f := range wrap {
		h = f(h)
	}
	g.Stream, g.Handlers = r, []reactor.Handler{h}
	k.Gate = feedtest.NewMemory(t, g, func(e *engine.Engine) {
		if err := r.Bind(e); err != nil {
			t.Fatal(err)
		}
	})
	k.Memory.OnDial(k.dial)
	return k
}

func (k *rig) dial(to netip.AddrPort) (*reactor.Pipe, error) {
	k.dials = append(k.dials, to.String())
	switch {
	case k.hang[to.String()]:
		return nil, nil
	case k.deny[to.String()]:
		return nil, syscall.ECONNREFUSED
	}
	p := k.Memory.NewPipe()
	k.peers = append(k.peers, feedtest.NewPeer(k.t, k.Memory, p, "backend", false))
	return p, nil
}

// pair opens a client and its backend.
func (k *rig) pair() (c, b *feedtest.Peer) {
	k.t.Helper()
	c = k.Client(k.t, "")
	k.Memory.Run()
	b = k.peers[len(k.peers)-1]
	b.Answer101("")
	c.Opened()
	return c, b
}

// over checks that both sides are closed in time and nothing is held for them.
func (k *rig) over(ps ...*feedtest.Peer) {
	k.t.Helper()
	for _, p := range ps {
		p.Raw()
		p.Close()
	}
	k.Memory.Advance(6 * time.Second) // more than the reactor's linger
	for i, p := range ps {
		if !p.Closed() {
			k.t.Errorf("socket %d is still open", i)
		}
	}
	if n := k.relay.Held(64); n != 0 {
		k.t.Errorf("the relay still holds %d rows and entries", n)
	}
	if open := k.stats().Open; open != 0 {
		k.t.Errorf("%d pairs are counted as open", open)
	}
}

func (k *rig) stats() relay.TargetStats {
	var s relay.Stats
	k.relay.Stats(&s)
	return s.Targets[0]
}

// dialled is how many attempts at the first target ended with result.
func (k *rig) dialled(result string) uint64 {
	for _, d := range k.stats().Dials {
		if d.Result == result {
			return d.Count
		}
	}
	k.t.Fatalf("no result %q", result)
	return 0
}

func TestMessagesPassUnchanged(t *testing.T) {
	k := newRig(t, options(), feedtest.Options{})
	c, b := k.pair()
	long := strings.Repeat("0123456789abcdef", 4<<10) // 64 KiB
	for _, x := range []struct {
		op   frame.Op
		text string
	}{
		{frame.Text, "grüße"}, {frame.Binary, "\x00\xff"}, {frame.Text, ""}, {frame.Binary, ""},
		{frame.Text, strings.Repeat("x", 125)}, {frame.Text, strings.Repeat("x", 126)}, {frame.Binary, long[:0xffff]}, {frame.Binary, long},
		{frame.Text, long},
	} {
		c.Frame(true, x.op, x.text)
		b.Expect(feedtest.Data(x.op, x.text, 1))
		b.Frame(true, x.op, x.text)
		got := c.Messages()
		if len(got) != 1 || got[0].Op != x.op || got[0].Text != x.text {
			t.Errorf("client got %v, want %d bytes of opcode %d", got, len(x.text), x.op)
		}
	}
}

func TestFragments(t *testing.T) {
	k := newRig(t, options(), feedtest.Options{})
	c, b := k.pair()

	// A message from the client goes on when it is whole, as one frame: a later fragment could break a rule.
	for _, op := range []frame.Op{frame.Text, frame.Binary} {
		c.Frame(false, op, "gr\xc3")
		c.Frame(false, frame.Continuation, "")
		b.Expect()
		if got := b.Partial(); got.Text != "" {
			t.Errorf("backend has %q of a message that may still turn out bad", got.Text)
		}
		c.Frame(true, frame.Continuation, "\xbcn")
		b.Expect(feedtest.Data(op, "grün", 1))
	}

	// One from the backend goes on as it comes, even empty frames, even cut inside a character.
	b.Frame(false, frame.Binary, "one")
	b.Frame(false, frame.Continuation, "")
	b.Frame(true, frame.Continuation, "two")
	c.Expect(feedtest.Data(frame.Binary, "onetwo", 3))
	b.Frame(false, frame.Text, "gr\xc3")
	c.Expect()
	if got := c.Partial(); got.Text != "gr\xc3" {
		t.Errorf("client has %q of the unfinished text, want the first frame", got.Text)
	}
	b.Frame(true, frame.Continuation, "\xbcn")
	c.Expect(feedtest.Data(frame.Text, "grün", 2))
}

func TestEveryFrameToTheBackendHasItsOwnMask(t *testing.T) {
	k := newRig(t, options(), feedtest.Options{})
	c, b := k.pair()
	for range 100 {
		c.Frame(true, frame.Binary, "\x00\x00\x00\x00")
	}
	raw := b.Raw()
	seen := map[string]bool{}
	for ; len(raw) > 0; raw = raw[10:] {
		h, n, err := frame.Parse(raw)
		if err != nil || n != 6 || !h.Masked {
			t.Fatalf("frame %+v (%d bytes, %v), want a masked one of 4 bytes", h, n, err)
		}
		seen[string(h.Mask[:])] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d different masks in 100 frames", len(seen))
	}
}

// TestLongFramesAreCutForTheClient: what a backend sends slowly reaches the client in pieces of at least 16 KiB, each a
// whole frame, so that a ping or close frame can always stand between two.
func TestLongFramesAreCutForTheClient(t *testing.T) {
	k := newRig(t, options(func(o *relay.Options) { o.MaxMessage = 1 << 20 }), feedtest.Options{})
	c, b := k.pair()
	text := strings.Repeat("grün und blau. ", 20_000) // 300 KB; its cuts fall inside characters, too
	h := frame.Append(nil, frame.Header{Fin: true, Op: frame.Text, Len: int64(len(text))})
	wire := string(h) + text
	var got []feedtest.Message
	for i := 0; i < len(wire); i += 1001 {
		b.Write([]byte(wire[i:min(i+1001, len(wire))]))
		got = append(got, c.Messages()...)
	}
	if len(got) != 1 || got[0].Op != frame.Text || got[0].Text != text {
		t.Fatalf("client got %v, want the text whole", got)
	}
	if most := len(text)/(16<<10) + 1; got[0].Frames > most {
		t.Errorf("client got the text in %d frames, want at most %d", got[0].Frames, most)
	}
}

// TestDrippingBackend: a frame that comes in small parts is not passed on in them.
func TestDrippingBackend(t *testing.T) {
	k := newRig(t, options(), feedtest.Options{})
	c, b := k.pair()
	text := strings.Repeat("drip", 250)
	wire := b.Wire(true, frame.Text, text)
	b.Write(wire[:500]) // the header comes with some of the payload
	for i := 500; i < len(wire); i++ {
		if i == len(wire)-1 {
			c.Expect()
			if got := c.Partial(); got.Text != "" {
				t.Errorf("client has %d bytes of the unfinished frame", len(got.Text))
			}
		}
		b.Write(wire[i : i+1])
		k.Memory.Run()
	}
	c.Expect(feedtest.Data(frame.Text, text, 1))
}

func TestAHeldBackFrameIsJudgedByItsHeader(t *testing.T) {
	k := newRig(t, options(), feedtest.Options{})
	c, b := k.pair()
	b.Write(frame.Append(nil, frame.Header{Fin: true, Op: frame.Binary, Len: 64<<10 + 1})[:10])
	c.Expect(feedtest.Closing(frame.CloseBackend, "backend"))
	b.Expect(feedtest.Closing(frame.CloseTooBig, ""))
	k.over(c, b)
}

func TestBackendBreaksARule(t *testing.T) {
	for _, x := range []struct {
		name string
		wire string
		code frame.Code // that the backend hears
	}{
		{"masked", "\x81\x81\x01\x02\x03\x04a", frame.CloseProtocol},
		{"reserved bit", "\xc1\x01a", frame.CloseProtocol},
		{"reserved opcode", "\x83\x01a", frame.CloseProtocol},
		{"continuation of nothing", "\x80\x01a", frame.CloseProtocol},
		{"message inside a message", "\x01\x01a\x81\x01b", frame.CloseProtocol},
		{"length not minimal", "\x82\x7e\x00\x01a", frame.CloseProtocol},
		{"length with top bit", "\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", frame.CloseProtocol},
		{"length over the limit", "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x01", frame.CloseTooBig},
		{"text is not UTF-8", "\x81\x01\xff", frame.CloseInvalid},
		{"text ends inside a character", "\x01\x02g\xc3\x80\x01n", frame.CloseInvalid},
		{"fragmented ping", "\x09\x01a", frame.CloseProtocol},
		{"ping of 126 bytes", "\x89\x7e\x00\x7e", frame.CloseProtocol},
		{"close body of one byte", "\x88\x01\x03", frame.CloseProtocol},
		{"close code 1005", "\x88\x02\x03\xed", frame.CloseProtocol},
		{"close code 1006", "\x88\x02\x03\xee", frame.CloseProtocol},
		{"close code 1015", "\x88\x02\x03\xf7", frame.CloseProtocol},
		{"close code 999", "\x88\x02\x03\xe7", frame.CloseProtocol},
		{"close reason is not UTF-8", "\x88\x03\x03\xe8\xff", frame.CloseInvalid},
	} {
		t.Run(x.name, func(t *testing.T) {
			k := newRig(t, options(), feedtest.Options{})
			c, b := k.pair()
			b.Text("before")
			b.Write([]byte(x.wire))
			got := c.Messages()
			want := []feedtest.Message{feedtest.Data(frame.Text, "before", 1), feedtest.Closing(frame.CloseBackend, "backend")}
			if !slices.Equal(got, want) {
				t.Errorf("client got %v, want the message before and 4502", got)
			}
			b.Expect(feedtest.Closing(x.code, ""))
			k.over(c, b)
		})
	}
}

func TestCloseCodesPass(t *testing.T) {
	type closing struct {
		code   frame.Code
		reason string
	}
	table := []closing{{0, ""}, {1000, ""}, {1000, "bye"}, {1001, ""}, {1002, ""}, {1003, "no"}, {1007, ""}, {1008, "policy"}, {1009, ""},
		{1010, ""}, {1011, "oops"}, {1012, "again"}, {1013, "later"}, {1014, ""}, {3000, ""}, {3999, "x"}, {4000, strings.Repeat("r", 123)}, {4999, ""}}
	for _, x := range table {
		k := newRig(t, options(), feedtest.Options{})
		c, b := k.pair()
		c.CloseFrame(x.code, x.reason)
		b.Expect(feedtest.Closing(x.code, x.reason))
		c.Expect(feedtest.Closing(x.code, ""))
		k.over(c, b)

		k = newRig(t, options(), feedtest.Options{})
		c, b = k.pair()
		b.CloseFrame(x.code, x.reason)
		reason := x.reason
		if reason == "" {
			reason = x.code.Reason()
		}
		c.Expect(feedtest.Closing(x.code, reason))
		b.Expect(feedtest.Closing(x.code, ""))
		if ev := <-k.Ended(); ev.By != engine.ByBackend || ev.Code != x.code {
			t.Errorf("ended by %v with %d, want by the backend with %d", ev.By, ev.Code, x.code)
		}
		k.over(c, b)
	}
}

func TestClientLeavesWithoutAWord(t *testing.T) {
	for _, how := range []struct {
		name string
		end  func(c *feedtest.Peer)
	}{
		{"fin", func(c *feedtest.Peer) { c.CloseWrite() }},
		{"reset", func(c *feedtest.Peer) { c.Reset() }},
	} {
		t.Run(how.name, func(t *testing.T) {
			k := newRig(t, options(), feedtest.Options{})
			c, b := k.pair()
			c.Text("last")
			k.Memory.Run()
			how.end(c)
			b.Expect(feedtest.Data(frame.Text, "last", 1), feedtest.Closing(frame.CloseGoingAway, ""))
			k.over(c, b)

			k = newRig(t, options(), feedtest.Options{})
			c, b = k.pair()
			c.Frame(true, frame.Binary, "whole")
			c.Write([]byte("\x82\x84\x00\x00\x00\x00ab")) // half a frame
			k.Memory.Run()
			how.end(c)
			b.Expect(feedtest.Data(frame.Binary, "whole", 1))
			if got := b.Partial(); got.Text != "ab" {
				t.Errorf("backend has %q of the half frame, want ab", got.Text)
			}
			if !b.Closed() || b.WasReset() {
				t.Errorf("backend's socket closed %v, with RST %v: want FIN, which leaves what was sent readable", b.Closed(), b.WasReset())
			}
			k.over(c, b)
		})
	}
}

func TestGatewayClosesTheClient(t *testing.T) {
	rate := limiter.Rate{N: 1, Per: time.Minute}
	k := newRig(t, options(), feedtest.Options{Limits: map[string]limiter.Options{"messages-in": {Rate: &rate}}})
	c, b := k.pair()
	c.Text("one")
	c.Text("two")
	b.Expect(feedtest.Data(frame.Text, "one", 1), feedtest.Closing(frame.CloseGoingAway, "limit:messages-in"))
	c.Expect(feedtest.Closing(frame.CloseLimit, "limit:messages-in"))
	k.over(c, b)
}

func TestBackendLost(t *testing.T) {
	for _, x := range []struct {
		name string
		end  func(b *feedtest.Peer)
	}{
		{"fin", func(b *feedtest.Peer) { b.CloseWrite() }},
		{"reset", func(b *feedtest.Peer) { b.Reset() }},
	} {
		t.Run(x.name, func(t *testing.T) {
			k := newRig(t, options(), feedtest.Options{})
			c, b := k.pair()
			b.Text("last")
			b.Frame(false, frame.Binary, "begun") // and never finished
			k.Memory.Run()
			x.end(b)
			c.Expect(feedtest.Data(frame.Text, "last", 1), feedtest.Closing(frame.CloseBackend, "backend"))
			if got := c.Partial(); got.Text != "begun" {
				t.Errorf("client has %q of the unfinished message, want begun", got.Text)
			}
			if ev := <-k.Ended(); ev.By != engine.ByBackend || ev.Code != frame.CloseBackend {
				t.Errorf("ended by %v with %d, want by the backend with 4502", ev.By, ev.Code)
			}
			k.over(c, b)
		})
	}
}
