// Package secure is TLS under the sockets of a reactor. crypto/tls does every handshake, in a bounded number of goroutines;
// afterwards the kernel seals and opens the records where it can (Linux with the tls module, TLS 1.3), and crypto/tls stays on
// the loop, without a goroutine, where it cannot. There is no record layer of ours.
//
//	loop        bytes > hello.look: half a ClientHello waits here and costs its bytes (hello.go)
//	goroutine   whole: crypto/tls over a net.Conn that the loop feeds; it holds one of Options.Workers permits while it
//	            computes and none while it waits for the client (handshake.go)
//	loop        done: the tls.Conn is the loop's; record by record, never waiting (conn.go, lend.go)
//	loop        no byte under way: keys and record numbers go to the kernel, the rest is garbage (kernel.go)
//
// Deadlines are the caller's: it closes the socket, and whatever stage it was in ends at once.
package secure

import (
	"crypto/tls"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/engine/reactor"
)

// KernelTLS says whether records are handed to the kernel.
type KernelTLS uint8

// The choices.
const (
	Auto KernelTLS = iota // where the kernel can
	Off                   // never
)

// Options of a Server. Config, Do and Done are needed.
type Options struct {
	// Config gives the configuration of the next handshake. It may give another one each time, whose session tickets the one
	// before cannot read; what it has given is not changed any more. GetConfigForClient, WrapSession and KeyLogWriter must be
	// nil. Any goroutine calls it.
	Config func() *tls.Config
	// Do runs f on a loop, soon. It may wait; the goroutines of handshakes call it.
	Do func(loop int, f func(l *reactor.Loop))
	// Done is called on the loop when the handshake has ended well (state, nil) or not (nil, a *Failure). It is called once for
	// each Start, unless the socket is closed before. After a failure the socket ends by itself.
	Done func(l *reactor.Loop, id reactor.ID, state *tls.ConnectionState, err error)

	Handshakes int // running at once: 1,024 a core. Beyond, a newcomer is reset with ErrBusy, unless it gets another's place:
	// that of the loop's oldest handshake, if that has begun Patience ago (1 s) and waits for its client.
	Patience  time.Duration
	Workers   int       // of those, how many compute at once: half of the cores, so that who is there already has the others
	KernelTLS KernelTLS // Auto
	// Log gets what an operator should see: why the kernel is not used, panics. It must not block. May be nil.
	Log func(msg string, args ...any)
}

// handshakesPerCore is the default of Options.Handshakes. One that waits for its client costs 24 KiB, a third of it stack.
const handshakesPerCore = 1024

// A Server has the sockets that Start was called for. It works on all loops of one reactor.
type Server struct {
	o       Options
	permits chan struct{} // Options.Workers of them
	shares  [256]atomic.Pointer[share]

	mu      sync.Mutex
	derived struct{ from, config *tls.Config } // guarded by mu

	// (*reactor.Loop).Offload; tests look over its shoulder.
	toKernel func(l *reactor.Loop, id reactor.ID, tx, rx []byte) error

	goroutines sync.WaitGroup
	kernel     atomic.Uint32 // suites that the kernel may take, a bit each
	refusal    atomic.Pointer[error]
	n          numbers
}

// numbers are what Stats tells, while they grow.
type numbers struct {
	running, user               atomic.Int64
	handshakes, resumed, kernel atomic.Uint64
	failed                      [reasons]atomic.Uint64
}

// New checks o. Nothing runs before the first Start.
func New(o Options) (*Server, error) {
	if o.Config == nil || o.Do == nil || o.Done == nil {
		return nil, errors.New("secure: Options.Config, Do and Done are needed")
	}
	if min(int64(o.Handshakes), int64(o.Workers), int64(o.Patience)) < 0 || o.KernelTLS > Off {
		return nil, errors.New("secure: Options.Handshakes, Workers and Patience must not be negative, and KernelTLS must be Auto or Off")
	}
	cores := runtime.NumCPU() // GOMAXPROCS may be more: see processors in cmd/ticketgate
	if o.Patience == 0 {
		o.Patience = time.Second
	}
	if o.Handshakes == 0 {
		o.Handshakes = handshakesPerCore * cores
	}
	if o.Workers == 0 {
		o.Workers = max(1, cores/2)
	}
	s := &Server{o: o, permits: make(chan struct{}, o.Workers), toKernel: (*reactor.Loop).Offload}
	if o.KernelTLS == Auto {
		s.kernel.Store(allSuites)
	}
	return s, nil
}

// Start puts TLS under id, which has just been accepted, or whose bytes so far were not TLS's. What Data leaves unused in the
// callback that calls it is taken for the beginning of the ClientHello. On the loop only.
func (s *Server) Start(l *reactor.Loop, id reactor.ID) {
	l.SetFilter(id, newConn(s, l, id))
}

// Wait returns when no handshake's goroutine is left. Call it when the reactor has stopped.
func (s *Server) Wait() { s.goroutines.Wait() }

// Stats are sums since New, but for the first two.
type Stats struct {
	Running    int64           // handshakes now, from a whole ClientHello on
	UserSpace  int64           // sockets now whose records this process seals and opens
	Kernel     uint64          // sockets that were handed to the kernel
	Handshakes uint64          // that ended well
	Resumed    uint64          // of those, with a session ticket
	Failed     [reasons]uint64 // by Reason
	Offloads   bool            // sockets may go to the kernel: false with Off, and once it has said that it cannot
	Refusal    error           // why the kernel does not take a suite, or any: the latest; nil: it has refused none yet
}

// Stats fills to. Any goroutine.
func (s *Server) Stats(to *Stats) {
	n := &s.n
	*to = Stats{
		Running: n.running.Load(), UserSpace: n.user.Load(), Kernel: n.kernel.Load(),
		Handshakes: n.handshakes.Load(), Resumed: n.resumed.Load(), Offloads: s.Offloads(),
	}
	if err := s.refusal.Load(); err != nil {
		to.Refusal = *err
	}
	for i := range n.failed {
		to.Failed[i] = n.failed[i].Load()
	}
}

// Offloads reports whether sockets may still go to the kernel: false with Off, and once it has refused every cipher suite. Any
// goroutine.
func (s *Server) Offloads() bool { return s.kernel.Load() != 0 }

func (s *Server) log(msg string, args ...any) {
	if s.o.Log != nil {
		s.o.Log(msg, args...)
	}
}

// config is Options.Config's with our hook, which lives as long as the one it is made of, and its ticket keys with it.
func (s *Server) config() *tls.Config {
	from := s.o.Config()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.derived.from != from {
		c := from.Clone()
		c.GetConfigForClient = func(info *tls.ClientHelloInfo) (*tls.Config, error) { return s.forClient(c, info), nil }
		s.derived.from, s.derived.config = from, c
	}
	return s.derived.config
}

// A share is one loop's part of the server; only the loop touches it.
type share struct {
	pool   pool
	record []byte // lent to one tls.Conn at a time: see lend.go

	shaking []*conn // in the order in which their handshakes began, and some whose are over: see makeRoom
}

func (s *Server) share(l *reactor.Loop) *share {
	p := &s.shares[l.Index()]
	if p.Load() == nil {
		p.Store(&share{record: make([]byte, 0, lentSize)})
	}
	return p.Load()
}
