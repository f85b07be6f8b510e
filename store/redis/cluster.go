package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// askMax is how many nodes of a cluster are asked at once who serves what.
const askMax = 16

// nodes find the primaries of a Redis Cluster.
type nodes struct {
	store *Store
	seeds []string

	// Owned by who calls find.
	asked several
	known []string // all nodes that were in the last answers, primaries first
}

// find asks nodes of the cluster. Each slot belongs to who claims it with the highest epoch, as among the nodes themselves: one
// that was cut off names the former primary, with a lower one.
func (f *nodes) find(ctx context.Context) (*view, error) {
	f.asked.dialler = &f.store.dialler
	asked := slices.Clone(f.known)
	for _, s := range f.seeds {
		if !slices.Contains(asked, s) {
			asked = append(asked, s)
		}
	}
	var c claims
	var problems []error
	for _, a := range f.asked.ask(ctx, asked[:min(len(asked), askMax)], "CLUSTER", "NODES") {
		text, err := "", a.err
		if err == nil {
			text, err = a.msg.ToString()
		}
		if err == nil {
			err = c.add(a.addr, text, f.store.dialler.tls != nil)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("node %s: %w", a.addr, err))
		}
	}
	v := c.view()
	if v == nil {
		return nil, errors.Join(append(problems, errors.New("no node that answers knows a primary with slots"))...)
	}
	f.known = c.addresses()
	return v, nil
}

func (f *nodes) watch(ctx context.Context, _ func()) { <-ctx.Done() } // MOVED tells
func (f *nodes) close()                              { f.asked.close() }

// claims are the answers of several nodes put together.
type claims struct {
	nodes []clusterNode // in the order in which they were heard of first
	owner [slotCount]claim
	any   bool
}

// claim is who serves a slot, as far as is known.
type claim struct {
	node  int // which of claims.nodes, and one more; 0: nobody
	epoch uint64
}

type clusterNode struct {
	addr   string
	master bool
}

// add reads the answer of the node at by. Its lines are: id, ip:port@bus,hostname, flags, its primary, ping, pong, epoch, link,
// slots.
func (c *claims) add(by, text string, secure bool) error {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 8 {
			return fmt.Errorf("a line of CLUSTER NODES that is none: %.100q", line)
		}
		flags := strings.Split(fields[2], ",")
		if slices.Contains(flags, "noaddr") || slices.Contains(flags, "handshake") {
			continue
		}
		addr, err := nodeAddress(fields[1], by, secure)
		if err != nil {
			return err
		}
		epoch, err := strconv.ParseUint(fields[6], 10, 64)
		if err != nil {
			return fmt.Errorf("epoch %q of a node: %w", fields[6], err)
		}
		// One that has failed keeps its slots until another claims them, so that a shard stays what it is through a failover.
		if err := c.claim(addr, slices.Contains(flags, "master"), slices.Contains(flags, "fail"), epoch, fields[8:]); err != nil {
			return err
		}
	}
	return nil
}

// claim enters what one line says.
func (c *claims) claim(addr string, master, failed bool, epoch uint64, slots []string) error {
	at := slices.IndexFunc(c.nodes, func(n clusterNode) bool { return n.addr == addr })
	if at < 0 {
		at = len(c.nodes)
		c.nodes = append(c.nodes, clusterNode{addr: addr})
	}
	if !master {
		return nil
	}
	c.nodes[at].master = c.nodes[at].master || !failed
	for _, part := range slots {
		if strings.HasPrefix(part, "[") { // one that is being moved: MOVED and ASK tell
			continue
		}
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		from, err1 := strconv.Atoi(low)
		to, err2 := strconv.Atoi(high)
		if err1 != nil || err2 != nil || from < 0 || to >= slotCount || from > to {
			return fmt.Errorf("slots %.20q of a node", part)
		}
		for slot := from; slot <= to; slot++ {
			if o := &c.owner[slot]; o.node == 0 || epoch > o.epoch {
				*o = claim{at + 1, epoch}
			}
		}
		c.any = true
	}
	return nil
}

// nodeAddress is where a node is dialled. ip is empty in the line of a node about itself, until it has heard it from others. With
// TLS a name that it announces stands in its certificate.
func nodeAddress(field, by string, secure bool) (string, error) {
	ipPort, rest, _ := strings.Cut(field, "@")
	colon := strings.LastIndexByte(ipPort, ':')
	if colon < 0 {
		return "", fmt.Errorf("address %.100q of a node", field)
	}
	host, port := ipPort[:colon], ipPort[colon+1:]
	if _, name, ok := strings.Cut(rest, ","); ok && secure {
		if name, _, _ = strings.Cut(name, ","); name != "" {
			host = name
		}
	}
	if host == "" {
		host, _, _ = net.SplitHostPort(by)
	}
	return net.JoinHostPort(host, port), nil
}

// view is what the claims come to; nil if nobody claims anything.
func (c *claims) view() *view {
	if !c.any {
		return nil
	}
	v := &view{slots: new([slotCount]int16)}
	place := make([]int16, len(c.nodes)) // of each node in v.masters, and one more
	enter := func(node int) int16 {
		if place[node] == 0 {
			v.masters = append(v.masters, c.nodes[node].addr)
			place[node] = int16(len(v.masters))
		}
		return place[node] - 1
	}
	for slot, o := range c.owner {
		v.slots[slot] = -1
		if o.node > 0 {
			v.slots[slot] = enter(o.node - 1)
		}
	}
	for i, n := range c.nodes {
		if n.master {
			enter(i)
		}
	}
	return v
}

// addresses are all nodes, primaries first.
func (c *claims) addresses() []string {
	var masters, others []string
	for _, n := range c.nodes {
		if n.master {
			masters = append(masters, n.addr)
		} else {
			others = append(others, n.addr)
		}
	}
	return append(masters, others...)
}
