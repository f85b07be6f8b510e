package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/engine/frame"
)

// What honest clients get, alone and beside those who misbehave: each socket has a message echoed every second, and new ones
// come 50 a second.

const (
	honestSockets    = 1000
	honestHandshakes = 50 // a second
	packedRepeats    = 20 // about 1 KiB
	baselineRuns     = 3
	baselineTime     = time.Minute
	baselineRoom     = 5 * time.Millisecond // "under 2xB" is under the larger of 2xB and B plus this
)

// crew is a run of honest clients.
type crew struct {
	stop context.CancelFunc
	done sync.WaitGroup

	lost, gone, refused atomic.Int64

	mu       sync.Mutex
	messages []time.Duration // from when a message was due to its echo
	opened   []time.Duration // from when a handshake was due to its 101
}

// honest lets sockets talk, and opens others, until stop.
func (c *cluster) honest(ctx context.Context, sockets []*socket) *crew {
	ctx, stop := context.WithCancel(ctx)
	h := &crew{stop: stop}
	for i, s := range sockets {
		first := honestEvery * time.Duration(i) / time.Duration(len(sockets))
		h.done.Go(func() { h.talk(ctx, i, s, first) })
	}
	h.done.Go(func() { h.arrive(ctx, c) })
	return h
}

// end waits for what is under way.
func (h *crew) end() {
	h.stop()
	h.done.Wait()
}

// due calls f at each moment that is a multiple of every after first, and tells it which; late calls follow at once.
func due(ctx context.Context, first, every time.Duration, f func(n int, at time.Time) bool) {
	begun := time.Now()
	wait := time.NewTimer(first)
	defer wait.Stop()
	for n := 0; ; n++ {
		at := begun.Add(first + time.Duration(n)*every)
		wait.Reset(time.Until(at))
		select {
		case <-wait.C:
		case <-ctx.Done():
			return
		}
		if !f(n, at) {
			return
		}
	}
}

func (h *crew) talk(ctx context.Context, i int, s *socket, first time.Duration) {
	var took []time.Duration
	due(ctx, first, honestEvery, func(n int, at time.Time) bool {
		text := fmt.Sprintf("socket %d message %d", i, n)
		if s.packs {
			text = strings.Repeat(text+" is long enough to be compressed; ", packedRepeats)
		}
		err := s.echo(text)
		switch {
		case err == nil:
			took = append(took, time.Since(at))
		case errors.Is(err, errLost):
			h.lost.Add(1)
		default:
			h.gone.Add(1)
			return false
		}
		return true
	})
	h.mu.Lock()
	h.messages = append(h.messages, took...)
	h.mu.Unlock()
}

// arrive opens sockets and closes them again.
func (h *crew) arrive(ctx context.Context, c *cluster) {
	due(ctx, 0, time.Second/honestHandshakes, func(n int, at time.Time) bool {
		h.done.Go(func() {
			s, err := c.open(ctx, 0, request{Stream: "echo", Client: "visitor" + strconv.Itoa(n%100)})
			took := time.Since(at)
			if err != nil {
				if ctx.Err() == nil {
					h.refused.Add(1)
				}
				return
			}
			h.mu.Lock()
			h.opened = append(h.opened, took)
			h.mu.Unlock()
			_ = s.send(frame.Close, nil) // whatever the gate says to it, the socket ends here
			_ = s.Close()
		})
		return true
	})
}

// p99 are those of messages and handshakes.
func (h *crew) p99() (message, handshake time.Duration) {
	return quantile(h.messages, 0.99), quantile(h.opened, 0.99)
}

// baseline are the p99 of honest clients alone: B, the median of three runs.
type baseline struct{ message, handshake time.Duration }

// baseline measures B with sockets, for a minute each time or as long as the exam says.
func (c *cluster) baseline(ctx context.Context, x *exam, sockets []*socket) (b baseline, err error) {
	var messages, handshakes []time.Duration
	for range baselineRuns {
		h := c.honest(ctx, sockets)
		err := rest(ctx, x.lasting(baselineTime))
		h.end()
		if err != nil {
			return b, err
		}
		if n := h.lost.Load() + h.gone.Load() + h.refused.Load(); n > 0 {
			return b, fmt.Errorf("%d honest clients did not get what they asked for before anything was wrong", n)
		}
		m, o := h.p99()
		messages, handshakes = append(messages, m), append(handshakes, o)
	}
	slices.Sort(messages)
	slices.Sort(handshakes)
	b = baseline{messages[baselineRuns/2], handshakes[baselineRuns/2]}
	x.figure("B: %d honest sockets, p99 of a message %v, of %d handshakes a second %v", len(sockets), b.message.Round(time.Microsecond),
		honestHandshakes, b.handshake.Round(time.Microsecond))
	return b, nil
}

// judge wants that honest clients had about what they have alone, and lost nothing.
func (h *crew) judge(x *exam, b baseline) {
	m, o := h.p99()
	x.figure("honest: %d messages, p99 %v, lost %d, sockets lost %d; %d handshakes, p99 %v, refused %d", len(h.messages), m.Round(time.Microsecond),
		h.lost.Load(), h.gone.Load(), len(h.opened), o.Round(time.Microsecond), h.refused.Load())
	x.want(h.lost.Load() == 0 && h.gone.Load() == 0, "honest: %d messages and %d sockets lost", h.lost.Load(), h.gone.Load())
	x.want(h.refused.Load() == 0, "%d honest handshakes refused", h.refused.Load())
	for _, w := range []struct {
		what      string
		got, base time.Duration
	}{{"message", m, b.message}, {"handshake", o, b.handshake}} {
		limit := max(2*w.base, w.base+baselineRoom)
		x.wantTime(w.got <= limit, "honest %s p99 %v, want at most %v", w.what, w.got, limit)
	}
}

// lasting is how long a measurement goes on: the exam's own time d, unless -duration says otherwise.
func (x *exam) lasting(d time.Duration) time.Duration {
	if x.duration > 0 {
		return x.duration
	}
	return d
}

// rest waits for d, or ctx.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
