// Package redistest runs real redis-server processes for a test: one, a primary with replicas under Sentinel, or a Redis
// Cluster. Each is on a free loopback port, in a directory of its own, without persistence unless asked, and gone when the
// test is.
package redistest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"ticketgate/internal/porttest"
)

// A Server is one redis-server process. Its methods fail the test themselves. Not for concurrent use.
type Server struct {
	tb       testing.TB
	dir      string
	port     string
	bus      string   // port of the cluster bus, if it is a node of one
	args     []string // of redis-server, behind our own
	certs    *Certs   // it speaks TLS and nothing else
	secured  bool     // it has the users of WithACL
	sentinel string   // the configuration of a sentinel, which this is then
	cmd      *exec.Cmd
	gone     chan struct{} // closed when cmd has ended and was waited for
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
	tb.Cleanup(s.stop) // after TempDir's own: the process goes before its directory
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
	arguments, err := s.arguments(log)
	if err != nil {
		return err
	}
	s.cmd = exec.Command("redis-server", arguments...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.gone = make(chan struct{})
	started := make(chan error)
	go s.wait(started)
	if err := <-started; err != nil {
		return err
	}
	deadline := time.Now().Add(startWait)
	for time.Now().Before(deadline) {
		select {
		case <-s.gone:
			text, _ := os.ReadFile(log)
			return fmt.Errorf("ended at start: %s", text)
		default:
		}
		if answer, err := s.Do("PING"); err == nil && answer == "PONG" { // LOADING while it reads the append-only file
			return nil
		}
	}
	return errors.New("no answer to PING")
}

// startWait is how long a server may take to answer at first.
const startWait = 30 * time.Second

// arguments of redis-server. A sentinel keeps what it learns in its configuration file, and so needs one.
func (s *Server) arguments(log string) ([]string, error) {
	args := []string{"--bind", "127.0.0.1", "--dir", s.dir, "--logfile", log, "--daemonize", "no"}
	if s.certs == nil {
		args = append(args, "--port", s.port)
	} else {
		args = append(args, "--port", "0", "--tls-port", s.port, "--tls-replication", "yes", "--tls-cert-file", s.certs.serverCert,
			"--tls-key-file", s.certs.serverKey, "--tls-ca-cert-file", s.certs.CA, "--tls-auth-clients", "yes")
	}
	if s.bus != "" {
		args = append(args, "--cluster-port", s.bus)
		if s.certs != nil {
			args = append(args, "--tls-cluster", "yes")
		}
	}
	if s.sentinel == "" {
		return slices.Concat(args, []string{"--save", "", "--maxmemory-policy", "noeviction"}, s.args), nil
	}
	file := filepath.Join(s.dir, "sentinel.conf")
	if _, err := os.Stat(file); err != nil { // a restarted one goes on with what it knows
		if err := os.WriteFile(file, []byte(s.sentinel), 0o600); err != nil {
			return nil, err
		}
	}
	return slices.Concat([]string{file, "--sentinel"}, args), nil
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

// Addr is host:port of the server; it stays the same over Restart.
func (s *Server) Addr() string { return "127.0.0.1:" + s.port }

// URL is the server as the store's url setting names it, with the user of WithACL.
func (s *Server) URL() string {
	scheme, user := "redis://", ""
	if s.certs != nil {
		scheme = "rediss://"
	}
	if s.secured {
		user = User + ":" + Password + "@"
	}
	return scheme + user + s.Addr()
}

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
