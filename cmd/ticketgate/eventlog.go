package main

import (
	"context"
	"log/slog"
	"sync/atomic"

	"ticketgate/engine"
)

// eventQueue is how many events wait for the log at most; about 160 bytes each.
const eventQueue = 8192

// eventLog brings the loops' events to the log. The loops never wait for it: what does not fit is counted and dropped.
type eventLog struct {
	log     *slog.Logger
	queue   chan engine.Event
	quit    chan struct{}
	done    chan struct{}
	dropped atomic.Uint64
}

func newEventLog(log *slog.Logger) *eventLog {
	e := &eventLog{log: log, quit: make(chan struct{}), done: make(chan struct{})}
	if e.wanted() {
		e.queue = make(chan engine.Event, eventQueue) // 1.3 MB that every collection looks through
	}
	go e.run()
	return e
}

// wanted reports whether the log has a level at which events are written.
func (e *eventLog) wanted() bool { return e.log.Enabled(context.Background(), slog.LevelDebug) }

// hook is engine.Options.Event: add, or nil if nobody would read what it adds.
func (e *eventLog) hook() func(engine.Event) {
	if !e.wanted() {
		return nil
	}
	return e.add
}

// add takes one event. Opened and closed sockets are debug lines, refusals are too: at a million sockets whoever
// wants them all asks for them.
func (e *eventLog) add(v engine.Event) {
	if !e.wanted() {
		return
	}
	select {
	case e.queue <- v:
	default:
		e.dropped.Add(1)
	}
}

func (e *eventLog) run() {
	defer close(e.done)
	for {
		select {
		case v := <-e.queue:
			e.write(&v)
		case <-e.quit:
			e.rest()
			return
		}
	}
}

// rest writes what waits.
func (e *eventLog) rest() {
	for {
		select {
		case v := <-e.queue:
			e.write(&v)
		default:
			return
		}
	}
}

func (e *eventLog) write(v *engine.Event) {
	args := []any{"conn", v.Conn, "peer", v.Peer.String()}
	if v.Client != "" {
		args = append(args, "client", v.Client, "stream", v.Stream)
	}
	switch v.Kind {
	case engine.EventOpened:
		e.log.Debug("connection opened", append(args, "ticket", v.Ticket)...)
	case engine.EventRefused:
		e.log.Debug("connection refused", append(args, "reason", v.Reason, "request_id", v.Request)...)
	case engine.EventClosed:
		e.log.Debug("connection closed", append(args, "code", uint16(v.Code), "by", v.By.String(), "reason", v.Reason)...)
	}
	if n := e.dropped.Swap(0); n > 0 {
		e.log.Warn("connection log fell behind", "dropped", n)
	}
}

// close writes what waits and ends. What loops that could not be stopped in time still add is lost. It is called once.
func (e *eventLog) close() {
	close(e.quit)
	<-e.done
}
