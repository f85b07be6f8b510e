package engine

import (
	"ticketgate/engine/frame"
	"ticketgate/limiter"
)

// Policy is what the config says of streams and plans. It is never written to; a reload makes a new one in which names that
// stay keep their index, because open sockets hold indexes.
type Policy struct {
	streams []StreamEntry
	plans   []*limiter.Plan
	byName  map[string]uint16
	byPlan  map[string]uint16
}

// StreamEntry is a stream as the engine sees it.
type StreamEntry struct {
	Name   string
	Stream Stream
	Rules  *frame.Rules // of frames from the client
	MayNot bool         // clients may not send messages: 1003
	Whole  bool         // the stream wants binary messages whole as well

	compressed *frame.Rules // Rules for a client that may compress
	runner     Runner       // Stream, if it is one
}

// maxMessage is the longest message that any stream takes, in bytes.
func (p *Policy) maxMessage() (most int64) {
	for i := range p.streams {
		if r := p.streams[i].Rules; r != nil {
			most = max(most, r.MaxMessage)
		}
	}
	return most
}

// NewPolicy gathers streams and plans; at most 65,535 of each.
func NewPolicy(streams []StreamEntry, plans []*limiter.Plan) *Policy {
	p := &Policy{streams: streams, plans: plans, byName: map[string]uint16{}, byPlan: map[string]uint16{}}
	for i := range streams {
		p.byName[streams[i].Name] = uint16(i)
		rules := *streams[i].Rules
		rules.Compressed = true
		streams[i].compressed = &rules
		streams[i].runner, _ = streams[i].Stream.(Runner)
	}
	for i, l := range plans {
		p.byPlan[l.Name] = uint16(i)
	}
	return p
}
