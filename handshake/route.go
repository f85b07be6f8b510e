package handshake

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"ticketgate/handshake/auth"
	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// A request is one request on its way. Only its handler's goroutine uses it, and nothing keeps it.
type request struct {
	s      *Server
	ctx    *fasthttp.RequestCtx
	id     string // "req_...": in the answer and the log line
	policy *Policy
	path   string // as it was sent
	query  string // likewise, without '?'

	who    auth.Identity // after identify
	client string        // whom it is for: who's own client, or whom who may speak for
}

// A route is what one path does. do runs for the methods listed, which leaves out HEAD (as GET) and OPTIONS (answered for
// all).
type route struct {
	method string
	do     func(*request)
	api    bool           // pages of other origins may call it, if the policy lists them
	del    func(*request) // DELETE; nil: not here
}

func (r *request) find() (route, bool) {
	switch r.path {
	case "/v1/tickets":
		return route{"POST", (*request).issue, true, nil}, true
	case "/v1/streams":
		return route{"GET", (*request).streams, true, nil}, true
	case "/v1/limits":
		return route{"GET", (*request).limits, true, nil}, true
	case "/healthz":
		return route{"GET", (*request).healthz, false, nil}, true
	case "/readyz":
		return route{"GET", (*request).readyz, false, nil}, true
	}
	if id, ok := strings.CutPrefix(r.path, "/v1/tickets/"); ok && id != "" && !strings.Contains(id, "/") {
		return route{"GET", (*request).state, true, (*request).revoke}, true
	}
	return route{}, false
}

// route answers the request.
func (r *request) route() {
	r.path, r.query, _ = strings.Cut(string(r.ctx.Request.Header.RequestURI()), "?")
	to, ok := r.find()
	if !ok {
		if h := r.s.extra(r.path); h != nil {
			h(r.ctx)
			return
		}
		r.refuse(&problem{reason: noRoute})
		return
	}
	if to.api {
		r.allowOrigin()
	}
	switch method := string(r.ctx.Method()); {
	case method == "OPTIONS":
		r.options(to)
	case method == to.method || method == "HEAD" && to.method == "GET":
		to.do(r)
	case method == "DELETE" && to.del != nil:
		to.del(r)
	default:
		r.refuse(&problem{reason: badMethod, allow: to.allow(), detail: "this path knows " + to.allow()})
	}
}

func (t route) allow() string {
	if t.del != nil {
		return "DELETE, GET, HEAD, OPTIONS"
	}
	if t.method == "GET" {
		return "GET, HEAD, OPTIONS"
	}
	return t.method + ", OPTIONS"
}

// extra finds a further path; the longest one that ends in "/" and that path begins with, if path itself is none.
func (s *Server) extra(path string) Handler {
	if h, ok := s.o.Extra[path]; ok {
		return h
	}
	for end := strings.LastIndexByte(path, '/'); end >= 0; end = strings.LastIndexByte(path[:end], '/') {
		if h, ok := s.o.Extra[path[:end+1]]; ok {
			return h
		}
	}
	return nil
}

// allowOrigin lets the pages of a listed origin read the answer. Credentials of the browser are never allowed: the API
// takes none.
func (r *request) allowOrigin() bool {
	h := &r.ctx.Response.Header
	h.Set("Vary", "Origin")
	origin := string(r.ctx.Request.Header.Peek("Origin"))
	if !slices.Contains(r.policy.CORSOrigins, origin) {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "RateLimit, RateLimit-Policy, Retry-After")
	return true
}

// options answers what a path can do, and a browser's question before it sends another page's request.
func (r *request) options(to route) {
	asked := r.ctx.Request.Header.Peek("Access-Control-Request-Method")
	if to.api && len(asked) > 0 {
		if !r.allowOrigin() {
			r.refuse(&problem{reason: badOrigin, detail: "pages of this origin may not call the API"})
			return
		}
		h := &r.ctx.Response.Header
		methods := to.method
		if to.del != nil {
			methods += ", DELETE"
		}
		h.Set("Access-Control-Allow-Methods", methods)
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, "+r.s.o.KeyHeader)
		h.Set("Access-Control-Max-Age", "600")
	}
	r.ctx.Response.Header.Set("Allow", to.allow())
	r.ctx.SetStatusCode(fasthttp.StatusNoContent)
}

// refuse answers with p. It returns false, for the caller to return.
func (r *request) refuse(p *problem) bool {
	ctx, what := r.ctx, &refusals[p.reason]
	ctx.SetStatusCode(what.status)
	ctx.Response.Header.SetContentType(problemType)
	ctx.Response.SetBodyRaw(p.append(make([]byte, 0, 512), r.s.base, r.id))
	if what.status == fasthttp.StatusUnauthorized {
		ctx.Response.Header.Set("WWW-Authenticate", `Bearer realm="ticketgate"`)
	}
	if p.retry > 0 {
		ctx.Response.Header.Set("Retry-After", strconv.Itoa(p.retry))
	}
	if p.allow != "" {
		ctx.Response.Header.Set("Allow", p.allow)
	}
	if what.close {
		ctx.SetConnectionClose()
	}
	r.s.count(r.id, p.reason, r.who.Key)
	return false
}

// count notes a refusal, and logs it unless there are too many.
func (s *Server) count(id string, no Reason, key string) {
	s.rejected[no].Add(1)
	ok, dropped := s.talk.pass(s.o.Clock.Now())
	if !ok {
		return
	}
	attrs := []slog.Attr{slog.String("request_id", id), slog.String("reason", refusals[no].label), slog.Int("status", refusals[no].status)}
	if key != "" {
		attrs = append(attrs, slog.String("key", key))
	}
	if dropped > 0 {
		attrs = append(attrs, slog.Uint64("not_logged", dropped))
	}
	s.log.LogAttrs(context.Background(), slog.LevelInfo, "request refused", attrs...)
}

// answer sends body as JSON.
func (r *request) answer(status int, body []byte) {
	r.ctx.SetStatusCode(status)
	r.ctx.Response.Header.SetContentType("application/json")
	r.ctx.Response.SetBodyRaw(body)
}

func (r *request) now() mono.Time { return r.s.o.Clock.Now() }

func (r *request) healthz() { r.answer(fasthttp.StatusOK, []byte(`{"status":"ok"}`)) }

// readyz says whether a load balancer should send callers here, and why not.
func (r *request) readyz() {
	if p := r.s.unready(); p != nil {
		r.refuse(p)
		return
	}
	r.answer(fasthttp.StatusOK, []byte(`{"status":"ready"}`))
}

func (s *Server) unready() *problem {
	if s.o.Draining() || s.stopping.Load() {
		return s.later(draining)
	}
	if s.o.Overloaded() {
		return s.later(shortOfMemory)
	}
	err := s.o.Node.Ready()
	if err == nil {
		return nil
	}
	p := s.later(notReady)
	switch { // not err's own words, which may name a host
	case errors.Is(err, ticket.ErrUnavailable):
		p.detail = "the ticket store is unavailable"
	case errors.Is(err, ticket.ErrLeaseLost):
		p.detail = "the node has no lease"
	default:
		p.detail = "the node has not joined its cluster yet"
	}
	return p
}
