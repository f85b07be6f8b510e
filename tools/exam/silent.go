package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
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
	tests[6] = test{"silent peers: a stopped process and a lost network give their slots back in time", silentPeers}
	roles["holder"] = holdSockets
}

const (
	silentSockets = 1000 // of each kind
	silentPing    = 25 * time.Second
	silentPong    = 10 * time.Second
	silentClosed  = silentPing + silentPong + 5*time.Second // from the silence to the last slot given back
	silentAgain   = silentClosed + time.Second              // to a new socket of the same client
	silentLook    = silentPong                              // nothing ends before
)

// silentPeers lets clients that may have one socket each go silent in two ways, and asks for another socket for each.
func silentPeers(ctx context.Context, x *exam) error {
	ether, err := newLink(ctx, x.rnd)
	if err != nil {
		x.figure("no network namespace on this machine (%v): sockets that drop all they are sent stand for a lost network", err)
	}
	defer ether.remove()
	c, err := start(ctx, x, clusterOptions{count: 1, feeds: "{ kind: clock, every: 1s }", address: ether.host + ":0",
		gate: `per_address: { exempt: [127.0.0.0/8, 198.18.0.0/15] }`,
		yaml: fmt.Sprintf("websocket: { ping: %s, pong_wait: %s }\n", x.pace(silentPing), x.pace(silentPong))})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "the node did not stop") }()
	n := x.n(silentSockets, 10)
	files := openFiles(c.nodes[0].PID())
	stopped, err := c.holders(ctx, nil, "stopped", n)
	if err != nil {
		return err
	}
	defer func() { _ = stopped.Kill() }() // it cannot hear
	lost, err := c.holders(ctx, ether.inside(), "lost", n)
	if err != nil {
		return err
	}
	defer func() { _ = lost.Kill() }()                    // nobody waits for its sockets
	if err := rest(ctx, x.pace(silentPing)); err != nil { // so that most have answered a ping, at moments of their own
		return err
	}
	_, err = c.issue(ctx, 0, request{Stream: "echo", Client: "stopped0"})
	x.want(refusedWith(err, "connection-limit"), "a client with an open socket gets another ticket: %v", err)

	silent := time.Now()
	if err := errors.Join(syscall.Kill(stopped.PID(), syscall.SIGSTOP), ether.vanish(ctx, lost)); err != nil {
		return err
	}
	closed := c.watchClosed(ctx, 2*n, silent)
	again := c.comeBack(ctx, x, n, silent)
	last := <-closed
	c.http.CloseIdleConnections()
	left := c.extraFiles(ctx, files)
	x.figure("%d sockets of a stopped process, %d %s: all closed after %v, allowed %v", n, n, ether.what(), last.Round(time.Millisecond), x.pace(silentClosed))
	x.figure("new sockets of the same clients: %d admitted %v to %v after the silence, allowed %v; descriptors left %+d", len(again),
		quantile(again, 0).Round(time.Millisecond), quantile(again, 1).Round(time.Millisecond), x.pace(silentAgain), left)
	x.want(last > 0, "not all sockets were closed")
	x.want(len(again) == 2*n, "%d of %d clients got a new socket", len(again), 2*n)
	x.want(left <= 5, "%d descriptors more than before", left)
	x.wantTime(last <= x.pace(silentClosed), "the last socket was closed after %v", last)
	x.wantTime(quantile(again, 1) <= x.pace(silentAgain), "the last client was admitted after %v", quantile(again, 1))
	return nil
}

func refusedWith(err error, problem string) bool {
	var r *rig.Refused
	return errors.As(err, &r) && r.Problem() == problem
}

// holders starts a process under a command, which opens n sockets, half of them of a feed, and answers pings.
func (c *cluster) holders(ctx context.Context, under []string, name string, n int) (*rig.Helper, error) {
	h, err := startRole("holder", under, c.nodes[0].Gate)
	if err != nil {
		return nil, err
	}
	for i := range n {
		t, err := c.issue(ctx, 0, request{Stream: []string{"echo", "clock"}[i%2], Client: name + strconv.Itoa(i)})
		if err == nil {
			err = h.Tell("%s %s", t.Path(), t.Secret())
		}
		if err == nil {
			var opened string
			err = hearing(ctx, h, "%s", &opened)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s %d: %w", name, i, err), h.Kill())
		}
	}
	return h, nil
}

// holdSockets opens a socket for each line "path secret", and answers pings until its input ends. At the line "vanish" its
// sockets drop whatever comes.
func holdSockets(args []string, hear func() (string, bool), say func(string, ...any)) error {
	if len(args) != 1 {
		return errors.New("want: gate")
	}
	var sockets []*socket
	for {
		line, more := hear()
		switch path, secret, ok := strings.Cut(line, " "); {
		case !more:
			return nil
		case ok:
			s, err := dialRaw(context.Background(), args[0], &rig.Ticket{URL: path, Protocols: []string{secret}})
			if err != nil {
				return err
			}
			sockets = append(sockets, s)
			go s.answer() // ends with the process
			say("opened")
		default:
			for _, s := range sockets {
				if err := dropAll(s.Conn); err != nil {
					return err
				}
			}
			say("vanished")
		}
	}
}

// answer reads and answers pings until the socket ends.
func (s *socket) answer() (code frame.Code) {
	for {
		f, err := s.read()
		switch {
		case err != nil:
			return 0
		case f.op == frame.Close && len(f.payload) >= 2:
			return frame.Code(binary.BigEndian.Uint16(f.payload))
		case f.op == frame.Close:
			return 0
		}
		if f.op == frame.Ping && s.send(frame.Pong, f.payload) != nil {
			return 0
		}
	}
}

// dropAll makes the kernel drop all segments for a connection before TCP sees them: to the peer, the machine is gone.
func dropAll(c net.Conn) error {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return errors.New("not a TCP connection")
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return err
	}
	nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	errControl := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing})
	})
	return errors.Join(errControl, err)
}

// watchClosed sends when n sockets were closed for the network's sake, as time since from; 0 if they never are.
func (c *cluster) watchClosed(ctx context.Context, n int, from time.Time) <-chan time.Duration {
	told := make(chan time.Duration, 1)
	go func() {
		ctx, cancel := context.WithDeadline(ctx, from.Add(silentAgain+slowWithin))
		defer cancel()
		for {
			closed := 0
			for _, stream := range []string{"echo", "clock"} {
				k, err := c.metric(ctx, fmt.Sprintf(`ticketgate_connections_closed_total{by="network",code="0",stream=%q}`, stream))
				if err != nil {
					told <- 0
					return
				}
				closed += k
			}
			if closed >= n {
				told <- time.Since(from)
				return
			}
			if rest(ctx, sampleEvery) != nil {
				told <- 0
				return
			}
		}
	}()
	return told
}

// comeBack asks for a socket for each silent client until it gets one, and returns when each did, as time since from.
func (c *cluster) comeBack(ctx context.Context, x *exam, n int, from time.Time) []time.Duration {
	var waiting []string
	for i := range n {
		waiting = append(waiting, "stopped"+strconv.Itoa(i), "lost"+strconv.Itoa(i))
	}
	var mu sync.Mutex
	var came []time.Duration
	err := rest(ctx, time.Until(from.Add(x.pace(silentLook))))
	for err == nil && len(waiting) > 0 && time.Since(from) < silentAgain+slowWithin {
		var still []string
		var failed atomic.Pointer[error]
		each(waiting, openAtOnce, func(_ int, client string) {
			s, err := c.open(ctx, 0, request{Stream: "echo", Client: client})
			took := time.Since(from)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				came = append(came, took)
				_ = s.send(frame.Close, nil) // else watchClosed would take it for one of the silent
				_ = s.Close()
			case refusedWith(err, "connection-limit"):
				still = append(still, client)
			default:
				still = append(still, client)
				failed.Store(&err)
			}
		})
		if e := failed.Load(); e != nil {
			x.want(false, "a client that comes back: %v", *e)
		}
		waiting = still
		err = rest(ctx, 2*sampleEvery)
	}
	return came
}

// extraFiles is how many descriptors the node has beyond those it had, once it has had time to close what is closing.
func (c *cluster) extraFiles(ctx context.Context, before int) int {
	for range 50 {
		if left := openFiles(c.nodes[0].PID()) - before; left <= 0 || rest(ctx, sampleEvery) != nil {
			return left
		}
	}
	return openFiles(c.nodes[0].PID()) - before
}

// link is a network of two: this machine, and a namespace in which clients run.
type link struct {
	host  string // our address on it
	space string // the namespace; "": there is none
	inner string // the interface inside
}

// newLink makes one, which needs the rights of root. Without them the link is the loopback interface.
func newLink(ctx context.Context, rnd *rand.Rand) (*link, error) {
	id := fmt.Sprintf("tgx%06x", rnd.Uint32()&0xffffff)
	net := fmt.Sprintf("198.18.%d.%d", rnd.IntN(256), 4*rnd.IntN(64))
	host, guest := nextAddress(net, 1), nextAddress(net, 2)
	l := &link{host: host, space: id, inner: id + "b"}
	for _, args := range [][]string{
		{"netns", "add", id},
		{"link", "add", id + "a", "type", "veth", "peer", "name", id + "b", "netns", id},
		{"address", "add", host + "/30", "dev", id + "a"},
		{"link", "set", id + "a", "up"},
		{"-n", id, "address", "add", guest + "/30", "dev", id + "b"},
		{"-n", id, "link", "set", id + "b", "up"},
	} {
		if err := ip(ctx, args...); err != nil {
			l.remove()
			return &link{host: "127.0.0.1"}, err
		}
	}
	return l, nil
}

// nextAddress adds n to the last part of an address.
func nextAddress(a string, n int) string {
	at := strings.LastIndexByte(a, '.') + 1
	last, _ := strconv.Atoi(a[at:])
	return a[:at] + strconv.Itoa(last+n)
}

func ip(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// inside is the command that runs another in the namespace.
func (l *link) inside() []string {
	if l.space == "" {
		return nil
	}
	return []string{"ip", "netns", "exec", l.space}
}

func (l *link) what() string {
	if l.space == "" {
		return "that drop all segments"
	}
	return "behind an interface that went down"
}

// vanish takes the network away from h.
func (l *link) vanish(ctx context.Context, h *rig.Helper) error {
	if l.space != "" {
		return ip(ctx, "-n", l.space, "link", "set", l.inner, "down")
	}
	if err := h.Tell("vanish"); err != nil {
		return err
	}
	var done string
	return hearing(ctx, h, "%s", &done)
}

// remove takes the namespace away, and with it the interfaces.
func (l *link) remove() {
	if l.space != "" {
		_ = ip(context.Background(), "netns", "delete", l.space) // it is there unless making it failed
	}
}
