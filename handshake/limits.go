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
// when it is back. For a limit per connection, which has no one figure, it cannot.
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
	used, err := r.sockets(plan)
	if err != nil {
		r.refuse(r.s.later(storeDown))
		return
	}
	out := appendString(append(appendString([]byte(`{"client":`), r.client), `,"plan":`...), plan.Name)
	out = strconv.AppendUint(append(out, `,"limits":[{"name":"connections","per":"`+string(plan.Connections.Per)+`","configured":`...),
		uint64(plan.Connections.Count), 10)
	out = append(strconv.AppendUint(append(out, `,"used":`...), uint64(used), 10), '}')
	t := &plan.Tickets
	out = r.appendRate(append(out, ','), "tickets", t.Per, t.Rate, t.Burst)
	out = append(r.appendUse(out, r.s.rates, plan.Name+"/tickets", t.Per, t.Burst, t.Meter), '}')
	for i := range plan.Limits() {
		l := &plan.Limits()[i]
		out = r.appendRate(append(out, ','), l.Name, l.Per, l.Rate, l.Burst)
		if l.Per != limiter.PerConnection && r.s.o.Messages != nil {
			out = r.appendUse(out, r.s.o.Messages, plan.Name+"/"+l.Name, l.Per, l.Burst, l.Meter)
		}
		out = append(out, '}')
	}
	r.answer(fasthttp.StatusOK, append(out, "]}"...))
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
func (r *request) sockets(plan *limiter.Plan) (uint32, error) {
	ctx, cancel := context.WithTimeout(context.Background(), storeMax)
	defer cancel()
	return r.s.o.Node.Used(ctx, r.s.o.Keys.Subject(r.counted(plan.Connections.Per)), nil)
}

func (r *request) appendRate(dst []byte, name string, per limiter.Per, rate limiter.Rate, burst uint64) []byte {
	dst = appendString(append(dst, `{"name":`...), name)
	dst = appendString(append(dst, `,"per":`...), string(per))
	dst = appendString(append(dst, `,"configured":`...), rate.String())
	return strconv.AppendUint(append(dst, `,"burst":`...), burst, 10)
}

// appendUse tells what of a bucket is used now, and the seconds until one more is there. A bucket that nobody has taken
// from is full.
func (r *request) appendUse(dst []byte, t *limiter.Table, limit string, per limiter.Per, burst uint64, m limiter.Meter) []byte {
	kind, name := r.counted(per)
	ref, ok := t.Hold(t.Key(limit, kind, name))
	if !ok {
		return dst
	}
	defer t.Release(ref)
	left, reset := m.Left(t.At(ref).Load(), r.now())
	dst = strconv.AppendUint(append(dst, `,"used":`...), burst-min(left, burst), 10)
	return strconv.AppendInt(append(dst, `,"resets_in":`...), int64((reset+time.Second-1)/time.Second), 10)
}
