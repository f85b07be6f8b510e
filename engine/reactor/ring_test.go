package reactor_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"ticketgate/engine/reactor"
)

// TestPost: many goroutines bring more than the ring holds; all of it arrives, each one's in order.
func TestPost(t *testing.T) {
	const producers, each = 16, 5000
	var last [producers]int64
	var done sync.WaitGroup
	done.Add(producers * each)
	work := func(_ *reactor.Loop, w *reactor.Work) {
		if w.N != last[w.Op]+1 {
			t.Errorf("producer %d: %d after %d", w.Op, w.N, last[w.Op])
		}
		last[w.Op] = w.N
		done.Done()
	}
	r, _ := serve(t, reactor.Options{Loops: 1, Work: work}, echo())
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			for n := range each {
				r.Post(0, reactor.Work{Op: uint32(p), N: int64(n + 1)})
			}
		})
	}
	wg.Wait()
	done.Wait()
	if s := stats(r); s.Work != producers*each || s.Wakes > s.Work {
		t.Errorf("%d units, %d wakes", s.Work, s.Wakes)
	}
}

// TestLater: what a callback puts off is done when the round is over, and nobody has to wake the loop for it.
func TestLater(t *testing.T) {
	const rounds = 100
	done := make(chan reactor.ID, 1)
	work := func(_ *reactor.Loop, w *reactor.Work) { done <- reactor.ID(w.N) }
	h := &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
		if !l.Later(reactor.Work{N: int64(id)}) {
			t.Error("no room")
		}
		return len(in)
	}}
	r, addr := serve(t, reactor.Options{Loops: 1, Work: work}, h)
	c := dial(t, addr)
	once := func() {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		event(t, done)
	}
	once() // what woke the loop for its listener is over then
	before := stats(r)
	for range rounds {
		once()
	}
	if s := stats(r); s.Work-before.Work != rounds || s.Wakes != before.Wakes {
		t.Errorf("%d units, %d wakes", s.Work-before.Work, s.Wakes-before.Wakes)
	}
}

// TestLaterOrder: all events of a round come before what they have put off.
func TestLaterOrder(t *testing.T) {
	d := new(diary)
	h := &script{data: func(l *reactor.Loop, _ reactor.ID, in []byte) int {
		d.add("%s", in)
		l.Later(reactor.Work{N: int64(in[0])})
		return len(in)
	}}
	m, _ := twin(t, reactor.Options{Work: func(_ *reactor.Loop, w *reactor.Work) { d.add("later-%c", w.N) }}, h)
	for _, text := range []string{"a", "b", "c"} {
		m.Connect(client).Write([]byte(text))
	}
	m.Run()
	d.expect(t, "a b c later-a later-b later-c")
}

// TestPostWaits: a full ring holds the poster back until the loop has room, or has ended.
func TestPostWaits(t *testing.T) {
	hold, held := make(chan struct{}), make(chan struct{}, 1)
	var served atomic.Int64
	work := func(*reactor.Loop, *reactor.Work) {
		if served.Add(1) == 1 {
			held <- struct{}{}
			<-hold // as no handler may: the loop stands still
		}
	}
	r, _ := serve(t, reactor.Options{Loops: 1, Work: work}, echo())
	r.Post(0, reactor.Work{})
	event(t, held)
	n := 0
	for r.TryPost(0, reactor.Work{}) {
		n++
	}
	if n != 4096 {
		t.Errorf("%d units fit into the ring, want 4,096", n)
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() { r.Post(0, reactor.Work{}) })
	}
	close(hold)
	wg.Wait()
	stop(t, r)
	if got := served.Load(); got != 1+4096+10 {
		t.Errorf("%d units were served, want all %d", got, 1+4096+10)
	}
	for range 5000 { // after the end nothing waits for ever
		r.Post(0, reactor.Work{})
	}
}

func TestStop(t *testing.T) {
	ended := make(chan ending, 100)
	opened := make(chan reactor.ID, 100)
	h := &script{
		open:   func(_ *reactor.Loop, id reactor.ID) { opened <- id },
		closed: func(_ *reactor.Loop, _ reactor.ID, why reactor.Cause, err error) { ended <- ending{why, err} },
	}
	r, addr := serve(t, reactor.Options{Loops: 2}, h)
	conns := make([]*net.TCPConn, 20)
	for i := range conns {
		conns[i] = dial(t, addr)
		event(t, opened)
	}
	r.StopAccept()
	expired, cancel := context.WithCancel(context.Background())
	cancel()
	_ = r.Stop(expired) // does not wait, but stops
	stop(t, r)
	stop(t, r)
	for range conns {
		if got := event(t, ended); got.why != reactor.CauseStop {
			t.Errorf("ended with %v", got)
		}
	}
	for _, c := range conns {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("a client reads %v", err)
		}
	}
	if _, err := r.Listen("tcp", "127.0.0.1:0"); !errors.Is(err, reactor.ErrStopped) {
		t.Errorf("listening after the end: %v", err)
	}
	r.Start()
	if len(r.Failed()) != 0 {
		t.Error("a stop is no failure")
	}
}

func TestStopWithoutStart(t *testing.T) {
	before := openFiles(t)
	r, err := reactor.New(reactor.Options{Handlers: []reactor.Handler{echo()}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Listen("tcp", ":0"); err != nil {
		t.Fatal(err)
	}
	stop(t, r)
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
