package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

func init() {
	tests[46] = test{"Redis slow and flaky, then stalling: most newcomers come in, none waits long, the counts stay right", redisFlaky}
}

const (
	flakyNodes    = 2
	flakySockets  = 1000
	flakyTimeout  = 500 * time.Millisecond // store.timeout
	flakyLasts    = 5 * time.Minute
	flakySuccess  = 0.9
	flakyWait     = time.Second // p99 of an admission
	flakyTimes    = 1.2         // B
	flakyStalls   = 6
	flakyStall    = 2 * time.Second
	flakyEvery    = 10 * time.Second
	flakyOpens    = time.Second // from the begin of a stall until the breaker is open
	flakyLook     = 20 * time.Millisecond
	flakyOnTheWay = 100 * time.Millisecond // what was asked before the breaker was open is at the proxy by then
)

// redisFlaky puts a proxy before Redis that is slow and cuts connections, and then stalls again and again.
func redisFlaky(ctx context.Context, x *exam) error {
	s, url, err := startStation(ctx)
	if err != nil {
		return err
	}
	defer s.kill()
	f := &flaky{steady: s, lease: 45 * time.Second, slow: x.lasting(flakyLasts), stalls: flakyStalls, every: flakyEvery}
	o := clusterOptions{nodes: flakyNodes, backend: url, store: flakyTimeout, proxy: true}
	if x.size < 0.1 {
		f.lease, f.stalls, f.every = 10*time.Second, 2, flakyStall+flakyStall/2
		o.yaml = fmt.Sprintf("tickets: { ttl: 5s }\ncluster: { heartbeat: 1s, lease: %s }\n", f.lease)
	}
	if f.cluster, err = start(ctx, x, o); err != nil {
		return err
	}
	defer func() { x.want(f.close() == nil, "a node did not stop") }()
	f.n = x.n(flakySockets, 50)
	if err := s.settle(ctx, x, f.cluster, f.n, func(ctx context.Context) *admissions { return f.admit(ctx, outageRate, "before") }); err != nil {
		return err
	}
	a := f.admit(ctx, outageRate, "during")
	defer a.end()
	if err := f.slowly(ctx, x, a); err != nil {
		return err
	}
	if err := f.stalling(ctx, x, a); err != nil {
		return err
	}
	a.end()
	all := a.since(time.Time{})
	x.figure("%d tickets, each used at both nodes: %d opened more than one socket", len(all), twice(all))
	x.want(twice(all) == 0, "%d tickets opened more than one socket", twice(all))
	if err := f.counts(ctx, x); err != nil {
		return err
	}
	return s.end(ctx, x)
}

// flaky is one such time.
type flaky struct {
	*steady
	*cluster
	n      int           // residents
	lease  time.Duration // cluster.lease
	slow   time.Duration // how long Redis is slow
	stalls int
	every  time.Duration // from one stall to the next
}

// slowly is the first part.
func (f *flaky) slowly(ctx context.Context, x *exam, a *admissions) error {
	begun := time.Now()
	before, err := f.proxy.be(ctx, "slow")
	if err != nil {
		return err
	}
	if err := rest(ctx, f.slow); err != nil {
		return err
	}
	over := time.Now()
	after, err := f.proxy.be(ctx, "pass")
	if err != nil {
		return err
	}
	if err := rest(ctx, flakyWait); err != nil { // who came last has an answer then
		return err
	}
	o := outcomeOf(a.within(begun, over))
	x.figure("slow for %v, %v more or less %v a round trip, %d of %d connections cut", f.slow, slowMean, slowMean/2, after.cut-before.cut, after.conns)
	x.figure("meanwhile: %v", o)
	x.want(o.ok > 0, "nobody came in")
	x.want(o.others() == 0, "slow: %d admissions were answered otherwise than with 101, or 503 and Retry-After", o.others())
	x.wantTime(float64(o.ok) >= flakySuccess*float64(o.all), "slow: %d of %d admissions succeeded, want %.0f %%", o.ok, o.all, 100*flakySuccess)
	x.wantTime(o.p99 <= flakyWait, "slow: admissions took %v (p99), want at most %v", o.p99, flakyWait)
	return f.judge(ctx, x, "slow", flakyTimes)
}

// stalling is the second.
func (f *flaky) stalling(ctx context.Context, x *exam, a *admissions) error {
	begun := time.Now()
	var opened, first []time.Duration
	probes, scripts := 0, 0
	for i := range f.stalls {
		next := time.Now().Add(f.every)
		s, err := f.stall(ctx)
		if err != nil {
			return err
		}
		opened = append(opened, s.opened...)
		x.want(len(s.opened) == len(f.nodes), "stall %d: the breakers of %d nodes of %d opened", i, len(s.opened), len(f.nodes))
		x.want(s.probes > 0, "stall %d: nothing has probed", i)
		probes, scripts = probes+s.probes, scripts+s.scripts
		after, came := a.firstSuccess(ctx, s.over, f.lease+flakyEvery)
		x.want(came, "stall %d: nobody came in afterwards", i)
		first = append(first, after)
		if err := rest(ctx, time.Until(next)); err != nil {
			return err
		}
	}
	o := outcomeOf(a.within(begun, time.Now().Add(-flakyWait)))
	x.figure("%d stalls of %v: breakers opened after %v at most; while they were open %d probes came and %d scripts; first success %v after a stall at most",
		f.stalls, flakyStall, slices.Max(append(opened, 0)).Round(time.Millisecond), probes, scripts, slices.Max(append(first, 0)).Round(time.Millisecond))
	x.figure("meanwhile: %v", o)
	x.want(scripts == 0, "%d scripts were sent while the breakers were open", scripts)
	x.want(o.others() == 0, "stalls: %d admissions were answered otherwise than with 101, or 503 and Retry-After", o.others())
	x.wantTime(slices.Max(append(opened, 0)) <= flakyOpens, "a breaker opened after %v, want at most %v", slices.Max(append(opened, 0)), flakyOpens)
	x.wantTime(o.p99 <= flakyWait, "stalls: admissions took %v (p99), want at most %v", o.p99, flakyWait)
	return f.judge(ctx, x, "stalls", flakyTimes)
}

// stall is what was seen of one.
type stall struct {
	opened          []time.Duration // of each node that opened its breaker, after how long
	probes, scripts int             // that came to the proxy while all breakers were open
	over            time.Time
}

// stall holds all back for a while.
func (f *flaky) stall(ctx context.Context) (s stall, err error) {
	if _, err := f.proxy.be(ctx, "stall"); err != nil {
		return s, err
	}
	begun := time.Now()
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range f.nodes {
		all.Go(func() {
			after, ok := f.opens(ctx, i, begun)
			mu.Lock()
			defer mu.Unlock()
			if ok {
				s.opened = append(s.opened, after)
			}
		})
	}
	all.Wait()
	if err := rest(ctx, flakyOnTheWay); err != nil {
		return s, err
	}
	open, err := f.proxy.be(ctx, "stall") // as before
	if err != nil {
		return s, err
	}
	if err := rest(ctx, time.Until(begun.Add(flakyStall))); err != nil {
		return s, err
	}
	end, err := f.proxy.be(ctx, "stall")
	if err != nil {
		return s, err
	}
	s.probes = end.pings - open.pings + end.conns - open.conns
	s.scripts = end.scripts - open.scripts
	_, err = f.proxy.be(ctx, "pass")
	s.over = time.Now()
	return s, err
}

// opens waits until node i says that its store does not answer; false: it has not by the end of the stall.
func (f *flaky) opens(ctx context.Context, i int, begun time.Time) (time.Duration, bool) {
	for time.Since(begun) < flakyStall-2*flakyOnTheWay {
		m, err := f.metricsOf(ctx, i)
		if err == nil && m["ticketgate_store_degraded"] == 1 {
			return time.Since(begun), true
		}
		if rest(ctx, flakyLook) != nil {
			break
		}
	}
	return 0, false
}

// counts wants that Redis counts the residents and nothing else, at the latest a lease after all others have gone.
func (f *flaky) counts(ctx context.Context, x *exam) error {
	begun := time.Now()
	for {
		held, reserved, err := countSlots(ctx, f.redis.Addr)
		if err != nil {
			return err
		}
		if right := held == f.n && reserved == 0; right || time.Since(begun) > f.lease {
			x.figure("Redis counts %d sockets and %d tickets for %d residents, %v after the end", held, reserved, f.n, time.Since(begun).Round(time.Millisecond))
			x.want(right, "Redis counts %d sockets and %d tickets a lease after the end, want %d and 0", held, reserved, f.n)
			return nil
		}
		if err := rest(ctx, sampleEvery); err != nil {
			return err
		}
	}
}
