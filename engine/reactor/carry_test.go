package reactor_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"ticketgate/engine/reactor"
)

// A piece is what one Data callback was given, and what ReadsOn said about all of it.
type piece struct {
	n     int
	again bool
}

// reader is a handler of records, a length of four bytes and a body, that leaves what is not whole. It notes the pieces, and
// whether what it has left lies in front of what comes next.
type reader struct {
	script
	pieces []piece
	got    []string
	left   string
}

func newReader(t *testing.T, act func(r *reader, l *reactor.Loop, id reactor.ID)) *reader {
	t.Helper()
	r := &reader{}
	r.data = func(l *reactor.Loop, id reactor.ID, in []byte) (used int) {
		r.pieces = append(r.pieces, piece{len(in), l.ReadsOn(len(in))})
		if !strings.HasPrefix(string(in), r.left) {
			t.Errorf("%d bytes were left, which do not lie in front of the next %d", len(r.left), len(in))
		}
		for len(in)-used >= 4 {
			end := used + 4 + int(binary.BigEndian.Uint32(in[used:]))
			if end > len(in) {
				break
			}
			r.got = append(r.got, string(in[used+4:end]))
			used = end
		}
		r.left = string(in[used:])
		if act != nil {
			act(r, l, id)
		}
		return used
	}
	return r
}

// framed is bodies as records.
func framed(bodies ...string) string {
	var b []byte
	for _, body := range bodies {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(body))), body...)
	}
	return string(b)
}

// filler is n bytes, different ones for each n.
func filler(n int) string { return string(some(seeded(n), n)) }

// everyRead runs test for the ways in which a reading is full that brings first bytes: of a slot in a batch, and of the loop's
// buffer. start makes a crowd of three with LeftoverMax at leftMax(first). The second one is only there to make a batch: say lets
// it send something each time, which h does not see.
func everyRead(t *testing.T, test func(t *testing.T, first int, start func(h *script) *crowd)) {
	t.Helper()
	bothWays(t, func(t *testing.T, single bool) {
		for _, buffer := range []int{1000, 64 << 10} {
			o := reactor.Options{Single: single, ReadBuffer: buffer}
			first := buffer
			if !single {
				first = min(buffer, reactor.SlotBytes)
			}
			o.LeftoverMax = leftMax(first)
			t.Run(fmt.Sprint(first), func(t *testing.T) {
				test(t, first, func(h *script) *crowd { return startCarry(t, o, h) })
			})
		}
	})
}

func leftMax(first int) int { return first/2 + 4 }

func startCarry(t *testing.T, o reactor.Options, h *script) *crowd {
	t.Helper()
	var c *crowd
	data := h.data
	h.data = func(l *reactor.Loop, id reactor.ID, in []byte) int {
		if id == c.ids[1] {
			if string(in) != "x" {
				t.Errorf("the second one sees %s, want x", brief(string(in)))
			}
			return len(in)
		}
		return data(l, id, in)
	}
	c = gather(t, 3, o, h)
	return c
}

// TestCarryMessageCutByAFullReading: what the handler leaves of a full reading lies in front of the next one, which follows at
// once: the message comes whole in the second callback, and nothing is held for it.
func TestCarryMessageCutByAFullReading(t *testing.T) {
	everyRead(t, func(t *testing.T, first int, start func(*script) *crowd) {
		for _, cut := range []int{1, 3, 4, 5, first / 4, first / 2} { // bytes of the second message in the first reading
			held := 0
			var c *crowd
			r := newReader(t, func(_ *reader, l *reactor.Loop, _ reactor.ID) {
				segments, _, _ := c.m.Held()
				held = max(held, segments)
			})
			c = start(&r.script)
			a, b := filler(first-cut-4), filler(first/2)
			c.say(framed(a, b), "x")
			if want := []piece{{first, false}, {4 + len(b), false}}; !slices.Equal(r.pieces, want) {
				t.Errorf("cut at %d: pieces %v, want %v", cut, r.pieces, want)
			}
			if !slices.Equal(r.got, []string{a, b}) || held > 0 {
				t.Errorf("cut at %d: %d messages, or changed; %d segments held", cut, len(r.got), held)
			}
		}
	})
}

// TestCarryReadsOn: ReadsOn tells of a full reading, for as many bytes as there is room in front of the next one, and only while its
// callback is under way.
func TestCarryReadsOn(t *testing.T) {
	everyRead(t, func(t *testing.T, first int, start func(*script) *crowd) {
		var c *crowd
		c = start(&script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			room := leftMax(first)
			c.d.add("%s%d:%v,%v,%v", c.name(id), len(in), l.ReadsOn(1), l.ReadsOn(room), l.ReadsOn(room+1))
			return len(in)
		}})
		c.say(filler(first-1), "x")
		c.d.expect(t, fmt.Sprintf("a%d:false,false,false", first-1))
		c.say("", "x", filler(first))
		c.d.expect(t, fmt.Sprintf("c%d:true,true,false", first))
		run(c.m, func(l *reactor.Loop) {
			if l.ReadsOn(1) {
				t.Error("ReadsOn without a reading")
			}
		})
	})
}

// TestCarryNothingBehind: a full reading by chance. The handler that has left something because another was to follow hears that
// there is none.
func TestCarryNothingBehind(t *testing.T) {
	everyRead(t, func(t *testing.T, first int, start func(*script) *crowd) {
		var c *crowd
		r := newReader(t, nil)
		c = start(&r.script)
		a, b := filler(first-4-10), filler(100)
		c.say(framed(a, b)[:first], "x") // 10 bytes of the second message
		if want := []piece{{first, false}, {10, false}}; !slices.Equal(r.pieces, want) {
			t.Errorf("pieces %v, want %v", r.pieces, want)
		}
		c.say(framed(a, b)[first:], "x")
		if !slices.Equal(r.got, []string{a, b}) {
			t.Errorf("%d messages, want 2", len(r.got))
		}
	})
}

// TestCarryTooMuch: more than LeftoverMax is not carried; it waits for a Rerun or Resume, and reading stops.
func TestCarryTooMuch(t *testing.T) {
	everyRead(t, func(t *testing.T, first int, start func(*script) *crowd) {
		var c *crowd
		keep := true
		c = start(&script{data: func(_ *reactor.Loop, id reactor.ID, in []byte) int {
			if c.d.add("%s%d", c.name(id), len(in)); keep {
				return 1
			}
			return len(in)
		}})
		c.say(filler(2*first), "x")
		c.d.expect(t, fmt.Sprintf("a%d", first))
		keep = false
		run(c.m, func(l *reactor.Loop) { l.Rerun(c.ids[0]) })
		c.d.expect(t, fmt.Sprintf("a%d a%d", first-1, first))
	})
}

// TestCarryStops: a callback that leaves something of a full reading and stops the next one finds it where leftovers are, unless the
// socket has ended.
func TestCarryStops(t *testing.T) {
	tests := map[string]struct {
		act   func(l *reactor.Loop, id reactor.ID)
		again func(l *reactor.Loop, id reactor.ID)
		want  bool // the message comes
	}{
		"pause": {(*reactor.Loop).Pause, (*reactor.Loop).Resume, true},
		"yield": {(*reactor.Loop).Yield, (*reactor.Loop).Disarm, true},
		"rerun": {(*reactor.Loop).Rerun, (*reactor.Loop).Disarm, true},
		"close": {(*reactor.Loop).Close, (*reactor.Loop).Rerun, false},
		"abort": {(*reactor.Loop).Abort, (*reactor.Loop).Rerun, false},
		"panic": {func(*reactor.Loop, reactor.ID) { panic("test") }, (*reactor.Loop).Rerun, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			everyRead(t, func(t *testing.T, first int, start func(*script) *crowd) {
				var c *crowd
				r := newReader(t, func(r *reader, l *reactor.Loop, id reactor.ID) {
					if len(r.pieces) == 1 {
						test.act(l, id)
					}
				})
				c = start(&r.script)
				a, b := filler(first-4-10), filler(100)
				c.say(framed(a, b), "x")
				run(c.m, func(l *reactor.Loop) { test.again(l, c.ids[0]) })
				if got := slices.Equal(r.got, []string{a, b}); got != test.want {
					t.Errorf("both messages came: %v, pieces %v", got, r.pieces)
				}
			})
		})
	}
}

// TestCarryIsNotAnothers: what a socket leaves of a full reading and cannot come back for is in front of nobody's bytes.
func TestCarryIsNotAnothers(t *testing.T) {
	for name, end := range map[string]func(c *crowd, l *reactor.Loop, id reactor.ID, in []byte){
		"close": func(_ *crowd, l *reactor.Loop, id reactor.ID, _ []byte) { l.Close(id) },
		"abort": func(_ *crowd, l *reactor.Loop, id reactor.ID, _ []byte) { l.Abort(id) },
		"gone": func(c *crowd, l *reactor.Loop, id reactor.ID, in []byte) { // the flush before the next reading fails
			c.pipes[0].Close()
			_ = l.Pass(id, in[:min(len(in), 5000)])
		},
	} {
		t.Run(name, func(t *testing.T) {
			everyRead(t, func(t *testing.T, first int, start func(*script) *crowd) {
				var c *crowd
				c = start(&script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
					c.d.add("%s%d", c.name(id), len(in))
					if id == c.ids[0] && len(in) == first {
						end(c, l, id, in)
						return len(in) - 10
					}
					return len(in)
				}})
				c.say(filler(first)+"more", "x", filler(first)+"z")
				if got := c.d.take(); !strings.Contains(got, fmt.Sprintf("c%d", first)) || !strings.Contains(got, "c1") {
					t.Errorf("happened %q", got)
				}
			})
		})
	}
}

// TestCarryThenEnd: behind a full reading lies FIN or RST. What was left of it comes once more before the end is told.
func TestCarryThenEnd(t *testing.T) {
	for name, end := range map[string]func(p *reactor.Pipe){
		"FIN": (*reactor.Pipe).CloseWrite, "FIN and gone": (*reactor.Pipe).Close,
	} {
		t.Run(name, func(t *testing.T) {
			everyRead(t, func(t *testing.T, first int, start func(*script) *crowd) {
				var c *crowd
				c = start(&script{data: func(_ *reactor.Loop, id reactor.ID, in []byte) int {
					c.d.add("%s%d", c.name(id), len(in))
					return len(in) - min(10, len(in))
				}})
				c.pipes[0].Write([]byte(filler(first)))
				end(c.pipes[0])
				c.say("", "x")
				c.d.expect(t, fmt.Sprintf("a%d a10 a-closed:eof:<nil>", first))
				if segments, queues, _ := c.m.Held(); segments+queues != 0 {
					t.Errorf("%d segments and %d queues are held", segments, queues)
				}
			})
		})
	}
}

// TestCarryAnswersOutOfTheBuffer: what is passed on of a full reading is sent before the rest of it is moved and read over.
func TestCarryAnswersOutOfTheBuffer(t *testing.T) {
	everyRead(t, func(t *testing.T, first int, start func(*script) *crowd) {
		var c *crowd
		c = start(&script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			n := len(in) - 7
			if !l.ReadsOn(7) {
				n = len(in)
			}
			if err := l.Pass(c.ids[2], in[:n]); err != nil {
				t.Error(err)
			}
			return n
		}})
		c.pipes[2].Window(1 << 20)
		for _, n := range []int{first, first + 1, 2*first - 3, 2 * first, 3*first + 1} {
			c.say(filler(n), "x")
			if got := string(c.pipes[2].Read()); got != filler(n) {
				t.Errorf("%d bytes: %d come, or changed", n, len(got))
			}
		}
	})
}

// TestCarryIntoAFilter: a filter is set while a full reading is handed on. What the handler leaves of what it decodes is kept.
func TestCarryIntoAFilter(t *testing.T) {
	bothWays(t, func(t *testing.T, single bool) {
		first := reactor.SlotBytes
		if single {
			first = 64 << 10
		}
		var c *crowd
		c = gather(t, 2, reactor.Options{Single: single}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			if strings.HasPrefix(string(in), "hi") {
				l.SetFilter(id, &toy{d: &c.d})
				return 2
			}
			if c.d.add("%s%s", c.name(id), in[max(len(in)-6, 0):]); strings.HasSuffix(string(in), "half") {
				return len(in) - 4
			}
			return len(in)
		}})
		hello := "hi"
		for len(hello) < first-8 {
			hello += string(record(strings.Repeat("z", min(10_000, first-8-len(hello)-2))))
		}
		c.say(hello+string(record("--half")), "x")
		c.say(string(record("whole")), "y")
		if got := c.d.take(); !strings.Contains(got, "a--half") || !strings.Contains(got, "afwhole") {
			t.Errorf("happened %q: what was left in front of the next record is lost", got)
		}
	})
}
