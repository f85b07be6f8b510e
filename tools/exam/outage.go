package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"syscall"
	"time"

	"ticketgate/tools/rig"
)

func init() {
	tests[45] = test{"Redis gone: residents notice nothing, newcomers are told when to come again, and then come in", redisGone}
}

const (
	outageNodes    = 2
	outageSockets  = 5000
	outageRate     = 50 // admissions a second
	outageLasts    = 30 * time.Second
	outageBetween  = time.Minute
	outageHeld     = 300 // tickets that are issued before it and used meanwhile
	outageTimes    = 1.5 // B
	outageRefused  = 300 * time.Millisecond
	outageSettled  = 500 * time.Millisecond // after its begin, and before its end: who comes then may have been quicker, or has to wait so long
	outageSuccess  = time.Second
	outageRoutines = 1000
	outageTicket   = 2 * time.Minute // tickets.ttl: those from before an outage are good after it
	outageReplayed = 10 * time.Second
)

// redisGone stops Redis and lets it go on, and then kills and restarts it with its data.
func redisGone(ctx context.Context, x *exam) error {
	s, url, err := startStation(ctx)
	if err != nil {
		return err
	}
	defer s.kill()
	lease := 45 * time.Second
	o := clusterOptions{nodes: outageNodes, backend: url, redis: []string{"--appendonly", "yes"}, store: 200 * time.Millisecond,
		yaml: fmt.Sprintf("tickets: { ttl: %s }\n", outageTicket)}
	if x.size < 1 { // on a busy machine Redis is slow when nothing is wrong
		o.store = 500 * time.Millisecond
	}
	if x.size < 0.1 {
		lease = 10 * time.Second
		o.yaml += fmt.Sprintf("cluster: { heartbeat: 1s, lease: %s }\n", lease)
	}
	c, err := start(ctx, x, o)
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "a node did not stop") }()
	rate := outageRate // at any size: fewer would show little
	if err := s.settle(ctx, x, c, x.n(outageSockets, 100), func(ctx context.Context) *admissions { return c.admit(ctx, rate, "before") }); err != nil {
		return err
	}
	routines := c.watchGoroutines(ctx)
	u := &outage{steady: s, cluster: c, a: c.admit(ctx, rate, "during"), patience: lease + 15*time.Second}
	defer u.a.end()
	if err := rest(ctx, min(x.lasting(outageReplayed), outageReplayed)/x.shorter()); err != nil { // so that there are tickets from before
		return err
	}
	err = u.play(ctx, x, "stopped", func() error { return c.redis.Signal(syscall.SIGSTOP) }, func() error {
		return errors.Join(c.redis.Signal(syscall.SIGCONT), c.redis.Answers(ctx))
	})
	if err != nil {
		return err
	}
	if err := u.play(ctx, x, "killed", c.redis.Stop, func() error { return c.redis.Restart(ctx) }); err != nil {
		return err
	}
	u.a.end()
	grown, err := routines()
	if err != nil {
		return err
	}
	double := twice(u.a.since(time.Time{}))
	x.figure("tickets in all %d, that opened more than one socket %d; goroutines of a node %+d at most", len(u.a.since(time.Time{})), double, grown)
	x.want(double == 0, "%d tickets opened more than one socket", double)
	x.want(grown <= outageRoutines, "a node had %d goroutines more", grown)
	return s.end(ctx, x)
}

// outage is what its two kinds share.
type outage struct {
	*steady
	*cluster
	a        *admissions
	patience time.Duration // for the first success
}

// play lets Redis go and come back, and looks at both sides of the gate until another while is over.
func (u *outage) play(ctx context.Context, x *exam, name string, leave, back func() error) error {
	held, err := u.hold(ctx, x.n(outageHeld, 10), name)
	if err != nil {
		return err
	}
	if _, err := u.ask(ctx, "mark"); err != nil {
		return err
	}
	begun := time.Now()
	if err := leave(); err != nil {
		return err
	}
	lasts := x.lasting(outageLasts)
	var uses sync.WaitGroup
	uses.Go(func() { u.useHeld(ctx, held, lasts) })
	err = rest(ctx, lasts)
	uses.Wait()
	if err != nil {
		return err
	}
	over := time.Now()
	if err := back(); err != nil {
		return err
	}
	answers := time.Now()
	first, came := u.a.firstSuccess(ctx, answers, u.patience)
	if err := rest(ctx, time.Until(answers.Add(x.lasting(outageBetween)))); err != nil {
		return err
	}
	known := begun.Add(outageSettled)
	o := outcomeOf(u.a.within(known, over.Add(-outageSettled)))
	x.figure("%s for %v, answering again %v later", name, over.Sub(begun).Round(time.Millisecond), answers.Sub(over).Round(time.Millisecond))
	x.figure("meanwhile: %v", o)
	x.want(o.refused > 0, "%s: nobody was refused: nothing is shown", name)
	x.want(o.ok == 0 && o.others() == 0, "%s: of %d admissions %d succeeded and %d were answered otherwise than with 503 and Retry-After", name, o.all, o.ok, o.others())
	x.want(o.spread(), "%s: Retry-After is not spread over 1 to 5 s: %v", name, o.retries)
	x.wantTime(o.refusedP99 < outageRefused, "%s: refusals took %v (p99)", name, o.refusedP99)
	later := outcomeOf(u.a.within(answers.Add(outageSuccess), time.Now().Add(-outageSettled)))
	x.figure("first success %v after Redis answered; from %v after that on: %v", first.Round(time.Millisecond), outageSuccess, later)
	x.want(later.others() == 0, "%s: afterwards %d of %d admissions were answered otherwise than with 101, or 503 and Retry-After", name, later.others(), later.all)
	x.want(came, "%s: no admission succeeded within %v", name, u.patience)
	x.wantTime(first <= outageSuccess, "%s: the first success came %v after Redis answered", name, first)
	some := append(u.a.since(begun.Add(-outageReplayed)), held...)
	opened := u.again(ctx, some)
	double := twice(some)
	x.figure("%d tickets from around it used once more at each node: %d opened a socket, %d for a second time", len(some), opened, double)
	x.want(double == 0, "%s: %d tickets opened more than one socket", name, double)
	return u.judge(ctx, x, name, outageTimes)
}

// hold gets tickets.
func (u *outage) hold(ctx context.Context, n int, name string) (held []*spending, err error) {
	for i := range n {
		var t *rig.Ticket
		err := patiently(func() (err error) {
			t, err = u.issue(ctx, i%len(u.nodes), request{Stream: "echo", Client: "held-" + name + strconv.Itoa(i)})
			return err
		})
		if err != nil {
			return nil, err
		}
		held = append(held, &spending{Ticket: t, issued: time.Now()})
	}
	return held, nil
}

// useHeld uses them one after the other, each at both nodes at once, until the time is nearly over.
func (u *outage) useHeld(ctx context.Context, held []*spending, lasts time.Duration) {
	every := lasts / time.Duration(len(held)+1)
	var done sync.WaitGroup
	due(ctx, 0, every, func(n int, _ time.Time) bool {
		for i := range u.nodes {
			done.Go(func() { _, _, _ = u.spend(ctx, i, held[n]) }) // what it opens is counted
		}
		return n+1 < len(held)
	})
	done.Wait()
}
