package main

import (
	"net/http"
	"testing"
	"time"
)

// TestHistory: the check finds what it is there for, and nothing in a history without fault.
func TestHistory(t *testing.T) {
	const yes, no, later, none = http.StatusSwitchingProtocols, http.StatusUnauthorized, http.StatusServiceUnavailable, 0
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	type use struct{ from, to, status int }
	type ticket struct {
		uses []use
		goes int // 0: it stays
	}
	for _, c := range []struct {
		name                                           string
		tickets                                        []ticket
		fault                                          []int
		doubles, above, lost, stale, calm, ticketsOpen int
	}{
		{name: "one of many uses opens", tickets: []ticket{{uses: []use{{10, 20, no}, {10, 30, yes}, {40, 50, no}}}}, calm: 1, ticketsOpen: 1},
		{name: "two open", tickets: []ticket{{uses: []use{{10, 20, yes}, {10, 30, yes}}, goes: 25}}, doubles: 1, above: 0, calm: 1, ticketsOpen: 1},
		{name: "refused before anybody used it", tickets: []ticket{{uses: []use{{10, 20, no}, {30, 40, yes}}}}, lost: 1, calm: 1, ticketsOpen: 1},
		{name: "refused, and nobody opened", tickets: []ticket{{uses: []use{{10, 20, no}, {10, 20, no}}}}, lost: 1, calm: 1},
		{name: "perhaps spent by a use that had no answer", tickets: []ticket{{uses: []use{{10, 500, none}, {20, 30, no}}}}, calm: 1},
		{name: "perhaps spent by a use that had 503", tickets: []ticket{{uses: []use{{10, 15, later}, {20, 30, no}}}}, calm: 1},
		{name: "refused in a fault", tickets: []ticket{{uses: []use{{100, 120, no}}}}, fault: []int{50, 110}},
		{name: "issued in a fault, refused behind it", tickets: []ticket{{uses: []use{{100, 120, no}}}}, fault: []int{-10, 2}},
		{name: "refused before a fault", tickets: []ticket{{uses: []use{{10, 20, no}}}}, fault: []int{50, 110}, lost: 1, calm: 1},
		{name: "refused after its life", tickets: []ticket{{uses: []use{{1200, 1300, no}}}}},
		{name: "opened after its life", tickets: []ticket{{uses: []use{{2200, 2300, yes}}}}, stale: 1, ticketsOpen: 1},
		{name: "three at once", tickets: []ticket{{uses: []use{{10, 20, yes}}}, {uses: []use{{10, 30, yes}}}, {uses: []use{{10, 40, yes}}}},
			above: 1, calm: 3, ticketsOpen: 3},
		{name: "the third after the first", tickets: []ticket{{uses: []use{{10, 20, yes}}, goes: 35}, {uses: []use{{10, 30, yes}}}, {uses: []use{{10, 40, yes}}}},
			calm: 3, ticketsOpen: 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHistory(2, time.Second)
			for i, k := range c.tickets {
				name := string(rune('a' + i))
				h.issued(&deed{client: "c", ticket: name, from: at(0), to: at(5), status: http.StatusCreated})
				for _, u := range k.uses {
					h.used(&deed{client: "c", ticket: name, from: at(u.from), to: at(u.to), status: u.status})
				}
				if k.goes > 0 {
					h.goes[name] = at(k.goes)
				}
			}
			if c.fault != nil {
				h.disturbed(at(c.fault[0]), at(c.fault[1]))
			}
			v := h.check()
			if v.doubles != c.doubles || v.above != c.above || v.lost != c.lost || v.stale != c.stale || v.calm != c.calm || v.opened != c.ticketsOpen {
				t.Errorf("%+v", v)
			}
			if (len(v.wrong) > 0) != (c.doubles+c.above+c.lost+c.stale > 0) {
				t.Errorf("it says %q", v.wrong)
			}
		})
	}
}

// TestHistorySince: only tickets that were asked for later count.
func TestHistorySince(t *testing.T) {
	start := time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	h := newHistory(2, time.Minute)
	h.issued(&deed{client: "c", ticket: "a", from: at(0), to: at(2), status: http.StatusCreated})
	h.used(&deed{client: "c", ticket: "a", from: at(3), to: at(4), status: http.StatusSwitchingProtocols})
	h.issued(&deed{client: "c", from: at(2), to: at(4), status: http.StatusServiceUnavailable})
	if issued, opened := h.since(at(1), "c"); !issued.IsZero() || !opened.IsZero() {
		t.Errorf("%v, %v", issued, opened)
	}
	h.issued(&deed{client: "c", ticket: "b", from: at(2), to: at(5), status: http.StatusCreated})
	h.used(&deed{client: "c", ticket: "b", from: at(5), to: at(6), status: http.StatusSwitchingProtocols})
	if issued, opened := h.since(at(1), "c"); !issued.Equal(at(5)) || !opened.Equal(at(6)) {
		t.Errorf("%v, %v", issued, opened)
	}
	if got := h.opened(at(3), at(5)); len(got) != 1 || got["a"] != "c" {
		t.Errorf("opened %v", got)
	}
	if h.most != 2 || !h.left("c", "a") || h.left("c", "a") || h.open["c"] != 1 {
		t.Errorf("most %d, now %v", h.most, h.open)
	}
}
