package main_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ticketgate/store/redistest"
	"ticketgate/tools/rig"
)

const evictYAML = `
version: 1
listen:
  handshake: { address: "127.0.0.1:0" }
  gate: { address: "127.0.0.1:0", public_url: "ws://gate.test", origins: [none], per_address: { exempt: [127.0.0.0/8, "::1/128"] } }
  admin: { address: "127.0.0.1:0" }
store: %s
secrets: { ticket_keys: "${file:ring}", key_hash: "${file:ring}" }
auth: { keys: { source: [keys.yaml] } }
products:
  all: { streams: [echo], plans: [oldest, idlest, warn] }
plans:
  oldest:
    limits:
      connections: { count: 2, per: client, when_full: evict-oldest }
      tickets: { rate: 10000/1minute, per: client }
  idlest:
    limits:
      connections: { count: 2, per: client, when_full: evict-idlest }
  warn:
    limits:
      connections: { count: 1, per: client, when_full: warn }
streams:
  echo: { backend: builtin }
backends:
  builtin: { kind: echo }
drain: { over: 0s, grace: 2s }
log: { level: debug }
`

// evictors are some nodes whose plans let newcomers have the place of others.
type evictors struct {
	t     *testing.T
	ctx   context.Context
	keys  map[string]rig.Key // by plan
	nodes []*rig.Node
	truth crowd
}

// startEvictors starts n nodes on one Redis; 0: one with the memory store.
func startEvictors(t *testing.T, n int) *evictors {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	v := &evictors{t: t, ctx: ctx, keys: map[string]rig.Key{}}
	bin, err := rig.Binary(ctx, binDir)
	must(t, err)
	ring, err := rig.Ring()
	must(t, err)
	entries := ""
	for _, plan := range []string{"oldest", "idlest", "warn"} {
		v.keys[plan], err = rig.NewKey(ring, plan, plan, "all", plan, "delegate")
		must(t, err)
		entries += v.keys[plan].Entry
	}
	store := "{ kind: memory }"
	if n > 0 {
		store = fmt.Sprintf("{ kind: redis, url: %q, timeout: 1s }", redistest.Start(t).URL())
	}
	for range max(n, 1) {
		node, err := rig.Start(ctx, &rig.StartOptions{Binary: bin, Dir: t.TempDir(), Config: fmt.Sprintf(evictYAML, store),
			Files: map[string]string{"ring": ring, "keys.yaml": entries}})
		must(t, err)
		t.Cleanup(func() {
			if err := node.Stop(); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				t.Logf("log of a node:\n%s", node.Log())
			}
		})
		v.nodes = append(v.nodes, node)
	}
	return v
}

// crowd is the clients' own count: a socket is one from its 101 until its client has read the close frame.
type crowd struct {
	mu               sync.Mutex
	open, most       int
	opened, replaced int
}

func (c *crowd) change(by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open += by
	c.most = max(c.most, c.open)
	if by > 0 {
		c.opened++
	} else {
		c.replaced++
	}
}

func (c *crowd) now() (open, most, opened, replaced int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open, c.most, c.opened, c.replaced
}

// A holder is an open socket whose client does everything by hand.
type holder struct {
	conn net.Conn
	r    *bufio.Reader
	code chan uint16 // of the close frame, once; 0: there was none
	echo chan struct{}
}

func (v *evictors) ask(node int, plan, client string) (*rig.Ticket, error) {
	return rig.Issue(v.ctx, http.DefaultClient, v.nodes[node].Handshake, v.keys[plan].Text, request{Stream: "echo", Client: client})
}

// want asks at one node and opens at another. It reads the answer only.
func (v *evictors) want(at, gate int, plan, client string) (*holder, error) {
	k, err := v.ask(at, plan, client)
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(v.ctx, "tcp", v.nodes[gate].Gate)
	if err != nil {
		return nil, err
	}
	v.t.Cleanup(func() { _ = conn.Close() })
	h := &holder{conn: conn, r: bufio.NewReader(conn), code: make(chan uint16, 1), echo: make(chan struct{}, 1)}
	if _, err := io.WriteString(conn, rig.Head(v.nodes[gate].Gate, k.Path(), k.Secret())); err != nil {
		return nil, err
	}
	a, err := http.ReadResponse(h.r, nil)
	if err != nil {
		return nil, err
	}
	if a.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("opening: %s", a.Status)
	}
	v.truth.change(1)
	return h, nil
}

// open is want for who is let in, and has it listen.
func (v *evictors) open(at, gate int, plan, client string) *holder {
	v.t.Helper()
	h, err := v.want(at, gate, plan, client)
	must(v.t, err)
	go h.listen(&v.truth) // ends with the connection
	return h
}

// listen waits for the close frame, and lets go when it has come.
func (h *holder) listen(c *crowd) {
	defer h.conn.Close()
	for {
		op, payload, err := h.frame()
		if err != nil {
			h.code <- 0
			return
		}
		if op == 1 {
			h.echo <- struct{}{}
		}
		if op == 8 && len(payload) >= 2 {
			c.change(-1)
			h.code <- binary.BigEndian.Uint16(payload)
			return
		}
	}
}

// frame reads a short frame.
func (h *holder) frame() (op byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(h.r, head[:]); err != nil {
		return 0, nil, err
	}
	payload = make([]byte, head[1])
	_, err = io.ReadFull(h.r, payload)
	return head[0] & 15, payload, err
}

// closed is the code that the client has read, 0 if it has read none yet.
func (h *holder) closed() uint16 {
	select {
	case code := <-h.code:
		h.code <- code
		return code
	default:
		return 0
	}
}

// say sends a text message, masked with zeros.
func (h *holder) say(text string) error {
	_, err := h.conn.Write(append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...))
	return err
}

// chat says something and hears the echo, for as long as nodes may differ about the store's clock: half a round trip on a busy machine.
func (v *evictors) chat(h *holder) {
	v.t.Helper()
	for start := time.Now(); time.Since(start) < 300*time.Millisecond; {
		must(v.t, h.say("busy"))
		select {
		case <-h.echo:
		case <-v.ctx.Done():
			v.t.Fatal("no echo")
		}
	}
}

func full(err error) bool {
	var no *rig.Refused
	return errors.As(err, &no) && no.Status == http.StatusTooManyRequests && no.Problem() == "connection-limit"
}

// metrics is what a node says of itself.
func (v *evictors) metrics(node int) string {
	v.t.Helper()
	a, err := http.Get("http://" + v.nodes[node].Admin + "/metrics")
	must(v.t, err)
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	must(v.t, err)
	return string(text)
}

// TestEvictedForNewcomer: of two sockets at two nodes the one that was opened first, resp. said something last the longest ago, hears
// 4409 before the newcomer gets its ticket, wherever that asks.
func TestEvictedForNewcomer(t *testing.T) {
	v := startEvictors(t, 2)
	for newcomer := range 2 {
		name := fmt.Sprint("ann-", newcomer)
		first := v.open(1, 0, "oldest", name)
		v.chat(first)
		second := v.open(0, 1, "oldest", name)
		v.chat(first) // which makes no difference
		k, err := v.ask(newcomer, "oldest", name)
		must(t, err)
		if first.closed() != 4409 || second.closed() != 0 || k.Connections.Used != 2 {
			t.Errorf("newcomer at %d: closed with %d and %d, used %d", newcomer, first.closed(), second.closed(), k.Connections.Used)
		}
		// The other slot is that of an unused ticket now: nobody but the second can go, and then nobody.
		_, err = v.ask(newcomer, "oldest", name)
		must(t, err)
		if second.closed() != 4409 {
			t.Errorf("the second: %d", second.closed())
		}
		if _, err := v.ask(newcomer, "oldest", name); !full(err) {
			t.Errorf("a slot of a ticket that is not used yet: %v", err)
		}
	}
	busy, idle := v.open(0, 1, "idlest", "bob"), v.open(0, 0, "idlest", "bob")
	v.chat(busy)
	v.open(1, 1, "idlest", "bob")
	if idle.closed() != 4409 || busy.closed() != 0 {
		t.Errorf("idlest: closed with %d, the busy one with %d", idle.closed(), busy.closed())
	}
	if m := v.metrics(0) + v.metrics(1); strings.Count(m, `ticketgate_connections_closed_total{by="gateway",code="4409"`) != 2 ||
		!strings.Contains(m, `ticketgate_limit_decisions_total{decision="refuse",limit="connections",plan="oldest"} 1`) {
		t.Errorf("metrics:\n%s", m)
	}
	if !strings.Contains(v.nodes[0].Log()+v.nodes[1].Log(), "replaced") {
		t.Error("no log line of a replaced socket")
	}
}

// TestEvictedInMemory: one node whose store is in it.
func TestEvictedInMemory(t *testing.T) {
	v := startEvictors(t, 0)
	first := v.open(0, 0, "oldest", "ann")
	v.chat(first)
	second := v.open(0, 0, "oldest", "ann")
	v.open(0, 0, "oldest", "ann")
	if first.closed() != 4409 || second.closed() != 0 {
		t.Errorf("closed with %d and %d", first.closed(), second.closed())
	}
}

// TestEvictRace: newcomers at two nodes at once. By the clients' own count there are never more than two, and for each that was let in
// one has gone.
func TestEvictRace(t *testing.T) {
	v := startEvictors(t, 2)
	for n := range 2 {
		v.open(n, n, "oldest", "ann")
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	in, out := 0, 0
	for n := range 50 {
		wg.Go(func() {
			h, err := v.want(n%2, n/2%2, "oldest", "ann")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				in++
				go h.listen(&v.truth)
			case full(err):
				out++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	open, most, opened, replaced := v.truth.now()
	t.Logf("%d were let in and %d not", in, out)
	if most != 2 || open != 2 || replaced != in || opened != in+2 || in == 0 || in+out != 50 {
		t.Errorf("%d open, at most %d, %d replaced; %d newcomers were let in and %d not", open, most, replaced, in, out)
	}
}

// TestEvictDeaf: a victim that does not read is cut off, and the newcomer waits no longer than that.
func TestEvictDeaf(t *testing.T) {
	v := startEvictors(t, 2)
	deaf, err := v.want(0, 0, "oldest", "ann")
	must(t, err)
	v.open(0, 1, "oldest", "ann")
	start := time.Now()
	_, err = v.ask(1, "oldest", "ann")
	must(t, err)
	t.Logf("after %v", time.Since(start))
	must(t, deaf.conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	if _, err := io.Copy(io.Discard, deaf.r); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the victim: %v", err)
	}
}

// TestEvictStopped: the victim's node does not answer. The newcomer is refused, and nobody is evicted later.
func TestEvictStopped(t *testing.T) {
	v := startEvictors(t, 2)
	h := v.open(0, 0, "oldest", "ann")
	v.open(0, 0, "oldest", "ann")
	must(t, v.nodes[0].Signal(syscall.SIGSTOP))
	start := time.Now()
	_, err := v.ask(1, "oldest", "ann")
	took := time.Since(start)
	must(t, v.nodes[0].Signal(syscall.SIGCONT))
	if !full(err) {
		t.Errorf("refused with %v", err)
	}
	if t.Logf("after %v", took); took > 10*time.Second {
		t.Errorf("refused after %v", took)
	}
	if _, err := v.ask(0, "warn", "other"); err != nil { // it is back
		t.Error(err)
	}
	v.chat(h)
	if h.closed() != 0 {
		t.Errorf("closed with %d, though nobody took its place", h.closed())
	}
	if _, err := v.ask(1, "oldest", "ann"); err != nil || h.closed() != 4409 {
		t.Errorf("the next newcomer: %v, and the victim heard %d", err, h.closed())
	}
}

// TestWarnWhenFull: everybody is let in; it is counted, and told once.
func TestWarnWhenFull(t *testing.T) {
	v := startEvictors(t, 0)
	for range 3 {
		v.chat(v.open(0, 0, "warn", "ann"))
	}
	m := v.metrics(0)
	for _, want := range []string{`{decision="allow",limit="connections",plan="warn"} 1`, `{decision="soft",limit="connections",plan="warn"} 2`} {
		if !strings.Contains(m, "ticketgate_limit_decisions_total"+want) {
			t.Errorf("no %s in\n%s", want, m)
		}
	}
	if n := strings.Count(v.nodes[0].Log(), "limit exceeded"); n != 1 {
		t.Errorf("%d lines of it, want one", n)
	}
}
