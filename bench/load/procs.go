package load

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A proc is one worker.
type proc struct {
	verb  string
	kind  string // of attack
	cmd   *exec.Cmd
	in    io.WriteCloser
	first *Report // before it had opened anything
	ready *Report // the first when all were open
	last  Report
	end   *Report           // the first after the end of the run
	base  Counts            // at the start of the run
	mis   map[string]uint64 // errors at the start of the run
	used  time.Duration     // at the start of the run
	wait  time.Duration
	done  bool
	lost  bool      // it died in the run, or was killed over its silence: what it last said counts
	heard time.Time // when it last said something
	rss0  int64
}

// said is a line of a worker, or its end.
type said struct {
	from   int
	report Report
	err    error // of its end; io.EOF: it has said all
}

// spawn starts a worker and gives it its job.
func (r *runner) spawn(j Job) error {
	p := &proc{verb: j.Verb, kind: j.Attack, cmd: r.env.Worker()}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // ^C is ours: they are told to stop
	var words tailBuffer
	p.cmd.Stderr = &words
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start a worker: %w", err)
	}
	p.in, p.heard = in, time.Now()
	i := len(r.procs)
	r.procs = append(r.procs, p)
	r.reads.Go(func() { // end waits for it
		lines := bufio.NewScanner(out)
		lines.Buffer(make([]byte, 64<<10), lineMax)
		var err error
		for err == nil && lines.Scan() {
			var report Report
			if err = json.Unmarshal(lines.Bytes(), &report); err == nil {
				r.lines <- said{from: i, report: report}
			}
		}
		if err = errors.Join(err, lines.Err()); err == nil {
			err = io.EOF
		} else { // nobody reads any more: blocked on its pipe it would not end, nor Wait
			_ = p.cmd.Process.Kill()
		}
		if end := p.cmd.Wait(); end != nil {
			if err == io.EOF {
				err = nil
			}
			err = errors.Join(fmt.Errorf("worker %d: %w: %s", i, end, words.String()), err)
		}
		r.lines <- said{from: i, err: err}
	})
	b, err := json.Marshal(j)
	if err == nil {
		_, err = in.Write(append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("worker %d: %w", i, err)
	}
	return nil
}

// order tells all workers something.
func (r *runner) order(o order) error { return r.tell(o, func(*proc) bool { return true }) }

// tell tells those workers something that are meant. One that is gone is heard of by its end, and is no reason not to tell the others.
func (r *runner) tell(o order, meant func(*proc) bool) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	for _, p := range r.procs {
		if !p.done && meant(p) {
			_, _ = p.in.Write(append(b, '\n'))
		}
	}
	return nil
}

func (r *runner) hear(s said) error {
	p := r.procs[s.from]
	p.heard = time.Now()
	if p.lost {
		return nil
	}
	if s.err != nil {
		switch {
		case s.err != io.EOF:
			return r.lose(p, s.err)
		case p.done || p.verb == backend:
			return nil
		default:
			return r.lose(p, fmt.Errorf("worker %d ended before its time", s.from))
		}
	}
	report := s.report
	if report.Fatal != "" {
		return r.lose(p, errors.New(report.Fatal))
	}
	if p.rss0 == 0 {
		p.rss0 = report.RSS
	}
	if p.first == nil {
		p.first = &report
	}
	p.last = report
	to := r.open
	switch report.Phase {
	case phaseRun, phaseSettle, phaseDone:
		to = r.run
	default: // also the last of them, with what came between being ready and the start
		p.base, p.used, p.wait = report.Counts, report.Used, report.Waited
		p.mis = maps.Clone(report.Errors)
	}
	if p.end == nil && (report.Phase == phaseSettle || report.Phase == phaseDone) {
		p.end = &report
	}
	if p.ready == nil && report.Phase == phaseReady {
		p.ready = &report
	}
	p.done = p.done || report.Phase == phaseDone
	for _, address := range report.Gates {
		if err := r.gate(address); err != nil {
			return err
		}
	}
	if p.verb != attack {
		r.result.learn(report.Examples)
	}
	if p.verb == attack || p.verb == backend { // their latencies are nobody's
		return nil
	}
	if r.s.Verb == Hostile && r.start > 0 {
		if err := r.half(report).merge(report.Hists); err != nil {
			return err
		}
	}
	return errors.Join(to.merge(report.Hists), r.part.merge(report.Hists))
}

// half is where the latencies of report belong: before the attack, or under it. The first tenth of the run, in which caches are filled and
// heaps grow, belongs to neither: it would make the calm look slow.
func (r *runner) half(report Report) hists {
	switch {
	case report.At > r.s.Duration/2: // also of what comes behind the end: At goes on
		return r.storm
	case report.At > r.s.Duration/10:
		return r.calm
	default:
		return make(hists)
	}
}

// lose goes on without p. Before the run there is nothing to conclude from, and why is the end of all; in it, what the others and p have
// said until then is a result, though no good one. Its sockets end with it.
func (r *runner) lose(p *proc, why error) error {
	if r.start == 0 {
		return why
	}
	p.lost, p.done = true, true
	if p.last.Phase == phaseOpen || p.last.Phase == phaseReady { // it has said nothing in the run: At tells another time
		p.last.At = 0
	}
	if r.s.hasSockets() {
		p.last.Lost += uint64(p.last.Open)
		p.last.Open = 0
	}
	if p.end == nil {
		last := p.last
		p.end = &last
	}
	p.last.RSS = 0
	_ = p.cmd.Process.Kill()
	r.result.Broken = append(r.result.Broken, why.Error())
	return nil
}

// silence is how long a worker may say nothing in the run beyond the time between its reports: it has seconds of work at once at most,
// and a machine that gives a process no time for so long measures nothing.
const silence = 30 * time.Second

// overdue gives up the workers that have been silent in the run for too long.
func (r *runner) overdue(now time.Time) error {
	if r.start == 0 || len(r.lines) > 0 { // it may be us who did not listen
		return nil
	}
	for i, p := range r.procs {
		if p.done {
			continue
		}
		if quiet := now.Sub(p.heard); quiet > r.silence {
			if err := r.lose(p, fmt.Errorf("worker %d has said nothing for %s, and was killed", i, quiet.Round(time.Second))); err != nil {
				return err
			}
		}
	}
	return nil
}

// endPatience is how long workers may take to end by themselves.
const endPatience = 10 * time.Second

// end ends all workers and waits for them. One may be killed over the sockets that it has to close: a million of them take their time, and
// the kernel closes them as well. It has said all by then, as a client when it is done, as a backend when its clients are.
func (r *runner) end() error {
	err := r.order(order{Stop: true})
	killed := false
	failed := func(s said) error {
		var exit *exec.ExitError
		isKilled := errors.As(s.err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if s.err == io.EOF || r.procs[s.from].lost || killed && isKilled {
			return nil
		}
		return s.err
	}
	for _, p := range r.procs {
		_ = p.in.Close() // a worker that is gone has closed its end
	}
	over := make(chan struct{})
	go func() { // it ends with the workers
		r.reads.Wait()
		close(over)
	}()
	patience := time.NewTimer(r.patience)
	defer patience.Stop()
	for {
		select {
		case s := <-r.lines:
			err = errors.Join(err, failed(s))
		case <-over:
			for len(r.lines) > 0 {
				err = errors.Join(err, failed(<-r.lines))
			}
			return err
		case <-patience.C:
			killed = true
			for _, p := range r.procs {
				_ = p.cmd.Process.Kill()
			}
		}
	}
}

// tailBuffer keeps the end of what a worker says on stderr.
type tailBuffer struct {
	mu sync.Mutex
	b  []byte
}

// Write implements io.Writer.
func (t *tailBuffer) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	t.b = t.b[max(0, len(t.b)-2<<10):]
	return len(b), nil
}

// String is what is kept.
func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}
