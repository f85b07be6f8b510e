// Package handshake is the HTTP front end: a caller proves who it is and gets a ticket. In the order of a request:
//
//	accept.go    a goroutine a connection, at most so many
//	conn.go      one complete, canonical request at a time     head.go target.go chunk.go  the bytes, strictly
//	server.go    fasthttp and its settings                     route.go   which path, which method, which origin
//	caller.go    who calls, for whom                           auth/      hashed API keys
//	issue.go     POST /v1/tickets                              body.go    its JSON
//	revoke.go    DELETE, GET /v1/tickets/{id}                  limits.go  GET /v1/limits, /v1/streams
//	refusal.go   every no and its public words                 problem.go RFC 9457 body
//
// Its goroutines may wait; nothing here runs on an event loop.
package handshake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"ticketgate/internal/faults"
	"ticketgate/internal/mono"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

// Handler answers one request of a further path. It keeps nothing of ctx.
type Handler = func(ctx *fasthttp.RequestCtx)

// A Node is the ticket store as this node sees it: store/node. Any goroutine may call it. What it does not do at all, because it
// may not or the store is away, is ticket.ErrUnavailable.
type Node interface {
	// Epoch is the history of the store that a ticket of s must name; 0: not known yet.
	Epoch(s ticket.Subject) ticket.Epoch
	// Number is what locators name as the node that spends them: 0, the store. Issue wants it in IssueRequest.Node, as of the same life.
	Number() uint16
	// Issue is that of ticket.Store; the node names the dead. ErrUnavailable also while a slot that is counted may be somebody's
	// who is not known yet, so that issue is closed.
	Issue(ctx context.Context, r *ticket.IssueRequest) (ticket.IssueAnswer, error)
	// Revoke is that of ticket.Store.
	Revoke(ctx context.Context, r *ticket.RevokeRequest) (bool, error)
	// Used is how many slots of s are taken, in the cluster. dead is nil: the node names them.
	Used(ctx context.Context, s ticket.Subject, dead []ticket.Incarnation) (uint32, error)
	StoreTime() time.Time // the store's clock
	Ready() error         // nil, or why no ticket would work now
}

// Revoked knows what was taken back. Any goroutine may call it.
type Revoked interface {
	// Key reports whether this key gets nothing any more.
	Key(id string) bool
	// Issue reports whether a ticket may be issued for c, and may set c.IssuedAt later, behind what was taken back just now.
	Issue(c *ticket.Claims) bool
	// TakenBack notes that owner has taken an unused ticket back, for State.
	TakenBack(ctx context.Context, u ticket.Subject, h ticket.Hash, owner string) error
	// State is what became of the ticket with this public id: unused, spent, expired or revoked; "": owner has no such ticket.
	State(ctx context.Context, id, owner string) (string, error)
}

// An Evictor gives newcomers the slots of others: store/evict. Any goroutine may call it.
type Evictor interface {
	// Issue calls issue, and where that answers ticket.IssueFull has a socket of the subject closed, if one can be, and calls it once
	// more when the slot is free. What the last call has answered is what holds.
	Issue(ctx context.Context, n ticket.Newcomer, issue func(context.Context) ticket.IssueAnswer)
}

// Options configure a Server. What has a default may be zero.
type Options struct {
	Address      string        // host:port; port 0 takes a free one
	Listener     net.Listener  // instead of Address, if it is open already; Shutdown closes it
	ReadTimeout  time.Duration // for a head, absolute: 5 s
	BodyTimeout  time.Duration // for a body, absolute: 10 s
	IdleTimeout  time.Duration // between requests: 15 s
	WriteTimeout time.Duration // for an answer: 10 s
	Connections  int           // open at once; more get 503: 4096

	GateURL   string // the gate's public URL, ws:// or wss://, no path. Problem types are named below its http form
	KeyHeader string // carries an API key: X-API-Key

	TTL         time.Duration // life of a ticket, 5 to 120 s: 30 s
	SessionMax  time.Duration // longest life of a socket, less up to 10 % by chance: 12 h
	BindIP      bool          // only the address that asked may redeem
	Outstanding int           // unused tickets of a subject: 20

	Keys       *ticket.KeyRing
	Name       string // of the node, for limits per node
	Node       Node
	Evictor    Evictor            // for plans that evict; nil: they reject
	Policy     func() *Policy     // the current one; never nil
	Messages   *limiter.Table     // the engine's buckets, for GET /v1/limits; nil: it tells no use of limits on messages
	Bank       limiter.Bank       // keeps limits with scope: cluster or window: fixed; nil: no plan has any
	Draining   func() bool        // nil: never
	Overloaded func() bool        // memory runs out: no tickets. nil: never
	Revoked    Revoked            // nil: nothing ever is
	Extra      map[string]Handler // further paths; one that ends in "/" stands for all below it

	Clock mono.Clock
	Rand  io.Reader // cryptographic; any goroutine may read it. Tickets stop when it fails
	Log   *slog.Logger
}

// buckets is how many subjects' ticket rates are remembered: 40 bytes each. One that is full again may be forgotten, so a
// table of buckets in use is too many callers.
const buckets = 1 << 16

// headers are on every answer: nothing of it belongs in a cache, a referrer or another type than it says.
var headers = [...][2]string{
	{"Cache-Control", "no-store"},
	{"Referrer-Policy", "no-referrer"},
	{"X-Content-Type-Options", "nosniff"},
}

// A Server is the front end. New makes it; then Listen, Serve and, from another goroutine, Shutdown.
type Server struct {
	o      Options
	base   string // public URL of the problem types
	log    *slog.Logger
	http   fasthttp.Server
	minter *ticket.Minter
	rates  *limiter.Table
	chance dice
	talk   throttle
	soft   warned
	stats  counters

	listener net.Listener
	running  sync.WaitGroup // Serve and its connections
	stop     chan struct{}  // closed by Shutdown
	stopping atomic.Bool

	mu    sync.Mutex
	conns map[*conn]struct{}

	rejected     [reasons]atomic.Uint64
	acceptErrors atomic.Uint64
}

// New checks o and makes a server, which does nothing yet.
func New(o Options) (*Server, error) {
	o.setDefaults()
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	var seed [32 + 8]byte
	if _, err := io.ReadFull(o.Rand, seed[:]); err != nil {
		return nil, fmt.Errorf("handshake: random source: %w", err)
	}
	s := &Server{
		o:      o,
		base:   "http" + strings.TrimPrefix(o.GateURL, "ws"),
		log:    o.Log,
		minter: o.Keys.NewMinter(o.Rand),
		rates:  limiter.NewTable(buckets, seedOf(seed[32:]), o.Clock),
		chance: dice{r: rand.NewChaCha8([32]byte(seed[:]))},
		stop:   make(chan struct{}),
		conns:  make(map[*conn]struct{}),
		stats:  counters{issued: map[Issued]uint64{}, decisions: map[Decision]uint64{}},
	}
	s.listener = o.Listener
	s.http = fasthttp.Server{
		Handler:                      s.handle,
		ErrorHandler:                 s.libraryRefused,
		Logger:                       libraryLog{o.Log},
		SecureErrorLogMessage:        true, // else the log shows request bytes, and so tickets and keys
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		DisablePreParseMultipartForm: true,
		Concurrency:                  o.Connections + politeMax,
		MaxRequestsPerConn:           100,
		MaxRequestBodySize:           bodyMax,
		ReadBufferSize:               headMax + 1<<10, // a canonical head may be a Content-Length longer
		WriteTimeout:                 o.WriteTimeout,
	}
	return s, nil
}

func (o *Options) setDefaults() {
	fill(&o.ReadTimeout, 5*time.Second)
	fill(&o.BodyTimeout, 10*time.Second)
	fill(&o.IdleTimeout, 15*time.Second)
	fill(&o.WriteTimeout, 10*time.Second)
	fill(&o.Connections, 4096)
	fill(&o.KeyHeader, "X-API-Key")
	fill(&o.TTL, 30*time.Second)
	fill(&o.SessionMax, 12*time.Hour)
	fill(&o.Outstanding, 20)
	if o.Draining == nil {
		o.Draining = func() bool { return false }
	}
	if o.Overloaded == nil {
		o.Overloaded = func() bool { return false }
	}
}

func fill[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

func (o *Options) check() error {
	switch {
	case !strings.HasPrefix(o.GateURL, "ws://") && !strings.HasPrefix(o.GateURL, "wss://"):
		return errors.New("the gate's URL begins with neither ws:// nor wss://")
	case strings.HasSuffix(o.GateURL, "/"):
		return errors.New("the gate's URL ends in a slash")
	case o.TTL < 5*time.Second || o.TTL > 2*time.Minute:
		return fmt.Errorf("a ticket lives 5 s to 2 min, not %v", o.TTL)
	case o.Outstanding < 1 || o.SessionMax < time.Second || o.Connections < 1:
		return errors.New("unused tickets, session length and connections are at least 1")
	case !isToken(o.KeyHeader):
		return errors.New("the key's header has no valid name")
	case o.Keys == nil || o.Node == nil || o.Policy == nil || o.Clock == nil || o.Rand == nil || o.Log == nil:
		return errors.New("needed, all of them: Keys, Node, Policy, Clock, Rand and Log")
	}
	return nil
}

// Listen opens the listener, unless it was given one, and returns its address.
func (s *Server) Listen() (net.Addr, error) {
	if s.listener == nil {
		l, err := net.Listen("tcp", s.o.Address)
		if err != nil {
			return nil, fmt.Errorf("handshake: %w", err)
		}
		s.listener = l
	}
	return s.listener.Addr(), nil
}

// Shutdown stops accepting, ends idle connections, and waits for the requests under way, but not longer than ctx: then it
// cuts them. It leaves none of its goroutines. Any goroutine may call it, and more than once.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock() // Serve looks at it under the lock
	if s.stopping.CompareAndSwap(false, true) {
		close(s.stop)
	}
	s.mu.Unlock()
	var err error
	if s.listener != nil {
		if err = s.listener.Close(); errors.Is(err, net.ErrClosed) {
			err = nil
		}
	}
	s.each(func(c *conn) {
		if c.idle.Load() {
			_ = c.Conn.SetReadDeadline(time.Unix(1, 0)) // it stops waiting
		}
	})
	done := make(chan struct{})
	go func() { s.running.Wait(); close(done) }()
	select {
	case <-done:
		return err
	case <-ctx.Done():
	}
	s.each(func(c *conn) { _ = c.Conn.Close() })
	<-done
	return errors.Join(err, ctx.Err())
}

func (s *Server) each(f func(*conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		f(c)
	}
}

// handle answers one request. fasthttp does not recover: an unhandled panic would end the process. The value of a panic may
// quote what a client sent, so only its type and the stack are told.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	r := request{s: s, ctx: ctx, id: s.newID(), policy: s.o.Policy()}
	dress(&ctx.Response.Header)
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("fault in a request", "request_id", r.id, "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
			r.refuse(&problem{reason: fault})
		}
		if s.stopping.Load() {
			ctx.SetConnectionClose()
		}
	}()
	faults.Point(faults.Ticket, ctx.Request.Header.RawHeaders())
	r.route()
}

// dress sets what every answer has.
func dress(h *fasthttp.ResponseHeader) {
	for _, f := range headers {
		h.Set(f[0], f[1])
	}
}

// libraryRefused answers what fasthttp would not take although conn did.
func (s *Server) libraryRefused(ctx *fasthttp.RequestCtx, err error) {
	ctx.Response.Reset()
	dress(&ctx.Response.Header)
	r := request{s: s, ctx: ctx, id: s.newID()}
	r.refuse(&problem{reason: libraryReason(err)})
}

func libraryReason(err error) Reason {
	var small *fasthttp.ErrSmallBuffer
	var netErr net.Error
	switch {
	case errors.As(err, &small):
		return headTooLarge
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return bodyTooLarge
	case errors.As(err, &netErr) && netErr.Timeout():
		return tooSlow
	}
	return badHead
}

// libraryLog passes on what fasthttp has to say without the arguments, which may hold what clients sent.
type libraryLog struct{ log *slog.Logger }

func (l libraryLog) Printf(format string, _ ...any) { l.log.Warn("http library", "message", format) }
