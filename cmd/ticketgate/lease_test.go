package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"ticketgate/internal/admin"
	"ticketgate/tools/rig"
)

// begin starts a further node of the cluster, with env beside what the others have.
func (c *cluster) begin(name, dir string, env ...string) (*rig.Node, error) {
	bin, err := rig.Binary(c.ctx, binDir)
	must(c.t, err)
	return rig.Start(c.ctx, &rig.StartOptions{Binary: bin, Dir: dir, Name: name, Env: env,
		Config: fmt.Sprintf(clusterYAML, c.redis.URL(), c.backend.address),
		Files:  map[string]string{"ring": c.ring, "keys.yaml": c.app.Entry + c.slow.Entry + c.quiet.Entry}})
}

// shortLease makes leases as short as they may be.
var shortLease = []string{"TICKETGATE_CLUSTER__LEASE=5s", "TICKETGATE_CLUSTER__HEARTBEAT=1s"}

// TestNamesakes: a second gateway of a name does not serve: on the same host it finds the lock, on another the lease.
func TestNamesakes(t *testing.T) {
	c := newCluster(t)
	state := t.TempDir()
	env := append(shortLease, "TICKETGATE_NODE__STATE_DIR="+state)
	n, err := c.begin("twin", t.TempDir(), env...)
	must(t, err)
	_, err = c.begin("twin", t.TempDir(), env...)
	lock := filepath.Join(state, "twin.lock")
	if err == nil || !strings.Contains(err.Error(), lock) || !strings.Contains(err.Error(), `a gateway of the name "twin" runs on this host already`) {
		t.Errorf("on the same host: %v", err)
	}
	must(t, n.Kill())
	before, err := os.ReadFile(lock)
	must(t, err)
	begun := time.Now()
	n, err = c.begin("twin", t.TempDir(), env...) // its former process is proven gone: it waits for nothing
	must(t, err)
	took := time.Since(begun)
	if strings.Contains(n.Log(), "waiting for the end of another gateway") {
		t.Errorf("after a crash it waited, %v:\n%s", took, n.Log())
	}
	after, err := os.ReadFile(lock)
	must(t, err)
	if !strings.HasPrefix(string(after), string(before)) || len(after) == len(before) {
		t.Errorf("the lock file has %q, and had %q", after, before)
	}
	_, err = c.begin("twin", t.TempDir(), append(shortLease, "TICKETGATE_NODE__STATE_DIR="+t.TempDir())...)
	if err == nil || !strings.Contains(err.Error(), `another gateway of the name "twin" renews its lease in the store`) {
		t.Errorf("on another host: %v", err)
	}
	must(t, n.Kill())
	n, err = c.begin("twin", t.TempDir(), shortLease...) // and here nothing is proven
	must(t, err)
	if !strings.Contains(n.Log(), "waiting for the end of another gateway") {
		t.Errorf("without a lock file it did not wait:\n%s", n.Log())
	}
	must(t, n.Stop())
}

// clusterOf asks n for its place in the cluster.
func clusterOf(ctx context.Context, n *rig.Node) (*admin.Cluster, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Admin+"/v1/status", nil)
	if err != nil {
		return nil, err
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	var s admin.Status
	text, err := io.ReadAll(a.Body)
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err == nil && s.Cluster == nil {
		err = errors.New("no cluster in " + string(text))
	}
	return s.Cluster, err
}

// TestLeaseLost: Redis is away for longer than the lease. In mode strict sockets hear 1013; in mode available they stay, and the
// node says how many there are.
func TestLeaseLost(t *testing.T) {
	c := newCluster(t)
	strict, err := c.begin("strict", t.TempDir(), shortLease...)
	must(t, err)
	available, err := c.begin("available", t.TempDir(), append(shortLease, "TICKETGATE_CLUSTER__MODE=available")...)
	must(t, err)
	for _, n := range []*rig.Node{strict, available} {
		t.Cleanup(func() { must(t, n.Stop()) })
	}
	sheds := c.open(strict, c.issue(strict, c.app, request{Stream: "echo", Client: "ann"}))
	stays := c.open(available, c.issue(available, c.app, request{Stream: "echo", Client: "bob"}))
	for conn, text := range map[*websocket.Conn]string{sheds: "ann", stays: "bob"} {
		c.echo(conn, text)
	}
	c.redis.Pause()
	_, _, err = sheds.Read(c.ctx)
	var closed websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != 1013 || closed.Reason != "overloaded" {
		t.Errorf("strict: %v", err)
	}
	for {
		s, err := clusterOf(c.ctx, available)
		must(t, err)
		if s.Lease == 0 && s.Issue != admin.IssueOpen {
			if s.Mode != "available" || s.Excess != 1 {
				t.Errorf("%+v", s)
			}
			break
		}
	}
	c.echo(stays, "still")
	c.redis.Continue()
	for {
		s, err := clusterOf(c.ctx, available)
		must(t, err)
		if s.Lease > 0 && s.Excess == 0 && s.Issue == admin.IssueOpen {
			break
		}
	}
	c.echo(stays, "after")
	for c.ctx.Err() == nil { // the other nodes have to tell the store what they hold
		k, err := rig.Issue(c.ctx, http.DefaultClient, strict.Handshake, c.app.Text, request{Stream: "echo", Client: "ann"})
		var no *rig.Refused
		if errors.As(err, &no) && no.Status == http.StatusServiceUnavailable {
			continue
		}
		must(t, err)
		c.echo(c.open(strict, k), "again")
		break
	}
}
