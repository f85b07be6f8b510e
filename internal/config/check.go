package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ticketgate/handshake/auth"
	"ticketgate/limiter"
)

// check reports what is wrong between values. A rule is silent where one of its values has a problem already.
func (l *loader) check() {
	l.checkVersion()
	l.checkListen()
	l.checkTLS()
	l.checkMemory()
	l.checkStore()
	l.checkStreams()
	l.checkSources()
	l.checkProducts()
	l.checkPlans()
	l.checkKeys()
}

// rule reports a problem with the first of paths unless one of them has one already or good holds.
func (l *loader) rule(good bool, paths []string, format string, args ...any) {
	if !good && l.sound(paths...) {
		l.wrong(paths[0], format, args...)
	}
}

func (l *loader) checkVersion() {
	if _, set := l.where["version"]; !set {
		l.rule(false, []string{"version"}, `missing; write "version: 1"`)
	}
	l.rule(l.cfg.Version == 1, []string{"version"}, "%d is not known; this ticketgate reads version 1", l.cfg.Version)
}

func (l *loader) checkListen() {
	in := &l.cfg.Listen
	missing := `missing; write how clients reach the gate, such as "wss://rt.example.com"`
	if l.cfg.Tickets.Authority == "node" {
		missing = `missing; with tickets.authority: node only the node that made a ticket opens it, so write how clients reach this one and no other, such as "wss://gw-1.rt.example.com"`
	}
	l.rule(in.Gate.PublicURL != "", []string{"listen.gate.public_url"}, "%s", missing)
	l.rule(in.Gate.Deadlines.Head <= in.Gate.Deadlines.Admit, []string{"listen.gate.deadlines.head", "listen.gate.deadlines.admit"},
		"%v is more than admit, %v, which runs from the same moment", in.Gate.Deadlines.Head, in.Gate.Deadlines.Admit)
	l.rule(in.Gate.Deadlines.TLS <= in.Gate.Deadlines.Admit, []string{"listen.gate.deadlines.tls", "listen.gate.deadlines.admit"},
		"%v is more than admit, %v, which runs from the same moment", in.Gate.Deadlines.TLS, in.Gate.Deadlines.Admit)
	for _, r := range []struct {
		at   string
		rate limiter.Rate
	}{{"listen.gate.admit.rate", in.Gate.Admit.Rate}, {"listen.gate.per_address.rate", in.Gate.PerAddress.Rate}} {
		l.rule(!r.rate.Bytes, []string{r.at}, "%v is a number of bytes; sockets are counted, such as 20/1second", r.rate)
	}
	l.rule(!in.Admin.Token.Empty() || isLoopback(in.Admin.Address), []string{"listen.admin.address", "listen.admin.token"},
		"%q can be reached from elsewhere; set listen.admin.token or listen on 127.0.0.1", in.Admin.Address)
	_, set := l.where["listen.gate.proxy_protocol.required"]
	l.rule(!set || len(in.Gate.ProxyProtocol.From) > 0, []string{"listen.gate.proxy_protocol.required", "listen.gate.proxy_protocol.from"},
		"nobody can send a PROXY header without listen.gate.proxy_protocol.from; name the proxies, such as [10.0.0.0/8]")
	l.rule(!l.cfg.Tickets.BindIP || !strings.HasPrefix(in.Handshake.Address, unixScheme), []string{"tickets.bind_ip", "listen.handshake.address"},
		"who asks at %s has no address that a ticket could be bound to", l.quote("listen.handshake.address", in.Handshake.Address))
	l.checkClashes(in)
}

// checkClashes reports listeners that would take each other's address.
func (l *loader) checkClashes(in *Listen) {
	addresses := append([]string{in.Handshake.Address}, in.Gate.Address...)
	names := append([]string{"listen.handshake.address"}, slices.Repeat([]string{"listen.gate.address"}, len(in.Gate.Address))...)
	addresses, names = append(addresses, in.Admin.Address), append(names, "listen.admin.address")
	if in.Admin.Socket != "" {
		addresses, names = append(addresses, unixScheme+in.Admin.Socket), append(names, "listen.admin.socket")
	}
	for i, a := range addresses {
		for j := range i {
			clash := a == addresses[j] && !strings.HasSuffix(a, ":0")
			l.rule(!clash, []string{names[i], names[j]}, "%q is taken by %s", a, names[j])
		}
	}
}

func (l *loader) checkMemory() {
	m := &l.cfg.Memory
	l.rule(m.RefuseAt < m.CutAt, []string{"memory.refuse_at", "memory.cut_at"},
		"%v is not less than cut_at, %v: newcomers are refused before residents are cut", m.RefuseAt, m.CutAt)
}

// isLoopback reports whether only this host's processes reach address.
func isLoopback(address string) bool {
	if strings.HasPrefix(address, unixScheme) {
		return true
	}
	a, err := netip.ParseAddrPort(address)
	return err == nil && a.Addr().Unmap().IsLoopback()
}

func (l *loader) checkStreams() {
	for name, s := range l.cfg.Streams {
		at := "streams." + name
		switch {
		case s.Backend != "" && s.Feed != "":
			l.rule(false, []string{at}, "has a backend and a feed; a stream is one of both")
		case s.Backend != "":
			refer(l, at+".backend", "backend", s.Backend, l.cfg.Backends)
			_, set := l.where[at+".format"]
			l.rule(!set, []string{at + ".format"}, "is for feeds; a backend's messages pass as they are")
			_, set = l.where[at+".slow_consumer"]
			l.rule(!set, []string{at + ".slow_consumer"}, "is for feeds; a relay stops reading from the backend of a client that does not keep up")
		case s.Feed != "":
			refer(l, at+".feed", "feed", s.Feed, l.cfg.Feeds)
		default:
			l.rule(false, []string{at}, "missing; a stream needs a backend or a feed")
		}
	}
}

// mask is msg, which may show values from under path, unless one of them comes from ${...}.
func (l *loader) mask(path, msg string) string {
	for masked := range l.masked {
		if within(masked, path) {
			return "not accepted, with what ${...} says"
		}
	}
	return msg
}

// refer reports that no entry of among has the name that stands at path.
func refer[V any](l *loader, path, what, name string, among map[string]V) {
	if _, ok := among[name]; !ok {
		l.rule(false, []string{path}, "no %s is called %s%s", what, l.quote(path, name), suggest(name, mapKeys(among)))
	}
}

// quote shows the text at path in quotes unless it comes from ${...}.
func (l *loader) quote(path, text string) string {
	if l.masked[path] {
		return "what ${...} says"
	}
	return fmt.Sprintf("%q", shorten(text))
}

// clockText is the most that a clock's message has beside its padding: {"time":"2026-11-22T13:00:00.123456789Z","pad":""}.
const clockText = 50

func (l *loader) checkSources() {
	for name, b := range l.cfg.Backends {
		at := "backends." + name
		l.rule(b.Kind != "" || len(b.Targets) > 0, []string{at}, "missing; a backend needs targets or kind: echo")
		l.rule(b.Kind == "" || len(b.Targets) == 0, []string{at}, "has targets and a kind; a built-in backend has no targets")
	}
	for name, f := range l.cfg.Feeds {
		at := "feeds." + name
		l.rule(f.Kind != "", []string{at}, "missing; a feed needs a kind, such as clock")
		l.rule(f.Pad+clockText <= l.cfg.WebSocket.MaxMessage, []string{at + ".pad", "websocket.max_message"},
			"%v and the %d bytes of the time are more than websocket.max_message, %v", f.Pad, clockText, l.cfg.WebSocket.MaxMessage)
	}
}

func (l *loader) checkProducts() {
	for name, p := range l.cfg.Products {
		at := "products." + name
		for i, s := range p.Streams {
			refer(l, fmt.Sprintf("%s.streams[%d]", at, i), "stream", s, l.cfg.Streams)
		}
		for i, s := range p.Plans {
			refer(l, fmt.Sprintf("%s.plans[%d]", at, i), "plan", s, l.cfg.Plans)
		}
	}
}

// checkPlans compiles the limits.
func (l *loader) checkPlans() {
	if !l.sound("limit_defaults") {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(l.cfg.Plans)) {
		p := l.cfg.Plans[name]
		if !l.sound("plans." + name) {
			continue
		}
		compiled, problems := limiter.Compile(name, p.Limits, l.cfg.LimitDefaults)
		for _, bad := range problems {
			path := strings.Join(bad.Path, ".")
			if !l.failed[path] { // those of limit_defaults come with every plan
				limit := strings.Join(bad.Path[:min(4, len(bad.Path))], ".")
				l.wrong(path, "%s", l.mask(limit, bad.Msg))
			}
		}
		p.Compiled = compiled
		l.cfg.Plans[name] = p
	}
}

// checkKeys looks at the entries of all keys files together: an id stands for one key, whichever file it is in.
func (l *loader) checkKeys() {
	for i, k := range l.cfg.Keys {
		at := fmt.Sprintf("keys[%d]", i)
		if k.Plan != "" {
			refer(l, at+".plan", "plan", k.Plan, l.cfg.Plans)
		}
		product, ok := l.cfg.Products[k.Product]
		if k.Product != "" {
			refer(l, at+".product", "product", k.Product, l.cfg.Products)
		}
		l.rule(!ok || slices.Contains(product.Plans, k.Plan), []string{at + ".plan", at + ".product", "products"},
			"product %q does not have the plan %q", k.Product, k.Plan)
		l.rule(k.Expires == nil || k.Expires.After(time.Unix(0, 0)), []string{at + ".expires"}, "before 1970")
	}
	if len(l.cfg.Keys) == 0 || !l.sound("secrets.key_hash") {
		return
	}
	if l.cfg.Secrets.KeyHash.Empty() {
		l.wrong("secrets.key_hash", "missing; the keys in auth.keys.source cannot be checked without it")
		return
	}
	ring, err := auth.ParseRing(l.cfg.Secrets.KeyHash.Reveal())
	if err != nil {
		return // its form is checked where it is read
	}
	_, problems := auth.NewKeys(l.cfg.Keys, ring)
	for _, bad := range problems {
		path := fmt.Sprintf("keys[%d].%s", bad.Index, bad.Field)
		l.rule(false, []string{path}, "%s", l.mask(path, bad.Message))
	}
}
