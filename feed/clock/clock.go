// Package clock is the built-in stream that tells the time: for trying out feeds and clients.
package clock

import (
	"bytes"
	"sync"
	"time"

	"ticketgate/feed"
	"ticketgate/internal/mono"
)

// Options are what a Clock is made of.
type Options struct {
	Every time.Duration // between two messages, more than 0
	Clock mono.Clock    // whose Wall is told; nil: mono.System
	Pad   int           // bytes of padding in each message, for those who want a load and not the time; 0: none

	// Tick returns a channel that gets a value every d, and what stops it; nil: time.NewTicker.
	Tick func(d time.Duration) (ticks <-chan time.Time, stop func())
}

// A Clock publishes {"time":"<RFC 3339 in UTC, nanoseconds>"}, with "pad" behind it if asked, as text while somebody listens. Sockets come to it by its Streams.
type Clock struct {
	*feed.Hub
	o    Options
	wake chan struct{} // somebody listens; one value stands for any number of them
	quit chan struct{}
	done sync.WaitGroup
	once sync.Once
}

// New returns a clock and starts its goroutine, which sleeps until the first subscriber comes. Give it Streams and Bind it
// before the engine starts. Close ends the goroutine.
func New(o Options) *Clock {
	if o.Clock == nil {
		o.Clock = mono.System
	}
	if o.Tick == nil {
		o.Tick = systemTick
	}
	c := &Clock{o: o, wake: make(chan struct{}, 1), quit: make(chan struct{})}
	c.Hub = feed.NewHub(c.listened)
	c.done.Go(c.run) // Close waits for it
	return c
}

func systemTick(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTicker(d)
	return t.C, t.Stop
}

// Close ends the clock. Subscribers stay and hear nothing more. Any goroutine but a loop's may call it, more than once,
// while the engine's loops still run.
func (c *Clock) Close() {
	c.once.Do(func() { close(c.quit) })
	c.done.Wait()
}

// listened wakes the goroutine. It runs on a loop.
func (c *Clock) listened() {
	select {
	case c.wake <- struct{}{}:
	default: // it has been woken already
	}
}

func (c *Clock) run() {
	for {
		select {
		case <-c.wake:
			c.tell()
		case <-c.quit:
			return
		}
	}
}

// tell publishes until nobody listens.
func (c *Clock) tell() {
	ticks, stop := c.o.Tick(c.o.Every)
	defer stop()
	for {
		select {
		case <-ticks:
			if c.Subscribers() == 0 {
				return
			}
			c.PublishText(c.text())
		case <-c.quit:
			return
		}
	}
}

// text is what the clock says now.
func (c *Clock) text() []byte {
	b := c.o.Clock.Wall().UTC().AppendFormat([]byte(`{"time":"`), time.RFC3339Nano)
	if c.o.Pad > 0 {
		b = append(append(b, `","pad":"`...), bytes.Repeat([]byte{'.'}, c.o.Pad)...)
	}
	return append(b, `"}`...)
}
