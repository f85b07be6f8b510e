package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"ticketgate/tools/rig"
)

func init() {
	tests[43] = test{"reconnect herd: all sockets are reset in the same second and come back at once", reconnectHerd}
	roles["herd"] = runHerd
}

const (
	herdNodes      = 2
	herdSockets    = 9000 // a node; so many a process of clients, too: a process has 20,000 descriptors
	herdResets     = time.Second
	herdBack       = time.Minute
	herdSecond     = 0.3  // of the first wave may come in a second
	herdCalls      = 3.05 // of Redis, an admission: issue, redeem, and the release of the socket before it. What is behind the point is the idle rate's own change
	herdCallsSmall = 3.5  // a busy machine hears of a release only when the client is back, and then it is told again with the heartbeat
	herdHeartbeat  = 10 * time.Second
	herdIssuers    = 512 // connections of a process to the front end of a node: clients have their tickets from application servers
)

// reconnectHerd opens sockets on all nodes, lets their clients reset them, and watches them come back.
func reconnectHerd(ctx context.Context, x *exam) error {
	beat := herdHeartbeat
	if x.size < 0.1 {
		beat = time.Second
	}
	c, err := start(ctx, x, clusterOptions{nodes: herdNodes, gate: addressLimits, yaml: fmt.Sprintf("cluster: { heartbeat: %s }\n", beat)})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "a node did not stop") }()
	n := x.n(herdSockets, 100)
	var herds []*rig.Helper
	defer func() {
		for _, h := range herds {
			_ = h.Kill() // it has told all it has to tell
		}
	}()
	for i := range herdNodes {
		args := []string{strconv.FormatUint(x.rnd.Uint64(), 10), strconv.Itoa(i * n), strconv.Itoa(n), c.key.Text}
		for _, node := range c.nodes {
			args = append(args, node.Handshake, node.Gate)
		}
		h, err := startRole("herd", nil, args...)
		if err != nil {
			return err
		}
		herds = append(herds, h)
	}
	for _, h := range herds {
		var open int
		if err := hearing(ctx, h, "open %d", &open); err != nil {
			return err
		}
	}
	if err := rest(ctx, 3*beat/2); err != nil { // what the first sockets cost is over
		return err
	}
	idle, err := c.redisCalls(ctx)
	if err != nil {
		return err
	}
	quiet := time.Now()
	if err := rest(ctx, 3*beat/2); err != nil {
		return err
	}
	before, err := c.redisCalls(ctx)
	if err != nil {
		return err
	}
	begun := time.Now()
	told, err := stampede(ctx, herds)
	if err != nil {
		return err
	}
	if err := rest(ctx, 3*beat/2); err != nil { // what is told again with a heartbeat counts, too
		return err
	}
	after, err := c.redisCalls(ctx)
	if err != nil {
		return err
	}
	always := float64(before-idle) * float64(time.Since(begun)) / float64(begun.Sub(quiet)) // renewals, and pings of the connections
	for i, node := range c.nodes {
		err := alive(ctx, node)
		x.want(err == nil, "node %d: %v", i, err)
	}
	told.judge(x, len(herds)*n)
	calls := (float64(after-before) - always) / float64(max(told.Back, 1))
	x.figure("Redis: %d calls, of which %.0f would have come without the herd: %.2f an admission, with the release before it", after-before, always, calls)
	most := herdCalls
	if x.size < 1 {
		most = herdCallsSmall
	}
	x.want(calls < most, "%.2f calls of Redis an admission, want at most %.0f", calls, herdCalls)
	return nil
}

// stampede gives the sign to all herds at once, and adds up what they tell.
func stampede(ctx context.Context, herds []*rig.Helper) (*herdTold, error) {
	for _, h := range herds {
		if err := h.Tell("reset"); err != nil {
			return nil, err
		}
	}
	all := &herdTold{Odd: map[string]int{}}
	for _, h := range herds {
		line, err := h.Hear(ctx)
		if err != nil {
			return nil, err
		}
		t := new(herdTold)
		if err := json.Unmarshal([]byte(line), t); err != nil {
			return nil, fmt.Errorf("a herd tells %q: %w", line, err)
		}
		all.add(t)
	}
	return all, nil
}

// redisCalls is how often the nodes have asked Redis: scripts, by EVALSHA or otherwise, and what else no script of theirs calls.
func (c *cluster) redisCalls(ctx context.Context) (calls int, err error) {
	r, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{c.redis.Addr}, DisableCache: true})
	if err != nil {
		return 0, err
	}
	defer r.Close()
	text, err := r.Do(ctx, r.B().Info().Section("commandstats").Build()).ToString()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		name, figures, _ := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		first, _, _ := strings.Cut(figures, ",")
		n, err := strconv.Atoi(first)
		command, _, _ := strings.Cut(name, "|")
		if err == nil && asked[command] {
			calls += n
		}
	}
	return calls, nil
}

// asked are commands that come from outside only.
var asked = map[string]bool{"eval": true, "evalsha": true, "eval_ro": true, "evalsha_ro": true, "fcall": true, "fcall_ro": true, "script": true,
	"ping": true, "wait": true, "multi": true, "exec": true}

// herdTold is what herds tell of their return.
type herdTold struct {
	Back          int           // came back
	Again         int           // had to try a second time
	Tries         int           // in all
	Resets        time.Duration // from the first reset to the last
	Last          time.Duration // from the first reset to the last who came back
	Median        time.Duration
	TicketOrLimit int            // answers with 401 or 429
	Odd           map[string]int // other refusals and errors, each of which was followed by another try
}

func (t *herdTold) add(o *herdTold) {
	t.Back += o.Back
	t.Again += o.Again
	t.Tries += o.Tries
	t.Resets, t.Last, t.Median = max(t.Resets, o.Resets), max(t.Last, o.Last), max(t.Median, o.Median)
	t.TicketOrLimit += o.TicketOrLimit
	for what, n := range o.Odd {
		t.Odd[what] += n
	}
}

func (t *herdTold) judge(x *exam, n int) {
	x.figure("%d sockets reset within %v: back %d, half of them after %v, the last after %v", n, t.Resets.Round(time.Millisecond), t.Back,
		t.Median.Round(time.Millisecond), t.Last.Round(time.Millisecond))
	x.figure("tries %d, of which the second of a client %d (%.1f %%); refused for the ticket or a limit %d", t.Tries, t.Again,
		100*float64(t.Again)/float64(n), t.TicketOrLimit)
	for what, k := range t.Odd {
		x.figure("tried again after %d times %s", k, what)
	}
	x.want(t.Back == n, "only %d of %d came back", t.Back, n)
	x.want(t.TicketOrLimit == 0, "%d refused for the ticket or a limit", t.TicketOrLimit)
	x.wantTime(t.Resets <= herdResets, "the resets took %v: that is no herd", t.Resets)
	x.want(t.Last <= herdBack, "the last came back after %v, want at most %v", t.Last, herdBack)
	x.wantTime(float64(t.Again) < herdSecond*float64(n), "%d of %d tried a second time, want less than %.0f %%", t.Again, n, 100*herdSecond)
}

// herd is one process of clients.
type herd struct {
	key   string
	nodes []doorway
	http  *http.Client
	ctx   context.Context

	mu   sync.Mutex
	told herdTold
	took []time.Duration
}

// doorway is where a node is to be found.
type doorway struct{ handshake, gate string }

// runHerd opens sockets, each of a client of its own from an address of its own, says how many, and at "reset" resets all and lets
// each come back at once, to any node, with a new ticket. It tells how that was, and goes on holding them. args: seed, the first
// client's number, how many, key, handshake and gate of each node.
func runHerd(args []string, hear func() (string, bool), say func(string, ...any)) error {
	if len(args) < 6 || len(args)%2 != 0 {
		return errors.New("want: seed, first, number, key, handshake and gate of each node")
	}
	seed, err1 := strconv.ParseUint(args[0], 10, 64)
	first, err2 := strconv.Atoi(args[1])
	n, err3 := strconv.Atoi(args[2])
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	h := &herd{key: args[3], http: &http.Client{Timeout: herdBack, Transport: &http.Transport{MaxConnsPerHost: herdIssuers,
		MaxIdleConnsPerHost: herdIssuers, IdleConnTimeout: 3 * time.Second}}, ctx: ctx}
	for i := 4; i < len(args); i += 2 {
		h.nodes = append(h.nodes, doorway{args[i], args[i+1]})
	}
	rnd := rand.New(rand.NewPCG(seed, 43))
	sockets := make([]*socket, n)
	var failed atomic.Pointer[error]
	each(sockets, openAtOnce, func(i int, _ *socket) {
		var s *socket
		err := patiently(func() (err error) {
			s, err = h.open(first+i, h.nodes[first/n%len(h.nodes)]) // each herd at a node of its own
			return err
		})
		if err != nil {
			failed.CompareAndSwap(nil, &err)
			return
		}
		sockets[i] = s
		go s.answer() // ends with the socket
	})
	if err := failed.Load(); err != nil {
		return *err
	}
	say("open %d", n)
	for line, more := hear(); more; line, more = hear() {
		if line == "reset" {
			text, err := json.Marshal(h.stampede(sockets, first, rnd))
			if err != nil {
				return err
			}
			say("%s", text)
		}
	}
	return nil
}

// open gets a ticket at a node and opens it there.
func (h *herd) open(client int, at doorway) (*socket, error) {
	t, err := rig.Issue(h.ctx, h.http, at.handshake, h.key, request{Stream: "echo", Client: "herd" + strconv.Itoa(client)})
	if err != nil {
		return nil, err
	}
	d := net.Dialer{LocalAddr: loopback(client), Timeout: herdBack}
	conn, err := d.DialContext(h.ctx, "tcp", at.gate)
	if err != nil {
		return nil, err
	}
	return upgraded(conn, t)
}

// stampede resets all sockets and returns when every client is back, or has given up.
func (h *herd) stampede(sockets []*socket, first int, rnd *rand.Rand) *herdTold {
	h.told = herdTold{Odd: map[string]int{}}
	way := make([]int, len(sockets)) // the node that each comes to first
	for i := range way {
		way[i] = rnd.IntN(len(h.nodes))
	}
	begun := time.Now()
	for _, s := range sockets {
		if c, ok := s.Conn.(*net.TCPConn); ok {
			_ = c.SetLinger(0) // should it fail, it is FIN: an end, too
		}
		_ = s.Close()
	}
	h.told.Resets = time.Since(begun)
	var back sync.WaitGroup
	for i := range sockets {
		back.Go(func() { h.comeBack(first+i, way[i], begun) })
	}
	back.Wait()
	h.told.Median, h.told.Last = quantile(h.took, 0.5), quantile(h.took, 1)
	return &h.told
}

// comeBack tries until it has a socket: at once, and after a refusal when the answer says, or a second later.
func (h *herd) comeBack(client, way int, begun time.Time) {
	for try := 0; time.Since(begun) < 2*herdBack; try++ {
		s, err := h.open(client, h.nodes[(way+try)%len(h.nodes)])
		h.note(try, err, time.Since(begun))
		if err == nil {
			go s.answer() // ends with the process
			return
		}
		wait := time.Second
		if no := (*rig.Refused)(nil); errors.As(err, &no) {
			if after, err := strconv.Atoi(no.Header.Get("Retry-After")); err == nil {
				wait = time.Duration(after) * time.Second
			}
		}
		if rest(h.ctx, wait) != nil {
			return
		}
	}
}

func (h *herd) note(try int, err error, took time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told.Tries++
	if try == 1 {
		h.told.Again++
	}
	if err == nil {
		h.told.Back++
		h.took = append(h.took, took)
		return
	}
	status, what := 0, plain(err)
	if no := (*rig.Refused)(nil); errors.As(err, &no) {
		status, what = no.Status, fmt.Sprintf("%d %s", no.Status, no.Problem())
	}
	if code := statusError(0); errors.As(err, &code) {
		status = int(code)
	}
	if status == http.StatusUnauthorized || status == http.StatusTooManyRequests {
		h.told.TicketOrLimit++
	}
	h.told.Odd[what]++
}
