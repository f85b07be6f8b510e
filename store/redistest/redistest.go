// Package redistest runs a real redis-server for a test: on a free loopback port, in a directory of its own, without
// persistence unless asked, and gone when the test is.
package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"ticketgate/internal/porttest"
)

// A Server is one redis-server process. Its methods fail the test themselves. Not for concurrent use.
type Server struct {
	tb   testing.TB
	dir  string
	port string
	args []string
	cmd  *exec.Cmd
	gone chan struct{} // closed when cmd has ended and was waited for
}

// An Option changes how the server is started.
type Option func(*Server)

// WithAOF makes the data survive Restart: every write is synced to an append-only file.
func WithAOF() Option {
	return Args("--appendonly", "yes", "--appendfsync", "always")
}

// Args adds command line arguments of redis-server, such as "--maxmemory", "8mb".
func Args(args ...string) Option {
	return func(s *Server) { s.args = append(s.args, args...) }
}

// startTries is how many free ports are tried: between finding one and using it another process may take it.
const startTries = 5

// Start starts a server and waits until it answers. tb's cleanup stops it; it also dies with the test process.
func Start(tb testing.TB, options ...Option) *Server {
	tb.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		tb.Fatal("redis-server is not installed: apt-get install redis-server")
	}
	s := &Server{tb: tb, dir: tb.TempDir()}
	for _, o := range options {
		o(s)
	}
	tb.Cleanup(s.stop)
	var err error
	for range startTries {
		s.port = freePort(tb)
		if err = s.run(); err == nil {
			return s
		}
	}
	tb.Fatalf("redis-server: %v", err)
	return nil
}

func freePort(tb testing.TB) string {
	tb.Helper()
	_, port, err := net.SplitHostPort(porttest.Free(tb))
	if err != nil {
		tb.Fatal(err)
	}
	return port
}

// run starts the process and returns when it has answered a PING.
func (s *Server) run() error {
	log := filepath.Join(s.dir, "log")
	s.cmd = exec.Command("redis-server", append([]string{
		"--bind", "127.0.0.1", "--port", s.port, "--dir", s.dir, "--logfile", log,
		"--save", "", "--daemonize", "no", "--maxmemory-policy", "noeviction",
	}, s.args...)...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.gone = make(chan struct{})
	started := make(chan error)
	go s.wait(started)
	if err := <-started; err != nil {
		return err
	}
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		select {
		case <-s.gone:
			text, _ := os.ReadFile(log)
			return fmt.Errorf("ended at start: %s", text)
		default:
		}
		if ping(s.Addr()) == nil {
			return nil
		}
	}
	return errors.New("no answer to PING in 10 s")
}

// wait starts the process and waits for its end, on one thread: Pdeathsig follows the thread that forked.
func (s *Server) wait(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(s.gone)
	err := s.cmd.Start()
	started <- err
	if err == nil {
		_ = s.cmd.Wait() // killed by us: how it ended says nothing
	}
}

// ping asks once on a new connection.
func ping(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "+PONG") {
		return fmt.Errorf("PING: %s", strings.TrimSpace(line)) // -LOADING while it reads the append-only file
	}
	return err
}

// Addr is host:port of the server; it stays the same over Restart.
func (s *Server) Addr() string { return "127.0.0.1:" + s.port }

// URL is the server as the store's url setting names it.
func (s *Server) URL() string { return "redis://" + s.Addr() }

// Pause stops the process in its tracks (SIGSTOP): connections stay open and nothing is answered.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Continue ends a Pause.
func (s *Server) Continue() { s.signal(syscall.SIGCONT) }

// Kill ends the process at once (SIGKILL) and waits until it is gone: connections are refused from then on.
func (s *Server) Kill() {
	s.tb.Helper()
	s.signal(syscall.SIGKILL)
	<-s.gone
}

// Restart starts the server again after Kill, on the same port. Without WithAOF it is empty.
func (s *Server) Restart() {
	s.tb.Helper()
	if err := s.run(); err != nil {
		s.tb.Fatalf("redis-server restart: %v", err)
	}
}

func (s *Server) signal(sig syscall.Signal) {
	s.tb.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.tb.Fatalf("redis-server: %v: %v", sig, err)
	}
}

// stop is the cleanup: whatever state the process is in, it is gone afterwards.
func (s *Server) stop() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Kill() // an error means that it has ended already
	<-s.gone
}
