package conform

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// Link is an open socket to the examined.
type Link struct {
	Socket *Socket

	// Far gives the code with which the client on the other side of a gateway was closed, when the tester is the backend:
	// 0 for an empty close frame, an error for none. nil: there is nobody on the other side.
	Far func() (uint16, error)
}

// Options say what is examined.
type Options struct {
	Open    func(ctx context.Context, offer string) (*Link, error) // for one case
	Deflate bool                                                   // permessage-deflate is on; else it must not be accepted
	Never   bool                                                   // the examined has no say: it is the one that would offer
	AtOnce  int                                                    // cases at a time, 0: one
}

// Run plays cases and returns their results in order. Where compression is on every case is played with it.
func Run(ctx context.Context, cases []*Case, o Options) []Result {
	return playAll(cases, o.AtOnce, func(c *Case) Result { return o.one(ctx, c) })
}

// playAll plays cases with one, atOnce at a time, and returns the results in order.
func playAll(cases []*Case, atOnce int, one func(*Case) Result) []Result {
	results := make([]Result, len(cases))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range max(1, atOnce) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(cases); i = int(next.Add(1)) - 1 {
				results[i] = one(cases[i])
			}
		})
	}
	wg.Wait()
	return results
}

// one plays one case.
func (o *Options) one(ctx context.Context, c *Case) Result {
	offer := c.Offer
	if offer == "" && o.Deflate {
		offer = defaultOffer
	}
	if o.Never && c.Offer != "" {
		return Result{Case: c, Verdict: Unimplemented, Why: "the examined offers no compression"}
	}
	l, err := o.Open(ctx, offer)
	if err != nil {
		return Result{Case: c, Verdict: Failed, Ending: Unclean, Why: "open: " + err.Error()}
	}
	on := l.Socket.ext != nil
	played := *c
	if c.Offer != "" && !on { // a case without what it is about: the connection is still to end well
		played.Parts, played.End, played.Codes = parts(), ByTester, nil
	}
	res := run(&played, l.Socket)
	res.Case = c
	switch {
	case on != o.Deflate:
		res.Verdict, res.Why = Failed, fmt.Sprintf("compression negotiated: %t, configured: %t", on, o.Deflate)
	case c.Offer != "" && !on && res.Verdict == OK:
		res.Verdict, res.Why = Unimplemented, "compression is off"
	}
	if l.Far != nil {
		o.far(c, l, &res)
	}
	return res
}

// far adds what the client on the other side saw.
func (o *Options) far(c *Case, l *Link, res *Result) {
	code, err := l.Far()
	switch {
	case err != nil:
		res.Verdict, res.Why = Failed, "the client on the other side: "+err.Error()
	case code != c.far() && !c.Open:
		res.Verdict, res.Why = Failed, fmt.Sprintf("the client on the other side was closed with %d, want %d", code, c.far())
	}
}
