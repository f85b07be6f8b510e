package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"ticketgate/tools/rig"
)

func init() {
	tests[18] = test{"one ticket, at most one socket: simultaneous uses over all nodes, and through failovers of the store", replay}
}

// replayParts are the stores that the test is played on.
var replayParts = []string{"one", "sentinel", "cluster"}

// replay plays the part that x names, or all.
func replay(ctx context.Context, x *exam) error {
	for _, part := range replayParts {
		if x.part != "" && x.part != part {
			continue
		}
		var err error
		if part == "one" {
			err = replayRace(ctx, x)
		} else {
			err = failovers(ctx, x, part)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	return nil
}

const (
	replayNodes  = 4
	replayUses   = 200
	replayRounds = 10_000
)

// replayRace uses each ticket many times at once over all nodes: one 101, and the same 401 for all others.
func replayRace(ctx context.Context, x *exam) (err error) {
	c, err := start(ctx, x, clusterOptions{nodes: replayNodes, dir: "one"})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "a node did not stop") }()
	uses, rounds := replayUses, x.n(replayRounds, 20)
	if x.size < 1 {
		uses = x.n(replayUses, 20)
	}
	var opened, none, more int
	answers := map[string]int{}
	for round := range rounds {
		t, err := c.issue(ctx, round%len(c.nodes), request{Stream: "echo", Client: fmt.Sprintf("c%d", round)})
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		got, err := c.race(ctx, t, uses)
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		won := 0
		for answer, n := range got {
			if strings.HasPrefix(answer, "HTTP/1.1 101 ") {
				won += n
			} else {
				answers[answer] += n
			}
		}
		opened += won
		if won == 0 {
			none++
		}
		if won > 1 {
			more++
		}
	}
	x.figure("rounds %d, uses a round %d over %d nodes: sockets opened %d, rounds with none %d, with more than one %d",
		rounds, uses, len(c.nodes), opened, none, more)
	x.figure("distinct refusals: %d", len(answers))
	x.want(none == 0, "%d rounds opened no socket", none)
	x.want(more == 0, "%d rounds opened more than one socket", more)
	x.want(len(answers) == 1, "%d different refusals, want one", len(answers))
	for a := range answers {
		x.want(strings.HasPrefix(a, "HTTP/1.1 401 "), "refused with %.80q", a)
	}
	return nil
}

// race connects uses sockets first and then sends all requests at once. It returns the answers, each with its count.
func (c *cluster) race(ctx context.Context, t *rig.Ticket, uses int) (map[string]int, error) {
	conns := make([]net.Conn, uses)
	defer func() {
		for _, conn := range conns {
			if conn != nil {
				_ = conn.Close()
			}
		}
	}()
	var d net.Dialer
	for i := range conns {
		var err error
		if conns[i], err = d.DialContext(ctx, "tcp", c.nodes[i%len(c.nodes)].Gate); err != nil {
			return nil, err
		}
		if err := conns[i].SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return nil, err
		}
	}
	head := []byte(rig.Head("gate.test", t.Path(), t.Secret()))
	answers := make([]string, uses)
	errs := make([]error, uses)
	var wg sync.WaitGroup
	gun := make(chan struct{})
	for i, conn := range conns {
		wg.Go(func() {
			<-gun
			answers[i], errs[i] = use(conn, head)
		})
	}
	close(gun)
	wg.Wait()
	got := map[string]int{}
	for i, a := range answers {
		if errs[i] != nil {
			return nil, fmt.Errorf("use %d: %w", i, errs[i])
		}
		got[a]++
	}
	return got, nil
}

// use sends head and returns the whole answer: of a 101 its head, of a refusal all until the gate closes.
func use(conn net.Conn, head []byte) (string, error) {
	if _, err := conn.Write(head); err != nil {
		return "", err
	}
	var all []byte
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		all = append(all, buf[:n]...)
		if strings.HasPrefix(string(all), "HTTP/1.1 101 ") && strings.Contains(string(all), "\r\n\r\n") {
			return string(all), nil
		}
		if err == io.EOF {
			return string(all), nil
		}
		if err != nil {
			return "", err
		}
	}
}
