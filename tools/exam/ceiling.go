package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/tools/rig"
)

func init() {
	tests[41] = test{"memory ceiling: newcomers refused, then the largest cut, never killed, soon as before", memoryCeiling}
	roles["greedy"] = greedyClients
}

const (
	ceiling       = 1 << 30
	ceilingLeast  = 256 << 20 // of which a gateway that does nothing needs a part
	greedyHolds   = 1 << 20   // bytes that each greedy client wants the gateway to hold
	greedyRamp    = 20 * time.Second
	greedyStays   = 20 * time.Second
	ceilingNormal = 10 * time.Second // after the load has ended
	ceilingRefuse = 0.85 - 0.03      // from 85 % on, until it is 3 % less
	ceilingProbe  = 100 * time.Millisecond
	sipSize       = 32 << 10 // what half of them read in a second, so that they are not taken for dead
)

// ceilingYAML lets the budgets for queues and for messages under way be more together than the memory is: what they would
// refuse by themselves is not what is examined here.
const ceilingYAML = "memory: { limit: %dB, outbound: 80%% }\nwebsocket: { max_message: 2MiB, queue: 4MiB, assembly: 1m }\n"

// memoryCeiling lets clients that are in already ask for twice the memory there is.
func memoryCeiling(ctx context.Context, x *exam) error {
	limit := int64(max(ceilingLeast, x.n(ceiling, 0)))
	c, err := start(ctx, x, clusterOptions{memory: true, yaml: fmt.Sprintf(ceilingYAML, limit)})
	if err != nil {
		return err
	}
	n := c.nodes[0]
	how, release, err := confine(n.PID(), limit)
	defer func() {
		x.want(errors.Join(c.close(), release()) == nil, "the node did not stop")
	}()
	if err != nil {
		return err
	}
	x.figure("limit %d MiB, %s", limit>>20, how)
	greedy, err := startRole("greedy", nil, n.Handshake, n.Gate, c.key.Text, strconv.Itoa(int(2*limit/greedyHolds)))
	if err != nil {
		return err
	}
	var open int
	if err := hearing(ctx, greedy, "open %d", &open); err != nil {
		return errors.Join(err, greedy.Kill())
	}
	peak, stop := watchMemory(n.PID())
	if err := greedy.Tell("go"); err != nil {
		return err
	}
	seen, err := c.watchCeiling(ctx, greedyRamp+x.lasting(greedyStays))
	last, ended := greedy.Stop()
	over := time.Now()
	if err := alive(ctx, n); err != nil {
		return err
	}
	if err := errors.Join(err, ended); err != nil {
		return err
	}
	back, err := c.backToNormal(ctx)
	stop()
	x.figure("%d clients that would hold %d MiB: %s", open, open*greedyHolds>>20, strings.Join(last, ", "))
	x.figure("resident memory %.0f %% of the limit at its peak; newcomers refused from %v on, residents cut from %v on: %.0f of them, %.0f of them slow; %.0f MiB were cut",
		100*float64(peak.Load())/float64(limit), seen.refused.Round(time.Millisecond), seen.cut.Round(time.Millisecond), seen.cuts, seen.slow, seen.bytes/(1<<20))
	x.figure("in use when newcomers were refused: %.0f %%, and when the first resident had been cut: %.0f %%", 100*seen.refusedAt, 100*seen.cutAt)
	x.figure("ends: %s", strings.Join(seen.ends, ", "))
	x.figure("tickets refused %d, upgrades refused %d; back to normal %v after the load", seen.tickets, seen.upgrades, back.Sub(over).Round(time.Millisecond))
	x.want(err == nil, "after the load: %v", err)
	x.want(seen.refused > 0 && seen.tickets > 0 && seen.upgrades > 0, "newcomers were not refused: %d tickets, %d upgrades", seen.tickets, seen.upgrades)
	x.want(seen.refusedAt >= ceilingRefuse, "newcomers were refused at %.0f %% already", 100*seen.refusedAt)
	x.want(seen.cut > 0 && seen.bytes > 0, "nobody was cut")
	x.wantTime(seen.cut == 0 || seen.refused <= seen.cut, "residents were cut %v after the begin, newcomers refused only after %v", seen.cut, seen.refused)
	x.wantMemory(peak.Load() <= limit, "resident memory %d bytes of %d", peak.Load(), limit)
	x.wantTime(back.Sub(over) <= ceilingNormal, "back to normal after %v", back.Sub(over))
	return nil
}

// alive tells how a node has ended, if it has.
func alive(ctx context.Context, n *rig.Node) error {
	ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if err := n.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the node is gone: %w\n%s", err, n.Log())
	}
	return nil
}

// pinch is what was seen of a node that ran out of memory.
type pinch struct {
	refused, cut      time.Duration // from the begin to the first, 0: none
	tickets, upgrades int           // refused for want of memory
	refusedAt, cutAt  float64       // what was used then, of the limit
	bytes             float64       // that those held who were cut
	cuts, slow        float64       // residents closed with 1013; those whose queue it was
	ends              []string      // how sockets ended, and how many so
}

// watchCeiling asks for a ticket and an upgrade every now and then until d is over.
func (c *cluster) watchCeiling(ctx context.Context, d time.Duration) (p pinch, err error) {
	begun := time.Now()
	t := time.NewTicker(ceilingProbe)
	defer t.Stop()
	for time.Since(begun) < d {
		select {
		case <-t.C:
		case <-ctx.Done():
			return p, ctx.Err()
		}
		s, err := c.samples(ctx)
		if err != nil {
			return p, fmt.Errorf("the node does not tell its figures: %w", err)
		}
		p.cuts = s[`ticketgate_connections_closed_total{by="gateway",code="1013",stream="echo"}`]
		p.ends = ends(s)
		p.bytes = s["ticketgate_memory_cut_bytes_total"]
		p.slow = s[`ticketgate_slow_consumer_total{action="cut",stream="echo"}`]
		if p.refused == 0 && s["ticketgate_memory_state"] > 0 {
			p.refused, p.refusedAt = time.Since(begun), s["ticketgate_memory_used_bytes"]/s["ticketgate_memory_limit_bytes"]
		}
		if p.cut == 0 && p.cuts > 0 {
			p.cut, p.cutAt = time.Since(begun), s["ticketgate_memory_used_bytes"]/s["ticketgate_memory_limit_bytes"]
		}
		if no := (*rig.Refused)(nil); errors.As(c.newcomer(ctx), &no) && no.Status == http.StatusServiceUnavailable && no.Problem() == "overloaded" {
			p.tickets++
		}
		p.upgrades = int(rejections(s, "memory"))
		if a, err := rig.Exchange(ctx, c.nodes[0].Gate, []byte(rig.Head("gate.test", "/t/nobody", ""))); err != nil || len(a) == 0 {
			return p, fmt.Errorf("the gate does not answer: %w", errors.Join(err, io.ErrUnexpectedEOF))
		}
	}
	return p, nil
}

// ends are the counts of closed sockets, by who began it and the code.
func ends(samples map[string]float64) (all []string) {
	for _, name := range slices.Sorted(maps.Keys(samples)) {
		if labels, ok := strings.CutPrefix(name, "ticketgate_connections_closed_total"); ok {
			all = append(all, fmt.Sprintf("%s %.0f", labels, samples[name]))
		}
	}
	return all
}

// newcomer asks for a ticket.
func (c *cluster) newcomer(ctx context.Context) error {
	_, err := c.issue(ctx, 0, request{Stream: "echo", Client: "newcomer" + strconv.FormatInt(time.Now().UnixNano(), 36)})
	return err
}

// backToNormal waits until somebody new is let in, and returns when that was.
func (c *cluster) backToNormal(ctx context.Context) (time.Time, error) {
	until := time.Now().Add(2 * ceilingNormal)
	t := time.NewTicker(ceilingProbe)
	defer t.Stop()
	for {
		s, err := c.open(ctx, 0, request{Stream: "echo", Client: "late"})
		if err == nil {
			return time.Now(), s.Close()
		}
		select {
		case <-t.C:
			if time.Now().After(until) {
				return time.Now(), err
			}
		case <-ctx.Done():
			return time.Now(), ctx.Err()
		}
	}
}

// confine puts a process into a control group of its own with so much memory, where this machine lets us, and says how.
// release removes the group once the process has ended.
func confine(pid int, bytes int64) (how string, release func() error, err error) {
	for _, v := range []struct{ root, limit, name string }{
		{"/sys/fs/cgroup", "memory.max", "control group version 2"},
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "control group version 1"},
	} {
		dir := filepath.Join(v.root, "ticketgate-exam-"+strconv.Itoa(pid))
		if os.Mkdir(dir, 0o750) != nil {
			continue
		}
		release := func() error { return os.Remove(dir) }
		_, err := os.Stat(filepath.Join(dir, v.limit)) // the controller may be elsewhere
		if err == nil {
			err = errors.Join(os.WriteFile(filepath.Join(dir, v.limit), []byte(strconv.FormatInt(bytes, 10)), 0o644),
				os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644))
		}
		if err == nil {
			return "held to it by a " + v.name, release, nil
		}
		if err := errors.Join(err, release()); !errors.Is(err, fs.ErrNotExist) {
			return "", func() error { return nil }, err
		}
	}
	return "which is only watched: this machine lets us have no control group", func() error { return nil }, nil
}

// greed is a crowd of clients that let the gateway hold as much as it will.
type greed struct {
	handshake, gate, key string
	http                 *http.Client
	message, echo        []byte // what half of them send, and what the others send again and again

	went                         chan struct{} // closed at "go"
	done                         sync.WaitGroup
	told, reset, otherwise, full atomic.Int64
}

// greedyClients opens sockets, says how many, and from "go" on lets each be a burden, one after the other; who is cut comes
// back. args: handshake, gate, key, number.
func greedyClients(args []string, hear func() (string, bool), say func(string, ...any)) error {
	n, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	g := &greed{handshake: args[0], gate: args[1], key: args[2], http: newHTTP(64), went: make(chan struct{})}
	g.message = framed(frame.Header{Op: frame.Binary}, greedyHolds)
	g.echo = framed(frame.Header{Fin: true, Op: frame.Binary}, 64<<10)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	sockets := make([]*socket, n)
	var failed atomic.Pointer[error]
	each(sockets, openAtOnce, func(i int, _ *socket) {
		s, err := g.open(ctx, i)
		if err != nil {
			failed.CompareAndSwap(nil, &err)
			return
		}
		sockets[i] = s
	})
	if err := failed.Load(); err != nil {
		return *err
	}
	for i, s := range sockets {
		turn := i / 2 // first all who begin a message: they stop at their own budget, those with queues would find the memory full
		if i%2 != 0 {
			turn += n / 2
		}
		g.done.Go(func() { g.burden(ctx, i, s, greedyRamp*time.Duration(turn)/time.Duration(n)) })
	}
	say("open %d", n)
	for line, more := hear(); more; line, more = hear() {
		if line == "go" {
			close(g.went)
		}
	}
	stop()
	g.done.Wait()
	say("closed with 1013 %d", g.told.Load())
	say("reset %d", g.reset.Load())
	say("closed otherwise %d", g.otherwise.Load())
	say("refused when they came back %d", g.full.Load())
	return nil
}

func framed(h frame.Header, n int) []byte {
	h.Masked, h.Len = true, int64(n) // the mask is 0: the payload stands as it is
	return append(frame.Append(nil, h), make([]byte, n)...)
}

func (g *greed) open(ctx context.Context, i int) (*socket, error) {
	t, err := rig.Issue(ctx, g.http, g.handshake, g.key, request{Stream: "echo", Client: "greedy" + strconv.Itoa(i)})
	if err != nil {
		return nil, err
	}
	s, err := dialRaw(ctx, g.gate, t)
	if err != nil {
		return nil, err
	}
	c, ok := s.Conn.(*net.TCPConn)
	if !ok {
		return nil, errors.New("not a TCP connection")
	}
	// What the clients' kernel takes is not the gateway's memory, and all of it together more than the kernel gives.
	return s, errors.Join(c.SetReadBuffer(2*sipSize), c.SetWriteBuffer(2*sipSize))
}

// burden is one client: from its turn on it sends until nobody takes more, is cut, and comes back.
func (g *greed) burden(ctx context.Context, i int, s *socket, turn time.Duration) {
	select {
	case <-g.went:
	case <-ctx.Done():
	}
	_ = rest(ctx, turn)
	for ctx.Err() == nil {
		if s == nil {
			var err error
			if s, err = g.open(ctx, i); err != nil {
				g.full.Add(1)
				s = nil
				_ = rest(ctx, time.Second)
				continue
			}
		}
		g.load(ctx, i, s)
		s = nil
	}
	if s != nil {
		_ = s.Close()
	}
}

// load sends on s and waits for its end. Half of the clients begin a message and do not end it; half hardly read what comes
// back.
func (g *greed) load(ctx context.Context, i int, s *socket) {
	defer s.Close()
	end := context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })
	defer end()
	var err error
	told := false
	if i%2 == 0 {
		told, err = g.begin(s)
	} else {
		err = g.sip(ctx, s)
	}
	switch {
	case ctx.Err() != nil:
	case told:
		g.told.Add(1)
	case err != nil:
		g.reset.Add(1)
	default:
		g.otherwise.Add(1)
	}
}

// begin sends all but the end of a message and waits; told: it was closed with 1013.
func (g *greed) begin(s *socket) (told bool, err error) {
	if _, err := s.Write(g.message[:len(g.message)-1]); err != nil {
		return false, err
	}
	for {
		f, err := s.read()
		if err != nil || f.op == frame.Close {
			return err == nil && f.code() == frame.CloseOverloaded, err
		}
	}
}

// sip sends messages for as long as they are taken, and every second takes a little of their echoes.
func (g *greed) sip(ctx context.Context, s *socket) error {
	sent := make(chan error, 1)
	go func() { // ends when the socket does
		var err error
		for err == nil {
			_, err = s.Write(g.echo)
		}
		sent <- err
	}()
	some := make([]byte, sipSize)
	var err error
	for err == nil && rest(ctx, time.Second) == nil {
		_, err = io.ReadFull(s.Conn, some)
	}
	return errors.Join(err, s.Close(), <-sent)
}
