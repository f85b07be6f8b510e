package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ticketgate/bench"
	"ticketgate/internal/mono"
)

const patience = 5 * time.Second // for what takes milliseconds: only a fault waits so long

// A hand is Work in this process, and what it is told and tells.
type hand struct {
	t     *testing.T
	in    *io.PipeWriter
	lines *json.Decoder
	end   chan error
}

func work(t *testing.T, j Job) *hand {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	in, tell := io.Pipe()
	hear, out := io.Pipe()
	h := &hand{t: t, in: tell, lines: json.NewDecoder(hear), end: make(chan error, 1)}
	go func() { // the test waits for its end
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := Work(ctx, in, out)
		out.CloseWithError(io.EOF)
		h.end <- err
	}()
	t.Cleanup(func() { _ = tell.Close() })
	b, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	h.say(string(b))
	return h
}

func (h *hand) say(line string) {
	h.t.Helper()
	if _, err := io.WriteString(h.in, line+"\n"); err != nil {
		h.t.Fatal(err)
	}
}

// until reads reports up to one of phase.
func (h *hand) until(phase string) Report {
	h.t.Helper()
	for {
		var r Report
		if err := h.lines.Decode(&r); err != nil {
			h.t.Fatalf("no report of %s: %v", phase, err)
		}
		if r.Fatal != "" {
			h.t.Fatal(r.Fatal)
		}
		if r.Phase == phase {
			return r
		}
	}
}

// over reads all other reports and returns the error that the work ended with.
func (h *hand) over() error {
	for {
		var r Report
		if err := h.lines.Decode(&r); err != nil {
			return <-h.end
		}
	}
}

// silent is a server that accepts and says nothing.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0") // the kernel accepts
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// The order to stop is obeyed at once, in every phase, while the process that gave it still listens.
func TestWorkStops(t *testing.T) {
	job := Job{Verb: Echo, Share: 1, Thread: -1, Lanes: 1, InFlight: 1, Size: 10, Every: 10 * time.Millisecond, For: time.Hour, Settle: time.Hour}
	for _, c := range []struct {
		name   string
		change func(*Job)
		phase  string
	}{
		{"while sockets are opened", func(j *Job) { j.Plain, j.Host, j.Path, j.Sockets = silent(t), "h", "/", 1 }, phaseOpen},
		{"before the run", func(*Job) {}, phaseReady},
		{"in the run", func(*Job) {}, phaseRun},
		// Its clients are done when it is told to stop: there is nothing to wait for.
		{"as a backend", func(j *Job) { j.Verb, j.Listen = backend, "127.0.0.1:0" }, phaseRun},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := job
			c.change(&j)
			h := work(t, j)
			if c.phase == phaseRun {
				h.until(phaseReady)
				h.say(fmt.Sprintf(`{"start":%d}`, mono.System.Now()))
			}
			h.until(c.phase)
			h.say(`{"stop":true}`)
			if err := h.over(); err != nil {
				t.Errorf("%v", err)
			}
		})
	}
}

// A worker whose starter is gone ends too.
func TestWorkAlone(t *testing.T) {
	j := Job{Verb: Echo, Share: 1, Thread: -1, Lanes: 1, InFlight: 1, Size: 10, Every: 10 * time.Millisecond, For: time.Hour, Settle: 0}
	h := work(t, j)
	h.until(phaseReady)
	_ = h.in.Close()
	if err := h.over(); err == nil || !strings.Contains(err.Error(), errAlone.Error()) {
		t.Errorf("%v", err)
	}
}

func TestWorkRefuses(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"", "this is no job"},
		{"hello\n", "this is no job"},
		{`{"thread":-1}` + "\n", `no verb ""`},
		{`{"verb":"dance","thread":-1}` + "\n", `no verb "dance"`},
		{`{"verb":"attack","attack":"smurf","thread":-1}` + "\n", `no attack "smurf": there are garbage`},
		{`{"verb":"echo","source":["::1"],"thread":-1}` + "\n", "not IPv4"},
	} {
		if err := Work(t.Context(), strings.NewReader(c.line), io.Discard); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %s", c.line, err, c.want)
		}
	}
}

// The points of the run count what came in the run, whatever came while sockets were opened.
func TestPoints(t *testing.T) {
	p := &proc{verb: Echo}
	r := &runner{s: plainEcho(), procs: []*proc{p}, result: &Result{}, open: make(hists), run: make(hists), part: make(hists), calm: make(hists), storm: make(hists)}
	hear := func(phase string, c Counts, errors map[string]uint64) Point {
		t.Helper()
		if err := r.hear(said{report: Report{Phase: phase, Open: 5, Counts: c, Errors: errors}}); err != nil {
			t.Fatal(err)
		}
		r.lastT = time.Duration(mono.System.Now()) - time.Second
		if err := r.point(); err != nil {
			t.Fatal(err)
		}
		return r.result.Series[len(r.result.Series)-1]
	}
	check := func(got, want Point) {
		t.Helper()
		if got.Phase != want.Phase || got.Open != 5 || got.Begun != want.Begun || got.Done != want.Done || got.Late != want.Late || got.Errors != want.Errors {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	check(hear(phaseOpen, Counts{Begun: 4, Late: 1, Opened: 5}, map[string]uint64{"refused": 1}), Point{Phase: phaseOpen, Begun: 4, Late: 1, Errors: 1})
	check(hear(phaseReady, Counts{Begun: 10, Late: 3, Opened: 5}, map[string]uint64{"refused": 2}), Point{Phase: phaseOpen, Begun: 6, Late: 2, Errors: 1})
	r.begin(time.Duration(mono.System.Now()))
	check(hear(phaseRun, Counts{Begun: 110, Done: 90, Late: 4, Opened: 5}, map[string]uint64{"refused": 2, "reset": 7}), Point{Phase: phaseRun, Begun: 100, Done: 90, Late: 1, Errors: 7})
	check(hear(phaseRun, Counts{Begun: 150, Done: 140, Late: 4, Opened: 5}, map[string]uint64{"refused": 3, "reset": 7}), Point{Phase: phaseRun, Begun: 40, Done: 50, Errors: 1})
	if c := r.counts(); c.Begun != 140 || c.Done != 140 || c.Late != 1 || c.Opened != 0 {
		t.Errorf("of the run: %+v", c)
	}
	if errs := r.errors(); len(errs) != 2 || errs["refused"] != 1 || errs["reset"] != 7 {
		t.Errorf("of the run: %v", errs)
	}
}

// A kernel that does not say how long a thread waits for its core is no reason not to work; anything else that is wrong is.
func TestWaitOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want error
	}{{nil, nil}, {fs.ErrNotExist, nil}, {&fs.PathError{Err: syscall.EACCES}, nil}, {io.EOF, io.EOF}} {
		d, err := waitOf(func() (time.Duration, error) { return 5, c.err })
		if !errors.Is(err, c.want) || c.err == nil && d != 5 || c.err != nil && c.want == nil && d != 0 {
			t.Errorf("%v: %v, %v", c.err, d, err)
		}
	}
}

// What is done and used after the end of the run, and the sockets that close then, belong to no figure but latencies and errors.
func TestEnded(t *testing.T) {
	p, b := &proc{verb: Echo}, &proc{verb: backend, used: time.Second, wait: time.Second}
	b.last = Report{Phase: phaseRun, At: 4 * time.Second, Used: 3 * time.Second, Waited: 2 * time.Second, Errors: map[string]uint64{classFiles: 2}}
	r := &runner{s: plainEcho(), procs: []*proc{p, b}, result: &Result{Settings: plainEcho(), Kernel: new([2]Slab)}, open: make(hists), run: make(hists), part: make(hists),
		start: 1, lastT: 1}
	r.s.Sockets = 5
	hear := func(phase string, at time.Duration, used time.Duration, open int, c Counts, errors map[string]uint64) {
		t.Helper()
		if err := r.hear(said{report: Report{Phase: phase, At: at, Used: used, RSS: int64(open), Open: open, Counts: c, Errors: errors}}); err != nil {
			t.Fatal(err)
		}
	}
	hear(phaseReady, 0, time.Second, 5, Counts{Opened: 5}, nil)
	hear(phaseReady, 0, 2*time.Second, 4, Counts{Opened: 5, Lost: 1}, map[string]uint64{"ended": 1}) // between being ready and the start
	hear(phaseRun, time.Second, 3*time.Second, 4, Counts{Begun: 60, Done: 50, Opened: 5, Lost: 1}, map[string]uint64{"ended": 1})
	hear(phaseSettle, 2*time.Second, 3900*time.Millisecond, 3, Counts{Due: 100, Late: 3, Begun: 100, Done: 80, Opened: 5, Lost: 2}, map[string]uint64{"ended": 1, "reset": 2})
	hear(phaseSettle, 3*time.Second, 3950*time.Millisecond, 2, Counts{Begun: 100, Done: 90, Opened: 5, Lost: 3}, map[string]uint64{"ended": 1, "reset": 2}) // while others are at it
	if !r.clientsEnded() || r.clientsDone() {
		t.Fatal("the run is not over, or all is")
	}
	if err := r.ended(); err != nil {
		t.Fatal(err)
	}
	hear(phaseDone, 7*time.Second, 4*time.Second, 0, Counts{Begun: 100, Done: 92, Opened: 5, Lost: 5}, map[string]uint64{"ended": 1, "reset": 2, "no_answer": 6, "no_port": 4})
	points := len(r.result.Series)
	if err := errors.Join(r.point(), r.ran()); err != nil {
		t.Fatal(err)
	}
	run, o := r.result.Run, r.result.Opening
	if run.Begun != 100 || run.Done != 80 || run.After != 12 || run.Rate != 40 || run.Took != 2*time.Second {
		t.Errorf("%+v", run)
	}
	if o.Opened != 4 || o.Lost != 1 || o.Errors["ended"] != 1 || run.Lost != 1 || run.Held != 3 {
		t.Errorf("%+v, %d lost, %d held", o, run.Lost, run.Held)
	}
	if len(run.Errors) != 3 || run.Errors["reset"] != 2 || run.Errors["no_answer"] != 6 || run.ErrorShare != 0.08 { // without those of the client itself
		t.Errorf("%v, a share of %v", run.Errors, run.ErrorShare)
	}
	if c := r.result.Client; c.CPU != 1900*time.Millisecond || c.Busiest != 0.95 || c.RSS != 3 || c.Late != 0.03 {
		t.Errorf("%+v", c)
	}
	if b := r.result.Backend; b == nil || b.Processes != 1 || b.Busiest != 0.75 || b.CPU != 2*time.Second || b.Errors[classFiles] != 2 {
		t.Errorf("backend %+v", b)
	}
	if len(r.result.Series) != points {
		t.Error("a point after the end")
	}
}

// A long series loses points, and nothing of what they count.
func TestHalved(t *testing.T) {
	p := func(phase string, at time.Duration, n uint64, level float64) Point {
		return Point{Phase: phase, At: at, Begun: n, Done: n, Errors: n, Late: n, Seconds: 1, Client: level, Server: level, P50: time.Duration(level), P99: time.Duration(n), Max: time.Duration(n), RSS: int64(n)}
	}
	two := func(phase string, at time.Duration, n uint64, most int64, p50 time.Duration) Point {
		return Point{Phase: phase, At: at, Begun: n, Done: n, Errors: n, Late: n, Seconds: 2, Client: 3, Server: 3, P50: p50, P99: time.Duration(most), Max: time.Duration(most), RSS: 2}
	}
	got := halved([]Point{p(phaseOpen, 1, 1, 2), p(phaseOpen, 2, 2, 4), p(phaseOpen, 3, 3, 3), p(phaseRun, 4, 5, 2), p(phaseRun, 5, 2, 4)})
	want := []Point{two(phaseOpen, 2, 3, 2, 4), p(phaseOpen, 3, 3, 3), two(phaseRun, 5, 7, 5, 2)}
	if !slices.Equal(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	r := &runner{s: plainEcho(), result: &Result{Series: make([]Point, seriesMost-1)}, part: make(hists)}
	if err := r.point(); err != nil {
		t.Fatal(err)
	}
	if n := len(r.result.Series); n > seriesMost/2+1 || r.every != 2*pointEvery {
		t.Errorf("%d points, one each %v", n, r.every)
	}
	said := 0
	r.env.Say = func(Progress) { said++ }
	if err := r.point(); err != nil || len(r.result.Series) > seriesMost/2+1 {
		t.Errorf("%v, %d points: too early for another", err, len(r.result.Series))
	}
	for range 2 { // all the same it is said how far it is, but not twice at a time
		if err := r.say(); err != nil || said != 1 {
			t.Errorf("%v, said %d times", err, said)
		}
	}
}

// held upgrades the first connection of l and answers its first message when told to. Told again it pings, which the client has to
// answer, and returns nil when the client has closed the connection.
func held(l net.Listener, told <-chan struct{}, alive chan<- struct{}) error {
	defer close(alive)
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	answer, _, err := bench.AppendAnswer(nil, buf[:n])
	if err != nil {
		return err
	}
	if _, err := c.Write(answer); err != nil {
		return err
	}
	if n, err = c.Read(buf); err != nil {
		return err
	}
	f, _, err := bench.ParseMasked(buf[:n])
	if err != nil {
		return err
	}
	<-told
	if _, err := c.Write(bench.AppendAs(nil, f)); err != nil {
		return err
	}
	<-told
	if _, err := c.Write(bench.AppendUnmasked(nil, bench.OpPing, nil)); err != nil {
		return err
	}
	if n, err = c.Read(buf); err != nil {
		return err
	}
	if f, _, err = bench.ParseMasked(buf[:n]); err != nil || f.Op != bench.OpPong {
		return fmt.Errorf("%+v instead of a pong: %w", f, err)
	}
	alive <- struct{}{}
	if _, err = c.Read(buf); err == io.EOF {
		return nil
	}
	return fmt.Errorf("not the end of the socket: %w", err)
}

// An answer that comes after the end counts in no rate, and is no error. The sockets stay until the order to stop.
func TestWorkSettles(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	told, alive, over := make(chan struct{}, 2), make(chan struct{}, 1), make(chan error, 1)
	go func() { over <- held(l, told, alive) }() // the test waits for it
	h := work(t, Job{Verb: Echo, Share: 1, Thread: -1, Lanes: 1, InFlight: 1, Size: 40, Sockets: 1, Plain: l.Addr().String(), Host: "h", Path: "/",
		Every: 10 * time.Millisecond, For: 20 * time.Millisecond, Settle: patience})
	h.until(phaseReady)
	h.say(fmt.Sprintf(`{"start":%d}`, mono.System.Now()))
	// The socket was begun, and a message.
	if r := h.until(phaseSettle); r.Begun != 2 || r.Done != 0 || r.Open != 1 || len(r.Errors) != 0 {
		t.Errorf("at the end: %+v", r)
	}
	told <- struct{}{}
	if r := h.until(phaseDone); r.Begun != 2 || r.Done != 1 || r.Open != 1 || len(r.Errors) != 0 {
		t.Errorf("when all was answered: %+v", r)
	}
	told <- struct{}{}
	<-alive
	h.say(`{"stop":true}`)
	if err := errors.Join(h.over(), <-over); err != nil {
		t.Error(err)
	}
}

// What is on its way to a 101 is no open socket; of verbs that open none beforehand it is all that there is.
func TestWorkOpen(t *testing.T) {
	for verb, want := range map[string]int{Echo: 0, Churn: 1} {
		t.Run(verb, func(t *testing.T) {
			j := Job{Verb: verb, Share: 1, Thread: -1, Lanes: 1, InFlight: 1, Size: 40, Plain: silent(t), Host: "h", Path: "/", Every: 5 * time.Millisecond, For: time.Hour}
			at := phaseOpen
			if verb == Echo {
				j.Sockets = 1
			} else {
				at = phaseRun
			}
			h := work(t, j)
			if at == phaseRun {
				h.until(phaseReady)
				h.say(fmt.Sprintf(`{"start":%d}`, mono.System.Now()))
			}
			r := h.until(at)
			for r.Begun == 0 {
				r = h.until(at)
			}
			if r.Open != want {
				t.Errorf("%d open, want %d", r.Open, want)
			}
			h.say(`{"stop":true}`)
			if err := h.over(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Who is told to stop while answers are awaited gives them up, and says so before it ends; who is told in the run has not waited for more
// than that.
func TestWorkStopsSettling(t *testing.T) {
	for _, at := range []string{phaseRun, phaseSettle} {
		t.Run(at, func(t *testing.T) {
			j := Job{Verb: Tickets, Share: 1, Thread: -1, Lanes: 1, API: silent(t), Every: 5 * time.Millisecond, For: 20 * time.Millisecond, Settle: time.Hour}
			if at == phaseRun {
				j.For = time.Hour
			}
			h := work(t, j)
			h.until(phaseReady)
			h.say(fmt.Sprintf(`{"start":%d}`, mono.System.Now()))
			for r := h.until(at); r.Begun == 0; r = h.until(at) {
				continue
			}
			h.say(`{"stop":true}`)
			if at == phaseRun {
				h.until(phaseSettle)
				h.say(`{"stop":true}`)
			}
			r := h.until(phaseDone)
			all := make(hists)
			if err := all.merge(r.Hists); err != nil {
				t.Fatal(err)
			}
			took := all.of(histOperation)
			if r.Errors[classNothing] != 1 || took.TotalCount() != 1 || time.Duration(took.Max()) > patience {
				t.Errorf("%+v, %d in the distribution, %v at most", r, took.TotalCount(), time.Duration(took.Max()))
			}
			if err := h.over(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What has no answer at the end is an error of every verb, and has waited for the whole run in its distribution.
func TestWorkUnanswered(t *testing.T) {
	for _, verb := range []string{Tickets, Churn} {
		t.Run(verb, func(t *testing.T) {
			address := silent(t)
			j := Job{Verb: verb, Share: 1, Thread: -1, Lanes: 3, Every: time.Hour, For: 20 * time.Millisecond, Settle: 20 * time.Millisecond}
			if verb == Tickets {
				j.API = address
			} else {
				j.Plain, j.Host, j.Path, j.Seed = address, "h", "/", 1
			}
			h := work(t, j)
			h.until(phaseReady)
			h.say(fmt.Sprintf(`{"start":%d}`, mono.System.Now()))
			all := make(hists)
			var r Report
			for r.Phase != phaseDone {
				r = Report{}
				if err := h.lines.Decode(&r); err != nil {
					t.Fatal(err)
				}
				if err := all.merge(r.Hists); err != nil {
					t.Fatal(err)
				}
			}
			if r.Begun != r.Done+3 || len(r.Errors) != 1 || r.Errors[classNothing] != 3 {
				t.Errorf("%+v", r)
			}
			if n := all.of(histOperation).TotalCount(); n != int64(r.Begun) {
				t.Errorf("%d of %d operations are in the distribution", n, r.Begun)
			}
			h.say(`{"stop":true}`)
			if err := h.over(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Workers that only keep their sockets look at them at the same moments.
func TestRest(t *testing.T) {
	now := 10 * dozeEvery
	w := newWorker(t, func() time.Duration { return now })
	for _, c := range []struct{ after, until, want time.Duration }{
		{0, far, dozeEvery}, {1, far, dozeEvery - 1}, {dozeEvery - 2, far, 1}, {1, far, dozeEvery}, {0, 11*dozeEvery + 3, 3}, {9, 11*dozeEvery + 3, 0},
	} {
		now += c.after
		if got := w.rest(c.until); got != c.want {
			t.Errorf("at %v, until %v: %v, want %v", now, c.until, got, c.want)
		}
	}
}

// newWorker is a worker at the time that now says, without a job.
func newWorker(t *testing.T, now func() time.Duration) *worker {
	t.Helper()
	l, err := bench.NewLoop(bench.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return &worker{loop: l, errors: make(map[string]uint64), hists: make(hists), targets: make(map[string]*bench.Target)}
}

// What is due begins in its order, a bounded number at a time, and what begins too long after is counted as late.
func TestDue(t *testing.T) {
	now := time.Hour
	w := newWorker(t, func() time.Duration { return now })
	w.start = now
	p := newPacer(schedule(t, "1000", 400*time.Millisecond), 0, 1, nil)
	for _, c := range []struct {
		after     time.Duration // since the start
		due, late uint64        // so far
		next      time.Duration // since the start
	}{
		{0, 1, 0, time.Millisecond},
		{500 * time.Microsecond, 1, 0, time.Millisecond},
		{11 * time.Millisecond, 12, 0, 12 * time.Millisecond},      // 10 ms are not late
		{50 * time.Millisecond, 51, 28, 51 * time.Millisecond},     // those of 12 to 39 ms are
		{399 * time.Millisecond, 307, 284, 399 * time.Millisecond}, // 256 at a time
		{399 * time.Millisecond, 400, 284 + 82, far - time.Hour},   // up to 388 ms
		{10 * time.Hour, 400, 284 + 82, far - time.Hour},           // that was all
	} {
		now = w.start + c.after
		next := w.due(p, now, func(at, begun time.Duration) {
			w.behind(at, begun)
			if at > now {
				t.Errorf("%v is due at %v", at-w.start, now-w.start)
			}
		})
		if w.Due != c.due || w.Late != c.late || next-w.start != c.next {
			t.Errorf("after %v: %d due, %d late, next at %v; want %d, %d, %v", c.after, w.Due, w.Late, next-w.start, c.due, c.late, c.next)
		}
	}
	if n := w.hists.of(histSchedule).TotalCount(); n != 400 {
		t.Errorf("%d of 400 were measured", n)
	}
}
