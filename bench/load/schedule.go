package load

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// A Schedule says how many operations a second are due, over the whole run: steps one after the other, each with a rate that
// stays or that grows or falls evenly.
type Schedule struct {
	Steps []Step `json:"steps"`
	// Poisson makes the operations arrive independently of each other at these rates, as those of many clients do, instead of
	// evenly.
	Poisson bool `json:"poisson,omitempty"`
}

// A Step is a part of a Schedule.
type Step struct {
	From float64       `json:"from"` // operations a second, when it begins
	To   float64       `json:"to"`   // and when it ends
	For  time.Duration `json:"for"`
}

// count is how many operations are due in s.
func (s Step) count() float64 { return (s.From + s.To) / 2 * s.For.Seconds() }

// at is when the operation number n of s is due, 0 to count.
func (s Step) at(n float64) time.Duration {
	d := s.For.Seconds()
	slope := (s.To - s.From) / d
	seconds := n / s.From
	if slope != 0 { // n = From t + slope/2 t^2, solved so that nothing cancels out
		seconds = 2 * n / (s.From + math.Sqrt(max(s.From*s.From+2*slope*n, 0)))
	}
	return time.Duration(min(seconds, d) * float64(time.Second))
}

// Duration is how long all steps take.
func (s Schedule) Duration() time.Duration {
	var d time.Duration
	for _, step := range s.Steps {
		d += step.For
	}
	return d
}

// Count is how many operations are due in all; with Poisson on the average.
func (s Schedule) Count() float64 {
	var n float64
	for _, step := range s.Steps {
		n += step.count()
	}
	return n
}

// at is when the operation number n is due; false: after the end.
func (s Schedule) at(n float64) (time.Duration, bool) {
	var before time.Duration
	for _, step := range s.Steps {
		if c := step.count(); n >= c {
			n -= c
			before += step.For
			continue
		}
		return before + step.at(n), true
	}
	return 0, false
}

// String is text that ParseSchedule reads.
func (s Schedule) String() string {
	var parts []string
	for _, step := range s.Steps {
		part := rateText(step.From)
		if step.To != step.From {
			part += ".." + rateText(step.To)
		}
		if len(s.Steps) > 1 {
			part += ":" + step.For.String()
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ",")
}

func rateText(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// rateMax is what nobody reaches; beyond it due times would run together.
const rateMax = 1e9

// ParseSchedule reads "20000", "1000..20000" (from one rate to the other), or several of them by comma, each for its own time,
// "1000:10s,5000:20s", or for an equal part of what is left of the duration d.
func ParseSchedule(text string, d time.Duration) (Schedule, error) {
	var s Schedule
	left, open := d, 0
	for part := range strings.SplitSeq(text, ",") {
		step, err := parseStep(strings.TrimSpace(part))
		if err != nil {
			return Schedule{}, fmt.Errorf("rate %q: %w", text, err)
		}
		if step.For == 0 {
			open++
		}
		if left -= step.For; left < 0 { // before the sum of them all wraps
			break
		}
		s.Steps = append(s.Steps, step)
	}
	if left < 0 || open == 0 && left > 0 || open > 0 && left < time.Duration(open) {
		return Schedule{}, fmt.Errorf("rate %q: its steps take %s, and the run %s", text, d-left, d)
	}
	for i := range s.Steps {
		if s.Steps[i].For == 0 {
			s.Steps[i].For = left / time.Duration(open)
		}
	}
	return s, nil
}

func parseStep(text string) (Step, error) {
	rates, length, timed := strings.Cut(text, ":")
	from, to, grows := strings.Cut(rates, "..")
	var step Step
	var err error
	if step.From, err = parseRate(from); err != nil {
		return Step{}, err
	}
	if step.To = step.From; grows {
		if step.To, err = parseRate(to); err != nil {
			return Step{}, err
		}
	}
	if timed {
		if step.For, err = time.ParseDuration(length); err != nil || step.For <= 0 {
			return Step{}, fmt.Errorf("%q is no duration above 0, such as 10s", length)
		}
	}
	return step, nil
}

func parseRate(text string) (float64, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v > 0) || v > rateMax {
		return 0, fmt.Errorf("%q is no rate: want operations a second, above 0 and at most 1e9", text)
	}
	return v, nil
}

// A pacer walks through one worker's share of a Schedule: every share-th operation from first on.
type pacer struct {
	s     Schedule
	rnd   *rand.Rand
	n     float64 // the next operation, in units of the schedule's count
	share int
}

// newPacer returns the pacer of worker first of share.
func newPacer(s Schedule, first, share int, rnd *rand.Rand) *pacer {
	p := &pacer{s: s, rnd: rnd, share: share, n: float64(first)}
	if s.Poisson {
		p.n = 0
		p.advance()
	}
	return p
}

// due is when the next operation is to begin, from the start of the run; false: there is none.
func (p *pacer) due() (time.Duration, bool) { return p.s.at(p.n) }

// advance goes on to the operation after it. Gaps of a Poisson process are exponential in the count, whatever the rate does.
func (p *pacer) advance() {
	gap := 1.0
	if p.s.Poisson {
		gap = p.rnd.ExpFloat64()
	}
	p.n += gap * float64(p.share)
}
