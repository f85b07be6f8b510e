package redistest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// slots is how many hash slots a cluster has.
const slots = 16384

// A Cluster is a Redis Cluster of three primaries, with a third of the slots each, and a replica of each. Its methods fail the
// test themselves. Not for concurrent use.
type Cluster struct {
	Servers []*Server // the first three were the primaries at start; the replica of the n-th was the n+3-rd

	tb testing.TB
}

// StartCluster starts a Cluster and returns when all six agree on who serves what and the replicas have the data.
func StartCluster(tb testing.TB, options ...Option) *Cluster {
	tb.Helper()
	c := &Cluster{tb: tb}
	// A primary counts as gone after 2 s: less is too little for six servers on a busy machine.
	node := Args("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-replica-validity-factor", "0",
		"--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")
	for range 6 {
		c.Servers = append(c.Servers, Start(tb, append(options[:len(options):len(options)], node, func(s *Server) { s.bus = freePort(tb) })...))
	}
	for i, s := range c.Servers {
		s.must("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		if i < 3 {
			s.must("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(i*slots/3), strconv.Itoa((i+1)*slots/3-1))
		}
		if i > 0 {
			s.must("CLUSTER", "MEET", "127.0.0.1", c.Servers[0].port, c.Servers[0].bus)
		}
	}
	await(tb, "six nodes that know each other", func() bool { return c.all(func(s *Server) bool { return len(s.nodes()) == 6 }) })
	for i := range 3 {
		c.Servers[i+3].must("CLUSTER", "REPLICATE", c.Servers[i].ID())
	}
	await(tb, "a cluster that serves all slots, and three replicas with the data", func() bool {
		return c.all(func(s *Server) bool {
			replicas := 0
			for _, n := range s.nodes() {
				if strings.Contains(n[2], "slave") {
					replicas++
				}
			}
			info, _ := s.Do("INFO", "replication")
			text := fmt.Sprint(info)
			return replicas == 3 && s.healthy() && (strings.Contains(text, "state=online") || strings.Contains(text, "master_link_status:up"))
		})
	})
	return c
}

func (c *Cluster) all(is func(*Server) bool) bool {
	for _, s := range c.Servers {
		if !is(s) {
			return false
		}
	}
	return true
}

// healthy reports whether the server thinks that the cluster serves all slots.
func (s *Server) healthy() bool {
	v, err := s.Do("CLUSTER", "INFO")
	return err == nil && strings.Contains(fmt.Sprint(v), "cluster_state:ok")
}

// nodes are the fields of each line of CLUSTER NODES; none if the server does not answer.
func (s *Server) nodes() [][]string {
	v, err := s.Do("CLUSTER", "NODES")
	if err != nil {
		return nil
	}
	var out [][]string
	for line := range strings.Lines(fmt.Sprint(v)) {
		if f := strings.Fields(line); len(f) >= 8 {
			out = append(out, f)
		}
	}
	return out
}

// ID is the server's name in its cluster.
func (s *Server) ID() string {
	s.tb.Helper()
	return fmt.Sprint(s.must("CLUSTER", "MYID"))
}

// Addrs are all servers.
func (c *Cluster) Addrs() []string { return addrs(c.Servers) }

// Primary is the server that serves a slot, as all who answer say.
func (c *Cluster) Primary(slot int) *Server {
	c.tb.Helper()
	var found *Server
	await(c.tb, fmt.Sprintf("a primary of slot %d that all agree on", slot), func() bool {
		found = nil
		for _, s := range c.Servers {
			nodes := s.nodes()
			if nodes == nil {
				continue // it is down
			}
			owner := c.owner(nodes, slot)
			if owner == nil || found != nil && owner != found || !s.healthy() {
				return false
			}
			found = owner
		}
		return found != nil && found.role() == "master"
	})
	return found
}

// owner is who serves slot by what one server says.
func (c *Cluster) owner(nodes [][]string, slot int) *Server {
	for _, n := range nodes {
		if !strings.Contains(n[2], "master") || strings.Contains(n[2], "fail") {
			continue
		}
		for _, part := range n[8:] {
			low, high, _ := strings.Cut(part, "-")
			from, err := strconv.Atoi(low)
			to := from
			if high != "" {
				to, _ = strconv.Atoi(high)
			}
			if err == nil && from <= slot && slot <= to {
				return c.at(n[1])
			}
		}
	}
	return nil
}

// at is the server of a node's address, host:port@bus.
func (c *Cluster) at(address string) *Server {
	address, _, _ = strings.Cut(address, "@")
	for _, s := range c.Servers {
		if s.Addr() == address {
			return s
		}
	}
	return nil
}

// Failover makes a replica of the primary of slot the primary, with the old one's help, and returns it.
func (c *Cluster) Failover(slot int) *Server {
	c.tb.Helper()
	old := c.Primary(slot)
	id := old.ID()
	await(c.tb, "a replica that takes over", func() bool {
		for _, s := range c.Servers {
			for _, n := range s.nodes() {
				if strings.Contains(n[2], "myself") && n[3] == id {
					_, err := s.Do("CLUSTER", "FAILOVER")
					return err == nil
				}
			}
		}
		return false
	})
	return c.Follows(slot, old)
}

// Follows returns the primary of slot when another than old is.
func (c *Cluster) Follows(slot int, old *Server) *Server {
	c.tb.Helper()
	now := c.Primary(slot)
	await(c.tb, "another primary", func() bool {
		now = c.Primary(slot)
		return now != old
	})
	return now
}

// Migrate begins to move a slot from its primary to another: from then on the one sends who asks for a key that it has not
// to the other.
func (c *Cluster) Migrate(slot int, to *Server) {
	c.tb.Helper()
	from := c.Primary(slot)
	to.must("CLUSTER", "SETSLOT", strconv.Itoa(slot), "IMPORTING", from.ID())
	from.must("CLUSTER", "SETSLOT", strconv.Itoa(slot), "MIGRATING", to.ID())
}

// MoveKeys takes all keys of a slot that Migrate moves to its new place.
func (c *Cluster) MoveKeys(slot int, to *Server) int {
	c.tb.Helper()
	from := c.Primary(slot)
	keys := from.texts("CLUSTER", "GETKEYSINSLOT", strconv.Itoa(slot), "1000")
	if len(keys) == 0 {
		return 0
	}
	args := []string{"MIGRATE", "127.0.0.1", to.port, "", "0", "5000"}
	if from.secured {
		args = append(args, "AUTH2", adminUser, adminPassword)
	}
	from.must(append(append(args, "KEYS"), keys...)...)
	return len(keys)
}

// Settle ends what Migrate began: the slot is the new one's.
func (c *Cluster) Settle(slot int, to *Server) {
	c.tb.Helper()
	id := to.ID()
	from := c.Primary(slot)
	for _, s := range []*Server{to, from} {
		s.must("CLUSTER", "SETSLOT", strconv.Itoa(slot), "NODE", id)
	}
	await(c.tb, "the slot at its new place", func() bool { return c.Primary(slot) == to })
}
