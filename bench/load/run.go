package load

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"ticketgate/bench"
	"ticketgate/internal/mono"
)

const (
	pointEvery   = 500 * time.Millisecond
	startAhead   = 100 * time.Millisecond // between the order to start and the start, for all to have heard it
	openPatience = 5 * time.Minute        // without a socket more
	reportsEach  = 4                      // processes that report twice a point; more of them do it more rarely
	manySockets  = 1000                   // from which on memory a socket means something
	lineMax      = 16 << 20               // bytes of a report: histograms of a whole run, at most
)

// Env is what Run needs of its surroundings.
type Env struct {
	Tool    string           // name and version of this program
	Command []string         // as it was typed, without the key
	Worker  func() *exec.Cmd // a process that calls Work on its stdin and stdout
	Say     func(Progress)   // called on Run's goroutine, every half second; nil: nobody listens
	Pin     bool             // each worker stays on one core
}

// Progress is what there is to say while it runs.
type Progress struct {
	Phase   string // open or run
	Open    int
	Wanted  int // sockets
	At      time.Duration
	For     time.Duration
	PerSec  float64 // sockets or operations a second, since the last one
	Total   Counts  // of the phase
	Errors  uint64
	Class   string   // the most frequent one of them
	Latency *Latency // of the phase, without HDR; nil: nothing yet
	Ticket  *Latency
}

// A proc is one worker.
type proc struct {
	verb  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	last  Report
	base  Counts            // at the start of the run
	mis   map[string]uint64 // errors at the start of the run
	used  time.Duration     // at the start of the run
	wait  time.Duration
	done  bool
	ready bool
	rss0  int64
}

// said is a line of a worker, or its end.
type said struct {
	from   int
	report Report
	err    error // of its end; io.EOF: it has said all
}

type runner struct {
	s      Settings
	env    Env
	procs  []*proc
	lines  chan said
	reads  sync.WaitGroup
	watch  *watch
	result *Result

	began time.Duration // the sockets, on mono.System
	start time.Duration // the run
	open  hists         // of the opening
	run   hists
	part  hists // since the last point
	calm  hists // hostile: before the attack
	storm hists // and under it
	lastC Counts
	lastE uint64
	lastT time.Duration // of the last point
	lastU time.Duration // used by the clients then
	lastS seen
	first seen
	full  seen
}

// Run does what s says, from several processes, and returns what came of it. An error says that there is no result.
func Run(ctx context.Context, s Settings, env Env) (*Result, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	jobs, address, err := s.jobs(env.Pin)
	if err != nil {
		return nil, err
	}
	r := &runner{s: s, env: env, lines: make(chan said, 64), open: make(hists), run: make(hists), part: make(hists), calm: make(hists), storm: make(hists)}
	if r.result, err = r.describe(); err != nil {
		return nil, err
	}
	if r.watch, err = watchOf(s.PIDs, address); err != nil {
		return nil, err
	}
	err = r.drive(ctx, jobs)
	if end := r.end(); err == nil {
		err = end
	}
	if err != nil {
		return nil, err
	}
	return r.result, r.conclude()
}

func watchOf(pids []int, address string) (*watch, error) {
	if len(pids) > 0 {
		return &watch{pids}, nil
	}
	return look(address)
}

func (r *runner) describe() (*Result, error) {
	host, err := bench.ReadHost()
	if err != nil {
		return nil, err
	}
	name, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	files, err := bench.Files()
	if err != nil {
		return nil, err
	}
	return &Result{Version: resultVersion, Tool: r.env.Tool, Command: r.env.Command, Started: time.Now().UTC().Truncate(time.Second),
		Host: HostInfo{name, host, files}, Settings: r.s}, nil
}

// jobs are what the workers do, the backend's first, and the address of the server.
func (s *Settings) jobs(pin bool) (jobs []Job, server string, err error) {
	all, err := s.schedule()
	if err != nil {
		return nil, "", err
	}
	base := Job{Verb: s.Verb, Share: s.Procs, Seed: s.Seed, Thread: -1, Key: s.Key, Stream: s.Stream, Clients: s.Clients, Ramp: s.Ramp, Insist: s.Insist, Lanes: s.Lanes,
		Schedule: all, InFlight: s.InFlight, Size: s.Size, For: s.Duration, Settle: s.Settle, Every: pointEvery / 2 * time.Duration(max(1, s.Procs/reportsEach))}
	if s.Plain != "" {
		at, err := plainOf(s.Plain)
		if err != nil {
			return nil, "", err
		}
		base.Plain, base.Host, base.Path, server = at.address, at.host, at.path, at.address
	} else {
		if server, err = resolve(s.apiHost(), "80"); err != nil {
			return nil, "", err
		}
		base.API = server
	}
	cores, err := bench.Cores()
	if err != nil {
		return nil, "", err
	}
	if s.Verb == Relay {
		j := base
		j.Verb, j.Listen, j.Share, j.Sockets, j.For = backend, s.Backend, 1, 0, 365*24*time.Hour
		jobs = append(jobs, j)
	}
	for i := range s.Procs {
		j := base
		j.Index, j.Sockets = i, s.Sockets/s.Procs
		if i < s.Sockets%s.Procs {
			j.Sockets++
		}
		if !s.hasSockets() {
			j.Sockets = 0
		}
		for k := i; k < len(s.Sources); k += s.Procs { // each has its own, as far as they go
			j.Source = append(j.Source, s.Sources[k])
		}
		if len(s.Sources) > 0 && len(j.Source) == 0 {
			j.Source = s.Sources[i%len(s.Sources) : i%len(s.Sources)+1]
		}
		if pin {
			j.Thread = cores[i%len(cores)]
		}
		jobs = append(jobs, j)
	}
	for i, kind := range s.Attacks {
		j := base
		j.Verb, j.Attack, j.Sockets, j.After, j.Index, j.Share = attack, kind, s.Hostile, s.Duration/2, i, len(s.Attacks)
		jobs = append(jobs, j)
	}
	return jobs, server, nil
}

func (r *runner) drive(ctx context.Context, jobs []Job) error {
	r.began = time.Duration(mono.System.Now())
	var err error
	if r.watch != nil {
		if r.first, err = r.watch.see(); err != nil {
			return err
		}
		r.lastS = r.first
	}
	r.result.Kernel = &[2]Slab{kernelNow()}
	r.lastT = r.began
	for _, j := range jobs {
		if err := r.spawn(j); err != nil {
			return err
		}
		if j.Verb == backend { // it has to listen before the first client comes
			if err := r.until(ctx, (*runner).allReady); err != nil {
				return err
			}
		}
	}
	if err := r.until(ctx, (*runner).allReady); err != nil {
		return err
	}
	if err := r.opened(); err != nil {
		return err
	}
	r.begin(time.Duration(mono.System.Now()) + startAhead)
	if err := r.order(order{Start: int64(r.start)}); err != nil {
		return err
	}
	if err := r.until(ctx, (*runner).clientsDone); err != nil {
		return err
	}
	return r.ran()
}

// begin is the start of the run, at which its first point begins.
func (r *runner) begin(at time.Duration) {
	r.start = at
	r.lastT, r.lastC, r.lastE, r.lastU = at, Counts{}, 0, r.used()
}

// spawn starts a worker and gives it its job.
func (r *runner) spawn(j Job) error {
	p := &proc{verb: j.Verb, cmd: r.env.Worker()}
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
	p.in = in
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
		}
		if end := p.cmd.Wait(); end != nil {
			err = fmt.Errorf("worker %d: %w: %s", i, end, words.String())
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
func (r *runner) order(o order) error {
	b, err := json.Marshal(o)
	for i, p := range r.procs {
		if err == nil && !p.done {
			if _, err = p.in.Write(append(b, '\n')); err != nil {
				err = fmt.Errorf("worker %d: %w", i, err)
			}
		}
	}
	return err
}

func (r *runner) allReady() bool {
	return !slices.ContainsFunc(r.procs, func(p *proc) bool { return !p.ready })
}

// clientsDone says that all but the backend, which knows no end, are.
func (r *runner) clientsDone() bool {
	return !slices.ContainsFunc(r.procs, func(p *proc) bool { return !p.done && p.verb != backend })
}

// until listens to the workers until over says so.
func (r *runner) until(ctx context.Context, over func(*runner) bool) error {
	points := time.NewTicker(pointEvery)
	defer points.Stop()
	moved, open := time.Now(), -1
	for !over(r) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s := <-r.lines:
			if err := r.hear(s); err != nil {
				return err
			}
		case <-points.C:
			if err := r.point(); err != nil {
				return err
			}
			if n := r.sockets(); n != open || r.start > 0 {
				moved, open = time.Now(), n
			}
			if time.Since(moved) > openPatience {
				return fmt.Errorf("no socket was opened for %s: %d of %d are open%s", openPatience, open, r.s.Sockets, listed(r.errors()))
			}
		}
	}
	return nil
}

func (r *runner) hear(s said) error {
	p := r.procs[s.from]
	if s.err != nil {
		if !p.done && p.verb != backend || s.err != io.EOF {
			if s.err == io.EOF {
				return fmt.Errorf("worker %d ended before its time", s.from)
			}
			return s.err
		}
		return nil
	}
	report := s.report
	if report.Fatal != "" {
		return errors.New(report.Fatal)
	}
	if p.rss0 == 0 {
		p.rss0 = report.RSS
	}
	p.last = report
	to := r.open
	switch report.Phase {
	case phaseRun, phaseDone:
		to = r.run
	default: // also the last of them, with what came between being ready and the start
		p.base, p.used, p.wait = report.Counts, report.Used, report.Waited
		p.mis = maps.Clone(report.Errors)
	}
	p.ready = p.ready || report.Phase == phaseReady
	p.done = p.done || report.Phase == phaseDone
	if p.verb == attack || p.verb == backend { // their latencies are nobody's
		return nil
	}
	if r.s.Verb == Hostile && r.start > 0 {
		half := r.storm
		if report.Phase == phaseRun && report.At <= r.s.Duration/2 {
			half = r.calm
		}
		if err := half.merge(report.Hists); err != nil {
			return err
		}
	}
	return errors.Join(to.merge(report.Hists), r.part.merge(report.Hists))
}

// honest are the workers whose doings are the result.
func (r *runner) honest(do func(*proc)) {
	for _, p := range r.procs {
		if p.verb != attack && p.verb != backend {
			do(p)
		}
	}
}

func (r *runner) sockets() int {
	n := 0
	r.honest(func(p *proc) { n += p.last.Open })
	return n
}

// counts are those of the phase.
func (r *runner) counts() Counts {
	var all Counts
	r.honest(func(p *proc) {
		c := p.last.Counts
		if r.start > 0 {
			c = c.sub(p.base)
		}
		all.add(c)
	})
	return all
}

// errors are those of the phase, by class.
func (r *runner) errors() map[string]uint64 {
	all := make(map[string]uint64)
	r.honest(func(p *proc) {
		for class, n := range p.last.Errors {
			if r.start > 0 {
				n -= p.mis[class]
			}
			if n > 0 {
				all[class] += n
			}
		}
	})
	return all
}

func sum(errors map[string]uint64) uint64 {
	var n uint64
	for _, v := range errors {
		n += v
	}
	return n
}

// most is the class with the most errors; "": there are none.
func most(errors map[string]uint64) string {
	best := ""
	for _, class := range sortedKeys(errors) {
		if errors[class] > errors[best] {
			best = class
		}
	}
	return best
}

// used is the processor time of all workers.
func (r *runner) used() time.Duration {
	var d time.Duration
	for _, p := range r.procs {
		d += p.last.Used
	}
	return d
}

// point adds a moment to the series and says how far it is.
func (r *runner) point() error {
	now := time.Duration(mono.System.Now())
	if len(r.result.Series) > 0 && now-r.lastT < pointEvery/4 { // the end of a phase, right behind another point: too short to tell a rate
		return nil
	}
	c, errs := r.counts(), r.errors()
	total := sum(errs)
	phase, since := phaseOpen, r.began
	if r.start > 0 {
		phase, since = phaseRun, r.start
	}
	d := (now - r.lastT).Seconds()
	p := Point{At: now - r.began, Phase: phase, Open: r.sockets(), Begun: c.Begun - r.lastC.Begun, Done: c.Done - r.lastC.Done, Errors: total - r.lastE, Late: c.Late - r.lastC.Late, Seconds: d}
	if h := r.part[r.shown()]; h != nil && h.TotalCount() > 0 {
		p.P50, p.P99, p.Max = time.Duration(h.ValueAtPercentile(50)), time.Duration(h.ValueAtPercentile(99)), time.Duration(h.Max())
	}
	for _, h := range r.part {
		h.Reset()
	}
	used := r.used()
	p.Client = (used - r.lastU).Seconds() / d
	if r.watch != nil {
		s, err := r.watch.see()
		if err != nil {
			return err
		}
		p.Server, p.RSS = (s.cpu-r.lastS.cpu).Seconds()/d, s.rss
		r.lastS = s
	}
	p.SlabSize = kernelNow().Slabs
	perSecond := float64(p.Done) / d
	if phase == phaseOpen {
		perSecond = float64(c.Opened-r.lastC.Opened) / d
	}
	r.lastT, r.lastU, r.lastC, r.lastE = now, used, c, total
	r.result.Series = append(r.result.Series, p)
	if r.env.Say == nil {
		return nil
	}
	latencies, err := r.latencies()
	if err != nil {
		return err
	}
	r.env.Say(Progress{Phase: phase, Open: p.Open, Wanted: r.s.Sockets, At: now - since, For: r.s.Duration, PerSec: perSecond, Total: c, Errors: total, Class: most(errs),
		Latency: latencies[0], Ticket: latencies[1]})
	return nil
}

// shown is the histogram that the series shows.
func (r *runner) shown() string {
	switch {
	case r.start > 0 && r.s.Verb != Connect:
		return histOperation
	case r.start == 0 && r.s.Plain == "":
		return histTicket
	default:
		return histOpen
	}
}

// latencies are those of the operations, or of opening sockets, and of tickets.
func (r *runner) latencies() (all [2]*Latency, err error) {
	from, name := r.run, histOperation
	if r.start == 0 {
		from, name = r.open, histOpen
	}
	if all[0], err = latencyOf(from[name]); err != nil {
		return all, err
	}
	all[1], err = latencyOf(from[histTicket])
	return all, err
}

// opened writes down how the sockets came about.
func (r *runner) opened() error {
	c := r.counts()
	o := &r.result.Opening
	*o = Opening{Wanted: r.s.Sockets, Opened: c.Opened, Took: time.Duration(mono.System.Now()) - r.began, Errors: r.errors()}
	if !r.s.hasSockets() {
		o.Wanted = 0
	}
	var err, err2 error
	o.Ticket, err = latencyOf(r.open[histTicket])
	o.Open, err2 = latencyOf(r.open[histOpen])
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	if r.s.hasSockets() && c.Opened == 0 {
		return fmt.Errorf("none of %d sockets could be opened%s", r.s.Sockets, listed(o.Errors))
	}
	if r.watch != nil {
		if r.full, err = r.watch.see(); err != nil {
			return err
		}
	}
	return r.point()
}

// listed is ": 3 refused, 1 timeout" for the end of a sentence.
func listed(errs map[string]uint64) string {
	var all []string
	for _, class := range slices.Sorted(maps.Keys(errs)) {
		all = append(all, fmt.Sprintf("%d %s", errs[class], class))
	}
	if len(all) == 0 {
		return ""
	}
	return ": " + strings.Join(all, ", ")
}

// ran writes down how the run went.
func (r *runner) ran() error {
	if err := r.point(); err != nil {
		return err
	}
	res := r.result
	run := &res.Run
	run.Counts, run.Errors = r.counts(), r.errors()
	if missing := run.Begun - min(run.Begun, run.Done+sum(run.Errors)); missing > 0 && r.s.messages() {
		run.Errors[classNothing] += missing
	}
	var busiest float64
	r.honest(func(p *proc) {
		run.Took = max(run.Took, min(p.last.At, r.s.Duration))
		wall := max(p.last.At, time.Millisecond)
		busiest = max(busiest, float64(p.last.Used-p.used+p.last.Waited-p.wait)/float64(wall))
		res.Client.CPU += p.last.Used - p.used
		res.Client.RSS += p.last.RSS
		if r.s.Sockets >= manySockets {
			res.Client.PerSocket += float64(p.last.RSS-p.rss0) / float64(max(res.Opening.Opened, 1))
		}
	})
	res.Client.Processes, res.Client.Busiest = r.s.Procs, busiest
	run.Took = max(run.Took, time.Millisecond)
	run.Rate = float64(run.Done) / run.Took.Seconds()
	if all, err := r.s.schedule(); err == nil && all != nil {
		run.Wanted = all.Count() / all.Duration().Seconds()
	}
	if n := run.Begun + run.Errors[classSlow]; n > 0 {
		run.ErrorShare = min(float64(sum(run.Errors))/float64(n), 1)
	} else if sum(run.Errors) > 0 {
		run.ErrorShare = min(float64(sum(run.Errors))/float64(max(r.s.Sockets, 1)), 1)
	}
	if run.Due > 0 {
		run.LateShare = float64(run.Late) / float64(run.Due)
	}
	var err error
	for name, to := range map[string]**Latency{histOperation: &run.Latency, histTicket: &run.Ticket, histOpen: &run.Open, histIn: &run.In, histOut: &run.Out, histSchedule: &run.Schedule} {
		l, e := latencyOf(r.run[name])
		*to, err = l, errors.Join(err, e)
	}
	if err != nil {
		return err
	}
	res.Kernel[1] = kernelNow()
	if r.s.Verb == Hostile {
		if err := r.attacked(); err != nil {
			return err
		}
	}
	return r.served()
}

// attacked tells before from under.
func (r *runner) attacked() error {
	a := &Attack{Kinds: r.s.Attacks}
	var err, err2 error
	a.Before, err = latencyOf(r.calm[histOperation])
	a.Under, err2 = latencyOf(r.storm[histOperation])
	for _, p := range r.procs {
		if p.verb == attack {
			a.CutOff += p.last.Done
		}
	}
	r.result.Hostile = a
	return errors.Join(err, err2)
}

// served writes down what the server took.
func (r *runner) served() error {
	if r.watch == nil {
		return nil
	}
	now, err := r.watch.see()
	if err != nil {
		return err
	}
	run := &r.result.Run
	s := &Server{PIDs: r.watch.pids, CPU: now.cpu - r.full.cpu, Before: r.first.rss, Full: r.full.rss, After: now.rss, Most: now.rss}
	s.Cores = s.CPU.Seconds() / run.Took.Seconds()
	if run.Done > 0 {
		s.PerDone = s.CPU / time.Duration(run.Done)
	}
	for _, p := range r.result.Series {
		s.Most = max(s.Most, p.RSS)
	}
	if n := r.result.Opening.Opened; n >= manySockets {
		s.PerSocket = float64(s.Full-s.Before) / float64(n)
	}
	r.result.Server = s
	return nil
}

// conclude says what to think of it.
func (r *runner) conclude() error {
	res := r.result
	res.Took = time.Duration(mono.System.Now()) - r.began
	if r.watch != nil {
		res.Notes = append(res.Notes, "server on the same machine: client and server share its cores")
	}
	res.Verdict = Done
	if o := &res.Opening; o.Opened < uint64(o.Wanted) {
		res.Verdict = Fail
		why := fmt.Sprintf("%d of %d sockets could not be opened%s", uint64(o.Wanted)-o.Opened, o.Wanted, listed(o.Errors))
		limited := slices.ContainsFunc(sortedKeys(o.Errors), func(class string) bool { return strings.HasPrefix(class, "http_429") })
		if limited && r.s.Clients == 0 {
			why += " (429: a limit of the client's plan; --clients spreads the sockets over several)"
		}
		res.Why = append(res.Why, why)
	}
	if why := res.saturated(); len(why) > 0 {
		res.Verdict, res.Why = Invalid, append(res.Why, why...)
	}
	return nil
}

// end ends all workers and waits for them.
func (r *runner) end() error {
	err := r.order(order{Stop: true})
	for _, p := range r.procs {
		_ = p.in.Close() // a worker that is gone has closed its end
	}
	over := make(chan struct{})
	go func() { // it ends with the workers
		r.reads.Wait()
		close(over)
	}()
	patience := time.NewTimer(10 * time.Second)
	defer patience.Stop()
	for {
		select {
		case s := <-r.lines:
			if s.err != nil && s.err != io.EOF {
				err = errors.Join(err, s.err)
			}
		case <-over:
			for len(r.lines) > 0 {
				if s := <-r.lines; s.err != nil && s.err != io.EOF {
					err = errors.Join(err, s.err)
				}
			}
			return err
		case <-patience.C:
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
