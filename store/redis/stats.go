package redis

import (
	"errors"
	"time"

	"ticketgate/internal/stat"
	"ticketgate/ticket"
)

// op and label are the labels of the latency histograms.
type (
	op    uint8
	label uint8
)

const (
	opIssue op = iota
	opRedeem
	opAssert
	opAsk
	opRevoke
	opUsed
	opRenew
	opLease
	opPublish
	opCount
)

const (
	labelOK label = iota
	labelRefused
	labelError
	labelUnsent
	labelCount
)

var opNames = [opCount]string{"issue", "redeem", "assert", "ask", "revoke", "used", "renew", "lease", "publish"}

// ok: done as asked; refused: an answer that says no; error: no answer, it may have happened; unsent: not asked.
var labelNames = [labelCount]string{"ok", "refused", "error", "unsent"}

type stats [opCount][labelCount]stat.Histogram

// observe counts a call that ended with err, or with l if err is nil.
func (s *stats) observe(o op, l label, err error, took time.Duration) {
	var down *unavailable
	switch {
	case err == nil:
	case errors.Is(err, ticket.ErrLeaseLost), errors.Is(err, ticket.ErrStale):
		l = labelRefused
	case errors.As(err, &down) && !down.sent:
		l = labelUnsent
	default:
		l = labelError
	}
	s[o][l].Observe(took)
}

func issueLabel(r ticket.IssueResult) label {
	if r == ticket.IssueOK {
		return labelOK
	}
	return labelRefused
}

func redeemLabel(r ticket.RedeemResult) label {
	switch r {
	case ticket.RedeemOK:
		return labelOK
	case ticket.RedeemDoubt:
		return labelError
	case ticket.RedeemUnsent:
		return labelUnsent
	}
	return labelRefused
}

// Stats is the store's state at one moment.
type Stats struct {
	Up       bool // all primaries answer
	Degraded bool // not up, or a last answer was an error, such as out of memory or read-only
	Ops      []OpStats
}

// OpStats are the latencies of one operation with one result: "issue", "redeem" (each ticket of a batch counts), "assert"
// (a batch), "ask", "revoke", "used", "renew", "lease" (tokens of limits, a batch), "publish"; "ok", "refused", "error", "unsent".
type OpStats struct {
	Op, Result string
	Latency    stat.Snapshot
}

// Stats returns all pairs of op and result, in a fixed order. Any goroutine may call it.
func (s *Store) Stats() Stats {
	up := s.up()
	out := Stats{Up: up, Degraded: !up || s.refused.Load()}
	for o := range opCount {
		for l := range labelCount {
			n := OpStats{Op: opNames[o], Result: labelNames[l]}
			s.stats[o][l].Snapshot(&n.Latency)
			out.Ops = append(out.Ops, n)
		}
	}
	return out
}
