package relay

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/engine/upgrade"
	"ticketgate/internal/stat"
)

// resolveEvery is how often names of targets are looked up again; resolveMax is how long one round of look-ups may take.
const (
	resolveEvery = 30 * time.Second
	resolveMax   = 3 * time.Second
)

// A target is one address that the config names. Its numbers change per connection, never per message, so that all loops
// share them.
type target struct {
	url    string // as configured
	host   string // name or address to dial
	field  string // the Host field
	path   string // request target: path and query
	port   uint16
	number atomic.Uint32 // how many dials have picked an address
	addrs  atomic.Pointer[[]netip.Addr]

	down    atomic.Bool // the last attempt got no valid 101
	open    atomic.Int64
	dials   [results]atomic.Uint64
	seconds [results]stat.Histogram
}

// parseTarget takes ws://host[:port][/path][?query] apart.
func parseTarget(text string) (*target, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("target %q: %w", text, err)
	case u.Scheme != "ws":
		return nil, fmt.Errorf("target %q: scheme %q, want ws", text, u.Scheme)
	case u.Hostname() == "" || u.User != nil || u.Fragment != "" || strings.Contains(text, "#"):
		return nil, fmt.Errorf("target %q: want ws://host:port/path, without user or fragment", text)
	}
	t := &target{url: text, host: u.Hostname(), field: u.Host, path: u.RequestURI(), port: 80}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("target %q: port %q, want 1 to 65535", text, p)
		}
		t.port = uint16(n)
	}
	if _, err := upgrade.AppendRequest(nil, t.field, t.path, sampleKey, nil); err != nil {
		return nil, fmt.Errorf("target %q: host or path has characters that cannot be sent", text)
	}
	if a, err := netip.ParseAddr(t.host); err == nil {
		t.addrs.Store(&[]netip.Addr{a.Unmap()})
	}
	return t, nil
}

// sampleKey is a well-formed Sec-WebSocket-Key for trying out whether a request can be built (RFC 6455 section 1.3).
var sampleKey = []byte("dGhlIHNhbXBsZSBub25jZQ==")

// named reports whether the target must be looked up. It does not change.
func (t *target) named() bool {
	_, err := netip.ParseAddr(t.host)
	return err != nil
}

// pick returns the next address of the target; false if its name has never been resolved.
func (t *target) pick() (netip.AddrPort, bool) {
	as := t.addrs.Load()
	if as == nil {
		return netip.AddrPort{}, false
	}
	i := t.number.Add(1) - 1
	return netip.AddrPortFrom((*as)[int(i)%len(*as)], t.port), true
}

// count notes how an attempt that took d ended.
func (t *target) count(r result, d time.Duration) {
	t.dials[r].Add(1)
	t.seconds[r].Observe(d)
	if r != resultLeft { // a client that left says nothing of the backend
		t.down.Store(r != resultOK)
	}
}

// A result is how an attempt to reach a target ended.
type result uint8

const (
	resultOK       result = iota // a valid 101
	resultRefused                // no connection, or no address
	resultRejected               // connected, but no valid 101
	resultTimeout                // no connection or no answer in time
	resultLeft                   // the client left meanwhile
	results
)

// resultNames are the metric labels of results.
var resultNames = [results]string{"ok", "refused", "rejected", "timeout", "left"}

// A resolver keeps the addresses of named targets fresh, off the loops.
type resolver struct {
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	named  []*target
	stop   context.CancelFunc
	done   sync.WaitGroup
}

func systemLookup(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// start looks all names up once, and again every resolveEvery until close. A name that does not resolve keeps the addresses
// that it had.
func (r *resolver) start(targets []*target) {
	for _, t := range targets {
		if t.named() {
			r.named = append(r.named, t)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	if len(r.named) == 0 {
		return
	}
	r.round(ctx)
	r.done.Go(func() { r.run(ctx) }) // close waits for it
}

func (r *resolver) run(ctx context.Context) {
	tick := time.NewTicker(resolveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.round(ctx)
		}
	}
}

// round looks all names up, at once.
func (r *resolver) round(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, resolveMax)
	defer cancel()
	var all sync.WaitGroup
	for _, t := range r.named {
		all.Go(func() {
			as, err := r.lookup(ctx, t.host)
			if err != nil || len(as) == 0 {
				return
			}
			fresh := make([]netip.Addr, len(as))
			for i, a := range as {
				fresh[i] = a.Unmap()
			}
			t.addrs.Store(&fresh)
		})
	}
	all.Wait()
}

func (r *resolver) close() {
	r.stop()
	r.done.Wait()
}
