package rig

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// Helper is a process of a test that is not the gateway: a backend, a crowd of clients. It is told what to do by lines on its
// standard input, answers by lines on its standard output, and ends when its input does.
type Helper struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string   // closed when its output ends
	log   *tail         // standard error
	done  chan struct{} // closed when it has ended
	err   error         // how, from then on
}

// StartHelper runs args with env beside this process's own environment. Stop ends it.
func StartHelper(env []string, args ...string) (*Helper, error) {
	h := &Helper{cmd: exec.Command(args[0], args[1:]...), lines: make(chan string, 1024), log: new(tail)}
	h.cmd.Env = append(h.cmd.Environ(), env...)
	h.cmd.Stderr = writerFunc(func(b []byte) { h.log.add(b) })
	var err error
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	read := make(chan struct{})
	go func() { // ends when the process has closed its output
		defer close(read)
		defer close(h.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			h.lines <- s.Text()
		}
	}()
	ended, err := startChild(h.cmd, read)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	h.done = make(chan struct{})
	go func() { // ends with the process
		h.err = <-ended
		close(h.done)
	}()
	return h, nil
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) {
	f(b)
	return len(b), nil
}

// PID is the helper's process; of one that a wrapper started, the wrapper's unless that became it (exec).
func (h *Helper) PID() int { return h.cmd.Process.Pid }

// Tell writes one line to the helper.
func (h *Helper) Tell(format string, args ...any) error {
	_, err := fmt.Fprintf(h.in, format+"\n", args...)
	return err
}

// Hear returns the helper's next line.
func (h *Helper) Hear(ctx context.Context) (string, error) {
	select {
	case line, ok := <-h.lines:
		if !ok {
			return "", fmt.Errorf("the helper has ended: %s", h.log)
		}
		return line, nil
	case <-ctx.Done():
		return "", fmt.Errorf("the helper says nothing: %w: %s", ctx.Err(), h.log)
	}
}

// helperMax is how long a helper may take to end.
const helperMax = 10 * time.Second

// Stop ends the helper by the end of its input, or kills it after 10 s, and returns its last lines.
func (h *Helper) Stop() (last []string, err error) {
	if err := h.in.Close(); err != nil {
		return nil, errors.Join(err, h.Kill())
	}
	late := time.NewTimer(helperMax)
	defer late.Stop()
	for {
		select {
		case line, ok := <-h.lines:
			if !ok {
				if <-h.done; h.err != nil {
					return last, fmt.Errorf("helper: %w: %s", h.err, h.log)
				}
				return last, nil
			}
			last = append(last, line)
		case <-late.C:
			return last, errors.Join(fmt.Errorf("the helper did not end within %v: %s", helperMax, h.log), h.Kill())
		}
	}
}

// Kill ends the helper at once, unless it has ended, and waits for it. How it ended says nothing then.
func (h *Helper) Kill() error {
	err := h.cmd.Process.Kill()
	for range h.lines { // what it had said
	}
	<-h.done
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
