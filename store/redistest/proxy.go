package redistest

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// A Proxy stands between a client and a server and makes the faults that a server cannot make on demand. Any goroutine may
// call its methods.
type Proxy struct {
	listener net.Listener
	target   string
	work     sync.WaitGroup
	quit     chan struct{} // closed at the end

	mu      sync.Mutex
	conns   map[net.Conn]struct{} // both sides of each
	delay   time.Duration
	drop    bool
	refuse  bool
	answers int // bytes that still pass from the server; then all connections are cut. -1: any number
}

// StartProxy starts a proxy of the server at target. tb's cleanup ends it.
func StartProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{listener: l, target: target, quit: make(chan struct{}), conns: make(map[net.Conn]struct{}), answers: -1}
	p.work.Go(p.accept)
	tb.Cleanup(func() {
		close(p.quit)
		_ = l.Close() // all that it may say is that it is closed
		p.Cut()
		p.work.Wait()
	})
	return p
}

// Addr is host:port where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Delay holds all that comes from either side back for d.
func (p *Proxy) Delay(d time.Duration) { p.set(func() { p.delay = d }) }

// Drop swallows all that comes from either side, with connections left open.
func (p *Proxy) Drop(on bool) { p.set(func() { p.drop = on }) }

// Refuse closes new connections at once.
func (p *Proxy) Refuse(on bool) { p.set(func() { p.refuse = on }) }

// CutAfter cuts all connections when the server has sent n more bytes.
func (p *Proxy) CutAfter(n int) { p.set(func() { p.answers = n }) }

func (p *Proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// Cut closes all connections that are open now.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut()
}

func (p *Proxy) cut() {
	for c := range p.conns {
		_ = c.Close() // the other end may have been faster
	}
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.work.Go(func() { p.serve(c) })
	}
}

// serve is one client.
func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.DialTimeout("tcp", p.target, time.Second)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.enter(client, server) {
		return
	}
	defer p.leave(client, server)
	var up sync.WaitGroup
	up.Go(func() {
		defer server.Close()
		p.pass(server, client, false)
	})
	p.pass(client, server, true)
	_ = client.Close() // ends the other direction
	up.Wait()
}

func (p *Proxy) enter(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.quit:
		return false
	default:
	}
	for _, c := range conns {
		p.conns[c] = struct{}{}
	}
	return !p.refuse
}

func (p *Proxy) leave(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

// pass copies from src to dst until either ends.
func (p *Proxy) pass(dst io.Writer, src io.Reader, answers bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if err != nil {
			return
		}
		n, delay, end := p.verdict(n, answers)
		if delay > 0 {
			select {
			case <-time.After(delay):
			case <-p.quit:
				return
			}
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return
		}
		if end {
			p.Cut()
			return
		}
	}
}

// verdict tells how much of n bytes passes, after what time, and whether everything ends with it.
func (p *Proxy) verdict(n int, answers bool) (pass int, delay time.Duration, end bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.drop:
		return 0, 0, false
	case !answers || p.answers < 0:
		return n, p.delay, false
	case n < p.answers:
		p.answers -= n
		return n, p.delay, false
	}
	n, p.answers = p.answers, -1
	return n, p.delay, true
}
