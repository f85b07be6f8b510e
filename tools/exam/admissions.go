package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/tools/rig"
)

// Newcomers while a dependency is in trouble: so many a second ask for a ticket at one node and open it at the next, whatever became
// of those before them.

// attempt is one admission.
type attempt struct {
	at, done time.Time // when it was due, and when it had its answer
	issued   bool      // it had a ticket
	status   int       // 101, or what refused it, 0: none
	retry    int       // seconds of Retry-After, 0: none
	err      error     // of an answer that is none
}

func (a *attempt) took() time.Duration { return a.done.Sub(a.at) }

// spending is what is known of a ticket: nobody else has it.
type spending struct {
	*rig.Ticket
	issued time.Time
	opened atomic.Int64 // sockets
}

// admissions are a run of them.
type admissions struct {
	*cluster
	rate  int
	stop  context.CancelFunc
	done  sync.WaitGroup
	names string

	mu      sync.Mutex
	all     []attempt
	tickets []*spending
}

// admit asks for rate admissions a second until end. Clients' names begin with names, and are never used again.
func (c *cluster) admit(ctx context.Context, rate int, names string) *admissions {
	ctx, stop := context.WithCancel(ctx)
	a := &admissions{cluster: c, rate: rate, stop: stop, names: names}
	a.done.Go(func() {
		due(ctx, 0, time.Second/time.Duration(rate), func(n int, at time.Time) bool {
			a.done.Go(func() { a.one(context.WithoutCancel(ctx), n, at) })
			return true
		})
	})
	return a
}

// end waits for what is under way.
func (a *admissions) end() {
	a.stop()
	a.done.Wait()
}

// one is an admission. Its ticket is used a second time at another node at once: whatever became of the first, it must not open two
// sockets.
func (a *admissions) one(ctx context.Context, n int, at time.Time) {
	t := attempt{at: at}
	defer func() {
		a.mu.Lock()
		a.all = append(a.all, t)
		a.mu.Unlock()
	}()
	ticket, err := a.issue(ctx, n%len(a.nodes), request{Stream: "echo", Client: a.names + strconv.Itoa(n)})
	t.done = time.Now()
	if no := (*rig.Refused)(nil); errors.As(err, &no) {
		t.status, t.retry = no.Status, seconds(no.Header)
		return
	}
	if t.err = err; err != nil {
		return
	}
	t.issued = true
	k := &spending{Ticket: ticket, issued: at}
	a.mu.Lock()
	a.tickets = append(a.tickets, k)
	a.mu.Unlock()
	t.status, t.retry, t.err = a.spend(ctx, (n+1)%len(a.nodes), k)
	t.done = time.Now()
	_, _, _ = a.spend(ctx, n%len(a.nodes), k) // what it opens is counted
}

// spend uses a ticket at node i, and ends the socket if it opens one.
func (c *cluster) spend(ctx context.Context, i int, k *spending) (status, retry int, err error) {
	d := net.Dialer{Timeout: httpTimeout}
	conn, err := d.DialContext(ctx, "tcp", c.nodes[i].Gate)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * httpTimeout)); err != nil {
		return 0, 0, err
	}
	answer, err := use(conn, []byte(rig.Head("gate.test", k.Path(), k.Secret())))
	if err != nil {
		return 0, 0, err
	}
	if _, err := fmt.Sscanf(answer, "HTTP/1.1 %d ", &status); err != nil {
		return 0, 0, fmt.Errorf("answer %.40q: %w", answer, err)
	}
	if status == http.StatusSwitchingProtocols {
		k.opened.Add(1)
		_, err = conn.Write(appendMasked(nil, frame.Header{Fin: true, Op: frame.Close}, []byte{3, 0xe8}))
		return status, 0, err
	}
	_, after, _ := strings.Cut(answer, "\r\nRetry-After: ")
	after, _, _ = strings.Cut(after, "\r\n")
	retry, _ = strconv.Atoi(after) // 0: there is none
	return status, retry, nil
}

func seconds(h http.Header) int {
	n, _ := strconv.Atoi(h.Get("Retry-After")) // 0: there is none
	return n
}

// within returns the attempts that were due between from and to.
func (a *admissions) within(from, to time.Time) (some []attempt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.all {
		if !t.at.Before(from) && t.at.Before(to) {
			some = append(some, t)
		}
	}
	return some
}

// firstSuccess waits until an admission has succeeded that was due or done after from, and returns how long after; false: none did
// within most.
func (a *admissions) firstSuccess(ctx context.Context, from time.Time, most time.Duration) (time.Duration, bool) {
	for {
		var first time.Time
		a.mu.Lock()
		for i := range a.all {
			t := &a.all[i]
			if t.status == http.StatusSwitchingProtocols && t.done.After(from) && (first.IsZero() || t.done.Before(first)) {
				first = t.done
			}
		}
		a.mu.Unlock()
		if !first.IsZero() {
			return first.Sub(from), true
		}
		if time.Since(from) > most || rest(ctx, sampleEvery/10) != nil {
			return 0, false
		}
	}
}

// since returns the tickets that were issued after from.
func (a *admissions) since(from time.Time) (some []*spending) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.tickets {
		if t.issued.After(from) {
			some = append(some, t)
		}
	}
	return some
}

// again uses all tickets once more at each node, and returns how many sockets were opened by it.
func (c *cluster) again(ctx context.Context, all []*spending) (opened int) {
	var n atomic.Int64
	each(all, againAtOnce, func(_ int, k *spending) {
		for i := range c.nodes {
			if status, _, err := c.spend(ctx, i, k); err == nil && status == http.StatusSwitchingProtocols {
				n.Add(1)
			}
		}
	})
	return int(n.Load())
}

const againAtOnce = 4 // they are not what is measured

// twice is how many of the tickets have opened more than one socket.
func twice(all []*spending) (n int) {
	for _, k := range all {
		if k.opened.Load() > 1 {
			n++
		}
	}
	return n
}

// outcome is how some attempts went.
type outcome struct {
	all, ok    int
	refused    int            // with 503 and a Retry-After of 1 to 5 s
	retries    map[int]int    // its values
	other      map[string]int // all else
	p99, slow  time.Duration  // of all answers, and the longest
	refusedP99 time.Duration
}

func outcomeOf(some []attempt) *outcome {
	o := &outcome{all: len(some), retries: map[int]int{}, other: map[string]int{}}
	var took, refused []time.Duration
	for i := range some {
		t := &some[i]
		took = append(took, t.took())
		switch {
		case t.err != nil:
			o.other[plain(t.err)]++
		case t.status == http.StatusSwitchingProtocols:
			o.ok++
		case t.status == http.StatusServiceUnavailable && t.retry >= 1 && t.retry <= 5:
			o.refused++
			o.retries[t.retry]++
			refused = append(refused, t.took())
		default:
			o.other[fmt.Sprintf("%d, Retry-After %d, with a ticket: %v", t.status, t.retry, t.issued)]++
		}
	}
	slices.Sort(took)
	slices.Sort(refused)
	o.p99, o.slow, o.refusedP99 = quantile(took, 0.99), quantile(took, 1), quantile(refused, 0.99)
	return o
}

func (o *outcome) others() (n int) {
	for k := range maps.Values(o.other) {
		n += k
	}
	return n
}

func (o *outcome) String() string {
	text := fmt.Sprintf("%d admissions: %d succeeded, %d refused with 503 and Retry-After %v; p99 %v, of refusals %v, longest %v", o.all, o.ok, o.refused, o.retries,
		o.p99.Round(time.Millisecond), o.refusedP99.Round(time.Millisecond), o.slow.Round(time.Millisecond))
	for what, n := range o.other {
		text += fmt.Sprintf("; %d times %s", n, what)
	}
	return text
}

// spread reports whether the values of Retry-After are those from 1 to 5, or at least three of them if the refusals are not many, and
// none is that of more than half of them. A few refusals show nothing.
func (o *outcome) spread() bool {
	values := 5
	switch {
	case o.refused < spreadLeast:
		return true
	case o.refused < spreadMany:
		values = 3
	}
	return len(o.retries) >= values && slices.Max(slices.Collect(maps.Values(o.retries))) <= o.refused/2
}

const (
	spreadLeast = 25
	spreadMany  = 200
)

// watchGoroutines looks at how many goroutines the nodes have, until stop, which returns by how many one of them has grown at most.
func (c *cluster) watchGoroutines(ctx context.Context) (stop func() (grown int, err error)) {
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		grown int
		err   error
	}
	done := make(chan result, 1)
	look := func() ([]int, error) {
		n := make([]int, len(c.nodes))
		for i := range n {
			m, err := c.metricsOf(context.WithoutCancel(ctx), i)
			if err != nil {
				return nil, err
			}
			n[i] = int(m["ticketgate_goroutines"])
		}
		return n, nil
	}
	go func() {
		var r result
		first, err := look()
		for err == nil && rest(ctx, sampleEvery) == nil {
			var now []int
			now, err = look()
			for i := range now {
				r.grown = max(r.grown, now[i]-first[i])
			}
		}
		r.err = err
		done <- r
	}()
	return func() (int, error) {
		cancel()
		r := <-done
		return r.grown, r.err
	}
}
