package handshake

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/valyala/fasthttp"

	"ticketgate/limiter"
	"ticketgate/ticket"
)

// streams is GET /v1/streams: what this caller may ask for.
func (r *request) streams() {
	if !r.identify() || !r.noQuery() {
		return
	}
	plan, no := r.policy.plan(&r.who)
	if no != none {
		r.refuse(&problem{reason: no})
		return
	}
	out := appendString([]byte(`{"plan":`), plan.Name)
	out = append(out, `,"streams":[`...)
	first := true
	for _, name := range slices.Sorted(maps.Keys(r.policy.Streams)) {
		stream, no := r.policy.stream(&r.who, name)
		if no != none {
			continue
		}
		if !first {
			out = append(out, ',')
		}
		first = false
		out = stream.append(out, name)
	}
	r.answer(fasthttp.StatusOK, append(out, "]}"...))
}

func (s *Stream) append(dst []byte, name string) []byte {
	dst = appendString(append(dst, `{"name":`...), name)
	dst = append(dst, `,"params":{`...)
	for i, p := range slices.Sorted(maps.Keys(s.Params)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(append(appendString(dst, p), ':'), s.Params[p].String())
	}
	return append(dst, "}}"...)
}

// limits is GET /v1/limits: each limit of the caller's plan as configured and, where this node can tell, what is used and
// when it is back: for a limit per stream once for each stream that the caller may open. For a limit per connection, which
// has no one figure, and for messages per ip, whose address only the gate sees, it cannot.
func (r *request) limits() {
	if !r.identify() {
		return
	}
	client, ok := clientOf(r.query)
	if !ok {
		r.refuse(&problem{reason: badQuery})
		return
	}
	plan, no := r.policy.plan(&r.who)
	if no != none {
		r.refuse(&problem{reason: no})
		return
	}
	if !r.speakFor(client) {
		return
	}
	out := appendString(append(appendString([]byte(`{"client":`), r.client), `,"plan":`...), plan.Name)
	c := &plan.Connections
	out = append(appendPer(append(out, `,"limits":[{"name":"connections","per":`...), c.Per), `,"configured":`...)
	out = strconv.AppendUint(out, uint64(c.Count), 10)
	out, ok = r.appendUses(out, c.Per, func(stream string) (u use, ok bool) {
		used, err := r.sockets(plan, stream)
		return use{used: uint64(used), left: uint64(c.Count - min(used, c.Count)), stays: true}, err == nil
	})
	if !ok && !plan.Leased() { // else it is the more of interest what store_down makes of the limits
		r.refuse(r.s.later(storeDown))
		return
	}
	t := &plan.Tickets
	out = r.appendRate(append(out, "},"...), "tickets", t.Per, t.Rate, t.Burst)
	if t.Leased() {
		out = r.appendLeased(out, plan, &leased{t.Fixed, t.Cluster, limiter.DownDeny, t.Per, t.Terms(), true,
			func(name string) ticket.Subject { return r.s.ticketBucket(plan, name) }})
	} else {
		out, _ = r.appendUses(out, t.Per, func(stream string) (use, bool) {
			return r.bucket(r.s.rates, plan, "tickets", stream, t.Per, t.Burst, t.Meter)
		})
	}
	for i := range plan.Limits() {
		l := &plan.Limits()[i]
		out = r.appendRate(append(out, "},"...), l.Name, l.Per, l.Rate, l.Burst)
		switch {
		case l.Leased():
			out = r.appendLeased(out, plan, &leased{l.Fixed, l.Cluster, l.Down, l.Per, l.Terms(), !l.Per.Has(limiter.PerIP), func(name string) ticket.Subject {
				return limiter.Bucket(r.s.o.Keys.Subject, plan.Name, l.Name, l.Per, name, l.Home(r.s.o.Name))
			}})
		case l.Per == limiter.PerConnection || l.Per.Has(limiter.PerIP) || r.s.o.Messages == nil:
		default:
			out, _ = r.appendUses(out, l.Per, func(stream string) (use, bool) {
				return r.bucket(r.s.o.Messages, plan, l.Name, stream, l.Per, l.Burst, l.Meter)
			})
		}
	}
	r.answer(fasthttp.StatusOK, append(out, "}]}"...))
}

// leased is a limit that a bank keeps.
type leased struct {
	fixed, cluster bool
	down           limiter.Down
	per            limiter.Per
	terms          limiter.Terms
	known          bool // whose bucket it is can be told here: not of messages per ip, whose address the gate sees
	bucket         func(name string) ticket.Subject
}

// appendLeased tells of l: what is special of it, and what is used of it over all nodes, the tokens that nodes hold in advance included.
// While the bank does not answer it says so, and what store_down makes of the limit.
func (r *request) appendLeased(dst []byte, plan *limiter.Plan, l *leased) []byte {
	if l.fixed {
		dst = append(dst, `,"window":"fixed"`...)
	}
	if l.cluster {
		dst = append(dst, `,"scope":"cluster"`...)
	}
	dst = append(append(append(dst, `,"store_down":"`...), l.down.String()...), '"')
	if !l.known {
		return dst
	}
	dst, ok := r.appendUses(dst, l.per, func(stream string) (u use, ok bool) {
		name, ok := l.per.Name(r.counted(plan, stream))
		if !ok {
			return u, false
		}
		g, err := r.s.lease(limiter.Ask{Bucket: l.bucket(name), Terms: l.terms})
		if err != nil {
			return u, false
		}
		most := l.terms.Most()
		left := min(max(g.Remaining, 0), most)
		return use{used: uint64(most - left), left: uint64(left), resets: resets(&g)}, true
	})
	if !ok {
		dst = append(dst, `,"degraded":true`...)
	}
	return dst
}

// resets is when more is there: at the end of a window, or when the next of a bucket is; 0 while there is some.
func resets(g *limiter.Grant) time.Duration {
	if g.Ends > 0 {
		return g.Ends
	}
	return g.Wait
}

// use is what is used of a limit.
type use struct {
	used, left uint64
	resets     time.Duration // until one more is there
	stays      bool          // nothing comes back by itself
}

// appendUses tells what of is for the caller, or for him at each stream; false: of could not tell one.
func (r *request) appendUses(dst []byte, per limiter.Per, of func(stream string) (use, bool)) ([]byte, bool) {
	if !per.Has(limiter.PerStream) {
		u, ok := of("")
		if !ok {
			return dst, false
		}
		return u.append(append(dst, ',')), true
	}
	start := len(dst)
	dst = append(dst, `,"streams":{`...)
	for _, name := range slices.Sorted(maps.Keys(r.policy.Streams)) {
		if _, no := r.policy.stream(&r.who, name); no != none {
			continue
		}
		u, ok := of(name)
		if !ok {
			return dst[:start], false
		}
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(u.append(append(appendString(dst, name), ":{"...)), '}')
	}
	return append(dst, '}'), true
}

func (u *use) append(dst []byte) []byte {
	dst = strconv.AppendUint(append(dst, `"used":`...), u.used, 10)
	dst = strconv.AppendUint(append(dst, `,"remaining":`...), u.left, 10)
	if u.stays {
		return dst
	}
	return strconv.AppendInt(append(dst, `,"resets_in":`...), int64(ceilSeconds(u.resets)), 10)
}

// appendPer writes one name, or a list as it stands in the configuration.
func appendPer(dst []byte, per limiter.Per) []byte {
	if !strings.Contains(string(per), ",") {
		return appendString(dst, string(per))
	}
	return append(append(append(dst, `["`...), strings.ReplaceAll(string(per), ",", `","`)...), `"]`...)
}

// clientOf reads the query of GET /v1/limits: nothing, or client and a name.
func clientOf(query string) (client string, ok bool) {
	if query == "" {
		return "", true
	}
	value, ok := strings.CutPrefix(query, "client=")
	if !ok || strings.ContainsAny(value, "&+=") { // '+' would be a space to some
		return "", false
	}
	var out []byte
	for i := 0; i < len(value); i++ {
		c := value[i]
		if c == '%' {
			c, _ = unescape([]byte(value[i:])) // head.go has seen that it is one
			i += 2
		}
		out = append(out, c)
	}
	name := string(out)
	return name, name != "" && len(name) <= nameMax && utf8.ValidString(name) && !strings.ContainsFunc(name, isControl)
}

// sockets is how many the subject of the connections limit has, open or reserved, in the cluster.
func (r *request) sockets(plan *limiter.Plan, stream string) (uint32, error) {
	ctx, cancel := context.WithTimeout(context.Background(), storeMax)
	defer cancel()
	return r.s.o.Node.Used(ctx, r.subject(plan, stream), nil)
}

func (r *request) appendRate(dst []byte, name string, per limiter.Per, rate limiter.Rate, burst uint64) []byte {
	dst = appendString(append(dst, `{"name":`...), name)
	dst = appendPer(append(dst, `,"per":`...), per)
	dst = appendString(append(dst, `,"configured":`...), rate.String())
	return strconv.AppendUint(append(dst, `,"burst":`...), burst, 10)
}

// bucket tells what of a bucket of this node is used. One that nobody has taken from is full.
func (r *request) bucket(t *limiter.Table, plan *limiter.Plan, limit, stream string, per limiter.Per, burst uint64, m limiter.Meter) (u use, ok bool) {
	name, ok := per.Name(r.counted(plan, stream))
	if !ok {
		return u, false
	}
	ref, ok := t.Hold(t.Key(plan.Name+"/"+limit, string(per), name))
	if !ok {
		return u, false
	}
	defer t.Release(ref)
	left, reset := m.Left(t.At(ref).Load(), r.now())
	return use{used: burst - min(left, burst), left: left, resets: reset}, true
}
