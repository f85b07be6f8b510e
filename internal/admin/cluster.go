package admin

import (
	"fmt"
	"time"

	"ticketgate/store/node"
)

// Cluster is the node's place among those that share its store.
type Cluster struct {
	Mode        string  `json:"mode"`             // strict, available
	Authority   string  `json:"authority"`        // who spends tickets: store, node
	Reason      string  `json:"authority_reason"` // why it is that one
	Incarnation string  `json:"incarnation,omitempty"`
	Lease       float64 `json:"lease_seconds"` // left of it, by the node's own clock, which gives it up 2 s early; 0: none
	Failures    int     `json:"failures"`      // renewals without an answer that counts, in a row
	Failure     string  `json:"failure,omitempty"`
	Grace       bool    `json:"grace"`            // the store may have lost nodes, so none is taken for dead
	Issue       string  `json:"issue"`            // open, or why no tickets are issued
	Unasserted  int     `json:"unasserted"`       // tickets that this node has spent and the store has not acknowledged
	Excess      int     `json:"excess"`           // sockets by which limits may be exceeded now: those without a lease, or not told to the store
	Epochs      []Epoch `json:"epochs,omitempty"` // by shard
	Nodes       []Peer  `json:"nodes,omitempty"`  // those that the store knows, this one too
}

// Epoch is the history of one shard of the store as the node sees it.
type Epoch struct {
	Shard      uint16 `json:"shard"`
	Epoch      string `json:"epoch"`                // that tickets must have
	Registered bool   `json:"registered"`           // the node's counts stand there, and the list of nodes says so
	Issue      string `json:"issue_closed_because"` // "": it is open, while the lease holds
}

// Peer is one life of a node.
type Peer struct {
	Node        string  `json:"node"`
	Incarnation string  `json:"incarnation"`
	State       string  `json:"state"`         // alive, dead
	Lease       float64 `json:"lease_seconds"` // left of it; of the dead, how long ago it ended, as a negative number
}

// authorityReason is why tickets are spent where they are.
func authorityReason(authority string) string {
	if authority == "node" {
		return "each node has a public URL of its own, so who made a ticket opens it without asking"
	}
	return "every node can open every ticket, so one place decides"
}

// IssueOpen is Cluster.Issue while tickets are issued.
const IssueOpen = "open"

// authorityWhy is that in a word, for a label.
func authorityWhy(authority string) string {
	if authority == "node" {
		return "own-public-url"
	}
	return "any-node-opens"
}

func clusterOf(mode, authority string, s *node.Status) *Cluster {
	c := &Cluster{Mode: mode, Authority: authority, Reason: authorityReason(authority), Lease: seconds(s.Lease), Failures: s.Failures, Grace: s.Grace,
		Issue: IssueOpen, Unasserted: s.Unasserted, Excess: s.Excess}
	if s.Incarnation != 0 {
		c.Incarnation = hex(uint64(s.Incarnation))
	}
	if s.Why != nil && s.Failures > 0 {
		c.Failure = s.Why.Error()
	}
	if s.Closed != nil {
		c.Issue = s.Closed.Error()
	}
	for i := range s.Shards {
		x := &s.Shards[i]
		e := Epoch{Shard: uint16(x.Shard), Epoch: fmt.Sprintf("%08x", uint32(x.Epoch)), Registered: x.Able}
		if x.Closed != nil {
			e.Issue = x.Closed.Error()
		}
		c.Epochs = append(c.Epochs, e)
	}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		state := "alive"
		if n.Dead {
			state = "dead"
		}
		c.Nodes = append(c.Nodes, Peer{n.Name, hex(uint64(n.Incarnation)), state, seconds(n.Left)})
	}
	return c
}

func hex(n uint64) string { return fmt.Sprintf("%016x", n) }

// seconds is d in seconds, to the millisecond.
func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }
