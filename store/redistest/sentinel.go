package redistest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Master is what sentinels call the primary.
const Master = "tickets"

// A Replicated is a primary with two replicas and three sentinels that watch them and agree by two. Its methods fail the test
// themselves. Not for concurrent use.
type Replicated struct {
	Servers   []*Server // the first was the primary at start
	Sentinels []*Server

	tb testing.TB
}

// eventWait is how long anything that servers have to agree on may take, on a busy machine.
const eventWait = 60 * time.Second

// await returns when done says so, which it is asked every 20 ms.
func await(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(eventWait); !done(); <-tick.C {
		if time.Now().After(end) {
			tb.Fatalf("not within %v: %s", eventWait, what)
		}
	}
}

// StartSentinel starts a Replicated and returns when all three sentinels know all others and both replicas have the data.
func StartSentinel(tb testing.TB, options ...Option) *Replicated {
	tb.Helper()
	r := &Replicated{tb: tb}
	replication := Args("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--repl-timeout", "10")
	primary := Start(tb, append(options[:len(options):len(options)], replication)...)
	r.Servers = append(r.Servers, primary)
	for range 2 {
		of := Args("--replicaof", "127.0.0.1 "+primary.port)
		r.Servers = append(r.Servers, Start(tb, append(options[:len(options):len(options)], replication, of)...))
	}
	await(tb, "two replicas with the data", func() bool {
		v, err := primary.Do("INFO", "replication")
		return err == nil && strings.Count(fmt.Sprint(v), "state=online") == 2
	})
	for range 3 {
		r.Sentinels = append(r.Sentinels, Start(tb, func(s *Server) {
			s.sentinel, s.certs = r.configuration(primary), primary.certs
		}))
	}
	await(tb, "three sentinels that know each other and two replicas", func() bool {
		for _, s := range r.Sentinels {
			m := s.master()
			if m["num-slaves"] != "2" || m["num-other-sentinels"] != "2" || m["flags"] != "master" {
				return false
			}
		}
		return true
	})
	return r
}

// configuration is that of a sentinel. A primary counts as gone after half a second.
func (r *Replicated) configuration(primary *Server) string {
	lines := []string{
		fmt.Sprintf("sentinel monitor %s 127.0.0.1 %s 2", Master, primary.port),
		"sentinel down-after-milliseconds " + Master + " 500",
		"sentinel failover-timeout " + Master + " 5000",
		"sentinel parallel-syncs " + Master + " 2",
	}
	if primary.secured {
		lines = append(lines, "sentinel auth-user "+Master+" "+adminUser, "sentinel auth-pass "+Master+" "+adminPassword)
	}
	return strings.Join(lines, "\n") + "\n"
}

// master is what a sentinel knows of the primary.
func (s *Server) master() map[string]string {
	v, _ := s.Do("SENTINEL", "MASTER", Master)
	all, _ := v.([]any)
	m := make(map[string]string)
	for i := 0; i+1 < len(all); i += 2 {
		m[fmt.Sprint(all[i])] = fmt.Sprint(all[i+1])
	}
	return m
}

// Addrs are the sentinels.
func (r *Replicated) Addrs() []string { return addrs(r.Sentinels) }

func addrs(servers []*Server) []string {
	out := make([]string, len(servers))
	for i, s := range servers {
		out[i] = s.Addr()
	}
	return out
}

// Primary is the server that the sentinels, as many as answer, call the primary and that calls itself so.
func (r *Replicated) Primary() *Server {
	r.tb.Helper()
	var found *Server
	await(r.tb, "a primary that sentinels agree on", func() bool {
		ports := make(map[string]int)
		for _, s := range r.Sentinels {
			if m := s.master(); m["port"] != "" {
				ports[m["port"]]++
			}
		}
		for _, s := range r.Servers {
			if len(ports) == 1 && ports[s.port] > 0 && s.role() == "master" {
				found = s
				return true
			}
		}
		return false
	})
	return found
}

// Failover makes a replica the primary, with the old one's help to find the time, and returns it.
func (r *Replicated) Failover() *Server {
	r.tb.Helper()
	old := r.Primary()
	await(r.tb, "a failover that a sentinel begins", func() bool {
		v, err := r.Sentinels[0].Do("SENTINEL", "FAILOVER", Master) // NOGOODSLAVE while a replica links up, INPROG while one is under way
		return err == nil && v == "OK"
	})
	return r.Follows(old)
}

// Follows returns the primary when another than old is.
func (r *Replicated) Follows(old *Server) *Server {
	r.tb.Helper()
	now := r.Primary()
	await(r.tb, "another primary", func() bool {
		now = r.Primary()
		return now != old
	})
	return now
}
