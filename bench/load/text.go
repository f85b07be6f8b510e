package load

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// barWidth is the length of a progress bar, in characters.
const barWidth = 28

// Line is p in one line; bar draws a progress bar into it. "": there is nothing to say, as of sockets that no verb opens beforehand.
func (p Progress) Line(bar bool) string {
	if p.Phase == phaseOpen && p.Wanted == 0 {
		return ""
	}
	var b strings.Builder
	var done float64
	if p.Phase == phaseOpen {
		b.WriteString("ramp    ")
		done = float64(p.Open) / float64(max(p.Wanted, 1))
	} else {
		b.WriteString("run     ")
		done = float64(p.At) / float64(p.For)
	}
	if bar {
		n := int(min(max(done, 0), 1) * barWidth)
		b.WriteString("[" + strings.Repeat("#", n) + strings.Repeat("-", barWidth-n) + "] ")
	}
	if p.Phase == phaseOpen {
		fmt.Fprintf(&b, "%d/%d  %.0f/s", p.Open, p.Wanted, p.PerSec)
		if p.Ticket != nil {
			fmt.Fprintf(&b, "  tickets p99 %s", short(p.Ticket.P99))
		}
		if p.Latency != nil {
			fmt.Fprintf(&b, "  open p99 %s", short(p.Latency.P99))
		}
	} else {
		fmt.Fprintf(&b, "%s/%s  open %d", min(max(p.At, 0), p.For).Round(time.Second), p.For, p.Open)
		if p.Total.Begun > 0 {
			fmt.Fprintf(&b, "  sent %s  recv %s  %.0f/s", count(p.Total.Begun), count(p.Total.Done), p.PerSec)
		}
		if p.Latency != nil {
			fmt.Fprintf(&b, "  p50 %s  p99 %s  p99.9 %s", short(p.Latency.P50), short(p.Latency.P99), short(p.Latency.P999))
		}
		if p.Total.Due > 0 {
			fmt.Fprintf(&b, "  late %.1f%%", 100*float64(p.Total.Late)/float64(p.Total.Due))
		}
	}
	if p.Errors > 0 {
		fmt.Fprintf(&b, "  errors %s", count(p.Errors))
		if p.Class != "" {
			fmt.Fprintf(&b, " (most: %s)", p.Class)
		}
	}
	return b.String()
}

// count is n in at most five characters: 380k, 12.5M.
func count(n uint64) string {
	switch {
	case n < 10_000:
		return strconv.FormatUint(n, 10)
	case n < 1_000_000:
		return fmt.Sprintf("%dk", n/1000)
	default:
		return fmt.Sprintf("%.1fM", float64(n)/1e6)
	}
}

// Lines are what there is to say about r at its end.
func (r *Result) Lines() []string {
	var all []string
	run := &r.Run
	if o := &r.Opening; o.Wanted > 0 {
		line := fmt.Sprintf("opened  %d of %d sockets in %s", o.Opened, o.Wanted, o.Took.Round(10*time.Millisecond))
		if run.Took > 0 {
			line += fmt.Sprintf(", %d open at the end", run.Held)
		}
		if n := o.Lost + run.Lost; n > 0 {
			line += fmt.Sprintf(", %d lost", n)
		}
		if o.Ticket != nil {
			line += fmt.Sprintf("   tickets p50 %s  p99 %s", short(o.Ticket.P50), short(o.Ticket.P99))
		}
		if o.Open != nil {
			line += fmt.Sprintf("   open p50 %s  p99 %s", short(o.Open.P50), short(o.Open.P99))
		}
		if o.Schedule != nil {
			line += fmt.Sprintf("   late %s (begun %s after due at p99)", percent(o.LateShare), short(o.Schedule.P99))
		}
		all = append(all, line+errorText(o.Errors))
	}
	line := "result  "
	switch {
	case r.Settings.Verb == Connect:
		line += fmt.Sprintf("%d sockets held for %s, %d pings answered", run.Held, run.Took.Round(time.Second), run.Pings)
	case run.Wanted > 0:
		line += fmt.Sprintf("rate %.0f/s of %.0f wanted", run.Rate, run.Wanted)
	default:
		line += fmt.Sprintf("rate %.0f/s", run.Rate)
	}
	line += fmt.Sprintf("   errors %d (%s)", sum(run.Errors), percent(run.ErrorShare))
	if l := run.Latency; l != nil {
		line += fmt.Sprintf("   p50 %s  p90 %s  p99 %s  p99.9 %s  max %s", short(l.P50), short(l.P90), short(l.P99), short(l.P999), short(l.Max))
	}
	all = append(all, line+"   "+r.Verdict)
	if len(run.Errors) > 0 {
		all = append(all, "errors "+strings.TrimPrefix(listed(run.Errors), ":"))
	}
	if run.In != nil && run.Out != nil {
		all = append(all, fmt.Sprintf("ways    to the backend p50 %s  p99 %s   back p50 %s  p99 %s", short(run.In.P50), short(run.In.P99), short(run.Out.P50), short(run.Out.P99)))
	}
	if h := r.Hostile; h != nil && h.Before != nil && h.Under != nil {
		times, _ := slowdown(r)
		all = append(all, fmt.Sprintf("hostile p99 before %s  under attack %s (%.2f times)   %d peers cut off", short(h.Before.P99), short(h.Under.P99), times, h.CutOff))
	}
	if h := r.Hostile; h != nil {
		for _, p := range h.Peers {
			all = append(all, fmt.Sprintf("attack  %s: %d came, %d cut off, %d open at the end%s", p.Kind, p.Came, p.CutOff, p.Open, errorText(p.Errors)))
		}
	}
	client := fmt.Sprintf("client  busy %s of a core", percent(r.Client.Busiest))
	if run.Schedule != nil {
		client += fmt.Sprintf("   late %s (begun %s after due at p99)", percent(run.LateShare), short(run.Schedule.P99))
	}
	if l := run.Lag; l != nil {
		client += fmt.Sprintf("   late for what it could do by %s at p50, %s at p99", short(l.P50), short(l.P99))
	}
	if r.Client.PerSocket > 0 {
		client += fmt.Sprintf("   %.0f B a socket", r.Client.PerSocket)
	}
	all = append(all, client)
	if b := r.Backend; b != nil {
		all = append(all, fmt.Sprintf("backend busy %s of a core%s", percent(b.Busiest), errorText(b.Errors)))
	}
	if s := r.Server; s != nil {
		line := fmt.Sprintf("server  %.2f cores", s.Cores)
		if s.PerDone > 0 {
			line += fmt.Sprintf("   %.2f µs CPU an operation", float64(s.PerDone)/1e3)
		}
		line += fmt.Sprintf("   resident %.1f MiB, at the end %.1f MiB", float64(s.Full)/(1<<20), float64(s.After)/(1<<20))
		if s.PerSocket > 0 {
			line += fmt.Sprintf("   %.0f B a socket", s.PerSocket)
		}
		all = append(all, line)
	}
	if each, ok := r.kernelPerSocket(); ok {
		all = append(all, fmt.Sprintf("kernel  %.0f B a socket%s", each, r.ends()))
	}
	for _, class := range sortedKeys(r.Examples) {
		all = append(all, "error   "+class+": "+oneLine(r.Examples[class]))
	}
	for _, note := range r.Notes {
		all = append(all, "note    "+note)
	}
	for _, why := range r.Why {
		all = append(all, strings.ToLower(r.Verdict)+": "+why)
	}
	return all
}

// oneLine is text without the lines that an answer's body may have.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// Listed is its errors as text.
func (p Peers) Listed() string { return strings.TrimPrefix(listed(p.Errors), ": ") }

func errorText(errs map[string]uint64) string {
	if len(errs) == 0 {
		return ""
	}
	return "   errors" + listed(errs)
}
