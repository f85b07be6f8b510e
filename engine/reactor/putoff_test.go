package reactor_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"ticketgate/engine/reactor"
)

// TestBatchPutOffWrites: what the kernel makes of a write that was put off is no different from one on the spot.
func TestBatchPutOffWrites(t *testing.T) {
	tests := map[string]struct {
		window    int
		gone      bool
		interrupt int
		want      string
		calls     []int // for many
	}{
		"whole":       {window: 100, want: ""},
		"short":       {window: 3, want: "b-drained"},
		"blocked":     {window: 0, want: "b-drained"},
		"gone":        {window: 100, gone: true, want: "b-closed:reset:broken pipe"},
		"interrupted": {window: 100, interrupt: 3, want: ""},
		"both":        {window: 3, interrupt: 3, want: "b-drained"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := echo()
			c := gather(t, 3, reactor.Options{}, h)
			h.drained = func(_ *reactor.Loop, id reactor.ID) { c.d.add("%s-drained", c.name(id)) }
			for i := range 2 { // the first time it has never had a queue
				c.pipes[1].Window(test.window)
				for i := range 3 {
					c.pipes[i].Write([]byte("hello"))
				}
				if test.gone {
					c.pipes[1].Close()
				}
				answer := h.data
				h.data = func(l *reactor.Loop, id reactor.ID, in []byte) int { // when all have been read
					c.calls.Interrupt = test.interrupt
					return answer(l, id, in)
				}
				c.m.Run()
				h.data = answer
				c.hears(t, 0, "hello")
				c.hears(t, 2, "hello")
				first := string(c.pipes[1].Read())
				c.pipes[1].Window(100)
				if got := first + c.empties(1); got != "hello" && !test.gone {
					t.Errorf("got %q", got)
				}
				c.d.expect(t, test.want)
				if test.gone {
					break
				}
				if n := len(c.calls.WriteMany); n != i+1 {
					t.Errorf("%d calls for many, want %d", n, i+1)
				}
			}
			if segments, queues, _ := c.m.Held(); segments+queues != 0 {
				t.Errorf("%d segments and %d queues are held", segments, queues)
			}
		})
	}
}

// TestBatchInterruptedReads are tried again.
func TestBatchInterruptedReads(t *testing.T) {
	c := gather(t, 4, reactor.Options{}, echo())
	c.calls.Interrupt = 2
	c.say("a", "b", "c", "d")
	for i, want := range []string{"a", "b", "c", "d"} {
		c.hears(t, i, want)
	}
	c.d.expect(t, "")
}

// TestBatchWritesBehindWhatIsPutOff: a later callback of the batch writes, in every way there is, to a socket whose answer is put
// off. The answer is first, also where the kernel takes only a piece of it.
func TestBatchWritesBehindWhatIsPutOff(t *testing.T) {
	small, large := []byte("<small>"), bytes.Repeat([]byte("<large>"), 3000)
	write := map[string]func(l *reactor.Loop, id reactor.ID, b []byte) error{
		"Write":     (*reactor.Loop).Write,
		"WriteLast": (*reactor.Loop).WriteLast,
		"Pass":      (*reactor.Loop).Pass,
		"Reserve": func(l *reactor.Loop, id reactor.ID, b []byte) error {
			to, err := l.Reserve(id, len(b))
			copy(to, b)
			return err
		},
		"Flush": func(l *reactor.Loop, id reactor.ID, b []byte) error {
			l.Flush(id)
			err := l.Write(id, b)
			l.Flush(id)
			return err
		},
		"twice": func(l *reactor.Loop, id reactor.ID, b []byte) error {
			return errors.Join(l.Write(id, b[:len(b)/2]), l.Write(id, b[len(b)/2:]))
		},
	}
	for name, write := range write {
		for _, more := range [][]byte{small, large} {
			for _, window := range []int{0, 5, 1 << 20} {
				t.Run(fmt.Sprintf("%s %d window %d", name, len(more), window), func(t *testing.T) {
					c := behind(t, window, func(l *reactor.Loop, id reactor.ID, in []byte) error { return write(l, id, in) }, more)
					if got, want := c.empties(0), "an answer"+string(more); got != want {
						t.Errorf("got %s, want %s", brief(got), brief(want))
					}
					c.hears(t, 1, "another")
					c.hears(t, 3, "one more")
				})
			}
		}
	}
}

// behind has the third of a batch of four write more to the first, whose answer is put off.
func behind(t *testing.T, window int, write func(*reactor.Loop, reactor.ID, []byte) error, more []byte) *crowd {
	t.Helper()
	var c *crowd
	h := echo()
	answer := h.data
	h.data = func(l *reactor.Loop, id reactor.ID, in []byte) int {
		if id != c.ids[2] {
			return answer(l, id, in)
		}
		if err := write(l, c.ids[0], in); err != nil {
			t.Error(err)
		}
		return len(in)
	}
	c = gather(t, 4, reactor.Options{ReadBuffer: 64 << 10}, h)
	c.pipes[0].Window(window)
	c.say("an answer", "another", string(more), "one more")
	c.pipes[0].Window(1 << 20)
	return c
}

// TestBatchSetsAFilterBehindWhatIsPutOff: what was written before goes out as it is, in front of what the filter makes, and of
// what it says by itself.
func TestBatchSetsAFilterBehindWhatIsPutOff(t *testing.T) {
	for name, say := range map[string]func(l *reactor.Loop, id reactor.ID, b []byte) error{
		"handler": (*reactor.Loop).Write,
		"filter":  func(l *reactor.Loop, id reactor.ID, b []byte) error { return l.WriteWire(id, record(string(b))) },
	} {
		for _, window := range []int{0, 5, 100} {
			d := &diary{}
			c := behind(t, window, func(l *reactor.Loop, id reactor.ID, in []byte) error {
				l.SetFilter(id, &toy{d: d})
				return say(l, id, in)
			}, []byte("text"))
			if got, want := c.empties(0), "an answer"+string(record("text")); got != want {
				t.Errorf("%s, window %d: got %q, want %q", name, window, got, want)
			}
		}
	}
}

// An acker is a toy that acknowledges what comes.
type acker struct{ toy }

func (f *acker) Feed(l *reactor.Loop, id reactor.ID, wire []byte) {
	f.toy.Feed(l, id, wire)
	_ = l.WriteWire(id, record("ack"))
}

// TestBatchOfFiltersWrites: what a filter says by itself, and what a callback writes through it and through another, all goes out.
func TestBatchOfFiltersWrites(t *testing.T) {
	var c *crowd
	c = gather(t, 3, reactor.Options{}, &script{data: func(l *reactor.Loop, _ reactor.ID, in []byte) int {
		for _, id := range c.ids {
			_ = l.Write(id, in)
		}
		return len(in)
	}})
	run(c.m, func(l *reactor.Loop) {
		l.SetFilter(c.ids[0], &acker{toy{d: &c.d}})
		l.SetFilter(c.ids[1], &acker{toy{d: &c.d}})
	})
	c.say(string(record("text")), "", "")
	c.hears(t, 0, string(record("ack"))+string(record("text")))
	c.hears(t, 1, string(record("text")))
	c.hears(t, 2, "text")
}

// TestBatchQueuedCountsWhatIsPutOff: Queued and Flush tell what the kernel has not taken, and Write has room for the rest of
// QueueMax.
func TestBatchQueuedCountsWhatIsPutOff(t *testing.T) {
	for name, queued := range map[string]func(*reactor.Loop, reactor.ID) int{
		"Queued": (*reactor.Loop).Queued, "Flush": (*reactor.Loop).Flush,
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, single bool) {
				const room = 20
				var c *crowd
				h := echo()
				answer := h.data
				h.data = func(l *reactor.Loop, id reactor.ID, in []byte) int {
					if id == c.ids[0] {
						return answer(l, id, in)
					}
					n := queued(l, c.ids[0])
					c.d.add("%d:%v", n, l.Write(c.ids[0], make([]byte, room-n)))
					return len(in)
				}
				c = gather(t, 2, reactor.Options{QueueMax: room, Single: single}, h)
				c.pipes[0].Window(0)
				c.say("answer", "x")
				c.d.expect(t, "6:<nil>")
			})
		})
	}
}

// TestBatchClosesBehindWhatIsPutOff: the answer comes before FIN, whoever closes the socket, and when.
func TestBatchClosesBehindWhatIsPutOff(t *testing.T) {
	tests := map[string]struct {
		end  func(c *crowd, l *reactor.Loop)
		want string
	}{
		"a later callback":    {func(c *crowd, l *reactor.Loop) { l.Close(c.ids[0]) }, "a-closed:local:<nil>"},
		"FIN of its peer":     {func(c *crowd, _ *reactor.Loop) { c.pipes[0].CloseWrite() }, "a-closed:eof:<nil>"},
		"a later one's panic": {func(*crowd, *reactor.Loop) { panic("test") }, "b-closed:fault:<nil>"},
	}
	for name, test := range tests {
		for _, window := range []int{0, 3, 100} {
			t.Run(fmt.Sprintf("%s, window %d", name, window), func(t *testing.T) {
				var c *crowd
				h := echo()
				answer := h.data
				h.data = func(l *reactor.Loop, id reactor.ID, in []byte) int {
					if id == c.ids[1] {
						test.end(c, l)
						return len(in)
					}
					return answer(l, id, in)
				}
				c = gather(t, 3, reactor.Options{}, h)
				c.pipes[0].Window(window)
				c.say("an answer", "x", "y")
				c.pipes[0].Window(100)
				if got := c.empties(0); got != "an answer" {
					t.Errorf("got %q", got)
				}
				if closed := c.pipes[0].Closed(); closed == (test.want[0] == 'b') || c.pipes[0].WasReset() {
					t.Errorf("closed %v, reset %v", closed, c.pipes[0].WasReset())
				}
				c.hears(t, 2, "y")
				c.pipes[0].CloseWrite()
				c.pipes[1].CloseWrite()
				c.m.Run()
				if got := c.d.take(); !strings.Contains(got, test.want) {
					t.Errorf("happened %q", got)
				}
			})
		}
	}
}

// TestBatchWritesToOneThatCloses: a callback writes to one behind it whose FIN has been read already. It gets all of that.
func TestBatchWritesToOneThatCloses(t *testing.T) {
	bothWays(t, func(t *testing.T, single bool) {
		var c *crowd
		c = gather(t, 3, reactor.Options{Single: single}, &script{data: func(l *reactor.Loop, _ reactor.ID, in []byte) int {
			_ = l.Write(c.ids[1], in)
			return len(in)
		}})
		c.pipes[1].Window(3)
		c.pipes[1].CloseWrite()
		c.say("farewell", "", "")
		if got := c.empties(1); got != "farewell" || !c.pipes[1].Closed() || c.pipes[1].WasReset() {
			t.Errorf("got %q, closed %v, reset %v", got, c.pipes[1].Closed(), c.pipes[1].WasReset())
		}
		c.d.expect(t, "b-closed:eof:<nil>")
	})
}

// TestBatchAnswersAndCloses: a callback that writes and closes its own socket, one after the other in a batch.
func TestBatchAnswersAndCloses(t *testing.T) {
	bothWays(t, func(t *testing.T, single bool) {
		c := gather(t, 5, reactor.Options{Single: single}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			_ = l.Write(id, in)
			l.Close(id)
			return len(in)
		}})
		c.say("a", "b", "c", "d", "e")
		for i, want := range []string{"a", "b", "c", "d", "e"} {
			c.hears(t, i, want)
			if !c.pipes[i].Closed() || c.pipes[i].WasReset() {
				t.Errorf("client %d: closed %v, reset %v", i, c.pipes[i].Closed(), c.pipes[i].WasReset())
			}
			c.pipes[i].Close()
		}
		c.m.Run()
		c.d.expect(t, "a-closed:local:<nil> b-closed:local:<nil> c-closed:local:<nil> d-closed:local:<nil> e-closed:local:<nil>")
	})
}
