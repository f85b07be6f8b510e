package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
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
	tests[38] = test{"descriptor exhaustion: residents lose nothing, the loops rest, accepting resumes", fullOfFiles}
}

const (
	filesLimit   = 2000
	filesHonest  = 1000
	filesFlood   = 3000
	filesHeld    = 60 * time.Second
	filesCPU     = 0.25 // of one core while full
	filesResume  = time.Second
	honestEvery  = time.Second
	ticksASecond = 100 // USER_HZ of /proc on every Linux that Go runs on
	floodSources = 20  // loopback addresses that the flood comes from
)

// fullOfFiles gives a node few descriptors, fills them, and looks after those who were there before.
func fullOfFiles(ctx context.Context, x *exam) error {
	c, err := start(ctx, x, clusterOptions{limit: filesLimit})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "the node did not stop") }()
	n := c.nodes[0]
	sockets, err := c.openMany(ctx, filesHonest, "echo")
	defer closeAll(sockets)
	if err != nil {
		return err
	}
	held := filesHeld
	if x.duration > 0 {
		held = x.duration
	}
	talking, stop := context.WithCancel(ctx)
	defer stop()
	honest := talk(talking, sockets)

	flood := gather(ctx, n.Gate, filesFlood)
	defer flood.leave()
	before, begun := cpuSeconds(n.PID()), time.Now()
	admin, tickets, logs := 0, 0, 0
	var around []int64       // connections that say nothing, at each look: those that are cut off come again, and sometimes many are cut off at once
	var late []time.Duration // what newcomers with a ticket waited until they were in
	tick := time.NewTicker(held / 10)
	for range 10 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return ctx.Err()
		}
		if err := c.readyz(ctx); err == nil {
			admin++
		}
		if _, err := c.issue(ctx, 0, request{Stream: "echo", Client: "late"}); err == nil {
			tickets++
		}
		if no := (*rig.Refused)(nil); errors.As(c.nobody(ctx), &no) && n.Logged(ctx, no.Request()) {
			logs++
		}
		around = append(around, flood.open.Load())
		asked := time.Now()
		if s, err := c.open(ctx, 0, request{Stream: "echo", Client: "newcomer"}); err == nil {
			late = append(late, time.Since(asked))
			_ = s.Close()
		} else {
			x.figure("a newcomer was not let in after %v: %v", time.Since(asked).Round(time.Millisecond), err)
		}
	}
	tick.Stop()
	busy := (cpuSeconds(n.PID()) - before) / time.Since(begun).Seconds()
	open, most := openFiles(n.PID()), slices.Sorted(slices.Values(around))[len(around)/2]
	flood.leave()
	released := time.Now()
	resumed, err := c.accepts(ctx)
	x.want(err == nil, "after the release: %v", err)
	stop()
	honest.wait()
	x.figure("%d honest sockets: %d messages answered, %d lost, %d sockets lost", len(sockets), honest.answered.Load(), honest.lost.Load(), honest.gone.Load())
	x.figure("%d more connections held %v: descriptors %d of %d, cpu %.0f %% of a core, admin answered %d of 10, tickets issued %d of 10, refusals logged %d of 10",
		most, held, open, filesLimit, 100*busy, admin, tickets, logs)
	x.figure("connections that said nothing, in all: %d", flood.made.Load())
	x.figure("newcomers with a ticket let in meanwhile: %d of 10, the slowest after %v", len(late), slices.Max(append(late, 0)).Round(time.Millisecond))
	x.want(len(late) == 10, "only %d of 10 newcomers with a ticket were let in", len(late))
	x.want(most >= filesFlood*9/10, "only %d connections were held, in the middle of 10 looks", most)
	x.figure("first socket opened %v after the release", resumed.Sub(released).Round(time.Millisecond))
	x.want(honest.lost.Load() == 0 && honest.gone.Load() == 0, "%d messages and %d sockets lost", honest.lost.Load(), honest.gone.Load())
	x.wantTime(busy < filesCPU, "cpu %.0f %% of a core while full, want under %.0f %%", 100*busy, 100*filesCPU)
	x.wantTime(resumed.Sub(released) <= filesResume, "accepting resumed after %v", resumed.Sub(released))
	x.want(admin == 10 && tickets == 10 && logs == 10, "of 10 times admin answered %d, tickets were issued %d and refusals logged %d", admin, tickets, logs)
	return nil
}

// crowd keeps n connections that say nothing: whenever one is closed it opens another. What the gate does not accept waits
// in its backlog, which is a connection for the client.
type crowd struct {
	stop context.CancelFunc
	done sync.WaitGroup
	open atomic.Int64
	made atomic.Int64
}

func gather(ctx context.Context, gate string, n int) *crowd {
	ctx, stop := context.WithCancel(ctx)
	c := &crowd{stop: stop}
	for i := range n {
		c.done.Go(func() {
			d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%floodSources))}}
			for ctx.Err() == nil {
				c.hold(ctx, &d, gate)
			}
		})
	}
	return c
}

// hold opens one connection and keeps it until either side ends it.
func (c *crowd) hold(ctx context.Context, d *net.Dialer, gate string) {
	conn, err := d.DialContext(ctx, "tcp", gate)
	if err != nil {
		return
	}
	c.made.Add(1)
	c.open.Add(1)
	defer c.open.Add(-1)
	end := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer end()
	_, _ = io.Copy(io.Discard, conn) // until it is closed
	_ = conn.Close()
}

// leave ends all connections.
func (c *crowd) leave() {
	c.stop()
	c.done.Wait()
}

// nobody asks for a stream that there is not.
func (c *cluster) nobody(ctx context.Context) error {
	_, err := c.issue(ctx, 0, request{Stream: "nothing", Client: "nobody"})
	return err
}

// readyz asks the admin address, on a connection of its own.
func (c *cluster) readyz(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.nodes[0].Admin+"/readyz", nil)
	if err != nil {
		return err
	}
	r.Close = true
	a, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	_, err = io.Copy(io.Discard, a.Body)
	if a.StatusCode != http.StatusOK {
		return errors.Join(err, errors.New(a.Status))
	}
	return err
}

// accepts opens sockets until one is let in, and returns when that was.
func (c *cluster) accepts(ctx context.Context) (time.Time, error) {
	until := time.Now().Add(10 * time.Second)
	for i := 0; ; i++ {
		s, err := c.open(ctx, 0, request{Stream: "echo", Client: "after" + strconv.Itoa(i)})
		if err == nil {
			return time.Now(), s.Close()
		}
		if time.Now().After(until) {
			return time.Now(), err
		}
	}
}

// talkers are honest sockets that say something every second and want it back.
type talkers struct {
	answered, lost, gone atomic.Int64
	done                 sync.WaitGroup
}

// talk lets every socket echo a numbered message each second, spread over it, until ctx ends.
func talk(ctx context.Context, sockets []*socket) *talkers {
	t := new(talkers)
	for i, s := range sockets {
		t.done.Go(func() { t.one(ctx, i, len(sockets), s) })
	}
	return t
}

func (t *talkers) wait() { t.done.Wait() }

func (t *talkers) one(ctx context.Context, i, of int, s *socket) {
	first := time.NewTimer(honestEvery * time.Duration(i) / time.Duration(of))
	defer first.Stop()
	select {
	case <-first.C:
	case <-ctx.Done():
		return
	}
	every := time.NewTicker(honestEvery)
	defer every.Stop()
	for n := 0; ; n++ {
		switch err := s.echo(fmt.Sprintf("socket %d message %d", i, n)); {
		case err == nil:
			t.answered.Add(1)
		case errors.Is(err, errLost):
			t.lost.Add(1)
		default:
			t.gone.Add(1)
			return
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}

var errLost = errors.New("another message came back, or none")

// echo sends text and waits for it.
func (s *socket) echo(text string) error {
	if err := s.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if err := s.send(frame.Text, []byte(text)); err != nil {
		return err
	}
	for {
		f, err := s.read()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return errLost
		case err != nil:
			return err
		case f.op == frame.Ping:
			if err := s.send(frame.Pong, f.payload); err != nil {
				return err
			}
		case f.op == frame.Text && string(f.payload) == text:
			return nil
		case f.op == frame.Close:
			return fmt.Errorf("closed with %d", f.code())
		default:
			return errLost
		}
	}
}

// send writes one masked frame.
func (s *socket) send(op frame.Op, payload []byte) error {
	h := frame.Header{Fin: true, Op: op}
	if s.packs && !op.Control() {
		h.Rsv, payload = frame.RSV1, pack(payload)
	}
	_, err := s.Write(appendMasked(nil, h, payload))
	return err
}

// cpuSeconds is the processor time that a process has used; 0 if it is gone.
func cpuSeconds(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name may have spaces
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / ticksASecond
}

// openFiles is how many descriptors a process has; 0 if it is gone.
func openFiles(pid int) int {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0
	}
	return len(list)
}
