package load

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"strconv"
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
	local, err := localPorts("/proc/sys/net/ipv4")
	if err != nil {
		return "", nil, err
	}
	each := max(files-filesBeside-s.Lanes, 1)
	if s.Verb == Relay { // its backends have as many sockets, which the kernel spreads as it happens: six standard deviations are room enough
		each = max(each-int(6*math.Sqrt(float64(each))), 1)
	}
	if s.Procs == 0 {
		s.Procs = max(1, (s.Sockets+each-1)/each)
	}
	of := max(len(s.Sources), 1)
	ports := of * local
	sockets := s.atOnce()
	hold := s.Lanes+filesBeside < files && s.Sockets <= each*s.Procs && s.Hostile*min(len(s.Attacks), 1) <= files-filesBeside
	programs := s.processes()
	parts := []string{
		fmt.Sprintf("ports %s (%d source%s, %d)", okay(sockets <= ports), of, plural(of), ports),
		fmt.Sprintf("files %s (%d a process)", okay(hold), files),
		fmt.Sprintf("%d process%s, %d core%s", programs, map[bool]string{true: "es"}[programs != 1], len(cores), plural(len(cores))),
	}
	if programs > len(cores) {
		parts = append(parts, "more processes than cores: they take turns")
	}
	parts = append(parts, blind()...)
	if note := s.whereNote(ports); note != "" {
		parts = append(parts, note)
	}
	if sockets > ports {
		missing = append(missing, fmt.Sprintf("ports: %d sockets to one address need as many local ports, %d source%s %d: give --source with %d addresses, or widen net.ipv4.ip_local_port_range",
			sockets, of, has(of), ports, (sockets+local-1)/local))
	}
	switch {
	case s.Lanes+filesBeside >= files:
		missing = append(missing, fmt.Sprintf("files: a process may have %d descriptors, and --lanes %d and %d besides need more: give --lanes %d at most, or ulimit -n %d",
			files, s.Lanes, filesBeside, max(files-filesBeside-1, 1), s.Lanes+filesBeside+1))
	case len(s.Attacks) > 0 && s.Hostile > files-filesBeside:
		missing = append(missing, fmt.Sprintf("files: a process may have %d descriptors, and --hostile %d needs more: give %d at most, or ulimit -n %d",
			files, s.Hostile, max(files-filesBeside, 1), s.Hostile+filesBeside))
	case s.Sockets > each*s.Procs:
		missing = append(missing, fmt.Sprintf("files: a process may have %d descriptors: %d sockets need --procs %d, or ulimit -n %d",
			files, s.Sockets, (s.Sockets+each-1)/each, s.Sockets/s.Procs+files-each+1))
	}
	return strings.Join(parts, "  "), missing, nil
}

// blind says what this kernel does not tell.
func blind() []string {
	if _, err := bench.OwnWait(); err != nil {
		return []string{"this kernel does not say how long processes wait for a core: a busy client may go unnoticed"}
	}
	return nil
}

// atOnce is how many sockets to the gate there are at the same time, at most: each has a port.
func (s *Settings) atOnce() int {
	n := s.Sockets
	if !s.hasSockets() {
		n = s.Lanes * s.Procs
	}
	return n + s.Hostile*len(s.Attacks)
}

// processes is how many there are on this machine, with the backends of relay, of which each client has one, and the attackers.
func (s *Settings) processes() int {
	n := s.Procs + len(s.Attacks)
	if s.Verb == Relay {
		n += s.Procs
	}
	return n
}

// localPorts is how many ports an address has for connections that go out: those of the range, without what is reserved (ip-sysctl.rst).
func localPorts(dir string) (int, error) {
	b, err := os.ReadFile(dir + "/ip_local_port_range")
	if err != nil {
		return 0, err
	}
	var low, high int
	if _, err := fmt.Sscan(string(b), &low, &high); err != nil {
		return 0, fmt.Errorf("%s/ip_local_port_range: %w", dir, err)
	}
	n := high - low + 1
	b, err = os.ReadFile(dir + "/ip_local_reserved_ports")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	for part := range strings.SplitSeq(strings.TrimSpace(string(b)), ",") {
		if part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(first)
		to := from
		if err == nil && isRange {
			to, err = strconv.Atoi(last)
		}
		if err != nil {
			return 0, fmt.Errorf("%s/ip_local_reserved_ports: %w", dir, err)
		}
		n -= max(min(to, high)-max(from, low)+1, 0)
	}
	return max(n, 1), nil
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
	if local, err := isLocal(at); err == nil && local || len(s.PIDs) > 0 {
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
