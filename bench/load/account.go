package load

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"ticketgate/internal/mono"
)

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
	r.honest(func(p *proc) {
		n += p.last.Open
	})
	return n
}

// resident is the memory of all workers.
func (r *runner) resident() (n int64) {
	for _, p := range r.procs {
		n += p.last.RSS
	}
	return n
}

// counts are those of the phase. What is done after the end of the run is not of it.
func (r *runner) counts() Counts {
	var all Counts
	r.honest(func(p *proc) {
		c := p.last.Counts
		if p.end != nil {
			c = p.end.Counts
		}
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

// point adds a moment to the series, and says how far it is, unless the one before is too near: the series is thinned, or a phase ends
// right behind another point, too short to tell a rate.
func (r *runner) point() error { return r.pointFrom(max(r.every, pointEvery) - pointEvery*3/4) }

// pointFrom does it if there has been no point for so long.
func (r *runner) pointFrom(least time.Duration) error {
	if r.over {
		return nil
	}
	now := time.Duration(mono.System.Now())
	if len(r.result.Series) > 0 && now-r.lastT < least {
		return nil
	}
	c := r.counts()
	total := sum(r.errors())
	phase, _ := r.phase()
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
		before := r.lastS
		s := r.see()
		p.Server, p.RSS = (s.cpu-before.cpu).Seconds()/d, s.rss
	}
	p.SlabSize, p.ClientRSS = slabsNow(), r.resident()
	r.lastT, r.lastU, r.lastC, r.lastE = now, used, c, total
	if r.result.Series = append(r.result.Series, p); len(r.result.Series) == seriesMost {
		r.result.Series = halved(r.result.Series)
		r.every = 2 * max(r.every, pointEvery)
	}
	return r.say()
}

// say tells how far it is, unless it just has.
func (r *runner) say() error {
	now := time.Duration(mono.System.Now())
	if r.env.Say == nil || now-r.saidT < pointEvery/4 {
		return nil
	}
	phase, since := r.phase()
	c, errs := r.counts(), r.errors()
	n, before := c.Done, r.saidC.Done
	if phase == phaseOpen {
		n, before = c.Opened, r.saidC.Opened
	}
	latencies, err := r.latencies()
	if err != nil {
		return err
	}
	r.env.Say(Progress{Phase: phase, Open: r.sockets(), Wanted: r.s.Sockets, At: now - since, For: r.s.Duration, PerSec: float64(n-before) / (now - r.saidT).Seconds(), Total: c,
		Errors: sum(errs), Class: most(errs), Latency: latencies[0], Ticket: latencies[1]})
	r.saidT, r.saidC = now, c
	return nil
}

// phase is that of the coordinator, and when it began.
func (r *runner) phase() (phase string, since time.Duration) {
	if r.start > 0 {
		return phaseRun, r.start
	}
	return phaseOpen, r.began
}

// halved makes one point of two, where both are of the same phase.
func halved(all []Point) []Point {
	some := make([]Point, 0, seriesMost)
	for _, p := range all {
		if n := len(some); n > 0 && some[n-1].Phase == p.Phase && some[n-1].halves == 1 {
			some[n-1].add(p)
			some[n-1].halves = 2
			continue
		}
		p.halves = 1
		some = append(some, p)
	}
	for i := range some {
		some[i].halves = 0
	}
	return some
}

// see looks at the server. A process that is gone takes its processor time with it: the last reading is what there is then.
func (r *runner) see() seen {
	if r.lost == nil {
		s, err := r.watch.see()
		if err == nil {
			r.lastS = s
			return s
		}
		r.lost = err
	}
	return r.lastS
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
	o := &r.result.Opening
	*o = Opening{Took: time.Duration(mono.System.Now()) - r.began}
	if r.s.hasSockets() {
		o.Wanted = r.s.Sockets
	}
	r.atStart()
	var err, err2, err3 error
	o.Ticket, err = latencyOf(r.open[histTicket])
	o.Open, err2 = latencyOf(r.open[histOpen])
	o.Schedule, err3 = latencyOf(r.open[histSchedule])
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	var due, late uint64
	r.honest(func(p *proc) {
		due, late = due+p.base.Due, late+p.base.Late
		if p.ready != nil && p.ready.At >= busyFrom {
			o.Busiest = max(o.Busiest, float64(p.ready.Used-p.first.Used+p.ready.Waited-p.first.Waited)/float64(p.ready.At))
		}
	})
	if r.s.Ramp > 0 && due > 0 {
		o.LateShare = float64(late) / float64(due)
	}
	if r.s.hasSockets() && o.Opened == 0 {
		r.stands = append(r.stands, "there was nothing to run with")
	}
	if err := r.point(); err != nil { // it tells what the server took since the one before, so it looks first
		return err
	}
	if r.watch != nil {
		before := r.spent
		r.full, r.spent = r.see(), r.watch.spent()
		s := r.load(r.first, before, r.full, r.full.at-r.first.at)
		o.Full = s.exhausted()
	}
	return nil
}

// load is what of the server's processors was used between two moments, took apart.
func (r *runner) load(from seen, spent map[string]time.Duration, to seen, took time.Duration) *Server {
	wall := max(took, time.Millisecond).Seconds()
	s := &Server{CPU: to.cpu - from.cpu, May: r.watch.cores()}
	s.Cores = s.CPU.Seconds() / wall
	for thread, d := range r.watch.spent() {
		s.Thread = max(s.Thread, min((d-spent[thread]).Seconds()/wall, 1))
	}
	return s
}

// atStart counts the sockets that are open when the run begins, and what went wrong until then, by the workers' last reports before it.
func (r *runner) atStart() {
	o := &r.result.Opening
	o.Opened, o.Lost, o.Errors = 0, 0, make(map[string]uint64)
	r.honest(func(p *proc) {
		o.Opened += p.base.Opened - p.base.Lost
		o.Lost += p.base.Lost
		for class, n := range p.mis {
			o.Errors[class] += n
		}
	})
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

// ended writes down what the run has done and taken at its end. What comes after it, while answers are awaited, makes no figure better.
func (r *runner) ended() error {
	if err := r.pointFrom(pointEvery / 4); err != nil { // however thin the series is, it adds up
		return err
	}
	r.over = true
	r.atStart()
	res := r.result
	run := &res.Run
	run.Counts = r.counts()
	r.honest(func(p *proc) {
		wall := max(p.end.At, time.Millisecond)
		run.Took = max(run.Took, wall)
		run.Held += p.end.Open
		res.Client.Busiest = max(res.Client.Busiest, float64(p.end.Used-p.used+p.end.Waited-p.wait)/float64(wall))
		if c := p.end.Counts.sub(p.base); c.Due >= judgedFrom {
			res.Client.Late = max(res.Client.Late, float64(c.Late)/float64(c.Due))
		}
		res.Client.CPU += p.end.Used - p.used
		res.Client.RSS += p.end.RSS
		if r.s.Sockets >= manySockets {
			res.Client.PerSocket += float64(p.end.RSS-p.rss0) / float64(max(res.Opening.Opened, 1))
		}
	})
	if !r.s.hasSockets() {
		run.Held = 0
	}
	res.Backend = r.backends()
	res.Client.Processes = r.s.Procs
	run.Rate = float64(run.Done) / run.Took.Seconds()
	if all, err := r.s.schedule(); err == nil && all != nil {
		run.Wanted = all.Count() / all.Duration().Seconds()
	}
	if run.Due > 0 {
		run.LateShare = float64(run.Late) / float64(run.Due)
	}
	res.Kernel[1] = kernelNow()
	r.served()
	return nil
}

// backends is what the relay's backends took; nil: there are none. They know no end of the run: by their last reports.
func (r *runner) backends() *Backend {
	b := &Backend{Errors: make(map[string]uint64)}
	for _, p := range r.procs {
		if p.verb != backend {
			continue
		}
		b.Processes++
		b.CPU += p.last.Used - p.used
		b.Busiest = max(b.Busiest, float64(p.last.Used-p.used+p.last.Waited-p.wait)/float64(max(p.last.At, time.Millisecond)))
		for class, n := range p.last.Errors {
			b.Errors[class] += n
		}
	}
	if b.Processes == 0 {
		return nil
	}
	return b
}

// ran writes down what the answers that came after the end add: latencies, and fewer errors than without them.
func (r *runner) ran() error {
	run := &r.result.Run
	run.Errors = r.errors()
	r.honest(func(p *proc) { run.After += p.last.Done - p.end.Done })
	n := run.Begun + run.Errors[classSlow]
	if n == 0 {
		n = uint64(max(r.s.Sockets, 1))
	}
	run.ErrorShare = min(float64(sum(run.Errors)-r.result.own(run.Errors))/float64(n), 1)
	var err error
	for name, to := range map[string]**Latency{histOperation: &run.Latency, histTicket: &run.Ticket, histOpen: &run.Open, histIn: &run.In, histOut: &run.Out, histSchedule: &run.Schedule} {
		l, e := latencyOf(r.run[name])
		*to, err = l, errors.Join(err, e)
	}
	var all lags
	r.honest(func(p *proc) {
		if p.end.Lags != nil {
			all.add(p.end.Lags)
		}
	})
	run.Lag = all.lag()
	if err == nil && r.s.Verb == Hostile {
		err = r.attacked()
	}
	return err
}

// attacked tells before from under.
func (r *runner) attacked() error {
	a := &Attack{Kinds: r.s.Attacks}
	var err, err2 error
	a.Before, err = latencyOf(r.calm[histOperation])
	a.Under, err2 = latencyOf(r.storm[histOperation])
	for _, p := range r.procs {
		if p.verb == attack {
			c := p.last.Counts
			a.CutOff += c.Done
			a.Peers = append(a.Peers, Peers{Kind: p.kind, Came: c.Came, Open: c.Came - c.Done, CutOff: c.Done, Errors: p.last.Errors})
		}
	}
	r.result.Hostile = a
	return errors.Join(err, err2)
}

// served writes down what the server took.
func (r *runner) served() {
	if r.watch == nil {
		return
	}
	now := r.see()
	run := &r.result.Run
	s := r.load(r.full, r.spent, now, now.at-r.start)
	s.PIDs, s.Before, s.Full, s.After, s.Most = r.watch.pids, r.first.rss, r.full.rss, now.rss, now.rss
	if run.Done > 0 {
		s.PerDone = s.CPU / time.Duration(run.Done)
	}
	for _, p := range r.result.Series {
		s.Most = max(s.Most, p.RSS)
	}
	if n := r.result.Opening.Opened; n >= manySockets {
		s.PerSocket = float64(s.Full-s.Before) / float64(n)
	}
	if r.lost != nil {
		s.Gone = r.lost.Error()
	}
	r.result.Server = s
}

// conclude says what to think of it.
func (r *runner) conclude() {
	res := r.result
	res.Took = time.Duration(mono.System.Now()) - r.began
	if r.local {
		res.Notes = append(res.Notes, "server on the same machine: client and server share its cores")
	}
	if n := res.Run.Ahead; n > 0 {
		res.Notes = append(res.Notes, fmt.Sprintf("%d messages came before the time that they tell: the clocks of server and client differ, and the delays say nothing", n))
	}
	if own := res.Run.ownDelay(0.01, 0.001); own != "" { // a machine that wakes the client late now and then
		res.Notes = append(res.Notes, own+": without it the server is faster")
	}
	if own := res.openingOwn(); own != "" {
		res.Notes = append(res.Notes, "while sockets were opened "+own+": ticket- and open- figures are its own")
	}
	res.Verdict = Done
	if why := append(res.failed(), r.stands...); len(why) > 0 {
		res.Verdict, res.Why = Fail, why
	}
	if why := slices.Concat(res.saturated(), res.harmless(), res.Broken); len(why) > 0 {
		res.Verdict, res.Why = Invalid, append(res.Why, why...)
	}
}
