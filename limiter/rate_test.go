package limiter_test

import (
	"strings"
	"testing"
	"time"

	"ticketgate/limiter"
)

var goodRates = []struct {
	text string
	want limiter.Rate
	back string // "" if it is written as it was read
}{
	{"3/1minute", limiter.Rate{N: 3, Per: time.Minute}, ""},
	{"20/1second", limiter.Rate{N: 20, Per: time.Second}, ""},
	{"20/second", limiter.Rate{N: 20, Per: time.Second}, "20/1second"},
	{"100/1hour", limiter.Rate{N: 100, Per: time.Hour}, ""},
	{"1000000/1day", limiter.Rate{N: 1_000_000, Per: 24 * time.Hour}, ""},
	{"5/2week", limiter.Rate{N: 5, Per: 14 * 24 * time.Hour}, ""},
	{"60/60second", limiter.Rate{N: 60, Per: time.Minute}, "60/1minute"},
	{"7/90second", limiter.Rate{N: 7, Per: 90 * time.Second}, ""},
	{"1/52week", limiter.Rate{N: 1, Per: 364 * 24 * time.Hour}, ""},
	{"1MiB/1second", limiter.Rate{N: 1 << 20, Per: time.Second, Bytes: true}, ""},
	{"64KiB/second", limiter.Rate{N: 64 << 10, Per: time.Second, Bytes: true}, "64KiB/1second"},
	{"1000B/1second", limiter.Rate{N: 1000, Per: time.Second, Bytes: true}, ""},
	{"4GiB/1second", limiter.Rate{N: 4 << 30, Per: time.Second, Bytes: true}, ""},
	{"16384GiB/2hour", limiter.Rate{N: 1 << 44, Per: 2 * time.Hour, Bytes: true}, ""},
}

func TestParseRate(t *testing.T) {
	for _, c := range goodRates {
		got, err := limiter.ParseRate(c.text)
		if err != nil || got != c.want {
			t.Errorf("ParseRate(%q) = %+v, %v; want %+v", c.text, got, err, c.want)
		}
		back := c.back
		if back == "" {
			back = c.text
		}
		if got.String() != back {
			t.Errorf("ParseRate(%q).String() = %q, want %q", c.text, got, back)
		}
	}
}

var badRates = []struct{ text, says string }{
	{"", `no "/"`},
	{"3", `no "/"`},
	{"3 per minute", `no "/"`},
	{"/1minute", "no number before the slash"},
	{"3/", "no unit"},
	{"3/1", "no unit"},
	{"0/1minute", "never means unlimited"},
	{"3/0minute", "at least 1 after the slash"},
	{"-3/1minute", `"-3" is not a whole number`},
	{"+3/1minute", `"+3" is not a whole number`},
	{"1.5/1minute", `"1.5" is not a whole number`},
	{" 3/1minute", `" 3" is not a whole number`},
	{"3/ 1minute", `unknown unit " 1minute"`},
	{"007/1minute", "begins with a zero"},
	{"3/01minute", "begins with a zero"},
	{"99999999999999999999/1minute", "too large"},
	{"18446744073709551615/1week", "at most 16384GiB"},
	{"17592186044417/1week", "at most 16384GiB"},
	{"99999999999GiB/1week", `"99999999999GiB" is above 16384GiB`},
	{"5GiB/1second", "at most 4GiB per second"},
	{"1MB/1second", `unknown size "MB" (B, KiB, MiB or GiB`},
	{"1kib/1second", `unknown size "kib"`},
	{"3/1minutes", `did you mean "minute"?`},
	{"3/min", `did you mean "minute"?`},
	{"3/s", `did you mean "second"?`},
	{"3/Hours", `did you mean "hour"?`},
	{"3/1month", `unknown unit "month" (second`},
	{"3/53week", "at most 52 weeks"},
	{"3/365day", "at most 52 weeks"},
	{"3/18446744073709551615second", "at most 52 weeks"},
	{"3/1minute/2", "unknown unit"},
}

func TestParseRateSaysWhatIsWrong(t *testing.T) {
	for _, c := range badRates {
		got, err := limiter.ParseRate(c.text)
		if err == nil {
			t.Errorf("ParseRate(%q) = %+v, want an error", c.text, got)
			continue
		}
		if !strings.Contains(err.Error(), c.says) {
			t.Errorf("ParseRate(%q) says %q, want %q in it", c.text, err, c.says)
		}
		r := limiter.Rate{N: 1, Per: time.Second}
		if r.UnmarshalText([]byte(c.text)) == nil || r != (limiter.Rate{N: 1, Per: time.Second}) {
			t.Errorf("UnmarshalText(%q) changed the rate to %v", c.text, r)
		}
	}
}

func TestExplain(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"3/1minute", "3 per 1 minute: up to 3 at once, then one every 20s. Any 1 minute sees at most 6: the burst and what is refilled meanwhile."},
		{"20/1second", "20 per 1 second: up to 20 at once, then one every 50ms. Any 1 second sees at most 40: the burst and what is refilled meanwhile."},
		{"1/2hour", "1 per 2 hours: the next is allowed 2h0m0s after the one before."},
		{"1MiB/1second", "1MiB per 1 second: up to 1MiB at once, refilled evenly and full again after 1 second. Any 1 second sees at most 2MiB: the burst and what is refilled meanwhile."},
	} {
		r, err := limiter.ParseRate(c.text)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Explain(); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.text, got, c.want)
		}
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]limiter.Size{"40": 40, "256KiB": 256 << 10, "12B": 12} {
		var s limiter.Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q is %d, %v; want %d", text, s, err, want)
		}
		back, _ := s.MarshalText()
		var again limiter.Size
		if err := again.UnmarshalText(back); err != nil || again != s {
			t.Errorf("%q is written as %q, which reads as %d, %v", text, back, again, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "1.5", "256KB", "KiB", "17592186044417KiB"} {
		s := limiter.Size(7)
		if err := s.UnmarshalText([]byte(text)); err == nil || s != 7 {
			t.Errorf("size %q is accepted as %d", text, s)
		}
	}
}

// FuzzRate: what is accepted is in range, and written and read again it is the same.
func FuzzRate(f *testing.F) {
	for _, c := range goodRates {
		f.Add(c.text)
	}
	for _, c := range badRates {
		f.Add(c.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := limiter.ParseRate(text)
		if err != nil {
			if r != (limiter.Rate{}) {
				t.Fatalf("ParseRate(%q) gives %+v besides its error", text, r)
			}
			return
		}
		if r.N < 1 || r.Per < time.Second || r.Per > 52*7*24*time.Hour {
			t.Fatalf("ParseRate(%q) = %+v, out of range", text, r)
		}
		back, err := r.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var again limiter.Rate
		if err := again.UnmarshalText(back); err != nil || again != r {
			t.Fatalf("%q is written as %q, which reads as %+v, %v; want %+v", text, back, again, err, r)
		}
		m := limiter.NewMeter(r, 0)
		var tat int64
		if ok, _ := m.Take(&tat, 1, 1); !ok {
			t.Fatalf("a full bucket of %q admits nothing", text)
		}
		if r.Explain() == "" {
			t.Fatal("no explanation")
		}
	})
}
