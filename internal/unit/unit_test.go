package unit_test

import (
	"encoding"
	"math"
	"strings"
	"testing"
	"time"

	"ticketgate/internal/unit"
)

var sizes = []struct {
	text string
	want unit.Size
	back string // text of want
	err  string // part of the error, "" if none
}{
	{text: "64KiB", want: 64 << 10, back: "64KiB"},
	{text: "1MiB", want: 1 << 20, back: "1MiB"},
	{text: "64B", want: 64, back: "64B"},
	{text: "64", want: 64, back: "64B"},
	{text: "0", want: 0, back: "0B"},
	{text: "1024", want: 1024, back: "1KiB"},
	{text: "1536KiB", want: 1536 << 10, back: "1536KiB"},
	{text: "2048GiB", want: 2 << 40, back: "2TiB"},
	{text: "8388607TiB", want: math.MaxInt64 &^ (1<<40 - 1), back: "8388607TiB"},
	{text: "9223372036854775807", want: math.MaxInt64, back: "9223372036854775807B"},
	{text: "9223372036854775808", err: "not a size"},
	{text: "8388608TiB", err: "more than 8 EiB"},
	{text: "99999999999999999TiB", err: "more than 8 EiB"},
	{text: "", err: "not a size"},
	{text: "KiB", err: "not a size"},
	{text: "-1", err: "not a size"},
	{text: "+1", err: "not a size"},
	{text: "1.5MiB", err: `unit ".5MiB"`},
	{text: "1_000", err: `unit "_000"`},
	{text: "0x10", err: `unit "x10"`},
	{text: "64KB", err: `unit "KB"; want B, KiB`},
	{text: "64kib", err: `unit "kib"`},
	{text: "64 KiB", err: `unit " KiB"`},
	{text: "64M", err: `unit "M"`},
	{text: "64KiB\n", err: `unit "KiB\n"`},
}

func TestSize(t *testing.T) {
	for _, c := range sizes {
		var got unit.Size
		if !wantText(t, &got, c.text, c.err) {
			continue
		}
		if got != c.want || got.String() != c.back {
			t.Errorf("%q is %d, %q; want %d, %q", c.text, int64(got), got, int64(c.want), c.back)
		}
	}
}

func FuzzSize(f *testing.F) {
	for _, c := range sizes {
		f.Add(c.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s, again unit.Size
		if s.UnmarshalText([]byte(text)) != nil {
			return
		}
		if s < 0 {
			t.Fatalf("%q is negative: %d", text, int64(s))
		}
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Fatalf("%q is %d, written %q, which is %d (%v)", text, int64(s), s, int64(again), err)
		}
	})
}

func TestPercent(t *testing.T) {
	for _, c := range []struct {
		text string
		want unit.Percent
		err  string
	}{
		{text: "85%", want: 85},
		{text: "0%", want: 0},
		{text: "100%", want: 100},
		{text: "101%", err: "not a share"},
		{text: "300%", err: "not a share"},
		{text: "85", err: "not a share"},
		{text: "%", err: "not a share"},
		{text: "-1%", err: "not a share"},
		{text: "8.5%", err: "not a share"},
	} {
		var got unit.Percent
		if wantText(t, &got, c.text, c.err) && (got != c.want || got.String() != c.text) {
			t.Errorf("%q is %d, %q; want %d", c.text, got, got, c.want)
		}
	}
}

func TestPercentOf(t *testing.T) {
	for _, c := range []struct {
		p           unit.Percent
		total, want unit.Size
	}{
		{25, 1000, 250},
		{33, 10, 3},
		{99, 199, 197},
		{0, math.MaxInt64, 0},
		{100, math.MaxInt64, math.MaxInt64},
	} {
		if got := c.p.Of(c.total); got != c.want {
			t.Errorf("%v of %d is %d, want %d", c.p, int64(c.total), int64(got), int64(c.want))
		}
	}
}

func TestShare(t *testing.T) {
	const total = 1 << 30
	for _, c := range []struct {
		text string
		want unit.Size
		back string
		err  string
	}{
		{text: "25%", want: 256 << 20, back: "25%"},
		{text: "64MiB", want: 64 << 20, back: "64MiB"},
		{text: "2GiB", want: total, back: "2GiB"}, // never more than there is
		{text: "0%", want: 0, back: "0B"},
		{text: "101%", err: "not a share"},
		{text: "lots", err: "neither a share such as 25% nor a size"},
	} {
		got := unit.Share{}
		if !wantText(t, &got, c.text, c.err) {
			continue
		}
		if got.Of(total) != c.want || got.String() != c.back {
			t.Errorf("%q is %v of 1 GiB, %q; want %v, %q", c.text, got.Of(total), got, c.want, c.back)
		}
	}
}

func TestTimeout(t *testing.T) {
	for _, c := range []struct {
		text string
		want time.Duration
		back string
		err  string
	}{
		{text: "off", want: 0, back: "off"},
		{text: "90s", want: 90 * time.Second, back: "1m30s"},
		{text: "0s", err: "neither a duration such as 90s nor off"},
		{text: "0", err: "neither"},
		{text: "-1s", err: "neither"},
		{text: "30", err: "neither"},
		{text: "Off", err: "neither"},
		{text: "", err: "neither"},
	} {
		var got unit.Timeout
		if !wantText(t, &got, c.text, c.err) {
			continue
		}
		if time.Duration(got) != c.want || got.String() != c.back {
			t.Errorf("%q is %v, want %v, written %q", c.text, got, c.want, c.back)
		}
	}
}

// wantText reads text into v and reports whether the result is worth looking at. v stays as it was when text is refused.
func wantText(t *testing.T, v encoding.TextUnmarshaler, text, wantErr string) bool {
	t.Helper()
	err := v.UnmarshalText([]byte(text))
	switch {
	case wantErr == "" && err != nil:
		t.Errorf("%q: %v", text, err)
	case wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr)):
		t.Errorf("%q: error %v, want one with %q", text, err, wantErr)
	}
	if wantErr != "" {
		return false
	}
	if m, ok := v.(encoding.TextMarshaler); ok && err == nil {
		if _, err := m.MarshalText(); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	return err == nil
}
