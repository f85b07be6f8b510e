package proxy_test

import (
	"net/netip"
	"strings"
	"testing"

	"ticketgate/engine/proxy"
)

func addrPort(text string) netip.AddrPort {
	if text == "" {
		return netip.AddrPort{}
	}
	return netip.MustParseAddrPort(text)
}

// Every header is taken as a whole, says the same wherever it is cut, and is no header before its last byte.
func TestGood(t *testing.T) {
	for _, c := range good {
		all := []byte(c.raw + c.rest)
		for cut := range c.raw {
			if h, n, err := proxy.Parse(all[:cut:cut]); n != 0 || err != nil || h != (proxy.Header{}) {
				t.Fatalf("%s: %d bytes of %d: %+v, %d, %v, want nothing yet", c.name, cut, len(c.raw), h, n, err)
			}
		}
		h, n, err := proxy.Parse(all)
		if err != nil || n != len(c.raw) || h.Source != addrPort(c.from) || h.Dest != addrPort(c.to) {
			t.Errorf("%s: %+v, %d, %v, want %d bytes from %q to %q", c.name, h, n, err, len(c.raw), c.from, c.to)
		}
		if want := 1 + strings.Count(c.raw[:12], "QUIT"); int(h.Version) != want {
			t.Errorf("%s: version %d, want %d", c.name, h.Version, want)
		}
	}
}

// Every fault is seen at its byte, and whatever follows changes nothing.
func TestBad(t *testing.T) {
	for _, c := range bad {
		last := len(c.raw) - 1
		if h, n, err := proxy.Parse([]byte(c.raw[:last])); n != 0 || err != nil || h != (proxy.Header{}) {
			t.Errorf("%s: a byte earlier: %+v, %d, %v, want nothing yet", c.name, h, n, err)
		}
		for _, rest := range []string{"", "\r\n", "\x00", "\x00\x00\x00\x00\x00\x00\x00\x00", " 1 2\r\n", strings.Repeat("x", 600)} {
			if h, n, err := proxy.Parse([]byte(c.raw + rest)); n != 0 || err != c.err || h != (proxy.Header{}) {
				t.Errorf("%s and %q: %+v, %d, %v, want %v", c.name, rest, h, n, err, c.err)
			}
		}
	}
	if rows := len(good) + len(bad); rows < 80 {
		t.Errorf("%d rows", rows)
	}
}

// A beginning of a line for which more bytes are asked can be completed. The ends of all good lines are tried.
func TestLineAsksForNoMoreThanItNeeds(t *testing.T) {
	var ends []string
	seen := map[string]bool{}
	for _, c := range good {
		for i := range c.raw {
			if end := c.raw[i:]; strings.HasPrefix(c.raw, "PROXY ") && !seen[end] {
				seen[end] = true
				ends = append(ends, end)
			}
		}
	}
	completes := func(beginning string) bool {
		for _, end := range ends {
			if _, n, err := proxy.Parse([]byte(beginning + end)); err == nil && n == len(beginning)+len(end) {
				return true
			}
		}
		return false
	}
	tried := 0
	for _, c := range append(good, bad...) {
		for cut := range c.raw {
			if begin := c.raw[:cut]; strings.HasPrefix(begin, "PROXY ") && cut < 60 && !seen[begin] {
				seen[begin] = true
				tried++
				if !completes(begin) {
					t.Errorf("%s: %q asks for more, and nothing completes it", c.name, begin)
				}
			}
		}
	}
	if tried < 500 {
		t.Errorf("%d beginnings tried", tried)
	}
}

func TestPeer(t *testing.T) {
	own := addrPort("10.0.0.1:1000")
	for raw, want := range map[string]netip.AddrPort{
		v1("TCP4 192.0.2.1 198.51.100.2 56324 443"): addrPort(from4),
		v2(proxied, tcp6, block6):                   addrPort(from6),
		v1("UNKNOWN"):                               own,
		v2(local, tcp4, block4):                     own,
		v2(proxied, unix, blockUnix):                own,
	} {
		h, _, err := proxy.Parse([]byte(raw))
		if err != nil || h.Peer(own) != want {
			t.Errorf("%q is from %v, %v, want %v", raw, h.Peer(own), err, want)
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	for _, c := range append(good, bad...) {
		raw := []byte(c.raw)
		if n := testing.AllocsPerRun(10, func() {
			_, _, _ = proxy.Parse(raw[:len(raw)-1])
			_, _, _ = proxy.Parse(raw)
		}); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

func TestPolicy(t *testing.T) {
	ranges := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("192.0.2.7/32")}
	with := func(unix, required bool) proxy.Policy {
		return proxy.Policy{From: ranges, Unix: unix, Required: required}
	}
	for _, c := range []struct {
		policy proxy.Policy
		peer   string // "" is a unix socket
		want   proxy.Mode
	}{
		{proxy.Policy{}, "10.0.0.1", proxy.Never},
		{proxy.Policy{}, "", proxy.Never},
		{with(false, true), "10.0.0.1", proxy.Must},
		{with(false, true), "::ffff:10.255.255.255", proxy.Must},
		{with(false, true), "11.0.0.0", proxy.Refuse},
		{with(false, true), "192.0.2.7", proxy.Must},
		{with(false, true), "192.0.2.8", proxy.Refuse},
		{with(false, true), "2001:db8:ffff::", proxy.Must},
		{with(false, true), "2001:db8::1%eth0", proxy.Must},
		{with(false, true), "2001:db9::1", proxy.Refuse},
		{with(false, true), "::10.0.0.1", proxy.Refuse},
		{with(false, true), "", proxy.Refuse},
		{with(true, true), "", proxy.Must},
		{with(false, false), "10.0.0.1", proxy.May},
		{with(false, false), "127.0.0.1", proxy.Never},
		{with(false, false), "", proxy.Never},
		{with(true, false), "", proxy.May},
	} {
		var peer netip.Addr
		if c.peer != "" {
			peer = netip.MustParseAddr(c.peer)
		}
		if got := c.policy.Expect(peer); got != c.want {
			t.Errorf("%+v expects %d of %q, want %d", c.policy, got, c.peer, c.want)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for name, raw := range map[string]string{
		"v1-ip4": v1("TCP4 192.0.2.1 198.51.100.2 56324 443"), "v1-ip6": v1("TCP6 2001:db8::1 2001:db8::2 56324 443"), "v2-ip4": v2(proxied, tcp4, block4),
		"v2-checksum": summed(v2(proxied, tcp4, block4, noSum), 31), "none": "GET /t/ HTTP/1.1\r\n",
		"longest": v2(proxied, tcp4, block4, strings.Repeat(tlv(0xe0, ""), 169)),
	} {
		b.Run(name, func(b *testing.B) {
			in := []byte(raw)
			for b.Loop() {
				_, _, _ = proxy.Parse(in)
			}
		})
	}
}
