package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"math"
	"net"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/feed"
	"ticketgate/feed/clock"
	"ticketgate/feed/echo"
	"ticketgate/feed/relay"
	"ticketgate/handshake"
	"ticketgate/handshake/auth"
	"ticketgate/internal/admin"
	"ticketgate/internal/certs"
	"ticketgate/internal/config"
	"ticketgate/internal/mono"
	"ticketgate/internal/pressure"
	"ticketgate/internal/unit"
	"ticketgate/limiter"
	"ticketgate/store/evict"
	"ticketgate/store/memory"
	"ticketgate/store/node"
	"ticketgate/store/node/lives"
	"ticketgate/store/redis"
	"ticketgate/ticket"
)

// Sizes of a node's shared tables.
const (
	cacheEntries  = 1 << 16 // tickets remembered as spent or refused: one node's redemptions of 30 s at 2,000 a second
	sharedBuckets = 1 << 20 // message limits per client, key, ...; 40 bytes each once used
	purses        = 1 << 18 // the same of limits that the store keeps; 152 bytes each once used

	// The part of memory.outbound that is left to the allocator: resident memory is more than the buffers in use.
	allocatorShare = 8

	// What the kernel holds for a slow client before websocket.queue counts. Left to itself it takes up to 4 MiB a socket,
	// out of sight of every limit; with this much a socket still gets 2.5 MiB/s over a path of 200 ms. It bounds what is on
	// its way to a client that does not acknowledge it; what cannot be sent is bounded by the reactor (TCP_NOTSENT_LOWAT).
	// With 128 KiB bursts of long messages cost a tenth more: the kernel counts its own frames in it, and takes them in pieces.
	sendBuffer = 512 << 10
)

// gateway is one node: the rooms, built from a configuration and joined. newGateway makes it, run runs it once.
type gateway struct {
	c    *config.Config
	log  *slog.Logger
	ring *ticket.KeyRing
	keys *auth.Keys

	store     ticket.Store
	redis     *redis.Store // store, if it is that
	count     *limiter.Count
	messages  *limiter.Table
	bank      limiter.Bank
	purses    *limiter.Purses // nil: no plan has limits that the bank keeps
	settled   chan struct{}   // closed when purses have given back what they had; nil: they were not started
	settle    context.CancelFunc
	memory    *pressure.Watch
	certs     map[string]*certs.Store // by name of the tls entry, those that a listener uses
	node      *node.Node
	lives     *lives.File // nil: node.state_dir is not set
	revoking  *revoking
	relays    []*relay.Relay
	feeds     []*clock.Clock
	plans     []*limiter.Plan
	engine    *engine.Engine
	evictor   *evict.Evictor // nil: no plan evicts
	handshake *handshake.Server
	admin     *admin.Server

	sockets       sockets    // that came with the process
	gateAddrs     []net.Addr // at least one
	handshakeAddr net.Addr
	publicURL     string
	events        *eventLog
	policy        *handshake.Policy
	draining      atomic.Bool
}

// extras are what dev adds to a gateway.
type extras struct {
	keyRing *auth.Ring                   // instead of the configuration's
	paths   map[string]handshake.Handler // further paths of the handshake listener
	sockets sockets                      // stand in for configured addresses; newGateway closes them

	newStore bool // nobody has used the store before
}

// newGateway builds all rooms and opens their listeners, so that every address is known and every mistake told before
// anything runs.
func newGateway(c *config.Config, log *slog.Logger, x extras) (*gateway, error) {
	g := &gateway{c: c, log: log, certs: map[string]*certs.Store{}, events: newEventLog(log), sockets: x.sockets}
	defer x.sockets.close()
	err := g.build(x)
	if err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return nil, errors.Join(err, g.close(ctx))
	}
	return g, nil
}

func (g *gateway) build(x extras) error {
	if err := g.buildSecrets(x.keyRing); err != nil {
		return err
	}
	if err := g.buildStore(x.newStore); err != nil {
		return err
	}
	streams, handlers, err := g.buildStreams()
	if err != nil {
		return err
	}
	g.buildMemory()
	if err := g.buildEngine(streams, handlers); err != nil {
		return err
	}
	if err := g.buildHandshake(x.paths); err != nil {
		return err
	}
	return g.buildAdmin()
}

// buildSecrets reads the key rings, or makes them where the store is this process.
func (g *gateway) buildSecrets(ring *auth.Ring) (err error) {
	s := &g.c.Secrets
	if s.TicketKeys.Empty() {
		g.ring, err = ticket.NewKeyRing(rand.Reader)
	} else {
		g.ring, err = ticket.ParseKeyRing(s.TicketKeys.Reveal())
	}
	if err != nil {
		return fmt.Errorf("secrets.ticket_keys: %w", err)
	}
	if ring == nil {
		ring, err = keyRing(s.KeyHash.Reveal())
		if err != nil {
			return fmt.Errorf("secrets.key_hash: %w", err)
		}
	}
	keys, problems := auth.NewKeys(g.c.Keys, ring)
	if len(problems) > 0 {
		return fmt.Errorf("auth.keys: %v", problems[0])
	}
	g.keys = keys
	return nil
}

// keyRing reads text, or makes a ring of one random key if there is none.
func keyRing(text string) (*auth.Ring, error) {
	if text == "" {
		var key [32]byte
		if _, err := rand.Read(key[:]); err != nil {
			return nil, err
		}
		text = "start:" + base64.StdEncoding.EncodeToString(key[:])
	}
	return auth.ParseRing(text)
}

func (g *gateway) buildStore(isNew bool) error {
	clk := mono.System
	switch s := &g.c.Store; s.Kind {
	case "redis":
		r, err := redis.New(redis.Options{
			URL: s.URL.Reveal(), Addresses: s.Addresses, User: s.User, Password: s.Password.Reveal(), TLS: s.TLS.Loaded,
			Sentinel: redis.Sentinel{Master: s.Sentinel.Master, User: s.Sentinel.User, Password: s.Sentinel.Password.Reveal()},
			Prefix:   s.Prefix, Timeout: s.Timeout, Clock: clk, Log: g.log,
		})
		if err != nil {
			return fmt.Errorf("store: %w", err)
		}
		g.store, g.redis, g.bank = r, r, r
	default:
		m, err := memory.New(memory.Options{Clock: clk, Rand: rand.Reader})
		if err != nil {
			return err
		}
		g.store, g.bank = m, memory.NewBank(clk, 0)
	}
	g.count = limiter.NewCount(clk, g.c.Cluster.Lease)
	o := node.Options{
		Store: g.store, Name: g.c.Node.Name, Heartbeat: g.c.Cluster.Heartbeat, Lease: g.c.Cluster.Lease,
		Timeout: g.c.Store.Timeout, Replicas: g.c.Store.RenewalReplicas(), Available: g.available(), First: isNew,
		Spends: g.c.Tickets.Authority == "node", OnOverdue: g.overdue,
		Clock: mono.Boot, Rand: rand.Reader, Counts: g.count, Subjects: g.subjects(), OnLeaseLost: g.leaseLost, Log: g.log,
	}
	if err := g.identify(&o); err != nil {
		return err
	}
	o.OnLife = g.live(o.OnLife)
	g.node = node.New(o)
	g.buildRevoking()
	return nil
}

// subjects are all whose sockets the node has counted lately.
func (g *gateway) subjects() iter.Seq[ticket.Subject] {
	return func(yield func(ticket.Subject) bool) {
		g.count.Each(func(r limiter.Reading) bool { return yield(r.Subject) })
	}
}

// available says that sockets outlive the node's lease.
func (g *gateway) available() bool { return g.c.Cluster.Mode == "available" }

// leaseLost wakes loops whose sockets are silent: in mode strict all end before the store can give their slots to others.
func (g *gateway) leaseLost() {
	if g.available() {
		g.log.Warn("slot lease lost: sockets are kept, and limits on connections may be exceeded by as many")
		return
	}
	g.log.Error("slot lease lost: closing all sockets with 1013")
	if e := g.engine; e != nil {
		go e.AskLife()
	}
}

// overdue wakes loops whose sockets are silent: some end now, which the store was not told of in time.
func (g *gateway) overdue() {
	if e := g.engine; e != nil {
		go e.AskLife()
	}
}

// life is engine.Options.Life.
func (g *gateway) life() func(mono.Time) uint32 {
	if g.available() {
		return nil
	}
	return g.node.Life
}

// buildStreams makes what feeds sockets. A relay's sockets are a kind of their own in the reactor.
func (g *gateway) buildStreams() ([]engine.StreamEntry, []reactor.Handler, error) {
	var handlers []reactor.Handler
	sources, topics := map[string]engine.Stream{}, map[string]*feed.Hub{}
	for _, name := range slices.Sorted(maps.Keys(g.c.Backends)) {
		b := g.c.Backends[name]
		if b.Kind == "echo" {
			sources["backend "+name] = echo.Echo{}
			continue
		}
		r, err := relay.New(relay.Options{
			Name: name, Targets: b.Targets, DialTimeout: b.Health.DialTimeout,
			MaxMessage: int64(g.c.WebSocket.MaxMessage), MaxFragments: g.c.WebSocket.MaxFragments,
			Kind: reactor.Kind(1 + len(handlers)), Rand: rand.Reader,
		})
		if err != nil {
			return nil, nil, err
		}
		g.relays = append(g.relays, r)
		handlers = append(handlers, r.Handler())
		sources["backend "+name] = r
	}
	for _, name := range slices.Sorted(maps.Keys(g.c.Feeds)) {
		c := clock.New(clock.Options{Every: g.c.Feeds[name].Every, Pad: int(g.c.Feeds[name].Pad), Clock: mono.System})
		g.feeds = append(g.feeds, c)
		topics[name] = c.Hub
	}
	var entries []engine.StreamEntry
	for _, name := range slices.Sorted(maps.Keys(g.c.Streams)) {
		s := g.c.Streams[name]
		source := sources["backend "+s.Backend]
		if s.Feed != "" {
			source = topics[s.Feed].Stream(slowRule(&s.SlowConsumer, g.c.WebSocket.Queue))
		}
		entries = append(entries, engine.StreamEntry{
			Name: name, Stream: source, MayNot: !s.ClientMaySend,
			Rules: &frame.Rules{Role: frame.Server, Opcodes: frame.AllowBoth,
				MaxMessage: int64(g.c.WebSocket.MaxMessage), MaxFragments: g.c.WebSocket.MaxFragments},
		})
	}
	return entries, handlers, nil
}

// slowRule is what a stream says of readers that do not keep up; otherwise is the queue if it says none.
func slowRule(s *config.SlowConsumer, otherwise unit.Size) feed.Slow {
	then := map[string]feed.Then{"close": feed.Close, "drop-oldest": feed.DropOldest, "latest-only": feed.LatestOnly}
	return feed.Slow{Queue: int(cmp.Or(s.Queue, otherwise)), Then: then[s.Then]}
}

func (g *gateway) buildEngine(streams []engine.StreamEntry, handlers []reactor.Handler) error {
	c := g.c
	var seed [8]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return err
	}
	g.messages = limiter.NewTable(sharedBuckets, binary.BigEndian.Uint64(seed[:]), mono.System)
	for _, name := range slices.Sorted(maps.Keys(c.Plans)) {
		g.plans = append(g.plans, c.Plans[name].Compiled)
	}
	if slices.ContainsFunc(g.plans, (*limiter.Plan).Leased) {
		g.purses = limiter.NewPurses(g.bank, purses, g.ring.Subject, mono.System)
		g.messages.Lend(g.purses)
	}
	loops := processors()
	limits, err := addresses(&c.Listen.Gate.PerAddress, loops)
	if err != nil {
		return err
	}
	tls, err := g.buildTLS()
	if err != nil {
		return err
	}
	limit := config.MemoryLimit(c.Memory.Limit, os.DirFS("/"))
	outbound := int64(c.Memory.Outbound.Of(limit))
	e, err := engine.New(engine.Options{
		Keys: g.ring, Cache: ticket.NewCache(cacheEntries), Redeemer: member{g.node, g.revoking}, Revoked: g.revoking.redeem, Count: g.count, Table: g.messages,
		Policy: engine.NewPolicy(streams, g.plans), Clock: mono.System, Rand: rand.Reader,
		Node: c.Node.Name, Base: httpBase(publicURL(c, nil)), Origins: origins(c.Listen.Gate.Origins), Handlers: handlers,
		Deadlines: engine.Deadlines{TLS: c.Listen.Gate.Deadlines.TLS, Head: c.Listen.Gate.Deadlines.Head, Admit: c.Listen.Gate.Deadlines.Admit,
			Ping: c.WebSocket.Ping, PongWait: c.WebSocket.PongWait, Idle: time.Duration(c.WebSocket.Idle)},
		Control: c.WebSocket.Control, ControlBurst: 2 * c.WebSocket.Control.N, Assembly: c.WebSocket.Assembly,
		Queue: engine.QueueFor(int64(c.WebSocket.Queue), int64(c.WebSocket.MaxMessage)), NodeQueue: outbound - outbound/allocatorShare,
		HoldMax:     int64(limit), // as far as Room goes: then those are cut who hold most, not who comes with the next message
		Compression: c.WebSocket.Compression == "on", InflateRatio: c.WebSocket.InflateRatio,
		SendBuffer: sendBuffer, Loops: loops, Single: c.Node.IOUring == "off", MaxSessions: int64(c.Listen.Gate.Admit.Connections),
		AdmitConns: admitConns(), AdmitRate: c.Listen.Gate.Admit.Rate, HeadsMax: headsMax, Addresses: limits, Overloaded: g.memory.Refuses,
		Log: func(msg string, args ...any) { g.log.Warn(msg, args...) }, Event: g.events.hook(),
		Proxy: c.Listen.Gate.ProxyProtocol.Policy(), TLS: tls,
		Life: g.life(),
	})
	if err != nil {
		return err
	}
	g.engine, g.revoking.engine = e, e
	if g.purses != nil {
		g.purses.OnAnswer(e.Answered)
	}
	g.buildEvictor()
	for _, r := range g.relays {
		if err := r.Bind(e); err != nil {
			return err
		}
	}
	for _, f := range g.feeds {
		f.Bind(e)
	}
	if g.gateAddrs, err = g.sockets.listenGate(e, c.Listen.Gate.Address); err != nil {
		return err
	}
	g.publicURL = publicURL(c, g.gateAddrs[0])
	return nil
}

// processors sees to it that goroutines need not wait for loops, and returns how many loops there are to be: one for each
// processor that the process may use. A loop that sleeps in epoll_wait holds its place among GOMAXPROCS until the runtime's
// monitor takes it away, up to 10 ms later; with as many places again, there is always one for whoever has work.
func processors() int {
	n := runtime.NumCPU()
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(2 * n)
	}
	return n
}

// strangersMin is how many sockets may be there, at least, beside those that have been let in.
const strangersMin = 64

// admitConns is 90 % of the descriptors: with so many clients, and sockets to backends, newcomers are told to come back later.
// With few descriptors that is too near to where the reactor stops accepting (95 %, less its reserve, less a 32nd for backends):
// strangers would have hardly any.
func admitConns() int64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0
	}
	limit := int64(min(l.Cur, math.MaxInt32))
	return min(limit*9/10, (limit*95/100-reactor.ReserveDefault)*31/32-strangersMin)
}

// publicURL is the configured one, or the gate's own address.
func publicURL(c *config.Config, at net.Addr) string {
	switch {
	case c.Listen.Gate.PublicURL != "":
		return c.Listen.Gate.PublicURL
	case at != nil:
		return "ws://" + at.String()
	default:
		return "ws://" + c.Listen.Gate.Address[0]
	}
}

// httpBase is what problem types begin with.
func httpBase(ws string) string { return "http" + strings.TrimPrefix(ws, "ws") }

func origins(list []string) (o engine.Origins) {
	for _, s := range list {
		if s == "none" {
			o.None = true
			continue
		}
		o.List = append(o.List, s)
	}
	return o
}

func (g *gateway) buildHandshake(paths map[string]handshake.Handler) (err error) {
	c := g.c
	g.policy = &handshake.Policy{
		Streams: map[string]handshake.Stream{}, Plans: map[string]*limiter.Plan{}, Products: map[string]handshake.Product{},
		Keys: g.keys, CORSOrigins: c.Listen.Handshake.CORS.Origins,
	}
	for name, s := range c.Streams {
		params := map[string]*regexp.Regexp{}
		for p, pattern := range s.Params {
			params[p] = pattern.Regexp
		}
		g.policy.Streams[name] = handshake.Stream{Name: name, Params: params}
	}
	for name := range c.Plans {
		g.policy.Plans[name] = c.Plans[name].Compiled
	}
	for name, p := range c.Products {
		g.policy.Products[name] = handshake.Product{Streams: p.Streams, Plans: p.Plans}
	}
	ln, err := g.sockets.listenHTTP(handshakeSocket, c.Listen.Handshake.Address)
	if err != nil {
		return err
	}
	if c.Tickets.BindIP && ln.Addr().Network() == "unix" { // as config says of a configured address
		return errors.Join(errors.New("tickets.bind_ip: who asks over a unix socket has no address that a ticket could be bound to"), ln.Close())
	}
	g.handshake, err = handshake.New(handshake.Options{
		Listener: ln, GateURL: g.publicURL, TTL: c.Tickets.TTL, SessionMax: c.Tickets.SessionMax,
		BindIP: c.Tickets.BindIP, Outstanding: c.Tickets.Outstanding, Keys: g.ring, Name: c.Node.Name, Node: issuer{member{g.node, g.revoking}}, Revoked: g.revoking, Evictor: g.evicts(),
		Policy: func() *handshake.Policy { return g.policy }, Messages: g.messages, Bank: g.bank, Draining: g.draining.Load, Overloaded: g.memory.Refuses, Extra: paths,
		Clock: mono.System, Rand: rand.Reader, Log: g.log,
	})
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	g.handshakeAddr, err = g.handshake.Listen()
	return err
}

func (g *gateway) buildAdmin() (err error) {
	ln, err := g.sockets.listenHTTP(adminSocket, g.c.Listen.Admin.Address)
	if err != nil {
		return err
	}
	if g.c.Listen.Admin.Token.Empty() && !onlyHere(ln.Addr()) { // as config says of a configured address
		return errors.Join(fmt.Errorf("listen.admin.token: missing; the admin listener %v can be reached from elsewhere", ln.Addr()), ln.Close())
	}
	begun := mono.Boot.Now()
	var socket net.Listener
	if path := g.c.Listen.Admin.Socket; path != "" {
		if socket, err = listenAdmin(path); err != nil {
			return errors.Join(fmt.Errorf("listen.admin.socket: %w", err), ln.Close())
		}
	}
	o := admin.Options{Listener: ln, Socket: socket, Base: httpBase(g.publicURL), Control: &controls{g.revoking, g.c.Keys}, Token: g.c.Listen.Admin.Token.Reveal(), Ready: g.ready, Log: g.log, Node: &admin.Node{
		Version: version, Name: g.c.Node.Name, StoreKind: g.c.Store.Kind, Connections: int64(g.c.Listen.Gate.Admit.Connections),
		Uptime: func() time.Duration { return mono.Boot.Now().Sub(begun) },
		Engine: g.engine.Stats, StoreReady: member{g.node, g.revoking}.Ready, Draining: g.draining.Load, Memory: g.memory.Stats,
		Mode: g.c.Cluster.Mode, Authority: g.c.Tickets.Authority, Cluster: g.node.Status,
	}}
	if g.c.Telemetry.Metrics {
		o.Metrics = &admin.Metrics{
			Version: version, Engine: g.engine.Stats, Handshake: g.handshake.Stats, Plans: g.plans, Relays: g.relays,
			Redis: g.redis, Ready: member{g.node, g.revoking}.Ready, Cluster: g.node.Status, Authority: g.c.Tickets.Authority, Draining: g.draining.Load, Memory: g.memory.Stats, Certs: g.certEnds(), Revoked: g.revoking.follow.Stats,
		}
	}
	g.admin, err = admin.New(o)
	return err
}

// ready is why newcomers are not taken, nil if they are.
func (g *gateway) ready() error {
	if g.draining.Load() {
		return errors.New("draining")
	}
	if g.memory.Refuses() {
		return errors.New("short of memory")
	}
	return member{g.node, g.revoking}.Ready()
}

// run serves until ctx ends, drains, and closes everything. It is called once.
func (g *gateway) run(ctx context.Context, serving func()) error {
	g.node.Start(ctx)
	if err := g.onlyOne(ctx); err != nil || ctx.Err() != nil {
		over, cancel := context.WithTimeout(context.Background(), max(g.c.Drain.Grace, time.Second))
		defer cancel()
		return errors.Join(err, g.close(over))
	}
	g.revoking.follow.Start(ctx)
	g.engine.Start()
	failed := make(chan error, 2)
	go func() { failed <- g.handshake.Serve() }() // ends in close, as does the next
	go func() { failed <- g.admin.Serve() }()
	sweeping, stop := context.WithCancel(ctx)
	defer stop()
	go g.sweep(sweeping)
	g.lend(ctx)
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx)) // a drain, too, must not run out of memory
	defer unwatch()
	go g.watchMemory(watching)
	go g.revoking.sweep(watching) // and who is revoked then goes at once
	go g.followPlans(sweeping)
	go tidyUp(sweeping, debug.FreeOSMemory)
	g.watchCerts(sweeping)
	serving()
	var err error
	select {
	case <-ctx.Done():
		err = g.drain()
	case err = <-g.engine.Failed():
	case err = <-failed:
	}
	over, cancel := context.WithTimeout(context.Background(), max(g.c.Drain.Grace, time.Second))
	defer cancel()
	return errors.Join(err, g.close(over))
}

// lend has the purses served until close.
func (g *gateway) lend(ctx context.Context) {
	if g.purses == nil {
		return
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx)) // until the last socket has gone
	g.settled, g.settle = make(chan struct{}), stop
	go func() { // close waits for it
		defer close(g.settled)
		g.purses.Run(serving, max(g.c.Store.Timeout, time.Second))
	}()
}

// sweepEvery is how often slots that nobody holds any more are forgotten.
const sweepEvery = 30 * time.Second

func (g *gateway) sweep(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			g.count.Sweep()
		case <-ctx.Done():
			return
		}
	}
}

// drain takes nothing new and sends everybody away over drain.over; who is still there after drain.grace more is cut off.
func (g *gateway) drain() error {
	g.draining.Store(true)
	g.log.Info("draining", "over", g.c.Drain.Over.String(), "sockets", g.engine.Stats().Live)
	ctx, cancel := context.WithTimeout(context.Background(), g.c.Drain.Over+max(g.c.Drain.Grace, time.Second))
	defer cancel()
	if err := g.engine.Drain(ctx, g.c.Drain.Over); err != nil {
		g.log.Warn("not all sockets left in time", "sockets", g.engine.Stats().Live)
	}
	return nil
}

// close ends what was built, in the order in which nothing misses what it needs. It may be called on a half-built gateway.
func (g *gateway) close(ctx context.Context) error {
	var errs []error
	if g.handshake != nil {
		errs = append(errs, g.handshake.Shutdown(ctx))
	}
	if g.evictor != nil {
		g.evictor.Close()
	}
	for _, f := range g.feeds {
		f.Close()
	}
	if g.engine != nil {
		errs = append(errs, g.engine.Stop(ctx))
	}
	for _, r := range g.relays {
		r.Close()
	}
	if g.settled != nil {
		g.settle()
		<-g.settled
	}
	if g.revoking != nil {
		g.revoking.follow.Close()
	}
	if g.node != nil {
		if err := g.node.Close(ctx); err != nil {
			g.log.Warn("the store was not told of the last closed sockets: their slots are free when the lease ends", "error", err)
		}
	}
	if g.store != nil {
		errs = append(errs, g.store.Close())
	}
	if g.lives != nil { // not before the last socket is closed
		errs = append(errs, g.lives.Close())
	}
	if g.admin != nil {
		errs = append(errs, g.admin.Shutdown(ctx))
	}
	g.events.close()
	return errors.Join(errs...)
}
