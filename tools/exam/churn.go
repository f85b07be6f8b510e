package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"ticketgate/engine/frame"
	"ticketgate/tools/rig"
)

func init() {
	tests[29] = test{"churn leak: connections broken off at every stage leave nothing behind", churn}
	roles["breaker"] = breakOffBackends
}

const (
	churnCycles   = 1_000_000
	churnWarm     = 20_000 // cycles before the start is taken: tables and pools have their size then
	churnQuiet    = time.Minute
	churnSettle   = 7 * time.Second // at least: longer than an unused ticket lives
	churnTicket   = 5 * time.Second
	churnAtOnce   = 64
	churnClients  = 1000
	churnSources  = 250 // loopback addresses that they come from
	churnFiles    = 5
	churnRoutines = 10
	churnMemory   = 0.10
	churnAway     = 100 // of so many cycles one may be turned away with 503, as a gate may that has more to do than it can, or come too late itself
)

// A stage is how far a connection comes before it is broken off. Each is as likely as any other.
type stage struct {
	name   string
	stream string // of its ticket; "": it has none
	play   func(k *cycle) error
}

// cycle is one connection.
type cycle struct {
	net.Conn
	ctx  context.Context
	rnd  *rand.Rand
	head []byte // the upgrade request, with a good ticket if the stage has one
	tls  *tls.Config
	s    *socket
}

// handshakes are the stages that a gate with TLS has in front of the others.
var handshakes = []stage{
	{"connected, no TLS", "", func(*cycle) error { return nil }},
	{"not TLS", "", func(k *cycle) error { return k.send(k.head) }},
	{"in the ClientHello", "", func(k *cycle) error { return k.handshake(k.rnd.IntN(helloLeast)) }},
	{"in the handshake", "", func(k *cycle) error { return k.handshake(helloLeast + k.rnd.IntN(3*helloLeast)) }},
	{"behind the handshake", "", func(k *cycle) error { return k.handshake(1 << 20) }},
}

// helloLeast bytes of what a client sends are in its ClientHello; all that it sends until TLS is done is about four times as much.
const helloLeast = 400

// handshake breaks TLS off behind so many bytes, or does all of it if it is less.
func (k *cycle) handshake(bytes int) error {
	f := &fuse{k.Conn, bytes}
	if err := tls.Client(f, k.tls).HandshakeContext(k.ctx); err != nil && !errors.Is(err, errFuse) {
		return err
	}
	return nil
}

// fuse lets so many bytes through.
type fuse struct {
	net.Conn
	left int
}

var errFuse = errors.New("that was all")

// Write implements net.Conn.
func (f *fuse) Write(b []byte) (int, error) {
	n := min(len(b), f.left)
	f.left -= n
	if _, err := f.Conn.Write(b[:n]); err != nil {
		return 0, err
	}
	if n < len(b) {
		return n, errFuse
	}
	return n, nil
}

// stages in the order of a connection's life.
var stages = []stage{
	{"connected", "", func(*cycle) error { return nil }},
	{"in the head", "", func(k *cycle) error { return k.send(k.head[:k.rnd.IntN(len(k.head))]) }},
	{"the answer to a bad ticket is not read", "", func(k *cycle) error { return k.send(k.head) }},
	{"the answer to a bad ticket is read", "", func(k *cycle) error { return k.refused(401) }},
	{"behind the head", "echo", func(k *cycle) error { return k.send(k.head) }},
	{"before the 101", "echo", func(k *cycle) error {
		return errors.Join(k.send(k.head), rest(k.ctx, time.Duration(k.rnd.IntN(2000))*time.Microsecond))
	}},
	{"in the 101", "echo", func(k *cycle) error {
		return errors.Join(k.send(k.head), k.take(1+k.rnd.IntN(100)))
	}},
	{"bytes before the 101", "echo", func(k *cycle) error { return k.send(append(k.head, 0x81)) }},
	{"behind the 101", "echo", (*cycle).open},
	{"in a frame", "echo", func(k *cycle) error { return k.said(func(b []byte) []byte { return b[:k.rnd.IntN(len(b))] }) }},
	{"in a message", "echo", func(k *cycle) error {
		return k.opened(func() error { return k.s.fragments(1+k.rnd.IntN(5), 1000, opOf(k.rnd.IntN(2))) })
	}},
	{"an echo is not read", "echo", func(k *cycle) error { return k.said(func(b []byte) []byte { return b }) }},
	{"a feed is not read", "clock", (*cycle).open},
	{"the close frame is not answered", "echo", func(k *cycle) error {
		return k.opened(func() error { return k.s.send(frame.Close, []byte{3, 0xe8}) })
	}},
	{"all in order", "echo", func(k *cycle) error {
		return errors.Join(k.opened(func() error { return k.s.send(frame.Close, []byte{3, 0xe8}) }), k.gone())
	}},
	{"the backend refuses", "refused", func(k *cycle) error { return k.refused(502) }},
	{"the backend resets", "reset", func(k *cycle) error { return k.refused(502) }},
	{"the backend ends", "fin", func(k *cycle) error { return k.refused(502) }},
	{"the backend resets in its head", "half", func(k *cycle) error { return k.refused(502) }},
	{"the backend says nothing", "silent", func(k *cycle) error {
		return errors.Join(k.send(k.head), rest(k.ctx, time.Duration(k.rnd.IntN(5))*time.Millisecond))
	}},
	{"the backend resets in a message", "openreset", (*cycle).openedAndGone},
	{"the backend ends in a message", "openfin", (*cycle).openedAndGone},
	{"in a relayed message", "relayed", func(k *cycle) error {
		return k.said(func(b []byte) []byte { return b[:k.rnd.IntN(len(b))] })
	}},
}

func (k *cycle) send(b []byte) error {
	_, err := k.Write(b)
	return err
}

// take reads n bytes of the answer.
func (k *cycle) take(n int) error {
	_, err := io.ReadFull(k, make([]byte, n))
	return err
}

// refused wants an answer with status, and the end of the connection.
func (k *cycle) refused(status int) error {
	if err := k.send(k.head); err != nil {
		return err
	}
	text, err := io.ReadAll(k)
	if want := fmt.Sprintf("HTTP/1.1 %d ", status); !strings.HasPrefix(string(text), want) {
		return errors.Join(err, unwanted(text, want))
	}
	return nil // a reset behind the answer is an end, too
}

// open wants the 101.
func (k *cycle) open() error {
	if err := k.send(k.head); err != nil {
		return err
	}
	k.s = &socket{Conn: k.Conn, r: bufio.NewReader(k.Conn)}
	return k.s.switched()
}

// opened opens the socket and does f, whose end does not matter: either side may be quicker.
func (k *cycle) opened(f func() error) error {
	if err := k.open(); err != nil {
		return err
	}
	_ = f()
	return nil
}

// said opens the socket and sends what cut leaves of a message.
func (k *cycle) said(cut func([]byte) []byte) error {
	b := appendMasked(nil, frame.Header{Fin: true, Op: opOf(k.rnd.IntN(2))}, make([]byte, k.rnd.IntN(2000)))
	return k.opened(func() error { return k.send(cut(b)) })
}

// gone reads until the connection ends.
func (k *cycle) gone() error {
	_, err := io.Copy(io.Discard, k)
	if err != nil && !strings.Contains(err.Error(), "reset") {
		return err
	}
	return nil
}

// openedAndGone wants a 101 and then an end that the backend has caused. The backend may be gone before the 101 is out.
func (k *cycle) openedAndGone() error {
	if err := k.send(k.head); err != nil {
		return err
	}
	text, err := io.ReadAll(k)
	if !strings.HasPrefix(string(text), "HTTP/1.1 101 ") && !strings.HasPrefix(string(text), "HTTP/1.1 502 ") {
		return errors.Join(err, unwanted(text, "101 or 502"))
	}
	return nil
}

// unwanted is the error for an answer that is not want.
func unwanted(answer []byte, want string) error {
	err := fmt.Errorf("answer %.60q, want %q", answer, want)
	if strings.HasPrefix(string(answer), "HTTP/1.1 503 ") {
		return errors.Join(statusError(http.StatusServiceUnavailable), err)
	}
	return err
}

// errLate is a ticket that has expired while the machine had something else to do.
var errLate = errors.New("the ticket was used too late")

// turnedAway reports whether err is a 503, for a ticket or at the gate, or a ticket that came too late.
func turnedAway(err error) bool {
	if errors.Is(err, errLate) {
		return true
	}
	if r, ok := errors.AsType[*rig.Refused](err); ok {
		return r.Status == http.StatusServiceUnavailable
	}
	return errors.Is(err, statusError(http.StatusServiceUnavailable))
}

// tally counts cycles by stage.
type tally struct {
	played []atomic.Int64
	fresh  atomic.Int64 // stages that have been begun
	away   atomic.Int64 // of 503, each of which is played again
	mu     sync.Mutex
	odd    map[string]int // what went wrong, by stage and error
}

// churn breaks off a million connections, a quarter of them on a gate with TLS, and looks for what they have left.
func churn(ctx context.Context, x *exam) error {
	backends, relays, err := startBreaker(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = backends.Kill() }() // it has nothing to tell
	n := x.n(churnCycles, 2000)
	plain := *x
	if plain.dir, err = os.MkdirTemp(x.dir, "plain-"); err != nil {
		return err
	}
	err = churnAt(ctx, &plain, relays, nil, n-n/4)
	x.short = plain.short
	if err != nil {
		return err
	}
	s, err := secure(x.dir)
	if err != nil {
		return err
	}
	return churnAt(ctx, x, relays, s, n/4)
}

// churnAt plays n cycles on a gate, with TLS if s is not nil.
func churnAt(ctx context.Context, x *exam, relays map[string]string, s *secured, n int) error {
	o := clusterOptions{relays: relays, count: 10 * churnAtOnce, yaml: fmt.Sprintf("tickets: { ttl: %s, outstanding: 1000 }\n", churnTicket)}
	k := &churning{stages: stages}
	if s != nil {
		o.gate, o.yaml = exemptLoopback+", "+s.gate, o.yaml+s.yaml
		k.tls, k.stages = s.client, slices.Concat(handshakes, stages)
		x.figure("with TLS:")
	}
	var err error
	if k.cluster, err = start(ctx, x, o); err != nil {
		return err
	}
	defer func() { x.want(k.close() == nil, "the node did not stop") }()
	cold, err := k.leftovers(ctx)
	if err != nil {
		return err
	}
	before, err := k.play(ctx, x, x.n(churnWarm, 1000))
	if err != nil {
		return err
	}
	after, err := k.play(ctx, x, n)
	if err != nil {
		return err
	}
	x.figure("before all: %v", cold)
	x.figure("start: %v", before)
	x.figure("end: %v", after)
	x.want(after.slots == 0 && after.reserved == 0, "Redis counts %d sockets and %d tickets", after.slots, after.reserved)
	x.want(after.gauges == 0, "gauges say %v", after.gauges)
	x.want(after.files-before.files <= churnFiles, "%d descriptors more than at the start", after.files-before.files)
	x.want(after.routines-before.routines <= churnRoutines, "%d goroutines more than at the start", after.routines-before.routines)
	x.wantMemory(float64(after.memory) <= float64(before.memory)*(1+churnMemory), "memory %d KiB, at the start %d KiB", after.memory>>10, before.memory>>10)
	return nil
}

// churning is a gate, and how its connections go.
type churning struct {
	*cluster
	stages []stage
	tls    *tls.Config // nil: none
}

// play plays n cycles, or as many as the time of a short exam allows, and takes stock when all has been quiet for a while.
func (k *churning) play(ctx context.Context, x *exam, n int) (*leftovers, error) {
	begun := time.Now()
	played, err := k.cycles(ctx, x, n)
	if err != nil {
		return nil, err
	}
	took := time.Since(begun)
	x.figure("%d cycles, %.0f a second, over %d stages", played, float64(played)/took.Seconds(), len(k.stages))
	if err := rest(ctx, max(x.lasting(churnQuiet), churnSettle)); err != nil {
		return nil, err
	}
	return k.leftovers(ctx)
}

// leftovers are what a node holds for connections.
type leftovers struct {
	slots, reserved int     // in Redis
	gauges          float64 // sum of those that count sockets and what waits for them
	files, routines int
	memory          int64
}

func (l *leftovers) String() string {
	return fmt.Sprintf("slots in Redis %d, tickets %d, gauges %v, descriptors %d, goroutines %d, memory %.1f MiB", l.slots, l.reserved, l.gauges,
		l.files, l.routines, float64(l.memory)/(1<<20))
}

// holding are the gauges that must be zero when nobody is there.
var holding = []string{"ticketgate_connections{", "ticketgate_loop_connections{", "ticketgate_backend_connections{", "ticketgate_send_queue_bytes",
	"ticketgate_loop_queue_bytes{"}

func (c *cluster) leftovers(ctx context.Context) (*leftovers, error) {
	c.http.CloseIdleConnections()
	if err := rest(ctx, 10*sampleEvery); err != nil { // the node closes its side
		return nil, err
	}
	l := &leftovers{files: openFiles(c.nodes[0].PID())}
	m, err := c.metrics(ctx)
	if err != nil {
		return nil, err
	}
	l.routines = int(m["ticketgate_goroutines"])
	for name, v := range m {
		for _, h := range holding {
			if strings.HasPrefix(name, h) {
				l.gauges += v
			}
		}
	}
	if l.memory, err = residentBytes(c.nodes[0].PID()); err != nil {
		return nil, err
	}
	l.slots, l.reserved, err = countSlots(ctx, c.redis.Addr)
	return l, err
}

// countSlots adds up what Redis holds of all clients: hashes of open sockets as "count:number" by node, and sorted sets of
// unused tickets.
func countSlots(ctx context.Context, address string) (held, reserved int, err error) {
	r, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{address}, DisableCache: true})
	if err != nil {
		return 0, 0, err
	}
	defer r.Close()
	hashes, err := r.Do(ctx, r.B().Keys().Pattern("tg:*}:h:*").Build()).AsStrSlice()
	if err != nil {
		return 0, 0, err
	}
	for _, key := range hashes {
		values, err := r.Do(ctx, r.B().Hvals().Key(key).Build()).AsStrSlice()
		if err != nil {
			return 0, 0, err
		}
		for _, v := range values {
			text, _, _ := strings.Cut(v, ":")
			n, err := strconv.Atoi(text)
			if err != nil {
				return 0, 0, fmt.Errorf("%s holds %q: %w", key, v, err)
			}
			held += n
		}
	}
	sets, err := r.Do(ctx, r.B().Keys().Pattern("tg:*}:r:*").Build()).AsStrSlice()
	if err != nil {
		return 0, 0, err
	}
	for _, key := range sets {
		n, err := r.Do(ctx, r.B().Zcard().Key(key).Build()).ToInt64()
		if err != nil {
			return 0, 0, err
		}
		reserved += int(n)
	}
	return held, reserved, nil
}

// cycles plays at most n of them, and returns how many.
func (k *churning) cycles(ctx context.Context, x *exam, n int) (played int64, err error) {
	t := &tally{played: make([]atomic.Int64, len(k.stages)), odd: map[string]int{}}
	until := time.Now().Add(24 * time.Hour)
	if x.duration > 0 {
		until = time.Now().Add(x.duration)
	}
	var next atomic.Int64
	var done sync.WaitGroup
	for range churnAtOnce {
		rnd := rand.New(rand.NewPCG(x.rnd.Uint64(), 29))
		done.Go(func() {
			for ctx.Err() == nil && int(next.Add(1)) <= n && time.Now().Before(until) {
				if !t.one(ctx, k, rnd, int64(n/churnAway)) {
					next.Add(-1)
				}
			}
		})
	}
	done.Wait()
	if away := t.away.Load(); away > 0 {
		x.figure("turned away with 503 or with a ticket that came too late, and played again: %d", away)
	}
	for what, n := range t.odd {
		x.want(false, "%d times %s", n, what)
	}
	for i := range t.played {
		played += t.played[i].Load()
		x.want(t.played[i].Load() > 0, "stage %q was never played", k.stages[i].name)
	}
	return played, ctx.Err()
}

// one plays one cycle. It returns false if it was turned away, and only mostAway are.
func (t *tally) one(ctx context.Context, k *churning, rnd *rand.Rand, mostAway int64) bool {
	i := int(t.fresh.Add(1)) - 1 // each once, whatever chance will have
	if i >= len(k.stages) {
		i = rnd.IntN(len(k.stages))
	}
	st := &k.stages[i]
	err := k.breakOff(ctx, rnd, st, k.tls != nil && i < len(handshakes))
	if turnedAway(err) && t.away.Add(1) <= mostAway {
		return false
	}
	t.played[i].Add(1)
	if err == nil || ctx.Err() != nil {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.odd) < shortMax {
		t.odd[st.name+": "+plain(err)]++
	}
	return true
}

// plain leaves addresses out of an error.
func plain(err error) string {
	text := err.Error()
	if at := strings.LastIndex(text, ": "); at > 0 && strings.Contains(text, "->") {
		return text[at+2:]
	}
	return text
}

// breakOff connects from some address, goes as far as st says, and ends the connection by RST or FIN. bare: st itself sees to
// TLS.
func (k *churning) breakOff(ctx context.Context, rnd *rand.Rand, st *stage, bare bool) error {
	target, secret, begin := "/t/"+strings.Repeat("x", 80), "tgs_x", time.Now()
	if st.stream != "" {
		t, err := k.issue(ctx, 0, request{Stream: st.stream, Client: "c" + strconv.Itoa(rnd.IntN(churnClients))})
		if err != nil {
			return fmt.Errorf("no ticket: %w", err)
		}
		target, secret = t.Path(), t.Secret()
	}
	d := net.Dialer{Timeout: answerWithin, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+rnd.IntN(churnSources)))}}
	conn, err := d.DialContext(ctx, "tcp", k.nodes[0].Gate)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * answerWithin)); err != nil {
		return err
	}
	y := &cycle{Conn: conn, ctx: ctx, rnd: rnd, head: []byte(rig.Head("gate.test", target, secret)), tls: k.tls}
	if k.tls != nil && !bare {
		t := tls.Client(conn, k.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			return err
		}
		y.Conn = t
	}
	err = st.play(y)
	if st.stream != "" && time.Since(begin) >= churnTicket-time.Second && strings.Contains(fmt.Sprint(err), "HTTP/1.1 401 ") {
		err = errLate
	}
	if t, ok := conn.(*net.TCPConn); ok && rnd.IntN(2) == 0 {
		err = errors.Join(err, t.SetLinger(0))
	}
	return err
}

// startBreaker runs the backends, and returns their addresses by stream.
func startBreaker(ctx context.Context) (*rig.Helper, map[string]string, error) {
	h, err := startRole("breaker", nil)
	if err != nil {
		return nil, nil, err
	}
	relays := map[string]string{}
	for range len(breakers) + 1 {
		var name, address string
		if err := hearing(ctx, h, "%s %s", &name, &address); err != nil {
			return nil, nil, errors.Join(err, h.Kill())
		}
		relays[name] = "ws://" + address + "/"
	}
	return h, relays, nil
}

// breakers are backends by what they do to a connection, which is closed when they return; true: by RST.
var breakers = map[string]func(net.Conn) bool{
	"reset": func(net.Conn) bool { return true },
	"fin":   func(net.Conn) bool { return false },
	"half": func(c net.Conn) bool {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Pro")
		}
		return true
	},
	"silent":    func(c net.Conn) bool { _, _ = io.Copy(io.Discard, c); return false },
	"openreset": func(c net.Conn) bool { startMessage(c); return true },
	"openfin":   func(c net.Conn) bool { startMessage(c); return false },
	"relayed": func(c net.Conn) bool {
		if _, err := acceptRaw(c); err == nil {
			_, _ = io.Copy(io.Discard, c)
		}
		return false
	},
}

// startMessage accepts and sends a whole message and half of the next.
func startMessage(c net.Conn) {
	if _, err := acceptRaw(c); err == nil {
		_, _ = c.Write([]byte("\x81\x05hello\x81\x05he"))
	}
}

// breakOffBackends runs the breakers, and says "name address" of each and of one that nobody listens on.
func breakOffBackends(_ []string, hear func() (string, bool), say func(string, ...any)) error {
	for name, f := range breakers {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		go serveBreaker(ln, f) // ends with the process
		say("%s %s", name, ln.Addr())
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	say("refused %s", ln.Addr())
	if err := ln.Close(); err != nil {
		return err
	}
	for more := true; more; {
		_, more = hear()
	}
	return nil
}

func serveBreaker(ln net.Listener, f func(net.Conn) bool) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if t, ok := c.(*net.TCPConn); ok && f(c) {
				_ = t.SetLinger(0) // else it is FIN: an end, too
			}
		}()
	}
}
