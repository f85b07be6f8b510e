package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"ticketgate/tools/rig"
)

// cluster is what most tests sit in front of: some nodes, a Redis, and a key that may ask for everything.
type cluster struct {
	nodes []*rig.Node
	made  []*rig.StartOptions // of nodes
	redis *rig.Redis
	proxy *proxy // nil: none
	ring  string
	key   rig.Key
	token string // of listen.admin, "" for none
	http  *http.Client
	dir   string
	dial  func(ctx context.Context, gate string) (net.Conn, error) // how open connects; nil: plainly
	packs bool                                                     // what open opens agrees to compression
}

// clusterOptions say what a test needs beyond the defaults.
type clusterOptions struct {
	nodes   int
	memory  bool                                          // one node with the memory store
	backend string                                        // ws:// address of a backend for the stream "relay", "" for none
	relays  map[string]string                             // more such streams, by name, instead of that one
	yaml    string                                        // further lines of the configuration, at its top level
	limits  string                                        // further limits of plan "p", as lines indented by six
	count   int                                           // connections of a client; 0: 10
	full    string                                        // their when_full; "": reject
	dir     string                                        // in the exam's own, for who starts more than one cluster
	feeds   string                                        // of the stream "clock", as YAML; "" for a message each 10 ms
	clock   string                                        // further keys of the stream "clock", with a comma in front
	limit   uint64                                        // RLIMIT_NOFILE of the nodes
	gate    string                                        // further keys of listen.gate, as they stand between braces; "": exemptLoopback
	address string                                        // of the gate; "": a free port of 127.0.0.1
	tags    []string                                      // of the build
	env     []string                                      // beside the process's own
	redis   []string                                      // further arguments of redis-server
	stored  string                                        // the whole of store, for a Redis that runs already; "": one is started
	store   time.Duration                                 // store.timeout; 0: 2 s
	proxy   bool                                          // between the nodes and Redis there is a proxy
	streams []string                                      // further streams that clock brings, which the keys may ask for
	token   string                                        // of listen.admin
	keys    func(ring string) (entries string, err error) // further entries of keys.yaml
	log     io.Writer                                     // gets all that the nodes log; nil: nobody
}

// exemptLoopback lets clients of one loopback address connect as often as they like.
const exemptLoopback = `per_address: { exempt: [127.0.0.0/8, "::1/128"] }`

const baseYAML = `version: 1
node: { state_dir: "." }
listen:
  handshake: { address: "127.0.0.1:0" }
  gate: { address: %q, public_url: "%s://gate.test", %s }
  admin: { address: "127.0.0.1:0"%s }
secrets: { ticket_keys: "${file:ring}", key_hash: "${file:ring}" }
auth: { keys: { source: [keys.yaml] } }
drain: { over: 0s, grace: 1s }
products:
  all: { streams: [%s], plans: [p] }
plans:
  p:
    limits:
      connections: { count: %d, per: client, when_full: %s }
      tickets: { rate: 1000000/1second, per: client }
%sstreams:
  echo: { backend: builtin }
  clock: { feed: clock%s }
%sbackends:
  builtin: { kind: echo }
%sfeeds:
  clock: %s
store: %s
%s`

// storeTimeout is longer than the default: most tests are not about a slow Redis, but may run on a busy machine.
const storeTimeout = 2 * time.Second

// config is the configuration of a node with the store at redis, host:port; "": in memory.
func (o *clusterOptions) config(redis string) string {
	relays := maps.Clone(o.relays)
	if o.backend != "" {
		relays = map[string]string{"relay": o.backend}
	}
	streams, stream, backend := "echo, clock", "", ""
	for _, name := range slices.Sorted(maps.Keys(relays)) {
		streams += ", " + name
		stream += fmt.Sprintf("  %s: { backend: pool-%s }\n", name, name)
		backend += fmt.Sprintf("  pool-%s: { targets: [%q] }\n", name, relays[name])
	}
	for _, name := range o.streams {
		streams += ", " + name
	}
	admin := ""
	if o.token != "" {
		admin = ", token: " + o.token
	}
	store := "{ kind: memory }"
	if redis != "" {
		store = fmt.Sprintf("{ kind: redis, url: \"redis://%s\", timeout: %v }", redis, cmp.Or(o.store, storeTimeout))
	}
	store = cmp.Or(o.stored, store)
	count := o.count
	if count == 0 {
		count = 10
	}
	feed := o.feeds
	if feed == "" {
		feed = "{ kind: clock, every: 10ms }"
	}
	scheme := "ws"
	if strings.Contains(o.gate, "tls:") {
		scheme = "wss"
	}
	return fmt.Sprintf(baseYAML, cmp.Or(o.address, "127.0.0.1:0"), scheme, cmp.Or(o.gate, exemptLoopback), admin, streams, count, cmp.Or(o.full, "reject"), o.limits, o.clock, stream, backend, feed, store, o.yaml)
}

// httpTimeout is for a ticket or a look at the metrics: who waits longer has no answer.
const httpTimeout = 5 * time.Second

// newHTTP keeps n idle connections, for less time than a front end keeps one that has said nothing: a request on one that is
// just being closed has no answer.
func newHTTP(n int) *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: n, IdleConnTimeout: 3 * time.Second}, Timeout: httpTimeout}
}

// start runs the nodes; close ends them.
func start(ctx context.Context, x *exam, o clusterOptions) (c *cluster, err error) {
	c = &cluster{dir: filepath.Join(x.dir, o.dir), http: newHTTP(64), token: o.token}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	bin, err := rig.Binary(ctx, binDir, o.tags...)
	if err != nil {
		return c, err
	}
	if c.ring, err = rig.Ring(); err != nil {
		return c, err
	}
	if c.key, err = rig.NewKey(c.ring, "exam", "exam", "all", "p", "delegate"); err != nil {
		return c, err
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return c, err
	}
	store := ""
	entries := c.key.Entry
	if o.keys != nil {
		more, err := o.keys(c.ring)
		if err != nil {
			return c, err
		}
		entries += more
	}
	if !o.memory && o.stored == "" {
		if c.redis, err = rig.StartRedis(ctx, c.dir, o.redis...); err != nil {
			return c, err
		}
		store = c.redis.Addr
	}
	if o.proxy {
		if c.proxy, err = startProxy(ctx, x.rnd.Uint64(), store, x.pace(slowPeriod)); err != nil {
			return c, err
		}
		store = c.proxy.address
	}
	for i := range max(1, o.nodes) {
		dir := filepath.Join(c.dir, "node"+strconv.Itoa(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return c, err
		}
		made := &rig.StartOptions{Binary: bin, Dir: dir, Name: "exam-" + strconv.Itoa(i), Config: o.config(store), Limit: o.limit, Env: o.env, Log: o.log,
			Files: map[string]string{"ring": c.ring, "keys.yaml": entries}}
		n, err := rig.Start(ctx, made)
		if err != nil {
			return c, err
		}
		c.nodes, c.made = append(c.nodes, n), append(c.made, made)
	}
	return c, nil
}

// restart starts node i again, which has ended, in its folder and by its name. Its addresses are others.
func (c *cluster) restart(ctx context.Context, i int) (err error) {
	n, err := rig.Start(ctx, c.made[i])
	if err == nil {
		c.nodes[i] = n
	}
	return err
}

func (c *cluster) close() error {
	var errs []error
	for _, n := range c.nodes {
		errs = append(errs, n.Stop())
	}
	if c.proxy != nil {
		errs = append(errs, c.proxy.Kill())
	}
	if c.redis != nil {
		errs = append(errs, c.redis.Stop())
	}
	c.http.CloseIdleConnections()
	return errors.Join(errs...)
}

// request is the body of POST /v1/tickets.
type request struct {
	Stream string `json:"stream"`
	Client string `json:"client,omitempty"`
	Origin string `json:"origin,omitempty"`
}

// metric reads one sample, named as it stands in the text, from node 0; 0 if it is not there.
func (c *cluster) metric(ctx context.Context, name string) (int, error) {
	all, err := c.metrics(ctx)
	return int(all[name]), err
}

// metrics reads all samples of node 0, by their names as they stand in the text.
func (c *cluster) metrics(ctx context.Context) (map[string]float64, error) {
	return c.metricsOf(ctx, 0)
}

// metricsOf is metrics of node i.
func (c *cluster) metricsOf(ctx context.Context, i int) (map[string]float64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.nodes[i].Admin+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	a, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		return nil, err
	}
	all := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		if name, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			if all[name], err = strconv.ParseFloat(v, 64); err != nil {
				return nil, fmt.Errorf("/metrics: %w", err)
			}
		}
	}
	return all, nil
}

// issue asks node i for a ticket.
func (c *cluster) issue(ctx context.Context, i int, q request) (*rig.Ticket, error) {
	return rig.Issue(ctx, c.http, c.nodes[i].Handshake, c.key.Text, q)
}
