package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

func init() {
	tests[40] = test{"header bombs: refused as soon as the limit is passed, little memory and time, no login", headerBombs}
}

const (
	headBombs     = 5000
	headBombsHTTP = 4000 // at a time at the ticket endpoint, which takes 4,096 connections
	headWithin    = 100 * time.Millisecond
	headMemory    = 32 << 10 // of a connection
	headCPU       = 0.001    // seconds of a connection
	headLimit     = 16 << 10
	headLines     = 100
	targetLimit   = 8000
)

// headBomb is a head that is too much.
type headBomb struct {
	name    string
	raw     string
	allowed int // so many of its bytes may still be the begin of a good head
	over    int // with so many of them it is none any more
	status  int
}

// headBombsFor are the bombs for a target at host.
func headBombsFor(method, target, host string) []headBomb {
	begin := method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n"
	size := func(name, raw string) headBomb {
		return headBomb{name, raw + "\r\n\r\n", headLimit, headLimit + 1, 431}
	}
	lines := func(name string, n int, line string) headBomb { // the end of the 101st is what is too much
		over := len(begin) + headLines*len(line)
		return headBomb{name, begin + strings.Repeat(line, n) + "\r\n", over - 1, over, 431}
	}
	line := func(name, target string) headBomb { // longer than the longest line of any method
		allowed := len(method) + len(" ") + targetLimit
		return headBomb{name, method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n", allowed, targetLimit + len("OPTIONS  HTTP/1.1\r\n") + 1, 414}
	}
	return []headBomb{
		size("16 KiB and a byte", begin+"X: "+strings.Repeat("x", headLimit)),
		size("one header of 1 MiB", begin+"X-Long: "+strings.Repeat("x", 1<<20)),
		size("huge cookie", begin+"Cookie: "+strings.Repeat("session=0123456789abcdef; ", 4000)),
		lines("101 headers", headLines, "X: y\r\n"),
		lines("100,000 tiny headers", 100_000, "a:\r\n"),
		line("target of 9,000 bytes", target+strings.Repeat("x", 9000-len(target))),
		line("10,000 query parameters", target+"?"+strings.Repeat("a=b&", 10_000)),
	}
}

// headerBombs throws them at both doors.
func headerBombs(ctx context.Context, x *exam) error {
	c, err := start(ctx, x, clusterOptions{memory: true})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "the node did not stop") }()
	n := c.nodes[0]
	for _, door := range []struct {
		name, address string
		bombs         []headBomb
		atOnce        int
	}{
		{"gate", n.Gate, headBombsFor("GET", "/t/"+strings.Repeat("x", 40), "gate.test"), x.n(headBombs, 70)},
		{"ticket endpoint", n.Handshake, headBombsFor("POST", "/v1/tickets", n.Handshake), min(x.n(headBombs, 70), headBombsHTTP)},
	} {
		if err := c.bombDoor(ctx, x, door.name, door.address, door.bombs, x.n(headBombs, 70), door.atOnce); err != nil {
			return fmt.Errorf("%s: %w", door.name, err)
		}
	}
	s, err := c.samples(ctx)
	if err != nil {
		return err
	}
	asked := total(s, "ticketgate_tickets_redeemed_total") + total(s, "ticketgate_tickets_issued_total")
	logins := s[`ticketgate_tickets_rejected_total{reason="key"}`]
	x.figure("tickets issued or looked up %.0f, keys looked at %.0f", asked, logins)
	x.want(asked+logins == 0, "login code had work: %.0f tickets, %.0f keys", asked, logins)
	return nil
}

// bombDoor sends all bombs to one address: n in all, atOnce at a time.
func (c *cluster) bombDoor(ctx context.Context, x *exam, name, address string, bombs []headBomb, n, atOnce int) error {
	pid := c.nodes[0].PID()
	if err := bombRound(ctx, x, name, address, bombs, len(bombs), nil); err != nil { // what is set up once is not a bomb's
		return err
	}
	before, err := residentBytes(pid)
	if err != nil {
		return err
	}
	peak, stop := watchMemory(pid)
	cpu := cpuSeconds(pid)
	var took []time.Duration
	for left := n; left > 0 && err == nil; left -= atOnce {
		err = bombRound(ctx, x, name, address, bombs, min(left, atOnce), &took)
	}
	stop()
	if err != nil {
		return err
	}
	cpu = cpuSeconds(pid) - cpu
	grown := peak.Load() - before
	x.figure("%s: %d bombs, %d at a time: answered %v after what was too much (p99; median %v), memory %.1f KiB and cpu %.2f ms each", name, n, atOnce,
		quantile(took, 0.99).Round(time.Microsecond), quantile(took, 0.5).Round(time.Microsecond), float64(grown)/float64(atOnce)/1024, 1000*cpu/float64(n))
	x.wantTime(quantile(took, 0.99) <= headWithin, "%s: answers took %v", name, quantile(took, 0.99))
	x.wantMemory(grown <= headMemory*int64(max(atOnce, 500)), "%s: memory grew by %d bytes with %d connections", name, grown, atOnce)
	x.wantTime(cpu <= headCPU*float64(n), "%s: %.2f s of processor time for %d bombs", name, cpu, n)
	return nil
}

// bombRound brings n bombs to the last byte that is allowed, all together, and then over it.
func bombRound(ctx context.Context, x *exam, name, address string, bombs []headBomb, n int, took *[]time.Duration) error {
	conns := make([]net.Conn, n)
	defer func() {
		for _, conn := range conns {
			if conn != nil {
				_ = conn.Close()
			}
		}
	}()
	var failed atomic.Pointer[error]
	each(conns, openAtOnce, func(i int, _ net.Conn) {
		b := &bombs[i%len(bombs)]
		d := net.Dialer{LocalAddr: loopback(i % slowSources)}
		conn, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			conns[i] = conn
			_, err = io.WriteString(conn, b.raw[:b.allowed])
		}
		if err != nil {
			failed.CompareAndSwap(nil, &err)
		}
	})
	if err := failed.Load(); err != nil {
		return *err
	}
	var mu sync.Mutex
	each(conns, openAtOnce, func(i int, conn net.Conn) {
		b := &bombs[i%len(bombs)]
		after, err := b.finish(conn)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			x.want(false, "%s: %s: %v", name, b.name, err)
			return
		}
		if took != nil {
			*took = append(*took, after)
		}
	})
	return nil
}

// finish sends what is too much and nothing more until the answer is there, which must be the bomb's status. Then comes the
// rest, at which the other side must have ended the connection.
func (b *headBomb) finish(conn net.Conn) (time.Duration, error) {
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0, err
	}
	begun := time.Now()
	if _, err := io.WriteString(conn, b.raw[b.allowed:b.over]); err != nil {
		return 0, fmt.Errorf("closed before the limit: %w", err)
	}
	head := make([]byte, 4096)
	n, err := conn.Read(head)
	took := time.Since(begun)
	if n == 0 {
		return took, fmt.Errorf("no answer to what was too much: %w", err)
	}
	if want := fmt.Appendf(nil, "HTTP/1.1 %d ", b.status); !bytes.HasPrefix(head[:n], want) {
		return took, fmt.Errorf("answered %q, want %d", head[:min(n, 30)], b.status)
	}
	_, _ = io.WriteString(conn, b.raw[b.over:]) // it may be closed already
	rest, err := io.ReadAll(conn)
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		return took, errors.New("answered, but not closed")
	}
	if bytes.Contains(slices.Concat(head[:n], rest)[9:], []byte("HTTP/1.1 ")) {
		return took, errors.New("answered twice")
	}
	return took, nil
}
