// Package unit reads and writes the quantities of the configuration: sizes, shares of a whole, and deadlines that may be off.
package unit

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, 0 to 8 EiB - 1. Its text is a whole number with B, KiB, MiB, GiB or TiB; B may be left out.
type Size int64

var sizeUnits = [...]struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	unit := strings.TrimLeft(string(text), "0123456789")
	n, err := strconv.ParseUint(string(text[:len(text)-len(unit)]), 10, 63)
	if err != nil {
		return fmt.Errorf("%q is not a size such as 64KiB", text)
	}
	if unit == "" {
		unit = "B"
	}
	for _, u := range sizeUnits {
		if u.name != unit {
			continue
		}
		hi, lo := bits.Mul64(n, uint64(u.bytes))
		if hi != 0 || lo > math.MaxInt64 {
			return fmt.Errorf("%q is more than 8 EiB", text)
		}
		*s = Size(lo)
		return nil
	}
	return fmt.Errorf("%q has the unit %q; want B, KiB, MiB, GiB or TiB (1 KiB is 1024 bytes)", text, unit)
}

// MarshalText implements encoding.TextMarshaler with the largest unit that leaves a whole number.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String is the text of MarshalText.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return "0B"
}

// Percent is a share in whole hundredths, 0 to 100. Its text is "85%".
type Percent uint8

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Percent) UnmarshalText(text []byte) error {
	digits, found := strings.CutSuffix(string(text), "%")
	n, err := strconv.ParseUint(digits, 10, 8)
	if !found || err != nil || n > 100 {
		return fmt.Errorf("%q is not a share such as 85%% (0%% to 100%%)", text)
	}
	*p = Percent(n)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// String is the text of MarshalText.
func (p Percent) String() string { return strconv.Itoa(int(p)) + "%" }

// Of is p hundredths of total, rounded down. It does not overflow.
func (p Percent) Of(total Size) Size {
	return total/100*Size(p) + total%100*Size(p)/100
}

// Share is a part of a whole, named by a Percent or by a Size. The zero Share is 0 bytes.
type Share struct {
	percent Percent
	size    Size
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Share) UnmarshalText(text []byte) error {
	var next Share
	if strings.HasSuffix(string(text), "%") {
		if err := next.percent.UnmarshalText(text); err != nil {
			return err
		}
	} else if next.size.UnmarshalText(text) != nil {
		return fmt.Errorf("%q is neither a share such as 25%% nor a size such as 64MiB", text)
	}
	*s = next
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (s Share) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String is the text of MarshalText.
func (s Share) String() string {
	if s.percent != 0 {
		return s.percent.String()
	}
	return s.size.String()
}

// Of is the bytes that s stands for in total, at most total.
func (s Share) Of(total Size) Size {
	return min(total, s.size+s.percent.Of(total))
}

// Timeout is a duration that may be off. Zero is off; its text is then "off".
type Timeout time.Duration

// UnmarshalText implements encoding.TextUnmarshaler. "0s" is refused: nobody can tell whether it means at once or never.
func (t *Timeout) UnmarshalText(text []byte) error {
	if string(text) == "off" {
		*t = 0
		return nil
	}
	d, err := time.ParseDuration(string(text))
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is neither a duration such as 90s nor off", text)
	}
	*t = Timeout(d)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (t Timeout) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// String is the text of MarshalText.
func (t Timeout) String() string {
	if t == 0 {
		return "off"
	}
	return time.Duration(t).String()
}
