package bench_test

import (
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"ticketgate/bench"
)

func dialPace(t *testing.T, l *bench.Loop, address string, p *bench.Pace, sockets int) {
	t.Helper()
	head := bench.AppendUpgrade(nil, address, []byte("/t/x"), nil)
	a := &bench.Admissions{Loop: l, Gate: target(t, address), Keep: true, Then: p.Socket}
	for range sockets {
		a.Heads = append(a.Heads, head)
	}
	a.Start(sockets)
	runUntil(t, l, a.Idle)
	if a.Err != nil || p.Ready() != sockets {
		t.Fatalf("%d of %d sockets, %v", p.Ready(), sockets, a.Err)
	}
}

// Messages are sent when they are due, to one socket after the other, and timed from then.
func TestPace(t *testing.T) {
	var seen [3]atomic.Int64 // by socket
	var sockets atomic.Int64
	var now time.Duration
	address := serve(t, func(c net.Conn) { echoServer(&seen[sockets.Add(1)-1])(c) })
	l := bench.OpenLoop(t, bench.Options{Now: func() time.Duration { return now }})
	p := bench.NewPace(l, []byte("hello"), 1000)
	dialPace(t, l, address, p, 3)
	now = time.Second
	p.Resume()
	answered := func(n uint64) func() bool { return func() bool { return p.Messages >= n || p.Err != nil } }
	for _, c := range []struct {
		at       time.Duration
		messages uint64 // sent until then
		next     time.Duration
	}{
		{time.Second, 1, time.Millisecond},
		{time.Second, 1, time.Millisecond}, // nothing is due
		{time.Second + 500*time.Microsecond, 1, 500 * time.Microsecond},
		{time.Second + 6*time.Millisecond, 7, time.Millisecond}, // late: all that was due, at once
	} {
		now = c.at
		p.Tick()
		if p.Next() != c.next {
			t.Errorf("at %v the next is in %v, want %v", c.at, p.Next(), c.next)
		}
		runUntil(t, l, answered(c.messages))
		if p.Err != nil || p.Messages != c.messages || !p.Idle() {
			t.Fatalf("at %v: %d answers, want %d, idle %t, %v", c.at, p.Messages, c.messages, p.Idle(), p.Err)
		}
	}
	if p.Latency.Count() != 7 || p.Latency.Max() != 5*time.Millisecond {
		t.Errorf("%d latencies, longest %v", p.Latency.Count(), p.Latency.Max())
	}
	got := []int64{seen[0].Load(), seen[1].Load(), seen[2].Load()}
	if slices.Sort(got); !slices.Equal(got, []int64{2, 2, 3}) {
		t.Errorf("the sockets had %d messages", got)
	}
}

func TestPaceFailures(t *testing.T) {
	for _, c := range []struct {
		name string
		wire []byte // after the first message; none: the end of the connection
		want error
	}{
		{"another message", []byte("\x81\x05hellO"), bench.ErrEcho},
		{"a message that nobody sent", []byte("\x81\x05hello\x81\x05hello"), bench.ErrEcho},
		{"close frame", ws.MustCompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(1013, ""))), new(bench.CloseError)},
		{"masked frame", bench.AppendFrame(nil, 1, []byte("other")), bench.ErrMasked},
	} {
		t.Run(c.name, func(t *testing.T) {
			address := serve(t, func(s net.Conn) {
				if _, err := ws.Upgrade(s); err != nil {
					return
				}
				if _, err := readFrame(s); err == nil {
					_, _ = s.Write(c.wire)
				}
				_, _ = readFrame(s) // until the client goes
			})
			l := bench.OpenLoop(t, bench.Options{})
			p := bench.NewPace(l, []byte("hello"), 1)
			dialPace(t, l, address, p, 1)
			p.Resume()
			p.Tick()
			runUntil(t, l, func() bool { return p.Err != nil })
			var closed *bench.CloseError
			if !errors.Is(p.Err, c.want) && (!errors.As(c.want, &closed) || !errors.As(p.Err, &closed) || closed.Code != 1013) {
				t.Errorf("%v", p.Err)
			}
			if !p.Idle() {
				t.Error("waits for an answer that cannot come")
			}
		})
	}
}
