package relay_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/feed/feedtest"
	"ticketgate/limiter"
)

// many are messages of all the lengths that matter.
func many(rnd *rand.Rand, n int) (all []feedtest.Message) {
	sizes := []int{0, 1, 30, 125, 126, 1000, 4095, 4096, 5000}
	for i := range n {
		op := frame.Binary
		if rnd.IntN(2) == 0 {
			op = frame.Text
		}
		text := strings.Repeat("x", sizes[rnd.IntN(len(sizes))])
		all = append(all, feedtest.Data(op, text+fmt.Sprint(i)[:min(len(text), 1)], 1))
	}
	return all
}

// TestRuns: many messages of one read pass both ways as they are and in their order, with limits and without, whatever fits into a
// queue.
func TestRuns(t *testing.T) {
	unlimited := limiter.Options{Rate: &limiter.Rate{N: 1 << 30, Per: time.Second}}
	for name, g := range map[string]feedtest.Options{
		"no limits":     {},
		"limits":        {Limits: map[string]limiter.Options{"messages-in": unlimited, "messages-out": unlimited, "bytes-in": unlimited, "bytes-out": unlimited}},
		"a small queue": {Queue: 6 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			k := newRig(t, options(), g)
			c, b := k.pair()
			rnd := rand.New(rand.NewPCG(1, 2))
			for range 30 {
				all := many(rnd, 1+rnd.IntN(100))
				for from, to := c, b; ; from, to = b, c {
					to.Window(1 << 22)
					var wire []byte
					for _, m := range all {
						wire = append(wire, from.Wire(true, m.Op, m.Text)...)
					}
					from.Write(wire)
					to.Expect(all...)
					if from == b {
						break
					}
				}
			}
			k.over(c, b)
		})
	}
}

// TestARunStopsWhereALimitAsksToWait: of the messages of one read no more than the limit's own go to the client before its time.
func TestARunStopsWhereALimitAsksToWait(t *testing.T) {
	k := newRig(t, options(), feedtest.Options{Limits: map[string]limiter.Options{
		"messages-out": {Rate: &limiter.Rate{N: 5, Per: time.Second}, WhenExceeded: "pause"}}})
	c, b := k.pair()
	var wire []byte
	for i := range 20 {
		wire = append(wire, b.Wire(true, frame.Text, fmt.Sprint(i))...)
	}
	b.Write(wire)
	got := len(c.Messages())
	if got < 5 || got > 6 {
		t.Errorf("%d messages at once, want 5 and the one that brought the debt", got)
	}
	for range 20 {
		k.Memory.Advance(time.Second / 4)
		for _, m := range c.Messages() {
			if m.Text != fmt.Sprint(got) {
				t.Fatalf("message %d is %q", got, m.Text)
			}
			got++
		}
	}
	if got != 20 {
		t.Errorf("%d of 20 messages in the end", got)
	}
}
