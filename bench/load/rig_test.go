package load_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"ticketgate/bench/load"
)

// The test program is also the worker that Run starts: LOAD_WORKER says how it ends.
func TestMain(m *testing.M) {
	how := os.Getenv("LOAD_WORKER")
	switch how {
	case "":
		os.Exit(m.Run())
	case "dies":
		fmt.Fprintln(os.Stderr, "no mood to work")
		os.Exit(3)
	case "babbles":
		for {
			_, _ = io.WriteString(os.Stdout, "blah blah blah")
		}
	case "sits": // until it is killed
		for {
			time.Sleep(time.Hour)
		}
	}
	runtime.LockOSThread() // its own waiting for its core is that of a thread
	var out io.Writer = os.Stdout
	if how == "falls" {
		out = falling{}
	}
	if err := load.Work(context.Background(), os.Stdin, out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if how == "fails" {
		fmt.Fprintln(os.Stderr, "lost at last")
		os.Exit(3)
	}
	os.Exit(0)
}

// falling is the reports of a worker that dies in its run.
type falling struct{}

func (falling) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(`"phase":"run"`)) {
		fmt.Fprintln(os.Stderr, "fell over")
		os.Exit(3)
	}
	return os.Stdout.Write(b)
}

// workers starts this program as workers and knows them.
type workers struct {
	how  []string // what LOAD_WORKER is, of one after the other; the last counts for all others
	cmds []*exec.Cmd
}

func (w *workers) start() *exec.Cmd {
	how := "works"
	if n := len(w.how); n > 0 {
		how = w.how[min(len(w.cmds), n-1)]
	}
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), "LOAD_WORKER="+how, "GORACE=atexit_sleep_ms=0") // the race detector takes a second to end
	w.cmds = append(w.cmds, c)
	return c
}

// ended says that want workers were started, and that all have exited by themselves and been waited for.
func (w *workers) ended(t *testing.T, want int) {
	t.Helper()
	if len(w.cmds) != want {
		t.Errorf("%d workers were started, want %d", len(w.cmds), want)
	}
	for i, c := range w.cmds {
		if c.ProcessState == nil {
			t.Errorf("worker %d was not waited for", i)
		} else if !c.ProcessState.Exited() {
			t.Errorf("worker %d had to be killed: %s", i, c.ProcessState)
		}
	}
}

// A server is a WebSocket server of another make.
type server struct {
	address  string
	accepted atomic.Int64
	most     atomic.Int64 // connections at once
	now      atomic.Int64
	came     chan struct{} // a hint that accepted has grown

	running sync.WaitGroup
	mu      sync.Mutex
	open    map[net.Conn]bool // nil: ended
}

// serve runs handle for each connection until the test ends.
func serve(t *testing.T, handle func(net.Conn)) *server {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{address: l.Addr().String(), came: make(chan struct{}, 1), open: make(map[net.Conn]bool)}
	s.running.Go(func() { s.accept(l, handle) })
	t.Cleanup(func() {
		l.Close()
		s.mu.Lock()
		for c := range s.open {
			c.Close()
		}
		s.open = nil
		s.mu.Unlock()
		s.running.Wait()
	})
	return s
}

func (s *server) accept(l net.Listener, handle func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.accepted.Add(1)
		s.most.Store(max(s.most.Load(), s.now.Add(1))) // only this goroutine stores it
		select {
		case s.came <- struct{}{}:
		default:
		}
		s.mu.Lock()
		if s.open == nil {
			s.mu.Unlock()
			c.Close()
			return
		}
		s.open[c] = true
		s.mu.Unlock()
		s.running.Go(func() {
			handle(c)
			s.mu.Lock()
			delete(s.open, c)
			s.mu.Unlock()
			c.Close()
			s.now.Add(-1)
		})
	}
}

// saw waits until n connections were accepted.
func (s *server) saw(t *testing.T, n int64) {
	t.Helper()
	late := time.After(patience)
	for s.accepted.Load() < n {
		select {
		case <-s.came:
		case <-late:
			t.Fatalf("the server saw %d connections of %d", s.accepted.Load(), n)
		}
	}
	if got := s.accepted.Load(); got != n {
		t.Errorf("the server saw %d connections, want %d", got, n)
	}
}

// answer upgrades and does what do says with each message.
func answer(do func(c net.Conn, op ws.OpCode, b []byte) error) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := ws.Upgrade(c); err != nil {
			return
		}
		for {
			b, op, err := wsutil.ReadClientData(c)
			if err != nil || do(c, op, b) != nil {
				return
			}
		}
	}
}

func echo(c net.Conn, op ws.OpCode, b []byte) error { return wsutil.WriteServerMessage(c, op, b) }

func mute(net.Conn, ws.OpCode, []byte) error { return nil }

// settings are for a short run of two workers against a server in this process.
func settings(verb, address string) load.Settings {
	return load.Settings{Verb: verb, Plain: "ws://" + address + "/", Sockets: 7, InFlight: 2, Size: 64, Duration: 400 * time.Millisecond, Settle: patience,
		Procs: 2, Lanes: 8, Seed: 1, PIDs: []int{os.Getpid()}}
}

// run is Run that has to work.
func run(t *testing.T, s load.Settings) *load.Result {
	t.Helper()
	var w workers
	said := 0
	r, err := load.Run(t.Context(), s, load.Env{Tool: "test", Command: []string{"test"}, Worker: w.start, Say: func(load.Progress) { said++ }})
	if err != nil {
		t.Fatal(err)
	}
	want := s.Procs + len(s.Attacks)
	if s.Verb == load.Relay {
		want += s.Procs
	}
	w.ended(t, want)
	if said == 0 && r.Took >= time.Second { // it is said every half second
		t.Error("no progress was said")
	}
	for _, p := range r.Series {
		if p.Seconds <= 0 || p.Open < 0 || s.Sockets > 0 && p.Open > s.Sockets || p.ClientRSS < 0 || p.Begun > r.Run.Begun+uint64(s.Sockets) || p.Done > r.Run.Done || p.Late > r.Run.Due {
			t.Errorf("a point of the series: %+v", p)
		}
	}
	return r
}

// addsUp says that everything that began has ended well, and was measured; what ended after the run counts in no rate.
func addsUp(t *testing.T, r *load.Result) {
	t.Helper()
	c := r.Run.Counts
	if c.Done == 0 || c.Begun != c.Done+r.Run.After || c.Due != c.Begun || len(r.Run.Errors) != 0 || r.Run.ErrorShare != 0 {
		t.Errorf("%+v, errors %v", c, r.Run.Errors)
	}
	if l := r.Run.Latency; l == nil || l.Count != c.Begun || l.Min > l.P50 || l.P50 > l.P99 || l.P99 > l.Max || l.Max > patience {
		t.Errorf("latency %+v of %d operations", l, c.Begun)
	}
	if rate := float64(c.Done) / r.Run.Took.Seconds(); r.Run.Rate != rate {
		t.Errorf("rate %v, want %v", r.Run.Rate, rate)
	}
}

// allDue says that want operations were due, no more, and that a machine too busy for them makes the run INVALID.
func allDue(t *testing.T, r *load.Result, want uint64) {
	t.Helper()
	if n := r.Run.Due; n > want || n < want*99/100 && r.Verdict != load.Invalid {
		t.Errorf("%d operations were due, want %d; %s", n, want, r.Verdict)
	}
}

// proxy copies bytes between its connections and address.
func proxy(t *testing.T, address string) *server {
	return serve(t, func(c net.Conn) {
		b, err := net.Dial("tcp4", address)
		if err != nil {
			return
		}
		defer b.Close()
		back := make(chan struct{})
		go func() { // it ends with b, and is waited for
			_, _ = io.Copy(c, b)
			c.Close()
			close(back)
		}()
		_, _ = io.Copy(b, c)
		b.Close()
		<-back
	})
}

// gone says that no process pid is left.
func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
