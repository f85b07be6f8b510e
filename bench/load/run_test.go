package load_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"ticketgate/bench/load"
	"ticketgate/internal/porttest"
)

const patience = 20 * time.Second // for what takes milliseconds: only a fault waits so long

// The process that listens on the server's port is the server. Not parallel: a worker of another test has its sockets for a moment.
func TestRunFindsServer(t *testing.T) {
	set := settings(load.Echo, serve(t, answer(echo)).address)
	set.PIDs, set.Duration, set.Procs = nil, 200*time.Millisecond, 1
	r := run(t, set)
	if r.Server == nil || !slices.Equal(r.Server.PIDs, []int{os.Getpid()}) || r.Server.Full <= 0 || r.Server.Most < r.Server.After {
		t.Errorf("server: %+v", r.Server)
	}
	if !slices.ContainsFunc(r.Notes, func(note string) bool { return strings.Contains(note, "same machine") }) {
		t.Errorf("notes %q", r.Notes)
	}
}

func TestRunEcho(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*load.Settings)
	}{
		{"closed", func(*load.Settings) {}},
		{"open", func(s *load.Settings) { s.Rate = "500" }},
		{"steps", func(s *load.Settings) { s.Rate = "100..900:200ms,500" }},
		{"poisson", func(s *load.Settings) { s.Rate, s.Poisson = "500", true }},
		{"empty messages", func(s *load.Settings) { s.Size = 0 }},
		{"large messages, opened slowly", func(s *load.Settings) { s.Size, s.Rate, s.Ramp = 100_000, "100", 50 }},
		{"larger than a read", func(s *load.Settings) { s.Size, s.Sockets, s.InFlight, s.Duration = 2<<20, 2, 1, 2*time.Second }},
		{"one process", func(s *load.Settings) { s.Procs, s.Sources = 1, []string{"127.0.0.2", "127.0.0.3"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, answer(echo))
			set := settings(load.Echo, s.address)
			c.change(&set)
			r := run(t, set)
			addsUp(t, r)
			n := set.Sockets
			s.saw(t, int64(n))
			if o := r.Opening; o.Wanted != n || o.Opened != uint64(n) || len(o.Errors) != 0 || o.Open.Count != uint64(n) || o.Ticket != nil {
				t.Errorf("opening: %+v", o)
			}
			if len(r.Series) == 0 {
				t.Error("no series")
			}
			switch set.Rate {
			case "":
				if r.Run.Wanted != 0 || r.Run.Schedule != nil {
					t.Errorf("closed: %v wanted, behind %+v", r.Run.Wanted, r.Run.Schedule)
				}
			case "500", "100..900:200ms,500": // each 200 in 400 ms
				if !set.Poisson {
					allDue(t, r, 200)
				}
				if r.Run.Wanted != 500 {
					t.Errorf("%v a second wanted", r.Run.Wanted)
				}
				if r.Run.Schedule == nil || r.Run.Schedule.Count != r.Run.Due {
					t.Errorf("behind %+v", r.Run.Schedule)
				}
			}
			if r.Client.Processes != set.Procs || r.Client.CPU <= 0 || r.Client.RSS <= 0 {
				t.Errorf("client: %+v", r.Client)
			}
		})
	}
}

// What goes wrong with a server has a name, and no other.
func TestRunFailures(t *testing.T) {
	for _, c := range []struct {
		name  string
		do    func(c net.Conn, op ws.OpCode, b []byte) error
		class string
		want  uint64 // errors; 0: some
	}{
		{"wrong answer", func(c net.Conn, op ws.OpCode, b []byte) error {
			b[len(b)-1] ^= 1
			return echo(c, op, b)
		}, "wrong_answer", 14},
		{"the first answer again", func() func(net.Conn, ws.OpCode, []byte) error {
			var mu sync.Mutex
			first := make(map[net.Conn][]byte)
			return func(c net.Conn, op ws.OpCode, b []byte) error {
				mu.Lock()
				defer mu.Unlock()
				if first[c] == nil {
					first[c] = b
				}
				return echo(c, op, first[c])
			}
		}(), "wrong_answer", 0},
		{"another's answer", func() func(net.Conn, ws.OpCode, []byte) error {
			var mu sync.Mutex
			var before []byte
			return func(c net.Conn, op ws.OpCode, b []byte) error {
				mu.Lock()
				defer mu.Unlock()
				before, b = b, before
				if b == nil {
					b = before
				}
				return echo(c, op, b)
			}
		}(), "wrong_answer", 0},
		{"too many answers", func(c net.Conn, op ws.OpCode, b []byte) error {
			return errors.Join(echo(c, op, b), echo(c, op, b), echo(c, op, b))
		}, "wrong_answer", 0},
		{"try again later", func(c net.Conn, _ ws.OpCode, _ []byte) error {
			return errors.Join(ws.WriteFrame(c, ws.NewCloseFrame(ws.NewCloseFrameBody(1013, "later"))), io.EOF)
		}, "close_1013", 14},
		{"no frame", func(c net.Conn, _ ws.OpCode, _ []byte) error {
			_, err := c.Write([]byte("\x81\x85masked"))
			return err
		}, "protocol", 14},
		{"reset", func(c net.Conn, _ ws.OpCode, _ []byte) error {
			return errors.Join(c.(*net.TCPConn).SetLinger(0), io.EOF)
		}, "reset", 14},
		{"no answer", mute, "no_answer", 14},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			set := settings(load.Echo, serve(t, answer(c.do)).address)
			set.Duration, set.Procs = 200*time.Millisecond, 1
			if c.class == "no_answer" {
				set.Settle = 200 * time.Millisecond
			}
			r := run(t, set)
			n := r.Run.Errors[c.class]
			if len(r.Run.Errors) != 1 || n == 0 || c.want != 0 && n != c.want {
				t.Errorf("errors %v, want %d of %s", r.Run.Errors, c.want, c.class)
			}
			if c.want != 0 && (r.Verdict == load.Done || !strings.Contains(strings.Join(r.Why, "; "), fmt.Sprintf("nothing was done: %d %s", c.want, c.class))) {
				t.Errorf("%s: %q", r.Verdict, r.Why)
			}
			if l := r.Run.Latency; c.want != 0 && (l == nil || l.Count != c.want || l.Min < set.Duration/2) {
				t.Errorf("latency %+v: what has no answer has waited to the end", l)
			}
			if r.Run.ErrorShare <= 0 || r.Run.ErrorShare > 1 {
				t.Errorf("a share of %v errors", r.Run.ErrorShare)
			}
			if c.want != 0 && (r.Run.Done != 0 || r.Run.Begun != 14 || r.Run.ErrorShare != 1) {
				t.Errorf("%+v, share of errors %v", r.Run.Counts, r.Run.ErrorShare)
			}
			if len(r.Opening.Errors) != 0 {
				t.Errorf("opening: %v", r.Opening.Errors)
			}
		})
	}
}

// A socket that is lost takes its own messages with it. Nobody waits for their answers, and the others go on.
func TestRunLosesOne(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	s := serve(t, func(c net.Conn) {
		do := echo
		if n.Add(1) == 3 {
			do = func(c net.Conn, _ ws.OpCode, _ []byte) error {
				return errors.Join(ws.WriteFrame(c, ws.NewCloseFrame(ws.NewCloseFrameBody(1013, "later"))), io.EOF)
			}
		}
		answer(do)(c)
	})
	set := settings(load.Echo, s.address)
	set.Procs = 1
	r := run(t, set)
	if c := r.Run.Counts; c.Begun != c.Done+r.Run.After+2 || c.Done == 0 || len(r.Run.Errors) != 1 || r.Run.Errors["close_1013"] != 2 {
		t.Errorf("%+v, errors %v", c, r.Run.Errors)
	}
	if r.Run.Lost != 1 || r.Run.Held != 6 || r.Verdict == load.Done || !strings.Contains(strings.Join(r.Why, "; "), "1 of 7 sockets were lost in the run: 2 close_1013") {
		t.Errorf("%s %q: %d lost, %d held", r.Verdict, r.Why, r.Run.Lost, r.Run.Held)
	}
	if r.Took >= set.Settle {
		t.Errorf("it took %v", r.Took)
	}
}

// Without a socket there is no run, and the result says why.
func TestRunOpensNothing(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	status := serve(t, func(c net.Conn) {
		_, _ = ws.ReadHeader(c)
		_, _ = io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
	})
	silent := serve(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	for _, c := range []struct{ name, address, want string }{
		{"refused", nobody, "7 refused"},
		{"status", status.address, "7 http_503"},
		{"no answer", silent.address, "7 timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := settings(load.Echo, c.address)
			set.Procs, set.Timeout = 1, 100*time.Millisecond
			if c.name != "no answer" {
				set.Timeout = patience
			}
			r := run(t, set)
			if why := strings.Join(r.Why, "; "); r.Verdict != load.Fail || !strings.HasPrefix(why, "none of 7 sockets could be opened: "+c.want) || r.Run.Begun != 0 {
				t.Errorf("%s: %s, %+v", r.Verdict, why, r.Run)
			}
		})
	}
}

// A worker that dies in the run takes its own operations with it. What the others did is told, and the run is no success.
func TestRunLosesWorkerInRun(t *testing.T) {
	t.Parallel()
	s := serve(t, answer(echo))
	w := workers{how: []string{"works", "falls"}}
	set := settings(load.Echo, s.address)
	set.Duration = 1500 * time.Millisecond // it reports, and falls, long before
	r, err := load.Run(t.Context(), set, load.Env{Worker: w.start})
	if err != nil {
		t.Fatal(err)
	}
	if why := strings.Join(r.Why, "; "); r.Verdict != load.Invalid || len(r.Broken) != 1 || !strings.Contains(why, "worker 1: exit status 3: fell over") || r.Run.Done == 0 {
		t.Errorf("%s: %s, %+v", r.Verdict, why, r.Run.Counts)
	}
	if r.Run.Held != 4 || r.Run.Lost != 3 || r.Series[len(r.Series)-1].Open != 4 { // of 7, 3 were its own
		t.Errorf("%d held, %d lost, %+v", r.Run.Held, r.Run.Lost, r.Series[len(r.Series)-1])
	}
	w.ended(t, 2)
}

// A request for a ticket that hangs is given up, and its connection is used for another.
func TestRunTicketsHang(t *testing.T) {
	t.Parallel()
	s := serve(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	set := settings(load.Tickets, s.address)
	set.Plain, set.Target, set.Key, set.Stream, set.Sockets = "", "http://"+s.address, "tgk_k", "echo", 0
	set.Procs, set.Lanes, set.Timeout, set.Duration = 1, 2, 100*time.Millisecond, time.Second
	r := run(t, set)
	if n := r.Run.Errors["timeout"]; n <= 2 || n != r.Run.Begun || r.Run.Done != 0 {
		t.Errorf("%+v, errors %v", r.Run.Counts, r.Run.Errors)
	}
}

// Sockets that could not be opened make a run FAIL, and do not hide in it.
func TestRunOpensSome(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	echoing := answer(echo)
	s := serve(t, func(c net.Conn) {
		if n.Add(1)%2 == 0 {
			return
		}
		echoing(c)
	})
	set := settings(load.Echo, s.address)
	set.Procs = 1
	r := run(t, set)
	addsUp(t, r)
	if o := r.Opening; o.Opened != 4 || o.Errors["ended"]+o.Errors["reset"] != 3 {
		t.Errorf("opening: %+v", o)
	}
	if why := strings.Join(r.Why, "; "); r.Verdict != load.Fail && r.Verdict != load.Invalid || !strings.Contains(why, "3 of 7 sockets could not be opened: ") {
		t.Errorf("%s: %s", r.Verdict, why)
	}
}

// What cannot be done is said before anything is started.
func TestRunRefuses(t *testing.T) {
	t.Parallel()
	none := func() *exec.Cmd { t.Error("a worker is started"); return exec.Command("/bin/false") }
	s := settings(load.Echo, "127.0.0.1:9")
	s.Sockets = 0
	if _, err := load.Run(t.Context(), s, load.Env{Worker: none}); err == nil {
		t.Error("no sockets: taken")
	}
	s = settings(load.Echo, "127.0.0.1:9")
	if _, err := load.Run(t.Context(), s, load.Env{Worker: func() *exec.Cmd { return exec.Command("/no/such/program") }}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no program: %v", err)
	}
	s.PIDs = []int{1 << 30}
	if _, err := load.Run(t.Context(), s, load.Env{Worker: none}); err == nil || !strings.Contains(err.Error(), "server process 1073741824") {
		t.Errorf("no such server: %v", err)
	}
}

// A server that goes is no reason to lose what was measured until then.
func TestRunServerGoes(t *testing.T) {
	t.Parallel()
	c := exec.Command("/bin/cat")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	set := settings(load.Echo, serve(t, answer(echo)).address)
	set.PIDs = []int{c.Process.Pid}
	var once sync.Once
	var w workers
	r, err := load.Run(t.Context(), set, load.Env{Worker: w.start, Say: func(p load.Progress) {
		once.Do(func() {
			_ = in.Close()
			_ = c.Wait()
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	w.ended(t, 2)
	if s := r.Server; s == nil || s.Before <= 0 || !strings.Contains(s.Gone, "server process ") || r.Run.Done == 0 {
		t.Errorf("%+v, %d done", s, r.Run.Done)
	}
	if r.Verdict == load.Done || !strings.Contains(strings.Join(r.Why, "; "), "the server did not stay: ") {
		t.Errorf("%s: %q", r.Verdict, r.Why)
	}
}

// A worker that is lost ends the run, and its last words are heard.
func TestRunLosesWorker(t *testing.T) {
	t.Parallel()
	s := serve(t, answer(echo))
	w := workers{how: []string{"works", "dies"}}
	r, err := load.Run(t.Context(), settings(load.Echo, s.address), load.Env{Worker: w.start})
	if r != nil || err == nil || !strings.Contains(err.Error(), "worker 1: ") {
		t.Errorf("%+v, %v", r, err)
	}
	w.ended(t, 2)

	set := settings("dance", s.address)
	set.Procs, w = 1, workers{}
	if _, err := load.Run(t.Context(), set, load.Env{Worker: w.start}); err == nil || !strings.Contains(err.Error(), `no verb "dance"`) {
		t.Errorf("a verb that there is not: %v", err)
	}
	w.ended(t, 1)
}

func TestRunConnect(t *testing.T) {
	t.Parallel()
	s := serve(t, func(c net.Conn) {
		if _, err := ws.Upgrade(c); err != nil {
			return
		}
		if ws.WriteFrame(c, ws.NewPingFrame([]byte("hello"))) != nil {
			return
		}
		_, _, _ = wsutil.ReadClientData(c)
	})
	r := run(t, settings(load.Connect, s.address))
	s.saw(t, 7)
	if r.Opening.Opened != 7 || len(r.Run.Errors) != 0 || r.Verdict != load.Done {
		t.Errorf("%s %q: %+v, errors %v", r.Verdict, r.Why, r.Opening, r.Run.Errors)
	}
	if line := strings.Join(r.Lines(), "\n"); !strings.Contains(line, "7 sockets held for ") {
		t.Errorf("%s", line)
	}
}

// A socket that is lost while it is held is an error.
// TestRunOpening: with one worker that opens at a time, all sockets of one come before those of the next.
func TestRunOpening(t *testing.T) {
	var mu sync.Mutex
	var from []string
	serves := answer(mute)
	s := serve(t, func(c net.Conn) {
		mu.Lock()
		from = append(from, c.RemoteAddr().(*net.TCPAddr).IP.String())
		mu.Unlock()
		serves(c)
	})
	set := settings(load.Connect, s.address)
	set.Procs, set.Sockets, set.Sources = 3, 30, []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"}
	var w workers
	r, err := load.Run(t.Context(), set, load.Env{Worker: w.start, Opening: 1})
	if err != nil {
		t.Fatal(err)
	}
	if r.Opening.Opened != 30 || len(from) != 30 || !slices.IsSorted(from) || len(slices.Compact(from)) != 3 {
		t.Errorf("%d opened, from %v", r.Opening.Opened, from)
	}
}

func TestRunConnectLoses(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	hold := make(chan struct{})
	s := serve(t, func(c net.Conn) {
		if _, err := ws.Upgrade(c); err != nil {
			return
		}
		if n.Add(1) == 3 {
			<-hold
			return
		}
		_, _, _ = wsutil.ReadClientData(c)
	})
	var w workers
	set := settings(load.Connect, s.address)
	set.Duration = 1500 * time.Millisecond
	var once sync.Once
	r, err := load.Run(t.Context(), set, load.Env{Worker: w.start, Say: func(p load.Progress) {
		if p.Phase == "run" {
			once.Do(func() { close(hold) })
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Run.Errors["ended"] != 1 || len(r.Run.Errors) != 1 || r.Run.ErrorShare != 1./7 || r.Series[len(r.Series)-1].Open != 6 {
		t.Errorf("errors %v, share %v, %d open at the end", r.Run.Errors, r.Run.ErrorShare, r.Series[len(r.Series)-1].Open)
	}
	w.ended(t, 2)
}

func TestRunChurn(t *testing.T) {
	for _, rate := range []string{"", "200"} {
		t.Run("rate "+rate, func(t *testing.T) {
			t.Parallel()
			s := serve(t, answer(echo))
			set := settings(load.Churn, s.address)
			set.Sockets, set.Rate, set.Lanes = 0, rate, 2
			r := run(t, set)
			c := r.Run.Counts
			slow := r.Run.Errors["no_connection"] // those for which a busy machine had no time left
			if c.Done == 0 || c.Begun != c.Done+r.Run.After || c.Due != c.Begun+slow || slow == 0 && len(r.Run.Errors) != 0 || rate == "" && slow != 0 {
				t.Errorf("%+v, errors %v", c, r.Run.Errors)
			}
			if rate != "" {
				allDue(t, r, 80)
			}
			s.saw(t, int64(c.Begun)) // one was accepted for each
			if c.Opened == 0 || c.Opened >= c.Begun || r.Run.Open == nil || r.Run.Open.Count < c.Opened || r.Run.Open.Count > c.Opened+r.Run.After {
				t.Errorf("%d of %d came to a 101, %+v", c.Opened, c.Begun, r.Run.Open)
			}
			if r.Opening.Wanted != 0 || r.Opening.Opened != 0 {
				t.Errorf("opening: %+v", r.Opening)
			}
		})
	}
}

// Every cycle of churn is an operation, and the time that it takes counts from when it was due.
func TestRunChurnLatency(t *testing.T) {
	t.Parallel()
	s := serve(t, answer(echo))
	set := settings(load.Churn, s.address)
	set.Sockets, set.Rate, set.Procs = 0, "200", 1
	r := run(t, set)
	if l := r.Run.Latency; l == nil || l.Count != r.Run.Begun {
		t.Errorf("%d operations, latency %+v", r.Run.Done, l)
	}
}

func TestRunRelay(t *testing.T) {
	for _, rate := range []string{"", "500"} {
		t.Run("rate "+rate, func(t *testing.T) {
			t.Parallel()
			backend := porttest.Free(t)
			set := settings(load.Relay, proxy(t, backend).address)
			set.Backend, set.Rate, set.Settle = backend, rate, 500*time.Millisecond
			r := run(t, set)
			addsUp(t, r)
			if b := r.Backend; b == nil || b.Processes != 2 || b.CPU <= 0 || b.Busiest <= 0 || len(b.Errors) != 0 {
				t.Errorf("backend: %+v", b)
			}
			if r.Run.In == nil || r.Run.In.Count != r.Run.Begun || r.Run.Out == nil || r.Run.Out.Count != r.Run.Begun {
				t.Errorf("%d done, in %+v, out %+v", r.Run.Done, r.Run.In, r.Run.Out)
			}
			if r.Opening.Opened != 7 {
				t.Errorf("opening: %+v", r.Opening)
			}
		})
	}
}

// Who listens where the backends are to listen would have a part of their connections.
func TestRunRelayTaken(t *testing.T) {
	t.Parallel()
	set := settings(load.Relay, "127.0.0.1:9")
	set.Backend = serve(t, answer(echo)).address
	none := func() *exec.Cmd { t.Error("a worker is started"); return exec.Command("/bin/false") }
	if _, err := load.Run(t.Context(), set, load.Env{Worker: none}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%v", err)
	}
}

// A backend that fails at the end is heard of, and the result is not lost: what it answered last may be.
func TestRunRelayLosesBackend(t *testing.T) {
	t.Parallel()
	backend := porttest.Free(t)
	set := settings(load.Relay, proxy(t, backend).address)
	set.Backend, set.Settle, set.Procs = backend, 100*time.Millisecond, 1
	w := workers{how: []string{"fails", "works"}}
	r, err := load.Run(t.Context(), set, load.Env{Worker: w.start})
	if err != nil || r.Verdict != load.Invalid || len(r.Broken) != 1 || !strings.Contains(strings.Join(r.Why, "; "), "lost at last") {
		t.Errorf("%+v, %v", r, err)
	}
}

// Attackers are as many as were ordered, come in the second half, and are counted when the server gets rid of them.
func TestRunHostile(t *testing.T) {
	for _, c := range []struct {
		attack string
		stays  bool // the server has no reason to close
	}{{"unmasked", false}, {"ping-flood", true}, {"slow-head", true}} {
		t.Run(c.attack, func(t *testing.T) {
			t.Parallel()
			s := serve(t, answer(echo))
			set := settings(load.Hostile, s.address)
			set.Attacks, set.Hostile, set.Rate, set.Duration, set.Procs = []string{c.attack}, 3, "200", 800*time.Millisecond, 1
			before := 100 // 200 a second, and half of the time
			if !c.stays { // in the other half the attackers come and are cut off, whatever else the machine does
				set.Duration, before = 5*time.Second, 550
			}
			r := run(t, set)
			addsUp(t, r)
			h := r.Hostile
			if h == nil || h.Before == nil || h.Under == nil || h.Before.Count+h.Under.Count > r.Run.Begun || !slices.Equal(h.Kinds, set.Attacks) {
				t.Fatalf("%+v", h)
			}
			if int(h.Before.Count) > before {
				t.Errorf("%d operations before the attack, %d under it", h.Before.Count, h.Under.Count)
			}
			if p := h.Peers[0]; len(h.Peers) != 1 || p.Kind != c.attack || p.Came < 3 || p.CutOff != h.CutOff || p.Came-p.CutOff != p.Open || len(p.Errors) != 0 || len(r.Why) != 0 && r.Verdict != load.Invalid {
				t.Errorf("%+v; %s %q", h.Peers, r.Verdict, r.Why)
			}
			if c.stays != (h.CutOff == 0) {
				t.Errorf("%d were cut off", h.CutOff)
			}
			if c.stays {
				if n := s.accepted.Load(); n != 7+3 {
					t.Errorf("%d connections for 7 honest sockets and 3 hostile ones", n)
				}
			} else if n := s.accepted.Load(); n < 7+3 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// A context that ends takes all workers with it: while sockets are opened, and in the run. What was measured until then is told.
func TestRunCancelled(t *testing.T) {
	var opened atomic.Int64
	for _, c := range []struct {
		name   string
		phase  string // in which it is ended
		handle func(net.Conn)
		opened uint64
		why    string
	}{
		{"before any socket", "open", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, 0, ""}, // no 101 ever
		{"some sockets", "open", func(c net.Conn) {
			if opened.Add(1) == 1 {
				answer(echo)(c)
			}
			_, _ = io.Copy(io.Discard, c)
		}, 1, "ended while sockets were being opened"},
		{"run", "run", answer(echo), 7, " of 1h0m0s"},
		{"relay", "run", nil, 7, " of 1h0m0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			set := settings(load.Echo, "")
			if set.Duration = time.Hour; c.handle == nil {
				set.Verb, set.Backend = load.Relay, porttest.Free(t)
				set.Plain = "ws://" + proxy(t, set.Backend).address + "/"
			} else {
				set.Plain = "ws://" + serve(t, c.handle).address + "/?token=hunter2"
			}
			var w workers
			r, err := load.Run(ctx, set, load.Env{Worker: w.start, Say: func(p load.Progress) {
				if p.Phase == c.phase && p.Open >= int(c.opened) {
					cancel()
				}
			}})
			w.ended(t, len(w.cmds))
			for _, cmd := range w.cmds {
				if !gone(cmd.Process.Pid) {
					t.Errorf("process %d is left", cmd.Process.Pid)
				}
			}
			if c.opened == 0 {
				if r != nil || !errors.Is(err, context.Canceled) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || r.Verdict != load.Interrupted || r.Opening.Opened != c.opened || len(r.Run.Errors) != 0 || len(r.Why) == 0 || !strings.Contains(r.Why[0], c.why) {
				t.Fatalf("%+v, %v", r, err)
			}
			if done := r.Run.Done; (c.phase == "run") != (done > 0) || r.Run.Begun != done+r.Run.After || r.Run.Took > time.Minute {
				t.Errorf("%+v in %s", r.Run.Counts, r.Run.Took)
			}
			never, err := load.ParseRequirements("rate<0")
			if err != nil || r.Judge(never) || r.Verdict != load.Interrupted || strings.Contains(r.Settings.Plain, "hunter2") {
				t.Errorf("%s of %s", r.Verdict, r.Settings.Plain)
			}
		})
	}
}

// A rate that no client reaches says nothing about the server.
func TestRunSaturated(t *testing.T) {
	set := settings(load.Echo, serve(t, answer(echo)).address)
	set.Rate, set.Duration, set.Settle, set.Procs = "5000000", time.Second, 100*time.Millisecond, 1
	r := run(t, set)
	if r.Verdict != load.Invalid || !strings.Contains(strings.Join(r.Why, "; "), "generator saturated") {
		t.Errorf("%s: %q, %+v", r.Verdict, r.Why, r.Run.Counts)
	}
	if r.Run.Late == 0 || r.Run.LateShare <= 0.01 || r.Run.Late > r.Run.Due {
		t.Errorf("%d of %d began late, a share of %v", r.Run.Late, r.Run.Due, r.Run.LateShare)
	}
	if r.Judge(nil) || r.Verdict != load.Invalid {
		t.Errorf("judged %s", r.Verdict)
	}
}

// Every ticketgate command starts with this package in it, and each worker: what attacks send is not made before it is sent.
func TestStartIsCheap(t *testing.T) {
	var w workers
	w.how = []string{"dies"}
	c := w.start()
	c.Env = append(c.Env, "GODEBUG=inittrace=1")
	out, _ := c.CombinedOutput() // it exits with 3
	for line := range strings.Lines(string(out)) {
		var at, took float64
		var bytes int
		if n, _ := fmt.Sscanf(line, "init ticketgate/bench/load @%f ms, %f ms clock, %d bytes", &at, &took, &bytes); n < 3 {
			continue
		}
		if bytes > 2<<20 {
			t.Errorf("the start of the package takes %.0f ms and %d bytes", took, bytes)
		}
		return
	}
	t.Errorf("no trace of the package's start: %s", out)
}
