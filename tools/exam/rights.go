package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ticketgate/engine/frame"
	"ticketgate/tools/rig"
)

func init() {
	tests[25] = test{"live sockets lose their right: credentials that end, revocations over four nodes, also with full queues", lostRights}
}

const (
	rightNodes   = 4
	rightSockets = 1000
	rightKeys    = 20                     // credentials that end, one after the other,
	rightApart   = 400 * time.Millisecond // so far apart
	rightReady   = 10 * time.Second       // from their making to the first end: nodes start, and sockets open,
	rightEach    = 25 * time.Millisecond  // each so long
	rightLaggard = 4                      // of so many sockets one does not keep up
	rightFull    = 3 * time.Second        // in which a laggard's queue is full
	rightWithin  = 5 * time.Second
	rightCluster = 100 * time.Millisecond // p99 over the cluster while Redis is up
	rightEarly   = 300 * time.Millisecond // by which the store's clock, as a node knows it, may be ahead of this one
	rightPace    = 5 * time.Millisecond   // between requests that each disconnect one client
	rightOut     = 2 * time.Second        // how long Redis stands still
)

// holder is an open socket that is to lose its right.
type holder struct {
	*socket
	client string
	ends   time.Time // when; zero: not yet
	lags   bool      // it reads a little now and then, so that its queue is full and yet moves on

	mu     sync.Mutex
	closed time.Time  // when it heard the close frame, or its connection ended
	code   frame.Code // of the frame
	last   time.Time  // when the last message came
}

// lostRights takes the right of sockets in three ways: by time, by one word and by many, and while Redis is away.
func lostRights(ctx context.Context, x *exam) error {
	n := x.n(rightSockets, 40)
	var first time.Time
	var brief []rig.Key
	var fleet, away rig.Key
	c, err := start(ctx, x, clusterOptions{
		nodes: rightNodes, token: "exam", streams: []string{"loud"},
		feeds: "{ kind: clock, every: 500ms }\n  loud: { kind: clock, every: 100ms, pad: 32KiB }",
		clock: " }\n  loud: { feed: loud, slow_consumer: { queue: 128KiB, then: drop-oldest }",
		keys: func(ring string) (entries string, err error) {
			add := func(id string, end time.Time) (k rig.Key) {
				if err == nil {
					k, err = rig.NewKey(ring, id, id, "all", "p", "delegate")
				}
				if !end.IsZero() {
					k.Entry = strings.Replace(k.Entry, " }", fmt.Sprintf(", expires: %s }", end.UTC().Format(time.RFC3339Nano)), 1)
				}
				entries += k.Entry
				return k
			}
			first = time.Now().Add(rightReady + time.Duration(n)*rightEach)
			for i := range x.n(rightKeys, 4) {
				brief = append(brief, add("brief"+strconv.Itoa(i), first.Add(time.Duration(i)*rightApart)))
			}
			fleet, away = add("fleet", time.Time{}), add("away", time.Time{})
			return entries, err
		},
	})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "a node did not stop") }()
	for _, part := range []func() error{
		func() error { return c.endByTime(ctx, x, brief, first, n) },
		func() error { return c.revokeAtOnce(ctx, x, fleet, n) },
		func() error { return c.revokeEach(ctx, x, n) },
		func() error { return c.revokeUnheard(ctx, x, away, n/5) },
	} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// endByTime opens sockets with credentials that end at known times, and waits for that.
func (c *cluster) endByTime(ctx context.Context, x *exam, keys []rig.Key, first time.Time, n int) error {
	holders, err := c.hold(ctx, n, "brief", func(i int) rig.Key { return keys[i%len(keys)] })
	defer letGo(holders)
	if err != nil {
		return err
	}
	if left := time.Until(first); left < rightFull {
		return fmt.Errorf("this machine is too slow: the first credential ends in %v, and the last socket has just opened", left)
	}
	for i, h := range holders {
		h.ends = first.Add(time.Duration(i%len(keys)) * rightApart)
	}
	if err := rest(ctx, time.Until(first.Add(time.Duration(len(keys))*rightApart))); err != nil {
		return err
	}
	return c.heard(ctx, x, "ended by time", holders, frame.CloseExpired, 0)
}

// revokeAtOnce revokes the one key of all sockets.
func (c *cluster) revokeAtOnce(ctx context.Context, x *exam, key rig.Key, n int) error {
	holders, err := c.hold(ctx, n, "fleet", func(int) rig.Key { return key })
	defer letGo(holders)
	if err != nil {
		return err
	}
	if err := rest(ctx, rightFull); err != nil {
		return err
	}
	now := time.Now()
	for _, h := range holders {
		h.ends = now
	}
	if err := c.change(ctx, 0, http.MethodDelete, "/v1/keys/fleet", "", http.StatusOK); err != nil {
		return err
	}
	return c.heard(ctx, x, "a key revoked", holders, frame.CloseRevoked, rightCluster)
}

// revokeEach disconnects as many clients, each by a request of its own, at all nodes in turn.
func (c *cluster) revokeEach(ctx context.Context, x *exam, n int) error {
	holders, err := c.hold(ctx, n, "single", func(int) rig.Key { return c.key })
	defer letGo(holders)
	if err != nil {
		return err
	}
	if err := rest(ctx, rightFull); err != nil {
		return err
	}
	var failed atomic.Pointer[error]
	begun := time.Now()
	each(holders, 2*len(c.nodes), func(i int, h *holder) {
		if rest(ctx, time.Until(begun.Add(time.Duration(i)*rightPace))) != nil {
			return
		}
		h.ends = time.Now()
		if err := c.change(ctx, i%len(c.nodes), http.MethodPost, "/v1/clients/"+h.client+":disconnect", "{}", http.StatusOK); err != nil {
			failed.CompareAndSwap(nil, &err)
		}
	})
	if err := failed.Load(); err != nil {
		return *err
	}
	return c.heard(ctx, x, "each client by a request of its own", holders, frame.CloseRevoked, rightCluster)
}

// silence is a time in which Redis does not answer, and what is revoked then.
type silence struct {
	name, method, path, body string
	key                      rig.Key
	begin, end               func() error
}

// revokeUnheard revokes while Redis stands still, and while it is gone: the other nodes are caught up.
func (c *cluster) revokeUnheard(ctx context.Context, x *exam, key rig.Key, n int) error {
	for _, o := range []silence{
		{"revoked while Redis stood still", http.MethodDelete, "/v1/keys/away", "", key,
			func() error { return c.redis.Signal(syscall.SIGSTOP) }, func() error { return c.redis.Signal(syscall.SIGCONT) }},
		{"revoked while Redis was gone, which came back empty", http.MethodPost, "/v1/connections:disconnect", `{"selector":{"key":"exam","stream":"clock"}}`, c.key,
			c.redis.Stop, func() error { return c.redis.Restart(ctx) }},
	} {
		if err := c.unheard(ctx, x, &o, n); err != nil {
			return err
		}
	}
	return nil
}

// unheard is one of them.
func (c *cluster) unheard(ctx context.Context, x *exam, o *silence, n int) error {
	holders, err := c.hold(ctx, n, "away", func(int) rig.Key { return o.key })
	defer letGo(holders)
	if err != nil {
		return err
	}
	if err := o.begin(); err != nil {
		return err
	}
	asked := time.Now()
	if err := errors.Join(c.change(ctx, 0, o.method, o.path, o.body, http.StatusAccepted), rest(ctx, rightOut), o.end()); err != nil {
		return err
	}
	back := time.Now()
	var concerned []*holder
	for i, h := range holders {
		if o.body != "" && i%rightLaggard == 0 {
			continue // of stream loud
		}
		if h.ends = back; i%len(c.nodes) == 0 {
			h.ends = asked
		}
		concerned = append(concerned, h)
	}
	return c.heard(ctx, x, o.name, concerned, frame.CloseRevoked, 0)
}

// change sends one request to the admin API of node i and wants an answer of status.
func (c *cluster) change(ctx context.Context, i int, method, path, body string, status int) error {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+c.nodes[i].Admin+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	a, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err == nil && a.StatusCode != status {
		err = fmt.Errorf("%s %s: %s: %s", method, path, a.Status, bytes.TrimSpace(text))
	}
	return err
}

// hold opens n sockets over all nodes, one in rightLaggard of which does not keep up with what it is sent.
func (c *cluster) hold(ctx context.Context, n int, name string, key func(i int) rig.Key) ([]*holder, error) {
	holders := make([]*holder, n)
	for i := range holders {
		holders[i] = &holder{client: name + strconv.Itoa(i), lags: i%rightLaggard == 0}
	}
	var failed atomic.Pointer[error]
	each(holders, openAtOnce, func(i int, h *holder) {
		if failed.Load() != nil {
			return
		}
		if err := c.holdOne(ctx, h, i%len(c.nodes), key(i)); err != nil {
			err = fmt.Errorf("open socket %d: %w", i, err)
			failed.CompareAndSwap(nil, &err)
		}
	})
	if err := failed.Load(); err != nil {
		return holders, *err
	}
	return holders, nil
}

func (c *cluster) holdOne(ctx context.Context, h *holder, node int, key rig.Key) error {
	q := request{Stream: "clock", Client: h.client}
	var d net.Dialer
	if h.lags {
		q.Stream, d.Control = "loud", narrow
	}
	t, err := rig.Issue(ctx, c.http, c.nodes[node].Handshake, key.Text, q)
	if err != nil {
		return err
	}
	conn, err := d.DialContext(ctx, "tcp", c.nodes[node].Gate)
	if err != nil {
		return err
	}
	s := &socket{Conn: conn, r: bufio.NewReader(conn)}
	if err := s.upgrade(t); err != nil {
		return errors.Join(err, conn.Close())
	}
	h.socket = s
	if h.lags {
		go h.trickle() // ends with the connection, as does the other
	} else {
		go h.listen()
	}
	return nil
}

// letGo closes what is open.
func letGo(holders []*holder) {
	for _, h := range holders {
		if h.socket != nil {
			_ = h.Close()
		}
	}
}

// listen reads until the close frame.
func (h *holder) listen() {
	for {
		f, err := h.read()
		now := time.Now()
		h.mu.Lock()
		switch {
		case err != nil || f.op == frame.Close:
			if h.closed = now; err == nil {
				h.code = f.code()
			}
		case !f.op.Control():
			h.last = now
		}
		over := !h.closed.IsZero()
		h.mu.Unlock()
		if !over && f.op == frame.Ping {
			_ = h.send(frame.Pong, f.payload) // who does not get it ends the socket, which shows
		}
		if over {
			_ = h.send(frame.Close, nil) // it may be gone already
			return
		}
	}
}

// A laggard takes trickleBytes each trickleEvery, and so makes the progress without which it would be given up.
const (
	trickleBytes = 2 << 10
	trickleEvery = 200 * time.Millisecond
)

// trickle reads too slowly until the connection has ended, and notes when that was.
func (h *holder) trickle() {
	b := make([]byte, trickleBytes)
	t := time.NewTicker(trickleEvery / 10)
	defer t.Stop()
	for i := 0; ; i++ {
		<-t.C
		info, err := h.info()
		if err != nil || info.State != unix.BPF_TCP_ESTABLISHED {
			h.mu.Lock()
			h.closed = time.Now()
			h.mu.Unlock()
			return
		}
		if i%10 == 0 {
			if _, err := h.Read(b); err != nil {
				continue // the state says what has happened
			}
		}
	}
}

// info is what the kernel knows of the connection.
func (h *holder) info() (info *unix.TCPInfo, err error) {
	raw, err := h.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	return info, errors.Join(cerr, err)
}

// heard looks at how holders have ended: all within rightWithin of their ends, those that read with code, and nothing more reaches them
// afterwards. p99 is what those that read may see, 0 for no such figure.
func (c *cluster) heard(ctx context.Context, x *exam, what string, holders []*holder, code frame.Code, p99 time.Duration) error {
	last := time.Time{}
	for _, h := range holders {
		if h.ends.After(last) {
			last = h.ends
		}
	}
	wait := rightWithin
	if x.size < 1 {
		wait = 2 * time.Second // who ends later than this is late, too
	}
	if err := rest(ctx, time.Until(last.Add(wait))); err != nil {
		return err
	}
	atEnd := make([]uint64, len(holders))
	for i, h := range holders {
		if info, err := h.info(); err == nil {
			atEnd[i] = info.Bytes_received
		}
	}
	if err := rest(ctx, time.Second); err != nil {
		return err
	}
	var reading, lagging []time.Duration
	open, wrong, early, late, after := 0, 0, 0, 0, 0
	for i, h := range holders {
		h.mu.Lock()
		took := h.closed.Sub(h.ends)
		switch {
		case h.closed.IsZero():
			open++
		case h.lags:
			lagging = append(lagging, took)
		default:
			reading = append(reading, took)
			if h.code != code {
				wrong++
			}
		}
		if !h.closed.IsZero() && took < -rightEarly {
			early++
		}
		if took > rightWithin {
			late++
		}
		if h.last.After(h.ends.Add(rightWithin)) {
			after++
		}
		h.mu.Unlock()
		if info, err := h.info(); err == nil && info.Bytes_received > atEnd[i] {
			after++
		}
	}
	ms := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	x.figure("%s: %d that read, heard %d after p50 %v, p99 %v, max %v; %d with full queues, cut after p50 %v, max %v; still open %d, with something more than %v after %d, of %d sockets",
		what, len(reading), code, ms(quantile(reading, 0.5)), ms(quantile(reading, 0.99)), ms(quantile(reading, 1)), len(lagging), ms(quantile(lagging, 0.5)),
		ms(quantile(lagging, 1)), open, rightWithin, after, len(holders))
	x.want(open == 0, "%s: %d of %d sockets are still open", what, open, len(holders))
	x.want(wrong == 0, "%s: %d sockets heard another code than %d", what, wrong, code)
	x.want(early == 0, "%s: %d sockets ended before their time", what, early)
	x.want(late == 0, "%s: %d sockets ended more than %v after their time", what, late, rightWithin)
	x.want(after == 0, "%s: %d sockets got something more than %v after their end", what, after, rightWithin)
	if p99 > 0 {
		x.wantTime(quantile(reading, 0.99) <= p99, "%s: p99 over the cluster is %v, want at most %v", what, quantile(reading, 0.99), p99)
	}
	return nil
}
