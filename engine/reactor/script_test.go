package reactor_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ticketgate/engine/reactor"
	"ticketgate/internal/mono"
)

// script is a Handler made of the functions that a test cares about. Without data, everything is consumed.
type script struct {
	open    func(l *reactor.Loop, id reactor.ID)
	data    func(l *reactor.Loop, id reactor.ID, in []byte) int
	drained func(l *reactor.Loop, id reactor.ID)
	timer   func(l *reactor.Loop, id reactor.ID)
	closed  func(l *reactor.Loop, id reactor.ID, why reactor.Cause, err error)
	fault   func(l *reactor.Loop, id reactor.ID, v any)
}

func (s *script) Open(l *reactor.Loop, id reactor.ID) {
	if s.open != nil {
		s.open(l, id)
	}
}

func (s *script) Data(l *reactor.Loop, id reactor.ID, in []byte) int {
	if s.data != nil {
		return s.data(l, id, in)
	}
	return len(in)
}

func (s *script) Drained(l *reactor.Loop, id reactor.ID) {
	if s.drained != nil {
		s.drained(l, id)
	}
}

func (s *script) Timer(l *reactor.Loop, id reactor.ID) {
	if s.timer != nil {
		s.timer(l, id)
	}
}

func (s *script) Closed(l *reactor.Loop, id reactor.ID, why reactor.Cause, err error) {
	if s.closed != nil {
		s.closed(l, id, why, err)
	}
}

func (s *script) Fault(l *reactor.Loop, id reactor.ID, v any) {
	if s.fault != nil {
		s.fault(l, id, v)
	}
}

// echo answers what it reads.
func echo() *script {
	return &script{data: func(l *reactor.Loop, id reactor.ID, in []byte) int {
		if err := l.Write(id, in); err != nil {
			panic(err)
		}
		return len(in)
	}}
}

// twin returns a virtual machine with one loop, unless o says otherwise, around handlers.
func twin(t testing.TB, o reactor.Options, handlers ...reactor.Handler) (*reactor.Memory, *mono.Manual) {
	t.Helper()
	if o.Loops == 0 {
		o.Loops = 1
	}
	o.Handlers = handlers
	clock := mono.NewManual(time.Unix(1_700_000_000, 0))
	return reactor.NewMemory(o, clock), clock
}

var client = netip.MustParseAddrPort("192.0.2.7:4711")

// deaf connects n clients that take nothing.
func deaf(m *reactor.Memory, n int) (pipes []*reactor.Pipe) {
	for range n {
		p := m.Connect(client)
		p.Window(0)
		pipes = append(pipes, p)
	}
	m.Run()
	return pipes
}

// run lets f act on the loop of m, as a unit of work, and everything that follows happen. The Options need work below.
func run(m *reactor.Memory, f func(l *reactor.Loop)) {
	m.Reactor().Post(0, reactor.Work{P: f})
	m.Run()
}

// work is an Options.Work that runs the functions that run posts.
func work(l *reactor.Loop, w *reactor.Work) { w.P.(func(*reactor.Loop))(l) }

// diary collects what happened, one word an event.
type diary struct{ words []string }

func (d *diary) add(format string, args ...any) {
	d.words = append(d.words, fmt.Sprintf(format, args...))
}

// take returns the words since the last take.
func (d *diary) take() string {
	s := strings.Join(d.words, " ")
	d.words = nil
	return s
}

func (d *diary) expect(t *testing.T, want string) {
	t.Helper()
	if got := d.take(); got != want {
		t.Errorf("happened %q, want %q", got, want)
	}
}

func stats(r *reactor.Reactor) (s reactor.Stats) {
	r.Stats(&s)
	return s
}
