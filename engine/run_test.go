package engine_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

// runner is stream as a Runner.
type runner struct {
	*stream
	runs []int // how many messages each had
}

func (s *runner) ReceiveRun(c engine.Conn, run []frame.Event) {
	s.parts += len(run)
	s.runs = append(s.runs, len(run))
	c.SendRun(run)
}

// newRunRig is newRig with a stream that takes runs.
func newRunRig(t testing.TB, limits map[string]limiter.Options, change func(*engine.Options)) (*rig, *runner) {
	t.Helper()
	plan, problems := limiter.Compile("plan", limits, limiter.Defaults{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	s := &runner{stream: new(stream)}
	r := newRig(t, limits, func(o *engine.Options) {
		rules := &frame.Rules{Role: frame.Server, Opcodes: frame.AllowBoth, MaxMessage: 64 << 10, MaxFragments: 128}
		o.Policy = engine.NewPolicy([]engine.StreamEntry{{Name: "echo", Stream: s, Rules: rules}}, []*limiter.Plan{plan})
		if change != nil {
			change(o)
		}
	})
	r.stream = s.stream
	return r, s
}

// TestRuns: what comes whole in one read is handed over together, up to what is not a whole message.
func TestRuns(t *testing.T) {
	short, long := client(frame.Text, true, "hello"), client(frame.Binary, true, strings.Repeat("x", 5000))
	repeat := func(b []byte, n int) []byte { return bytes.Repeat(b, n) }
	limits := map[string]limiter.Options{"messages-in": {Rate: rate(t, "1000/1second")}, "bytes-out": {Rate: rate(t, "1GiB/1second")}}
	for name, c := range map[string]struct {
		limits map[string]limiter.Options
		wire   []byte
		runs   []int
		heard  int // messages that come back
	}{
		"short":                     {limits, repeat(short, 16), []int{16}, 16},
		"long":                      {limits, repeat(long, 5), []int{5}, 5},
		"mixed":                     {limits, slices.Concat(repeat(short, 3), repeat(long, 2), repeat(short, 2)), []int{7}, 7},
		"more than one run":         {limits, repeat(short, 150), []int{64, 64, 22}, 150},
		"one alone":                 {limits, short, nil, 1},
		"no limits":                 {nil, repeat(short, 4), []int{4}, 4},
		"a ping between":            {limits, slices.Concat(repeat(short, 2), client(frame.Ping, true, "p"), repeat(short, 3)), []int{2, 3}, 6},
		"fragments between":         {limits, slices.Concat(repeat(short, 2), client(frame.Text, false, "a"), client(frame.Continuation, true, "b"), repeat(short, 3)), []int{2}, 6},
		"no UTF-8 at the end":       {limits, slices.Concat(repeat(short, 2), client(frame.Text, true, "\xff")), []int{2}, 3}, // and the close frame
		"the limit would be passed": {map[string]limiter.Options{"messages-in": {Rate: rate(t, "10/1second"), WhenExceeded: "drop-newest"}}, repeat(short, 16), nil, 10},
		"only out would be passed":  {map[string]limiter.Options{"messages-out": {Rate: rate(t, "10/1second"), WhenExceeded: "drop-newest"}}, repeat(short, 16), []int{16}, 10},
	} {
		t.Run(name, func(t *testing.T) {
			r, s := newRunRig(t, c.limits, nil)
			p := r.open(ticket.Claims{})
			p.Window(1 << 20)
			p.Write(c.wire)
			r.mem.Run()
			if got := frames(t, p.Read()); len(got) != c.heard || !slices.Equal(s.runs, c.runs) {
				t.Errorf("%d frames back after runs of %v; want %d, %v", len(got), s.runs, c.heard, c.runs)
			}
		})
	}
}

// TestRunsInASmallQueue: what would not fit into the queue at once does not close a client that takes everything.
func TestRunsInASmallQueue(t *testing.T) {
	r, _ := newRunRig(t, nil, func(o *engine.Options) { o.Queue = 4 << 10 })
	p := r.open(ticket.Claims{})
	p.Window(1 << 20)
	p.Write(bytes.Repeat(client(frame.Text, true, strings.Repeat("x", 1000)), 40))
	r.mem.Run()
	if got := frames(t, p.Read()); len(got) != 40 {
		t.Errorf("%d of 40 messages came back: %.80q", len(got), got)
	}
}

// TestRunsOfCompressedSockets: each message is compressed by itself.
func TestRunsOfCompressedSockets(t *testing.T) {
	r, s := newRunRig(t, nil, func(o *engine.Options) { o.Compression = true })
	p := r.open(ticket.Claims{}, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
	p.Window(1 << 20)
	p.Write(bytes.Repeat(client(frame.Text, true, strings.Repeat("x", 1000)), 4))
	r.mem.Run()
	out := p.Read()
	for i := range 4 {
		h, n, err := frame.Parse(out)
		if err != nil || n == 0 || h.Rsv != frame.RSV1 || h.Len > 100 {
			t.Fatalf("message %d: %+v, %v", i, h, err)
		}
		out = out[n+int(h.Len):]
	}
	if len(out) > 0 || !slices.Equal(s.runs, []int{4}) {
		t.Errorf("%d bytes more, runs %v", len(out), s.runs)
	}
}

// TestRunsChangeNothing: whatever comes, however it is cut and whatever the limits are, a stream that takes runs sees and answers
// what one does that takes message by message. Only of messages that follow in the read in which a limit on what goes out closed
// the socket, more may count as received.
func TestRunsChangeNothing(t *testing.T) {
	actions := []string{"close", "drop-newest", "pause", "warn"}
	for seed := range uint64(150) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		limits := map[string]limiter.Options{}
		for _, name := range []string{"messages-in", "messages-out", "bytes-in", "bytes-out"} {
			if rnd.IntN(2) == 0 {
				continue
			}
			o := limiter.Options{Rate: rate(t, fmt.Sprintf("%d/1second", 1+rnd.IntN(40))), WhenExceeded: actions[rnd.IntN(len(actions))]}
			if strings.HasPrefix(name, "bytes") {
				o.Rate = rate(t, fmt.Sprintf("%d/1second", 1+rnd.IntN(20000)))
			}
			if rnd.IntN(2) == 0 {
				o.Per = limiter.PerClient
			}
			limits[name] = o
		}
		wire := someFrames(rnd, 5+rnd.IntN(60))
		var cuts []int
		for at := 0; at < len(wire); {
			at = min(len(wire), at+1+rnd.IntN(1<<rnd.IntN(16)))
			cuts = append(cuts, at)
		}
		one := newRig(t, limits, nil)
		run, s := newRunRig(t, limits, nil)
		a, b := one.told(wire, cuts), run.told(wire, cuts)
		if len(a.Ends) > 0 && strings.HasSuffix(a.Ends[0].Reason, "-out") {
			for _, t := range []*told{&a, &b} {
				t.Parts, t.Streams, t.Limits = 0, nil, nil
			}
		}
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("seed %d, limits %v:\none by one %+v\nin runs     %+v", seed, slices.Collect(maps.Keys(limits)), a, b)
		}
		if seed == 3 && len(s.runs) == 0 {
			t.Error("there was no run")
		}
	}
}

// told is all that shows of a connection that sends wire.
type told struct {
	Out     []string
	Parts   int
	Ends    []engine.End
	Streams []engine.StreamStats
	Limits  []engine.LimitStats
}

// told sends wire in pieces that end at cuts, some time passing between them.
func (r *rig) told(wire []byte, cuts []int) (got told) {
	p := r.open(ticket.Claims{})
	p.Window(1 << 22)
	at := 0
	for _, end := range cuts {
		p.Write(wire[at:end])
		at = end
		r.mem.Run()
		got.Out = append(got.Out, frames(r.t, p.Read())...)
		r.clock.Advance(20 * time.Millisecond)
		r.mem.Run()
	}
	stats := r.engine.Stats()
	got.Parts, got.Ends, got.Streams, got.Limits = r.stream.parts, r.stream.ends, stats.Streams, stats.Limits
	for i := range got.Streams {
		got.Streams[i].Lasted = got.Streams[0].Lasted
	}
	return got
}

// someFrames are mostly good ones.
func someFrames(rnd *rand.Rand, n int) (wire []byte) {
	text := func() string {
		sizes := []int{0, 1, 5, 30, 125, 126, 900, 4095, 4096, 9000}
		return strings.Repeat("ä", sizes[rnd.IntN(len(sizes))]/2)
	}
	for range n {
		op := frame.Text
		if rnd.IntN(2) == 0 {
			op = frame.Binary
		}
		switch rnd.IntN(30) {
		case 0:
			wire = append(wire, client(frame.Ping, true, "ping")...)
		case 1:
			wire = append(wire, client(op, false, text())...)
			wire = append(wire, client(frame.Continuation, true, text())...)
		case 2:
			wire = append(wire, client(op, false, text())...)
			wire = append(wire, client(frame.Ping, true, "between")...)
			wire = append(wire, client(frame.Continuation, true, text())...)
		case 3:
			if rnd.IntN(6) == 0 {
				wire = append(wire, client(frame.Text, true, text()+"\xc3")...)
			}
		case 4:
			if rnd.IntN(6) == 0 {
				wire = append(wire, client(frame.Close, true, "\x03\xe8bye")...)
			}
		case 5:
			if rnd.IntN(6) == 0 {
				wire = append(wire, 0xc1, 0x80, 0, 0, 0, 0)
			}
		default:
			for range 1 + rnd.IntN(20) {
				wire = append(wire, client(op, true, text())...)
			}
		}
	}
	return wire
}
