package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/engine/frame"
)

func init() {
	tests[30] = test{"limits admit what they promise, on one node and over four, and do what they say", rates}
}

const (
	ratesSockets = 1000
	ratesTime    = time.Minute
	ratesTimes   = 10 // more than is allowed
	ratesNodes   = 4

	messageRate, messageBurst = 20, 40
	byteRate                  = 64 << 10 // and its burst
	byteMessage               = 4 << 10

	sendEvery = 50 * time.Millisecond
	idleFor   = 5 * time.Second // longer than a bucket takes to fill, and a node to give back what it holds
	echoWait  = time.Second
)

// A rateStage is one limit under one flood.
type rateStage struct {
	nodes  int
	bytes  bool
	action string
	burst  bool // then idle, then a burst
}

var ratesStages = []rateStage{
	{1, false, "drop-newest", true}, {1, false, "delay", false}, {1, true, "pause", false}, {1, false, "close", false},
	{ratesNodes, false, "drop-newest", true}, {ratesNodes, false, "delay", false}, {ratesNodes, true, "pause", false}, {ratesNodes, false, "close", false},
}

// rates floods each stage's limit with ten times what it allows.
func rates(ctx context.Context, x *exam) error {
	for i := range ratesStages {
		if err := ratesStages[i].sit(ctx, x); err != nil {
			return fmt.Errorf("%s: %w", ratesStages[i].name(), err)
		}
	}
	return nil
}

func (g *rateStage) name() string {
	what := "messages"
	if g.bytes {
		what = "bytes"
	}
	return fmt.Sprintf("%d node(s), %s, %s", g.nodes, what, g.action)
}

// limit is the stage's limit in the configuration.
func (g *rateStage) limit() string {
	l := fmt.Sprintf("messages-in: { rate: %d/1second, burst: %d", messageRate, messageBurst)
	if g.bytes {
		l = fmt.Sprintf("bytes-in: { rate: %dB/1second", byteRate)
	}
	l += ", per: client, when_exceeded: " + g.action
	if g.action == "delay" {
		l += ", max_delay: 1m" // four nodes take turns, and chance says whose is next
	}
	if g.nodes > 1 {
		l += ", scope: cluster"
	}
	return "      " + l + " }\n"
}

// promise is what may be admitted in d: messages, or bytes.
func (g *rateStage) promise(d time.Duration) float64 {
	if g.bytes {
		return byteRate + byteRate*d.Seconds()
	}
	return messageBurst + messageRate*d.Seconds()
}

// tolerance is by how much what is admitted may differ from that.
func (g *rateStage) tolerance() float64 {
	if g.nodes > 1 {
		return 0.05
	}
	return 0.01
}

// A sender is one client: with a socket at each node, which share its limit.
type sender struct {
	sockets  []*socket
	size     int64
	admitted atomic.Int64 // messages that came back
	first    time.Time    // sent
	last     atomic.Int64 // came back, Unix nanoseconds

	mu     sync.Mutex
	closes []string // codes and reasons
}

func (g *rateStage) sit(ctx context.Context, x *exam) (err error) {
	own := x.stage(g.name())
	if err := os.Mkdir(own.dir, 0o700); err != nil {
		return err
	}
	c, err := start(ctx, own, clusterOptions{nodes: g.nodes, memory: g.nodes == 1, limits: g.limit()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	senders := make([]*sender, x.n(ratesSockets, 5*ratesNodes)/g.nodes)
	if err := g.open(ctx, c, senders); err != nil {
		return err
	}
	defer func() {
		for _, s := range senders {
			closeAll(s.sockets)
		}
	}()
	var readers sync.WaitGroup
	for _, s := range senders {
		for _, k := range s.sockets {
			readers.Go(func() { s.read(k) })
		}
	}
	took, err := g.flood(ctx, senders, x.lasting(ratesTime))
	if err != nil {
		return err
	}
	g.judge(x, senders, took)
	if g.burst {
		if err := g.idleAndBurst(ctx, x, senders); err != nil {
			return err
		}
	}
	for _, s := range senders {
		closeAll(s.sockets)
	}
	readers.Wait()
	return nil
}

// stage is x with a folder of its own.
func (x *exam) stage(name string) *exam {
	k := *x
	k.dir = x.dir + "/" + strings.NewReplacer(" ", "", ",", "-", "(s)", "").Replace(name)
	return &k
}

func (g *rateStage) open(ctx context.Context, c *cluster, senders []*sender) error {
	var failed atomic.Pointer[error]
	each(senders, openAtOnce, func(i int, _ *sender) {
		s := &sender{size: 16}
		if g.bytes {
			s.size = byteMessage
		}
		senders[i] = s
		for n := range c.nodes {
			k, err := c.open(ctx, n, request{Stream: "echo", Client: "c" + strconv.Itoa(i)})
			if err != nil {
				failed.CompareAndSwap(nil, &err)
				return
			}
			s.sockets = append(s.sockets, k)
		}
	})
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// flood has each client send ten times its rate for d, and returns how long it was until the last echo could come.
func (g *rateStage) flood(ctx context.Context, senders []*sender, d time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	begun := time.Now()
	var writers sync.WaitGroup
	for _, s := range senders {
		rate := float64(messageRate * ratesTimes)
		if g.bytes {
			rate = byteRate * ratesTimes / float64(s.size)
		}
		s.first = time.Now()
		for _, k := range s.sockets {
			writers.Go(func() { k.pour(ctx, s.size, rate/float64(len(s.sockets))) })
		}
	}
	<-ctx.Done()
	took := time.Since(begun)
	if g.action == "drop-newest" || g.action == "close" {
		t := time.NewTimer(echoWait)
		defer t.Stop()
		<-t.C
	}
	for _, s := range senders { // who was told to stop reading may block in a write
		for _, k := range s.sockets {
			if err := k.SetWriteDeadline(time.Now()); err != nil {
				return took, err
			}
		}
	}
	writers.Wait()
	return took, nil
}

// pour sends messages of size bytes until ctx ends or the socket does.
func (s *socket) pour(ctx context.Context, size int64, rate float64) {
	one := appendMasked(nil, frame.Header{Fin: true, Op: frame.Text}, []byte(strings.Repeat("x", int(size))))
	t := time.NewTicker(sendEvery)
	defer t.Stop()
	wire, begun := []byte(nil), time.Now()
	for sent := 0.0; ; {
		due := rate * (time.Since(begun) + sendEvery).Seconds()
		wire = wire[:0]
		for ; sent < due && len(wire) < 256<<10; sent++ {
			wire = append(wire, one...)
		}
		if _, err := s.Write(wire); err != nil {
			return // closed by the limit, or the flood is over
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// read counts what comes back until the socket ends.
func (s *sender) read(k *socket) {
	for {
		h, err := k.readHead()
		if err != nil {
			return
		}
		switch h.Op {
		case frame.Ping: // the gate closes nobody within a stage
			continue
		case frame.Close:
			text := make([]byte, h.Len)
			if _, err := io.ReadFull(k.r, text); err == nil && len(text) >= 2 {
				s.mu.Lock()
				s.closes = append(s.closes, fmt.Sprintf("%d %s", int(text[0])<<8|int(text[1]), text[2:]))
				s.mu.Unlock()
			}
			return
		}
		if _, err := k.r.Discard(int(h.Len)); err != nil {
			return
		}
		s.last.Store(time.Now().UnixNano())
		s.admitted.Add(1)
	}
}

// judge compares what each client was let through with what was promised.
func (g *rateStage) judge(x *exam, senders []*sender, took time.Duration) {
	unit := 1.0
	if g.bytes {
		unit = byteMessage
	}
	most, least, sum, closed, other := 0.0, 2.0, 0.0, 0, []string(nil)
	for _, s := range senders {
		got := float64(s.admitted.Load()) * unit
		until := time.Unix(0, s.last.Load()).Sub(s.first)
		most = max(most, (got-unit)/g.promise(until)) // one message was let through before its echo was seen
		share := got / g.promise(took)
		least, sum = min(least, share), sum+share
		s.mu.Lock()
		for _, c := range s.closes {
			if c == "4429 limit:messages-in" {
				closed++
			} else {
				other = append(other, c)
			}
		}
		s.mu.Unlock()
	}
	n := len(senders)
	x.want(len(other) == 0, "%s: closed with %v", g.name(), other)
	x.want(most <= 1+g.tolerance(), "%s: %.4f of what was promised was admitted, want at most %.2f", g.name(), most, 1+g.tolerance())
	if g.action == "close" {
		var few float64 = messageBurst
		for _, s := range senders {
			few = min(few, float64(s.admitted.Load()))
		}
		x.figure("%s: %d clients, %d of %d sockets closed with 4429, each client had at least %.0f of %d through", g.name(), n, closed,
			n*g.nodes, few, messageBurst)
		x.want(closed == n*g.nodes, "%s: %d of %d sockets were closed with 4429 limit:messages-in", g.name(), closed, n*g.nodes)
		x.want(g.nodes > 1 || few >= messageBurst, "%s: a client had %.0f of its burst of %d", g.name(), few, messageBurst)
		return
	}
	x.figure("%s: %d clients in %v: admitted %.4f of the promise on average, %.4f at least, %.4f at most by the last echo", g.name(), n,
		took.Round(time.Second), sum/float64(n), least, most)
	x.want(closed == 0, "%s: %d sockets were closed", g.name(), closed)
	x.want(least >= 0.5, "%s: a client got %.4f of what was promised", g.name(), least)
	x.wantTime(least >= 1-g.tolerance(), "%s: a client got %.4f of what was promised, want %.2f", g.name(), least, 1-g.tolerance())
}

// idleAndBurst lets all rest, and then send twice a burst at once from one socket: one burst goes through.
func (g *rateStage) idleAndBurst(ctx context.Context, x *exam, senders []*sender) error {
	if err := rest(ctx, idleFor); err != nil {
		return err
	}
	for _, s := range senders {
		s.admitted.Store(0)
		s.first = time.Now()
		one := appendMasked(nil, frame.Header{Fin: true, Op: frame.Text}, []byte("burst"))
		var wire []byte
		for range 2 * messageBurst {
			wire = append(wire, one...)
		}
		k := s.sockets[x.rnd.IntN(len(s.sockets))]
		if err := errors.Join(k.SetWriteDeadline(time.Time{}), write(k, wire)); err != nil {
			return err
		}
	}
	if err := rest(ctx, 2*echoWait); err != nil {
		return err
	}
	most, least := 0.0, 2.0
	for _, s := range senders {
		got := float64(s.admitted.Load())
		most = max(most, (got-1)/g.promise(time.Unix(0, s.last.Load()).Sub(s.first)))
		least = min(least, got/messageBurst)
	}
	x.figure("%s: idle, then %d at once: %.3f of a burst at least, %.3f at most of it and what came in since", g.name(), 2*messageBurst, least, most)
	x.want(most <= 1+g.tolerance(), "%s: a burst after idling was %.3f of what it may be", g.name(), most)
	x.want(least >= 1-g.tolerance(), "%s: a burst after idling was %.3f of what it may be", g.name(), least)
	return nil
}

func write(w io.Writer, b []byte) error {
	_, err := w.Write(b)
	return err
}
