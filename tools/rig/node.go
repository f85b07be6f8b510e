// Package rig runs real gateways for the tests and programs that look at one from outside: it builds the binary, starts
// nodes on free loopback ports, asks for tickets and opens sockets. Every process it starts dies with its own.
package rig

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

var build struct {
	sync.Mutex
	done map[string]bool // paths
}

// buildMax is how long a build may take.
const buildMax = 9 * time.Minute

// raceExit is how a program ends that the race detector has found something in.
const raceExit = 66

// Race makes Binary build with the race detector, for which Go wants a C compiler. Set before the first call.
var Race bool

// Binary builds cmd/ticketgate with the given build tags, once for this process and each set of them, and returns its path.
// dir is where it is put.
func Binary(ctx context.Context, dir string, tags ...string) (string, error) {
	build.Lock()
	defer build.Unlock()
	path := filepath.Join(dir, strings.Join(append([]string{"ticketgate"}, tags...), "-"))
	if build.done[path] {
		return path, nil
	}
	// With an empty build cache it takes minutes, whatever the caller's patience with gateways is.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), buildMax)
	defer cancel()
	args := []string{"build", "-tags", strings.Join(tags, ","), "-o", path}
	if Race {
		args = append(args, "-race")
	}
	c := exec.CommandContext(ctx, "go", append(args, "./cmd/ticketgate")...)
	c.Dir = Root()
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build ticketgate: %w\n%s", err, out)
	}
	if build.done == nil {
		build.done = map[string]bool{}
	}
	build.done[path] = true
	return path, nil
}

// Root is the folder of the source tree that this program was built from.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Node is a running "ticketgate serve".
type Node struct {
	Handshake string // host:port of each listener
	Gate      string
	Admin     string
	Dir       string // holds its configuration

	cmd  *exec.Cmd
	log  *tail
	done chan struct{}
	err  error
}

// StartOptions say how to start a node.
type StartOptions struct {
	Binary string
	Dir    string            // an empty folder of its own, or that of a former process of the node
	Name   string            // of the node; empty: one that no other has, or what Config says of node
	Config string            // YAML; listeners on port 0
	Files  map[string]string // further files beside the configuration, by name
	Env    []string          // beside the process's own
	Limit  uint64            // RLIMIT_NOFILE of the node, 0: inherited
	Log    io.Writer         // gets all that the node logs, a whole line a call; nil: only its end is kept
}

// Start runs a node and returns when it takes connections.
func Start(ctx context.Context, o *StartOptions) (*Node, error) {
	for name, text := range o.Files {
		if err := os.WriteFile(filepath.Join(o.Dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(o.Dir, "ticketgate.yaml")
	if err := os.WriteFile(path, []byte(o.Config), 0o600); err != nil {
		return nil, err
	}
	args := []string{o.Binary, "serve", "--config", path, "--new-store"}
	if o.Limit > 0 {
		args = append([]string{"prlimit", fmt.Sprintf("--nofile=%d:%d", o.Limit, o.Limit)}, args...)
	}
	n := &Node{Dir: o.Dir, log: new(tail), done: make(chan struct{})}
	n.cmd = exec.Command(args[0], args[1:]...)
	n.cmd.Env = append(os.Environ(), "TICKETGATE_LOG__FORMAT=json")
	if name := o.name(); name != "" {
		n.cmd.Env = append(n.cmd.Env, "TICKETGATE_NODE__NAME="+name)
	}
	n.cmd.Env = append(n.cmd.Env, o.Env...)
	ready := make(chan struct{})
	n.cmd.Stderr = &follower{n: n, ready: ready, copy: o.Log}
	ended, err := startChild(n.cmd)
	if err != nil {
		return nil, err
	}
	go func() {
		n.err = <-ended
		close(n.done)
	}()
	select {
	case <-ready:
		return n, nil
	case <-n.done:
		return nil, fmt.Errorf("ticketgate ended before it was ready: %w\n%s", n.err, n.log)
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("ticketgate is not ready: %w\n%s", ctx.Err(), n.log), n.Kill())
	}
}

// name is what the node is called, "" if its configuration says that. Two nodes of the host's name would not serve together.
func (o *StartOptions) name() string {
	if o.Name != "" || strings.Contains("\n"+o.Config, "\nnode:") {
		return o.Name
	}
	return "rig-" + strings.ToLower(rand.Text())
}

// follower takes a node's log and learns the addresses from the line "serving".
type follower struct {
	n     *Node
	part  []byte
	ready chan struct{} // closed at that line; nil afterwards
	copy  io.Writer     // nil: none
}

// Write implements io.Writer, for one goroutine.
func (f *follower) Write(b []byte) (int, error) {
	f.part = append(f.part, b...)
	for {
		line, rest, whole := bytes.Cut(f.part, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		f.line(line)
		if f.copy != nil {
			if _, err := f.copy.Write(f.part[:len(line)+1]); err != nil {
				return 0, err
			}
		}
		f.part = bytes.Clone(rest)
	}
}

func (f *follower) line(line []byte) {
	f.n.log.add(line)
	var l struct{ Msg, Handshake, Gate, Admin string }
	if f.ready != nil && json.Unmarshal(line, &l) == nil && l.Msg == "serving" {
		f.n.Handshake, f.n.Gate, f.n.Admin = l.Handshake, l.Gate, l.Admin
		close(f.ready)
		f.ready = nil
	}
}

// PID is the node's process.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// Signal sends s to the node.
func (n *Node) Signal(s os.Signal) error { return n.cmd.Process.Signal(s) }

// Wait returns when the node has ended, with its exit error.
func (n *Node) Wait(ctx context.Context) error {
	select {
	case <-n.done:
		return n.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Kill ends the node at once and waits for it.
func (n *Node) Kill() error {
	if err := n.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-n.done
	return nil
}

// Stop asks the node to end, and ends it after 10 s.
func (n *Node) Stop() error {
	if err := n.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := n.Wait(ctx) // how it ended, Wait tells whoever asks
	if exit := (*exec.ExitError)(nil); Race && errors.As(err, &exit) && exit.ExitCode() == raceExit {
		return fmt.Errorf("the race detector ended it:\n%s", n.Log())
	}
	if ctx.Err() != nil {
		return errors.Join(errors.New("ticketgate did not end within 10 s"), n.Kill())
	}
	return nil
}

// Log is what the node has logged lately.
func (n *Node) Log() string { return n.log.String() }

// Logged waits up to a second for a line with text, which is not "", among the last of the log.
func (n *Node) Logged(ctx context.Context, text string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for text == "" || !strings.Contains(n.Log(), text) {
		select {
		case <-again.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// tail keeps the last lines of a log.
type tail struct {
	mu    sync.Mutex
	lines [][]byte
}

const tailLines = 400

func (t *tail) add(line []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == tailLines {
		t.lines = t.lines[1:]
	}
	t.lines = append(t.lines, bytes.Clone(line))
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.Join(t.lines, []byte("\n")))
}
