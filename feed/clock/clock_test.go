package clock_test

import (
	"encoding/json"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ticketgate/feed"
	"ticketgate/feed/clock"
	"ticketgate/feed/feedtest"
	"ticketgate/internal/mono"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ticker is a clock's ticker in the hands of a test.
type ticker struct {
	ticks   chan time.Time
	started chan time.Duration
	stopped chan struct{}
}

func newTicker() *ticker {
	return &ticker{make(chan time.Time), make(chan time.Duration, 1), make(chan struct{}, 1)}
}

func (k *ticker) tick(d time.Duration) (<-chan time.Time, func()) {
	k.started <- d
	return k.ticks, func() { k.stopped <- struct{}{} }
}

func await[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(30 * time.Second):
		t.Fatalf("no %s within 30 s", what)
	}
	return v
}

func TestClockTellsTheTimeWhileSomebodyListens(t *testing.T) {
	k := newTicker()
	now := mono.NewManual(time.Date(2026, 11, 22, 13, 14, 15, 16, time.FixedZone("CET", 3600)))
	c := clock.New(clock.Options{Every: 250 * time.Millisecond, Clock: now, Tick: k.tick})
	g := feedtest.New(t, feedtest.Options{Stream: c.Stream(feed.Slow{Queue: 1 << 18})}, c.Bind)
	defer c.Close()
	select {
	case <-k.started:
		t.Fatal("the clock ticks for nobody")
	default:
	}
	for range 2 { // it stops behind the last listener and starts again with the next
		client := g.Dial(t)
		if d := await(t, "start", k.started); d != 250*time.Millisecond {
			t.Errorf("ticks every %v, want 250ms", d)
		}
		for range 3 {
			now.Advance(time.Second)
			k.ticks <- time.Time{}
			_, b, err := client.Read(g.Deadline)
			if err != nil {
				t.Fatal(err)
			}
			want := `{"time":"` + now.Wall().UTC().Format(time.RFC3339Nano) + `"}`
			if string(b) != want || !json.Valid(b) {
				t.Errorf("the clock says %s, want %s", b, want)
			}
		}
		if err := client.CloseNow(); err != nil {
			t.Fatal(err)
		}
		await(t, "end of the socket", g.Ended())
		k.ticks <- time.Time{}
		await(t, "stop", k.stopped)
	}
}

func TestPad(t *testing.T) {
	k := newTicker()
	c := clock.New(clock.Options{Every: time.Second, Clock: mono.NewManual(time.Unix(0, 0)), Tick: k.tick, Pad: 1000})
	g := feedtest.New(t, feedtest.Options{Stream: c.Stream(feed.Slow{Queue: 1 << 18})}, c.Bind)
	defer c.Close()
	client := g.Dial(t)
	await(t, "start", k.started)
	k.ticks <- time.Time{}
	_, b, err := client.Read(g.Deadline)
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Time, Pad string }
	if err := json.Unmarshal(b, &got); err != nil || len(got.Pad) != 1000 || got.Time != "1970-01-01T00:00:00Z" {
		t.Errorf("%v: %d bytes of padding, time %q", err, len(got.Pad), got.Time)
	}
}

func TestCloseEndsTheClock(t *testing.T) {
	k := newTicker()
	c := clock.New(clock.Options{Every: time.Second, Tick: k.tick})
	g := feedtest.New(t, feedtest.Options{Stream: c.Stream(feed.Slow{Queue: 1 << 18})}, c.Bind)
	g.Dial(t)
	await(t, "start", k.started)
	c.Close()
	await(t, "stop", k.stopped)
	c.Close() // again is harmless

	clock.New(clock.Options{Every: time.Second}).Close() // one that nobody ever heard
}

// TestSystemTicker: without a ticker of the test's the clock has its own.
func TestSystemTicker(t *testing.T) {
	c := clock.New(clock.Options{Every: time.Millisecond})
	g := feedtest.New(t, feedtest.Options{Stream: c.Stream(feed.Slow{Queue: 1 << 18})}, c.Bind)
	defer c.Close()
	client := g.Dial(t)
	var last time.Time
	for range 3 {
		_, b, err := client.Read(g.Deadline)
		if err != nil {
			t.Fatal(err)
		}
		var said struct{ Time time.Time }
		if err := json.Unmarshal(b, &said); err != nil || said.Time.Before(last) {
			t.Fatalf("the clock says %s after %v (%v)", b, last, err)
		}
		last = said.Time
	}
}
