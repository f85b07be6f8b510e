package load

import (
	"fmt"
	"io"
	"slices"
	"syscall"
	"testing"
	"time"

	"ticketgate/bench"
)

// A backend's socket that there was no descriptor for is told of; one that its client has ended is not.
func TestBackendCounts(t *testing.T) {
	w := newWorker(t, nil)
	s := &servedSocket{w: w}
	s.Closed(nil, io.EOF)
	if len(w.errors) != 0 {
		t.Errorf("errors %v", w.errors)
	}
	s.Closed(nil, fmt.Errorf("bench: accept: %w", syscall.EMFILE))
	if len(w.errors) != 1 || w.errors["no_file"] != 1 {
		t.Errorf("errors %v", w.errors)
	}
}

// Backends have room for what the kernel gives one of them more than another.
func TestPreflightRelay(t *testing.T) {
	files, err := bench.Files()
	if err != nil {
		t.Fatal(err)
	}
	s := plainEcho()
	s.Procs, s.Sockets = 0, files-filesBeside-s.Lanes
	if _, _, err := s.Preflight(); err != nil || s.Procs != 1 {
		t.Errorf("echo: %d processes, %v", s.Procs, err)
	}
	s.Verb, s.Procs = Relay, 0
	if _, _, err := s.Preflight(); err != nil || s.Procs != 2 {
		t.Errorf("relay: %d processes, %v", s.Procs, err)
	}
}

// An answer of a relay that comes twice, out of order, or on another's socket is wrong, whatever time it tells.
func TestRelayAnswers(t *testing.T) {
	w := newWorker(t, func() time.Duration { return time.Minute })
	w.job.Size = 64
	r := newRelay(w)
	socket := func() *relaySocket {
		s := &relaySocket{r: r}
		s.due, s.label = s.one[:0], r.label()
		return s
	}
	answer := func(of *relaySocket, message uint32) bench.Frame {
		p := slices.Clone(r.payload)
		putStamp(p[stampClient:], time.Second)
		putStamp(p[stampServer:], 2*time.Second)
		of.label.put(p[stampsEnd:], message)
		return bench.Frame{Op: bench.OpText, Fin: true, Payload: p}
	}
	a, b := socket(), socket()
	for _, s := range []*relaySocket{a, b} {
		s.due = append(s.due, time.Second, time.Second) // a closed loop: both at once
	}
	r.missing, w.job.Schedule = 4, new(Schedule)
	if err := a.answer(answer(a, 1)); err == nil {
		t.Error("the second before the first: taken")
	}
	if err := a.answer(answer(b, 0)); err == nil {
		t.Error("another's: taken")
	}
	if err := a.answer(answer(a, 0)); err != nil {
		t.Error(err)
	}
	if err := a.answer(answer(a, 0)); err == nil {
		t.Error("the same again: taken")
	}
	if err := a.answer(answer(a, 1)); err != nil || r.missing != 2 || w.Done != 2 {
		t.Errorf("%v, %d are missing, %d done", err, r.missing, w.Done)
	}
}
