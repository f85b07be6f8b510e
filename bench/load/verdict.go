package load

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds from which on a run says more of the client than of the server.
const (
	lateMost   = 0.01                   // of the operations
	judgedFrom = 100                    // operations of a worker, for its own share of late ones
	begunLeast = 0.99                   // of what the schedule wanted
	clientMost = 0.95                   // of a core
	serverMost = 0.9                    // of a thread, or of all cores that it may have: the server could do no more either
	lagMost    = 0.5                    // of a percentile: the client's own part in it
	lagFloor   = 200 * time.Microsecond // below which no part is too large: a wake-up takes some of it
	busyFrom   = 500 * time.Millisecond // of opening sockets, for its share of a core
	growthFrom = 3                      // points of memory in half a run, for a slope
	lagBeyond  = 10                     // operations beyond a percentile, for it to say anything
)

// saturated says why r is the client's figure and not the server's; nothing: it is the server's.
func (r *Result) saturated() []string {
	var why []string
	say := func(format string, args ...any) {
		why = append(why, "generator saturated: "+fmt.Sprintf(format, args...))
	}
	run, c := &r.Run, &r.Client
	if r.Settings.Rate != "" {
		r.behind(say)
	} else if r.Settings.Verb != Connect && c.Busiest >= clientMost && !r.Server.exhausted() {
		say("it was busy %s of its core (the server: %s): the rate is its own; give it --procs, or a rate", percent(c.Busiest), r.serverShare())
	} else if own := run.ownDelay(0.5, 0.1); own != "" {
		say("%s; give it a core of its own", own)
	}
	if own := r.openingOwn(); own != "" && r.Settings.Verb == Connect && r.Settings.Ramp > 0 {
		say("%s; give it --procs, or more --lanes", own)
	}
	if b := r.Backend; b != nil {
		if b.Busiest >= clientMost && !r.Server.exhausted() {
			say("the backend, which is its own, was busy %s of its core (the server: %s)", percent(b.Busiest), r.serverShare())
		}
		if n := b.Errors[classFiles]; n > 0 {
			say("the backend, which is its own, had no descriptor for %d sockets: give it --procs", n)
		}
	}
	if o := &r.Opening; o.Opened < uint64(o.Wanted) && r.own(o.Errors) > 0 {
		say("it had no port or descriptor for %d sockets: give it --source, or --procs", r.own(o.Errors))
	}
	if run.Errors[classPorts]+run.Errors[classFiles] > 0 {
		say("it had no port or descriptor for some operations%s", listed(run.Errors))
	}
	// Where nothing was ever done, it is the server for which all lanes wait.
	if share := float64(run.Errors[classSlow]) / float64(max(run.Due, 1)); !r.Settings.hasSockets() && run.Done > 0 && share > lateMost {
		say("%s of the operations found all lanes busy to the end: give it more --lanes", percent(share))
	}
	return why
}

// harmless says which attacks have not happened.
func (r *Result) harmless() []string {
	if r.Hostile == nil || r.Run.Took <= r.Settings.Duration/2 { // it was ended before they came
		return nil
	}
	var why []string
	for _, p := range r.Hostile.Peers {
		if p.Came == 0 {
			why = append(why, fmt.Sprintf("no %s attacked: none came in%s%s", p.Kind, listed(p.Errors), r.limited(p.Errors)))
		}
	}
	return why
}

// own is how many of errs are the client's: it ran out of ports, descriptors, or lanes.
func (r *Result) own(errs map[string]uint64) uint64 {
	n := errs[classPorts] + errs[classFiles]
	if !r.Settings.hasSockets() { // with sockets it means that the server has closed all of them
		n += errs[classSlow]
	}
	return n
}

// behind says in what the client did not keep to the schedule.
func (r *Result) behind(say func(format string, args ...any)) {
	run := &r.Run
	hint := ""
	if !r.Settings.hasSockets() {
		hint = ": give it more --lanes, or --procs"
	}
	if run.LateShare > lateMost {
		say("%s of the operations began more than %s after they were due%s", percent(run.LateShare), lateAfter, hint)
	} else if r.Client.Late > lateMost {
		say("%s of the operations of one process began more than %s after they were due%s", percent(r.Client.Late), lateAfter, hint)
	}
	if all, err := r.Settings.schedule(); err == nil && !r.Settings.Poisson {
		if want := all.Count(); float64(run.Due) < want*begunLeast && run.Took >= r.Settings.Duration {
			say("it came to %d of the %.0f operations that were due", run.Due, want)
		}
	}
	if own := run.ownDelay(0.5, 0.1); own != "" {
		say("%s%s", own, hint)
	}
}

// openingOwn says why the times of tickets and of opening sockets are the client's and not the server's; "": they are not.
func (r *Result) openingOwn() string {
	o := &r.Opening
	if o.Wanted == 0 {
		return ""
	}
	if r.Settings.Ramp == 0 {
		if o.Busiest >= clientMost && !o.Full {
			return "a client process was busy " + percent(o.Busiest) + " of its core"
		}
		return ""
	}
	if o.LateShare > lateMost {
		return fmt.Sprintf("the client began %s of them more than %s after they were due", percent(o.LateShare), lateAfter)
	}
	if own := ownDelay(o.Schedule, either(o.Ticket, o.Open), 0.5, 0.1); own != "" {
		return "the client: " + own
	}
	return ""
}

// ownDelay says in which percentile more than half is the client's own delay; "": in none. beyond are the shares of operations that take
// longer than the percentiles that are looked at.
func (run *Running) ownDelay(beyond ...float64) string {
	if own := ownDelay(run.Schedule, run.Latency, beyond...); own != "" || run.Lag == nil {
		return own
	}
	return ownDelay(&Latency{P50: run.Lag.P50, P90: run.Lag.P90, P99: run.Lag.P99}, run.Latency, beyond...)
}

// ownDelay is that of l, in which s has a part.
func ownDelay(s, l *Latency, beyond ...float64) string {
	if s == nil || l == nil {
		return ""
	}
	for _, p := range []struct {
		name      string
		lag, took time.Duration
		beyond    float64
	}{{"p50", s.P50, l.P50, 0.5}, {"p90", s.P90, l.P90, 0.1}, {"p99", s.P99, l.P99, 0.01}, {"p99.9", s.P999, l.P999, 0.001}} {
		if slices.Contains(beyond, p.beyond) && p.lag > lagFloor && float64(p.lag) > lagMost*float64(p.took) && float64(l.Count)*p.beyond >= lagBeyond {
			return fmt.Sprintf("its own delay is %s at %s, more than half of the %s that it measured", short(p.lag), p.name, short(p.took))
		}
	}
	return ""
}

// exhausted says that the server had no processor left: one of its threads, or all cores that it may run on.
func (s *Server) exhausted() bool {
	return s != nil && (s.Thread >= serverMost || s.May > 0 && s.Cores >= serverMost*float64(s.May))
}

// failed says why r is no success whatever was required; nothing: it may be one.
func (r *Result) failed() []string {
	var why []string
	say := func(errs map[string]uint64, format string, args ...any) {
		why = append(why, fmt.Sprintf(format, args...)+listed(errs)+r.limited(errs))
	}
	o, run := &r.Opening, &r.Run
	if wanted := uint64(o.Wanted); o.Opened < wanted {
		switch {
		case o.Opened+o.Lost == 0:
			say(o.Errors, "none of %d sockets could be opened", wanted)
		case o.Opened+o.Lost < wanted:
			say(o.Errors, "%d of %d sockets could not be opened", wanted-o.Opened-o.Lost, wanted)
		}
		if o.Lost > 0 {
			say(o.Errors, "%d of %d sockets were lost before the run", o.Lost, wanted)
		}
	}
	if run.Took == 0 {
		return why // there was no run
	}
	if n := uint64(run.Held); o.Wanted > 0 && n < o.Opened {
		say(run.Errors, "%d of %d sockets were lost in the run", o.Opened-n, o.Opened)
	}
	if r.Server != nil && r.Server.Gone != "" {
		say(nil, "the server did not stay: %s", r.Server.Gone)
	}
	if r.Settings.Verb == Connect {
		return why
	}
	switch done, errs := run.Done+run.After, sum(run.Errors)-r.own(run.Errors); {
	case done == 0:
		say(run.Errors, "nothing was done")
	case errs > done:
		say(run.Errors, "%d operations were done, and %d went wrong", done, errs)
	}
	return why
}

// limited is what to do where the server refuses a client that asks too often.
func (r *Result) limited(errs map[string]uint64) string {
	refused := slices.ContainsFunc(sortedKeys(errs), func(class string) bool { return strings.HasPrefix(class, "http_429") })
	if !refused || r.Settings.Clients > 0 {
		return ""
	}
	return " (429: a limit of the client's plan; --clients spreads the load over several)"
}

func (r *Result) serverShare() string {
	if r.Server == nil {
		return "not known"
	}
	return fmt.Sprintf("%.2f cores, its busiest thread %s", r.Server.Cores, percent(r.Server.Thread))
}

func percent(v float64) string { return strconv.FormatFloat(100*v, 'f', 1, 64) + "%" }

// A Requirement is something that a run has to reach.
type Requirement struct {
	text  string
	name  string
	than  string // < <= > >=
	value float64
	unit  unit
}

type unit int

const (
	unitNumber unit = iota
	unitShare
	unitTime
	unitSize
)

// A figure is something that can be required. Its second value is false where the run has none.
type figure struct {
	unit unit
	of   func(*Result) (float64, bool)
}

// figures are by name.
var figures = func() map[string]figure {
	all := map[string]figure{
		"errors":       {unitShare, func(r *Result) (float64, bool) { return r.Run.ErrorShare, r.tried() }},
		"late":         {unitShare, func(r *Result) (float64, bool) { return r.Run.LateShare, r.Settings.Rate != "" }},
		"rate":         {unitNumber, func(r *Result) (float64, bool) { return r.Run.Rate, true }},
		"opened":       {unitNumber, func(r *Result) (float64, bool) { return float64(r.Opening.Opened), true }},
		"held":         {unitNumber, func(r *Result) (float64, bool) { return float64(r.Run.Held), true }},
		"lost":         {unitNumber, func(r *Result) (float64, bool) { return float64(r.Opening.Lost + r.Run.Lost), true }},
		"client-bytes": {unitSize, func(r *Result) (float64, bool) { return r.Client.PerSocket, r.Client.PerSocket != 0 }},
		"socket-bytes": {unitSize, func(r *Result) (float64, bool) {
			return known(server(r, func(s *Server) float64 { return s.PerSocket }))
		}},
		"kernel-bytes": {unitSize, (*Result).kernelPerSocket},
		"server-cores": {unitNumber, func(r *Result) (float64, bool) { return server(r, func(s *Server) float64 { return s.Cores }) }},
		"server-cpu": {unitTime, func(r *Result) (float64, bool) {
			return known(server(r, func(s *Server) float64 { return float64(s.PerDone) }))
		}},
		"server-growth": {unitShare, growth},
		"slowdown":      {unitNumber, slowdown},
	}
	for prefix, of := range map[string]func(*Result) *Latency{
		"":          func(r *Result) *Latency { return r.Run.Latency },
		"ticket-":   (*Result).tickets,
		"open-":     func(r *Result) *Latency { return either(r.Run.Open, r.Opening.Open) },
		"in-":       func(r *Result) *Latency { return r.Run.In },
		"out-":      func(r *Result) *Latency { return r.Run.Out },
		"schedule-": func(r *Result) *Latency { return r.Run.Schedule },
	} {
		for name, at := range map[string]func(*Latency) time.Duration{
			"mean": func(l *Latency) time.Duration { return l.Mean }, "p50": func(l *Latency) time.Duration { return l.P50 },
			"p90": func(l *Latency) time.Duration { return l.P90 }, "p99": func(l *Latency) time.Duration { return l.P99 },
			"p99.9": func(l *Latency) time.Duration { return l.P999 }, "p99.99": func(l *Latency) time.Duration { return l.P9999 },
			"max": func(l *Latency) time.Duration { return l.Max },
		} {
			all[prefix+name] = figure{unitTime, func(r *Result) (float64, bool) {
				l := of(r)
				if l == nil {
					return 0, false
				}
				return float64(at(l)), true
			}}
		}
	}
	return all
}()

// tickets is how long tickets took: where they are the operations, from when each was due.
func (r *Result) tickets() *Latency {
	if r.Settings.Verb == Tickets {
		return r.Run.Latency
	}
	return either(r.Run.Ticket, r.Opening.Ticket)
}

// tried says that there was something that could go wrong.
func (r *Result) tried() bool { return r.Settings.Verb == Connect || r.Run.Begun+sum(r.Run.Errors) > 0 }

func either(a, b *Latency) *Latency {
	if a != nil {
		return a
	}
	return b
}

func server(r *Result, of func(*Server) float64) (float64, bool) {
	if r.Server == nil {
		return 0, false
	}
	return of(r.Server), true
}

// known is a figure that is 0 where it could not be measured.
func known(v float64, ok bool) (float64, bool) { return v, ok && v != 0 }

// growth is by what share of itself the server's memory grows in a run as long as r, by the slope of its second half: what a server
// takes for its first messages is no leak. It is not known of a run with fewer than growthFrom points there.
func growth(r *Result) (float64, bool) {
	var run []Point
	for _, p := range r.Series {
		if p.Phase == phaseRun && p.RSS > 0 {
			run = append(run, p)
		}
	}
	if len(run) == 0 {
		return 0, false
	}
	middle := (run[0].At + run[len(run)-1].At) / 2
	half := slices.DeleteFunc(run, func(p Point) bool { return p.At < middle })
	if len(half) < growthFrom {
		return 0, false
	}
	var at, size, products, squares float64
	for _, p := range half {
		at += p.At.Seconds() / float64(len(half))
		size += float64(p.RSS) / float64(len(half))
	}
	for _, p := range half {
		d := p.At.Seconds() - at
		products += d * (float64(p.RSS) - size)
		squares += d * d
	}
	return products / squares * r.Run.Took.Seconds() / size, squares > 0
}

// slowdown is how many times the p99 under attack is that before.
func slowdown(r *Result) (float64, bool) {
	if r.Hostile == nil || r.Hostile.Before == nil || r.Hostile.Under == nil || r.Hostile.Before.P99 == 0 {
		return 0, false
	}
	return float64(r.Hostile.Under.P99) / float64(r.Hostile.Before.P99), true
}

// ParseRequirements reads "p99<20ms,errors<0.1%".
func ParseRequirements(text string) ([]Requirement, error) {
	var all []Requirement
	for part := range strings.SplitSeq(text, ",") {
		q, err := parseRequirement(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		all = append(all, q)
	}
	return all, nil
}

func parseRequirement(text string) (Requirement, error) {
	at := strings.IndexAny(text, "<>")
	if at < 0 {
		return Requirement{}, fmt.Errorf("--require %q: want NAME<VALUE or NAME>VALUE, such as p99<20ms", text)
	}
	q := Requirement{text: text, name: strings.TrimSpace(text[:at]), than: text[at : at+1]}
	rest := text[at+1:]
	if strings.HasPrefix(rest, "=") {
		q.than, rest = q.than+"=", rest[1:]
	}
	f, ok := figures[q.name]
	if !ok {
		return Requirement{}, fmt.Errorf("--require %q: no figure %q: there are %s", text, q.name, strings.Join(slices.Sorted(maps.Keys(figures)), ", "))
	}
	q.unit = f.unit
	var err error
	if q.value, err = f.unit.parse(strings.TrimSpace(rest)); err != nil {
		return Requirement{}, fmt.Errorf("--require %q: %w", text, err)
	}
	return q, nil
}

func (u unit) parse(text string) (float64, error) {
	switch u {
	case unitTime:
		d, err := time.ParseDuration(text)
		if err != nil {
			return 0, fmt.Errorf("%q is no duration such as 20ms", text)
		}
		return float64(d), nil
	case unitShare:
		number, isPercent := strings.CutSuffix(text, "%")
		v, err := parseNumber(number)
		if err != nil || !isPercent { // 0.1 would be a tenth to one reader and a thousandth to another
			return 0, fmt.Errorf("%q is no share such as 0.1%%", text)
		}
		return v / 100, nil
	case unitSize:
		times := 1.0
		for _, s := range []struct {
			name  string
			times float64
		}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"B", 1}} {
			if number, ok := strings.CutSuffix(text, s.name); ok {
				text, times = number, s.times
				break
			}
		}
		v, err := parseNumber(text)
		if err != nil {
			return 0, fmt.Errorf("%q is no size such as 512B or 4KiB", text)
		}
		return v * times, nil
	default:
		v, err := parseNumber(text)
		if err != nil {
			return 0, fmt.Errorf("%q is no number", text)
		}
		return v, nil
	}
}

// parseNumber refuses what is no number, which nothing could be compared with.
func parseNumber(text string) (float64, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err == nil && (math.IsNaN(v) || math.IsInf(v, 0)) {
		err = strconv.ErrRange
	}
	return v, err
}

func (u unit) text(v float64) string {
	switch u {
	case unitTime:
		return short(time.Duration(v))
	case unitShare:
		return strconv.FormatFloat(100*v, 'f', 3, 64) + "%"
	case unitSize:
		return fmt.Sprintf("%.0fB", v)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// short writes d with three digits.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	default:
		return d.Round(time.Microsecond).String()
	}
}

// Has says which of all no run with these settings has: better heard of before the run than after it.
func (s *Settings) Has(all []Requirement) error {
	for _, q := range all {
		if why := s.lacks(q.name); why != "" {
			return fmt.Errorf("--require %q: %s", q.text, why)
		}
	}
	return nil
}

// lacks is why no run with these settings has the figure; "": it may.
func (s *Settings) lacks(figure string) string {
	prefix, _, isPart := strings.Cut(figure, "-")
	without := func(what string) string { return "bench " + s.Verb + what + " has no " + figure }
	operation := !isPart && figures[figure].unit == unitTime
	switch {
	case s.Verb == Connect && (operation || figure == "rate" || figure == "server-cpu"),
		s.Verb != Relay && (prefix == "in" || prefix == "out") && isPart,
		s.Verb != Hostile && figure == "slowdown",
		!s.hasSockets() && slices.Contains([]string{"opened", "held", "lost", "socket-bytes", "client-bytes", "kernel-bytes"}, figure),
		s.Verb == Tickets && prefix == "open" && isPart:
		return without("")
	case s.Rate == "" && (prefix == "schedule" || figure == "late"):
		return without(" without --rate")
	case s.Plain != "" && prefix == "ticket":
		return without(" with --plain")
	case s.Sockets < manySockets && (figure == "socket-bytes" || figure == "client-bytes" || figure == "kernel-bytes"):
		return without(fmt.Sprintf(" with fewer than %d sockets", manySockets))
	}
	return ""
}

// delay says that q is about the latency of operations, which for a feed needs clocks that agree.
func (q Requirement) delay() bool { return q.unit == unitTime && !strings.Contains(q.name, "-") }

// opening says that q is about how long tickets, or opening sockets, took: of a verb that does it beforehand that is the opening.
func (q Requirement) opening() bool {
	prefix, _, isPart := strings.Cut(q.name, "-")
	return isPart && (prefix == "ticket" || prefix == "open")
}

// missed says how r misses q; "": it does not. A figure that the run does not have is missed.
func (q Requirement) missed(r *Result) string {
	v, ok := figures[q.name].of(r)
	if !ok {
		return fmt.Sprintf("%s: not known: this run has no %s", q.text, q.name)
	}
	met := false
	switch q.than {
	case "<":
		met = v < q.value
	case "<=":
		met = v <= q.value
	case ">":
		met = v > q.value
	case ">=":
		met = v >= q.value
	}
	if met {
		return ""
	}
	return fmt.Sprintf("%s: it is %s", q.text, q.unit.text(v))
}

// Judge sets the verdict and says whether r misses one of all. What is INVALID stays so: its figures are not the server's. So
// does what was INTERRUPTED: its figures are those of a part.
func (r *Result) Judge(all []Requirement) (missed bool) {
	if r.Verdict == Invalid || r.Verdict == Interrupted || len(all) == 0 {
		return false
	}
	if q := slices.IndexFunc(all, Requirement.delay); q >= 0 && r.Run.Ahead > 0 {
		r.Verdict, r.Why = Invalid, append(r.Why, all[q].text+": not known: the clocks of server and client differ")
		return false
	}
	if q := slices.IndexFunc(all, Requirement.opening); q >= 0 && r.openingOwn() != "" {
		r.Verdict, r.Why = Invalid, append(r.Why, all[q].text+": not known: "+r.openingOwn())
		return false
	}
	for _, q := range all {
		if why := q.missed(r); why != "" {
			missed = true
			r.Why = append(r.Why, why)
		}
	}
	switch {
	case missed:
		r.Verdict = Fail
	case r.Verdict == Done:
		r.Verdict = Pass
	}
	return missed
}
