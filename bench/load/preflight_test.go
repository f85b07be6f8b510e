package load

import (
	"errors"
	"os"
	"strings"
	"testing"

	"ticketgate/bench"
)

// Preflight says what a run's figures are worth before it is run.
func TestPreflightNotes(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Settings)
		says   string
		not    string
	}{
		{"here", func(*Settings) {}, "server on the same host", "take turns"},
		{"elsewhere", func(s *Settings) { s.Plain = "ws://192.0.2.1/" }, "1 process,", "same host"}, // TEST-NET-1 is nobody's
		{"more processes", func(s *Settings) { s.Procs, s.Sockets = 1000, 1000 }, "they take turns", "runs out"},
		{"churn here", func(s *Settings) { s.Verb, s.Sockets = Churn, 0 }, "same host", "runs out"},
		{"churn elsewhere", func(s *Settings) { s.Verb, s.Sockets, s.Plain = Churn, 0, "ws://192.0.2.1/" }, "churn runs out of ports", "same host"},
	} {
		s := plainEcho()
		c.change(&s)
		line, missing, err := s.Preflight()
		if err != nil || len(missing) != 0 || !strings.Contains(line, c.says) || strings.Contains(line, c.not) {
			t.Errorf("%s: %s, %q, %v", c.name, line, missing, err)
		}
	}
}

// What the lanes and the bad peers need counts too, and ports that are reserved do not.
func TestPreflightRefuses(t *testing.T) {
	files, err := bench.Files()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		change  func(*Settings)
		missing string // "": nothing
		says    string
	}{
		{"lanes", func(s *Settings) { s.Verb, s.Sockets, s.Lanes = Tickets, 0, files }, "and --lanes ", "files too few"},
		{"lanes that fit", func(s *Settings) { s.Verb, s.Sockets, s.Lanes = Tickets, 0, files-filesBeside-1 }, "", "files ok"},
		{"lanes of churn", func(s *Settings) { s.Verb, s.Sockets, s.Lanes, s.Procs = Churn, 0, 10_000, 40 }, "ports: 400000 sockets", "ports too few"},
		{"bad peers", func(s *Settings) { s.Attacks, s.Hostile = []string{"garbage"}, files }, "and --hostile ", "files too few"},
		{"ports of bad peers", func(s *Settings) { s.Attacks, s.Hostile = Attacks, 10_000 }, "ports: ", "ports too few"},
		{"relay", func(s *Settings) { s.Verb, s.Procs = Relay, 2 }, "", "4 processes"},
		{"attackers", func(s *Settings) { s.Verb, s.Attacks, s.Hostile = Hostile, Attacks[:2], 1 }, "", "3 processes"},
	} {
		s := plainEcho()
		c.change(&s)
		line, missing, err := s.Preflight()
		if all := strings.Join(missing, "\n"); err != nil || !strings.Contains(line, c.says) || c.missing == "" && all != "" || !strings.Contains(all, c.missing) {
			t.Errorf("%s: %s, %q, %v", c.name, line, missing, err)
		}
	}
}

func TestLocalPorts(t *testing.T) {
	for _, c := range []struct {
		reserved string
		want     int
		ok       bool
	}{{"", 101, true}, {"\n", 101, true}, {"80,1000,1010-1019,1095-1200", 101 - 1 - 10 - 6, true}, {"1-65535", 1, true}, {"x", 0, false}, {"-", 0, false}} {
		dir := t.TempDir()
		err := errors.Join(os.WriteFile(dir+"/ip_local_port_range", []byte("1000\t1100\n"), 0o600), os.WriteFile(dir+"/ip_local_reserved_ports", []byte(c.reserved), 0o600))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := localPorts(dir); got != c.want || (err == nil) != c.ok {
			t.Errorf("%q: %d, %v", c.reserved, got, err)
		}
	}
}
