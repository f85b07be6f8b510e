package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"ticketgate/engine/frame"
)

func init() {
	tests[37] = test{"slow readers: bounded memory, closed or trimmed as configured, healthy subscribers in time", slowReaders}
}

const (
	slowSubscribers = 500 // that do not keep up, and as many that do
	slowMessage     = 3200
	slowEvery       = 100 * time.Millisecond // 32 KiB/s each
	slowFor         = 45 * time.Second       // how long laggards read too slowly
	slowForMin      = 5 * time.Second        // and in the shortest run
	slowShare       = 2                      // and how much too slowly: 16 KiB/s
	slowBudget      = 64 << 20
	slowLag         = 100 * time.Millisecond
	slowStall       = 10 * time.Second // without progress, after which a socket is closed
	slowFill        = 10 * time.Second // in which 256 KiB and what the kernel takes are full
	slowLinger      = 6 * time.Second  // and one more to notice
	slowWithin      = 60 * time.Second // until every stalled socket is gone
)

// slowReaders lets half of a feed's subscribers not keep up, under one policy after the other.
func slowReaders(ctx context.Context, x *exam) error {
	for _, then := range []string{"close", "drop-oldest", "latest-only"} {
		own := *x
		own.dir = filepath.Join(x.dir, then)
		if err := os.Mkdir(own.dir, 0o700); err != nil {
			return err
		}
		err := slowPolicy(ctx, &own, then)
		x.short = own.short
		if err != nil {
			return fmt.Errorf("%s: %w", then, err)
		}
	}
	return nil
}

// slowPolicy runs one policy. Half of those that do not keep up stop reading; with a policy that trims, the other half reads
// too slowly for a while, and then all that is left.
func slowPolicy(ctx context.Context, x *exam, then string) error {
	lagFor := max(cmp.Or(x.duration, slowFor), slowForMin)
	every := max(10*time.Millisecond, min(slowEvery, lagFor/450)) // in a short run all goes faster, or nobody would be far behind
	c, err := start(ctx, x, clusterOptions{memory: true, yaml: "memory: { outbound: 64MiB }\n",
		feeds: fmt.Sprintf("{ kind: clock, every: %s, pad: %dB }", every, slowMessage),
		clock: fmt.Sprintf(", slow_consumer: { queue: 256KiB, then: %s }", then)})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "%s: the node did not stop", then) }()
	n := x.n(slowSubscribers, 20)
	lagging := n / 2
	if then == "close" {
		lagging = 0
	}
	opened := time.Now() // nobody stands still before
	sockets, err := c.openMany(ctx, 2*n-lagging, "clock")
	defer closeAll(sockets)
	if err != nil {
		return err
	}
	laggards, err := c.openTold(ctx, lagging)
	defer closeAll(laggards)
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
	behind := lag(reading, laggards, slowShare*every, lagFor)
	left, took, err := c.untilGone(ctx, 2*n, n+lagging)
	stood := time.Since(opened)
	behind.level.Wait()
	if then == "close" { // the close frame waits behind the rest, for as long as a socket may linger
		_ = rest(ctx, slowLinger)
	}
	told, reset := lastWords(stalled)
	slow, metricsErr := c.metrics(ctx)
	stop()
	quit()
	closeAll(sockets) // ends their reads
	closeAll(laggards)
	lags, lost, gone := ears.wait()
	if err = errors.Join(err, metricsErr); err != nil {
		return err
	}
	closed, dropped := int(slow[`ticketgate_slow_consumer_total{action="close",stream="clock"}`]), int(slow[`ticketgate_slow_consumer_total{action="drop",stream="clock"}`])
	grown := peak.Load() - before
	p99 := quantile(lags, 0.99)
	x.figure("%s: %d stalled sockets: %d gone after %v, closed with 4440 %d; of those who read at last %d are told so, %d were reset", then, len(stalled),
		len(stalled)-left, took.Round(time.Millisecond), closed, told, reset)
	x.figure("%s: %d healthy sockets: %d messages, lag p99 %v, largest %v, messages missed %d, sockets lost %d", then, n, len(lags), p99,
		quantile(lags, 1), lost, gone)
	x.figure("%s: resident memory %+.1f MiB at its peak, budget %d MiB", then, float64(grown)/(1<<20), slowBudget>>20)
	x.want(told+reset == len(stalled) && (told == 0 || then == "close"), "%s: of %d stalled sockets %d were told and %d reset", then, len(stalled), told, reset)
	x.wantTime(took <= slowStall+slowFill, "%s: the last stalled socket was gone after %v, want %v without progress and %v until it is full", then, took, slowStall, slowFill)
	x.want(left == 0, "%s: %d stalled sockets still open after %v", then, left, took)
	x.want(gone == 0, "%s: healthy: %d sockets lost", then, gone)
	if then == "close" {
		x.want(lost == 0, "%s: healthy: %d messages missed", then, lost)
	} else { // whoever has no processor for a while is behind, and trimmed: only a quiet machine can tell
		x.wantTime(lost == 0, "%s: healthy: %d messages missed", then, lost)
	}
	x.want(len(lags) > 0, "%s: healthy: no message was sent while they listened", then)
	x.wantTime(p99 <= slowLag, "%s: healthy lag p99 %v, want at most %v", then, p99, slowLag)
	x.wantMemory(grown <= slowBudget+slowBudget/10, "%s: memory grew by %d bytes, want at most the budget and a tenth", then, grown)
	if then == "close" {
		x.want(closed == len(stalled) && dropped == 0, "%s: %d sockets closed with 4440 and %d trimmed, want %d and 0", then, closed, dropped, len(stalled))
		return nil
	}
	stalledReset := int(slow[`ticketgate_slow_consumer_total{action="reset",stream="clock"}`])
	x.want(stalledReset == len(stalled), "%s: the node counts %d sockets that it has reset, want %d", then, stalledReset, len(stalled))
	x.want(stood >= slowStall, "%s: the stalled sockets were gone %v after the first was opened, before they had stood still for %v", then, stood, slowStall)
	behind.judge(x, then, ears.all(), closed, dropped, lost)
	return nil
}

// lastWords reads sockets that nobody has read so far, and counts those at whose end a close frame says 4440, and those that
// the other side has reset.
func lastWords(sockets []*socket) (told, reset int) {
	for _, s := range sockets {
		_ = s.SetReadDeadline(time.Now().Add(time.Second))
		for {
			f, err := s.read()
			switch {
			case errors.Is(err, syscall.ECONNRESET):
				reset++
			case err == nil && f.op == frame.Close && f.code() == frame.CloseSlow:
				told++
			case err == nil:
				continue
			}
			break
		}
	}
	return told, reset
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
	from time.Time // messages of before had to wait until somebody listened

	mu    sync.Mutex
	lags  []time.Duration
	heard [][]int64 // by socket: time stamps of its messages
	gone  int
	done  sync.WaitGroup
}

// listen reads all sockets until ctx ends and notes how late each message is.
func listen(ctx context.Context, sockets []*socket) *ears {
	e := &ears{from: time.Now()}
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
		if stamp.After(e.from) {
			lags = append(lags, now.Sub(stamp))
		}
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
	op, text, err := s.readStart()
	if err != nil || op != frame.Text {
		return op, time.Time{}, err
	}
	at, err := stampOf(text)
	return op, at, err
}

// readStart reads one frame and keeps the first 64 bytes of its payload.
func (s *socket) readStart() (frame.Op, string, error) {
	h, err := s.readHead()
	if err != nil {
		return h.Op, "", err
	}
	b, err := s.r.Peek(min(int(h.Len), 64))
	text := string(b)
	if err == nil {
		_, err = s.r.Discard(int(h.Len))
	}
	return h.Op, text, err
}

// stampOf is the time in a message of the clock.
func stampOf(text string) (time.Time, error) {
	if len(text) < stampFrom {
		return time.Time{}, errLost
	}
	stamp, _, _ := strings.Cut(text[stampFrom:], `"`)
	return time.Parse(time.RFC3339Nano, stamp)
}

// wait returns how late messages were, how many were missing, and how many sockets were lost. A message is missing if any
// other subscriber got it between a subscriber's first and last.
func (e *ears) wait() (lags []time.Duration, lost, gone int) {
	e.done.Wait()
	all := e.all()
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

// all is every message that any of them has heard, in order. After wait.
func (e *ears) all() []int64 {
	all := slices.Concat(e.heard...)
	slices.Sort(all)
	return slices.Compact(all)
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
