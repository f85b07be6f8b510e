package load

import (
	"strings"
	"testing"
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
