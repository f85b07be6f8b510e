package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"ticketgate/engine/frame"
)

func init() {
	tests[37] = test{"slow readers: bounded memory, closed with 4440, healthy subscribers in time (policy close)", slowReaders}
}

const (
	slowSubscribers = 500 // that stop reading, and as many that go on
	slowMessage     = 3200
	slowEvery       = 100 * time.Millisecond // 32 KiB/s each
	slowBudget      = 64 << 20
	slowLag         = 100 * time.Millisecond
	slowWithin      = 60 * time.Second // until every stalled socket is gone
)

// slowReaders lets half of a feed's subscribers stop reading.
func slowReaders(ctx context.Context, x *exam) error {
	c, err := start(ctx, x, clusterOptions{memory: true, yaml: "memory: { outbound: 64MiB }\n",
		feeds: fmt.Sprintf("{ kind: clock, every: %s, pad: %dB }", slowEvery, slowMessage)})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "the node did not stop") }()
	n := x.n(slowSubscribers, 20)
	sockets, err := c.openMany(ctx, 2*n, "clock")
	defer closeAll(sockets)
	if err != nil {
		return err
	}
	healthy, stalled := sockets[:n], sockets[n:]
	for _, s := range stalled {
		if err := shrink(s.Conn); err != nil { // what the client's kernel takes is not the gateway's memory
			return err
		}
	}
	before, err := residentBytes(c.nodes[0].PID())
	if err != nil {
		return err
	}
	peak, stop := watchMemory(c.nodes[0].PID())
	reading, quit := context.WithCancel(ctx)
	defer quit()
	ears := listen(reading, healthy)
	left, took, err := c.untilGone(ctx, 2*n, n)
	stop()
	quit()
	closeAll(healthy) // ends their reads
	lags, lost, gone := ears.wait()
	if err != nil {
		return err
	}
	slow, err := c.metric(ctx, `ticketgate_connections_closed_total{by="gateway",code="4440",stream="clock"}`)
	if err != nil {
		return err
	}
	grown := peak.Load() - before
	p99 := quantile(lags, 0.99)
	x.figure("%d stalled sockets: %d gone after %v, closed with 4440 %d", n, n-left, took.Round(time.Millisecond), slow)
	x.figure("%d healthy sockets: %d messages, lag p99 %v, largest %v, messages missed %d, sockets lost %d", n, len(lags), p99,
		quantile(lags, 1), lost, gone)
	x.figure("resident memory %+.1f MiB at its peak, budget %d MiB", float64(grown)/(1<<20), slowBudget>>20)
	x.want(left == 0, "%d stalled sockets still open after %v", left, took)
	x.want(slow == n, "%d sockets closed with 4440, want %d", slow, n)
	x.want(gone == 0 && lost == 0, "healthy: %d messages missed, %d sockets lost", lost, gone)
	x.wantTime(p99 <= slowLag, "healthy lag p99 %v, want at most %v", p99, slowLag)
	x.want(grown <= slowBudget+slowBudget/10, "memory grew by %d bytes, want at most the budget and a tenth", grown)
	return nil
}

// shrink makes the kernel take little for a socket that nobody reads.
func shrink(c net.Conn) error {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return errors.New("not a TCP connection")
	}
	return t.SetReadBuffer(4 << 10)
}

// untilGone waits until the node has only want of have sockets left, and returns how many more there are at the end.
func (c *cluster) untilGone(ctx context.Context, have, want int) (left int, took time.Duration, err error) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, slowWithin)
	defer cancel()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	left = have - want
	for {
		open, err := c.metric(ctx, `ticketgate_connections{stream="clock"}`)
		if err == nil {
			left = open - want
		} else if ctx.Err() == nil {
			return left, time.Since(begun), err
		}
		if left <= 0 {
			return 0, time.Since(begun), nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return left, time.Since(begun), nil
		}
	}
}

// ears are subscribers that read.
type ears struct {
	mu    sync.Mutex
	lags  []time.Duration
	heard [][]int64 // by socket: time stamps of its messages
	gone  int
	done  sync.WaitGroup
}

// listen reads all sockets until ctx ends and notes how late each message is.
func listen(ctx context.Context, sockets []*socket) *ears {
	e := new(ears)
	for _, s := range sockets {
		e.done.Go(func() { e.one(ctx, s) })
	}
	return e
}

func (e *ears) one(ctx context.Context, s *socket) {
	var lags []time.Duration
	var stamps []int64
	gone := 0
	for {
		op, stamp, err := s.readStamp()
		now := time.Now()
		if err != nil || op == frame.Close {
			if ctx.Err() == nil {
				gone = 1
			}
			break
		}
		if op == frame.Ping {
			_ = s.send(frame.Pong, nil) // the gate's pings are empty; an error shows at the next read
			continue
		}
		stamps = append(stamps, stamp.UnixNano())
		lags = append(lags, now.Sub(stamp))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lags = append(e.lags, lags...)
	e.heard = append(e.heard, stamps)
	e.gone += gone
}

// stampFrom is where the clock's messages have their time: {"time":"...
const stampFrom = len(`{"time":"`)

// readStamp reads one message of the clock and keeps only its time: the listener must not be what is late.
func (s *socket) readStamp() (frame.Op, time.Time, error) {
	h, err := s.readHead()
	if err != nil || h.Op != frame.Text {
		if err == nil {
			_, err = s.r.Discard(int(h.Len))
		}
		return h.Op, time.Time{}, err
	}
	b, err := s.r.Peek(min(int(h.Len), 64))
	if err != nil || len(b) < stampFrom {
		return h.Op, time.Time{}, errors.Join(err, errLost)
	}
	text, _, _ := bytes.Cut(b[stampFrom:], []byte{'"'})
	at, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		return h.Op, at, err
	}
	_, err = s.r.Discard(int(h.Len))
	return h.Op, at, err
}

// wait returns how late messages were, how many were missing, and how many sockets were lost. A message is missing if any
// other subscriber got it between a subscriber's first and last.
func (e *ears) wait() (lags []time.Duration, lost, gone int) {
	e.done.Wait()
	var all []int64
	for _, h := range e.heard {
		all = append(all, h...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	for _, h := range e.heard {
		if len(h) == 0 {
			lost++
			continue
		}
		from, _ := slices.BinarySearch(all, h[0])
		to, _ := slices.BinarySearch(all, h[len(h)-1])
		lost += to - from + 1 - len(h)
	}
	return e.lags, lost, e.gone
}

// quantile of durations; 0 of none.
func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	d = slices.Clone(d)
	slices.Sort(d)
	return d[min(len(d)-1, int(q*float64(len(d))))]
}
