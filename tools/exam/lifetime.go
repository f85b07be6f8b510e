package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"ticketgate/tools/rig"
)

func init() {
	tests[20] = test{"ticket lifetime: accepted until the store's clock says no, spent by a wrong use, gone from Redis", lifetimeEdges}
}

const (
	edgeTickets = 10_000
	edgeRate    = 500 // of them a second
	edgeLife    = 5 * time.Second
	edgeSpan    = 100 * time.Millisecond // used so long before or after the end of its life at most
	edgeSlack   = 50 * time.Millisecond
	edgeUnused  = 2000             // tickets that nobody uses
	edgeGone    = 60 * time.Second // after their end nothing of them is in Redis
)

// lifetimeEdges uses tickets around the end of their life, and in wrong ways.
func lifetimeEdges(ctx context.Context, x *exam) error {
	root := x.dir
	for i, part := range []func(context.Context, *exam) error{edges, misuses} {
		x.dir = root + "/" + strconv.Itoa(i)
		if err := errors.Join(os.Mkdir(x.dir, 0o700), part(ctx, x)); err != nil {
			return err
		}
	}
	return nil
}

// edges looks for what unused tickets leave, and then at the moment when a ticket ends.
func edges(ctx context.Context, x *exam) error {
	c, err := start(ctx, x, clusterOptions{nodes: 2, yaml: fmt.Sprintf("tickets: { ttl: %s }\n", edgeLife)})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "a node did not stop") }()
	if err := c.unusedLeave(ctx, x); err != nil {
		return err
	}
	e := &edging{cluster: c, other: map[string]int{}}
	n, rate := x.n(edgeTickets, 200), x.n(edgeRate, 100)
	var done sync.WaitGroup
	due(ctx, 0, time.Second/time.Duration(rate), func(i int, _ time.Time) bool {
		offset := time.Duration(x.rnd.Int64N(2*int64(edgeSpan)+1)) - edgeSpan
		done.Go(func() { e.one(ctx, i, offset) })
		return i+1 < n
	})
	done.Wait()
	if err := errors.Join(ctx.Err(), e.err); err != nil {
		return err
	}
	x.figure("%d tickets used within %v of their end, as far as an answer's time tells: before it %d, at it %d, after it %d", n, edgeSpan,
		e.before, e.at, e.after)
	x.figure("accepted %d, the last %v after its end; refused %d, the first %v before its end (less than 0: the other side of it)", e.accepted,
		e.latest.Round(time.Microsecond), e.refused, e.earliest.Round(time.Microsecond))
	x.want(e.before > 0 && e.after > 0 && e.accepted > 0 && e.refused > 0, "nothing is shown")
	x.want(e.latest <= edgeSlack, "a ticket was accepted %v after its end", e.latest)
	x.want(e.earliest <= edgeSlack, "a ticket was refused %v before its end", e.earliest)
	for answer, k := range e.other {
		x.want(false, "%d times %.60q", k, answer)
	}
	return nil
}

// edging is what is found at the edges. A ticket's life begins in Redis, somewhere between the request for it and the answer,
// and it is looked up somewhere between its use and that answer: only what none of these moments allows is wrong. All clocks are
// this machine's.
type edging struct {
	*cluster

	mu                sync.Mutex
	before, at, after int // uses that began and ended before, around and after the end of a ticket's life
	accepted, refused int
	latest            time.Duration // at least so long after its end was a ticket accepted
	earliest          time.Duration // at least so long before its end was one refused
	other             map[string]int
	err               error
}

// one uses a ticket so long after the middle of what may be its end.
func (e *edging) one(ctx context.Context, i int, offset time.Duration) {
	asked := time.Now()
	t, err := e.issue(ctx, i%2, request{Stream: "echo", Client: "edge" + strconv.Itoa(i)})
	told := time.Now()
	first, last := asked.Add(edgeLife), told.Add(edgeLife)
	var conn net.Conn
	if err == nil {
		err = rest(ctx, time.Until(first.Add(-edgeSpan-edgeSlack)))
	}
	if err == nil {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "tcp", e.nodes[i/2%2].Gate)
	}
	if err != nil {
		e.failed(err)
		return
	}
	defer conn.Close()
	if err := errors.Join(conn.SetDeadline(time.Now().Add(2*answerWithin)), rest(ctx, time.Until(first.Add(last.Sub(first)/2+offset)))); err != nil {
		e.failed(err)
		return
	}
	begun := time.Now()
	answer, err := use(conn, []byte(rig.Head("gate.test", t.Path(), t.Secret())))
	ended := time.Now()
	if err != nil {
		e.failed(err)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case !ended.After(first):
		e.before++
	case !begun.Before(last):
		e.after++
	default:
		e.at++
	}
	switch {
	case strings.HasPrefix(answer, "HTTP/1.1 101 "):
		if late := begun.Sub(last); e.accepted == 0 || late > e.latest {
			e.latest = late
		}
		e.accepted++
	case strings.HasPrefix(answer, "HTTP/1.1 401 "):
		if early := first.Sub(ended); e.refused == 0 || early > e.earliest {
			e.earliest = early
		}
		e.refused++
	default:
		e.other[answer]++
	}
}

func (e *edging) failed(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.err = err
	}
}

// unusedLeave issues tickets that nobody uses and waits until Redis holds no more keys than before. It asks for their number
// only: a look at a key would be the end of one that has expired.
func (c *cluster) unusedLeave(ctx context.Context, x *exam) error {
	r, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{c.redis.Addr}, DisableCache: true})
	if err != nil {
		return err
	}
	defer r.Close()
	keys := func() (int64, error) { return r.Do(ctx, r.B().Dbsize().Build()).ToInt64() }
	before, err := keys()
	if err != nil {
		return err
	}
	n := x.n(edgeUnused, 100)
	most, begun := int64(0), time.Now()
	for i := range n {
		if _, err := c.issue(ctx, i%2, request{Stream: "echo", Client: "unused" + strconv.Itoa(i)}); err != nil {
			return err
		}
		if time.Since(begun) < edgeLife {
			if most, err = keys(); err != nil {
				return err
			}
		}
	}
	end := time.Now().Add(edgeLife)
	for {
		now, err := keys()
		if err != nil {
			return err
		}
		left, late := now-before, time.Since(end)
		if left > 0 && late <= edgeGone {
			if err := rest(ctx, sampleEvery); err != nil {
				return err
			}
			continue
		}
		x.figure("%d unused tickets: Redis held up to %d more keys, and %d more %v after the end of the last, allowed %v", n, most-before, left,
			late.Round(sampleEvery), edgeGone)
		x.want(most > before, "Redis held no keys for tickets: nothing is shown")
		x.want(left <= 0, "%d keys are left in Redis", left)
		return nil
	}
}
