package load

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"time"

	"ticketgate/bench"
	"ticketgate/internal/mono"
)

// A worker is one process of a run: one thread, one epoll, everything on it.
type worker struct {
	job    Job
	loop   *bench.Loop
	rnd    *rand.Rand
	start  time.Duration // of the phase, on the loop's clock
	phase  string
	said   time.Duration // when the last report was written
	out    *json.Encoder
	orders <-chan order
	gone   <-chan error // the end of the orders

	Counts
	lags     *lags         // nil: it has due times, or nothing that could be late
	beat     time.Duration // when the next one is due
	errors   map[string]uint64
	examples map[string]string // of errors by class, that were not reported yet
	hists    hists
	gates    []string                 // host:port of those that tickets named and that were not reported yet
	targets  map[string]*bench.Target // by host:port, of gates
	waits    waits                    // for tickets, connections and upgrades, and the ends of polite closes
	what     scenario
	keeps    bool // the scenario's sockets stay open
}

// A scenario is what a worker does in its run. All is called on the loop.
type scenario interface {
	// socket is the handler of one more open socket; its Opened has been called when the run begins. nil: the verb opens its
	// sockets itself.
	socket() bench.Handler
	// begin starts the run at now.
	begin(now time.Duration) error
	// tick does what is due and says when it wants to be called again at the latest.
	tick(now time.Duration) time.Duration
	// finish begins nothing more.
	finish()
	// idle says that no answer is missing.
	idle() bool
	// giveUp counts the answers that are missing as errors.
	giveUp()
}

// gcPercent keeps a worker small: it allocates for sockets, and next to nothing for messages.
const gcPercent = 25

// far is later than any run's end.
const far = time.Duration(1) << 60

// Work does the job that the first line of in tells, reports on out, a line of JSON each, and returns when it is done or in
// ends. It must have its thread for itself.
func Work(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	w := &worker{out: json.NewEncoder(out), errors: make(map[string]uint64), hists: make(hists), targets: make(map[string]*bench.Target)}
	text, err := lines.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(text, &w.job)
	}
	if err != nil {
		return fmt.Errorf("bench worker: this is no job: %w (it is started by other bench commands, not by people)", err)
	}
	orders, gone := make(chan order), make(chan error, 1)
	w.orders, w.gone = orders, gone
	over := make(chan struct{})
	defer close(over)
	go func() { gone <- listen(lines, orders, over) }() // it ends with in, or with the order after over; the process ends then anyway
	if err := w.work(ctx); err != nil {
		return errors.Join(err, w.out.Encode(Report{Phase: phaseDone, Fatal: err.Error()}))
	}
	return nil
}

// listen hands on the orders until there are none.
func listen(in *bufio.Reader, to chan<- order, over <-chan struct{}) error {
	d := json.NewDecoder(in)
	for {
		var o order
		if err := d.Decode(&o); err != nil {
			return err
		}
		select {
		case to <- o:
		case <-over:
			return nil
		}
	}
}

func (w *worker) work(ctx context.Context) (err error) {
	if w.job.Thread >= 0 {
		if err := bench.Pin(w.job.Thread); err != nil {
			return err
		}
	}
	if _, err := (bench.Needs{}).Preflight(); err != nil { // raises the limit of descriptors
		return err
	}
	debug.SetGCPercent(gcPercent)
	w.rnd = rand.New(rand.NewPCG(w.job.Seed, uint64(w.job.Index)))
	o := w.job.options()
	for _, s := range w.job.Source {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return err
		}
		o.Sources = append(o.Sources, a)
	}
	w.waits.limit = w.job.Timeout
	if w.loop, err = bench.NewLoop(o); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.loop.Close()) }()
	if w.what, err = w.scenario(); err != nil {
		return err
	}
	stop, err := w.open(ctx)
	if err != nil || stop {
		return err
	}
	stop, err = w.await(ctx)
	if err != nil || stop {
		return err
	}
	return w.run(ctx)
}

// frameMax is a frame's head at most, before a message of any size.
const frameMax = 14

// options are those of the worker's loop. What a closed loop has under way is meant to wait, however much it is.
func (j *Job) options() bench.Options {
	frame := j.Size + frameMax
	flight := max(j.InFlight, 1) * frame
	return bench.Options{Now: func() time.Duration { return time.Duration(mono.System.Now()) }, Left: frame, Unsent: flight, UnsentAll: j.Sockets * flight}
}

func (w *worker) scenario() (scenario, error) {
	switch w.job.Verb {
	case Echo, Soak, Hostile:
		return newEcho(w), nil
	case Relay:
		return newRelay(w), nil
	case Connect:
		return &holding{&quiet{w}}, nil
	case Feed:
		return &hearing{w: w}, nil
	case Tickets:
		return newAsking(w)
	case Churn:
		return newChurning(w)
	case attack:
		return newAttack(w)
	case backend:
		return newBackend(w)
	default:
		return nil, fmt.Errorf("bench worker: no verb %q", w.job.Verb)
	}
}

// enter begins a phase.
func (w *worker) enter(phase string, at time.Duration) {
	w.phase, w.start, w.said = phase, at, at
}

// turn handles what has come, waits for more until then at most, and reports when it is time to.
func (w *worker) turn(ctx context.Context, until time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	now := w.loop.Now()
	if err := w.loop.Turn(min(until, w.said+w.job.Every, w.waits.next()) - now); err != nil {
		return err
	}
	w.waits.expire(w.loop.Now())
	if now := w.loop.Now(); now >= w.said+w.job.Every {
		w.said = now
		return w.report()
	}
	return nil
}

// waitOf is what own, bench.OwnWait, says; 0 where the kernel does not tell: some are built without it, and some sandboxes hide it.
func waitOf(own func() (time.Duration, error)) (time.Duration, error) {
	waited, err := own()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return 0, nil
	}
	return waited, err
}

func (w *worker) report() error {
	cpu, err := bench.OwnCPU()
	if err != nil {
		return err
	}
	waited, err := waitOf(bench.OwnWait)
	if err != nil {
		return err
	}
	rss, err := bench.OwnResident()
	if err != nil {
		return err
	}
	open := w.loop.Open()
	if w.keeps { // the loop also knows connections to the handshake, and sockets that have no 101 yet
		open = int(w.Opened - w.Lost)
	}
	r := Report{Phase: w.phase, At: w.loop.Now() - w.start, Open: open, Counts: w.Counts, Errors: w.errors, Lags: w.lags, Hists: w.hists.take(), Examples: w.examples, Gates: w.gates,
		Used: cpu.Total(), Waited: waited, RSS: rss}
	if err := w.out.Encode(r); err != nil {
		return fmt.Errorf("bench worker: report: %w", err)
	}
	w.examples, w.gates = nil, nil
	return nil
}

// open opens the sockets of the verbs that begin with open ones.
func (w *worker) open(ctx context.Context) (stop bool, err error) {
	w.keeps = w.job.Sockets > 0 && w.what.socket() != nil
	w.enter(phaseOpen, w.loop.Now())
	if err := w.report(); err != nil { // what it takes without a socket
		return false, err
	}
	if w.keeps {
		o, err := newOpener(w, w.job.Sockets, w.what.socket)
		if err != nil {
			return false, err
		}
		if w.job.Ramp > 0 {
			all := Schedule{Steps: []Step{{From: w.job.Ramp, To: w.job.Ramp, For: far}}}
			o.pacer = newPacer(all, w.job.Index, w.job.Share, w.rnd)
		}
		for next := o.tick(w.start); !o.over(); next = o.tick(w.loop.Now()) {
			if stop, err := w.ordered(); err != nil || stop {
				return stop, err
			}
			if err := w.turn(ctx, next); err != nil {
				return false, err
			}
		}
	}
	if err := w.report(); err != nil {
		return false, err
	}
	w.phase = phaseReady
	return false, w.report()
}

// errAlone is the end of the process that gave the job.
var errAlone = errors.New("bench worker: nobody listens any more")

// ordered looks whether there is an order, which before the run can only be to stop.
func (w *worker) ordered() (stop bool, err error) {
	select {
	case o := <-w.orders:
		return o.Stop, nil
	case <-w.gone: //nolint:errcheck // however it ended
		return false, errAlone
	default:
		return false, nil
	}
}

// dozeEvery is how often a worker looks at sockets of which nothing is measured.
const dozeEvery = 100 * time.Millisecond

// doze is turn for sockets that are only to be kept: it looks at them now and then, at the same moments as all other workers. Woken by
// each ping, 57 of them take half of a machine, and those who send the pings are woken as often by their answers.
func (w *worker) doze(ctx context.Context, until time.Duration) error {
	time.Sleep(w.rest(until))
	return w.turn(ctx, 0)
}

// rest is how long a worker that dozes does nothing, at most until then.
func (w *worker) rest(until time.Duration) time.Duration {
	if w.loop.Busy() {
		return 0
	}
	now := w.loop.Now()
	return max(min(until, now-now%dozeEvery+dozeEvery)-now, 0)
}

// await keeps the sockets alive until the run is to begin.
func (w *worker) await(ctx context.Context) (stop bool, err error) {
	for {
		select {
		case o := <-w.orders:
			w.start = time.Duration(o.Start)
			return o.Stop, nil
		case <-w.gone: //nolint:errcheck // however it ended
			return false, errAlone
		case <-time.After(w.rest(far)):
		}
		if err := w.turn(ctx, 0); err != nil {
			return false, err
		}
	}
}

// run is the run itself, and the wait for what is missing at its end.
func (w *worker) run(ctx context.Context) error {
	for w.loop.Now() < w.start {
		if err := w.turn(ctx, w.start); err != nil {
			return err
		}
	}
	if err := w.report(); err != nil { // what was counted before belongs to no part of the run
		return err
	}
	w.enter(phaseRun, w.start)
	if err := w.what.begin(w.start); err != nil {
		return err
	}
	if w.job.Schedule == nil && w.job.measures() {
		w.lags, w.beat = new(lags), w.start+beatEvery
	}
	turn := w.turn
	if w.job.Verb == Connect {
		turn = w.doze
	}
	stopped := false
	for now := w.loop.Now(); now < w.end() && !stopped; now = w.loop.Now() {
		until := min(w.what.tick(now), w.end())
		if w.lags != nil {
			w.beat = w.lags.beats(w.beat, now)
			until = min(until, w.beat)
		}
		if err := turn(ctx, until); err != nil {
			return err
		}
		var err error
		if stopped, err = w.ordered(); err != nil {
			return err
		}
	}
	if stopped {
		w.job.For = w.loop.Now() - w.start
	}
	w.phase = phaseSettle
	if err := w.report(); err != nil { // what is done from here on belongs to no second of the run
		return err
	}
	stop, err := w.settle(ctx)
	if err != nil {
		return err
	}
	stopped = stopped || stop
	w.phase = phaseDone
	if err := w.report(); err != nil || stopped {
		return err
	}
	return w.hold(ctx)
}

// end is when the run ends, or has been ended.
func (w *worker) end() time.Duration { return w.start + w.job.For }

// settle waits for the answers that are missing at the end of the run. stop: it was told to end before they were there.
func (w *worker) settle(ctx context.Context) (stop bool, err error) {
	w.what.finish()
	for end := w.loop.Now() + w.job.Settle; !stop && !w.what.idle() && w.loop.Now() < end; {
		if stop, err = w.ordered(); err != nil {
			return false, err
		}
		if err := w.turn(ctx, min(end, w.loop.Now()+10*time.Millisecond)); err != nil {
			return false, err
		}
	}
	w.what.giveUp()
	return stop, nil
}

// hold keeps the sockets until the process that gave the job ends it: other workers are still at it, and a socket that closes would
// show in what they and the server cost.
func (w *worker) hold(ctx context.Context) error {
	for {
		select {
		case <-w.orders:
			return nil
		case <-w.gone: //nolint:errcheck // however it ended
			return nil
		case <-time.After(w.rest(far)):
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.loop.Turn(0); err != nil {
			return err
		}
	}
}

// class is that of err, which its caller counts. The first of a class is kept as an example: a class alone does not say what to do.
func (w *worker) class(err error) string {
	class := classOf(err)
	if w.errors[class] == 0 {
		if w.examples == nil {
			w.examples = make(map[string]string)
		}
		text := err.Error()
		w.examples[class] = text[:min(len(text), exampleMax)]
	}
	return class
}

// exampleMax is how many bytes of an error are kept: as many as bench keeps of an answer's body.
const exampleMax = 300

// fail counts an error, n times.
func (w *worker) fail(class string, n uint64) {
	if n > 0 {
		w.errors[class] += n
	}
}

// unanswered counts an operation that was due at due and has no answer as an error. In the distribution it counts as if it had
// waited to the end of the run, which it has at least: without it a server that dies after a second has the latencies of that second.
func (w *worker) unanswered(class string, due time.Duration) {
	w.fail(class, 1)
	record(w.hists.of(histOperation), max(w.end(), w.loop.Now())-due, 1)
}

// failed counts an operation that ended with err. A status is an answer, if not the one that was hoped for.
func (w *worker) failed(err error, due time.Duration) {
	var status *bench.StatusError
	if errors.As(err, &status) {
		w.fail(w.class(err), 1)
		return
	}
	w.unanswered(w.class(err), due)
}

// pacer walks through this worker's share of the job's schedule; nil: there is none, a closed loop.
func (w *worker) pacer() *pacer {
	if w.job.Schedule == nil {
		return nil
	}
	return newPacer(*w.job.Schedule, w.job.Index, w.job.Share, w.rnd)
}

// behind measures how long after it was due an operation begins.
func (w *worker) behind(due, now time.Duration) {
	record(w.hists.of(histSchedule), now-due, 1)
	if now-due > lateAfter {
		w.Late++
	}
}

// dueMax is how many operations begin before the answers to others are looked at: a client that is behind must not go deaf.
const dueMax = 256

// due does do for every operation of p that is due now, dueMax at most, and returns when the next one is.
func (w *worker) due(p *pacer, now time.Duration, do func(due, now time.Duration)) time.Duration {
	for range dueMax {
		after, ok := p.due()
		if !ok {
			return far
		}
		at := w.start + after
		if at > now {
			return at
		}
		w.Due++
		p.advance()
		do(at, now)
		// What was due when this began may have become so long ago that it is late now, because of all that was begun before it.
		now = max(now, w.loop.Now())
	}
	return now
}
