package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"

	"ticketgate/tools/rig"
)

func init() { roles["proxy"] = runProxy }

// proxy is a process between the nodes and Redis that can be slow, cut connections and stall.
type proxy struct {
	*rig.Helper
	address string // host:port
}

// startProxy runs one in front of target, host:port, that cuts one of twenty connections each so often when it is slow.
func startProxy(ctx context.Context, seed uint64, target string, every time.Duration) (*proxy, error) {
	h, err := startRole("proxy", nil, strconv.FormatUint(seed, 10), target, every.String())
	if err != nil {
		return nil, err
	}
	p := &proxy{Helper: h}
	if err := hearing(ctx, h, "%s", &p.address); err != nil {
		return nil, errors.Join(err, h.Kill())
	}
	return p, nil
}

// passing is what a proxy has seen since it began.
type passing struct {
	pings, scripts int // commands that came from the nodes, passed on or not
	conns, cut     int // connections that came, and those that it has cut
}

// be makes p behave, and tells what it had seen before. From a round trip on, "pass" adds nothing; "slow" adds a random time of
// slowMean, more or less by half, and cuts connections; "stall" holds all back until the next call.
func (p *proxy) be(ctx context.Context, how string) (s passing, err error) {
	if err := p.Tell("%s", how); err != nil {
		return s, err
	}
	line, err := p.Hear(ctx)
	if err != nil {
		return s, err
	}
	_, err = fmt.Sscanf(line, "%d %d %d %d", &s.pings, &s.scripts, &s.conns, &s.cut)
	return s, err
}

const (
	slowMean   = 200 * time.Millisecond
	slowCut    = 0.05                   // of all connections are cut each slowPeriod, and so many new ones at once
	slowPeriod = 5 * time.Second        // nodes have one each, which they keep: 6 times in 5 minutes on the average
	cutEvery   = 100 * time.Millisecond // chance is asked about each so often
	proxyChunk = 32 << 10
	proxyHolds = 1024 // chunks a connection and direction, before its sender has to wait
)

// middleman is the proxy's own process.
type middleman struct {
	target string
	every  time.Duration // in which slowCut of all connections are cut

	mu    sync.Mutex
	rnd   *rand.Rand
	slow  bool
	open  chan struct{} // closed unless it stalls
	conns map[*pair]struct{}
	seen  passing
}

// pair is a connection on both sides.
type pair struct{ client, server *net.TCPConn }

// cut resets both sides.
func (p *pair) cut() {
	for _, c := range []*net.TCPConn{p.client, p.server} {
		_ = c.SetLinger(0) // should it fail, it is FIN: an end, too
		_ = c.Close()
	}
}

// runProxy takes connections and says where, then reads "pass", "slow" and "stall" and answers each with what it has seen. args:
// seed, target, and in which time slowCut of all connections are cut.
func runProxy(args []string, hear func() (string, bool), say func(string, ...any)) error {
	if len(args) != 3 {
		return errors.New("want: seed, target, interval")
	}
	seed, err1 := strconv.ParseUint(args[0], 10, 64)
	every, err2 := time.ParseDuration(args[2])
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	m := &middleman{target: args[1], every: every, rnd: rand.New(rand.NewPCG(seed, 46)), open: make(chan struct{}), conns: map[*pair]struct{}{}}
	close(m.open)
	say("%s", ln.Addr())
	go m.accept(ln) // these two end with the process
	go m.cutting()
	for how, more := hear(); more; how, more = hear() {
		if err := m.be(how); err != nil {
			return err
		}
		m.mu.Lock()
		say("%d %d %d %d", m.seen.pings, m.seen.scripts, m.seen.conns, m.seen.cut)
		m.mu.Unlock()
	}
	return nil
}

func (m *middleman) be(how string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	stalled := false
	select {
	case <-m.open:
	default:
		stalled = true
	}
	switch how {
	case "pass", "slow":
		m.slow = how == "slow"
		if stalled {
			close(m.open)
		}
	case "stall":
		if !stalled {
			m.open = make(chan struct{})
		}
	default:
		return fmt.Errorf("%q: want pass, slow or stall", how)
	}
	return nil
}

// chance reports true with probability p, unless all passes undisturbed.
func (m *middleman) chance(p float64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.slow && m.rnd.Float64() < p
}

func (m *middleman) accept(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go m.join(c)
	}
}

// join connects c with the target.
func (m *middleman) join(c net.Conn) {
	s, err := net.Dial("tcp", m.target)
	if err != nil {
		_ = c.Close() // as the target would
		return
	}
	client, ok := c.(*net.TCPConn)
	server, ok2 := s.(*net.TCPConn)
	if !ok || !ok2 {
		return
	}
	p := &pair{client, server}
	at := m.chance(slowCut)
	m.mu.Lock()
	m.seen.conns++
	if at {
		m.seen.cut++
	} else {
		m.conns[p] = struct{}{}
	}
	m.mu.Unlock()
	if at {
		p.cut()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { m.carry(server, client, m.count()) })
	both.Go(func() { m.carry(client, server, func([]byte) {}) })
	both.Wait()
	m.mu.Lock()
	delete(m.conns, p)
	m.mu.Unlock()
}

// cutting cuts what chance picks.
func (m *middleman) cutting() {
	for range time.Tick(cutEvery) {
		m.mu.Lock()
		for p := range m.conns {
			if m.slow && m.rnd.Float64() < slowCut*float64(cutEvery)/float64(m.every) {
				delete(m.conns, p)
				m.seen.cut++
				go p.cut()
			}
		}
		m.mu.Unlock()
	}
}

// count returns what counts the commands in one connection's bytes.
func (m *middleman) count() func(b []byte) {
	var tail []byte // of what came before: a word may lie in two pieces
	return func(b []byte) {
		all := append(tail, b...)
		m.mu.Lock()
		m.seen.pings += bytes.Count(all, []byte("$4\r\nPING\r\n"))
		m.seen.scripts += bytes.Count(all, []byte("$7\r\nEVALSHA\r\n"))
		m.mu.Unlock()
		tail = unended(all)
	}
}

// unended is the end of b in which a word that is not whole may begin.
func unended(b []byte) []byte {
	at := bytes.LastIndexByte(b, '$')
	if at < 0 || len(b)-at >= len("$7\r\nEVALSHA\r\n") || bytes.HasPrefix(b[at:], []byte("$4\r\nPING\r\n")) {
		return nil
	}
	return bytes.Clone(b[at:])
}

// piece is some bytes, and when they are due.
type piece struct {
	b  []byte
	at time.Time
}

// carry brings what comes from src to dst, in order, each piece when it is due and not while all stalls.
func (m *middleman) carry(dst, src *net.TCPConn, look func([]byte)) {
	pieces := make(chan piece, proxyHolds)
	go func() { // ends with src
		defer close(pieces)
		for {
			b := make([]byte, proxyChunk)
			n, err := src.Read(b)
			if n > 0 {
				look(b[:n])
				pieces <- piece{b[:n], time.Now().Add(m.delay())}
			}
			if err != nil {
				return
			}
		}
	}()
	var failed error
	for p := range pieces {
		if failed != nil {
			continue // until the reader has seen it
		}
		_ = rest(context.Background(), time.Until(p.at)) // it has no end but that
		m.mu.Lock()
		open := m.open
		m.mu.Unlock()
		<-open
		if _, failed = dst.Write(p.b); failed != nil {
			_ = src.Close()
		}
	}
	_ = dst.CloseWrite() // it may be closed already
}

// delay is what one direction adds: half of what a round trip has.
func (m *middleman) delay() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.slow {
		return 0
	}
	return slowMean/4 + time.Duration(m.rnd.Int64N(int64(slowMean/2)+1))
}
