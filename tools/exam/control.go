package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/tools/rig"
)

func init() {
	tests[5] = test{"control-frame flood: cut with 4429, one pong waiting, honest sockets as before", controlFlood}
	roles["pings"] = pingFlood
}

const (
	floodSockets = 200
	floodTime    = time.Minute
	controlBurst = 20 // control frames that come through at once
	controlRate  = 10 // and a second
	cutWithin    = time.Second
	deafSockets  = 21
	pingSize     = 125
	pingsAtOnce  = 64
)

// controlFlood measures honest clients, alone and beside a flood of pings.
func controlFlood(ctx context.Context, x *exam) error {
	c, err := start(ctx, x, clusterOptions{memory: true})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "the node did not stop") }()
	if err := c.deaf(ctx, x); err != nil {
		return fmt.Errorf("pings to a socket that does not read: %w", err)
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
	n := x.n(floodSockets, 20)
	flood, err := startRole("pings", x.gently(), c.nodes[0].Handshake, c.nodes[0].Gate, c.key.Text, strconv.Itoa(n))
	if err != nil {
		return err
	}
	before, begun := cpuSeconds(c.nodes[0].PID()), time.Now()
	h := c.honest(ctx, sockets)
	resting := rest(ctx, x.lasting(floodTime))
	h.end()
	busy := (cpuSeconds(c.nodes[0].PID()) - before) / time.Since(begun).Seconds()
	load := cpuSeconds(flood.PID()) / time.Since(begun).Seconds()
	last, err := flood.Stop()
	if err := errors.Join(resting, err); err != nil {
		return err
	}
	f, err := readFlood(last)
	if err != nil {
		return err
	}
	f.judge(x, n)
	x.figure("processor: gateway %.0f %% of a core, flood %.0f %%", 100*busy, 100*load)
	h.judge(x, b)
	return nil
}

// flooded is what a flood of pings has seen: it is told as JSON.
type flooded struct {
	Pings   int64
	Cut     map[frame.Code]int64 // by close code
	Slowest time.Duration        // from the ping that passed the budget to the close frame
	Pongs   int64                // the most for one socket, less what its time allows
	Odd     []string             // what else came, at most oddMax
	Refused int64                // not let in again
}

const oddMax = 10

func readFlood(last []string) (*flooded, error) {
	if len(last) != 1 {
		return nil, fmt.Errorf("the flood tells %q", last)
	}
	f := new(flooded)
	return f, json.Unmarshal([]byte(last[0]), f)
}

func (f *flooded) judge(x *exam, sockets int) {
	var cut int64
	for _, n := range f.Cut {
		cut += n
	}
	x.figure("flood: %d sockets at a time, %d pings, cut %d times, by code %v, slowest %v after the budget, most pongs over it %d, not let in %d",
		sockets, f.Pings, cut, f.Cut, f.Slowest.Round(time.Millisecond), f.Pongs, f.Refused)
	x.want(cut >= int64(sockets), "%d cuts of %d sockets: the flood was none", cut, sockets)
	x.want(f.Cut[frame.CloseLimit] == cut, "cut with codes %v, want only %d", f.Cut, frame.CloseLimit)
	x.wantTime(f.Slowest <= cutWithin, "a socket was cut %v after it passed its budget, want %v", f.Slowest, cutWithin)
	x.want(f.Pongs <= 0, "a socket got %d pongs more than its budget of pings", f.Pongs)
	for _, odd := range f.Odd {
		x.want(false, "flood: %s", odd)
	}
}

// pingFlood is the crowd: n sockets that send pings until they are cut, and come back.
func pingFlood(args []string, hear func() (string, bool), say func(string, ...any)) error {
	if len(args) != 4 {
		return errors.New("want: handshake, gate, key, sockets")
	}
	n, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	f := &pinger{handshake: args[0], gate: args[1], key: args[2], got: flooded{Cut: map[frame.Code]int64{}},
		http: newHTTP(n)}
	for range pingsAtOnce {
		f.batch = appendMasked(f.batch, frame.Header{Fin: true, Op: frame.Ping}, bytes.Repeat([]byte{'p'}, pingSize))
	}
	var done sync.WaitGroup
	for i := range n {
		done.Go(func() {
			for ctx.Err() == nil {
				f.again(ctx, i)
			}
		})
	}
	for more := true; more; {
		_, more = hear()
	}
	stop()
	done.Wait()
	text, err := json.Marshal(&f.got)
	say("%s", text)
	return err
}

// pinger is the crowd's state.
type pinger struct {
	handshake, gate, key string
	http                 *http.Client
	batch                []byte

	mu  sync.Mutex
	got flooded
}

// again opens a socket, floods it, and notes what became of it.
func (f *pinger) again(ctx context.Context, i int) {
	t, err := rig.Issue(ctx, f.http, f.handshake, f.key, request{Stream: "echo", Client: "flood" + strconv.Itoa(i)})
	var s *socket
	if err == nil {
		s, err = dialRaw(ctx, f.gate, t)
	}
	if err != nil {
		f.note(ctx, func(g *flooded) { g.Refused++ })
		return
	}
	defer s.Close()
	end := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer end()
	if err := s.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return
	}
	begun := time.Now()
	var pings atomic.Int64
	go func() { // ends with the socket
		for {
			if _, err := s.Write(f.batch); err != nil {
				return
			}
			pings.Add(pingsAtOnce)
		}
	}()
	var pongs int64
	for {
		p, err := s.read()
		took := time.Since(begun)
		switch {
		case err != nil:
			f.note(ctx, func(g *flooded) { g.odd(fmt.Sprintf("no close frame: %v", err)) })
		case p.op == frame.Pong:
			pongs++
			continue
		case p.op != frame.Close:
			continue
		default:
			// The first write passes the budget: what follows it is late.
			f.note(ctx, func(g *flooded) {
				g.Cut[p.code()]++
				g.Slowest = max(g.Slowest, took)
				g.Pings += pings.Load()
				g.Pongs = max(g.Pongs, pongs-controlBurst-int64(controlRate*took.Seconds())-1)
			})
		}
		return
	}
}

func (f *flooded) odd(what string) {
	if len(f.Odd) < oddMax {
		f.Odd = append(f.Odd, what)
	}
}

// note changes what was seen, unless the flood is over.
func (f *pinger) note(ctx context.Context, change func(*flooded)) {
	if ctx.Err() != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.got)
}

// deaf fills the queue of sockets that do not read, sends pings behind it, and then reads: one pong, the answer to the last.
func (c *cluster) deaf(ctx context.Context, x *exam) error {
	n := x.n(deafSockets, len(deafWays))
	most, latest := 0, 0
	for i := range n {
		way := &deafWays[i%len(deafWays)]
		pongs, err := c.deafen(ctx, way)
		if err != nil {
			return fmt.Errorf("%s: %w", way.name, err)
		}
		x.want(len(pongs) <= 1, "%s: pongs waited for one socket: %q", way.name, pongs)
		most = max(most, len(pongs))
		if len(pongs) > 0 && pongs[len(pongs)-1] == "last" {
			latest++
		}
	}
	x.figure("%d sockets that do not read, pings behind what waits for each: most pongs for one %d, answers to the last ping %d", n, most, latest)
	x.want(latest == n, "the last ping was answered on %d of %d sockets", latest, n)
	return nil
}

// deafWay is how pings come to a socket that does not read: with each message that fills its queue, or behind the last.
type deafWay struct {
	name        string
	message     int // bytes
	with, after int // pings, within the budget in all
	atOnce      bool
}

var deafWays = []deafWay{
	{"one write each", 16 << 10, 0, 15, false},
	{"all in one write", 16 << 10, 0, 15, true},
	{"behind the message that has to wait", 60 << 10, 2, 0, true},
}

// deafMessages of any way are more than a kernel takes for a client that does not read.
const deafMessages = 100

// deafen plays w on a new socket and returns the pongs behind the message that had to wait.
func (c *cluster) deafen(ctx context.Context, w *deafWay) ([]string, error) {
	s, err := c.open(ctx, 0, request{Stream: "echo", Client: "deaf"})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(4 * answerWithin)); err != nil {
		return nil, err
	}
	taken, err := c.metric(ctx, echoedIn)
	if err != nil {
		return nil, err
	}
	fill := append(appendMasked(nil, frame.Header{Fin: true, Op: frame.Text}, make([]byte, w.message)), bytes.Join(somePings(w.with), nil)...)
	sent := 0
	for waits := false; !waits; {
		if sent == deafMessages {
			return nil, fmt.Errorf("nothing waits after %d messages of %d bytes", sent, w.message)
		}
		if _, err := s.Write(fill); err != nil {
			return nil, err
		}
		sent++
		if waits, err = c.waits(ctx, taken+sent); err != nil {
			return nil, err
		}
	}
	pings := somePings(w.after)
	if w.atOnce {
		pings = [][]byte{bytes.Join(pings, nil)}
	}
	for _, p := range pings {
		if _, err := s.Write(p); err != nil {
			return nil, err
		}
	}
	// The pings are there for the gate before anything is read: it has nothing else to do.
	if err := rest(ctx, deafQuietTime); err != nil {
		return nil, err
	}
	return s.pongsBehind(sent)
}

const (
	echoedIn      = `ticketgate_messages_total{direction="in",stream="echo"}`
	deafQuietTime = 100 * time.Millisecond
)

// somePings are n pings, the last of which says so.
func somePings(n int) (all [][]byte) {
	for i := range n {
		text := strconv.Itoa(i)
		if i == n-1 {
			text = "last"
		}
		all = append(all, appendMasked(nil, frame.Header{Fin: true, Op: frame.Ping}, []byte(text)))
	}
	return all
}

// waits reports whether bytes wait for a slow client once the node has taken messages in all.
func (c *cluster) waits(ctx context.Context, messages int) (bool, error) {
	for {
		n, err := c.metric(ctx, echoedIn)
		if err != nil {
			return false, err
		}
		if n >= messages {
			queued, err := c.metric(ctx, "ticketgate_send_queue_bytes")
			return queued > 0, err
		}
	}
}

// pongsBehind reads all that waits, and returns the pongs that came behind the nth message.
func (s *socket) pongsBehind(n int) (pongs []string, err error) {
	const end = "end"
	for {
		f, err := s.read()
		switch {
		case err != nil:
			return pongs, err
		case f.op == frame.Close:
			return pongs, fmt.Errorf("closed with %d", f.code())
		case f.op == frame.Pong && n == 0:
			pongs = append(pongs, string(f.payload))
		case f.op == frame.Text && n > 0:
			if n--; n > 0 {
				continue
			}
			if err := s.send(frame.Text, []byte(end)); err != nil {
				return pongs, err
			}
		case f.op == frame.Text && string(f.payload) == end:
			return pongs, nil
		}
	}
}
