package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

func init() {
	tests[27] = test{"count race: never more than N sockets of a client, over all nodes", countRace}
}

const (
	countNodes   = 4
	countLimit   = 10
	countClients = 100
	countAtOnce  = 50 // admissions of a client in a round
	countRounds  = 1000
	countFlying  = 256 // requests on their way: a front end takes so many, and the exam's own descriptors are bounded
	countReach   = 5 * time.Second
)

// countRace has clients want more sockets than they may have, at once, over all nodes, and leave some of them by chance: where full
// plans reject, and where the oldest is evicted.
func countRace(ctx context.Context, x *exam) error {
	for _, full := range []string{"reject", "evict-oldest"} {
		if err := countRaceIf(ctx, x, full); err != nil {
			return fmt.Errorf("%s: %w", full, err)
		}
	}
	return nil
}

// countRaceIf is the race where full plans do what when says.
func countRaceIf(ctx context.Context, x *exam, when string) error {
	c, err := start(ctx, x, clusterOptions{nodes: countNodes, count: countLimit, limit: 8192, full: when, dir: when})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "a node did not stop") }()
	t := newTruth(countLimit)
	defer t.closeAll()
	clients, rounds := x.n(countClients, 5), x.n(countRounds, 10)
	var refused, unknown atomic.Int64
	var wrong sync.Map
	var late, never int
	flying := make(chan struct{}, countFlying)
	for round := range rounds {
		var wg sync.WaitGroup
		gun := make(chan struct{})
		for k := range clients {
			for n := range countAtOnce {
				wg.Go(func() {
					<-gun
					flying <- struct{}{}
					defer func() { <-flying }()
					got, err := c.want(ctx, t, countName(k), n%countNodes, (n+round)%countNodes)
					switch {
					case err != nil:
						wrong.Store(err.Error(), true)
					case got == full:
						refused.Add(1)
					case got == busy:
						unknown.Add(1)
					}
				})
			}
		}
		close(gun)
		wg.Wait()
		for k := range clients {
			if t.of(countName(k)) < countLimit {
				late++
				if !c.reaches(ctx, t, countName(k)) {
					never++
				}
			}
			t.leave(countName(k), x.rnd.IntN(countLimit+1))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	replaced, lost := t.ends()
	x.figure("%s: rounds %d, clients %d with %d admissions at once over %d nodes, limit %d: refused %d, no answer about the limit %d",
		when, rounds, clients, countAtOnce, countNodes, countLimit, refused.Load(), unknown.Load())
	x.figure("most sockets of a client %d, openings beyond the limit %d, closed with 4409 %d", t.most, t.above, replaced)
	x.figure("not at the limit after a round, because slots of the round before were not told yet: %d; nor %v later: %d", late, countReach, never)
	x.want(t.above == 0, "%d openings beyond the limit, up to %d sockets", t.above, t.most)
	x.want(t.most == countLimit, "the most that a client had is %d, want %d", t.most, countLimit)
	x.want(never == 0, "%d times the limit was not reached", never)
	x.want(lost == 0, "%d sockets ended that were neither replaced nor left", lost)
	if when == "reject" {
		x.want(refused.Load() > 0, "nobody was refused")
		x.want(replaced == 0, "%d sockets were replaced", replaced)
	} else {
		x.want(replaced > 0, "nobody was replaced")
	}
	wrong.Range(func(text, _ any) bool { x.want(false, "%v", text); return true })
	return nil
}

func countName(k int) string { return fmt.Sprintf("racer-%d", k) }

// reaches has client ask on until it has all its sockets.
func (c *cluster) reaches(ctx context.Context, t *truth, client string) bool {
	ctx, cancel := context.WithTimeout(ctx, countReach)
	defer cancel()
	for n := 0; t.of(client) < t.limit; n++ {
		if ctx.Err() != nil {
			return false
		}
		got, err := c.want(ctx, t, client, n%len(c.nodes), n%len(c.nodes))
		if err != nil || got != admitted {
			_ = rest(ctx, 10*time.Millisecond) // then ctx has ended
		}
	}
	return true
}
