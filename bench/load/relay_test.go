package load

import (
	"fmt"
	"io"
	"syscall"
	"testing"

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
