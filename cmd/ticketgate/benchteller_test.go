package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"ticketgate/bench/load"
)

// A line that is drawn over fits into one of the terminal, however wide that is now.
func TestTellerCuts(t *testing.T) {
	var out bytes.Buffer
	width := 80
	tell := teller{w: &out, width: func() int { return width }}
	p := load.Progress{Phase: "run", Open: 10_000, For: time.Hour, Total: load.Counts{Due: 1, Begun: 380_000, Done: 380_000}, PerSec: 20_000, Errors: 12, Class: "close_1013",
		Latency: &load.Latency{P50: time.Microsecond, P99: 7 * time.Millisecond, P999: time.Second}}
	for _, width = range []int{80, 40, 1, 200} {
		out.Reset()
		tell.progress(p)
		line, ok := strings.CutPrefix(out.String(), "\r\x1b[K")
		if n := utf8.RuneCountInString(line); !ok || n >= width || width < 100 && n != width-1 || width == 200 && !strings.HasSuffix(line, "(most: close_1013)") {
			t.Errorf("%d characters in %d columns: %q", n, width, line)
		}
	}
}

// Of verbs that open no sockets beforehand nothing is said until their run.
func TestTellerWaits(t *testing.T) {
	for _, width := range []func() int{nil, func() int { return 80 }} {
		var out bytes.Buffer
		tell := teller{w: &out, width: width}
		tell.progress(load.Progress{Phase: "open"})
		if tell.end(); out.Len() > 0 {
			t.Errorf("%q", out.String())
		}
		if tell.progress(load.Progress{Phase: "run", For: time.Second}); strings.Count(out.String(), "\n") != map[bool]int{true: 1}[width == nil] {
			t.Errorf("%q", out.String())
		}
	}
}
