package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func init() {
	tests[39] = test{"connect flood: the address is throttled, the crowd is bounded, honest clients come in", connectFlood}
	roles["connects"] = connects
}

const (
	floodRate      = 3000 // empty connections a second
	floodLasts     = time.Minute
	floodAddresses = 10_000
	floodThrottled = time.Second
	floodSeen      = time.Minute
	floodBegins    = "begins"
	floodMemory    = 128 << 20
	floodOpen      = 6500 * time.Millisecond // a head's 5 s, and what it takes to see it, for its client to go, and for a crowd that comes in bursts
	floodMade      = 0.95                    // of the flood's rate must have come
	floodHonest    = 0.99                    // of honest handshakes succeed
	addressMax     = 64                      // unauthenticated sockets of one address
	headsMax       = 2 * 16384               // unfinished heads of two loops
	visitorSources = 100                     // addresses that honest clients come from: none of them is near its limit
	addressLimits  = "admit: {}"             // the defaults: nobody is exempt
)

// connectFlood lets connections that say nothing come from one address, then from many.
func connectFlood(ctx context.Context, x *exam) error {
	c, err := start(ctx, x, clusterOptions{memory: true, gate: addressLimits})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "the node did not stop") }()
	c.dial = visitors(nil)
	sockets, err := c.openMany(ctx, x.n(honestSockets, 50), "echo")
	defer closeAll(sockets)
	if err != nil {
		return err
	}
	b, err := c.baseline(ctx, x, sockets)
	if err != nil {
		return err
	}
	for _, addresses := range []int{1, x.n(floodAddresses, 200)} {
		if err := c.floodFrom(ctx, x, b, sockets, addresses); err != nil {
			return err
		}
	}
	return nil
}

// floodFrom is one of the floods.
func (c *cluster) floodFrom(ctx context.Context, x *exam, b baseline, sockets []*socket, addresses int) error {
	rate := x.n(floodRate, 200)
	pid := c.nodes[0].PID()
	before, err := residentBytes(pid)
	if err != nil {
		return err
	}
	turned, err := c.samples(ctx)
	if err != nil {
		return err
	}
	peak, stop := watchMemory(pid)
	flood, err := startRole("connects", x.gently(), c.nodes[0].Gate, strconv.Itoa(rate), strconv.Itoa(addresses))
	if err != nil {
		return err
	}
	begun, err := flood.Hear(ctx) // its process may be long in coming: what uses the processors gently gets them last
	if err != nil {
		return errors.Join(err, flood.Kill())
	}
	if begun != floodBegins {
		return errors.Join(fmt.Errorf("the flood says %q, want %q", begun, floodBegins), flood.Kill())
	}
	h := c.honest(ctx, sockets)
	sight, err := c.watchCrowd(ctx, x.lasting(floodLasts), addresses == 1)
	h.end()
	last, stopped := flood.Stop()
	stop()
	if err := errors.Join(err, stopped); err != nil {
		return err
	}
	now, err := c.samples(ctx)
	if err != nil {
		return err
	}
	x.figure("from %d addresses, %d a second: %s", addresses, rate, strings.Join(last, ", "))
	x.figure("sockets that nobody knows: at most %d; turned away for the rate %.0f, for their number %.0f, by the budget of heads %.0f",
		sight.most, rejections(now, "address-rate")-rejections(turned, "address-rate"),
		rejections(now, "address-unauthenticated")-rejections(turned, "address-unauthenticated"), rejections(now, "heads")-rejections(turned, "heads"))
	grown := peak.Load() - before
	x.figure("resident memory %+.1f MiB at its peak", float64(grown)/(1<<20))
	h.judgeFlood(x, b)
	x.wantMemory(grown <= floodMemory, "%d addresses: memory grew by %d bytes, want at most %d", addresses, grown, floodMemory)
	// A head has 5 s, whoever sends it: so many are under way at that rate.
	limit := min(headsMax, int(floodOpen.Seconds()*float64(rate))) + honestHandshakes
	made := 0.0
	if len(last) > 0 {
		_, err = fmt.Sscanf(last[0], "made %f a second", &made)
	}
	x.wantTime(err == nil && made >= floodMade*float64(rate), "%d addresses: only %.0f connections a second of %d", addresses, made, rate)
	if addresses == 1 {
		limit = addressMax + honestHandshakes
		x.figure("the first was turned away %v after the flood began", sight.first.Round(time.Millisecond))
		x.want(sight.first > 0, "it was not throttled")
		x.wantTime(sight.first <= floodThrottled, "throttled after %v, want at most %v", sight.first, floodThrottled)
	}
	x.want(sight.most <= limit, "%d addresses: %d sockets that nobody knows, want at most %d", addresses, sight.most, limit)
	return nil
}

// judgeFlood wants that honest handshakes succeed, in time.
func (h *crew) judgeFlood(x *exam, b baseline) {
	m, o := h.p99()
	asked := len(h.opened) + int(h.refused.Load())
	x.figure("honest: %d messages, p99 %v, lost %d, sockets lost %d; %d of %d handshakes, p99 %v", len(h.messages), m.Round(time.Microsecond),
		h.lost.Load(), h.gone.Load(), len(h.opened), asked, o.Round(time.Microsecond))
	x.want(h.lost.Load() == 0 && h.gone.Load() == 0, "honest: %d messages and %d sockets lost", h.lost.Load(), h.gone.Load())
	x.want(float64(len(h.opened)) >= floodHonest*float64(asked), "only %d of %d honest handshakes succeeded", len(h.opened), asked)
	limit := max(3*b.handshake, b.handshake+baselineRoom)
	x.wantTime(o <= limit, "honest handshake p99 %v, want at most %v", o, limit)
}

// sight is what was seen of a flood.
type sight struct {
	most  int           // sockets that nobody knows, at once
	first time.Duration // until the first was turned away, 0: none was
}

// watchCrowd looks at the node's figures until d is over. If the flood must be throttled it goes on until that is seen, floodSeen
// at most: in the short form the crowd may get too little of a busy machine to pass its rate within d.
func (c *cluster) watchCrowd(ctx context.Context, d time.Duration, throttled bool) (s sight, err error) {
	begun := time.Now()
	before, err := c.samples(ctx)
	if err != nil {
		return s, err
	}
	t := time.NewTicker(sampleEvery)
	defer t.Stop()
	for time.Since(begun) < d || throttled && s.first == 0 && time.Since(begun) < floodSeen {
		select {
		case <-t.C:
		case <-ctx.Done():
			return s, ctx.Err()
		}
		now, err := c.samples(ctx)
		if err != nil {
			return s, err
		}
		s.most = max(s.most, int(total(now, "ticketgate_loop_connections")-total(now, "ticketgate_connections")))
		if s.first == 0 && rejections(now, "address-rate") > rejections(before, "address-rate") {
			s.first = time.Since(begun)
		}
	}
	return s, nil
}

// visitors connect from a hundred addresses in turn; wrap, if it is not nil, goes around each connection.
func visitors(wrap func(context.Context, net.Conn) (net.Conn, error)) func(ctx context.Context, gate string) (net.Conn, error) {
	var next atomic.Uint32
	return func(ctx context.Context, gate string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: loopback(1<<16 + int(next.Add(1)%visitorSources))}
		conn, err := d.DialContext(ctx, "tcp", gate)
		if err != nil || wrap == nil {
			return conn, err
		}
		return wrap(ctx, conn)
	}
}

// loopback is the i-th of the loopback addresses from 127.1.0.1 on.
func loopback(i int) *net.TCPAddr {
	i += 1<<16 + 1
	return &net.TCPAddr{IP: net.IPv4(127, byte(i>>16), byte(i>>8), byte(i))}
}

// samples are all of node 0's metrics, named as they stand in the text.
func (c *cluster) samples(ctx context.Context) (map[string]float64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.nodes[0].Admin+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	a, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		return nil, err
	}
	all := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			all[name] = n
		}
	}
	return all, nil
}

// total adds up a family.
func total(samples map[string]float64, family string) (sum float64) {
	for name, n := range maps.All(samples) {
		if name == family || strings.HasPrefix(name, family+"{") {
			sum += n
		}
	}
	return sum
}

// rejections is how many the gate has refused for reason.
func rejections(samples map[string]float64, reason string) float64 {
	return samples[fmt.Sprintf("ticketgate_handshake_rejected_total{reason=%q}", reason)]
}

// connects makes connections that say nothing, so many a second from so many addresses in turn, and keeps each until it is
// closed or the input ends. args: gate, rate, addresses.
func connects(args []string, hear func() (string, bool), say func(string, ...any)) error {
	rate, err := strconv.Atoi(args[1])
	addresses, err2 := strconv.Atoi(args[2])
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		for _, more := hear(); more; _, more = hear() {
		}
		stop()
	}()
	var made, failed, reset atomic.Int64
	var all sync.WaitGroup
	say(floodBegins)
	begun := time.Now()
	every := max(time.Second/time.Duration(rate), time.Millisecond)
	due(ctx, 0, every, func(n int, _ time.Time) bool {
		for i := n * rate * int(every) / int(time.Second); i < (n+1)*rate*int(every)/int(time.Second); i++ {
			all.Go(func() {
				switch err := sayNothing(ctx, args[0], loopback(i%addresses)); {
				case errors.Is(err, errNoConnection):
					failed.Add(1)
					return
				case err != nil:
					reset.Add(1)
				}
				made.Add(1)
			})
		}
		return true
	})
	took := time.Since(begun).Seconds()
	all.Wait()
	say("made %.0f a second", float64(made.Load())/took)
	say("reset %d", reset.Load())
	say("not made %d", failed.Load())
	return nil
}

var errNoConnection = errors.New("no connection")

// sayNothing connects and waits until the other side ends it; an error says how.
func sayNothing(ctx context.Context, gate string, from *net.TCPAddr) error {
	d := net.Dialer{LocalAddr: from, Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", gate)
	switch {
	case errors.Is(err, syscall.ECONNRESET): // it was faster than our look at the connection
		return err
	case err != nil:
		return errNoConnection
	}
	end := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer end()
	_, err = io.Copy(io.Discard, conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return errors.Join(err, conn.Close())
}
