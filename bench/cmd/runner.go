package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"ticketgate/bench"
)

const giveUp = time.Minute // for anything that ends by itself: a finished round, sockets that open

// A runner owns what all scenarios share: the temporary folder, the programs, the children, the cores.
type runner struct {
	options
	ctx        context.Context
	rounds     int
	window     time.Duration // of a timed round
	dir        string
	program    string // ticketgate
	files      int    // open descriptors that a process may have
	clientCore int
	serverCore int
	children   []*bench.Child
	loops      []*bench.Loop
	closers    []func() error // of what else a scenario has opened
}

func newRunner(ctx context.Context, o options) (*runner, error) {
	cores, err := bench.Cores()
	if err != nil {
		return nil, err
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return nil, fmt.Errorf("getrlimit: %w", err)
	}
	dir, err := os.MkdirTemp("", "ticketgate-bench")
	if err != nil {
		return nil, err
	}
	r := &runner{
		options: o, ctx: ctx, dir: dir, rounds: 5, window: 600 * time.Millisecond,
		clientCore: cores[0], serverCore: cores[len(cores)-1],
		files: cmp.Or(o.perProcess, int(min(files.Cur, 1<<30))), // raised by preflight
	}
	if o.peers { // there are many
		r.rounds, r.window = 3, 400*time.Millisecond
	}
	if o.short {
		r.rounds, r.window = 3, 300*time.Millisecond
	}
	return r, nil
}

// shared says that client and servers have one core between them.
func (r *runner) shared() bool { return r.clientCore == r.serverCore }

func (r *runner) close() error {
	err := r.end()
	return errors.Join(err, os.RemoveAll(r.dir))
}

// end closes the sockets and stops the children of a scenario.
func (r *runner) end() error {
	err := r.hangUp()
	for _, c := range r.children {
		err = errors.Join(err, c.Stop())
	}
	r.children = nil
	return err
}

func (r *runner) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s  "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}

// loop makes a client that connects from 127.0.1.1 to 127.0.1.8, whose ports suffice for 200,000 sockets to one server. It sends one message
// a system call: clients that have nothing to do with each other do not send together, which would do a server good that reads together.
func (r *runner) loop() (*bench.Loop, error) {
	o := bench.Options{Single: true}
	for i := range 8 {
		o.Sources = append(o.Sources, netip.AddrFrom4([4]byte{127, 0, 1, byte(1 + i)}))
	}
	l, err := bench.NewLoop(o)
	if err == nil {
		r.loops = append(r.loops, l)
	}
	return l, err
}

func (r *runner) start(core int, program string, args ...string) (*bench.Child, error) {
	c, err := bench.Start(core, program, args...)
	if err == nil {
		r.children = append(r.children, c)
	}
	return c, err
}

// peer starts one of tools/peers on a core, and returns its address.
func (r *runner) peer(core int, name string, args ...string) (*bench.Child, string, error) {
	c, err := r.start(core, filepath.Join(cmp.Or(r.programs, r.dir), name), args...)
	if err != nil {
		return nil, "", err
	}
	address, err := c.Address(r.ctx)
	return c, address, err
}

// redis starts a Redis without persistence on the client's core, so that the gateway has its own for itself.
func (r *runner) redis() (child *bench.Child, url string, err error) {
	child, at, err := r.redisOn(r.clientCore)
	return child, "redis://" + at, err
}

// redisOn starts a Redis without persistence on a core, with these arguments besides, and returns its address.
func (r *runner) redisOn(core int, args ...string) (child *bench.Child, address string, err error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, "", err
	}
	at := fmt.Sprintf("127.0.0.1:%d", ports[0])
	child, err = r.start(core, "redis-server", append([]string{"--port", fmt.Sprint(ports[0]), "--bind", "127.0.0.1", "--save", "",
		"--appendonly", "no", "--maxmemory-policy", "noeviction", "--dir", r.dir}, args...)...)
	if err != nil {
		return nil, "", err
	}
	return child, at, child.Ready(r.ctx, func(ctx context.Context) error { return ping(ctx, at) })
}

// ask connects to the Redis at address until the scenario ends, to see what it does.
func (r *runner) ask(address string) (*bench.Redis, error) {
	c, err := bench.DialRedis(r.ctx, address)
	if err == nil {
		r.closers = append(r.closers, c.Close)
	}
	return c, err
}

func ping(ctx context.Context, address string) error {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	answer := make([]byte, len("+PONG"))
	_, err = c.Write([]byte("PING\r\n"))
	if err == nil {
		err = c.SetReadDeadline(time.Now().Add(time.Second))
	}
	if err == nil {
		_, err = c.Read(answer)
	}
	if err == nil && string(answer) != "+PONG" {
		err = fmt.Errorf("redis answers %q to PING", answer)
	}
	return errors.Join(err, c.Close())
}

// freePorts finds n loopback ports that nobody listens on now.
func freePorts(n int) (ports []int, err error) {
	var held []net.Listener // until all are chosen, so that they differ
	defer func() {
		for _, l := range held {
			err = errors.Join(err, l.Close())
		}
	}()
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		held = append(held, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// hangUp closes all clients' sockets and leaves the servers.
func (r *runner) hangUp() error {
	var err error
	for _, l := range r.loops {
		err = errors.Join(err, l.Close())
	}
	for _, c := range r.closers {
		err = errors.Join(err, c())
	}
	r.loops, r.closers = nil, nil
	return err
}

const (
	quietStep  = 50 * time.Millisecond
	quietMax   = time.Millisecond // processor time in a step that counts as none
	quietSteps = 200
)

// quiet waits until p has nothing to do any more.
func (r *runner) quiet(p bench.Process) error {
	l, err := bench.NewLoop(bench.Options{})
	if err != nil {
		return err
	}
	last, err := p.CPU()
	for step := 0; step < quietSteps && err == nil; step++ {
		if err = l.RunFor(r.ctx, quietStep); err != nil {
			break
		}
		var now bench.CPU
		now, err = p.CPU()
		if now.Sub(last).Total() < quietMax {
			break
		}
		last = now
	}
	return errors.Join(err, l.Close())
}

// socketsMax is how many sockets the gateway takes with the descriptors that a process has here, in whole hundreds: it stops
// admitting at nine tenths of those that it does not keep in reserve.
func (r *runner) socketsMax() int { return (r.files - 100) * 9 / 10 / 100 * 100 }
