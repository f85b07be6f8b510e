package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"ticketgate/bench"
	"ticketgate/ticket"
)

// What is measured as a refusal is one: of a request that is whole, with a locator that is forged and nothing else, and without a byte
// on the heap.
func TestForge(t *testing.T) {
	f, err := forge("127.0.0.1:8081", 4)
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range f.heads {
		if err := f.refuse(h); err != ticket.ErrForged {
			t.Errorf("%d: %v", i, err)
		}
		if n := testing.AllocsPerRun(100, func() { _ = f.refuse(h) }); n != 0 {
			t.Errorf("%d: %v allocations", i, n)
		}
	}
	good := slices.Clone(f.heads[1]) // forged by a bit, which the flip takes back
	text := good[len("GET /t/"):][:ticket.LocatorLen]
	was := text[len(text)-1]
	found := false
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		text[len(text)-1] = c
		found = found || c != was && f.check(text) == nil
	}
	if !found {
		t.Error("no bit of the last six makes it good again: more was wrong with it than its MAC")
	}
	if err := f.refuse(f.heads[0][:20]); !errors.Is(err, errUnmeasured) {
		t.Errorf("half a request: %v", err)
	}
}

func TestFloodRounds(t *testing.T) {
	f, err := forge("127.0.0.1:8081", 16)
	if err != nil {
		t.Fatal(err)
	}
	rounds, err := f.rounds(2, 2000)
	if err != nil || len(rounds) != 2 {
		t.Fatalf("%v, %v", rounds, err)
	}
	for _, r := range rounds {
		if r.locator <= 0 || r.request <= r.locator || r.control <= 0 {
			t.Errorf("%+v", r)
		}
	}
	f.epoch = 2 // a good ticket would be of another epoch: still forged
	if _, err := f.rounds(1, 16); err != nil {
		t.Error(err)
	}
	f.heads[3] = slices.Clone(f.heads[3])
	copy(f.heads[3][len("GET /t/"):], "!") // malformed: found by other means than the MAC
	if _, err := f.rounds(1, 16); !errors.Is(err, errUnmeasured) {
		t.Errorf("%v", err)
	}
}

// Renewals and questions whether the server is there are no operations of a flood; whatever names a key of a ticket is.
func TestOfNodes(t *testing.T) {
	for text, want := range map[string]bool{
		"PING": true, "hello 3": true, "CLIENT SETINFO LIB-NAME x": true, "EVALSHA abc 3 tg:{nodes}:leases tg:{nodes}:dead tg:{nodes}:names 01 bench": true,
		"EVALSHA abc 3 tg:{00ff}:t:12 tg:{00ff}:r:34 tg:{00ff}:h:34 01": false, "GET k": false, "FLUSHALL": false,
	} {
		if got := ofNodes(strings.Fields(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestFloodSection(t *testing.T) {
	a := &load{name: ours, rounds: []sample{{rate: 50, cpu: 30}, {rate: 50, cpu: 30}}}
	b := &load{name: "epollaccept", rounds: []sample{{rate: 100, cpu: 10}, {rate: 100, cpu: 20}}}
	s := floodSection([]floodRound{{250, 500, 100}, {500, 1000, 100}}, a, b, floodLog{5000, 0, 2, 392})
	for name, want := range map[string]bench.Spread{
		"Flood, in process: locator against SHA-256 of its request": {Median: 3.75, Min: 2.5, Max: 5},
		"Flood, in process: request against SHA-256 of it":          {Median: 7.5, Min: 5, Max: 10},
		"Flood, over loopback: server CPU against epollaccept":      {Median: 2.25, Min: 1.5, Max: 3},
	} {
		if got := s.ratios[name]; got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	for name := range s.ratios {
		if got := scenariosOf([]string{name}); got != "flood" {
			t.Errorf("%q is taken for a ratio of %q", name, got)
		}
	}
	if want := "3,000,000 (2,000,000-4,000,000); with the whole request around it 1,500,000 (1,000,000-2,000,000)"; s.goals[0][2] != want {
		t.Errorf("%q, want %q", s.goals[0][2], want)
	}
	if want := "0 in 5,000 refusals"; s.goals[2][2] != want {
		t.Errorf("%q, want %q", s.goals[2][2], want)
	}
}

// A flood on a real gateway: every request is refused, the bare program answers as many bytes, and Redis hears of the one good ticket only.
func TestFlood(t *testing.T) {
	apart(t)
	r, err := newRunner(t.Context(), options{short: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := errors.Join(r.buildGateway(""), r.command("go", "build", "-C", "tools/peers", "-o", r.dir+"/", "./epollaccept")); err != nil {
		t.Fatal(err)
	}
	r.rounds, r.window = 1, 1
	s, err := flood(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.goals[2][2]; !strings.HasPrefix(got, "0 in ") || len(s.tables[1].Rows) != 2 {
		t.Errorf("%q, %q", got, s.tables[1].Rows)
	}
}
