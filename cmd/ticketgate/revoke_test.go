package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"ticketgate/tools/rig"
)

// operated is a cluster whose nodes have an admin token, and a socket.
func operated(t *testing.T) *cluster {
	t.Helper()
	c := unstarted(t)
	c.yaml = strings.Replace(clusterYAML, `admin: { address: "127.0.0.1:0" }`, `admin: { address: "127.0.0.1:0", token: operator }`, 1)
	c.a, c.b = c.node(), c.node()
	return c
}

// operate sends one request to the admin API of n and returns status and body.
func (c *cluster) operate(n *rig.Node, method, path, body string) (int, map[string]any) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.ctx, method, "http://"+n.Admin+path, strings.NewReader(body))
	must(c.t, err)
	r.Header.Set("Authorization", "Bearer operator")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	a, err := http.DefaultClient.Do(r)
	must(c.t, err)
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	must(c.t, err)
	var v map[string]any
	if err := json.Unmarshal(text, &v); err != nil {
		c.t.Fatalf("%s %s: %d %s", method, path, a.StatusCode, text)
	}
	return a.StatusCode, v
}

// revoked is operate for what must work, told to every node.
func (c *cluster) revoked(n *rig.Node, method, path, body string) map[string]any {
	c.t.Helper()
	status, v := c.operate(n, method, path, body)
	if status != http.StatusOK || v["cluster"] != "told" {
		c.t.Fatalf("%s %s: %d %v", method, path, status, v)
	}
	return v
}

// closes waits until the gateway closes conn, and returns code and reason.
func (c *cluster) closes(conn *websocket.Conn) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, 30*time.Second)
	defer cancel()
	for {
		_, _, err := conn.Read(ctx)
		var e websocket.CloseError
		if errors.As(err, &e) {
			return fmt.Sprintf("%d %s", e.Code, e.Reason)
		}
		if err != nil {
			return err.Error()
		}
	}
}

func (c *cluster) wantClosed(what string, conn *websocket.Conn, want string) {
	c.t.Helper()
	if got := c.closes(conn); got != want {
		c.t.Errorf("%s: closed with %q, want %q", what, got, want)
	}
}

// TestRevokedEverywhere: what one node is told to revoke closes on both, unused tickets open nothing, and nothing else is touched.
func TestRevokedEverywhere(t *testing.T) {
	c := operated(t)
	ask := func(key rig.Key, client string) *rig.Ticket {
		return c.issue(c.a, key, request{Stream: "echo", Client: client})
	}
	sockets := func(key rig.Key, client string) [2]*websocket.Conn {
		return [2]*websocket.Conn{c.open(c.a, ask(key, client)), c.open(c.b, ask(key, client))}
	}
	forged := c.refused(c.a, "/t/x", "")
	bystander := sockets(c.app, "bystander")

	t.Run("client", func(*testing.T) {
		conns, unused := sockets(c.slow, "ann"), ask(c.slow, "ann")
		if v := c.revoked(c.a, "POST", "/v1/clients/ann:disconnect", `{"reason":"test"}`); v["connections"] != 1.0 {
			t.Errorf("%v", v)
		}
		for _, conn := range conns {
			c.wantClosed("client", conn, "4403 revoked")
		}
		for _, n := range []*rig.Node{c.a, c.b} {
			if got := c.refused(n, unused.Path(), unused.Secret()); got != forged {
				t.Errorf("unused ticket: %q, want %q", got, forged)
			}
		}
		c.echo(c.open(c.b, ask(c.slow, "ann")), "it may come again at once")
	})
	t.Run("ticket", func(*testing.T) {
		unused, used := ask(c.slow, "tom"), ask(c.slow, "tom")
		other, conn := c.open(c.b, ask(c.slow, "tom")), c.open(c.b, used)
		state := func(k *rig.Ticket) any {
			_, v := c.operate(c.b, "GET", "/v1/tickets/"+k.ID, "")
			return v["state"]
		}
		asked := func(k *rig.Ticket, key rig.Key) string {
			r, err := http.NewRequestWithContext(c.ctx, http.MethodGet, "http://"+c.b.Handshake+"/v1/tickets/"+k.ID, nil)
			must(t, err)
			r.Header.Set("X-API-Key", key.Text)
			a, err := http.DefaultClient.Do(r)
			must(t, err)
			defer a.Body.Close()
			text, err := io.ReadAll(a.Body)
			must(t, err)
			return fmt.Sprintf("%d %s", a.StatusCode, text)
		}
		if got := asked(unused, c.slow); got != `200 {"id":"`+unused.ID+`","state":"unused"}` {
			t.Errorf("who asked for it learns %s", got)
		}
		if got := asked(unused, c.app); !strings.HasPrefix(got, "404 ") {
			t.Errorf("another learns %s", got)
		}
		if state(unused) != "unused" || state(used) != "spent" {
			t.Errorf("states %v, %v", state(unused), state(used))
		}
		c.revoked(c.a, "DELETE", "/v1/tickets/"+unused.ID, "")
		c.revoked(c.a, "DELETE", "/v1/tickets/"+used.ID, "")
		c.wantClosed("ticket", conn, "4403 revoked")
		for _, n := range []*rig.Node{c.b, c.a} {
			if got := c.refused(n, unused.Path(), unused.Secret()); got != forged {
				t.Errorf("a revoked ticket: %q", got)
			}
		}
		if state(unused) != "revoked" || state(used) != "revoked" {
			t.Errorf("states %v, %v", state(unused), state(used))
		}
		c.echo(other, "another ticket of the same client")
	})
	t.Run("stream and plan", func(*testing.T) {
		relayed, echoed := c.open(c.b, c.issue(c.a, c.slow, request{Stream: "relay", Client: "str"})), c.open(c.b, ask(c.slow, "str"))
		unused := c.issue(c.a, c.slow, request{Stream: "relay", Client: "str"})
		if _, v := c.operate(c.b, "POST", "/v1/connections:disconnect", `{"selector":{"stream":"relay","plan":"slow"},"dry_run":true}`); v["connections"] != 1.0 || v["dry_run"] != true {
			t.Errorf("dry run: %v", v)
		}
		c.echo(relayed, "only asked")
		c.revoked(c.a, "POST", "/v1/connections:disconnect", `{"selector":{"stream":"relay","plan":"slow"},"over":"200ms"}`)
		c.wantClosed("stream", relayed, "4403 revoked")
		if got := c.refused(c.b, unused.Path(), unused.Secret()); got != forged {
			t.Errorf("unused ticket: %q", got)
		}
		c.echo(echoed, "another stream of the same plan")
		c.revoked(c.b, "POST", "/v1/connections:disconnect", `{"selector":{"client":"str"},"code":1012}`)
		c.wantClosed("with another code", echoed, "1012 drain")
	})
	t.Run("connection of another node", func(*testing.T) {
		conn, other := c.open(c.b, ask(c.slow, "con")), c.open(c.b, ask(c.slow, "con"))
		_, v := c.operate(c.b, "GET", "/v1/connections?client=con", "")
		list := v["connections"].([]any)
		if len(list) != 2 {
			t.Fatalf("%v", v)
		}
		id := list[0].(map[string]any)["id"].(string)
		if status, _ := c.operate(c.b, "GET", "/v1/connections/"+id, ""); status != http.StatusOK {
			t.Errorf("show: %d", status)
		}
		c.revoked(c.a, "DELETE", "/v1/connections/"+id, "")
		ended := make(chan int, 2)
		for i, conn := range []*websocket.Conn{conn, other} {
			go func() {
				if c.closes(conn) == "4403 revoked" {
					ended <- i
				}
			}()
		}
		first := <-ended
		if status, _ := c.operate(c.b, "DELETE", "/v1/connections/"+id, ""); status != http.StatusNotFound {
			t.Errorf("again, at its own node: %d", status)
		}
		if status, _ := c.operate(c.b, "DELETE", "/v1/connections/"+list[1].(map[string]any)["id"].(string), ""); status != http.StatusOK {
			t.Errorf("the other, at its own node: %d", status)
		}
		if second := <-ended; second == first {
			t.Error("one was closed twice")
		}
	})
	t.Run("block", func(*testing.T) {
		conns := sockets(c.slow, "eve")
		c.revoked(c.b, "POST", "/v1/clients/eve:block", `{"for":"1h","reason":"abuse"}`)
		for _, conn := range conns {
			c.wantClosed("block", conn, "4403 revoked")
		}
		refused := func(n *rig.Node) int {
			_, err := rig.Issue(c.ctx, http.DefaultClient, n.Handshake, c.slow.Text, request{Stream: "echo", Client: "eve"})
			var r *rig.Refused
			if !errors.As(err, &r) {
				return 0
			}
			return r.Status
		}
		if refused(c.b) != http.StatusForbidden {
			t.Error("a ticket for who is blocked")
		}
		c.until("the other node knows", func() bool { return refused(c.a) == http.StatusForbidden })
		if _, v := c.operate(c.a, "GET", "/v1/clients/eve", ""); v["blocked"].(map[string]any)["reason"] != "abuse" {
			t.Errorf("%v", v)
		}
		c.revoked(c.a, "POST", "/v1/clients/eve:unblock", "")
		c.until("the other node knows that it is over", func() bool { return refused(c.b) == 0 })
		if status, _ := c.operate(c.a, "POST", "/v1/clients/eve:unblock", ""); status != http.StatusNotFound {
			t.Errorf("unblocked twice: %d", status)
		}
	})
	t.Run("key", func(*testing.T) {
		conns, unused := sockets(c.quiet, "kim"), ask(c.quiet, "kim")
		c.revoked(c.a, "DELETE", "/v1/keys/quiet?reason=leaked", "")
		for _, conn := range conns {
			c.wantClosed("key", conn, "4403 revoked")
		}
		if got := c.refused(c.b, unused.Path(), unused.Secret()); got != forged {
			t.Errorf("unused ticket: %q", got)
		}
		for _, n := range []*rig.Node{c.a, c.b, c.node()} { // also one that starts afterwards, and finds the key in its file
			_, err := rig.Issue(c.ctx, http.DefaultClient, n.Handshake, c.quiet.Text, request{Stream: "echo"})
			var r *rig.Refused
			if !errors.As(err, &r) || r.Status != http.StatusUnauthorized {
				t.Errorf("a ticket for a revoked key: %v", err)
			}
		}
		if _, v := c.operate(c.b, "GET", "/v1/keys/quiet", ""); v["revoked"] != true || v["plan"] != "quiet" {
			t.Errorf("%v", v)
		}
		if status, _ := c.operate(c.a, "DELETE", "/v1/keys/nobody", ""); status != http.StatusNotFound {
			t.Errorf("an unknown key: %d", status)
		}
	})
	for _, conn := range bystander {
		c.echo(conn, "untouched")
	}
}

// until waits for what a process brings about.
func (c *cluster) until(what string, is func() bool) {
	c.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			c.t.Fatal("it does not happen: " + what)
		}
	}
}

// TestRevokedInAnOutage: while Redis stands, what a node revokes closes its own sockets at once; the other's when Redis is back. One that
// has lost its data is told again what is in force.
func TestRevokedInAnOutage(t *testing.T) {
	c := operated(t)
	ask := func(client string) *rig.Ticket { return c.issue(c.a, c.slow, request{Stream: "echo", Client: client}) }
	mine, others, stays := c.open(c.a, ask("out")), c.open(c.b, ask("out")), c.open(c.b, ask("other"))
	c.redis.Pause()
	status, v := c.operate(c.a, "POST", "/v1/clients/out:disconnect", "")
	if status != http.StatusAccepted || v["cluster"] != "pending" {
		t.Errorf("while Redis stands: %d %v", status, v)
	}
	c.wantClosed("its own", mine, "4403 revoked")
	c.echo(others, "not heard of yet")
	c.redis.Continue()
	c.wantClosed("the other's", others, "4403 revoked")
	c.echo(stays, "untouched")

	c.revoked(c.b, "POST", "/v1/clients/gone:block", `{"for":"1h","reason":"test"}`)
	c.redis.Kill()
	c.redis.Restart()
	var late *rig.Node
	c.until("a node that starts on the empty Redis knows what the others know", func() bool {
		if late == nil {
			late = c.node()
		}
		_, err := rig.Issue(c.ctx, http.DefaultClient, late.Handshake, c.slow.Text, request{Stream: "echo", Client: "gone"})
		var r *rig.Refused
		return errors.As(err, &r) && r.Status == http.StatusForbidden
	})
}

// TestKeyChangesPlan: a node that starts with another plan for a key closes, everywhere, what the key has opened under the former one.
func TestKeyChangesPlan(t *testing.T) {
	c := newCluster(t)
	ask := func(key rig.Key) *rig.Ticket { return c.issue(c.a, key, request{Stream: "echo", Client: "ann"}) }
	onA, onB, unused := c.open(c.a, ask(c.slow)), c.open(c.b, ask(c.slow)), ask(c.slow)
	other := c.open(c.b, c.issue(c.a, c.app, request{Stream: "echo", Client: "bob"}))
	c.node()
	c.echo(onA, "a node that starts with the same plans changes nothing")
	c.slow.Entry = strings.Replace(c.slow.Entry, "plan: slow", "plan: quiet", 1)
	n := c.node()
	c.wantClosed("on one node", onA, "4403 revoked")
	c.wantClosed("on the other", onB, "4403 revoked")
	if got := c.refused(c.b, unused.Path(), unused.Secret()); !strings.HasPrefix(got, "HTTP/1.1 401 ") {
		t.Errorf("an unused ticket of the former plan: %q", got)
	}
	c.echo(other, "another key")
	if k := c.issue(n, c.slow, request{Stream: "echo", Client: "ann"}); k.Plan != "quiet" {
		t.Errorf("a new ticket has plan %s", k.Plan)
	}
}

// TestSocketEndsWithItsKey: at the moment in which the key ends its sockets do, with 4401.
func TestSocketEndsWithItsKey(t *testing.T) {
	c := unstarted(t)
	brief, err := rig.NewKey(c.ring, "brief", "brief", "all", "slow")
	must(t, err)
	end := time.Now().Add(8 * time.Second)
	c.more = strings.Replace(brief.Entry, "}", fmt.Sprintf(", expires: %s }", end.UTC().Format(time.RFC3339Nano)), 1)
	n := c.node()
	conn, unused := c.open(n, c.issue(n, brief, request{Stream: "echo"})), c.issue(n, brief, request{Stream: "echo"})
	if unused.SessionExpiresAt != end.UTC().Format(time.RFC3339) {
		t.Errorf("the session ends %v, want %v", unused.SessionExpiresAt, end)
	}
	c.echo(conn, "still good")
	c.wantClosed("its key has ended", conn, "4401 session-expired")
	if now := time.Now(); now.Before(end) {
		t.Errorf("closed %v early", end.Sub(now))
	}
	if got := c.refused(n, unused.Path(), unused.Secret()); !strings.HasPrefix(got, "HTTP/1.1 401 ") {
		t.Errorf("an unused ticket of a key that has ended: %q", got)
	}
}

// TestOperate is the command line against a real gateway, over its socket, and over its address where nothing may be changed.
func TestOperate(t *testing.T) {
	c := unstarted(t)
	path := filepath.Join(t.TempDir(), "admin.sock")
	c.yaml = strings.Replace(clusterYAML, `admin: { address: "127.0.0.1:0" }`, `admin: { address: "127.0.0.1:0", socket: "`+path+`" }`, 1)
	n := c.node()
	bin, err := rig.Binary(c.ctx, binDir)
	must(t, err)
	run := func(want int, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(c.ctx, bin, args...)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if code := cmd.ProcessState.ExitCode(); code != want {
			t.Errorf("%v: exit code %d, %v, want %d: %s%s", args, code, err, want, out, errs.String())
		}
		return string(out) + errs.String()
	}
	if f, err := os.Stat(path); err != nil || f.Mode().Perm() != 0o660 {
		t.Errorf("the socket: %v, %v", f.Mode(), err)
	}
	at := []string{"--admin", "unix:" + path}
	do := func(args ...string) string { t.Helper(); return run(0, append(args, at...)...) }
	has := func(got string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("%q is not in:\n%s", want, got)
			}
		}
	}
	ask := func(client string) *rig.Ticket { return c.issue(n, c.slow, request{Stream: "echo", Client: client}) }
	first := ask("ann smith/1:block")
	ann, bob := c.open(n, first), c.open(n, ask("bob"))
	has(do("client", "list"), "client             connections", "ann smith/1:block  1")
	has(do("client", "list", "-o", "json"), `{"client":"bob","connections":1}`)
	has(do("client", "list", "-o", "yaml"), "- client: bob")
	has(do("client", "show", "ann smith/1:block"), "connections 1  not blocked", "echo")
	has(do("conn", "list", "-o", "wide", "--client", "bob"), "127.0.0.1", "slow")
	has(do("conn", "list", "--limit", "1"), "there are more: --cursor ")
	has(do("ticket", "inspect", first.ID), "spent")
	has(do("client", "disconnect", "ann smith/1:block", "--dry-run"), "connections of this node: 1", "nothing was done")
	has(do("client", "disconnect", "ann smith/1:block", "--reason", "test"), "connections of this node: 1  every node knows  rev_")
	c.wantClosed("ann", ann, "4403 revoked")
	has(do("client", "block", "ann smith/1:block", "--for", "1h", "--reason", "abuse"), "every node knows")
	has(do("client", "show", "ann smith/1:block"), "blocked until ", ": abuse")
	has(do("client", "unblock", "ann smith/1:block"), "every node knows")
	has(run(1, append([]string{"client", "unblock", "ann smith/1:block"}, at...)...), "client unblock: not found: this client is not blocked")
	has(do("conn", "close", "--client", "bob", "--stream", "echo", "--code", "4001"), "connections of this node: 1")
	c.wantClosed("bob", bob, "4001 ")
	has(run(2, append([]string{"conn", "close"}, at...)...), "say which")
	has(run(2, "conn", "list", "-o", "xml", "--admin", "unix:"+path), "-o xml: want table, wide, json or yaml")
	var page struct {
		Connections []struct{ ID string }
	}
	cy := c.open(n, ask("cy"))
	must(t, json.Unmarshal([]byte(do("conn", "list", "--client", "cy", "-o", "json")), &page))
	has(do("conn", "show", page.Connections[0].ID), "cy")
	has(do("conn", "close", page.Connections[0].ID), "connections of this node: 1")
	c.wantClosed("cy", cy, "4403 revoked")
	dan := ask("dan")
	has(do("ticket", "revoke", dan.ID), "every node knows")
	has(do("ticket", "inspect", dan.ID), "revoked")
	kim := c.open(n, ask("kim"))
	has(run(1, "key", "revoke", "slow", "--admin", "http://"+n.Admin), "key revoke: not allowed to change anything: this address is for reading only")
	has(run(0, "client", "list", "--admin", "http://"+n.Admin), "kim")
	has(do("key", "revoke", "slow", "--reason", "leaked"), "connections of this node: 1")
	c.wantClosed("kim", kim, "4403 revoked")
	has(do("key", "revoke", "slow"), "every node knows")
	has(run(4, "client", "list", "--admin", "unix:"+path+"x"), "no answer from")
	if log := n.Log(); !strings.Contains(log, `"msg":"admin change"`) || !strings.Contains(log, `"key":"slow","reason":"leaked"`) || !strings.Contains(log, `"status":403`) {
		t.Errorf("the log does not tell who has changed what:\n%s", log)
	}
}
