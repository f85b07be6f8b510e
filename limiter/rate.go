// Package limiter decides what a plan allows: how often and how much (Meter, Table, Plan), and how many at once (Count).
// Time is an argument or an injected clock; nothing here waits, dials or logs.
package limiter

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Rate is "N/Punit": N events, or bytes, in each period.
type Rate struct {
	N     uint64        // 1 to 16 TiB
	Per   time.Duration // whole seconds, 1 second to 52 weeks
	Bytes bool          // N was written as a size ("1MiB/1second"): it can only limit bytes
}

const (
	countMax  = 1 << 44                                             // 16 TiB
	perSecMax = 1 << 32                                             // 4 GiB/s: an event costs at least 3 ticks of a bucket's word
	periodMax = 52 * 7 * 24 * time.Hour                             // also the longest that a bucket may take to fill
	example   = `write "20/1second", "3/1minute" or "1MiB/1second"` // ends every complaint about a rate's form
)

var units = []struct {
	name string
	d    time.Duration
}{ // longest first: String takes the first that divides
	{"week", 7 * 24 * time.Hour}, {"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second},
}

// ParseRate reads "N/Punit": N is a number or a size (B, KiB, MiB, GiB), P a number of periods (1 if left out), unit one
// of second, minute, hour, day, week. The error says what is wrong with which part, and how it is written.
func ParseRate(s string) (Rate, error) {
	n, period, ok := strings.Cut(s, "/")
	if !ok {
		return Rate{}, fmt.Errorf(`rate %q has no "/": %s`, s, example)
	}
	count, sized, err := parseAmount(n)
	if err != nil {
		return Rate{}, fmt.Errorf("rate %q: %w before the slash; %s", s, err, example)
	}
	per, err := parsePeriod(period)
	if err != nil {
		return Rate{}, fmt.Errorf("rate %q: %w after the slash; %s", s, err, example)
	}
	r := Rate{N: count, Per: per, Bytes: sized}
	if err := r.check(); err != nil {
		return Rate{}, fmt.Errorf("rate %q: %w", s, err)
	}
	return r, nil
}

// check returns the first range that r leaves.
func (r Rate) check() error {
	switch {
	case r.N == 0:
		return fmt.Errorf("0 is not a rate, and never means unlimited")
	case r.N > countMax:
		return fmt.Errorf("at most %s can be counted", size(countMax))
	case r.Per < time.Second || r.Per%time.Second != 0:
		return fmt.Errorf("a period is whole seconds, at least 1")
	case r.Per > periodMax:
		return fmt.Errorf("a period is at most 52 weeks")
	case r.N/uint64(r.Per/time.Second) > perSecMax:
		return fmt.Errorf("at most %s per second can be metered", size(perSecMax))
	}
	return nil
}

// parsePeriod reads "Punit".
func parsePeriod(s string) (time.Duration, error) {
	word := strings.TrimLeft(s, "0123456789")
	n := uint64(1)
	if digits := s[:len(s)-len(word)]; digits != "" {
		var err error
		if n, err = parseNumber(digits); err != nil {
			return 0, err
		}
	}
	for _, u := range units {
		if u.name != word {
			continue
		}
		if n > uint64(periodMax/u.d) {
			return 0, fmt.Errorf("a period is at most 52 weeks, not %q", s)
		}
		return time.Duration(n) * u.d, nil
	}
	if word == "" {
		return 0, fmt.Errorf("no unit (second, minute, hour, day or week)")
	}
	return 0, fmt.Errorf("unknown unit %q%s (second, minute, hour, day or week)", word, likely(word))
}

// likely guesses the unit that a short form or a plural means.
func likely(word string) string {
	short := strings.ToLower(word)
	if len(short) > 1 {
		short = strings.TrimSuffix(short, "s")
	}
	for _, u := range units {
		if strings.HasPrefix(u.name, short) {
			return fmt.Sprintf("; did you mean %q?", u.name)
		}
	}
	return ""
}

// parseNumber reads digits without sign, space or leading zero.
func parseNumber(s string) (uint64, error) {
	switch {
	case s == "":
		return 0, fmt.Errorf("no number")
	case strings.Trim(s, "0123456789") != "":
		return 0, fmt.Errorf("%q is not a whole number", s)
	case s[0] == '0' && len(s) > 1:
		return 0, fmt.Errorf("%q begins with a zero", s)
	}
	n, err := strconv.ParseUint(s, 10, 64)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is too large", s)
	case n == 0:
		return 0, fmt.Errorf("0 is too small, and never means unlimited: at least 1")
	}
	return n, nil
}

var sizes = []struct {
	name string
	n    uint64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// parseAmount reads a number or a size; sized tells which.
func parseAmount(s string) (n uint64, sized bool, err error) {
	digits := strings.TrimRight(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
	unit := s[len(digits):]
	n, err = parseNumber(digits)
	if err != nil || unit == "" {
		return n, false, err
	}
	for _, u := range sizes {
		if u.name != unit {
			continue
		}
		if n > countMax/u.n {
			return 0, true, fmt.Errorf("%q is above %s", s, size(countMax))
		}
		return n * u.n, true, nil
	}
	return 0, true, fmt.Errorf("unknown size %q (B, KiB, MiB or GiB, powers of 1024)", unit)
}

// size writes n bytes with the largest unit that divides it.
func size(n uint64) string {
	for _, u := range sizes {
		if n != 0 && n%u.n == 0 {
			return strconv.FormatUint(n/u.n, 10) + u.name
		}
	}
	return "0B"
}

// amount writes n of r's kind.
func (r Rate) amount(n uint64) string {
	if r.Bytes {
		return size(n)
	}
	return strconv.FormatUint(n, 10)
}

// period splits r.Per into a number and the largest unit that divides it.
func (r Rate) period() (n int64, unit string) {
	for _, u := range units {
		if r.Per%u.d == 0 {
			return int64(r.Per / u.d), u.name
		}
	}
	return 0, "second"
}

// String returns the form that ParseRate reads, with the largest unit that fits: "60/60second" becomes "60/1minute".
func (r Rate) String() string {
	n, unit := r.period()
	return r.amount(r.N) + "/" + strconv.FormatInt(n, 10) + unit
}

// MarshalText implements encoding.TextMarshaler.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; see ParseRate.
func (r *Rate) UnmarshalText(text []byte) error {
	got, err := ParseRate(string(text))
	if err == nil {
		*r = got
	}
	return err
}

// Explain says in plain words what r does when its burst is not set otherwise.
func (r Rate) Explain() string {
	n, unit := r.period()
	period := "1 " + unit
	if n != 1 {
		period = strconv.FormatInt(n, 10) + " " + unit + "s"
	}
	if r.Bytes {
		return fmt.Sprintf("%s per %s: up to %s at once, refilled evenly and full again after %s. Any %s sees at most %s: the burst and what is refilled meanwhile.",
			r.amount(r.N), period, r.amount(r.N), period, period, r.amount(2*r.N))
	}
	every := (r.Per / time.Duration(r.N)).Round(time.Microsecond)
	if r.N == 1 {
		return fmt.Sprintf("1 per %s: the next is allowed %v after the one before.", period, every)
	}
	return fmt.Sprintf("%d per %s: up to %d at once, then one every %v. Any %s sees at most %d: the burst and what is refilled meanwhile.",
		r.N, period, r.N, every, period, 2*r.N)
}

// Size is a number of messages or bytes in the configuration: "40" or "256KiB".
type Size uint64

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	n, _, err := parseAmount(string(text))
	if err != nil {
		return fmt.Errorf(`%w; write "40" or "256KiB"`, err)
	}
	*s = Size(n)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) { return []byte(strconv.FormatUint(uint64(s), 10)), nil }
