package reactor_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"ticketgate/engine/reactor"
)

// TestLeftover feeds records of a length byte and a body in pieces; every cut must give the same records.
func TestLeftover(t *testing.T) {
	wire := []byte("\x03one\x00\x05three\x01x\x0fa longer record")
	want := "[one][][three][x][a longer record]"
	for cut := 1; cut <= len(wire); cut++ {
		var got strings.Builder
		h := &script{data: func(_ *reactor.Loop, _ reactor.ID, in []byte) (used int) {
			for used < len(in) && used+1+int(in[used]) <= len(in) {
				got.WriteString("[" + string(in[used+1:used+1+int(in[used])]) + "]")
				used += 1 + int(in[used])
			}
			return used
		}}
		m, _ := twin(t, reactor.Options{}, h)
		p := m.Connect(client)
		for rest := wire; len(rest) > 0; rest = rest[min(cut, len(rest)):] {
			p.Write(rest[:min(cut, len(rest))])
			m.Run()
		}
		if got.String() != want {
			t.Errorf("cut every %d bytes: %s, want %s", cut, got.String(), want)
		}
	}
}

// TestLeftoverKeepsChanges: a handler that unmasks a partial payload in place finds it unmasked next time.
func TestLeftoverKeepsChanges(t *testing.T) {
	var last string
	h := &script{data: func(_ *reactor.Loop, _ reactor.ID, in []byte) int {
		for i := range in {
			if in[i] >= 'a' {
				in[i] -= 'a' - 'A'
			}
		}
		last = string(in)
		return 1
	}}
	m, _ := twin(t, reactor.Options{}, h)
	p := m.Connect(client)
	for _, b := range []string{"abc", "de", "f"} {
		p.Write([]byte(b))
		m.Run()
	}
	if last != "CDEF" {
		t.Errorf("in is %q, want CDEF", last)
	}
}

func TestLeftoverMaxStopsReading(t *testing.T) {
	var used, seen int
	var id reactor.ID
	h := &script{
		open: func(_ *reactor.Loop, i reactor.ID) { id = i },
		data: func(_ *reactor.Loop, _ reactor.ID, in []byte) int {
			seen = len(in)
			return min(used, len(in))
		},
	}
	m, _ := twin(t, reactor.Options{LeftoverMax: 100, ReadBuffer: 64, Work: work}, h)
	p := m.Connect(client)
	p.Write(make([]byte, 1000))
	m.Run()
	if seen != 128 || p.Pending() != 1000-128 {
		t.Fatalf("unconsumed: Data saw %d bytes, %d not read, want 128 and 872", seen, p.Pending())
	}
	run(m, func(l *reactor.Loop) {
		if n := l.Unread(id); n != 512 {
			t.Errorf("what is unread takes %d bytes, want the smallest buffer, of 512", n)
		}
	})
	if m.Inject(0, id.Slot()); p.Pending() != 872 {
		t.Fatalf("a stale event read on: %d not read", p.Pending())
	}
	used = 10 // 118 left: still too many
	run(m, func(l *reactor.Loop) { l.Rerun(id) })
	if p.Pending() != 872 {
		t.Fatalf("%d not read after a Rerun that leaves 118, want 872", p.Pending())
	}
	used = 1 << 20
	run(m, func(l *reactor.Loop) { l.Rerun(id) })
	if p.Pending() != 0 {
		t.Errorf("%d not read after all was consumed", p.Pending())
	}
	p.Close()
	run(m, func(l *reactor.Loop) {
		if n := l.Unread(id); n != 0 {
			t.Errorf("%d bytes unread of a socket that is gone", n)
		}
	})
}

func TestPauseAndResume(t *testing.T) {
	var d diary
	var id reactor.ID
	h := &script{
		open: func(_ *reactor.Loop, i reactor.ID) { id = i },
		data: func(l *reactor.Loop, i reactor.ID, in []byte) int {
			d.add("%s", in)
			l.Pause(i)
			return min(2, len(in))
		},
	}
	m, _ := twin(t, reactor.Options{Work: work}, h)
	p := m.Connect(client)
	p.Write([]byte("abcde"))
	m.Run()
	d.expect(t, "abcde")
	p.Write([]byte("fgh"))
	m.Run()
	d.expect(t, "")
	if p.Pending() != 3 {
		t.Fatalf("%d bytes wait in the kernel, want 3", p.Pending())
	}
	inside := false
	run(m, func(l *reactor.Loop) {
		if !l.Paused(id) {
			t.Error("not paused")
		}
		l.Resume(id)
		inside = len(d.words) > 0
	})
	d.expect(t, "cde") // with what was left; paused again before the rest was read
	if inside {
		t.Error("Resume called Data itself")
	}
	run(m, func(l *reactor.Loop) { l.Rerun(id) })
	d.expect(t, "e")
	run(m, func(l *reactor.Loop) { l.Resume(id) })
	d.expect(t, "fgh")
	run(m, func(l *reactor.Loop) { l.Resume(id); l.Pause(id) })
	d.expect(t, "") // the later word holds, though "h" is left
	run(m, func(l *reactor.Loop) { l.Resume(id) })
	d.expect(t, "h")
	run(m, func(l *reactor.Loop) { l.Rerun(id) })
	d.expect(t, "") // nothing left, nothing to run
}

// TestRerunForEver: a handler that asks again and again does not keep others from their turn.
func TestRerunForEver(t *testing.T) {
	runs, answered := 0, 0
	h := &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
		if in[0] == 'a' {
			answered = runs
			return len(in)
		}
		if runs++; runs < 100 {
			l.Rerun(id)
		}
		return 0
	}}
	m, _ := twin(t, reactor.Options{}, h)
	m.Connect(client).Write([]byte("x"))
	m.Connect(client).Write([]byte("a"))
	m.Run()
	if runs != 100 || answered == 0 || answered > 10 {
		t.Errorf("%d runs, the other socket was served after %d", runs, answered)
	}
}

// TestAFullReadIsFollowedByAnother: who sends more than the buffer holds is read on at once, but not so long that the others wait
// for all of it; and not when the callback pauses, yields or closes. With batches it is read by itself from then on, behind
// the others, until a reading is short.
func TestAFullReadIsFollowedByAnother(t *testing.T) {
	bothWays(t, func(t *testing.T, single bool) {
		longest := "a64 a64 b1 a64 a64 a64 a64 a64 a64 a64 a24"
		if single {
			fullReads(t, true, longest, "a64 b1", "a20 b1", "a20 b1")
		} else {
			fullReads(t, false, longest, "b1 a64", "b1 a20", "a20 b1")
		}
	})
}

// fullReads wants that for 600, 64, 20 and again 20 bytes of a, and a byte of b.
func fullReads(t *testing.T, single bool, want ...string) {
	t.Helper()
	var d diary
	names := map[reactor.ID]string{}
	act := func(*reactor.Loop, reactor.ID) {}
	h := &script{
		open: func(_ *reactor.Loop, id reactor.ID) { names[id] = string(rune('a' + len(names))) },
		data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			d.add("%s%d", names[id], len(in))
			act(l, id)
			return len(in)
		},
		closed: func(_ *reactor.Loop, id reactor.ID, _ reactor.Cause, _ error) { d.add("%s-closed", names[id]) },
	}
	m, _ := twin(t, reactor.Options{ReadBuffer: 64, Work: work, Single: single}, h)
	a, b := m.Connect(client), m.Connect(client)
	m.Run()
	for i, n := range []int{600, 64, 20, 20} {
		a.Write(make([]byte, n))
		b.Write(make([]byte, 1))
		m.Run()
		d.expect(t, want[i])
	}
	var id reactor.ID
	act = func(l *reactor.Loop, who reactor.ID) { l.Pause(who); id = who }
	a.Write(make([]byte, 200))
	m.Run()
	d.expect(t, "a64")
	act = func(l *reactor.Loop, who reactor.ID) { l.Close(who) }
	run(m, func(l *reactor.Loop) { l.Resume(id) })
	d.expect(t, "a64")
	a.Close()
	m.Run()
	d.expect(t, "a-closed")
}

// TestYieldsTakeTurnsWithOthers: of many that have yielded a round serves only so much as its time allows, and what comes in the
// meantime does not wait for the rest. What a client sends before its own turn has come is in that turn's next reading.
func TestYieldsTakeTurnsWithOthers(t *testing.T) {
	bothWays(t, func(t *testing.T, single bool) {
		var c *crowd
		c = gather(t, 6, reactor.Options{Single: single}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			c.d.add("%s:%s", c.name(id), in)
			switch {
			case in[0] == 'y':
				l.Yield(id)
				return 1
			case c.name(id) == "b":
				c.pipes[5].Write([]byte("short"))
				c.pipes[4].Write([]byte("+"))
			}
			c.clock.Advance(300 * time.Microsecond)
			return len(in)
		}})
		c.say("y1", "y2", "y3", "y4", "y5")
		c.d.expect(t, "a:y1 b:y2 c:y3 d:y4 e:y5 a:1 b:2 f:short c:3 d:4 e:5 e:+")
	})
}

// TestYieldCountsRounds: each turn of one that has yielded is a round of its own, all that one look at the poller names is one.
func TestYieldCountsRounds(t *testing.T) {
	var c *crowd
	var rounds []uint64
	c = gather(t, 3, reactor.Options{}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
		rounds = append(rounds, l.Round())
		if in[0] == 'y' {
			l.Yield(id)
		}
		return 1
	}})
	c.say("y1", "y2", "3")
	c.say("4")
	c.say("5")
	rounds = slices.Compact(rounds)
	if len(rounds) != 5 {
		t.Errorf("rounds %v, want one for three, one for each of two, and one for each look", rounds)
	}
}

// TestYieldWithMuchLeft: a socket that yields with more than LeftoverMax left is read on once that is used.
func TestYieldWithMuchLeft(t *testing.T) {
	bothWays(t, func(t *testing.T, single bool) {
		var c *crowd
		turns := 0
		c = gather(t, 2, reactor.Options{Single: single, LeftoverMax: 100}, &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			if turns++; turns == 1 {
				c.d.add("%d", len(in))
				l.Yield(id)
				return 0
			}
			c.d.add("%d", len(in))
			return len(in)
		}})
		watches := c.calls.Watch
		c.say(strings.Repeat("x", 1000))
		c.say("more")
		c.d.expect(t, "1000 1000 4")
		if n := c.calls.Watch - watches; n != 0 {
			t.Errorf("the poller was told %d times", n)
		}
	})
}

// TestLittleLeftOfMuch: what is left in the end does not keep the buffer of what was left first.
func TestLittleLeftOfMuch(t *testing.T) {
	var id reactor.ID
	m, _ := twin(t, reactor.Options{Work: work}, &script{
		open: func(_ *reactor.Loop, i reactor.ID) { id = i },
		data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
			if len(in) > 1 {
				l.Yield(id)
			}
			return len(in) / 2
		},
	})
	p := m.Connect(client)
	p.Write(make([]byte, 100_000))
	m.Run()
	run(m, func(l *reactor.Loop) {
		if n := l.Unread(id); n > 4096 {
			t.Errorf("one byte that is unread takes %d, want 4096 at most", n)
		}
	})
}

// TestYieldWithMuchLeftOfAFilter: what the filter still has waits for the turn as well.
func TestYieldWithMuchLeftOfAFilter(t *testing.T) {
	const records, each = 40, 1000
	bothWays(t, func(t *testing.T, single bool) {
		var c *crowd
		var turns, got int
		c = gather(t, 2, reactor.Options{Single: single, LeftoverMax: 100, ReadBuffer: 2*reactor.RecordMax + records*(each+2)/2},
			&script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
				if turns++; turns%2 == 1 {
					l.Yield(id)
					return 0
				}
				got += len(in)
				return len(in)
			}})
		run(c.m, func(l *reactor.Loop) { l.SetFilter(c.ids[0], &toy{d: &c.d}) })
		c.say(strings.Repeat(string(record(strings.Repeat("x", each))), records))
		if got != records*each || turns < 4 {
			t.Errorf("%d bytes in %d turns, want %d in some", got, turns, records*each)
		}
		c.d.expect(t, "")
	})
}

// TestUnreadOfAFilter: what it has not decoded counts.
func TestUnreadOfAFilter(t *testing.T) {
	const records, each = 40, 1000
	c := gather(t, 1, reactor.Options{ReadBuffer: 2*reactor.RecordMax + records*(each+2)/2},
		&script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int { l.Pause(id); return len(in) }})
	run(c.m, func(l *reactor.Loop) { l.SetFilter(c.ids[0], &toy{d: &c.d}) })
	c.say(strings.Repeat(string(record(strings.Repeat("x", each))), records))
	run(c.m, func(l *reactor.Loop) {
		if n := l.Unread(c.ids[0]); n < 2*(each+2) || n > records*(each+2)/2 {
			t.Errorf("%d bytes unread, want those of the last records", n)
		}
	})
}
