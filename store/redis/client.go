// Package redis is the ticket store of several nodes: one Redis (7.0 or later), each step one Lua script run by EVALSHA.
//
// Every command passes here, in this order:
//
//	call     any goroutine   breaker open? queue full? else queue, and wait for the answer until the timeout
//	lane     3 goroutines    take what waits, at most 256 commands, one pipelined round trip
//	probe    1 goroutine     connects, and pings while the breaker is open
//
// The caller leaves at its timeout; the lane stays with its round trip. So what is in flight is bounded by the lanes
// (768), below the 1,024 places of rueidis' ring, where a call would wait beyond any timeout when Redis hangs. Nothing is
// ever sent twice, but for the answer NOSCRIPT, which proves that nothing ran.
package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// Options configure a Store.
type Options struct {
	URL     string        // redis://user:password@host:port/db, rediss:// for TLS, unix://
	TLS     *tls.Config   // for rediss://, nil: the system's roots and TLS 1.2 or later
	Prefix  string        // of every key, such as "tg:"
	Timeout time.Duration // of each call, 0 for 200 ms
	Clock   mono.Clock    // nil for mono.System; it measures, the waiting itself is real time
	Log     *slog.Logger  // gets a line when the server goes and comes back; nil for none
}

const (
	timeoutDefault = 200 * time.Millisecond
	dialTimeout    = 500 * time.Millisecond
	cutAfter       = time.Second // rueidis gives a silent connection up after it, and after 1 s more without traffic

	lanes     = 3
	laneMax   = 256  // commands in one round trip
	queueMax  = 4096 // calls that may wait for a lane
	ringScale = 10   // 2^10 places in rueidis' ring: more than lanes * laneMax and the probes
)

const _ = uint(1<<ringScale - lanes*laneMax - 64) // a ring that can be full does not compile

// A Store implements ticket.Store. Any goroutine may use it.
type Store struct {
	option  rueidis.ClientOption
	prefix  string
	timeout time.Duration
	clock   mono.Clock
	log     *slog.Logger

	client  atomic.Pointer[rueidis.Client] // nil until the first connection
	breaker breaker
	refused atomic.Bool // the server's last answer was an error: out of memory, read-only, ...
	queue   chan *call
	stats   stats

	quit  chan struct{} // closed by Close
	close sync.Once
	work  sync.WaitGroup // lanes and probe
}

var _ ticket.Store = (*Store)(nil)

// New returns a store of the server at o.URL. It tries to connect for up to about a second; if the server is down the store
// is unavailable and goes on trying. The error is for options only and never shows the URL, which may hold a password.
func New(o Options) (*Store, error) {
	option, err := rueidis.ParseURL(o.URL)
	if err != nil {
		return nil, errors.New("redis store: url is not a valid redis://, rediss:// or unix:// address")
	}
	if o.Timeout < 0 {
		return nil, errors.New("redis store: timeout is negative")
	}
	s := &Store{
		option: tune(option, o.TLS), prefix: o.Prefix, timeout: o.Timeout, clock: o.Clock, log: o.Log,
		queue: make(chan *call, queueMax), quit: make(chan struct{}),
	}
	s.fill()
	s.probe()
	for range lanes {
		s.work.Go(s.lane)
	}
	s.work.Go(s.probing)
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

// tune sets what a single-use ticket needs: no retries, no cache, small buffers, one connection.
func tune(o rueidis.ClientOption, t *tls.Config) rueidis.ClientOption {
	if o.TLSConfig != nil && t != nil {
		name := o.TLSConfig.ServerName
		o.TLSConfig = t.Clone()
		if o.TLSConfig.ServerName == "" {
			o.TLSConfig.ServerName = name
		}
	}
	o.ForceSingleClient = true // else it asks for a cluster first; a URL with master_set still means Sentinel
	o.DisableRetry = true
	o.DisableCache = true
	o.PipelineMultiplex = -1
	o.RingScaleEachConn = ringScale
	o.ReadBufferEachConn, o.WriteBufferEachConn = 64<<10, 64<<10
	o.Dialer.Timeout = dialTimeout
	o.ConnWriteTimeout = cutAfter
	return o
}

// Close implements ticket.Store. Calls under way fail with ErrUnavailable. It returns when all goroutines have ended, which
// a server that hangs delays by up to two seconds.
func (s *Store) Close() error {
	s.close.Do(func() {
		close(s.quit)
		before := s.client.Load()
		if before != nil {
			(*before).Close() // ends the round trips that the lanes are in
		}
		s.work.Wait()
		if c := s.client.Load(); c != before { // a probe was just connecting
			(*c).Close()
		}
	})
	return nil
}

// probing connects, and finds out when the server answers again.
func (s *Store) probing() {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-tick.C:
			if !s.breaker.closed.Load() {
				s.probe()
			}
		}
	}
}

// probe closes the breaker if the server answers.
func (s *Store) probe() {
	if err := s.ping(); err != nil {
		return
	}
	if s.breaker.close() {
		s.log.Info("ticket store is up")
	}
}

func (s *Store) ping() error {
	if s.client.Load() == nil {
		c, err := rueidis.NewClient(s.option)
		if err != nil {
			return err
		}
		s.client.Store(&c)
	}
	c := *s.client.Load()
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	return c.Do(ctx, c.B().Ping().Build()).Error()
}

// failed tells the breaker.
func (s *Store) failed(why error) {
	if s.breaker.fail(s.clock.Now()) {
		s.log.Warn("ticket store is down", "reason", why)
	}
}

// A call is what one caller wants: up to laneMax commands.
type call struct {
	commands []command
	results  []rueidis.RedisResult // written by the lane before done is closed
	done     chan struct{}
	state    atomic.Uint32
}

// The states of a call. Caller and lane race for a queued one.
const (
	callQueued uint32 = iota
	callTaken         // by a lane: from here on it may have happened
	callLeft          // by the caller: it never happened
)

// unavailable is an ErrUnavailable with its reason.
type unavailable struct {
	reason string
	sent   bool // it may have happened
}

func (u *unavailable) Error() string { return ticket.ErrUnavailable.Error() + ": " + u.reason }
func (u *unavailable) Unwrap() error { return ticket.ErrUnavailable }

var (
	errBreaker = &unavailable{reason: "server does not answer"}
	errQueue   = &unavailable{reason: "too many calls waiting"}
	errClosed  = &unavailable{reason: "closed"}
	errWaited  = &unavailable{reason: "timed out before it was sent"}
	errTimeout = &unavailable{reason: "timed out", sent: true}
)

// do runs commands and waits for their results, at most until the timeout or the end of ctx. The results are valid when the
// error is nil; each may carry an error of its own. At most laneMax commands.
func (s *Store) do(ctx context.Context, commands []command) ([]rueidis.RedisResult, *unavailable) {
	if !s.breaker.closed.Load() {
		return nil, errBreaker
	}
	c := &call{commands: commands, done: make(chan struct{})}
	select {
	case <-s.quit:
		return nil, errClosed
	case s.queue <- c:
	default:
		return nil, errQueue
	}
	start := s.clock.Now()
	timer := time.NewTimer(s.timeout)
	defer timer.Stop()
	select {
	case <-c.done:
		return c.results, nil
	case <-s.quit:
		return nil, c.leave(errClosed)
	case <-timer.C:
	case <-ctx.Done():
	}
	if waited := s.clock.Now().Sub(start); waited >= s.timeout/2 { // a caller that had less time proves nothing
		s.failed(errTimeout)
	}
	return nil, c.leave(errTimeout)
}

// leave is the caller going without an answer.
func (c *call) leave(why *unavailable) *unavailable {
	if c.state.CompareAndSwap(callQueued, callLeft) {
		return errWaited
	}
	return &unavailable{reason: why.reason, sent: true}
}

// lane makes round trips until Close.
func (s *Store) lane() {
	b := batch{store: s}
	for {
		select {
		case <-s.quit:
			return
		case c := <-s.queue:
			b.fill(c)
		}
		b.run()
	}
}

// batch is what one lane sends in one round trip. It is used again and again.
type batch struct {
	store    *Store
	calls    []*call
	commands []command
	wire     []rueidis.Completed
	over     *call // did not fit in the last batch
}

// fill takes first and what else waits.
func (b *batch) fill(first *call) {
	b.take(first)
	for len(b.commands) < laneMax && b.over == nil {
		select {
		case c := <-b.store.queue:
			b.take(c)
		default:
			return
		}
	}
}

// take adds c, unless its caller has left.
func (b *batch) take(c *call) {
	if len(b.commands)+len(c.commands) > laneMax {
		b.over = c
		return
	}
	if c.state.CompareAndSwap(callQueued, callTaken) {
		b.calls = append(b.calls, c)
		b.commands = append(b.commands, c.commands...)
	}
}

// run sends the batch, and the call that did not fit after it.
func (b *batch) run() {
	for len(b.commands) > 0 {
		b.deliver(b.send(b.commands))
		b.calls, b.commands = b.calls[:0], b.commands[:0]
		if c := b.over; c != nil {
			b.over = nil
			b.take(c)
		}
	}
}

// deliver hands each call its results. A broken connection counts once for the breaker, however many calls it hits.
func (b *batch) deliver(results []rueidis.RedisResult) {
	for i := range results {
		if err := results[i].NonRedisError(); err != nil {
			b.store.failed(err)
			break
		}
	}
	for i, c := range b.calls {
		n := len(c.commands)
		c.results, results = results[:n:n], results[n:]
		close(c.done)
		b.calls[i] = nil
	}
	clear(b.commands)
}

// send makes the round trip, and a second one for what the server had no script for. It has no deadline but cutAfter.
func (b *batch) send(commands []command) []rueidis.RedisResult {
	results := b.roundTrip(commands)
	var again []command
	var places []int
	for i := range results {
		if missing(results[i].Error()) {
			again, places = append(again, commands[i]), append(places, i)
		}
	}
	if len(again) == 0 {
		return results
	}
	b.load()
	for i, r := range b.roundTrip(again) {
		results[places[i]] = r
	}
	return results
}

func missing(err error) bool {
	e, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(e.Error(), "NOSCRIPT")
}

func (b *batch) roundTrip(commands []command) []rueidis.RedisResult {
	client := *b.store.client.Load() // set before the breaker first closed
	b.wire = b.wire[:0]
	for i := range commands {
		c := &commands[i]
		b.wire = append(b.wire, client.B().Evalsha().Sha1(c.script.sha).Numkeys(int64(len(c.keys))).Key(c.keys...).Arg(c.args...).Build())
	}
	results := client.DoMulti(context.Background(), b.wire...)
	clear(b.wire)
	return results
}

// load sends all scripts. What fails shows as NOSCRIPT in the round trip after it.
func (b *batch) load() {
	client := *b.store.client.Load()
	b.wire = b.wire[:0]
	for _, s := range scripts {
		b.wire = append(b.wire, client.B().ScriptLoad().Script(s.text).Build())
	}
	client.DoMulti(context.Background(), b.wire...)
	clear(b.wire)
}
