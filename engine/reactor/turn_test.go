package reactor_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"ticketgate/engine/reactor"
)

// TestTurnComesFirst: the handler of sockets is asked with a fresh clock before anything is done for one of them.
func TestTurnComesFirst(t *testing.T) {
	var d diary
	h := echo()
	inner := h.data
	h.data = func(l *reactor.Loop, id reactor.ID, in []byte) int {
		d.add("data:%s", in)
		return inner(l, id, in)
	}
	h.timer = func(*reactor.Loop, reactor.ID) { d.add("timer") }
	begun := time.Duration(0)
	c := gather(t, 3, reactor.Options{Turn: func(l *reactor.Loop) bool {
		if at := time.Duration(l.Now()) - begun; begun != 0 {
			d.add("turn:%v", at)
		}
		return false
	}}, h)
	begun = time.Duration(c.clock.Now())
	for what, does := range map[string]func(){
		"data:x": func() { c.clock.Advance(time.Second); c.pipes[0].Write([]byte("x")); c.m.Run() },
		"work": func() {
			run(c.m, func(l *reactor.Loop) { d.add("work"); l.Arm(c.ids[0], l.Now()) })
			d.words = nil
			c.m.Advance(40 * time.Millisecond)
		},
	} {
		d.words = nil
		does()
		if len(d.words) < 2 || !strings.HasPrefix(d.words[0], "turn:") {
			t.Errorf("%s: %v", what, d.words)
		}
	}
	d.words = nil
	c.say("a", "b", "c")
	if n := slices.IndexFunc(d.words, func(s string) bool { return strings.HasPrefix(s, "data:") }); n < 1 {
		t.Errorf("a batch: %v", d.words)
	}
}

// TestLostBeforeTheBatchIsSent: what was put off is not sent for those that are lost meanwhile, and goes out for the others.
func TestLostBeforeTheBatchIsSent(t *testing.T) {
	lost, told := map[reactor.ID]bool{}, false
	var asked int
	var c *crowd
	h := &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
		_ = l.Write(id, in)
		if string(in) == "f" { // the last of the batch: nothing of it has been sent yet
			lost[c.ids[1]], lost[c.ids[4]], told = true, true, true
		}
		return len(in)
	}}
	c = gather(t, 6, reactor.Options{
		Turn:  func(*reactor.Loop) bool { was := told; told = false; return was },
		Sends: func(_ *reactor.Loop, id reactor.ID) bool { asked++; return !lost[id] },
	}, h)
	c.say("a", "b", "c", "d", "e", "f")
	for i, p := range c.pipes {
		want := string(rune('a' + i))
		if i == 1 || i == 4 {
			want = ""
		}
		if got := string(p.Read()); got != want || p.WasReset() != (want == "") {
			t.Errorf("%d hears %q, reset: %v", i, got, p.WasReset())
		}
	}
	if asked != 6 {
		t.Errorf("asked %d times", asked)
	}
}

// TestNothingIsSentForTheLost: a queue that gets room is sent only if it may be.
func TestNothingIsSentForTheLost(t *testing.T) {
	may := true
	h := &script{}
	c := gather(t, 2, reactor.Options{Sends: func(*reactor.Loop, reactor.ID) bool { return may }}, h)
	for _, p := range c.pipes {
		p.Window(4)
	}
	run(c.m, func(l *reactor.Loop) {
		for _, id := range c.ids {
			_ = l.Write(id, []byte("abcdefgh"))
		}
	})
	for i, want := range []string{"efgh", ""} {
		c.pipes[i].Read()
		c.m.Run()
		if got := string(c.pipes[i].Read()); got != want || c.pipes[i].WasReset() != (want == "") {
			t.Errorf("%d hears %q", i, got)
		}
		may = false
	}
	if !slices.Contains(c.d.words, "b-closed:local:<nil>") {
		t.Errorf("%v", c.d.words)
	}
}

// TestEachFromGoesOn: all sockets in parts, and Again between them.
func TestEachFromGoesOn(t *testing.T) {
	var seen []reactor.ID
	var next uint32
	parts := 0
	c := gather(t, 20, reactor.Options{Again: func(l *reactor.Loop) {
		parts++
		if next = l.EachFrom(next, 7, func(id reactor.ID) { seen = append(seen, id) }); next != 0 {
			l.Again()
		}
	}}, &script{})
	run(c.m, func(l *reactor.Loop) { l.Again() })
	if !slices.Equal(seen, c.ids) || parts < 3 {
		t.Errorf("%d sockets in %d parts", len(seen), parts)
	}
}

// TestEndWithin: who does not answer is cut off after that long, with what it has not taken; who does, is not.
func TestEndWithin(t *testing.T) {
	c := gather(t, 3, reactor.Options{}, &script{})
	c.pipes[0].Window(0)
	run(c.m, func(l *reactor.Loop) {
		for _, id := range c.ids {
			_ = l.WriteLast(id, []byte("bye"))
			l.EndWithin(id, 100*time.Millisecond)
		}
	})
	c.hears(t, 1, "bye")
	c.hears(t, 2, "bye")
	c.pipes[2].CloseWrite()
	c.m.Advance(80 * time.Millisecond)
	if c.pipes[0].WasReset() || c.pipes[1].WasReset() || len(c.d.words) != 1 {
		t.Errorf("too early: %v", c.d.words)
	}
	c.m.Advance(60 * time.Millisecond)
	if !c.pipes[0].WasReset() || !c.pipes[1].WasReset() {
		t.Error("not cut off")
	}
	slices.Sort(c.d.words)
	if got := strings.Join(c.d.words, " "); got != "a-closed:local:"+reactor.ErrLinger.Error()+" b-closed:local:"+reactor.ErrLinger.Error()+" c-closed:local:<nil>" {
		t.Errorf("%s", got)
	}
}
