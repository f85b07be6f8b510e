// Package feedtest is a gate for the tests of streams: a whole engine, on real sockets or on the reactor's in-memory twin,
// whose store says yes to every ticket that the gate itself has minted.
package feedtest

import (
	"context"
	"crypto/rand"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/internal/mono"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

// Options of a Gate. Stream is needed.
type Options struct {
	Stream     engine.Stream
	Handlers   []reactor.Handler
	Limits     map[string]limiter.Options
	MaxMessage int64 // from the client; 0: 64 KiB
	Loops      int   // 0: 1
	Queue      int   // 0: the reactor's default
	NodeQueue  int64 // 0: the reactor's default
	MayNot     bool  // clients may not send

	Compression bool // permessage-deflate is agreed to
}

// Stream is the name of the only stream.
const Stream = "s"

// A Gate is an engine with one stream.
type Gate struct {
	Engine *engine.Engine
	Memory *reactor.Memory // of NewMemory
	Clock  *mono.Manual    // of NewMemory
	Addr   string          // host:port, of New

	// Deadline ends a minute after New: how long all that a test waits for may take.
	Deadline context.Context

	minter *ticket.Minter
	keys   *ticket.KeyRing
	store  *store
	ends   chan engine.Event
}

// NewMemory returns a gate on the in-memory twin. bind is called with the engine before it runs; it may be nil.
func NewMemory(t testing.TB, o Options, bind func(*engine.Engine)) *Gate {
	t.Helper()
	clk := mono.NewManual(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
	g, eo := prepare(t, o, clk, mathrand.NewChaCha8([32]byte{1}))
	g.Clock = clk
	g.store.sync = true
	var err error
	if g.Engine, g.Memory, err = engine.NewMemory(eo, clk); err != nil {
		t.Fatal(err)
	}
	if bind != nil {
		bind(g.Engine)
	}
	t.Cleanup(func() {
		if err := g.Engine.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return g
}

// New returns a gate that listens on loopback until the test ends.
func New(t testing.TB, o Options, bind func(*engine.Engine)) *Gate {
	t.Helper()
	g, eo := prepare(t, o, mono.System, rand.Reader)
	var err error
	if g.Engine, err = engine.New(eo); err != nil {
		t.Fatal(err)
	}
	if bind != nil {
		bind(g.Engine)
	}
	addr, err := g.Engine.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.Addr = addr.String()
	g.Engine.Start()
	t.Cleanup(func() { g.stop(t) })
	var cancel context.CancelFunc
	g.Deadline, cancel = context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return g
}

func (g *Gate) stop(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := g.Engine.Stop(ctx); err != nil {
		t.Errorf("the engine does not stop: %v", err)
	}
	g.store.running.Wait()
	select {
	case err := <-g.Engine.Failed():
		t.Errorf("a loop has ended: %v", err)
	default:
	}
}

func prepare(t testing.TB, o Options, clk mono.Clock, rnd io.Reader) (*Gate, engine.Options) {
	t.Helper()
	keys, err := ticket.NewKeyRing(rnd)
	if err != nil {
		t.Fatal(err)
	}
	plan, problems := limiter.Compile("p", o.Limits, limiter.Defaults{})
	if problems != nil {
		t.Fatalf("limits: %+v", problems)
	}
	g := &Gate{minter: keys.NewMinter(rnd), keys: keys, ends: make(chan engine.Event, 1<<12),
		store: &store{clk: clk, grants: map[ticket.Hash][]byte{}}}
	if o.MaxMessage == 0 {
		o.MaxMessage = 64 << 10
	}
	rules := &frame.Rules{Opcodes: frame.AllowBoth, MaxMessage: o.MaxMessage, MaxFragments: 128}
	entry := engine.StreamEntry{Name: Stream, Stream: o.Stream, Rules: rules, MayNot: o.MayNot}
	return g, engine.Options{
		Keys: keys, Cache: ticket.NewCache(1 << 12), Redeemer: g.store, Clock: clk, Rand: rnd,
		Count:       limiter.NewCount(clk, time.Minute),
		Table:       limiter.NewTable(1<<10, 1, clk),
		Policy:      engine.NewPolicy([]engine.StreamEntry{entry}, []*limiter.Plan{plan}),
		Base:        "https://gate.test",
		Origins:     engine.Origins{None: true},
		Handlers:    o.Handlers,
		Compression: o.Compression, InflateRatio: 256,
		Loops:     max(o.Loops, 1),
		Queue:     o.Queue,
		NodeQueue: o.NodeQueue,
		HoldMax:   1 << 30,
		Assembly:  10 * time.Second,
		Control:   limiter.Rate{N: 1000, Per: time.Second},
		Deadlines: engine.Deadlines{Head: 5 * time.Second, Admit: 10 * time.Second, Ping: 25 * time.Second, PongWait: 10 * time.Second},

		ControlBurst: 1000,
		Event:        g.event,
	}
}

// event keeps how sockets ended, for Ended.
func (g *Gate) event(ev engine.Event) {
	if ev.Kind != engine.EventClosed {
		return
	}
	select {
	case g.ends <- ev:
	default: // a test that opens thousands asks for none of them
	}
}

// Ended gives how the open sockets of the gate have ended, in order.
func (g *Gate) Ended() <-chan engine.Event { return g.ends }

// Ticket mints a ticket for the stream and returns the target and the secret that open a socket with it.
func (g *Gate) Ticket(t testing.TB, protocols ...string) (target, secret string) {
	t.Helper()
	now := g.store.clk.Wall()
	m, err := g.minter.Mint(now.Add(30*time.Second), 1, g.keys.Subject("client", "c"), 0)
	if err != nil {
		t.Fatal(err)
	}
	claims := ticket.Claims{
		ID: ticket.PublicID(now, m.Locator.Subject, m.Hash), Client: "c", Key: "k", Plan: "p", Stream: Stream,
		Protocols: protocols, IssuedAt: now, SessionEnd: now.Add(12 * time.Hour), Limit: ticket.NoLimit,
	}
	g.store.put(m.Hash, ticket.AppendClaims(nil, &claims))
	return "/t/" + string(m.Text[:]), string(m.Secret[:])
}

// store says yes once to each ticket that was put.
type store struct {
	clk     mono.Clock
	sync    bool // answers inside Redeem, for the in-memory twin
	running sync.WaitGroup

	mu     sync.Mutex
	grants map[ticket.Hash][]byte
}

var _ engine.Redeemer = (*store)(nil)

func (s *store) put(h ticket.Hash, grant []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grants[h] = grant
}

func (s *store) Redeem(b *ticket.Batch) {
	s.mu.Lock()
	for i := range b.Reqs {
		a := ticket.RedeemAnswer{Result: ticket.RedeemUnknown}
		if grant, ok := s.grants[b.Reqs[i].Ticket]; ok {
			a = ticket.RedeemAnswer{Result: ticket.RedeemOK, Grant: grant}
			delete(s.grants, b.Reqs[i].Ticket)
		}
		b.Answers = append(b.Answers, a)
	}
	s.mu.Unlock()
	if s.sync {
		b.Done(b)
		return
	}
	s.running.Go(func() { b.Done(b) }) // Gate.stop waits
}

func (s *store) Touch(ticket.Subject) {}

func (s *store) Epoch(ticket.Subject) ticket.Epoch { return 1 }

func (s *store) StoreTime() time.Time { return s.clk.Wall() }

func (s *store) Ready() error { return nil }

// client addresses of the in-memory twin.
var from = netip.MustParseAddrPort("192.0.2.1:40000")

// Dial opens a client of another library to a gate of New. Each of over may put itself between the client and its
// connection.
func (g *Gate) Dial(t testing.TB, over ...func(net.Conn) net.Conn) *websocket.Conn {
	t.Helper()
	return g.dial(t, websocket.CompressionDisabled, over)
}

// DialCompressed is Dial for a client that compresses all but the shortest messages.
func (g *Gate) DialCompressed(t testing.TB, over ...func(net.Conn) net.Conn) *websocket.Conn {
	t.Helper()
	return g.dial(t, websocket.CompressionNoContextTakeover, over)
}

func (g *Gate) dial(t testing.TB, mode websocket.CompressionMode, over []func(net.Conn) net.Conn) *websocket.Conn {
	t.Helper()
	target, secret := g.Ticket(t)
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		for _, f := range over {
			if err == nil {
				c = f(c)
			}
		}
		return c, err
	}}
	c, _, err := websocket.Dial(g.Deadline, "ws://"+g.Addr+target, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: tr}, HTTPHeader: http.Header{"Ticketgate-Secret": {secret}},
		CompressionMode: mode, CompressionThreshold: 16})
	if err != nil {
		t.Fatalf("client: %v", err)
	}
	c.SetReadLimit(1 << 20)
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}
