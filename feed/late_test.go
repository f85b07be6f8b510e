package feed_test

import (
	"testing"
	"time"

	"ticketgate/feed"
	"ticketgate/feed/feedtest"
	"ticketgate/limiter"
)

// TestLimitedReader: a reader whose limit is exceeded is one that does not keep up under delay, and the stream's rule decides; under
// drop-oldest its newest messages wait. Others notice nothing.
func TestLimitedReader(t *testing.T) {
	for _, c := range []struct {
		name, action string
		then         feed.Then
		want         string
	}{
		{"delay, close", "delay", feed.Close, "1 closed 4440"},
		{"delay, drop-oldest", "delay", feed.DropOldest, "1 2 gap 25 28 29"},
		{"delay, latest-only", "delay", feed.LatestOnly, "1 2 gap 27 30"},
		{"drop-oldest", "drop-oldest", feed.Close, "1 23 24 25"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := feed.NewHub(nil)
			limits := map[string]limiter.Options{"messages-out": {Rate: &limiter.Rate{N: 1, Per: time.Second}, WhenExceeded: c.action, Per: limiter.PerConnection}}
			g := feedtest.NewMemory(t, feedtest.Options{Stream: h.Stream(feed.Slow{Queue: 3*counts + 1, Then: c.then}), Limits: limits}, h.Bind)
			p := g.Client(t, "Sec-WebSocket-Protocol: ticketgate.v1\r\n")
			p.Opened()
			for n := 1; n <= 30; n++ {
				h.PublishText([]byte(numbered(n)))
				g.Memory.Run()
			}
			g.Memory.Advance(3100 * time.Millisecond)
			got := story(p)
			if c.action == "drop-oldest" {
				if got != "1 gap -1 23 24 25" { // the notice of the limit, once
					t.Errorf("got %q", got)
				}
				return
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
