package engine_test

import (
	"strings"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

// What a message and a refused ticket cost in allocations is exact, and part of the promise.

func TestEchoDoesNotAllocate(t *testing.T) {
	limits := map[string]limiter.Options{
		"messages-in": {Rate: rate(t, "1000000/1second"), Per: limiter.PerClient},
		"bytes-in":    {Rate: rate(t, "1GiB/1second"), Per: limiter.PerConnection},
		"bytes-out":   {Rate: rate(t, "1GiB/1second"), Per: limiter.PerConnection},
	}
	l := new(lease)
	r := newRig(t, limits, func(o *engine.Options) { o.Life = l.life })
	l.begin(r.clock.Now(), time.Minute)
	p := r.open(ticket.Claims{})
	for name, frames := range map[string][]byte{
		"text":            client(frame.Text, true, strings.Repeat("x", 100)),
		"16 KiB binary":   client(frame.Binary, true, strings.Repeat("x", 16<<10)),
		"fragmented text": append(client(frame.Text, false, "ab"), client(frame.Continuation, true, "cd")...),
	} {
		wire := make([]byte, len(frames))
		once := func() {
			copy(wire, frames) // unmasking in place spoils it
			p.Write(wire)
			r.mem.Run()
			if len(p.Read()) == 0 {
				t.Fatal("no echo")
			}
		}
		once()
		if n := testing.AllocsPerRun(1000, once); n != 0 {
			t.Errorf("%s: %v allocations a message", name, n)
		}
	}
}

// TestSizes pins what a socket costs in the engine's tables, so that growth is a decision: docs/memory.md has the numbers.
func TestSizes(t *testing.T) {
	for name, c := range map[string]struct{ got, want uintptr }{
		"session":                         {engine.SessionSize, 64},
		"head that has not arrived whole": {engine.BegunSize, 16},
		"message under way":               {engine.MessageSize, 48},
		"buckets that are not full":       {engine.FlowSize, 80},
		"record of what waits":            {engine.LateSize, 80},
		"message that waits":              {engine.WaitingSize, 40},
		"client's name":                   {engine.NameSize, 32},
		"rest of a long name":             {engine.RestSize, 32},
		"place of who may have to go":     {engine.SeatSize, 24},
		"client that has such":            {engine.GroupSize, 24},
	} {
		if c.got != c.want {
			t.Errorf("a %s has %d bytes, want %d", name, c.got, c.want)
		}
	}
}
