package main

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"ticketgate/engine"
)

// TestEventLog writes all that came before close, drops what comes later, and does nothing unless debug lines are wanted.
func TestEventLog(t *testing.T) {
	var out bytes.Buffer
	l := newEventLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	peer := netip.MustParseAddr("203.0.113.9")
	const n = 1000
	for range n {
		l.add(engine.Event{Kind: engine.EventOpened, Conn: "c_1", Client: "ann", Stream: "chat", Ticket: "tkt_1", Peer: peer})
	}
	l.add(engine.Event{Kind: engine.EventRefused, Conn: "c_2", Reason: "forged", Peer: peer})
	l.add(engine.Event{Kind: engine.EventClosed, Conn: "c_1", Client: "ann", Stream: "chat", Code: 4429, By: engine.ByGateway, Reason: "limit:bytes-in", Peer: peer})
	l.close()
	l.add(engine.Event{Kind: engine.EventOpened, Conn: "late"})
	text := out.String()
	if got := strings.Count(text, `msg="connection opened" conn=c_1 peer=203.0.113.9 client=ann stream=chat ticket=tkt_1`); got != n {
		t.Errorf("%d lines of %d", got, n)
	}
	for _, want := range []string{
		`msg="connection refused" conn=c_2 peer=203.0.113.9 reason=forged`,
		`msg="connection closed" conn=c_1 peer=203.0.113.9 client=ann stream=chat code=4429 by=gateway reason=limit:bytes-in`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("missing: %s", want)
		}
	}
	if strings.Contains(text, "late") {
		t.Error("written after close")
	}

	out.Reset()
	l = newEventLog(slog.New(slog.NewTextHandler(&out, nil)))
	l.add(engine.Event{Kind: engine.EventOpened})
	l.close()
	if out.Len() > 0 {
		t.Errorf("debug lines that nobody asked for: %s", out.String())
	}
}

// TestEventLogFallsBehind: what does not fit is counted, and the log says so.
func TestEventLogFallsBehind(t *testing.T) {
	stuck := &stuckWriter{first: make(chan struct{}), free: make(chan struct{})}
	l := newEventLog(slog.New(slog.NewTextHandler(stuck, &slog.HandlerOptions{Level: slog.LevelDebug})))
	l.add(engine.Event{Kind: engine.EventOpened})
	<-stuck.first
	for range eventQueue + 3 {
		l.add(engine.Event{Kind: engine.EventOpened})
	}
	close(stuck.free)
	l.close()
	if got := stuck.out.String(); !strings.Contains(got, `msg="connection log fell behind" dropped=3`) {
		t.Error("nothing is said of what was dropped")
	}
}

// stuckWriter does not return from its first Write until free is closed.
type stuckWriter struct {
	out         bytes.Buffer
	first, free chan struct{}
	begun       bool
}

func (w *stuckWriter) Write(b []byte) (int, error) {
	if !w.begun {
		w.begun = true
		close(w.first)
		<-w.free
	}
	return w.out.Write(b)
}
