// Package relay joins a client's session to one backend WebSocket. Both sockets live on the same event loop, so that a
// message crosses the gateway without a lock, a goroutine or a copy that outlives the call.
//
//	target.go  what the config names: parsing, names to addresses, numbers
//	dial.go    Join > dial > upgrade request > a valid 101 > Accept, or one refusal
//	pair.go    the open pair: client to backend, backend to client, back-pressure
//	close.go   every way in which either side ends
//	handler.go what the reactor tells of backend sockets
package relay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/engine/upgrade"
	"ticketgate/internal/stat"
)

// Options are what a Relay is made of.
type Options struct {
	Name           string        // of the backend pool: the metric label
	Targets        []string      // ws://host[:port][/path][?query], at least one
	DialTimeout    time.Duration // for the connect, over all targets tried; 0: 3 s
	HeadTimeout    time.Duration // from the connect to the end of the backend's 101; 0: 5 s
	MaxMessage     int64         // bytes of one message from the backend, at least 1
	MaxFragments   int           // frames of one message from the backend, at least 1
	ForwardHeaders []string      // fields of the client's upgrade request that the backend gets
	Kind           reactor.Kind  // 1 + the relay's index in engine.Options.Handlers
	Rand           io.Reader     // seeds the mask keys; nil: crypto/rand

	// Resolve turns a name into addresses; nil: the system's resolver. It runs off the loops.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
}

// A Relay is the stream of one backend pool: an engine.Stream, whose methods belong to the loops, for the clients, and
// Handler for the backend sockets. Bind, Stats and Close may be called from any goroutine.
type Relay struct {
	o       Options
	rules   frame.Rules // of frames from the backend
	targets []*target
	turn    atomic.Uint32 // round-robin
	names   resolver

	// Set by Bind, before the engine starts.
	engine *engine.Engine
	lanes  []*lane

	rows *reactor.Slab[row] // by slot of the backend socket
}

var _ engine.Runner = (*Relay)(nil)

// A row is what an open pair costs beside the two rows of the reactor and the client's session. It has no pointers, and it
// belongs to the loop of its backend socket.
type row struct {
	client reactor.ID
	in     frame.Reader // backend to client
	rest   int64        // backend to client: bytes of the frame under way that have not been passed on
	mask   [4]byte      // client to backend: of the frame under way
	target uint16
	state  state
	flags  flags
	offset uint8 // client to backend: bytes of the frame under way so far, modulo 4
}

// A million pairs have 72 MB of rows: over 72 bytes does not compile.
const _ = uint(72 - unsafe.Sizeof(row{}))

// Bytes that one pair may hold at worst, with the defaults of the engine: queue 256 KiB, message limit 64 KiB, read buffer
// 128 KiB.
//
//	client to backend   a message not yet complete         64 KiB   engine
//	                    queue and leftover                226 KiB   HighWater, then at most one read behind 20 KiB left over: 213;
//	                                                                and a sixteenth that the queue's buffers may be longer
//	backend to client   queue and leftover                226 KiB   the same
//	                    a message that must be whole       64 KiB   lane.gathered
//	                                                      580 KiB   of 2 messages + 512 KiB = 640 KiB

// pieceMin is the least part in bytes of a frame from the backend that is passed on before the frame is whole. It keeps a
// backend that drips from making a frame of each byte, and it is under what the reactor keeps for a socket.
const pieceMin = 16 << 10

// state is where a backend socket stands.
//
//	none ──Dial──> dialing ──connected──> head ──valid 101──> open ──┐
//	                  │                    │                         │
//	                  └─ next target       └──────> closing <────────┘ ──Closed──> none
type state uint8

const (
	stateNone state = iota
	stateDialing
	stateHead
	stateOpen
	stateClosing // the client has been told or is gone: nothing more passes
)

type flags uint16

const (
	flagStarted  flags = 1 << iota // backend to client: a part of the message under way was passed on
	flagDropping                   // backend to client: a limit drops the message under way
	flagWaits                      // backend is not read: the client is slow
	flagHeld                       // backend is not read: a limit of the client's plan, until Timer
	flagMidway                     // client to backend: a frame is under way
	flagStops                      // client is not read: the backend is slow
	flagPong                       // a pong waits in the queue to the backend
	flagOwed                       // a pong waits for the end of the frame under way, in lane.pongs
	flagGathers                    // backend to client: the message under way must be whole first, in lane.gathered
)

// A lane is one loop's share of a relay.
type lane struct {
	rnd      *mathrand.ChaCha8
	joining  map[uint32]*joining // by slot of the backend socket: those that have not said yes
	pongs    map[uint32][]byte   // by slot, while flagOwed
	gathered map[uint32][]byte   // by slot, while flagGathers
	spare    []byte              // an empty buffer for the next of them, spareMax at most
	run      [runMax]frame.Event // messages of a backend that go on together
	found    frame.Event         // what the bytes being looked at hold
	scratch  []byte              // heads and frames being built, at most one read of the loop
}

// New checks o, looks the targets' names up for the first time (at most 3 s) and starts the goroutine that does so again
// every 30 s. The error tells all problems. Close ends the goroutine.
func New(o Options) (*Relay, error) {
	if o.DialTimeout == 0 {
		o.DialTimeout = 3 * time.Second
	}
	if o.HeadTimeout == 0 {
		o.HeadTimeout = 5 * time.Second
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Resolve == nil {
		o.Resolve = systemLookup
	}
	r := &Relay{
		o:     o,
		rules: frame.Rules{Role: frame.Client, Opcodes: frame.AllowBoth, MaxMessage: o.MaxMessage, MaxFragments: o.MaxFragments},
		names: resolver{lookup: o.Resolve},
		rows:  reactor.NewSlab[row](),
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("backend %q: %w", o.Name, err)
	}
	r.names.start(r.targets)
	return r, nil
}

// check parses the targets and gathers what is wrong with the options.
func (r *Relay) check() error {
	var problems []error
	switch n := len(r.o.Targets); {
	case n == 0:
		problems = append(problems, errors.New("no targets"))
	case n > maxTargets:
		problems = append(problems, fmt.Errorf("%d targets, at most %d", n, maxTargets))
	default:
		for _, text := range r.o.Targets {
			t, err := parseTarget(text)
			if err != nil {
				problems = append(problems, err)
			}
			r.targets = append(r.targets, t)
		}
	}
	if r.o.MaxMessage < 1 || r.o.MaxFragments < 1 {
		problems = append(problems, fmt.Errorf("message limit %d bytes in %d fragments, want at least 1", r.o.MaxMessage, r.o.MaxFragments))
	}
	if r.o.DialTimeout < 0 || r.o.HeadTimeout < 0 {
		problems = append(problems, fmt.Errorf("timeouts %v and %v, want more than 0", r.o.DialTimeout, r.o.HeadTimeout))
	}
	if r.o.Kind == 0 {
		problems = append(problems, errors.New("kind 0 belongs to accepted sockets"))
	}
	for _, name := range r.o.ForwardHeaders {
		if _, err := upgrade.AppendRequest(nil, "h", "/", sampleKey, nil, upgrade.Header{Name: name}); err != nil {
			problems = append(problems, fmt.Errorf("header %q cannot be forwarded", name))
		}
	}
	return errors.Join(problems...)
}

// maxTargets is far below what row.target can name: one dial that all refuse tries each of them.
const maxTargets = 1024

// Bind joins r to the engine whose loops will serve it, after engine.New and before Start.
func (r *Relay) Bind(e *engine.Engine) error {
	r.engine = e
	for i := range e.Loops() {
		var seed [32]byte
		if _, err := io.ReadFull(r.o.Rand, seed[:]); err != nil {
			return fmt.Errorf("backend %q: seed of loop %d: %w", r.o.Name, i, err)
		}
		r.lanes = append(r.lanes, &lane{
			rnd:      mathrand.NewChaCha8(seed),
			joining:  map[uint32]*joining{},
			pongs:    map[uint32][]byte{},
			gathered: map[uint32][]byte{},
		})
	}
	return nil
}

// Close ends the goroutine that looks names up. Pairs are not touched: they end with the engine.
func (r *Relay) Close() { r.names.close() }

// Stats is what a relay has counted.
type Stats struct {
	Name    string
	Targets []TargetStats
}

// TargetStats are the numbers of one target.
type TargetStats struct {
	URL   string // as configured
	Up    bool   // the last attempt got a valid 101, or there was none yet
	Open  int64  // pairs
	Dials []DialStats
}

// DialStats are the attempts that ended in one way.
type DialStats struct {
	Result  string // "ok", "refused", "rejected", "timeout" or "left"
	Count   uint64
	Seconds stat.Snapshot // from the dial to that end
}

// Stats overwrites s with the numbers of now. Any goroutine may call it.
func (r *Relay) Stats(s *Stats) {
	s.Name = r.o.Name
	s.Targets = s.Targets[:0]
	for _, t := range r.targets {
		ts := TargetStats{URL: t.url, Up: !t.down.Load(), Open: t.open.Load()}
		for i := range results {
			d := DialStats{Result: resultNames[i], Count: t.dials[i].Load()}
			t.seconds[i].Snapshot(&d.Seconds)
			ts.Dials = append(ts.Dials, d)
		}
		s.Targets = append(s.Targets, ts)
	}
}

func (r *Relay) lane(l *reactor.Loop) *lane { return r.lanes[l.Index()] }
