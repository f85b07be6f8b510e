// Command simulate plays the admission protocol with the real machine (store/node/core), counts, locators and buckets on simulated
// clocks, network and stores (store/model), and checks after each step that
//
//	1  a ticket opens at most one socket
//	2  nobody has more sockets that can carry a message than his limit
//	3  once everything is healed the counts reach the truth within a heartbeat, a lease and 5 s, and issue is open
//	4  who holds an unexpired ticket is not refused for the count
//	5  a locator that was not minted, or is of another epoch, comes through no check
//
// and that token buckets keep to their rate. A seed is played the same way each time:
//
//	simulate -seeds 10000             plays seeds 1 to 10000
//	simulate -seed 308 -v             plays one and prints its story
//	simulate -without proof -first    finds the first seed that needs a guard
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/ticket"
)

// ring mints and checks. Its key is no secret, and always the same.
var ring = func() *ticket.KeyRing {
	r, err := ticket.ParseKeyRing("sim:" + strings.Repeat("A", 42) + "E=")
	if err != nil {
		panic(err)
	}
	return r
}()

func main() {
	debug.SetGCPercent(400) // little is alive at any moment
	os.Exit(run(os.Args[1:], os.Stdout))
}

func run(args []string, out io.Writer) int {
	f := flag.NewFlagSet("simulate", flag.ContinueOnError)
	f.SetOutput(out)
	var (
		from    = f.Uint64("from", 1, "first seed")
		seeds   = f.Uint64("seeds", 1000, "how many")
		one     = f.Uint64("seed", 0, "play this one only")
		verbose = f.Bool("v", false, "print the story of -seed, or of the first that breaks")
		workers = f.Int("workers", runtime.GOMAXPROCS(0), "seeds played at once")
		names   = f.String("without", "", "guards to leave out, separated by commas: see -guards")
		first   = f.Bool("first", false, "stop at the first seed that breaks")
		list    = f.Bool("guards", false, "list the guards")
	)
	if err := f.Parse(args); err != nil {
		return 2
	}
	if *list {
		for _, g := range guards {
			fmt.Fprintf(out, "%-12s %s\n", g.name, g.says)
		}
		return 0
	}
	without, err := parseGuards(*names)
	switch {
	case err != nil:
	case f.NArg() > 0:
		err = fmt.Errorf("argument %q: there are flags only", f.Arg(0))
	case *workers < 1:
		err = fmt.Errorf("-workers %d: at least 1", *workers)
	}
	if err != nil {
		fmt.Fprintln(out, "simulate:", err)
		return 2
	}
	if *one != 0 {
		*from, *seeds = *one, 1
	}
	s := sweep{from: *from, seeds: *seeds, without: without, first: *first}
	s.run(*workers)
	return s.report(out, *verbose)
}

// A sweep plays many seeds.
type sweep struct {
	from, seeds uint64
	without     guard
	first       bool

	next  atomic.Uint64
	over  atomic.Bool
	mu    sync.Mutex
	bad   []result
	all   result
	count uint64
	took  time.Duration
}

func (s *sweep) run(workers int) {
	began := time.Now()
	s.next.Store(s.from)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(s.work)
	}
	wg.Wait()
	s.took = time.Since(began)
}

func (s *sweep) work() {
	var l pool
	for !s.over.Load() {
		seed := s.next.Add(1) - 1
		if seed-s.from >= s.seeds {
			return
		}
		r := play(seed, vary(seed, s.without), &l)
		s.mu.Lock()
		s.count++
		s.all.steps += r.steps
		for i, n := range r.stat {
			s.all.stat[i] += n
		}
		if len(r.fails) > 0 {
			r.lines = nil
			s.bad = append(s.bad, r)
			s.over.Store(s.first)
		}
		s.mu.Unlock()
	}
}

func (s *sweep) report(out io.Writer, verbose bool) int {
	fmt.Fprintf(out, "%d seeds, %d steps, %.1f s:", s.count, s.all.steps, s.took.Seconds())
	for i, n := range s.all.stat {
		fmt.Fprintf(out, " %s %d;", statNames[i], n)
	}
	fmt.Fprintf(out, " broken %d\n", len(s.bad))
	least := uint64(0)
	for i, r := range s.bad {
		if i < 20 {
			fmt.Fprintf(out, "seed %d, after %d steps: %s\n", r.seed, r.steps, r.fails[0])
		}
		if least == 0 || r.seed < least {
			least = r.seed
		}
	}
	if verbose {
		if least == 0 {
			least = s.from
		}
		o := vary(least, s.without)
		o.trace = true
		fmt.Fprintf(out, "seed %d: %v\n", least, o)
		for _, line := range play(least, o, new(pool)).lines {
			fmt.Fprintln(out, line)
		}
	}
	if len(s.bad) > 0 {
		return 1
	}
	return 0
}
