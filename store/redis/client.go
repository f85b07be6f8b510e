// Package redis is the ticket store of several nodes: Redis 7.0 or later, alone, under Sentinel or as a Redis Cluster. Each step
// is one Lua script run by EVALSHA.
//
// Every command but a renewal passes here, in this order:
//
//	do       any goroutine   which shard keeps the key? one call for each shard that is concerned (route.go, topology.go)
//	call     any goroutine   breaker open? queue full? else queue, and wait for the answer until the timeout (primary.go)
//	lane     3 a primary     take what waits, at most 256 commands, one pipelined round trip (batch.go)
//	keeper   1 a primary     connects, looks at the server (vet.go), and pings while the breaker is open
//	finder   1               asks sentinels, or nodes of the cluster, who is primary of what (sentinel.go, cluster.go)
//
// The caller leaves at its timeout; the lane stays with its round trip. So what is in flight at a primary is bounded by its
// lanes (768 commands in 3 batches), and so are goroutines, however many callers there are. A batch takes one place in rueidis'
// ring, where a call would wait beyond any timeout if it were full.
//
// Nothing is ever sent twice, unless an answer proves that nothing ran: NOSCRIPT, MOVED and ASK. Every error says whether the
// command may have run.
package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// Options configure a Store. It is one server if there is a URL, the primary that sentinels name if there is a
// Sentinel.Master, and else a Redis Cluster.
type Options struct {
	URL       string        // redis://user:password@host:port/db, rediss:// for TLS, unix://
	Addresses []string      // host:port of sentinels, or of some nodes of a cluster; without URL
	User      string        // with Addresses; empty: the default user
	Password  string        // with Addresses
	Sentinel  Sentinel      // of the sentinels
	TLS       *tls.Config   // with rediss://, nil: the system's roots and TLS 1.2 or later; with Addresses, nil: no TLS
	Prefix    string        // of every key, such as "tg:"
	Timeout   time.Duration // of each call, 0 for 200 ms
	Clock     mono.Clock    // nil for mono.System; it measures, the waiting itself is real time
	Log       *slog.Logger  // gets a line when a server goes and comes back; nil for none
}

// Sentinel says what to ask sentinels for, and as whom.
type Sentinel struct {
	Master         string // what they call the primary
	User, Password string
}

const (
	timeoutDefault = 200 * time.Millisecond
	dialTimeout    = 500 * time.Millisecond // of connecting, of TLS, and of the first answers, each; store.timeout if that is more
	cutAfter       = time.Second            // a round trip that takes longer ends its connection; two timeouts if that is more

	lanes     = 3
	laneMax   = 256  // commands in one round trip
	queueMax  = 4096 // calls that may wait for a lane
	ringScale = 4    // 2^4 places in rueidis' ring
)

const _ = uint(1<<ringScale - lanes - 4) // a ring that the lanes, a ping and what rueidis does can fill does not compile

// A Store implements ticket.Store. Any goroutine may use it.
type Store struct {
	prefix  string
	timeout time.Duration
	clock   mono.Clock
	log     *slog.Logger

	dialler dialler // of servers
	finder  finder
	cluster bool // servers have to be nodes of one

	layout  atomic.Pointer[layout] // nil: not known yet
	lost    atomic.Bool            // the finder's last question got no good answer
	refused atomic.Bool            // a server's last answer was an error: out of memory, read-only, ...
	look    chan struct{}          // asks the finder to look again
	warned  sync.Map               // warnings that the log has, by server
	said    tellOnce               // why the finder found nothing; owned by who calls find
	renewer renewer
	stats   stats

	life   context.Context // ends with Close
	end    context.CancelFunc
	closer sync.Once
	work   sync.WaitGroup // the finder and the primaries
}

var _ ticket.Store = (*Store)(nil)

// New returns a store of what o names. It tries to connect for up to about a second; what is down then is unavailable, and the
// store goes on trying. The error is for options only and never shows a URL or password.
func New(o Options) (*Store, error) {
	if o.Timeout < 0 {
		return nil, errors.New("redis store: timeout is negative")
	}
	s := &Store{prefix: o.Prefix, timeout: o.Timeout, clock: o.Clock, log: o.Log, look: make(chan struct{}, 1)}
	s.fill()
	s.dialler.timeout = max(dialTimeout, s.timeout)
	if err := s.place(&o); err != nil {
		return nil, err
	}
	s.renewer.turn = make(chan struct{}, 1)
	s.life, s.end = context.WithCancel(context.Background())
	s.find()
	if l := s.layout.Load(); l != nil {
		for _, p := range l.primaries {
			<-p.tried
		}
	}
	s.work.Go(s.finding)
	return s, nil
}

// fill puts defaults where nothing was given.
func (s *Store) fill() {
	if s.timeout == 0 {
		s.timeout = timeoutDefault
	}
	if s.clock == nil {
		s.clock = mono.System
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
}

// place finds out from o where the servers are, and how to reach them.
func (s *Store) place(o *Options) error {
	d := &s.dialler
	switch {
	case o.URL != "" && len(o.Addresses) > 0:
		return errors.New("redis store: a url and addresses")
	case o.URL != "":
		return s.placeURL(o)
	case len(o.Addresses) == 0:
		return errors.New("redis store: neither a url nor addresses")
	}
	d.user, d.password, d.tls = o.User, o.Password, o.TLS
	if o.Sentinel.Master == "" {
		s.cluster = true
		s.finder = &nodes{store: s, seeds: o.Addresses}
		return nil
	}
	f := &sentinels{store: s, addresses: o.Addresses, master: o.Sentinel.Master, dialler: *d}
	f.dialler.user, f.dialler.password = o.Sentinel.User, o.Sentinel.Password
	s.finder = f
	return nil
}

var errURL = errors.New("redis store: url is not a valid redis://, rediss:// or unix:// address")

func (s *Store) placeURL(o *Options) error {
	option, err := rueidis.ParseURL(o.URL)
	if err != nil {
		return errURL // the library's own shows the URL, which may hold a password
	}
	u, err := url.Parse(o.URL)
	if err != nil {
		return errURL
	}
	for key := range u.Query() {
		if key != "db" && key != "skip_verify" {
			return errors.New("redis store: url may ask for db and skip_verify only; several servers are addresses")
		}
	}
	d := &s.dialler
	d.user, d.password, d.db, d.tls = option.Username, option.Password, option.SelectDB, option.TLSConfig
	if u.Scheme == "unix" {
		d.network = "unix"
	}
	if d.tls != nil && o.TLS != nil {
		skip := d.tls.InsecureSkipVerify
		d.tls = o.TLS.Clone() // its own ServerName, or the host that is dialled
		d.tls.InsecureSkipVerify = skip
	}
	s.finder = single(option.InitAddress[0])
	return nil
}

// Close implements ticket.Store. Calls under way fail with ErrUnavailable. It returns when all goroutines have ended.
func (s *Store) Close() error {
	s.closer.Do(func() {
		s.end()
		s.renewer.cut()
		s.work.Wait()
	})
	return nil
}

// An unavailable is an ErrUnavailable with its reason.
type unavailable struct {
	reason   string
	sent     bool      // it may have happened
	server   bool      // a server said so
	redirect *redirect // it has not happened here, and may there
}

func (u *unavailable) Error() string { return ticket.ErrUnavailable.Error() + ": " + u.reason }
func (u *unavailable) Unwrap() error { return ticket.ErrUnavailable }

var (
	errBreaker  = &unavailable{reason: "server does not answer"}
	errQueue    = &unavailable{reason: "too many calls waiting"}
	errClosed   = &unavailable{reason: "closed"}
	errLeaving  = &unavailable{reason: "the primary is being replaced"}
	errWaited   = &unavailable{reason: "timed out before it was sent"}
	errTimeout  = &unavailable{reason: "timed out", sent: true}
	errBroken   = &unavailable{reason: "connection is gone"}
	errUnknown  = &unavailable{reason: "the primary is not known yet"}
	errUnserved = &unavailable{reason: "no primary serves the slot"}
)
