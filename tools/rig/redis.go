package rig

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Redis is a redis-server process for programs; tests have store/redistest. Its methods are for one goroutine.
type Redis struct {
	Addr  string // host:port; the same over Restart
	dir   string
	args  []string
	cmd   *exec.Cmd
	ended <-chan error // nil: it does not run
}

// StartRedis runs a server without persistence in the empty folder dir and returns when it answers. args are more of its
// command line: with "--appendonly", "yes" its data survive Restart.
func StartRedis(ctx context.Context, dir string, args ...string) (*Redis, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, errors.New("redis-server is not installed: apt-get install redis-server")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Redis{Addr: l.Addr().String(), dir: dir, args: args}
	if err := l.Close(); err != nil {
		return nil, err
	}
	if err := r.Restart(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// Restart runs the server that Stop has ended, or none yet, on its address and in its folder, and returns when it
// answers.
func (r *Redis) Restart(ctx context.Context) (err error) {
	_, port, _ := net.SplitHostPort(r.Addr)
	log := filepath.Join(r.dir, "log")
	r.cmd = exec.Command("redis-server", append([]string{"--bind", "127.0.0.1", "--port", port, "--dir", r.dir, "--save", "",
		"--maxmemory-policy", "noeviction", "--logfile", log}, r.args...)...)
	if r.ended, err = startChild(r.cmd); err != nil {
		r.ended = nil
		return err
	}
	if err := r.Answers(ctx); err != nil {
		text, _ := os.ReadFile(log)
		return fmt.Errorf("redis-server does not start: %w: %s", errors.Join(err, r.Stop()), text)
	}
	return nil
}

// Answers returns when the server answers.
func (r *Redis) Answers(ctx context.Context) error {
	for !r.ping() {
		select {
		case err := <-r.ended:
			r.ended = nil
			return fmt.Errorf("redis-server has ended: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
	}
	return nil
}

// Signal sends s to the server: SIGSTOP stops it in its tracks, SIGCONT lets it go on. Stop ends a stopped one, too.
func (r *Redis) Signal(s os.Signal) error { return r.cmd.Process.Signal(s) }

func (r *Redis) ping() bool {
	c, err := net.DialTimeout("tcp", r.Addr, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	if c.SetDeadline(time.Now().Add(time.Second)) != nil {
		return false
	}
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return err == nil && strings.HasPrefix(line, "+PONG") // else it is still reading its data
}

// Stop kills the server (SIGKILL), if it runs, and waits for it.
func (r *Redis) Stop() error {
	if r.ended == nil {
		return nil
	}
	if err := r.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	err := <-r.ended
	r.ended = nil
	if err == nil {
		return errors.New("redis-server ended by itself")
	}
	return nil // killed by us: how it ended says nothing
}
