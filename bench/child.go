package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	startWait = 10 * time.Second
	stopWait  = time.Minute
	pollEvery = 20 * time.Millisecond
	saidMax   = 2 << 10 // of what a child says on stderr: enough to explain a failure
)

// A Child is a server that the bench started, in a process of its own.
type Child struct {
	Process
	name string
	cmd  *exec.Cmd
	out  firstLine
	said tail
	end  chan struct{} // closed when the child is reaped
	err  error         // how it ended; valid after end
}

// AnyCore leaves a child on the cores that this process may use.
const AnyCore = -1

// Start runs program on one core, or AnyCore. The child is killed when the calling thread ends (PR_SET_PDEATHSIG goes by thread), so
// the caller must be a goroutine that is locked to the process's main thread.
func Start(core int, program string, args ...string) (*Child, error) {
	c := &Child{name: filepath.Base(program), cmd: exec.Command(program, args...), end: make(chan struct{})}
	c.out.got = make(chan string, 1)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.said
	if err := startOn(core, c.cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	c.PID = c.cmd.Process.Pid
	go func() { // Stop waits for it
		c.err = c.cmd.Wait()
		close(c.end)
	}()
	return c, nil
}

// startOn starts cmd with the cores that its Go runtime shall see: they are inherited from this thread.
func startOn(core int, cmd *exec.Cmd) error {
	if core == AnyCore {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, during unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("sched_getaffinity: %w", err)
	}
	during.Set(core)
	if err := unix.SchedSetaffinity(0, &during); err != nil {
		return fmt.Errorf("core %d: %w", core, err)
	}
	err := cmd.Start()
	return errors.Join(err, unix.SchedSetaffinity(0, &before))
}

// Address waits for the first line that the child prints.
func (c *Child) Address(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	select {
	case line := <-c.out.got:
		return line, nil
	case <-c.end:
		return "", c.died()
	case <-ctx.Done():
		return "", fmt.Errorf("%s prints no address: %w", c.name, ctx.Err())
	}
}

// Ready asks until ask has no error.
func (c *Child) Ready(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	again := time.NewTicker(pollEvery)
	defer again.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-c.end:
			return c.died()
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %s", c.name, err, c.said.text())
		}
	}
}

// Stop ends the child with SIGTERM, or SIGKILL after a minute, and reaps it. An error says that it did not end of that, or neither
// with 0 nor by the signal. Stopping again is harmless.
func (c *Child) Stop() error {
	if err := c.cmd.Process.Signal(unix.SIGTERM); err != nil {
		<-c.end // it ended before
		return c.died()
	}
	timeout := time.NewTimer(stopWait)
	defer timeout.Stop()
	select {
	case <-c.end:
	case <-timeout.C:
		err := c.cmd.Process.Kill()
		<-c.end
		return errors.Join(fmt.Errorf("%s did not end within %s of SIGTERM", c.name, stopWait), err)
	}
	var exit *exec.ExitError
	if errors.As(c.err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == unix.SIGTERM {
		return nil // a program that lets the signal end it
	}
	return c.died()
}

func (c *Child) died() error {
	if c.err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w: %s", c.name, c.err, c.said.text())
}

// firstLine keeps the first line that is written to it. One goroutine writes.
type firstLine struct {
	got  chan string
	part []byte
	done bool
}

// Write implements io.Writer.
func (f *firstLine) Write(b []byte) (int, error) {
	if f.done {
		return len(b), nil
	}
	f.part = append(f.part, b...)
	if line, _, ok := bytes.Cut(f.part, []byte("\n")); ok {
		f.done = true
		f.got <- string(line)
		f.part = nil
	}
	return len(b), nil
}

// tail keeps the last bytes that were written to it. Any goroutine may use it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	t.b = t.b[max(0, len(t.b)-saidMax):]
	return len(b), nil
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.b))
}
