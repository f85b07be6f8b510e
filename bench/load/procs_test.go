package load

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newRunner has workers that behave as how says.
func newRunner(how string) *runner {
	worker := func() *exec.Cmd {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), "LOAD_WORKER="+how, "GORACE=atexit_sleep_ms=0")
		return c
	}
	return &runner{s: plainEcho(), env: Env{Worker: worker}, lines: make(chan said, 64), result: &Result{}, patience: time.Minute}
}

// A worker that talks nonsense is heard of, although it would never end by itself.
func TestWorkerBabbles(t *testing.T) {
	r := newRunner("babbles")
	if err := r.spawn(Job{Verb: Echo}); err != nil {
		t.Fatal(err)
	}
	select {
	case s := <-r.lines:
		if s.err == nil || !strings.Contains(s.err.Error(), "worker 0: ") {
			t.Errorf("%+v", s)
		}
	case <-time.After(12 * patience): // 16 MiB of it, under the race detector
		t.Error("nothing is heard")
	}
	if err := r.end(); err != nil {
		t.Error(err)
	}
}

// A worker that says nothing in the run is killed, and the run goes on to its end without it.
func TestWorkerSilent(t *testing.T) {
	r := newRunner("sits")
	if err := r.spawn(Job{Verb: Echo}); err != nil {
		t.Fatal(err)
	}
	r.silence = time.Minute
	p := r.procs[0]
	if err := r.overdue(p.heard.Add(time.Hour)); err != nil || p.done {
		t.Errorf("before the run: %v, %+v", err, p)
	}
	r.start = 1
	if err := r.overdue(p.heard.Add(time.Minute)); err != nil || p.done {
		t.Errorf("in its time: %v, %+v", err, p)
	}
	if err := r.overdue(p.heard.Add(61 * time.Second)); err != nil || !p.lost || !r.clientsDone() {
		t.Errorf("%v, %+v", err, p)
	}
	if len(r.result.Broken) != 1 || !strings.Contains(r.result.Broken[0], "worker 0 has said nothing for 1m1s") {
		t.Errorf("%q", r.result.Broken)
	}
	if err := r.hear(<-r.lines); err != nil { // its end
		t.Error(err)
	}
	if err := r.end(); err != nil || len(r.result.Broken) != 1 {
		t.Errorf("%v, %q", err, r.result.Broken)
	}
}

// A backend that takes its time to end is killed, which is no error: its clients have ended.
func TestEndKills(t *testing.T) {
	r := newRunner("sits")
	r.patience = time.Millisecond
	if err := r.spawn(Job{Verb: backend}); err != nil {
		t.Fatal(err)
	}
	if err := r.end(); err != nil {
		t.Error(err)
	}
	if s := r.procs[0].cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGKILL {
		t.Errorf("%v", s)
	}
}

// shut is a pipe whose other end is gone.
type shut struct{ io.WriteCloser }

func (shut) Write([]byte) (int, error) { return 0, errors.New("gone") }

// kept is a pipe that nobody reads yet.
type kept struct {
	io.WriteCloser
	bytes.Buffer
}

func (k *kept) Write(b []byte) (int, error) { return k.Buffer.Write(b) }

// All workers hear an order, also those behind one that is gone.
func TestOrder(t *testing.T) {
	var k kept
	r := &runner{procs: []*proc{{in: shut{}}, {in: &k}}}
	if err := r.order(order{Stop: true}); err != nil || k.String() != `{"stop":true}`+"\n" {
		t.Errorf("%v, %q", err, k.String())
	}
}

// When no socket more comes in, it ends with what there is.
func TestOpeningStands(t *testing.T) {
	r := newRunner("")
	r.opening = time.Nanosecond
	if err := r.until(t.Context(), func(*runner) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if !r.stuck() || !strings.Contains(strings.Join(r.stands, ""), "no socket more was opened for 1ns") {
		t.Errorf("%q", r.stands)
	}
	if r.conclude(); r.result.Verdict != Fail {
		t.Errorf("%s", r.result.Verdict)
	}
}

// A worker that hangs when a run is ended is given up, and what was measured stays.
func TestBreakOffHangs(t *testing.T) {
	r := newRunner("sits")
	if err := r.spawn(Job{Verb: Echo}); err != nil {
		t.Fatal(err)
	}
	p := r.procs[0]
	r.start, r.patience, r.s.Settle = 1, time.Millisecond, 0
	r.result.Kernel, r.open, r.run, r.part = new([2]Slab), make(hists), make(hists), make(hists)
	p.first, p.last = new(Report), Report{Phase: phaseRun, At: time.Second, Open: 3, RSS: 5, Counts: Counts{Begun: 9, Done: 8, Opened: 3}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.breakOff(ctx); err != nil {
		t.Fatal(err)
	}
	r.patience = time.Minute
	if err := r.end(); err != nil {
		t.Error(err)
	}
	res := r.result
	if len(res.Broken) != 1 || !strings.Contains(res.Broken[0], "worker 0 did not stop within 1ms") || res.Run.Done != 8 || res.Run.Took != time.Second || res.Run.Held != 0 || res.Run.Lost != 3 {
		t.Errorf("%q, %+v, %d held", res.Broken, res.Run.Counts, res.Run.Held)
	}
}

// A worker that is lost before it has said anything in the run has taken no part in it.
func TestLoseEarly(t *testing.T) {
	r := newRunner("")
	r.start = 1
	p := &proc{cmd: exec.Command("true"), last: Report{Phase: phaseReady, At: time.Hour, Open: 2, Counts: Counts{Opened: 2}}}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := r.lose(p, io.EOF); err != nil || p.end == nil || p.end.At != 0 || p.end.Open != 0 || p.end.Lost != 2 {
		t.Errorf("%v, %+v", err, p.end)
	}
	_ = p.cmd.Wait()
}

func TestOpenWait(t *testing.T) {
	for _, c := range []struct {
		timeout time.Duration
		ramp    float64
		want    time.Duration
	}{{0, 0, 5 * time.Minute}, {10 * time.Second, 0, time.Minute}, {10 * time.Second, 0.01, time.Minute + 200*time.Second}} {
		s := Settings{Timeout: c.timeout, Ramp: c.ramp}
		if got := s.openWait(); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
