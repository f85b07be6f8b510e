package redistest_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ticketgate/store/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ask sends one inline command and returns the first line of the answer, or what went wrong within wait.
func ask(addr, command string, wait time.Duration) (string, error) {
	c, err := net.DialTimeout("tcp", addr, wait)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(c, "%s\r\n", command); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

func want(t *testing.T, s *redistest.Server, command, answer string) {
	t.Helper()
	if got, err := ask(s.Addr(), command, 5*time.Second); err != nil || got != answer {
		t.Fatalf("%s: %q, %v, want %q", command, got, err, answer)
	}
}

func TestLife(t *testing.T) {
	s := redistest.Start(t)
	if s.URL() != "redis://"+s.Addr() {
		t.Errorf("url %s, address %s", s.URL(), s.Addr())
	}
	want(t, s, "SET a 1", "+OK")
	s.Pause()
	if got, err := ask(s.Addr(), "PING", 50*time.Millisecond); err == nil {
		t.Errorf("a paused server answered %q", got)
	}
	s.Continue()
	want(t, s, "EXISTS a", ":1")
	s.Kill()
	if got, err := ask(s.Addr(), "PING", time.Second); err == nil {
		t.Errorf("a killed server answered %q", got)
	}
	s.Restart()
	want(t, s, "EXISTS a", ":0")
}

func TestAOF(t *testing.T) {
	s := redistest.Start(t, redistest.WithAOF(), redistest.Args("--maxclients", "77"))
	want(t, s, "SET a 1", "+OK")
	s.Kill()
	s.Restart()
	want(t, s, "EXISTS a", ":1")
	if got, err := ask(s.Addr(), "CONFIG GET maxclients", time.Second); err != nil || got != "*2" {
		t.Errorf("config: %q, %v", got, err)
	}
}

// TestNothingStays: the server is gone with the test, even a paused one.
func TestNothingStays(t *testing.T) {
	var addr string
	t.Run("inner", func(t *testing.T) {
		s := redistest.Start(t, redistest.WithAOF())
		addr = s.Addr()
		s.Pause()
	})
	if got, err := ask(addr, "PING", time.Second); err == nil {
		t.Errorf("the server still answers %q", got)
	}
}
