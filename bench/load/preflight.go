package load

import (
	"fmt"
	"math"
	"net/netip"
	"os"
	"strings"

	"ticketgate/bench"
)

// filesBeside is how many descriptors a worker needs besides its sockets.
const filesBeside = 200

// Preflight completes s.Procs and says whether this machine can do what s asks: one line about what is there, and a sentence, with
// what to do, for all that is not.
func (s *Settings) Preflight() (line string, missing []string, err error) {
	files, err := bench.Files()
	if err != nil {
		return "", nil, err
	}
	cores, err := bench.Cores()
	if err != nil {
		return "", nil, err
	}
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return "", nil, err
	}
	var low, high int
	if _, err := fmt.Sscan(string(b), &low, &high); err != nil {
		return "", nil, fmt.Errorf("/proc/sys/net/ipv4/ip_local_port_range: %w", err)
	}
	each := max(files-filesBeside-s.Lanes, 1)
	if s.Verb == Relay { // its backends have as many sockets, which the kernel spreads as it happens: six standard deviations are room enough
		each = max(each-int(6*math.Sqrt(float64(each))), 1)
	}
	if s.Procs == 0 {
		s.Procs = max(1, (s.Sockets+each-1)/each)
	}
	of := max(len(s.Sources), 1)
	ports := of * (high - low + 1)
	parts := []string{
		fmt.Sprintf("ports %s (%d source%s, %d)", okay(s.Sockets <= ports), of, plural(of), ports),
		fmt.Sprintf("files %s (%d a process)", okay(s.Sockets <= each*s.Procs), files),
		fmt.Sprintf("%d process%s, %d core%s", s.Procs, map[bool]string{true: "es"}[s.Procs != 1], len(cores), plural(len(cores))),
	}
	if s.Procs > len(cores) {
		parts = append(parts, "more processes than cores: they take turns")
	}
	if _, err := bench.OwnWait(); err != nil {
		parts = append(parts, "this kernel does not say how long processes wait for a core: a busy client may go unnoticed")
	}
	if note := s.whereNote(ports); note != "" {
		parts = append(parts, note)
	}
	if s.Sockets > ports {
		missing = append(missing, fmt.Sprintf("ports: %d sockets to one address need as many local ports, %d source%s %d: give --source with %d addresses, or widen net.ipv4.ip_local_port_range",
			s.Sockets, of, has(of), ports, (s.Sockets+high-low)/(high-low+1)))
	}
	if s.Sockets > each*s.Procs {
		missing = append(missing, fmt.Sprintf("files: a process may have %d descriptors: %d sockets need --procs %d, or ulimit -n %d",
			files, s.Sockets, (s.Sockets+each-1)/each, s.Sockets/s.Procs+files-each+1))
	}
	return strings.Join(parts, "  "), missing, nil
}

// timeWait is how long the kernel keeps the port of a connection that this side ended first.
const timeWait = 60 // seconds

// whereNote says what follows from where the server is; "": nothing does, or it cannot be told.
func (s *Settings) whereNote(ports int) string {
	host := s.apiHost()
	if s.Plain != "" {
		at, err := plainOf(s.Plain)
		if err != nil {
			return ""
		}
		host = at.host
	}
	address, err := resolve(host, "80")
	if err != nil { // Run says it
		return ""
	}
	at := netip.MustParseAddrPort(address).Addr()
	if local, err := isLocal(at); err == nil && local {
		return "server on the same host: results share its cores"
	}
	if s.Verb != Churn {
		return ""
	}
	// Of the ends of churn a FIN, and one within a message, are the client's.
	return fmt.Sprintf("churn runs out of ports beyond some %d sockets a second, each of which may keep its for %d s", ports*ends/2/timeWait, timeWait)
}

func okay(ok bool) string {
	if ok {
		return "ok"
	}
	return "too few"
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

func has(n int) string {
	if n == 1 {
		return " has"
	}
	return "s have"
}
