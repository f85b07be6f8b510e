package relay_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/feed/feedtest"
)

// TestDelayOfWhatGoesOut: a message over the limit comes when it fits, and the backend is not read meanwhile.
func TestDelayOfWhatGoesOut(t *testing.T) {
	k := newRig(t, options(), limit("messages-out", "1/1second", "delay"))
	c, b := k.pair()
	for i := range 6 {
		b.Text(fmt.Sprint(i))
	}
	c.Expect(feedtest.Data(frame.Text, "0", 1))
	b.Text("6") // stays with the backend
	k.Memory.Run()
	if b.Pending() == 0 {
		t.Error("the backend is still read")
	}
	k.Memory.Advance(40 * time.Millisecond) // two ticks of the wheel
	for i := 1; i < 7; i++ {
		k.Memory.Advance(900 * time.Millisecond)
		c.Expect()
		k.Memory.Advance(100 * time.Millisecond)
		c.Expect(feedtest.Data(frame.Text, fmt.Sprint(i), 1))
	}
	k.over(c, b)
}

// TestDelayOfALongFrame: a message that does not come whole waits as a whole; what brings the rest of it is still read.
func TestDelayOfALongFrame(t *testing.T) {
	for _, action := range []string{"delay", "drop-oldest"} {
		k := newRig(t, options(), limit("messages-out", "1/1second", action))
		c, b := k.pair()
		b.Text("0")
		c.Expect(feedtest.Data(frame.Text, "0", 1))
		long := strings.Repeat("x", 40_000)
		wire := b.Wire(true, frame.Binary, long)
		for len(wire) > 0 {
			n := min(len(wire), 7000)
			b.Write(wire[:n])
			k.Memory.Run()
			wire = wire[n:]
		}
		b.Text("2")
		c.Expect()
		k.Memory.Advance(1040 * time.Millisecond)
		got := c.Messages()
		if len(got) != 1 || got[0].Text != long || got[0].Op != frame.Binary {
			t.Errorf("%s: after a second %d messages", action, len(got))
		}
		k.Memory.Advance(time.Second)
		c.Expect(feedtest.Data(frame.Text, "2", 1))
		k.over(c, b)
	}
}

// TestDropOldestOfWhatGoesOut: the backend is read on, and of what it says the newest eight wait.
func TestDropOldestOfWhatGoesOut(t *testing.T) {
	k := newRig(t, options(), limit("messages-out", "1/1second", "drop-oldest"))
	c, b := k.pair()
	for i := range 40 {
		b.Text(fmt.Sprint(i))
	}
	c.Expect(feedtest.Data(frame.Text, "0", 1))
	if b.Pending() != 0 {
		t.Error("the backend is not read")
	}
	k.Memory.Advance(40 * time.Millisecond)
	for i := 32; i < 40; i++ {
		k.Memory.Advance(time.Second)
		c.Expect(feedtest.Data(frame.Text, fmt.Sprint(i), 1))
	}
	k.Memory.Advance(5 * time.Second)
	c.Expect()
	k.over(c, b)
}
