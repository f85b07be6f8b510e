package rig

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Redis is a redis-server process for programs; tests have store/redistest.
type Redis struct {
	Addr  string // host:port
	dir   string
	cmd   *exec.Cmd
	ended <-chan error
}

// StartRedis runs a server without persistence in the empty folder dir and returns when it answers.
func StartRedis(ctx context.Context, dir string) (*Redis, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, errors.New("redis-server is not installed: apt-get install redis-server")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Redis{Addr: l.Addr().String(), dir: dir}
	if err := l.Close(); err != nil {
		return nil, err
	}
	if err := r.run(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// Restart runs the server again after Stop, at the same address and without any data.
func (r *Redis) Restart(ctx context.Context) error { return r.run(ctx) }

// Signal sends s to the server.
func (r *Redis) Signal(s os.Signal) error { return r.cmd.Process.Signal(s) }

func (r *Redis) run(ctx context.Context) (err error) {
	_, port, _ := net.SplitHostPort(r.Addr)
	dir := r.dir
	r.cmd = exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", dir, "--save", "",
		"--maxmemory-policy", "noeviction", "--logfile", dir+"/log")
	if r.ended, err = startChild(r.cmd); err != nil {
		return err
	}
	for {
		select {
		case err := <-r.ended:
			text, _ := os.ReadFile(dir + "/log")
			return fmt.Errorf("redis-server ended at its start: %w: %s", err, text)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), r.Stop())
		default:
			if r.ping() {
				return nil
			}
		}
	}
}

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
	return err == nil && strings.HasPrefix(line, "+PONG")
}

// Stop ends the server and waits for it.
func (r *Redis) Stop() error {
	if err := r.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if err := <-r.ended; err == nil {
		return errors.New("redis-server ended by itself")
	}
	return nil // killed by us: how it ended says nothing
}
