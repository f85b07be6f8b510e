package reactor_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"ticketgate/engine/reactor"
	"ticketgate/internal/mono"
)

// bothWays runs test on twins with and without batches: what a handler sees is the same, whatever it costs.
func bothWays(t *testing.T, test func(t *testing.T, single bool)) {
	t.Helper()
	for _, single := range []bool{false, true} {
		t.Run(map[bool]string{false: "batches", true: "single"}[single], func(t *testing.T) { test(t, single) })
	}
}

// A crowd is some sockets on one loop that are ready at the same time, in the order of their numbers.
type crowd struct {
	m     *reactor.Memory
	clock *mono.Manual
	calls *reactor.Calls
	pipes []*reactor.Pipe
	ids   []reactor.ID
	d     diary
}

// gather connects n clients to h, whose open is taken, and more for what is dialed.
func gather(t *testing.T, n int, o reactor.Options, h *script, more ...reactor.Handler) *crowd {
	t.Helper()
	c := &crowd{}
	h.open = func(_ *reactor.Loop, id reactor.ID) { c.ids = append(c.ids, id) }
	if h.closed == nil {
		h.closed = func(_ *reactor.Loop, id reactor.ID, why reactor.Cause, err error) {
			c.d.add("%s-closed:%v:%v", c.name(id), why, err)
		}
	}
	o.Work = work
	c.m, c.clock = twin(t, o, append([]reactor.Handler{h}, more...)...)
	for range n {
		c.pipes = append(c.pipes, c.m.Connect(client))
	}
	c.m.Run()
	c.calls = c.m.Reactor().Observe(0)
	return c
}

// name is a, b, c and so on.
func (c *crowd) name(id reactor.ID) string { return string(rune('a' + slices.Index(c.ids, id))) }

// say sends text from each client, and has the loop serve them at once.
func (c *crowd) say(texts ...string) {
	for i, text := range texts {
		c.pipes[i].Write([]byte(text))
	}
	c.m.Run()
}

// hears checks what has come for a client.
func (c *crowd) hears(t *testing.T, i int, want string) {
	t.Helper()
	if got := string(c.pipes[i].Read()); got != want {
		t.Errorf("client %d gets %s, want %s", i, brief(got), brief(want))
	}
}

func brief(s string) string {
	if len(s) < 100 {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q and so on, %d bytes", s[:50], len(s))
}

// empties reads for a client until nothing more comes.
func (c *crowd) empties(i int) string {
	all := slices.Clone(c.pipes[i].Read())
	for n := -1; n < len(all); {
		n = len(all)
		c.m.Run()
		all = append(all, c.pipes[i].Read()...)
	}
	return string(all)
}

func texts(n int, of func(i int) string) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = of(i)
	}
	return list
}

// TestBatchIsTwoCalls: any number of sockets that are ready at once cost a call for reads and one for writes, up to 32 of them.
func TestBatchIsTwoCalls(t *testing.T) {
	for n, want := range map[int]string{
		1:  "1 read [], 1 wrote []",
		2:  "0 read [2], 0 wrote [2]",
		10: "0 read [10], 0 wrote [10]",
		32: "0 read [32], 0 wrote [32]",
		33: "1 read [32], 1 wrote [32]",
		70: "0 read [32 32 6], 0 wrote [32 32 6]",
	} {
		c := gather(t, n, reactor.Options{}, echo())
		c.say(texts(n, func(i int) string { return fmt.Sprint("hello from ", i) })...)
		k := c.calls
		if got := fmt.Sprintf("%d read %v, %d wrote %v", k.Read, k.ReadMany, k.Write, k.WriteMany); got != want {
			t.Errorf("%d sockets: %s, want %s", n, got, want)
		}
		if s := stats(c.m.Reactor()); s.Reads != uint64(n) || s.Writes != uint64(n) || s.BytesIn != s.BytesOut {
			t.Errorf("%d sockets: %d reads of %d bytes and %d writes of %d are counted", n, s.Reads, s.BytesIn, s.Writes, s.BytesOut)
		}
		for i := range n {
			c.hears(t, i, fmt.Sprint("hello from ", i))
		}
	}
}

// TestSingleMakesNoBatches: with Options.Single each socket has its own calls.
func TestSingleMakesNoBatches(t *testing.T) {
	c := gather(t, 10, reactor.Options{Single: true}, echo())
	c.say(texts(10, func(i int) string { return "x" })...)
	if k := c.calls; k.Read != 10 || k.Write != 10 || len(k.ReadMany)+len(k.WriteMany) != 0 {
		t.Errorf("%+v", k)
	}
	if on, err := c.m.Reactor().Batched(); on || err != nil {
		t.Errorf("batched %v, %v, though nobody wants it", on, err)
	}
}

// TestBatchLeavesOthersOut: who is paused, is blocked, has something left over or has a filter is served by itself, beside a batch.
func TestBatchLeavesOthersOut(t *testing.T) {
	h := echo()
	answer := h.data
	h.data = func(l *reactor.Loop, id reactor.ID, in []byte) int {
		if string(in) == "part" {
			return 0
		}
		return answer(l, id, in)
	}
	c := gather(t, 6, reactor.Options{}, h)
	c.pipes[1].Window(0)
	c.say("", "stuck", "part")
	run(c.m, func(l *reactor.Loop) {
		l.Pause(c.ids[0])
		l.SetFilter(c.ids[3], &still{})
	})
	*c.calls = reactor.Calls{}
	c.say("a", "b", "c", "d", "e", "f")
	if k := c.calls; len(k.ReadMany) != 1 || k.ReadMany[0] != 2 || k.Read != 3 {
		t.Errorf("reads of %v together and %d alone, want [2] and 3", k.ReadMany, k.Read)
	}
	for i, want := range []string{"", "", "partc", "d", "e", "f"} {
		c.hears(t, i, want)
	}
	c.pipes[1].Window(100)
	run(c.m, func(l *reactor.Loop) { l.Resume(c.ids[0]) })
	c.hears(t, 0, "a")
	c.hears(t, 1, "stuckb")
}

// TestBatchWritesOfOthersCallbacks: what one callback writes to many goes out in calls for 32.
func TestBatchWritesOfOthersCallbacks(t *testing.T) {
	c := gather(t, 100, reactor.Options{}, &script{})
	run(c.m, func(l *reactor.Loop) {
		for i, id := range c.ids {
			_ = l.Write(id, fmt.Append(nil, "for ", i))
		}
	})
	if k := c.calls; !slices.Equal(k.WriteMany, []int{32, 32, 32, 4}) || k.Write != 0 {
		t.Errorf("writes to %v together, %d alone", k.WriteMany, k.Write)
	}
	for i := range c.ids {
		c.hears(t, i, fmt.Sprint("for ", i))
	}
}

// TestBatchPutsOffOnlySoMuch: long answers do not wait for the end of the batch, and are not mixed up in the loop's stage.
func TestBatchPutsOffOnlySoMuch(t *testing.T) {
	const piece, pieces = 7001, 16
	h := &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
		for range pieces {
			if err := l.Write(id, bytes.Repeat(in, piece)); err != nil {
				t.Error(err)
			}
		}
		return len(in)
	}}
	c := gather(t, 20, reactor.Options{}, h)
	c.say(strings.Split("abcdefghijklmnopqrst", "")...)
	if k := c.calls; slices.Max(k.WriteMany) != 2 || k.Write != 0 { // a third may not have room for all that it writes
		t.Errorf("answers of %d bytes, written together %v, alone %d; want two and two: the stage has %d bytes",
			pieces*piece, k.WriteMany, k.Write, reactor.StageSize)
	}
	for i := range 20 {
		c.hears(t, i, strings.Repeat(string(rune('a'+i)), pieces*piece))
	}
}

// TestBatchPassesOnlySoMuch: nor do bytes that lie in their slots, of which there is always room for more.
func TestBatchPassesOnlySoMuch(t *testing.T) {
	const n, long = reactor.BatchMax, reactor.SlotBytes - 1
	c := gather(t, n, reactor.Options{}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
		_ = l.Pass(id, in)
		return len(in)
	}})
	c.say(texts(n, func(i int) string { return strings.Repeat(string(rune('A'+i)), long) })...)
	if most := slices.Max(c.calls.WriteMany); most*long > reactor.OffMax+long || most < 10 {
		t.Errorf("up to %d answers of %d bytes are put off, want %d bytes and one answer at most", most, long, reactor.OffMax)
	}
	for i := range n {
		c.hears(t, i, strings.Repeat(string(rune('A'+i)), long))
	}
}

// TestBatchPassesSlots: what sockets pass out of their slots is sent before the slots are used again, by those of the next batch
// or by the loop itself.
func TestBatchPassesSlots(t *testing.T) {
	bothWays(t, func(t *testing.T, single bool) {
		const n = 3*reactor.BatchMax + 5
		var c *crowd
		c = gather(t, n, reactor.Options{Single: single}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			to := c.ids[(slices.Index(c.ids, id)+1)%n]
			if err := l.Pass(to, in); err != nil {
				t.Error(err)
			}
			return len(in)
		}})
		long := func(i int) string { return strings.Repeat(fmt.Sprintf("%05d|", i), 1000) }
		for range 2 {
			c.say(texts(n, long)...)
			for i := range n {
				c.hears(t, i, long((i+n-1)%n))
			}
		}
	})
}

// TestBatchMessageLongerThanASlot comes whole and in order, as if there were no slots. Who has sent one is read by itself until
// it sends something short.
func TestBatchMessageLongerThanASlot(t *testing.T) {
	c := gather(t, 3, reactor.Options{}, echo())
	long := func(n int) string { return string(some(seeded(n), n)) }
	for _, n := range []int{reactor.SlotBytes - 1, reactor.SlotBytes, reactor.SlotBytes + 1, 2*reactor.SlotBytes + 7, 200_000} {
		*c.calls = reactor.Calls{}
		c.say(long(n), "short", long(n+1))
		if want := 3; !slices.Equal(c.calls.ReadMany, []int{want}) {
			t.Errorf("%d bytes: read together %v, want [%d]", n, c.calls.ReadMany, want)
		}
		c.hears(t, 0, long(n))
		c.hears(t, 1, "short")
		c.hears(t, 2, long(n+1))
		c.say("x", "y", "z") // those that were long alone, once
		for i, want := range []string{"x", "y", "z"} {
			c.hears(t, i, want)
		}
	}
	*c.calls = reactor.Calls{}
	c.say("", "short", long(reactor.SlotBytes+1))
	c.say("a", "b", long(reactor.SlotBytes+1))
	if k := c.calls; !slices.Equal(k.ReadMany, []int{2, 2}) || k.Read != 2 {
		t.Errorf("read together %v, %d times alone; want the long one out of the second batch", k.ReadMany, k.Read)
	}
}

// TestBatchEndsOneBehind: a callback ends a socket whose bytes have been read already. They are lost, and it hears Closed once.
func TestBatchEndsOneBehind(t *testing.T) {
	for name, end := range map[string]func(*reactor.Loop, reactor.ID){
		"close": func(l *reactor.Loop, id reactor.ID) { l.Close(id) },
		"abort": func(l *reactor.Loop, id reactor.ID) { l.Abort(id) },
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, single bool) {
				var c *crowd
				c = gather(t, 4, reactor.Options{Single: single}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
					c.d.add("%s:%s", c.name(id), in)
					if string(in) == "end" {
						end(l, c.ids[2])
					}
					return len(in)
				}})
				c.say("1", "end", "3", "4")
				c.pipes[2].Close()
				c.m.Run()
				got := c.d.take()
				want := map[bool]string{true: "a:1 b:end c-closed:local:<nil> d:4", false: "a:1 b:end d:4 c-closed:local:<nil>"}
				if got != want[name == "abort"] {
					t.Errorf("happened %q", got)
				}
				if got := c.pipes[2].WasReset(); got != (name == "abort") {
					t.Errorf("reset: %v", got)
				}
			})
		})
	}
}

// TestBatchNumberChangesHands: while a batch is served, the number of one that is ready as well, in the same batch or the next
// one, becomes another loop's. What the former owner had sent is not the new one's, and the new one is the other loop's to read.
func TestBatchNumberChangesHands(t *testing.T) {
	for _, last := range []int{1, reactor.BatchMax + 3} { // of those on the first loop, who is the victim
		t.Run(fmt.Sprint(last), func(t *testing.T) {
			var c *crowd
			h := &script{closed: func(*reactor.Loop, reactor.ID, reactor.Cause, error) { c.d.add("closed") }}
			h.data = func(l *reactor.Loop, id reactor.ID, in []byte) int {
				switch string(in) {
				case "end":
					l.Abort(c.ids[last])
					l.Rerun(id)
					return 1
				case "nd": // its number is free now
					heir := c.m.Connect(client)
					c.m.Turn(1)
					heir.Write([]byte("new"))
				case "bystander":
				default:
					c.d.add("%s on %d", in, l.Index())
				}
				return len(in)
			}
			n := 2*last + 1 // every other one is on the second loop, as the next one will be
			c = gather(t, n, reactor.Options{Loops: 2}, h)
			c.say(texts(n, func(i int) string {
				return map[int]string{0: "end", n - 1: "secret"}[i] + map[bool]string{true: "bystander"}[i > 0 && i < n-1]
			})...)
			c.d.expect(t, "closed new on 1")
			if victim, heir := c.ids[last], c.ids[n]; heir.Slot() != victim.Slot() || heir.Loop() != 1 || victim.Loop() != 0 {
				t.Errorf("%x has not got the number of %x on another loop", uint64(heir), uint64(victim))
			}
		})
	}
}

// TestBatchNumberIsDialedAtOnce: a callback ends one whose answer is put off and one whose bytes have been read, and dials on
// their numbers. Neither goes to the new owners.
func TestBatchNumberIsDialedAtOnce(t *testing.T) {
	bothWays(t, func(t *testing.T, single bool) {
		var c *crowd
		h := echo()
		answer := h.data
		h.data = func(l *reactor.Loop, id reactor.ID, in []byte) int {
			switch string(in) {
			case "end":
				l.Abort(c.ids[0])
				l.Abort(c.ids[2])
				l.Rerun(id)
				return 1
			case "nd":
				for range 2 {
					dialed, err := l.Dial(1, client, netip.Addr{})
					c.d.add("%s:%v", c.name(c.ids[dialed.Slot()-c.ids[0].Slot()]), err)
				}
				return len(in)
			}
			return answer(l, id, in)
		}
		backend := &script{data: func(_ *reactor.Loop, _ reactor.ID, in []byte) int { c.d.add("backend:%s", in); return len(in) }}
		c = gather(t, 4, reactor.Options{Single: single}, h, backend)
		var servers []*reactor.Pipe
		c.m.OnDial(func(netip.AddrPort) (*reactor.Pipe, error) {
			servers = append(servers, c.m.NewPipe())
			return servers[len(servers)-1], nil
		})
		c.say("secret", "end", "secret", "x")
		c.d.expect(t, "a-closed:local:<nil> c-closed:local:<nil> a:<nil> c:<nil>")
		c.hears(t, 3, "x")
		for i, p := range servers {
			if got := p.Read(); len(got) > 0 {
				t.Errorf("server %d gets %q, which was not written to it", i, got)
			}
			p.Write([]byte("greeting"))
		}
		c.m.Run()
		c.d.expect(t, "backend:greeting backend:greeting")
	})
}

// TestBurstOfOneThatDiesInBury: what a Closed callback writes to another one that it ends as well is nobody's. It must not go to
// the next owner of the number.
func TestBurstOfOneThatDiesInBury(t *testing.T) {
	bothWays(t, func(t *testing.T, single bool) {
		var c *crowd
		h := echo()
		h.closed = func(l *reactor.Loop, id reactor.ID, _ reactor.Cause, _ error) {
			if id == c.ids[0] {
				_ = l.Write(c.ids[1], []byte("secret"))
				l.Abort(c.ids[1])
			}
		}
		c = gather(t, 2, reactor.Options{Single: single}, h)
		c.pipes[0].Close()
		c.m.Run()
		for range 2 {
			c.pipes = append(c.pipes, c.m.Connect(client)) // with the numbers of those two
		}
		c.m.Run()
		c.say("", "", "hello", "hello")
		for i := range 2 {
			c.pipes[2+i].CloseWrite()
			c.m.Run()
			c.hears(t, 2+i, "hello")
		}
	})
}

// TestBatchPausesOneBehind: a callback pauses a socket whose bytes have been read already. They are kept, and come on Resume in
// front of what has come meanwhile.
func TestBatchPausesOneBehind(t *testing.T) {
	for name, o := range map[string]reactor.Options{
		"a little":               {},
		"more than may be left":  {LeftoverMax: 3},
		"a slot that overflows":  {ReadBuffer: 4},
		"both":                   {ReadBuffer: 4, LeftoverMax: 3},
		"batches are turned off": {Single: true},
	} {
		t.Run(name, func(t *testing.T) {
			var c *crowd
			got := map[string]string{}
			c = gather(t, 3, o, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
				got[c.name(id)] += string(in)
				if string(in) == "stop" {
					l.Pause(c.ids[1])
				}
				return len(in)
			}})
			c.say("stop", "abcdefgh", "z")
			c.say("1", "ijkl", "2")
			if got["a"] != "stop1" || got["b"] != "" || got["c"] != "z2" {
				t.Errorf("while one is paused: %v", got)
			}
			run(c.m, func(l *reactor.Loop) { l.Resume(c.ids[1]) })
			c.say("", "mn")
			if got["b"] != "abcdefghijklmn" {
				t.Errorf("after Resume: %v", got)
			}
		})
	}
}

// TestBatchPausesAndResumesOneBehind before it is served, or right behind it.
func TestBatchPausesAndResumesOneBehind(t *testing.T) {
	bothWays(t, func(t *testing.T, single bool) {
		var c *crowd
		c = gather(t, 3, reactor.Options{Single: single}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			c.d.add("%s:%s", c.name(id), in)
			switch string(in) {
			case "stop":
				l.Pause(c.ids[1])
			case "flick":
				l.Pause(c.ids[1])
				l.Resume(c.ids[1])
			case "go":
				l.Resume(c.ids[1])
			}
			return len(in)
		}})
		c.say("flick", "1", "x")
		c.d.expect(t, "a:flick b:1 c:x")
		c.say("stop", "2", "go")
		c.d.expect(t, "a:stop c:go b:2")
	})
}

// TestBatchPausesOneThatCloses: while a socket is paused the loop does not notice that its peer has closed.
func TestBatchPausesOneThatCloses(t *testing.T) {
	bothWays(t, func(t *testing.T, single bool) {
		var c *crowd
		c = gather(t, 3, reactor.Options{Single: single}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			l.Pause(c.ids[1])
			return len(in)
		}})
		c.pipes[1].CloseWrite()
		c.say("stop", "", "x")
		c.d.expect(t, "")
		run(c.m, func(l *reactor.Loop) { l.Resume(c.ids[1]) })
		c.d.expect(t, "b-closed:eof:<nil>")
	})
}

// TestBatchSetsAFilterOnOneBehind: its bytes have been read already, and go through the filter.
func TestBatchSetsAFilterOnOneBehind(t *testing.T) {
	for _, pause := range []bool{false, true} {
		t.Run(fmt.Sprintf("pause=%v", pause), func(t *testing.T) {
			bothWays(t, func(t *testing.T, single bool) {
				var c *crowd
				c = gather(t, 3, reactor.Options{Single: single}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
					c.d.add("%s:%s", c.name(id), in)
					if string(in) == "filter" {
						l.SetFilter(c.ids[1], &toy{d: &c.d})
						if pause {
							l.Pause(c.ids[1])
						}
					}
					return len(in)
				}})
				c.say("filter", string(record("text")), "x")
				run(c.m, func(l *reactor.Loop) { l.Resume(c.ids[1]) })
				got := c.d.take()
				if want := "a:filter b:text c:x"; !pause && got != want {
					t.Errorf("happened %q, want %q", got, want)
				}
				if want := "a:filter c:x b:text"; pause && got != want {
					t.Errorf("happened %q, want %q", got, want)
				}
			})
		})
	}
}

// TestBatchPassesWhatAFilterDecodes: a filter that is set in a batch decodes into the loop's own buffer, not into the slot. What
// is passed out of there is sent before that is used again.
func TestBatchPassesWhatAFilterDecodes(t *testing.T) {
	bothWays(t, func(t *testing.T, single bool) {
		var c *crowd
		c = gather(t, 3, reactor.Options{Single: single}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			switch {
			case bytes.HasPrefix(in, []byte("hi")):
				l.SetFilter(id, &toy{d: &c.d})
				return 2
			case id == c.ids[0]:
				_ = l.Pass(c.ids[2], in)
			}
			return len(in)
		}})
		text := strings.Repeat("text", 2000)
		c.say("hi"+string(record(text)), strings.Repeat("other", reactor.SlotBytes))
		c.hears(t, 2, text)
	})
}

// TestBatchEnds: some sockets of a batch bring FIN or RST instead of bytes, or behind them.
func TestBatchEnds(t *testing.T) {
	bothWays(t, func(t *testing.T, single bool) {
		c := gather(t, 6, reactor.Options{Single: single}, echo())
		c.pipes[1].CloseWrite()
		c.pipes[2].Reset()
		for _, i := range []int{0, 3, 4, 5} {
			c.pipes[i].Write([]byte("hello"))
		}
		c.pipes[3].CloseWrite()
		c.pipes[4].Close()
		c.m.Run()
		for _, i := range []int{0, 3, 5} {
			c.hears(t, i, "hello")
		}
		got := strings.Fields(strings.ReplaceAll(c.d.take(), "reset:connection reset by peer", "reset"))
		slices.Sort(got)
		if want := "b-closed:eof:<nil> c-closed:reset d-closed:eof:<nil> e-closed:reset:broken pipe"; strings.Join(got, " ") != want {
			t.Errorf("happened %q, want %q", got, want)
		}
	})
}

// TestBatchPanics: one callback of a batch panics. The others do not notice.
func TestBatchPanics(t *testing.T) {
	bothWays(t, func(t *testing.T, single bool) {
		h := echo()
		answer := h.data
		h.data = func(l *reactor.Loop, id reactor.ID, in []byte) int {
			answer(l, id, in)
			if string(in) == "boom" {
				panic("test")
			}
			return len(in)
		}
		h.fault = func(l *reactor.Loop, id reactor.ID, _ any) { _ = l.Write(id, []byte(" last word")) }
		c := gather(t, 5, reactor.Options{Single: single}, h)
		c.say("a", "b", "boom", "d", "e")
		for i, want := range []string{"a", "b", "boom last word", "d", "e"} {
			c.hears(t, i, want)
		}
		c.pipes[2].Close()
		c.say("a", "b", "", "d", "e")
		for i, want := range []string{"a", "b", "", "d", "e"} {
			c.hears(t, i, want)
		}
		c.d.expect(t, "c-closed:fault:<nil>")
		if s := stats(c.m.Reactor()); s.Panics != 1 || s.Conns != 4 {
			t.Errorf("%d panics, %d sockets", s.Panics, s.Conns)
		}
	})
}

// TestBatchYields: who yields in a batch gets its turn again behind the others, who asks for a Rerun before them.
func TestBatchYields(t *testing.T) {
	bothWays(t, func(t *testing.T, single bool) {
		var c *crowd
		c = gather(t, 3, reactor.Options{Single: single}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			c.d.add("%s:%s", c.name(id), in)
			switch in[0] {
			case 'y':
				l.Yield(id)
			case 'r':
				l.Rerun(id)
			}
			return 1
		}})
		c.say("y1", "r2", "3")
		c.d.expect(t, "a:y1 b:r2 b:2 c:3 a:1")
	})
}

// TestPassedBytesOutliveADiscard: a socket that asks again and again what it is to pass on is cut short with something unsent.
// A closing one that is served next reads into the loop's buffer.
func TestPassedBytesOutliveADiscard(t *testing.T) {
	bothWays(t, func(t *testing.T, single bool) {
		runs := 0
		text := strings.Repeat("text", 2000)
		h := &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			if in[0] == 'x' {
				l.Close(id)
				return len(in)
			}
			if runs++; runs == 20 {
				return len(in)
			}
			_ = l.Pass(id, in)
			l.Rerun(id)
			return 0
		}}
		c := gather(t, 2, reactor.Options{Single: single}, h)
		c.say("", "x")
		c.say(text, strings.Repeat("other", 5000))
		if got := c.empties(0); got != strings.Repeat(text, 19) {
			t.Errorf("got %s, with %d bytes of another", brief(got), strings.Count(got, "other")*5)
		}
	})
}

// TestBatchAllocations: a batch of echoes allocates nothing.
func TestBatchAllocations(t *testing.T) {
	c := gather(t, 8, reactor.Options{}, echo())
	msg := make([]byte, 500)
	once := func() {
		for _, p := range c.pipes {
			p.Write(msg)
		}
		c.calls.ReadMany, c.calls.WriteMany = c.calls.ReadMany[:0], c.calls.WriteMany[:0]
		c.m.Run()
		for _, p := range c.pipes {
			if len(p.Read()) != len(msg) {
				t.Fatal("no echo")
			}
		}
	}
	once()
	if n := testing.AllocsPerRun(100, once); n != 0 {
		t.Errorf("%v allocations a batch, want 0", n)
	}
}
