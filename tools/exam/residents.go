package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/tools/rig"
)

func init() {
	roles["residents"] = runResidents
	roles["station"] = runStation
}

// residents is a process of clients.
type residents struct {
	*rig.Helper
}

// startResidents runs one, whose sockets are of stream at node i and numbered from first on.
func (c *cluster) startResidents(i int, stream string, first int) (*residents, error) {
	h, err := startRole("residents", nil, c.nodes[i].Handshake, c.nodes[i].Gate, c.key.Text, stream, strconv.Itoa(first))
	if err != nil {
		return nil, err
	}
	return &residents{h}, nil
}

// open makes them n.
func (r *residents) open(ctx context.Context, n int) error {
	var have int
	if err := r.Tell("open %d", n); err != nil {
		return err
	}
	return hearing(ctx, r.Helper, "open %d", &have)
}

// steadyAsk tells h to do something, and reads its figures.
func steadyAsk(ctx context.Context, h *rig.Helper, what string) (*steadyFigures, error) {
	if err := h.Tell("%s", what); err != nil {
		return nil, err
	}
	line, err := h.Hear(ctx)
	if err != nil {
		return nil, err
	}
	f := new(steadyFigures)
	if err := json.Unmarshal([]byte(line), f); err != nil {
		return nil, fmt.Errorf("figures %q: %w", line, err)
	}
	return f, nil
}

// steadyMark says it.
func steadyMark(say func(string, ...any), b *steadyBook) error {
	text, err := json.Marshal(b.mark())
	say("%s", text)
	return err
}

// runResidents opens sockets and lets them talk. At "open N" it makes them N and says so, at "mark" it says what has come since the
// last mark, and at "end" all say their last, hear the other side out, and it tells the rest. args: handshake, gate, key, stream,
// the first number.
func runResidents(args []string, hear func() (string, bool), say func(string, ...any)) error {
	if len(args) != 5 {
		return errors.New("want: handshake, gate, key, stream, first")
	}
	first, err := strconv.Atoi(args[4])
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	r := &residence{handshake: args[0], gate: args[1], key: args[2], stream: args[3], first: first, ctx: ctx}
	for line, more := hear(); more; line, more = hear() {
		switch n, err := strconv.Atoi(strings.TrimPrefix(line, "open ")); {
		case err == nil:
			if err := r.grow(n); err != nil {
				return err
			}
			say("open %d", n)
			continue
		case line == "end":
			stop()
			r.talks.Wait()
		}
		if err := steadyMark(say, &r.book); err != nil {
			return err
		}
	}
	return nil
}

// residence is the clients' own process.
type residence struct {
	handshake, gate, key, stream string

	first int
	have  int
	book  steadyBook
	ctx   context.Context // of the talks
	talks sync.WaitGroup
}

// grow opens sockets until there are n.
func (r *residence) grow(n int) error {
	web := newHTTP(64)
	defer web.CloseIdleConnections()
	var failed atomic.Pointer[error]
	each(make([]struct{}, max(0, n-r.have)), openAtOnce, func(i int, _ struct{}) {
		i += r.have
		var s *socket
		err := patiently(func() error {
			t, err := rig.Issue(context.Background(), web, r.handshake, r.key, request{Stream: r.stream, Client: "resident" + strconv.Itoa(r.first+i)})
			if err == nil {
				s, err = dialRaw(context.Background(), r.gate, t)
			}
			return err
		})
		if err != nil {
			err = fmt.Errorf("resident %d: %w", r.first+i, err)
			failed.CompareAndSwap(nil, &err)
			return
		}
		r.talks.Go(func() { r.talk(s, uint64(r.first+i), steadyEvery*time.Duration(i)/time.Duration(n)) })
	})
	r.have = max(r.have, n)
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// patiently does f again while it is turned away with 503, as a busy machine does without any other reason, for a while.
func patiently(f func() error) error {
	for until := time.Now().Add(2 * answerWithin); ; {
		err := f()
		if !turnedAway(err) || time.Now().After(until) || rest(context.Background(), sampleEvery) != nil {
			return err
		}
	}
}

// talk says who it is, and then something each second, until all is over.
func (r *residence) talk(s *socket, number uint64, first time.Duration) {
	e := &steadyEnd{socket: s, number: number, by: fromClient, book: &r.book}
	heard := make(chan error, 1)
	go func() {
		err := e.hear(0)
		if err != nil {
			_ = s.Close() // nobody reads any more: who writes must not wait for that
		}
		heard <- err
	}()
	err := e.say(0)
	if err == nil {
		e.keepOn(r.ctx, first)
		_ = s.SetReadDeadline(time.Now().Add(talkEnds)) // should that fail, so does the reading
		err = e.end()
	}
	if why := <-heard; why != nil { // that it could not write any more follows
		r.book.gone(number, why)
	} else if err != nil {
		r.book.gone(number, err)
	}
	_ = s.Close()
}

// runStation is the backend: it answers each socket's first message with talk of its own, says its address at its begin, and at each
// line what has come since the last.
func runStation(_ []string, hear func() (string, bool), say func(string, ...any)) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	say("%s", ln.Addr())
	var book steadyBook
	go func() { // ends with the process
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go receive(c, &book)
		}
	}()
	for _, more := hear(); more; _, more = hear() {
		if err := steadyMark(say, &book); err != nil {
			return err
		}
	}
	return nil
}

// receive talks to one client, whom its first message names, until it has said all. How sockets are lost the clients tell.
func receive(c net.Conn, book *steadyBook) {
	defer c.Close()
	s, err := acceptRaw(c)
	if err != nil {
		return
	}
	f, err := s.read()
	if err != nil || len(f.payload) != steadySize {
		return
	}
	now := shared()
	number, err := strconv.ParseUint(string(f.payload[:16]), 16, 64)
	if err != nil {
		return
	}
	e := &steadyEnd{socket: s, number: number, by: fromBackend, book: book}
	heard := book.heard(number, 0, f.payload, now)
	ctx, stop := context.WithCancel(context.Background())
	var talks sync.WaitGroup
	talks.Go(func() { e.keepOn(ctx, steadyEvery/2) }) // half a second after the client
	err = e.hear(heard)
	stop()
	if err != nil {
		_ = c.Close() // who writes must not wait for a client that does not read
	}
	talks.Wait()
	if err == nil {
		_ = e.end() // should that fail, the client misses it
	}
}

// steady are all processes of residents and their backend.
type steady struct {
	station   *rig.Helper
	residents []*residents
	baseline  time.Duration // B: the p99 of a message before anything is wrong
}

// startStation runs the backend, whose address the nodes must know first.
func startStation(ctx context.Context) (s *steady, url string, err error) {
	h, err := startRole("station", nil)
	if err != nil {
		return nil, "", err
	}
	var address string
	if err := hearing(ctx, h, "%s", &address); err != nil {
		return nil, "", errors.Join(err, h.Kill())
	}
	return &steady{station: h}, "ws://" + address + "/", nil
}

// settle opens honestSockets at all nodes together, measures B beside admissions, and then makes the sockets n.
func (s *steady) settle(ctx context.Context, x *exam, c *cluster, n int, admit func(context.Context) *admissions) error {
	for i := range c.nodes {
		r, err := c.startResidents(i, "relay", i*n)
		if err != nil {
			return err
		}
		s.residents = append(s.residents, r)
	}
	few := min(n, x.n(honestSockets, 50))
	if err := s.open(ctx, few); err != nil {
		return err
	}
	var all []time.Duration
	a := admit(ctx)
	defer a.end()
	for range baselineRuns {
		if _, err := s.ask(ctx, "mark"); err != nil {
			return err
		}
		if err := rest(ctx, x.lasting(baselineTime)/x.shorter()); err != nil {
			return err
		}
		f, err := s.ask(ctx, "mark")
		if err != nil {
			return err
		}
		if f.wrong() > 0 {
			return fmt.Errorf("before anything was wrong: %v: %q", f, f.Samples)
		}
		all = append(all, f.P99)
	}
	slices.Sort(all)
	s.baseline = all[len(all)/2]
	x.figure("B: %d relayed sockets, both ways, %d admissions a second, p99 of a message %v", few, a.rate, s.baseline.Round(time.Microsecond))
	if err := s.open(ctx, n); err != nil {
		return err
	}
	_, err := s.ask(ctx, "mark")
	return err
}

// shorter is by how much a measurement of its own is cut in a short exam.
func (x *exam) shorter() time.Duration {
	if x.size < 0.1 {
		return 4
	}
	return 1
}

// open makes the sockets of all processes n together.
func (s *steady) open(ctx context.Context, n int) error {
	for i, r := range s.residents {
		if err := r.open(ctx, n*(i+1)/len(s.residents)-n*i/len(s.residents)); err != nil {
			return err
		}
	}
	return nil
}

// ask gives all processes a line, the backend "mark", and adds up their figures.
func (s *steady) ask(ctx context.Context, what string) (*steadyFigures, error) {
	all := new(steadyFigures)
	for _, r := range s.residents {
		f, err := steadyAsk(ctx, r.Helper, what)
		if err != nil {
			return nil, err
		}
		all.add(f)
	}
	f, err := steadyAsk(ctx, s.station, "mark")
	if err != nil {
		return nil, err
	}
	all.add(f)
	return all, nil
}

// judge takes what residents have seen since the last mark, and wants that nothing is lost and the p99 is at most times B, or B and
// baselineRoom.
func (s *steady) judge(ctx context.Context, x *exam, name string, times float64) error {
	f, err := s.ask(ctx, "mark")
	if err != nil {
		return err
	}
	x.figure("residents, %s: %v", name, f)
	x.want(f.wrong() == 0, "residents, %s: %v", name, f)
	for _, sample := range f.Samples {
		x.want(false, "%s", sample)
	}
	limit := max(time.Duration(times*float64(s.baseline)), s.baseline+baselineRoom)
	x.wantTime(f.P99 <= limit, "residents, %s: p99 %v, want at most %v", name, f.P99, limit)
	return nil
}

// end lets all say their last, and wants that nothing is missing.
func (s *steady) end(ctx context.Context, x *exam) error {
	f, err := s.ask(ctx, "end")
	if err != nil {
		return err
	}
	x.want(f.wrong() == 0, "residents, at the end: %v", f)
	for _, sample := range f.Samples {
		x.want(false, "%s", sample)
	}
	return nil
}

// kill ends the processes.
func (s *steady) kill() {
	for _, r := range s.residents {
		_ = r.Kill() // it has told all it has to tell
	}
	_ = s.station.Kill()
}
