package reactor_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"ticketgate/engine/reactor"
	"ticketgate/internal/mono"
)

// timers arms, moves and disarms timers at random and checks each Timer against what was armed last.
func timers(t *testing.T, seed uint64, age time.Duration) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 1))
	armed := map[reactor.ID]mono.Time{}
	var ids []reactor.ID
	spans := []time.Duration{0, time.Millisecond, 20 * time.Millisecond, time.Second, 80 * time.Second, 85 * time.Second, time.Hour}
	arm := func(l *reactor.Loop, id reactor.ID) {
		at := l.Now().Add(time.Duration(rnd.Int64N(int64(spans[rnd.IntN(len(spans))]) + 1)))
		if rnd.IntN(2) == 0 {
			l.Arm(id, at)
		} else {
			l.Move(id, at)
		}
		armed[id] = at
	}
	h := &script{
		open: func(l *reactor.Loop, id reactor.ID) { ids = append(ids, id); arm(l, id) },
		timer: func(l *reactor.Loop, id reactor.ID) {
			at, ok := armed[id]
			if late := l.Now().Sub(at); !ok || late < 0 || late > 40*time.Millisecond {
				t.Fatalf("seed %d: Timer %v after its time (armed: %v)", seed, late, ok)
			}
			if delete(armed, id); rnd.IntN(2) == 0 {
				arm(l, id)
			}
		},
	}
	m, clock := twin(t, reactor.Options{Work: work}, h)
	m.Age(age)
	pipes := make([]*reactor.Pipe, 100)
	for i := range pipes {
		pipes[i] = m.Connect(client)
	}
	m.Run()
	for range 1000 {
		run(m, func(l *reactor.Loop) {
			id := ids[rnd.IntN(len(ids))]
			switch rnd.IntN(8) {
			case 0:
				l.Disarm(id)
				delete(armed, id)
			case 1:
				l.Abort(id)
				delete(armed, id)
			default:
				if l.Alive(id) {
					arm(l, id)
				}
			}
		})
		m.Advance(time.Duration(rnd.Int64N(int64(300 * time.Millisecond))))
		for id, at := range armed {
			if late := clock.Now().Sub(at); late > 40*time.Millisecond {
				t.Fatalf("seed %d: timer of %x is %v late", seed, uint64(id), late)
			}
		}
	}
	for _, p := range pipes {
		p.Close()
	}
	m.Advance(40 * time.Millisecond)
	if rows, ticking := m.Linked(); rows != 0 || ticking {
		t.Errorf("seed %d: %d rows in the wheel without a socket, ticking %v", seed, rows, ticking)
	}
}

func TestTimers(t *testing.T) {
	for seed := range uint64(4) {
		timers(t, seed, 0)
	}
	// The tick counter wraps after 994 days: here it does so in the middle.
	timers(t, 5, (1<<32)*20*time.Millisecond-2*time.Minute)
	timers(t, 6, (1<<31)*20*time.Millisecond-2*time.Minute)
}

func FuzzTimers(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(seed, int64(0))
	}
	f.Add(uint64(5), int64((1<<32)*20*time.Millisecond-2*time.Minute))
	f.Fuzz(func(t *testing.T, seed uint64, age int64) { timers(t, seed, time.Duration(age&math.MaxInt64)/1024) })
}

// TestMoveKeepsTheStall: a timer that moves away does not take the end of a socket that makes no progress with it.
func TestMoveKeepsTheStall(t *testing.T) {
	var id reactor.ID
	var d diary
	h := &script{
		open: func(l *reactor.Loop, i reactor.ID) {
			id = i
			l.Arm(id, l.Now().Add(5*time.Second))
			_ = l.Write(id, make([]byte, 100))
		},
		closed: func(_ *reactor.Loop, _ reactor.ID, why reactor.Cause, _ error) { d.add("%v", why) },
	}
	m, _ := twin(t, reactor.Options{Work: work, WriteStall: 10 * time.Second}, h)
	m.Connect(client).Window(0)
	m.Run()
	m.Advance(4 * time.Second)
	run(m, func(l *reactor.Loop) { l.Move(id, l.Now().Add(time.Hour)) })
	m.Advance(5 * time.Second)
	d.expect(t, "")
	m.Advance(2 * time.Second)
	d.expect(t, "stalled")
}

func TestFarTimers(t *testing.T) {
	fired := 0
	h := &script{
		open:  func(l *reactor.Loop, id reactor.ID) { l.Arm(id, math.MaxInt64) },
		timer: func(*reactor.Loop, reactor.ID) { fired++ },
	}
	m, _ := twin(t, reactor.Options{}, h)
	m.Connect(client)
	m.Advance(10 * time.Minute)
	if rows, ticking := m.Linked(); fired != 0 || rows != 1 || !ticking {
		t.Errorf("%d fired, %d linked, ticking %v", fired, rows, ticking)
	}
}

// TestManyTimersAtOnce: more timers than one round serves fall due together, and the clock jumps by more than a turn.
func TestManyTimersAtOnce(t *testing.T) {
	const n = 10_000
	fired := 0
	h := &script{
		open:  func(l *reactor.Loop, id reactor.ID) { l.Arm(id, l.Now().Add(time.Second)) },
		timer: func(*reactor.Loop, reactor.ID) { fired++ },
	}
	m, clock := twin(t, reactor.Options{}, h)
	for range n {
		m.Connect(client)
	}
	m.Run()
	clock.Advance(time.Hour)
	m.Advance(20 * time.Millisecond)
	if s := stats(m.Reactor()); fired != n || s.Timers != n {
		t.Errorf("%d of %d fired, %d counted", fired, n, s.Timers)
	}
}

// TestTimersTakeTurns: of many timers that fall due together some wait until the sockets have had their turn.
func TestTimersTakeTurns(t *testing.T) {
	const n, most = 1000, 128 // rounds of 64; a socket waits for two at most
	fired, before := 0, -1
	var busy *reactor.Pipe
	h := &script{open: func(l *reactor.Loop, id reactor.ID) { l.Arm(id, l.Now().Add(time.Second)) }}
	h.timer = func(*reactor.Loop, reactor.ID) {
		if fired++; fired == 1 {
			busy.Write([]byte("x"))
		}
	}
	h.data = func(_ *reactor.Loop, _ reactor.ID, b []byte) int {
		before = fired
		return len(b)
	}
	m, _ := twin(t, reactor.Options{}, h)
	busy = m.Connect(client)
	for range n {
		m.Connect(client)
	}
	m.Advance(2 * time.Second)
	if fired != n+1 || before < 0 || before > most {
		t.Errorf("%d of %d fired, %d of them before a socket that had something to say", fired, n+1, before)
	}
}

// TestIdleDoesNotTick: sockets without a timer leave the loop asleep.
func TestIdleDoesNotTick(t *testing.T) {
	h := echo()
	h.open = func(l *reactor.Loop, id reactor.ID) { l.Arm(id, l.Now().Add(time.Second)); l.Disarm(id) }
	m, _ := twin(t, reactor.Options{}, h)
	m.Connect(client).Write([]byte("x"))
	m.Advance(time.Second)
	if _, ticking := m.Linked(); ticking {
		t.Error("the tick is on though nothing is armed")
	}
	if segments, queues, _ := m.Held(); segments+queues != 0 {
		t.Errorf("an idle socket holds %d segments and %d queues", segments, queues)
	}
}

// TestTimersWriteTogether: what the timers of one moment write goes out with one call for many.
func TestTimersWriteTogether(t *testing.T) {
	bothWays(t, func(t *testing.T, single bool) {
		c := gather(t, 40, reactor.Options{Single: single}, &script{
			data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
				l.Arm(id, l.Now().Add(time.Second))
				return len(in)
			},
			timer: func(l *reactor.Loop, id reactor.ID) { _ = l.Write(id, []byte("ping")) },
		})
		for i := range c.pipes {
			c.pipes[i].Write([]byte("x"))
		}
		c.m.Advance(1100 * time.Millisecond)
		for i := range c.pipes {
			c.hears(t, i, "ping")
		}
		switch {
		case single && (c.calls.Write != 40 || len(c.calls.WriteMany) > 0):
			t.Errorf("%d writes, together %v", c.calls.Write, c.calls.WriteMany)
		case !single && (c.calls.Write > 0 || !slices.Equal(c.calls.WriteMany, []int{32, 8})):
			t.Errorf("%d writes, together %v; want 32 and 8", c.calls.Write, c.calls.WriteMany)
		}
	})
}
