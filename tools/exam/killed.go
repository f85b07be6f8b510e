package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

func init() {
	tests[28] = test{"a node is killed with its sockets: its slots come back, and never too many", killed}
}

const (
	killedNodes   = 4
	killedLimit   = 10
	killedClients = 1000
	killedAsk     = 200 * time.Millisecond // each client asks so often for one more
	killedAfter   = 5 * time.Second        // the lease and so much: then all slots are free again
	killedDown    = 5 * time.Second        // until the node is started again
	killedBack    = 2 * time.Second        // after it is up again, all slots are free
	killedSlack   = 5 * time.Second        // for opening 10 sockets of each client
)

// killedYAML has the leases of the exam, or short ones for its short form.
func killedYAML(x *exam) (yaml string, lease time.Duration) {
	if x.size < 1 {
		return "cluster: { heartbeat: 1s, lease: 6s }\n", 6 * time.Second
	}
	return "", 45 * time.Second
}

// killed kills a node that has all sockets, twice: in the second round it is started again.
func killed(ctx context.Context, x *exam) error {
	yaml, lease := killedYAML(x)
	clients := x.n(killedClients, 20)
	c, err := start(ctx, x, clusterOptions{nodes: killedNodes, count: killedLimit, yaml: yaml, limit: 20_000})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "a node did not stop") }()
	if err := c.killOne(ctx, x, clients, lease, 0, false); err != nil {
		return err
	}
	if err := c.restart(ctx, 0); err != nil {
		return err
	}
	return c.killOne(ctx, x, clients, lease, 1, true)
}

// killOne has node i carry all sockets of all clients, and kills it.
func (c *cluster) killOne(ctx context.Context, x *exam, clients int, lease time.Duration, i int, again bool) error {
	t := newTruth(killedLimit)
	defer t.closeAll()
	name := func(k int) string { return fmt.Sprintf("held-%v-%d", again, k) }
	if err := c.fill(ctx, t, clients, i, name); err != nil {
		return err
	}
	x.figure("node %d carries %d sockets of %d clients", i, t.all(), clients)
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var w wanting
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for k := range clients {
		wg.Go(func() { w.askOn(asking, c, t, name(k), i, k, clients) })
	}
	if err := rest(ctx, 2*killedAsk); err != nil { // all have asked, and were refused
		return err
	}
	early := w.admitted.Load()
	begun := time.Now()
	if err := c.nodes[i].Kill(); err != nil {
		return err
	}
	from, bound := begun, lease+killedAfter
	if again {
		if err := rest(ctx, killedDown); err != nil {
			return err
		}
		if err := c.restart(ctx, i); err != nil {
			return err
		}
		from, bound = time.Now(), killedBack
		x.figure("started again, and up %.1f s after its end", from.Sub(begun).Seconds())
	}
	first, whole, err := w.wait(ctx, t, clients, from, bound+killedSlack+lease)
	if err != nil {
		return err
	}
	x.figure("slots are free again %.1f s after %s; all %d sockets are open again after %.1f s", first.Seconds(),
		map[bool]string{false: "the kill", true: "the start"}[again], clients*killedLimit, whole.Seconds())
	x.figure("most sockets of a client %d, openings beyond the limit %d, refused %d times, no answer about the limit %d times",
		t.most, t.above, w.full.Load(), w.busy.Load())
	x.want(early == 0, "%d sockets more while all slots were taken", early)
	x.want(t.above == 0, "%d openings beyond the limit, up to %d sockets", t.above, t.most)
	x.want(w.full.Load() > 0, "nobody was refused while the slots were taken")
	x.want(first <= bound, "the first slot is free after %v, want %v", first, bound)
	x.wantTime(whole <= bound+killedSlack, "all slots are used again after %v, want %v and %v to open them", whole, bound, killedSlack)
	w.wrong.Range(func(text, _ any) bool { x.want(false, "%v", text); return true })
	stop()
	wg.Wait()
	held, _, err := countSlots(ctx, c.redis.Addr)
	if err != nil {
		return err
	}
	x.figure("slots in Redis %d, sockets open %d", held, t.all())
	x.want(held == t.all(), "Redis counts %d sockets, and there are %d: orphans", held, t.all())
	t.closeAll()
	return c.empty(ctx, x)
}

// fill opens all sockets of all clients at node i.
func (c *cluster) fill(ctx context.Context, t *truth, clients, i int, name func(int) string) error {
	var wg sync.WaitGroup
	errs := make(chan error, clients)
	work := make(chan int)
	for range 32 {
		wg.Go(func() {
			for k := range work {
				for tries := 0; t.of(name(k)) < t.limit; tries++ {
					got, err := c.want(ctx, t, name(k), i, i)
					if err == nil && got != admitted && tries > 100*t.limit {
						err = fmt.Errorf("%s has %d sockets, and gets no more", name(k), t.of(name(k)))
					}
					if err != nil || ctx.Err() != nil {
						errs <- err
						break
					}
				}
			}
		})
	}
	for k := range clients {
		work <- k
	}
	close(work)
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return ctx.Err()
	}
}

// empty wants no slot in Redis soon after the last socket has ended.
func (c *cluster) empty(ctx context.Context, x *exam) error {
	for until := time.Now().Add(time.Minute); ; {
		held, reserved, err := countSlots(ctx, c.redis.Addr)
		if err != nil || held == 0 {
			return err
		}
		if time.Now().After(until) {
			x.want(false, "a minute after the last socket Redis still counts %d, and %d reservations", held, reserved)
			return nil
		}
		if err := rest(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// wanting are all clients that keep asking.
type wanting struct {
	admitted, full, busy atomic.Int64
	first                atomic.Int64 // when the first got a socket, Unix nanoseconds; 0: not yet
	wrong                sync.Map
}

// askOn asks nodes other than i for one more socket of client k, again and again: at once after it got one.
func (w *wanting) askOn(ctx context.Context, c *cluster, t *truth, client string, i, k, clients int) {
	if rest(ctx, killedAsk*time.Duration(k)/time.Duration(clients)) != nil { // not all in the same moment
		return
	}
	for n := k; ; n++ {
		j := (i + 1 + n%(killedNodes-1)) % killedNodes
		got, err := c.want(ctx, t, client, j, j)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			w.wrong.Store(err.Error(), true)
		case got == admitted:
			w.admitted.Add(1)
			w.first.CompareAndSwap(0, time.Now().UnixNano())
			continue
		case got == full:
			w.full.Add(1)
		default:
			w.busy.Add(1)
		}
		if rest(ctx, killedAsk) != nil {
			return
		}
	}
}

// wait returns when a client got a socket, and when all have all, both since from.
func (w *wanting) wait(ctx context.Context, t *truth, clients int, from time.Time, most time.Duration) (first, whole time.Duration, err error) {
	for until := from.Add(most); t.all() < clients*t.limit || w.first.Load() == 0; {
		if time.Now().After(until) {
			return most, most, nil
		}
		if err := rest(ctx, 20*time.Millisecond); err != nil {
			return 0, 0, err
		}
	}
	return time.Unix(0, w.first.Load()).Sub(from), time.Since(from), nil
}
