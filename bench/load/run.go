package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"sync"
	"time"

	"ticketgate/bench"
	"ticketgate/internal/mono"
)

const (
	pointEvery   = 500 * time.Millisecond
	seriesMost   = 2400                   // points of a series: twenty minutes of them; then every second one goes, again and again
	startAhead   = 200 * time.Millisecond // between the order to start and the start, for all to have heard it
	openPatience = 30 * time.Second       // without a socket more, beyond three times what one may take
	openForever  = 5 * time.Minute        // the same where one may take for ever
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
	Opening int              // workers that open their sockets at the same time: others wait, and cost nothing; 0: all of them
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

type runner struct {
	s      Settings
	env    Env
	procs  []*proc
	lines  chan said
	reads  sync.WaitGroup
	watch  *watch
	result *Result
	local  bool            // the server is on this machine
	gates  map[string]bool // of tickets, that were looked for
	stands []string        // why it comes to no run; nothing: it does

	opening  time.Duration // how long no socket more may be opened
	silence  time.Duration // how long a worker may say nothing
	patience time.Duration // how long workers may take to end by themselves

	began time.Duration // the sockets, on mono.System
	start time.Duration // the run
	over  bool          // and it has ended: nothing but answers is to come
	open  hists         // of the opening
	run   hists
	part  hists // since the last point
	calm  hists // hostile: before the attack
	storm hists // and under it
	lastC Counts
	lastE uint64
	lastT time.Duration // of the last point
	every time.Duration // between points, once there were too many; 0: pointEvery
	lastU time.Duration // used by the clients then
	saidT time.Duration // of the last progress
	saidC Counts
	lastS seen
	first seen
	full  seen
	lost  error                    // of a server's process that went: what was seen before counts
	spent map[string]time.Duration // by the server's threads until the sockets were opened, then until the run began
}

// Run does what s says, from several processes, and returns what came of it; of a run that ctx has ended that is the part until
// then. An error says that there is no result.
func Run(ctx context.Context, s Settings, env Env) (*Result, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	jobs, address, err := s.jobs()
	if err != nil {
		return nil, err
	}
	r := &runner{s: s, env: env, lines: make(chan said, 64), open: make(hists), run: make(hists), part: make(hists), calm: make(hists), storm: make(hists),
		opening: s.openWait(), silence: silence + s.every(), patience: endPatience}
	if r.result, err = r.describe(); err != nil {
		return nil, err
	}
	if s.Verb == Relay {
		if err := unused(s.Backend); err != nil {
			return nil, err
		}
	}
	if r.watch, err = watchOf(s.PIDs, address); err != nil {
		return nil, err
	}
	if r.local, err = isLocal(netip.MustParseAddrPort(address).Addr()); err != nil {
		return nil, err
	}
	r.local = r.local || len(s.PIDs) > 0 // in a container it has an address of its own
	err = r.drive(ctx, jobs)
	interrupted := err != nil && ctx.Err() != nil
	if interrupted {
		err = r.breakOff(ctx)
	}
	end := r.end()
	if err != nil {
		return nil, err
	}
	if end != nil { // all is said, but what the last answers were worth is not
		r.result.Broken = append(r.result.Broken, end.Error())
	}
	if r.conclude(); interrupted {
		r.result.brokenOff()
	}
	return r.result, nil
}

func watchOf(pids []int, address string) (*watch, error) {
	if len(pids) > 0 {
		return &watch{pids}, nil
	}
	return look(address)
}

func (r *runner) describe() (*Result, error) {
	host, err := readHost()
	if err != nil {
		return nil, err
	}
	return &Result{Version: resultVersion, Tool: r.env.Tool, Command: r.env.Command, Started: time.Now().UTC().Truncate(time.Second),
		Host: *host, Settings: r.s.shown(), Notes: slices.Concat(host.notes(), blind())}, nil
}

// jobs are what the workers do, the backends' first, and the address of the server.
func (s *Settings) jobs() (jobs []Job, server string, err error) {
	all, err := s.schedule()
	if err != nil {
		return nil, "", err
	}
	base := Job{Verb: s.Verb, Share: s.Procs, Seed: s.Seed, Thread: -1, Key: s.Key, Stream: s.Stream, Clients: s.Clients, Ramp: s.Ramp, Insist: s.Insist, Lanes: s.Lanes,
		Schedule: all, InFlight: s.InFlight, Size: s.Size, For: s.Duration, Settle: s.Settle, Timeout: s.Timeout, Every: s.every()}
	if s.Plain != "" {
		at, err := plainOf(s.Plain)
		if err != nil {
			return nil, "", err
		}
		if server, err = resolve(at.host, "80"); err != nil {
			return nil, "", err
		}
		base.Plain, base.Host, base.Path = server, at.host, at.path
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
	if s.Verb == Relay { // one for each client process: it does about as much for a message
		for i := range s.Procs {
			j := base
			j.Verb, j.Listen, j.Index, j.Sockets, j.For = backend, s.Backend, i, 0, 365*24*time.Hour
			if s.Pin {
				j.Thread = cores[(s.Procs+i)%len(cores)]
			}
			jobs = append(jobs, j)
		}
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
		j.Source = s.sources(i)
		if s.Pin {
			j.Thread = cores[i%len(cores)]
		}
		jobs = append(jobs, j)
	}
	for i, kind := range s.Attacks {
		j := base
		j.Insist = true // the socket that finds the gate must
		j.Verb, j.Attack, j.Sockets, j.After, j.Index, j.Share = attack, kind, s.Hostile, s.Duration/2, i, len(s.Attacks)
		jobs = append(jobs, j)
	}
	return jobs, server, nil
}

// sources are those of process i: its own where they can be shared out evenly, else all of them, each process beginning with another, so
// that no source, and with it no process, runs out of ports before the others.
func (s *Settings) sources(i int) []string {
	n := len(s.Sources)
	if n == 0 {
		return nil
	}
	if n%s.Procs == 0 {
		return s.Sources[i*n/s.Procs : (i+1)*n/s.Procs]
	}
	first := i * n / s.Procs
	return slices.Concat(s.Sources[first:], s.Sources[:first])
}

func (r *runner) drive(ctx context.Context, jobs []Job) error {
	r.began = time.Duration(mono.System.Now())
	var err error
	if r.watch != nil {
		if r.first, err = r.watch.see(); err != nil {
			return err
		}
		r.spent = r.watch.spent()
		r.lastS = r.first
	}
	r.result.Kernel = &[2]Slab{kernelNow()}
	r.lastT, r.saidT = r.began, r.began
	for _, j := range jobs {
		if r.stuck() {
			break
		}
		if err := r.spawn(j); err != nil {
			return err
		}
		over := func(r *runner) bool { return r.env.Opening == 0 || r.unready() < r.env.Opening }
		if j.Verb == backend { // it has to listen before the first client comes
			over = (*runner).allReady
		}
		if err := r.until(ctx, over); err != nil {
			return err
		}
	}
	if err := r.until(ctx, (*runner).allReady); err != nil {
		return err
	}
	if err := r.opened(); err != nil {
		return err
	}
	if r.stuck() {
		r.result.Kernel[1] = kernelNow()
		return nil
	}
	r.begin(time.Duration(mono.System.Now()) + startAhead)
	if err := r.order(order{Start: int64(r.start)}); err != nil {
		return err
	}
	return r.follow(ctx)
}

// follow listens until the run is over, and what is awaited behind it.
func (r *runner) follow(ctx context.Context) error {
	if !r.over { // a run may be broken off while answers are awaited
		if err := r.until(ctx, (*runner).clientsEnded); err != nil {
			return err
		}
		if err := r.ended(); err != nil {
			return err
		}
	}
	if err := r.until(ctx, (*runner).clientsDone); err != nil {
		return err
	}
	return r.ran()
}

// stuck says that it will come to no run.
func (r *runner) stuck() bool { return len(r.stands) > 0 && r.start == 0 }

// openWait is how long it may take until a socket more is open.
func (s *Settings) openWait() time.Duration {
	if s.Timeout == 0 {
		return openForever
	}
	wait := openPatience + 3*s.Timeout
	if s.Ramp > 0 {
		wait += time.Duration(min(2/s.Ramp, 1e6) * float64(time.Second))
	}
	return wait
}

// begin is the start of the run, at which its first point begins.
func (r *runner) begin(at time.Duration) {
	r.start = at
	r.lastT, r.lastC, r.lastE, r.lastU = at, Counts{}, 0, r.used()
	r.saidT, r.saidC = at, Counts{}
}

func (r *runner) allReady() bool { return r.unready() == 0 }

// unready is how many workers are not ready.
func (r *runner) unready() (n int) {
	for _, p := range r.procs {
		if p.ready == nil {
			n++
		}
	}
	return n
}

// clientsEnded says that the run is over for all but the backends, which know no end.
func (r *runner) clientsEnded() bool {
	return !slices.ContainsFunc(r.procs, func(p *proc) bool { return p.end == nil && p.verb != backend })
}

// clientsDone says that no client waits for answers any more.
func (r *runner) clientsDone() bool {
	return !slices.ContainsFunc(r.procs, func(p *proc) bool { return !p.done && p.verb != backend })
}

// until listens to the workers until over says so.
func (r *runner) until(ctx context.Context, over func(*runner) bool) error {
	points := time.NewTicker(pointEvery)
	defer points.Stop()
	moved, open := time.Now(), uint64(0)
	for !over(r) && !r.stuck() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s := <-r.lines:
			if err := r.hear(s); err != nil {
				return err
			}
		case <-points.C:
			if err := errors.Join(r.point(), r.say()); err != nil {
				return err
			}
			now := time.Now()
			if err := r.overdue(now); err != nil {
				return err
			}
			if n := r.counts().Opened; n != open || r.start > 0 { // not what is open: half-open sockets and those to the handshake come and go
				moved, open = now, n
			}
			if now.Sub(moved) > r.opening {
				r.stands = append(r.stands, fmt.Sprintf("no socket more was opened for %s", r.opening))
			}
		}
	}
	return nil
}
