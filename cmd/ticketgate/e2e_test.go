package main_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/redis/rueidis"

	"ticketgate/store/redistest"
	"ticketgate/ticket"
	"ticketgate/tools/rig"
)

// The whole path from outside: two gateway processes, a real redis-server, a real backend process, and a client library
// that is not ours.

func TestMain(m *testing.M) {
	if os.Getenv("TICKETGATE_TEST_BACKEND") != "" {
		backendMain()
		return
	}
	dir, err := os.MkdirTemp("", "ticketgate-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

var binDir string

// backendMain is the backend process: it echoes messages, tells the time on /feed, relays to the address in /relay?to=, prints its own
// address, and stops with its standard input.
func backendMain() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(ln.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	_ = http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		switch r.URL.Path {
		case "/feed":
			tellTime(r.Context(), c)
		case "/relay":
			to, _, err := websocket.Dial(r.Context(), "ws://"+r.URL.Query().Get("to"), nil)
			if err != nil {
				return
			}
			defer func() { _ = to.CloseNow() }()
			go copyMessages(r.Context(), c, to) // it ends with c and to, which end here
			copyMessages(r.Context(), to, c)
		default:
			copyMessages(r.Context(), c, c)
		}
	}))
}

// copyMessages sends on to to what comes from from, until one of them ends; then both do.
func copyMessages(ctx context.Context, to, from *websocket.Conn) {
	defer func() { _ = to.CloseNow() }()
	for {
		kind, b, err := from.Read(ctx)
		if err != nil || to.Write(ctx, kind, b) != nil {
			return
		}
	}
}

// tellTime tells c the time, fifty times a second: at moments that are the same for all, so that all hear as much.
func tellTime(ctx context.Context, c *websocket.Conn) {
	const every = 20 * time.Millisecond
	for ctx = c.CloseRead(ctx); ; {
		now := time.Now()
		select {
		case <-time.After(now.Truncate(every).Add(every).Sub(now)):
			text := fmt.Sprintf(`{"time":%q}`, time.Now().Format(time.RFC3339Nano))
			if c.Write(ctx, websocket.MessageText, []byte(text)) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

type backend struct {
	address string
	cmd     *exec.Cmd
}

func startBackend(t *testing.T) *backend {
	t.Helper()
	b := &backend{cmd: exec.Command(os.Args[0])}
	b.cmd.Env = append(os.Environ(), "TICKETGATE_TEST_BACKEND=1")
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	b.cmd.Stderr = os.Stderr
	in, err := b.cmd.StdinPipe()
	must(t, err)
	out, err := b.cmd.StdoutPipe()
	must(t, err)
	must(t, b.cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = b.cmd.Wait()
	})
	b.address, err = bufio.NewReader(out).ReadString('\n')
	must(t, err)
	b.address = strings.TrimSpace(b.address)
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// cluster is one redis-server, one backend and two nodes that share their secrets.
type cluster struct {
	t       *testing.T
	ctx     context.Context
	redis   *redistest.Server
	backend *backend
	ring    string
	app     rig.Key // may ask on behalf of anyone; plan two
	slow    rig.Key // plan slow
	quiet   rig.Key // plan quiet
	quota   rig.Key // plan quota
	more    string  // further entries of keys.yaml
	yaml    string  // of the nodes, as clusterYAML
	a, b    *rig.Node
}

const clusterYAML = `
version: 1
listen:
  handshake: { address: "127.0.0.1:0" }
  gate: { address: "127.0.0.1:0", public_url: "ws://gate.test", origins: [none, "https://app.example.com"], per_address: { exempt: [127.0.0.0/8, "::1/128"] } }
  admin: { address: "127.0.0.1:0" }
store: { kind: redis, url: "%s", timeout: 1s }
secrets: { ticket_keys: "${file:ring}", key_hash: "${file:ring}" }
auth: { keys: { source: [keys.yaml] } }
products:
  all: { streams: [relay, echo], plans: [two, slow, quiet, quota] }
plans:
  two:
    limits:
      connections: { count: 2, per: client }
      tickets: { rate: 1000/1minute, per: client }
  slow:
    limits:
      connections: { count: 10, per: client }
      tickets: { rate: 1000/1minute, per: client }
      messages-in: { rate: 3/1minute, per: client, when_exceeded: close }
  quiet:
    limits:
      connections: { count: 10, per: client }
      tickets: { rate: 1000/1minute, per: client }
      messages-out: { rate: 5/1minute, per: client, when_exceeded: drop-newest }
  quota:
    limits:
      connections: { count: 10, per: client }
      tickets: { rate: 1000/1minute, per: client }
      yearly: { counts: messages-in, rate: 5/52week, window: fixed, per: client, scope: cluster, when_exceeded: close }
streams:
  relay: { backend: pool }
  echo: { backend: builtin }
backends:
  pool: { targets: ["ws://%s/"] }
  builtin: { kind: echo }
drain: { over: 1s, grace: 2s }
`

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := unstarted(t)
	c.a, c.b = c.node(), c.node()
	return c
}

// unstarted is a cluster whose nodes do not run yet.
func unstarted(t *testing.T) *cluster {
	t.Helper()
	_, err := rig.Binary(t.Context(), binDir)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	c := &cluster{t: t, ctx: ctx, yaml: clusterYAML, redis: redistest.Start(t), backend: startBackend(t)}
	c.ring, err = rig.Ring()
	must(t, err)
	c.app, err = rig.NewKey(c.ring, "app", "app", "all", "two", "delegate")
	must(t, err)
	c.slow, err = rig.NewKey(c.ring, "slow", "slow", "all", "slow", "delegate")
	must(t, err)
	c.quiet, err = rig.NewKey(c.ring, "quiet", "quiet", "all", "quiet", "delegate")
	must(t, err)
	c.quota, err = rig.NewKey(c.ring, "quota", "quota", "all", "quota", "delegate")
	must(t, err)
	return c
}

func (c *cluster) node() *rig.Node {
	c.t.Helper()
	bin, err := rig.Binary(c.ctx, binDir)
	must(c.t, err)
	n, err := rig.Start(c.ctx, &rig.StartOptions{
		Binary: bin,
		Dir:    c.t.TempDir(),
		Config: fmt.Sprintf(c.yaml, c.redis.URL(), c.backend.address),
		Files:  map[string]string{"ring": c.ring, "keys.yaml": c.app.Entry + c.slow.Entry + c.quiet.Entry + c.quota.Entry + c.more},
	})
	must(c.t, err)
	c.t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			c.t.Error(err)
		}
		if c.t.Failed() {
			c.t.Logf("log of a node:\n%s", n.Log())
		}
	})
	return n
}

type request struct {
	Stream string `json:"stream"`
	Client string `json:"client,omitempty"`
	Origin string `json:"origin,omitempty"`
}

func (c *cluster) issue(n *rig.Node, k rig.Key, q request) *rig.Ticket {
	c.t.Helper()
	k2, err := rig.Issue(c.ctx, http.DefaultClient, n.Handshake, k.Text, q)
	must(c.t, err)
	return k2
}

func (c *cluster) open(n *rig.Node, k *rig.Ticket) *websocket.Conn {
	c.t.Helper()
	conn, _, err := rig.Open(c.ctx, n.Gate, k)
	must(c.t, err)
	c.t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

// refused redeems by hand and returns all the bytes of the answer.
func (c *cluster) refused(n *rig.Node, path, secret string) string {
	c.t.Helper()
	answer, err := rig.Exchange(c.ctx, n.Gate, []byte(rig.Head(n.Gate, path, secret)))
	must(c.t, err)
	return string(answer)
}

func (c *cluster) echo(conn *websocket.Conn, text string) {
	c.t.Helper()
	must(c.t, conn.Write(c.ctx, websocket.MessageText, []byte(text)))
	kind, b, err := conn.Read(c.ctx)
	must(c.t, err)
	if kind != websocket.MessageText || string(b) != text {
		c.t.Fatalf("echo of %q: %v %q", text, kind, b)
	}
}

// minted is a genuine locator of the cluster's own ring that was never issued, or is too old.
func (c *cluster) minted(n *rig.Node, life time.Duration) string {
	c.t.Helper()
	ring, err := ticket.ParseKeyRing(c.ring)
	must(c.t, err)
	like := c.issue(n, c.app, request{Stream: "echo", Client: "like"})
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(like.Path(), "/t/"))
	must(c.t, err)
	epoch, subject := binary.BigEndian.Uint32(raw[5:]), binary.BigEndian.Uint64(raw[9:]) // behind key number and expiry
	m, err := ring.NewMinter(rand.Reader).Mint(time.Now().Add(life), ticket.Epoch(epoch), ticket.Subject(subject), 0)
	must(c.t, err)
	return "/t/" + string(m.Text[:])
}

func TestTicketOpensOnce(t *testing.T) {
	c := newCluster(t)
	k := c.issue(c.a, c.app, request{Stream: "relay", Client: "ann"})
	if k.Plan != "two" || k.ExpiresIn != 30 || k.Connections.Used != 1 || *k.Connections.Limit != 2 {
		t.Errorf("ticket: %+v", k)
	}
	conn := c.open(c.b, k)
	if got := conn.Subprotocol(); got != "ticketgate.v1" {
		t.Errorf("subprotocol %q", got)
	}
	c.echo(conn, "through the backend")

	wrong := "tgs_" + strings.Repeat("A", 43)
	burnt := c.issue(c.a, c.app, request{Stream: "echo", Client: "bob"})
	want := c.refused(c.b, burnt.Path(), wrong)
	if !strings.HasPrefix(want, "HTTP/1.1 401 ") {
		t.Fatalf("wrong secret: %q", want)
	}
	// Before the replays: while one is looked at it counts, and a busy store may see it.
	silent := c.issue(c.a, c.app, request{Stream: "echo", Client: "cy"})
	flip := "A"
	if strings.HasSuffix(k.Path(), "A") {
		flip = "Q"
	}
	for name, answer := range map[string]string{
		"replay at the node that opened": c.refused(c.b, k.Path(), k.Secret()),
		"replay at the other node":       c.refused(c.a, k.Path(), k.Secret()),
		"after a wrong secret":           c.refused(c.a, burnt.Path(), burnt.Secret()),
		"no secret":                      c.refused(c.a, silent.Path(), ""),
		"forged":                         c.refused(c.a, k.Path()[:len(k.Path())-1]+flip, k.Secret()),
		"unknown":                        c.refused(c.a, c.minted(c.a, time.Minute), wrong),
		"expired":                        c.refused(c.a, c.minted(c.a, -time.Minute), wrong),
		"no locator":                     c.refused(c.a, "/t/x", wrong),
	} {
		if answer != want {
			t.Errorf("%s: %q, want the bytes of every other refused ticket: %q", name, answer, want)
		}
	}
	c.echo(conn, "still open")
}

func TestConnectionsLimit(t *testing.T) {
	c := newCluster(t)
	first := c.open(c.a, c.issue(c.a, c.app, request{Stream: "echo", Client: "ann"}))
	c.open(c.b, c.issue(c.b, c.app, request{Stream: "echo", Client: "ann"}))
	_, err := rig.Issue(c.ctx, http.DefaultClient, c.b.Handshake, c.app.Text, request{Stream: "echo", Client: "ann"})
	var r *rig.Refused
	if !errors.As(err, &r) || r.Status != 429 || r.Problem() != "connection-limit" || r.Header.Get("Retry-After") == "" {
		t.Fatalf("third ticket: %v", err)
	}
	c.issue(c.b, c.app, request{Stream: "echo", Client: "bob"}) // the limit is the client's own
	must(t, first.Close(websocket.StatusNormalClosure, ""))
	// The slot comes back with the node's next assert: ask until then.
	for tries := 0; ; tries++ {
		_, err = rig.Issue(c.ctx, http.DefaultClient, c.b.Handshake, c.app.Text, request{Stream: "echo", Client: "ann"})
		if err == nil {
			break
		}
		if !errors.As(err, &r) || r.Status != 429 || tries == 2000 {
			t.Fatalf("after a close, try %d: %v", tries, err)
		}
	}
}

func TestMessageLimits(t *testing.T) {
	c := newCluster(t)
	conn := c.open(c.b, c.issue(c.a, c.slow, request{Stream: "echo", Client: "in"}))
	for i := range 3 {
		c.echo(conn, "message "+strconv.Itoa(i))
	}
	must(t, conn.Write(c.ctx, websocket.MessageText, []byte("one too many")))
	_, _, err := conn.Read(c.ctx)
	var closed websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != 4429 || closed.Reason != "limit:messages-in" {
		t.Errorf("fourth message in a minute: %v", err)
	}
	again := c.open(c.b, c.issue(c.a, c.slow, request{Stream: "echo", Client: "in"}))
	must(t, again.Write(c.ctx, websocket.MessageText, []byte("a new socket has no new bucket")))
	if _, _, err = again.Read(c.ctx); !errors.As(err, &closed) || closed.Code != 4429 {
		t.Errorf("first message of the client's next socket: %v", err)
	}
}

// TestMessagesOutLimit: of seven answers of the backend five arrive, then one notice, then nothing; the socket stays open.
// TestQuotaOverNodesAndRestarts: what a client has used of a quota of the calendar counts at every node, and after a restart.
func TestQuotaOverNodesAndRestarts(t *testing.T) {
	c := newCluster(t)
	for i, n := range []*rig.Node{c.a, c.b} {
		conn := c.open(n, c.issue(n, c.quota, request{Stream: "echo", Client: "ann"}))
		for k := range 2 {
			c.echo(conn, fmt.Sprint("node ", i, " message ", k))
		}
		must(t, conn.Close(websocket.StatusNormalClosure, ""))
	}
	must(t, c.a.Stop())
	must(t, c.b.Stop())
	n := c.node()
	conn := c.open(n, c.issue(n, c.quota, request{Stream: "echo", Client: "ann"}))
	c.echo(conn, "the fifth")
	must(t, conn.Write(c.ctx, websocket.MessageText, []byte("the sixth")))
	if _, text, err := conn.Read(c.ctx); websocket.CloseStatus(err) != 4429 || !strings.Contains(err.Error(), "limit:yearly") {
		t.Errorf("the sixth: %q, %v; want 4429 limit:yearly", text, err)
	}
	other := c.open(n, c.issue(n, c.quota, request{Stream: "echo", Client: "bob"}))
	c.echo(other, "another client")
}

func TestMessagesOutLimit(t *testing.T) {
	c := newCluster(t)
	conn := c.open(c.b, c.issue(c.a, c.quiet, request{Stream: "relay", Client: "out"}))
	for i := range 7 {
		must(t, conn.Write(c.ctx, websocket.MessageText, []byte("message "+strconv.Itoa(i))))
	}
	for i := range 5 {
		if _, b, err := conn.Read(c.ctx); err != nil || string(b) != "message "+strconv.Itoa(i) {
			t.Fatalf("answer %d: %q, %v", i, b, err)
		}
	}
	_, b, err := conn.Read(c.ctx)
	var notice struct {
		Kind  string `json:"$tg"`
		Name  string `json:"name"`
		Retry int    `json:"retry_after_ms"`
	}
	if err != nil || json.Unmarshal(b, &notice) != nil || notice.Kind != "limit" || notice.Name != "messages-out" || notice.Retry < 1 || notice.Retry > 12_001 {
		t.Errorf("behind five answers: %q, %v", b, err)
	}
	must(t, conn.Ping(conn.CloseRead(c.ctx))) // still open, and nothing else comes: CloseRead would end with it
}

func TestBackendKilled(t *testing.T) {
	c := newCluster(t)
	conn := c.open(c.b, c.issue(c.a, c.app, request{Stream: "relay", Client: "ann"}))
	c.echo(conn, "hello")
	must(t, c.backend.cmd.Process.Kill())
	_, _, err := conn.Read(c.ctx)
	var closed websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != 4502 || closed.Reason != "backend" {
		t.Errorf("backend killed: %v", err)
	}
	k := c.issue(c.a, c.app, request{Stream: "relay", Client: "bob"})
	if answer := c.refused(c.a, k.Path(), k.Secret()); !strings.HasPrefix(answer, "HTTP/1.1 502 ") {
		t.Errorf("no backend: %q", answer)
	}
}

func TestRedisStopped(t *testing.T) {
	c := newCluster(t)
	conn := c.open(c.b, c.issue(c.a, c.app, request{Stream: "relay", Client: "ann"}))
	waiting := c.issue(c.a, c.app, request{Stream: "echo", Client: "bob"})
	c.redis.Pause()
	_, err := rig.Issue(c.ctx, http.DefaultClient, c.a.Handshake, c.app.Text, request{Stream: "echo", Client: "cy"})
	var r *rig.Refused
	if !errors.As(err, &r) || r.Status != 503 || r.Problem() != "store-unavailable" {
		t.Fatalf("issue without Redis: %v", err)
	}
	if s, err := strconv.Atoi(r.Header.Get("Retry-After")); err != nil || s < 1 || s > 5 {
		t.Errorf("Retry-After %q", r.Header.Get("Retry-After"))
	}
	answer := c.refused(c.b, waiting.Path(), waiting.Secret())
	if !strings.HasPrefix(answer, "HTTP/1.1 503 ") || !strings.Contains(answer, "\r\nRetry-After: ") {
		t.Errorf("redeem without Redis: %q", answer)
	}
	for i := range 20 {
		c.echo(conn, "resident "+strconv.Itoa(i))
	}
	c.redis.Continue()
	for tries := 0; ; tries++ {
		if _, err = rig.Issue(c.ctx, http.DefaultClient, c.a.Handshake, c.app.Text, request{Stream: "echo", Client: "cy"}); err == nil {
			break
		}
		if !errors.As(err, &r) || r.Status != 503 || c.ctx.Err() != nil {
			t.Fatalf("Redis is back: %v", err)
		}
	}
	c.echo(conn, "nothing lost")
}

func TestDrain(t *testing.T) {
	c := newCluster(t)
	var conns []*websocket.Conn
	for i := range 20 {
		conns = append(conns, c.open(c.a, c.issue(c.b, c.app, request{Stream: "echo", Client: "c" + strconv.Itoa(i)})))
	}
	must(t, c.a.Signal(syscall.SIGTERM))
	var early bool
	for _, conn := range conns {
		begun := time.Now()
		_, _, err := conn.Read(c.ctx)
		var closed websocket.CloseError
		if !errors.As(err, &closed) || closed.Code != 1012 || closed.Reason != "drain" {
			t.Fatalf("drained socket: %v", err)
		}
		early = early || time.Since(begun) > time.Millisecond
	}
	if !early {
		t.Error("all sockets were closed at once")
	}
	if err := c.a.Wait(c.ctx); err != nil {
		t.Errorf("exit after a drain: %v", err)
	}
	// Its slots are free at once: all twenty clients may fill their two again.
	for i := range 20 {
		for range 2 {
			c.issue(c.b, c.app, request{Stream: "echo", Client: "c" + strconv.Itoa(i)})
		}
	}
}

func TestSecondSignal(t *testing.T) {
	c := newCluster(t)
	c.open(c.a, c.issue(c.a, c.app, request{Stream: "echo", Client: "ann"}))
	must(t, c.a.Signal(syscall.SIGTERM))
	must(t, c.a.Signal(syscall.SIGTERM))
	var exit *exec.ExitError
	if err := c.a.Wait(c.ctx); err != nil && !errors.As(err, &exit) {
		t.Errorf("second signal: %v", err)
	}
}

// dump is all that Redis holds.
func (c *cluster) dump() []byte {
	c.t.Helper()
	r, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{c.redis.Addr()}, DisableCache: true})
	must(c.t, err)
	defer r.Close()
	keys, err := r.Do(c.ctx, r.B().Keys().Pattern("*").Build()).AsStrSlice()
	must(c.t, err)
	if len(keys) == 0 {
		c.t.Fatal("Redis is empty: nothing was looked at")
	}
	var all []byte
	for _, k := range keys {
		v, err := r.Do(c.ctx, r.B().Dump().Key(k).Build()).AsBytes()
		must(c.t, err)
		all = append(append(all, k...), v...)
	}
	return all
}

// TestNoSecrets looks for the secrets of a whole conversation in what the nodes logged and in Redis.
func TestNoSecrets(t *testing.T) {
	c := newCluster(t)
	k := c.issue(c.a, c.app, request{Stream: "echo", Client: "ann"})
	conn := c.open(c.b, k)
	c.echo(conn, "hello")
	c.refused(c.a, k.Path(), k.Secret())
	unused := c.issue(c.a, c.app, request{Stream: "echo", Client: "ann"})
	dump := c.dump()
	metrics, err := http.Get("http://" + c.b.Admin + "/metrics")
	must(t, err)
	text, err := io.ReadAll(metrics.Body)
	must(t, err)
	must(t, metrics.Body.Close())
	for name, secret := range map[string]string{
		"key": c.app.Text, "locator": k.Path()[3:], "secret": k.Secret(), "unused locator": unused.Path()[3:], "unused secret": unused.Secret()[4:],
	} {
		for where, b := range map[string][]byte{"log of a": []byte(c.a.Log()), "log of b": []byte(c.b.Log()), "redis": dump, "metrics": text} {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s: contains the %s", where, name)
			}
		}
	}
}
