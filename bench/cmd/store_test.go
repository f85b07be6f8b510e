package main

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"ticketgate/bench"
	"ticketgate/store/redistest"
)

func near(t *testing.T, s *section, name string, want bench.Spread) {
	t.Helper()
	got, ok := s.ratios[name]
	for _, d := range []float64{got.Median - want.Median, got.Min - want.Min, got.Max - want.Max} {
		if !ok || d > 0.001 || d < -0.001 {
			t.Errorf("%s: %v, want %v", name, got, want)
			return
		}
	}
}

// What a client sends together is one round trip, each script a command, and what we ask ourselves is neither.
func TestCosted(t *testing.T) {
	log, err := bench.DialRedis(t.Context(), redistest.Start(t).Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}()
	sha, err := log.Do("SCRIPT", "LOAD", "return 1")
	if err != nil {
		t.Fatal(err)
	}
	c := &costed{log: log, redis: bench.Process{PID: os.Getpid()}}
	four := func() error {
		var b []byte
		for range 4 {
			b = bench.AppendCommand(b, "EVALSHA", sha.(string), "0")
		}
		_, err := log.All(b, 4)
		return err
	}
	got, err := c.measure(8, func() error {
		_, err := c.stats()
		return errors.Join(four(), err, four())
	})
	if err != nil || got.commands != 1 || got.reads != 0.25 || got.rate <= 0 || got.redis <= 0 || got.server <= 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := c.measure(1, func() error { return errUnmeasured }); !errors.Is(err, errUnmeasured) {
		t.Errorf("%v", err)
	}
}

func twoCosts(commands, redis, server float64, p50 time.Duration) costs {
	one := cost{rate: 1000, commands: commands, reads: commands / 2, redis: redis, server: server, median: p50, ninetyNine: 2 * p50}
	two := one
	two.redis, two.server = 2*redis, 2*server
	return costs{one, two}
}

// An admission is an issue and a redemption of the same round; another authority is compared with the first.
func TestAdmissionsOfStore(t *testing.T) {
	s := new(section)
	s.admissionsOfStore(2000, []admitted{
		{"store", twoCosts(1, 30, 100, 0), twoCosts(1, 20, 60, time.Millisecond), twoCosts(0.5, 5, 10, 0)},
		{"node", twoCosts(1, 30, 100, 0), twoCosts(0.5, 10, 30, time.Millisecond/4), twoCosts(0.5, 5, 10, 0)},
	})
	near(t, s, "Store, authority node against store: gateway CPU of a redemption", bench.Spread{Median: 0.5, Min: 0.5, Max: 0.5})
	near(t, s, "Store, authority node against store: p50 of a redemption", bench.Spread{Median: 0.25, Min: 0.25, Max: 0.25})
	if got := s.tables[0].Rows; len(got) != 8 || len(got[1]) != len(s.tables[0].Head) || strings.Join(got[1], "|") !=
		"store|redeem|1.00 (1.00-1.00)|0.50 (0.50-0.50)|30.0 (20.0-40.0)|37,500 (25,000-50,000)|90.0 (60.0-120)|1,000 µs|2,000 µs" {
		t.Errorf("%q", got)
	}
	for i, want := range []string{"1.00 (1.00-1.00) and 1.00 (1.00-1.00) commands, in at most 1.00 (1.00-1.00) round trips together", "15,000 (10,000-20,000)"} {
		if s.goals[i][2] != want {
			t.Errorf("%q, want %q", s.goals[i][2], want)
		}
	}
}

func TestWaysOfStore(t *testing.T) {
	s := new(section)
	bare := twoCosts(0, 5, 1, 0)
	s.waysOfStore(2000, spending{way{"issue", 64, 1, 64}, twoCosts(1, 30, 9, 0), bare},
		[]spending{{way{"one", 1, 1, 1}, twoCosts(1, 80, 9, 0), bare}, {way{"many", 1, 256, 256}, twoCosts(1, 20, 9, 0), bare}})
	near(t, s, "Store: Redis CPU of an issue against SET", bench.Spread{Median: 6, Min: 6, Max: 6})
	near(t, s, "Store: Redis CPU of a redemption against GETDEL, many", bench.Spread{Median: 4, Min: 4, Max: 4})
	near(t, s, "Store: Redis CPU of a redemption, many against one", bench.Spread{Median: 0.25, Min: 0.25, Max: 0.25})
	if want := "A whole core of Redis would do 15,000 (10,000-20,000) admissions a second, issued by 64 callers and spent many."; s.tables[0].Lines[1] != want {
		t.Errorf("%q, want %q", s.tables[0].Lines[1], want)
	}
	for name := range s.ratios {
		if got := scenariosOf([]string{name}); got != "store" {
			t.Errorf("%q is taken for a ratio of %q", name, got)
		}
	}
}

// The whole on a real gateway and a real Redis: one command at issue, one at redeem, and batches that are round trips.
func TestStore(t *testing.T) {
	apart(t)
	r, err := newRunner(t.Context(), options{short: true, each: 512})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := r.buildGateway(""); err != nil {
		t.Fatal(err)
	}
	r.rounds = 1
	s, err := storeCosts(r)
	if err != nil {
		t.Fatal(err)
	}
	a := s.tables[0].Rows
	for step := range 2 {
		if got := a[step][2]; got != "1.00 (1.00-1.00)" {
			t.Errorf("%s: %s commands", a[step][1], got)
		}
	}
	b := s.tables[1].Rows
	for row, most := range map[int]float64{1: 1, 4: 4.0 / 64, 5: 10.0 / 256} { // one, 64 and 256 a call; the last are some 100 KiB
		text, _, _ := strings.Cut(b[row][4], " ")
		if got, err := strconv.ParseFloat(text, 64); err != nil || got > most+0.01 {
			t.Errorf("%s: %s round trips, %v", b[row][1], text, err)
		}
	}
	if b[1][4] != "1.00 (1.00-1.00)" {
		t.Errorf("a ticket a call: %s round trips", b[1][4])
	}
}
