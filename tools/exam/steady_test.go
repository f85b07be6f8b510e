package main

import (
	"bufio"
	"fmt"
	"net"
	"testing"
	"time"

	"ticketgate/engine/frame"
)

// said are the messages that a side says first.
func said(t *testing.T, number uint64, n int) (all [][]byte) {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	e := &steadyEnd{socket: &socket{Conn: ours, r: bufio.NewReader(ours)}, number: number, by: fromBackend, book: new(steadyBook)}
	heard := &socket{Conn: theirs, r: bufio.NewReader(theirs)}
	for range n {
		done := make(chan error, 1)
		go func() { done <- e.say(time.Millisecond) }()
		f, err := heard.read()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err != nil || f.op != frame.Text {
			t.Fatalf("read: %+v, %v", f, err)
		}
		all = append(all, f.payload)
	}
	return all
}

func TestSteadyBook(t *testing.T) {
	mine, foreign := said(t, 7, 4), said(t, 8, 1)
	altered := append([]byte(nil), mine[1]...)
	altered[steadySize-1] ^= 1
	early := append([]byte(nil), mine[1]...)
	early[40] ^= 1 // in the moment when it was due
	for _, c := range []struct {
		name string
		in   [][]byte
		want string // lost, repeated, foreign, altered, and the next number
	}{
		{"in order", mine, "0 0 0 0 4"},
		{"one lost", [][]byte{mine[0], mine[2], mine[3]}, "1 0 0 0 4"},
		{"two lost", [][]byte{mine[0], mine[3]}, "2 0 0 0 4"},
		{"repeated", [][]byte{mine[0], mine[1], mine[1]}, "0 1 0 0 2"},
		{"in another order", [][]byte{mine[0], mine[2], mine[1]}, "1 1 0 0 3"},
		{"of another", [][]byte{mine[0], foreign[0], mine[1]}, "0 0 1 0 2"},
		{"altered", [][]byte{mine[0], altered}, "0 0 0 1 1"},
		{"altered head", [][]byte{mine[0], early}, "0 0 0 1 1"},
		{"half", [][]byte{mine[0], mine[1][:60]}, "0 0 0 1 1"},
	} {
		var b steadyBook
		next := uint64(0)
		for _, text := range c.in {
			next = b.heard(7, next, text, shared())
		}
		f := b.mark()
		if got := fmt.Sprint(f.Lost, f.Repeated, f.Foreign, f.Altered, next); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if f.P99 < time.Millisecond || f.P99 > time.Minute {
			t.Errorf("%s: p99 %v, and what was late was said to be 1 ms", c.name, f.P99)
		}
	}
	var b steadyBook
	b.missing(7, 5, 4)
	b.missing(7, 4, 4)
	if f := b.mark(); f.Lost != 1 || f.wrong() != 1 {
		t.Errorf("4 of 5, then 4 of 4: %v", f)
	}
}

func TestOutcome(t *testing.T) {
	at := time.Now()
	var all []attempt
	for i := range 300 {
		all = append(all, attempt{at: at, done: at.Add(time.Millisecond), status: 503, retry: 1 + i%5})
	}
	o := outcomeOf(all)
	if o.refused != 300 || o.others() != 0 || !o.spread() || o.p99 != time.Millisecond {
		t.Errorf("spread refusals: %v, spread %v", o, o.spread())
	}
	for i := range all {
		all[i].retry = 2
	}
	if o := outcomeOf(all); o.spread() {
		t.Errorf("all after 2 s: %v is spread", o)
	}
	for _, a := range []attempt{{status: 503}, {status: 503, retry: 6}, {status: 401}, {err: errLost}} {
		if o := outcomeOf([]attempt{a}); o.others() != 1 || o.ok+o.refused != 0 {
			t.Errorf("%+v: %v", a, o)
		}
	}
	if o := outcomeOf([]attempt{{status: 101}}); o.ok != 1 {
		t.Errorf("%v", o)
	}
}
