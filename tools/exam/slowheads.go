package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ticketgate/tools/rig"
)

func init() {
	tests[36] = test{"slow heads and slow handshakes: closed in time whatever they send, honest clients as before", slowHeads}
	roles["slow"] = slowClients
}

const (
	slowDribblers  = 10_000 // send a byte of a head every second
	slowHellos     = 5_000  // send half a ClientHello and stop
	slowSilent     = 2_000  // say nothing, once TLS is done if there is TLS
	slowLasts      = 30 * time.Second
	slowStage      = 5 * time.Second // what a stage may take
	slowRoom       = time.Second     // earlier or later
	slowHeadMemory = 512 << 20
	slowSources    = 1000 // addresses that they come from: each is below its limits
	byteEvery      = time.Second
)

// slowHeads tries the head on a gate without TLS, and what is before it on one with TLS.
func slowHeads(ctx context.Context, x *exam) error {
	dir, err := os.MkdirTemp(x.dir, "plain-")
	if err != nil {
		return err
	}
	plain := *x
	plain.dir = dir
	err = slowAt(ctx, &plain, nil, map[string]int{"dribble": x.n(slowDribblers, 200), "silent": x.n(slowSilent, 50)})
	x.short = plain.short
	if err != nil {
		return err
	}
	s, err := secure(x.dir)
	if err != nil {
		return err
	}
	return slowAt(ctx, x, s, map[string]int{"hello": x.n(slowHellos, 100), "silent": x.n(slowSilent, 50)})
}

// slowAt lets so many slow clients of each kind come to a gate.
func slowAt(ctx context.Context, x *exam, s *secured, kinds map[string]int) error {
	o := clusterOptions{memory: true, gate: addressLimits}
	args := []string{}
	if s != nil {
		o.gate, o.yaml = s.gate, s.yaml
		args = append(args, "tls")
	}
	c, err := start(ctx, x, o)
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "the node did not stop") }()
	if c.dial = visitors(nil); s != nil {
		c.dial = visitors(s.wrap)
	}
	sockets, err := c.openMany(ctx, x.n(honestSockets, 50), "echo")
	defer closeAll(sockets)
	if err != nil {
		return err
	}
	b, err := c.baseline(ctx, x, sockets)
	if err != nil {
		return err
	}
	pid := c.nodes[0].PID()
	before, err := residentBytes(pid)
	if err != nil {
		return err
	}
	var crowds []*rig.Helper
	for kind, n := range kinds {
		crowd, err := startRole("slow", x.gently(), append([]string{c.nodes[0].Gate, kind, strconv.Itoa(n)}, args...)...)
		if err != nil {
			return err
		}
		crowds = append(crowds, crowd)
	}
	peak, stop := watchMemory(pid)
	h := c.honest(ctx, sockets)
	err = rest(ctx, max(x.lasting(slowLasts), slowStage+2*slowRoom))
	h.end()
	for _, crowd := range crowds {
		last, stopped := crowd.Stop()
		err = errors.Join(err, stopped)
		for _, line := range last {
			x.figure("%s", line)
			x.judgeCrowd(line)
		}
		x.want(len(last) == 1, "a crowd said %d lines", len(last))
	}
	stop()
	grown := peak.Load() - before
	x.figure("resident memory %+.1f MiB at its peak", float64(grown)/(1<<20))
	x.wantMemory(grown <= slowHeadMemory, "memory grew by %d bytes, want at most %d", grown, slowHeadMemory)
	h.judge(x, b)
	return err
}

// crowdRefused is the part of a crowd's attempts that may fail before their stage has begun.
const crowdRefused = 0.01

// judgeCrowd wants that all of a crowd came in, and were closed in time.
func (x *exam) judgeCrowd(line string) {
	_, counts, _ := strings.Cut(line, ": ")
	var closed, early, late, kept, refused int
	counts, tail, _ := strings.Cut(counts, ", after ")
	_, err := fmt.Sscanf(counts, "closed %d, early %d, late %d, kept %d", &closed, &early, &late, &kept)
	_, tail, _ = strings.Cut(tail, "did not come in ")
	_, err2 := fmt.Sscanf(tail, "%d", &refused)
	x.want(errors.Join(err, err2) == nil && closed > 0 && early+late+kept == 0, "%s", line)
	x.wantTime(float64(refused) <= crowdRefused*float64(closed+refused), "%s", line)
}

// slowCrowd counts how slow clients ended.
type slowCrowd struct {
	gate string
	kind string
	tls  bool
	done sync.WaitGroup

	stalls stalls // of this process: what it has noticed late for that is not late

	mu                sync.Mutex
	took              []time.Duration
	early, late, kept int
	refused           int // never came in
}

// slowClients keeps so many slow clients of a kind at a gate until the input ends: for each that is closed another comes. The
// first come at the pace of those that follow, so many in the time of a stage: they would come in waves else, and be few between.
// args: gate, kind, number, and "tls" if the gate has it.
func slowClients(args []string, hear func() (string, bool), say func(string, ...any)) error {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	c := &slowCrowd{gate: args[0], kind: args[1], tls: len(args) > 3}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		for _, more := hear(); more; _, more = hear() {
		}
		stop()
	}()
	go c.stalls.watch(ctx)
	for i := range n {
		first := time.Duration(i) * slowStage / time.Duration(n)
		c.done.Go(func() {
			if rest(ctx, first) != nil {
				return
			}
			for ctx.Err() == nil {
				c.one(ctx, loopback(i%slowSources))
			}
		})
	}
	c.done.Wait()
	say("%s: closed %d, early %d, late %d, kept %d, after %v to %v, did not come in %d; the crowd stood still for %v at most", c.kind, len(c.took),
		c.early, c.late, c.kept, quantile(c.took, 0).Round(time.Millisecond), quantile(c.took, 1).Round(time.Millisecond), c.refused,
		c.stalls.longest().Round(time.Millisecond))
	return nil
}

// slowHead is what a dribbler never gets to the end of.
var slowHead = []byte(rig.Head("gate.test", "/t/"+strings.Repeat("x", 100), ""))

// one is a slow client, from its connection to its end. The stage begins between asked and begun.
func (c *slowCrowd) one(ctx context.Context, from *net.TCPAddr) {
	asked := time.Now()
	conn, send, err := c.begin(ctx, from)
	if err != nil {
		if ctx.Err() == nil {
			c.mu.Lock()
			c.refused++
			c.mu.Unlock()
			_ = rest(ctx, byteEvery)
		}
		return
	}
	defer conn.Close()
	begun := time.Now()
	closed := wait(ctx, conn, send)
	ended := time.Now()
	took := ended.Sub(begun)
	switch d, ok := heardBefore(conn); {
	case closed && ok && c.kind != "hello": // which is reset, without a word
		took -= d
	case took > slowStage+slowRoom: // the watch's own look has to come first
		_ = rest(context.Background(), 2*stallLook)
		took -= c.stalls.within(begun.Add(slowStage), ended)
	}
	if !closed && took < slowStage+slowRoom {
		return // the test is over
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.took = append(c.took, took)
	switch {
	case !closed:
		c.kept++
	case took+begun.Sub(asked) < slowStage-slowRoom:
		c.early++
	case took > slowStage+slowRoom:
		c.late++
	}
}

// heardBefore is for how long the last bytes from the other side have been here, as the kernel knows: who is one of ten thousand
// in an idle process reads them when it gets a processor.
func heardBefore(conn net.Conn) (time.Duration, bool) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	c, ok := conn.(*net.TCPConn)
	if !ok {
		return 0, false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false
	}
	var info *unix.TCPInfo
	cerr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if errors.Join(cerr, err) != nil {
		return 0, false
	}
	return time.Duration(info.Last_data_recv) * time.Millisecond, true
}

// begin connects, goes as far as the kind goes, and returns what is to be sent byte by byte from then on.
func (c *slowCrowd) begin(ctx context.Context, from *net.TCPAddr) (net.Conn, []byte, error) {
	d := net.Dialer{LocalAddr: from, Timeout: 2 * slowStage}
	conn, err := d.DialContext(ctx, "tcp", c.gate)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case c.kind == "dribble":
		return conn, slowHead, nil
	case c.kind == "hello":
		_, err = conn.Write(halfHello())
	case c.tls:
		t := tls.Client(conn, carefree)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, nil, errors.Join(err, conn.Close())
		}
		return t, nil, nil // which reads the session tickets itself
	}
	return conn, nil, err
}

// wait sends a byte every second until the other side ends conn (true), or ctx or all patience does. Ten thousand of these take
// processor time from those whom they are to disturb: each reads once, and its bytes need no goroutine that waits.
func wait(ctx context.Context, conn net.Conn, send []byte) (closed bool) {
	end := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer end()
	if err := conn.SetReadDeadline(time.Now().Add(2 * (slowStage + slowRoom))); err != nil || ctx.Err() != nil {
		return false
	}
	var next func()
	next = func() {
		if _, err := conn.Write(send[:1]); err == nil && len(send) > 1 { // an error is for Read to find
			send = send[1:]
			time.AfterFunc(byteEvery, next)
		}
	}
	if len(send) > 0 {
		time.AfterFunc(byteEvery, next)
	}
	_, err := conn.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded) // an answer, FIN or RST
}

// carefree is what costs the crowd least: there are thousands of it, and the processors are to be the gate's.
var carefree = &tls.Config{
	InsecureSkipVerify: true, //nolint:gosec // who the gate is does not matter here
	CurvePreferences:   []tls.CurveID{tls.X25519},
}

// halfHello is the first half of a ClientHello: the same for all, since nothing comes of it.
var halfHello = sync.OnceValue(func() []byte {
	var r recorder
	_ = tls.Client(&r, carefree).Handshake() // there is no server: it ends behind the hello
	return r.Bytes()[:r.Len()/2]
})

// recorder is a connection to nobody.
type recorder struct {
	net.Conn
	bytes.Buffer
}

func (r *recorder) Write(b []byte) (int, error) { return r.Buffer.Write(b) }
func (*recorder) Read([]byte) (int, error)      { return 0, errors.New("nobody there") }
