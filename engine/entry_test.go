package engine_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/proxy"
	"ticketgate/ticket"
)

var proxyPeer = netip.MustParseAddrPort("192.0.2.7:4711")

// proxied is a gate behind proxies of a range.
func proxied(required bool, from string) func(*engine.Options) {
	return func(o *engine.Options) {
		o.Proxy = proxy.Policy{From: []netip.Prefix{netip.MustParsePrefix(from)}, Required: required}
	}
}

func TestProxyHeader(t *testing.T) {
	const header = "PROXY TCP4 198.51.100.7 192.0.2.1 4711 443\r\n"
	for name, c := range map[string]struct {
		required bool
		from     string
		send     string // in front of the request
		peer     string // "": the socket is reset
	}{
		"required, there":     {true, "192.0.2.0/24", header, "198.51.100.7"},
		"required, absent":    {true, "192.0.2.0/24", "", ""},
		"required, broken":    {true, "192.0.2.0/24", "PROXY TCP4 here there 1 2\r\n", ""},
		"required, unlisted":  {true, "203.0.113.0/24", header, ""},
		"possible, there":     {false, "192.0.2.0/24", header, "198.51.100.7"},
		"possible, absent":    {false, "192.0.2.0/24", "", "192.0.2.7"},
		"for itself":          {true, "192.0.2.0/24", "PROXY UNKNOWN\r\n", "192.0.2.7"},
		"a proxy of IPv6":     {true, "192.0.2.0/24", "PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", "2001:db8::1"},
		"binary, for nothing": {true, "192.0.2.0/24", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", "192.0.2.7"},
	} {
		for _, cut := range []int{1 << 20, 1} {
			t.Run(name, func(t *testing.T) {
				var peer netip.Addr
				r := newRig(t, nil, func(o *engine.Options) {
					proxied(c.required, c.from)(o)
					o.Event = func(ev engine.Event) { peer = ev.Peer }
				})
				p := r.mem.Connect(proxyPeer)
				wire := c.send + head(r.issue(ticket.Claims{}))
				for len(wire) > 0 {
					p.Write([]byte(wire[:min(cut, len(wire))]))
					wire = wire[min(cut, len(wire)):]
					r.mem.Run()
				}
				answer := string(p.Read())
				if c.peer == "" {
					if !p.WasReset() || answer != "" {
						t.Errorf("reset %v, answer %q", p.WasReset(), answer)
					}
					return
				}
				if !strings.HasPrefix(answer, "HTTP/1.1 101 ") || peer.String() != c.peer {
					t.Errorf("answer %.20q, peer %v, want %s", answer, peer, c.peer)
				}
				p.Write(client(frame.Binary, true, "x"))
				r.mem.Run()
				if got := string(p.Read()); got != "\x82\x01x" {
					t.Errorf("echo %q", got)
				}
			})
		}
	}
}

// TestUnlistedHeader: what looks like a header from one who may not send it is a broken request.
func TestUnlistedHeader(t *testing.T) {
	r := newRig(t, nil, proxied(false, "203.0.113.0/24"))
	p := r.mem.Connect(proxyPeer)
	p.Write([]byte("PROXY TCP4 198.51.100.7 192.0.2.1 4711 443\r\n"))
	r.mem.Run()
	if got := string(p.Read()); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
		t.Errorf("got %.40q", got)
	}
}

// TestHalfAProxyHeaderIsNotWaitedFor longer than for a head.
func TestHalfAProxyHeaderIsNotWaitedFor(t *testing.T) {
	r := newRig(t, nil, proxied(true, "192.0.2.0/24"))
	p := r.mem.Connect(proxyPeer)
	p.Write([]byte("PROXY TCP4 198."))
	r.mem.Advance(r.options.Deadlines.Head - 100*time.Millisecond)
	if p.Closed() {
		t.Fatal("closed too early")
	}
	p.Write([]byte("51."))
	r.mem.Advance(200 * time.Millisecond)
	if !p.WasReset() {
		t.Error("still open")
	}
	if n := r.engine.Stats().Rejected["proxy-late"]; n != 1 {
		t.Errorf("counted %d times", n)
	}
}

// TestProxiedAddressIsLimited: behind a proxy it is the client's address that counts, not the proxy's.
func TestProxiedAddressIsLimited(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) {
		proxied(true, "192.0.2.0/24")(o)
		limitAddresses(t, "2/1hour", 10)(o)
	})
	for i, want := range []bool{false, false, true} {
		p := r.mem.Connect(proxyPeer)
		p.Write([]byte("PROXY TCP4 198.51.100.7 192.0.2.1 4711 443\r\n"))
		r.mem.Run()
		if p.WasReset() != want {
			t.Errorf("socket %d: reset %v", i, p.WasReset())
		}
	}
	p := r.mem.Connect(proxyPeer)
	p.Write([]byte("PROXY TCP4 198.51.100.8 192.0.2.1 4711 443\r\n"))
	r.mem.Run()
	if p.Closed() {
		t.Error("another client of the same proxy is refused")
	}
}
