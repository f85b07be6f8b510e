package main_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"ticketgate/internal/admin"
	"ticketgate/tools/rig"
)

// owner starts a node that spends its own tickets.
func (c *cluster) owner(name string) *rig.Node {
	c.t.Helper()
	n, err := c.begin(name, c.t.TempDir(), "TICKETGATE_TICKETS__AUTHORITY=node", "TICKETGATE_LISTEN__GATE__PUBLIC_URL=ws://"+name+".gate.test",
		"TICKETGATE_TICKETS__TTL=120s") // the machine may be busy
	must(c.t, err)
	c.t.Cleanup(func() {
		must(c.t, n.Stop())
		if c.t.Failed() {
			c.t.Logf("log of %s:\n%s", name, n.Log())
		}
	})
	return n
}

// revoke asks n to take the ticket back, and returns the status.
func (c *cluster) revoke(n *rig.Node, k *rig.Ticket) int {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.ctx, http.MethodDelete, "http://"+n.Handshake+"/v1/tickets/"+k.ID, nil)
	must(c.t, err)
	r.Header.Set("Authorization", "Bearer "+c.app.Text)
	a, err := http.DefaultClient.Do(r)
	must(c.t, err)
	must(c.t, a.Body.Close())
	return a.StatusCode
}

// told waits until the store knows of all sockets that n has opened.
func (c *cluster) told(n *rig.Node) {
	c.t.Helper()
	for {
		s, err := clusterOf(c.ctx, n)
		must(c.t, err)
		if s.Unasserted == 0 {
			return
		}
	}
}

// seen is a metric of n without labels.
func (c *cluster) seen(n *rig.Node, name string) float64 {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.ctx, http.MethodGet, "http://"+n.Admin+"/metrics", nil)
	must(c.t, err)
	a, err := http.DefaultClient.Do(r)
	must(c.t, err)
	text, err := io.ReadAll(a.Body)
	must(c.t, errors.Join(err, a.Body.Close()))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			must(c.t, err)
			return v
		}
	}
	c.t.Fatalf("no metric %s", name)
	return 0
}

// TestAuthorityNode: three gateways, two of which spend their own tickets, and one Redis.
func TestAuthorityNode(t *testing.T) {
	c := newCluster(t)
	one, two := c.owner("gw-1"), c.owner("gw-2")
	s, err := clusterOf(c.ctx, one)
	must(t, err)
	if s.Authority != "node" || !strings.Contains(s.Reason, "public URL of its own") || s.Issue != admin.IssueOpen {
		t.Errorf("status: %+v", s)
	}
	ask := func(n *rig.Node, client string) *rig.Ticket {
		return c.issue(n, c.app, request{Stream: "echo", Client: client})
	}

	k := ask(one, "ann")
	if !strings.HasPrefix(k.URL, "ws://gw-1.gate.test/t/") {
		t.Errorf("the ticket is for %.30s", k.URL)
	}
	bad := func(n *rig.Node) string { return c.refused(n, "/t/x", k.Secret()) } // it names the node's own URL
	want := bad(one)
	if !strings.HasPrefix(want, "HTTP/1.1 401 ") {
		t.Errorf("no locator: %q", want)
	}
	for name, n := range map[string]*rig.Node{"at the other node": two, "at a node where the store spends": c.a} {
		if got := c.refused(n, k.Path(), k.Secret()); got != bad(n) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := c.refused(one, ask(c.a, "store").Path(), k.Secret()); got != want {
		t.Errorf("the store's at a node that spends its own: %q", got)
	}
	c.echo(c.open(one, k), "ann") // and unspent where it is from
	if got := c.refused(one, k.Path(), k.Secret()); got != want {
		t.Errorf("twice: %q", got)
	}
	c.told(one)

	c.echo(c.open(two, ask(two, "ann")), "ann too") // the count is the cluster's
	c.told(two)
	_, err = rig.Issue(c.ctx, http.DefaultClient, one.Handshake, c.app.Text, request{Stream: "echo", Client: "ann"})
	var no *rig.Refused
	if !errors.As(err, &no) || no.Status != http.StatusTooManyRequests {
		t.Errorf("a third: %v", err)
	}

	away := ask(one, "cy")
	if a, b := c.revoke(two, away), c.revoke(two, away); a != http.StatusNoContent || b != http.StatusNotFound {
		t.Errorf("revoked at the other node: %d, then %d", a, b)
	}
	for c.seen(one, "ticketgate_revocations") == 0 { // it hears of it within milliseconds
	}
	if got := c.refused(one, away.Path(), away.Secret()); got != want {
		t.Errorf("revoked at the other node: %q", got)
	}
	bob := ask(one, "bob")
	if b := c.revoke(one, bob); b != http.StatusNoContent {
		t.Errorf("revoked at its own node: %d", b)
	}
	if got := c.refused(one, bob.Path(), bob.Secret()); got != want {
		t.Errorf("revoked: %q", got)
	}
	c.told(one)
	if used := ask(two, "bob").Connections.Used; used != 1 {
		t.Errorf("%d slots of bob are used, want 1", used)
	}
}

// TestAuthorityNodeReplay: of 200 that show one ticket at once, one opens a socket.
func TestAuthorityNodeReplay(t *testing.T) {
	c := newCluster(t)
	n := c.owner("gw-1")
	for _, client := range []string{"ann", "bob"} {
		k := c.issue(n, c.app, request{Stream: "echo", Client: client})
		var opened, refused atomic.Int32
		var all sync.WaitGroup
		start := make(chan struct{})
		for range 200 {
			all.Go(func() {
				<-start
				conn, answer, err := rig.Open(c.ctx, n.Gate, k)
				switch {
				case err == nil:
					opened.Add(1)
					c.t.Cleanup(func() { _ = conn.CloseNow() })
				case answer != nil && answer.StatusCode == http.StatusUnauthorized:
					refused.Add(1)
				default:
					t.Errorf("neither: %v", err)
				}
			})
		}
		close(start)
		all.Wait()
		if opened.Load() != 1 || refused.Load() != 199 {
			t.Errorf("%s: %d sockets, %d refused", client, opened.Load(), refused.Load())
		}
	}
}

// TestAuthorityNodeWithoutRedis: a node opens its tickets while Redis stands still, so not one command comes before the 101; Redis is told later.
func TestAuthorityNodeWithoutRedis(t *testing.T) {
	c := newCluster(t)
	n := c.owner("gw-1")
	var tickets []*rig.Ticket
	clients := []string{"ann", "ann", "bob", "cid", "cid"}
	for _, client := range clients {
		tickets = append(tickets, c.issue(n, c.app, request{Stream: "echo", Client: client}))
	}
	stored := c.issue(c.a, c.app, request{Stream: "echo", Client: "dan"})
	c.redis.Pause()
	ctx, cancel := context.WithTimeout(c.ctx, 30*time.Second)
	defer cancel()
	var open []*websocket.Conn
	for i, k := range tickets {
		conn, _, err := rig.Open(ctx, n.Gate, k)
		if err != nil {
			t.Fatalf("ticket %d: %v", i, err)
		}
		t.Cleanup(func() { _ = conn.CloseNow() })
		open = append(open, conn)
	}
	for i, conn := range open {
		c.echo(conn, clients[i])
	}
	s, err := clusterOf(c.ctx, n)
	must(t, err)
	if s.Unasserted != len(tickets) {
		t.Errorf("%d sockets are not told to a store that stands still, want %d", s.Unasserted, len(tickets))
	}
	if _, _, err := rig.Open(ctx, c.a.Gate, stored); err == nil {
		t.Error("a ticket that the store spends opened without the store")
	}
	c.redis.Continue()
	c.told(n)
	for i, conn := range open {
		c.echo(conn, "still "+clients[i])
	}
	for client, want := range map[string]int{"ann": http.StatusTooManyRequests, "cid": http.StatusTooManyRequests, "bob": 0} {
		for {
			_, err := rig.Issue(c.ctx, http.DefaultClient, c.a.Handshake, c.app.Text, request{Stream: "echo", Client: client})
			var no *rig.Refused
			got := 0
			if errors.As(err, &no) {
				got = no.Status
			} else {
				must(t, err)
			}
			if got == http.StatusServiceUnavailable { // it has not found Redis again yet
				continue
			}
			if got != want {
				t.Errorf("%s, once Redis is told: %v", client, err)
			}
			break
		}
	}
}
