package handshake

import (
	"regexp"
	"slices"

	"ticketgate/handshake/auth"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

// Policy is what the configuration says of who may open what. It is never written to: a reload makes a new one, and a
// request sees one from beginning to end.
type Policy struct {
	Streams     map[string]Stream
	Plans       map[string]*limiter.Plan
	Products    map[string]Product
	Keys        *auth.Keys
	CORSOrigins []string // whose pages may read answers, as browsers write an origin
}

// A Stream is what a ticket can be for.
type Stream struct {
	Name   string
	Params map[string]*regexp.Regexp // all that a caller sets, and has to set; a value matches as a whole
}

// A Product is what a credential may ask for.
type Product struct{ Streams, Plans []string }

// stream finds the stream that who asks for, and why not.
func (p *Policy) stream(who *auth.Identity, name string) (*Stream, Reason) {
	s, ok := p.Streams[name]
	switch {
	case !ok:
		return nil, unknownStream
	case !slices.Contains(p.Products[who.Product].Streams, name) || !who.MayOpen(name):
		return nil, forbiddenStream
	}
	return &s, none
}

// plan finds the caller's plan, which has to be one of its product.
func (p *Policy) plan(who *auth.Identity) (*limiter.Plan, Reason) {
	plan, ok := p.Plans[who.Plan]
	if !ok || !slices.Contains(p.Products[who.Product].Plans, who.Plan) {
		return nil, forbiddenPlan
	}
	return plan, none
}

// checkParams returns "" or what is wrong, naming only params that the configuration names.
func (s *Stream) checkParams(a *ask) string {
	for _, p := range a.params {
		pattern, ok := s.Params[p.Name]
		if !ok {
			return "params: a member that this stream does not have"
		}
		if !matches(pattern, p.Value) {
			return "params." + p.Name + ": does not match the pattern of the stream, see GET /v1/streams"
		}
	}
	if len(a.params) == len(s.Params) { // none stands twice
		return ""
	}
	for name := range s.Params {
		if !slices.ContainsFunc(a.params, func(p ticket.Param) bool { return p.Name == name }) {
			return "params." + name + ": missing"
		}
	}
	return ""
}

// matches is for patterns that are anchored and for those that were forgotten to be: a part of value is not enough.
func matches(pattern *regexp.Regexp, value string) bool {
	at := pattern.FindStringIndex(value)
	return at != nil && at[0] == 0 && at[1] == len(value)
}
